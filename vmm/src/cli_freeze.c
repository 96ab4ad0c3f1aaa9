// SPDX-License-Identifier: MIT
/* s2vm freeze and s2vm reset: moments of a guest that another process runs. */
#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "control.h"
#include "options.h"
#include "report.h"
#include "template.h"

enum key {
	KEY_NAME = 0x100,
	KEY_TEMPLATES,
	KEY_JSON,
};

struct guest_options {
	uint64_t pid;
	uint64_t guest;
	const char *name; /* of a template; NULL for none */
	const char *templates;
	bool json;
};

static const struct argp_option freeze_table[] = {
	{ "name", KEY_NAME, "NAME", 0, "Make a template of it", 0 },
	{ "templates", KEY_TEMPLATES, "DIR", 0,
	  "Where templates are ($" TEMPLATE_ENVIRONMENT ", or " TEMPLATE_DIRECTORY ")", 0 },
	{ "json", KEY_JSON, NULL, 0, "Print one JSON object", 0 },
	{ 0 },
};

static const struct argp_option reset_table[] = {
	{ "json", KEY_JSON, NULL, 0, "Print one JSON object", 0 },
	{ 0 },
};

static void parse_argument(struct guest_options *options, const char *text,
			   struct argp_state *state)
{
	struct error error;
	bool good;

	if (state->arg_num == 0)
		good = option_number(text, "PID", 1, INT_MAX, &options->pid, &error);
	else if (state->arg_num == 1)
		good = option_number(text, "GUEST", 0, INT_MAX, &options->guest, &error);
	else
		good = error_set(&error, EXIT_INPUT, "unexpected argument \"%s\"", text);
	if (!good)
		argp_error(state, "%s", error.text);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct guest_options *options = state->input;

	switch (key) {
	case KEY_NAME:
		options->name = text;
		return 0;
	case KEY_TEMPLATES:
		options->templates = text;
		return 0;
	case KEY_JSON:
		options->json = true;
		return 0;
	case ARGP_KEY_ARG:
		parse_argument(options, text, state);
		return 0;
	case ARGP_KEY_END:
		if (state->arg_num < 2)
			argp_error(state,
				   "the process ID of an s2vm run and the number of a guest are needed");
		if (options->templates && !options->name)
			argp_error(state, "--templates says where a template is to be: add --name");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* The fleet may have another working directory. */
static char *absolute(const char *path)
{
	char *here, *whole;

	if (path[0] == '/')
		return strdup(path);
	here = getcwd(NULL, 0);
	if (!here || asprintf(&whole, "%s/%s", here, path) < 0)
		whole = NULL;
	free(here);
	return whole;
}

static json_t *request_of(const char *command, const struct guest_options *options)
{
	json_t *request = json_pack("{s:s, s:I}", "command", command, "guest",
				    (json_int_t)options->guest);
	char *directory;

	if (!options->name)
		return request;
	directory = absolute(template_directory(options->templates));
	if (!directory || json_object_set_new(request, "template", json_string(options->name)) ||
	    json_object_set_new(request, "templates", json_string(directory))) {
		json_decref(request);
		request = NULL;
	}
	free(directory);
	return request;
}

static bool ask(int fd, json_t *request, struct error *error)
{
	struct control_input input = { .fd = fd };
	json_t *answer;
	bool done;

	if (!control_send(fd, request, error))
		return false;
	answer = control_receive(&input, error);
	if (!answer)
		return false;
	done = json_is_true(json_object_get(answer, "done"));
	json_decref(answer);
	return done || error_set(error, EXIT_FAILED, "the fleet does not say that it is done");
}

static bool connect_and_ask(const char *command, const struct guest_options *options,
			    struct error *error)
{
	json_t *request = request_of(command, options);
	bool done;
	int fd;

	if (!request)
		return error_set(error, EXIT_INPUT, "the name %s, or its directory's, is no text",
				 options->name);
	fd = control_connect((int)options->pid, error);
	if (fd < 0) {
		json_decref(request);
		return false;
	}
	done = ask(fd, request, error);
	close(fd);
	return done;
}

/* @schema is of what is printed for programs, @said what people read. */
static void print(const char *schema, const char *said, const struct guest_options *options)
{
	json_t *report;

	if (!options->json) {
		printf("guest %llu of process %llu: %s%s%s\n", (unsigned long long)options->guest,
		       (unsigned long long)options->pid, said, options->name ? ", template " : "",
		       options->name ? options->name : "");
		return;
	}
	report = json_pack("{s:s, s:I, s:I}", "schema", schema, "pid", (json_int_t)options->pid,
			   "guest", (json_int_t)options->guest);
	if (options->name)
		json_object_set_new(report, "template", json_string(options->name));
	report_json(report);
}

#define STATUSES                                                                                  \
	"Exit status: 0 done, 1 if it failed, 2 for wrong usage or a guest that cannot do that, "  \
	"4 if there is no such fleet or guest, 6 if the guest has ended."

int cli_freeze(int argc, char **argv)
{
	const struct argp argp = {
		.options = freeze_table,
		.parser = parse,
		.args_doc = "PID GUEST",
		.doc = "Freezes what guest number GUEST of the fleet that process PID runs is now, and lets "
		       "it go on. From then on \"s2vm reset\" takes it back to there.\v" STATUSES,
	};
	struct guest_options options = { 0 };
	struct error error;

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	if (!connect_and_ask("freeze", &options, &error))
		return error_print(&error);
	print("s2vm-freeze-1", "frozen", &options);
	return EXIT_DONE;
}

int cli_reset(int argc, char **argv)
{
	const struct argp argp = {
		.options = reset_table,
		.parser = parse,
		.args_doc = "PID GUEST",
		.doc = "Takes guest number GUEST of the fleet that process PID runs back to where it was "
		       "frozen last, or began as a clone of a template.\v" STATUSES,
	};
	struct guest_options options = { 0 };
	struct error error;

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	if (!connect_and_ask("reset", &options, &error))
		return error_print(&error);
	print("s2vm-reset-1", "back where it was frozen", &options);
	return EXIT_DONE;
}
