// SPDX-License-Identifier: MIT
/*
 * Random operations on a few guests beside the flat model. S2VM_SEED and S2VM_OPS choose the run,
 * S2VM_CHECK_EVERY how many operations lie between two runs of the checker. A run is made of
 * rounds, each in a new world and with a seed of its own, which a failure prints: given as
 * S2VM_SEED it repeats the failing round as its first. "minimise FORMAT SEED OPERATION", with what the
 * failure printed, leaves out the operations that the failure does not need and prints the others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "minimise.h"
#include "random_model.h"

#define GUESTS	  6
#define ROUND_OPS 4000

struct player {
	struct guest *guest; /* NULL: nobody */
	bool frozen;
	bool sharing;
	bool has_base;
	struct model model;
	struct model base; /* what a reset goes back to */
};

static struct world *world;
static struct player players[GUESTS];
static struct model_files files;
static uint64_t random_state;
static uint64_t round_seed;
static uint64_t round_op;
static uint64_t next_value;
static uint64_t leaves_broken; /* in all rounds */
static uint64_t page_moves;

#define SPARE_FILE  4
#define SPARE_PAGES 24
static char what[128];

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static const char *describe(void)
{
	static char text[256];

	snprintf(text, sizeof(text), "%s, S2VM_SEED=%llu, operation %llu: %s", world->format->name,
		 (unsigned long long)round_seed, (unsigned long long)round_op, what);
	return text;
}

/* splitmix64: small, and the same everywhere. */
static uint32_t below(uint32_t limit)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (uint32_t)((z ^ z >> 31) >> 16) % limit;
}

static void say(const struct player *player, const char *operation, unsigned first, unsigned last)
{
	snprintf(what, sizeof(what), "guest %d %s cells [%u, %u)", (int)(player - players),
		 operation, first, last);
	if (getenv("S2VM_TRACE"))
		fprintf(stderr, "%s\n", describe());
}

static bool out_of_memory(enum ept_status status)
{
	return status == EPT_NO_TABLE || status == EPT_NO_PAGE;
}

static void expect(enum ept_status status, enum ept_status expected)
{
	if (status != expected)
		port_fail(world, "'%s' instead of '%s'", ept_status_text(status),
			  ept_status_text(expected));
}

static struct player *player_free(void)
{
	for (unsigned i = 0; i < GUESTS; i++)
		if (!players[i].guest)
			return &players[i];
	return NULL;
}

static struct player *player_any(void)
{
	struct player *player = &players[below(GUESTS)];

	if (!player->guest)
		return NULL;
	player->guest->vcpu = below(PORT_VCPUS);
	return player;
}

static void step_create(void)
{
	struct player *player = player_free();
	bool sharing = below(8) != 0;
	struct guest *guest;

	if (!player)
		return;
	say(player, "create", 0, 0);
	if (guest_try_create(world, below(2), sharing, &guest) != EPT_OK)
		return;
	memset(player, 0, sizeof(*player));
	player->guest = guest;
	player->sharing = sharing;
}

static void step_destroy(void)
{
	struct player *player = player_any();

	if (!player)
		return;
	say(player, "destroy", 0, 0);
	guest_destroy(player->guest);
	player->guest = NULL;
}

static void random_range(unsigned *first, unsigned *last)
{
	unsigned cells = model_cell_count();

	*first = below(cells);
	*last = *first + 1 + below(below(4) ? 2 : 6);
	if (*last > cells)
		*last = cells;
}

/* A cell, mostly one that the guest maps. */
static unsigned random_cell(const struct player *player)
{
	unsigned cell = below(model_cell_count());

	for (unsigned tries = 0; tries < 3 && !player->model.cells[cell].rights; tries++)
		cell = below(model_cell_count());
	return cell;
}

/* Mostly a place in the file that others choose too, so that there is something to share. */
static struct file_page random_first(uint64_t start, uint64_t pages)
{
	uint64_t page = start / EPT_PAGE_BYTES;
	uint32_t file = below(4);

	switch (below(10)) {
	case 0:
		page += EPT_ENTRIES;
		break;
	case 1:
		page += 1 + below(EPT_ENTRIES);
		break;
	default:
		break;
	}
	if (page + pages > world->files[file].ept.pages)
		page = page % EPT_ENTRIES;
	if (page + pages > world->files[file].ept.pages)
		file = 0;
	return (struct file_page){file, page};
}

static unsigned random_rights(void)
{
	static const unsigned rights[] = {RW, RW, RWX, RWX, RX, EPT_READ};

	return rights[below(6)];
}

