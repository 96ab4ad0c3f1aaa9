// SPDX-License-Identifier: MIT
/* Ranges that move within a space, and spaces that are frozen while they run: rows of
 * docs/sharing.md. */
#include "ept_internal.h"
#include "port.h"

#define AT    (UINT64_C(4) * GIB1)
#define FAR   (GIB512 * 7 + GIB1 * 3)
#define PAGES (8 * EPT_ENTRIES)
#define BYTES (PAGES * KIB4)

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

static struct guest *guest_with(struct world *world, uint32_t file)
{
	struct guest *guest = guest_create(world, 0, true);

	guest_must_map(guest, AT, BYTES, file, 0, RWX);
	return guest;
}

static bool same_table(struct guest *a, uint64_t gpa_a, struct guest *b, uint64_t gpa_b)
{
	struct fpa table = guest_table(a, gpa_a, 1);

	return table.v && table.v == guest_table(b, gpa_b, 1).v;
}

/* Pages that tests write: borders of tables, and some between. */
static const unsigned written[] = {0, 1, 200, 511, 512, 1000, 1023, 1024, 1500, 2047, 4095};

#define WRITTEN (sizeof(written) / sizeof(*written))

static bool is_written(unsigned page)
{
	for (unsigned i = 0; i < WRITTEN; i++)
		if (written[i] == page)
			return true;
	return false;
}

static void write_some(struct guest *guest)
{
	for (unsigned i = 0; i < WRITTEN; i++)
		guest_must_write(guest, AT + written[i] * KIB4, 0x1000 + written[i]);
}

/* Where page @page of the file is to be found, having gone or not. */
static void must_show(struct guest *guest, uint64_t gpa, uint32_t file, unsigned page, bool own)
{
	guest_must_read(guest, gpa,
			own && is_written(page) ? 0x1000 + page : world_stamp(file, page, 0));
	guest_must_read(guest, gpa + 8, world_stamp(file, page, 1));
}

static const struct {
	const char *what;
	unsigned first, count; /* pages of the region */
	uint64_t to;
} moves[] = {
	{"one page, to the same table's end", 200, 1, FAR + 511 * KIB4},
	{"one page", 1, 1, FAR},
	{"a whole table, aligned", 512, 512, FAR + 3 * MIB2},
	{"a whole table, by half of one", 512, 512, FAR + MIB2 / 2},
	{"a whole table, by a page", 512, 512, FAR + KIB4},
	{"parts of two tables", 300, 512, FAR + 300 * KIB4},
	{"parts of two tables to one", 300, 512, FAR},
	{"parts of four tables, unaligned", 500, 1100, FAR + 77 * KIB4},
	{"across 1 GiB", 0, 1024, FAR + GIB1 - MIB2},
	{"across 512 GiB, unaligned", 1000, 1100, GIB512 - 33 * KIB4},
	{"all, aligned", 0, PAGES, FAR},
	{"all, by a page", 0, PAGES, FAR + KIB4},
	{"right behind", 0, 600, AT + BYTES},
	{"right before", 100, 1100, AT - 1100 * KIB4},
};

static bool moved(unsigned i, unsigned page)
{
	return page >= moves[i].first && page < moves[i].first + moves[i].count;
}

static uint64_t place(unsigned i, unsigned page)
{
	return moved(i, page) ? moves[i].to + (page - moves[i].first) * KIB4 : AT + page * KIB4;
}

static void look(struct guest *guest, uint32_t file, unsigned i)
{
	uint64_t value;

	for (unsigned page = 0; page < PAGES;
	     page += page % 64 == 63 || is_written(page) ? 1 : 21) {
		must_show(guest, place(i, page), file, page, true);
		if (moved(i, page))
			assert_int_equal(guest_read(guest, AT + page * KIB4, &value), EPT_OUTSIDE);
	}
	for (unsigned n = 0; n < WRITTEN; n++)
		must_show(guest, place(i, written[n]), file, written[n], true);
}

static void must_be_moved(struct guest *guest, uint32_t file, unsigned i)
{
	struct ept_usage before, after;

	ept_usage(guest->world->ept, &before);
	if (guest_move(guest, AT + moves[i].first * KIB4, moves[i].count * KIB4, moves[i].to) !=
	    EPT_OK)
		port_fail(guest->world, "not moved: %s", moves[i].what);
	ept_usage(guest->world->ept, &after);
	/* Private pages go along: none is copied, none is lost. */
	assert_int_equal(before.pages, after.pages);
	look(guest, file, i);
}

