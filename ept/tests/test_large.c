// SPDX-License-Identifier: MIT
/* Entries of 2 MiB: how they come to be, are shared and broken; rows of docs/sharing.md, by id. */
#include "ept_internal.h"
#include "port.h"

#define AT	   (UINT64_C(4) * GIB1)
#define FAR	   (GIB512 * 7 + GIB1 * 3)
#define SPANS	   4
#define PAGES	   (2 * GIB1 / KIB4)
#define SPAN_OF(n) (AT + (n)*MIB2)

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

static struct ept_region large_region(uint64_t start, uint64_t bytes, uint32_t file, uint64_t page)
{
	struct ept_region region = region_of(start, bytes, file, page, RWX);

	region.large = true;
	return region;
}

static void must_map(struct guest *guest, const struct ept_region *region)
{
	assert_int_equal(guest_map(guest, region), EPT_OK);
}

/* A guest that privately maps @bytes of @file at @start from its first page, by 2 MiB. */
static struct guest *guest_with(struct world *world, uint64_t start, uint64_t bytes, uint32_t file)
{
	struct guest *guest = guest_create(world, 0, true);
	struct ept_region region = large_region(start, bytes, file, 0);

	must_map(guest, &region);
	return guest;
}

/* The same, of mode EPT_SHARED. */
static struct guest *guest_with_shared(struct world *world, uint64_t start, uint64_t bytes,
				       uint32_t file)
{
	struct guest *guest = guest_create(world, 0, true);
	struct ept_region region = large_region(start, bytes, file, 0);

	region.mode = EPT_SHARED;
	must_map(guest, &region);
	return guest;
}

static void must_read_file(struct guest *guest, uint64_t gpa, uint32_t file, uint64_t page)
{
	guest_must_read(guest, gpa, world_stamp(file, page, 0));
}

static bool is_large(struct guest *guest, uint64_t gpa)
{
	uint64_t entry = guest_entry(guest, gpa, 2);

	return ept_entry_present(entry) && ept_entry_is_leaf(guest->world->format, 2, entry);
}

/* The entry of 2 MiB that a private region of all rights has for @page of @file. */
static uint64_t large_entry(struct world *world, uint32_t file, uint64_t page, unsigned rights)
{
	return ept_entry_large_leaf(world->format, world_file_page(world, file, page), rights);
}

static bool same_table(struct guest *a, uint64_t gpa_a, struct guest *b, uint64_t gpa_b,
		       unsigned level)
{
	struct fpa table = guest_table(a, gpa_a, level);

	return table.v && table.v == guest_table(b, gpa_b, level).v;
}

static uint32_t use_count(struct guest *guest, uint64_t gpa, unsigned level)
{
	return ept_table_of(guest->world->ept, guest_table(guest, gpa, level))->use_count;
}

/* Breaks since @before. */
static uint64_t broken(struct world *world, const struct ept_counters *before)
{
	return counters_of(world).leaves_broken - before->leaves_broken;
}

static uint64_t copied(struct world *world, const struct ept_counters *before)
{
	return counters_of(world).tables_copied - before->tables_copied;
}

/* The table in the place of the entry at @gpa maps what the entry did, but for the page @written.
 */
static void must_be_broken(struct guest *guest, uint64_t gpa, uint32_t file, uint64_t page,
			   unsigned written)
{
	struct world *world = guest->world;

	assert_false(is_large(guest, gpa));
	for (unsigned i = 0; i < EPT_ENTRIES; i++) {
		uint64_t entry = guest_entry(guest, gpa + i * KIB4, 1);
		struct fpa target = ept_entry_target(world->format, entry);

		if (i == written) {
			assert_true(world_is_private(world, target));
			assert_true(ept_entry_writable(world->format, entry));
			continue;
		}
		assert_int_equal(entry, ept_entry_leaf(world->format,
						       world_file_page(world, file, page + i), RX));
		must_read_file(guest, gpa + i * KIB4, file, page + i);
	}
}

static void F25_5_a_private_write_breaks_a_2_mib_entry(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, SPANS * MIB2, file);
	struct guest *b = guest_with(world, AT, SPANS * MIB2, file);
	struct ept_counters before;

	must_read_file(a, AT, file, 0);
	must_read_file(b, AT, file, 0);
	assert_int_equal(usage_of(world).tables[1], 0);
	before = counters_of(world);
	assert_int_equal(guest_fault(a, SPAN_OF(1) + 5 * KIB4, EPT_WRITE), EPT_OK);
	/* Two entries above get the right to write, and one table comes in the place of the entry.
	 */
	assert_int_equal(a->last.gate_edits, 3);
	assert_int_equal(a->last.plain_edits, 0);
	assert_int_equal(a->last.copies, 1);
	assert_int_equal(a->last.invalidations, 1);
	assert_int_equal(broken(world, &before), 1);
	assert_int_equal(copied(world, &before), 0);
	assert_int_equal(usage_of(world).tables[1], 1);
	assert_int_equal(usage_of(world).pages, 1);
	guest_must_write(a, SPAN_OF(1) + 5 * KIB4 + 8, 77);
	must_read_file(a, SPAN_OF(1) + 5 * KIB4, file, EPT_ENTRIES + 5);
	must_be_broken(a, SPAN_OF(1), file, EPT_ENTRIES, 5);
	for (unsigned i = 0; i < SPANS; i++) {
		assert_int_equal(guest_entry(b, SPAN_OF(i), 2),
				 large_entry(world, file, i * EPT_ENTRIES, RX));
		if (i != 1)
			assert_int_equal(guest_entry(a, SPAN_OF(i), 2),
					 large_entry(world, file, i * EPT_ENTRIES, RX));
	}
	must_read_file(b, SPAN_OF(1) + 5 * KIB4, file, EPT_ENTRIES + 5);
	/* A second page of the same span costs an entry of 4 KiB, another span one break. */
	assert_int_equal(guest_fault(a, SPAN_OF(1) + 6 * KIB4, EPT_WRITE), EPT_OK);
	assert_int_equal(a->last.gate_edits, 1);
	assert_int_equal(broken(world, &before), 1);
	assert_int_equal(guest_fault(a, SPAN_OF(3) + 511 * KIB4, EPT_WRITE), EPT_OK);
	assert_int_equal(a->last.gate_edits, 1);
	assert_int_equal(a->last.copies, 1);
	assert_int_equal(broken(world, &before), 2);
	must_be_broken(a, SPAN_OF(3), file, 3 * EPT_ENTRIES, 511);
	world_destroy(world);
}

/* The PD is in the index, and another guest's too: it is copied first, and the copy's entry broken.
 */
