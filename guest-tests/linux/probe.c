// SPDX-License-Identifier: MIT
/*
 * What root can try in a Linux guest: "probe in PORT", "probe out PORT [BYTE]" (1); "probe
 * instructions", which says by what signal each instruction that is a hypervisor's ends its process;
 * "probe ipi N", which sends all that a local APIC can send to CPUs that a guest of N CPUs does
 * not have; and "probe time", which says what time it is, in microseconds.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void vmmcall(void)
{
	__asm__ volatile("vmmcall" : : "a"(0) : "memory");
}

static void vmcall(void)
{
	__asm__ volatile("vmcall" : : "a"(0) : "memory");
}

static void monitor(void)
{
	static char line[64];

	__asm__ volatile("monitor" : : "a"(line), "c"(0), "d"(0));
}

static void mwait(void)
{
	__asm__ volatile("mwait" : : "a"(0), "c"(0));
}

static void xsetbv(void)
{
	__asm__ volatile("xsetbv" : : "a"(1), "c"(0), "d"(0));
}

static void rdpmc(void)
{
	__asm__ volatile("rdpmc" : : "c"(0) : "rax", "rdx");
}

static void rsm(void)
{
	__asm__ volatile("rsm" : : : "memory");
}

static void vmrun(void)
{
	__asm__ volatile("vmrun %%rax" : : "a"(0) : "memory");
}

static const struct {
	const char *name;
	void (*run)(void);
} instructions[] = {
	{ "vmmcall", vmmcall }, { "vmcall", vmcall }, { "monitor", monitor }, { "mwait", mwait },
	{ "xsetbv", xsetbv },	{ "rdpmc", rdpmc },   { "rsm", rsm },	      { "vmrun", vmrun },
};

static void try_instructions(void)
{
	for (unsigned i = 0; i < sizeof(instructions) / sizeof(instructions[0]); i++) {
		int status = 0;
		pid_t child = fork();

		if (child == 0) {
			instructions[i].run();
			_exit(0);
		}
		if (child < 0 || waitpid(child, &status, 0) < 0)
			exit(1);
		printf("probe: %s: %s\n", instructions[i].name,
		       WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "nothing happened");
	}
}

/* The interrupt command register, by the driver for MSRs. */
#define ICR	    0x830
#define ICR_LOGICAL (UINT64_C(1) << 11)
#define ICR_OTHERS  (UINT64_C(3) << 18)
#define ICR_HIGHEST 64

/* Linux's own interrupt for rescheduling, and NMI, INIT and start-up at 64 KiB: Intel SDM Vol. 3A, 10.6.1. */
static const uint64_t commands[] = { 0xfd, 4 << 8, 5 << 8 | 1 << 14, 6 << 8 | 0x10 };

static void send(int msrs, uint64_t command)
{
	if (pwrite(msrs, &command, sizeof(command), ICR) != sizeof(command)) {
		perror("probe: ICR");
		exit(1);
	}
}

/* By number, by bit of each cluster of 16, and by the shorthand, if nobody else is to be there. */
static void try_ipis(unsigned cpus)
{
	int msrs = open("/dev/cpu/0/msr", O_WRONLY);

	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		for (uint64_t cpu = cpus; cpu < ICR_HIGHEST; cpu++) {
			send(msrs, cpu << 32 | commands[i]);
			send(msrs, (cpu / 16 << 16 | UINT64_C(1) << cpu % 16) << 32 | ICR_LOGICAL |
					   commands[i]);
		}
		if (cpus == 1)
			send(msrs, ICR_OTHERS | commands[i]);
	}
	printf("probe: sent\n");
}

static void tell_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	printf("probe: time %lld\n", (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

int main(int argc, char **argv)
{
	unsigned short port = argc > 2 ? (unsigned short)strtoul(argv[2], NULL, 0) : 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && strcmp(argv[1], "instructions") == 0) {
		try_instructions();
	} else if (argc == 2 && strcmp(argv[1], "time") == 0) {
		tell_time();
	} else if (argc == 3 && strcmp(argv[1], "ipi") == 0) {
		try_ipis(port);
	} else if (argc < 3 || argc > 4 || iopl(3) < 0) {
		perror("probe");
		return 1;
	} else if (strcmp(argv[1], "in") == 0) {
		printf("probe: port %#x reads %#x\n", port, inb(port));
	} else {
		outb(argc > 3 ? (unsigned char)strtoul(argv[3], NULL, 0) : 1, port);
	}
	return 0;
}
