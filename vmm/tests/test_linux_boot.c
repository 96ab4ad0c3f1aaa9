// SPDX-License-Identifier: MIT
/* A Linux guest's memory image: where all lies, what the guest reads there, what does not fit. */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "linux_boot.h"
#include "linux_files.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB(n)	     ((uint64_t)(n) << 20)
#define PAGE	     UINT64_C(4096)
#define RAM_BYTES    MIB(64)

static struct bzimage_file bzimage;
static struct vmlinux_file vmlinux;
static struct linux_image kernel;
static uint8_t disk_bytes[PAGE + 100];
static struct blob disk = { .name = (char *)"disk", .bytes = disk_bytes,
			    .size = sizeof(disk_bytes) };
static const uint8_t seed[LINUX_SEED_BYTES] = { 1, 2, 3, [LINUX_SEED_BYTES - 1] = 32 };
static const uint8_t generation[LINUX_GENERATION_BYTES] = { 9, 8, 7, [15] = 16 };

static struct linux_boot boot;
static struct linux_plan plan;
static struct linux_start start;
static struct error error;
static uint8_t *ram;

/* A boot with all there can be, on memory that only costs what is written to it. */
static int begin(void **state)
{
	(void)state;
	bzimage = bzimage_file();
	if (!linux_image_parse(&kernel, &bzimage, sizeof(bzimage), "kernel", &error))
		return -1;
	memset(disk_bytes, 0xd1, sizeof(disk_bytes));
	boot = (struct linux_boot){
		.ram_bytes = RAM_BYTES,
		.cpus = 2,
		.kernel = &kernel,
		.initrd = &disk,
		.cmdline = "console=ttyS0 quiet",
		.seed = seed,
		.generation = generation,
	};
	ram = mmap(NULL, MIB(5120), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return ram == MAP_FAILED ? -1 : 0;
}

static int end(void **state)
{
	(void)state;
	return munmap(ram, MIB(5120));
}

static void load(void)
{
	if (!linux_boot_plan(&boot, &plan, &error))
		fail_msg("%s", error.text);
	linux_boot_load(&boot, &plan, ram, &start);
}

static void refuse(const char *word)
{
	struct error why;

	assert_false(linux_boot_plan(&boot, &plan, &why));
	assert_int_equal(why.exit, EXIT_INPUT);
	assert_null(strchr(why.text, '\n'));
	if (!strstr(why.text, word))
		fail_msg("\"%s\" is not in: %s", word, why.text);
}

static const struct boot_params *params(void)
{
	return (const struct boot_params *)(ram + start.rsi);
}

/* The kind of memory at an address that the kernel is told; 0 for none. */
static uint32_t kind_of(uint64_t address)
{
	for (unsigned i = 0; i < params()->e820_entries; i++) {
		struct boot_e820_entry entry = params()->e820_table[i];

		if (address - entry.addr < entry.size)
			return entry.type;
	}
	return 0;
}

static const struct linux_area *area_of(uint64_t address)
{
	for (unsigned i = 0; i < LINUX_AREAS; i++)
		if (address - plan.areas[i].start.v < plan.areas[i].bytes)
			return &plan.areas[i];
	return NULL;
}

static void areas_are_apart_and_in_memory(void **state)
{
	(void)state;
	load();
	for (unsigned i = 0; i < LINUX_AREAS; i++) {
		const struct linux_area *one = &plan.areas[i];

		assert_non_null(linux_area_names[i]);
		assert_true(one->bytes > 0);
		assert_true(one->start.v >= PAGE && one->start.v + one->bytes <= RAM_BYTES);
		/* Ends of areas are in no other area either. */
		assert_ptr_equal(area_of(one->start.v), one);
		assert_ptr_equal(area_of(one->start.v + one->bytes - 1), one);
	}
}

static void nothing_is_written_outside(void **state)
{
	(void)state;
	load();
	for (uint64_t at = 0; at < RAM_BYTES; at++)
		if (ram[at] && !area_of(at))
			fail_msg("%#llx is written to", (unsigned long long)at);
}

static void the_kernel_is_told_where_things_are(void **state)
{
	const struct setup_header *header;

	(void)state;
	load();
	header = &params()->hdr;
	assert_int_equal(start.rsi, plan.areas[LINUX_BOOT_PARAMS].start.v);
	assert_int_equal(params()->sentinel, 0);
	assert_int_equal(header->header, 0x53726448);
	assert_int_equal(header->type_of_loader, 0xff);
	assert_int_equal(header->init_size, BZIMAGE_MEMORY);
	assert_int_equal(header->code32_start, BZIMAGE_START);
	assert_string_equal((char *)ram + header->cmd_line_ptr, boot.cmdline);
	assert_int_equal(header->ramdisk_size, sizeof(disk_bytes));
	assert_memory_equal(ram + header->ramdisk_image, disk_bytes, sizeof(disk_bytes));
	assert_int_equal(params()->acpi_rsdp_addr, PLATFORM_ACPI_BASE);
	assert_memory_equal(ram + PLATFORM_ACPI_BASE, "RSD PTR ", 8);
	assert_memory_equal(ram + PLATFORM_GENERATION, generation, sizeof(generation));
}

static void without_extras_there_are_none(void **state)
{
	(void)state;
	boot.initrd = NULL;
	boot.seed = NULL;
	boot.generation = NULL;
	boot.cmdline = "";
	load();
	assert_int_equal(params()->hdr.ramdisk_image, 0);
	assert_int_equal(params()->hdr.ramdisk_size, 0);
	assert_int_equal(params()->hdr.setup_data, 0);
	assert_int_equal(ram[params()->hdr.cmd_line_ptr], 0);
	for (unsigned i = 0; i < PAGE; i++)
		assert_int_equal(ram[PLATFORM_GENERATION + i], 0);
}

static void the_seed_can_be_replaced(void **state)
{
	const struct setup_data *data;

	(void)state;
	load();
	data = (const struct setup_data *)(ram + params()->hdr.setup_data);
	assert_int_equal(data->next, 0);
	assert_int_equal(data->type, SETUP_RNG_SEED);
	assert_int_equal(data->len, LINUX_SEED_BYTES);
	assert_memory_equal(data->data, seed, sizeof(seed));
	assert_ptr_equal(ram + linux_boot_seed(&plan).v, data->data);
	assert_true(kind_of(params()->hdr.setup_data) == 1);
}

/* The 64-bit protocol: all registers and what they point at. */
static void the_cpu_starts_in_64_bit_mode(void **state)
{
	const uint64_t *gdt;

	(void)state;
	load();
	assert_int_equal(start.rip, BZIMAGE_START + 0x200);
	assert_int_equal(start.rflags, 2);
	assert_int_equal(start.cr0 & 0x80000001, 0x80000001);
	assert_int_equal(start.cr4 & 0x20, 0x20);
	assert_int_equal(start.efer & 0x500, 0x500);
	assert_int_equal(start.code_selector, 0x10);
	assert_int_equal(start.data_selector, 0x18);
	gdt = (const uint64_t *)(ram + start.gdt.v);
	assert_int_equal(start.gdt_limit, 4 * sizeof(*gdt) - 1);
	assert_int_equal(gdt[start.code_selector / 8], start.code);
	assert_int_equal(gdt[start.data_selector / 8], start.data);
	assert_int_equal(start.code >> 53 & 1, 1); /* L */
	assert_int_equal(start.code >> 54 & 1, 0); /* D */
}

static void the_first_4_gib_are_mapped_as_they_are(void **state)
{
	const uint64_t frame = ~UINT64_C(0xfff);
	uint64_t address = 0;

	(void)state;
	load();
	for (; address < MIB(4096); address += MIB(2)) {
		const uint64_t *table = (const uint64_t *)(ram + start.cr3);
		uint64_t entry = table[address >> 39];

		assert_int_equal(entry & 0xa3, 0x23);
		table = (const uint64_t *)(ram + (entry & frame));
		entry = table[address >> 30 & 511];
		assert_int_equal(entry & 0xa3, 0x23);
		table = (const uint64_t *)(ram + (entry & frame));
		assert_int_equal(table[address >> 21 & 511], address | 0xe3);
		assert_ptr_equal(area_of((uint64_t)((const uint8_t *)table - ram)),
				 &plan.areas[LINUX_PAGE_TABLES]);
	}
}

/* Entries ascend, do not touch devices, and are as much RAM as there is but for the lower hole. */
static void check_map(uint64_t bytes)
{
	uint64_t total = 0, last = 0;

	boot.ram_bytes = bytes;
	load();
	assert_true(params()->e820_entries <= 5);
	for (unsigned i = 0; i < params()->e820_entries; i++) {
		struct boot_e820_entry entry = params()->e820_table[i];

		assert_true(entry.addr >= last && entry.size > 0);
		assert_true(entry.addr + entry.size <= PLATFORM_RAM_HOLE ||
			    entry.addr >= PLATFORM_RAM_HOLE_END);
		last = entry.addr + entry.size;
		total += entry.type == 1 ? entry.size : 0;
	}
	assert_int_equal(total, (bytes & ~(PAGE - 1)) - (PLATFORM_HIGH_RAM - PLATFORM_LOW_RAM_END));
	assert_int_equal(kind_of(PLATFORM_LOW_RAM_END), 0);
	assert_int_equal(kind_of(PLATFORM_ACPI_BASE), 3);
	assert_int_equal(kind_of(PLATFORM_GENERATION), 2);
	assert_int_equal(kind_of(PLATFORM_RESET_VECTOR), 2);
	for (unsigned i = 0; i < LINUX_AREAS; i++)
		if (i != LINUX_ACPI && i != LINUX_GENERATION && i != LINUX_FIRMWARE)
			assert_int_equal(kind_of(plan.areas[i].start.v), 1);
	memset(ram + start.rsi, 0, PAGE);
}

static void memory_goes_on_at_4_gib(void **state)
{
	static const uint64_t sizes[] = {
		RAM_BYTES, RAM_BYTES + 1, PLATFORM_RAM_HOLE - 4096, PLATFORM_RAM_HOLE,
		PLATFORM_RAM_HOLE + 4095, PLATFORM_RAM_HOLE + 4096, MIB(4096), MIB(5120),
	};

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++)
		check_map(sizes[i]);
	boot.ram_bytes = MIB(5120);
	load();
	assert_int_equal(kind_of(PLATFORM_RAM_HOLE_END), 1);
	assert_int_equal(kind_of(PLATFORM_RAM_HOLE_END + MIB(2048) - 1), 1);
	assert_int_equal(kind_of(PLATFORM_RAM_HOLE_END + MIB(2048)), 0);
}

