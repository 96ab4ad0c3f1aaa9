// SPDX-License-Identifier: MIT
/* Memory files: what is refused, what guests see at a file's end, what happens when it is cut off. */
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

#include "memfile.h"

#define PAGE 4096

static char directory[] = "/tmp/s2vm-memfile-XXXXXX";
static char path[64];

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/file", directory);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(directory);
}

/* A file of @bytes bytes that are all 'x'. */
static void make_file(long bytes)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	for (long i = 0; i < bytes; i++)
		fputc('x', file);
	fclose(file);
}

static void refuse(uint64_t bytes, const char *word)
{
	struct memfile file;
	struct error error;

	assert_false(memfile_open(&file, path, bytes, false, &error));
	assert_int_equal(error.exit, EXIT_INPUT);
	assert_non_null(strstr(error.text, word));
	assert_null(strchr(error.text, '\n'));
	assert_int_equal(file.fd, -1);
}

static void what_is_no_memory_file_is_refused(void **state)
{
	(void)state;
	unlink(path);
	refuse(0, "No such file");
	make_file(0);
	refuse(0, "empty");
	make_file(100);
	refuse(101, "fewer");
	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	refuse(0, "not a regular file");
	rmdir(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	refuse(0, "not a regular file");
	unlink(path);
}

static void the_last_page_is_filled_up_with_zeros(void **state)
{
	unsigned char page[PAGE];
	struct memfile file;
	struct error error;

	(void)state;
	make_file(PAGE + 100);
	assert_true(memfile_open(&file, path, 0, false, &error));
	assert_int_equal(file.bytes, PAGE + 100);
	assert_int_equal(file.pages, 2);
	assert_true(memfile_read_page(&file, 1, page));
	assert_int_equal(page[99], 'x');
	assert_int_equal(page[100], 0);
	assert_int_equal(page[PAGE - 1], 0);
	memfile_close(&file);
}

static void a_file_that_is_cut_off_is_noticed(void **state)
{
	unsigned char page[PAGE];
	struct memfile file;
	struct error error;

	(void)state;
	make_file(4 * PAGE);
	assert_true(memfile_open(&file, path, 0, false, &error));
	assert_false(memfile_shrank(&file));
	assert_int_equal(truncate(path, PAGE), 0);
	assert_true(memfile_shrank(&file));
	assert_true(memfile_read_page(&file, 0, page));
	assert_false(memfile_read_page(&file, 2, page));
	memfile_close(&file);
}

static void a_sealed_file_cannot_be_written(void **state)
{
	struct memfile file;
	struct error error;

	(void)state;
	assert_true(memfile_create(&file, "test", 2 * PAGE, &error));
	memset(file.mapping, 7, 2 * PAGE);
	assert_true(memfile_seal(&file, &error));
	assert_int_equal(pwrite(file.fd, "y", 1, 0), -1);
	assert_int_equal(ftruncate(file.fd, PAGE), -1);
	assert_int_equal(((unsigned char *)file.mapping)[PAGE], 7);
	memfile_close(&file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_memory_file_is_refused),
		cmocka_unit_test(the_last_page_is_filled_up_with_zeros),
		cmocka_unit_test(a_file_that_is_cut_off_is_noticed),
		cmocka_unit_test(a_sealed_file_cannot_be_written),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
