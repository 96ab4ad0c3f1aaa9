// SPDX-License-Identifier: MIT
/* Disks that are frozen, cloned, reset and exported, beside plain copies of what they must show. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
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

#include "disk.h"

/* More than two leaves of a map in memory, and no whole number of clusters. */
#define BYTES  ((9u << 20) + 3 * DISK_SECTOR)
#define DISKS  5u
#define FROZEN 6u

static char directory[] = "/tmp/s2vm-freeze-XXXXXX";
static char base[64];
static char overlay[64];
static char exported[64];
static unsigned char first[BYTES]; /* what the base has */
static struct error error;

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(base, sizeof(base), "%s/base", directory);
	snprintf(overlay, sizeof(overlay), "%s/overlay", directory);
	snprintf(exported, sizeof(exported), "%s/exported", directory);
	for (unsigned i = 0; i < BYTES; i++)
		first[i] = (unsigned char)(1 + i / DISK_SECTOR % 250);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(base);
	unlink(overlay);
	unlink(exported);
	return rmdir(directory);
}

static unsigned open_descriptors(void)
{
	DIR *entries = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(entries);
	while (readdir(entries))
		count++;
	closedir(entries);
	return count;
}

static unsigned descriptors; /* before the test */

static int begin(void **state)
{
	FILE *file;

	(void)state;
	unlink(overlay);
	unlink(exported);
	unlink(base);
	file = fopen(base, "w");
	if (!file || fwrite(first, 1, BYTES, file) != BYTES || fclose(file) != 0)
		return -1;
	descriptors = open_descriptors();
	return 0;
}

static int end(void **state)
{
	(void)state;
	return open_descriptors() == descriptors ? 0 : -1;
}

static void refuse(bool done, enum error_exit status, const char *word)
{
	assert_false(done);
	assert_int_equal(error.exit, status);
	assert_non_null(strstr(error.text, word));
	assert_null(strchr(error.text, '\n'));
}

/* ---- what is shown ---- */

static void check_part(struct disk *disk, const unsigned char *model, size_t offset, size_t bytes)
{
	unsigned char *now = malloc(bytes);

	assert_non_null(now);
	assert_true(disk_read(disk, offset, now, bytes));
	assert_memory_equal(now, model + offset, bytes);
	free(now);
}

static void check(struct disk *disk, const unsigned char *model)
{
	assert_int_equal(disk->bytes, BYTES);
	check_part(disk, model, 0, BYTES);
}

/* What layers show, by a disk that goes on from there. */
static void check_layers(const struct disk_layers *layers, const unsigned char *model)
{
	struct disk disk;

	disk_open_layers(&disk, layers);
	check(&disk, model);
	disk_close(&disk);
}

static void check_file(const char *path, const unsigned char *model)
{
	const char *const files[] = { base, path };
	struct disk disk;

	assert_true(disk_open_overlays(&disk, files, 2, NULL, &error));
	check(&disk, model);
	disk_close(&disk);
}

static unsigned char *copy_of(const unsigned char *model)
{
	unsigned char *copy = malloc(BYTES);

	assert_non_null(copy);
	return memcpy(copy, model, BYTES);
}

static void put(struct disk *disk, unsigned char *model, uint32_t offset, uint32_t bytes, int value)
{
	memset(model + offset, value, bytes);
	assert_true(disk_write(disk, offset, model + offset, bytes));
}

/* ---- kinds of disks ---- */