static void the_initrd_is_as_high_as_it_may(void **state)
{
	(void)state;
	load();
	assert_int_equal(plan.areas[LINUX_INITRD].start.v, RAM_BYTES - 2 * PAGE);
	boot.ram_bytes = MIB(4096);
	assert_true(linux_boot_plan(&boot, &plan, &error));
	assert_int_equal(plan.areas[LINUX_INITRD].start.v, 0x80000000 - 2 * PAGE);
	kernel.initrd_end = 0x2000fff;
	assert_true(linux_boot_plan(&boot, &plan, &error));
	assert_int_equal(plan.areas[LINUX_INITRD].start.v, 0x2000000 - 2 * PAGE);
	kernel.initrd_end = UINT64_C(1) << 32;
	assert_true(linux_boot_plan(&boot, &plan, &error));
	assert_int_equal(plan.areas[LINUX_INITRD].start.v, PLATFORM_RAM_HOLE - 2 * PAGE);
}

static void what_does_not_fit_is_refused(void **state)
{
	char cmdline[BZIMAGE_CMDLINE + 2];

	(void)state;
	/* The kernel ends at 24 MiB; to the byte. */
	boot.initrd = NULL;
	boot.ram_bytes = MIB(24);
	assert_true(linux_boot_plan(&boot, &plan, &error));
	boot.ram_bytes = MIB(24) - 1;
	refuse("at least 24 MiB");
	boot.ram_bytes = 0;
	refuse("too large for 0 MiB");
	boot.initrd = &disk;
	boot.ram_bytes = MIB(24) + 2 * PAGE;
	assert_true(linux_boot_plan(&boot, &plan, &error));
	boot.ram_bytes -= PAGE;
	refuse("initrd disk is too large");
	boot.ram_bytes = RAM_BYTES;
	kernel.initrd_end = 0;
	refuse("finds 0 MiB");
	kernel.initrd_end = BZIMAGE_START;
	refuse("finds 0 MiB");

	boot.initrd = NULL;
	memset(cmdline, 'x', sizeof(cmdline));
	boot.cmdline = cmdline;
	cmdline[BZIMAGE_CMDLINE] = 0;
	assert_true(linux_boot_plan(&boot, &plan, &error));
	cmdline[BZIMAGE_CMDLINE] = 'x';
	cmdline[BZIMAGE_CMDLINE + 1] = 0;
	refuse("the command line has 2048 characters");
	boot.cmdline = "x";
	kernel.cmdline_max = 0;
	refuse("takes 0");
	kernel.memory_bytes = UINT32_MAX;
	boot.cmdline = "";
	boot.ram_bytes = MIB(8192);
	refuse("below 3 GiB");
}

