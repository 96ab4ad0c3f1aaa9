// SPDX-License-Identifier: MIT
/* Disks that are frozen, go on, go back and become files. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk_case.h"

/* ---- kinds of disks ---- */

static void a_file_that_is_written_cannot_be_frozen(void **state)
{
	struct disk_layers *layers;
	struct disk_layers *others;
	struct disk disk;
	struct disk reader;

	(void)state;
	assert_true(disk_open(&disk, case_base, DISK_WRITABLE, &case_error));
	case_refuse(disk_freeze(&disk, &layers, &case_error), EXIT_INPUT, case_base);
	assert_non_null(strstr(case_error.text, "overlays"));
	assert_null(layers);
	disk_close(&disk);
	/* Nor go back, which its file would have to. */
	assert_true(disk_open_overlay(&reader, case_base, NULL, &case_error));
	assert_true(disk_freeze(&reader, &others, &case_error));
	disk_close(&reader);
	assert_int_equal(rename(case_base, case_overlay), 0);
	assert_int_equal(case_begin(state), 0);
	assert_true(disk_open(&disk, case_base, DISK_WRITABLE, &case_error));
	case_refuse(disk_go_back(&disk, others, &case_error), EXIT_INPUT, "go back");
	case_check(&disk, case_first);
	disk_close(&disk);
	disk_layers_release(others);
	case_descriptors = case_open_descriptors();
}

static void a_disk_that_is_only_read_is_its_file(void **state)
{
	struct disk_layers *layers;
	struct disk disk;
	struct disk clone;

	(void)state;
	assert_true(disk_open(&disk, case_base, DISK_READ_ONLY, &case_error));
	assert_true(disk_freeze(&disk, &layers, &case_error));
	disk_open_layers(&clone, layers);
	assert_int_equal(clone.access, DISK_READ_ONLY);
	assert_true(disk_go_back(&disk, layers, &case_error));
	assert_true(disk_export(layers, case_exported, &case_error));
	disk_close(&disk);
	case_check(&clone, case_first);
	disk_close(&clone);
	disk_layers_release(layers);
	case_check_file(case_exported, case_first);
}

static void an_overlay_file_stays_as_it_was_frozen(void **state)
{
	unsigned char *model = case_copy(case_first);
	unsigned char *frozen;
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, case_base, case_overlay, &case_error));
	case_put(&disk, model, 5000, 100000, 'o');
	frozen = case_copy(model);
	assert_true(disk_freeze(&disk, &layers, &case_error));
	case_put(&disk, model, 4000, 3000, 'n');
	case_put(&disk, model, CASE_BYTES - 10, 10, 'n');
	assert_true(disk_flush(&disk));
	case_check(&disk, model);
	case_check_layers(layers, frozen);
	assert_true(disk_export(layers, case_exported, &case_error));
	assert_true(disk_go_back(&disk, layers, &case_error));
	case_check(&disk, frozen);
	disk_layers_release(layers);
	disk_close(&disk);
	case_check_file(case_overlay, frozen);
	case_check_file(case_exported, frozen);
	free(frozen);
	free(model);
}

/* A process that ends at once after it. */
static void what_was_frozen_is_in_its_file(void **state)
{
	unsigned char *model = case_copy(case_first);
	struct disk_layers *layers;
	struct disk disk;
	int status;
	pid_t child;

	(void)state;
	memset(model + 7000, 'f', 70000);
	child = fork();
	if (child == 0)
		_exit(disk_open_overlay(&disk, case_base, case_overlay, &case_error) &&
				      disk_write(&disk, 7000, model + 7000, 70000) &&
				      disk_freeze(&disk, &layers, &case_error) &&
				      disk_write(&disk, 0, model + 7000, 70000) ?
			      0 :
			      1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	case_check_file(case_overlay, model);
	free(model);
}

/* It is another disk's that it goes back to. */
static void a_file_that_is_left_keeps_what_was_written(void **state)
{
	unsigned char *model = case_copy(case_first);
	struct disk_layers *layers;
	struct disk other;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&other, case_base, NULL, &case_error));
	assert_true(disk_freeze(&other, &layers, &case_error));
	assert_true(disk_open_overlay(&disk, case_base, case_overlay, &case_error));
	case_put(&disk, model, 5000, 100000, 'o');
	assert_true(disk_go_back(&disk, layers, &case_error));
	case_check(&disk, case_first);
	case_check_file(case_overlay, model);
	disk_close(&disk);
	disk_close(&other);
	disk_layers_release(layers);
	free(model);
}

