// SPDX-License-Identifier: MIT
/* File pages and the entries that map them. */
#include "cmocka_all.h"

#include "rmap/rmap.h"

#define TABLES 300

static struct file_page page_of(uint32_t file, uint64_t page)
{
	return (struct file_page){file, page};
}

static struct rmap_entry entry_of(uint32_t table, uint16_t index)
{
	return (struct rmap_entry){table, index};
}

static int setup(void **state)
{
	*state = rmap_create(TABLES);
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	rmap_destroy(*state);
	return 0;
}

/* Requires that exactly entry @at maps @page. */
static void assert_only(struct rmap *map, struct file_page page, struct rmap_entry at)
{
	struct rmap_entry found = {UINT32_MAX, UINT16_MAX};

	assert_int_equal(rmap_page_find(map, page, &found, 1), 1);
	assert_int_equal(found.table, at.table);
	assert_int_equal(found.index, at.index);
	assert_true(rmap_page_holds(map, page, at));
}

static void assert_none(struct rmap *map, struct file_page page)
{
	assert_int_equal(rmap_page_find(map, page, NULL, 0), 0);
}

static void test_empty_map_holds_nothing(void **state)
{
	assert_none(*state, page_of(0, 0));
	assert_none(*state, page_of(7, UINT64_C(1) << 38));
	assert_int_equal(rmap_page_count(*state, 0), 0);
	assert_false(rmap_page_holds(*state, page_of(0, 0), entry_of(0, 0)));
}

static void test_whole_table(void **state)
{
	struct rmap *map = *state;

	assert_true(rmap_page_add(map, page_of(3, 1024), entry_of(5, 0), RMAP_ENTRIES));
	assert_int_equal(rmap_page_count(map, 5), RMAP_ENTRIES);
	for (uint16_t i = 0; i < RMAP_ENTRIES; i++)
		assert_only(map, page_of(3, 1024u + i), entry_of(5, i));
	assert_none(map, page_of(3, 1023));
	assert_none(map, page_of(3, 1024 + RMAP_ENTRIES));
	assert_none(map, page_of(2, 1024));
	assert_false(rmap_page_holds(map, page_of(3, 1025), entry_of(5, 0)));
	assert_false(rmap_page_holds(map, page_of(3, 1024), entry_of(6, 0)));
}

/* A span whose phase is not the table's lies in two chunks of 512 pages of the file. */
static void test_span_crosses_a_chunk(void **state)
{
	struct rmap *map = *state;

	assert_true(rmap_page_add(map, page_of(1, 700), entry_of(9, 0), RMAP_ENTRIES));
	for (uint16_t i = 0; i < RMAP_ENTRIES; i++)
		assert_only(map, page_of(1, 700u + i), entry_of(9, i));
	assert_none(map, page_of(1, 699));
	assert_none(map, page_of(1, 700 + RMAP_ENTRIES));
}

/* A file that begins in the middle of a table: the page that entry 0 would map is before it. */
static void test_negative_base(void **state)
{
	struct rmap *map = *state;

	assert_true(rmap_page_add(map, page_of(1, 0), entry_of(4, 511), 1));
	assert_true(rmap_page_add(map, page_of(1, 0), entry_of(5, 1), 511));
	assert_true(rmap_page_holds(map, page_of(1, 0), entry_of(4, 511)));
	assert_true(rmap_page_holds(map, page_of(1, 0), entry_of(5, 1)));
	assert_int_equal(rmap_page_find(map, page_of(1, 0), NULL, 0), 2);
	assert_only(map, page_of(1, 510), entry_of(5, 511));
	assert_none(map, page_of(1, 511));
	rmap_page_remove(map, page_of(1, 0), entry_of(4, 511), 1);
	assert_only(map, page_of(1, 0), entry_of(5, 1));
}

