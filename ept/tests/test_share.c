// SPDX-License-Identifier: MIT
/* Sharing among guests that merely map the same file: the rows of docs/sharing.md, by id. */
#include "port.h"

#define AT    (UINT64_C(4) * GIB1)
#define PAGES (4 * MIB2 / KIB4)

static struct world *world_of(void **state)
{
	struct world_options options = world_defaults(*state);

	return world_create(&options);
}

static struct ept_counters counters_of(struct world *world)
{
	struct ept_counters counters;

	ept_counters(world->ept, &counters);
	return counters;
}

static struct ept_usage usage_of(struct world *world)
{
	struct ept_usage usage;

	ept_usage(world->ept, &usage);
	return usage;
}

/* A guest of domain 0 that maps @bytes of @file from its first page. */
static struct guest *guest_with(struct world *world, uint64_t start, uint64_t bytes, uint32_t file)
{
	struct guest *guest = guest_create(world, 0, true);

	guest_must_map(guest, start, bytes, file, 0, RWX);
	return guest;
}

static void must_read_file(struct guest *guest, uint64_t gpa, uint32_t file, uint64_t page)
{
	guest_must_read(guest, gpa, world_stamp(file, page, 0));
}

static bool same_table(struct guest *a, uint64_t gpa_a, struct guest *b, uint64_t gpa_b,
		       unsigned level)
{
	struct fpa table = guest_table(a, gpa_a, level);

	return table.v && table.v == guest_table(b, gpa_b, level).v;
}

/* Entries in memory that point at each table, of all guests, beside what the engine counts. */
static void F1_use_count_equals_entries(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *guests[5];

	for (unsigned i = 0; i < 5; i++) {
		guests[i] = guest_with(world, AT, MIB2, file);
		must_read_file(guests[i], AT, file, 0);
		/* Each has its own PDPT and PD, all have one PT: the checker counts its uses. */
		assert_int_equal(usage_of(world).tables[1], 1);
		assert_int_equal(usage_of(world).tables[2], i + 1);
		assert_int_equal(usage_of(world).tables[4], i + 1);
		world_check(world);
	}
	for (unsigned i = 0; i < 5; i++) {
		guest_destroy(guests[i]);
		assert_int_equal(usage_of(world).tables[1], i < 4);
	}
	world_destroy(world);
}

static void F8_unmap_of_a_whole_shared_span_touches_no_entry_of_it(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file);
	struct guest *b = guest_with(world, AT, MIB2, file);
	struct ept_counters before;
	uint64_t faults;

	must_read_file(a, AT, file, 0);
	must_read_file(b, AT, file, 0);
	faults = ept_space_faults(b->space);
	before = counters_of(world);
	assert_int_equal(guest_unmap(a, AT, MIB2), EPT_OK);
	assert_int_equal(a->last.gate_edits, 1);
	assert_int_equal(a->last.plain_edits, 0);
	assert_int_equal(counters_of(world).tables_dropped - before.tables_dropped, 1);
	assert_int_equal(counters_of(world).tables_freed - before.tables_freed, 0);
	must_read_file(b, AT + 511 * KIB4, file, 511);
	assert_int_equal(ept_space_faults(b->space), faults);
	world_destroy(world);
}

static void F9_unmap_of_a_part_unshares_the_edges_first(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, 4 * MIB2, file);
	struct guest *b = guest_with(world, AT, 4 * MIB2, file);
	struct ept_counters before;
	uint64_t value;

	for (unsigned i = 0; i < 4; i++) {
		must_read_file(a, AT + i * MIB2, file, i * EPT_ENTRIES);
		must_read_file(b, AT + i * MIB2, file, i * EPT_ENTRIES);
	}
	before = counters_of(world);
	assert_int_equal(guest_unmap(a, AT + MIB2 / 2, 3 * MIB2), EPT_OK);
	/* The first and the last table are copied, those between are let go. */
	assert_int_equal(counters_of(world).tables_copied - before.tables_copied, 2);
	for (uint64_t page = 0; page < PAGES; page += 128) {
		bool gone = page >= EPT_ENTRIES / 2 && page < PAGES - EPT_ENTRIES / 2;

		must_read_file(b, AT + page * KIB4, file, page);
		assert_int_equal(guest_read(a, AT + page * KIB4, &value),
				 gone ? EPT_OUTSIDE : EPT_OK);
	}
	world_destroy(world);
}

