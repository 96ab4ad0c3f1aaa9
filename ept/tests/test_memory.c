// SPDX-License-Identifier: MIT
/*
 * Memory that runs out, at every place where it can: the VMM's own, allocation by allocation, table
 * pages, and private pages. S10: an operation that fails changes nothing; and it succeeds when
 * there is memory again. Each scenario is prepared anew for each failure.
 */
#include "port.h"

#include <stdlib.h>
#include <string.h>

#include "failing_alloc.h"

#define AT	(UINT64_C(4) * GIB1)
#define BIG	(UINT64_C(16) * GIB1)
#define HOLE	(AT + 16 * MIB2)
#define SPAN	(4 * MIB2)
#define BALLAST 16
#define GUESTS	3
#define LARGE	(UINT64_C(32) * GIB1)
#define LARGE2	(UINT64_C(40) * GIB1)

struct scene {
	struct world *world;
	uint32_t file;
	uint32_t big;
	uint32_t through; /* a file that can be written */
	uint32_t spare;	  /* to which pages can be moved */
	uint64_t accessed[SPAN / KIB4 / 64];
	struct guest *guests[GUESTS]; /* the operation is the first one's */
	struct ept_space *made;	      /* by the operation */
};

struct scenario {
	const char *name;
	void (*prepare)(struct scene *scene);
	enum ept_status (*begin)(struct scene *scene, struct ept_change *change);
};

static uint64_t stamp(const struct scene *scene, uint64_t page)
{
	return world_stamp(scene->file, page, 0);
}

static void join(struct scene *scene, unsigned number)
{
	scene->guests[number] = guest_create(scene->world, 0, true);
	guest_must_map(scene->guests[number], AT, SPAN, scene->file, 0, RWX);
	guest_must_map(scene->guests[number], BIG, GIB1, scene->big, 0, RX);
}

static void prepare_nothing(struct scene *scene)
{
	join(scene, 0);
}

static void prepare_index(struct scene *scene)
{
	join(scene, 0);
	join(scene, 1);
	guest_must_read(scene->guests[1], AT, stamp(scene, 0));
	guest_must_read(scene->guests[1], BIG, world_stamp(scene->big, 0, 0));
}

static void prepare_indexed(struct scene *scene)
{
	prepare_index(scene);
	guest_must_read(scene->guests[0], AT, stamp(scene, 0));
}

static void prepare_clone(struct scene *scene)
{
	join(scene, 0);
	for (unsigned i = 0; i < 4; i++)
		guest_must_write(scene->guests[0], AT + i * MIB2, i);
	scene->guests[1] = guest_must_clone(scene->guests[0]);
}

/* Tables of its own, with a page that a clone maps too. */
static void prepare_page(struct scene *scene)
{
	prepare_clone(scene);
	guest_must_write(scene->guests[0], AT + KIB4, 5);
}

static void prepare_own(struct scene *scene)
{
	join(scene, 0);
	for (unsigned i = 0; i < 4; i++)
		guest_must_write(scene->guests[0], AT + i * MIB2, i);
}

static void prepare_frozen(struct scene *scene)
{
	prepare_own(scene);
	guest_freeze(scene->guests[0]);
	scene->guests[1] = scene->guests[0];
	scene->guests[0] = guest_must_clone(scene->guests[1]);
	guest_must_write(scene->guests[0], AT, 9);
	guest_unmap(scene->guests[0], AT + MIB2, MIB2);
}

static void prepare_quarantine(struct scene *scene)
{
	prepare_own(scene);
	join(scene, 1);
	guest_must_read(scene->guests[1], AT, stamp(scene, 0));
	guest_unmap(scene->guests[0], AT, SPAN);
}

/* LARGE is mapped by 2 MiB, in tables of the guest's own; at LARGE2 the table can be shared. */
static void join_large(struct scene *scene, unsigned number)
{
	struct ept_region region = region_of(LARGE, SPAN, scene->file, 0, RWX);

	region.large = true;
	scene->guests[number] = guest_create(scene->world, 0, true);
	if (guest_map(scene->guests[number], &region) != EPT_OK)
		port_fail(scene->world, "mapping by 2 MiB");
	region = region_of(LARGE2, GIB1, scene->big, 0, RWX);
	region.large = true;
	if (guest_map(scene->guests[number], &region) != EPT_OK)
		port_fail(scene->world, "mapping 1 GiB by 2 MiB");
}