static void test_several_spans_in_one_table(void **state)
{
	struct rmap *map = *state;

	assert_true(rmap_page_add(map, page_of(1, 100), entry_of(2, 0), 10));
	assert_true(rmap_page_add(map, page_of(1, 200), entry_of(2, 10), 10));
	assert_true(rmap_page_add(map, page_of(2, 100), entry_of(2, 20), 10));
	assert_true(rmap_page_add(map, page_of(1, 130), entry_of(2, 30), 10));
	assert_int_equal(rmap_page_count(map, 2), 40);
	assert_only(map, page_of(1, 109), entry_of(2, 9));
	assert_only(map, page_of(1, 200), entry_of(2, 10));
	assert_only(map, page_of(2, 105), entry_of(2, 25));
	assert_only(map, page_of(1, 139), entry_of(2, 39));
	assert_none(map, page_of(1, 110));
	assert_none(map, page_of(2, 130));
}

/* One page through two entries of one table, as where two regions show the same page. */
static void test_page_twice_in_one_table(void **state)
{
	struct rmap *map = *state;
	struct rmap_entry found[3];

	assert_true(rmap_page_add(map, page_of(1, 50), entry_of(2, 0), 4));
	assert_true(rmap_page_add(map, page_of(1, 50), entry_of(2, 100), 4));
	assert_int_equal(rmap_page_find(map, page_of(1, 51), found, 3), 2);
	assert_int_equal(found[0].table, 2);
	assert_int_equal(found[1].table, 2);
	assert_int_equal(found[0].index + found[1].index, 102);
}

static void test_remove_part(void **state)
{
	struct rmap *map = *state;

	assert_true(rmap_page_add(map, page_of(1, 0), entry_of(2, 0), RMAP_ENTRIES));
	rmap_page_remove(map, page_of(1, 60), entry_of(2, 60), 10);
	assert_int_equal(rmap_page_count(map, 2), RMAP_ENTRIES - 10);
	assert_only(map, page_of(1, 59), entry_of(2, 59));
	assert_none(map, page_of(1, 60));
	assert_none(map, page_of(1, 69));
	assert_only(map, page_of(1, 70), entry_of(2, 70));
	assert_true(rmap_page_add(map, page_of(1, 64), entry_of(2, 64), 1));
	assert_only(map, page_of(1, 64), entry_of(2, 64));
}

static void test_remove_what_is_not_there(void **state)
{
	struct rmap *map = *state;

	rmap_page_remove(map, page_of(1, 0), entry_of(2, 0), RMAP_ENTRIES);
	assert_true(rmap_page_add(map, page_of(1, 10), entry_of(2, 10), 5));
	rmap_page_remove(map, page_of(1, 10), entry_of(2, 11), 5);
	rmap_page_remove(map, page_of(2, 10), entry_of(2, 10), 5);
	rmap_page_remove(map, page_of(1, 10), entry_of(3, 10), 5);
	assert_int_equal(rmap_page_count(map, 2), 5);
	rmap_page_remove(map, page_of(1, 0), entry_of(2, 0), RMAP_ENTRIES);
	assert_int_equal(rmap_page_count(map, 2), 0);
	assert_none(map, page_of(1, 10));
}

static void test_copy(void **state)
{
	struct rmap *map = *state;

	assert_true(rmap_page_add(map, page_of(1, 100), entry_of(2, 0), 10));
	assert_true(rmap_page_add(map, page_of(2, 0), entry_of(2, 500), 12));
	assert_true(rmap_page_copy(map, 2, 7));
	assert_int_equal(rmap_page_count(map, 7), 22);
	assert_int_equal(rmap_page_find(map, page_of(1, 105), NULL, 0), 2);
	assert_true(rmap_page_holds(map, page_of(2, 11), entry_of(7, 511)));
	rmap_page_remove(map, page_of(1, 100), entry_of(7, 0), 10);
	assert_only(map, page_of(1, 105), entry_of(2, 5));
	assert_int_equal(rmap_page_count(map, 2), 22);
}

static void test_copy_of_nothing(void **state)
{
	assert_true(rmap_page_copy(*state, 2, 7));
	assert_int_equal(rmap_page_count(*state, 7), 0);
}

