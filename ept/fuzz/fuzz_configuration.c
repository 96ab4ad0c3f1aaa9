// SPDX-License-Identifier: MIT
/*
 * Bytes as an engine's configuration, files, spaces and operations with arbitrary arguments: the engine
 * does it or refuses, and whatever it has done passes the checker. No page has contents here, only
 * tables have.
 *
 *	configuration, files		as engine_begin() and files_add() limit them
 *	operation, its arguments	as often as there are bytes left
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "port.h"

#define TABLES	   48
#define SPACES	   4
#define OPERATIONS 64
#define FILES	   3

#define TABLES_AT  UINT64_C(0x100000000)
#define PAGES_AT   UINT64_C(0x1000000000)
#define WINDOWS_AT UINT64_C(0x20000000000)

static struct ept *engine;
static struct ept_space *spaces[SPACES];
static _Alignas(EPT_PAGE_BYTES) uint64_t tables[TABLES * EPT_ENTRIES];

static void die(const char *text)
{
	fprintf(stderr, "%s\n", text);
	abort();
}

static void violation(void *context, const char *text)
{
	(void)context;
	fprintf(stderr, "checker: %s\n", text);
}

static void check(void)
{
	if (ept_check(engine, violation, NULL))
		die("the checker found violations");
}

static void store(const struct ept_edit *edit)
{
	if (edit->entry.v - TABLES_AT >= sizeof(tables) || edit->entry.v % sizeof(uint64_t))
		die("an edit outside of all tables");
	tables[(edit->entry.v - TABLES_AT) / sizeof(uint64_t)] = edit->value;
}

/* Does what a change asks for, if @status says that there is one. */
static enum ept_status finish(struct ept_change *change, enum ept_status status)
{
	if (status == EPT_OK)
		do
			for (size_t at = 0; at < change->edits.count; at++)
				store(&ept_change_edits(change)[at]);
		while ((status = ept_change_finish(change)) == EPT_MORE);
	ept_change_free(change);
	input_say("  %s", ept_status_text(status));
	return status;
}

/* Memory that the guest's entries may name lies in stretches of its own, as the VMM lays it out. */
static void engine_begin(struct input *input)
{
	static const struct ept_format *const formats[] = {&ept_format_ept, &ept_format_npt,
							   &ept_format_scrambled};
	struct ept_config config = {
		.format = formats[input_below(input, 3)],
		.memory =
			{
				.tables = tables,
				.tables_at = {TABLES_AT},
				.table_count = input_below(input, TABLES + 1),
				.pages_at = {PAGES_AT},
				.page_count = input_byte(input),
			},
		.root_entry_index = (unsigned)input_byte(input) << 1,
		.root_entry = input_byte(input),
		.share_levels = input_byte(input),
		.share_threshold = input_byte(input),
		.share_from = input_below(input, 8),
		.share_until = input_below(input, 8),
	};

	input_say("format %s, %u tables, %u pages, root entry %u is %#llx, shared levels %#x, "
		  "threshold %u, events %llu to %llu",
		  config.format->name, config.memory.table_count, config.memory.page_count,
		  config.root_entry_index, (unsigned long long)config.root_entry,
		  config.share_levels, config.share_threshold,
		  (unsigned long long)config.share_from, (unsigned long long)config.share_until);
	memset(tables, 0, sizeof(tables));
	engine = ept_create(&config);
}

static void files_add(struct input *input)
{
	for (uint32_t number = 0; number < FILES; number++) {
		unsigned how = input_byte(input);
		struct ept_file file = {
			.window = {WINDOWS_AT * (number + 1) + (how & 4 ? EPT_PAGE_BYTES : 0)},
			.pages = input_address(input) % ((1u << 24) + 1),
			.capacity = input_address(input) % ((1u << 24) + 1),
			.writable = how & 1,
			.spare = (how & 3) == 2,
		};

		input_say("file %u: %llu pages of %llu%s%s%s", number, (unsigned long long)file.pages,
			  (unsigned long long)file.capacity, file.writable ? ", writable" : "",
			  file.spare ? ", spare" : "", how & 4 ? ", not aligned" : "");
		if (ept_file_add(engine, &file) != (int)number)
			die("a file's number is not the next one");
	}
}

static void create(struct input *input, unsigned at)
{
	struct ept_space_options options = {input_below(input, 3), input_below(input, 4)};

	input_say("space %u: create, domain %u%s", at, options.domain,
		  options.sharing ? "" : ", not sharing");
	if (ept_space_create(engine, &options, &spaces[at]) != EPT_OK)
		spaces[at] = NULL;
}

static void destroy(unsigned at)
{
	input_say("space %u: destroy", at);
	ept_space_destroy(spaces[at]);
	spaces[at] = NULL;
}

static enum ept_status map(struct ept_space *space, struct input *input, struct ept_change *change)
{
	struct ept_region region = {
		.start = {input_address(input)},
		.bytes = input_address(input),
		.first = {input_below(input, FILES + 1), input_address(input)},
		.rights = input_byte(input),
		.mode = (enum ept_mode)input_byte(input),
		.large = input_below(input, 2),
	};