static void F9_F17_a_range_moves_with_its_private_pages(void **state)
{
	for (unsigned i = 0; i < sizeof(moves) / sizeof(*moves); i++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		struct guest *a = guest_with(world, file);
		uint64_t copied;

		write_some(a);
		for (unsigned page = 0; page < PAGES; page += 100)
			must_show(a, AT + page * KIB4, file, page, true);
		copied = counters_of(world).pages_copied;
		must_be_moved(a, file, i);
		assert_int_equal(counters_of(world).pages_copied, copied);
		/* They are the guest's to write as before. */
		for (unsigned n = 0; n < WRITTEN; n++)
			guest_must_write(a, place(i, written[n]), 0x1000 + written[n]);
		assert_int_equal(counters_of(world).pages_copied, copied);
		look(a, file, i);
		world_destroy(world);
	}
}

/* Sharers of tables and pages see nothing of it. */
static void F17_a_move_leaves_what_is_shared_to_others(void **state)
{
	for (unsigned i = 0; i < sizeof(moves) / sizeof(*moves); i++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		struct guest *a = guest_with(world, file);
		struct guest *b, *c;

		write_some(a);
		b = guest_must_clone(a);
		c = guest_with(world, file);
		must_show(c, AT, file, 0, false);
		must_be_moved(a, file, i);
		for (unsigned page = 0; page < PAGES; page += 50) {
			must_show(b, AT + page * KIB4, file, page, true);
			must_show(c, AT + page * KIB4, file, page, false);
		}
		for (unsigned n = 0; n < WRITTEN; n++)
			guest_must_write(b, AT + written[n] * KIB4, 5);
		look(a, file, i);
		world_destroy(world);
	}
}

/* A table that nobody wrote to is shared again where alignment allows. */
static void T1_what_moved_by_whole_tables_is_shared_again(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, file);
	struct guest *b = guest_with(world, file);
	uint64_t filled;

	for (unsigned table = 0; table < 4; table++) {
		must_show(a, AT + table * MIB2, file, table * EPT_ENTRIES, false);
		must_show(b, AT + table * MIB2, file, table * EPT_ENTRIES, false);
	}
	assert_int_equal(guest_move(a, AT, 3 * MIB2, FAR), EPT_OK);
	/* Whole tables are let go by one entry each. */
	assert_int_equal(a->last.gate_edits, 3);
	must_show(a, FAR, file, 0, false);
	filled = counters_of(world).tables_filled;
	must_show(a, FAR + MIB2, file, EPT_ENTRIES, false);
	must_show(a, FAR + 2 * MIB2, file, 2 * EPT_ENTRIES, false);
	assert_int_equal(counters_of(world).tables_filled, filled);
	for (unsigned table = 0; table < 3; table++)
		assert_true(same_table(a, FAR + table * MIB2, b, AT + table * MIB2));
	assert_true(same_table(a, AT + 3 * MIB2, b, AT + 3 * MIB2));
	world_destroy(world);
}