static void F9_protect_of_a_part_unshares_the_edges_first(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, 2 * MIB2, file);
	struct guest *b = guest_with(world, AT, 2 * MIB2, file);

	must_read_file(a, AT, file, 0);
	must_read_file(b, AT, file, 0);
	assert_int_equal(guest_protect(a, AT + MIB2 / 2, MIB2, EPT_READ), EPT_OK);
	assert_int_equal(guest_exec(a, AT + MIB2 / 2), EPT_DENIED);
	assert_int_equal(guest_exec(a, AT + MIB2 / 2 - KIB4), EPT_OK);
	assert_int_equal(guest_write(a, AT + MIB2, 1), EPT_DENIED);
	assert_int_equal(guest_exec(b, AT + MIB2 / 2), EPT_OK);
	assert_false(same_table(a, AT, b, AT, 1));
	must_read_file(a, AT + MIB2 / 2, file, EPT_ENTRIES / 2);
	world_destroy(world);
}

static void F10_last_reference_frees_the_table(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file);
	struct guest *b = guest_with(world, AT, MIB2, file);

	must_read_file(a, AT, file, 0);
	must_read_file(b, AT, file, 0);
	assert_int_equal(guest_unmap(a, AT, MIB2), EPT_OK);
	assert_int_equal(usage_of(world).tables[1], 1);
	assert_int_equal(guest_unmap(b, AT, MIB2), EPT_OK);
	assert_int_equal(usage_of(world).tables[1], 0);
	/* It is not to be had again before the gate has scrubbed it. */
	assert_true(usage_of(world).tables_quarantined >= 1);
	world_scrub_all(world);
	assert_int_equal(usage_of(world).tables_quarantined, 0);
	world_destroy(world);
}

static void F13_guests_that_map_the_same_file_share(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, 4 * MIB2, file);
	struct guest *b = guest_with(world, AT, 4 * MIB2, file);

	for (unsigned i = 0; i < 4; i++) {
		struct ept_counters before;

		must_read_file(a, AT + i * MIB2, file, i * EPT_ENTRIES);
		before = counters_of(world);
		must_read_file(b, AT + i * MIB2, file, i * EPT_ENTRIES);
		assert_true(same_table(a, AT + i * MIB2, b, AT + i * MIB2, 1));
		assert_int_equal(counters_of(world).tables_shared - before.tables_shared, 1);
	}
	world_destroy(world);
}

static void F13_sharing_can_be_switched_off_for_a_guest(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file);
	struct guest *b = guest_create(world, 0, false);
	struct guest *child;

	guest_must_map(b, AT, MIB2, file, 0, RWX);
	must_read_file(b, AT, file, 0);
	must_read_file(a, AT, file, 0);
	assert_false(same_table(a, AT, b, AT, 1));
	assert_int_equal(counters_of(world).tables_shared, 0);
	assert_int_equal(guest_clone(b, &child), EPT_INVALID);
	world_destroy(world);
}

struct eligibility {
	const char *what;
	uint64_t start, bytes; /* of the second guest's region, which the first one's is moved to */
	uint64_t page;
	unsigned rights;
	bool other_file;
	bool shared;
};

