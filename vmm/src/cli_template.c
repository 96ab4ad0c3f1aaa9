// SPDX-License-Identifier: MIT
/* s2vm template: what there is of frozen guests. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "cli_template.h"
#include "report.h"
#include "template.h"

#define SECOND_NS UINT64_C(1000000000)

enum key {
	KEY_TEMPLATES = 0x100,
	KEY_JSON,
	KEY_NO_HEADERS,
};

struct template_options {
	struct cli_template_place place;
	const char *name;
	bool json;
	bool no_headers;
};

static const struct argp_option where_options[] = {
	{ "templates", KEY_TEMPLATES, "DIR", 0,
	  "Where templates are ($" TEMPLATE_ENVIRONMENT ", or " TEMPLATE_DIRECTORY ")", 0 },
	{ 0 },
};

static error_t parse_where(int key, char *text, struct argp_state *state)
{
	struct cli_template_place *place = state->input;

	if (key == KEY_TEMPLATES)
		place->directory = text;
	return key == KEY_TEMPLATES ? 0 : ARGP_ERR_UNKNOWN;
}

static const struct argp where_argp = { .options = where_options, .parser = parse_where };

const struct argp_child cli_template_place_options[] = { { &where_argp, 0, NULL, 0 }, { 0 } };

static error_t parse_inputs(int key, struct argp_state *state)
{
	struct template_options *options = state->input;

	state->child_inputs[0] = &options->place;
	return key == ARGP_KEY_INIT ? 0 : ARGP_ERR_UNKNOWN;
}

/* ---- list ---- */

static const struct argp_option list_options[] = {
	{ "json", KEY_JSON, NULL, 0, "Print one JSON object", 0 },
	{ "no-headers", KEY_NO_HEADERS, NULL, 0, "Print no headings", 0 },
	{ 0 },
};

static error_t parse_list(int key, char *text, struct argp_state *state)
{
	struct template_options *options = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		return parse_inputs(key, state);
	case KEY_JSON:
		options->json = true;
		return 0;
	case KEY_NO_HEADERS:
		options->no_headers = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument \"%s\"", text);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* UTC, as ISO 8601 has it. */
static const char *time_text(uint64_t ns, char *text, size_t size)
{
	time_t seconds = (time_t)(ns / SECOND_NS);
	struct tm when;

	if (!gmtime_r(&seconds, &when) || !strftime(text, size, "%Y-%m-%dT%H:%M:%SZ", &when))
		snprintf(text, size, "-");
	return text;
}

static json_t *info_json(const struct template_info *info)
{
	return json_pack("{s:s, s:b, s:I, s:I, s:I, s:s}", "name", info->name, "usable",
			 !info->problem[0], "created_ns", (json_int_t)info->created_ns,
			 "memory_bytes", (json_int_t)info->memory_bytes, "disk_bytes",
			 (json_int_t)info->disk_bytes, "problem", info->problem);
}

static void print_json(const char *directory, const struct template_info *infos, size_t count)
{
	json_t *templates = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(templates, info_json(&infos[i]));
	report_json(json_pack("{s:s, s:s, s:o}", "schema", "s2vm-templates-1", "directory",
			      directory, "templates", templates));
}

static void print_info(const struct template_info *info)
{
	char created[32], memory[16], disk[16];

	if (info->problem[0])
		printf("%-24s  unusable: %s\n", info->name, info->problem);
	else
		printf("%-24s  %-20s  %9s  %9s\n", info->name,
		       time_text(info->created_ns, created, sizeof(created)),
		       report_bytes(info->memory_bytes, memory),
		       report_bytes(info->disk_bytes, disk));
}

static void print_table(const struct template_info *infos, size_t count, bool headers)
{
	if (headers && count)
		printf("%-24s  %-20s  %9s  %9s\n", "name", "created", "memory", "on disk");
	for (size_t i = 0; i < count; i++)
		print_info(&infos[i]);
}

