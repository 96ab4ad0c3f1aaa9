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

/* Table @to points at what @from points at, and at nothing else. */
static void require_copy(struct rmap *map, uint32_t from, uint32_t to)
{
	for (uint32_t child = 0; child < TABLES; child++)
		for (uint16_t i = 0; i < RMAP_ENTRIES; i++)
			assert_int_equal(rmap_owner_holds(map, child, entry_of(from, i)),
					 rmap_owner_holds(map, child, entry_of(to, i)));
}

static void test_copy(void **state)
{
	/* Both ends of the table, of a word of bits, and a child with two entries. */
	const uint16_t at[] = {0, 1, 31, 32, 63, 64, 300, 511};
	const unsigned count = sizeof(at) / sizeof(*at);
	struct rmap *map = *state;
	struct rmap_entry found[4];

	for (uint16_t i = 0; i < count; i++)
		assert_true(rmap_owner_add(map, 10u + i / 2, entry_of(1, at[i])));
	assert_true(rmap_owner_copy(map, 1, 2));
	require_copy(map, 1, 2);
	for (uint16_t i = 0; i < count; i += 2) {
		unsigned from_copy = 0;

		assert_int_equal(rmap_owner_find(map, 10u + i / 2, found, 4), 4);
		for (unsigned n = 0; n < 4; n++)
			from_copy += found[n].table == 2;
		assert_int_equal(from_copy, 2);
	}
	assert_true(rmap_owner_copy(map, 2, 3));
	require_copy(map, 1, 3);
	assert_int_equal(owners(map, 10), 6);
}

/* What is done to a copy is not done to the original, and the other way round. */
static void test_copies_go_their_ways(void **state)
{
	struct rmap *map = *state;

	for (uint16_t i = 0; i < 40; i++)
		assert_true(rmap_owner_add(map, 10u + i % 4, entry_of(1, i)));
	assert_true(rmap_owner_copy(map, 1, 2));
	rmap_owner_move(map, 20, entry_of(2, 0));
	assert_true(rmap_owner_remove(map, entry_of(2, 1)));
	assert_true(rmap_owner_remove(map, entry_of(1, 2)));
	assert_true(rmap_owner_add(map, 21, entry_of(1, 400)));
	assert_true(rmap_owner_holds(map, 10, entry_of(1, 0)));
	assert_true(rmap_owner_holds(map, 11, entry_of(1, 1)));
	assert_true(rmap_owner_holds(map, 12, entry_of(2, 2)));
	assert_false(rmap_owner_holds(map, 21, entry_of(2, 400)));
	assert_int_equal(owners(map, 10), 19);
	assert_int_equal(owners(map, 11), 19);
	assert_int_equal(owners(map, 12), 19);
	assert_int_equal(owners(map, 13), 20);
	assert_int_equal(owners(map, 20), 1);
}

static void test_clear(void **state)
{
	struct rmap *map = *state;

	rmap_owner_clear(map, 1);
	for (uint16_t i = 0; i < RMAP_ENTRIES; i += 5)
		assert_true(rmap_owner_add(map, 3, entry_of(1, i)));
	assert_true(rmap_owner_add(map, 1, entry_of(5, 0)));
	assert_true(rmap_owner_copy(map, 1, 2));
	rmap_owner_clear(map, 1);
	assert_int_equal(owners(map, 3), (RMAP_ENTRIES + 4) / 5);
	assert_false(rmap_owner_holds(map, 3, entry_of(1, 5)));
	assert_true(rmap_owner_holds(map, 3, entry_of(2, 5)));
	/* What points at the cleared table still does. */
	assert_true(rmap_owner_holds(map, 1, entry_of(5, 0)));
	rmap_owner_clear(map, 2);
	assert_int_equal(owners(map, 3), 0);
	assert_true(rmap_owner_copy(map, 2, 1));
	assert_true(rmap_owner_add(map, 3, entry_of(1, 5)));
	assert_int_equal(owners(map, 3), 1);
}

/* What a table that is gone, or has no child any more, occupied is there for others. */
static void test_memory_is_used_again(void **state)
{
	struct rmap *map = *state;
	size_t bytes;

	for (uint16_t i = 0; i < RMAP_ENTRIES; i++)
		assert_true(rmap_owner_add(map, 3, entry_of(1, i)));
	assert_true(rmap_owner_copy(map, 1, 2));
	bytes = rmap_bytes(map);
	for (unsigned round = 0; round < 1000; round++) {
		rmap_owner_clear(map, 2);
		assert_true(rmap_owner_copy(map, 1, 2));
		rmap_owner_clear(map, 2);
		for (uint16_t i = 0; i < RMAP_ENTRIES; i += 32)
			assert_true(rmap_owner_add(map, 3, entry_of(2, i)));
		for (uint16_t i = 0; i < RMAP_ENTRIES; i += 32)
			assert_true(rmap_owner_remove(map, entry_of(2, i)));
		assert_true(rmap_owner_copy(map, 1, 2));
	}
	assert_int_equal(rmap_bytes(map), bytes);
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
		cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copies_go_their_ways, setup, teardown),
		cmocka_unit_test_setup_teardown(test_clear, setup, teardown),
		cmocka_unit_test_setup_teardown(test_memory_is_used_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_owners_and_pages_are_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bytes_grow, setup, teardown),
	};

	return cmocka_run_group_tests_name("rmap.owner", tests, NULL, NULL);
}