static void a_file_that_is_written_cannot_be_frozen(void **state)
{
	struct disk_layers *layers;
	struct disk_layers *others;
	struct disk disk;
	struct disk reader;

	(void)state;
	assert_true(disk_open(&disk, base, DISK_WRITABLE, &error));
	refuse(disk_freeze(&disk, &layers, &error), EXIT_INPUT, base);
	assert_non_null(strstr(error.text, "overlays"));
	assert_null(layers);
	disk_close(&disk);
	/* Nor go back, which its file would have to. */
	assert_true(disk_open_overlay(&reader, base, NULL, &error));
	assert_true(disk_freeze(&reader, &others, &error));
	disk_close(&reader);
	assert_int_equal(rename(base, overlay), 0);
	assert_int_equal(begin(state), 0);
	assert_true(disk_open(&disk, base, DISK_WRITABLE, &error));
	refuse(disk_go_back(&disk, others, &error), EXIT_INPUT, "go back");
	check(&disk, first);
	disk_close(&disk);
	disk_layers_release(others);
	descriptors = open_descriptors();
}

static void a_disk_that_is_only_read_is_its_file(void **state)
{
	struct disk_layers *layers;
	struct disk disk;
	struct disk clone;

	(void)state;
	assert_true(disk_open(&disk, base, DISK_READ_ONLY, &error));
	assert_true(disk_freeze(&disk, &layers, &error));
	disk_open_layers(&clone, layers);
	assert_int_equal(clone.access, DISK_READ_ONLY);
	assert_true(disk_go_back(&disk, layers, &error));
	assert_true(disk_export(layers, exported, &error));
	disk_close(&disk);
	check(&clone, first);
	disk_close(&clone);
	disk_layers_release(layers);
	check_file(exported, first);
}

static void an_overlay_file_stays_as_it_was_frozen(void **state)
{
	unsigned char *model = copy_of(first);
	unsigned char *frozen;
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, overlay, &error));
	put(&disk, model, 5000, 100000, 'o');
	frozen = copy_of(model);
	assert_true(disk_freeze(&disk, &layers, &error));
	put(&disk, model, 4000, 3000, 'n');
	put(&disk, model, BYTES - 10, 10, 'n');
	assert_true(disk_flush(&disk));
	check(&disk, model);
	check_layers(layers, frozen);
	assert_true(disk_export(layers, exported, &error));
	assert_true(disk_go_back(&disk, layers, &error));
	check(&disk, frozen);
	disk_layers_release(layers);
	disk_close(&disk);
	check_file(overlay, frozen);
	check_file(exported, frozen);
	free(frozen);
	free(model);
}

