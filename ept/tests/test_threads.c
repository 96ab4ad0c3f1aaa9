// SPDX-License-Identifier: MIT
/*
 * Many guests at once, one thread each, for a race detector: all of them clones of one template or
 * guests that share through the index, each compared with its own flat model. S2VM_OPS is the
 * number of operations of all threads together, S2VM_SEED where their random numbers begin.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random_model.h"

#define THREADS 8
#define CELLS	31 /* of the model's; the rest is for the single-threaded test */
#define TRIES	64

/*
 * A file that all guests write to, at SHARED, each thread to pages of its own; and the pages of
 * file 0 that each thread moves to places of its own.
 */
#define SHARED	      (UINT64_C(100) * GIB512)
#define SHARED_PAGES  (4 * EPT_ENTRIES)
#define SHARED_FILE   2
#define SPARE_FILE    3
#define PLACES	      4 /* for each thread */
#define MOVED(worker) ((worker)->number * 3 + 64 * below((worker), 16))

struct worker {
	pthread_t thread;
	struct world *world;
	struct guest *template;
	const struct model *template_model;
	struct guest *guest;
	struct model model;
	unsigned number;
	struct guest *frozen; /* what the guest was when it was frozen last, or NULL */
	struct model base;    /* what a reset goes back to */
	uint64_t shared[2];   /* what the thread wrote to its pages last; 0: nothing yet */
	bool is_clone;
	bool large; /* maps by 2 MiB */
	uint64_t random_state;
	uint64_t ops;
};

/* No file of this test can be written, so all of its pages are computed. */
static struct model_files no_files;

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static uint32_t below(struct worker *worker, uint32_t limit)
{
	uint64_t z = worker->random_state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (uint32_t)((z ^ z >> 31) >> 16) % limit;
}

static bool out_of_memory(enum ept_status status)
{
	return status == EPT_NO_TABLE || status == EPT_NO_PAGE;
}

static void expect(struct worker *worker, enum ept_status status, enum ept_status expected,
		   const char *what)
{
	if (status == expected)
		return;
	if (!out_of_memory(status))
		port_fail(worker->world, "%s: '%s' instead of '%s'", what, ept_status_text(status),
			  ept_status_text(expected));
	world_scrub(worker->world, 8);
}

static struct ept_region region_at(unsigned first, unsigned last, uint32_t file, bool large)
{
	uint64_t start = model_cut(first);
	struct ept_region region =
		region_of(start, model_cut(last) - start, file, start / KIB4, RWX);

	region.large = large;
	return region;
}

static void work_map(struct worker *worker)
{
	unsigned first = below(worker, CELLS);
	unsigned last = first + 1 + below(worker, CELLS - first);
	struct ept_region region = region_at(first, last, below(worker, 2), worker->large);
	enum ept_status status = guest_map(worker->guest, &region);

	expect(worker, status, model_any(&worker->model, first, last) ? EPT_OVERLAP : EPT_OK,
	       "map");
	if (status == EPT_OK)
		model_map(&worker->model, first, last, &region);
}

static void work_unmap(struct worker *worker)
{
	unsigned first = below(worker, CELLS);
	unsigned last = first + 1;
	enum ept_status status;

	status = guest_unmap(worker->guest, model_cut(first), model_cut(last) - model_cut(first));
	expect(worker, status, EPT_OK, "unmap");
	if (status == EPT_OK)
		model_unmap(&worker->model, first, last);
}

static void work_protect(struct worker *worker)
{
	unsigned first = below(worker, CELLS);
	unsigned last = first + 1;
	unsigned rights = below(worker, 2) ? RWX : RX;
	enum ept_status status;

	status = guest_protect(worker->guest, model_cut(first), model_cut(last) - model_cut(first),
			       rights);
	expect(worker, status, model_covers(&worker->model, first, last) ? EPT_OK : EPT_OVERLAP,
	       "protect");
	if (status == EPT_OK)
		model_protect(&worker->model, first, last, rights);
}

