// SPDX-License-Identifier: MIT
/* s2vm: dispatches to its commands. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "error.h"

struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
};

static const struct command commands[] = {
	{ "run", cli_run, "run guests from one memory file to their end" },
	{ "trace", cli_trace, "show what happened to tables in a run" },
	{ "check", cli_check, "look for violations in a fleet that runs" },
	{ "freeze", cli_freeze, "freeze a guest that runs, and let it go on" },
	{ "reset", cli_reset, "take a guest that runs back to where it was frozen" },
	{ "template", cli_template, "freeze guests; list, verify and remove what was frozen" },
	{ "bench", cli_bench, "measure what sharing saves on this host" },
	{ "doctor", cli_doctor, "say what this host offers, and test that a fleet can be trusted here" },
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static void print_help(FILE *to)
{
	fprintf(to, "Usage: s2vm COMMAND [OPTION...]\n\n"
		    "Runs many guests from one memory file and lets them share their stage-2 tables.\n\n"
		    "Commands:\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].summary);
	fprintf(to, "\n\"s2vm COMMAND --help\" describes a command's options.\n"
		    "Exit status: 0 done, 1 failed, 2 wrong usage or input, 4 no such fleet or template, 5 this host cannot,\n"
		    "6 a guest ended badly, 7 an invariant was violated.\n");
}

/* A command's own name, as its messages show it. */
static int run_command(const struct command *command, int argc, char **argv)
{
	char name[32];

	snprintf(name, sizeof(name), "s2vm %s", command->name);
	argv[0] = name;
	return command->run(argc, argv);
}

int main(int argc, char **argv)
{
	argp_err_exit_status = EXIT_INPUT;
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)) {
		print_help(stdout);
		return EXIT_DONE;
	}
	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		puts("s2vm " S2VM_VERSION);
		return EXIT_DONE;
	}
	for (size_t i = 0; argc > 1 && i < COMMAND_COUNT; i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return run_command(&commands[i], argc - 1, argv + 1);
	if (argc > 1)
		fprintf(stderr, "s2vm: no command named \"%s\"; see s2vm --help\n", argv[1]);
	else
		print_help(stderr);
	return EXIT_INPUT;
}
