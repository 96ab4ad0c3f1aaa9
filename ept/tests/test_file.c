// SPDX-License-Identifier: MIT
/*
 * What is done to a memory file while guests map it: pages are reclaimed, moved, watched, asked
 * whether they were accessed; files grow. Rows of docs/sharing.md, by id.
 */
#include "ept_internal.h"
#include "kvm_model.h"
#include "port.h"

#define AT	(UINT64_C(4) * GIB1)
#define FAR	(GIB512 * 7 + GIB1 * 3)
#define PAGES	(4 * EPT_ENTRIES)
#define BYTES	(PAGES * KIB4)
#define MANY	200
#define PAGE	37 /* one that tests look at */
#define WRITTEN UINT64_C(0x77)

static struct world *world_of(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world;

	options.tables = 1024;
	world = world_create(&options);
	return world;
}

static struct guest *guest_like(struct world *world, const struct ept_region *region)
{
	struct guest *guest = guest_create(world, 0, true);

	assert_int_equal(guest_map(guest, region), EPT_OK);
	return guest;
}

/* A guest that privately maps all of @file at AT. */
static struct guest *guest_with(struct world *world, uint32_t file)
{
	struct ept_region region = region_of(AT, BYTES, file, 0, RWX);

	return guest_like(world, &region);
}

static struct guest *guest_with_large(struct world *world, uint32_t file)
{
	struct ept_region region = region_of(AT, BYTES, file, 0, RWX);

	region.large = true;
	return guest_like(world, &region);
}

/* A guest whose writes go to @file. */
static struct guest *guest_with_shared(struct world *world, uint64_t start, uint32_t file,
				       bool large)
{
	struct ept_region region = region_of(start, BYTES, file, 0, RW);

	region.mode = EPT_SHARED;
	region.large = large;
	return guest_like(world, &region);
}

static struct file_page page_of(uint32_t file, uint64_t page)
{
	return (struct file_page){file, page};
}

static uint64_t gpa_of(uint64_t page)
{
	return AT + page * KIB4;
}

static void must_read_file(struct guest *guest, uint32_t file, uint64_t page)
{
	guest_must_read(guest, gpa_of(page), world_stamp(file, page, 0));
	guest_must_read(guest, gpa_of(page) + 8, world_stamp(file, page, 1));
}

static bool is_large(struct guest *guest, uint64_t gpa)
{
	uint64_t entry = guest_entry(guest, gpa, 2);

	return ept_entry_present(entry) && ept_entry_is_leaf(guest->world->format, 2, entry);
}

static bool same_table(struct guest *a, struct guest *b, uint64_t gpa)
{
	struct fpa table = guest_table(a, gpa, 1);

	return table.v && table.v == guest_table(b, gpa, 1).v;
}

static struct ept_usage usage_of(struct world *world)
{
	struct ept_usage usage;

	ept_usage(world->ept, &usage);
	return usage;
}

/*
 * A fleet: guests that share the leaf table around PAGE, half of them clones of the first, then
 * @owners that have one of their own because of a page that they wrote.
 */
struct fleet {
	struct world *world;
	uint32_t file;
	uint32_t spare;
	struct guest *guests[MANY];
	unsigned count;
	unsigned owners; /* the last ones */
};

static void fleet_create(struct fleet *fleet, const void *format, unsigned count, unsigned owners)
{
	struct world_options options = world_defaults(format);

	options.tables = 1024;
	*fleet = (struct fleet){.world = world_create(&options), .count = count, .owners = owners};
	fleet->file = world_file(fleet->world, PAGES, false);
	fleet->spare = world_spare_file(fleet->world, 8);
	fleet->world->check_every = count > 8 ? 0 : 1;
	for (unsigned i = 0; i < count; i++) {
		bool owner = i >= count - owners;

		fleet->guests[i] = i % 2 && !owner ? guest_must_clone(fleet->guests[0])
						   : guest_with(fleet->world, fleet->file);
		must_read_file(fleet->guests[i], fleet->file, PAGE);
		if (owner)
			guest_must_write(fleet->guests[i], gpa_of(PAGE + 1), WRITTEN + i);
	}
	fleet->world->check_every = 1;
	world_check(fleet->world);
}

static void fleet_must_read(struct fleet *fleet)
{
	unsigned check_every = fleet->world->check_every;

	fleet->world->check_every = fleet->count > 8 ? 0 : 1;
	for (unsigned i = 0; i < fleet->count; i++) {
		must_read_file(fleet->guests[i], fleet->file, PAGE);
		must_read_file(fleet->guests[i], fleet->file, PAGE + 2);
		if (i >= fleet->count - fleet->owners)
			guest_must_read(fleet->guests[i], gpa_of(PAGE + 1), WRITTEN + i);
		else
			must_read_file(fleet->guests[i], fleet->file, PAGE + 1);
	}
	fleet->world->check_every = check_every;
	world_check(fleet->world);
}