/* Even if a kernel takes any command line, there is only so much room for it. */
static void an_endless_command_line_is_refused(void **state)
{
	static char cmdline[0x10001];

	(void)state;
	memset(cmdline, 'x', sizeof(cmdline) - 1);
	boot.cmdline = cmdline;
	kernel.cmdline_max = UINT32_MAX;
	refuse("takes 65535");
	cmdline[0xffff] = 0;
	load();
	assert_string_equal((char *)ram + params()->hdr.cmd_line_ptr, cmdline);
}

static void a_vmlinux_is_loaded_by_segments(void **state)
{
	(void)state;
	vmlinux = vmlinux_file();
	assert_true(linux_image_parse(&kernel, &vmlinux, sizeof(vmlinux), "kernel", &error));
	load();
	assert_int_equal(start.rip, VMLINUX_START + VMLINUX_ENTRY);
	assert_memory_equal(ram + VMLINUX_START, vmlinux.text, sizeof(vmlinux.text));
	assert_memory_equal(ram + VMLINUX_SECOND, vmlinux.data, sizeof(vmlinux.data));
	assert_int_equal(ram[VMLINUX_SECOND + sizeof(vmlinux.data)], 0);
	assert_int_equal(params()->hdr.boot_flag, 0xaa55);
	assert_int_equal(params()->hdr.loadflags & LOADED_HIGH, LOADED_HIGH);
}