	input_say("  map %#llx, %#llx bytes, file %u from page %#llx, rights %#x, mode %u%s",
		  (unsigned long long)region.start.v, (unsigned long long)region.bytes,
		  region.first.file, (unsigned long long)region.first.page, region.rights,
		  (unsigned)region.mode, region.large ? ", large" : "");
	return ept_space_map(space, &region, change);
}

static enum ept_status range(struct ept_space *space, struct input *input, unsigned kind,
			     struct ept_change *change)
{
	struct gpa start = {input_address(input)};
	uint64_t bytes = input_address(input);
	struct gpa to;
	unsigned rights;

	input_say("  of %#llx, %#llx bytes", (unsigned long long)start.v, (unsigned long long)bytes);
	switch (kind) {
	case 0:
		input_say("  unmap");
		return ept_space_unmap(space, start, bytes, change);
	case 1:
		rights = input_byte(input);
		input_say("  protect, rights %#x", rights);
		return ept_space_protect(space, start, bytes, rights, change);
	default:
		to.v = input_address(input);
		input_say("  move to %#llx", (unsigned long long)to.v);
		return ept_space_move(space, start, bytes, to, change);
	}
}

static void fault(unsigned number, struct input *input)
{
	struct ept_space *space = spaces[number];
	struct gpa gpa = {input_address(input)};
	unsigned access = 1u << input_below(input, 3);
	struct ept_change change = {0};
	enum ept_status status;
	unsigned rights;
	struct fpa at;

	input_say("space %u has a fault, access %u at %#llx", number, access,
		  (unsigned long long)gpa.v);
	status = finish(&change, ept_space_fault(space, gpa, access, &change));
	if (gpa.v < EPT_GPA_END && ept_space_translate(space, gpa, &at, &rights) &&
	    status == EPT_OK && !(rights & access))
		die("a fault that succeeded did not help");
}

/* A clone, or a snapshot, in the place of a space that is not there. */
static enum ept_status clone_space(struct ept_space *space, struct input *input,
				   struct ept_change *change)
{
	unsigned at = input_below(input, SPACES);
	bool snapshot = input_below(input, 2);
	struct ept_space *made;
	enum ept_status status;

	if (spaces[at])
		return EPT_INVALID;
	input_say("  %s, as space %u", snapshot ? "snapshot" : "clone", at);
	status = snapshot ? ept_space_snapshot(space, &made, change)
			  : ept_space_clone(space, &made, change);
	if (status == EPT_OK)
		spaces[at] = made;
	return status;
}

/* A pass over some pages of a file, or none, or more than it has. */
static enum ept_status pass(struct input *input, struct ept_change *change)
{
	struct file_page first = {input_below(input, FILES + 1), input_address(input)};
	struct file_page to = {input_below(input, FILES + 1), input_address(input)};
	static uint64_t accessed[4096 / 64];
	uint64_t count = to.page % 4096;
	unsigned kind = input_below(input, 5);

	input_say("pass %u over %llu pages of file %u from %#llx, or to page %#llx of file %u", kind,
		  (unsigned long long)count, first.file, (unsigned long long)first.page,
		  (unsigned long long)to.page, to.file);
	switch (kind) {
	case 0:
		return ept_file_reclaim(engine, first, count, change);
	case 1:
		return ept_file_watch(engine, first, count, change);
	case 2:
		return ept_file_harvest(engine, first, count, accessed, change);
	case 3:
		return ept_file_move(engine, first, to, change);
	default:
		input_say("  grow: %s",
			  ept_status_text(ept_file_grow(engine, first.file, to.page)));
		return EPT_INVALID;
	}
}

static enum ept_status operate(struct ept_space *space, struct input *input,
			       struct ept_change *change)
{
	unsigned kind = input_below(input, 9);

	if (kind < 3)
		return range(space, input, kind, change);
	if (kind < 6)
		return map(space, input, change);
	if (kind == 6)
		return clone_space(space, input, change);
	input_say("%s", kind == 7 ? "  freeze" : "  reset");
	return kind == 7 ? ept_space_freeze(space, change) : ept_space_reset(space, change);
}

static void operation(struct input *input)
{
	struct ept_change change = {0};
	unsigned choice = input_below(input, 16);
	unsigned at = input_below(input, SPACES);

	if (choice == 0)
		finish(&change, ept_scrub(engine, input_byte(input), &change));
	else if (choice == 1)
		finish(&change, pass(input, &change));
	else if (!spaces[at])
		create(input, at);
	else if (choice == 2)
		destroy(at);
	else if (choice < 7)
		fault(at, input);
	else {
		input_say("space %u:", at);
		finish(&change, operate(spaces[at], input, &change));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = {bytes, size};

	engine_begin(&input);
	if (!engine)
		return 0;
	files_add(&input);
	for (unsigned count = 0; input.left && count < OPERATIONS; count++)
		operation(&input);
	check();
	for (unsigned at = 0; at < SPACES; at++)
		if (spaces[at])
			destroy(at);
	check();
	ept_destroy(engine);
	return 0;
}