static void F25_5_in_a_table_from_the_index(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, GIB1, file);
	struct guest *b = guest_with(world, FAR, GIB1, file);
	struct guest *c = guest_with(world, AT, GIB1, file);
	struct ept_counters before;
	struct fpa pd;

	must_read_file(a, AT, file, 0);
	must_read_file(b, FAR, file, 0);
	pd = guest_table(b, FAR, 2);
	before = counters_of(world);
	assert_int_equal(guest_fault(a, SPAN_OF(1) + 5 * KIB4, EPT_WRITE), EPT_OK);
	/* One entry above gets the right to write, one points at the copy. */
	assert_int_equal(a->last.gate_edits, 2);
	assert_int_equal(a->last.plain_edits, 0);
	assert_int_equal(a->last.copies, 1);
	assert_int_equal(copied(world, &before), 1);
	assert_int_equal(broken(world, &before), 1);
	guest_must_write(a, SPAN_OF(1) + 5 * KIB4, 77);
	must_be_broken(a, SPAN_OF(1), file, EPT_ENTRIES, 5);
	assert_int_equal(guest_table(b, FAR, 2).v, pd.v);
	assert_int_equal(use_count(b, FAR, 2), 1);
	for (unsigned i = 0; i < EPT_ENTRIES; i++) {
		assert_int_equal(guest_entry(b, FAR + i * MIB2, 2),
				 large_entry(world, file, i * EPT_ENTRIES, RX));
		assert_int_equal(is_large(a, SPAN_OF(i)), i != 1);
	}
	must_read_file(b, FAR + MIB2 + 5 * KIB4, file, EPT_ENTRIES + 5);
	/* Who comes now finds the one without the break. */
	must_read_file(c, AT, file, 0);
	assert_true(same_table(b, FAR, c, AT, 2));
	world_destroy(world);
}

/* With a clone the whole path is shared: it is unshared as far as the PD, whose entry is broken. */
static void F25_5_in_a_clone(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, SPANS * MIB2, file);
	struct ept_counters before;
	struct guest *b;

	must_read_file(a, AT, file, 0);
	b = guest_must_clone(a);
	before = counters_of(world);
	assert_int_equal(guest_fault(b, SPAN_OF(1), EPT_WRITE), EPT_OK);
	assert_int_equal(copied(world, &before), 3);
	assert_int_equal(broken(world, &before), 1);
	assert_int_equal(b->last.copies, 1);
	assert_int_equal(b->last.gate_edits + b->last.plain_edits, 0);
	guest_must_write(b, SPAN_OF(1), 7);
	must_be_broken(b, SPAN_OF(1), file, EPT_ENTRIES, 0);
	for (unsigned i = 0; i < SPANS; i++) {
		assert_true(is_large(a, SPAN_OF(i)));
		assert_int_equal(is_large(b, SPAN_OF(i)), i != 1);
	}
	must_read_file(a, SPAN_OF(1), file, EPT_ENTRIES);
	/* The parent has its tables for itself now. */
	assert_int_equal(guest_fault(a, SPAN_OF(1), EPT_WRITE), EPT_OK);
	assert_int_equal(a->last.gate_edits, 3);
	assert_int_equal(copied(world, &before), 3);
	guest_must_write(a, SPAN_OF(1), 8);
	guest_must_read(b, SPAN_OF(1), 7);
	world_destroy(world);
}

/* A table that a break made is a table like others: clones have it too until they write. */
static void F25_5_then_cloned(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, SPANS * MIB2, file);
	struct ept_counters before;
	struct guest *b;

	guest_must_read(a, AT, world_stamp(file, 0, 0));
	guest_must_write(a, SPAN_OF(1), 1);
	b = guest_must_clone(a);
	before = counters_of(world);
	guest_must_write(b, SPAN_OF(1) + KIB4, 2);
	guest_must_write(a, SPAN_OF(1), 3);
	guest_must_read(b, SPAN_OF(1), 1);
	guest_must_write(b, SPAN_OF(1), 4);
	guest_must_read(a, SPAN_OF(1), 3);
	must_read_file(a, SPAN_OF(1) + KIB4, file, EPT_ENTRIES + 1);
	assert_int_equal(broken(world, &before), 0);
	guest_must_write(b, SPAN_OF(2), 5);
	must_read_file(a, SPAN_OF(2), file, 2 * EPT_ENTRIES);
	assert_int_equal(broken(world, &before), 1);
	world_destroy(world);
}

static void T8_guests_that_map_privately_break_for_themselves(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct ept_counters before = counters_of(world);
	struct guest *guests[4];

	for (unsigned i = 0; i < 4; i++) {
		guests[i] = guest_with(world, AT + i * GIB1, GIB1, file);
		must_read_file(guests[i], AT + i * GIB1, file, 0);
	}
	assert_int_equal(usage_of(world).tables[2], 1);
	for (unsigned i = 0; i < 4; i++)
		guest_must_write(guests[i], AT + i * GIB1 + i * MIB2 + 9 * KIB4, i);
	/* The last one has the table for itself, and breaks an entry of it in place. */
	assert_int_equal(copied(world, &before), 3);
	assert_int_equal(broken(world, &before), 4);
	assert_int_equal(usage_of(world).pages, 4);
	assert_int_equal(usage_of(world).indexed, 0);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned j = 0; j < 4; j++) {
			uint64_t at = AT + i * GIB1 + j * MIB2;

			assert_int_equal(is_large(guests[i], at), i != j);
			guest_must_read(guests[i], at + 9 * KIB4,
					i == j ? i : world_stamp(file, j * EPT_ENTRIES + 9, 0));
			must_read_file(guests[i], at + 10 * KIB4, file, j * EPT_ENTRIES + 10);
		}
	world_destroy(world);
}

static void F26_a_table_of_2_mib_entries_is_shared(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *guests[2] = {guest_create(world, 0, true), guest_create(world, 0, true)};
	/* From the file's second span on, at addresses that have their place in 1 GiB in common. */
	const uint64_t starts[2] = {AT, FAR};

	for (unsigned g = 0; g < 2; g++) {
		struct ept_region region = large_region(starts[g], GIB1, file, EPT_ENTRIES);

		must_map(guests[g], &region);
		assert_int_equal(guest_exec(guests[g], starts[g] + 7 * MIB2), EPT_OK);
	}
	assert_true(same_table(guests[0], AT, guests[1], FAR, 2));
	assert_int_equal(use_count(guests[0], AT, 2), 2);
	assert_int_equal(usage_of(world).tables[1], 0);
	assert_int_equal(usage_of(world).tables[2], 1);
	assert_int_equal(usage_of(world).indexed, 1);
	assert_int_equal(counters_of(world).tables_shared, 1);
	for (unsigned g = 0; g < 2; g++) {
		for (uint64_t i = 0; i < EPT_ENTRIES; i++) {
			uint64_t at = starts[g] + i * MIB2 + (i * 37 % EPT_ENTRIES) * KIB4;

			assert_true(is_large(guests[g], at));
			must_read_file(guests[g], at, file,
				       (i + 1) * EPT_ENTRIES + i * 37 % EPT_ENTRIES);
		}
		/* One fault each: the first one's filled all entries, the second one's found them.
		 */
		assert_int_equal(ept_space_faults(guests[g]->space), 1);
	}
	guest_destroy(guests[0]);
	assert_int_equal(use_count(guests[1], FAR, 2), 1);
	must_read_file(guests[1], FAR, file, EPT_ENTRIES);
	world_destroy(world);
}

