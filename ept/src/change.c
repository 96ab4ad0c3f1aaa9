// SPDX-License-Identifier: MIT
/*
 * Changes: what an operation prepares, and its two ends.
 *
 * While an operation is prepared, nothing that others can reach is changed: tables that it makes are
 * filled, entries of others' are only listed. Counts of what new entries refer to go up at once,
 * counts of what old entries refer to go down when the change is finished, after the edits and
 * invalidations were done; so nothing is freed that anybody can still reach (Linux a4a118f2eead).
 * An operation that cannot be completed drops what its new entries refer to instead, and leaves
 * everything as it was.
 */
#include "ept_internal.h"

const char *ept_status_text(enum ept_status status)
{
	static const char *const texts[] = {
		[EPT_OK] = "done",
		[EPT_MORE] = "there is another step",
		[EPT_NO_MEMORY] = "the VMM's memory ran out",
		[EPT_NO_TABLE] = "no table page is free",
		[EPT_NO_PAGE] = "no private page is free",
		[EPT_OUTSIDE] = "outside of all regions",
		[EPT_DENIED] = "the region does not grant this access",
		[EPT_OVERLAP] = "a region is in the way, or missing",
		[EPT_INVALID] = "not aligned, empty, or out of range",
		[EPT_FROZEN] = "the space is frozen",
		[EPT_NO_PARENT] = "not a clone of a frozen space",
		[EPT_WATCHED] = "the page is watched",
	};

	return texts[status];
}

void ept_change_begin(struct ept_change *change, struct ept *ept, struct ept_space *space)
{
	assert(!change->edits.count && !change->held_count && !change->fresh_count);
	change->ept = ept;
	change->space = space;
	change->progress = (struct ept_progress){ 0 };
	change->sweep = (struct ept_sweep){ 0 };
}

void ept_change_free(struct ept_change *change)
{
	ept_list_free(&change->edits);
	ept_list_free(&change->invalidations);
	ept_list_free(&change->found);
	ept_list_free(&change->watched);
	ept_list_free(&change->scrubbed_tables);
	ept_list_free(&change->scrubbed_pages);
}

void ept_change_hold(struct ept_change *change, struct ept_table *table, bool owned)
{
	assert(change->held_count < EPT_HELD);
	change->held[change->held_count++] = (struct ept_held){ .table = table, .owned = owned };
}

static struct ept_held *held_find(const struct ept_change *change, const struct ept_table *table)
{
	for (unsigned at = 0; at < change->held_count; at++)
		if (change->held[at].table == table)
			return (struct ept_held *)&change->held[at];
	return NULL;
}

bool ept_change_holds(const struct ept_change *change, const struct ept_table *table)
{
	return held_find(change, table);
}

void ept_change_sanitized(struct ept_change *change, const struct ept_table *table)
{
	held_find(change, table)->sanitized = true;
}

void ept_change_add_fresh(struct ept_change *change, struct ept_table *table, bool index)
{
	assert(change->fresh_count < EPT_ROOT_LEVEL);
	change->fresh[change->fresh_count++] = (struct ept_fresh){ table, index };
}

bool ept_change_is_fresh(const struct ept_change *change, const struct ept_table *table)
{
	for (unsigned at = 0; at < change->fresh_count; at++)
		if (change->fresh[at].table == table)
			return true;
	return false;
}

bool ept_change_reserve(struct ept_change *change, size_t count)
{
	return ept_list_reserve(&change->edits, count, sizeof(struct ept_edit));
}

static struct rmap_entry entry_of(const struct ept *ept, const struct ept_table *table,
				  unsigned index)
{
	return (struct rmap_entry){ ept_table_number(ept, table), (uint16_t)index };
}

static bool same_target(const struct ept *ept, uint64_t a, uint64_t b)
{
	return ept_entry_present(a) && ept_entry_present(b) &&
	       ept_entry_target(ept->config.format, a).v ==
		       ept_entry_target(ept->config.format, b).v;
}

