// SPDX-License-Identifier: MIT
/* s2vm template create: boots a guest, and freezes it where it is ready. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "cli_template.h"
#include "fleet.h"
#include "interrupts.h"
#include "linux_template.h"
#include "options.h"
#include "report.h"

enum key {
	KEY_QUIET = 'q',
	KEY_TIMEOUT = 't',
	KEY_NAME = 0x200,
	KEY_KERNEL,
	KEY_INITRD,
	KEY_CMDLINE,
	KEY_MEMORY,
	KEY_CPUS,
	KEY_DISK,
	KEY_NET,
	KEY_ENGINE,
	KEY_UNTIL,
	KEY_UNTIL_PORT,
};

struct create_options {
	struct cli_template_place place; /* first: the options that all subcommands have are parsed to it */
	struct linux_template_request request;
	uint64_t cpus;
	uint64_t timeout; /* seconds, 0 for none */
	bool until_port;
};

static const struct argp_option option_table[] = {
	{ "name", KEY_NAME, "NAME", 0, "What the template is called", 0 },
	{ "kernel", KEY_KERNEL, "FILE", 0, "The guest's kernel", 0 },
	{ "initrd", KEY_INITRD, "FILE", 0, "Its initial RAM disk (none)", 0 },
	{ "cmdline", KEY_CMDLINE, "TEXT", 0, "Its command line (empty)", 0 },
	{ "memory", KEY_MEMORY, "SIZE", 0, "Its memory (256M)", 0 },
	{ "cpus", KEY_CPUS, "N", 0, "How many CPUs it has (1)", 0 },
	{ "disk", KEY_DISK, "FILE[,ro]", 0,
	  "A disk of its, to which it does not write: what it writes becomes a part of the template; once for each",
	  0 },
	{ "net", KEY_NET, "tap=NAME[,mac=ADDRESS]", 0,
	  "A network of its, by that TAP; its clones have as many; once for each", 0 },
	{ "engine", KEY_ENGINE, "auto|svm|vmx", 0, "How it is run, and its clones are (auto)", 0 },
	{ "until", KEY_UNTIL, "TEXT", 0, "It is ready when it says this on its console", 0 },
	{ "until-port", KEY_UNTIL_PORT, NULL, 0,
	  "It is ready when it says so itself: at its ready port, or by its control console", 0 },
	{ "timeout", KEY_TIMEOUT, "SECONDS", 0, "Give up if it is not ready by then (no limit)", 0 },
	{ "quiet", KEY_QUIET, NULL, 0, "Do not print its console", 0 },
	{ 0 },
};

static bool set_option(struct create_options *options, int key, const char *text,
		       struct error *error)
{
	switch (key) {
	case KEY_MEMORY:
		return option_size(text, "--memory", &options->request.guest.memory, error);
	case KEY_CPUS:
		return option_number(text, "--cpus", 1, PLATFORM_CPUS_MAX, &options->cpus, error);
	case KEY_TIMEOUT:
		return option_number(text, "--timeout", 1, 1000000, &options->timeout, error);
	default:
		return engine_parse(text, &options->request.engine) ||
		       error_set(error, EXIT_INPUT, "--engine is auto, svm or vmx, not \"%s\"", text);
	}
}

/* Whether there is a slot for one more device. */
static void check_slots(const struct linux_template_request *request, struct argp_state *state)
{
	if (request->disk_count + request->net_count == BOARD_DISKS)
		argp_error(state, "a guest has at most %d disks and networks", BOARD_DISKS);
}

static void add_net(struct create_options *options, const char *text, struct argp_state *state)
{
	struct linux_template_request *request = &options->request;
	struct error error;

	check_slots(request, state);
	if (!option_net(text, &request->nets[request->net_count++], &error))
		argp_error(state, "%s", error.text);
}

static void add_disk(struct create_options *options, const char *text, struct argp_state *state)
{
	check_slots(&options->request, state);
	options->request.disks[options->request.disk_count++] = text;
}

static void check(const struct create_options *options, struct argp_state *state)
{
	if (!options->request.name || !options->request.guest.kernel)
		argp_error(state, "--name and --kernel are needed");
	if (!options->request.until == !options->until_port)
		argp_error(state, "one of --until and --until-port says when the guest is ready");
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct create_options *options = state->input;
	struct error error;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &options->place;
		break;
	case KEY_NAME:
		options->request.name = text;
		break;
	case KEY_KERNEL:
		options->request.guest.kernel = text;
		break;
	case KEY_INITRD:
		options->request.guest.initrd = text;
		break;
	case KEY_CMDLINE:
		options->request.guest.cmdline = text;
		break;
	case KEY_DISK:
		add_disk(options, text, state);
		break;
	case KEY_NET:
		add_net(options, text, state);
		break;
	case KEY_UNTIL:
		options->request.until = text;
		break;
	case KEY_UNTIL_PORT:
		options->until_port = true;
		break;
	case KEY_QUIET:
		options->request.quiet = true;
		break;
	case KEY_MEMORY:
	case KEY_CPUS:
	case KEY_TIMEOUT:
	case KEY_ENGINE:
		if (!set_option(options, key, text, &error))
			argp_error(state, "%s", error.text);
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument \"%s\"", text);
		break;
	case ARGP_KEY_END:
		check(options, state);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* What there is now, as a list of templates has it. */
static void print_made(const struct linux_template_request *request)
{
	struct template_info *infos;
	char memory[16], disk[16];
	struct error error;
	size_t count;

	if (!template_list(request->directory, &infos, &count, &error))
		return;
	for (size_t i = 0; i < count; i++)
		if (strcmp(infos[i].name, request->name) == 0)
			printf("template %s: %s of memory, %s on disk, in %s\n", request->name,
			       report_bytes(infos[i].memory_bytes, memory),
			       report_bytes(infos[i].disk_bytes, disk), request->directory);
	free(infos);
}

int cli_template_create(int argc, char **argv)
{
	const struct argp argp = {
		.options = option_table,
		.parser = parse,
		.children = cli_template_place_options,
		.doc = "Boots a Linux guest and freezes it where it is ready. \"s2vm run --template\" "
		       "runs clones of it.\v"
		       "Exit status: 0 done, 1 if the template could not be written, 2 for wrong usage "
		       "or input, 5 if this host cannot run the guest, 6 if the guest ended, or was "
		       "not ready in time.",
	};
	struct create_options options = {
		.request.guest.memory = LINUX_MEMORY_DEFAULT,
		.cpus = 1,
	};
	struct linux_template_request *request = &options.request;
	int status;

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	request->directory = template_directory(options.place.directory);
	request->deadline_ns =
		now_ns() + (options.timeout ? options.timeout * 1000000000u : UINT64_MAX / 2);
	request->guest.cpus = (unsigned)options.cpus;
	request->stop = interrupts_catch();
	status = linux_template_create(request);
	if (status == EXIT_DONE)
		print_made(request);
	return status;
}