/* And the table above, of 512 GiB, which has such tables below it. */
static void F26_upper_tables_are_shared(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, GIB512 / KIB4, false);
	struct guest *a = guest_with(world, GIB512, GIB512, file);
	struct guest *b = guest_with(world, 3 * GIB512, GIB512, file);
	uint64_t faults;

	must_read_file(a, GIB512, file, 0);
	must_read_file(b, 3 * GIB512, file, 0);
	assert_true(same_table(a, GIB512, b, 3 * GIB512, 3));
	faults = ept_space_faults(b->space);
	must_read_file(a, GIB512 + 9 * GIB1, file, 9 * GIB1 / KIB4);
	must_read_file(b, 3 * GIB512 + 10 * GIB1 - KIB4, file, 10 * GIB1 / KIB4 - 1);
	assert_int_equal(ept_space_faults(b->space), faults);
	assert_int_equal(usage_of(world).tables[1], 0);
	guest_must_write(b, 3 * GIB512 + 9 * GIB1, 5);
	must_read_file(a, GIB512 + 9 * GIB1, file, 9 * GIB1 / KIB4);
	world_destroy(world);
}

/* What one clone faults in, the other has, in a table that no index knows. */
static void F21_a_fault_fills_the_clones_table(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, SPANS * MIB2, file);
	struct ept_region region = large_region(SPAN_OF(8), 2 * MIB2, file, 0);
	struct guest *b;

	must_map(a, &region);
	must_read_file(a, AT, file, 0);
	/* Only the region's own entries are filled. */
	assert_int_equal(guest_entry(a, SPAN_OF(4), 2), 0);
	assert_int_equal(guest_entry(a, SPAN_OF(8), 2), 0);
	b = guest_must_clone(a);
	must_read_file(b, SPAN_OF(9), file, EPT_ENTRIES);
	assert_int_equal(b->last.plain_edits, 2);
	assert_true(same_table(a, AT, b, AT, 2));
	must_read_file(a, SPAN_OF(8), file, 0);
	assert_int_equal(ept_space_faults(a->space), 1);
	world_destroy(world);
}

/* A first access that is a write: the table is filled, and one of its entries is broken at once. */
static void F25_5_the_first_access_is_a_write(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, GIB1, file);

	guest_must_write(a, SPAN_OF(1) + 3 * KIB4, 9);
	assert_int_equal(a->last.gate_edits, 0);
	must_be_broken(a, SPAN_OF(1), file, EPT_ENTRIES, 3);
	for (unsigned i = 0; i < EPT_ENTRIES; i++) {
		assert_int_equal(is_large(a, SPAN_OF(i)), i != 1);
		must_read_file(a, SPAN_OF(i), file, i * EPT_ENTRIES);
	}
	assert_int_equal(ept_space_faults(a->space), 1);
	assert_int_equal(usage_of(world).indexed, 0);
	world_destroy(world);
}

/* A write to an absent entry of a table that is there brings 4 KiB, a read fills what is around it.
 */
static void F21_a_read_fills_around_entries_of_4_kib(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, SPANS * MIB2, file);
	struct ept_region region = large_region(SPAN_OF(8), 2 * MIB2, file, 0);

	must_map(a, &region);
	must_read_file(a, SPAN_OF(8), file, 0);
	guest_must_write(a, SPAN_OF(1) + 3 * KIB4, 9);
	must_be_broken(a, SPAN_OF(1), file, EPT_ENTRIES, 3);
	assert_int_equal(counters_of(world).leaves_broken, 0);
	assert_int_equal(guest_entry(a, AT, 2), 0);
	must_read_file(a, SPAN_OF(2), file, 2 * EPT_ENTRIES);
	assert_int_equal(a->last.plain_edits, SPANS - 1);
	for (unsigned i = 0; i < SPANS; i++)
		assert_int_equal(is_large(a, SPAN_OF(i)), i != 1);
	guest_must_read(a, SPAN_OF(1) + 3 * KIB4, 9);
	world_destroy(world);
}

static void F20_without_shared_pds_each_has_its_own(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world;
	struct guest *a, *b;
	uint32_t file;

	options.share_levels = 1u << 1 | 1u << 3;
	world = world_create(&options);
	file = world_file(world, PAGES, false);
	a = guest_with(world, AT, GIB1, file);
	b = guest_with(world, AT, GIB1, file);
	must_read_file(a, AT, file, 0);
	must_read_file(b, AT, file, 0);
	assert_false(same_table(a, AT, b, AT, 2));
	assert_true(is_large(a, AT) && is_large(b, AT));
	assert_int_equal(usage_of(world).indexed, 0);
	world_destroy(world);
}

static void S8_page_size_classes_are_never_shared(void **state)
{
	for (unsigned order = 0; order < 2; order++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		struct guest *guests[2];

		for (unsigned g = 0; g < 2; g++) {
			struct ept_region region = large_region(AT, GIB1, file, 0);

			region.large = g == order;
			guests[g] = guest_create(world, 0, true);
			must_map(guests[g], &region);
			must_read_file(guests[g], SPAN_OF(2), file, 2 * EPT_ENTRIES);
			assert_int_equal(is_large(guests[g], SPAN_OF(2)), g == order);
		}
		assert_false(same_table(guests[0], AT, guests[1], AT, 2));
		assert_int_equal(counters_of(world).tables_shared, 0);
		world_destroy(world);
	}
}

/* Neither are their tables of 4 KiB entries, where alignment leaves no others. */
static void S8_page_size_classes_without_alignment(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *guests[3];

	for (unsigned g = 0; g < 3; g++) {
		struct ept_region region = large_region(AT, SPANS * MIB2, file, 5);

		region.large = g > 0;
		guests[g] = guest_create(world, 0, true);
		must_map(guests[g], &region);
		must_read_file(guests[g], AT, file, 5);
	}
	assert_false(same_table(guests[0], AT, guests[1], AT, 1));
	assert_true(same_table(guests[1], AT, guests[2], AT, 1));
	world_destroy(world);
}

static void F14_modes_have_tables_of_their_own(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, GIB1 / KIB4, true);
	struct guest *a = guest_with(world, AT, GIB1, file);
	struct guest *b = guest_with_shared(world, AT, GIB1, file);

	must_read_file(a, AT, file, 0);
	must_read_file(b, AT, file, 0);
	assert_true(is_large(a, AT) && is_large(b, AT));
	assert_false(same_table(a, AT, b, AT, 2));
	world_destroy(world);
}

struct alignment {
	const char *what;
	uint64_t offset, bytes; /* of the region, from AT */
	uint64_t page;
	unsigned first, count; /* spans from AT on that are mapped by 2 MiB */
};