static int list(int argc, char **argv)
{
	const struct argp argp = {
		.options = list_options,
		.parser = parse_list,
		.children = cli_template_place_options,
		.doc = "Lists templates. Their memory is not read: verify does that.\v"
		       "Exit status: 0 done, 1 if the directory cannot be read.",
	};
	struct template_options options = { 0 };
	struct template_info *infos;
	const char *directory;
	struct error error;
	size_t count;

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	directory = template_directory(options.place.directory);
	if (!template_list(directory, &infos, &count, &error)) {
		free(infos);
		return error_print(&error);
	}
	if (options.json)
		print_json(directory, infos, count);
	else
		print_table(infos, count, !options.no_headers);
	free(infos);
	return EXIT_DONE;
}

/* ---- those that work on one template ---- */

static error_t parse_named(int key, char *text, struct argp_state *state)
{
	struct template_options *options = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		return parse_inputs(key, state);
	case ARGP_KEY_ARG:
		if (options->name)
			argp_error(state, "unexpected argument \"%s\"", text);
		options->name = text;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "the name of a template is needed");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int remove_template(int argc, char **argv)
{
	const struct argp argp = {
		.parser = parse_named,
		.children = cli_template_place_options,
		.args_doc = "NAME",
		.doc = "Removes a template, also one that cannot be used any more.\v"
		       "Exit status: 0 done, 1 if it is in use, 2 for wrong usage or what is no "
		       "template, 4 if there is none.",
	};
	struct template_options options = { 0 };
	struct error error;

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	if (!template_remove(template_directory(options.place.directory), options.name, &error))
		return error_print(&error);
	return EXIT_DONE;
}

static int verify(int argc, char **argv)
{
	const struct argp argp = {
		.parser = parse_named,
		.children = cli_template_place_options,
		.args_doc = "NAME",
		.doc = "Reads a template, whole, and compares it with its checksums. One that was copied "
		       "is opened faster from then on.\v"
		       "Exit status: 0 if it is as it was made, 2 if not, 4 if there is none.",
	};
	struct template_options options = { 0 };
	struct template template;
	struct error error;
	bool good;

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	if (!template_open(&template, template_directory(options.place.directory), options.name, &error))
		return error_print(&error);
	good = template_verify(&template, &error);
	template_close(&template);
	return good ? EXIT_DONE : error_print(&error);
}

/* ---- all of them ---- */

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} subcommands[] = {
	{ "create", cli_template_create, "boot a guest and freeze it" },
	{ "list", list, "list templates" },
	{ "verify", verify, "read one and compare it with its checksums" },
	{ "remove", remove_template, "remove one that nobody uses" },
};

#define SUBCOMMANDS (sizeof(subcommands) / sizeof(subcommands[0]))

static void print_help(FILE *to)
{
	fprintf(to, "Usage: s2vm template SUBCOMMAND [OPTION...]\n\n"
		    "Templates are frozen guests.\n\nSubcommands:\n");
	for (size_t i = 0; i < SUBCOMMANDS; i++)
		fprintf(to, "  %-8s %s\n", subcommands[i].name, subcommands[i].summary);
	fprintf(to, "\n\"s2vm template SUBCOMMAND --help\" describes a subcommand's options.\n");
}

static int run_subcommand(size_t number, int argc, char **argv)
{
	char name[48];

	snprintf(name, sizeof(name), "s2vm template %s", subcommands[number].name);
	argv[0] = name;
	return subcommands[number].run(argc, argv);
}

int cli_template(int argc, char **argv)
{
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)) {
		print_help(stdout);
		return EXIT_DONE;
	}
	for (size_t i = 0; argc > 1 && i < SUBCOMMANDS; i++)
		if (strcmp(argv[1], subcommands[i].name) == 0)
			return run_subcommand(i, argc - 1, argv + 1);
	if (argc > 1)
		fprintf(stderr, "s2vm: no subcommand named \"%s\"; see s2vm template --help\n",
			argv[1]);
	else
		print_help(stderr);
	return EXIT_INPUT;
}