static void prepare_large_nothing(struct scene *scene)
{
	join_large(scene, 0);
}

static void prepare_large(struct scene *scene)
{
	join_large(scene, 0);
	guest_must_read(scene->guests[0], LARGE, stamp(scene, 0));
	guest_must_read(scene->guests[0], LARGE2, world_stamp(scene->big, 0, 0));
}

static void prepare_large_index(struct scene *scene)
{
	prepare_large(scene);
	join_large(scene, 1);
	guest_must_read(scene->guests[1], LARGE2, world_stamp(scene->big, 0, 0));
}

static void prepare_large_clone(struct scene *scene)
{
	prepare_large(scene);
	scene->guests[1] = guest_must_clone(scene->guests[0]);
}

/* Tables of its own, with holes between the entries of 2 MiB, and one that is broken. */
static void prepare_large_holes(struct scene *scene)
{
	prepare_large(scene);
	guest_must_write(scene->guests[0], LARGE + 2 * MIB2, 1);
	guest_protect(scene->guests[0], LARGE, MIB2, RX);
	guest_protect(scene->guests[0], LARGE, MIB2, RWX);
}

static void prepare_large_frozen(struct scene *scene)
{
	prepare_large(scene);
	guest_freeze(scene->guests[0]);
	scene->guests[1] = scene->guests[0];
	scene->guests[0] = guest_must_clone(scene->guests[1]);
	guest_must_write(scene->guests[0], LARGE, 9);
	guest_unmap(scene->guests[0], LARGE2 + KIB4, MIB2);
}

/* Writes go to the file: the writable one, of the size of LARGE's region. */
static void prepare_large_shared(struct scene *scene)
{
	struct ept_region region = region_of(LARGE, SPAN, scene->through, 0, RWX);

	region.large = true;
	region.mode = EPT_SHARED;
	scene->guests[0] = guest_create(scene->world, 0, true);
	if (guest_map(scene->guests[0], &region) != EPT_OK)
		port_fail(scene->world, "mapping by 2 MiB");
}

static void prepare_large_shared_clone(struct scene *scene)
{
	prepare_large_shared(scene);
	guest_must_write(scene->guests[0], LARGE, 1);
	scene->guests[1] = guest_must_clone(scene->guests[0]);
}

static enum ept_status begin_read(struct scene *scene, struct ept_change *change)
{
	struct gpa gpa = {AT};

	return ept_space_fault(scene->guests[0]->space, gpa, EPT_READ, change);
}

static enum ept_status begin_read_big(struct scene *scene, struct ept_change *change)
{
	struct gpa gpa = {BIG + 7 * MIB2};

	return ept_space_fault(scene->guests[0]->space, gpa, EPT_READ, change);
}

static enum ept_status begin_write(struct scene *scene, struct ept_change *change)
{
	struct gpa gpa = {AT};

	return ept_space_fault(scene->guests[0]->space, gpa, EPT_WRITE, change);
}

static enum ept_status begin_map(struct scene *scene, struct ept_change *change)
{
	struct ept_region region = region_of(HOLE, MIB2 + KIB4, scene->file, 0, RWX);

	return ept_space_map(scene->guests[0]->space, &region, change);
}

static enum ept_status begin_unmap(struct scene *scene, struct ept_change *change)
{
	struct gpa start = {AT + 5 * KIB4};

	return ept_space_unmap(scene->guests[0]->space, start, 3 * MIB2, change);
}

static enum ept_status begin_protect(struct scene *scene, struct ept_change *change)
{
	struct gpa start = {AT + 5 * KIB4};

	return ept_space_protect(scene->guests[0]->space, start, 3 * MIB2, EPT_READ, change);
}

static enum ept_status large_fault(struct scene *scene, uint64_t at, unsigned access,
				   struct ept_change *change)
{
	struct gpa gpa = {at};

	return ept_space_fault(scene->guests[0]->space, gpa, access, change);
}

