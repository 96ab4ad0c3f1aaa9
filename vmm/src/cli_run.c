// SPDX-License-Identifier: MIT
/* s2vm run: guests from one memory file, to their end. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "control.h"
#include "findings.h"
#include "fleet.h"
#include "interrupts.h"
#include "linux_run.h"
#include "options.h"
#include "progress.h"
#include "report.h"
#include "template.h"
#include "tracer.h"

struct run_options {
	uint64_t guests;
	const char *memory_file;
	const char *program;
	struct linux_run computer; /* kernel NULL: guests run the program */
	uint64_t size;
	uint64_t argument;
	uint64_t cpus; /* of a Linux guest; 0 for what there is without the option */
	uint64_t timeout; /* seconds, 0 for none */
	uint64_t every; /* the same, from launch to launch */
	enum ept_mode mode;
	bool mode_given;
	enum engine engine;
	enum fleet_entries entries;
	bool sharing;
	unsigned share_levels;
	uint64_t share_threshold;
	uint64_t share_from;
	uint64_t share_until;
	const char *alone;
	const char *domains[FLEET_DOMAINS]; /* lists of guests, from the second domain on */
	unsigned domain_count;
	bool *is_alone;	   /* by guest, of that list */
	uint8_t *domain_of; /* by guest, of those lists */
	const char *trace;
	bool check;
	bool json;
	struct report_options report;
	volatile bool *stop; /* the user wants an end */
};

/* Tables above are roots, which only clones share. */
#define SHARE_TOP (EPT_ROOT_LEVEL - 1)

enum option_key {
	KEY_GUESTS = 'n',
	KEY_MEMORY_FILE = 'f',
	KEY_PROGRAM = 'p',
	KEY_SIZE = 'm',
	KEY_TIMEOUT = 't',
	KEY_QUIET = 'q',
	KEY_MODE = 0x100,
	KEY_ENGINE,
	KEY_ENTRIES,
	KEY_SHARING,
	KEY_SHARE_LEVELS,
	KEY_SHARE_THRESHOLD,
	KEY_SHARE_EVENTS,
	KEY_ALONE,
	KEY_DOMAIN,
	KEY_TRACE,
	KEY_CHECK,
	KEY_ARG,
	KEY_JSON,
	KEY_NO_HEADERS,
	KEY_KERNEL,
	KEY_INITRD,
	KEY_CMDLINE,
	KEY_MEMORY,
	KEY_CPUS,
	KEY_NO_REBOOT,
	KEY_TEMPLATE,
	KEY_TEMPLATES,
	KEY_DISK,
	KEY_NET,
	KEY_EVERY,
};