/* Several regions with their files, rights and modes, those at the ends in part. */
static void F9_regions_move_as_they_are(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	uint32_t through = world_file(world, PAGES, true);
	struct guest *a = guest_create(world, 0, true);
	struct ept_region region = region_of(AT + 100 * KIB4, 100 * KIB4, through, 7, RW);
	struct ept_region found;

	guest_must_map(a, AT, 100 * KIB4, file, 3, RX);
	region.mode = EPT_SHARED;
	assert_int_equal(guest_map(a, &region), EPT_OK);
	guest_must_map(a, AT + 200 * KIB4, 100 * KIB4, file, 1000, RWX);
	guest_must_write(a, AT + 150 * KIB4, 1);
	guest_must_write(a, AT + 210 * KIB4, 2);
	guest_must_write(a, AT + 260 * KIB4, 3);
	assert_int_equal(guest_move(a, AT + 50 * KIB4, 200 * KIB4, FAR + 5 * KIB4), EPT_OK);
	assert_true(ept_space_region(a->space, (struct gpa){AT}, &found));
	assert_int_equal(found.bytes, 50 * KIB4);
	assert_false(ept_space_region(a->space, (struct gpa){AT + 50 * KIB4}, &found));
	assert_false(ept_space_region(a->space, (struct gpa){AT + 249 * KIB4}, &found));
	assert_true(ept_space_region(a->space, (struct gpa){AT + 250 * KIB4}, &found));
	assert_int_equal(found.start.v, AT + 250 * KIB4);
	assert_int_equal(found.bytes, 50 * KIB4);
	assert_int_equal(found.first.page, 1050);
	assert_true(ept_space_region(a->space, (struct gpa){FAR + 5 * KIB4}, &found));
	assert_int_equal(found.bytes, 50 * KIB4);
	assert_int_equal(found.first.page, 53);
	assert_int_equal(found.rights, RX);
	assert_true(ept_space_region(a->space, (struct gpa){FAR + 105 * KIB4}, &found));
	assert_int_equal(found.start.v, FAR + 55 * KIB4);
	assert_int_equal(found.first.file, through);
	assert_int_equal(found.mode, EPT_SHARED);
	assert_int_equal(guest_write(a, FAR + 5 * KIB4, 1), EPT_DENIED);
	guest_must_read(a, FAR + 105 * KIB4, 1);
	guest_must_write(a, FAR + 105 * KIB4, 4);
	assert_int_equal(world_peek(world, world_file_page(world, through, 57), 0), 4);
	guest_must_read(a, FAR + 165 * KIB4, 2);
	guest_must_read(a, AT + 260 * KIB4, 3);
	world_destroy(world);
}

static void F9_moves_that_are_refused(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, file);
	struct guest *frozen;
	const struct {
		const char *what;
		uint64_t from, bytes, to;
		enum ept_status status;
	} refused[] = {
		{"nothing", AT, 0, FAR, EPT_INVALID},
		{"a part of a page", AT, KIB4 / 2, FAR, EPT_INVALID},
		{"from within a page", AT + 1, KIB4, FAR, EPT_INVALID},
		{"to within a page", AT, KIB4, FAR + 1, EPT_INVALID},
		{"to the gate's span", AT, KIB4, PORT_GATE_INDEX * GIB512, EPT_INVALID},
		{"into the gate's span", AT, 2 * KIB4, PORT_GATE_INDEX * GIB512 - KIB4,
		 EPT_INVALID},
		{"beyond the end", AT, 2 * KIB4, EPT_GPA_END - KIB4, EPT_INVALID},
		{"what is not there", FAR, KIB4, 2 * FAR, EPT_OVERLAP},
		{"more than there is", AT + BYTES - KIB4, 2 * KIB4, FAR, EPT_OVERLAP},
		{"to where something is", AT, KIB4, AT + MIB2, EPT_OVERLAP},
		{"to itself", AT, MIB2, AT, EPT_OVERLAP},
		{"to what it overlaps", AT, BYTES, AT + KIB4, EPT_OVERLAP},
		{"to what ends within", AT, MIB2, AT - KIB4, EPT_OVERLAP},
	};

	write_some(a);
	for (unsigned i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		if (guest_move(a, refused[i].from, refused[i].bytes, refused[i].to) !=
		    refused[i].status)
			port_fail(world, "not refused: %s", refused[i].what);
		must_show(a, AT, file, 0, true);
	}
	assert_int_equal(guest_snapshot(a, &frozen), EPT_OK);
	assert_int_equal(guest_move(frozen, AT, KIB4, FAR), EPT_FROZEN);
	world_destroy(world);
}

/* There and back, again and again, with clones in between. */
static void F17_a_range_moves_to_and_fro(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, file);
	struct guest *clones[6];

	write_some(a);
	for (unsigned i = 0; i < 6; i++) {
		uint64_t there = FAR + i * 77 * KIB4;

		clones[i] = guest_must_clone(a);
		assert_int_equal(guest_move(a, AT + 100 * KIB4, 3 * MIB2, there), EPT_OK);
		must_show(a, there + 100 * KIB4, file, 200, true);
		must_show(a, there + 1400 * KIB4, file, 1500, true);
		assert_int_equal(guest_move(a, there, 3 * MIB2, AT + 100 * KIB4), EPT_OK);
		for (unsigned n = 0; n < WRITTEN; n++)
			must_show(a, AT + written[n] * KIB4, file, written[n], true);
	}
	for (unsigned i = 0; i < 6; i++)
		for (unsigned n = 0; n < WRITTEN; n++)
			must_show(clones[i], AT + written[n] * KIB4, file, written[n], true);
	world_destroy(world);
}