static void fleet_destroy(struct fleet *fleet)
{
	fleet->world->check_every = 0;
	world_destroy(fleet->world);
}

static void must_be_unreachable(struct world *world, struct fpa at)
{
	if (kvm_reaches(world->kvm, at))
		port_fail(world, "S6: somebody still reaches %#llx", (unsigned long long)at.v);
}

static const struct {
	unsigned count, owners;
} fleets[] = {{1, 0}, {2, 0}, {MANY, 0}, {MANY, 1}, {MANY, 9}, {2, 2}};

#define FLEETS (sizeof(fleets) / sizeof(*fleets))

/* Tables that show PAGE: one that is shared, if anybody shares it, and those of owners. */
static unsigned tables_of_fleet(const struct fleet *fleet)
{
	return fleet->owners + (fleet->count > fleet->owners);
}

static void F27_reclaim_is_one_edit_for_each_table_whatever_the_number_of_guests(void **state)
{
	for (size_t i = 0; i < FLEETS; i++) {
		struct fleet fleet;
		struct tally tally;
		struct fpa at;

		fleet_create(&fleet, *state, fleets[i].count, fleets[i].owners);
		at = world_file_page(fleet.world, fleet.file, PAGE);
		assert_int_equal(world_reclaim(fleet.world, page_of(fleet.file, PAGE), 1, &tally),
				 EPT_OK);
		assert_int_equal(tally.gate_edits, tables_of_fleet(&fleet));
		assert_int_equal(tally.plain_edits, 0);
		/* All of them are followed by one invalidation. */
		assert_int_equal(tally.invalidations, 1);
		assert_int_equal(tally.copies, 0);
		must_be_unreachable(fleet.world, at);
		for (unsigned g = 0; g < fleet.count; g++)
			assert_int_equal(guest_entry(fleet.guests[g], gpa_of(PAGE), 1), 0);
		/* Again, there is nothing to do. */
		assert_int_equal(world_reclaim(fleet.world, page_of(fleet.file, PAGE), 1, &tally),
				 EPT_OK);
		assert_int_equal(tally.gate_edits + tally.invalidations, 0);
		fleet_must_read(&fleet);
		fleet_destroy(&fleet);
	}
}

static void F27_moving_a_page_is_one_edit_for_each_table(void **state)
{
	for (size_t i = 0; i < FLEETS; i++) {
		struct fpa home, away;
		struct fleet fleet;
		struct tally tally;

		fleet_create(&fleet, *state, fleets[i].count, fleets[i].owners);
		home = world_file_page(fleet.world, fleet.file, PAGE);
		assert_int_equal(world_move_page(fleet.world, page_of(fleet.file, PAGE),
						 page_of(fleet.spare, 5), &tally),
				 EPT_OK);
		assert_int_equal(tally.gate_edits, tables_of_fleet(&fleet));
		assert_int_equal(tally.plain_edits, 0);
		assert_int_equal(tally.invalidations, 1);
		assert_int_equal(tally.copies, 1);
		away = world_file_page(fleet.world, fleet.file, PAGE);
		assert_int_not_equal(home.v, away.v);
		must_be_unreachable(fleet.world, home);
		/* All guests see it without another fault. */
		for (unsigned g = 0; g < fleet.count; g++) {
			uint64_t faults = ept_space_faults(fleet.guests[g]->space);
			uint64_t entry = guest_entry(fleet.guests[g], gpa_of(PAGE), 1);

			assert_int_equal(ept_entry_target(*state, entry).v, away.v);
			must_read_file(fleet.guests[g], fleet.file, PAGE);
			assert_int_equal(ept_space_faults(fleet.guests[g]->space), faults);
		}
		fleet_must_read(&fleet);
		assert_int_equal(world_move_page(fleet.world, page_of(fleet.file, PAGE),
						 page_of(fleet.file, PAGE), &tally),
				 EPT_OK);
		assert_int_equal(tally.gate_edits, tables_of_fleet(&fleet));
		/* At home it still is. */
		assert_int_equal(tally.copies, 0);
		assert_int_equal(world_file_page(fleet.world, fleet.file, PAGE).v, home.v);
		must_be_unreachable(fleet.world, away);
		fleet_must_read(&fleet);
		fleet_destroy(&fleet);
	}
}

static void must_move(struct world *world, struct file_page page, struct file_page to)
{
	struct tally tally;

	assert_int_equal(world_move_page(world, page, to, &tally), EPT_OK);
}