static void read_as(struct worker *worker, struct guest *guest, unsigned cell)
{
	unsigned point = below(worker, MODEL_POINTS);
	unsigned word = below(worker, PORT_WORDS);
	enum ept_status status;
	uint64_t value;

	status = guest_read(guest, model_point(cell, point).v + word * sizeof(value), &value);
	expect(worker, status, model_access(&worker->model, cell, EPT_READ), "read");
	if (status == EPT_OK && value != model_read(&worker->model, &no_files, cell, point, word))
		port_fail(worker->world, "S5: read %#llx in cell %u", (unsigned long long)value,
			  cell);
}

static void work_write(struct worker *worker)
{
	unsigned cell = below(worker, CELLS);
	unsigned point = below(worker, MODEL_POINTS);
	unsigned word = below(worker, PORT_WORDS);
	uint64_t value = (uint64_t)worker->thread << 20 | below(worker, 1u << 20);
	enum ept_status status;

	status = guest_write(worker->guest, model_point(cell, point).v + word * sizeof(value),
			     value);
	expect(worker, status, model_access(&worker->model, cell, EPT_WRITE), "write");
	if (status == EPT_OK)
		model_write(&worker->model, &no_files, cell, point, word, value);
}

/* A clone of the running guest sees what the guest sees, and what it writes the guest does not. */
static void work_clone(struct worker *worker)
{
	struct guest *child;
	enum ept_status status = guest_clone(worker->guest, &child);
	unsigned cell = below(worker, CELLS);

	expect(worker, status, EPT_OK, "clone");
	if (status != EPT_OK)
		return;
	for (unsigned i = 0; i < CELLS; i++)
		read_as(worker, child, i);
	guest_write(child, model_point(cell, 0).v, 1);
	read_as(worker, worker->guest, cell);
	guest_destroy(child);
}

static void map_shared(struct worker *worker)
{
	struct ept_region region = region_of(SHARED, SHARED_PAGES * KIB4, SHARED_FILE, 0, RW);

	region.mode = EPT_SHARED;
	region.large = worker->large;
	/* Without it the thread's writes end outside of all regions. */
	expect(worker, guest_map(worker->guest, &region), EPT_OK, "map");
}

/* A new guest: a clone of the template, or one that maps the files for itself. */
static void work_begin(struct worker *worker)
{
	struct ept_region region;
	enum ept_status status = EPT_OK;

	worker->is_clone = below(worker, 2);
	worker->large = below(worker, 2);
	region = region_at(10, 24, 0, worker->large);
	for (unsigned i = 0; i < TRIES; i++) {
		if (worker->is_clone)
			status = guest_clone(worker->template, &worker->guest);
		else
			status = guest_try_create(worker->world, 0, true, &worker->guest);
		if (status == EPT_OK)
			break;
		world_scrub(worker->world, 8);
	}
	if (status != EPT_OK)
		port_fail(worker->world, "no guest: %s", ept_status_text(status));
	if (worker->is_clone) {
		worker->model = *worker->template_model;
		worker->base = worker->model;
		return;
	}
	map_shared(worker);
	memset(&worker->model, 0, sizeof(worker->model));
	status = guest_map(worker->guest, &region);
	expect(worker, status, EPT_OK, "map");
	if (status == EPT_OK)
		model_map(&worker->model, 10, 24, &region);
}

static void work_reset(struct worker *worker)
{
	enum ept_status status = guest_reset(worker->guest);

	expect(worker, status, worker->is_clone ? EPT_OK : EPT_NO_PARENT, "reset");
	if (status == EPT_OK)
		worker->model = worker->base;
}

static void drop_frozen(struct worker *worker)
{
	if (worker->frozen)
		guest_destroy(worker->frozen);
	worker->frozen = NULL;
}

/* The guest is frozen while others run, and goes on; a clone of what it was sees that. */
static void work_snapshot(struct worker *worker)
{
	struct guest *frozen, *clone;
	enum ept_status status = guest_snapshot(worker->guest, &frozen);

	expect(worker, status, EPT_OK, "snapshot");
	if (status != EPT_OK)
		return;
	drop_frozen(worker);
	worker->frozen = frozen;
	worker->base = worker->model;
	worker->is_clone = true;
	status = guest_clone(frozen, &clone);
	expect(worker, status, EPT_OK, "clone");
	if (status != EPT_OK)
		return;
	for (unsigned cell = 0; cell < CELLS; cell += 3)
		read_as(worker, clone, cell);
	guest_destroy(clone);
}

