// SPDX-License-Identifier: MIT
/*
 * The checker. One walk of every space finds what each path grants; the first visit to each table
 * counts what its entries refer to; a last pass compares the counts with those that are kept.
 */
#include "ept/check.h"
#include "ept_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct check {
	struct ept *ept;
	ept_check_report report;
	void *context;
	size_t violations;
	uint32_t *table_refs; /* entries found, by table */
	uint32_t *page_refs;  /* leaf entries found, by private page */
	bool *visited;	      /* by table */
};

/* Where the walk is: a path from a root. */
struct place {
	struct ept_table *table;
	unsigned index;
	struct gpa gpa; /* of the table's first entry */
	bool writable;	/* all entries above grant write */
	bool shared;	/* a table on the path is used by others, who may not all write */
	bool others;	/* a table on the path is used by others */
};

__attribute__((format(printf, 2, 3))) static void violation(struct check *check,
							    const char *format, ...)
{
	char text[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	check->violations++;
	if (check->report)
		check->report(check->context, text);
}

static uint32_t number_of(const struct check *check, const struct ept_table *table)
{
	return ept_table_number(check->ept, table);
}

static uint64_t leaf_gpa(const struct place *place)
{
	return place->gpa.v + place->index * ept_entry_span(place->table->level);
}

/* S9 and S5 for a leaf that maps a memory file's page. It may not grant write on any path. */
static void check_file_leaf(struct check *check, const struct place *place,
			    const struct ept_region *region, struct file_page page, bool writable)
{
	struct gpa gpa = { leaf_gpa(place) };
	struct file_page expected = ept_region_page(region, gpa);

	if (!ept_region_has_leaf(check->ept, region, gpa, place->table->level))
		violation(check, "S5: gpa %#lx is mapped by an entry that reaches beyond its region, or should not be large",
			  gpa.v);

	if (page.file != expected.file || page.page != expected.page)
		violation(check, "S5: gpa %#lx maps page %lu of file %u, its region shows page %lu of file %u",
			  gpa.v, page.page, page.file, expected.page, expected.file);
	if (writable && ept_file_watched(check->ept, page))
		violation(check, "F29: gpa %#lx may write to page %lu of file %u, which is watched",
			  gpa.v, page.page, page.file);
	if (writable && !ept_region_writes_through(region))
		violation(check, "S9: gpa %#lx may write to page %lu of file %u", gpa.v, page.page,
			  page.file);
}

/* S2 for a leaf that maps a private page. */
static void check_private_leaf(struct check *check, const struct place *place,
			       const struct ept_region *region, uint32_t page, bool writable)
{
	uint64_t gpa = leaf_gpa(place);

	if (place->table->level != 1)
		violation(check, "S5: gpa %#lx maps private page %u by an entry of 2 MiB", gpa, page);
	if (region->mode != EPT_PRIVATE)
		violation(check, "S5: gpa %#lx maps private page %u in a shared region", gpa, page);
	if (writable && (place->others || check->ept->pages.counts[page] > 1))
		violation(check, "S2: gpa %#lx may write to private page %u, which others map", gpa,
			  page);
}

/* A leaf entry, seen from one space. */
static void check_leaf(struct check *check, const struct ept_space *space,
		       const struct place *place, uint64_t entry)
{
	struct ept *ept = check->ept;
	struct gpa gpa = { leaf_gpa(place) };
	struct fpa target = ept_entry_target(ept->config.format, entry);
	const struct ept_region *region = ept_region_find(space, gpa);
	unsigned rights = ept_entry_rights(ept->config.format, entry);
	bool writable = place->writable && (rights & EPT_WRITE);
	struct file_page page;

	if (!region) {
		violation(check, "S5: gpa %#lx is mapped outside of all regions", gpa.v);
		return;
	}
	if ((rights & EPT_EXEC) != (region->rights & EPT_EXEC) ||
	    (writable && !(region->rights & EPT_WRITE)))
		violation(check, "S5: gpa %#lx grants rights %u, its region %u", gpa.v, rights,
			  region->rights);
	if (ept_page_is_private(ept, target))
		check_private_leaf(check, place, region, ept_page_number(ept, target), writable);
	else if (ept_file_page_of(ept, target, &page))
		check_file_leaf(check, place, region, page, rights & EPT_WRITE);
}

/* S3, S4 and S7 for a leaf entry, once for each table. */
static void count_leaf(struct check *check, struct ept_table *table, unsigned index,
		       uint64_t entry)
{
	struct ept *ept = check->ept;
	struct fpa target = ept_entry_target(ept->config.format, entry);
	struct rmap_entry at = { number_of(check, table), (uint16_t)index };
	struct file_page page;

	if (ept_page_is_private(ept, target)) {
		uint32_t number = ept_page_number(ept, target);

		check->page_refs[number]++;
		if (!atomic_load(&ept->pages.counts[number]))
			violation(check, "S4: entry %u of table %u maps private page %u, which is free",
				  index, at.table, number);
		return;
	}
	if (!ept_file_page_of(ept, target, &page))
		violation(check, "S4: entry %u of table %u maps %#lx, which is no page", index,
			  at.table, target.v);
	else if (!rmap_page_holds(ept->rmap, ept_rmap_page(page, table->level), at))
		violation(check, "S7: entry %u of table %u maps page %lu of file %u, the reverse map does not know",
			  index, at.table, page.page, page.file);
}

/* S8: what a table in the index shows must be what its key says. */
static void check_key(struct check *check, struct ept_table *table, unsigned index, uint64_t entry)
{
	struct ept *ept = check->ept;
	struct fpa target = ept_entry_target(ept->config.format, entry);
	struct file_page page;

	if (!ept_file_page_of(ept, target, &page) || page.file != table->key.first.file ||
	    page.page != table->key.first.page +
				 index * (ept_entry_span(table->level) >> EPT_PAGE_SHIFT) ||
	    (ept_entry_writable(ept->config.format, entry) && !table->shared_writable))
		violation(check, "S8: entry %u of table %u is not what the share index says", index,
			  number_of(check, table));
}

/* The table that an entry of @place's table points at, or NULL if it may not be followed. */
static struct ept_table *checked_child(struct check *check, const struct place *place,
				       uint64_t entry)
{
	struct ept *ept = check->ept;
	struct fpa target = ept_entry_target(ept->config.format, entry);
	uint64_t number = (target.v - ept->config.memory.tables_at.v) >> EPT_PAGE_SHIFT;
	struct ept_table *child;

	if (number >= ept->tables.next_unused) {
		violation(check, "S4: entry %u of table %u points at %#lx, which is no table",
			  place->index, number_of(check, place->table), target.v);
		return NULL;
	}
	child = &ept->tables.tables[number];
	if (child->state != EPT_TABLE_LIVE) {
		violation(check, "S4: entry %u of table %u points at table %lu, which is free",
			  place->index, number_of(check, place->table), number);
		return NULL;
	}
	if (child->level + 1 != place->table->level) {
		violation(check, "S8: entry %u of table %u, of level %u, points at table %lu, of level %u",
			  place->index, number_of(check, place->table), place->table->level, number,
			  child->level);
		return NULL;
	}
	return child;
}

static void count_child(struct check *check, const struct place *place,
			const struct ept_table *child)
{
	struct rmap_entry at = { number_of(check, place->table), (uint16_t)place->index };

	check->table_refs[number_of(check, child)]++;
	if (!rmap_owner_holds(check->ept->rmap, number_of(check, child), at))
		violation(check, "S7: entry %u of table %u points at table %u, the reverse map does not know",
			  at.index, at.table, number_of(check, child));
}

static bool first_visit(const struct check *check, const struct ept_table *table)
{
	return !check->visited[number_of(check, table)];
}

/* The place that the walk goes to below @place, or false. */
static bool go_down(struct check *check, const struct place *place, uint64_t entry,
		    struct place *below)
{
	struct ept_table *child = checked_child(check, place, entry);
	bool shared;

	if (!child)
		return false;
	if (first_visit(check, place->table))
		count_child(check, place, child);
	shared = (place->shared || ept_table_is_shared(child)) && !child->shared_writable;
	*below = (struct place){
		.table = child,
		.gpa = { leaf_gpa(place) },
		.writable = place->writable &&
			    ept_entry_writable(check->ept->config.format, entry),
		.shared = shared,
		.others = place->others || ept_table_is_shared(child),
	};
	if (below->writable && shared)
		violation(check, "S2: entry %u of table %u grants write to table %u, which others use",
			  place->index, number_of(check, place->table), number_of(check, child));
	return true;
}

static void visit_leaf(struct check *check, const struct ept_space *space,
		       const struct place *place, uint64_t entry)
{
	if (first_visit(check, place->table)) {
		count_leaf(check, place->table, place->index, entry);
		if (place->table->indexed)
			check_key(check, place->table, place->index, entry);
	}
	check_leaf(check, space, place, entry);
}

static void check_space(struct check *check, const struct ept_space *space)
{
	struct place stack[EPT_ROOT_LEVEL];
	unsigned depth = 1;

	check->table_refs[number_of(check, space->root)]++;
	stack[0] = (struct place){
		.table = space->root,
		.writable = true,
		.shared = ept_table_is_shared(space->root),
		.others = ept_table_is_shared(space->root),
	};
	while (depth) {
		struct place *place = &stack[depth - 1];
		uint64_t entry;

		if (place->index == EPT_ENTRIES) {
			check->visited[number_of(check, place->table)] = true;
			depth--;
			continue;
		}
		entry = ept_entry_load(check->ept, place->table, place->index);
		if (!ept_entry_present(entry) ||
		    ept_entry_fixed(check->ept, place->table, place->index))
			;
		else if (!ept_entry_is_table(check->ept, place->table->level, entry))
			visit_leaf(check, space, place, entry);
		else if (go_down(check, place, entry, &stack[depth]))
			depth++;
		place->index++;
	}
}

static unsigned file_leaves(struct check *check, const struct ept_table *table)
{
	struct ept *ept = check->ept;
	unsigned count = 0;

	for (unsigned index = 0; index < EPT_ENTRIES; index++) {
		uint64_t entry = ept_entry_load(ept, table, index);

		count += ept_entry_present(entry) &&
			 ept_entry_is_leaf(ept->config.format, table->level, entry) &&
			 !ept_page_is_private(ept, ept_entry_target(ept->config.format, entry));
	}
	return count;
}

/* S1 and S7 for a table, S4's share of the pools. */
static void check_table(struct check *check, uint32_t number)
{
	struct ept *ept = check->ept;
	const struct ept_table *table = &ept->tables.tables[number];
	uint32_t count = atomic_load(&table->use_count);
	size_t owners = rmap_owner_find(ept->rmap, number, NULL, 0);
	/* A root's users are spaces, which the reverse map does not know. */
	uint32_t expected = table->level == EPT_ROOT_LEVEL ? 0 : check->table_refs[number];

	if (table->state == EPT_TABLE_LIVE && count != check->table_refs[number])
		violation(check, "S1: table %u is used %u times, its count says %u", number,
			  check->table_refs[number], count);
	if (table->state == EPT_TABLE_LIVE && owners != expected)
		violation(check, "S7: the reverse map knows %zu owners of table %u, there are %u",
			  owners, number, expected);
	if (table->state != EPT_TABLE_LIVE && (owners || rmap_page_count(ept->rmap, number)))
		violation(check, "S7: the reverse map knows table %u, which is free", number);
	if (table->state == EPT_TABLE_LIVE && check->visited[number] &&
	    rmap_page_count(ept->rmap, number) != file_leaves(check, table))
		violation(check, "S7: the reverse map knows %u pages of table %u, which maps %u",
			  rmap_page_count(ept->rmap, number), number, file_leaves(check, table));
	if (table->indexed && table->state != EPT_TABLE_LIVE)
		violation(check, "S4: table %u is free and in the share index", number);
}

static void check_counts(struct check *check)
{
	struct ept *ept = check->ept;

	for (uint32_t number = 0; number < ept->tables.next_unused; number++)
		check_table(check, number);
	for (uint32_t page = 0; page < ept->pages.next_unused; page++)
		if (atomic_load(&ept->pages.counts[page]) != check->page_refs[page])
			violation(check, "S3: private page %u is mapped %u times, its count says %u",
				  page, check->page_refs[page],
				  atomic_load(&ept->pages.counts[page]));
}

/* S3 and S4: what is free or in quarantine has no references. */
static void check_free_pages(struct check *check)
{
	const struct ept_page_pool *pool = &check->ept->pages;
	const uint32_t heads[] = { pool->free, pool->quarantine };

	for (unsigned list = 0; list < 2; list++)
		for (uint32_t page = heads[list]; page != EPT_NONE; page = pool->list_next[page])
			if (check->page_refs[page])
				violation(check, "S4: private page %u is free and mapped", page);
}

size_t ept_check(struct ept *ept, ept_check_report report, void *context)
{
	struct check check = { .ept = ept, .report = report, .context = context };
	struct ept_space *space;

	check.table_refs = calloc(ept->tables.next_unused + 1, sizeof(*check.table_refs));
	check.page_refs = calloc(ept->config.memory.page_count + 1ul, sizeof(*check.page_refs));
	check.visited = calloc(ept->tables.next_unused + 1, sizeof(*check.visited));
	if (!check.table_refs || !check.page_refs || !check.visited) {
		violation(&check, "there is no memory to check with");
		goto out;
	}
	pthread_mutex_lock(&ept->spaces_lock);
	TAILQ_FOREACH(space, &ept->spaces, link)
		check_space(&check, space);
	pthread_mutex_unlock(&ept->spaces_lock);
	check_counts(&check);
	check_free_pages(&check);
out:
	free(check.table_refs);
	free(check.page_refs);
	free(check.visited);
	return check.violations;
}