/* Each place that was left can be used again at once, and what lay there is nobody's. */
static void F27_a_chain_of_moves(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	uint32_t spare = world_spare_file(world, 4);
	struct guest *a = guest_with(world, file);
	struct guest *b = guest_with(world, file);

	must_read_file(a, file, PAGE);
	must_read_file(b, file, PAGE);
	guest_must_write(b, gpa_of(PAGE + 1), WRITTEN);
	for (unsigned i = 0; i < 12; i++) {
		struct fpa left = world_file_page(world, file, PAGE);

		must_move(world, page_of(file, PAGE), page_of(spare, i % 4));
		must_be_unreachable(world, left);
		if (i) {
			assert_int_equal(left.v,
					 world->files[spare].ept.window.v + (i - 1) % 4 * KIB4);
			world_set(world, left, 0, PORT_POISON);
			world_set(world, left, 1, PORT_POISON);
		}
		must_read_file(a, file, PAGE);
		must_read_file(b, file, PAGE);
	}
	/* Another page takes a place that was left, and a guest that comes now finds both. */
	must_move(world, page_of(file, PAGE + 3 * EPT_ENTRIES), page_of(spare, 1));
	a = guest_with(world, file);
	must_read_file(a, file, PAGE);
	must_read_file(a, file, PAGE + 3 * EPT_ENTRIES);
	must_move(world, page_of(file, PAGE), page_of(file, PAGE));
	must_read_file(a, file, PAGE);
	world_destroy(world);
}

static void F27_moves_that_are_refused(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	uint32_t written = world_file(world, PAGES, true);
	uint32_t spare = world_spare_file(world, 4);
	const struct {
		const char *what;
		struct file_page page, to;
	} refused[] = {
		{"a page that is at home", {file, 1}, {file, 1}},
		{"to another page of the file", {file, 1}, {file, 2}},
		{"to a file that is mapped", {file, 1}, {written, 1}},
		{"of a file that is written to", {written, 1}, {spare, 1}},
		{"to a place that is taken", {file, 1}, {spare, 0}},
		{"to where it lies", {file, 0}, {spare, 0}},
		{"beyond the spare file", {file, 1}, {spare, 4}},
		{"to no file", {file, 1}, {spare + 1, 0}},
		{"to a file far beyond", {file, 1}, {UINT32_MAX, 0}},
		{"beyond the file", {file, PAGES}, {spare, 1}},
		{"of no file", {spare + 1, 0}, {spare, 1}},
		{"of a spare file", {spare, 0}, {spare, 1}},
	};
	struct guest *a = guest_with(world, file);
	struct tally tally;

	must_read_file(a, file, 1);
	must_move(world, page_of(file, 0), page_of(spare, 0));
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
		if (world_move_page(world, refused[i].page, refused[i].to, &tally) != EPT_INVALID)
			port_fail(world, "not refused: %s", refused[i].what);
	must_read_file(a, file, 0);
	must_read_file(a, file, 1);
	world_destroy(world);
}

static void F27_ranges_that_are_refused(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	uint32_t spare = world_spare_file(world, 4);
	const struct {
		struct file_page first;
		uint64_t count;
	} refused[] = {
		{{file, 0}, 0},		 {{file, 0}, PAGES + 1},  {{file, PAGES}, 1},
		{{file, PAGES - 1}, 2},	 {{file, 1}, UINT64_MAX}, {{file, UINT64_MAX}, 1},
		{{file, UINT64_MAX}, 2}, {{spare, 0}, 1},	  {{spare + 1, 0}, 1},
		{{UINT32_MAX, 0}, 1},
	};
	uint64_t accessed[1] = {0};
	struct tally tally;

	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		struct file_page first = refused[i].first;

		assert_int_equal(world_reclaim(world, first, refused[i].count, &tally),
				 EPT_INVALID);
		assert_int_equal(world_watch(world, first, refused[i].count, &tally), EPT_INVALID);
		assert_int_equal(world_harvest(world, first, refused[i].count, accessed, &tally),
				 EPT_INVALID);
	}
	assert_int_equal(accessed[0], 0);
	world_destroy(world);
}