static const struct alignment alignments[] = {
	{"one span", 0, MIB2, 0, 0, 1},
	{"one span, elsewhere in the file", 0, MIB2, 3 * 512, 0, 1},
	{"the next span", MIB2, MIB2, 0, 1, 1},
	{"another phase by a page", 0, SPANS *MIB2, 1, 0, 0},
	{"another phase by a page less", 0, SPANS *MIB2, 511, 0, 0},
	{"another phase by half", 0, SPANS *MIB2, 256, 0, 0},
	{"an edge at the beginning", KIB4, SPANS *MIB2 - KIB4, 1, 1, SPANS - 1},
	{"an edge at the end", 0, SPANS *MIB2 - KIB4, 0, 0, SPANS - 1},
	{"both edges", MIB2 - KIB4, 2 * MIB2 + 2 * KIB4, 511, 1, 2},
	{"both edges, another phase", MIB2 - KIB4, 2 * MIB2 + 2 * KIB4, 510, 0, 0},
	{"edges without a whole span", KIB4, 2 * MIB2 - 2 * KIB4, 1, 0, 0},
	{"a page less than a span", 0, MIB2 - KIB4, 0, 0, 0},
	{"a span less its first page", KIB4, MIB2 - KIB4, 1, 0, 0},
	{"as long as a span", MIB2 / 2, MIB2, 256, 0, 0},
	{"one page", 0, KIB4, 0, 0, 0},
};

static void check_alignment(struct guest *guest, const struct alignment *row, uint32_t file,
			    bool written)
{
	for (uint64_t at = 0; at < row->bytes; at += KIB4) {
		uint64_t gpa = AT + row->offset + at;
		uint64_t span = (row->offset + at) / MIB2;
		bool large = span >= row->first && span < row->first + row->count;

		/* Its last page was written. */
		if (written && span == (row->offset + row->bytes - 1) / MIB2)
			large = false;
		if (written && at == row->bytes - KIB4)
			guest_must_read(guest, gpa, 5);
		else
			must_read_file(guest, gpa, file, row->page + at / KIB4);
		if (is_large(guest, gpa) != large)
			port_fail(guest->world, "%s: page %u is mapped by 2 MiB: %d", row->what,
				  (unsigned)(at / KIB4), !large);
	}
}

static void F26_what_is_not_aligned_has_4_kib_entries(void **state)
{
	for (size_t i = 0; i < sizeof(alignments) / sizeof(*alignments); i++) {
		const struct alignment *row = &alignments[i];
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		struct guest *guest = guest_create(world, 0, true);
		struct ept_region region =
			large_region(AT + row->offset, row->bytes, file, row->page);

		must_map(guest, &region);
		check_alignment(guest, row, file, false);
		guest_must_write(guest, AT + row->offset + row->bytes - KIB4, 5);
		check_alignment(guest, row, file, true);
		assert_int_equal(guest_read(guest, AT + row->offset - KIB4, &(uint64_t){0}),
				 EPT_OUTSIDE);
		assert_int_equal(guest_read(guest, AT + row->offset + row->bytes, &(uint64_t){0}),
				 EPT_OUTSIDE);
		world_destroy(world);
	}
}

/* A region cannot ask for what its file's place does not allow. */
static void F26_a_file_that_is_not_aligned_is_refused(void **state)
{
	struct world *world = world_of(state);
	struct guest *guest = guest_create(world, 0, true);
	struct ept_file file = {.window = {FAR * 8 + KIB4}, .pages = EPT_ENTRIES};
	int number = ept_file_add(world->ept, &file);
	struct ept_region region = large_region(AT, MIB2, (uint32_t)number, 0);

	assert_int_equal(guest_map(guest, &region), EPT_INVALID);
	region.large = false;
	assert_int_equal(guest_map(guest, &region), EPT_OK);
	world_destroy(world);
}

/* Regions side by side in one table: each fault fills what is its region's. */
static void F4_neighbours_of_both_sizes(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *guest = guest_with(world, AT, 2 * MIB2, file);
	struct ept_region small = large_region(SPAN_OF(2), MIB2, file, 2 * EPT_ENTRIES);
	struct ept_region next = large_region(SPAN_OF(3), 2 * MIB2, file, 7 * EPT_ENTRIES);

	small.large = false;
	must_map(guest, &small);
	must_map(guest, &next);
	must_read_file(guest, SPAN_OF(3), file, 7 * EPT_ENTRIES);
	assert_int_equal(guest_entry(guest, SPAN_OF(1), 2), 0);
	assert_int_equal(guest_entry(guest, SPAN_OF(2), 2), 0);
	must_read_file(guest, SPAN_OF(2), file, 2 * EPT_ENTRIES);
	must_read_file(guest, AT, file, 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(is_large(guest, SPAN_OF(i)), i != 2);
	guest_must_write(guest, SPAN_OF(2), 1);
	assert_int_equal(counters_of(world).leaves_broken, 0);
	world_destroy(world);
}

static void F7_reads_and_fetches_break_nothing(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, GIB1, file);
	struct guest *b = guest_must_clone(a);

	for (unsigned i = 0; i < EPT_ENTRIES; i += 73) {
		assert_int_equal(guest_fault(b, AT + i * (MIB2 + KIB4), EPT_READ), EPT_OK);
		assert_int_equal(guest_fault(b, AT + i * (MIB2 + KIB4), EPT_EXEC), EPT_OK);
		assert_int_equal(guest_exec(a, AT + i * (MIB2 + KIB4)), EPT_OK);
	}
	assert_int_equal(counters_of(world).leaves_broken, 0);
	assert_int_equal(counters_of(world).tables_copied, 0);
	assert_int_equal(usage_of(world).tables[1], 0);
	world_destroy(world);
}

static void F8_unmap_of_whole_entries_breaks_nothing(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, SPANS * MIB2, file);
	struct ept_counters before;
	uint64_t value;

	must_read_file(a, AT, file, 0);
	before = counters_of(world);
	assert_int_equal(guest_unmap(a, SPAN_OF(1), 2 * MIB2), EPT_OK);
	assert_int_equal(a->last.gate_edits, 2);
	assert_int_equal(a->last.plain_edits, 0);
	assert_int_equal(broken(world, &before), 0);
	for (unsigned i = 0; i < SPANS; i++)
		assert_int_equal(guest_read(a, SPAN_OF(i), &value),
				 i == 1 || i == 2 ? EPT_OUTSIDE : EPT_OK);
	assert_true(is_large(a, SPAN_OF(0)) && is_large(a, SPAN_OF(3)));
	world_destroy(world);
}