/* A process that ends at once after it. */
static void what_was_frozen_is_in_its_file(void **state)
{
	unsigned char *model = copy_of(first);
	struct disk_layers *layers;
	struct disk disk;
	int status;
	pid_t child;

	(void)state;
	memset(model + 7000, 'f', 70000);
	child = fork();
	if (child == 0)
		_exit(disk_open_overlay(&disk, base, overlay, &error) &&
				      disk_write(&disk, 7000, model + 7000, 70000) &&
				      disk_freeze(&disk, &layers, &error) &&
				      disk_write(&disk, 0, model + 7000, 70000) ?
			      0 :
			      1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	check_file(overlay, model);
	free(model);
}

static void a_disk_of_another_size_cannot_go_back(void **state)
{
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	assert_true(disk_freeze(&disk, &layers, &error));
	disk_close(&disk);
	assert_int_equal(truncate(base, BYTES - DISK_SECTOR), 0);
	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	refuse(disk_go_back(&disk, layers, &error), EXIT_INPUT, "size");
	disk_close(&disk);
	assert_int_equal(truncate(base, BYTES), 0);
	assert_true(disk_open(&disk, base, DISK_READ_ONLY, &error));
	refuse(disk_go_back(&disk, layers, &error), EXIT_INPUT, "not written");
	disk_close(&disk);
	disk_layers_release(layers);
}

static void the_base_is_named_absolutely(void **state)
{
	int here = open(".", O_RDONLY | O_DIRECTORY);
	struct disk_layers *layers;
	struct disk disk;
	char *path = realpath(base, NULL);

	(void)state;
	assert_non_null(path);
	assert_int_equal(chdir(directory), 0);
	assert_true(disk_open_overlay(&disk, "base", NULL, &error));
	assert_int_equal(fchdir(here), 0);
	assert_true(disk_freeze(&disk, &layers, &error));
	disk_close(&disk);
	assert_string_equal(disk_layers_base(layers), path);
	disk_layers_release(layers);
	free(path);
	close(here);
}

/* ---- random operations ---- */

struct modelled {
	bool open;
	struct disk disk;
	struct disk_layers *layers;
	unsigned char *model;
};

static struct modelled disks[DISKS];
static struct modelled frozen[FROZEN];
static uint32_t random_state;

static uint32_t next_random(void)
{
	random_state = random_state * 1664525 + 1013904223;
	return random_state >> 8;
}

/* Often the same few places, so that disks differ there and agree elsewhere. */
static uint32_t some_offset(void)
{
	uint32_t offset = next_random() % 4 * (BYTES / 4) + next_random() % 60000;

	return next_random() % 8 ? offset : next_random() % BYTES;
}

static uint32_t some_bytes(uint32_t offset)
{
	static const uint32_t sizes[] = { 100, 6000, 6000, 20000, 70000, BYTES };
	uint32_t bytes = 1 + next_random() % sizes[next_random() % 6];

	return bytes < BYTES - offset ? bytes : BYTES - offset;
}

/* All others show what they did. */
static void check_all(uint32_t offset, uint32_t bytes)
{
	for (unsigned i = 0; i < DISKS; i++)
		if (disks[i].open)
			check_part(&disks[i].disk, disks[i].model, offset, bytes);
}

static void change(struct modelled *one)
{
	uint32_t offset = some_offset();
	uint32_t bytes = some_bytes(offset);
	unsigned kind = next_random() % 8;

	if (kind == 0) {
		assert_true(disk_discard(&one->disk, offset, bytes));
		assert_true(disk_read(&one->disk, offset, one->model + offset, bytes));
	} else if (kind < 3) {
		memset(one->model + offset, 0, bytes);
		assert_true(disk_zero(&one->disk, offset, bytes,
				      kind == 1 ? DISK_FREE_SPACE : DISK_KEEP_SPACE));
	} else {
		put(&one->disk, one->model, offset, bytes, (int)next_random());
	}
	check_all(offset, bytes);
}

static void close_one(struct modelled *one)
{
	disk_close(&one->disk);
	free(one->model);
	one->open = false;
}

static void thaw_one(struct modelled *one)
{
	disk_layers_release(one->layers);
	free(one->model);
	one->open = false;
}

static void freeze_one(struct modelled *disk, struct modelled *into)
{
	if (into->open)
		thaw_one(into);
	assert_true(disk_freeze(&disk->disk, &into->layers, &error));
	into->model = copy_of(disk->model);
	into->open = true;
}

static void clone_one(struct modelled *disk, const struct modelled *from)
{
	if (disk->open)
		close_one(disk);
	disk_open_layers(&disk->disk, from->layers);
	disk->model = copy_of(from->model);
	disk->open = true;
}

static void go_back(struct modelled *disk, const struct modelled *from)
{
	assert_true(disk_go_back(&disk->disk, from->layers, &error));
	memcpy(disk->model, from->model, BYTES);
}

static void export_one(const struct modelled *from)
{
	assert_true(disk_export(from->layers, exported, &error));
	check_file(exported, from->model);
	assert_int_equal(unlink(exported), 0);
}

static void operate(void)
{
	struct modelled *disk = &disks[next_random() % DISKS];
	struct modelled *layers = &frozen[next_random() % FROZEN];
	unsigned kind = next_random() % 64;

	if (kind == 0 && layers->open)
		export_one(layers);
	else if (kind < 4 && layers->open)
		clone_one(disk, layers);
	else if (kind < 8 && layers->open && disk->open)
		go_back(disk, layers);
	else if (kind < 12 && disk->open)
		freeze_one(disk, layers);
	else if (kind == 12 && layers->open)
		thaw_one(layers);
	else if (disk->open)
		change(disk);
}

static void check_everything(void)
{
	check_all(0, BYTES);
	for (unsigned i = 0; i < FROZEN; i++)
		if (frozen[i].open)
			check_layers(frozen[i].layers, frozen[i].model);
}

static void run_seed(uint32_t seed)
{
	const char *path = seed % 2 ? overlay : NULL;

	random_state = seed;
	unlink(overlay);
	assert_true(disk_open_overlay(&disks[0].disk, base, path, &error));
	disks[0].model = copy_of(first);
	disks[0].open = true;
	for (unsigned i = 0; i < 300; i++) {
		operate();
		if (i % 50 == 49)
			check_everything();
	}
	for (unsigned i = 0; i < DISKS; i++)
		if (disks[i].open)
			close_one(&disks[i]);
	for (unsigned i = 0; i < FROZEN; i++)
		if (frozen[i].open) {
			check_layers(frozen[i].layers, frozen[i].model);
			thaw_one(&frozen[i]);
		}
	assert_int_equal(open_descriptors(), descriptors);
}

static void disks_and_layers_beside_a_model(void **state)
{
	const char *seed = getenv("S2VM_SEED");

	(void)state;
	if (seed)
		run_seed((uint32_t)strtoul(seed, NULL, 0));
	else
		for (uint32_t i = 1; i <= 8; i++)
			run_seed(i);
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
	unsigned char *model = copy_of(first);
	unsigned before;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	disk.io = &counting;
	before = open_descriptors();
	transfers_run = 0;
	for (uint32_t i = 0; i < 1000; i++) {
		put(&disk, model, i % 16 * DISK_CLUSTER, DISK_CLUSTER, (int)i);
		assert_true(disk_freeze(&disk, &layers[i], &error));
	}
	/* Clusters in memory, and one read of the base for all of the rest. */
	check(&disk, model);
	assert_int_equal(transfers_run, 1);
	assert_int_equal(open_descriptors(), before);
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
	unsigned char *model = copy_of(first);
	struct disk_layers *layers;
	struct disk disk;
	struct disk clone;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	put(&disk, model, 0, BYTES / 2, 'm');
	disk.io = &counting;
	transfers_run = 0;
	assert_true(disk_freeze(&disk, &layers, &error));
	disk_open_layers(&clone, layers);
	assert_true(disk_go_back(&clone, layers, &error));
	disk_close(&clone);
	assert_true(disk_go_back(&disk, layers, &error));
	disk_layers_release(layers);
	assert_int_equal(transfers_run, 0);
	check(&disk, model);
	disk_close(&disk);
	free(model);
}

/* ---- memory ---- */

/* KiB of memory that overlays take: mappings without large pages are theirs alone here. */
static unsigned long memory_of_overlays(void)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long all = 0;
	unsigned long resident = 0;
	char line[256];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		(void)sscanf(line, "Rss: %lu", &resident);
		if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " nh"))
			all += resident;
	}
	fclose(file);
	return all;
}

