// SPDX-License-Identifier: MIT
/* Kernel files: which are taken, what they say, and that none of their numbers is trusted. */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "linux_files.h"
#include "linux_image.h"
#include "platform.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A field of a file that is given another value, and the words that say what is wrong then. */
struct damage {
	const char *word;
	size_t at;
	size_t width;
	uint64_t value;
};

/* In a heap block of just this size, so that AddressSanitizer sees what reads beyond it. */
static bool parse(struct linux_image *image, const void *contents, size_t size,
		  struct error *error)
{
	uint8_t *bytes = malloc(size ? size : 1);
	bool good;

	assert_non_null(bytes);
	memcpy(bytes, contents, size);
	good = linux_image_parse(image, bytes, size, "kernel", error);
	if (good)
		for (unsigned i = 0; i < image->segment_count; i++) {
			const struct linux_segment *segment = &image->segments[i];

			assert_true(segment->file_at <= size &&
				    segment->bytes <= size - segment->file_at);
			assert_true(segment->at <= image->memory_bytes &&
				    segment->bytes <= image->memory_bytes - segment->at);
		}
	free(bytes);
	if (!good)
		return false;
	assert_true(image->segment_count >= 1 && image->segment_count <= LINUX_SEGMENTS);
	assert_true(image->start.v >= PLATFORM_HIGH_RAM);
	assert_true(image->start.v < PLATFORM_RAM_HOLE_END);
	assert_true(image->memory_bytes < PLATFORM_RAM_HOLE_END);
	assert_true(image->entry < image->memory_bytes);
	return true;
}

static void refuse(const void *contents, size_t size, const char *word)
{
	struct linux_image image;
	struct error error;

	assert_false(parse(&image, contents, size, &error));
	assert_int_equal(error.exit, EXIT_INPUT);
	assert_null(strchr(error.text, '\n'));
	if (!strstr(error.text, word))
		fail_msg("\"%s\" is not in: %s", word, error.text);
}

static void refuse_damaged(const void *good, size_t size, const struct damage *damage)
{
	uint8_t *bytes = malloc(size);

	assert_non_null(bytes);
	memcpy(bytes, good, size);
	memcpy(bytes + damage->at, &damage->value, damage->width);
	refuse(bytes, size, damage->word);
	free(bytes);
}

static void a_bzimage_is_taken(void **state)
{
	struct bzimage_file file = bzimage_file();
	struct linux_image image;
	struct error error;

	(void)state;
	assert_true(parse(&image, &file, sizeof(file), &error));
	assert_int_equal(image.kind, LINUX_BZIMAGE);
	assert_int_equal(image.start.v, BZIMAGE_START);
	assert_int_equal(image.memory_bytes, BZIMAGE_MEMORY);
	assert_int_equal(image.entry, 0x200);
	assert_int_equal(image.segment_count, 1);
	assert_int_equal(image.segments[0].file_at, BZIMAGE_PAYLOAD_AT);
	assert_int_equal(image.segments[0].bytes, BZIMAGE_PAYLOAD_BYTES);
	assert_int_equal(image.segments[0].at, 0);
	assert_int_equal(image.cmdline_max, BZIMAGE_CMDLINE);
	assert_int_equal(image.initrd_end, 0x80000000);
	assert_int_equal(image.header.version, 0x20f);
}

static void a_kernel_runs_where_the_protocol_says(void **state)
{
	struct bzimage_file file = bzimage_file();
	struct linux_image image;
	struct error error;

	(void)state;
	file.header.pref_address = 0x1000001;
	assert_true(parse(&image, &file, sizeof(file), &error));
	assert_int_equal(image.start.v, 0x1200000);
	file.header.relocatable_kernel = 0;
	assert_true(parse(&image, &file, sizeof(file), &error));
	assert_int_equal(image.start.v, 0x1000001);
	file.header.init_size = 0;
	assert_true(parse(&image, &file, sizeof(file), &error));
	assert_int_equal(image.memory_bytes, BZIMAGE_PAYLOAD_BYTES);
	/* No setup sectors mean four. */
	file.header.setup_sects = 0;
	refuse(&file, sizeof(file), "cut off");
}

