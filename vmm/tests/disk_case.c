// SPDX-License-Identifier: MIT
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk_case.h"

char case_directory[] = "/tmp/s2vm-freeze-XXXXXX";
char case_base[64];
char case_overlay[64];
char case_exported[64];
unsigned char case_first[CASE_BYTES];
struct error case_error;
unsigned case_descriptors;

int case_setup(void **state)
{
	(void)state;
	if (!mkdtemp(case_directory))
		return -1;
	snprintf(case_base, sizeof(case_base), "%s/base", case_directory);
	snprintf(case_overlay, sizeof(case_overlay), "%s/overlay", case_directory);
	snprintf(case_exported, sizeof(case_exported), "%s/exported", case_directory);
	for (unsigned i = 0; i < CASE_BYTES; i++)
		case_first[i] = (unsigned char)(1 + i / DISK_SECTOR % 250);
	return 0;
}

int case_teardown(void **state)
{
	(void)state;
	unlink(case_base);
	unlink(case_overlay);
	unlink(case_exported);
	return rmdir(case_directory);
}

unsigned case_open_descriptors(void)
{
	DIR *entries = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(entries);
	while (readdir(entries))
		count++;
	closedir(entries);
	return count;
}

int case_begin(void **state)
{
	FILE *file;

	(void)state;
	unlink(case_overlay);
	unlink(case_exported);
	unlink(case_base);
	file = fopen(case_base, "w");
	if (!file || fwrite(case_first, 1, CASE_BYTES, file) != CASE_BYTES || fclose(file) != 0)
		return -1;
	/* A thread's ring stays open as long as the thread; test_disk.c has both ways of transfers. */
	disk_io_default = &disk_io_plain;
	case_descriptors = case_open_descriptors();
	return 0;
}

int case_end(void **state)
{
	(void)state;
	return case_open_descriptors() == case_descriptors ? 0 : -1;
}

unsigned long case_memory(void)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long all = 0;
	unsigned long resident = 0;
	char line[256];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		(void)sscanf(line, "Rss: %lu", &resident);
		if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " nh") &&
		    !strstr(line, " nr"))
			all += resident;
	}
	fclose(file);
	return all;
}

void case_refuse(bool done, enum error_exit status, const char *word)
{
	assert_false(done);
	assert_int_equal(case_error.exit, status);
	assert_non_null(strstr(case_error.text, word));
	assert_null(strchr(case_error.text, '\n'));
}

void case_check_part(struct disk *disk, const unsigned char *model, size_t offset, size_t bytes)
{
	unsigned char *now = malloc(bytes);

	assert_non_null(now);
	assert_true(disk_read(disk, offset, now, bytes));
	/* That compares byte by byte, but says which. */
	if (memcmp(now, model + offset, bytes) != 0)
		assert_memory_equal(now, model + offset, bytes);
	free(now);
}

void case_check(struct disk *disk, const unsigned char *model)
{
	assert_int_equal(disk->bytes, CASE_BYTES);
	case_check_part(disk, model, 0, CASE_BYTES);
}

void case_check_layers(const struct disk_layers *layers, const unsigned char *model)
{
	struct disk disk;

	disk_open_layers(&disk, layers);
	case_check(&disk, model);
	disk_close(&disk);
}

void case_check_file(const char *path, const unsigned char *model)
{
	const char *const files[] = { case_base, path };
	struct disk disk;

	assert_true(disk_open_overlays(&disk, files, 2, NULL, &case_error));
	case_check(&disk, model);
	disk_close(&disk);
}

unsigned char *case_copy(const unsigned char *model)
{
	unsigned char *copy = malloc(CASE_BYTES);

	assert_non_null(copy);
	return memcpy(copy, model, CASE_BYTES);
}

void case_put(struct disk *disk, unsigned char *model, uint32_t offset, uint32_t bytes, int value)
{
	memset(model + offset, value, bytes);
	assert_true(disk_write(disk, offset, model + offset, bytes));
}
