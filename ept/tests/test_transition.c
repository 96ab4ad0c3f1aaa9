// SPDX-License-Identifier: MIT
/*
 * Every state that the tables on a path can be in, with every operation: how it ends, and what it
 * does to tables, private pages and counters. The expectations are data: a row for each pair.
 */
#include "port.h"

#include <stdio.h>
#include <stdlib.h>

#define AT	  (UINT64_C(4) * GIB1)
#define HOLE	  (AT + 16 * MIB2)
#define SPAN	  (2 * MIB2)
#define WRITTEN	  UINT64_C(0x77)
#define BASE_PAGE 3 /* a page that is written where a state needs tables of the guest's own */

/* What the operation finds at AT. The guest under test has one region of two leaf tables there. */
enum state {
	ABSENT,	       /* no table at all */
	ALONE,	       /* tables of its own, one page written, not that at AT */
	INDEX,	       /* a leaf table that another guest found in the share index */
	CLONE,	       /* the whole path shared with a clone, from the root on */
	LEAF_SHARED,   /* upper tables of its own, the leaf table shared with a clone */
	PAGE_ALONE,    /* tables and a private page of its own */
	PAGE_BY_CLONE, /* a private page, below tables that a clone has too */
	PAGE_SHARED,   /* tables of its own, a private page that a clone maps too */
	COUNT_FELL,    /* as PAGE_BY_CLONE, but the clone has ended */
	FROZEN,	       /* tables of its own, frozen */
	OF_FROZEN,     /* a clone of a frozen guest, the whole path shared with it */
	OF_FROZEN_OWN, /* the same, after a write: tables and page of its own */
	LARGE,	       /* from here on mapped by 2 MiB: read-only tables of its own */
	LARGE_OWN,     /* the same, writable, with another entry broken */
	LARGE_CLONE,   /* as LARGE, the whole path shared with a clone */
	LARGE_BROKEN,  /* the entry at AT broken, a private page there */
	LARGE_FROZEN,  /* a clone of a frozen guest that is as LARGE */
	STATES
};

enum operation {
	READ,
	WRITE,
	EXEC,
	MAP_OVER,
	MAP_HOLE,
	UNMAP,
	UNMAP_PART,
	PROTECT_RO,
	PROTECT_RW,
	DO_CLONE,
	FREEZE,
	RESET,
	DESTROY,
	SNAPSHOT,
	MOVE_PART,
	RECLAIM,
	HARVEST,
	WATCH_PAGE,
	MOVE_PAGE,
	OPERATIONS
};

struct outcome {
	enum ept_status status;
	int tables;	  /* in use, more or fewer than before */
	int pages;	  /* private pages in use */
	unsigned copied;  /* tables */
	unsigned written; /* private pages copied */
	unsigned filled;  /* tables made for a fault */
	unsigned dropped; /* references to tables */
};

static const char *const state_names[STATES] = {
	"ABSENT",	"ALONE",	 "INDEX",	"CLONE",      "LEAF_SHARED",
	"PAGE_ALONE",	"PAGE_BY_CLONE", "PAGE_SHARED", "COUNT_FELL", "FROZEN",
	"OF_FROZEN",	"OF_FROZEN_OWN", "LARGE",	"LARGE_OWN",  "LARGE_CLONE",
	"LARGE_BROKEN", "LARGE_FROZEN",
};

static const char *const operation_names[OPERATIONS] = {
	"READ",	      "WRITE",	    "EXEC",	"MAP_OVER",   "MAP_HOLE",  "UNMAP",   "UNMAP_PART",
	"PROTECT_RO", "PROTECT_RW", "DO_CLONE", "FREEZE",     "RESET",	   "DESTROY", "SNAPSHOT",
	"MOVE_PART",  "RECLAIM",    "HARVEST",	"WATCH_PAGE", "MOVE_PAGE",
};

static const struct outcome outcomes[STATES][OPERATIONS] = {
#include "transitions.inc"
};

struct scene {
	struct world *world;
	uint32_t file;
	uint32_t spare;
	struct guest *guest; /* under test */
	struct guest *other; /* whoever shares with it, or NULL */
	bool written;	     /* AT reads as WRITTEN */
};