/* A later protocol's header may be longer than what is known here, an earlier one's shorter. */
static void headers_of_other_lengths_are_taken(void **state)
{
	struct bzimage_file file = bzimage_file();
	struct linux_image image;
	struct error error;

	(void)state;
	file.header.jump = 0xffeb;
	memset(file.setup, 0xff, sizeof(file.setup));
	assert_true(parse(&image, &file, sizeof(file), &error));
	assert_int_equal(image.header.kernel_info_offset, 0);
	file.header.jump = 0x62eb;
	file.header.handover_offset = 1;
	assert_true(parse(&image, &file, sizeof(file), &error));
	assert_int_equal(image.header.handover_offset, 0);
}

#define FIELD(field) 0x1f1 + offsetof(struct setup_header, field), \
		     sizeof(((struct setup_header *)NULL)->field)

static void a_damaged_bzimage_is_refused(void **state)
{
	static const struct damage damages[] = {
		{ "no Linux kernel", FIELD(boot_flag), 0 },
		{ "no Linux kernel", FIELD(header), 0 },
		{ "too old", FIELD(version), 0x20b },
		{ "too old", FIELD(version), 0 },
		{ "32-bit", FIELD(xloadflags), 0 },
		{ "32-bit", FIELD(xloadflags), (uint16_t)~XLF_KERNEL_64 },
		{ "loadflags", FIELD(loadflags), 0 },
		{ "header's length", FIELD(jump), 0x00eb },
		{ "header's length", FIELD(jump), 0x5aeb },
		{ "cut off", FIELD(setup_sects), 2 },
		{ "cut off", FIELD(setup_sects), 0xff },
		{ "cut off", FIELD(syssize), BZIMAGE_PAYLOAD_BYTES / 16 + 1 },
		{ "cut off", FIELD(syssize), UINT32_MAX },
		{ "syssize", FIELD(syssize), 0 },
		{ "syssize", FIELD(syssize), 0x20 },
		{ "kernel_alignment", FIELD(kernel_alignment), 0 },
		{ "kernel_alignment", FIELD(kernel_alignment), 0x300000 },
		{ "kernel_alignment", FIELD(kernel_alignment), 0x80000000 },
		{ "pref_address", FIELD(pref_address), 0 },
		{ "pref_address", FIELD(pref_address), 0xfffff },
		{ "pref_address", FIELD(pref_address), 0x100000000 },
		{ "pref_address", FIELD(pref_address), UINT64_MAX },
	};
	struct bzimage_file file = bzimage_file();

	(void)state;
	for (size_t i = 0; i < COUNT(damages); i++)
		refuse_damaged(&file, sizeof(file), &damages[i]);
}

static void a_vmlinux_is_taken(void **state)
{
	struct vmlinux_file file = vmlinux_file();
	struct linux_image image;
	struct error error;

	(void)state;
	assert_true(parse(&image, &file, sizeof(file), &error));
	assert_int_equal(image.kind, LINUX_VMLINUX);
	assert_int_equal(image.start.v, VMLINUX_START);
	assert_int_equal(image.memory_bytes, VMLINUX_MEMORY);
	assert_int_equal(image.entry, VMLINUX_ENTRY);
	assert_int_equal(image.segment_count, 2);
	assert_int_equal(image.segments[1].file_at, offsetof(struct vmlinux_file, data));
	assert_int_equal(image.segments[1].bytes, 100);
	assert_int_equal(image.segments[1].at, VMLINUX_SECOND - VMLINUX_START);
	assert_int_equal(image.cmdline_max, 2047);
	assert_int_equal(image.header.header, 0x53726448);
	/* Segments may come in any order. */
	file.segments[0].p_paddr = VMLINUX_SECOND + 0x3000;
	file.header.e_entry = VMLINUX_SECOND;
	assert_true(parse(&image, &file, sizeof(file), &error));
	assert_int_equal(image.start.v, VMLINUX_SECOND);
	assert_int_equal(image.segments[0].at, 0x3000);
	assert_int_equal(image.memory_bytes, 0x3064);
}

#define IN(field) offsetof(struct vmlinux_file, field), \
		  sizeof(((struct vmlinux_file *)NULL)->field)