/* The file's page that leaf @entry maps first; false if it maps none. */
static bool leaf_page(const struct ept *ept, uint64_t entry, struct file_page *page)
{
	return ept_file_page_of(ept, ept_entry_target(ept->config.format, entry), page);
}

/* Whether @entry maps @page, though perhaps in another place. */
static bool shows(const struct ept *ept, uint64_t entry, struct file_page page)
{
	struct file_page is;

	return ept_entry_present(entry) && leaf_page(ept, entry, &is) && is.file == page.file &&
	       is.page == page.page;
}

/* The reverse map follows entry @index of @table, whose lock is held, from @old to @value. */
static void rmap_follow(struct ept *ept, struct ept_table *table, unsigned index, uint64_t old,
			uint64_t value)
{
	struct rmap_entry at = entry_of(ept, table, index);
	struct file_page page;

	if (!ept_entry_present(old))
		return; /* What became present was added when it was prepared. */
	if (!ept_entry_is_table(ept, table->level, old)) {
		if (leaf_page(ept, old, &page) && !shows(ept, value, page))
			rmap_page_remove(ept->rmap, ept_rmap_page(page, table->level), at, 1);
	} else if (ept_entry_present(value)) {
		rmap_owner_move(ept->rmap, ept_table_number(ept, ept_entry_child(ept, value)), at);
	} else {
		rmap_owner_remove(ept->rmap, at);
	}
}

/* Drops the reference that an entry of a table of @level held. */
static void entry_drop(struct ept *ept, unsigned level, uint64_t entry)
{
	if (!ept_entry_present(entry))
		return;
	if (ept_entry_is_table(ept, level, entry))
		ept_table_put(ept, ept_entry_child(ept, entry));
	else if (ept_page_is_private(ept, ept_entry_target(ept->config.format, entry)))
		ept_page_put(ept, ept_entry_target(ept->config.format, entry));
}

/* Where the page is copied, the reverse map knows the entry for it until that is done. */
static void store_fresh(struct ept_change *change, struct ept_table *table, unsigned index,
			uint64_t value)
{
	struct ept *ept = change->ept;
	bool is_copied = change->copied_known && change->copied_by.table == ept_table_number(ept, table) &&
			 change->copied_by.index == index;
	uint64_t old = ept_entry_load(ept, table, index);

	atomic_store_explicit(&ept_table_entries(ept, table)[index], value, memory_order_relaxed);
	if (same_target(ept, old, value))
		return;
	if (!is_copied)
		rmap_follow(ept, table, index, old, value);
	entry_drop(ept, table->level, old);
}

void ept_change_store(struct ept_change *change, struct ept_table *table, unsigned index,
		      uint64_t value)
{
	struct ept *ept = change->ept;
	struct ept_edit *edits = change->edits.items;
	uint64_t old = ept_entry_load(ept, table, index);

	if (ept_change_is_fresh(change, table)) {
		store_fresh(change, table, index, value);
		return;
	}
	assert(change->edits.count < change->edits.capacity);
	edits[change->edits.count++] = (struct ept_edit){
		.entry = { ept_table_at(ept, table).v + index * sizeof(value) },
		.value = value,
		.old = old,
		.by = ept_entry_present(old) ? EPT_EDIT_GATE : EPT_EDIT_PLAIN,
		.level = table->level,
	};
}

void ept_change_move(struct ept_change *change, struct ept_table *table, unsigned index,
		     struct ept_table *to, unsigned to_index)
{
	struct ept_edit *edits = change->edits.items;
	uint64_t entry = ept_entry_load(change->ept, table, index);

	/* A table that was shared may still grant too much. The right comes back with a fault, after a look. */
	ept_change_store(change, to, to_index,
			 ept_entry_with_write(change->ept->config.format, entry, false));
	ept_change_store(change, table, index, 0);
	edits[change->edits.count - 1].moved = true;
	edits[change->edits.count - 2].moved = true;
}

