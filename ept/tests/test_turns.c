// SPDX-License-Identifier: MIT
/*
 * One operation steps in at each point of another one (turns.h): what threads do at the same time,
 * but the same in each run, and at all points instead of some.
 */
#include <stdio.h>
#include <stdlib.h>

#include "ept_internal.h"
#include "turns.h"

#define AT	 (UINT64_C(4) * GIB1)
#define BYTES	 (2 * MIB2)
#define PAGES	 (BYTES / KIB4)
#define PAGE	 1 /* of the file, which the operations are about */
#define GPA	 (AT + PAGE * KIB4)
#define THROUGH	 (AT + GIB1)	   /* where a file is that all write to */
#define GOAL	 (AT + 2 * GIB512) /* where ranges move to */
#define NEAR	 3		   /* pages of a range or a pass, from the first on */
#define TEMPLATE 7		   /* what was written before */

static struct world *world_of(const void *format)
{
	struct world_options options = world_defaults(format);

	options.tables = 48;
	options.pages = 32;
	return world_create(&options);
}

static struct ept_counters counters_of(struct world *world)
{
	struct ept_counters counters;

	ept_counters(world->ept, &counters);
	return counters;
}

/* ---- any two operations ---- */

enum scene_kind {
	EMPTY,		/* two guests that map the same and have not touched it */
	INDEX,		/* two guests that found the same tables */
	CLONE,		/* a guest and its clone */
	FROZEN,		/* two clones of a frozen guest */
	PARTING,	/* the same, after both wrote near the page */
	BY_2_MIB,	/* as INDEX, by entries of 2 MiB */
	EMPTY_BY_2_MIB, /* as EMPTY, by entries of 2 MiB */
	HOLES		/* as INDEX, with pages that were reclaimed */
};

#define SCENES (HOLES + 1)

enum operation {
	READ,
	WRITE,
	WRITE_BESIDE,
	WRITE_THROUGH,
	UNMAP,
	PROTECT,
	MOVE,
	DO_CLONE,
	SNAPSHOT,
	RESET,
	DESTROY,
	SCRUB,
	RECLAIM,
	HARVEST,
	WATCH,
	MOVE_PAGE,
};

#define OPERATIONS (MOVE_PAGE + 1)

static const char *const scene_names[SCENES] = {"EMPTY",   "INDEX",    "CLONE",		 "FROZEN",
						"PARTING", "BY_2_MIB", "EMPTY_BY_2_MIB", "HOLES"};

static const char *const operation_names[OPERATIONS] = {
	"READ",	   "WRITE",    "WRITE_BESIDE", "WRITE_THROUGH", "UNMAP",   "PROTECT",
	"MOVE",	   "DO_CLONE", "SNAPSHOT",     "RESET",		"DESTROY", "SCRUB",
	"RECLAIM", "HARVEST",  "WATCH",	       "MOVE_PAGE",
};

/* Who does one of the two operations, and what the guest must find afterwards, whatever the other
 * did. */
struct actor {
	struct scene *scene;
	enum operation operation;
	struct guest *guest;
	struct guest *child; /* a clone of it, or what it was */
	uint64_t gpa;	     /* of the page */
	uint64_t value;	     /* that it reads as */
	bool gone;	     /* unmapped */
};

struct scene {
	struct world *world;
	enum scene_kind kind;
	uint32_t file;
	uint32_t through;
	uint32_t spare;
	struct actor actors[2];
	bool watched;
	uint64_t watched_value; /* of the page that all write to, when watching began */
	char text[160];
};

static struct scene *described;

static const char *describe(void)
{
	return described->text;
}

static bool by_2_mib(const struct scene *scene)
{
	return scene->kind == BY_2_MIB || scene->kind == EMPTY_BY_2_MIB;
}

static struct guest *guest_of_scene(struct scene *scene)
{
	struct guest *guest = guest_create(scene->world, 0, true);
	struct ept_region region = region_of(AT, BYTES, scene->file, 0, RWX);
	struct ept_region through = region_of(THROUGH, MIB2, scene->through, 0, RW);