/* What one of them faults in again, all have; and a range costs one step for each table. */
static void F21_a_reclaimed_page_comes_back_for_all(void **state)
{
	struct fleet fleet;
	struct tally tally;

	fleet_create(&fleet, *state, 7, 2);
	assert_int_equal(world_reclaim(fleet.world, page_of(fleet.file, PAGE), 1, &tally), EPT_OK);
	must_read_file(fleet.guests[3], fleet.file, PAGE);
	for (unsigned g = 0; g < 5; g++) {
		uint64_t faults = ept_space_faults(fleet.guests[g]->space);

		must_read_file(fleet.guests[g], fleet.file, PAGE);
		assert_int_equal(ept_space_faults(fleet.guests[g]->space), faults);
		assert_true(same_table(fleet.guests[0], fleet.guests[g], gpa_of(PAGE)));
	}
	fleet_must_read(&fleet);
	assert_int_equal(world_reclaim(fleet.world, page_of(fleet.file, 0), PAGES, &tally), EPT_OK);
	/* Three tables, in two of which a private page lies between. */
	assert_true(tally.steps <= 6);
	assert_int_equal(tally.gate_edits, 3 * EPT_ENTRIES - 2);
	assert_int_equal(tally.invalidations, 1);
	assert_int_equal(usage_of(fleet.world).pages, 2);
	fleet_must_read(&fleet);
	fleet_destroy(&fleet);
}

/* Other files, other pages, private pages stay. */
static void F27_reclaim_takes_only_what_it_is_told(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	uint32_t other = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, file);
	struct tally tally;
	uint64_t faults;

	guest_must_map(a, FAR, BYTES, other, 0, RWX);
	must_read_file(a, file, PAGE);
	must_read_file(a, file, PAGE + EPT_ENTRIES);
	guest_must_read(a, FAR, world_stamp(other, 0, 0));
	guest_must_write(a, gpa_of(PAGE + 2), WRITTEN);
	faults = ept_space_faults(a->space);
	assert_int_equal(world_reclaim(world, page_of(file, PAGE + 1), 10, &tally), EPT_OK);
	assert_int_equal(tally.gate_edits, 9);
	must_read_file(a, file, PAGE);
	must_read_file(a, file, PAGE + 11);
	must_read_file(a, file, PAGE + EPT_ENTRIES);
	guest_must_read(a, gpa_of(PAGE + 2), WRITTEN);
	guest_must_read(a, FAR + (PAGE + 1) * KIB4, world_stamp(other, PAGE + 1, 0));
	assert_int_equal(ept_space_faults(a->space), faults);
	/* The absent ones come back together. */
	for (unsigned i = 1; i <= 10; i++)
		if (i != 2)
			must_read_file(a, file, PAGE + i);
	assert_int_equal(ept_space_faults(a->space), faults + 1);
	world_destroy(world);
}

static void F27_reclaim_of_a_page_in_a_2_mib_entry(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with_large(world, file);
	struct guest *b = guest_must_clone(a);
	struct guest *c = guest_with(world, file);
	struct tally tally;

	must_read_file(a, file, PAGE);
	must_read_file(b, file, PAGE);
	must_read_file(c, file, PAGE);
	guest_must_write(b, gpa_of(EPT_ENTRIES + 1), WRITTEN);
	assert_true(is_large(a, gpa_of(PAGE)) && is_large(b, gpa_of(PAGE)));
	/* The entries of a and b, which has a table of its own by now, and one of 4 KiB. */
	assert_int_equal(world_reclaim(world, page_of(file, PAGE), 1, &tally), EPT_OK);
	assert_int_equal(tally.gate_edits, 3);
	must_be_unreachable(world, world_file_page(world, file, PAGE));
	assert_int_equal(guest_entry(a, gpa_of(PAGE), 2), 0);
	assert_int_equal(guest_entry(b, gpa_of(PAGE), 2), 0);
	assert_true(is_large(a, gpa_of(EPT_ENTRIES)));
	must_read_file(a, file, PAGE);
	must_read_file(b, file, PAGE);
	must_read_file(c, file, PAGE);
	guest_must_read(b, gpa_of(EPT_ENTRIES + 1), WRITTEN);
	assert_true(is_large(a, gpa_of(PAGE)));
	world_destroy(world);
}

/* A page of 2 MiB that lies elsewhere can only be shown by entries of 4 KiB. */
static void F27_moving_a_page_out_of_a_2_mib_entry(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	uint32_t spare = world_spare_file(world, 4);
	struct guest *a = guest_with_large(world, file);
	struct guest *b = guest_with_large(world, file);
	struct tally tally;

	must_read_file(a, file, PAGE);
	must_read_file(b, file, EPT_ENTRIES);
	assert_int_equal(world_move_page(world, page_of(file, PAGE), page_of(spare, 2), &tally),
			 EPT_OK);
	assert_int_equal(tally.gate_edits, 2);
	must_be_unreachable(world, world->files[file].ept.window);
	for (unsigned page = 0; page < 2 * EPT_ENTRIES; page += 7) {
		must_read_file(a, file, page);
		must_read_file(b, file, page);
	}
	must_read_file(a, file, PAGE);
	assert_false(is_large(a, gpa_of(PAGE)));
	assert_true(is_large(a, gpa_of(EPT_ENTRIES)));
	must_move(world, page_of(file, PAGE), page_of(file, PAGE));
	must_read_file(a, file, PAGE);
	must_read_file(b, file, PAGE);
	world_destroy(world);
}

