// SPDX-License-Identifier: MIT
/* Sharing by cloning, and what writes do to it: the rows of docs/sharing.md, by id. */
#include "ept_internal.h"
#include "meanwhile.h"
#include "port.h"

#define AT    (UINT64_C(4) * GIB1)
#define PAGES (4 * MIB2 / KIB4)

static uint32_t the_file;

/* A world with one file, which is not writable, and a guest that maps all of it, privately. */
static struct guest *guest_in_world(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world = world_create(&options);
	struct guest *guest = guest_create(world, 0, true);

	the_file = world_file(world, PAGES, false);
	guest_must_map(guest, AT, PAGES * KIB4, the_file, 0, RWX);
	return guest;
}

static struct ept_counters counters_of(struct guest *guest)
{
	struct ept_counters counters;

	ept_counters(guest->world->ept, &counters);
	return counters;
}

static struct ept_usage usage_of(struct guest *guest)
{
	struct ept_usage usage;

	ept_usage(guest->world->ept, &usage);
	return usage;
}

static struct ept_space_usage space_usage_of(struct guest *guest)
{
	struct ept_space_usage usage;

	ept_space_usage(guest->space, &usage);
	return usage;
}

static bool same_table(struct guest *a, struct guest *b, uint64_t gpa, unsigned level)
{
	struct fpa table = guest_table(a, gpa, level);

	return table.v && table.v == guest_table(b, gpa, level).v;
}

/* How many tables an operation copied: the counter's way since @before. */
static uint64_t copied_since(struct guest *guest, const struct ept_counters *before)
{
	return counters_of(guest).tables_copied - before->tables_copied;
}

static void F2_clone_shares_tables_and_copies_no_entries(void **state)
{
	struct guest *a = guest_in_world(state);
	struct ept_counters before;
	struct guest *b;

	guest_must_write(a, AT, 1);
	guest_must_map(a, 3 * GIB512, MIB2, the_file, 0, RWX);
	guest_must_write(a, 3 * GIB512, 2);
	before = counters_of(a);
	b = guest_must_clone(a);
	assert_int_equal(copied_since(a, &before), 0);
	/* One count goes up: that of the root. */
	assert_int_equal(counters_of(a).tables_cloned - before.tables_cloned, 1);
	assert_int_equal(counters_of(a).tables_filled, before.tables_filled);
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		assert_true(same_table(a, b, AT, level));
	assert_int_equal(space_usage_of(b).tables_alone, 0);
	guest_must_read(b, AT, 1);
	guest_must_read(b, 3 * GIB512, 2);
	assert_int_equal(ept_space_faults(b->space), 0);
	world_destroy(a->world);
}

/* Nothing is shared but an empty root, until one of them maps something. */
static void F2_a_guest_without_regions_is_cloned(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world = world_create(&options);
	struct guest *a = guest_create(world, 0, true);
	struct guest *b = guest_must_clone(a);

	the_file = world_file(world, PAGES, false);
	assert_int_equal(a->last.gate_edits, 0);
	guest_must_map(b, AT, PAGES * KIB4, the_file, 0, RWX);
	guest_must_write(b, AT, 1);
	assert_int_equal(guest_exec(a, AT), EPT_OUTSIDE);
	guest_must_map(a, AT, PAGES * KIB4, the_file, 0, RWX);
	guest_must_read(a, AT, world_stamp(the_file, 0, 0));
	guest_must_read(b, AT, 1);
	world_destroy(world);
}

static void F3_private_and_writable_is_protected_when_shared(void **state)
{
	struct guest *a = guest_in_world(state);
	struct guest *b;

	guest_must_write(a, AT, 1);
	guest_must_write(a, AT + 8, 2);
	b = guest_must_clone(a);
	guest_must_write(a, AT, 3);
	guest_must_read(b, AT, 1);
	guest_must_read(b, AT + 8, 2);
	guest_must_write(b, AT + 8, 4);
	guest_must_read(a, AT, 3);
	guest_must_read(a, AT + 8, 2);
	guest_must_read(b, AT, 1);
	world_destroy(a->world);
}