static enum ept_status begin_large_read(struct scene *scene, struct ept_change *change)
{
	return large_fault(scene, LARGE + MIB2, EPT_READ, change);
}

static enum ept_status begin_large_read2(struct scene *scene, struct ept_change *change)
{
	return large_fault(scene, LARGE2 + 7 * MIB2, EPT_READ, change);
}

static enum ept_status begin_large_write(struct scene *scene, struct ept_change *change)
{
	return large_fault(scene, LARGE + MIB2 + KIB4, EPT_WRITE, change);
}

static enum ept_status begin_large_write2(struct scene *scene, struct ept_change *change)
{
	return large_fault(scene, LARGE2 + 7 * MIB2, EPT_WRITE, change);
}

/* Both borders are within entries of 2 MiB, or both within the same one. */
static enum ept_status begin_large_unmap(struct scene *scene, struct ept_change *change)
{
	struct gpa start = {LARGE + 5 * KIB4};

	return ept_space_unmap(scene->guests[0]->space, start, 3 * MIB2, change);
}

static enum ept_status begin_large_unmap2(struct scene *scene, struct ept_change *change)
{
	struct gpa start = {LARGE2 + 7 * MIB2 + 5 * KIB4};

	return ept_space_unmap(scene->guests[0]->space, start, KIB4, change);
}

static enum ept_status begin_large_protect(struct scene *scene, struct ept_change *change)
{
	struct gpa start = {LARGE + 5 * KIB4};

	return ept_space_protect(scene->guests[0]->space, start, 3 * MIB2, EPT_READ, change);
}

static enum ept_status begin_large_protect2(struct scene *scene, struct ept_change *change)
{
	struct gpa start = {LARGE2};

	return ept_space_protect(scene->guests[0]->space, start, GIB1 - KIB4, EPT_READ, change);
}

static enum ept_status begin_clone(struct scene *scene, struct ept_change *change)
{
	return ept_space_clone(scene->guests[0]->space, &scene->made, change);
}

static enum ept_status begin_freeze(struct scene *scene, struct ept_change *change)
{
	return ept_space_freeze(scene->guests[0]->space, change);
}

static enum ept_status begin_reset(struct scene *scene, struct ept_change *change)
{
	return ept_space_reset(scene->guests[0]->space, change);
}

static enum ept_status begin_scrub(struct scene *scene, struct ept_change *change)
{
	return ept_scrub(scene->world->ept, 4, change);
}

static enum ept_status begin_snapshot(struct scene *scene, struct ept_change *change)
{
	return ept_space_snapshot(scene->guests[0]->space, &scene->made, change);
}

/* Parts of tables, to others that are not there. */
static enum ept_status begin_range_move(struct scene *scene, struct ept_change *change)
{
	struct gpa from = {AT + 5 * KIB4};
	struct gpa to = {HOLE + 7 * KIB4};

	return ept_space_move(scene->guests[0]->space, from, 3 * MIB2, to, change);
}

static enum ept_status begin_large_range_move(struct scene *scene, struct ept_change *change)
{
	struct gpa from = {LARGE + 5 * KIB4};
	struct gpa to = {HOLE + 7 * KIB4};

	return ept_space_move(scene->guests[0]->space, from, 3 * MIB2, to, change);
}

static struct file_page first_page(uint32_t file)
{
	return (struct file_page){file, 0};
}

static enum ept_status begin_reclaim(struct scene *scene, struct ept_change *change)
{
	return ept_file_reclaim(scene->world->ept, first_page(scene->file), SPAN / KIB4, change);
}

static enum ept_status begin_watch(struct scene *scene, struct ept_change *change)
{
	return ept_file_watch(scene->world->ept, first_page(scene->through), SPAN / KIB4, change);
}

static enum ept_status begin_harvest(struct scene *scene, struct ept_change *change)
{
	return ept_file_harvest(scene->world->ept, first_page(scene->file), SPAN / KIB4,
				scene->accessed, change);
}

static enum ept_status begin_page_move(struct scene *scene, struct ept_change *change)
{
	return ept_file_move(scene->world->ept, first_page(scene->file), first_page(scene->spare),
			     change);
}

