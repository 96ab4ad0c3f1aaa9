// SPDX-License-Identifier: MIT
/*
 * Leaf entries: what a region shows, by entries of 4 KiB, or of 2 MiB where the region asks for them
 * and alignment allows; and breaking an entry of 2 MiB into a table of 4 KiB ones that map the same
 * (F25, F26).
 */
#include "ept_internal.h"

struct gpa ept_span_start(struct gpa gpa, unsigned level)
{
	return (struct gpa){ gpa.v & ~(ept_table_span(level) - 1) };
}

static struct gpa entry_gpa(const struct ept_table *table, struct gpa gpa, unsigned index)
{
	struct gpa start = ept_span_start(gpa, table->level);

	return (struct gpa){ start.v + index * ept_entry_span(table->level) };
}

/* Whether entries of @level can map what @region shows, as far as alignment goes. */
static bool aligned_for(const struct ept_region *region, unsigned level)
{
	uint64_t phase = region->first.page - (region->start.v >> EPT_PAGE_SHIFT);

	return level == 1 ||
	       (level == EPT_LARGE_LEVEL && region->large && phase % EPT_ENTRIES == 0);
}

bool ept_region_has_leaf(const struct ept *ept, const struct ept_region *region, struct gpa gpa,
			 unsigned level)
{
	uint64_t span = ept_entry_span(level);
	uint64_t start = gpa.v & ~(span - 1);

	return aligned_for(region, level) && region->start.v <= start &&
	       start + span <= ept_region_end(region).v &&
	       (level == 1 || ept_file_is_plain(ept, ept_region_page(region, gpa)));
}

/*
 * The leaf entry of @level for the memory file at @gpa: writable only if writes go to the file (S9).
 */
static uint64_t file_leaf(const struct ept *ept, const struct ept_region *region, struct gpa gpa,
			  unsigned level)
{
	struct file_page page = ept_region_page(region, gpa);
	struct fpa at = ept_file_page_at(ept, page);
	unsigned rights = region->rights;

	if (!ept_region_writes_through(region) || ept_file_watched(ept, page))
		rights &= ~(unsigned)EPT_WRITE;
	if (level == EPT_LARGE_LEVEL)
		return ept_entry_large_leaf(ept->config.format, at, rights);
	return ept_entry_leaf(ept->config.format, at, rights);
}

/*
 * Whether a page of the 2 MiB was moved or is watched by now: no entry of 2 MiB can show that. Who does
 * this looks for entries afterwards, so it is asked when the reverse map knows of the entry.
 */
static bool became_special(struct ept_change *change, struct ept_table *table, unsigned index,
			   struct file_page page)
{
	struct rmap_entry at = { ept_table_number(change->ept, table), (uint16_t)index };

	if (table->level == 1 || ept_file_is_plain(change->ept, page))
		return false;
	rmap_page_remove(change->ept->rmap, ept_rmap_page(page, table->level), at, 1);
	return true;
}

/*
 * The same for a fresh PT where nothing is special about the pages, from @page on: each entry is that
 * before it, one page further. As became_special(), it asks when the reverse map knows of the entries.
 */
static bool fill_plain(struct ept_change *change, struct ept_table *table,
		       const struct ept_region *region, struct file_page page, unsigned first,
		       unsigned count)
{
	struct ept *ept = change->ept;
	struct file_page last = { page.file, page.page + count - 1 };
	_Atomic uint64_t *entries = ept_table_entries(ept, table);
	unsigned rights = region->rights;
	uint64_t entry, step;

	if (table->level != 1 || !ept_change_is_fresh(change, table) ||
	    !ept_file_is_plain(ept, page) || !ept_file_is_plain(ept, last))
		return false;
	if (!ept_region_writes_through(region))
		rights &= ~(unsigned)EPT_WRITE;
	entry = ept_entry_leaf(ept->config.format, ept_file_page_at(ept, page), rights);
	step = ept_address_encode(ept->config.format, (struct fpa){ EPT_PAGE_BYTES });
	for (unsigned index = first; index < first + count; index++, entry += step)
		atomic_store_explicit(&entries[index], entry, memory_order_relaxed);
	return true;
}

/* Fills the absent entries [first, first + count) of @table. */
static enum ept_status fill_run(struct ept_change *change, struct ept_table *table,
				const struct ept_region *region, struct gpa gpa, unsigned first,
				unsigned count)
{
	struct ept *ept = change->ept;
	struct rmap_entry at = { ept_table_number(ept, table), (uint16_t)first };
	struct file_page page = ept_region_page(region, entry_gpa(table, gpa, first));

	if ((!ept_change_is_fresh(change, table) && !ept_change_reserve(change, count)) ||
	    !rmap_page_add(ept->rmap, ept_rmap_page(page, table->level), at, count))
		return EPT_NO_MEMORY;
	if (fill_plain(change, table, region, page, first, count))
		return EPT_OK;
	for (unsigned index = first; index < first + count; index++) {
		struct gpa here = entry_gpa(table, gpa, index);

		if (!became_special(change, table, index, ept_region_page(region, here)))
			ept_change_store(change, table, index,
					 file_leaf(ept, region, here, table->level));
	}
	return EPT_OK;
}

static uint64_t max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static bool fillable(const struct ept *ept, const struct ept_table *table,
		     const struct ept_region *region, struct gpa gpa, unsigned index)
{
	return !ept_entry_present(ept_entry_load(ept, table, index)) &&
	       (table->level == 1 ||
		ept_region_has_leaf(ept, region, entry_gpa(table, gpa, index), table->level));
}

enum ept_status ept_fill_leaves(struct ept_change *change, struct ept_table *table,
				const struct ept_region *region, struct gpa gpa)
{
	uint64_t span = ept_entry_span(table->level);
	struct gpa start = ept_span_start(gpa, table->level);
	uint64_t low = max(start.v, (region->start.v + span - 1) & ~(span - 1));
	uint64_t high = min(start.v + ept_table_span(table->level),
			    ept_region_end(region).v & ~(span - 1));
	unsigned index, end;

	if (!aligned_for(region, table->level) || low >= high)
		return EPT_OK;
	index = (unsigned)((low - start.v) / span);
	end = (unsigned)((high - start.v) / span);
	while (index < end) {
		unsigned first = index;
		enum ept_status status;

		while (index < end && fillable(change->ept, table, region, gpa, index))
			index++;
		if (index == first) {
			index++;
			continue;
		}
		status = fill_run(change, table, region, gpa, first, index - first);
		if (status != EPT_OK)
			return status;
	}
	return EPT_OK;
}

enum ept_status ept_break_leaf(struct ept_change *change, struct ept_table *table, struct gpa gpa,
			       struct ept_table **child)
{
	const struct ept_region *region = ept_region_find(change->space, gpa);
	struct ept *ept = change->ept;
	enum ept_status status;

	*child = ept_table_take(ept, table->level - 1u);
	if (!*child)
		return EPT_NO_TABLE;
	ept_change_add_fresh(change, *child, false);
	status = ept_fill_leaves(change, *child, region, gpa);
	if (status == EPT_OK)
		status = ept_change_invalidate_space(change);
	if (status != EPT_OK) {
		ept_table_put(ept, *child);
		return status;
	}
	ept_event(ept, EPT_EVENT_BREAK, *child, change->space);
	return ept_change_link(change, table, ept_entry_index(gpa, table->level), *child,
			       region->rights);
}