static const struct argp_option option_table[] = {
	{ "guests", KEY_GUESTS, "N", 0, "How many guests to run (1)", 0 },
	{ "memory-file", KEY_MEMORY_FILE, "FILE", 0, "The file that all guests map", 0 },
	{ "program", KEY_PROGRAM, "GUEST", 0,
	  "A guest program that comes with s2vm, or a path to one", 0 },
	{ "kernel", KEY_KERNEL, "FILE", 0,
	  "Run Linux guests instead, one with its serial port on the terminal: a kernel", 0 },
	{ "template", KEY_TEMPLATE, "NAME", 0,
	  "Run clones of a frozen Linux guest (s2vm template)", 0 },
	{ "templates", KEY_TEMPLATES, "DIR", 0,
	  "Where templates are ($" TEMPLATE_ENVIRONMENT ", or " TEMPLATE_DIRECTORY ")", 0 },
	{ "initrd", KEY_INITRD, "FILE", 0, "Its initial RAM disk (none)", 0 },
	{ "cmdline", KEY_CMDLINE, "TEXT", 0, "Its command line (empty)", 0 },
	{ "memory", KEY_MEMORY, "SIZE", 0, "Its memory (256M)", 0 },
	{ "cpus", KEY_CPUS, "N", 0, "How many CPUs it has (1)", 0 },
	{ "disk", KEY_DISK, "FILE[,ro]", 0, "A disk of its; once for each. Of several guests each has a copy in memory", 0 },
	{ "net", KEY_NET, "tap=NAME[,mac=ADDRESS]", 0,
	  "A network card of its, connected with a TAP, in whose name %d is the guest's number; once for each",
	  0 },
	{ "every", KEY_EVERY, "SECONDS", 0,
	  "Launch one of several Linux guests every so many seconds (all at once)", 0 },
	{ "no-reboot", KEY_NO_REBOOT, NULL, 0, "End where it resets, and do not start it anew, as several guests do", 0 },
	{ "size", KEY_SIZE, "SIZE", 0, "How much of the file guests see (all of it)", 0 },
	{ "mode", KEY_MODE, "private|shared", 0,
	  "Whether a guest's writes are its own, or go to the file (private)", 0 },
	{ "entries", KEY_ENTRIES, "auto|4K|2M", 0,
	  "How large the table entries for the file are (auto: as its pages)", 0 },
	{ "engine", KEY_ENGINE, "auto|direct|svm|vmx", 0, "How guests are run (auto)", 0 },
	{ "sharing", KEY_SHARING, "on|off", 0, "Whether guests share tables (on)", 0 },
	{ "share-levels", KEY_SHARE_LEVELS, "LIST", 0,
	  "Levels of tables to share: all, none, or some of pt,pd,pdpt, and then guests are no clones (all)",
	  0 },
	{ "share-threshold", KEY_SHARE_THRESHOLD, "N", 0,
	  "Share only if a guest needs more tables than this (0)", 0 },
	{ "share-events", KEY_SHARE_EVENTS, "FROM-UNTIL", 0,
	  "Share only these times that a table is to be shared, to find one that does harm (0-)",
	  0 },
	{ "alone", KEY_ALONE, "LIST", 0,
	  "Guests that share no tables all the same, by number, such as 0,4-7 (none)", 0 },
	{ "domain", KEY_DOMAIN, "LIST", 0,
	  "Guests that share tables with each other only, by number; once for each such domain (all in one)",
	  0 },
	{ "arg", KEY_ARG, "N", 0, "A number that each guest is given (0)", 0 },
	{ "timeout", KEY_TIMEOUT, "SECONDS", 0, "End guests that run longer (no limit)", 0 },
	{ "trace", KEY_TRACE, "FILE", 0, "Write what happens to tables to FILE, for s2vm trace", 0 },
	{ "check", KEY_CHECK, NULL, 0, "Look for violations of invariants at the end", 0 },
	{ "json", KEY_JSON, NULL, 0, "Print one JSON object", 0 },
	{ "no-headers", KEY_NO_HEADERS, NULL, 0, "Leave out the headings", 0 },
	{ "quiet", KEY_QUIET, NULL, 0, "Print the summary only, and no text of guests", 0 },
	{ 0 }
};

static bool runs_linux(const struct run_options *options)
{
	return options->computer.guest.kernel || options->computer.template;
}

static bool set_mode(struct run_options *options, const char *text, struct error *error)
{
	options->mode_given = true;
	options->mode = strcmp(text, "shared") == 0 ? EPT_SHARED : EPT_PRIVATE;
	if (options->mode == EPT_PRIVATE && strcmp(text, "private") != 0)
		return error_set(error, EXIT_INPUT, "--mode is private or shared, not \"%s\"",
				 text);
	return true;
}

static bool set_engine(struct run_options *options, const char *text, struct error *error)
{
	if (!engine_parse(text, &options->engine))
		return error_set(error, EXIT_INPUT,
				 "--engine is auto, direct, svm or vmx, not \"%s\"", text);
	return true;
}

static bool set_entries(struct run_options *options, const char *text, struct error *error)
{
	unsigned place;

	if (!option_name(text, "--entries", option_entries, &place, error))
		return false;
	options->entries = (enum fleet_entries)place;
	return true;
}

static bool set_option(struct run_options *options, int key, const char *text,
		       struct error *error)
{
	switch (key) {
	case KEY_GUESTS:
		return option_number(text, "--guests", 1, 1000000, &options->guests, error);
	case KEY_SIZE:
		return option_size(text, "--size", &options->size, error);
	case KEY_MEMORY:
		return option_size(text, "--memory", &options->computer.guest.memory, error);
	case KEY_CPUS:
		return option_number(text, "--cpus", 1, PLATFORM_CPUS_MAX, &options->cpus, error);
	case KEY_ARG:
		return option_number(text, "--arg", 0, UINT64_MAX, &options->argument, error);
	case KEY_TIMEOUT:
		return option_number(text, "--timeout", 1, 1000000, &options->timeout, error);
	case KEY_EVERY:
		return option_number(text, "--every", 0, 1000000, &options->every, error);
	case KEY_MODE:
		return set_mode(options, text, error);
	case KEY_ENGINE:
		return set_engine(options, text, error);
	case KEY_ENTRIES:
		return set_entries(options, text, error);
	case KEY_SHARING:
		return option_switch(text, "--sharing", &options->sharing, error);
	case KEY_SHARE_LEVELS:
		return option_levels(text, "--share-levels", SHARE_TOP, &options->share_levels,
				     error);
	case KEY_SHARE_THRESHOLD:
		return option_number(text, "--share-threshold", 0, UINT32_MAX,
				     &options->share_threshold, error);
	case KEY_SHARE_EVENTS:
		return option_range(text, "--share-events", &options->share_from,
				    &options->share_until, error);
	default:
		return true;
	}
}