/* The file is punched: once reclaimed, what guests see is what it has now. */
static void F27_a_range_is_reclaimed_and_its_contents_change(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, true);
	struct guest *guests[4];
	struct tally tally;

	guests[0] = guest_with(world, file);
	guests[1] = guest_with_large(world, file);
	guests[2] = guest_with_shared(world, AT, file, true);
	guests[3] = guest_with_shared(world, AT, file, false);
	for (unsigned g = 0; g < 4; g++)
		for (unsigned page = 0; page < PAGES; page += 100)
			must_read_file(guests[g], file, page);
	guest_must_write(guests[1], gpa_of(700), WRITTEN);
	assert_int_equal(world_reclaim(world, page_of(file, 600), 500, &tally), EPT_OK);
	assert_int_equal(tally.invalidations, 1);
	for (uint64_t page = 600; page < 1100; page++) {
		must_be_unreachable(world, world_file_page(world, file, page));
		for (unsigned word = 0; word < PORT_WORDS; word++)
			world_set(world, world_file_page(world, file, page), word, 0);
	}
	for (unsigned g = 0; g < 4; g++)
		for (unsigned page = 0; page < PAGES; page += 100) {
			bool own = g == 1 && page == 700;

			guest_must_read(guests[g], gpa_of(page),
					own			     ? WRITTEN
					: page >= 600 && page < 1100 ? 0
								     : world_stamp(file, page, 0));
		}
	world_destroy(world);
}

/* ---- watching ---- */

static void must_watch(struct world *world, uint32_t file, uint64_t page, uint64_t count)
{
	struct tally tally;

	assert_int_equal(world_watch(world, page_of(file, page), count, &tally), EPT_OK);
}

/* Sharers by every way: from the index, clones, another address, entries of 2 MiB. */
static unsigned writers_create(struct world *world, uint32_t file, struct guest **guests,
			       uint64_t *starts)
{
	guests[0] = guest_with_shared(world, AT, file, false);
	guests[1] = guest_with_shared(world, AT, file, false);
	guests[2] = guest_with_shared(world, FAR, file, false);
	guests[3] = guest_with_shared(world, AT, file, true);
	for (unsigned g = 0; g < 4; g++)
		starts[g] = g == 2 ? FAR : AT;
	for (unsigned g = 0; g < 4; g++)
		guest_must_write(guests[g], starts[g] + PAGE * KIB4, WRITTEN + g);
	guests[4] = guest_must_clone(guests[0]);
	guests[5] = guest_must_clone(guests[3]);
	starts[4] = AT;
	starts[5] = AT;
	return 6;
}

static void F29_T7_a_write_to_a_watched_page_is_told_before_it_is_done(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, true);
	struct guest *guests[6];
	uint64_t starts[6];
	unsigned count = writers_create(world, file, guests, starts);

	must_watch(world, file, PAGE, 2);
	for (unsigned g = 0; g < count; g++)
		for (unsigned vcpu = 0; vcpu < PORT_VCPUS; vcpu++) {
			guests[g]->vcpu = vcpu;
			assert_int_equal(guest_write(guests[g], starts[g] + PAGE * KIB4, 1),
					 EPT_WATCHED);
			assert_int_equal(guest_write(guests[g], starts[g] + (PAGE + 1) * KIB4, 1),
					 EPT_WATCHED);
			guest_must_read(guests[g], starts[g] + PAGE * KIB4, WRITTEN + 3);
			/* Its neighbours are not. */
			guest_must_write(guests[g], starts[g] + (PAGE + 2) * KIB4, g);
			guest_must_write(guests[g], starts[g] + (PAGE - 1) * KIB4, g);
		}
	assert_true(ept_file_watched(world->ept, page_of(file, PAGE + 1)));
	assert_false(ept_file_watched(world->ept, page_of(file, PAGE + 2)));
	assert_int_equal(ept_file_write_begin(world->ept, page_of(file, PAGE)), EPT_WATCHED);
	assert_int_equal(ept_file_write_begin(world->ept, page_of(file, PAGE + 2)), EPT_OK);
	ept_file_write_end(world->ept);
	/* No longer for one of them. */
	ept_file_unwatch(world->ept, page_of(file, PAGE), 1);
	world_check(world);
	for (unsigned g = 0; g < count; g++) {
		guest_must_write(guests[g], starts[g] + PAGE * KIB4, 100 + g);
		assert_int_equal(guest_write(guests[g], starts[g] + (PAGE + 1) * KIB4, 1),
				 EPT_WATCHED);
	}
	for (unsigned g = 0; g < count; g++)
		guest_must_read(guests[g], starts[g] + PAGE * KIB4, 100 + count - 1);
	assert_int_equal(ept_file_write_begin(world->ept, page_of(file, PAGE)), EPT_OK);
	ept_file_write_end(world->ept);
	world_destroy(world);
}