#define KIB_WRITTEN (BYTES / 2 / 1024)

static unsigned long memory_before;

static bool takes(unsigned long kib)
{
	unsigned long now = memory_of_overlays() - memory_before;

	return now >= kib && now <= kib + 100;
}

/* Half of a disk is written, and what nobody can read any more goes. */
static void memory_goes_with_its_last_user(void **state)
{
	unsigned char *model = copy_of(first);
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	memory_before = memory_of_overlays();
	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	put(&disk, model, 0, BYTES / 2, 1);
	put(&disk, model, 0, BYTES / 2, 2);
	assert_true(takes(KIB_WRITTEN));
	assert_true(disk_freeze(&disk, &layers, &error));
	assert_true(takes(KIB_WRITTEN));
	put(&disk, model, 0, BYTES / 2, 3);
	assert_true(takes(2 * KIB_WRITTEN));
	assert_true(disk_go_back(&disk, layers, &error));
	assert_true(takes(KIB_WRITTEN));
	put(&disk, model, 0, BYTES / 2, 4);
	assert_true(takes(2 * KIB_WRITTEN));
	disk_layers_release(layers);
	assert_true(takes(KIB_WRITTEN));
	assert_true(disk_discard(&disk, 0, BYTES));
	assert_true(takes(0));
	put(&disk, model, 0, BYTES / 2, 5);
	assert_true(disk_zero(&disk, 0, BYTES, DISK_FREE_SPACE));
	assert_true(takes(0));
	put(&disk, model, 0, BYTES / 2, 6);
	disk_close(&disk);
	assert_int_equal(memory_of_overlays(), memory_before);
	free(model);
}