static void F8_unmap_of_a_whole_shared_table_touches_no_entry_of_it(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, GIB1, file);
	struct guest *b = guest_with(world, FAR, GIB1, file);

	must_read_file(a, AT, file, 0);
	must_read_file(b, FAR, file, 0);
	assert_int_equal(guest_unmap(a, AT, GIB1), EPT_OK);
	assert_int_equal(a->last.gate_edits, 1);
	assert_int_equal(use_count(b, FAR, 2), 1);
	assert_int_equal(counters_of(world).leaves_broken, 0);
	must_read_file(b, FAR + GIB1 - KIB4, file, GIB1 / KIB4 - 1);
	assert_int_equal(ept_space_faults(b->space), 1);
	world_destroy(world);
}

struct part {
	uint64_t start, bytes; /* from AT */
	unsigned breaks;
	unsigned small; /* spans that are mapped by 4 KiB, or not at all, afterwards: a bit each */
};

static const struct part parts[] = {
	{KIB4, KIB4, 1, 1u << 0},
	{0, KIB4, 1, 1u << 0},
	{MIB2 - KIB4, KIB4, 1, 1u << 0},
	{MIB2 - KIB4, 2 * KIB4, 2, 1u << 0 | 1u << 1},
	{MIB2 / 2, 3 * MIB2, 2, 1u << 0 | 1u << 1 | 1u << 2 | 1u << 3},
	{MIB2 / 2, MIB2 / 2, 1, 1u << 0},
	{MIB2 / 2, MIB2 / 2 + MIB2, 1, 1u << 0 | 1u << 1},
	{MIB2, MIB2 + KIB4, 1, 1u << 1 | 1u << 2},
	{0, SPANS *MIB2 - KIB4, 1, 1u << 0 | 1u << 1 | 1u << 2 | 1u << 3},
	{2 * MIB2, MIB2, 0, 1u << 2},
	{0, SPANS *MIB2, 0, 1u << 0 | 1u << 1 | 1u << 2 | 1u << 3},
};

#define PARTS (sizeof(parts) / sizeof(*parts))

static bool in_part(const struct part *part, uint64_t offset)
{
	return offset >= part->start && offset < part->start + part->bytes;
}

/* The region is GIB1 long where the table is to come from the index, and SPANS * MIB2 elsewhere. */
static void unmap_part(void **state, const struct part *part, uint64_t bytes)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, bytes, file);
	struct guest *b = guest_with(world, AT, bytes, file);
	struct ept_counters before;
	uint64_t value;

	must_read_file(a, AT, file, 0);
	must_read_file(b, AT, file, 0);
	before = counters_of(world);
	assert_int_equal(guest_unmap(a, AT + part->start, part->bytes), EPT_OK);
	assert_int_equal(broken(world, &before), part->breaks);
	for (unsigned i = 0; i < SPANS; i++) {
		assert_true(is_large(b, SPAN_OF(i)));
		assert_int_equal(is_large(a, SPAN_OF(i)), !(part->small >> i & 1));
	}
	for (uint64_t at = 0; at < SPANS * MIB2; at += KIB4) {
		assert_int_equal(guest_read(a, AT + at, &value),
				 in_part(part, at) ? EPT_OUTSIDE : EPT_OK);
		if (!in_part(part, at))
			assert_int_equal(value, world_stamp(file, at / KIB4, 0));
	}
	must_read_file(b, AT + part->start, file, part->start / KIB4);
	world_destroy(world);
}

static void F9_unmap_of_a_part_of_an_entry_breaks_it_first(void **state)
{
	for (size_t i = 0; i < PARTS; i++) {
		unmap_part(state, &parts[i], SPANS * MIB2);
		unmap_part(state, &parts[i], GIB1);
	}
}

static void protect_part(void **state, const struct part *part, uint64_t bytes)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, bytes, file);
	struct ept_counters before;
	struct guest *b;

	must_read_file(a, AT, file, 0);
	b = guest_must_clone(a);
	before = counters_of(world);
	assert_int_equal(guest_protect(a, AT + part->start, part->bytes, EPT_READ), EPT_OK);
	assert_int_equal(broken(world, &before), part->breaks);
	for (uint64_t at = 0; at < SPANS * MIB2; at += KIB4) {
		must_read_file(a, AT + at, file, at / KIB4);
		assert_int_equal(guest_exec(a, AT + at), in_part(part, at) ? EPT_DENIED : EPT_OK);
	}
	assert_int_equal(broken(world, &before), part->breaks);
	assert_int_equal(guest_write(a, AT + part->start, 1), EPT_DENIED);
	assert_int_equal(guest_exec(b, AT + part->start), EPT_OK);
	assert_true(is_large(b, AT + part->start));
	/* What is whole and has one kind of rights is mapped by 2 MiB again. */
	for (unsigned i = 0; i < SPANS; i++) {
		bool first = in_part(part, i * MIB2), last = in_part(part, (i + 1) * MIB2 - KIB4);

		if (first && last)
			assert_true(is_large(a, SPAN_OF(i)));
	}
	world_destroy(world);
}

static void F9_protect_of_a_part_of_an_entry_breaks_it_first(void **state)
{
	for (size_t i = 0; i < PARTS; i++) {
		protect_part(state, &parts[i], SPANS * MIB2);
		protect_part(state, &parts[i], GIB1);
	}
}

/* New rights for all of it, from the index, alone, and after some entries were broken. */
static void F9_protect_of_all_breaks_nothing(void **state)
{
	for (unsigned written = 0; written < 2; written++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		struct guest *a = guest_with(world, AT, GIB1, file);
		struct guest *b = guest_with(world, AT, GIB1, file);
		struct ept_counters before;

		must_read_file(a, AT, file, 0);
		must_read_file(b, AT, file, 0);
		if (written)
			guest_must_write(a, SPAN_OF(3) + KIB4, 4);
		before = counters_of(world);
		assert_int_equal(guest_protect(a, AT, GIB1, EPT_READ), EPT_OK);
		assert_int_equal(guest_exec(a, AT), EPT_DENIED);
		assert_int_equal(guest_write(a, SPAN_OF(3) + KIB4, 5), EPT_DENIED);
		must_read_file(a, SPAN_OF(2), file, 2 * EPT_ENTRIES);
		assert_int_equal(guest_entry(a, SPAN_OF(2), 2),
				 large_entry(world, file, 2 * EPT_ENTRIES, EPT_READ));
		assert_int_equal(guest_exec(b, SPAN_OF(2)), EPT_OK);
		assert_int_equal(guest_protect(a, AT, GIB1, RWX), EPT_OK);
		assert_int_equal(guest_exec(a, SPAN_OF(511)), EPT_OK);
		if (written)
			guest_must_read(a, SPAN_OF(3) + KIB4, 4);
		assert_int_equal(broken(world, &before), 0);
		assert_int_equal(is_large(a, SPAN_OF(3)), !written);
		world_destroy(world);
	}
}