static void work_move(struct worker *worker)
{
	unsigned cell = below(worker, CELLS);
	unsigned goal = below(worker, CELLS);
	uint64_t bytes = model_cut(cell + 1) - model_cut(cell);
	enum ept_status status, expected = EPT_OK;

	for (unsigned tries = 0; tries < CELLS; tries++)
		if (goal == cell || model_cut(goal + 1) - model_cut(goal) != bytes)
			goal = (goal + 1) % CELLS;
	if (goal == cell || model_cut(goal + 1) - model_cut(goal) != bytes)
		return;
	if (!worker->model.cells[cell].rights || worker->model.cells[goal].rights)
		expected = EPT_OVERLAP;
	status = guest_move(worker->guest, model_cut(cell), bytes, model_cut(goal));
	expect(worker, status, expected, "move");
	if (status == EPT_OK)
		model_move(&worker->model, cell, goal);
}

/* Writes to a page of its own in the file that all write to, unless that is watched. */
static void work_shared(struct worker *worker)
{
	unsigned which = below(worker, 2);
	uint64_t page = which * (SHARED_PAGES / 2) + worker->number;
	uint64_t gpa = SHARED + page * KIB4;
	uint64_t value = (uint64_t)worker->thread << 20 | below(worker, 1u << 20) | 1;
	enum ept_status status = guest_write(worker->guest, gpa, value);
	uint64_t found;

	if (status == EPT_OK)
		worker->shared[which] = value;
	else if (status != EPT_WATCHED && status != EPT_OUTSIDE)
		expect(worker, status, EPT_OK, "write to the file");
	status = guest_read(worker->guest, gpa, &found);
	if (status == EPT_OK && worker->shared[which] && found != worker->shared[which])
		port_fail(worker->world, "S5: the file's page %u is not as it was written",
			  (unsigned)page);
}

/* Nobody writes to what is watched, until it no longer is. */
static void work_watch(struct worker *worker)
{
	/* Threads watch different pages: each ends its own watch only. */
	uint64_t page = THREADS + worker->number;
	struct file_page first = {SHARED_FILE, below(worker, 2) * (SHARED_PAGES / 2) + page};
	struct fpa at = world_file_page(worker->world, SHARED_FILE, first.page);
	struct tally tally;
	uint64_t before;

	if (world_watch(worker->world, first, 1, &tally) != EPT_OK)
		port_fail(worker->world, "watching failed");
	before = world_peek(worker->world, at, 0);
	for (unsigned i = 0; i < 3; i++) {
		if (guest_write(worker->guest, SHARED + first.page * KIB4, 1 + before) == EPT_OK)
			port_fail(worker->world, "F29: a write to a watched page");
		if (world_peek(worker->world, at, 0) != before)
			port_fail(worker->world, "F29: a watched page was written to");
	}
	ept_file_unwatch(worker->world->ept, first, 1);
	guest_write(worker->guest, SHARED + first.page * KIB4, 1 + before);
}

/* Whoever still looks at the place that a page left finds nothing good there. */
static void poison(struct worker *worker, struct fpa at)
{
	for (unsigned word = 0; word < PORT_WORDS; word++)
		world_set(worker->world, at, word, PORT_POISON);
}

static void work_move_page(struct worker *worker)
{
	struct file_page page = {0, MOVED(worker)};
	struct file_page to = {SPARE_FILE, worker->number * PLACES + below(worker, PLACES)};
	struct fpa left = world_file_page(worker->world, 0, page.page);
	struct tally tally;
	enum ept_status status;

	if (!below(worker, 3))
		to = page;
	status = world_move_page(worker->world, page, to, &tally);
	/* Refused if it is at home, or the place is taken. */
	if (status != EPT_OK && status != EPT_INVALID)
		port_fail(worker->world, "moving a page: %s", ept_status_text(status));
	if (status == EPT_OK && left.v >= worker->world->files[SPARE_FILE].ept.window.v)
		poison(worker, left);
}