	region.large = by_2_mib(scene);
	through.large = region.large;
	through.mode = EPT_SHARED;
	assert_int_equal(guest_map(guest, &region), EPT_OK);
	assert_int_equal(guest_map(guest, &through), EPT_OK);
	return guest;
}

static void guests_of_scene(struct scene *scene)
{
	struct guest *first = guest_of_scene(scene);
	struct guest *second = NULL;
	struct guest *frozen = first;

	if (scene->kind != EMPTY && scene->kind != EMPTY_BY_2_MIB) {
		guest_must_read(first, GPA, world_stamp(scene->file, PAGE, 0));
		guest_must_write(first, THROUGH, TEMPLATE);
	}
	if (scene->kind == CLONE || scene->kind == FROZEN || scene->kind == PARTING)
		guest_must_write(first, GPA, TEMPLATE);
	if (scene->kind == CLONE)
		second = guest_must_clone(first);
	if (scene->kind == FROZEN || scene->kind == PARTING) {
		assert_int_equal(guest_freeze(frozen), EPT_OK);
		first = guest_must_clone(frozen);
		second = guest_must_clone(frozen);
	}
	if (!second)
		second = guest_of_scene(scene);
	if (scene->kind == INDEX || scene->kind == BY_2_MIB || scene->kind == HOLES) {
		guest_must_read(second, GPA, world_stamp(scene->file, PAGE, 0));
		guest_must_write(second, THROUGH, TEMPLATE);
	}
	if (scene->kind == PARTING) {
		guest_must_write(first, AT + MIB2, 1);
		guest_must_write(second, AT + MIB2, 2);
	}
	scene->actors[0].guest = first;
	scene->actors[1].guest = second;
}

/* Something is in quarantine, and a page that was watched has lost the right to write. */
static void make_old(struct scene *scene)
{
	struct file_page page = {scene->through, 0};
	struct guest *old = guest_of_scene(scene);
	struct tally tally;

	guest_must_write(old, AT + MIB2, 1);
	guest_destroy(old);
	if (scene->kind == EMPTY || by_2_mib(scene))
		return;
	assert_int_equal(world_watch(scene->world, page, 1, &tally), EPT_OK);
	ept_file_unwatch(scene->world->ept, page, 1);
}

static void scene_create(struct scene *scene, const void *format)
{
	bool written = scene->kind == CLONE || scene->kind == FROZEN || scene->kind == PARTING;
	struct tally tally;

	scene->world = world_of(format);
	scene->world->check_every = 0;
	scene->world->describe = describe;
	described = scene;
	scene->file = world_file(scene->world, PAGES, false);
	scene->through = world_file(scene->world, EPT_ENTRIES, true);
	scene->spare = world_spare_file(scene->world, 2);
	/* No entry of 2 MiB shows a page that was moved. */
	if (!by_2_mib(scene))
		assert_int_equal(world_move_page(scene->world,
						 (struct file_page){scene->file, PAGE},
						 (struct file_page){scene->spare, 0}, &tally),
				 EPT_OK);
	guests_of_scene(scene);
	make_old(scene);
	if (scene->kind == HOLES)
		assert_int_equal(world_reclaim(scene->world, (struct file_page){scene->file, 0},
					       NEAR, &tally),
				 EPT_OK);
	for (unsigned i = 0; i < 2; i++) {
		scene->actors[i].scene = scene;
		scene->actors[i].gpa = GPA;
		scene->actors[i].value = written ? TEMPLATE : world_stamp(scene->file, PAGE, 0);
	}
}

static void expect(struct actor *actor, enum ept_status status, enum ept_status expected)
{
	if (status != expected)
		port_fail(actor->scene->world, "%s: '%s' instead of '%s'",
			  operation_names[actor->operation], ept_status_text(status),
			  ept_status_text(expected));
}

static void act_write(struct actor *actor)
{
	actor->value = 100 + (actor == &actor->scene->actors[1]);
	expect(actor, guest_write(actor->guest, GPA, actor->value), EPT_OK);
}