static struct ept_region random_region(unsigned first, unsigned last)
{
	uint64_t start = model_cut(first);
	uint64_t bytes = model_cut(last) - start;
	struct file_page page = random_first(start, bytes / EPT_PAGE_BYTES);
	bool writable = world->files[page.file].ept.writable;

	return (struct ept_region){
		.start = {start},
		.bytes = bytes,
		.first = page,
		.rights = random_rights(),
		.mode = writable && below(3) ? EPT_SHARED : EPT_PRIVATE,
		.large = below(2),
	};
}

static void step_map(struct player *player)
{
	unsigned first, last;
	struct ept_region region;
	enum ept_status status;

	random_range(&first, &last);
	say(player, "map", first, last);
	region = random_region(first, last);
	status = guest_map(player->guest, &region);
	if (out_of_memory(status))
		return;
	if (player->frozen)
		expect(status, EPT_FROZEN);
	else if (model_any(&player->model, first, last))
		expect(status, EPT_OVERLAP);
	else
		expect(status, EPT_OK);
	if (status == EPT_OK)
		model_map(&player->model, first, last, &region);
}

static void step_unmap(struct player *player)
{
	unsigned first, last;
	enum ept_status status;

	random_range(&first, &last);
	say(player, "unmap", first, last);
	status = guest_unmap(player->guest, model_cut(first), model_cut(last) - model_cut(first));
	if (out_of_memory(status))
		return;
	expect(status, player->frozen ? EPT_FROZEN : EPT_OK);
	if (status == EPT_OK)
		model_unmap(&player->model, first, last);
}

static void step_protect(struct player *player)
{
	unsigned rights = random_rights();
	unsigned first, last;
	enum ept_status status;

	random_range(&first, &last);
	say(player, "protect", first, last);
	status = guest_protect(player->guest, model_cut(first), model_cut(last) - model_cut(first),
			       rights);
	if (out_of_memory(status))
		return;
	if (player->frozen)
		expect(status, EPT_FROZEN);
	else
		expect(status, model_covers(&player->model, first, last) ? EPT_OK : EPT_OVERLAP);
	if (status == EPT_OK)
		model_protect(&player->model, first, last, rights);
}

static void check_read(struct player *player, unsigned cell, unsigned point, unsigned word)
{
	struct gpa gpa = model_point(cell, point);
	uint64_t value;
	enum ept_status status = guest_read(player->guest, gpa.v + word * sizeof(value), &value);
	uint64_t expected;

	if (out_of_memory(status))
		return;
	expect(status, model_access(&player->model, cell, EPT_READ));
	if (status != EPT_OK)
		return;
	expected = model_read(&player->model, &files, cell, point, word);
	if (value != expected)
		port_fail(world, "S5: %#llx at %#llx, the model has %#llx",
			  (unsigned long long)value, (unsigned long long)gpa.v,
			  (unsigned long long)expected);
}

static void step_read(struct player *player)
{
	unsigned cell = random_cell(player);

	say(player, "read", cell, cell + 1);
	check_read(player, cell, below(MODEL_POINTS), below(PORT_WORDS));
}

static void step_exec(struct player *player)
{
	unsigned cell = random_cell(player);
	enum ept_status status;

	say(player, "exec", cell, cell + 1);
	status = guest_exec(player->guest, model_point(cell, below(MODEL_POINTS)).v);
	if (!out_of_memory(status))
		expect(status, model_access(&player->model, cell, EPT_EXEC));
}

/* What a write must end with. A frozen guest may still write through to a file that it shows. */
static bool write_allowed(const struct player *player, unsigned cell, unsigned point,
			  enum ept_status status)
{
	enum ept_status expected = model_access(&player->model, cell, EPT_WRITE);
	struct file_page page = model_file_page(&player->model, cell, model_point(cell, point));

	if (expected == EPT_OK && player->model.cells[cell].mode == EPT_SHARED &&
	    model_watched(&files, page))
		return status == EPT_WATCHED || (player->frozen && status == EPT_FROZEN);

	if (!player->frozen || expected != EPT_OK)
		return status == expected;
	return status == EPT_FROZEN ||
	       (status == EPT_OK && player->model.cells[cell].mode == EPT_SHARED);
}

static void step_write(struct player *player)
{
	unsigned cell = random_cell(player);
	unsigned point = below(MODEL_POINTS);
	unsigned word = below(PORT_WORDS);
	uint64_t value = ++next_value;
	enum ept_status status;

	say(player, "write", cell, cell + 1);
	status = guest_write(player->guest, model_point(cell, point).v + word * sizeof(value),
			     value);
	if (out_of_memory(status))
		return;
	if (!write_allowed(player, cell, point, status))
		port_fail(world, "a write ended with '%s'", ept_status_text(status));
	if (status == EPT_OK)
		model_write(&player->model, &files, cell, point, word, value);
}

