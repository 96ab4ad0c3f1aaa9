// SPDX-License-Identifier: MIT
/*
 * Passes over all entries that map some pages of a memory file, found by the reverse map: to forget
 * the pages, to let them lie elsewhere, to take the right to write, to ask which were accessed. One
 * edit for each table that holds such an entry, whatever the number of guests that have the table
 * (F27).
 *
 * A step locks one table and edits it; no space is locked. What faults do meanwhile is found too: they
 * tell the reverse map before they ask where a page lies and whether it is watched, so either they see
 * what the pass has set, or the pass finds their table and waits for it. When no entry is left that is
 * not as wanted, the last step invalidates the pages.
 */
#include "ept_internal.h"

#include <sched.h>

enum sweep_kind { FORGET = 1, MOVE, WATCH, HARVEST };

enum sweep_stage { COPY = 1, EDIT, INVALIDATE };

static const struct rmap_entry *found_entries(const struct ept_change *change)
{
	return change->found.items;
}

/* What the entry is to be; the same as it is if the pass has no business with it. */
static uint64_t wanted(const struct ept_change *change, unsigned level, uint64_t entry)
{
	const struct ept_format *format = change->ept->config.format;
	const struct ept_sweep *sweep = &change->sweep;
	struct fpa at;

	switch ((enum sweep_kind)sweep->kind) {
	case FORGET:
		return 0;
	case MOVE:
		at = ept_file_page_at(change->ept, sweep->at);
		if (ept_entry_target(format, entry).v == at.v)
			return entry;
		/* An entry of 2 MiB cannot show it; smaller ones come by faults. */
		if (level > 1)
			return 0;
		return (ept_entry_leaf(format, at, ept_entry_rights(format, entry)) &
			~format->accessed_bit) |
		       (entry & format->accessed_bit);
	case WATCH:
		return level == 1 ? ept_entry_with_write(format, entry, false) : 0;
	case HARVEST:
		return entry & ~format->accessed_bit;
	}
	return entry;
}

/* Whether @entry of @table, which is locked, maps page @page of the pass's file. */
static bool maps(const struct ept *ept, const struct ept_table *table, uint64_t entry,
		 struct file_page page)
{
	struct file_page is;

	if (!ept_entry_present(entry) || ept_entry_is_table(ept, table->level, entry) ||
	    !ept_file_page_of(ept, ept_entry_target(ept->config.format, entry), &is))
		return false;
	return is.file == page.file &&
	       page.page - is.page < ept_entry_span(table->level) >> EPT_PAGE_SHIFT;
}

static void note_accessed(struct ept_sweep *sweep, uint64_t page, uint64_t count)
{
	for (uint64_t at = page; at < page + count; at++)
		if (at >= sweep->first && at < sweep->end)
			sweep->accessed[(at - sweep->first) / 64] |=
				UINT64_C(1) << (at - sweep->first) % 64;
}

/*
 * Edits the entries of @table, which is locked, that map pages of the pass, from @index on, which maps the
 * one that the pass is at. Returns whether there was anything to edit.
 */
static bool edit_table(struct ept_change *change, struct ept_table *table, unsigned index)
{
	struct ept_sweep *sweep = &change->sweep;
	uint64_t span = ept_entry_span(table->level) >> EPT_PAGE_SHIFT;
	struct file_page page = sweep->at;
	bool any = false;

	for (; index < EPT_ENTRIES && page.page < sweep->end; index++) {
		uint64_t entry = ept_entry_load(change->ept, table, index);

		if (!maps(change->ept, table, entry, page))
			break;
		if (wanted(change, table->level, entry) != entry) {
			ept_change_store(change, table, index,
					 wanted(change, table->level, entry));
			sweep->large = sweep->large || table->level > 1;
			any = true;
			if (sweep->kind == HARVEST)
				note_accessed(sweep, page.page & ~(span - 1), span);
		}
		page.page = (page.page & ~(span - 1)) + span;
	}
	return any;
}

/*
 * Looks at an entry that the reverse map named. True if its table is held now, with edits. A table that
 * is not published yet belongs to who makes it, one without users to who takes it down, and what the entry
 * maps may have gone to a copy since: @busy, then, and the reverse map is to be asked again.
 */
static bool visit(struct ept_change *change, struct rmap_entry at, bool *busy)
{
	struct ept_table *table = &change->ept->tables.tables[at.table];
	bool as_named;

	pthread_mutex_lock(&table->lock);
	as_named = atomic_load(&table->use_count) && table->published &&
		   maps(change->ept, table, ept_entry_load(change->ept, table, at.index),
			change->sweep.at);
	if (as_named && edit_table(change, table, at.index)) {
		ept_change_hold(change, table, false);
		return true;
	}
	*busy = *busy || !as_named;
	pthread_mutex_unlock(&table->lock);
	return false;
}

/*
 * Looks at the entries of @level that the reverse map names for the page that the pass is at, up to one whose
 * table is held then. There is room for one of each table: as a rule for all of them, and no memory is needed
 * for those that are left. They are in other places if anything has changed since: @busy, then.
 */