/* ---- snapshots ---- */

static struct guest *must_snapshot(struct guest *guest)
{
	struct guest *frozen;

	assert_int_equal(guest_snapshot(guest, &frozen), EPT_OK);
	return frozen;
}

static void B2_a_snapshot_is_what_the_guest_was_at_that_moment(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, file);
	struct ept_counters before;
	struct guest *frozen, *clone;

	write_some(a);
	before = counters_of(world);
	frozen = must_snapshot(a);
	/* At most as many edits as a root has entries; here there is one. */
	assert_true(a->last.gate_edits <= EPT_ENTRIES);
	assert_int_equal(a->last.gate_edits, 1);
	assert_int_equal(a->last.copies, 0);
	assert_int_equal(counters_of(world).tables_copied, before.tables_copied);
	assert_int_equal(guest_write(frozen, AT, 1), EPT_FROZEN);
	assert_int_equal(guest_unmap(frozen, AT, KIB4), EPT_FROZEN);
	/* The guest goes on. */
	guest_must_write(a, AT, 7);
	guest_must_write(a, AT + 2 * KIB4, 7);
	assert_int_equal(guest_unmap(a, AT + 3 * MIB2, MIB2), EPT_OK);
	guest_must_map(a, FAR, KIB4, file, 9, RWX);
	clone = guest_must_clone(frozen);
	for (unsigned page = 0; page < PAGES; page += 50)
		must_show(clone, AT + page * KIB4, file, page, true);
	assert_int_equal(guest_write(clone, FAR, 1), EPT_OUTSIDE);
	guest_must_write(clone, AT, 8);
	guest_must_read(a, AT, 7);
	must_show(frozen, AT, file, 0, true);
	/* And goes back to it. */
	assert_int_equal(guest_reset(a), EPT_OK);
	for (unsigned page = 0; page < PAGES; page += 50)
		must_show(a, AT + page * KIB4, file, page, true);
	assert_int_equal(guest_write(a, FAR, 1), EPT_OUTSIDE);
	guest_must_read(clone, AT, 8);
	world_destroy(world);
}

/* All entries of the root in use: one edit for each, whatever is below. */
static void B2_a_snapshot_costs_an_edit_for_each_entry_of_the_root(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world;
	struct guest *a;
	uint32_t file;

	options.tables = 256;
	world = world_create(&options);
	file = world_file(world, PAGES, false);
	a = guest_create(world, 0, true);
	world->check_every = 0;
	for (unsigned i = 0; i < 50; i++) {
		guest_must_map(a, i * GIB512, MIB2, file, 0, RWX);
		guest_must_write(a, i * GIB512, i);
	}
	world->check_every = 1;
	must_snapshot(a);
	assert_int_equal(a->last.gate_edits, 50);
	assert_int_equal(a->last.invalidations, 1);
	/* Nothing was written since. */
	must_snapshot(a);
	assert_int_equal(a->last.gate_edits, 0);
	world_destroy(world);
}

static void B2_snapshots_of_snapshots(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, file);
	struct guest *frozen[5];

	for (unsigned i = 0; i < 5; i++) {
		guest_must_write(a, AT, i);
		guest_must_write(a, AT + (i + 1) * KIB4, i);
		frozen[i] = must_snapshot(a);
	}
	assert_int_equal(guest_snapshot(frozen[2], &frozen[0]), EPT_FROZEN);
	world_destroy(world);
}