static const struct scenario scenarios[] = {
	{"read, nothing there", prepare_nothing, begin_read},
	{"write, nothing there", prepare_nothing, begin_write},
	{"read, in the index", prepare_index, begin_read},
	{"read below a table in the index", prepare_index, begin_read_big},
	{"write, in the index", prepare_index, begin_write},
	{"write to a table from the index", prepare_indexed, begin_write},
	{"write after cloning", prepare_clone, begin_write},
	{"write to a shared page", prepare_page, begin_write},
	{"map after cloning", prepare_clone, begin_map},
	{"map beside tables of its own", prepare_own, begin_map},
	{"unmap of a part after cloning", prepare_clone, begin_unmap},
	{"unmap of a part of what is its own", prepare_own, begin_unmap},
	{"unmap of a part of what is in the index", prepare_indexed, begin_unmap},
	{"protect after cloning", prepare_clone, begin_protect},
	{"protect what is its own", prepare_own, begin_protect},
	{"clone", prepare_own, begin_clone},
	{"clone again", prepare_clone, begin_clone},
	{"freeze", prepare_own, begin_freeze},
	{"reset", prepare_frozen, begin_reset},
	{"scrub", prepare_quarantine, begin_scrub},
	{"read by 2 MiB, nothing there", prepare_large_nothing, begin_large_read},
	{"read by 2 MiB, nothing to share yet", prepare_large_nothing, begin_large_read2},
	{"write by 2 MiB, nothing there", prepare_large_nothing, begin_large_write},
	{"write by 2 MiB, nothing to share yet", prepare_large_nothing, begin_large_write2},
	{"read by 2 MiB, between others", prepare_large_holes, begin_large_read},
	{"a write breaks", prepare_large, begin_large_write},
	{"a write breaks, alone in the index", prepare_large, begin_large_write2},
	{"a write breaks, from the index", prepare_large_index, begin_large_write2},
	{"a write breaks after cloning", prepare_large_clone, begin_large_write},
	{"a write breaks 1 GiB after cloning", prepare_large_clone, begin_large_write2},
	{"an unmap breaks", prepare_large, begin_large_unmap},
	{"an unmap breaks one, from the index", prepare_large_index, begin_large_unmap2},
	{"an unmap breaks after cloning", prepare_large_clone, begin_large_unmap},
	{"an unmap breaks one after cloning", prepare_large_clone, begin_large_unmap2},
	{"a protect breaks", prepare_large, begin_large_protect},
	{"a protect breaks, from the index", prepare_large_index, begin_large_protect2},
	{"a protect breaks after cloning", prepare_large_clone, begin_large_protect},
	{"a protect breaks 1 GiB after cloning", prepare_large_clone, begin_large_protect2},
	{"a protect breaks beside a broken one", prepare_large_holes, begin_large_protect},
	{"reset after breaks", prepare_large_frozen, begin_reset},
	{"write to a file by 2 MiB", prepare_large_shared, begin_large_write},
	{"write to a file by 2 MiB after cloning", prepare_large_shared_clone, begin_large_write},
	{"an unmap breaks where writes go to a file", prepare_large_shared_clone,
	 begin_large_unmap},
	{"snapshot", prepare_own, begin_snapshot},
	{"snapshot of a clone of a frozen one", prepare_frozen, begin_snapshot},
	{"a range moves", prepare_own, begin_range_move},
	{"a range moves after cloning", prepare_clone, begin_range_move},
	{"a range moves that is in the index", prepare_indexed, begin_range_move},
	{"a range moves from entries of 2 MiB", prepare_large, begin_large_range_move},
	{"a range moves from entries of 2 MiB after cloning", prepare_large_clone,
	 begin_large_range_move},
	{"reclaim", prepare_clone, begin_reclaim},
	{"reclaim from entries of 2 MiB", prepare_large_clone, begin_reclaim},
	{"watch", prepare_large_shared_clone, begin_watch},
	{"watch what nobody maps", prepare_nothing, begin_watch},
	{"harvest", prepare_indexed, begin_harvest},
	{"harvest of entries of 2 MiB", prepare_large_index, begin_harvest},
	{"a page moves", prepare_indexed, begin_page_move},
	{"a page moves after cloning", prepare_clone, begin_page_move},
	{"a page moves from an entry of 2 MiB", prepare_large, begin_page_move},
};