static void act_move(struct actor *actor)
{
	expect(actor, guest_move(actor->guest, AT, NEAR * KIB4, GOAL + KIB4), EPT_OK);
	actor->gpa = GOAL + KIB4 + PAGE * KIB4;
}

static void act_reset(struct actor *actor)
{
	enum scene_kind kind = actor->scene->kind;

	expect(actor, guest_reset(actor->guest),
	       kind == FROZEN || kind == PARTING ? EPT_OK : EPT_NO_PARENT);
}

static void act_write_through(struct actor *actor)
{
	enum ept_status status = guest_write(actor->guest, THROUGH, 50);

	if (status != EPT_WATCHED || !actor->scene->watched)
		expect(actor, status, EPT_OK);
}

static uint64_t through_value(const struct scene *scene)
{
	return world_peek(scene->world, world_file_page(scene->world, scene->through, 0), 0);
}

static void act_watch(struct actor *actor)
{
	struct scene *scene = actor->scene;
	struct tally tally;

	/* From here on it may be, and after the pass it is. */
	scene->watched = true;
	expect(actor, world_watch(scene->world, (struct file_page){scene->through, 0}, 1, &tally),
	       EPT_OK);
	scene->watched_value = through_value(scene);
}

/* Whoever goes on looking at the place that the page left finds something else there. */
static void act_move_page(struct actor *actor)
{
	struct scene *scene = actor->scene;
	struct fpa left = world_file_page(scene->world, scene->file, PAGE);
	enum ept_status status;
	struct tally tally;

	status = world_move_page(scene->world, (struct file_page){scene->file, PAGE},
				 (struct file_page){scene->spare, 1}, &tally);
	/* The other one may have taken the place. */
	if (status == EPT_INVALID && scene->actors[0].operation == scene->actors[1].operation)
		return;
	expect(actor, status, EPT_OK);
	for (unsigned word = 0; !by_2_mib(scene) && word < PORT_WORDS; word++)
		world_set(scene->world, left, word, PORT_POISON);
}

static void act(void *argument)
{
	struct actor *actor = argument;
	struct scene *scene = actor->scene;
	const struct file_page page = {scene->file, 0};
	const struct file_page through = {scene->through, 0};
	uint64_t accessed[1] = {0};
	struct tally tally;

	switch (actor->operation) {
	case READ:
		guest_must_read(actor->guest, GPA, actor->value);
		break;
	case WRITE:
		act_write(actor);
		break;
	case WRITE_BESIDE:
		expect(actor, guest_write(actor->guest, GPA + KIB4, 1), EPT_OK);
		break;
	case WRITE_THROUGH:
		act_write_through(actor);
		break;
	case UNMAP:
		expect(actor, guest_unmap(actor->guest, AT, NEAR * KIB4), EPT_OK);
		actor->gone = true;
		break;
	case PROTECT:
		expect(actor, guest_protect(actor->guest, AT, NEAR * KIB4, RX), EPT_OK);
		break;
	case MOVE:
		act_move(actor);
		break;
	case DO_CLONE:
		expect(actor, guest_clone(actor->guest, &actor->child), EPT_OK);
		break;
	case SNAPSHOT:
		expect(actor, guest_snapshot(actor->guest, &actor->child), EPT_OK);
		break;
	case RESET:
		act_reset(actor);
		break;
	case DESTROY:
		guest_destroy(actor->guest);
		actor->guest = NULL;
		break;
	case SCRUB:
		expect(actor, world_scrub(scene->world, 16), EPT_OK);
		break;
	case RECLAIM:
		expect(actor, world_reclaim(scene->world, page, NEAR, &tally), EPT_OK);
		expect(actor, world_reclaim(scene->world, through, 1, &tally), EPT_OK);
		break;
	case HARVEST:
		expect(actor, world_harvest(scene->world, page, NEAR, accessed, &tally), EPT_OK);
		break;
	case WATCH:
		act_watch(actor);
		break;
	case MOVE_PAGE:
		act_move_page(actor);
		break;
	}
}