/* Also before anybody has mapped it, and where its table is found in the index afterwards. */
static void F29_T7_guests_that_come_later_are_told_too(void **state)
{
	for (unsigned large = 0; large < 2; large++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, true);
		struct guest *a, *b;

		must_watch(world, file, PAGE, 1);
		a = guest_with_shared(world, AT, file, large);
		must_read_file(a, file, PAGE);
		b = guest_with_shared(world, AT, file, large);
		assert_int_equal(guest_write(b, gpa_of(PAGE), 1), EPT_WATCHED);
		assert_int_equal(guest_write(a, gpa_of(PAGE), 1), EPT_WATCHED);
		guest_must_write(b, gpa_of(PAGE + 1), WRITTEN);
		guest_must_read(a, gpa_of(PAGE + 1), WRITTEN);
		assert_true(!is_large(a, gpa_of(PAGE)));
		ept_file_unwatch(world->ept, page_of(file, PAGE), 1);
		guest_must_write(b, gpa_of(PAGE), WRITTEN);
		guest_must_read(a, gpa_of(PAGE), WRITTEN);
		world_destroy(world);
	}
}

/* Private writes do not write the file. */
static void F29_private_writes_of_a_watched_page_are_allowed(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, true);
	uint32_t constant = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, file);
	struct guest *b = guest_with_large(world, file);
	struct guest *c = guest_with_large(world, constant);

	must_read_file(a, file, PAGE);
	must_read_file(b, file, PAGE);
	must_read_file(c, constant, PAGE);
	guest_must_write(a, gpa_of(PAGE), WRITTEN);
	must_watch(world, file, 0, PAGES);
	must_watch(world, constant, 0, PAGES);
	guest_must_write(a, gpa_of(PAGE), WRITTEN + 1);
	guest_must_write(a, gpa_of(PAGE + 1), WRITTEN + 1);
	guest_must_write(b, gpa_of(PAGE), WRITTEN + 2);
	guest_must_write(c, gpa_of(PAGE), WRITTEN + 3);
	guest_must_read(a, gpa_of(PAGE), WRITTEN + 1);
	guest_must_read(b, gpa_of(PAGE), WRITTEN + 2);
	guest_must_read(c, gpa_of(PAGE), WRITTEN + 3);
	must_read_file(guest_with(world, file), file, PAGE);
	must_read_file(guest_with(world, constant), constant, PAGE);
	world_destroy(world);
}

/* Which edits a watch takes: one for each table, and none where nobody may write. */
static void F29_watching_is_one_edit_for_each_table(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, true);
	struct guest *guests[20];
	struct tally tally;

	for (unsigned g = 0; g < 20; g++) {
		guests[g] = g % 2 ? guest_must_clone(guests[0])
				  : guest_with_shared(world, AT, file, false);
		guest_must_write(guests[g], gpa_of(PAGE), g);
	}
	assert_int_equal(world_watch(world, page_of(file, PAGE), 1, &tally), EPT_OK);
	assert_int_equal(tally.gate_edits, 1);
	assert_int_equal(tally.invalidations, 1);
	assert_int_equal(world_watch(world, page_of(file, PAGE), 1, &tally), EPT_OK);
	assert_int_equal(tally.gate_edits + tally.invalidations, 0);
	for (unsigned g = 0; g < 20; g++)
		assert_int_equal(guest_write(guests[g], gpa_of(PAGE), 1), EPT_WATCHED);
	ept_file_unwatch(world->ept, page_of(file, PAGE), 1);
	/* The first one gets it back for all. */
	guest_must_write(guests[7], gpa_of(PAGE), WRITTEN);
	/* The one that was cloned has to make its path writable again. */
	for (unsigned g = 1; g < 20; g++) {
		uint64_t faults = ept_space_faults(guests[g]->space);

		guest_must_write(guests[g], gpa_of(PAGE), WRITTEN + g);
		assert_int_equal(ept_space_faults(guests[g]->space), faults);
	}
	world_destroy(world);
}

static void S10_watches_that_overlap_stay(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, true);
	struct guest *a = guest_with_shared(world, AT, file, false);
	struct tally tally;

	guest_must_write(a, gpa_of(PAGE), 1);
	must_watch(world, file, PAGE, 4);
	must_watch(world, file, PAGE + 2, 8);
	assert_int_equal(world_watch(world, page_of(file, PAGE), PAGES, &tally), EPT_INVALID);
	ept_file_unwatch(world->ept, page_of(file, PAGE + 6), 4);
	for (unsigned page = PAGE; page < PAGE + 10; page++)
		assert_int_equal(guest_write(a, gpa_of(page), 1),
				 page < PAGE + 6 ? EPT_WATCHED : EPT_OK);
	world_destroy(world);
}