static void test_clear(void **state)
{
	struct rmap *map = *state;

	assert_true(rmap_page_add(map, page_of(1, 100), entry_of(2, 0), 10));
	assert_true(rmap_page_add(map, page_of(2, 100), entry_of(2, 10), 10));
	assert_true(rmap_page_add(map, page_of(1, 100), entry_of(3, 0), 10));
	rmap_page_clear(map, 2);
	rmap_page_clear(map, 4);
	assert_int_equal(rmap_page_count(map, 2), 0);
	assert_only(map, page_of(1, 100), entry_of(3, 0));
	assert_none(map, page_of(2, 100));
}

/* Marks each table that @found names, and requires that none is named twice. */
static void assert_tables_once(const struct rmap_entry *found, size_t count)
{
	static bool seen[TABLES];

	for (uint32_t t = 0; t < TABLES; t++)
		seen[t] = false;
	for (size_t i = 0; i < count; i++) {
		assert_in_range(found[i].table, 0, TABLES - 1);
		assert_false(seen[found[i].table]);
		seen[found[i].table] = true;
	}
}

/* Tables of every phase that can map the page: those of both chunks must be found. */
static void test_find_from_many_tables(void **state)
{
	struct rmap *map = *state;
	struct rmap_entry found[TABLES];
	const uint64_t page = 5000;

	for (uint16_t t = 0; t < TABLES; t++) {
		uint16_t index = (uint16_t)((t * 37) % RMAP_ENTRIES);

		assert_true(rmap_page_add(map, page_of(1, page), entry_of(t, index), 1));
	}
	assert_int_equal(rmap_page_find(map, page_of(1, page), found, TABLES), TABLES);
	assert_tables_once(found, TABLES);
	for (unsigned i = 0; i < TABLES; i++)
		assert_int_equal(found[i].index, (found[i].table * 37) % RMAP_ENTRIES);
}

/* No more than @max entries are written, and yet all are counted. */
static void test_find_is_bounded(void **state)
{
	struct rmap *map = *state;
	struct rmap_entry found[8];

	for (uint16_t t = 0; t < 6; t++)
		assert_true(
			rmap_page_add(map, page_of(1, 600), entry_of(t, (uint16_t)(t * 100)), 1));
	for (unsigned max = 0; max < 8; max++) {
		for (unsigned i = 0; i < 8; i++)
			found[i] = entry_of(UINT32_MAX, 0);
		assert_int_equal(rmap_page_find(map, page_of(1, 600), found, max), 6);
		assert_tables_once(found, max < 6 ? max : 6);
		if (max < 8)
			assert_int_equal(found[max < 6 ? max : 6].table, UINT32_MAX);
	}
}

/* A few at a time, for as long as nothing changes: each of them once, in both of a page's chains.
 */
static void test_find_goes_on(void **state)
{
	struct rmap *map = *state;
	struct rmap_entry found[20];
	uint64_t version, before;

	for (uint16_t t = 0; t < 20; t++)
		assert_true(
			rmap_page_add(map, page_of(1, 600), entry_of(t, (uint16_t)(t * 20)), 1));
	for (unsigned max = 1; max < 22; max++) {
		bool seen[20] = {false};

		assert_int_equal(rmap_page_find_from(map, page_of(1, 600), 0, NULL, 0, &before),
				 20);
		for (unsigned skip = 0; skip < 20; skip += max) {
			unsigned count = skip + max < 20 ? max : 20 - skip;

			assert_int_equal(rmap_page_find_from(map, page_of(1, 600), skip, found, max,
							     &version),
					 20);
			assert_int_equal(version, before);
			for (unsigned i = 0; i < count; i++) {
				assert_int_equal(found[i].index, found[i].table * 20);
				assert_false(seen[found[i].table]);
				seen[found[i].table] = true;
			}
		}
		for (unsigned t = 0; t < 20; t++)
			assert_true(seen[t]);
	}
	assert_int_equal(rmap_page_find_from(map, page_of(1, 600), 25, found, 20, &version), 20);
}

