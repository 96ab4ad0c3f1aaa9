// SPDX-License-Identifier: MIT
/*
 * Times the engine's operations. Each is what a VMM does for it: the call, copying the page,
 * storing the edits, and ept_change_finish(). There are no vCPUs, so an invalidation is only counted.
 * Tables and pages are written to before anything is timed, or the host's faults would be timed too;
 * those that operations give up are scrubbed between, not within them.
 */
#include "bench_engine.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ept_internal.h"

#define TABLES_AT UINT64_C(0x100000000)
#define PAGES_AT  UINT64_C(0x1000000000)
#define FILE_AT	  UINT64_C(0x100000000000)
#define GATE_AT	  UINT64_C(0x7000)

/* The gate's place, where no region is. */
#define GATE_INDEX 511

#define MIB	   (UINT64_C(1) << 20)
#define GIB	   (UINT64_C(1) << 30)
#define PT_SPAN	   (2 * MIB)
#define PDPT_SPAN  (512 * GIB)
#define RIGHTS	   (EPT_READ | EPT_WRITE | EPT_EXEC)
#define SAMPLES	   16384
#define PAGES	   4096
#define CLOCK_RUNS 1000
#define LOOKUPS	   32

/* Of the file only this much has contents to copy; it is read again and again. */
#define CONTENTS_BYTES (64 * MIB)

/* Dead tables that are left before they are scrubbed: as many as stay in a processor's caches. */
#define DEAD_TABLES 256

/* Rounds of a series that are not counted, for memory and lists to reach their size. */
#define WARM_UP 2

struct world {
	struct bench_engine_result *result;
	uint64_t *samples[BENCH_ENGINE_OPS];
	unsigned char *tables;
	size_t tables_bytes;
	unsigned char *pages;
	unsigned char *contents;
	struct ept *ept;
	struct ept_change change;
	struct ept_counters before;
	uint64_t start;
	uint64_t edits;
	uint64_t invalidations;
	bool counted; /* not warming up any more */
};

/* All that is needed was set aside, so nothing fails but for a mistake here or in the engine. */
static void require(enum ept_status status)
{
	struct error error;

	if (status == EPT_OK)
		return;
	error_set(&error, EXIT_FAILED, "bench engine: %s", ept_status_text(status));
	exit(error_print(&error));
}

/* ---- doing what changes ask for ---- */

/* Not a constant, so that libc's copy is called, as the VMM's memory.c does. */
static const volatile size_t copy_bytes = EPT_PAGE_BYTES;

static void commit(struct world *world)
{
	const struct ept_change *change = &world->change;
	const struct ept_edit *edits = ept_change_edits(change);

	if (change->has_copy)
		memcpy(world->pages + (change->copy.to.v - PAGES_AT),
		       world->contents + (change->copy.from.v - FILE_AT) % CONTENTS_BYTES,
		       copy_bytes);
	for (size_t at = 0; at < change->edits.count; at++) {
		void *entry = world->tables + (edits[at].entry.v - TABLES_AT);

		__atomic_store_n((uint64_t *)entry, edits[at].value, __ATOMIC_RELEASE);
	}
	world->edits += change->edits.count;
	world->invalidations += change->invalidations.count;
}

/* Ends an operation that returned @status. */
static void run(struct world *world, enum ept_status status)
{
	if (status == EPT_OK)
		do
			commit(world);
		while ((status = ept_change_finish(&world->change)) == EPT_MORE);
	require(status);
}

static void scrub(struct world *world)
{
	struct ept_usage usage;

	do {
		run(world, ept_scrub(world->ept, 64, &world->change));
		ept_usage(world->ept, &usage);
	} while (usage.tables_quarantined || usage.pages_quarantined);
}

static void scrub_if_many(struct world *world)
{
	struct ept_usage usage;

	ept_usage(world->ept, &usage);
	if (usage.tables_quarantined > DEAD_TABLES || usage.pages_quarantined > PAGES / 2)
		scrub(world);
}

/* ---- timing ---- */

static void op_begin(struct world *world)
{
	ept_counters(world->ept, &world->before);
	world->edits = 0;
	world->invalidations = 0;
	world->start = now_ns();
}

static void most(uint64_t *figure, uint64_t value)
{
	if (*figure < value)
		*figure = value;
}