/* The first guest maps 4 MiB at AT from page 0, readable, writable, executable. */
static const struct eligibility eligibilities[] = {
	{"all the same", AT, 2 * MIB2, 0, RWX, false, true},
	{"a smaller region over the whole span", AT, MIB2, 0, RWX, false, true},
	{"a larger region", AT, 3 * MIB2, 0, RWX, false, true},
	{"part of the span", AT, MIB2 - KIB4, 0, RWX, false, false},
	{"part of the span, from the second page", AT + KIB4, MIB2, 1, RWX, false, false},
	{"another phase", AT, 2 * MIB2, 1, RWX, false, false},
	{"another place in the file", AT, MIB2, 512, RWX, false, false},
	{"without the right to write", AT, 2 * MIB2, 0, RX, false, false},
	{"without the right to execute", AT, 2 * MIB2, 0, RW, false, false},
	{"another file", AT, 2 * MIB2, 0, RWX, true, false},
};

static void F14_only_what_is_the_same_is_shared(void **state)
{
	for (size_t i = 0; i < sizeof(eligibilities) / sizeof(*eligibilities); i++) {
		const struct eligibility *row = &eligibilities[i];
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		uint32_t other = world_file(world, PAGES, false);
		struct guest *a = guest_with(world, AT, 2 * MIB2, file);
		struct guest *b = guest_create(world, 0, true);
		uint32_t maps = row->other_file ? other : file;

		guest_must_map(b, row->start, row->bytes, maps, row->page, row->rights);
		must_read_file(a, AT, file, 0);
		must_read_file(b, row->start, maps, row->page);
		if (same_table(a, AT, b, row->start, 1) != row->shared)
			port_fail(world, "%s: shared is %d", row->what, !row->shared);
		world_destroy(world);
	}
}

/* Two regions that together cover the span are not one region. */
static void F14_two_regions_in_a_span_are_private(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file);
	struct guest *b = guest_create(world, 0, true);

	guest_must_map(b, AT, MIB2 / 2, file, 0, RWX);
	guest_must_map(b, AT + MIB2 / 2, MIB2 / 2, file, EPT_ENTRIES / 2, RWX);
	must_read_file(a, AT, file, 0);
	must_read_file(b, AT, file, 0);
	must_read_file(b, AT + MIB2 / 2, file, EPT_ENTRIES / 2);
	assert_false(same_table(a, AT, b, AT, 1));
	world_destroy(world);
}

/* Shared and private mappings of one file are different things in the same place. */
static void F14_modes_are_not_shared(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, true);
	struct ept_region region = region_of(AT, MIB2, file, 0, RW);
	struct guest *a = guest_create(world, 0, true);
	struct guest *b = guest_create(world, 0, true);
	struct guest *c = guest_create(world, 0, true);

	assert_int_equal(guest_map(a, &region), EPT_OK);
	region.mode = EPT_SHARED;
	assert_int_equal(guest_map(b, &region), EPT_OK);
	assert_int_equal(guest_map(c, &region), EPT_OK);
	must_read_file(a, AT, file, 0);
	must_read_file(b, AT, file, 0);
	must_read_file(c, AT, file, 0);
	assert_false(same_table(a, AT, b, AT, 1));
	assert_true(same_table(b, AT, c, AT, 1));
	guest_must_write(c, AT, 77);
	guest_must_read(b, AT, 77);
	/* Private without a copy yet: it shows the file. */
	guest_must_read(a, AT, 77);
	guest_must_write(a, AT, 78);
	guest_must_read(b, AT, 77);
	world_destroy(world);
}

/* The checker compares the reverse map with a walk (S7) after each of the many steps. */
static void F16_every_sharer_is_known(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *guests[9];

	for (unsigned i = 0; i < 9; i++) {
		guests[i] = guest_with(world, AT + i * GIB1, MIB2, file);
		must_read_file(guests[i], AT + i * GIB1, file, 0);
	}
	assert_int_equal(usage_of(world).tables[1], 1);
	/* They leave from the middle, by unmapping, by writing and by ending. */
	assert_int_equal(guest_unmap(guests[4], AT + 4 * GIB1, MIB2), EPT_OK);
	guest_must_write(guests[5], AT + 5 * GIB1, 1);
	guest_destroy(guests[6]);
	for (unsigned i = 0; i < 4; i++)
		assert_true(same_table(guests[i], AT + i * GIB1, guests[8], AT + 8 * GIB1, 1));
	assert_int_equal(usage_of(world).tables[1], 2);
	world_destroy(world);
}