static void a_damaged_vmlinux_is_refused(void **state)
{
	static const struct damage damages[] = {
		{ "another architecture", IN(header.e_ident[EI_CLASS]), ELFCLASS32 },
		{ "another architecture", IN(header.e_ident[EI_DATA]), ELFDATA2MSB },
		{ "another architecture", IN(header.e_machine), EM_AARCH64 },
		{ "no linked kernel", IN(header.e_type), ET_REL },
		{ "ELF header", IN(header.e_phentsize), 0 },
		{ "ELF header", IN(header.e_phentsize), 0xffff },
		{ "cut off", IN(header.e_phoff), UINT64_MAX - 8 },
		{ "cut off", IN(header.e_phoff), sizeof(struct vmlinux_file) },
		{ "cut off", IN(header.e_phnum), 0xffff },
		{ "PVH", IN(header.e_phnum), 0 },
		{ "PVH", IN(segments[2].p_type), PT_NULL },
		{ "PVH", IN(notes[1].header.n_type), 17 },
		{ "PVH", IN(notes[1].name), 0 },
		{ "PVH", IN(notes[1].header.n_namesz), UINT32_MAX },
		{ "PVH", IN(notes[0].header.n_descsz), UINT32_MAX },
		{ "PVH", IN(notes[0].header.n_descsz), 20 },
		{ "PVH", IN(segments[2].p_filesz), 30 },
		{ "cut off", IN(segments[2].p_filesz), UINT64_MAX },
		{ "cut off", IN(segments[2].p_offset), UINT64_MAX },
		{ "cut off", IN(segments[0].p_offset), sizeof(struct vmlinux_file) },
		{ "cut off", IN(segments[0].p_offset), UINT64_MAX },
		{ "segments' addresses", IN(segments[0].p_filesz), UINT64_MAX },
		{ "segments' addresses", IN(segments[0].p_filesz), 101 },
		{ "segments' addresses", IN(segments[0].p_paddr), 0 },
		{ "segments' addresses", IN(segments[0].p_paddr), 0xfffff },
		{ "segments' addresses", IN(segments[0].p_paddr), PLATFORM_RAM_HOLE },
		{ "segments' addresses", IN(segments[0].p_paddr), UINT64_MAX - 50 },
		{ "segments' addresses", IN(segments[1].p_memsz), UINT64_MAX },
		{ "segments' addresses", IN(segments[1].p_memsz), PLATFORM_RAM_HOLE },
		{ "entry", IN(header.e_entry), 0 },
		{ "entry", IN(header.e_entry), VMLINUX_START - 1 },
		{ "entry", IN(header.e_entry), VMLINUX_START + VMLINUX_MEMORY },
		{ "entry", IN(header.e_entry), UINT64_MAX },
	};
	struct vmlinux_file file = vmlinux_file();

	(void)state;
	for (size_t i = 0; i < COUNT(damages); i++)
		refuse_damaged(&file, sizeof(file), &damages[i]);
	file.segments[0].p_type = PT_NULL;
	file.segments[1].p_memsz = 0;
	refuse(&file, sizeof(file), "list of segments");
}

static void too_many_segments_are_refused(void **state)
{
	struct {
		struct vmlinux_file file;
		Elf64_Phdr headers[LINUX_SEGMENTS + 2];
	} big = { .file = vmlinux_file() };

	(void)state;
	for (unsigned i = 0; i <= LINUX_SEGMENTS; i++)
		big.headers[i] = big.file.segments[0];
	big.headers[LINUX_SEGMENTS + 1] = big.file.segments[2];
	big.file.header.e_phoff = sizeof(big.file);
	big.file.header.e_phnum = LINUX_SEGMENTS + 2;
	refuse(&big, sizeof(big), "number of segments");
}

static void what_is_no_kernel_is_refused(void **state)
{
	static const struct {
		const char *word;
		size_t at;
		const char *magic;
		size_t length;
	} files[] = {
		{ "no Linux kernel", 0, "#!/bin/sh\n", 10 },
		{ "no Linux kernel", 0, "MZ", 2 },
		{ "arm64", 0x38, "ARM\x64", 4 },
		{ "for arm:", 0x24, "\x18\x28\x6f\x01", 4 },
		{ "RISC-V", 0x38, "RSC\x05", 4 },
		{ "gzip", 0, "\x1f\x8b", 2 },
		{ "xz", 0, "\xfd" "7zXZ", 5 },
		{ "zstd", 0, "\x28\xb5\x2f\xfd", 4 },
		{ "initial RAM disk", 0, "070701", 6 },
		{ "package", 0, "!<arch>", 7 },
	};
	uint8_t file[0x400];

	(void)state;
	refuse("", 0, "no Linux kernel");
	refuse(ELFMAG, SELFMAG, "cut off");
	for (size_t i = 0; i < COUNT(files); i++) {
		memset(file, 0, sizeof(file));
		memcpy(file + files[i].at, files[i].magic, files[i].length);
		refuse(file, sizeof(file), files[i].word);
	}
}

