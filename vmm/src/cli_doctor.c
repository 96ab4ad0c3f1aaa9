// SPDX-License-Identifier: MIT
/* s2vm doctor: what this host offers, and whether a fleet can be trusted on it. */
#include <argp.h>
#include <stdio.h>
#include <sys/utsname.h>

#include "cli.h"
#include "doctor.h"
#include "host.h"

static error_t parse(int key, char *text, struct argp_state *state)
{
	if (key == ARGP_KEY_ARG)
		argp_error(state, "unexpected argument \"%s\"", text);
	return key == ARGP_KEY_ARG ? 0 : ARGP_ERR_UNKNOWN;
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
	struct utsname name;

	if (uname(&name) == 0)
		printf("kernel         %s\n", name.release);
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
}

static int test_engine(enum engine engine)
{
	struct error error;

	printf("\ntesting the contract with KVM, engine %s\n", engine_name(engine));
	if (doctor_test(engine, print_verdict, NULL, &error)) {
		puts("\na fleet can be trusted here");
		return EXIT_DONE;
	}
	if (error.text[0])
		return error_print(&error);
	puts("\na fleet can NOT be trusted here: guests could see each other's memory");
	return EXIT_INVARIANT;
}

int cli_doctor(int argc, char **argv)
{
	const struct argp argp = {
		.parser = parse,
		.doc = "Says which engines this host offers and what its limits are, and tests on the "
		       "running kernel what a fleet relies on.\v"
		       "Exit status: 0 if a fleet can be trusted here, 5 if this host cannot run one, "
		       "7 if a test failed.",
	};
	struct error error;
	struct host host;
	enum engine engine;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	if (!host_open(&host, &error))
		return error_print(&error);
	print_host(&host);
	engine_choose(&host, ENGINE_AUTO, &engine, &error);
	host_close(&host);
	return test_engine(engine);
}