/* A clone that unmaps, writes and goes back has its parent's entries again. */
static void B1_reset_brings_back_2_mib_entries(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, SPANS * MIB2, file);
	struct guest *b;

	must_read_file(a, AT, file, 0);
	assert_int_equal(guest_freeze(a), EPT_OK);
	b = guest_must_clone(a);
	guest_must_write(b, SPAN_OF(1) + KIB4, 3);
	assert_int_equal(guest_unmap(b, SPAN_OF(2) + KIB4, KIB4), EPT_OK);
	assert_false(is_large(b, SPAN_OF(1)) || is_large(b, SPAN_OF(2)));
	assert_int_equal(usage_of(world).tables[1], 2);
	assert_int_equal(guest_reset(b), EPT_OK);
	assert_int_equal(usage_of(world).tables[1], 0);
	assert_int_equal(usage_of(world).pages, 0);
	for (unsigned i = 0; i < SPANS; i++) {
		assert_int_equal(guest_entry(b, SPAN_OF(i), 2),
				 large_entry(world, file, i * EPT_ENTRIES, RX));
		must_read_file(b, SPAN_OF(i) + KIB4, file, i * EPT_ENTRIES + 1);
	}
	world_destroy(world);
}

static void F25_shared_writes_go_to_the_file_and_break_nothing(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, GIB1 / KIB4, true);
	struct guest *a = guest_with_shared(world, AT, GIB1, file);
	struct guest *b = guest_with_shared(world, FAR, GIB1, file);
	struct guest *c;

	/* The first access is a write, and fills the table that all have. */
	guest_must_write(a, SPAN_OF(1) + 5 * KIB4, 7);
	guest_must_read(b, FAR + MIB2 + 5 * KIB4, 7);
	guest_must_write(b, FAR + 9 * MIB2, 8);
	guest_must_read(a, SPAN_OF(9), 8);
	assert_true(same_table(a, AT, b, FAR, 2));
	assert_int_equal(guest_entry(a, SPAN_OF(3), 2),
			 large_entry(world, file, 3 * EPT_ENTRIES, RWX));
	assert_int_equal(ept_space_faults(a->space), 1);
	c = guest_must_clone(a);
	guest_must_write(c, SPAN_OF(2), 9);
	guest_must_read(a, SPAN_OF(2), 9);
	guest_must_write(a, SPAN_OF(2) + KIB4, 10);
	guest_must_read(b, FAR + 2 * MIB2 + KIB4, 10);
	assert_true(same_table(a, AT, c, AT, 2));
	assert_int_equal(counters_of(world).leaves_broken, 0);
	assert_int_equal(usage_of(world).tables[1], 0);
	assert_int_equal(usage_of(world).pages, 0);
	world_destroy(world);
}

/* The same below a table that one guest has for itself, and that a clone copies. */
static void F25_shared_writes_in_a_small_region(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, GIB1 / KIB4, true);
	struct guest *a = guest_with_shared(world, AT, SPANS * MIB2, file);
	struct guest *b;

	must_read_file(a, AT, file, 0);
	guest_must_write(a, AT, 1);
	b = guest_must_clone(a);
	guest_must_write(b, AT, 2);
	guest_must_write(a, SPAN_OF(1), 3);
	guest_must_read(a, AT, 2);
	guest_must_read(b, SPAN_OF(1), 3);
	assert_int_equal(counters_of(world).leaves_broken, 0);
	assert_true(is_large(a, AT) && is_large(b, AT));
	world_destroy(world);
}

/* A page that writes go through to comes into the table that an entry was broken into. */
static void F25_shared_writes_below_a_broken_entry(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, GIB1 / KIB4, true);
	struct guest *a = guest_with_shared(world, AT, SPANS * MIB2, file);
	struct ept_region region = large_region(SPAN_OF(1) + KIB4, KIB4, file, 7);

	guest_must_write(a, AT, 1);
	assert_int_equal(guest_unmap(a, SPAN_OF(1) + KIB4, KIB4), EPT_OK);
	region.mode = EPT_SHARED;
	must_map(a, &region);
	guest_must_write(a, SPAN_OF(1) + KIB4, 2);
	guest_must_read(a, AT + 7 * KIB4, 2);
	guest_must_write(a, SPAN_OF(1) + 2 * KIB4, 3);
	assert_int_equal(counters_of(world).leaves_broken, 1);
	world_destroy(world);
}

static void F9_unmap_of_a_part_where_all_may_write(void **state)
{
	for (size_t i = 0; i < PARTS; i++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, GIB1 / KIB4, true);
		struct guest *a = guest_with_shared(world, AT, GIB1, file);
		struct guest *b = guest_with_shared(world, FAR, GIB1, file);

		guest_must_write(a, AT, 1);
		guest_must_write(b, FAR, 2);
		assert_int_equal(guest_unmap(a, AT + parts[i].start, parts[i].bytes), EPT_OK);
		assert_int_equal(counters_of(world).leaves_broken, parts[i].breaks);
		for (uint64_t at = 0; at < SPANS * MIB2; at += 64 * KIB4) {
			enum ept_status expected = in_part(&parts[i], at) ? EPT_OUTSIDE : EPT_OK;

			assert_int_equal(guest_write(a, AT + at, at), expected);
			if (expected == EPT_OK)
				guest_must_read(b, FAR + at, at);
			guest_must_write(b, FAR + at + 8, at);
		}
		assert_int_equal(counters_of(world).leaves_broken, parts[i].breaks);
		assert_int_equal(usage_of(world).pages, 0);
		world_destroy(world);
	}
}

/*
 * A table that all may write through has become one guest's, which has put private memory into it.
 * A clone has the table too, and must neither write to that memory nor see what is written to it.
 */
static void private_memory_joins(void **state, bool large, uint64_t bytes)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, GIB1 / KIB4, true);
	uint64_t hole = large ? MIB2 : KIB4;
	struct guest *a = guest_create(world, 0, true);
	struct ept_region region = large_region(AT, bytes, file, 0);
	struct guest *b;

	region.large = large;
	region.mode = EPT_SHARED;
	must_map(a, &region);
	guest_must_write(a, AT, 1);
	assert_int_equal(guest_unmap(a, AT + hole, hole), EPT_OK);
	region = large_region(AT + hole, hole, file, hole / KIB4);
	region.large = large;
	must_map(a, &region);
	guest_must_write(a, AT + hole, 2);
	b = guest_must_clone(a);
	guest_must_write(b, AT, 3);
	guest_must_read(a, AT, 3);
	guest_must_write(b, AT + hole, 4);
	guest_must_read(a, AT + hole, 2);
	guest_must_write(a, AT + hole, 5);
	guest_must_read(b, AT + hole, 4);
	guest_must_write(a, AT, 6);
	guest_must_read(b, AT, 6);
	world_destroy(world);
}

static void S2_private_memory_in_a_table_that_all_may_write(void **state)
{
	private_memory_joins(state, false, MIB2);
	private_memory_joins(state, false, GIB1);
	private_memory_joins(state, true, GIB1);
}

