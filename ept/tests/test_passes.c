// SPDX-License-Identifier: MIT
/* Mistakes that passes over a file, moves of ranges and snapshots could make; each of them was made
 * once. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ept_internal.h"
#include "ept/trace.h"
#include "failing_alloc.h"
#include "meanwhile.h"
#include "port.h"

#define AT    (UINT64_C(4) * GIB1)
#define FAR   (GIB512 * 7 + GIB1 * 3)
#define PAGES (4 * EPT_ENTRIES)
#define BYTES (PAGES * KIB4)
#define PAGE  37
#define OTHER (PAGE + 2 * EPT_ENTRIES)

static struct world *world_of(void **state)
{
	struct world_options options = world_defaults(*state);

	return world_create(&options);
}

static struct guest *guest_with(struct world *world, uint32_t file, enum ept_mode mode, bool large)
{
	struct guest *guest = guest_create(world, 0, true);
	struct ept_region region = region_of(AT, BYTES, file, 0, RW);

	region.mode = mode;
	region.large = large;
	assert_int_equal(guest_map(guest, &region), EPT_OK);
	return guest;
}

/*
 * The leaf of the first guest is its alone again, and tainted: its entry grants write, no path
 * does. Moved as it is to a table whose path does, it would let the guest write to the clone's
 * page.
 */
static void S2_a_page_that_moves_does_not_bring_a_right_along(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, file, EPT_PRIVATE, false);
	struct guest *b;

	guest_must_write(a, AT, 1);
	b = guest_must_clone(a);
	guest_must_write(b, AT + KIB4, 2);
	assert_int_equal(guest_move(a, AT, KIB4, FAR), EPT_OK);
	guest_must_write(a, FAR, 3);
	guest_must_read(b, AT, 1);
	world_destroy(world);
}

/* A second watch of a page that cannot be done does not end the first. */
static void S10_a_watch_that_fails_leaves_others_alone(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, true);
	struct guest *a = guest_with(world, file, EPT_SHARED, false);
	struct file_page page = {file, PAGE};
	struct ept_change change = {0};
	struct tally tally;

	guest_must_write(a, AT + PAGE * KIB4, 1);
	assert_int_equal(world_watch(world, page, 1, &tally), EPT_OK);
	failing_alloc_arm(1);
	assert_int_equal(ept_file_watch(world->ept, page, 1, &change), EPT_NO_MEMORY);
	failing_alloc_disarm();
	ept_change_free(&change);
	assert_true(ept_file_watched(world->ept, page));
	assert_int_equal(guest_write(a, AT + PAGE * KIB4, 2), EPT_WATCHED);
	world_destroy(world);
}

static void S10_a_watch_that_is_cancelled_leaves_others_alone(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, true);
	struct guest *a = guest_with(world, file, EPT_SHARED, false);
	struct file_page page = {file, PAGE};
	struct ept_change change = {0};
	struct tally tally;

	guest_must_write(a, AT + PAGE * KIB4, 1);
	assert_int_equal(world_watch(world, page, 1, &tally), EPT_OK);
	assert_int_equal(ept_file_watch(world->ept, page, 5, &change), EPT_OK);
	ept_change_cancel(&change);
	ept_change_free(&change);
	assert_true(ept_file_watched(world->ept, page));
	page.page++;
	assert_false(ept_file_watched(world->ept, page));
	world_check(world);
	world_destroy(world);
}

/* Nothing is special about 2 MiB of which no page was moved in the end: entries of 2 MiB are right.
 */
static void S10_a_move_that_fails_leaves_2_mib_entries(void **state)
{
	for (unsigned k = 0; k < 12; k++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		uint32_t spare = world_spare_file(world, 4);
		struct guest *a = guest_with(world, file, EPT_PRIVATE, true);
		struct ept_change change = {0};
		enum ept_status status;

		guest_must_read(a, AT + PAGE * KIB4, world_stamp(file, PAGE, 0));
		if (k)
			failing_alloc_arm(k);
		status = ept_file_move(world->ept, (struct file_page){file, PAGE},
				       (struct file_page){spare, 0}, &change);
		failing_alloc_disarm();
		if (status == EPT_OK)
			ept_change_cancel(&change);
		ept_change_free(&change);
		world_check(world);
		guest_must_read(a, AT + PAGE * KIB4, world_stamp(file, PAGE, 0));
		world_destroy(world);
	}
}