static void check_guest(const struct actor *actor, struct guest *guest)
{
	uint64_t value;

	if (guest && actor->gone)
		assert_int_equal(guest_read(guest, actor->gpa, &value), EPT_OUTSIDE);
	else if (guest) {
		guest_must_read(guest, actor->gpa, actor->value);
		/* What nobody wrote goes along with a copy. */
		guest_must_read(guest, actor->gpa + sizeof(value),
				world_stamp(actor->scene->file, PAGE, 1));
	}
	if (guest && actor->scene->watched && guest_write(guest, THROUGH, 60) == EPT_OK)
		port_fail(actor->scene->world, "F29: a write to a watched page");
}

static void check_scene(struct scene *scene)
{
	for (unsigned i = 0; i < 2; i++) {
		check_guest(&scene->actors[i], scene->actors[i].guest);
		check_guest(&scene->actors[i], scene->actors[i].child);
	}
	if (scene->watched && through_value(scene) != scene->watched_value)
		port_fail(scene->world, "F29: a watched page was written to");
	world_check(scene->world);
}

/* Runs one operation at point @point of the other one; false if there is no such point. */
static bool run_pair(const void *format, enum scene_kind kind, const enum operation *operations,
		     unsigned point)
{
	struct scene scene = {.kind = kind};
	struct turns turns = {.first = act, .second = act, .point = point};

	snprintf(scene.text, sizeof(scene.text), "%s: %s at point %u of %s", scene_names[kind],
		 operation_names[operations[1]], point, operation_names[operations[0]]);
	scene_create(&scene, format);
	scene.actors[0].operation = operations[0];
	scene.actors[1].operation = operations[1];
	turns.world = scene.world;
	turns.arguments[0] = &scene.actors[0];
	turns.arguments[1] = &scene.actors[1];
	turns_run(&turns);
	check_scene(&scene);
	world_destroy(scene.world);
	return turns.reached;
}

/* All points of the first operation, or with @every above 1 some of them. */
static void run_points(const void *format, enum scene_kind kind, enum operation first,
		       enum operation second, unsigned every)
{
	const enum operation operations[2] = {first, second};
	unsigned point = 1 + (unsigned)second % every;

	while (run_pair(format, kind, operations, point))
		point += every;
}

/* S2VM_OPS below 32000 tries fewer points. */
static void F11_T4_any_operation_within_any_other(void **state)
{
	const char *text = getenv("S2VM_OPS");
	unsigned long ops = text ? strtoul(text, NULL, 0) : 32000;
	unsigned every = ops && ops < 32000 ? (unsigned)(32000 / ops) : 1;

	for (unsigned kind = 0; kind < SCENES; kind++)
		for (unsigned pair = 0; pair < OPERATIONS * OPERATIONS; pair++)
			run_points(*state, (enum scene_kind)kind,
				   (enum operation)(pair / OPERATIONS),
				   (enum operation)(pair % OPERATIONS), every);
}

/* Passes over the file within operations that make, fill or copy tables, in all scenes. */
static void passes_within(const void *format, enum operation pass)
{
	static const enum operation faults[] = {READ, WRITE, WRITE_THROUGH};

	for (unsigned kind = 0; kind < SCENES; kind++)
		for (unsigned i = 0; i < 3; i++)
			run_points(format, (enum scene_kind)kind, faults[i], pass, 1);
}

/* And the other way round: what they make while a pass looks for it. */
static void faults_within(const void *format, enum operation pass)
{
	static const enum operation faults[] = {READ, WRITE, WRITE_THROUGH};

	for (unsigned kind = 0; kind < SCENES; kind++)
		for (unsigned i = 0; i < 3; i++)
			run_points(format, (enum scene_kind)kind, pass, faults[i], 1);
}

/*
 * sweep.c, visit(): a table that is not published yet is waited for. Where a page of it moves, the
 * guest would go on looking at the place that it left; and whoever makes the table fills it without
 * its lock, so it must not be edited either.
 */
static void F27_a_pass_waits_for_new_tables(void **state)
{
	passes_within(*state, MOVE_PAGE);
}

/*
 * leaf.c, became_special(): a page is moved or watched when a fault has seen that nothing is
 * special about the 2 MiB around it, and has not told the reverse map yet.
 */