static void work_pass(struct worker *worker)
{
	struct file_page first = {below(worker, 3), below(worker, 1500)};
	uint64_t accessed[8] = {0};
	struct tally tally;
	enum ept_status status;

	switch (below(worker, 4)) {
	case 0:
		status = world_reclaim(worker->world, first, 1 + below(worker, 500), &tally);
		break;
	case 1:
		status = world_harvest(worker->world, first, 1 + below(worker, 500), accessed,
				       &tally);
		break;
	case 2:
		work_watch(worker);
		return;
	default:
		work_move_page(worker);
		return;
	}
	expect(worker, status, EPT_OK, "a pass over a file");
}

static void work_end(struct worker *worker)
{
	/* In one order or the other. */
	if (below(worker, 2))
		drop_frozen(worker);
	guest_destroy(worker->guest);
	drop_frozen(worker);
}

static void work(struct worker *worker)
{
	unsigned choice = below(worker, 120);

	if (choice < 35)
		read_as(worker, worker->guest, below(worker, CELLS));
	else if (choice < 70)
		work_write(worker);
	else if (choice < 74)
		work_map(worker);
	else if (choice < 78)
		work_unmap(worker);
	else if (choice < 82)
		work_protect(worker);
	else if (choice < 85)
		work_clone(worker);
	else if (choice < 89)
		work_reset(worker);
	else if (choice < 96)
		world_scrub(worker->world, 1 + below(worker, 8));
	else if (choice < 100) {
		work_end(worker);
		work_begin(worker);
	} else if (choice < 102)
		work_snapshot(worker);
	else if (choice < 105)
		work_move(worker);
	else if (choice < 111)
		work_shared(worker);
	else
		work_pass(worker);
}

static void *run(void *argument)
{
	struct worker *worker = argument;

	work_begin(worker);
	for (uint64_t op = 0; op < worker->ops; op++)
		work(worker);
	drop_frozen(worker);
	return NULL;
}

/* A frozen guest with memory of every level, some of it written. */
static struct guest *template_create(struct world *world, struct model *model)
{
	static const unsigned parts[][2] = {{0, 5}, {5, 11}, {11, 17}, {19, 23}, {25, 31}};
	struct guest *guest = guest_create(world, 0, true);
	struct ept_region region;

	memset(model, 0, sizeof(*model));
	for (unsigned i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		region = region_at(parts[i][0], parts[i][1], i % 2, i % 2);
		assert_int_equal(guest_map(guest, &region), EPT_OK);
		model_map(model, parts[i][0], parts[i][1], &region);
	}
	region = region_of(SHARED, SHARED_PAGES * KIB4, SHARED_FILE, 0, RW);
	region.mode = EPT_SHARED;
	region.large = true;
	assert_int_equal(guest_map(guest, &region), EPT_OK);
	for (unsigned cell = 0; cell < CELLS; cell += 3) {
		if (!model->cells[cell].rights)
			continue;
		guest_must_write(guest, model_point(cell, 1).v, cell);
		model_write(model, &no_files, cell, 1, 0, cell);
	}
	assert_int_equal(guest_freeze(guest), EPT_OK);
	return guest;
}

static void F11_T4_guests_in_threads(void **state)
{
	struct world_options options = world_defaults(*state);
	struct model template_model;
	struct worker workers[THREADS];
	struct ept_counters counters;
	struct guest *template;
	struct world *world;

	options.tables = 1024;
	options.pages = 1024;
	options.threads = true;
	world = world_create(&options);
	world_file(world, 2 * GIB512 / KIB4, false);
	world_file(world, 2 * GIB512 / KIB4, false);
	assert_int_equal(world_file(world, SHARED_PAGES, true), SHARED_FILE);
	assert_int_equal(world_spare_file(world, THREADS * PLACES), SPARE_FILE);
	template = template_create(world, &template_model);
	memset(workers, 0, sizeof(workers));
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].world = world;
		workers[i].number = i;
		workers[i].template = template;
		workers[i].template_model = &template_model;
		workers[i].random_state = number_from("S2VM_SEED", 1) * THREADS + i;
		workers[i].ops = number_from("S2VM_OPS", 32000) / THREADS;
	}
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&workers[i].thread, NULL, run, &workers[i]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
	ept_counters(world->ept, &counters);
	assert_true(counters.leaves_broken > 0);
	world_check(world);
	world_destroy(world);
}

