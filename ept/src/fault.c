// SPDX-License-Identifier: MIT
/*
 * Faults. A read fault fills in what is missing and never unshares (F7): it finds a table that
 * others have in the share index (F13), or makes one and fills it with all that its region shows, so
 * that neither this guest nor those that share the table fault there again (F21). A write fault
 * goes down its path, makes each table on it the space's own, and gives it a copy of the page.
 */
#include "ept_internal.h"

/*
 * Whether a table of @level around @gpa may be shared through the index (F14): one region covers all
 * that it translates, and sharing is on. Else it is the space's own ("better safe than sorry", F17).
 */
static bool eligible(const struct ept_space *space, const struct ept_region *region,
		     struct gpa gpa, unsigned level)
{
	struct gpa start = ept_span_start(gpa, level);

	return ept_space_shares(space) && (space->ept->config.share_levels >> level & 1) &&
	       region->start.v <= start.v &&
	       start.v + ept_table_span(level) <= ept_region_end(region).v;
}

static struct ept_key key_of(const struct ept_space *space, const struct ept_region *region,
			     struct gpa gpa, unsigned level)
{
	return (struct ept_key){
		.domain = space->options.domain,
		.first = ept_region_page(region, ept_span_start(gpa, level)),
		.level = (uint8_t)level,
		.rights = (uint8_t)region->rights,
		.mode = (uint8_t)region->mode,
		.large = region->large,
	};
}

/* A new table for the absent entry @index of @parent, filled with the leaf entries that it can have. */
static enum ept_status make_child(struct ept_change *change, struct ept_table *parent,
				  unsigned index, const struct ept_region *region, struct gpa gpa,
				  unsigned rights, struct ept_table **out)
{
	struct ept *ept = change->ept;
	unsigned level = parent->level - 1u;
	bool index_it = eligible(change->space, region, gpa, level) &&
			(!(rights & EPT_WRITE) || ept_region_writes_through(region));
	struct ept_table *child = ept_table_take(ept, level);
	enum ept_status status;

	if (!child)
		return EPT_NO_TABLE;
	pthread_mutex_lock(&child->lock);
	child->clean = !(rights & EPT_WRITE) || index_it;
	child->shared_writable = index_it && ept_region_writes_through(region);
	child->key = key_of(change->space, region, gpa, level);
	pthread_mutex_unlock(&child->lock);
	ept_change_add_fresh(change, child, index_it);
	status = ept_fill_leaves(change, child, region, gpa);
	if (status != EPT_OK) {
		ept_table_put(ept, child);
		return status;
	}
	ept_event(ept, EPT_EVENT_FILL, child, change->space);
	*out = child;
	if (child->shared_writable)
		rights |= EPT_WRITE;
	return ept_change_link(change, parent, index, child, rights);
}

/* A table for the absent entry @index of @parent: one that others have, or a new one. */
static enum ept_status add_child(struct ept_change *change, struct ept_table *parent,
				 unsigned index, const struct ept_region *region, struct gpa gpa,
				 unsigned rights, struct ept_table **out)
{
	unsigned level = parent->level - 1u;
	bool writes_through = ept_region_writes_through(region);
	struct ept_key key;

	if (!eligible(change->space, region, gpa, level) ||
	    ((rights & EPT_WRITE) && !writes_through))
		return make_child(change, parent, index, region, gpa, rights, out);
	key = key_of(change->space, region, gpa, level);
	*out = ept_index_get(change->ept, &key);
	if (*out && !ept_share_event(change->ept)) {
		ept_table_put(change->ept, *out);
		*out = NULL;
	}
	if (!*out)
		return make_child(change, parent, index, region, gpa, rights, out);
	ept_event(change->ept, EPT_EVENT_SHARE, *out, change->space);
	return ept_change_link(change, parent, index, *out, writes_through ? EPT_WRITE : 0);
}

/*
 * Keeps @table locked from here on, where entries of it are to be filled in. A root of the space's
 * own is guarded by its space, a fresh table by nobody's knowing of it.
 */
static void hold_for_fill(struct ept_change *change, struct ept_table *table)
{
	if (ept_change_is_fresh(change, table) || ept_change_holds(change, table) ||
	    (table->level == EPT_ROOT_LEVEL && !ept_table_is_shared(table)))
		return;
	pthread_mutex_lock(&table->lock);
	ept_change_hold(change, table, false);
}