/* Clones of a guest that broke an entry of a table that all could write through. */
static void S2_a_broken_entry_where_all_may_write(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, GIB1 / KIB4, true);
	struct guest *a = guest_with_shared(world, AT, GIB1, file);
	struct ept_region region;
	struct guest *b;

	guest_must_write(a, AT, 1);
	assert_int_equal(guest_unmap(a, AT + KIB4, KIB4), EPT_OK);
	b = guest_must_clone(a);
	guest_must_write(b, AT, 2);
	guest_must_write(a, AT + 2 * KIB4, 3);
	guest_must_read(b, AT + 2 * KIB4, 3);
	region = region_of(AT + KIB4, KIB4, file, 77, RWX);
	must_map(b, &region);
	guest_must_write(b, AT + KIB4, 4);
	must_read_file(a, AT + 77 * KIB4, file, 77);
	assert_int_equal(guest_exec(a, AT + KIB4), EPT_OUTSIDE);
	world_destroy(world);
}

static size_t mappers(struct world *world, uint32_t file, uint64_t page, unsigned level,
		      struct rmap_entry *out)
{
	struct file_page first = {file, page};

	return rmap_page_find(world->ept->rmap, ept_rmap_page(first, level), out, 4);
}

static void S7_the_reverse_map_knows_2_mib_pages(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, GIB1, file);
	struct guest *b = guest_with(world, FAR, GIB1, file);
	struct rmap_entry found[4];
	struct file_page page = {file, 5 * EPT_ENTRIES + 3};

	page = ept_rmap_page(page, 2);
	assert_int_equal(page.file, file + EPT_FILES);
	assert_int_equal(page.page, 5);
	must_read_file(a, AT, file, 0);
	must_read_file(b, FAR, file, 0);
	/* One table is both guests'. */
	assert_int_equal(mappers(world, file, 5 * EPT_ENTRIES, 2, found), 1);
	assert_int_equal(found[0].index, 5);
	assert_int_equal(found[0].table, world_table_number(world, guest_table(a, AT, 2)));
	assert_int_equal(mappers(world, file, 5 * EPT_ENTRIES, 1, found), 0);
	assert_int_equal(rmap_page_count(world->ept->rmap, found[0].table), EPT_ENTRIES);
	guest_must_write(a, SPAN_OF(5) + 3 * KIB4, 1);
	assert_int_equal(mappers(world, file, 5 * EPT_ENTRIES, 2, found), 1);
	assert_int_equal(found[0].table, world_table_number(world, guest_table(b, FAR, 2)));
	assert_int_equal(mappers(world, file, 4 * EPT_ENTRIES, 2, found), 2);
	assert_int_equal(mappers(world, file, 5 * EPT_ENTRIES + 2, 1, found), 1);
	assert_int_equal(found[0].table, world_table_number(world, guest_table(a, SPAN_OF(5), 1)));
	assert_int_equal(mappers(world, file, 5 * EPT_ENTRIES + 3, 1, found), 0);
	assert_int_equal(guest_unmap(a, SPAN_OF(4), MIB2), EPT_OK);
	assert_int_equal(mappers(world, file, 4 * EPT_ENTRIES, 2, found), 1);
	guest_destroy(a);
	guest_destroy(b);
	assert_int_equal(mappers(world, file, 4 * EPT_ENTRIES, 2, found), 0);
	assert_int_equal(mappers(world, file, 5 * EPT_ENTRIES + 2, 1, found), 0);
	world_destroy(world);
}

static void must_translate(struct guest *guest, uint64_t gpa, struct fpa page, unsigned rights)
{
	unsigned granted;
	struct fpa to;

	assert_true(ept_space_translate(guest->space, (struct gpa){gpa}, &to, &granted));
	assert_int_equal(to.v, page.v);
	assert_int_equal(granted, rights);
}

static void S5_translation_within_a_2_mib_entry(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *guest = guest_with(world, AT, SPANS * MIB2, file);
	struct fpa at = world_file_page(world, file, EPT_ENTRIES);
	unsigned rights;
	struct fpa to;

	assert_false(ept_space_translate(guest->space, (struct gpa){AT}, &to, &rights));
	must_read_file(guest, AT, file, 0);
	must_translate(guest, SPAN_OF(1), at, RX);
	must_translate(guest, SPAN_OF(2) - 1, (struct fpa){at.v + MIB2 - 1}, RX);
	must_translate(guest, SPAN_OF(1) + 0x12345, (struct fpa){at.v + 0x12345}, RX);
	guest_must_write(guest, SPAN_OF(1), 1);
	must_translate(guest, SPAN_OF(1) + 0x12345, (struct fpa){at.v + 0x12345}, RX);
	assert_true(ept_space_translate(guest->space, (struct gpa){SPAN_OF(1) + 9}, &to, &rights));
	assert_true(world_is_private(world, to));
	assert_int_equal(to.v % KIB4, 9);
	assert_int_equal(rights, RWX);
	assert_false(ept_space_translate(guest->space, (struct gpa){SPAN_OF(4)}, &to, &rights));
	world_destroy(world);
}

static void must_use(struct guest *guest, uint64_t tables_alone, uint64_t tables_shared,
		     uint64_t pages_alone)
{
	struct ept_space_usage usage;

	ept_space_usage(guest->space, &usage);
	assert_int_equal(usage.tables_alone, tables_alone);
	assert_int_equal(usage.tables_shared, tables_shared);
	assert_int_equal(usage.pages_alone, pages_alone);
	assert_int_equal(usage.pages_shared, 0);
}

static void B6_usage_with_2_mib_entries(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, GIB1, file);
	struct guest *b = guest_with(world, AT, GIB1, file);

	must_read_file(a, AT, file, 0);
	must_use(a, 3, 0, 0);
	must_read_file(b, AT, file, 0);
	must_use(a, 2, 1, 0);
	must_use(b, 2, 1, 0);
	guest_must_write(b, AT, 1);
	must_use(a, 3, 0, 0);
	must_use(b, 4, 0, 1);
	world_destroy(world);
}

struct other_fault {
	struct guest *guest;
	uint64_t gpa;
	enum ept_status status;
};

static void *other_thread(void *argument)
{
	struct other_fault *fault = argument;

	fault->status = guest_fault(fault->guest, fault->gpa, EPT_READ);
	return NULL;
}

/* An unmap has broken an entry at its one edge; who looks into the index now must not find the
 * table. */
