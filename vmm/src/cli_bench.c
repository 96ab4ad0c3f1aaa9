// SPDX-License-Identifier: MIT
/* s2vm bench: what sharing saves, measured. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "bench_engine.h"
#include "cli.h"
#include "options.h"

enum option_key {
	KEY_GUESTS = 'n',
	KEY_FILE = 'f',
	KEY_SIZE = 'm',
	KEY_ENGINE = 0x100,
	KEY_ENTRIES,
	KEY_JSON,
	KEY_OUTPUT,
	KEY_POINTS,
	KEY_PROGRESS,
};

static const struct argp_option option_table[] = {
	{ "guests", KEY_GUESTS, "N", 0, "How many guests of each kind (64)", 0 },
	{ "size", KEY_SIZE, "SIZE", 0, "Size of the file that guests read (64M)", 0 },
	{ "file", KEY_FILE, "FILE", 0, "The file (one that is made up)", 0 },
	{ "entries", KEY_ENTRIES, "auto|4K|2M", 0,
	  "How large the table entries for the file are (auto: as its pages)", 0 },
	{ "engine", KEY_ENGINE, "auto|direct|svm|vmx", 0, "How guests are run (auto)", 0 },
	{ "json", KEY_JSON, NULL, 0, "Print one JSON object instead of a table", 0 },
	{ "output", KEY_OUTPUT, "FILE", 0, "Write the JSON object to a file too", 0 },
	{ "points", KEY_POINTS, "FILE", 0, "Write table memory by number of guests to a file", 0 },
	{ "progress", KEY_PROGRESS, NULL, 0, "Show progress even where there is no terminal", 0 },
	{ 0 }
};

static bool set_engine(struct bench_options *options, const char *text, struct error *error)
{
	if (!engine_parse(text, &options->engine))
		return error_set(error, EXIT_INPUT,
				 "--engine is auto, direct, svm or vmx, not \"%s\"", text);
	return true;
}

static bool set_entries(struct bench_options *options, const char *text, struct error *error)
{
	unsigned place;

	if (!option_name(text, "--entries", option_entries, &place, error))
		return false;
	options->entries = (enum fleet_entries)place;
	return true;
}

static bool set_option(struct bench_options *options, int key, char *text, struct error *error)
{
	switch (key) {
	case KEY_GUESTS:
		return option_number(text, "--guests", 1, 1000000, &options->guests, error);
	case KEY_SIZE:
		return option_size(text, "--size", &options->size, error);
	case KEY_ENTRIES:
		return set_entries(options, text, error);
	default:
		return set_engine(options, text, error);
	}
}

static void set_argument(struct argp_state *state, const char *text)
{
	struct bench_options *options = state->input;

	if (strcmp(text, "engine") == 0)
		options->kind = BENCH_ENGINE;
	else if (strcmp(text, "fleet") != 0)
		argp_error(state, "no benchmark named \"%s\"; there are \"fleet\" and \"engine\"",
			   text);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct bench_options *options = state->input;
	struct error error;

	switch (key) {
	case KEY_GUESTS:
	case KEY_SIZE:
	case KEY_ENGINE:
	case KEY_ENTRIES:
		options->fleet_only = true;
		if (!set_option(options, key, text, &error))
			argp_error(state, "%s", error.text);
		break;
	case KEY_FILE:
		options->fleet_only = true;
		options->file = text;
		break;
	case KEY_OUTPUT:
		options->output = text;
		break;
	case KEY_POINTS:
		options->fleet_only = true;
		options->points = text;
		break;
	case KEY_JSON:
		options->json = true;
		break;
	case KEY_PROGRESS:
		options->progress = true;
		break;
	case ARGP_KEY_ARG:
		set_argument(state, text);
		break;
	case ARGP_KEY_SUCCESS:
		if (options->kind == BENCH_ENGINE && options->fleet_only)
			argp_error(state, "\"engine\" knows --json and --output only");
		break;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "which benchmark? There are \"fleet\" and \"engine\"");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static bool report(const struct bench_result *result, const struct bench_options *options,
		   struct error *error)
{
	if (!options->json)
		bench_print(result);
	return bench_write_json(result, options, error) &&
	       (!options->points || bench_write_points(result, options->points, error));
}

static int run_fleet(const struct bench_options *options)
{
	struct bench_result result;
	struct error error;
	int status = EXIT_DONE;

	if (!bench_fleet(options, &result, &error) || !report(&result, options, &error))
		status = error_print(&error);
	else if (!bench_digests_ok(&result))
		status = EXIT_FAILED;
	bench_free(&result);
	return status;
}

static int run_engine(const struct bench_options *options)
{
	struct bench_engine_result result;
	struct error error;

	if (!bench_engine(&result, &error))
		return error_print(&error);
	if (!options->json)
		bench_engine_print(&result);
	return bench_engine_write_json(&result, options, &error) ? EXIT_DONE : error_print(&error);
}

int cli_bench(int argc, char **argv)
{
	const struct argp argp = {
		.options = option_table,
		.parser = parse,
		.args_doc = "fleet|engine",
		.doc = "fleet: runs the same guests with shared tables, with private tables and as one KVM VM "
		       "each, and says what each took.\n"
		       "engine: times the operations on tables alone, in plain memory and one thread, without "
		       "KVM; of the options only --json and --output are for it.\v"
		       "Exit status: 0, 1 if guests saw wrong contents, 2 for wrong usage or input, "
		       "5 if this host cannot run a fleet.",
	};
	struct bench_options options = { .guests = 64, .size = UINT64_C(64) << 20 };

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	return options.kind == BENCH_ENGINE ? run_engine(&options) : run_fleet(&options);
}
