// SPDX-License-Identifier: MIT
/*
 * Events of tables: recorded, numbered, bisected; guests too small to share; who pays for what.
 * Rows of docs/sharing.md, by id.
 */
#include <stdlib.h>
#include <string.h>

#include "ept/trace.h"
#include "port.h"

#define AT    (UINT64_C(4) * GIB1)
#define PAGES (4 * EPT_ENTRIES)
#define BYTES (PAGES * KIB4)
#define MAX   256

static struct world *world_of(void **state)
{
	struct world_options options = world_defaults(*state);

	return world_create(&options);
}

static struct guest *guest_with(struct world *world, uint64_t bytes, uint32_t file, bool large)
{
	struct guest *guest = guest_create(world, 0, true);
	struct ept_region region = region_of(AT, bytes, file, 0, RWX);

	region.large = large;
	assert_int_equal(guest_map(guest, &region), EPT_OK);
	return guest;
}

static bool same_table(struct guest *a, struct guest *b, uint64_t gpa, unsigned level)
{
	struct fpa table = guest_table(a, gpa, level);

	return table.v && table.v == guest_table(b, gpa, level).v;
}

static uint32_t number_of(struct guest *guest, uint64_t gpa, unsigned level)
{
	return world_table_number(guest->world, guest_table(guest, gpa, level));
}

/* ---- the ring ---- */

struct log {
	uint64_t next;
	struct ept_event events[MAX];
	size_t count;
};

static void log_read(struct world *world, struct log *log)
{
	log->count = ept_trace_read(world->ept, &log->next, log->events, MAX);
}

/* The event number @at must be this one; whoever no space stands for is EPT_NO_SPACE. */
static void must_be(const struct log *log, size_t at, enum ept_event_kind kind, uint32_t table,
		    unsigned level, uint32_t space, uint32_t count)
{
	const struct ept_event *event = &log->events[at];

	assert_true(at < log->count);
	assert_string_equal(ept_event_name(event->kind), ept_event_name(kind));
	assert_int_equal(event->table, table);
	assert_int_equal(event->level, level);
	assert_int_equal(event->space, space);
	assert_int_equal(event->count, count);
}

static void F12_every_kind_of_event_is_recorded(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, BYTES, file, false);
	struct guest *b = guest_with(world, BYTES, file, false);
	uint32_t a_number = ept_space_number(a->space), b_number = ept_space_number(b->space);
	struct log log = {0};
	uint32_t leaf, root;
	struct guest *clone;

	assert_true(ept_trace_start(world->ept, MAX));
	guest_must_read(a, AT, world_stamp(file, 0, 0));
	log_read(world, &log);
	assert_int_equal(log.count, 3);
	for (unsigned level = 3; level >= 1; level--)
		must_be(&log, 3 - level, EPT_EVENT_FILL, number_of(a, AT, level), level, a_number,
			1);
	leaf = number_of(a, AT, 1);
	guest_must_read(b, AT, world_stamp(file, 0, 0));
	log_read(world, &log);
	assert_int_equal(log.count, 3);
	must_be(&log, 2, EPT_EVENT_SHARE, leaf, 1, b_number, 2);
	/* A write copies the leaf, and drops it. */
	guest_must_write(b, AT, 1);
	log_read(world, &log);
	assert_int_equal(log.count, 2);
	must_be(&log, 0, EPT_EVENT_UNSHARE, number_of(b, AT, 1), 1, b_number, 1);
	must_be(&log, 1, EPT_EVENT_ZAP, leaf, 1, EPT_NO_SPACE, 1);
	root = number_of(b, AT, 4);
	clone = guest_must_clone(b);
	log_read(world, &log);
	assert_int_equal(log.count, 1);
	must_be(&log, 0, EPT_EVENT_CLONE, root, 4, ept_space_number(clone->space), 2);
	guest_destroy(clone);
	log_read(world, &log);
	assert_int_equal(log.count, 1);
	must_be(&log, 0, EPT_EVENT_ZAP, root, 4, EPT_NO_SPACE, 1);
	/* The last reference. */
	assert_int_equal(guest_unmap(a, AT, MIB2), EPT_OK);
	log_read(world, &log);
	assert_int_equal(log.count, 2);
	must_be(&log, 0, EPT_EVENT_ZAP, leaf, 1, EPT_NO_SPACE, 0);
	must_be(&log, 1, EPT_EVENT_FREE, leaf, 1, EPT_NO_SPACE, 0);
	assert_int_equal(log.events[1].number, 11);
	world_destroy(world);
}