static void a_disk_of_another_size_cannot_go_back(void **state)
{
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	assert_true(disk_freeze(&disk, &layers, &case_error));
	disk_close(&disk);
	assert_int_equal(truncate(case_base, CASE_BYTES - DISK_SECTOR), 0);
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	case_refuse(disk_go_back(&disk, layers, &case_error), EXIT_INPUT, "size");
	disk_close(&disk);
	assert_int_equal(truncate(case_base, CASE_BYTES), 0);
	assert_true(disk_open(&disk, case_base, DISK_READ_ONLY, &case_error));
	case_refuse(disk_go_back(&disk, layers, &case_error), EXIT_INPUT, "not written");
	disk_close(&disk);
	disk_layers_release(layers);
}

static void the_base_is_named_absolutely(void **state)
{
	int here = open(".", O_RDONLY | O_DIRECTORY);
	struct disk_layers *layers;
	struct disk disk;
	char *path = realpath(case_base, NULL);

	(void)state;
	assert_non_null(path);
	assert_int_equal(chdir(case_directory), 0);
	assert_true(disk_open_overlay(&disk, "base", NULL, &case_error));
	assert_int_equal(fchdir(here), 0);
	assert_true(disk_freeze(&disk, &layers, &case_error));
	disk_close(&disk);
	assert_string_equal(disk_layers_base(layers), path);
	disk_layers_release(layers);
	free(path);
	close(here);
}

/* ---- often ---- */

static unsigned transfers_run;

static bool count_and_run(const struct disk_transfer *transfers, unsigned count)
{
	transfers_run += count;
	return disk_io_plain.run(transfers, count);
}

static const struct disk_io counting = { .run = count_and_run };

static unsigned char byte_of(const struct disk_layers *layers, uint32_t cluster)
{
	unsigned char byte;
	struct disk disk;

	disk_open_layers(&disk, layers);
	assert_true(disk_read(&disk, cluster * DISK_CLUSTER, &byte, 1));
	disk_close(&disk);
	return byte;
}

/* All of them in use, each with one write more than the one before: reading is as it was. */
static void a_thousand_layers_are_no_depth(void **state)
{
	static struct disk_layers *layers[1000];
	unsigned char *model = case_copy(case_first);
	unsigned before;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	disk.io = &counting;
	before = case_open_descriptors();
	transfers_run = 0;
	for (uint32_t i = 0; i < 1000; i++) {
		case_put(&disk, model, i % 16 * DISK_CLUSTER, DISK_CLUSTER, (int)i);
		assert_true(disk_freeze(&disk, &layers[i], &case_error));
	}
	/* Clusters in memory, and one read of the base for all of the rest. */
	case_check(&disk, model);
	assert_int_equal(transfers_run, 1);
	assert_int_equal(case_open_descriptors(), before);
	disk_close(&disk);
	for (uint32_t i = 0; i < 1000; i++) {
		assert_int_equal(byte_of(layers[i], i % 16), (unsigned char)i);
		if (i >= 15)
			assert_int_equal(byte_of(layers[i], (i + 1) % 16), (unsigned char)(i - 15));
		if (i % 3)
			disk_layers_release(layers[i]);
	}
	for (uint32_t i = 0; i < 1000; i += 3) {
		assert_int_equal(byte_of(layers[i], i % 16), (unsigned char)i);
		disk_layers_release(layers[i]);
	}
	free(model);
}

/* Freezing moves nothing: neither what is in files nor what is in memory. */
static void freezing_moves_nothing(void **state)
{
	unsigned char *model = case_copy(case_first);
	struct disk_layers *layers;
	struct disk disk;
	struct disk clone;

	(void)state;
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	case_put(&disk, model, 0, CASE_BYTES / 2, 'm');
	disk.io = &counting;
	transfers_run = 0;
	assert_true(disk_freeze(&disk, &layers, &case_error));
	disk_open_layers(&clone, layers);
	assert_true(disk_go_back(&clone, layers, &case_error));
	disk_close(&clone);
	assert_true(disk_go_back(&disk, layers, &case_error));
	disk_layers_release(layers);
	assert_int_equal(transfers_run, 0);
	case_check(&disk, model);
	disk_close(&disk);
	free(model);
}

/* ---- memory ---- */

#define KIB_WRITTEN (CASE_BYTES / 2 / 1024)

static unsigned long memory_before;

static bool takes(unsigned long kib)
{
	unsigned long now = case_memory() - memory_before;

	/* Chunks have headers. */
	return now >= kib && now <= kib + kib / 16 + 100;
}

