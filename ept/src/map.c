// SPDX-License-Identifier: MIT
/*
 * Mapping, unmapping, moving and changing the rights of a range. All of them go through the same
 * stages, each of which takes as many steps as needed:
 *
 *	own the start    the root, and the tables that the range's first byte divides, become the
 *	                 space's own (F9)
 *	own the end      the same for the first byte beyond
 *	own the middle   for new rights and another place: shared tables that hold private pages
 *	own the goal     for another place only: tables for the private pages there
 *	regions          the list of regions changes; from here on nothing can fail
 *	entries          whole tables are let go without looking into them (F8), single entries edited
 *
 * Up to the regions, an operation that runs out of memory has only given the space more tables of
 * its own, which nobody can see.
 */
#include "ept_internal.h"

/* To move something, first what is in the way is made room of, then it moves. */
enum map_kind { MAP, UNMAP, PROTECT, MAKE_ROOM, MOVE };

enum map_stage { DONE, OWN_START, OWN_END, OWN_MIDDLE, OWN_GOAL, REGIONS, ENTRIES };

/* Where an entry's span ends, or the range if that is sooner. */
static struct gpa span_end(struct gpa at, unsigned level, struct gpa end)
{
	uint64_t next = (at.v | (ept_entry_span(level) - 1)) + 1;

	return (struct gpa){ next < end.v ? next : end.v };
}

/* Whether all that the entry of @level at @at translates is within the range. */
static bool whole_entry(const struct ept_progress *progress, struct gpa at, unsigned level)
{
	return at.v % ept_entry_span(level) == 0 &&
	       progress->end.v - at.v >= ept_entry_span(level);
}

/* Makes the tables that @border divides the space's own. */
static enum ept_status own_border(struct ept_change *change, struct gpa border)
{
	enum ept_status status = ept_own_root(change);
	struct ept_table *table = change->space->root;

	if (status != EPT_OK)
		return status;
	while (table->level > 1 && border.v % ept_entry_span(table->level)) {
		unsigned index = ept_entry_index(border, table->level);
		uint64_t entry = ept_entry_load(change->ept, table, index);

		if (!ept_entry_present(entry))
			break;
		if (ept_entry_is_table(change->ept, table->level, entry))
			status = ept_own_child(change, table, index, 0, &table);
		else
			status = ept_break_leaf(change, table, border, &table);
		if (status != EPT_OK)
			return status;
	}
	return EPT_OK;
}

/* The table below @parent at the range's cursor, if it holds more than a region could restore. */
static struct ept_table *dirty_child(const struct ept_change *change, struct ept_table *parent)
{
	unsigned index = ept_entry_index(change->progress.at, parent->level);
	uint64_t entry = ept_entry_load(change->ept, parent, index);

	if (!ept_entry_is_table(change->ept, parent->level, entry) ||
	    ept_entry_child(change->ept, entry)->clean)
		return NULL;
	return ept_entry_child(change->ept, entry);
}

/*
 * Goes to the next shared table within the range that holds more than a region could restore, and
 * makes it the space's own; its parents are by then.
 */
static enum ept_status own_middle(struct ept_change *change)
{
	struct ept_progress *progress = &change->progress;
	enum ept_status status;

	while (progress->at.v < progress->end.v) {
		struct ept_table *parent = change->space->root;
		struct ept_table *child = dirty_child(change, parent);
		unsigned index;

		while (child && !ept_table_is_shared(child) && child->level > 1) {
			parent = child;
			child = dirty_child(change, parent);
		}
		index = ept_entry_index(progress->at, parent->level);
		if (!child || !ept_table_is_shared(child)) {
			progress->at = span_end(progress->at, parent->level, progress->end);
			continue;
		}
		status = ept_own_child(change, parent, index, 0, &child);
		if (status != EPT_OK || !ept_change_is_empty(change))
			return status;
		ept_change_settle(change); /* It had become the space's own meanwhile. */
	}
	return EPT_OK;
}

/* The table of level 1 that translates @gpa, or the last one on the way to it. */
static struct ept_table *table_at(const struct ept_change *change, struct gpa gpa)
{
	struct ept_table *table = change->space->root;

	while (table->level > 1) {
		uint64_t entry = ept_entry_load(change->ept, table,
						ept_entry_index(gpa, table->level));

		if (!ept_entry_is_table(change->ept, table->level, entry))
			break;
		table = ept_entry_child(change->ept, entry);
	}
	return table;
}

static struct gpa goal_of(const struct ept_progress *progress, struct gpa gpa)
{
	return (struct gpa){ gpa.v - progress->start.v + progress->to.v };
}