static void F12_a_break_is_recorded(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, BYTES, file, true);
	struct log log = {0};

	guest_must_read(a, AT, world_stamp(file, 0, 0));
	assert_true(ept_trace_start(world->ept, MAX));
	guest_must_write(a, AT + MIB2, 1);
	log_read(world, &log);
	assert_int_equal(log.count, 1);
	must_be(&log, 0, EPT_EVENT_BREAK, number_of(a, AT + MIB2, 1), 1, ept_space_number(a->space),
		1);
	world_destroy(world);
}

static void F12_events_that_were_overwritten_leave_a_gap(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, BYTES, file, false);
	struct log log = {0};

	assert_true(ept_trace_start(world->ept, 8));
	/* Each clone is two events. */
	for (unsigned i = 0; i < 3; i++)
		guest_destroy(guest_must_clone(a));
	log_read(world, &log);
	assert_int_equal(log.count, 6);
	assert_int_equal(log.next, 6);
	for (unsigned i = 0; i < 10; i++)
		guest_destroy(guest_must_clone(a));
	log_read(world, &log);
	assert_int_equal(log.count, 12 - 4);
	assert_int_equal(log.events[0].number, 18);
	for (size_t i = 0; i < log.count; i++)
		assert_int_equal(log.events[i].number, 18 + i);
	assert_int_equal(log.next, 26);
	log_read(world, &log);
	assert_int_equal(log.count, 0);
	/* A few at a time. */
	log.next = 18;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(ept_trace_read(world->ept, &log.next, log.events, 3),
				 i < 2 ? 3 : 2);
		assert_int_equal(log.events[0].number, 18 + 3 * i);
	}
	world_destroy(world);
}

static void F12_without_a_trace_nothing_is_recorded(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, BYTES, file, false);
	struct log log = {.next = 5};
	struct ept_counters counters;

	guest_must_read(a, AT, world_stamp(file, 0, 0));
	log_read(world, &log);
	assert_int_equal(log.count, 0);
	assert_int_equal(log.next, 5);
	/* Counted they are. */
	ept_counters(world->ept, &counters);
	assert_int_equal(counters.tables_filled, 3);
	/* What was before is not in it, and starting anew begins at 0. */
	for (unsigned i = 0; i < 2; i++) {
		assert_true(ept_trace_start(world->ept, 4));
		log.next = 0;
		log_read(world, &log);
		assert_int_equal(log.count, 0);
		guest_destroy(guest_must_clone(a));
		log_read(world, &log);
		assert_int_equal(log.count, 2);
		assert_int_equal(log.events[0].number, 0);
	}
	world_destroy(world);
}

/* ---- bisecting ---- */

#define EVENTS 11

/*
 * Three guests that map the same four tables, then a clone and a reset. Events: 0 to 7 are the
 * second and third guest's tables in turn, 8 is the clone of the frozen first, 9 its reset, 10
 * another clone.
 */
struct plot {
	struct world *world;
	uint32_t file;
	struct guest *guests[5];
};

static void plot_run(struct plot *plot, const void *format, uint64_t from, uint64_t until)
{
	struct world_options options = world_defaults(format);

	options.share_from = from;
	options.share_until = until;
	plot->world = world_create(&options);
	plot->world->check_every = 8;
	plot->file = world_file(plot->world, PAGES, false);
	for (unsigned g = 0; g < 3; g++)
		plot->guests[g] = guest_with(plot->world, BYTES, plot->file, false);
	for (unsigned table = 0; table < 4; table++)
		for (unsigned g = 0; g < 3; g++)
			guest_must_read(plot->guests[g], AT + table * MIB2,
					world_stamp(plot->file, table * EPT_ENTRIES, 0));
	assert_int_equal(guest_freeze(plot->guests[0]), EPT_OK);
	plot->guests[3] = guest_must_clone(plot->guests[0]);
	guest_must_write(plot->guests[3], AT, 1);
	assert_int_equal(guest_reset(plot->guests[3]), EPT_OK);
	plot->guests[4] = guest_must_clone(plot->guests[0]);
	for (unsigned g = 0; g < 5; g++)
		for (unsigned page = 0; page < PAGES; page += 100)
			guest_must_read(plot->guests[g], AT + page * KIB4,
					world_stamp(plot->file, page, 0));
}

