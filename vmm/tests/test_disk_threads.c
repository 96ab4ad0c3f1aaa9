// SPDX-License-Identifier: MIT
/* Disks of several threads over the same layers; for ThreadSanitizer, too. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "disk_case.h"

#define ROUNDS	     40u
#define WRITES	     20u
#define LEAVES	     300u
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
	unsigned char *model = case_copy(case_first);
	struct worker workers[2] = { { .seed = 1 }, { .seed = 2 } };
	struct worker mine = { .seed = 3 };
	struct disk_layers *layers;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	assert_true(write_some(&mine, &disk, model));
	assert_true(disk_freeze(&disk, &layers, &case_error));
	for (unsigned i = 0; i < 2; i++) {
		workers[i].model = case_copy(model);
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

#define SHARED_BYTES (4u << 20) /* a leaf of a map */

static atomic_uint arrived;

/* Has a leaf of its own that shows the same clusters, but for one. */
static bool write_one(struct disk *disk)
{
	static const unsigned char cluster[DISK_CLUSTER] = { 1 };

	return disk_write(disk, 0, cluster, sizeof(cluster));
}

/* From the first on, or from the last one back, so that two of them meet. */
static bool discard_all(struct disk *disk, uint32_t seed)
{
	uint32_t clusters = SHARED_BYTES / DISK_CLUSTER;

	for (uint32_t i = 0; i < clusters; i++) {
		uint32_t cluster = seed % 2 ? i : clusters - 1 - i;

		if (!disk_discard(disk, (uint64_t)cluster * DISK_CLUSTER, DISK_CLUSTER))
			return false;
	}
	return true;
}

static void *leave(void *context)
{
	struct worker *worker = context;
	struct disk disk;

	disk_open_layers(&disk, worker->layers);
	disk_layers_release(worker->layers);
	if (!write_one(&disk))
		worker->failed = "it could not write";
	/* Who sleeps here would be too late. */
	atomic_fetch_add(&arrived, 1);
	while (atomic_load(&arrived) < 2)
		sched_yield();
	if (!discard_all(&disk, worker->seed))
		worker->failed = "it could not discard";
	disk_close(&disk);
	return NULL;
}

/* Two disks leave the same clusters at the same time: each goes, and goes once. */
static void let_two_leave(unsigned char *model)
{
	struct worker workers[2] = { { .seed = 1 }, { .seed = 2 } };
	struct disk_layers *layers;
	struct disk disk;

	atomic_store(&arrived, 0);
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	case_put(&disk, model, 0, SHARED_BYTES, 's');
	assert_true(disk_freeze(&disk, &layers, &case_error));
	disk_close(&disk);
	for (unsigned i = 0; i < 2; i++) {
		workers[i].layers = disk_layers_keep(layers);
		assert_int_equal(pthread_create(&workers[i].thread, NULL, leave, &workers[i]), 0);
	}
	disk_layers_release(layers);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
		assert_null(workers[i].failed);
	}
}

static void two_leave_at_the_same_time(void **state)
{
	unsigned char *model = case_copy(case_first);
	unsigned long before = case_memory();

	(void)state;
	for (unsigned i = 0; i < LEAVES; i++)
		let_two_leave(model);
	/* What is not given back keeps its chunk, and that a page at least. */
	assert_true(case_memory() <= before);
	free(model);
}

static void *export_it(void *context)
{
	struct worker *worker = context;
	struct error why;

	if (!disk_export(worker->layers, case_exported, &why))
		worker->failed = "it could not export";
	disk_layers_release(worker->layers);
	return NULL;
}

static void a_disk_goes_on_while_it_is_exported(void **state)
{
	unsigned char *model = case_copy(case_first);
	struct worker worker = { .seed = 1 };
	struct worker mine = { .seed = 2 };
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, case_base, NULL, &case_error));
	assert_true(write_some(&mine, &disk, model));
	assert_true(disk_freeze(&disk, &worker.layers, &case_error));
	worker.model = case_copy(model);
	assert_int_equal(pthread_create(&worker.thread, NULL, export_it, &worker), 0);
	for (unsigned i = 0; i < 10; i++)
		assert_true(write_some(&mine, &disk, model));
	disk_close(&disk);
	assert_int_equal(pthread_join(worker.thread, NULL), 0);
	assert_null(worker.failed);
	case_check_file(case_exported, worker.model);
	free(worker.model);
	free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK_CASE(threads_use_the_same_layers),
		DISK_CASE(two_leave_at_the_same_time),
		DISK_CASE(a_disk_goes_on_while_it_is_exported),
	};

	return cmocka_run_group_tests(tests, case_setup, case_teardown);
}