static struct guest *guest_with(struct scene *scene, bool large)
{
	struct guest *guest = guest_create(scene->world, 0, true);
	struct ept_region region = region_of(AT, SPAN, scene->file, 0, RWX);

	region.large = large;
	assert_int_equal(guest_map(guest, &region), EPT_OK);
	return guest;
}

static uint64_t stamp(const struct scene *scene, uint64_t page)
{
	return world_stamp(scene->file, page, 0);
}

static void touch_base(struct guest *guest, unsigned value)
{
	guest_must_write(guest, AT + BASE_PAGE * KIB4, value);
}

/* The other guest becomes the parent, and the guest under test its clone. */
static void become_clone_of_frozen(struct scene *scene)
{
	touch_base(scene->guest, 1);
	scene->other = scene->guest;
	if (guest_freeze(scene->other) != EPT_OK)
		port_fail(scene->world, "freezing");
	scene->guest = guest_must_clone(scene->other);
}

static void reach_state_with_page(struct scene *scene, enum state state)
{
	guest_must_write(scene->guest, AT, WRITTEN);
	scene->written = true;
	if (state != PAGE_ALONE)
		scene->other = guest_must_clone(scene->guest);
	if (state == PAGE_SHARED)
		touch_base(scene->guest, 2);
	if (state == COUNT_FELL) {
		guest_destroy(scene->other);
		scene->other = NULL;
	}
}

static void reach_large_state(struct scene *scene, enum state state)
{
	guest_must_read(scene->guest, AT, stamp(scene, 0));
	if (state == LARGE_OWN)
		guest_must_write(scene->guest, AT + MIB2, 1);
	scene->written = state == LARGE_BROKEN;
	if (scene->written)
		guest_must_write(scene->guest, AT, WRITTEN);
	if (state == LARGE_CLONE)
		scene->other = guest_must_clone(scene->guest);
	if (state != LARGE_FROZEN)
		return;
	scene->other = scene->guest;
	assert_int_equal(guest_freeze(scene->other), EPT_OK);
	scene->guest = guest_must_clone(scene->other);
}

static void reach_state(struct scene *scene, enum state state)
{
	switch (state) {
	case INDEX:
		guest_must_read(scene->guest, AT, stamp(scene, 0));
		scene->other = guest_with(scene, false);
		guest_must_read(scene->other, AT, stamp(scene, 0));
		break;
	case ALONE:
	case FROZEN:
		touch_base(scene->guest, 1);
		if (state == FROZEN && guest_freeze(scene->guest) != EPT_OK)
			port_fail(scene->world, "freezing");
		break;
	case CLONE:
	case LEAF_SHARED:
		touch_base(scene->guest, 1);
		scene->other = guest_must_clone(scene->guest);
		if (state == LEAF_SHARED)
			guest_must_write(scene->guest, AT + MIB2, 1);
		break;
	case OF_FROZEN:
	case OF_FROZEN_OWN:
		become_clone_of_frozen(scene);
		scene->written = state == OF_FROZEN_OWN;
		if (scene->written)
			guest_must_write(scene->guest, AT, WRITTEN);
		break;
	case PAGE_ALONE:
	case PAGE_BY_CLONE:
	case PAGE_SHARED:
	case COUNT_FELL:
		reach_state_with_page(scene, state);
		break;
	case LARGE:
	case LARGE_OWN:
	case LARGE_CLONE:
	case LARGE_BROKEN:
	case LARGE_FROZEN:
		reach_large_state(scene, state);
		break;
	case ABSENT:
	case STATES:
		break;
	}
}

static enum ept_status operate(struct scene *scene, enum operation operation)
{
	struct ept_region over = region_of(AT + MIB2 - KIB4, MIB2, scene->file, 0, RWX);
	struct ept_region hole = region_of(HOLE, MIB2, scene->file, 0, RWX);
	const struct file_page page = {scene->file, 0};
	const struct file_page spare = {scene->spare, 0};
	uint64_t accessed[1] = {0};
	struct tally tally;
	struct guest *clone;