static bool visit_all(struct ept_change *change, unsigned level, bool *busy)
{
	struct file_page page = ept_rmap_page(change->sweep.at, level);
	struct ept_list *found = &change->found;
	uint64_t version = 0;
	size_t seen = 0;
	size_t all;

	do {
		uint64_t before = version;

		all = rmap_page_find_from(change->ept->rmap, page, seen, found->items,
					  found->capacity, &version);
		if (seen && version != before) {
			*busy = true;
			return false;
		}
		for (size_t at = 0; at < found->capacity && seen < all; at++, seen++)
			if (visit(change, found_entries(change)[at], busy))
				return true;
	} while (seen < all);
	return false;
}

/* Edits one table that maps the page; there are no edits when there is none left. */
static void edit_one(struct ept_change *change)
{
	bool busy;

	do {
		busy = false;
		for (unsigned level = 1; level <= EPT_LARGE_LEVEL; level++)
			if (visit_all(change, level, &busy))
				return;
		if (busy)
			sched_yield();
	} while (busy);
}

/* Pages of a file, from @page on and before @end. */
struct stretch {
	struct file_page page;
	uint64_t end;
};

/* All pages that share an entry of 2 MiB with those of the pass, and these. */
static struct stretch around(const struct ept *ept, const struct ept_sweep *sweep)
{
	uint64_t pages = ept_file_pages(ept, sweep->at.file);
	uint64_t end = (sweep->end + EPT_ENTRIES - 1) & ~(uint64_t)(EPT_ENTRIES - 1);

	return (struct stretch){
		.page = { sweep->at.file, sweep->first & ~(uint64_t)(EPT_ENTRIES - 1) },
		.end = end < pages ? end : pages,
	};
}

/* The place of a page that is not to be used any more after the pass. */
static struct fpa old_place(const struct ept_change *change, struct file_page page)
{
	if (change->sweep.kind == MOVE && page.page == change->sweep.first)
		return change->sweep.from;
	return ept_file_page_at(change->ept, page);
}

/*
 * Translations to all pages of the pass go, with one call for each contiguous stretch. Where an entry
 * of 2 MiB was edited, those to its other pages go too: nobody would think of them later, for there is
 * no entry that they come from.
 */
static void invalidate(struct ept_change *change)
{
	struct ept_invalidation *items = change->invalidations.items;
	const struct ept_sweep *sweep = &change->sweep;
	struct stretch pages = { { sweep->at.file, sweep->first }, sweep->end };

	if (sweep->large)
		pages = around(change->ept, sweep);
	for (; pages.page.page < pages.end; pages.page.page++) {
		size_t count = change->invalidations.count;
		struct fpa at = old_place(change, pages.page);

		if (count && items[count - 1].start.v + items[count - 1].bytes == at.v) {
			items[count - 1].bytes += EPT_PAGE_BYTES;
			continue;
		}
		assert(count < change->invalidations.capacity);
		items[change->invalidations.count++] = (struct ept_invalidation){
			.kind = EPT_INVALIDATE_PAGES,
			.start = at,
			.bytes = EPT_PAGE_BYTES,
		};
	}
}

void ept_sweep_step(struct ept_change *change)
{
	struct ept_sweep *sweep = &change->sweep;

	if (sweep->stage == COPY) {
		/* The page is where it is to be; from now on faults find it there. */
		ept_file_place_set(change->ept, sweep->at, sweep->to);
		sweep->stage = EDIT;
	}
	while (sweep->stage == EDIT && sweep->at.page < sweep->end) {
		edit_one(change);
		if (change->edits.count) {
			sweep->tables++;
			return;
		}
		sweep->at.page++;
	}
	if (sweep->stage == EDIT && sweep->tables) {
		invalidate(change);
		sweep->stage = INVALIDATE;
		return;
	}
	sweep->stage = 0;
}

/* Ends what the pass began to watch; what was watched before stays. */
static void unwatch_new(struct ept_change *change)
{
	const uint64_t *before = change->watched.items;
	struct ept_sweep *sweep = &change->sweep;

	for (uint64_t at = 0; at < sweep->end - sweep->first; at++)
		if (!(before[at / 64] >> at % 64 & 1))
			ept_file_watch_set(change->ept,
					   (struct file_page){ sweep->at.file, sweep->first + at },
					   false);
}

static void watch_all(struct ept_change *change)
{
	uint64_t *before = change->watched.items;
	struct ept_sweep *sweep = &change->sweep;

	change->watched.count = (sweep->end - sweep->first + 63) / 64;
	for (size_t word = 0; word < change->watched.count; word++)
		before[word] = 0;
	for (uint64_t at = 0; at < sweep->end - sweep->first; at++) {
		struct file_page page = { sweep->at.file, sweep->first + at };

		before[at / 64] |= (uint64_t)ept_file_watched(change->ept, page) << at % 64;
		ept_file_watch_set(change->ept, page, true);
	}
}

enum ept_status ept_sweep_end(struct ept_change *change, enum ept_status status)
{
	struct ept *ept = change->ept;
	struct ept_sweep *sweep = &change->sweep;