struct rival {
	struct world *world;
	uint32_t file;
	uint64_t rounds;
	bool large;
};

/* Makes the last reference to the one table go, and finds it, over and over. */
static void *appear_and_vanish(void *argument)
{
	struct rival *rival = argument;

	for (uint64_t i = 0; i < rival->rounds; i++) {
		struct guest *guest = guest_create(rival->world, 0, true);
		struct ept_region region = region_of(0, GIB1, rival->file, 0, RX);

		region.large = rival->large;
		if (guest_map(guest, &region) != EPT_OK)
			port_fail(rival->world, "mapping");
		guest_must_read(guest, 0, world_stamp(rival->file, 0, 0));
		guest_must_read(guest, MIB2, world_stamp(rival->file, EPT_ENTRIES, 0));
		if (i % 2)
			guest_unmap(guest, MIB2 / 2, MIB2);
		guest_must_read(guest, 2 * MIB2 - KIB4 + MIB2 / 2,
				world_stamp(rival->file, 5 * EPT_ENTRIES / 2 - 1, 0));
		guest_destroy(guest);
		world_scrub(rival->world, 16);
	}
	return NULL;
}

/* All map by 4 KiB, all by 2 MiB, or half of them by each. */
enum rivals { SMALL, LARGE, BOTH };