static void CVE_2025_38084_a_table_with_a_broken_entry_is_not_found(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, GIB1, file);
	struct guest *b = guest_with(world, AT, GIB1, file);
	struct other_fault fault = {b, AT, EPT_INVALID};
	struct ept_change change = {0};
	struct tally tally = {0};
	pthread_t thread;

	must_read_file(a, AT, file, 0);
	assert_int_equal(usage_of(world).indexed, 1);
	assert_int_equal(ept_space_unmap(a->space, (struct gpa){AT + KIB4}, 2 * MIB2, &change),
			 EPT_OK);
	world_commit(world, &change, &tally);
	assert_int_equal(ept_change_finish(&change), EPT_MORE);
	/* No checks while the operation is under way: they want to be alone with the engine. */
	world->check_every = 0;
	assert_int_equal(pthread_create(&thread, NULL, other_thread, &fault), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	world->check_every = 1;
	assert_int_equal(fault.status, EPT_OK);
	do
		world_commit(world, &change, &tally);
	while (ept_change_finish(&change) == EPT_MORE);
	ept_change_free(&change);
	world_check(world);
	assert_false(same_table(a, AT, b, AT, 2));
	must_read_file(b, AT + KIB4, file, 1);
	assert_int_equal(guest_exec(a, AT + KIB4), EPT_OUTSIDE);
	world_destroy(world);
}

/* Every vCPU that could still use the large translation passes its gate before the write goes on.
 */
static void F22_a_break_is_seen_by_all_vcpus(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, SPANS * MIB2, file);

	for (a->vcpu = 0; a->vcpu < PORT_VCPUS; a->vcpu++)
		must_read_file(a, SPAN_OF(1) + KIB4, file, EPT_ENTRIES + 1);
	a->vcpu = 0;
	assert_int_equal(guest_fault(a, SPAN_OF(1) + KIB4, EPT_WRITE), EPT_OK);
	assert_true(a->last.invalidations >= 1);
	guest_must_write(a, SPAN_OF(1) + KIB4, 5);
	a->vcpu = 1;
	guest_must_read(a, SPAN_OF(1) + KIB4, 5);
	/* So it is where the change is an unmap's. */
	must_read_file(a, SPAN_OF(2), file, 2 * EPT_ENTRIES);
	assert_int_equal(guest_unmap(a, SPAN_OF(2), KIB4), EPT_OK);
	assert_int_equal(guest_exec(a, SPAN_OF(2)), EPT_OUTSIDE);
	a->vcpu = 0;
	assert_int_equal(guest_exec(a, SPAN_OF(2)), EPT_OUTSIDE);
	world_destroy(world);
}

/* A fault that is taken back leaves the entry whole. */
static void S10_a_break_that_is_cancelled(void **state)
{
	for (unsigned cloned = 0; cloned < 2; cloned++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		struct guest *a = guest_with(world, AT, SPANS * MIB2, file);
		struct ept_change change = {0};
		struct ept_usage before, after;

		must_read_file(a, AT, file, 0);
		if (cloned)
			guest_must_clone(a);
		before = usage_of(world);
		assert_int_equal(
			ept_space_fault(a->space, (struct gpa){SPAN_OF(1)}, EPT_WRITE, &change),
			EPT_OK);
		ept_change_cancel(&change);
		ept_change_free(&change);
		world_check(world);
		assert_true(is_large(a, SPAN_OF(1)));
		after = usage_of(world);
		/* A page that a table held which nobody saw is scrubbed before its next use. */
		after.pages_quarantined = 0;
		assert_memory_equal(&before, &after, sizeof(before));
		guest_must_write(a, SPAN_OF(1), 1);
		world_destroy(world);
	}
}

/* The same for a fault that fills entries of a table which is there. */
static void S10_a_fill_that_is_cancelled(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, SPANS * MIB2, file);
	struct ept_region region = large_region(SPAN_OF(8), 2 * MIB2, file, 0);
	struct ept_change change = {0};

	must_map(a, &region);
	must_read_file(a, AT, file, 0);
	assert_int_equal(ept_space_fault(a->space, (struct gpa){SPAN_OF(8)}, EPT_READ, &change),
			 EPT_OK);
	assert_int_equal(change.edits.count, 2);
	ept_change_cancel(&change);
	ept_change_free(&change);
	world_check(world);
	assert_int_equal(guest_entry(a, SPAN_OF(8), 2), 0);
	must_read_file(a, SPAN_OF(9), file, EPT_ENTRIES);
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(F25_5_a_private_write_breaks_a_2_mib_entry),
		EACH_FORMAT(F25_5_in_a_table_from_the_index),
		EACH_FORMAT(F25_5_the_first_access_is_a_write),
		EACH_FORMAT(F25_5_in_a_clone),
		EACH_FORMAT(F25_5_then_cloned),
		EACH_FORMAT(F25_shared_writes_go_to_the_file_and_break_nothing),
		EACH_FORMAT(F25_shared_writes_in_a_small_region),
		EACH_FORMAT(F25_shared_writes_below_a_broken_entry),
		EACH_FORMAT(T8_guests_that_map_privately_break_for_themselves),
		EACH_FORMAT(F26_a_table_of_2_mib_entries_is_shared),
		EACH_FORMAT(F26_upper_tables_are_shared),
		EACH_FORMAT(F26_what_is_not_aligned_has_4_kib_entries),
		EACH_FORMAT(F26_a_file_that_is_not_aligned_is_refused),
		EACH_FORMAT(F20_without_shared_pds_each_has_its_own),
		EACH_FORMAT(F21_a_fault_fills_the_clones_table),
		EACH_FORMAT(F21_a_read_fills_around_entries_of_4_kib),
		EACH_FORMAT(S8_page_size_classes_are_never_shared),
		EACH_FORMAT(S8_page_size_classes_without_alignment),
		EACH_FORMAT(F14_modes_have_tables_of_their_own),
		EACH_FORMAT(F4_neighbours_of_both_sizes),
		EACH_FORMAT(F7_reads_and_fetches_break_nothing),
		EACH_FORMAT(F8_unmap_of_whole_entries_breaks_nothing),
		EACH_FORMAT(F8_unmap_of_a_whole_shared_table_touches_no_entry_of_it),
		EACH_FORMAT(F9_unmap_of_a_part_of_an_entry_breaks_it_first),
		EACH_FORMAT(F9_protect_of_a_part_of_an_entry_breaks_it_first),
		EACH_FORMAT(F9_protect_of_all_breaks_nothing),
		EACH_FORMAT(F9_unmap_of_a_part_where_all_may_write),
		EACH_FORMAT(F22_a_break_is_seen_by_all_vcpus),
		EACH_FORMAT(B1_reset_brings_back_2_mib_entries),
		EACH_FORMAT(B6_usage_with_2_mib_entries),
		EACH_FORMAT(CVE_2025_38084_a_table_with_a_broken_entry_is_not_found),
		EACH_FORMAT(S2_private_memory_in_a_table_that_all_may_write),
		EACH_FORMAT(S2_a_broken_entry_where_all_may_write),
		EACH_FORMAT(S5_translation_within_a_2_mib_entry),
		EACH_FORMAT(S7_the_reverse_map_knows_2_mib_pages),
		EACH_FORMAT(S10_a_break_that_is_cancelled),
		EACH_FORMAT(S10_a_fill_that_is_cancelled),
	};

	return cmocka_run_group_tests_name("ept.large", tests, NULL, NULL);
}