/* Frozen again and again, as each time before is given up, also if only after the next one. */
static void freezing_often_takes_no_more_memory(void **state)
{
	unsigned char *model = copy_of(first);
	struct disk_layers *last = NULL;
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	memory_before = memory_of_overlays();
	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	for (unsigned i = 0; i < 5000; i++) {
		put(&disk, model, i % 4 * DISK_CLUSTER, DISK_CLUSTER, (int)i);
		assert_true(disk_freeze(&disk, &layers, &error));
		disk_layers_release(last);
		last = layers;
	}
	assert_true(takes(4 * DISK_CLUSTER / 1024));
	disk_layers_release(last);
	check(&disk, model);
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
		    is != (i < count ? 'w' : first[i * DISK_CLUSTER]))
			return 3;
	return disk_write(disk, 100, cluster, 1) ? 0 : 4;
}

static void without_memory_a_write_fails(void **state)
{
	struct disk disk;
	int status;
	pid_t child;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	child = fork();
	if (child == 0)
		_exit(write_without_memory(&disk));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	disk_close(&disk);
}

/* ---- threads ---- */

#define ROUNDS	     40u
#define WRITES	     20u
#define THREAD_BYTES (1u << 20)

struct worker {
	pthread_t thread;
	struct disk_layers *layers; /* held for it */
	unsigned char *model;	    /* what they show */
	uint32_t seed;
	const char *failed;
};

static uint32_t worker_random(struct worker *worker)
{
	worker->seed = worker->seed * 1664525 + 1013904223;
	return worker->seed >> 8;
}

static bool shows(struct disk *disk, const unsigned char *model)
{
	unsigned char *now = malloc(THREAD_BYTES);
	bool good = now && disk_read(disk, 0, now, THREAD_BYTES) &&
		    memcmp(now, model, THREAD_BYTES) == 0;

	free(now);
	return good;
}

static bool write_some(struct worker *worker, struct disk *disk, unsigned char *model)
{
	for (unsigned i = 0; i < WRITES; i++) {
		uint32_t offset = worker_random(worker) % (THREAD_BYTES - 9000);

		memset(model + offset, (int)worker_random(worker), 9000);
		if (!disk_write(disk, offset, model + offset, 9000))
			return false;
	}
	return true;
}

/* Goes on from what it has frozen itself, and lets go of what was before. */
static bool freeze_and_go_on(struct worker *worker, struct disk *disk, const unsigned char *model)
{
	struct error why;

	disk_layers_release(worker->layers);
	memcpy(worker->model, model, THREAD_BYTES);
	if (!disk_freeze(disk, &worker->layers, &why))
		return false;
	disk_close(disk);
	disk_open_layers(disk, worker->layers);
	return true;
}

static const char *one_round(struct worker *worker, struct disk *disk, unsigned char *model)
{
	struct error why;

	if (!write_some(worker, disk, model) || !shows(disk, model))
		return "its own disk is not what it wrote";
	if (worker_random(worker) % 4 == 0 && !freeze_and_go_on(worker, disk, model))
		return "it could not freeze";
	if (!disk_go_back(disk, worker->layers, &why))
		return "it could not go back";
	memcpy(model, worker->model, THREAD_BYTES);
	return shows(disk, model) ? NULL : "it did not go back";
}

