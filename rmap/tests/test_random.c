// SPDX-License-Identifier: MIT
/*
 * Random operations on the map beside a model that is too simple to be wrong: for each entry of
 * each table, which page it maps and which table it points at. S2VM_SEED and S2VM_OPS choose the
 * run.
 */
#include "cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "rmap/rmap.h"

#define TABLES 24
#define FILES  3
#define PAGES  2048
#define NONE   UINT32_MAX

static struct file_page mapped[TABLES][RMAP_ENTRIES]; /* file NONE: the entry maps nothing */
static uint32_t child[TABLES][RMAP_ENTRIES];
static uint64_t random_state;

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

/* splitmix64: small, and the same everywhere. */
static uint32_t below(uint32_t limit)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (uint32_t)((z ^ z >> 31) >> 16) % limit;
}

static struct rmap_entry random_entry(void)
{
	return (struct rmap_entry){below(TABLES), (uint16_t)below(RMAP_ENTRIES)};
}

static void step_add(struct rmap *map)
{
	struct rmap_entry at = random_entry();
	struct file_page first = {below(FILES), below(PAGES)};
	unsigned limit = 1 + below(RMAP_ENTRIES - at.index);
	unsigned count = 0;

	while (count < limit && mapped[at.table][at.index + count].file == NONE) {
		mapped[at.table][at.index + count] =
			(struct file_page){first.file, first.page + count};
		count++;
	}
	if (count)
		assert_true(rmap_page_add(map, first, at, count));
}

/* Also asks for the removal of entries that map something else, which must stay. */
static void step_remove(struct rmap *map)
{
	struct rmap_entry at = random_entry();
	struct file_page first = mapped[at.table][at.index];
	unsigned count = 1 + below(RMAP_ENTRIES - at.index);

	if (first.file == NONE)
		return;
	for (unsigned i = 0; i < count; i++) {
		struct file_page *page = &mapped[at.table][at.index + i];

		if (page->file == first.file && page->page == first.page + i)
			page->file = NONE;
	}
	rmap_page_remove(map, first, at, count);
}

static void step_clear(struct rmap *map, uint32_t table)
{
	memset(mapped[table], 0xff, sizeof(mapped[table]));
	rmap_page_clear(map, table);
}

static void step_copy(struct rmap *map)
{
	uint32_t from = below(TABLES);
	uint32_t to = below(TABLES);

	if (from == to)
		return;
	step_clear(map, to);
	memcpy(mapped[to], mapped[from], sizeof(mapped[to]));
	assert_true(rmap_page_copy(map, from, to));
}

static void step_owner(struct rmap *map)
{
	struct rmap_entry parent = random_entry();
	uint32_t *points_at = &child[parent.table][parent.index];
	uint32_t table = below(TABLES);

	if (*points_at == NONE) {
		assert_false(rmap_owner_remove(map, parent));
		assert_true(rmap_owner_add(map, table, parent));
		*points_at = table;
	} else if (below(2)) {
		rmap_owner_move(map, table, parent);
		*points_at = table;
	} else {
		assert_true(rmap_owner_remove(map, parent));
		*points_at = NONE;
	}
}

static void step_owner_clear(struct rmap *map, uint32_t table)
{
	memset(child[table], 0xff, sizeof(child[table]));
	rmap_owner_clear(map, table);
}

static void step_owner_copy(struct rmap *map)
{
	uint32_t from = below(TABLES);
	uint32_t to = below(TABLES);

	if (from == to)
		return;
	step_owner_clear(map, to);
	memcpy(child[to], child[from], sizeof(child[to]));
	assert_true(rmap_owner_copy(map, from, to));
}

/* What the map finds are entries that map the page, each once, and as many as the model has. */
static void check_page(struct rmap *map, struct file_page page)
{
	static struct rmap_entry found[TABLES * RMAP_ENTRIES];
	size_t count = rmap_page_find(map, page, found, TABLES * RMAP_ENTRIES);
	size_t expected = 0;

	for (size_t i = 0; i < count; i++) {
		const struct file_page *maps = &mapped[found[i].table][found[i].index];

		assert_true(maps->file == page.file && maps->page == page.page);
		for (size_t j = 0; j < i; j++)
			assert_false(found[i].table == found[j].table &&
				     found[i].index == found[j].index);
	}
	for (unsigned t = 0; t < TABLES; t++)
		for (unsigned i = 0; i < RMAP_ENTRIES; i++)
			expected +=
				mapped[t][i].file == page.file && mapped[t][i].page == page.page;
	assert_int_equal(count, expected);
}

static void check_table(struct rmap *map, uint32_t table)
{
	unsigned expected = 0;

	for (uint16_t i = 0; i < RMAP_ENTRIES; i++) {
		struct rmap_entry at = {table, i};

		if (mapped[table][i].file == NONE)
			continue;
		expected++;
		assert_true(rmap_page_holds(map, mapped[table][i], at));
	}
	assert_int_equal(rmap_page_count(map, table), expected);
}

static void check_owners(struct rmap *map, uint32_t table)
{
	static struct rmap_entry found[TABLES * RMAP_ENTRIES];
	size_t count = rmap_owner_find(map, table, found, TABLES * RMAP_ENTRIES);
	size_t expected = 0;

	for (size_t i = 0; i < count; i++)
		assert_int_equal(child[found[i].table][found[i].index], table);
	for (uint32_t t = 0; t < TABLES; t++)
		for (uint16_t i = 0; i < RMAP_ENTRIES; i++) {
			struct rmap_entry parent = {t, i};

			expected += child[t][i] == table;
			assert_int_equal(rmap_owner_holds(map, table, parent),
					 child[t][i] == table);
		}
	assert_int_equal(count, expected);
}

static void step(struct rmap *map)
{
	switch (below(10)) {
	case 0:
	case 1:
		step_add(map);
		break;
	case 2:
	case 3:
		step_remove(map);
		break;
	case 4:
		if (!below(8))
			step_clear(map, below(TABLES));
		break;
	case 5:
		if (!below(8))
			step_copy(map);
		break;
	case 6:
		if (!below(16))
			step_owner_clear(map, below(TABLES));
		else if (!below(8))
			step_owner_copy(map);
		break;
	default:
		step_owner(map);
	}
}

static void test_random_against_sets(void **state)
{
	uint64_t seed = number_from("S2VM_SEED", 1);
	uint64_t ops = number_from("S2VM_OPS", 40000);
	struct rmap *map = rmap_create(TABLES);

	(void)state;
	print_message("seed %llu, %llu operations\n", (unsigned long long)seed,
		      (unsigned long long)ops);
	random_state = seed;
	memset(mapped, 0xff, sizeof(mapped));
	memset(child, 0xff, sizeof(child));
	assert_non_null(map);
	for (uint64_t op = 0; op < ops; op++) {
		step(map);
		if (op % 16)
			continue;
		check_page(map, (struct file_page){below(FILES), below(PAGES + RMAP_ENTRIES)});
		check_table(map, below(TABLES));
		check_owners(map, below(TABLES));
	}
	rmap_destroy(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_against_sets)};

	return cmocka_run_group_tests_name("rmap.random", tests, NULL, NULL);
}