enum ept_status ept_change_link(struct ept_change *change, struct ept_table *table, unsigned index,
				struct ept_table *child, unsigned rights)
{
	struct ept *ept = change->ept;
	uint64_t value = ept_entry_table(ept->config.format, ept_table_at(ept, child), rights);
	bool known = ept_entry_is_table(ept, table->level, ept_entry_load(ept, table, index));

	if (!ept_change_reserve(change, 1) ||
	    (!known && !rmap_owner_add(ept->rmap, ept_table_number(ept, child),
					 entry_of(ept, table, index)))) {
		ept_table_put(ept, child);
		return EPT_NO_MEMORY;
	}
	ept_change_store(change, table, index, value);
	return EPT_OK;
}

void ept_change_set_root(struct ept_change *change, struct ept_table *root)
{
	assert(!change->old_root);
	change->old_root = change->space->root;
	change->space->root = root;
	change->root_changed = true;
}

enum ept_status ept_change_invalidate_space(struct ept_change *change)
{
	struct ept_invalidation *items;

	if (!ept_list_reserve(&change->invalidations, 1, sizeof(*items)))
		return EPT_NO_MEMORY;
	items = change->invalidations.items;
	items[change->invalidations.count++] = (struct ept_invalidation){
		.kind = EPT_INVALIDATE_SPACE,
		.space = change->space,
	};
	return EPT_OK;
}

static struct ept_table *edit_table(const struct ept *ept, const struct ept_edit *edit)
{
	return ept_table_of(ept, edit->entry);
}

static unsigned edit_index(const struct ept_edit *edit)
{
	return (unsigned)(edit->entry.v % EPT_PAGE_BYTES / sizeof(uint64_t));
}

/* The reverse map follows all edits, before the tables that they are in are unlocked. */
static void follow_edits(struct ept_change *change)
{
	const struct ept_edit *edits = ept_change_edits(change);
	struct ept *ept = change->ept;

	for (size_t at = 0; at < change->edits.count; at++)
		if (!same_target(ept, edits[at].old, edits[at].value))
			rmap_follow(ept, edit_table(ept, &edits[at]), edit_index(&edits[at]),
				    edits[at].old, edits[at].value);
}

static void publish_fresh(struct ept_change *change)
{
	for (unsigned at = 0; at < change->fresh_count; at++) {
		struct ept_table *table = change->fresh[at].table;

		pthread_mutex_lock(&table->lock);
		table->published = true;
		pthread_mutex_unlock(&table->lock);
	}
}

/* Tables that only this space uses and that it changed no longer show what the index says. */
static void settle_held(struct ept_change *change)
{
	for (unsigned at = 0; at < change->held_count; at++) {
		struct ept_held *held = &change->held[at];

		if (!held->owned)
			continue;
		ept_index_remove(change->ept, held->table);
		held->table->clean = false;
		/* It may show private memory from now on, which only its owner may write. */
		held->table->shared_writable = false;
		if (held->sanitized)
			atomic_store(&held->table->tainted, false);
	}
}

static void release(struct ept_change *change)
{
	while (change->held_count)
		pthread_mutex_unlock(&change->held[--change->held_count].table->lock);
}

void ept_change_settle(struct ept_change *change)
{
	settle_held(change);
	release(change);
}

static void drop_old(struct ept_change *change)
{
	const struct ept_edit *edits = ept_change_edits(change);
	struct ept *ept = change->ept;

	for (size_t at = 0; at < change->edits.count; at++)
		if (!edits[at].moved && !same_target(ept, edits[at].old, edits[at].value))
			entry_drop(ept, edits[at].level, edits[at].old);
}

/* The page was copied, or is not going to be. Its table is still the change's. */
static void forget_copied(struct ept_change *change)
{
	if (change->copied_known)
		rmap_page_remove(change->ept->rmap, change->copied, change->copied_by, 1);
	change->copied_known = false;
}