#define SCENARIOS (sizeof(scenarios) / sizeof(*scenarios))

static const uint64_t places[] = {
	AT,
	AT + KIB4,
	AT + 5 * KIB4,
	AT + MIB2,
	BIG,
	AT + 2 * MIB2,
	AT + 3 * MIB2,
	AT + 4 * MIB2 - KIB4,
	HOLE,
	BIG + 7 * MIB2,
	AT + 3 * MIB2 + 5 * KIB4,
	LARGE,
	LARGE + 5 * KIB4,
	LARGE + MIB2 + KIB4,
	LARGE + 2 * MIB2,
	LARGE + 3 * MIB2 + 5 * KIB4,
	LARGE + SPAN - KIB4,
	LARGE2,
	LARGE2 + 7 * MIB2 + 5 * KIB4,
	LARGE2 + GIB1 - KIB4,
};

#define PLACES (sizeof(places) / sizeof(*places))

struct place {
	bool mapped;
	bool present;
	struct fpa page;
	unsigned rights;
	unsigned region_rights;
};

struct snapshot {
	struct place places[GUESTS][PLACES];
	struct ept_usage usage;
};

static void snapshot_place(struct guest *guest, uint64_t gpa, struct place *place)
{
	struct gpa at = {gpa};
	struct ept_region region;

	place->mapped = ept_space_region(guest->space, at, &region);
	place->region_rights = place->mapped ? region.rights : 0;
	place->present = ept_space_translate(guest->space, at, &place->page, &place->rights);
	if (!place->present) {
		place->page.v = 0;
		place->rights = 0;
	}
}

static void snapshot_take(const struct scene *scene, struct snapshot *snapshot)
{
	memset(snapshot, 0, sizeof(*snapshot));
	for (unsigned g = 0; g < GUESTS; g++)
		for (unsigned p = 0; scene->guests[g] && p < PLACES; p++)
			snapshot_place(scene->guests[g], places[p], &snapshot->places[g][p]);
	ept_usage(scene->world->ept, &snapshot->usage);
}

static bool place_equal(const struct place *a, const struct place *b, unsigned rights)
{
	return a->mapped == b->mapped && a->present == b->present && a->page.v == b->page.v &&
	       (a->rights & rights) == (b->rights & rights) && a->region_rights == b->region_rights;
}

/*
 * After a first step an operation that fails may have given the guest tables of its own, and the
 * right to write comes back with the next fault; before it nothing at all differs.
 */
static void require_unchanged(const struct scene *scene, const struct snapshot *before, bool begun)
{
	struct snapshot now;

	snapshot_take(scene, &now);
	for (unsigned g = 0; g < GUESTS; g++)
		for (unsigned p = 0; p < PLACES; p++)
			if (!place_equal(&before->places[g][p], &now.places[g][p],
					 begun ? RX : RWX))
				port_fail(scene->world, "S10: %#llx of guest %u changed",
					  (unsigned long long)places[p], g);
	if (!begun && memcmp(&before->usage, &now.usage, sizeof(now.usage)))
		port_fail(scene->world, "S10: what is in use changed");
	world_check(scene->world);
}

static const char *scenario_name;

static const char *describe(void)
{
	return scenario_name;
}

/*
 * A guest of another domain with @count leaf tables: it brings the reverse map's pools to the size
 * at which the operation makes them grow.
 */
static void add_filler(struct scene *scene, unsigned count)
{
	struct guest *filler = guest_create(scene->world, 7, true);

	guest_must_map(filler, 0, GIB1, scene->big, 0, RX);
	for (unsigned i = 0; i < count; i++)
		guest_must_read(filler, i * MIB2, world_stamp(scene->big, i * EPT_ENTRIES, 0));
}

static void scene_create(struct scene *scene, const struct scenario *scenario, const void *format,
			 uint32_t tables, uint32_t pages, unsigned filler)
{
	struct world_options options = world_defaults(format);

	memset(scene, 0, sizeof(*scene));
	options.tables = tables;
	options.pages = pages;
	scene->world = world_create(&options);
	scenario_name = scenario->name;
	scene->world->describe = describe;
	scene->world->check_every = 0;
	scene->file = world_file(scene->world, SPAN / KIB4, false);
	scene->big = world_file(scene->world, GIB1 / KIB4, false);
	scene->through = world_file(scene->world, SPAN / KIB4, true);
	scene->spare = world_spare_file(scene->world, 4);
	if (filler)
		add_filler(scene, filler);
	scenario->prepare(scene);
}

