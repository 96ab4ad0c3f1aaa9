// SPDX-License-Identifier: MIT
/* Every allocation fails once: what returns false has changed nothing, and succeeds later. */
#include "cmocka_all.h"

#include "failing_alloc.h"
#include "rmap/rmap.h"

#define TABLES 40
#define ROUNDS 2000

static struct file_page page_of(uint32_t file, uint64_t page)
{
	return (struct file_page){file, page};
}

static struct rmap_entry entry_of(uint32_t table, uint16_t index)
{
	return (struct rmap_entry){table, index};
}

static void test_create(void **state)
{
	unsigned k = 0;
	struct rmap *map;
	bool failed;

	(void)state;
	do {
		failing_alloc_arm(++k);
		map = rmap_create(TABLES);
		failed = failing_alloc_disarm();
		assert_int_equal(map == NULL, failed);
	} while (failed);
	assert_in_range(k, 2, 16);
	rmap_destroy(map);
}

/* Adds pages one span at a time; the allocation that a pool's growth needs fails each time. */
static void test_page_add(void **state)
{
	struct rmap *map = rmap_create(TABLES);
	unsigned failures = 0;

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct rmap_entry at = entry_of(i % TABLES, (uint16_t)(i / TABLES));
		struct file_page page = page_of(i, 3u * i);
		unsigned before = rmap_page_count(map, at.table);

		failing_alloc_arm(1);
		if (!rmap_page_add(map, page, at, 1)) {
			assert_true(failing_alloc_disarm());
			failures++;
			assert_int_equal(rmap_page_count(map, at.table), before);
			assert_int_equal(rmap_page_find(map, page, NULL, 0), 0);
			assert_true(rmap_page_add(map, page, at, 1));
		}
		failing_alloc_disarm();
		assert_int_equal(rmap_page_count(map, at.table), before + 1);
		assert_int_equal(rmap_page_find(map, page, NULL, 0), 1);
	}
	assert_true(failures > 1);
	rmap_destroy(map);
}

static void test_owner_add(void **state)
{
	struct rmap *map = rmap_create(TABLES);
	unsigned failures = 0;

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct rmap_entry parent = entry_of(i % TABLES, (uint16_t)(i / TABLES));
		size_t before = rmap_owner_find(map, 3, NULL, 0);

		failing_alloc_arm(1);
		if (!rmap_owner_add(map, 3, parent)) {
			assert_true(failing_alloc_disarm());
			failures++;
			assert_int_equal(rmap_owner_find(map, 3, NULL, 0), before);
			assert_false(rmap_owner_holds(map, 3, parent));
			assert_true(rmap_owner_add(map, 3, parent));
		}
		failing_alloc_disarm();
		assert_int_equal(rmap_owner_find(map, 3, NULL, 0), before + 1);
	}
	assert_true(failures > 1);
	rmap_destroy(map);
}

/* Copies a table of @spans spans while the @k-th allocation fails; whether one failed. */
static bool copy_fails(unsigned spans, unsigned k)
{
	struct rmap *map = rmap_create(TABLES);
	bool copied;
	bool failed;

	for (uint16_t i = 0; i < spans; i++)
		assert_true(rmap_page_add(map, page_of(i, 0), entry_of(1, i), 1));
	failing_alloc_arm(k);
	copied = rmap_page_copy(map, 1, 2);
	failed = failing_alloc_disarm();
	assert_int_equal(rmap_page_count(map, 1), spans);
	assert_int_equal(rmap_page_count(map, 2), copied ? spans : 0);
	if (!copied) {
		assert_true(failed);
		for (uint16_t i = 0; i < spans; i++)
			assert_int_equal(rmap_page_find(map, page_of(i, 0), NULL, 0), 1);
		assert_true(rmap_page_copy(map, 1, 2));
	}
	for (uint16_t i = 0; i < spans; i++)
		assert_true(rmap_page_holds(map, page_of(i, 0), entry_of(2, i)));
	rmap_destroy(map);
	return failed;
}

static void test_page_copy(void **state)
{
	const unsigned spans[] = {1, 40, 64, 200, 512};

	(void)state;
	for (unsigned i = 0; i < sizeof(spans) / sizeof(*spans); i++)
		for (unsigned k = 1; copy_fails(spans[i], k); k++)
			assert_true(k < 64);
}