static void S10_a_watch_that_fails_leaves_2_mib_entries(void **state)
{
	for (unsigned k = 0; k < 12; k++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, true);
		struct guest *a = guest_with(world, file, EPT_SHARED, true);
		struct ept_change change = {0};
		enum ept_status status;

		guest_must_write(a, AT + PAGE * KIB4, 1);
		if (k)
			failing_alloc_arm(k);
		status = ept_file_watch(world->ept, (struct file_page){file, PAGE}, EPT_ENTRIES,
					&change);
		failing_alloc_disarm();
		if (status == EPT_OK)
			ept_change_cancel(&change);
		ept_change_free(&change);
		world_check(world);
		guest_must_write(a, AT + PAGE * KIB4, 2);
		world_destroy(world);
	}
}

/* What is no longer watched can be mapped by 2 MiB again. */
static void F26_after_a_watch_2_mib_entries_come_back(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, true);
	struct file_page page = {file, PAGE};
	struct tally tally;
	struct guest *a;
	uint64_t entry;

	assert_int_equal(world_watch(world, page, 1, &tally), EPT_OK);
	ept_file_unwatch(world->ept, page, 1);
	a = guest_with(world, file, EPT_SHARED, true);
	guest_must_write(a, AT, 1);
	entry = guest_entry(a, AT, 2);
	assert_true(ept_entry_present(entry) && ept_entry_is_leaf(*state, 2, entry));
	world_destroy(world);
}

/* A page that moves was not accessed by that. */
static void F27_a_page_that_moves_was_not_accessed(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	uint32_t spare = world_spare_file(world, 4);
	struct guest *a = guest_with(world, file, EPT_PRIVATE, false);
	uint64_t accessed[PAGES / 64] = {0};
	struct file_page first = {file, 0};
	struct tally tally;

	guest_must_read(a, AT, world_stamp(file, 0, 0));
	assert_int_equal(world_harvest(world, first, EPT_ENTRIES, accessed, &tally), EPT_OK);
	assert_int_equal(world_move_page(world, (struct file_page){file, PAGE},
					 (struct file_page){spare, 0}, &tally),
			 EPT_OK);
	memset(accessed, 0, sizeof(accessed));
	assert_int_equal(world_harvest(world, first, EPT_ENTRIES, accessed, &tally), EPT_OK);
	assert_int_equal(accessed[0], 0);
	world_destroy(world);
}

/* "A root was shared by cloning, or by going back to a parent." */
static void F12_going_back_is_an_event(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, file, EPT_PRIVATE, false);
	struct ept_counters before, after;
	struct guest *b;

	guest_must_write(a, AT, 1);
	assert_int_equal(guest_freeze(a), EPT_OK);
	b = guest_must_clone(a);
	guest_must_write(b, AT, 2);
	ept_counters(world->ept, &before);
	assert_int_equal(guest_reset(b), EPT_OK);
	ept_counters(world->ept, &after);
	assert_int_equal(after.tables_cloned, before.tables_cloned + 1);
	world_destroy(world);
}

/*
 * leaf.c, fill_plain(): a table that shows parts of two times 2 MiB of a file, of which only the
 * second has a page that lies elsewhere.
 */
static void F27_a_table_across_2_mib_of_the_file(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	uint32_t spare = world_spare_file(world, 4);
	const struct file_page page = {file, EPT_ENTRIES + PAGE};
	struct guest *a = guest_create(world, 0, true);
	struct tally tally;

	assert_int_equal(world_move_page(world, page, (struct file_page){spare, 0}, &tally),
			 EPT_OK);
	guest_must_map(a, AT, MIB2, file, EPT_ENTRIES / 2, RW);
	guest_must_read(a, AT, world_stamp(file, EPT_ENTRIES / 2, 0));
	guest_must_read(a, AT + MIB2 / 2 + PAGE * KIB4, world_stamp(file, page.page, 0));
	assert_int_equal(ept_entry_target(*state, guest_entry(a, AT + MIB2 / 2 + PAGE * KIB4, 1)).v,
			 world_file_page(world, file, page.page).v);
	assert_int_equal(guest_table(a, AT, 1).v, guest_table(a, AT + MIB2 - KIB4, 1).v);
	world_destroy(world);
}

/* ---- what happens at the same time ---- */

struct mover {
	struct world *world;
	uint32_t file;
	uint32_t spare;
};