/*
 * The leaf that the first guest keeps alone has an entry that granted write all the time while it
 * was shared. Its page is the clone's too by now, and must be copied all the same.
 */
static void F3_rights_that_a_shared_table_kept_are_taken_back(void **state)
{
	struct guest *a = guest_in_world(state);
	struct guest *b;

	guest_must_write(a, AT, 1);
	guest_must_write(a, AT + MIB2, 1);
	b = guest_must_clone(a);
	guest_must_write(b, AT + KIB4, 2);
	guest_must_write(b, AT + MIB2 + KIB4, 2);
	/* The first write makes a's path writable again, the second goes down it. */
	guest_must_write(a, AT + 2 * KIB4, 3);
	guest_must_write(a, AT, 3);
	guest_must_write(a, AT + MIB2, 3);
	guest_must_read(b, AT, 1);
	guest_must_read(b, AT + MIB2, 1);
	world_destroy(a->world);
}

static void F4_joining_a_table_never_overwrites(void **state)
{
	struct guest *a = guest_in_world(state);
	uint64_t at = 9 * GIB1;
	struct guest *b;

	/* Two regions in one table, one after the other. */
	guest_must_map(a, at, MIB2 / 4, the_file, 0, RWX);
	guest_must_write(a, at, 1);
	guest_must_map(a, at + MIB2 / 2, MIB2 / 4, the_file, 7, RWX);
	guest_must_read(a, at + MIB2 / 2, world_stamp(the_file, 7, 0));
	guest_must_read(a, at, 1);
	b = guest_must_clone(a);
	/* A third one, into a table that a clone has too: the clone must not see it. */
	guest_must_map(a, at + MIB2 / 4, MIB2 / 4, the_file, 9, RWX);
	guest_must_read(a, at + MIB2 / 4, world_stamp(the_file, 9, 0));
	assert_int_equal(guest_exec(b, at + MIB2 / 4), EPT_OUTSIDE);
	guest_must_read(b, at, 1);
	guest_must_read(a, at, 1);
	world_destroy(a->world);
}

static void F5_write_unshares_the_tables_on_its_path(void **state)
{
	struct guest *a = guest_in_world(state);
	struct ept_counters before;
	struct guest *b;

	guest_must_write(a, AT, 1);
	b = guest_must_clone(a);
	before = counters_of(a);
	guest_must_write(b, AT, 2);
	/* The root is one of them. */
	assert_int_equal(copied_since(a, &before), 4);
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		assert_false(same_table(a, b, AT, level));
	/* All is b's own now: the next write on this path copies its page and no table. */
	before = counters_of(a);
	guest_must_write(b, AT + KIB4, 2);
	assert_int_equal(copied_since(a, &before), 0);
	world_destroy(a->world);
}

static void F5_a_table_whose_count_fell_to_one_is_kept(void **state)
{
	struct guest *a = guest_in_world(state);
	struct ept_counters before;
	struct fpa table;
	struct guest *b;

	guest_must_write(a, AT, 1);
	b = guest_must_clone(a);
	table = guest_table(b, AT, 1);
	guest_destroy(a);
	before = counters_of(b);
	guest_must_write(b, AT, 2);
	assert_int_equal(copied_since(b, &before), 0);
	assert_int_equal(counters_of(b).pages_copied, before.pages_copied);
	assert_int_equal(guest_table(b, AT, 1).v, table.v);
	guest_must_read(b, AT, 2);
	world_destroy(b->world);
}

static void destroy_guest(void *context)
{
	guest_destroy(context);
}

/* The other guest ends when this one has found that both have the root, and takes a table for a
 * copy. */
