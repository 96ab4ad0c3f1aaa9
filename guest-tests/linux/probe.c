// SPDX-License-Identifier: MIT
/*
 * What root can try in a Linux guest: "probe in PORT", "probe out PORT [BYTE]" (1), and "probe
 * instructions", which says by what signal each instruction that is a hypervisor's ends its process.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/wait.h>
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

int main(int argc, char **argv)
{
	unsigned short port = argc > 2 ? (unsigned short)strtoul(argv[2], NULL, 0) : 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && strcmp(argv[1], "instructions") == 0) {
		try_instructions();
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