/* The page goes home, and another one takes the place that it left. */
static void *move_home_and_reuse(void *argument)
{
	struct mover *mover = argument;
	struct tally tally;

	world_move_page(mover->world, (struct file_page){mover->file, PAGE},
			(struct file_page){mover->file, PAGE}, &tally);
	world_move_page(mover->world, (struct file_page){mover->file, OTHER},
			(struct file_page){mover->spare, 0}, &tally);
	return NULL;
}

/*
 * A guest writes to a page that lies elsewhere, and copies it from there, as it is to lie in
 * another place: the copy must be over before the place is used otherwise. @with: what it has to do
 * besides.
 */
enum copied { FROM_INDEX, FROM_CLONE, NOTHING_THERE };

static void copy_while_it_moves(const void *format, enum copied with)
{
	struct world_options options = world_defaults(format);
	struct world *world = world_create(&options);
	struct mover mover = {world, world_file(world, PAGES, false), world_spare_file(world, 4)};
	struct guest *a = guest_with(world, mover.file, EPT_PRIVATE, false);
	struct guest *b = NULL;
	struct ept_change change = {0};
	pthread_t thread;
	struct tally tally;

	assert_int_equal(world_move_page(world, (struct file_page){mover.file, PAGE},
					 (struct file_page){mover.spare, 0}, &tally),
			 EPT_OK);
	if (with != NOTHING_THERE)
		guest_must_read(a, AT, world_stamp(mover.file, 0, 0));
	if (with == FROM_INDEX) {
		b = guest_with(world, mover.file, EPT_PRIVATE, false);
		guest_must_read(b, AT, world_stamp(mover.file, 0, 0));
	}
	if (with == FROM_CLONE)
		b = guest_must_clone(a);
	world->check_every = 0;
	assert_int_equal(
		ept_space_fault(a->space, (struct gpa){AT + PAGE * KIB4}, EPT_WRITE, &change),
		EPT_OK);
	assert_int_equal(pthread_create(&thread, NULL, move_home_and_reuse, &mover), 0);
	/* Long enough for who does not wait. */
	usleep(20000);
	assert_int_equal(world_run(world, &change, EPT_OK, &tally), EPT_OK);
	assert_int_equal(pthread_join(thread, NULL), 0);
	world->check_every = 1;
	world_check(world);
	guest_must_read(a, AT + PAGE * KIB4, world_stamp(mover.file, PAGE, 0));
	if (b)
		guest_must_read(b, AT + PAGE * KIB4, world_stamp(mover.file, PAGE, 0));
	world_destroy(world);
}

static void S5_a_page_of_a_table_from_the_index_is_copied_as_it_moves(void **state)
{
	copy_while_it_moves(*state, FROM_INDEX);
}

static void S5_a_page_of_a_clones_table_is_copied_as_it_moves(void **state)
{
	copy_while_it_moves(*state, FROM_CLONE);
}

static void S5_a_page_of_a_new_table_is_copied_as_it_moves(void **state)
{
	copy_while_it_moves(*state, NOTHING_THERE);
}

/* ---- more entries than tables ---- */

#define TIMES 40

/* A world with fewer tables than entries that map PAGE: one table does so TIMES times. */
static struct guest *guest_that_maps_it_often(const void *format, uint32_t *file, uint32_t *spare)
{
	struct world_options options = world_defaults(format);
	struct guest *guest;
	struct world *world;

	options.tables = 16;
	world = world_create(&options);
	*file = world_file(world, PAGES, false);
	*spare = world_spare_file(world, 4);
	guest = guest_create(world, 0, true);
	for (unsigned i = 0; i < TIMES; i++) {
		guest_must_map(guest, AT + i * KIB4, KIB4, *file, PAGE, RX);
		guest_must_read(guest, AT + i * KIB4, world_stamp(*file, PAGE, 0));
	}
	return guest;
}

/* How many of the entries are present, and all that are show the page. */
static unsigned count_entries(struct guest *guest, uint32_t file)
{
	unsigned count = 0;

	for (unsigned i = 0; i < TIMES; i++) {
		if (!ept_entry_present(guest_entry(guest, AT + i * KIB4, 1)))
			continue;
		guest_must_read(guest, AT + i * KIB4, world_stamp(file, PAGE, 0));
		count++;
	}
	return count;
}