/* Copies a table of @children children while the @k-th allocation fails; whether one failed. */
static bool owner_copy_fails(unsigned children, unsigned k)
{
	struct rmap *map = rmap_create(TABLES);
	bool copied;
	bool failed;

	for (uint16_t i = 0; i < children; i++)
		assert_true(rmap_owner_add(map, 3u + i % 8,
					   entry_of(1, (uint16_t)(i * 512 / children))));
	failing_alloc_arm(k);
	copied = rmap_owner_copy(map, 1, 2);
	failed = failing_alloc_disarm();
	assert_true(copied || failed);
	for (uint32_t child = 0; child < TABLES; child++) {
		size_t of_original = 0;

		for (uint16_t i = 0; i < RMAP_ENTRIES; i++) {
			bool holds = rmap_owner_holds(map, child, entry_of(1, i));

			of_original += holds;
			assert_int_equal(rmap_owner_holds(map, child, entry_of(2, i)),
					 copied && holds);
		}
		assert_int_equal(rmap_owner_find(map, child, NULL, 0),
				 copied ? 2 * of_original : of_original);
	}
	if (!copied)
		assert_true(rmap_owner_copy(map, 1, 2));
	assert_int_equal(rmap_owner_find(map, 3, NULL, 0), 2 * ((children + 7) / 8));
	rmap_destroy(map);
	return failed;
}

static void test_owner_copy(void **state)
{
	const unsigned children[] = {1, 2, 32, 100, 512};

	(void)state;
	for (unsigned i = 0; i < sizeof(children) / sizeof(*children); i++)
		for (unsigned k = 1; owner_copy_fails(children[i], k); k++)
			assert_true(k < 8);
}

/* Copies table after table, so that each growth of each pool comes, and fails once. */
static void test_owner_copies(void **state)
{
	struct rmap *map = rmap_create(TABLES);
	unsigned failures = 0;

	(void)state;
	for (uint16_t i = 0; i < RMAP_ENTRIES; i++)
		assert_true(rmap_owner_add(map, 0, entry_of(1, i)));
	for (uint32_t to = 2; to < TABLES; to++) {
		size_t before = rmap_owner_find(map, 0, NULL, 0);

		failing_alloc_arm(1);
		if (!rmap_owner_copy(map, 1, to)) {
			assert_true(failing_alloc_disarm());
			failures++;
			assert_int_equal(rmap_owner_find(map, 0, NULL, 0), before);
			assert_false(rmap_owner_holds(map, 0, entry_of(to, 0)));
			assert_true(rmap_owner_copy(map, 1, to));
		}
		failing_alloc_disarm();
		assert_int_equal(rmap_owner_find(map, 0, NULL, 0), before + RMAP_ENTRIES);
	}
	assert_true(failures > 1);
	for (uint32_t table = 1; table < TABLES; table++)
		rmap_owner_clear(map, table);
	assert_int_equal(rmap_owner_find(map, 0, NULL, 0), 0);
	rmap_destroy(map);
}

/* A hash that could not grow only gets slower. */
static void test_hash_that_cannot_grow(void **state)
{
	struct rmap *map = rmap_create(TABLES);

	(void)state;
	for (uint16_t i = 0; i < 512; i++) {
		/* The pool grows first, then the hash: of two allocations the second fails. */
		failing_alloc_arm(2);
		if (!rmap_page_add(map, page_of(i, 7), entry_of(1, i), 1)) {
			failing_alloc_disarm();
			assert_true(rmap_page_add(map, page_of(i, 7), entry_of(1, i), 1));
		}
		failing_alloc_disarm();
	}
	assert_int_equal(rmap_page_count(map, 1), 512);
	for (uint16_t i = 0; i < 512; i++) {
		assert_int_equal(rmap_page_find(map, page_of(i, 7), NULL, 0), 1);
		rmap_page_remove(map, page_of(i, 7), entry_of(1, i), 1);
	}
	assert_int_equal(rmap_page_count(map, 1), 0);
	rmap_destroy(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_page_add),
		cmocka_unit_test(test_owner_add),
		cmocka_unit_test(test_page_copy),
		cmocka_unit_test(test_owner_copy),
		cmocka_unit_test(test_owner_copies),
		cmocka_unit_test(test_hash_that_cannot_grow),
	};

	return cmocka_run_group_tests_name("rmap.memory", tests, NULL, NULL);
}