static void *work(void *context)
{
	struct worker *worker = context;
	unsigned char *model = malloc(THREAD_BYTES);
	struct disk disk;

	disk_open_layers(&disk, worker->layers);
	memcpy(model, worker->model, THREAD_BYTES);
	for (unsigned i = 0; i < ROUNDS && !worker->failed; i++)
		worker->failed = one_round(worker, &disk, model);
	disk_close(&disk);
	disk_layers_release(worker->layers);
	free(model);
	return NULL;
}

/*
 * Three, of which one has the disk that was frozen and the others what goes on from there; who ends
 * first and who is the last is theirs.
 */
static void threads_use_the_same_layers(void **state)
{
	unsigned char *model = copy_of(first);
	struct worker workers[2] = { { .seed = 1 }, { .seed = 2 } };
	struct worker mine = { .seed = 3 };
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	assert_true(write_some(&mine, &disk, model));
	assert_true(disk_freeze(&disk, &layers, &error));
	for (unsigned i = 0; i < 2; i++) {
		workers[i].model = copy_of(model);
		workers[i].layers = disk_layers_keep(layers);
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	disk_layers_release(layers);
	for (unsigned i = 0; i < ROUNDS; i++) {
		assert_true(write_some(&mine, &disk, model));
		assert_true(shows(&disk, model));
	}
	disk_close(&disk);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
		if (workers[i].failed)
			fail_msg("%s", workers[i].failed);
		free(workers[i].model);
	}
	free(model);
}

static void *export_it(void *context)
{
	struct worker *worker = context;
	struct error why;

	if (!disk_export(worker->layers, exported, &why))
		worker->failed = "it could not export";
	disk_layers_release(worker->layers);
	return NULL;
}

static void a_disk_goes_on_while_it_is_exported(void **state)
{
	unsigned char *model = copy_of(first);
	struct worker worker = { .seed = 1 };
	struct worker mine = { .seed = 2 };
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	assert_true(write_some(&mine, &disk, model));
	assert_true(disk_freeze(&disk, &worker.layers, &error));
	worker.model = copy_of(model);
	assert_int_equal(pthread_create(&worker.thread, NULL, export_it, &worker), 0);
	for (unsigned i = 0; i < 10; i++)
		assert_true(write_some(&mine, &disk, model));
	disk_close(&disk);
	assert_int_equal(pthread_join(worker.thread, NULL), 0);
	assert_null(worker.failed);
	check_file(exported, worker.model);
	free(worker.model);
	free(model);
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
	unsigned char *model = copy_of(first);
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	memset(model, 0, sizeof(zeros));
	assert_true(disk_write(&disk, 0, zeros, sizeof(zeros)));
	memset(model + BYTES / 2, 0, BYTES - BYTES / 2);
	assert_true(disk_zero(&disk, BYTES / 2, BYTES - BYTES / 2, DISK_FREE_SPACE));
	put(&disk, model, 3 * DISK_CLUSTER, DISK_CLUSTER, 'd');
	assert_true(disk_freeze(&disk, &layers, &error));
	disk_close(&disk);
	assert_true(disk_export(layers, exported, &error));
	/* Header, bitmap, two clusters, of which one is zeroed in part, and the file system's own. */
	assert_true(blocks_of(exported) <= 6 * (long)DISK_CLUSTER / 512);
	check_file(exported, model);
	disk_layers_release(layers);
	free(model);
}

static struct disk_layers *layers_of_half(void)
{
	unsigned char *model = copy_of(first);
	struct disk_layers *layers;
	struct disk disk;

	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	put(&disk, model, 0, BYTES / 2, 'h');
	assert_true(disk_freeze(&disk, &layers, &error));
	disk_close(&disk);
	free(model);
	return layers;
}