static void F27_F29_no_entry_of_2_mib_is_made_as_a_page_becomes_special(void **state)
{
	passes_within(*state, WATCH);
	passes_within(*state, MOVE_PAGE);
}

/* sweep.c, ept_file_watch(): what is watched is set before the reverse map is asked for entries. */
static void F29_entries_that_are_made_as_watching_begins(void **state)
{
	faults_within(*state, WATCH);
	passes_within(*state, WATCH);
}

/* ---- points that matter ---- */

/* A guest whose table of @level on the way to AT is shared with a clone, and none above it. */
struct pair {
	struct world *world;
	uint32_t file;
	struct guest *guest;
	struct guest *clone;
	enum ept_status status;
	uint64_t value;
};

static struct pair pair_at(const void *format, unsigned level)
{
	struct pair pair = {.world = world_of(format)};

	pair.file = world_file(pair.world, PAGES, false);
	pair.guest = guest_create(pair.world, 0, true);
	guest_must_map(pair.guest, AT, BYTES, pair.file, 0, RWX);
	for (unsigned above = 2; above < EPT_ROOT_LEVEL; above++)
		guest_must_map(pair.guest, AT + ept_table_span(above), MIB2, pair.file, 0, RWX);
	guest_must_write(pair.guest, AT, 1);
	pair.clone = guest_must_clone(pair.guest);
	/* The write's path leaves that to AT above the table. */
	if (level < EPT_ROOT_LEVEL)
		guest_must_write(pair.guest, AT + ept_table_span(level), 2);
	return pair;
}

static void end_of_clone(void *argument)
{
	struct pair *pair = argument;

	guest_destroy(pair->clone);
}

static void write_of_guest(void *argument)
{
	struct pair *pair = argument;

	guest_must_write(pair->guest, AT, 3);
}

/*
 * own.c, unshare_child() and ept_own_root(): they take a table without the lock of the one that is
 * to be copied. The clone ends as they lock the pool for that, and when they look at the count
 * again there is nothing to copy: the table is kept, and the other one given back.
 */
static void F5_a_count_that_falls_as_a_table_is_taken(void **state)
{
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++) {
		struct pair pair = pair_at(*state, level);
		struct turns turns = {
			.world = pair.world,
			.first = write_of_guest,
			.second = end_of_clone,
			.arguments = {&pair, &pair},
			.only = &pair.world->ept->tables.lock,
			.point = 1,
		};
		uint64_t copied = counters_of(pair.world).tables_copied;
		struct fpa tables[EPT_ROOT_LEVEL + 1];

		for (unsigned i = 1; i <= EPT_ROOT_LEVEL; i++)
			tables[i] = guest_table(pair.guest, AT, i);
		turns_run(&turns);
		assert_true(turns.reached && turns.ended_within);
		assert_int_equal(counters_of(pair.world).tables_copied, copied);
		assert_int_equal(counters_of(pair.world).pages_copied, level < 4 ? 2 : 1);
		for (unsigned i = 1; i <= EPT_ROOT_LEVEL; i++)
			assert_int_equal(guest_table(pair.guest, AT, i).v, tables[i].v);
		guest_must_read(pair.guest, AT, 3);
		world_destroy(pair.world);
	}
}

/* The same where the clone stays: what both have is copied, and the clone sees nothing of it. */
static void F5_a_count_that_stays_as_a_table_is_taken(void **state)
{
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++) {
		struct pair pair = pair_at(*state, level);
		uint64_t copied = counters_of(pair.world).tables_copied;

		write_of_guest(&pair);
		assert_int_equal(counters_of(pair.world).tables_copied, copied + level);
		guest_must_read(pair.clone, AT, 1);
		world_destroy(pair.world);
	}
}

static void unmap_all(void *argument)
{
	struct pair *pair = argument;

	assert_int_equal(guest_unmap(pair->guest, AT, BYTES), EPT_OK);
}

static void translate(void *argument)
{
	struct pair *pair = argument;
	struct fpa to;
	unsigned rights;

	pair->value = ept_space_translate(pair->guest->space, (struct gpa){AT}, &to, &rights);
}