/* An empty table for the absent entry @index of @parent, which is the space's own. */
static enum ept_status add_empty(struct ept_change *change, struct ept_table *parent,
				 unsigned index, struct ept_table **child)
{
	*child = ept_table_take(change->ept, parent->level - 1u);
	if (!*child)
		return EPT_NO_TABLE;
	ept_change_add_fresh(change, *child, false);
	ept_event(change->ept, EPT_EVENT_FILL, *child, change->space);
	return ept_change_link(change, parent, index, *child, EPT_WRITE);
}

/* Makes the tables that translate @gpa the space's own, down to one of level 1. */
static enum ept_status own_path(struct ept_change *change, struct gpa gpa)
{
	enum ept_status status = ept_own_root(change);
	struct ept_table *table = change->space->root;

	while (status == EPT_OK && table->level > 1) {
		unsigned index = ept_entry_index(gpa, table->level);

		if (ept_entry_present(ept_entry_load(change->ept, table, index)))
			status = ept_own_child(change, table, index, 0, &table);
		else
			status = add_empty(change, table, index, &table);
	}
	return status;
}

/*
 * Goes to the next private page within the range for which there is no table to move to, and makes one.
 * The tables that map such pages are the space's own by then.
 */
static enum ept_status own_goal(struct ept_change *change)
{
	struct ept_progress *progress = &change->progress;
	enum ept_status status;

	while (progress->at.v < progress->end.v) {
		struct ept_table *table = table_at(change, progress->at);
		unsigned index = ept_entry_index(progress->at, table->level);
		uint64_t entry = ept_entry_load(change->ept, table, index);

		if (table->level > 1 || !ept_entry_present(entry) ||
		    !ept_page_is_private(change->ept,
					 ept_entry_target(change->ept->config.format, entry))) {
			progress->at = span_end(progress->at, table->level, progress->end);
			continue;
		}
		status = own_path(change, goal_of(progress, progress->at));
		if (status != EPT_OK || !ept_change_is_empty(change))
			return status;
		ept_change_settle(change);
		progress->at.v += EPT_PAGE_BYTES;
	}
	return EPT_OK;
}

static void apply_to_regions(struct ept_change *change)
{
	const struct ept_progress *progress = &change->progress;
	struct ept_space *space = change->space;

	if (progress->kind == UNMAP)
		ept_region_cut(space, progress->start, progress->end);
	else if (progress->kind == PROTECT)
		ept_region_set_rights(space, progress->start, progress->end, progress->rights);
	else if (progress->kind == MOVE)
		ept_region_move(space, progress->start, progress->end, progress->to);
}

/* What becomes of a present entry whose span lies within the range. */
enum entry_fate { GO, CHANGE, LOOK_INSIDE };

static enum entry_fate entry_fate(const struct ept_change *change, const struct ept_table *table,
				  uint64_t entry)
{
	struct fpa target = ept_entry_target(change->ept->config.format, entry);

	if (change->progress.kind != PROTECT && change->progress.kind != MOVE)
		return GO;
	/* Otherwise what a fault can bring back goes, and private pages stay. */
	if (!ept_entry_is_table(change->ept, table->level, entry))
		return ept_page_is_private(change->ept, target) ? CHANGE : GO;
	return ept_table_of(change->ept, target)->clean ? GO : LOOK_INSIDE;
}

/* A private page under new rights. The right to write comes back with a fault, after a look. */
static uint64_t private_leaf(const struct ept_change *change, uint64_t entry)
{
	const struct ept_format *format = change->ept->config.format;

	return ept_entry_leaf(format, ept_entry_target(format, entry),
			      change->progress.rights & ~(unsigned)EPT_WRITE);
}

/* The entry @index of @table, for the range's cursor, goes where the cursor's page is to be. */
static void move_leaf(struct ept_change *change, struct ept_table *table, unsigned index)
{
	struct gpa gpa = goal_of(&change->progress, change->progress.at);
	struct ept_table *goal = table_at(change, gpa);

	assert(goal->level == 1);
	if (!ept_change_holds(change, goal)) {
		pthread_mutex_lock(&goal->lock);
		ept_change_hold(change, goal, true);
	}
	ept_change_move(change, table, index, goal, ept_entry_index(gpa, 1));
}

/*
 * Edits entries of one table, from the one at the range's cursor on. Stops at the range's or the
 * table's end, and where an entry is to be looked into; returns whether it is.
 */