/* Entry @index of @table; when it is absent the table is held, and it stays absent. */
static uint64_t entry_or_hold(struct ept_change *change, struct ept_table *table, unsigned index)
{
	uint64_t entry = ept_entry_load(change->ept, table, index);

	if (ept_entry_present(entry))
		return entry;
	hold_for_fill(change, table);
	return ept_entry_load(change->ept, table, index);
}

/*
 * Reads and fetches. Tables on the path are looked at without their locks: the space's own reference
 * keeps each of them, and a present entry of a table changes only while this space's lock, or its
 * being the table's only user, is given up.
 */
static enum ept_status fault_read(struct ept_change *change, const struct ept_region *region,
				  struct gpa gpa)
{
	struct ept_table *table = change->space->root;
	enum ept_status status = EPT_OK;

	while (status == EPT_OK) {
		unsigned index = ept_entry_index(gpa, table->level);
		uint64_t entry = entry_or_hold(change, table, index);

		if (ept_entry_is_table(change->ept, table->level, entry))
			table = ept_entry_child(change->ept, entry);
		else if (ept_entry_present(entry))
			return EPT_OK;
		else if (ept_region_has_leaf(change->ept, region, gpa, table->level))
			return ept_fill_leaves(change, table, region, gpa);
		else
			status = add_child(change, table, index, region, gpa, 0, &table);
	}
	return status;
}

/* One level down on a write's path: the next table is the space's own, or all may write to it. */
static enum ept_status descend_for_write(struct ept_change *change, struct ept_table **table,
					 const struct ept_region *region, struct gpa gpa)
{
	const struct ept_format *format = change->ept->config.format;
	unsigned index = ept_entry_index(gpa, (*table)->level);
	uint64_t entry = entry_or_hold(change, *table, index);
	struct ept_table *child;

	if (!ept_entry_present(entry))
		return add_child(change, *table, index, region, gpa, EPT_WRITE, table);
	if (ept_entry_is_leaf(format, (*table)->level, entry))
		return ept_break_leaf(change, *table, gpa, table);
	child = ept_entry_child(change->ept, entry);
	if (!child->shared_writable || !ept_region_writes_through(region))
		return ept_own_child(change, *table, index, EPT_WRITE, table);
	if (!ept_entry_writable(format, entry)) {
		if (!ept_change_reserve(change, 1))
			return EPT_NO_MEMORY;
		ept_change_store(change, *table, index, ept_entry_with_write(format, entry, true));
	}
	*table = child;
	return EPT_OK;
}

/*
 * A page that is copied without being mapped, or no longer by a table that nobody else sees: whoever moves
 * it or takes it away must find out, and wait for the table.
 */
static bool know_copied(struct ept_change *change, const struct ept_table *table,
			const struct ept_region *region, struct gpa gpa)
{
	change->copied = ept_region_page(region, gpa);
	change->copied_by = (struct rmap_entry){ ept_table_number(change->ept, table),
						 (uint16_t)ept_entry_index(gpa, 1) };
	change->copied_known =
		rmap_page_add(change->ept->rmap, change->copied, change->copied_by, 1);
	return change->copied_known;
}

/* Gives the space its own copy of the page that leaf @entry maps, or that its region shows. */
static enum ept_status copy_page(struct ept_change *change, struct ept_table *table,
				 const struct ept_region *region, struct gpa gpa, uint64_t entry)
{
	struct ept *ept = change->ept;
	struct fpa page;
	bool to_be_known = !ept_entry_present(entry) ||
			   (ept_change_is_fresh(change, table) &&
			    !ept_page_is_private(ept, ept_entry_target(ept->config.format, entry)));

	if (to_be_known && !know_copied(change, table, region, gpa))
		return EPT_NO_MEMORY;
	change->copy.from = ept_entry_present(entry) ?
				    ept_entry_target(ept->config.format, entry) :
				    ept_file_page_at(ept, ept_region_page(region, gpa));
	if (ept_entry_present(entry) && !ept_change_is_fresh(change, table) &&
	    ept_change_invalidate_space(change) != EPT_OK)
		return EPT_NO_MEMORY;
	if (!ept_change_reserve(change, 1))
		return EPT_NO_MEMORY;
	if (!ept_page_take(ept, &page))
		return EPT_NO_PAGE;
	change->copy.to = page;
	change->has_copy = true;
	ept_change_store(change, table, ept_entry_index(gpa, 1),
			 ept_entry_leaf(ept->config.format, page, region->rights));
	ept_count(&ept->stat.pages_copied);
	return EPT_OK;
}