static void F5_a_root_that_its_others_left_meanwhile_is_kept(void **state)
{
	struct guest *a = guest_in_world(state);
	struct world *world = a->world;
	struct ept_counters before;
	struct fpa root;
	struct guest *b;

	guest_must_write(a, AT, 1);
	b = guest_must_clone(a);
	root = ept_space_root(b->space);
	before = counters_of(b);
	world->check_every = 0;
	meanwhile(BEFORE_LOCK, &world->ept->tables.lock, 1, destroy_guest, a);
	guest_must_write(b, AT, 2);
	assert_true(meanwhile_happened());
	world->check_every = 1;
	world_check(world);
	assert_int_equal(copied_since(b, &before), 0);
	assert_int_equal(ept_space_root(b->space).v, root.v);
	guest_must_read(b, AT, 2);
	world_destroy(world);
}

/* The same for a table below, which both found in the index. */
static void F5_a_table_that_its_others_left_meanwhile_is_kept(void **state)
{
	struct guest *a = guest_in_world(state);
	struct world *world = a->world;
	struct guest *b = guest_create(world, 0, true);
	struct ept_counters before;
	struct fpa table;

	guest_must_map(b, AT, PAGES * KIB4, the_file, 0, RWX);
	guest_must_read(a, AT, world_stamp(the_file, 0, 0));
	guest_must_read(b, AT, world_stamp(the_file, 0, 0));
	assert_true(same_table(a, b, AT, 1));
	table = guest_table(b, AT, 1);
	before = counters_of(b);
	world->check_every = 0;
	meanwhile(BEFORE_LOCK, &world->ept->tables.lock, 1, destroy_guest, a);
	guest_must_write(b, AT, 2);
	assert_true(meanwhile_happened());
	world->check_every = 1;
	world_check(world);
	assert_int_equal(copied_since(b, &before), 0);
	assert_int_equal(guest_table(b, AT, 1).v, table.v);
	/* It shows private memory now, so nobody else finds it. */
	assert_int_equal(usage_of(b).indexed, 0);
	guest_must_read(b, AT, 2);
	world_destroy(world);
}

static void F6_a_copy_takes_references(void **state)
{
	struct guest *a = guest_in_world(state);
	struct guest *b;

	guest_must_write(a, AT, 1);
	guest_must_write(a, AT + KIB4, 2);
	guest_must_write(a, AT + MIB2, 3);
	assert_int_equal(usage_of(a).pages, 3);
	b = guest_must_clone(a);
	assert_int_equal(usage_of(a).pages, 3);
	guest_must_write(b, AT, 4);
	/* Of the leaf's pages one is new, the other is mapped by both copies of the leaf. */
	assert_int_equal(usage_of(a).pages, 4);
	assert_int_equal(space_usage_of(b).pages_alone, 1);
	assert_int_equal(space_usage_of(b).pages_shared, 2);
	assert_int_equal(space_usage_of(b).tables_alone, 4);
	assert_int_equal(space_usage_of(b).tables_shared, 1);
	guest_destroy(a);
	assert_int_equal(usage_of(b).pages, 3);
	guest_must_read(b, AT + KIB4, 2);
	guest_must_read(b, AT + MIB2, 3);
	assert_int_equal(space_usage_of(b).pages_alone, 3);
	world_destroy(b->world);
}