static bool edit_entries(struct ept_change *change, struct ept_table *table)
{
	struct ept_progress *progress = &change->progress;
	unsigned index = ept_entry_index(progress->at, table->level);

	for (; index < EPT_ENTRIES && progress->at.v < progress->end.v; index++) {
		uint64_t entry = ept_entry_load(change->ept, table, index);
		enum entry_fate fate = GO;

		if (ept_entry_fixed(change->ept, table, index))
			entry = 0;
		if (ept_entry_present(entry)) {
			if (!whole_entry(progress, progress->at, table->level))
				return true;
			fate = entry_fate(change, table, entry);
			if (fate == LOOK_INSIDE)
				return true;
			if (fate == CHANGE && progress->kind == MOVE)
				move_leaf(change, table, index);
			else
				ept_change_store(change, table, index,
						 fate == GO ? 0 : private_leaf(change, entry));
		}
		progress->at = span_end(progress->at, table->level, progress->end);
	}
	return false;
}

/*
 * Goes down from the root to the first table with entries to edit, and edits these. Tables on the
 * way are the space's own by now, or the entry that leads to them would have gone.
 */
static void edit_step(struct ept_change *change)
{
	struct ept_progress *progress = &change->progress;
	struct ept *ept = change->ept;

	while (progress->at.v < progress->end.v && ept_change_is_empty(change)) {
		struct ept_table *table = change->space->root;

		while (edit_entries(change, table) && ept_change_is_empty(change)) {
			unsigned index = ept_entry_index(progress->at, table->level);

			table = ept_entry_child(ept, ept_entry_load(ept, table, index));
			pthread_mutex_lock(&table->lock);
			ept_change_hold(change, table, true);
		}
		if (ept_change_is_empty(change))
			ept_change_settle(change);
	}
	if (!ept_change_is_empty(change))
		ept_change_invalidate_space(change);
}

/* Goes on to the next stage, at the beginning of the range. */
static void next_stage(struct ept_progress *progress)
{
	static const enum map_stage next[] = {
		[OWN_START] = OWN_END,	[OWN_END] = OWN_MIDDLE, [OWN_MIDDLE] = OWN_GOAL,
		[OWN_GOAL] = REGIONS,	[REGIONS] = ENTRIES,	[ENTRIES] = DONE,
	};

	progress->stage = next[progress->stage];
	progress->at = progress->start;
}

/* One stage, or a part of it that produces edits. */
static enum ept_status run_stage(struct ept_change *change)
{
	struct ept_progress *progress = &change->progress;
	enum ept_status status = EPT_OK;

	switch ((enum map_stage)progress->stage) {
	case OWN_START:
		status = own_border(change, progress->start);
		break;
	case OWN_END:
		status = own_border(change, progress->end);
		break;
	case OWN_MIDDLE:
		if (progress->kind == PROTECT || progress->kind == MOVE)
			status = own_middle(change);
		if (status == EPT_OK && !ept_change_is_empty(change))
			return EPT_OK; /* The stage goes on when these are done. */
		break;
	case OWN_GOAL:
		if (progress->kind == MOVE)
			status = own_goal(change);
		if (status == EPT_OK && !ept_change_is_empty(change))
			return EPT_OK; /* The stage goes on when these are done. */
		break;
	case REGIONS:
		apply_to_regions(change);
		break;
	case ENTRIES:
		edit_step(change);
		if (!ept_change_is_empty(change))
			return EPT_OK;
		break;
	case DONE:
		break;
	}
	next_stage(progress);
	return status;
}

/* From room to move: the other range. */
static void begin_move(struct ept_progress *progress)
{
	uint64_t bytes = progress->end.v - progress->start.v;
	struct gpa goal = progress->start;

	*progress = (struct ept_progress){
		.stage = OWN_START,
		.kind = MOVE,
		.start = progress->to,
		.at = progress->to,
		.end = { progress->to.v + bytes },
		.to = goal,
	};
}

static void finish_map(struct ept_change *change)
{
	if (change->progress.kind == MAKE_ROOM) {
		begin_move(&change->progress);
		return;
	}
	if (change->progress.kind == MAP)
		ept_region_insert(change->space, &change->space->pending);
	ept_space_measure(change->space);
}

/* Runs stages up to the next edits. With stage DONE and no edits, the operation is over. */
enum ept_status ept_map_step(struct ept_change *change)
{
	enum ept_status status = EPT_OK;

	while (change->progress.stage != DONE && ept_change_is_empty(change)) {
		status = run_stage(change);
		if (status != EPT_OK)
			return ept_change_abort(change, status);
		if (!ept_change_is_empty(change))
			return EPT_OK;
		/* A stage without edits may still have locked the tables that it found. */
		ept_change_settle(change);
		if (change->progress.stage == DONE)
			finish_map(change);
	}
	return EPT_OK;
}