/* What a pass has begun it can go on with: no allocation fails, because there is none. */
static enum ept_status run_without_memory(struct world *world, struct ept_change *change,
					  struct tally *tally)
{
	enum ept_status status;

	do {
		world_commit(world, change, tally);
		failing_alloc_arm(1);
		status = ept_change_finish(change);
		assert_false(failing_alloc_disarm());
	} while (status == EPT_MORE);
	ept_change_free(change);
	world_check(world);
	return status;
}

static void S10_a_reclaim_of_more_entries_than_tables(void **state)
{
	enum ept_status status = EPT_NO_MEMORY;
	uint32_t file, spare;
	struct guest *a = guest_that_maps_it_often(*state, &file, &spare);
	struct ept_change change = {0};
	struct tally tally = {0};

	for (unsigned k = 1; status != EPT_OK; k++) {
		/* One for each of what it reserves. */
		assert_in_range(k, 1, 4);
		assert_int_equal(count_entries(a, file), TIMES);
		failing_alloc_arm(k);
		status =
			ept_file_reclaim(a->world->ept, (struct file_page){file, PAGE}, 1, &change);
		assert_int_equal(failing_alloc_disarm(), status == EPT_NO_MEMORY);
		if (status != EPT_OK) {
			assert_true(ept_change_is_empty(&change));
			ept_change_free(&change);
			world_check(a->world);
		}
	}
	assert_int_equal(run_without_memory(a->world, &change, &tally), EPT_OK);
	assert_int_equal(tally.gate_edits, TIMES);
	assert_int_equal(count_entries(a, file), 0);
	guest_must_read(a, AT, world_stamp(file, PAGE, 0));
	world_destroy(a->world);
}

/* The page is where it goes before its entries are looked for: from there on all must go well. */
static void S10_a_move_of_more_entries_than_tables(void **state)
{
	uint32_t file, spare;
	struct guest *a = guest_that_maps_it_often(*state, &file, &spare);
	struct world *world = a->world;
	struct file_page page = {file, PAGE};
	struct guest *b;

	b = guest_with(world, file, EPT_PRIVATE, false);
	guest_must_read(b, AT, world_stamp(file, 0, 0));
	/* To a spare page, to another, and home. */
	for (unsigned i = 0; i < 3; i++) {
		struct file_page to = i < 2 ? (struct file_page){spare, i} : page;
		struct ept_change change = {0};
		struct tally tally = {0};

		assert_int_equal(ept_file_move(world->ept, page, to, &change), EPT_OK);
		assert_int_equal(run_without_memory(world, &change, &tally), EPT_OK);
		assert_int_equal(tally.gate_edits, TIMES + 1);
		assert_int_equal(count_entries(a, file), TIMES);
		for (unsigned other = 0; other < 2; other++)
			assert_int_equal(
				ept_file_place_free(world->ept, (struct file_page){spare, other}),
				i != other);
		guest_must_read(b, AT + PAGE * KIB4 + 8, world_stamp(file, PAGE, 1));
	}
	world_destroy(world);
}

/* Whichever of the entries it is that was accessed. */
static void F27_a_harvest_of_more_entries_than_tables(void **state)
{
	uint32_t file, spare;
	struct guest *a = guest_that_maps_it_often(*state, &file, &spare);
	uint64_t accessed = 0;
	struct tally tally;

	for (unsigned i = 0; i < TIMES; i++) {
		struct file_page page = {file, PAGE};

		assert_int_equal(world_harvest(a->world, page, 1, &accessed, &tally), EPT_OK);
		accessed = 0;
		assert_int_equal(world_harvest(a->world, page, 1, &accessed, &tally), EPT_OK);
		assert_int_equal(accessed, 0);
		guest_must_read(a, AT + i * KIB4, world_stamp(file, PAGE, 0));
		assert_int_equal(world_harvest(a->world, page, 1, &accessed, &tally), EPT_OK);
		assert_int_equal(accessed, 1);
	}
	world_destroy(a->world);
}

/* ---- what happens between a fault's first look and its last ---- */

struct beside {
	struct world *world;
	struct file_page page;
	struct guest *guest;
};

static void watch_beside(void *context)
{
	struct beside *beside = context;
	struct tally tally;

	assert_int_equal(world_watch(beside->world, beside->page, 1, &tally), EPT_OK);
}

static void reclaim_beside(void *context)
{
	struct beside *beside = context;
	struct tally tally;

	assert_int_equal(world_reclaim(beside->world, beside->page, 1, &tally), EPT_OK);
}