static void rivals_run(const void *format, enum rivals which)
{
	struct world_options options = world_defaults(format);
	struct rival rivals[THREADS];
	pthread_t threads[THREADS];
	struct rival rival = {0};

	options.tables = 1024;
	options.threads = true;
	rival.world = world_create(&options);
	rival.file = world_file(rival.world, GIB1 / KIB4, false);
	rival.rounds = number_from("S2VM_OPS", 32000) / THREADS / 8 / (BOTH + 1);
	for (unsigned i = 0; i < THREADS; i++) {
		rivals[i] = rival;
		rivals[i].large = which == LARGE || (which == BOTH && i % 2);
		assert_int_equal(pthread_create(&threads[i], NULL, appear_and_vanish, &rivals[i]),
				 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	world_check(rival.world);
	world_destroy(rival.world);
}

static void F23_the_last_one_leaves_while_another_comes(void **state)
{
	for (unsigned which = SMALL; which <= BOTH; which++)
		rivals_run(*state, (enum rivals)which);
}

struct sweeper {
	struct rival rival;
	atomic_bool stop;
};

/* Pages of the file are moved and reclaimed while the tables that show them come and go. */
static void *move_and_reclaim(void *argument)
{
	struct sweeper *sweeper = argument;
	struct world *world = sweeper->rival.world;
	struct file_page page = {sweeper->rival.file, 2 * EPT_ENTRIES - 1};
	struct tally tally;

	for (unsigned i = 0; !atomic_load(&sweeper->stop); i++) {
		struct file_page to = {sweeper->rival.file + 1, i % 3};
		enum ept_status status = world_move_page(world, page, i % 4 ? to : page, &tally);

		if (status != EPT_OK && status != EPT_INVALID)
			port_fail(world, "moving a page: %s", ept_status_text(status));
		if (i % 3 == 0)
			world_reclaim(world, (struct file_page){page.file, 0}, 3 * EPT_ENTRIES,
				      &tally);
		/* Those who look at places that it left find nothing there. */
		for (uint64_t place = 0; place < 3; place++) {
			uint64_t window = world->files[page.file + 1].ept.window.v;
			struct fpa at = {window + place * KIB4};

			for (unsigned w = 0; w < PORT_WORDS; w++)
				if (at.v != world_file_page(world, page.file, page.page).v)
					world_set(world, at, w, PORT_POISON);
		}
	}
	return NULL;
}

/* As rivals, who also write to the page that moves: what they copied must be what it was. */
static void *appear_and_copy(void *argument)
{
	struct rival *rival = argument;

	for (uint64_t i = 0; i < rival->rounds; i++) {
		struct guest *guest = guest_create(rival->world, 0, true);
		struct ept_region region = region_of(0, GIB1, rival->file, 0, RWX);
		uint64_t gpa = 2 * MIB2 - KIB4;
		uint64_t page = gpa / KIB4;

		region.large = rival->large;
		if (guest_map(guest, &region) != EPT_OK)
			port_fail(rival->world, "mapping");
		guest_must_read(guest, 0, world_stamp(rival->file, 0, 0));
		guest_must_read(guest, gpa, world_stamp(rival->file, page, 0));
		guest_must_write(guest, gpa + i % 3 / 2 * KIB4, i);
		guest_must_read(guest, gpa + 8, world_stamp(rival->file, page, 1));
		guest_destroy(guest);
		world_scrub(rival->world, 16);
	}
	return NULL;
}

static void F27_tables_come_and_go_under_a_pass(void **state)
{
	for (unsigned which = SMALL; which <= BOTH; which++) {
		struct world_options options = world_defaults(*state);
		struct sweeper sweeper = {.rival = {0}};
		struct rival rivals[THREADS];
		pthread_t threads[THREADS], passes;

		options.tables = 1024;
		options.threads = true;
		sweeper.rival.world = world_create(&options);
		sweeper.rival.file = world_file(sweeper.rival.world, GIB1 / KIB4, false);
		world_spare_file(sweeper.rival.world, 3);
		sweeper.rival.rounds = number_from("S2VM_OPS", 32000) / THREADS / 8 / (BOTH + 1);
		assert_int_equal(pthread_create(&passes, NULL, move_and_reclaim, &sweeper), 0);
		for (unsigned i = 0; i < THREADS; i++) {
			rivals[i] = sweeper.rival;
			rivals[i].large = which == LARGE || (which == BOTH && i % 2);
			assert_int_equal(
				pthread_create(&threads[i], NULL, appear_and_copy, &rivals[i]), 0);
		}
		for (unsigned i = 0; i < THREADS; i++)
			assert_int_equal(pthread_join(threads[i], NULL), 0);
		atomic_store(&sweeper.stop, true);
		assert_int_equal(pthread_join(passes, NULL), 0);
		world_check(sweeper.rival.world);
		world_destroy(sweeper.rival.world);
	}
}

struct restless {
	struct guest *guest;
	uint64_t rounds;
};

static void *snapshot_often(void *argument)
{
	struct restless *restless = argument;

	for (uint64_t i = 0; i < restless->rounds; i++) {
		struct ept_change change = {0};
		struct ept_space *frozen = NULL;
		struct tally tally;
		enum ept_status status =
			ept_space_snapshot(restless->guest->space, &frozen, &change);

		if (world_run(restless->guest->world, &change, status, &tally) == EPT_OK)
			ept_space_destroy(frozen);
	}
	return NULL;
}

static void *reset_often(void *argument)
{
	struct restless *restless = argument;

	for (uint64_t i = 0; i < restless->rounds; i++) {
		struct ept_change change = {0};
		struct tally tally;
		enum ept_status status = ept_space_reset(restless->guest->space, &change);

		if (world_run(restless->guest->world, &change, status, &tally) != EPT_OK)
			port_fail(restless->guest->world, "a reset failed");
	}
	return NULL;
}

/* Operations on one space wait for each other, whoever asks for them. */
static void B2_a_space_is_reset_as_it_is_frozen(void **state)
{
	struct world_options options = world_defaults(*state);
	struct restless restless = {.rounds = 200};
	struct guest *parent;
	struct world *world;
	pthread_t threads[2];

	options.threads = true;
	world = world_create(&options);
	world_file(world, EPT_ENTRIES, false);
	parent = guest_create(world, 0, true);
	guest_must_map(parent, 0, MIB2, 0, 0, RWX);
	guest_must_write(parent, 0, 7);
	assert_int_equal(guest_freeze(parent), EPT_OK);
	restless.guest = guest_must_clone(parent);
	assert_int_equal(pthread_create(&threads[0], NULL, snapshot_often, &restless), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, reset_often, &restless), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	guest_must_read(restless.guest, 0, 7);
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(F11_T4_guests_in_threads),
		EACH_FORMAT(F23_the_last_one_leaves_while_another_comes),
		EACH_FORMAT(F27_tables_come_and_go_under_a_pass),
		EACH_FORMAT(B2_a_space_is_reset_as_it_is_frozen),
	};

	return cmocka_run_group_tests_name("ept.threads", tests, NULL, NULL);
}