/* A fault that nothing caused, as when another vCPU was faster. */
static void step_fault(struct player *player)
{
	unsigned cell = random_cell(player);
	unsigned point = below(MODEL_POINTS);
	unsigned access = 1u << below(3);
	enum ept_status status;

	say(player, "fault", cell, cell + 1);
	status = guest_fault(player->guest, model_point(cell, point).v, access);
	if (out_of_memory(status))
		return;
	if (access == EPT_WRITE ? !write_allowed(player, cell, point, status)
				: status != model_access(&player->model, cell, access))
		port_fail(world, "a fault ended with '%s'", ept_status_text(status));
	if (status == EPT_OK && access == EPT_WRITE)
		model_own(&player->model, &files, cell, point);
}

static void step_clone(struct player *parent)
{
	struct player *player = player_free();
	enum ept_status status;
	struct guest *guest;

	if (!player)
		return;
	say(parent, "clone", 0, 0);
	status = guest_clone(parent->guest, &guest);
	if (out_of_memory(status))
		return;
	expect(status, parent->sharing ? EPT_OK : EPT_INVALID);
	if (status != EPT_OK)
		return;
	*player = *parent;
	player->guest = guest;
	player->frozen = false;
	player->has_base = parent->frozen;
	player->base = parent->model;
}

static void step_freeze(struct player *player)
{
	say(player, "freeze", 0, 0);
	expect(guest_freeze(player->guest), EPT_OK);
	player->frozen = true;
}

static void step_reset(struct player *player)
{
	enum ept_status status;

	say(player, "reset", 0, 0);
	status = guest_reset(player->guest);
	if (out_of_memory(status))
		return;
	/* Who is frozen has nobody to go back to. */
	expect(status, player->has_base && !player->frozen ? EPT_OK : EPT_NO_PARENT);
	if (status == EPT_OK)
		player->model = player->base;
}

static void step_snapshot(struct player *player)
{
	struct player *frozen = player_free();
	enum ept_status status;
	struct guest *guest;

	if (!frozen)
		return;
	say(player, "snapshot", 0, 0);
	status = guest_snapshot(player->guest, &guest);
	if (out_of_memory(status))
		return;
	if (!player->sharing)
		expect(status, EPT_INVALID);
	else
		expect(status, player->frozen ? EPT_FROZEN : EPT_OK);
	if (status != EPT_OK)
		return;
	*frozen = *player;
	frozen->guest = guest;
	frozen->frozen = true;
	player->has_base = true;
	player->base = player->model;
}

/* To another cell of the same size, if there is one. */
static void step_move(struct player *player)
{
	unsigned cell = random_cell(player);
	unsigned goal = below(model_cell_count());
	uint64_t bytes = model_cut(cell + 1) - model_cut(cell);
	enum ept_status status;

	for (unsigned tries = 0; tries < model_cell_count(); tries++) {
		goal = (goal + 1) % model_cell_count();
		if (goal != cell && model_cut(goal + 1) - model_cut(goal) == bytes)
			break;
	}
	if (goal == cell || model_cut(goal + 1) - model_cut(goal) != bytes)
		return;
	say(player, "move", cell, goal);
	status = guest_move(player->guest, model_cut(cell), bytes, model_cut(goal));
	if (out_of_memory(status))
		return;
	if (player->frozen)
		expect(status, EPT_FROZEN);
	else if (!player->model.cells[cell].rights || player->model.cells[goal].rights)
		expect(status, EPT_OVERLAP);
	else
		expect(status, EPT_OK);
	if (status == EPT_OK)
		model_move(&player->model, cell, goal);
}

/* A page that some guest's cell shows, so that there is something to find. */
static struct file_page random_page(const struct player *player)
{
	unsigned cell = random_cell(player);
	struct file_page page = {below(4), below(3) * EPT_ENTRIES};

	if (player->model.cells[cell].rights)
		page = model_file_page(&player->model, cell,
				       model_point(cell, below(MODEL_POINTS)));
	return page;
}

static uint64_t random_count(struct file_page first, uint64_t most)
{
	uint64_t left = world->files[first.file].ept.pages - first.page;
	uint64_t count = 1 + below(below(2) ? 4 : (uint32_t)most);

	return count < left ? count : left;
}

