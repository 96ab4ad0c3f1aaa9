// SPDX-License-Identifier: MIT
/* Guest programs: which ELF files are taken, and what the image of one looks like. */
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "program.h"
#include "s2vm/guest_abi.h"

/* A program of two segments: one page of text, and data of which the file holds 100 bytes. */
struct elf_file {
	Elf64_Ehdr header;
	Elf64_Phdr segments[2];
	unsigned char text[100];
	unsigned char data[100];
};

static char path[] = "/tmp/s2vm-program-XXXXXX";

static struct elf_file good_file(void)
{
	struct elf_file file = {
		.header = {
			.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
				     EV_CURRENT },
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_version = EV_CURRENT,
			.e_entry = S2VM_PROGRAM_BASE + 8,
			.e_phoff = offsetof(struct elf_file, segments),
			.e_ehsize = sizeof(Elf64_Ehdr),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 2,
		},
		.segments = {
			{ .p_type = PT_LOAD, .p_flags = PF_R | PF_X,
			  .p_offset = offsetof(struct elf_file, text),
			  .p_vaddr = S2VM_PROGRAM_BASE, .p_filesz = 100, .p_memsz = 100 },
			{ .p_type = PT_LOAD, .p_flags = PF_R | PF_W,
			  .p_offset = offsetof(struct elf_file, data),
			  .p_vaddr = S2VM_PROGRAM_BASE + 0x2010, .p_filesz = 100,
			  .p_memsz = 0x3000 },
		},
	};

	memset(file.text, 0x90, sizeof(file.text));
	memset(file.data, 0xdd, sizeof(file.data));
	return file;
}

static void write_file(const void *contents, size_t bytes)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(contents, 1, bytes, file), bytes);
	fclose(file);
}

static void refuse(const void *contents, size_t bytes, const char *word)
{
	struct program program;
	struct error error;

	write_file(contents, bytes);
	assert_false(program_load(&program, path, &error));
	assert_int_equal(error.exit, EXIT_INPUT);
	assert_non_null(strstr(error.text, word));
	assert_null(strchr(error.text, '\n'));
}

static void an_image_holds_segments_and_a_stack(void **state)
{
	struct elf_file file = good_file();
	const unsigned char *image;
	struct program program;
	struct error error;

	(void)state;
	write_file(&file, sizeof(file));
	assert_true(program_load(&program, path, &error));
	assert_int_equal(program.entry.v, S2VM_PROGRAM_BASE + 8);
	assert_int_equal(program.region_count, 3);
	assert_int_equal(program.regions[0].bytes, 0x1000);
	assert_int_equal(program.regions[0].rights, EPT_READ | EPT_EXEC);
	assert_int_equal(program.regions[1].start.v, S2VM_PROGRAM_BASE + 0x2000);
	assert_int_equal(program.regions[1].bytes, 0x4000);
	assert_int_equal(program.regions[1].rights, EPT_READ | EPT_WRITE);
	assert_int_equal(program.regions[2].start.v, S2VM_STACK_END - S2VM_STACK_BYTES);
	image = program.image.mapping;
	assert_int_equal(image[0], 0x90);
	assert_int_equal(image[0x1000 + 0xf], 0);
	assert_int_equal(image[0x1000 + 0x10], 0xdd);
	assert_int_equal(image[0x1000 + 0x10 + 100], 0);
	program_unload(&program);
}

static void what_is_no_program_is_refused(void **state)
{
	struct elf_file file = good_file();

	(void)state;
	refuse("#!/bin/sh\n", 10, "no 64-bit x86 ELF");
	refuse("", 0, "ELF");
	refuse(&file, 20, "ELF");
	refuse(&file, offsetof(struct elf_file, data), "cut off");
	file.header.e_machine = EM_AARCH64;
	refuse(&file, sizeof(file), "no 64-bit x86 ELF");
	file = good_file();
	file.header.e_type = ET_DYN;
	refuse(&file, sizeof(file), "static");
	file = good_file();
	file.header.e_phnum = 0;
	refuse(&file, sizeof(file), "nothing to load");
}

static void what_does_not_fit_is_refused(void **state)
{
	static const uint64_t places[] = { 0, 0x1000, S2VM_FILE_BASE - 0x1000, S2VM_FILE_BASE,
					   UINT64_MAX - 0xfff, UINT64_C(1) << 47 };

	(void)state;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct elf_file file = good_file();

		file.segments[1].p_vaddr = places[i];
		refuse(&file, sizeof(file), "does not fit");
	}
	for (unsigned i = 0; i < 2; i++) {
		struct elf_file file = good_file();

		file.segments[i].p_memsz = UINT64_MAX - i * 0x1000;
		refuse(&file, sizeof(file), "does not fit");
	}
}

static void segments_in_one_page_are_refused(void **state)
{
	struct elf_file file = good_file();

	(void)state;
	file.segments[1].p_vaddr = S2VM_PROGRAM_BASE + 0x800;
	refuse(&file, sizeof(file), "page-aligned");
}

static void unknown_names_are_refused(void **state)
{
	struct program program;
	struct error error;

	(void)state;
	assert_false(program_load(&program, "no-such-program", &error));
	assert_int_equal(error.exit, EXIT_INPUT);
	assert_non_null(strstr(error.text, "no guest program named"));
	assert_false(program_load(&program, "/tmp", &error));
	assert_int_equal(error.exit, EXIT_INPUT);
}

static int setup(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_image_holds_segments_and_a_stack),
		cmocka_unit_test(what_is_no_program_is_refused),
		cmocka_unit_test(what_does_not_fit_is_refused),
		cmocka_unit_test(segments_in_one_page_are_refused),
		cmocka_unit_test(unknown_names_are_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
