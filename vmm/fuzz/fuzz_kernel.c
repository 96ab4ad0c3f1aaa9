// SPDX-License-Identifier: MIT
/*
 * Bytes as a kernel file, with a guest's memory, a command line and an initial RAM disk of
 * arbitrary lengths: it is refused in one line, or all of it is laid out in that memory.
 *
 *	memory, command line, disk	their sizes, as input.h has numbers
 *	kernel file			all bytes that are left
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "input.h"
#include "linux_boot.h"

#define RAM_BYTES     (UINT64_C(5) << 30)
#define DISK_BYTES    (UINT64_C(1) << 24)
#define CMDLINE_BYTES 0x20000u

static uint8_t *ram;
static uint8_t *disk;
static char cmdline[CMDLINE_BYTES];
static char name[] = "disk";

static void die(const char *text)
{
	fprintf(stderr, "%s\n", text);
	abort();
}

/* Memory that is zero, and costs nothing where it stays so. */
static void *zeros(uint64_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		die("out of memory");
	return at;
}

static void begin(void)
{
	if (ram)
		return;
	ram = zeros(RAM_BYTES);
	disk = zeros(DISK_BYTES);
}

static void refused(const struct error *error)
{
	input_say("refused: %s", error->text);
	if (error->exit != EXIT_INPUT || !error->text[0] || strchr(error->text, '\n'))
		die("a refusal without a line that says why");
}

static void check(const struct linux_boot *boot, const struct linux_plan *plan,
		  const struct linux_start *start)
{
	const struct linux_area *kernel = &plan->areas[LINUX_KERNEL];

	for (unsigned i = 0; i < LINUX_AREAS; i++) {
		input_say("%s at %#llx, %#llx bytes", linux_area_names[i],
			  (unsigned long long)plan->areas[i].start.v,
			  (unsigned long long)plan->areas[i].bytes);
		if (plan->areas[i].start.v + plan->areas[i].bytes > boot->ram_bytes)
			die("an area outside of memory");
	}
	if (start->rip - kernel->start.v >= kernel->bytes)
		die("it starts outside of the kernel");
}

static void boot_kernel(const struct linux_boot *boot)
{
	struct linux_start start;
	struct linux_plan plan;
	struct error error;

	if (!linux_boot_plan(boot, &plan, &error)) {
		refused(&error);
		return;
	}
	linux_boot_load(boot, &plan, ram, &start);
	check(boot, &plan, &start);
	if (madvise(ram, RAM_BYTES, MADV_DONTNEED) < 0)
		die("memory cannot be given back");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const uint8_t seed[LINUX_SEED_BYTES] = {1};
	struct input input = {bytes, size};
	struct linux_image kernel;
	struct linux_boot boot = {
		.ram_bytes = input_address(&input) % RAM_BYTES,
		.cpus = 1 + input_below(&input, PLATFORM_CPUS_MAX),
		.kernel = &kernel,
		.cmdline = cmdline,
		.seed = input_below(&input, 2) ? seed : NULL,
	};
	size_t length = input_address(&input) % CMDLINE_BYTES;
	struct blob initrd = {.name = name, .size = input_address(&input) % DISK_BYTES};
	struct error error;

	begin();
	initrd.bytes = disk;
	boot.initrd = initrd.size ? &initrd : NULL;
	memset(cmdline, 'x', length);
	cmdline[length] = 0;
	input_say("%llu bytes of memory, a command line of %zu, a disk of %zu, a file of %zu",
		  (unsigned long long)boot.ram_bytes, length, initrd.size, input.left);
	if (!linux_image_parse(&kernel, input.bytes, input.left, "kernel", &error))
		refused(&error);
	else
		boot_kernel(&boot);
	return 0;
}