static void count_usage(void *argument)
{
	struct pair *pair = argument;
	struct ept_space_usage usage;

	ept_space_usage(pair->guest->space, &usage);
	pair->value = usage.tables_alone + usage.tables_shared;
}

/*
 * space.c, ept_space_translate(), and usage.c, ept_space_usage(): they go down the tables without
 * these tables' locks, which is safe as long as nobody takes a table away from the space. So at any
 * point of an operation but its first, before the space is locked, they wait for its end.
 */
static void CVE_2025_38085_walks_wait_for_who_takes_tables_away(void **state)
{
	static void (*const walks[])(void *) = {translate, count_usage};

	for (unsigned walk = 0; walk < 2; walk++) {
		bool reached = true;

		for (unsigned point = 1; reached; point++) {
			struct pair pair = pair_at(*state, 1);
			struct turns turns = {
				.world = pair.world,
				.first = unmap_all,
				.second = walks[walk],
				.arguments = {&pair, &pair},
				.point = point,
			};

			turns_run(&turns);
			reached = turns.reached;
			assert_int_equal(turns.ended_within, point == 1);
			world_destroy(pair.world);
		}
	}
}

static void read_beside_of_guest(void *argument)
{
	struct pair *pair = argument;

	guest_must_read(pair->guest, AT + MIB2, world_stamp(pair->file, EPT_ENTRIES, 0));
}

static void read_beside_of_clone(void *argument)
{
	struct pair *pair = argument;

	guest_must_read(pair->clone, AT + MIB2, world_stamp(pair->file, EPT_ENTRIES, 0));
}

/*
 * fault.c, entry_or_hold() and write_shared_leaf(): what was seen of an entry before the table was
 * locked is looked at again, for others of those who share the table may have filled it, and a pass
 * may have taken it away.
 */
static void F21_an_entry_is_looked_at_again_with_the_table_locked(void **state)
{
	struct turns turns = {.reached = true};

	run_points(*state, HOLES, READ, READ, 1);
	run_points(*state, HOLES, WRITE, READ, 1);
	run_points(*state, INDEX, WRITE_THROUGH, WRITE_THROUGH, 1);
	run_points(*state, INDEX, WRITE_THROUGH, RECLAIM, 1);
	for (turns.point = 1; turns.reached; turns.point++) {
		struct pair pair = pair_at(*state, EPT_ROOT_LEVEL);

		turns.world = pair.world;
		turns.first = read_beside_of_guest;
		turns.second = read_beside_of_clone;
		turns.arguments[0] = &pair;
		turns.arguments[1] = &pair;
		turns_run(&turns);
		world_destroy(pair.world);
	}
}

static void harvest_of_pair(void *argument)
{
	struct pair *pair = argument;
	uint64_t accessed[1] = {0};
	struct tally tally;

	if (world_harvest(pair->world, (struct file_page){pair->file, 0}, NEAR, accessed, &tally))
		port_fail(pair->world, "a harvest failed");
}

static void read_of_clone(void *argument)
{
	struct pair *pair = argument;

	guest_must_read(pair->clone, AT, world_stamp(pair->file, 0, 0));
}

/* index.c, ept_index_get(): a table whose lock is taken at the moment is waited for. */
static void F13_a_table_is_found_though_it_is_locked(void **state)
{
	struct turns turns = {.reached = true};

	for (turns.point = 1; turns.reached; turns.point++) {
		struct pair pair = {.world = world_of(*state)};

		pair.file = world_file(pair.world, PAGES, false);
		pair.guest = guest_create(pair.world, 0, true);
		pair.clone = guest_create(pair.world, 0, true);
		guest_must_map(pair.guest, AT, BYTES, pair.file, 0, RWX);
		guest_must_map(pair.clone, AT, BYTES, pair.file, 0, RWX);
		guest_must_read(pair.guest, AT, world_stamp(pair.file, 0, 0));
		turns.world = pair.world;
		turns.first = harvest_of_pair;
		turns.second = read_of_clone;
		turns.arguments[0] = &pair;
		turns.arguments[1] = &pair;
		turns_run(&turns);
		assert_int_equal(guest_table(pair.guest, AT, 1).v,
				 guest_table(pair.clone, AT, 1).v);
		world_destroy(pair.world);
	}
}