/* ---- files that grow ---- */

static void F28_a_file_that_grows_is_mapped_as_far_as_it_goes(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_growing_file(world, EPT_ENTRIES, PAGES, true);
	struct ept_region region = region_of(AT, BYTES, file, 0, RW);
	struct guest *a = guest_create(world, 0, true);
	struct guest *b = guest_create(world, 0, true);
	struct tally tally;

	region.mode = EPT_SHARED;
	assert_int_equal(guest_map(a, &region), EPT_INVALID);
	assert_int_equal(world_watch(world, page_of(file, EPT_ENTRIES), 1, &tally), EPT_INVALID);
	assert_int_equal(world_grow(world, file, EPT_ENTRIES - 1), EPT_INVALID);
	assert_int_equal(world_grow(world, file, PAGES + 1), EPT_INVALID);
	assert_int_equal(world_grow(world, file + 1, PAGES), EPT_INVALID);
	assert_int_equal(world_grow(world, file, EPT_ENTRIES), EPT_OK);
	assert_int_equal(guest_map(a, &region), EPT_INVALID);
	assert_int_equal(world_grow(world, file, PAGES), EPT_OK);
	assert_int_equal(guest_map(a, &region), EPT_OK);
	region.large = true;
	assert_int_equal(guest_map(b, &region), EPT_OK);
	guest_must_write(a, gpa_of(PAGES - 1), WRITTEN);
	guest_must_read(b, gpa_of(PAGES - 1), WRITTEN);
	/* What was there before and what came are watched and reclaimed alike. */
	must_watch(world, file, EPT_ENTRIES - 1, 2);
	for (unsigned page = EPT_ENTRIES - 2; page < EPT_ENTRIES + 2; page++) {
		bool watched = page == EPT_ENTRIES - 1 || page == EPT_ENTRIES;

		assert_int_equal(guest_write(a, gpa_of(page), 1), watched ? EPT_WATCHED : EPT_OK);
		assert_int_equal(guest_write(b, gpa_of(page), 1), watched ? EPT_WATCHED : EPT_OK);
	}
	assert_int_equal(world_reclaim(world, page_of(file, 0), PAGES, &tally), EPT_OK);
	guest_must_read(b, gpa_of(PAGES - 1), WRITTEN);
	world_destroy(world);
}

/* ---- which pages were accessed ---- */

#define WORDS (PAGES / 64)

static void must_harvest(struct world *world, uint32_t file, uint64_t *accessed,
			 struct tally *tally)
{
	for (unsigned i = 0; i < WORDS; i++)
		accessed[i] = 0;
	assert_int_equal(world_harvest(world, page_of(file, 0), PAGES, accessed, tally), EPT_OK);
}

static bool is_accessed(const uint64_t *accessed, uint64_t page)
{
	return accessed[page / 64] >> page % 64 & 1;
}

static unsigned count_accessed(const uint64_t *accessed)
{
	unsigned count = 0;

	for (unsigned i = 0; i < WORDS; i++)
		count += (unsigned)__builtin_popcountll(accessed[i]);
	return count;
}

static void F27_a_harvest_tells_what_was_accessed_since_the_last_one(void **state)
{
	struct fleet fleet;
	uint64_t accessed[WORDS];
	struct tally tally;

	fleet_create(&fleet, *state, 9, 2);
	must_harvest(fleet.world, fleet.file, accessed, &tally);
	/* A table is filled as if all of it had been accessed. */
	assert_int_equal(count_accessed(accessed), EPT_ENTRIES);
	assert_int_equal(tally.invalidations, 1);
	must_harvest(fleet.world, fleet.file, accessed, &tally);
	assert_int_equal(count_accessed(accessed), 0);
	assert_int_equal(tally.gate_edits + tally.invalidations, 0);
	/* By sharers, by an owner, and twice: whoever it was. */
	must_read_file(fleet.guests[0], fleet.file, 3);
	must_read_file(fleet.guests[1], fleet.file, 3);
	must_read_file(fleet.guests[4], fleet.file, 5);
	must_read_file(fleet.guests[8], fleet.file, 7);
	guest_must_read(fleet.guests[8], gpa_of(PAGE + 1), WRITTEN + 8);
	must_harvest(fleet.world, fleet.file, accessed, &tally);
	assert_int_equal(count_accessed(accessed), 3);
	assert_true(is_accessed(accessed, 3) && is_accessed(accessed, 5) &&
		    is_accessed(accessed, 7));
	assert_int_equal(tally.gate_edits, 3);
	/* One access more of a page whose translation was there before. */
	must_read_file(fleet.guests[0], fleet.file, 3);
	must_harvest(fleet.world, fleet.file, accessed, &tally);
	assert_int_equal(count_accessed(accessed), 1);
	assert_true(is_accessed(accessed, 3));
	fleet_must_read(&fleet);
	fleet_destroy(&fleet);
}

