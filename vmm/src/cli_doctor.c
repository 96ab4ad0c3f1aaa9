// SPDX-License-Identifier: MIT
/* s2vm doctor: what this host offers, and whether a fleet can be trusted on it. */
#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli.h"
#include "doctor.h"
#include "host.h"

static error_t parse(int key, char *text, struct argp_state *state)
{
	if (key == ARGP_KEY_ARG)
		argp_error(state, "unexpected argument \"%s\"", text);
	return key == ARGP_KEY_ARG ? 0 : ARGP_ERR_UNKNOWN;
}

static const char *kernel_release(void)
{
	static struct utsname name;

	return uname(&name) == 0 ? name.release : "unknown";
}

static void print_engine(const struct host *host, enum engine wanted)
{
	struct error error;
	enum engine engine;

	if (engine_choose(host, wanted, &engine, &error))
		printf("engine %-7s offered\n", engine_name(wanted));
	else
		printf("engine %-7s not offered: %s\n", engine_name(wanted), error.text);
}

static void print_host(const struct host *host)
{
	printf("kernel         %s\n", kernel_release());
	print_engine(host, ENGINE_VMX);
	print_engine(host, ENGINE_SVM);
	print_engine(host, ENGINE_DIRECT);
	printf("vCPUs          %d in one VM: fleets of up to %d guests\n", host->max_vcpus,
	       host->max_vcpus - 1);
	printf("memory slots   %d\n", host->max_memslots);
	printf("addresses      %u bits of physical memory in a VM\n", host->physical_bits);
	printf("shadow pages   limited to 2 %% of a VM's memory unless set; a fleet sets the limit to what it needs\n");
	printf("statistics     %s\n",
	       host->statistics ? "shadow pages and faults are counted" :
				  "this KVM keeps none: shadow pages and faults show as 0");
}

static void print_verdict(void *context, enum doctor_verdict verdict, const char *text)
{
	static const char *const names[] = {
		[DOCTOR_PASS] = "PASS",
		[DOCTOR_FAIL] = "FAIL",
		[DOCTOR_NOTE] = "NOTE",
	};

	(void)context;
	printf("%s  %s\n", names[verdict], text);
	fflush(stdout); /* Whoever waits for a slow host sees how far it is. */
}

/* On a host where something does not come back, the doctor ends all the same, with this. */
#define LIMIT_SECONDS 60
static char too_long_text[256];

static void too_long(int signal)
{
	ssize_t written = write(STDOUT_FILENO, too_long_text, strlen(too_long_text));

	(void)signal;
	(void)written;
	_exit(EXIT_INVARIANT);
}

/* From now on the tests of @engine are under way. */
static void limit_time(enum engine engine)
{
	snprintf(too_long_text, sizeof(too_long_text),
		 "FAIL  the tests do not come to their end\n\n"
		 "kernel %s, engine %s: a fleet can NOT be trusted here: something is never done\n",
		 kernel_release(), engine_name(engine));
	signal(SIGALRM, too_long);
	alarm(LIMIT_SECONDS);
}

/* What was seen of all engines that the host offers. */
struct findings {
	bool trusted; /* one at least runs, and passed */
	bool failed;
	enum engine failed_engine;
	struct error error; /* the first one */
	bool has_error;
};

static void test_engine(const struct host *host, enum engine wanted, struct findings *findings)
{
	struct error error;
	enum engine engine;

	if (!engine_choose(host, wanted, &engine, &error))
		return;
	printf("\ntesting the contract with KVM, engine %s\n", engine_name(engine));
	fflush(stdout);
	limit_time(engine);
	switch (doctor_test(engine, print_verdict, NULL, &error)) {
	case DOCTOR_TRUSTED:
		findings->trusted = true;
		break;
	case DOCTOR_NOT_TRUSTED:
		if (!findings->failed)
			findings->failed_engine = engine;
		findings->failed = true;
		break;
	case DOCTOR_CANNOT_RUN:
		break;
	case DOCTOR_ERROR:
		printf("NOTE  the tests stopped: %s\n", error.text);
		if (!findings->has_error)
			findings->error = error;
		findings->has_error = true;
		break;
	}
}

static int conclude(const struct findings *findings)
{
	if (findings->failed) {
		printf("\nkernel %s, engine %s: a fleet can NOT be trusted here: guests could see each other's memory\n",
		       kernel_release(), engine_name(findings->failed_engine));
		return EXIT_INVARIANT;
	}
	if (findings->has_error)
		return error_print(&findings->error);
	if (!findings->trusted) {
		puts("\nno engine runs guests here");
		return EXIT_HOST;
	}
	puts("\na fleet can be trusted here");
	return EXIT_DONE;
}

int cli_doctor(int argc, char **argv)
{
	const struct argp argp = {
		.parser = parse,
		.doc = "Says which engines this host offers and what its limits are, and tests on the "
		       "running kernel what a fleet relies on, with each engine.\v"
		       "Exit status: 0 if a fleet can be trusted here, 5 if this host cannot run one, "
		       "7 if a test failed.",
	};
	struct findings findings = { 0 };
	struct error error;
	struct host host;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	if (!host_open(&host, &error))
		return error_print(&error);
	print_host(&host);
	test_engine(&host, ENGINE_VMX, &findings);
	test_engine(&host, ENGINE_SVM, &findings);
	test_engine(&host, ENGINE_DIRECT, &findings);
	host_close(&host);
	return conclude(&findings);
}