/* Whether the table of event @number, as it is without limits, is shared with the first guest. */
static bool is_shared(const struct plot *plot, unsigned number)
{
	if (number < 8)
		return same_table(plot->guests[0], plot->guests[1 + number % 2],
				  AT + number / 2 * MIB2, 1);
	return same_table(plot->guests[0], plot->guests[number == 10 ? 4 : 3], AT, 4);
}

static void plot_end(struct plot *plot)
{
	struct ept_counters counters;

	ept_counters(plot->world->ept, &counters);
	assert_int_equal(counters.share_events, EVENTS);
	/* They write, and nobody sees another's. */
	for (unsigned g = 1; g < 5; g++)
		guest_must_write(plot->guests[g], AT + g * KIB4, g);
	for (unsigned g = 1; g < 5; g++)
		for (unsigned page = 1; page < 5; page++)
			guest_must_read(plot->guests[g], AT + page * KIB4,
					page == g ? g : world_stamp(plot->file, page, 0));
	world_destroy(plot->world);
}

static void F12_an_event_that_is_left_out_is_not_shared(void **state)
{
	struct plot plot;

	for (unsigned k = 0; k <= EVENTS; k++) {
		/* From event k on. */
		plot_run(&plot, *state, k, 0);
		for (unsigned e = 0; e < EVENTS; e++)
			if (e != 8) /* what the reset goes over */
				assert_int_equal(is_shared(&plot, e), e >= k);
		plot_end(&plot);
		if (!k)
			continue;
		/* Up to event k. */
		plot_run(&plot, *state, 0, k);
		for (unsigned e = 0; e < EVENTS; e++)
			if (e != 8)
				assert_int_equal(is_shared(&plot, e), e < k);
		plot_end(&plot);
		/* That one only. */
		plot_run(&plot, *state, k - 1, k);
		for (unsigned e = 0; e < EVENTS; e++)
			if (e != 8)
				assert_int_equal(is_shared(&plot, e), e == k - 1);
		plot_end(&plot);
	}
}

/* As who looks for the event that does harm would: the harm is that a certain table is shared. */
static void F12_bisecting_finds_the_event(void **state)
{
	for (unsigned planted = 0; planted < EVENTS; planted++) {
		uint64_t good = 0, bad = EVENTS; /* bad when events below it may share */

		if (planted == 8)
			continue;
		while (bad - good > 1) {
			uint64_t middle = good + (bad - good) / 2;
			struct plot plot;

			plot_run(&plot, *state, 0, middle);
			if (is_shared(&plot, planted))
				bad = middle;
			else
				good = middle;
			plot_end(&plot);
		}
		assert_int_equal(good, planted);
	}
}

/* ---- guests that are too small ---- */

static struct world *world_with_threshold(const void *format, unsigned threshold)
{
	struct world_options options = world_defaults(format);

	options.share_threshold = threshold;
	return world_create(&options);
}