/* The page that all write to lost the right to write when it was watched before. */
struct watched {
	struct world *world;
	uint32_t file;
	struct guest *guest;
	enum ept_status status;
};

static struct watched watched_before(const void *format, bool watched, bool there)
{
	struct watched watch = {.world = world_of(format)};
	struct ept_region region;
	struct file_page page;
	struct tally tally;

	watch.file = world_file(watch.world, EPT_ENTRIES, true);
	page = (struct file_page){watch.file, 0};
	watch.guest = guest_create(watch.world, 0, true);
	region = region_of(AT, MIB2, watch.file, 0, RW);
	region.mode = EPT_SHARED;
	assert_int_equal(guest_map(watch.guest, &region), EPT_OK);
	if (there)
		guest_must_write(watch.guest, AT, 1);
	assert_int_equal(world_watch(watch.world, page, 1, &tally), EPT_OK);
	if (!watched)
		ept_file_unwatch(watch.world->ept, page, 1);
	return watch;
}

static void write_watched(void *argument)
{
	struct watched *watch = argument;

	watch->status = guest_fault(watch->guest, AT, EPT_WRITE);
}

static void watch_again(void *argument)
{
	struct watched *watch = argument;
	struct tally tally;

	if (world_watch(watch->world, (struct file_page){watch->file, 0}, 1, &tally) != EPT_OK)
		port_fail(watch->world, "watching");
}

/*
 * fault.c, write_shared_leaf(): a page is watched when the fault has seen that it is not, but has
 * not locked the table yet. The pass finds nothing to take away, so it is the fault that must look
 * again, with the table locked. At each later point the pass waits, or the fault has made nothing.
 */
static void F29_a_write_fault_looks_again_with_the_table_locked(void **state)
{
	struct turns turns = {.reached = true};

	for (turns.point = 1; turns.reached; turns.point++) {
		struct watched watch = watched_before(*state, false, true);

		turns.world = watch.world;
		turns.first = write_watched;
		turns.second = watch_again;
		turns.arguments[0] = &watch;
		turns.arguments[1] = &watch;
		turns_run(&turns);
		if (turns.reached && turns.ended_within)
			assert_int_equal(watch.status, EPT_WATCHED);
		assert_int_equal(guest_write(watch.guest, AT, 2), EPT_WATCHED);
		world_destroy(watch.world);
	}
}

/*
 * fault.c, ept_space_fault(): who watches is told by the first fault, also where there is no entry
 * yet, and that fault changes nothing.
 */
static void F29_the_first_write_fault_tells(void **state)
{
	for (unsigned there = 0; there < 2; there++) {
		struct watched watch = watched_before(*state, true, there);
		uint64_t filled = counters_of(watch.world).tables_filled;

		write_watched(&watch);
		assert_int_equal(watch.status, EPT_WATCHED);
		assert_int_equal(counters_of(watch.world).tables_filled, filled);
		world_destroy(watch.world);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(F11_T4_any_operation_within_any_other),
		EACH_FORMAT(F27_a_pass_waits_for_new_tables),
		EACH_FORMAT(F27_F29_no_entry_of_2_mib_is_made_as_a_page_becomes_special),
		EACH_FORMAT(F29_entries_that_are_made_as_watching_begins),
		EACH_FORMAT(F5_a_count_that_falls_as_a_table_is_taken),
		EACH_FORMAT(F5_a_count_that_stays_as_a_table_is_taken),
		EACH_FORMAT(CVE_2025_38085_walks_wait_for_who_takes_tables_away),
		EACH_FORMAT(F29_a_write_fault_looks_again_with_the_table_locked),
		EACH_FORMAT(F29_the_first_write_fault_tells),
		EACH_FORMAT(F21_an_entry_is_looked_at_again_with_the_table_locked),
		EACH_FORMAT(F13_a_table_is_found_though_it_is_locked),
	};

	return cmocka_run_group_tests_name("ept.turns", tests, NULL, NULL);
}