/* Whatever adds or takes something makes the answers new ones. */
static void test_versions(void **state)
{
	struct rmap *map = *state;
	uint64_t versions[7];

	for (unsigned i = 0; i < 7; i++) {
		rmap_page_find_from(map, page_of(1, 0), 0, NULL, 0, &versions[i]);
		for (unsigned other = 0; other < i; other++)
			assert_int_not_equal(versions[i], versions[other]);
		if (i < 2)
			assert_true(rmap_page_add(map, page_of(1, i), entry_of(1, (uint16_t)i), 1));
		else if (i == 2)
			assert_true(rmap_page_copy(map, 1, 2));
		else if (i == 3)
			rmap_page_remove(map, page_of(1, 0), entry_of(1, 0), 1);
		else if (i == 4)
			rmap_page_clear(map, 1);
		else if (i == 5)
			rmap_page_clear(map, 2);
	}
}

/* Growth beyond the first capacity keeps what was there, and freed nodes are used again. */
static void test_growth(void **state)
{
	struct rmap *map = *state;
	size_t grown;

	for (unsigned round = 0; round < 3; round++) {
		for (uint32_t t = 0; t < TABLES; t++)
			for (uint16_t i = 0; i < 4; i++)
				assert_true(rmap_page_add(map, page_of(t, i * 1000u),
							  entry_of(t, (uint16_t)(i * 8)), 8));
		for (uint32_t t = 0; t < TABLES; t++) {
			assert_int_equal(rmap_page_count(map, t), 32);
			assert_only(map, page_of(t, 3007), entry_of(t, 31));
		}
		if (round == 0)
			grown = rmap_bytes(map);
		assert_int_equal(rmap_bytes(map), grown);
		for (uint32_t t = 0; t < TABLES; t++)
			rmap_page_clear(map, t);
		assert_none(map, page_of(0, 0));
	}
}

/* Files and pages near the ends of their ranges do not meet in one key. */
static void test_far_pages(void **state)
{
	struct rmap *map = *state;
	const uint64_t far = (UINT64_C(1) << 40) - RMAP_ENTRIES;

	assert_true(rmap_page_add(map, page_of(0, far), entry_of(1, 0), RMAP_ENTRIES));
	assert_true(rmap_page_add(map, page_of(1000000, 0), entry_of(2, 0), RMAP_ENTRIES));
	assert_only(map, page_of(0, far + 511), entry_of(1, 511));
	assert_only(map, page_of(1000000, 511), entry_of(2, 511));
	assert_none(map, page_of(0, 511));
	assert_none(map, page_of(1000000, far));
}

/* The same key for two files, whose pages lie farther apart than any file is long: each finds its
 * own. */
static void test_keys_that_meet(void **state)
{
	const uint64_t far = (UINT64_C(1) << 40) * RMAP_ENTRIES;
	struct rmap *map = *state;

	assert_true(rmap_page_add(map, page_of(0, far), entry_of(1, 0), 8));
	assert_true(rmap_page_add(map, page_of(1, 0), entry_of(2, 0), 8));
	assert_only(map, page_of(0, far + 7), entry_of(1, 7));
	assert_only(map, page_of(1, 7), entry_of(2, 7));
	rmap_page_remove(map, page_of(0, far), entry_of(1, 0), 8);
	assert_none(map, page_of(0, far + 7));
	assert_only(map, page_of(1, 7), entry_of(2, 7));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_empty_map_holds_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_whole_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_span_crosses_a_chunk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_negative_base, setup, teardown),
		cmocka_unit_test_setup_teardown(test_several_spans_in_one_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_page_twice_in_one_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_remove_part, setup, teardown),
		cmocka_unit_test_setup_teardown(test_remove_what_is_not_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_of_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_clear, setup, teardown),
		cmocka_unit_test_setup_teardown(test_find_from_many_tables, setup, teardown),
		cmocka_unit_test_setup_teardown(test_find_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_find_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_versions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_growth, setup, teardown),
		cmocka_unit_test_setup_teardown(test_far_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keys_that_meet, setup, teardown),
	};

	return cmocka_run_group_tests_name("rmap.page", tests, NULL, NULL);
}