/* Half of a disk is written, and what nobody can read any more goes. */
static void memory_goes_with_its_last_user(void **state)
{
	unsigned char *model = case_copy(case_first);
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	memory_before = case_memory();
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	case_put(&disk, model, 0, CASE_BYTES / 2, 1);
	case_put(&disk, model, 0, CASE_BYTES / 2, 2);
	assert_true(takes(KIB_WRITTEN));
	assert_true(disk_freeze(&disk, &layers, &case_error));
	assert_true(takes(KIB_WRITTEN));
	case_put(&disk, model, 0, CASE_BYTES / 2, 3);
	assert_true(takes(2 * KIB_WRITTEN));
	assert_true(disk_go_back(&disk, layers, &case_error));
	assert_true(takes(KIB_WRITTEN));
	case_put(&disk, model, 0, CASE_BYTES / 2, 4);
	assert_true(takes(2 * KIB_WRITTEN));
	disk_layers_release(layers);
	assert_true(takes(KIB_WRITTEN));
	assert_true(disk_discard(&disk, 0, CASE_BYTES));
	assert_true(takes(0));
	case_put(&disk, model, 0, CASE_BYTES / 2, 5);
	assert_true(disk_zero(&disk, 0, CASE_BYTES, DISK_FREE_SPACE));
	assert_true(takes(0));
	case_put(&disk, model, 0, CASE_BYTES / 2, 6);
	disk_close(&disk);
	assert_int_equal(case_memory(), memory_before);
	free(model);
}

/* Frozen again and again, as each time before is given up, also if only after the next one. */
static void freezing_often_takes_no_more_memory(void **state)
{
	unsigned char *model = case_copy(case_first);
	struct disk_layers *last = NULL;
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	memory_before = case_memory();
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	for (unsigned i = 0; i < 5000; i++) {
		case_put(&disk, model, i % 4 * DISK_CLUSTER, DISK_CLUSTER, (int)i);
		assert_true(disk_freeze(&disk, &layers, &case_error));
		disk_layers_release(last);
		last = layers;
	}
	assert_true(takes(4 * DISK_CLUSTER / 1024));
	disk_layers_release(last);
	case_check(&disk, model);
	disk_close(&disk);
	free(model);
}

/* No more memory than the process has. */
static bool refuse_memory(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_AS, &limit) < 0)
		return false;
	limit.rlim_cur = 4096;
	return setrlimit(RLIMIT_AS, &limit) == 0;
}

/* Writes until it fails, and looks whether all is there but what failed. 0: so it is. */
static int write_without_memory(struct disk *disk)
{
	static unsigned char cluster[DISK_CLUSTER];
	unsigned char is;
	uint64_t count = 0;

	memset(cluster, 'w', sizeof(cluster));
	if (!disk_write(disk, 0, cluster, DISK_CLUSTER) || !refuse_memory())
		return 1;
	while (count < 1024 && disk_write(disk, count * DISK_CLUSTER, cluster, DISK_CLUSTER))
		count++;
	if (count == 1024 || errno != ENOMEM)
		return 2;
	for (uint64_t i = 0; i <= count; i++)
		if (!disk_read(disk, i * DISK_CLUSTER, &is, 1) ||
		    is != (i < count ? 'w' : case_first[i * DISK_CLUSTER]))
			return 3;
	return disk_write(disk, 100, cluster, 1) ? 0 : 4;
}

static void without_memory_a_write_fails(void **state)
{
	struct disk disk;
	int status;
	pid_t child;

	(void)state;
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	child = fork();
	if (child == 0)
		_exit(write_without_memory(&disk));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	disk_close(&disk);
}

/* ---- files ---- */

static long blocks_of(const char *path)
{
	struct stat status;

	assert_int_equal(stat(path, &status), 0);
	return status.st_blocks;
}

static void zeros_take_no_space_in_a_file(void **state)
{
	static const unsigned char zeros[1 << 20];
	unsigned char *model = case_copy(case_first);
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	memset(model, 0, sizeof(zeros));
	assert_true(disk_write(&disk, 0, zeros, sizeof(zeros)));
	memset(model + CASE_BYTES / 2, 0, CASE_BYTES - CASE_BYTES / 2);
	assert_true(disk_zero(&disk, CASE_BYTES / 2, CASE_BYTES - CASE_BYTES / 2, DISK_FREE_SPACE));
	case_put(&disk, model, 3 * DISK_CLUSTER, DISK_CLUSTER, 'd');
	assert_true(disk_freeze(&disk, &layers, &case_error));
	disk_close(&disk);
	assert_true(disk_export(layers, case_exported, &case_error));
	/* Header, bitmap, two clusters (one was zeroed in part), and the file system's own. */
	assert_true(blocks_of(case_exported) <= 6 * (long)DISK_CLUSTER / 512);
	case_check_file(case_exported, model);
	disk_layers_release(layers);
	free(model);
}

static struct disk_layers *layers_of_half(void)
{
	unsigned char *model = case_copy(case_first);
	struct disk_layers *layers;
	struct disk disk;

	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	case_put(&disk, model, 0, CASE_BYTES / 2, 'h');
	assert_true(disk_freeze(&disk, &layers, &case_error));
	disk_close(&disk);
	free(model);
	return layers;
}