/* A guest of 2 MiB needs three tables beside its root, one of 4 MiB four. */
static void F19_guests_up_to_the_threshold_share_nothing(void **state)
{
	for (unsigned threshold = 0; threshold < 6; threshold++)
		for (unsigned tables = 3; tables < 6; tables++) {
			struct world *world = world_with_threshold(*state, threshold);
			uint32_t file = world_file(world, PAGES, false);
			uint64_t bytes = (tables - 2) * MIB2;
			struct guest *a = guest_with(world, bytes, file, false);
			struct guest *b = guest_with(world, bytes, file, false);
			bool shared = !threshold || tables > threshold;
			struct ept_space_usage usage;
			struct guest *clone;

			assert_int_equal(ept_space_tables(a->space), tables);
			for (uint64_t at = 0; at < bytes; at += MIB2) {
				guest_must_read(a, AT + at, world_stamp(file, at / KIB4, 0));
				guest_must_read(b, AT + at, world_stamp(file, at / KIB4, 0));
				assert_int_equal(same_table(a, b, AT + at, 1), shared);
			}
			guest_must_write(b, AT, 5);
			assert_int_equal(guest_freeze(b), EPT_OK);
			clone = guest_must_clone(b);
			for (unsigned round = 0; round < 2; round++) {
				guest_must_read(clone, AT, 5);
				for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
					assert_int_equal(same_table(b, clone, AT, level), shared);
				ept_space_usage(clone->space, &usage);
				assert_int_equal(usage.tables_shared, shared ? tables + 1 : 0);
				/* Pages are, in any case. */
				assert_int_equal(usage.pages_shared, 1);
				guest_must_write(clone, AT, 6);
				guest_must_write(clone, AT + KIB4, 6);
				guest_must_read(b, AT, 5);
				assert_int_equal(guest_reset(clone), EPT_OK);
			}
			world_destroy(world);
		}
}

/* What a guest needs changes with its regions. */
static void F19_a_guest_grows_beyond_the_threshold(void **state)
{
	struct world *world = world_with_threshold(*state, 3);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, BYTES, file, false);
	struct guest *b = guest_with(world, MIB2, file, false);
	struct guest *frozen;

	for (unsigned table = 0; table < 4; table++)
		guest_must_read(a, AT + table * MIB2, world_stamp(file, table * EPT_ENTRIES, 0));
	guest_must_read(b, AT, world_stamp(file, 0, 0));
	assert_false(same_table(a, b, AT, 1));
	guest_must_map(b, AT + MIB2, MIB2, file, EPT_ENTRIES, RWX);
	assert_int_equal(ept_space_tables(b->space), 4);
	guest_must_read(b, AT + MIB2, world_stamp(file, EPT_ENTRIES, 0));
	assert_true(same_table(a, b, AT + MIB2, 1));
	assert_int_equal(guest_snapshot(b, &frozen), EPT_OK);
	assert_true(same_table(b, frozen, AT, 4));
	/* And back. Two regions in one span need one table. */
	assert_int_equal(guest_unmap(b, AT + KIB4, 2 * MIB2 - 2 * KIB4), EPT_OK);
	assert_int_equal(ept_space_tables(b->space), 4);
	assert_int_equal(guest_unmap(b, AT, MIB2), EPT_OK);
	assert_int_equal(ept_space_tables(b->space), 3);
	assert_int_equal(guest_snapshot(b, &frozen), EPT_OK);
	assert_false(same_table(b, frozen, AT, 4));
	guest_must_read(frozen, AT + 2 * MIB2 - KIB4, world_stamp(file, 2 * EPT_ENTRIES - 1, 0));
	assert_int_equal(guest_move(b, AT + 2 * MIB2 - KIB4, KIB4, GIB512 - KIB4), EPT_OK);
	assert_int_equal(ept_space_tables(b->space), 3);
	world_destroy(world);
}

/* ---- who pays for what ---- */

static void must_add_up(struct world *world)
{
	struct ept_account accounts[PORT_GUESTS];
	uint64_t tables = 0, pages = 0, tables_in_use = 0;
	size_t count = ept_accounts(world->ept, accounts, PORT_GUESTS);
	struct ept_usage usage;

	for (size_t i = 0; i < count; i++) {
		tables += accounts[i].tables_part_bytes;
		pages += accounts[i].pages_part_bytes;
		assert_true(accounts[i].tables_alone * KIB4 <= accounts[i].tables_part_bytes);
		assert_true(accounts[i].pages_alone * KIB4 <= accounts[i].pages_part_bytes);
	}
	ept_usage(world->ept, &usage);
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		tables_in_use += usage.tables[level];
	assert_int_equal(tables, tables_in_use * KIB4);
	assert_int_equal(pages, usage.pages * KIB4);
}