static struct ept_table *leaf_table_of(struct guest *guest)
{
	return ept_table_of(guest->world->ept, guest_table(guest, AT, 1));
}

static void unmap_beside(void *context)
{
	struct beside *beside = context;

	assert_int_equal(guest_unmap(beside->guest, FAR, KIB4), EPT_OK);
}

/*
 * An entry goes that the pass has been told of, so that all that it has not been told of yet have
 * other numbers: none of them is left out.
 */
static void F27_a_harvest_of_more_entries_than_tables_while_one_goes(void **state)
{
	uint32_t file, spare;
	struct guest *a = guest_that_maps_it_often(*state, &file, &spare);
	struct beside beside = {a->world, {file, PAGE}, guest_create(a->world, 0, true)};
	struct world *world = a->world;

	for (unsigned i = 0; i < TIMES; i++) {
		uint64_t accessed = 0;
		struct tally tally;

		guest_must_map(beside.guest, FAR, KIB4, file, PAGE, RX);
		guest_must_read(beside.guest, FAR, world_stamp(file, PAGE, 0));
		assert_int_equal(world_harvest(world, beside.page, 1, &accessed, &tally), EPT_OK);
		accessed = 0;
		guest_must_read(a, AT + i * KIB4, world_stamp(file, PAGE, 0));
		world->check_every = 0;
		meanwhile(BEFORE_LOCK, &leaf_table_of(a)->lock, 1, unmap_beside, &beside);
		assert_int_equal(world_harvest(world, beside.page, 1, &accessed, &tally), EPT_OK);
		assert_true(meanwhile_happened());
		world->check_every = 1;
		world_check(world);
		assert_int_equal(accessed, 1);
	}
	world_destroy(world);
}

/* A guest that may write to PAGE, whose entry has lost the right to a watch that is over. */
static struct guest *guest_after_a_watch(struct world *world, struct file_page page)
{
	struct guest *guest = guest_with(world, page.file, EPT_SHARED, false);
	struct tally tally;

	guest_must_write(guest, AT + PAGE * KIB4, 1);
	assert_int_equal(world_watch(world, page, 1, &tally), EPT_OK);
	ept_file_unwatch(world->ept, page, 1);
	return guest;
}

/* The page is watched when the fault has seen that it is not, and is about to lock its table. */
static void F29_a_page_that_becomes_watched_during_a_fault(void **state)
{
	struct world *world = world_of(state);
	struct beside beside = {world, {world_file(world, PAGES, true), PAGE}, NULL};
	struct guest *a = guest_after_a_watch(world, beside.page);

	world->check_every = 0;
	meanwhile(BEFORE_LOCK, &leaf_table_of(a)->lock, 1, watch_beside, &beside);
	assert_int_equal(guest_write(a, AT + PAGE * KIB4, 2), EPT_WATCHED);
	assert_true(meanwhile_happened());
	world->check_every = 1;
	world_check(world);
	guest_must_read(a, AT + PAGE * KIB4, 1);
	ept_file_unwatch(world->ept, beside.page, 1);
	guest_must_write(a, AT + PAGE * KIB4, 3);
	world_destroy(world);
}

/* The same with an entry that goes: it does not come back by the fault that was to change it. */
static void F27_a_page_that_is_reclaimed_during_a_fault(void **state)
{
	struct world *world = world_of(state);
	struct beside beside = {world, {world_file(world, PAGES, true), PAGE}, NULL};
	struct guest *a = guest_after_a_watch(world, beside.page);

	world->check_every = 0;
	meanwhile(BEFORE_LOCK, &leaf_table_of(a)->lock, 1, reclaim_beside, &beside);
	assert_int_equal(guest_fault(a, AT + PAGE * KIB4, EPT_WRITE), EPT_OK);
	assert_true(meanwhile_happened());
	assert_int_equal(a->last.gate_edits + a->last.plain_edits, 0);
	assert_false(ept_entry_present(guest_entry(a, AT + PAGE * KIB4, 1)));
	world->check_every = 1;
	world_check(world);
	guest_must_write(a, AT + PAGE * KIB4, 2);
	guest_must_read(a, AT + PAGE * KIB4, 2);
	world_destroy(world);
}