	switch (operation) {
	case READ:
		return guest_fault(scene->guest, AT, EPT_READ);
	case WRITE:
		return guest_fault(scene->guest, AT, EPT_WRITE);
	case EXEC:
		return guest_fault(scene->guest, AT, EPT_EXEC);
	case MAP_OVER:
		return guest_map(scene->guest, &over);
	case MAP_HOLE:
		return guest_map(scene->guest, &hole);
	case UNMAP:
		return guest_unmap(scene->guest, AT, MIB2);
	case UNMAP_PART:
		return guest_unmap(scene->guest, AT, KIB4);
	case PROTECT_RO:
		return guest_protect(scene->guest, AT, MIB2, RX);
	case PROTECT_RW:
		return guest_protect(scene->guest, AT, MIB2, RWX);
	case DO_CLONE:
		return guest_clone(scene->guest, &clone);
	case FREEZE:
		return guest_freeze(scene->guest);
	case RESET:
		return guest_reset(scene->guest);
	case DESTROY:
		guest_destroy(scene->guest);
		scene->guest = NULL;
		return EPT_OK;
	case SNAPSHOT:
		return guest_snapshot(scene->guest, &clone);
	case MOVE_PART:
		return guest_move(scene->guest, AT, 2 * KIB4, HOLE + KIB4);
	case RECLAIM:
		return world_reclaim(scene->world, page, 1, &tally);
	case HARVEST:
		return world_harvest(scene->world, page, 1, accessed, &tally);
	case WATCH_PAGE:
		return world_watch(scene->world, page, 1, &tally);
	case MOVE_PAGE:
		return world_move_page(scene->world, page, spare, &tally);
	case OPERATIONS:
		break;
	}
	return EPT_INVALID;
}

struct numbers {
	struct ept_usage usage;
	struct ept_counters counters;
	int tables;
};

static struct numbers numbers_of(const struct scene *scene)
{
	struct numbers numbers = {.tables = 0};

	ept_usage(scene->world->ept, &numbers.usage);
	ept_counters(scene->world->ept, &numbers.counters);
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		numbers.tables += (int)numbers.usage.tables[level];
	return numbers;
}

static struct outcome outcome_of(const struct scene *scene, const struct numbers *before,
				 enum ept_status status)
{
	struct numbers after = numbers_of(scene);

	return (struct outcome){
		.status = status,
		.tables = after.tables - before->tables,
		.pages = (int)after.usage.pages - (int)before->usage.pages,
		.copied = (unsigned)(after.counters.tables_copied - before->counters.tables_copied),
		.written = (unsigned)(after.counters.pages_copied - before->counters.pages_copied),
		.filled = (unsigned)(after.counters.tables_filled - before->counters.tables_filled),
		.dropped =
			(unsigned)(after.counters.tables_dropped - before->counters.tables_dropped),
	};
}

static void outcome_format(char *text, size_t bytes, const struct outcome *outcome)
{
	snprintf(text, bytes, "{ %d, %d, %d, %u, %u, %u, %u }", (int)outcome->status,
		 outcome->tables, outcome->pages, outcome->copied, outcome->written,
		 outcome->filled, outcome->dropped);
}

static bool outcome_equal(const struct outcome *a, const struct outcome *b)
{
	return a->status == b->status && a->tables == b->tables && a->pages == b->pages &&
	       a->copied == b->copied && a->written == b->written && a->filled == b->filled &&
	       a->dropped == b->dropped;
}

/* Whatever the guest under test did, nobody else sees a difference. */
static void check_other(const struct scene *scene, enum state state)
{
	bool has_page = scene->written && state != OF_FROZEN_OWN;

	if (!scene->other)
		return;
	guest_must_read(scene->other, AT, has_page ? WRITTEN : stamp(scene, 0));
	guest_must_read(scene->other, AT + 8, world_stamp(scene->file, 0, 1));
	guest_must_read(scene->other, AT + MIB2 + KIB4, stamp(scene, EPT_ENTRIES + 1));
}