static void step_reclaim(struct player *player)
{
	struct file_page first = random_page(player);
	struct tally tally;

	say(player, "reclaim", 0, 0);
	expect(world_reclaim(world, first, random_count(first, 2048), &tally), EPT_OK);
}

static void step_watch(struct player *player)
{
	struct file_page first = random_page(player);
	struct tally tally;

	say(player, "watch", 0, 0);
	ept_file_unwatch(world->ept, files.watched, files.watched_count);
	files.watched_count = 0;
	if (!below(3))
		return;
	files.watched = first;
	files.watched_count = random_count(first, 700);
	expect(world_watch(world, first, files.watched_count, &tally), EPT_OK);
}

static void step_harvest(struct player *player)
{
	struct file_page first = random_page(player);
	uint64_t accessed[1024 / 64] = {0};
	struct tally tally;

	say(player, "harvest", 0, 0);
	expect(world_harvest(world, first, random_count(first, 1024), accessed, &tally), EPT_OK);
}

/* To one of a few pages of the spare file, or back home. */
static void step_move_page(struct player *player)
{
	struct file_page page = random_page(player);
	struct file_page to = {SPARE_FILE, below(SPARE_PAGES)};
	enum ept_status status;
	struct tally tally;

	say(player, "move a page", 0, 0);
	if (!below(3))
		to = page;
	status = world_move_page(world, page, to, &tally);
	/* Refused for a file that guests write to, a place that is taken, a page that is at home. */
	if (status == EPT_INVALID)
		return;
	expect(status, EPT_OK);
	page_moves++;
}

/* All that a guest sees, at all places that the model knows. */
static void step_look(struct player *player)
{
	say(player, "look", 0, model_cell_count());
	for (unsigned cell = 0; cell < model_cell_count(); cell++) {
		struct ept_region region;
		bool found = ept_space_region(player->guest->space, model_point(cell, 1), &region);
		const struct model_cell *is = &player->model.cells[cell];

		if (found != (is->rights != 0) ||
		    (found && (region.rights != is->rights || region.mode != is->mode)))
			port_fail(world, "S5: cell %u is not in the region that it should be in",
				  cell);
		for (unsigned point = 0; point < MODEL_POINTS; point++)
			check_read(player, cell, point, below(PORT_WORDS));
	}
}

/* What shortage left undone stays undone; the next operations have memory again. */
static void relieve(void)
{
	struct ept_usage usage;
	uint64_t tables = 0;

	snprintf(what, sizeof(what), "scrub");
	ept_usage(world->ept, &usage);
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		tables += usage.tables[level];
	if (tables + usage.tables_quarantined > world->table_count - 16 ||
	    usage.pages + usage.pages_quarantined > world->page_count - 8)
		world_scrub_all(world);
	if (tables > world->table_count - 32 || usage.pages > world->page_count - 16)
		step_destroy();
}

/* What is done to files, whoever maps them. */
static void step_file(struct player *player)
{
	switch (below(4)) {
	case 0:
		step_reclaim(player);
		break;
	case 1:
		step_watch(player);
		break;
	case 2:
		step_harvest(player);
		break;
	default:
		step_move_page(player);
		break;
	}
}

static void step_with(struct player *player, unsigned choice)
{
	if (choice < 4)
		step_file(player);
	else if (choice < 6)
		step_move(player);
	else if (choice < 7)
		step_snapshot(player);
	else if (choice < 34)
		step_write(player);
	else if (choice < 60)
		step_read(player);
	else if (choice < 66)
		step_exec(player);
	else if (choice < 72)
		step_fault(player);
	else if (choice < 80)
		step_map(player);
	else if (choice < 85)
		step_unmap(player);
	else if (choice < 90)
		step_protect(player);
	else if (choice < 93)
		step_clone(player);
	else if (choice < 94)
		step_freeze(player);
	else if (choice < 96)
		step_reset(player);
	else
		step_look(player);
}

static void step(void)
{
	struct player *player = player_any();
	unsigned choice = below(103);

	if (choice == 100 || !player)
		step_create();
	else if (choice == 101)
		step_destroy();
	else if (choice == 102)
		expect(world_scrub(world, 1 + below(4)), EPT_OK);
	else
		step_with(player, choice);
	if (!below(8))
		relieve();
}