struct level_case {
	unsigned level;
	uint64_t start, bytes;
};

static const struct level_case level_cases[] = {
	{1, AT, MIB2},
	{2, AT, GIB1},
	{3, GIB512, GIB512},
};

/* The highest level of @row's tables that two guests share if @levels may be shared; 0 for none. */
static unsigned highest_shared(const void *format, const struct level_case *row, unsigned levels)
{
	struct world_options options = world_defaults(format);
	unsigned highest = 0;
	struct world *world;
	uint32_t file;
	struct guest *a, *b;

	options.share_levels = levels;
	world = world_create(&options);
	file = world_file(world, row->bytes / KIB4, false);
	a = guest_with(world, row->start, row->bytes, file);
	b = guest_with(world, row->start, row->bytes, file);
	must_read_file(a, row->start, file, 0);
	must_read_file(b, row->start, file, 0);
	must_read_file(b, row->start + row->bytes - KIB4, file, row->bytes / KIB4 - 1);
	for (unsigned level = 1; level < EPT_ROOT_LEVEL; level++)
		if (same_table(a, row->start, b, row->start, level))
			highest = level;
	world_destroy(world);
	return highest;
}

static void F20_three_levels_each_can_be_switched_off(void **state)
{
	for (size_t i = 0; i < 3; i++) {
		const struct level_case *row = &level_cases[i];

		for (unsigned levels = 0; levels <= EPT_SHARE_ALL; levels += 2) {
			unsigned expected = 0;

			for (unsigned level = 1; level <= row->level; level++)
				if (levels >> level & 1)
					expected = level;
			assert_int_equal(highest_shared(*state, row, levels), expected);
		}
	}
}

static void F21_one_sharers_fault_serves_all(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, GIB512 / KIB4, false);
	struct guest *a = guest_with(world, GIB512, GIB512, file);
	struct guest *b = guest_with(world, GIB512, GIB512, file);
	const uint64_t far = 300 * GIB1 + 7 * MIB2;
	uint64_t faults;

	must_read_file(a, GIB512, file, 0);
	must_read_file(b, GIB512, file, 0);
	faults = ept_space_faults(b->space);
	/* A new PD and PT below the PDPT that both have. */
	must_read_file(a, GIB512 + far, file, far / KIB4);
	must_read_file(b, GIB512 + far + 9 * KIB4, file, far / KIB4 + 9);
	assert_int_equal(ept_space_faults(b->space), faults);
	world_destroy(world);
}

/* One fault brings in a whole table; and what it brought serves guests that come later. */
static void F21_a_fault_fills_the_table(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file);

	for (unsigned i = 0; i < EPT_ENTRIES; i++)
		must_read_file(a, AT + i * KIB4, file, i);
	assert_int_equal(ept_space_faults(a->space), 1);
	world_destroy(world);
}

static void F23_a_count_reaches_zero_once(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file);
	struct ept_counters before;

	must_read_file(a, AT, file, 0);
	assert_int_equal(usage_of(world).indexed, 1);
	guest_destroy(a);
	assert_int_equal(usage_of(world).indexed, 0);
	/* Who comes after the last one finds nothing, neither in quarantine nor after it. */
	for (unsigned i = 0; i < 2; i++) {
		a = guest_with(world, AT, MIB2, file);
		before = counters_of(world);
		must_read_file(a, AT, file, 0);
		assert_int_equal(counters_of(world).tables_shared, before.tables_shared);
		guest_destroy(a);
		world_scrub_all(world);
	}
	world_destroy(world);
}

static void F25_1_the_first_mapping_makes_the_table(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file);

	assert_int_equal(usage_of(world).tables[1], 0);
	must_read_file(a, AT, file, 0);
	assert_int_equal(usage_of(world).tables[1], 1);
	assert_int_equal(counters_of(world).tables_shared, 0);
	world_destroy(world);
}