static void clear(struct ept_change *change)
{
	change->edits.count = 0;
	change->invalidations.count = 0;
	change->has_copy = false;
	change->root_changed = false;
	change->old_root = NULL;
	change->fresh_count = 0;
}

static void end(struct ept_change *change)
{
	clear(change);
	if (change->space)
		pthread_mutex_unlock(&change->space->lock);
	change->space = NULL;
}

static enum ept_status finish_sweep(struct ept_change *change)
{
	enum ept_status status = ept_sweep_step(change);

	if (status == EPT_OK && change->sweep.stage)
		return EPT_MORE;
	if (status == EPT_OK)
		status = change->sweep.failed;
	return ept_sweep_end(change, status);
}

enum ept_status ept_change_finish(struct ept_change *change)
{
	enum ept_status status = EPT_OK;

	if (!change->space && !change->sweep.kind) {
		ept_scrub_finish(change);
		clear(change);
		return EPT_OK;
	}
	forget_copied(change);
	follow_edits(change);
	publish_fresh(change);
	ept_change_settle(change);
	/* A pass edits leaves of files only, and its table may have another life by now. */
	if (!change->sweep.kind)
		drop_old(change);
	if (change->old_root)
		ept_table_put(change->ept, change->old_root);
	clear(change);
	if (change->sweep.kind)
		return finish_sweep(change);
	if (change->progress.stage) {
		status = ept_map_step(change);
		if (status == EPT_OK && change->progress.stage)
			return EPT_MORE;
	}
	if (status == EPT_OK)
		end(change);
	return status;
}

/* What the reverse map was told of an entry that is not going to be stored; its table is locked. */
static void undo_rmap(struct ept *ept, const struct ept_edit *edit)
{
	struct ept_table *table = edit_table(ept, edit);
	struct fpa target = ept_entry_target(ept->config.format, edit->value);
	struct rmap_entry at = entry_of(ept, table, edit_index(edit));
	struct file_page page;

	if (ept_entry_is_table(ept, table->level, edit->value)) {
		if (!ept_entry_is_table(ept, table->level, edit->old))
			rmap_owner_remove(ept->rmap, at);
	} else if (!ept_page_is_private(ept, target) && ept_file_page_of(ept, target, &page)) {
		rmap_page_remove(ept->rmap, ept_rmap_page(page, table->level), at, 1);
	}
}

/* Drops what such an entry refers to, which may be a table that the change held until now. */
static void undo_reference(struct ept *ept, const struct ept_edit *edit)
{
	struct fpa target = ept_entry_target(ept->config.format, edit->value);

	if (ept_entry_is_table(ept, edit->level, edit->value))
		ept_table_put(ept, ept_table_of(ept, target));
	else if (ept_page_is_private(ept, target))
		ept_page_give_back(ept, target);
}

static void undo_all(struct ept_change *change,
		     void (*undo)(struct ept *ept, const struct ept_edit *edit))
{
	const struct ept_edit *edits = ept_change_edits(change);

	for (size_t at = change->edits.count; at-- > 0;)
		if (ept_entry_present(edits[at].value) &&
		    !same_target(change->ept, edits[at].old, edits[at].value))
			undo(change->ept, &edits[at]);
}

enum ept_status ept_change_abort(struct ept_change *change, enum ept_status status)
{
	forget_copied(change);
	undo_all(change, undo_rmap);
	release(change);
	undo_all(change, undo_reference);
	if (change->old_root) {
		ept_table_put(change->ept, change->space->root);
		change->space->root = change->old_root;
	}
	end(change);
	return status;
}

void ept_change_cancel(struct ept_change *change)
{
	ept_change_abort(change, EPT_OK);
	if (change->sweep.kind)
		ept_sweep_end(change, EPT_INVALID);
}