static void scene_destroy(struct scene *scene)
{
	world_check(scene->world);
	if (scene->made)
		ept_space_destroy(scene->made);
	world_destroy(scene->world);
}

/* The operation, with no memory for the engine's @k-th allocation if @k is not 0. */
static enum ept_status operate(struct scene *scene, const struct scenario *scenario, unsigned k,
			       unsigned *steps)
{
	struct ept_change change = {0};
	struct tally tally = {0};
	enum ept_status status;

	if (k)
		failing_alloc_arm(k);
	status = scenario->begin(scene, &change);
	if (status == EPT_OK) {
		do {
			failing_alloc_pause();
			world_commit(scene->world, &change, &tally);
			if (k)
				failing_alloc_resume();
			status = ept_change_finish(&change);
		} while (status == EPT_MORE);
	}
	failing_alloc_pause();
	ept_change_free(&change);
	*steps = tally.steps;
	return status;
}

/* Whether the @k-th allocation was reached. */
static bool fail_allocation(const struct scenario *scenario, const void *format, unsigned filler,
			    unsigned k)
{
	struct snapshot before;
	enum ept_status status;
	struct scene scene;
	unsigned steps;
	bool failed;

	scene_create(&scene, scenario, format, 160, 64, filler);
	snapshot_take(&scene, &before);
	status = operate(&scene, scenario, k, &steps);
	failed = failing_alloc_disarm();
	if (status == EPT_NO_MEMORY) {
		require_unchanged(&scene, &before, steps > 0);
		status = operate(&scene, scenario, 0, &steps);
	}
	if (status != EPT_OK)
		port_fail(scene.world, "allocation %u: '%s'", k, ept_status_text(status));
	scene_destroy(&scene);
	return failed;
}

static void S10_every_allocation_fails(void **state)
{
	static const unsigned fillers[] = {0, 54, 57, 59, 60, 61, 62, 63};
	/* Who chooses the number of operations wants a short run: arrays full and empty then do. */
	unsigned stride = getenv("S2VM_OPS") ? 7 : 1;

	for (unsigned s = 0; s < SCENARIOS; s++)
		for (unsigned f = 0; f < sizeof(fillers) / sizeof(*fillers); f += stride)
			for (unsigned k = 1; fail_allocation(&scenarios[s], *state, fillers[f], k);
			     k++)
				assert_true(k < 200);
}

/* How many tables and pages a scenario's preparation leaves in use or in quarantine. */
static void count_use(const struct scenario *scenario, const void *format, uint32_t *tables,
		      uint32_t *pages)
{
	struct ept_usage usage;
	struct scene scene;

	scene_create(&scene, scenario, format, 512, 64, 0);
	ept_usage(scene.world->ept, &usage);
	*tables = (uint32_t)usage.tables_quarantined;
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		*tables += (uint32_t)usage.tables[level];
	*pages = (uint32_t)(usage.pages + usage.pages_quarantined);
	scene_destroy(&scene);
}

/* Whether the operation fails with @spare tables to spare; it must succeed with more. */
static bool fail_table(const struct scenario *scenario, const void *format, uint32_t used,
		       unsigned spare)
{
	struct guest *ballast[BALLAST] = {NULL};
	struct snapshot before;
	enum ept_status status;
	struct scene scene;
	unsigned steps;
	bool failed;

	scene_create(&scene, scenario, format, used + BALLAST, 64, 0);
	/* An empty guest takes one table, its root, and gives it back at its end. */
	for (unsigned i = spare; i < BALLAST; i++)
		ballast[i] = guest_create(scene.world, 9, true);
	snapshot_take(&scene, &before);
	status = operate(&scene, scenario, 0, &steps);
	failed = status == EPT_NO_TABLE;
	if (failed)
		require_unchanged(&scene, &before, steps > 0);
	for (unsigned i = spare; i < BALLAST; i++)
		guest_destroy(ballast[i]);
	world_scrub_all(scene.world);
	if (failed)
		status = operate(&scene, scenario, 0, &steps);
	if (status != EPT_OK)
		port_fail(scene.world, "%u tables to spare: '%s'", spare, ept_status_text(status));
	scene_destroy(&scene);
	return failed;
}