static void count_events(struct world *world, struct bench_engine_figures *figures)
{
	const struct ept_counters *before = &world->before;
	struct ept_counters after;

	ept_counters(world->ept, &after);
	most(&figures->edits, world->edits);
	most(&figures->invalidations, world->invalidations);
	most(&figures->tables_filled, after.tables_filled - before->tables_filled);
	most(&figures->tables_shared, after.tables_shared - before->tables_shared);
	most(&figures->tables_copied, after.tables_copied - before->tables_copied);
	most(&figures->pages_copied, after.pages_copied - before->pages_copied);
}

/* The end of @times operations in a row, which are one sample. */
static void ops_end(struct world *world, enum bench_engine_op op, unsigned times)
{
	uint64_t time = now_ns() - world->start;
	struct bench_engine_figures *figures = &world->result->ops[op];
	uint64_t clock_ns = world->result->clock_ns;

	if (!world->counted || figures->count == SAMPLES)
		return;
	world->samples[op][figures->count++] = time > clock_ns ? (time - clock_ns) / times : 0;
	count_events(world, figures);
}

static void op_end(struct world *world, enum bench_engine_op op)
{
	ops_end(world, op, 1);
}

static void fault(struct world *world, struct ept_space *space, uint64_t gpa, unsigned access)
{
	run(world, ept_space_fault(space, (struct gpa){ gpa }, access, &world->change));
}

static void timed_fault(struct world *world, struct ept_space *space, uint64_t gpa,
			unsigned access, enum bench_engine_op op)
{
	op_begin(world);
	fault(world, space, gpa, access);
	op_end(world, op);
}

/* What two readings of the clock in a row differ by. */
static uint64_t clock_cost(uint64_t *samples)
{
	for (unsigned at = 0; at < CLOCK_RUNS; at++) {
		uint64_t start = now_ns();

		samples[at] = now_ns() - start;
	}
	return bench_percentile(samples, CLOCK_RUNS, 50);
}

/* ---- the world that a series runs in ---- */

static void engine_create(struct world *world, uint32_t tables)
{
	const struct ept_file file = { .window = { FILE_AT }, .pages = 64 * GIB / EPT_PAGE_BYTES };
	const struct ept_config config = {
		.format = &ept_format_ept,
		.memory = { world->tables, { TABLES_AT }, tables, { PAGES_AT }, PAGES },
		.root_entry_index = GATE_INDEX,
		.root_entry = ept_entry_table(&ept_format_ept, (struct fpa){ GATE_AT }, RIGHTS),
		.share_levels = EPT_SHARE_ALL,
	};

	memset(world->tables, 0, (size_t)tables * EPT_PAGE_BYTES);
	world->tables_bytes = (size_t)tables * EPT_PAGE_BYTES;
	world->ept = ept_create(&config);
	if (!world->ept || ept_file_add(world->ept, &file) != 0)
		require(EPT_NO_MEMORY);
}

static void engine_destroy(struct world *world)
{
	ept_destroy(world->ept);
	madvise(world->tables, world->tables_bytes, MADV_DONTNEED);
}

static void map(struct world *world, struct ept_space *space, uint64_t start, uint64_t bytes)
{
	const struct ept_region region = {
		.start = { start },
		.bytes = bytes,
		.rights = RIGHTS,
	};

	run(world, ept_space_map(space, &region, &world->change));
}

/* A space that shows the beginning of the file at @start. */
static struct ept_space *space_create(struct world *world, uint64_t start, uint64_t bytes)
{
	const struct ept_space_options options = { .sharing = true };
	struct ept_space *space = NULL;

	require(ept_space_create(world->ept, &options, &space));
	map(world, space, start, bytes);
	return space;
}

static void read_all(struct world *world, struct ept_space *space, uint64_t start, uint64_t bytes)
{
	for (uint64_t at = start; at < start + bytes; at += PT_SPAN)
		fault(world, space, at, EPT_READ);
}

/* A frozen space with all tables. */
static struct ept_space *parent_create(struct world *world, uint64_t bytes)
{
	struct ept_space *space = space_create(world, 0, bytes);

	map(world, space, PDPT_SPAN, PT_SPAN);
	read_all(world, space, 0, bytes);
	read_all(world, space, PDPT_SPAN, PT_SPAN);
	run(world, ept_space_freeze(space, &world->change));
	return space;
}

static struct ept_space *space_clone(struct world *world, struct ept_space *parent)
{
	struct ept_space *space = NULL;

	run(world, ept_space_clone(parent, &space, &world->change));
	return space;
}

/* ---- series ---- */

/*
 * A lookup is shorter than what clocks resolve, so some in a row are timed. What they find belongs to
 * their caller, who gives it back outside of the time.
 */