static bool range_valid(const struct ept *ept, struct gpa start, uint64_t bytes)
{
	uint64_t gate = ept->config.root_entry_index * ept_entry_span(EPT_ROOT_LEVEL);

	if (!bytes || start.v % EPT_PAGE_BYTES || bytes % EPT_PAGE_BYTES ||
	    start.v >= EPT_GPA_END || bytes > EPT_GPA_END - start.v)
		return false;
	return !ept->config.root_entry || start.v + bytes <= gate ||
	       start.v >= gate + ept_entry_span(EPT_ROOT_LEVEL);
}

static bool rights_valid(unsigned rights)
{
	return (rights & EPT_READ) && !(rights & ~(unsigned)(EPT_READ | EPT_WRITE | EPT_EXEC));
}

static bool region_valid(const struct ept *ept, const struct ept_region *region)
{
	uint64_t pages = region->bytes >> EPT_PAGE_SHIFT;
	const struct ept_file *file;

	if (region->first.file >= atomic_load(&ept->file_count))
		return false;
	file = &ept->files[region->first.file];
	if (file->spare)
		return false;
	if (region->large && file->window.v % ept_entry_span(EPT_LARGE_LEVEL))
		return false;
	return range_valid(ept, region->start, region->bytes) && rights_valid(region->rights) &&
	       region->first.page < ept_file_pages(ept, region->first.file) &&
	       pages <= ept_file_pages(ept, region->first.file) - region->first.page &&
	       (region->mode == EPT_PRIVATE || (region->mode == EPT_SHARED && file->writable));
}

/* Begins an operation on [start, start + bytes) of a space that is locked. */
static enum ept_status begin(struct ept_change *change, enum map_kind kind, struct gpa start,
			     uint64_t bytes, unsigned rights)
{
	/* Room for the regions, and for the one invalidation of a step that must not fail. */
	if (!ept_region_reserve(change->space) ||
	    !ept_list_reserve(&change->invalidations, EPT_ROOT_LEVEL,
			      sizeof(struct ept_invalidation)) ||
	    !ept_change_reserve(change, 2 * EPT_ENTRIES))
		return ept_change_abort(change, EPT_NO_MEMORY);
	change->progress = (struct ept_progress){
		.stage = OWN_START,
		.kind = kind,
		.rights = rights,
		.start = start,
		.at = start,
		.end = { start.v + bytes },
		.to = change->progress.to,
	};
	return ept_map_step(change);
}

enum ept_status ept_space_map(struct ept_space *space, const struct ept_region *region,
			      struct ept_change *change)
{
	struct gpa end = ept_region_end(region);

	if (!region_valid(space->ept, region))
		return EPT_INVALID;
	pthread_mutex_lock(&space->lock);
	ept_change_begin(change, space->ept, space);
	if (space->frozen)
		return ept_change_abort(change, EPT_FROZEN);
	if (ept_region_any(space, region->start, end))
		return ept_change_abort(change, EPT_OVERLAP);
	space->pending = *region;
	return begin(change, MAP, region->start, region->bytes, region->rights);
}

enum ept_status ept_space_unmap(struct ept_space *space, struct gpa start, uint64_t bytes,
				struct ept_change *change)
{
	if (!range_valid(space->ept, start, bytes))
		return EPT_INVALID;
	pthread_mutex_lock(&space->lock);
	ept_change_begin(change, space->ept, space);
	if (space->frozen)
		return ept_change_abort(change, EPT_FROZEN);
	return begin(change, UNMAP, start, bytes, 0);
}

enum ept_status ept_space_protect(struct ept_space *space, struct gpa start, uint64_t bytes,
				  unsigned rights, struct ept_change *change)
{
	struct gpa end = { start.v + bytes };

	if (!range_valid(space->ept, start, bytes) || !rights_valid(rights))
		return EPT_INVALID;
	pthread_mutex_lock(&space->lock);
	ept_change_begin(change, space->ept, space);
	if (space->frozen)
		return ept_change_abort(change, EPT_FROZEN);
	if (!ept_region_covers(space, start, end))
		return ept_change_abort(change, EPT_OVERLAP);
	return begin(change, PROTECT, start, bytes, rights);
}

enum ept_status ept_space_move(struct ept_space *space, struct gpa from, uint64_t bytes,
			       struct gpa to, struct ept_change *change)
{
	struct gpa from_end = { from.v + bytes };
	struct gpa to_end = { to.v + bytes };

	if (!range_valid(space->ept, from, bytes) || !range_valid(space->ept, to, bytes))
		return EPT_INVALID;
	pthread_mutex_lock(&space->lock);
	ept_change_begin(change, space->ept, space);
	if (space->frozen)
		return ept_change_abort(change, EPT_FROZEN);
	if (!ept_region_covers(space, from, from_end) || ept_region_any(space, to, to_end))
		return ept_change_abort(change, EPT_OVERLAP);
	change->progress.to = from;
	return begin(change, MAKE_ROOM, to, bytes, 0);
}