/* What guests are: each of these excludes the others. */
static void check_what_runs(const struct run_options *options, struct argp_state *state)
{
	const struct linux_run *computer = &options->computer;
	bool program = options->memory_file || options->program;

	if (computer->guest.kernel && (program || computer->template))
		argp_error(state,
			   "--kernel runs Linux, and takes no --memory-file, no --program and no --template");
	if (computer->template && program)
		argp_error(state,
			   "--template runs Linux, and takes no --memory-file and no --program");
	if (!runs_linux(options) && (!options->memory_file || !options->program))
		argp_error(state,
			   "--memory-file and --program are needed, or --kernel, or --template");
}

static void check_linux_options(const struct run_options *options, struct argp_state *state)
{
	const struct linux_run *computer = &options->computer;

	if (runs_linux(options) && (options->trace || options->alone || options->domain_count))
		argp_error(state, "Linux guests take no --alone, --domain and --trace");
	if (options->mode_given && options->mode == EPT_SHARED &&
	    (computer->template || (computer->guest.kernel && options->guests > 1)))
		argp_error(state,
			   "--mode shared is for the only guest of --kernel: others have copies of what they write");
	if (!computer->guest.kernel && (computer->guest.initrd || computer->guest.cmdline ||
					computer->disk_count || options->cpus))
		argp_error(state,
			   "--initrd, --cmdline, --disk and --cpus are for a Linux guest that boots: add --kernel");
	if (!runs_linux(options) && computer->net_count)
		argp_error(state, "--net is a Linux guest's: add --kernel or --template");
	if (!runs_linux(options) && options->every)
		argp_error(state, "--every is for Linux guests: add --kernel or --template");
}

