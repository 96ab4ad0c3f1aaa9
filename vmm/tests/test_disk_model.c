// SPDX-License-Identifier: MIT
/* Random freezing, cloning, going back and writing, beside plain copies of what disks must show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk_case.h"

#define DISKS  5u
#define FROZEN 6u

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
	uint32_t offset = next_random() % 4 * (CASE_BYTES / 4) + next_random() % 60000;

	return next_random() % 8 ? offset : next_random() % CASE_BYTES;
}

static uint32_t some_bytes(uint32_t offset)
{
	static const uint32_t sizes[] = { 100,	 6000,	6000,  6000,
					  20000, 20000, 70000, CASE_BYTES };
	uint32_t bytes = 1 + next_random() % sizes[next_random() % 8];

	return bytes < CASE_BYTES - offset ? bytes : CASE_BYTES - offset;
}

/* All others show what they did. */
static void check_all(uint32_t offset, uint32_t bytes)
{
	for (unsigned i = 0; i < DISKS; i++)
		if (disks[i].open)
			case_check_part(&disks[i].disk, disks[i].model, offset, bytes);
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
		case_put(&one->disk, one->model, offset, bytes, (int)next_random());
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
	assert_true(disk_freeze(&disk->disk, &into->layers, &case_error));
	into->model = case_copy(disk->model);
	into->open = true;
}

static void clone_one(struct modelled *disk, const struct modelled *from)
{
	if (disk->open)
		close_one(disk);
	disk_open_layers(&disk->disk, from->layers);
	disk->model = case_copy(from->model);
	disk->open = true;
}

static void go_back(struct modelled *disk, const struct modelled *from)
{
	assert_true(disk_go_back(&disk->disk, from->layers, &case_error));
	memcpy(disk->model, from->model, CASE_BYTES);
}

static void export_one(const struct modelled *from)
{
	assert_true(disk_export(from->layers, case_exported, &case_error));
	case_check_file(case_exported, from->model);
	assert_int_equal(unlink(case_exported), 0);
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
	check_all(0, CASE_BYTES);
	for (unsigned i = 0; i < FROZEN; i++)
		if (frozen[i].open)
			case_check_layers(frozen[i].layers, frozen[i].model);
}

static void run_seed(uint32_t seed)
{
	const char *path = seed % 2 ? case_overlay : NULL;

	random_state = seed;
	unlink(case_overlay);
	assert_true(disk_open_overlay(&disks[0].disk, case_base, path, &case_error));
	disks[0].model = case_copy(case_first);
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
			case_check_layers(frozen[i].layers, frozen[i].model);
			thaw_one(&frozen[i]);
		}
	assert_int_equal(case_open_descriptors(), case_descriptors);
}

static void disks_and_layers_beside_a_model(void **state)
{
	const char *seed = getenv("S2VM_SEED");

	(void)state;
	if (seed)
		run_seed((uint32_t)strtoul(seed, NULL, 0));
	else
		for (uint32_t i = 1; i <= 6; i++)
			run_seed(i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK_CASE(disks_and_layers_beside_a_model),
	};

	return cmocka_run_group_tests(tests, case_setup, case_teardown);
}