static void files_create(void)
{
	static const struct {
		uint64_t pages;
		bool writable;
	} sizes[] = {
		{4 * GIB512 / KIB4, false},
		{4 * GIB512 / KIB4, false},
		{2 * GIB1 / KIB4 + EPT_ENTRIES, true},
		{8 * MIB2 / KIB4, true},
	};

	for (uint32_t f = 0; f < 4; f++) {
		size_t bytes = sizes[f].pages * sizeof(struct page);

		world_file(world, sizes[f].pages, sizes[f].writable);
		if (!sizes[f].writable)
			continue;
		files.pages[f] = malloc(bytes);
		memcpy(files.pages[f], world->files[f].pages, bytes);
	}
	world_spare_file(world, SPARE_PAGES);
}

static void files_destroy(void)
{
	for (unsigned f = 0; f < MODEL_FILES; f++)
		free(files.pages[f]);
	memset(&files, 0, sizeof(files));
}

/* Each operation draws from numbers of its own, so that others can be left out. */
static void seed_operation(void)
{
	random_state = round_seed * UINT64_C(0xd1342543de82ef95) + round_op;
	below(1);
}

static void round_create(const struct ept_format *format, uint64_t seed)
{
	struct world_options options = world_defaults(format);

	round_seed = seed;
	random_state = seed;
	options.tables = 160 + below(200);
	options.pages = 96 + below(200);
	options.share_levels = below(3) ? EPT_SHARE_ALL : below(8) << 1;
	world = world_create(&options);
	world->describe = describe;
	world->check_every = (unsigned)number_from("S2VM_CHECK_EVERY", 16);
	memset(players, 0, sizeof(players));
	files_create();
}

static void run_round(const struct ept_format *format, uint64_t seed, uint64_t ops)
{
	struct ept_counters counters;

	round_create(format, seed);
	for (round_op = 0; round_op < ops; round_op++) {
		seed_operation();
		step();
	}
	snprintf(what, sizeof(what), "the end of a round");
	world_check(world);
	ept_counters(world->ept, &counters);
	leaves_broken += counters.leaves_broken;
	/* A round of usual length comes by many entries of 2 MiB, and breaks some. */
	if (ops == ROUND_OPS && !counters.leaves_broken)
		port_fail(world, "no entry of 2 MiB was broken");
	world_destroy(world);
	files_destroy();
}

static void test_random_operations(void **state)
{
	uint64_t seed = number_from("S2VM_SEED", 1);
	uint64_t ops = number_from("S2VM_OPS", 200000) / 3;

	for (uint64_t done = 0; done < ops; done += ROUND_OPS)
		run_round(*state, seed++, ops - done < ROUND_OPS ? ops - done : ROUND_OPS);
	print_message("%llu entries of 2 MiB broken, %llu pages of files moved\n",
		      (unsigned long long)leaves_broken, (unsigned long long)page_moves);
}

/* ---- a failure, made short ---- */

static const struct ept_format *minimise_format;
static uint64_t minimise_seed;

static void run_operations(const uint64_t *operations, size_t count)
{
	round_create(minimise_format, minimise_seed);
	world->exits = true;
	for (size_t at = 0; at < count; at++) {
		round_op = operations[at];
		seed_operation();
		step();
	}
	world_check(world);
}

static const struct ept_format *format_named(const char *name)
{
	const struct ept_format *const formats[] = {&ept_format_ept, &ept_format_npt,
						    &ept_format_scrambled};

	for (unsigned i = 0; i < 3; i++)
		if (strcmp(formats[i]->name, name) == 0)
			return formats[i];
	fprintf(stderr, "no format is named %s\n", name);
	exit(2);
}

/* Finds the operations that a failing round needs, and runs them once more, one line for each. */
static int minimise_round(const char *format, const char *seed, const char *last)
{
	uint64_t count = strtoull(last, NULL, 0) + 1;
	uint64_t *operations = malloc(count * sizeof(*operations));
	size_t left;

	minimise_format = format_named(format);
	minimise_seed = strtoull(seed, NULL, 0);
	setenv("S2VM_CHECK_EVERY", "1", 1);
	for (uint64_t at = 0; at < count; at++)
		operations[at] = at;
	left = minimise(operations, count, run_operations);
	printf("%zu of %llu operations are needed\n", left, (unsigned long long)count);
	fflush(stdout);
	setenv("S2VM_TRACE", "1", 1);
	if (left)
		run_operations(operations, left);
	free(operations);
	return left ? 1 : 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {EACH_FORMAT(test_random_operations)};

	if (argc == 5 && strcmp(argv[1], "minimise") == 0)
		return minimise_round(argv[2], argv[3], argv[4]);
	if (argc > 1)
		setenv("S2VM_SEED", argv[1], 1);
	if (argc > 2)
		setenv("S2VM_OPS", argv[2], 1);
	return cmocka_run_group_tests_name("ept.random", tests, NULL, NULL);
}