	if (status == EPT_OK && sweep->kind == MOVE && sweep->release)
		ept_file_place_release(ept, sweep->left);
	if (status != EPT_OK && sweep->kind == WATCH && change->watched.count)
		unwatch_new(change);
	sweep->kind = 0;
	change->watched.count = 0;
	pthread_mutex_unlock(&ept->files_lock);
	return status;
}

static bool range_valid(const struct ept *ept, struct file_page first, uint64_t count)
{
	uint64_t pages;

	if (first.file >= atomic_load(&ept->file_count) || ept->files[first.file].spare)
		return false;
	pages = ept_file_pages(ept, first.file);
	return count && first.page < pages && count <= pages - first.page;
}

/* In how many pieces the pages lie that invalidate() may name, at most. */
static size_t pieces(const struct ept *ept, const struct ept_sweep *sweep)
{
	struct stretch pages = around(ept, sweep);
	struct file_page to;
	size_t moved = 0;

	for (; pages.page.page < pages.end; pages.page.page++) {
		if (pages.page.page % EPT_ENTRIES == 0 && ept_file_is_plain(ept, pages.page))
			pages.page.page += EPT_ENTRIES - 1;
		else
			moved += ept_file_page_moved(ept, pages.page, &to);
	}
	return 2 * moved + 1;
}

/* Begins a pass over @count pages: takes the files' lock, and what it will need. */
static enum ept_status begin(struct ept *ept, struct file_page first, uint64_t count,
			     enum sweep_kind kind, struct ept_change *change)
{
	if (!range_valid(ept, first, count))
		return EPT_INVALID;
	pthread_mutex_lock(&ept->files_lock);
	ept_change_begin(change, ept, NULL);
	change->sweep = (struct ept_sweep){
		.kind = kind,
		.stage = EDIT,
		.at = first,
		.first = first.page,
		.end = first.page + count,
	};
	/* No later step needs more than this. */
	if (ept_change_reserve(change, EPT_ENTRIES) &&
	    ept_list_reserve(&change->found, ept->config.memory.table_count,
			     sizeof(struct rmap_entry)) &&
	    ept_list_reserve(&change->invalidations, pieces(ept, &change->sweep),
			     sizeof(struct ept_invalidation)))
		return EPT_OK;
	return ept_sweep_end(change, EPT_NO_MEMORY);
}

enum ept_status ept_file_reclaim(struct ept *ept, struct file_page first, uint64_t count,
				 struct ept_change *change)
{
	enum ept_status status = begin(ept, first, count, FORGET, change);

	if (status != EPT_OK)
		return status;
	ept_sweep_step(change);
	return EPT_OK;
}

enum ept_status ept_file_watch(struct ept *ept, struct file_page first, uint64_t count,
			       struct ept_change *change)
{
	enum ept_status status = begin(ept, first, count, WATCH, change);

	if (status != EPT_OK)
		return status;
	if (!ept_file_watch_prepare(ept, first, count) ||
	    !ept_list_reserve(&change->watched, (count + 63) / 64, sizeof(uint64_t)))
		return ept_sweep_end(change, EPT_NO_MEMORY);
	watch_all(change);
	ept_sweep_step(change);
	return EPT_OK;
}

enum ept_status ept_file_harvest(struct ept *ept, struct file_page first, uint64_t count,
				 uint64_t *accessed, struct ept_change *change)
{
	enum ept_status status;

	if (!ept->config.format->accessed_bit)
		return EPT_INVALID;
	status = begin(ept, first, count, HARVEST, change);
	if (status != EPT_OK)
		return status;
	change->sweep.accessed = accessed;
	ept_sweep_step(change);
	return EPT_OK;
}

/* Whether a page may be moved to @to, its own place or a free one of a spare file. */
static bool move_valid(const struct ept *ept, struct file_page page, struct file_page to)
{
	struct file_page is = page;

	if (to.file >= atomic_load(&ept->file_count) || ept->files[page.file].writable)
		return false;
	if (to.file == page.file && to.page == page.page)
		return ept_file_page_moved(ept, page, &is);
	return ept_file_place_free(ept, to);
}

enum ept_status ept_file_move(struct ept *ept, struct file_page page, struct file_page to,
			      struct ept_change *change)
{
	enum ept_status status = begin(ept, page, 1, MOVE, change);
	struct ept_sweep *sweep = &change->sweep;

	if (status != EPT_OK)
		return status;
	if (!move_valid(ept, page, to))
		status = EPT_INVALID;
	else if (!ept_file_place_prepare(ept, page, to))
		status = EPT_NO_MEMORY;
	if (status != EPT_OK)
		return ept_sweep_end(change, status);
	sweep->to = to;
	sweep->from = ept_file_page_at(ept, page);
	sweep->release = ept_file_page_moved(ept, page, &sweep->left);
	sweep->stage = COPY;
	change->copy = (struct ept_copy){
		.to = { ept->files[to.file].window.v + (to.page << EPT_PAGE_SHIFT) },
		.from = sweep->from,
	};
	/* At home it still is: nobody may write there. */
	change->has_copy = to.file != page.file;
	return EPT_OK;
}