static bool run_pair(void **format, enum state state, enum operation operation)
{
	struct world_options options = world_defaults(*format);
	const struct outcome *expected = &outcomes[state][operation];
	struct scene scene = {.world = world_create(&options)};
	struct numbers before;
	struct outcome found;
	char texts[2][80];
	bool equal;

	scene.file = world_file(scene.world, SPAN / KIB4, false);
	scene.spare = world_spare_file(scene.world, 1);
	scene.guest = guest_with(&scene, state >= LARGE);
	reach_state(&scene, state);
	before = numbers_of(&scene);
	found = outcome_of(&scene, &before, operate(&scene, operation));
	equal = outcome_equal(&found, expected);
	outcome_format(texts[0], sizeof(texts[0]), &found);
	outcome_format(texts[1], sizeof(texts[1]), expected);
	if (getenv("S2VM_TRACE"))
		print_message("[%s][%s] = %s,\n", state_names[state], operation_names[operation],
			      texts[0]);
	else if (!equal)
		print_error("%s, %s: %s instead of %s\n", state_names[state],
			    operation_names[operation], texts[0], texts[1]);
	check_other(&scene, state);
	world_destroy(scene.world);
	return equal;
}

static void every_state_with_every_operation(void **state)
{
	unsigned different = 0;

	for (unsigned s = 0; s < STATES; s++)
		for (unsigned o = 0; o < OPERATIONS; o++)
			different += !run_pair(state, (enum state)s, (enum operation)o);
	assert_int_equal(different, 0);
}

struct argument {
	const char *what;
	uint64_t start, bytes;
	struct file_page first;
	unsigned rights;
	enum ept_mode mode;
};

#define FILE_PAGES 1024

/* File 0 cannot be written, file 1 can; there is no other. */
static const struct argument refused[] = {
	{"no bytes", AT, 0, {0, 0}, RWX, EPT_PRIVATE},
	{"a start within a page", AT + 1, MIB2, {0, 0}, RWX, EPT_PRIVATE},
	{"a part of a page", AT, KIB4 / 2, {0, 0}, RWX, EPT_PRIVATE},
	{"the end of the address space", EPT_GPA_END, KIB4, {0, 0}, RWX, EPT_PRIVATE},
	{"across the end", EPT_GPA_END - KIB4, 2 * KIB4, {0, 0}, RWX, EPT_PRIVATE},
	{"an end that wraps around", AT, UINT64_MAX - KIB4 + 1, {0, 0}, RWX, EPT_PRIVATE},
	{"a start far beyond", UINT64_MAX - KIB4 + 1, KIB4, {0, 0}, RWX, EPT_PRIVATE},
	{"the gate's span", PORT_GATE_INDEX *GIB512, KIB4, {0, 0}, RWX, EPT_PRIVATE},
	{"into the gate's span",
	 PORT_GATE_INDEX *GIB512 - KIB4,
	 2 * KIB4,
	 {0, 0},
	 RWX,
	 EPT_PRIVATE},
	{"the next file", AT, KIB4, {2, 0}, RWX, EPT_PRIVATE},
	{"a file far beyond", AT, KIB4, {100000, 0}, RWX, EPT_PRIVATE},
	{"the last file that a number has", AT, KIB4, {UINT32_MAX, 0}, RWX, EPT_PRIVATE},
	{"beyond the file's end", AT, KIB4, {0, FILE_PAGES}, RWX, EPT_PRIVATE},
	{"across the file's end", AT, 2 * KIB4, {0, FILE_PAGES - 1}, RWX, EPT_PRIVATE},
	{"a page that wraps around", AT, 2 * KIB4, {0, UINT64_MAX}, RWX, EPT_PRIVATE},
	{"no right to read", AT, KIB4, {0, 0}, EPT_WRITE, EPT_PRIVATE},
	{"no rights", AT, KIB4, {0, 0}, 0, EPT_PRIVATE},
	{"write through to a private file", AT, KIB4, {0, 0}, RW, EPT_SHARED},
};

static const struct argument accepted[] = {
	{"the last page", EPT_GPA_END - KIB4, KIB4, {0, FILE_PAGES - 1}, RWX, EPT_PRIVATE},
	{"below the gate", PORT_GATE_INDEX *GIB512 - KIB4, KIB4, {0, 0}, RWX, EPT_PRIVATE},
	{"above the gate", (PORT_GATE_INDEX + 1) * GIB512, KIB4, {0, 0}, RWX, EPT_PRIVATE},
	{"a whole file", AT, FILE_PAGES *KIB4, {1, 0}, RW, EPT_SHARED},
	{"address 0", 0, KIB4, {0, 0}, EPT_READ, EPT_PRIVATE},
};