static void what_cannot_be_exported_leaves_no_file(void **state)
{
	const struct timespec long_ago[] = { { 1, 0 }, { 1, 0 } };
	struct disk_layers *layers = layers_of_half();
	char elsewhere[96];
	int fd;

	(void)state;
	snprintf(elsewhere, sizeof(elsewhere), "%s/no/overlay", case_directory);
	case_refuse(disk_export(layers, elsewhere, &case_error), EXIT_INPUT, "No such file");
	/* What is there stays. */
	fd = open(case_exported, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_int_equal(write(fd, "text\n", 5), 5);
	close(fd);
	case_refuse(disk_export(layers, case_exported, &case_error), EXIT_INPUT, "File exists");
	assert_true(blocks_of(case_exported) > 0);
	assert_int_equal(unlink(case_exported), 0);
	/* The base is not any more what it was. */
	assert_int_equal(utimensat(AT_FDCWD, case_base, long_ago, 0), 0);
	case_refuse(disk_export(layers, case_exported, &case_error), EXIT_INPUT, "written to");
	assert_int_equal(access(case_exported, F_OK), -1);
	disk_layers_release(layers);
}

/* It is filled up with zeros, and not with what was in memory. */
static void the_last_cluster_is_filled_up_with_zeros(void **state)
{
	static const unsigned char zeros[DISK_CLUSTER - CASE_BYTES % DISK_CLUSTER];
	unsigned char *model = case_copy(case_first);
	unsigned char last[sizeof(zeros)];
	struct disk_layers *layers;
	struct disk disk;
	int fd;

	(void)state;
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	case_put(&disk, model, 0, CASE_BYTES, 'l');
	assert_true(disk_freeze(&disk, &layers, &case_error));
	disk_close(&disk);
	assert_true(disk_export(layers, case_exported, &case_error));
	fd = open(case_exported, O_RDONLY);
	assert_true(lseek(fd, -(off_t)sizeof(last), SEEK_END) > 0);
	assert_int_equal(read(fd, last, sizeof(last)), sizeof(last));
	close(fd);
	assert_memory_equal(last, zeros, sizeof(last));
	disk_layers_release(layers);
	free(model);
}

#define NO_NAMESPACE 77

/* A file system of its own on the directory, of which it is gone again with the process. */
static bool mount_small(void)
{
	return (unshare(CLONE_NEWNS) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0) &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("small", case_directory, "tmpfs", 0, "size=1m") == 0;
}

static int export_to_small(const struct disk_layers *layers)
{
	unsigned before = case_open_descriptors();

	if (!mount_small())
		return NO_NAMESPACE;
	if (disk_export(layers, case_exported, &case_error) || case_error.exit != EXIT_FAILED ||
	    !strstr(case_error.text, "No space") || access(case_exported, F_OK) == 0)
		return 1;
	if (mount(NULL, case_directory, NULL, MS_REMOUNT | MS_RDONLY, "size=1m") < 0)
		return NO_NAMESPACE;
	if (disk_export(layers, case_exported, &case_error) || case_error.exit != EXIT_INPUT ||
	    !strstr(case_error.text, "Read-only"))
		return 2;
	return case_open_descriptors() == before ? 0 : 3;
}

static void a_full_or_read_only_directory_gets_no_file(void **state)
{
	struct disk_layers *layers = layers_of_half();
	int status;
	pid_t child = fork();

	(void)state;
	if (child == 0)
		_exit(export_to_small(layers));
	assert_int_equal(waitpid(child, &status, 0), child);
	disk_layers_release(layers);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == NO_NAMESPACE) {
		puts("SKIP a_full_or_read_only_directory_gets_no_file: cannot mount one here");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK_CASE(a_file_that_is_written_cannot_be_frozen),
		DISK_CASE(a_disk_that_is_only_read_is_its_file),
		DISK_CASE(an_overlay_file_stays_as_it_was_frozen),
		DISK_CASE(what_was_frozen_is_in_its_file),
		DISK_CASE(a_file_that_is_left_keeps_what_was_written),
		DISK_CASE(a_disk_of_another_size_cannot_go_back),
		DISK_CASE(the_base_is_named_absolutely),
		DISK_CASE(a_thousand_layers_are_no_depth),
		DISK_CASE(freezing_moves_nothing),
		DISK_CASE(memory_goes_with_its_last_user),
		DISK_CASE(freezing_often_takes_no_more_memory),
		DISK_CASE(without_memory_a_write_fails),
		DISK_CASE(zeros_take_no_space_in_a_file),
		DISK_CASE(the_last_cluster_is_filled_up_with_zeros),
		DISK_CASE(what_cannot_be_exported_leaves_no_file),
		DISK_CASE(a_full_or_read_only_directory_gets_no_file),
	};

	return cmocka_run_group_tests(tests, case_setup, case_teardown);
}