/* The bits of others stay, and the range need not begin where a word does. */
static void F27_a_harvest_sets_only_its_own_bits(void **state)
{
	struct fleet fleet;
	uint64_t accessed[2] = {UINT64_C(1) << 63, 0};
	struct tally tally;

	fleet_create(&fleet, *state, 2, 0);
	assert_int_equal(world_harvest(fleet.world, page_of(fleet.file, 5), 40, accessed, &tally),
			 EPT_OK);
	assert_int_equal(accessed[0], UINT64_C(1) << 63 | ((UINT64_C(1) << 40) - 1));
	assert_int_equal(accessed[1], 0);
	assert_int_equal(tally.gate_edits, 40);
	fleet_destroy(&fleet);
}

/* An entry of 2 MiB says it of all its pages, as far as they were asked for. */
static void F27_a_harvest_of_2_mib_entries(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with_large(world, file);
	uint64_t accessed[WORDS];
	struct tally tally;

	must_read_file(a, file, 0);
	must_harvest(world, file, accessed, &tally);
	assert_int_equal(count_accessed(accessed), PAGES);
	assert_int_equal(tally.gate_edits, 4);
	must_read_file(a, file, EPT_ENTRIES + PAGE);
	must_harvest(world, file, accessed, &tally);
	assert_int_equal(count_accessed(accessed), EPT_ENTRIES);
	assert_true(is_accessed(accessed, EPT_ENTRIES) &&
		    is_accessed(accessed, 2 * EPT_ENTRIES - 1));
	assert_int_equal(tally.gate_edits, 1);
	accessed[0] = 0;
	must_read_file(a, file, 0);
	assert_int_equal(world_harvest(world, page_of(file, PAGE), 3, accessed, &tally), EPT_OK);
	assert_int_equal(accessed[0], 7);
	world_destroy(world);
}

/* What a table does not say is kept where it is copied. */
static void F27_a_harvest_after_tables_were_copied(void **state)
{
	struct fleet fleet;
	uint64_t accessed[WORDS];
	struct tally tally;

	fleet_create(&fleet, *state, 3, 0);
	must_harvest(fleet.world, fleet.file, accessed, &tally);
	guest_must_write(fleet.guests[1], gpa_of(PAGE + 9), 1);
	must_read_file(fleet.guests[1], fleet.file, PAGE + 10);
	must_harvest(fleet.world, fleet.file, accessed, &tally);
	assert_int_equal(count_accessed(accessed), 1);
	assert_true(is_accessed(accessed, PAGE + 10));
	fleet_destroy(&fleet);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(F27_reclaim_is_one_edit_for_each_table_whatever_the_number_of_guests),
		EACH_FORMAT(F27_moving_a_page_is_one_edit_for_each_table),
		EACH_FORMAT(F27_a_chain_of_moves),
		EACH_FORMAT(F27_moves_that_are_refused),
		EACH_FORMAT(F27_ranges_that_are_refused),
		EACH_FORMAT(F21_a_reclaimed_page_comes_back_for_all),
		EACH_FORMAT(F27_reclaim_takes_only_what_it_is_told),
		EACH_FORMAT(F27_reclaim_of_a_page_in_a_2_mib_entry),
		EACH_FORMAT(F27_moving_a_page_out_of_a_2_mib_entry),
		EACH_FORMAT(F27_a_range_is_reclaimed_and_its_contents_change),
		EACH_FORMAT(F29_T7_a_write_to_a_watched_page_is_told_before_it_is_done),
		EACH_FORMAT(F29_T7_guests_that_come_later_are_told_too),
		EACH_FORMAT(F29_private_writes_of_a_watched_page_are_allowed),
		EACH_FORMAT(F29_watching_is_one_edit_for_each_table),
		EACH_FORMAT(S10_watches_that_overlap_stay),
		EACH_FORMAT(F28_a_file_that_grows_is_mapped_as_far_as_it_goes),
		EACH_FORMAT(F27_a_harvest_tells_what_was_accessed_since_the_last_one),
		EACH_FORMAT(F27_a_harvest_sets_only_its_own_bits),
		EACH_FORMAT(F27_a_harvest_of_2_mib_entries),
		EACH_FORMAT(F27_a_harvest_after_tables_were_copied),
	};

	return cmocka_run_group_tests_name("ept.file", tests, NULL, NULL);
}
