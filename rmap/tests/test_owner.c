// SPDX-License-Identifier: MIT
/* Tables and the entries that point at them. */
#include "cmocka_all.h"

#include "rmap/rmap.h"

#define TABLES 64

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

static size_t owners(struct rmap *map, uint32_t child)
{
	return rmap_owner_find(map, child, NULL, 0);
}

static void test_add_and_find(void **state)
{
	struct rmap *map = *state;
	struct rmap_entry found[2];

	assert_int_equal(owners(map, 3), 0);
	assert_true(rmap_owner_add(map, 3, entry_of(1, 7)));
	assert_true(rmap_owner_add(map, 4, entry_of(1, 8)));
	assert_int_equal(rmap_owner_find(map, 3, found, 2), 1);
	assert_int_equal(found[0].table, 1);
	assert_int_equal(found[0].index, 7);
	assert_true(rmap_owner_holds(map, 3, entry_of(1, 7)));
	assert_false(rmap_owner_holds(map, 4, entry_of(1, 7)));
	assert_false(rmap_owner_holds(map, 3, entry_of(1, 9)));
}

static void test_remove(void **state)
{
	struct rmap *map = *state;

	assert_false(rmap_owner_remove(map, entry_of(1, 7)));
	for (uint16_t i = 0; i < 3; i++)
		assert_true(rmap_owner_add(map, 3, entry_of(1, i)));
	/* The middle of the list, its head, and its end. */
	assert_true(rmap_owner_remove(map, entry_of(1, 1)));
	assert_int_equal(owners(map, 3), 2);
	assert_true(rmap_owner_remove(map, entry_of(1, 2)));
	assert_true(rmap_owner_holds(map, 3, entry_of(1, 0)));
	assert_true(rmap_owner_remove(map, entry_of(1, 0)));
	assert_false(rmap_owner_remove(map, entry_of(1, 0)));
	assert_int_equal(owners(map, 3), 0);
}

static void test_move(void **state)
{
	struct rmap *map = *state;

	for (uint16_t i = 0; i < 3; i++)
		assert_true(rmap_owner_add(map, 3, entry_of(1, i)));
	rmap_owner_move(map, 9, entry_of(1, 1));
	assert_int_equal(owners(map, 3), 2);
	assert_int_equal(owners(map, 9), 1);
	assert_true(rmap_owner_holds(map, 9, entry_of(1, 1)));
	assert_false(rmap_owner_holds(map, 3, entry_of(1, 1)));
	rmap_owner_move(map, 9, entry_of(1, 1));
	assert_int_equal(owners(map, 9), 1);
	assert_true(rmap_owner_remove(map, entry_of(1, 1)));
	assert_int_equal(owners(map, 9), 0);
}

/* F16: every entry that points at a shared table is found, not only the first. */
static void test_F16_many_owners(void **state)
{
	static struct rmap_entry found[TABLES * RMAP_ENTRIES];
	static bool seen[TABLES][RMAP_ENTRIES];
	struct rmap *map = *state;
	const size_t all = (size_t)(TABLES - 1) * RMAP_ENTRIES;

	for (uint32_t t = 1; t < TABLES; t++)
		for (uint16_t i = 0; i < RMAP_ENTRIES; i++)
			assert_true(rmap_owner_add(map, 0, entry_of(t, i)));
	assert_int_equal(rmap_owner_find(map, 0, found, all), all);
	for (size_t n = 0; n < all; n++) {
		assert_false(seen[found[n].table][found[n].index]);
		seen[found[n].table][found[n].index] = true;
	}
	for (uint32_t t = 1; t < TABLES; t++)
		for (uint16_t i = 0; i < RMAP_ENTRIES; i += 2)
			assert_true(rmap_owner_remove(map, entry_of(t, i)));
	assert_int_equal(owners(map, 0), all / 2);
	assert_false(rmap_owner_holds(map, 0, entry_of(5, 4)));
	assert_true(rmap_owner_holds(map, 0, entry_of(5, 5)));
}

static void test_find_is_bounded(void **state)
{
	struct rmap *map = *state;
	struct rmap_entry found[3] = {{0, 0}, {0, 0}, {77, 7}};

	for (uint16_t i = 0; i < 5; i++)
		assert_true(rmap_owner_add(map, 3, entry_of(1, i)));
	assert_int_equal(rmap_owner_find(map, 3, found, 2), 5);
	assert_int_equal(found[0].table, 1);
	assert_int_equal(found[1].table, 1);
	assert_int_equal(found[2].table, 77);
}

/* Owners and pages of one table are apart. */
static void test_owners_and_pages_are_apart(void **state)
{
	struct rmap *map = *state;

	assert_true(rmap_owner_add(map, 3, entry_of(1, 0)));
	assert_true(rmap_page_add(map, (struct file_page){0, 0}, entry_of(3, 0), 8));
	rmap_page_clear(map, 3);
	assert_int_equal(owners(map, 3), 1);
	assert_true(rmap_owner_remove(map, entry_of(1, 0)));
	assert_int_equal(rmap_page_count(map, 3), 0);
}

static void test_bytes_grow(void **state)
{
	size_t before = rmap_bytes(*state);

	for (uint16_t i = 0; i < RMAP_ENTRIES; i++)
		assert_true(rmap_owner_add(*state, 3, entry_of(1, i)));
	assert_true(rmap_bytes(*state) > before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_add_and_find, setup, teardown),
		cmocka_unit_test_setup_teardown(test_remove, setup, teardown),
		cmocka_unit_test_setup_teardown(test_move, setup, teardown),
		cmocka_unit_test_setup_teardown(test_F16_many_owners, setup, teardown),
		cmocka_unit_test_setup_teardown(test_find_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_owners_and_pages_are_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bytes_grow, setup, teardown),
	};

	return cmocka_run_group_tests_name("rmap.owner", tests, NULL, NULL);
}