static void S10_tables_run_out(void **state)
{
	for (unsigned s = 0; s < SCENARIOS; s++) {
		uint32_t tables, pages;
		unsigned spare = 0;

		count_use(&scenarios[s], *state, &tables, &pages);
		while (fail_table(&scenarios[s], *state, tables, spare))
			assert_true(++spare <= BALLAST);
	}
}

/* Whether the operation is a private write. */
static bool needs_page(const struct scenario *scenario)
{
	if (scenario->prepare == prepare_large_shared ||
	    scenario->prepare == prepare_large_shared_clone)
		return false;
	return scenario->begin == begin_write || scenario->begin == begin_large_write ||
	       scenario->begin == begin_large_write2;
}

/* The same for the one page that a write needs. */
static void fail_page(const struct scenario *scenario, const void *format, uint32_t used)
{
	struct snapshot before;
	enum ept_status status;
	struct guest *ballast;
	struct scene scene;
	unsigned steps;

	scene_create(&scene, scenario, format, 512, used + 1, 0);
	ballast = guest_create(scene.world, 9, true);
	guest_must_map(ballast, AT, KIB4, scene.file, 0, RW);
	guest_must_write(ballast, AT, 1);
	snapshot_take(&scene, &before);
	status = operate(&scene, scenario, 0, &steps);
	if (needs_page(scenario) && status != EPT_NO_PAGE)
		port_fail(scene.world, "a write without a page: '%s'", ept_status_text(status));
	if (status == EPT_NO_PAGE)
		require_unchanged(&scene, &before, steps > 0);
	guest_destroy(ballast);
	world_scrub_all(scene.world);
	if (status == EPT_NO_PAGE)
		status = operate(&scene, scenario, 0, &steps);
	if (status != EPT_OK)
		port_fail(scene.world, "with a page: '%s'", ept_status_text(status));
	scene_destroy(&scene);
}

static void S10_pages_run_out(void **state)
{
	for (unsigned s = 0; s < SCENARIOS; s++) {
		uint32_t tables, pages;

		count_use(&scenarios[s], *state, &tables, &pages);
		fail_page(&scenarios[s], *state, pages);
	}
}

/* Engine and spaces come into being whole or not at all. */
static void S10_creation_fails(void **state)
{
	static uint64_t memory[8 * EPT_ENTRIES] __attribute__((aligned(EPT_PAGE_BYTES)));
	const struct ept_space_options options = {.domain = 0, .sharing = true};
	struct ept_config config = {
		.format = *state,
		.memory = {.tables = memory,
			   .tables_at = {GIB1},
			   .table_count = 8,
			   .pages_at = {2 * GIB1},
			   .page_count = 8},
		.share_levels = EPT_SHARE_ALL,
	};
	struct ept_space *space = NULL;
	struct ept *ept = NULL;

	for (unsigned k = 1; !ept; k++) {
		failing_alloc_arm(k);
		ept = ept_create(&config);
		assert_int_equal(failing_alloc_disarm(), ept == NULL);
	}
	failing_alloc_arm(1);
	assert_int_equal(ept_space_create(ept, &options, &space), EPT_NO_MEMORY);
	failing_alloc_disarm();
	assert_int_equal(ept_check(ept, NULL, NULL), 0);
	assert_int_equal(ept_space_create(ept, &options, &space), EPT_OK);
	failing_alloc_arm(1);
	assert_int_equal(ept_check(ept, NULL, NULL), 1);
	failing_alloc_disarm();
	ept_space_destroy(space);
	ept_destroy(ept);
	memset(memory, 0, sizeof(memory));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(S10_every_allocation_fails),
		EACH_FORMAT(S10_tables_run_out),
		EACH_FORMAT(S10_pages_run_out),
		EACH_FORMAT(S10_creation_fails),
	};

	return cmocka_run_group_tests_name("ept.memory", tests, NULL, NULL);
}