/*
 * A pass over one page takes an entry of 2 MiB away, and with it what vCPUs have cached of the other
 * pages: when these are unmapped, no entry is left that would say so (sweep.c: around).
 */
static void S6_the_other_pages_of_an_entry_of_2_mib_are_forgotten_too(void **state)
{
	enum { RECLAIM, WATCH, MOVE, KINDS };

	for (unsigned kind = RECLAIM; kind < KINDS; kind++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, kind == WATCH);
		uint32_t spare = world_spare_file(world, 4);
		struct ept_region region = region_of(AT, MIB2, file, 0, RW);
		struct guest *a = guest_create(world, 0, true);
		struct file_page page = { file, PAGE };
		enum ept_status status = EPT_INVALID;
		struct tally tally;

		region.mode = kind == WATCH ? EPT_SHARED : EPT_PRIVATE;
		region.large = true;
		assert_int_equal(guest_map(a, &region), EPT_OK);
		guest_must_read(a, AT + (PAGE + 1) * KIB4, world_stamp(file, PAGE + 1, 0));
		if (kind == RECLAIM)
			status = world_reclaim(world, page, 1, &tally);
		else if (kind == WATCH)
			status = world_watch(world, page, 1, &tally);
		else
			status = world_move_page(world, page, (struct file_page){ spare, 0 },
						 &tally);
		assert_int_equal(status, EPT_OK);
		assert_int_equal(tally.gate_edits, 1);
		/* The world looks for what is cached of no region. */
		assert_int_equal(guest_unmap(a, AT, MIB2), EPT_OK);
		world_destroy(world);
	}
}

/* A harvest of one page counts an entry of 2 MiB as read, and the next one finds out all over again. */
static void F27_a_harvest_asks_about_all_of_an_entry_of_2_mib(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, file, EPT_PRIVATE, true);
	uint64_t accessed[PAGES / 64] = { 0 };
	struct tally tally;

	guest_must_read(a, AT + (PAGE + 1) * KIB4, world_stamp(file, PAGE + 1, 0));
	assert_int_equal(world_harvest(world, (struct file_page){ file, PAGE }, 1, accessed, &tally),
			 EPT_OK);
	guest_must_read(a, AT + (PAGE + 1) * KIB4, world_stamp(file, PAGE + 1, 0));
	memset(accessed, 0, sizeof(accessed));
	assert_int_equal(world_harvest(world, (struct file_page){ file, PAGE + 1 }, 1, accessed,
				       &tally),
			 EPT_OK);
	assert_int_equal(accessed[0] & 1, 1);
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(S2_a_page_that_moves_does_not_bring_a_right_along),
		EACH_FORMAT(S10_a_watch_that_fails_leaves_others_alone),
		EACH_FORMAT(S10_a_watch_that_is_cancelled_leaves_others_alone),
		EACH_FORMAT(S10_a_move_that_fails_leaves_2_mib_entries),
		EACH_FORMAT(S10_a_watch_that_fails_leaves_2_mib_entries),
		EACH_FORMAT(F26_after_a_watch_2_mib_entries_come_back),
		EACH_FORMAT(F27_a_page_that_moves_was_not_accessed),
		EACH_FORMAT(F12_going_back_is_an_event),
		EACH_FORMAT(F27_a_table_across_2_mib_of_the_file),
		EACH_FORMAT(S5_a_page_of_a_table_from_the_index_is_copied_as_it_moves),
		EACH_FORMAT(S5_a_page_of_a_clones_table_is_copied_as_it_moves),
		EACH_FORMAT(S5_a_page_of_a_new_table_is_copied_as_it_moves),
		EACH_FORMAT(S10_a_reclaim_of_more_entries_than_tables),
		EACH_FORMAT(S10_a_move_of_more_entries_than_tables),
		EACH_FORMAT(F27_a_harvest_of_more_entries_than_tables),
		EACH_FORMAT(F27_a_harvest_of_more_entries_than_tables_while_one_goes),
		EACH_FORMAT(F29_a_page_that_becomes_watched_during_a_fault),
		EACH_FORMAT(F27_a_page_that_is_reclaimed_during_a_fault),
		EACH_FORMAT(S6_the_other_pages_of_an_entry_of_2_mib_are_forgotten_too),
		EACH_FORMAT(F27_a_harvest_asks_about_all_of_an_entry_of_2_mib),
	};

	return cmocka_run_group_tests_name("ept.passes", tests, NULL, NULL);
}