static void what_cannot_be_exported_leaves_no_file(void **state)
{
	struct disk_layers *layers = layers_of_half();
	char elsewhere[96];
	int fd;

	(void)state;
	snprintf(elsewhere, sizeof(elsewhere), "%s/no/overlay", directory);
	refuse(disk_export(layers, elsewhere, &error), EXIT_INPUT, "No such file");
	/* What is there stays. */
	fd = open(exported, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_int_equal(write(fd, "text\n", 5), 5);
	close(fd);
	refuse(disk_export(layers, exported, &error), EXIT_INPUT, "File exists");
	assert_true(blocks_of(exported) > 0);
	assert_int_equal(unlink(exported), 0);
	/* The base is not any more what it was. */
	assert_int_equal(utimensat(AT_FDCWD, base, (struct timespec[]){ { 1, 0 }, { 1, 0 } }, 0), 0);
	refuse(disk_export(layers, exported, &error), EXIT_INPUT, "written to");
	assert_int_equal(access(exported, F_OK), -1);
	disk_layers_release(layers);
}

#define NO_NAMESPACE 77

/* A file system of its own on the directory, of which it is gone again with the process. */
static bool mount_small(void)
{
	return (unshare(CLONE_NEWNS) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0) &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("small", directory, "tmpfs", 0, "size=1m") == 0;
}

static int export_to_small(const struct disk_layers *layers)
{
	unsigned before = open_descriptors();

	if (!mount_small())
		return NO_NAMESPACE;
	if (disk_export(layers, exported, &error) || error.exit != EXIT_FAILED ||
	    !strstr(error.text, "No space") || access(exported, F_OK) == 0)
		return 1;
	if (mount(NULL, directory, NULL, MS_REMOUNT | MS_RDONLY, "size=1m") < 0)
		return NO_NAMESPACE;
	if (disk_export(layers, exported, &error) || error.exit != EXIT_INPUT ||
	    !strstr(error.text, "Read-only"))
		return 2;
	return open_descriptors() == before ? 0 : 3;
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
		puts("SKIP a_full_or_read_only_directory_gets_no_file: no mounts of one's own here");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_file_that_is_written_cannot_be_frozen, begin, end),
		cmocka_unit_test_setup_teardown(a_disk_that_is_only_read_is_its_file, begin, end),
		cmocka_unit_test_setup_teardown(an_overlay_file_stays_as_it_was_frozen, begin, end),
		cmocka_unit_test_setup_teardown(what_was_frozen_is_in_its_file, begin, end),
		cmocka_unit_test_setup_teardown(a_disk_of_another_size_cannot_go_back, begin, end),
		cmocka_unit_test_setup_teardown(the_base_is_named_absolutely, begin, end),
		cmocka_unit_test_setup_teardown(disks_and_layers_beside_a_model, begin, end),
		cmocka_unit_test_setup_teardown(a_thousand_layers_are_no_depth, begin, end),
		cmocka_unit_test_setup_teardown(freezing_moves_nothing, begin, end),
		cmocka_unit_test_setup_teardown(memory_goes_with_its_last_user, begin, end),
		cmocka_unit_test_setup_teardown(freezing_often_takes_no_more_memory, begin, end),
		cmocka_unit_test_setup_teardown(without_memory_a_write_fails, begin, end),
		cmocka_unit_test_setup_teardown(threads_use_the_same_layers, begin, end),
		cmocka_unit_test_setup_teardown(a_disk_goes_on_while_it_is_exported, begin, end),
		cmocka_unit_test_setup_teardown(zeros_take_no_space_in_a_file, begin, end),
		cmocka_unit_test_setup_teardown(what_cannot_be_exported_leaves_no_file, begin, end),
		cmocka_unit_test_setup_teardown(a_full_or_read_only_directory_gets_no_file, begin, end),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