/* Whatever is cut off or altered is taken within its bounds, or refused in one line. */
static void try_all_of(const void *good, size_t size)
{
	static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
	struct linux_image image;
	struct error error;
	uint8_t *bytes = malloc(size);

	assert_non_null(bytes);
	for (size_t cut = 0; cut < size; cut++)
		if (!parse(&image, good, cut, &error))
			assert_null(strchr(error.text, '\n'));
	for (size_t at = 0; at < size; at++)
		for (size_t i = 0; i < COUNT(values); i++) {
			memcpy(bytes, good, size);
			bytes[at] = values[i];
			if (!parse(&image, bytes, size, &error))
				assert_null(strchr(error.text, '\n'));
		}
	free(bytes);
}

static void every_cut_and_every_byte(void **state)
{
	struct bzimage_file bzimage = bzimage_file();
	struct vmlinux_file vmlinux = vmlinux_file();

	(void)state;
	try_all_of(&bzimage, sizeof(bzimage));
	try_all_of(&vmlinux, sizeof(vmlinux));
	/* All of a bzImage is needed. */
	for (size_t cut = 0x270; cut < sizeof(bzimage); cut++)
		refuse(&bzimage, cut, "cut off");
}

static char path[] = "/tmp/s2vm-kernel-XXXXXX";

static void refuse_path(const char *name, const char *word)
{
	struct linux_image image;
	struct error error;

	assert_false(linux_image_open(&image, name, &error));
	assert_int_equal(error.exit, EXIT_INPUT);
	assert_null(strchr(error.text, '\n'));
	assert_non_null(strstr(error.text, word));
	assert_null(image.bytes);
}

static void write_file(const void *contents, size_t size)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(contents, 1, size, file), size);
	fclose(file);
}

static void a_file_is_opened(void **state)
{
	struct bzimage_file file = bzimage_file();
	struct linux_image image;
	struct error error;

	(void)state;
	write_file(&file, sizeof(file));
	assert_true(linux_image_open(&image, path, &error));
	assert_string_equal(image.name, path);
	assert_memory_equal(image.bytes + image.segments[0].file_at, file.payload,
			    sizeof(file.payload));
	linux_image_close(&image);
	linux_image_close(&image);
	write_file("", 0);
	refuse_path(path, "empty");
	write_file("x", 1);
	refuse_path(path, "no Linux kernel");
	assert_int_equal(truncate(path, INT64_C(3) << 30), 0);
	refuse_path(path, "2 GiB");
	refuse_path("/no/such/kernel", "cannot open kernel");
	refuse_path("/tmp", "not a regular file");
	refuse_path("/dev/null", "not a regular file");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	refuse_path(path, "not a regular file");
}

/* Debian's, as scripts/host-vm has unpacked them. */
static void real_kernels_are_taken(void **state)
{
	struct linux_image image;
	struct error error;
	struct stat status;
	glob_t kernels;

	(void)state;
	if (glob(S2VM_HOST_VM "/*/boot/vmlinuz-*", 0, NULL, &kernels) != 0) {
		print_message("SKIP Debian's kernels: none in " S2VM_HOST_VM
			      "; scripts/host-vm puts them there\n");
		skip();
	}
	for (size_t i = 0; i < kernels.gl_pathc; i++) {
		assert_true(linux_image_open(&image, kernels.gl_pathv[i], &error));
		assert_int_equal(stat(kernels.gl_pathv[i], &status), 0);
		assert_int_equal(image.kind, LINUX_BZIMAGE);
		assert_int_equal(image.start.v, 0x1000000);
		assert_int_equal(image.cmdline_max, 2047);
		assert_true(image.segments[0].bytes > (uint64_t)status.st_size / 10 * 9);
		assert_true(image.memory_bytes > image.segments[0].bytes);
		linux_image_close(&image);
	}
	globfree(&kernels);
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
		cmocka_unit_test(a_bzimage_is_taken),
		cmocka_unit_test(a_kernel_runs_where_the_protocol_says),
		cmocka_unit_test(headers_of_other_lengths_are_taken),
		cmocka_unit_test(a_damaged_bzimage_is_refused),
		cmocka_unit_test(a_vmlinux_is_taken),
		cmocka_unit_test(a_damaged_vmlinux_is_refused),
		cmocka_unit_test(too_many_segments_are_refused),
		cmocka_unit_test(what_is_no_kernel_is_refused),
		cmocka_unit_test(every_cut_and_every_byte),
		cmocka_unit_test(a_file_is_opened),
		cmocka_unit_test(real_kernels_are_taken),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
