// SPDX-License-Identifier: MIT
/*
 * Bytes as operations on a few guests, beside the flat model of the random test, with the model of KVM
 * and the checker. Every string of bytes is a run:
 *
 *	format, tables, pages, shared levels		a byte for each
 *	operation, guest, arguments of the operation	as often as there are bytes left
 */
#include <string.h>
#include <unistd.h>

#include "input.h"
#include "random_model.h"

#define GUESTS	    4
#define OPERATIONS  200 /* of an input: more than that is another input */
#define CHECK_EVERY 8
#define SECONDS	    20
#define SPARE_PAGES 8
#define FILES	    3
#define SPARE_FILE  FILES

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
static struct page file_pages[8 * EPT_ENTRIES];
static uint64_t next_value;

static unsigned number_of(const struct player *player)
{
	return (unsigned)(player - players);
}

static bool out_of_memory(enum ept_status status)
{
	return status == EPT_NO_TABLE || status == EPT_NO_PAGE;
}

static void expect(enum ept_status status, enum ept_status expected)
{
	input_say("  %s", ept_status_text(status));
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

static void do_create(struct input *input)
{
	struct player *player = player_free();
	unsigned how = input_byte(input);
	struct guest *guest;

	if (!player)
		return;
	input_say("guest %u: create, domain %u, sharing %s", number_of(player), how & 1,
		  how & 6 ? "on" : "off");
	if (guest_try_create(world, how & 1, how & 6, &guest) != EPT_OK)
		return;
	memset(player, 0, sizeof(*player));
	player->guest = guest;
	player->sharing = how & 6;
}

static void do_destroy(struct player *player, struct input *input)
{
	(void)input;
	input_say("guest %u: destroy", number_of(player));
	guest_destroy(player->guest);
	player->guest = NULL;
}

/* Cells [first, last), of which the text speaks by address. */
static void take_range(struct input *input, unsigned *first, unsigned *last)
{
	unsigned cells = model_cell_count();

	*first = input_below(input, cells);
	*last = *first + 1 + input_below(input, 6);
	if (*last > cells)
		*last = cells;
}

static void say_range(const struct player *player, const char *what, unsigned first, unsigned last)
{
	input_say("guest %u: %s %#llx-%#llx (cells %u-%u)", number_of(player), what,
		  (unsigned long long)model_cut(first), (unsigned long long)model_cut(last), first,
		  last);
}

static unsigned take_rights(struct input *input)
{
	static const unsigned rights[] = {RW, RWX, RX, EPT_READ};

	return rights[input_below(input, 4)];
}

/* As a rule the place that others choose too, so that there is something to share. */
static struct ept_region take_region(struct input *input, unsigned first, unsigned last)
{
	unsigned file = input_below(input, FILES);
	unsigned how = input_byte(input);
	uint64_t start = model_cut(first);
	uint64_t pages = (model_cut(last) - start) / EPT_PAGE_BYTES;
	uint64_t page = start / EPT_PAGE_BYTES + (how & 8 ? EPT_ENTRIES : 0) + (how & 16 ? 1 : 0);

	if (page + pages > world->files[file].ept.pages)
		page %= EPT_ENTRIES;
	if (page + pages > world->files[file].ept.pages)
		file = 0;
	return (struct ept_region){
		.start = {start},
		.bytes = pages * EPT_PAGE_BYTES,
		.first = {file, page},
		.rights = take_rights(input),
		.mode = world->files[file].ept.writable && (how & 3) ? EPT_SHARED : EPT_PRIVATE,
		.large = how & 4,
	};
}

static void do_map(struct player *player, struct input *input)
{
	unsigned first, last;
	struct ept_region region;
	enum ept_status status;

	take_range(input, &first, &last);
	region = take_region(input, first, last);
	say_range(player, "map", first, last);
	input_say("  file %u from page %llu, rights %u, mode %u%s", region.first.file,
		  (unsigned long long)region.first.page, region.rights, (unsigned)region.mode,
		  region.large ? ", large" : "");
	status = guest_map(player->guest, &region);
	if (out_of_memory(status))
		return;
	if (player->frozen)
		expect(status, EPT_FROZEN);
	else
		expect(status, model_any(&player->model, first, last) ? EPT_OVERLAP : EPT_OK);
	if (status == EPT_OK)
		model_map(&player->model, first, last, &region);
}

static void do_unmap(struct player *player, struct input *input)
{
	unsigned first, last;
	enum ept_status status;

	take_range(input, &first, &last);
	say_range(player, "unmap", first, last);
	status = guest_unmap(player->guest, model_cut(first), model_cut(last) - model_cut(first));
	if (out_of_memory(status))
		return;
	expect(status, player->frozen ? EPT_FROZEN : EPT_OK);
	if (status == EPT_OK)
		model_unmap(&player->model, first, last);
}

static void do_protect(struct player *player, struct input *input)
{
	unsigned first, last, rights;
	enum ept_status status;

	take_range(input, &first, &last);
	rights = take_rights(input);
	say_range(player, "protect", first, last);
	input_say("  rights %u", rights);
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

/* A place that an access goes to. */
struct place {
	unsigned cell;
	unsigned point;
	unsigned word;
};

static struct place take_place(struct player *player, struct input *input)
{
	unsigned cell = input_below(input, model_cell_count());
	unsigned how = input_byte(input);

	player->guest->vcpu = how >> 3 & 1;
	return (struct place){cell, how & 3, how >> 2 & 1};
}

static void say_place(const struct player *player, const char *what, struct place place)
{
	input_say("guest %u: vCPU %u %s %#llx (cell %u)", number_of(player), player->guest->vcpu, what,
		  (unsigned long long)model_point(place.cell, place.point).v + place.word * 8,
		  place.cell);
}

static void check_read(struct player *player, struct place place)
{
	struct gpa gpa = model_point(place.cell, place.point);
	uint64_t value;
	enum ept_status status =
		guest_read(player->guest, gpa.v + place.word * sizeof(value), &value);

	if (out_of_memory(status))
		return;
	expect(status, model_access(&player->model, place.cell, EPT_READ));
	if (status == EPT_OK &&
	    value != model_read(&player->model, &files, place.cell, place.point, place.word))
		port_fail(world, "S5: %#llx at %#llx, the model has another value",
			  (unsigned long long)value, (unsigned long long)gpa.v);
}

static void do_read(struct player *player, struct input *input)
{
	struct place place = take_place(player, input);

	say_place(player, "reads", place);
	check_read(player, place);
}

static void do_exec(struct player *player, struct input *input)
{
	struct place place = take_place(player, input);
	enum ept_status status;

	say_place(player, "fetches", place);
	status = guest_exec(player->guest, model_point(place.cell, place.point).v);
	if (!out_of_memory(status))
		expect(status, model_access(&player->model, place.cell, EPT_EXEC));
}

/* What a write must end with. A frozen guest may still write through to a file that it shows. */
static void expect_write(const struct player *player, struct place place, enum ept_status status)
{
	const struct model_cell *cell = &player->model.cells[place.cell];
	enum ept_status expected = model_access(&player->model, place.cell, EPT_WRITE);
	struct gpa gpa = model_point(place.cell, place.point);

	if (expected == EPT_OK && cell->mode == EPT_SHARED &&
	    model_watched(&files, model_file_page(&player->model, place.cell, gpa)))
		expected = EPT_WATCHED;
	if (player->frozen && cell->mode == EPT_SHARED && status == EPT_FROZEN &&
	    (expected == EPT_OK || expected == EPT_WATCHED))
		expected = EPT_FROZEN;
	if (player->frozen && cell->mode != EPT_SHARED && expected == EPT_OK)
		expected = EPT_FROZEN;
	expect(status, expected);
}

static void do_write(struct player *player, struct input *input)
{
	struct place place = take_place(player, input);
	uint64_t value = ++next_value;
	struct gpa gpa = model_point(place.cell, place.point);
	enum ept_status status;

	say_place(player, "writes", place);
	status = guest_write(player->guest, gpa.v + place.word * sizeof(value), value);
	if (out_of_memory(status))
		return;
	expect_write(player, place, status);
	if (status == EPT_OK)
		model_write(&player->model, &files, place.cell, place.point, place.word, value);
}

/* A fault that nothing caused, as when another vCPU was faster. */
static void do_fault(struct player *player, struct input *input)
{
	struct place place = take_place(player, input);
	unsigned access = 1u << input_below(input, 3);
	enum ept_status status;

	say_place(player, access == EPT_WRITE ? "has a write fault at" : "has a fault at", place);
	status = guest_fault(player->guest, model_point(place.cell, place.point).v, access);
	if (out_of_memory(status))
		return;
	if (access == EPT_WRITE)
		expect_write(player, place, status);
	else
		expect(status, model_access(&player->model, place.cell, access));
	if (status == EPT_OK && access == EPT_WRITE)
		model_own(&player->model, &files, place.cell, place.point);
}

static void do_clone(struct player *parent, struct input *input)
{
	struct player *player = player_free();
	enum ept_status status;
	struct guest *guest;

	(void)input;
	if (!player)
		return;
	input_say("guest %u: clone, as guest %u", number_of(parent), number_of(player));
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

static void do_freeze(struct player *player, struct input *input)
{
	(void)input;
	input_say("guest %u: freeze", number_of(player));
	expect(guest_freeze(player->guest), EPT_OK);
	player->frozen = true;
}

static void do_reset(struct player *player, struct input *input)
{
	enum ept_status status;

	(void)input;
	input_say("guest %u: reset", number_of(player));
	status = guest_reset(player->guest);
	if (out_of_memory(status))
		return;
	/* Who is frozen has nobody to go back to. */
	expect(status, player->has_base && !player->frozen ? EPT_OK : EPT_NO_PARENT);
	if (status == EPT_OK)
		player->model = player->base;
}

static void do_snapshot(struct player *player, struct input *input)
{
	struct player *frozen = player_free();
	enum ept_status status;
	struct guest *guest;

	(void)input;
	if (!frozen)
		return;
	input_say("guest %u: snapshot, as guest %u", number_of(player), number_of(frozen));
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

static uint64_t cell_bytes(unsigned cell)
{
	return model_cut(cell + 1) - model_cut(cell);
}

/* To another cell of the same size, if there is one. */
static void do_move(struct player *player, struct input *input)
{
	unsigned cell = input_below(input, model_cell_count());
	unsigned goal = input_below(input, model_cell_count());
	enum ept_status status;

	for (unsigned tries = 0; goal == cell || cell_bytes(goal) != cell_bytes(cell); tries++) {
		if (tries == model_cell_count())
			return;
		goal = (goal + 1) % model_cell_count();
	}
	say_range(player, "move", cell, cell + 1);
	input_say("  to %#llx (cell %u)", (unsigned long long)model_cut(goal), goal);
	status = guest_move(player->guest, model_cut(cell), cell_bytes(cell), model_cut(goal));
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

/* A page that the guest's cell shows, or the beginning of a file. */
static struct file_page take_page(struct player *player, struct input *input)
{
	struct place place = take_place(player, input);

	if (player->model.cells[place.cell].rights)
		return model_file_page(&player->model, place.cell,
				       model_point(place.cell, place.point));
	return (struct file_page){place.cell % FILES, 0};
}

static uint64_t take_count(struct input *input, struct file_page first)
{
	uint64_t left = world->files[first.file].ept.pages - first.page;
	uint64_t count = input_byte(input);

	count = count < 128 ? 1 + count % 4 : 8 * count;
	return count < left ? count : left;
}

static void say_pages(const char *what, struct file_page first, uint64_t count)
{
	input_say("%s %llu pages of file %u from page %llu", what, (unsigned long long)count,
		  first.file, (unsigned long long)first.page);
}

static void do_reclaim(struct player *player, struct input *input)
{
	struct file_page first = take_page(player, input);
	uint64_t count = take_count(input, first);
	struct tally tally;

	say_pages("reclaim", first, count);
	expect(world_reclaim(world, first, count, &tally), EPT_OK);
}

static void do_unwatch(struct player *player, struct input *input)
{
	(void)player;
	(void)input;
	say_pages("unwatch", files.watched, files.watched_count);
	ept_file_unwatch(world->ept, files.watched, files.watched_count);
	files.watched_count = 0;
}

static void do_watch(struct player *player, struct input *input)
{
	struct file_page first = take_page(player, input);
	uint64_t count = take_count(input, first);
	struct tally tally;

	do_unwatch(player, input);
	say_pages("watch", first, count);
	expect(world_watch(world, first, count, &tally), EPT_OK);
	files.watched = first;
	files.watched_count = count;
}

static void do_harvest(struct player *player, struct input *input)
{
	struct file_page first = take_page(player, input);
	uint64_t count = take_count(input, first);
	uint64_t accessed[2048 / 64] = {0};
	struct tally tally;

	say_pages("harvest", first, count);
	expect(world_harvest(world, first, count, accessed, &tally), EPT_OK);
}

/* To a page of the spare file, or back home. Refused where a place is taken, or guests may write. */
static void do_move_page(struct player *player, struct input *input)
{
	struct file_page page = take_page(player, input);
	unsigned goal = input_below(input, SPARE_PAGES + 4);
	struct file_page to = goal < SPARE_PAGES ? (struct file_page){SPARE_FILE, goal} : page;
	enum ept_status status;
	struct tally tally;

	input_say("move page %llu of file %u to page %llu of file %u", (unsigned long long)page.page,
		  page.file, (unsigned long long)to.page, to.file);
	status = world_move_page(world, page, to, &tally);
	if (status != EPT_INVALID)
		expect(status, EPT_OK);
}

/* All that a guest sees, at all places that the model knows. */
static void do_look(struct player *player, struct input *input)
{
	(void)input;
	input_say("guest %u: looks at all", number_of(player));
	for (unsigned cell = 0; cell < model_cell_count(); cell++)
		for (unsigned point = 0; point < MODEL_POINTS; point++)
			check_read(player, (struct place){cell, point, point & 1});
}

static void do_scrub(struct player *player, struct input *input)
{
	unsigned limit = 1 + input_below(input, 16);

	(void)player;
	input_say("scrub up to %u tables", limit);
	expect(world_scrub(world, limit), EPT_OK);
}

static void (*const operations[])(struct player *player, struct input *input) = {
	do_map,	  do_unmap, do_protect, do_read,    do_write, do_exec,	 do_fault,
	do_clone, do_freeze, do_reset,	do_snapshot, do_move, do_reclaim, do_watch,
	do_unwatch, do_harvest, do_move_page, do_look, do_scrub, do_destroy,
};

#define KINDS (sizeof(operations) / sizeof(*operations))

static void operation(struct input *input)
{
	unsigned kind = input_below(input, KINDS + 1);
	struct player *player = &players[input_below(input, GUESTS)];

	if (kind == KINDS || !player->guest)
		do_create(input);
	else
		operations[kind](player, input);
}

static void world_begin(struct input *input)
{
	static const struct ept_format *const formats[] = {&ept_format_ept, &ept_format_npt,
							   &ept_format_scrambled};
	struct world_options options = world_defaults(formats[input_below(input, 3)]);

	options.tables = 24 + input_below(input, 128);
	options.pages = 8 + input_below(input, 64);
	options.share_levels = ~(unsigned)input_byte(input) & EPT_SHARE_ALL;
	input_say("format %s, %u tables, %u pages, shared levels %#x", options.format->name,
		  options.tables, options.pages, options.share_levels);
	world = world_create(&options);
	alarm(SECONDS);
	world->check_every = CHECK_EVERY;
	world_file(world, 4 * GIB512 / KIB4, false);
	world_file(world, 4 * GIB512 / KIB4, false);
	world_file(world, 8 * EPT_ENTRIES, true);
	world_spare_file(world, SPARE_PAGES);
	memcpy(file_pages, world->files[2].pages, sizeof(file_pages));
	memset(&files, 0, sizeof(files));
	files.pages[2] = file_pages;
	memset(players, 0, sizeof(players));
	next_value = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = {bytes, size};

	world_begin(&input);
	for (unsigned count = 0; input.left && count < OPERATIONS; count++)
		operation(&input);
	world_check(world);
	world_destroy(world);
	alarm(0);
	return 0;
}