static void timed_lookups(struct world *world, uint64_t gpa)
{
	struct ept_key key = { .level = 1, .rights = RIGHTS, .mode = EPT_PRIVATE };
	struct ept_table *tables[LOOKUPS];

	key.first.page = gpa >> EPT_PAGE_SHIFT;
	op_begin(world);
	for (unsigned at = 0; at < LOOKUPS; at++, key.first.page += EPT_ENTRIES)
		tables[at] = ept_index_get(world->ept, &key);
	ops_end(world, BENCH_INDEX, LOOKUPS);
	for (unsigned at = 0; at < LOOKUPS; at++) {
		require(tables[at] ? EPT_OK : EPT_OUTSIDE);
		ept_table_put(world->ept, tables[at]);
	}
}

/* 2 MiB after 2 MiB is read in one space and then in another. The tables above are there. */
static void faults_round(struct world *world)
{
	struct ept_space *first = space_create(world, 0, GIB / 2);
	struct ept_space *later = space_create(world, 0, GIB / 2);

	fault(world, first, 0, EPT_READ);
	fault(world, later, 0, EPT_READ);
	for (uint64_t gpa = PT_SPAN; gpa < GIB / 2; gpa += PT_SPAN) {
		timed_fault(world, first, gpa, EPT_READ, BENCH_FILL);
		timed_fault(world, later, gpa, EPT_READ, BENCH_SHARE);
		timed_fault(world, later, gpa, EPT_READ, BENCH_FOUND);
	}
	for (uint64_t gpa = 0; gpa < GIB / 2; gpa += LOOKUPS * PT_SPAN)
		timed_lookups(world, gpa);
	ept_space_destroy(first);
	ept_space_destroy(later);
	scrub(world);
}

static void series_faults(struct world *world)
{
	engine_create(world, 1024);
	for (unsigned round = 0; round < WARM_UP + 16; round++) {
		world->counted = round >= WARM_UP;
		faults_round(world);
	}
	engine_destroy(world);
}

/*
 * The first write, far away, gives the clone a root; the next needs three tables, and those after it
 * none.
 */
static void writes_round(struct world *world, struct ept_space *space, unsigned round)
{
	uint64_t span = round % 32 * PT_SPAN;

	timed_fault(world, space, PDPT_SPAN, EPT_WRITE, BENCH_UNSHARE_ALL);
	timed_fault(world, space, span, EPT_WRITE, BENCH_UNSHARE);
	for (uint64_t page = 37; page < 512; page += 37)
		timed_fault(world, space, span + page * EPT_PAGE_BYTES, EPT_WRITE, BENCH_WRITE);
	run(world, ept_space_reset(space, &world->change));
	scrub_if_many(world);
}

static void reset_round(struct world *world, struct ept_space *space)
{
	fault(world, space, 0, EPT_WRITE);
	op_begin(world);
	run(world, ept_space_reset(space, &world->change));
	op_end(world, BENCH_RESET);
	scrub_if_many(world);
}

static void series_writes(struct world *world)
{
	struct ept_space *parent, *space;

	engine_create(world, 1024);
	parent = parent_create(world, 64 * MIB);
	space = space_clone(world, parent);
	for (unsigned round = 0; round < 1100; round++) {
		world->counted = round >= 100;
		writes_round(world, space, round);
		reset_round(world, space);
	}
	ept_space_destroy(space);
	ept_space_destroy(parent);
	engine_destroy(world);
}

/* Clones stay until the round is over, as those of a fleet do. */
static void clones_round(struct world *world, struct ept_space *parent, enum bench_engine_op op)
{
	struct ept_space *clones[500];

	for (unsigned at = 0; at < 500; at++) {
		op_begin(world);
		clones[at] = space_clone(world, parent);
		op_end(world, op);
	}
	for (unsigned at = 0; at < 500; at++)
		ept_space_destroy(clones[at]);
}

static void series_clones(struct world *world, uint64_t bytes, enum bench_engine_op op)
{
	struct ept_space *parent;

	engine_create(world, (uint32_t)(bytes / PT_SPAN * 102 / 100 + 64));
	parent = parent_create(world, bytes);
	for (unsigned round = 0; round < WARM_UP + 3; round++) {
		world->counted = round >= WARM_UP;
		clones_round(world, parent, op);
	}
	ept_space_destroy(parent);
	engine_destroy(world);
}

static void snapshot_round(struct world *world)
{
	struct ept_space *space = space_create(world, 0, 64 * MIB);
	struct ept_space *frozen = NULL;

	fault(world, space, 0, EPT_WRITE);
	op_begin(world);
	run(world, ept_space_snapshot(space, &frozen, &world->change));
	op_end(world, BENCH_SNAPSHOT);
	ept_space_destroy(space);
	ept_space_destroy(frozen);
	scrub_if_many(world);
}