/* mov dx, port; mov al, value; out dx, al */
static void the_reset_vector_resets(void **state)
{
	static const uint8_t code[] = {
		0xba, PLATFORM_RESET_PORT & 0xff, PLATFORM_RESET_PORT >> 8,
		0xb0, PLATFORM_RESET_VALUE, 0xee,
	};

	(void)state;
	load();
	assert_memory_equal(ram + 0xffff0, code, sizeof(code));
}

static void initrds_are_known_by_how_they_begin(void **state)
{
	static const struct {
		const char *bytes;
		size_t length;
		bool good;
	} files[] = {
		{ "070701 and more", 15, true },
		{ "\x1f\x8b\x08", 3, true },
		{ "\xfd" "7zXZ\0", 6, true },
		{ "\x28\xb5\x2f\xfd", 4, true },
		{ "\x02\x21\x4c\x18", 4, true },
		{ "\x1f", 1, false },
		{ "070707", 6, false },
		{ "\x7f" "ELF", 4, false },
		{ "\0\0\0\0", 4, false },
		{ "", 0, false },
	};
	char path[] = "/tmp/s2vm-initrd-XXXXXX";
	int fd = mkstemp(path);
	struct blob initrd;

	(void)state;
	assert_true(fd >= 0);
	for (size_t i = 0; i < COUNT(files); i++) {
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(pwrite(fd, files[i].bytes, files[i].length, 0), files[i].length);
		assert_int_equal(linux_initrd_open(&initrd, path, &error), files[i].good);
		if (!files[i].good) {
			assert_int_equal(error.exit, EXIT_INPUT);
			assert_null(strchr(error.text, '\n'));
			continue;
		}
		assert_int_equal(initrd.size, files[i].length);
		blob_free(&initrd);
	}
	close(fd);
	unlink(path);
	assert_false(linux_initrd_open(&initrd, path, &error));
	assert_non_null(strstr(error.text, "cannot open initrd"));
}

/* Debian's kernels need less than 128 MiB to begin with, and more than 64 MiB. */
static void real_kernels_find_room(void **state)
{
	glob_t kernels;

	(void)state;
	if (glob(S2VM_HOST_VM "/*/boot/vmlinuz-*", 0, NULL, &kernels) != 0) {
		print_message("SKIP Debian's kernels: none in " S2VM_HOST_VM
			      "; scripts/host-vm puts them there\n");
		skip();
	}
	for (size_t i = 0; i < kernels.gl_pathc; i++) {
		assert_true(linux_image_open(&kernel, kernels.gl_pathv[i], &error));
		boot.ram_bytes = MIB(64);
		refuse("too large for 64 MiB");
		boot.ram_bytes = MIB(128);
		load();
		assert_int_equal(start.rip, 0x1000200);
		assert_int_equal(params()->hdr.version, kernel.header.version);
		linux_image_close(&kernel);
	}
	globfree(&kernels);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(areas_are_apart_and_in_memory),
		TEST(nothing_is_written_outside),
		TEST(the_kernel_is_told_where_things_are),
		TEST(without_extras_there_are_none),
		TEST(the_seed_can_be_replaced),
		TEST(the_cpu_starts_in_64_bit_mode),
		TEST(the_first_4_gib_are_mapped_as_they_are),
		TEST(memory_goes_on_at_4_gib),
		TEST(the_initrd_is_as_high_as_it_may),
		TEST(what_does_not_fit_is_refused),
		TEST(an_endless_command_line_is_refused),
		TEST(a_vmlinux_is_loaded_by_segments),
		TEST(the_reset_vector_resets),
		TEST(initrds_are_known_by_how_they_begin),
		TEST(real_kernels_find_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