static uint32_t below(uint64_t *state, uint32_t limit)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 33) % limit;
}

static void B6_parts_add_up_to_what_the_pools_say(void **state)
{
	for (uint64_t seed = 1; seed < 5; seed++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		struct guest *guests[12] = {NULL};
		uint64_t random = seed;

		must_add_up(world);
		for (unsigned op = 0; op < 300; op++) {
			unsigned at = below(&random, 12);
			uint64_t gpa = AT + below(&random, PAGES) * KIB4;
			uint64_t value;

			if (!guests[at])
				guests[at] = below(&random, 2) ? guest_with(world, BYTES, file,
									    below(&random, 2))
							       : NULL;
			if (!guests[at] && guests[(at + 1) % 12])
				guests[at] = guest_must_clone(guests[(at + 1) % 12]);
			if (!guests[at])
				continue;
			if (below(&random, 3))
				assert_int_equal(guest_read(guests[at], gpa, &value), EPT_OK);
			else
				assert_int_equal(guest_write(guests[at], gpa, op), EPT_OK);
			if (!below(&random, 16)) {
				guest_destroy(guests[at]);
				guests[at] = NULL;
			}
			if (op % 10 == 0)
				must_add_up(world);
		}
		must_add_up(world);
		world_destroy(world);
	}
}

static void B6_each_pays_its_part(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct ept_account accounts[4];
	struct guest *guests[3];

	for (unsigned g = 0; g < 3; g++) {
		guests[g] = guest_with(world, MIB2, file, false);
		guest_must_read(guests[g], AT, world_stamp(file, 0, 0));
	}
	assert_int_equal(ept_accounts(world->ept, accounts, 4), 3);
	for (unsigned g = 0; g < 3; g++) {
		/* A root, PDPT and PD of its own, a third of the PT. */
		assert_ptr_equal(accounts[g].space, guests[g]->space);
		assert_int_equal(accounts[g].tables_alone, 3);
		assert_int_equal(accounts[g].tables_shared, 1);
		assert_in_range(accounts[g].tables_part_bytes, 3 * KIB4 + 1365, 3 * KIB4 + 1366);
		assert_int_equal(accounts[g].pages_part_bytes, 0);
	}
	guest_must_write(guests[2], AT, 1);
	assert_int_equal(ept_accounts(world->ept, accounts, 2), 3);
	assert_int_equal(accounts[0].tables_part_bytes, 3 * KIB4 + 2048);
	assert_int_equal(ept_accounts(world->ept, accounts, 4), 3);
	assert_int_equal(accounts[2].tables_alone, 4);
	assert_int_equal(accounts[2].pages_alone, 1);
	assert_int_equal(accounts[2].pages_part_bytes, KIB4);
	guest_must_clone(guests[2]);
	assert_int_equal(ept_accounts(world->ept, accounts, 4), 4);
	assert_int_equal(accounts[2].tables_alone, 0);
	assert_int_equal(accounts[2].tables_part_bytes, 2 * KIB4);
	assert_int_equal(accounts[3].pages_part_bytes, KIB4 / 2);
	assert_int_equal(ept_accounts(world->ept, NULL, 0), 4);
	must_add_up(world);
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(F12_every_kind_of_event_is_recorded),
		EACH_FORMAT(F12_a_break_is_recorded),
		EACH_FORMAT(F12_events_that_were_overwritten_leave_a_gap),
		EACH_FORMAT(F12_without_a_trace_nothing_is_recorded),
		EACH_FORMAT(F12_an_event_that_is_left_out_is_not_shared),
		EACH_FORMAT(F12_bisecting_finds_the_event),
		EACH_FORMAT(F19_guests_up_to_the_threshold_share_nothing),
		EACH_FORMAT(F19_a_guest_grows_beyond_the_threshold),
		EACH_FORMAT(B6_parts_add_up_to_what_the_pools_say),
		EACH_FORMAT(B6_each_pays_its_part),
	};

	return cmocka_run_group_tests_name("ept.events", tests, NULL, NULL);
}