static enum ept_status write_private_leaf(struct ept_change *change, struct ept_table *table,
					  const struct ept_region *region, struct gpa gpa)
{
	struct ept *ept = change->ept;
	unsigned index = ept_entry_index(gpa, 1);
	uint64_t entry = ept_entry_load(ept, table, index);
	struct fpa target = ept_entry_target(ept->config.format, entry);

	if (!ept_entry_present(entry) || !ept_page_is_private(ept, target) ||
	    ept_page_is_shared(ept, target))
		return copy_page(change, table, region, gpa, entry);
	if (ept_entry_writable(ept->config.format, entry))
		return EPT_OK;
	if (!ept_change_reserve(change, 1))
		return EPT_NO_MEMORY;
	ept_change_store(change, table, index,
			 ept_entry_with_write(ept->config.format, entry, true));
	return EPT_OK;
}

/* A region's writes go to the file: the entry is there and grants it, unless the page was watched. */
static enum ept_status write_shared_leaf(struct ept_change *change, struct ept_table *table,
					 const struct ept_region *region, struct gpa gpa)
{
	const struct ept_format *format = change->ept->config.format;
	unsigned index = ept_entry_index(gpa, table->level);
	uint64_t entry = entry_or_hold(change, table, index);

	if (!ept_entry_present(entry))
		return ept_fill_leaves(change, table, region, gpa);
	if (ept_entry_writable(format, entry))
		return EPT_OK;
	hold_for_fill(change, table);
	entry = ept_entry_load(change->ept, table, index);
	if (!ept_change_reserve(change, 1))
		return EPT_NO_MEMORY;
	if (ept_file_watched(change->ept, ept_region_page(region, gpa)))
		return EPT_WATCHED;
	if (ept_entry_present(entry))
		ept_change_store(change, table, index, ept_entry_with_write(format, entry, true));
	return EPT_OK;
}

/*
 * Whether a write's path ends at @table: at a PT, or where a region whose writes go to the file has an
 * entry of 2 MiB, or is to have one.
 */
static bool write_ends_at(struct ept_change *change, struct ept_table *table,
			  const struct ept_region *region, struct gpa gpa)
{
	uint64_t entry;

	if (table->level == 1)
		return true;
	if (region->mode != EPT_SHARED || table->level != EPT_LARGE_LEVEL)
		return false;
	entry = entry_or_hold(change, table, ept_entry_index(gpa, table->level));
	return ept_entry_present(entry) ?
		       ept_entry_is_leaf(change->ept->config.format, table->level, entry) :
		       ept_region_has_leaf(change->ept, region, gpa, table->level);
}

static enum ept_status fault_write(struct ept_change *change, const struct ept_region *region,
				   struct gpa gpa)
{
	enum ept_status status = ept_own_root(change);
	struct ept_table *table = change->space->root;

	if (status != EPT_OK)
		return status;
	while (!write_ends_at(change, table, region, gpa)) {
		status = descend_for_write(change, &table, region, gpa);
		if (status != EPT_OK)
			return status;
	}
	return region->mode == EPT_PRIVATE ? write_private_leaf(change, table, region, gpa) :
					     write_shared_leaf(change, table, region, gpa);
}

/* Tables become known to others last, when nothing can fail any more. */
static void index_fresh(struct ept_change *change)
{
	for (unsigned at = 0; at < change->fresh_count; at++)
		if (change->fresh[at].index)
			ept_index_add(change->ept, change->fresh[at].table);
}

enum ept_status ept_space_fault(struct ept_space *space, struct gpa gpa, unsigned access,
				struct ept_change *change)
{
	const struct ept_region *region;
	enum ept_status status;

	pthread_mutex_lock(&space->lock);
	ept_change_begin(change, space->ept, space);
	region = ept_region_find(space, gpa);
	if (!region)
		return ept_change_abort(change, EPT_OUTSIDE);
	if ((region->rights & access) != access)
		return ept_change_abort(change, EPT_DENIED);
	if ((access & EPT_WRITE) && space->frozen)
		return ept_change_abort(change, EPT_FROZEN);
	if ((access & EPT_WRITE) && ept_region_writes_through(region) &&
	    ept_file_watched(space->ept, ept_region_page(region, gpa)))
		return ept_change_abort(change, EPT_WATCHED);
	status = access & EPT_WRITE ? fault_write(change, region, gpa) :
				      fault_read(change, region, gpa);
	if (status != EPT_OK)
		return ept_change_abort(change, status);
	index_fresh(change);
	ept_count(&space->faults);
	ept_count(&space->ept->stat.faults);
	if (ept_change_is_empty(change))
		ept_count(&space->ept->stat.spurious);
	return EPT_OK;
}