static void F25_2_the_same_mapping_shares_private_ones_too(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file);
	struct guest *b = guest_with(world, AT, MIB2, file);

	must_read_file(a, AT, file, 0);
	must_read_file(b, AT, file, 0);
	assert_true(same_table(a, AT, b, AT, 1));
	guest_must_write(b, AT, 5);
	assert_false(same_table(a, AT, b, AT, 1));
	must_read_file(a, AT, file, 0);
	guest_must_read(b, AT + 8, world_stamp(file, 0, 1));
	world_destroy(world);
}

static void F25_3_unmap_with_a_count_above_one(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file);
	struct guest *b = guest_with(world, AT, MIB2, file);

	must_read_file(a, AT, file, 0);
	must_read_file(b, AT, file, 0);
	assert_int_equal(guest_unmap(a, AT, MIB2), EPT_OK);
	assert_int_equal(usage_of(world).tables[1], 1);
	assert_int_equal(usage_of(world).indexed, 1);
	must_read_file(b, AT, file, 0);
	world_destroy(world);
}

static void F25_4_unmap_with_a_count_of_one(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file);
	uint64_t value;

	must_read_file(a, AT, file, 0);
	assert_int_equal(guest_unmap(a, AT, MIB2), EPT_OK);
	assert_int_equal(usage_of(world).tables[1], 0);
	assert_int_equal(usage_of(world).indexed, 0);
	assert_int_equal(guest_read(a, AT, &value), EPT_OUTSIDE);
	world_destroy(world);
}

/* A region at any place shares what it can: the tables that it covers, not its edges. */
static void F28_eligibility_does_the_rest(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, 3 * MIB2 / KIB4, false);
	struct guest *guests[2];

	for (unsigned i = 0; i < 2; i++) {
		guests[i] = guest_with(world, AT + MIB2 / 2, 3 * MIB2, file);
		for (uint64_t at = 0; at < 3 * MIB2; at += MIB2 / 2)
			must_read_file(guests[i], AT + MIB2 / 2 + at, file, at / KIB4);
	}
	for (unsigned table = 0; table < 4; table++)
		assert_int_equal(
			same_table(guests[0], AT + table * MIB2, guests[1], AT + table * MIB2, 1),
			table == 1 || table == 2);
	world_destroy(world);
}

static void T1_other_addresses_of_the_same_alignment_share(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, GIB1 / KIB4, false);
	struct guest *a = guest_with(world, 0, GIB1, file);
	struct guest *b = guest_with(world, 7 * GIB1, GIB1, file);
	struct guest *c = guest_with(world, 9 * GIB1 + 3 * MIB2, GIB1, file);

	must_read_file(a, 0, file, 0);
	must_read_file(b, 7 * GIB1, file, 0);
	must_read_file(c, 9 * GIB1 + 3 * MIB2, file, 0);
	assert_true(same_table(a, 0, b, 7 * GIB1, 2));
	/* Aligned to 2 MiB only: the lowest level is what can be shared. */
	assert_true(same_table(a, 0, c, 9 * GIB1 + 3 * MIB2, 1));
	assert_false(same_table(a, 0, c, 9 * GIB1 + 3 * MIB2, 2));
	world_destroy(world);
}

static void T2_random_aligned_addresses_share(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	uint64_t place = 12345;

	for (unsigned i = 0; i < 24; i++) {
		uint64_t at;
		struct guest *guest;

		place = place * 6364136223846793005u + 1442695040888963407u;
		at = (place >> 20) % (200 * GIB512 / MIB2) * MIB2;
		guest = guest_with(world, at, MIB2, file);
		must_read_file(guest, at + 17 * KIB4, file, 17);
	}
	assert_int_equal(usage_of(world).tables[1], 1);
	assert_int_equal(counters_of(world).tables_shared, 23);
	world_destroy(world);
}