/* Whether there is a slot for one more device. */
static void check_slots(const struct linux_run *computer, struct argp_state *state)
{
	if (computer->disk_count + computer->net_count == BOARD_DISKS)
		argp_error(state, "a guest has at most %d disks and networks", BOARD_DISKS);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct run_options *options = state->input;
	struct error error;

	switch (key) {
	case KEY_MEMORY_FILE:
		options->memory_file = text;
		break;
	case KEY_PROGRAM:
		options->program = text;
		break;
	case KEY_KERNEL:
		options->computer.guest.kernel = text;
		break;
	case KEY_TEMPLATE:
		options->computer.template = text;
		break;
	case KEY_TEMPLATES:
		options->computer.templates = text;
		break;
	case KEY_DISK:
		check_slots(&options->computer, state);
		options->computer.disks[options->computer.disk_count++] = text;
		break;
	case KEY_NET:
		check_slots(&options->computer, state);
		if (!option_net(text, &options->computer.nets[options->computer.net_count++],
				&error))
			argp_error(state, "%s", error.text);
		break;
	case KEY_NO_REBOOT:
		options->computer.reboot = false;
		break;
	case KEY_INITRD:
		options->computer.guest.initrd = text;
		break;
	case KEY_CMDLINE:
		options->computer.guest.cmdline = text;
		break;
	case KEY_ALONE:
		options->alone = text;
		break;
	case KEY_DOMAIN:
		if (options->domain_count + 1 == FLEET_DOMAINS)
			argp_error(state, "a fleet has at most %d sharing domains", FLEET_DOMAINS);
		options->domains[++options->domain_count] = text;
		break;
	case KEY_TRACE:
		options->trace = text;
		break;
	case KEY_CHECK:
		options->check = true;
		break;
	case KEY_JSON:
		options->json = true;
		break;
	case KEY_NO_HEADERS:
		options->report.headers = false;
		break;
	case KEY_QUIET:
		options->report.quiet = true;
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument \"%s\"", text);
		break;
	case ARGP_KEY_END:
		check_linux_options(options, state);
		check_what_runs(options, state);
		break;
	case KEY_GUESTS:
	case KEY_SIZE:
	case KEY_MEMORY:
	case KEY_CPUS:
	case KEY_ARG:
	case KEY_TIMEOUT:
	case KEY_EVERY:
	case KEY_MODE:
	case KEY_ENGINE:
	case KEY_ENTRIES:
	case KEY_SHARING:
	case KEY_SHARE_LEVELS:
	case KEY_SHARE_THRESHOLD:
	case KEY_SHARE_EVENTS:
		if (!set_option(options, key, text, &error))
			argp_error(state, "%s", error.text);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static uint64_t deadline_of(const struct run_options *options)
{
	return now_ns() + (options->timeout ? options->timeout * 1000000000u : UINT64_MAX / 2);
}

/* Launches all guests and waits for them. */
static bool run_all(struct fleet *fleet, const struct run_options *options, struct error *error)
{
	uint64_t deadline = deadline_of(options);
	const volatile bool *stop = options->stop;
	struct progress progress;
	struct guest *guest;
	bool launched = true;

	progress_begin(&progress, "launching guests", options->guests, false);
	for (uint64_t i = 0; i < options->guests && launched && !*stop; i++) {
		launched = fleet_launch(fleet, options->argument, &guest, error);
		progress_at(&progress, i + 1);
	}
	progress_end(&progress);
	if (launched && !fleet_wait(fleet, deadline, stop))
		fleet_stop(fleet, *stop ? GUEST_STOPPED : GUEST_TIMEOUT);
	if (!launched)
		fleet_stop(fleet, GUEST_STOPPED);
	return launched;
}

/* The exit status that the guests' ends stand for. */
static int status_of(const struct fleet *fleet)
{
	int status = EXIT_DONE;

	for (unsigned i = 0; i < fleet->guest_count; i++) {
		if (fleet->guests[i].status == GUEST_FILE)
			return EXIT_INPUT;
		if (!guest_ended_well(&fleet->guests[i]))
			status = EXIT_GUEST;
	}
	return status;
}

static struct fleet_config config_of(const struct run_options *options, const struct memfile *file,
				     const struct program *program)
{
	return (struct fleet_config){
		.engine = options->engine,
		.guests = (unsigned)options->guests,
		.file = file,
		.mode = options->mode,
		.entries = options->entries,
		.program = program,
		.sharing = options->sharing,
		.alone = options->is_alone,
		.domains = options->domain_of,
		.domain_count = options->domain_count + 1,
		.quiet = options->report.quiet,
		.private_levels = EPT_SHARE_ALL & ~options->share_levels,
		.share_threshold = (unsigned)options->share_threshold,
		.share_from = options->share_from,
		.share_until = options->share_until,
		.trace_capacity = options->trace ? TRACER_CAPACITY : 0,
	};
}

/* What the guests did, and what the checker finds now that they have ended. */
static int report(struct fleet *fleet, const struct run_options *options, uint64_t elapsed_ns)
{
	struct findings findings = { 0 };
	int status = status_of(fleet);

	if (options->check)
		findings_take(&findings, fleet);
	if (options->json)
		report_run_json(fleet, elapsed_ns, options->check ? &findings : NULL);
	else
		report_run(fleet, elapsed_ns, &options->report);
	if (options->check && !options->json)
		findings_print(&findings, "check: ");
	report_failures(fleet);
	findings_free(&findings);
	return findings.violations ? EXIT_INVARIANT : status;
}

/* Runs the guests, while others may ask for things. */
static int run_and_report(struct fleet *fleet, const struct run_options *options, uint64_t begin)
{
	struct control *control = NULL;
	struct error error;
	bool launched;

	if (!control_start(&control, fleet, &error))
		fprintf(stderr, "s2vm: this fleet cannot be checked while it runs: %s\n", error.text);
	launched = run_all(fleet, options, &error);
	if (control)
		control_stop(control);
	return launched ? report(fleet, options, now_ns() - begin) : error_print(&error);
}

static int run_fleet(const struct run_options *options, const struct memfile *file,
		     const struct program *program, struct tracer **tracer)
{
	struct fleet_config config = config_of(options, file, program);
	uint64_t begin = now_ns();
	struct fleet *fleet;
	struct error error;
	int status;

	if (!fleet_create(&fleet, &config, &error))
		return error_print(&error);
	if (*tracer && !tracer_start(*tracer, fleet->ept, &error))
		status = error_print(&error);
	else
		status = run_and_report(fleet, options, begin);
	if (*tracer && !tracer_close(*tracer, &error))
		status = error_print(&error);
	*tracer = NULL;
	fleet_destroy(fleet);
	return status;
}

/* The same with a trace, if one is wanted. */
static int run_traced(const struct run_options *options, const struct memfile *file,
		      const struct program *program)
{
	const char *const others[] = { file->name, program->image.name, NULL };
	struct tracer *tracer = NULL;
	struct error error;
	int status;

	if (options->trace && !tracer_open(&tracer, options->trace, others, &error))
		return error_print(&error);
	status = run_fleet(options, file, program, &tracer);
	if (tracer)
		tracer_close(tracer, &error);
	return status;
}

/* Which guests are to share nothing, now that it is known how many there are. */
static bool find_alone(struct run_options *options, struct error *error)
{
	if (!options->alone)
		return true;
	options->is_alone = calloc(options->guests, sizeof(bool));
	if (!options->is_alone)
		return error_set(error, EXIT_FAILED, "out of memory");
	return option_numbers(options->alone, "--alone", options->guests, options->is_alone,
			      error);
}

/* Puts the guests of the list number @domain there, out of the first domain, where all are. */
static bool find_domain(const struct run_options *options, unsigned domain, bool *listed,
			struct error *error)
{
	memset(listed, 0, options->guests * sizeof(*listed));
	if (!option_numbers(options->domains[domain], "--domain", options->guests, listed, error))
		return false;
	for (uint64_t id = 0; id < options->guests; id++) {
		if (listed[id] && options->domain_of[id])
			return error_set(error, EXIT_INPUT,
					 "--domain names guest %llu in two lists",
					 (unsigned long long)id);
		if (listed[id])
			options->domain_of[id] = (uint8_t)domain;
	}
	return true;
}

static bool find_domains(struct run_options *options, struct error *error)
{
	bool *listed = calloc(options->guests, sizeof(*listed));
	bool found = true;

	options->domain_of = calloc(options->guests, sizeof(*options->domain_of));
	if (!listed || !options->domain_of)
		found = error_set(error, EXIT_FAILED, "out of memory");
	for (unsigned domain = 1; domain <= options->domain_count && found; domain++)
		found = find_domain(options, domain, listed, error);
	free(listed);
	return found;
}

/* Opens the inputs, and runs. */
static int open_and_run(const struct run_options *options)
{
	struct program program;
	struct memfile file;
	struct error error;
	int status;

	if (!memfile_open(&file, options->memory_file, options->size,
			  options->mode == EPT_SHARED, &error))
		return error_print(&error);
	if (!program_load(&program, options->program, &error)) {
		memfile_close(&file);
		return error_print(&error);
	}
	status = run_traced(options, &file, &program);
	program_unload(&program);
	memfile_close(&file);
	return status;
}

static int run_linux(const struct run_options *options)
{
	struct linux_run run = options->computer;

	run.engine = options->engine;
	run.guests = (unsigned)options->guests;
	run.every_ns = options->every * 1000000000u;
	run.guest.cpus = options->cpus ? (unsigned)options->cpus : 1;
	run.sharing = options->sharing;
	run.private_memory = options->mode_given && options->mode == EPT_PRIVATE;
	run.check = options->check;
	run.json = options->json;
	run.templates = template_directory(run.templates);
	run.report = options->report;
	run.deadline_ns = deadline_of(options);
	run.stop = options->stop;
	return linux_run(&run);
}

int cli_run(int argc, char **argv)
{
	const struct argp argp = {
		.options = option_table,
		.parser = parse,
		.doc = "Runs guests from one memory file to their end.\v"
		       "Exit status: 0 if every guest ended well, 2 for wrong usage or input, "
		       "5 if this host cannot run a fleet, 6 if a guest ended badly, 7 if --check "
		       "finds a violation.",
	};
	struct run_options options = {
		.guests = 1,
		.sharing = true,
		.share_levels = EPT_SHARE_ALL,
		.report.headers = true,
		.computer = { .guest.memory = LINUX_MEMORY_DEFAULT, .reboot = true },
	};
	struct error error;
	int status;

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	options.stop = interrupts_catch();
	if (runs_linux(&options))
		return run_linux(&options);
	if (find_alone(&options, &error) && find_domains(&options, &error))
		status = open_and_run(&options);
	else
		status = error_print(&error);
	free(options.is_alone);
	free(options.domain_of);
	return status;
}