static struct ept_region region_from(const struct argument *row)
{
	struct ept_region region =
		region_of(row->start, row->bytes, row->first.file, row->first.page, row->rights);

	region.mode = row->mode;
	return region;
}

static void arguments_are_looked_at(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world = world_create(&options);
	struct guest *guest;

	world_file(world, FILE_PAGES, false);
	world_file(world, FILE_PAGES, true);
	guest = guest_create(world, 0, true);
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		struct ept_region region = region_from(&refused[i]);

		if (guest_map(guest, &region) != EPT_INVALID)
			port_fail(world, "not refused: %s", refused[i].what);
	}
	for (size_t i = 0; i < sizeof(accepted) / sizeof(*accepted); i++) {
		struct ept_region region = region_from(&accepted[i]);
		uint64_t value;

		if (guest_map(guest, &region) != EPT_OK ||
		    guest_read(guest, accepted[i].start, &value) != EPT_OK ||
		    value != world_stamp(region.first.file, region.first.page, 0))
			port_fail(world, "not mapped: %s", accepted[i].what);
	}
	world_destroy(world);
}

/* Ranges of unmap and protect are looked at in the same way, and holes are not the same to them. */
static void ranges_are_looked_at(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world = world_create(&options);
	struct guest *guest;

	world_file(world, FILE_PAGES, false);
	guest = guest_create(world, 0, true);
	guest_must_map(guest, AT, KIB4, 0, 0, RWX);
	/* The first nine rows have ranges that are wrong in themselves. */
	for (size_t i = 0; i < 9; i++) {
		assert_int_equal(guest_unmap(guest, refused[i].start, refused[i].bytes),
				 EPT_INVALID);
		assert_int_equal(guest_protect(guest, refused[i].start, refused[i].bytes, RX),
				 EPT_INVALID);
	}
	assert_int_equal(guest_protect(guest, AT, KIB4, EPT_WRITE), EPT_INVALID);
	assert_int_equal(guest_protect(guest, AT, 2 * KIB4, RX), EPT_OVERLAP);
	assert_int_equal(guest_protect(guest, AT - KIB4, 2 * KIB4, RX), EPT_OVERLAP);
	assert_int_equal(guest_unmap(guest, AT + KIB4, 2 * MIB2), EPT_OK);
	assert_int_equal(guest_unmap(guest, AT - KIB4, 2 * MIB2), EPT_OK);
	assert_int_equal(guest_unmap(guest, 0, PORT_GATE_INDEX * GIB512), EPT_OK);
	assert_int_equal(guest_exec(guest, AT), EPT_OUTSIDE);
	world_destroy(world);
}

static void faults_are_looked_at(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world = world_create(&options);
	struct guest *guest;

	world_file(world, FILE_PAGES, false);
	guest = guest_create(world, 0, true);
	guest_must_map(guest, AT, KIB4, 0, 0, EPT_READ);
	assert_int_equal(guest_fault(guest, AT - 1, EPT_READ), EPT_OUTSIDE);
	assert_int_equal(guest_fault(guest, AT + KIB4, EPT_READ), EPT_OUTSIDE);
	assert_int_equal(guest_fault(guest, UINT64_MAX, EPT_READ), EPT_OUTSIDE);
	assert_int_equal(guest_fault(guest, PORT_GATE_INDEX * GIB512, EPT_READ), EPT_OUTSIDE);
	assert_int_equal(guest_fault(guest, AT, EPT_WRITE), EPT_DENIED);
	assert_int_equal(guest_fault(guest, AT, EPT_EXEC), EPT_DENIED);
	assert_int_equal(guest_fault(guest, AT + KIB4 - 1, EPT_READ), EPT_OK);
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(every_state_with_every_operation),
		EACH_FORMAT(arguments_are_looked_at),
		EACH_FORMAT(ranges_are_looked_at),
		EACH_FORMAT(faults_are_looked_at),
	};

	return cmocka_run_group_tests_name("ept.transition", tests, NULL, NULL);
}