static void unmap_round(struct world *world, struct ept_space *space)
{
	map(world, space, GIB, GIB);
	fault(world, space, GIB, EPT_READ);
	op_begin(world);
	run(world, ept_space_unmap(space, (struct gpa){ GIB }, GIB, &world->change));
	op_end(world, BENCH_UNMAP);
}

static void series_regions(struct world *world)
{
	struct ept_space *owner, *space;

	engine_create(world, 2048);
	owner = space_create(world, GIB, GIB);
	space = space_create(world, 0, PT_SPAN);
	read_all(world, owner, GIB, GIB);
	for (unsigned round = 0; round < 1100; round++) {
		world->counted = round >= 100;
		snapshot_round(world);
		unmap_round(world, space);
	}
	ept_space_destroy(owner);
	ept_space_destroy(space);
	engine_destroy(world);
}

/* Pages of a table that @guests guests share are taken away, one after another. */
static void series_reclaim(struct world *world, unsigned guests, enum bench_engine_op op)
{
	struct ept_space *spaces[BENCH_ENGINE_GUESTS];

	engine_create(world, 4096);
	for (unsigned at = 0; at < guests; at++) {
		spaces[at] = space_create(world, 0, 64 * MIB);
		fault(world, spaces[at], 0, EPT_READ);
	}
	for (unsigned page = 0; page < 200; page++) {
		world->counted = page >= 50;
		op_begin(world);
		run(world, ept_file_reclaim(world->ept, (struct file_page){ .page = page }, 1,
					    &world->change));
		op_end(world, op);
	}
	for (unsigned at = 0; at < guests; at++)
		ept_space_destroy(spaces[at]);
	engine_destroy(world);
}

static void series_all(struct world *world)
{
	series_faults(world);
	series_writes(world);
	series_clones(world, 64 * MIB, BENCH_CLONE_SMALL);
	series_clones(world, GIB, BENCH_CLONE_MEDIUM);
	series_clones(world, 64 * GIB, BENCH_CLONE_LARGE);
	series_regions(world);
	series_reclaim(world, 1, BENCH_RECLAIM_ONE);
	series_reclaim(world, BENCH_ENGINE_GUESTS, BENCH_RECLAIM_MANY);
}

/* ---- all of it ---- */

static void *reserve(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* The most tables that a series needs. */
#define TABLES_BYTES (64 * GIB / PT_SPAN * 103 / 100 * EPT_PAGE_BYTES)

static bool world_create(struct world *world)
{
	world->tables = reserve(TABLES_BYTES);
	world->pages = reserve(PAGES * EPT_PAGE_BYTES);
	world->contents = reserve(CONTENTS_BYTES);
	for (unsigned op = 0; op < BENCH_ENGINE_OPS; op++) {
		world->samples[op] = calloc(SAMPLES, sizeof(uint64_t));
		if (!world->samples[op])
			return false;
	}
	if (!world->tables || !world->pages || !world->contents)
		return false;
	memset(world->pages, 1, PAGES * EPT_PAGE_BYTES);
	memset(world->contents, 2, CONTENTS_BYTES);
	return true;
}

static void unreserve(void *memory, size_t bytes)
{
	if (memory)
		munmap(memory, bytes);
}

static void world_free(struct world *world)
{
	ept_change_free(&world->change);
	for (unsigned op = 0; op < BENCH_ENGINE_OPS; op++)
		free(world->samples[op]);
	unreserve(world->tables, TABLES_BYTES);
	unreserve(world->pages, PAGES * EPT_PAGE_BYTES);
	unreserve(world->contents, CONTENTS_BYTES);
}

bool bench_engine(struct bench_engine_result *result, struct error *error)
{
	struct world world = { .result = result };
	bool created = world_create(&world);

	*result = (struct bench_engine_result){ 0 };
	if (created) {
		result->clock_ns = clock_cost(world.samples[0]);
		series_all(&world);
	}
	for (unsigned op = 0; op < BENCH_ENGINE_OPS && created; op++) {
		struct bench_engine_figures *figures = &result->ops[op];

		figures->p50 = bench_percentile(world.samples[op], figures->count, 50);
		figures->p99 = bench_percentile(world.samples[op], figures->count, 99);
	}
	world_free(&world);
	return created || error_set(error, EXIT_FAILED, "out of memory");
}
