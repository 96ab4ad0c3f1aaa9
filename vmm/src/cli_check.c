// SPDX-License-Identifier: MIT
/* s2vm check: looks whether the tables of a fleet that runs are what they should be. */
#include <argp.h>
#include <limits.h>
#include <unistd.h>

#include "cli.h"
#include "control.h"
#include "findings.h"
#include "options.h"
#include "report.h"

#define KEY_JSON 0x100

struct check_options {
	uint64_t pid;
	bool json;
};

static const struct argp_option option_table[] = {
	{ "json", KEY_JSON, NULL, 0, "Print one JSON object", 0 },
	{ 0 },
};

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct check_options *options = state->input;
	struct error error;

	switch (key) {
	case KEY_JSON:
		options->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (options->pid)
			argp_error(state, "unexpected argument \"%s\"", text);
		if (!option_number(text, "PID", 1, INT_MAX, &options->pid, &error))
			argp_error(state, "%s", error.text);
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "the process ID of an s2vm run is needed");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static uint64_t number(const json_t *answer, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(answer, name));
}

/* Takes an answer; true if it was the last one. */
static bool take_answer(struct findings *findings, json_t *answer)
{
	json_t *text = json_object_get(answer, "violation");

	if (json_is_string(text))
		json_array_append(findings->texts, text);
	findings->tables = number(answer, "tables");
	findings->spaces = number(answer, "spaces");
	findings->violations = number(answer, "violations");
	return json_is_true(json_object_get(answer, "done"));
}

static bool ask(int fd, struct findings *findings, struct error *error)
{
	struct control_input input = { .fd = fd };
	bool done = false;

	if (!control_send(fd, json_pack("{s:s}", "command", "check"), error))
		return false;
	while (!done) {
		json_t *answer = control_receive(&input, error);

		if (!answer)
			return false;
		done = take_answer(findings, answer);
		json_decref(answer);
	}
	return true;
}

static void print_json(const struct findings *findings, uint64_t pid)
{
	json_t *report = json_pack("{s:s, s:I}", "schema", "s2vm-check-1", "pid", (json_int_t)pid);
	json_t *members = findings_json(findings);

	json_object_update(report, members);
	json_decref(members);
	report_json(report);
}

int cli_check(int argc, char **argv)
{
	const struct argp argp = {
		.options = option_table,
		.parser = parse,
		.args_doc = "PID",
		.doc = "Pauses the fleet that process PID runs, looks at all of its tables, and lets it go "
		       "on.\v"
		       "Exit status: 0 if no invariant is violated, 1 if the fleet could not be asked, "
		       "4 if there is no such fleet, 7 if an invariant is violated.",
	};
	struct check_options options = { 0 };
	struct findings findings = { 0 };
	struct error error;
	bool asked;
	int fd;

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	fd = control_connect((int)options.pid, &error);
	if (fd < 0)
		return error_print(&error);
	findings.texts = json_array();
	asked = ask(fd, &findings, &error);
	close(fd);
	if (asked && options.json)
		print_json(&findings, options.pid);
	else if (asked)
		findings_print(&findings, "");
	findings_free(&findings);
	if (!asked)
		return error_print(&error);
	return findings.violations ? EXIT_INVARIANT : EXIT_DONE;
}