static void F7_read_faults_never_unshare(void **state)
{
	struct guest *a = guest_in_world(state);
	struct ept_counters before;
	struct guest *b;

	guest_must_write(a, AT, 1);
	b = guest_must_clone(a);
	before = counters_of(a);
	for (uint64_t page = 1; page < PAGES; page += 100) {
		guest_must_read(b, AT + page * KIB4, world_stamp(the_file, page, 0));
		assert_int_equal(guest_exec(b, AT + page * KIB4), EPT_OK);
	}
	assert_int_equal(copied_since(a, &before), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_true(same_table(a, b, AT + i * MIB2, 1));
	world_destroy(a->world);
}

/* Whatever changes mappings gives the guest tables of its own first. */
static void F17_changes_of_mappings_unshare(void **state)
{
	static const uint64_t places[] = {0, MIB2, 2 * MIB2, 3 * MIB2};
	struct guest *a = guest_in_world(state);
	struct guest *clones[3];

	for (unsigned i = 0; i < 4; i++)
		guest_must_write(a, AT + places[i], 100 + i);
	for (unsigned i = 0; i < 3; i++)
		clones[i] = guest_must_clone(a);
	assert_int_equal(guest_unmap(clones[0], AT + MIB2, KIB4), EPT_OK);
	assert_int_equal(guest_protect(clones[1], AT + MIB2, KIB4, EPT_READ), EPT_OK);
	guest_must_map(clones[2], 5 * GIB1, MIB2, the_file, 0, RWX);
	assert_int_equal(guest_exec(a, 5 * GIB1), EPT_OUTSIDE);
	assert_int_equal(guest_exec(clones[0], AT + MIB2), EPT_OUTSIDE);
	assert_int_equal(guest_write(clones[1], AT + MIB2, 1), EPT_DENIED);
	guest_must_read(clones[1], AT + MIB2, 101);
	guest_must_write(a, AT + MIB2, 9);
	guest_must_read(clones[2], AT + MIB2, 101);
	guest_must_read(clones[2], 5 * GIB1, world_stamp(the_file, 0, 0));
	world_destroy(a->world);
}

static void F18_cow_of_tables_costs_one_upper_entry(void **state)
{
	struct guest *a = guest_in_world(state);

	for (unsigned page = 0; page < EPT_ENTRIES; page++)
		guest_must_write(a, AT + page * KIB4, page);
	guest_must_clone(a);
	assert_int_equal(a->last.gate_edits, 1);
	/* The second time it is protected already. */
	guest_must_clone(a);
	assert_int_equal(a->last.gate_edits, 0);
	world_destroy(a->world);
}

/* Both vCPUs have the right to write cached when a clone is made: both lose it. */
static void F22_cloning_takes_rights_from_all_vcpus(void **state)
{
	struct guest *a = guest_in_world(state);
	struct guest *b;

	for (unsigned vcpu = 0; vcpu < PORT_VCPUS; vcpu++) {
		a->vcpu = vcpu;
		guest_must_write(a, AT, vcpu);
	}
	b = guest_must_clone(a);
	for (unsigned vcpu = 0; vcpu < PORT_VCPUS; vcpu++) {
		a->vcpu = vcpu;
		guest_must_write(a, AT, 10 + vcpu);
		guest_must_read(b, AT, PORT_VCPUS - 1);
	}
	world_destroy(a->world);
}

/* One vCPU's write gives the page a copy: no other vCPU goes on reading the old one. */
static void F22_a_copied_page_is_seen_by_all_vcpus(void **state)
{
	struct guest *a = guest_in_world(state);
	struct guest *b;

	a->vcpu = 0;
	guest_must_write(a, AT + KIB4, 1);
	guest_must_read(a, AT, world_stamp(the_file, 0, 0));
	a->vcpu = 1;
	guest_must_read(a, AT, world_stamp(the_file, 0, 0));
	guest_must_write(a, AT, 2);
	a->vcpu = 0;
	guest_must_read(a, AT, 2);
	/* The same where tables are copied on the way. */
	b = guest_must_clone(a);
	for (b->vcpu = 0; b->vcpu < PORT_VCPUS; b->vcpu++)
		guest_must_read(b, AT, 2);
	b->vcpu = 0;
	guest_must_write(b, AT, 3);
	b->vcpu = 1;
	guest_must_read(b, AT, 3);
	guest_must_read(a, AT, 2);
	world_destroy(a->world);
}

static void T3_private_memory_is_shared_until_written(void **state)
{
	struct guest *a = guest_in_world(state);
	struct guest *b;

	guest_must_write(a, AT, 1);
	b = guest_must_clone(a);
	guest_must_read(b, AT, 1);
	assert_true(same_table(a, b, AT, 1));
	assert_int_equal(space_usage_of(b).pages_alone, 0);
	assert_int_equal(space_usage_of(b).pages_shared, 1);
	guest_must_write(b, AT, 2);
	assert_int_equal(space_usage_of(b).pages_alone, 1);
	assert_int_equal(space_usage_of(a).pages_alone, 1);
	world_destroy(a->world);
}

static void T5_unsharing_goes_down_the_path_only(void **state)
{
	struct guest *a = guest_in_world(state);
	struct ept_counters before;
	struct guest *b;

	guest_must_map(a, AT + GIB1, PAGES * KIB4, the_file, 0, RWX);
	for (unsigned i = 0; i < 4; i++) {
		guest_must_write(a, AT + i * MIB2, i);
		guest_must_write(a, AT + GIB1 + i * MIB2, i);
	}
	b = guest_must_clone(a);
	before = counters_of(a);
	guest_must_write(b, AT + MIB2, 7);
	assert_int_equal(copied_since(a, &before), 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(same_table(a, b, AT + i * MIB2, 1), i != 1);
	assert_true(same_table(a, b, AT + GIB1, 2));
	assert_int_equal(space_usage_of(b).tables_alone, 4);
	assert_int_equal(space_usage_of(b).tables_shared, 3 + 5);
	world_destroy(a->world);
}

/* What a reset costs after @written pages were written, in a guest of @tables leaf tables. */
static unsigned reset_edits(void **state, unsigned tables, unsigned written)
{
	struct guest *a = guest_in_world(state);
	unsigned edits;
	struct guest *b;

	for (unsigned i = 0; i < tables; i++)
		guest_must_write(a, AT + i * MIB2, 10 + i);
	assert_int_equal(guest_freeze(a), EPT_OK);
	b = guest_must_clone(a);
	for (unsigned page = 0; page < written; page++)
		guest_must_write(b, AT + page * KIB4, 50);
	assert_int_equal(guest_reset(b), EPT_OK);
	edits = b->last.gate_edits + b->last.plain_edits;
	assert_in_range(b->last.invalidations, 0, 1);
	assert_int_equal(space_usage_of(b).tables_alone, 0);
	for (unsigned i = 0; i < tables; i++) {
		guest_must_read(b, AT + i * MIB2, 10 + i);
		assert_true(same_table(a, b, AT + i * MIB2, 1));
	}
	guest_must_read(b, AT + KIB4, world_stamp(the_file, 1, 0));
	world_destroy(a->world);
	return edits;
}

static void B1_reset_costs_what_was_written(void **state)
{
	/* Going back to the parent's root edits nothing; dropping one's own costs what is in it. */
	assert_int_equal(reset_edits(state, 4, 0), 0);
	assert_int_equal(reset_edits(state, 1, 8), 0);
	assert_int_equal(reset_edits(state, 4, 8), 0);
}

static void B1_reset_brings_back_regions(void **state)
{
	struct guest *a = guest_in_world(state);
	struct guest *b, *c;

	guest_must_write(a, AT, 1);
	assert_int_equal(guest_freeze(a), EPT_OK);
	b = guest_must_clone(a);
	assert_int_equal(guest_unmap(b, AT, MIB2), EPT_OK);
	assert_int_equal(guest_protect(b, AT + MIB2, MIB2, EPT_READ), EPT_OK);
	guest_must_map(b, 100 * GIB512, MIB2, the_file, 0, RWX);
	guest_must_write(b, 100 * GIB512, 5);
	c = guest_must_clone(b);
	assert_int_equal(guest_reset(b), EPT_OK);
	guest_must_read(b, AT, 1);
	guest_must_write(b, AT + MIB2, 2);
	assert_int_equal(guest_exec(b, 100 * GIB512), EPT_OUTSIDE);
	/* Its clone has what it had. */
	guest_must_read(c, 100 * GIB512, 5);
	assert_int_equal(guest_exec(c, AT), EPT_OUTSIDE);
	/* Nobody but a clone of a frozen parent can go back. */
	assert_int_equal(guest_reset(c), EPT_NO_PARENT);
	assert_int_equal(guest_reset(a), EPT_NO_PARENT);
	world_destroy(a->world);
}

/* Neither can who is frozen, even as a clone of a frozen one. */
static void B1_a_frozen_clone_is_not_reset(void **state)
{
	struct guest *a = guest_in_world(state);
	struct guest *b, *c;

	guest_must_write(a, AT, 1);
	assert_int_equal(guest_freeze(a), EPT_OK);
	b = guest_must_clone(a);
	guest_must_write(b, AT, 2);
	assert_int_equal(guest_freeze(b), EPT_OK);
	assert_int_equal(guest_reset(b), EPT_NO_PARENT);
	c = guest_must_clone(b);
	guest_must_write(c, AT, 3);
	assert_int_equal(guest_reset(c), EPT_OK);
	guest_must_read(c, AT, 2);
	guest_must_read(b, AT, 2);
	guest_must_read(a, AT, 1);
	world_destroy(a->world);
}

/* 512 GiB whose writes go to the file have a table of level 3 to which all may write, in clones
 * too. */
static void S2_an_entry_of_the_root_stays_writable_where_all_may_write(void **state)
{
	struct guest *a = guest_in_world(state);
	/* Nothing of it is read or written, so there need not be memory behind it. */
	struct ept_file file = {
		.window = {UINT64_C(1) << 48},
		.pages = GIB512 / KIB4,
		.writable = true,
	};
	int number = ept_file_add(a->world->ept, &file);
	struct ept_region region = region_of(GIB512, GIB512, (uint32_t)number, 0, RW);
	unsigned rights;
	struct guest *b;
	struct fpa page;

	assert_true(number >= 0);
	region.mode = EPT_SHARED;
	assert_int_equal(guest_map(a, &region), EPT_OK);
	assert_int_equal(guest_fault(a, GIB512, EPT_WRITE), EPT_OK);
	guest_must_write(a, AT, 1);
	b = guest_must_clone(a);
	/* One for the span of AT, none for that of the file. */
	assert_int_equal(a->last.gate_edits, 1);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(ept_space_translate(b->space, (struct gpa){GIB512}, &page, &rights));
		assert_int_equal(rights, RW);
		assert_int_equal(page.v, file.window.v);
		assert_true(same_table(a, b, GIB512, 3));
		/* Now with a root of its own. */
		guest_must_write(b, AT, 2);
		assert_int_equal(same_table(a, b, AT, EPT_ROOT_LEVEL), false);
	}
	assert_int_equal(guest_fault(b, GIB512 + GIB1, EPT_WRITE), EPT_OK);
	assert_true(ept_space_translate(a->space, (struct gpa){GIB512 + GIB1}, &page, &rights));
	assert_int_equal(rights, RW);
	guest_must_read(a, AT, 1);
	world_destroy(a->world);
}

/* A frozen parent that its owner ended stays for its clones. */
static void B1_reset_after_the_parents_end(void **state)
{
	struct guest *a = guest_in_world(state);
	struct guest *b;

	guest_must_write(a, AT, 1);
	assert_int_equal(guest_freeze(a), EPT_OK);
	assert_int_equal(guest_write(a, AT, 2), EPT_FROZEN);
	b = guest_must_clone(a);
	guest_destroy(a);
	guest_must_write(b, AT, 3);
	assert_int_equal(guest_reset(b), EPT_OK);
	guest_must_read(b, AT, 1);
	world_destroy(b->world);
}

/*
 * own.c, ept_own_root(): the root is copied, and nothing else, for there is nothing below. The
 * vCPUs must enter with it.
 */
static void F22_vcpus_enter_with_a_copied_root(void **state)
{
	struct guest *a = guest_in_world(state);
	struct ept_counters before;
	struct guest *b;

	guest_must_map(a, AT + GIB512, MIB2, the_file, 0, RWX);
	guest_must_write(a, AT, 1);
	b = guest_must_clone(a);
	before = counters_of(a);
	guest_must_write(b, AT + GIB512, 2);
	assert_int_equal(copied_since(a, &before), 1);
	assert_int_equal(b->root.v, guest_table(b, AT, EPT_ROOT_LEVEL).v);
	for (b->vcpu = 0; b->vcpu < PORT_VCPUS; b->vcpu++)
		guest_must_read(b, AT + GIB512, 2);
	guest_must_read(a, AT + GIB512, world_stamp(the_file, 0, 0));
	world_destroy(a->world);
}

/*
 * own.c, replace(): only the lowest table is copied, with one of its pages. What the other vCPU has
 * cached of the page came through the table that was copied.
 */
static void F22_a_copied_table_is_seen_by_all_vcpus(void **state)
{
	struct guest *a = guest_in_world(state);
	struct ept_counters before;
	struct guest *b;

	guest_must_write(a, AT, 1);
	b = guest_must_clone(a);
	guest_must_write(b, AT + MIB2, 2);
	for (b->vcpu = 0; b->vcpu < PORT_VCPUS; b->vcpu++)
		guest_must_read(b, AT, 1);
	before = counters_of(a);
	b->vcpu = 0;
	guest_must_write(b, AT, 3);
	assert_int_equal(copied_since(a, &before), 1);
	b->vcpu = 1;
	guest_must_read(b, AT, 3);
	guest_must_read(a, AT, 1);
	world_destroy(a->world);
}

/* map.c, private_leaf(): the right to write is back in the region, but the page has two users. */
static void S2_new_rights_do_not_make_a_shared_page_writable(void **state)
{
	struct guest *a = guest_in_world(state);
	struct guest *b;
	uint64_t entry;

	guest_must_write(a, AT, 1);
	b = guest_must_clone(a);
	/* The tables are its own, the page is not. */
	guest_must_write(a, AT + KIB4, 2);
	assert_int_equal(guest_protect(a, AT, 2 * KIB4, RX), EPT_OK);
	assert_int_equal(guest_write(a, AT, 3), EPT_DENIED);
	assert_int_equal(guest_protect(a, AT, 2 * KIB4, RWX), EPT_OK);
	entry = guest_entry(a, AT, 1);
	assert_true(entry && !ept_entry_writable(*state, entry));
	guest_must_write(a, AT, 4);
	guest_must_write(a, AT + KIB4, 5);
	guest_must_read(b, AT, 1);
	world_destroy(a->world);
}

/*
 * clone.c, ept_space_reset(): a reset that has to copy tables, as this one is not to be shared, and
 * finds none. The regions come last, for they cannot be brought back.
 */
static void S10_a_reset_that_finds_no_table_leaves_the_regions(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world;
	struct guest *a, *b;

	options.share_until = 1;
	options.tables = 8;
	world = world_create(&options);
	the_file = world_file(world, PAGES, false);
	a = guest_create(world, 0, true);
	guest_must_map(a, AT, 2 * MIB2, the_file, 0, RWX);
	guest_must_write(a, AT, 1);
	assert_int_equal(guest_freeze(a), EPT_OK);
	b = guest_must_clone(a);
	guest_must_write(b, AT, 2);
	assert_int_equal(guest_unmap(b, AT + MIB2, MIB2), EPT_OK);
	assert_int_equal(guest_reset(b), EPT_NO_TABLE);
	guest_must_read(b, AT, 2);
	assert_int_equal(guest_exec(b, AT + MIB2), EPT_OUTSIDE);
	world_destroy(world);
}

/*
 * change.c, settle_held(): a table that was made by a read could be restored from its region until
 * the write, and no longer; new rights must not drop it.
 */
static void F17_what_was_read_and_then_written_stays(void **state)
{
	struct guest *a = guest_in_world(state);

	guest_must_read(a, AT, world_stamp(the_file, 0, 0));
	guest_must_write(a, AT, 1);
	assert_int_equal(guest_protect(a, AT, MIB2, RX), EPT_OK);
	guest_must_read(a, AT, 1);
	world_destroy(a->world);
}

/*
 * own.c, copy_alone(): a clone that is not to share has tables of its own, and the pages are
 * shared. The parent's entries still grant writing to them when its path does again.
 */
static void F12_a_clone_that_shares_no_table_shares_pages(void **state)
{
	struct world_options options = world_defaults(*state);
	struct guest *a, *b;
	struct world *world;

	options.share_from = 1;
	world = world_create(&options);
	the_file = world_file(world, PAGES, false);
	a = guest_create(world, 0, true);
	guest_must_map(a, AT, MIB2, the_file, 0, RWX);
	guest_must_write(a, AT, 1);
	guest_must_write(a, AT + KIB4, 2);
	b = guest_must_clone(a);
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		assert_false(same_table(a, b, AT, level));
	assert_int_equal(space_usage_of(a).pages_shared, 2);
	guest_must_write(a, AT, 3);
	guest_must_write(a, AT + KIB4, 4);
	guest_must_read(b, AT, 1);
	guest_must_read(b, AT + KIB4, 2);
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(F2_clone_shares_tables_and_copies_no_entries),
		EACH_FORMAT(F2_a_guest_without_regions_is_cloned),
		EACH_FORMAT(F3_private_and_writable_is_protected_when_shared),
		EACH_FORMAT(F3_rights_that_a_shared_table_kept_are_taken_back),
		EACH_FORMAT(F4_joining_a_table_never_overwrites),
		EACH_FORMAT(F5_write_unshares_the_tables_on_its_path),
		EACH_FORMAT(F5_a_table_whose_count_fell_to_one_is_kept),
		EACH_FORMAT(F5_a_root_that_its_others_left_meanwhile_is_kept),
		EACH_FORMAT(F5_a_table_that_its_others_left_meanwhile_is_kept),
		EACH_FORMAT(F6_a_copy_takes_references),
		EACH_FORMAT(F7_read_faults_never_unshare),
		EACH_FORMAT(F17_changes_of_mappings_unshare),
		EACH_FORMAT(F18_cow_of_tables_costs_one_upper_entry),
		EACH_FORMAT(F22_cloning_takes_rights_from_all_vcpus),
		EACH_FORMAT(F22_a_copied_page_is_seen_by_all_vcpus),
		EACH_FORMAT(T3_private_memory_is_shared_until_written),
		EACH_FORMAT(T5_unsharing_goes_down_the_path_only),
		EACH_FORMAT(B1_reset_costs_what_was_written),
		EACH_FORMAT(B1_reset_brings_back_regions),
		EACH_FORMAT(B1_a_frozen_clone_is_not_reset),
		EACH_FORMAT(S2_an_entry_of_the_root_stays_writable_where_all_may_write),
		EACH_FORMAT(B1_reset_after_the_parents_end),
		EACH_FORMAT(F22_vcpus_enter_with_a_copied_root),
		EACH_FORMAT(F22_a_copied_table_is_seen_by_all_vcpus),
		EACH_FORMAT(S2_new_rights_do_not_make_a_shared_page_writable),
		EACH_FORMAT(S10_a_reset_that_finds_no_table_leaves_the_regions),
		EACH_FORMAT(F17_what_was_read_and_then_written_stays),
		EACH_FORMAT(F12_a_clone_that_shares_no_table_shares_pages),
	};

	return cmocka_run_group_tests_name("ept.clone", tests, NULL, NULL);
}