static void T9_small_regions_are_mapped_and_never_shared(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct ept_space_usage usage;

	for (unsigned i = 0; i < 3; i++) {
		struct guest *guest = guest_with(world, AT, MIB2 - KIB4, file);

		must_read_file(guest, AT, file, 0);
		must_read_file(guest, AT + MIB2 - 2 * KIB4, file, EPT_ENTRIES - 2);
		guest_must_write(guest, AT, i);
		ept_space_usage(guest->space, &usage);
		assert_int_equal(usage.tables_shared, 0);
		assert_int_equal(usage.tables_alone, 4);
	}
	assert_int_equal(counters_of(world).tables_shared, 0);
	assert_int_equal(usage_of(world).indexed, 0);
	world_destroy(world);
}

/* The gate's span of each root is nobody's: not to be mapped, and nothing is found there. */
static void S5_nothing_is_translated_in_the_gates_span(void **state)
{
	const struct gpa gate = {PORT_GATE_INDEX * GIB512};
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file);
	struct ept_region region = region_of(gate.v, MIB2, file, 0, RX);
	unsigned rights;
	struct fpa to;

	must_read_file(a, AT, file, 0);
	assert_true(ept_space_translate(a->space, (struct gpa){AT}, &to, &rights));
	assert_false(ept_space_translate(a->space, gate, &to, &rights));
	assert_int_equal(guest_map(a, &region), EPT_INVALID);
	assert_int_equal(guest_exec(a, gate.v), EPT_OUTSIDE);
	assert_int_equal(guest_unmap(a, gate.v - MIB2, 2 * MIB2), EPT_INVALID);
	must_read_file(a, AT, file, 0);
	world_destroy(world);
}

static void B8_domains_share_no_table(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, GIB512 / KIB4, false);
	struct guest *guests[2];

	for (uint32_t domain = 0; domain < 2; domain++) {
		guests[domain] = guest_create(world, domain, true);
		guest_must_map(guests[domain], GIB512, GIB512, file, 0, RWX);
		must_read_file(guests[domain], GIB512, file, 0);
	}
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		assert_false(same_table(guests[0], GIB512, guests[1], GIB512, level));
	assert_int_equal(counters_of(world).tables_shared, 0);
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(F1_use_count_equals_entries),
		EACH_FORMAT(F8_unmap_of_a_whole_shared_span_touches_no_entry_of_it),
		EACH_FORMAT(F9_unmap_of_a_part_unshares_the_edges_first),
		EACH_FORMAT(F9_protect_of_a_part_unshares_the_edges_first),
		EACH_FORMAT(F10_last_reference_frees_the_table),
		EACH_FORMAT(F13_guests_that_map_the_same_file_share),
		EACH_FORMAT(F13_sharing_can_be_switched_off_for_a_guest),
		EACH_FORMAT(F14_only_what_is_the_same_is_shared),
		EACH_FORMAT(F14_two_regions_in_a_span_are_private),
		EACH_FORMAT(F14_modes_are_not_shared),
		EACH_FORMAT(F16_every_sharer_is_known),
		EACH_FORMAT(F20_three_levels_each_can_be_switched_off),
		EACH_FORMAT(F21_one_sharers_fault_serves_all),
		EACH_FORMAT(F21_a_fault_fills_the_table),
		EACH_FORMAT(F23_a_count_reaches_zero_once),
		EACH_FORMAT(F25_1_the_first_mapping_makes_the_table),
		EACH_FORMAT(F25_2_the_same_mapping_shares_private_ones_too),
		EACH_FORMAT(F25_3_unmap_with_a_count_above_one),
		EACH_FORMAT(F25_4_unmap_with_a_count_of_one),
		EACH_FORMAT(F28_eligibility_does_the_rest),
		EACH_FORMAT(T1_other_addresses_of_the_same_alignment_share),
		EACH_FORMAT(T2_random_aligned_addresses_share),
		EACH_FORMAT(T9_small_regions_are_mapped_and_never_shared),
		EACH_FORMAT(S5_nothing_is_translated_in_the_gates_span),
		EACH_FORMAT(B8_domains_share_no_table),
	};

	return cmocka_run_group_tests_name("ept.share", tests, NULL, NULL);
}