/* Each goes back to the last one; the ends of spaces may come in any order. */
static void B2_the_ends_come_in_any_order(void **state)
{
	/* Which of: the three snapshots, the guest, a clone of the middle one. */
	static const unsigned orders[][5] = {
		{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {3, 0, 1, 2, 4}, {1, 4, 0, 3, 2}, {2, 3, 4, 1, 0},
	};

	for (unsigned o = 0; o < sizeof(orders) / sizeof(*orders); o++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		struct guest *guests[5];

		guests[3] = guest_with(world, file);
		for (unsigned i = 0; i < 3; i++) {
			guest_must_write(guests[3], AT, i);
			guests[i] = must_snapshot(guests[3]);
		}
		guests[4] = guest_must_clone(guests[1]);
		guest_must_write(guests[4], AT + KIB4, 9);
		guest_must_write(guests[3], AT, 3);
		for (unsigned n = 0; n < 5; n++) {
			unsigned gone = orders[o][n];

			guest_destroy(guests[gone]);
			guests[gone] = NULL;
			for (unsigned i = 0; i < 4; i++)
				if (guests[i])
					guest_must_read(guests[i], AT, i);
			if (guests[4])
				guest_must_read(guests[4], AT, 1);
			if (guests[3]) {
				assert_int_equal(guest_reset(guests[3]), EPT_OK);
				guest_must_read(guests[3], AT, 2);
				guest_must_write(guests[3], AT, 3);
			}
			if (guests[4]) {
				guest_must_write(guests[4], AT + 2 * KIB4, 9);
				assert_int_equal(guest_reset(guests[4]), EPT_OK);
				guest_must_read(guests[4], AT + KIB4, world_stamp(file, 1, 0));
			}
		}
		world_destroy(world);
	}
}

/* A clone of a clone of a clone, each of which wrote something and was frozen as it ran. */
static void B2_clones_of_clones_of_snapshots(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *guests[4], *frozen[3];

	guests[0] = guest_with(world, file);
	for (unsigned i = 0; i < 3; i++) {
		guest_must_write(guests[i], AT, 10 + i);
		guest_must_write(guests[i], AT + (i + 1) * MIB2, 20 + i);
		frozen[i] = must_snapshot(guests[i]);
		guests[i + 1] = guest_must_clone(frozen[i]);
		guest_must_write(guests[i], AT, 99);
	}
	guest_must_read(guests[3], AT, 12);
	for (unsigned i = 0; i < 3; i++)
		guest_must_read(guests[3], AT + (i + 1) * MIB2, 20 + i);
	guest_must_read(guests[2], AT + 2 * MIB2, 21);
	guest_must_read(guests[1], AT + 2 * MIB2, 21);
	guest_must_read(guests[0], AT + 2 * MIB2, world_stamp(file, 2 * EPT_ENTRIES, 0));
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(guest_reset(guests[i]), EPT_OK);
		guest_must_read(guests[i], AT, 10 + i);
		guest_must_read(frozen[i], AT, 10 + i);
	}
	world_destroy(world);
}

static void B2_snapshots_that_are_refused(void **state)
{
	struct world *world = world_of(state);
	struct guest *alone = guest_create(world, 0, false);
	struct guest *a = guest_create(world, 0, true);
	struct guest *frozen;

	assert_int_equal(guest_snapshot(alone, &frozen), EPT_INVALID);
	assert_int_equal(guest_freeze(a), EPT_OK);
	assert_int_equal(guest_snapshot(a, &frozen), EPT_FROZEN);
	assert_int_equal(guest_reset(a), EPT_NO_PARENT);
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(F9_F17_a_range_moves_with_its_private_pages),
		EACH_FORMAT(F17_a_move_leaves_what_is_shared_to_others),
		EACH_FORMAT(T1_what_moved_by_whole_tables_is_shared_again),
		EACH_FORMAT(F9_regions_move_as_they_are),
		EACH_FORMAT(F9_moves_that_are_refused),
		EACH_FORMAT(F17_a_range_moves_to_and_fro),
		EACH_FORMAT(B2_a_snapshot_is_what_the_guest_was_at_that_moment),
		EACH_FORMAT(B2_a_snapshot_costs_an_edit_for_each_entry_of_the_root),
		EACH_FORMAT(B2_snapshots_of_snapshots),
		EACH_FORMAT(B2_the_ends_come_in_any_order),
		EACH_FORMAT(B2_clones_of_clones_of_snapshots),
		EACH_FORMAT(B2_snapshots_that_are_refused),
	};

	return cmocka_run_group_tests_name("ept.range", tests, NULL, NULL);
}
