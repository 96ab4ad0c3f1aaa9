// SPDX-License-Identifier: MIT
/*
 * Out of quarantine: the entries of a dead table are stored as 0 by the gate, so that KVM forgets its
 * shadow of the page; translations to dead pages go, and their contents with them.
 */
#include "ept_internal.h"

#include <stdlib.h>

/* Room for the edits was reserved. */
static void scrub_table(struct ept_change *change, uint32_t number)
{
	struct ept *ept = change->ept;
	struct ept_table *table = &ept->tables.tables[number];

	for (unsigned index = 0; index < EPT_ENTRIES; index++)
		if (ept_entry_present(ept_entry_load(ept, table, index)))
			ept_change_store(change, table, index, 0);
}

static void list_push(struct ept_list *list, uint32_t number)
{
	uint32_t *items = list->items;

	assert(list->count < list->capacity);
	items[list->count++] = number;
}

/* Moves up to @limit numbers from a quarantine into @list, which has room for them. */
static void take_tables(struct ept *ept, unsigned limit, struct ept_list *list)
{
	struct ept_table_pool *pool = &ept->tables;

	pthread_mutex_lock(&pool->lock);
	while (limit-- && pool->quarantine != EPT_NONE) {
		list_push(list, pool->quarantine);
		pool->quarantine = pool->tables[pool->quarantine].list_next;
		pool->quarantined--;
	}
	pthread_mutex_unlock(&pool->lock);
}

static void take_pages(struct ept *ept, size_t limit, struct ept_list *list)
{
	struct ept_page_pool *pool = &ept->pages;

	pthread_mutex_lock(&pool->lock);
	while (limit-- && pool->quarantine != EPT_NONE) {
		list_push(list, pool->quarantine);
		pool->quarantine = pool->list_next[pool->quarantine];
		pool->quarantined--;
	}
	pthread_mutex_unlock(&pool->lock);
}

static uint32_t quarantined_pages(struct ept *ept)
{
	uint32_t count;

	pthread_mutex_lock(&ept->pages.lock);
	count = ept->pages.quarantined;
	pthread_mutex_unlock(&ept->pages.lock);
	return count;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Adds a page to the last invalidation if it follows it, or else as one of its own. */
static void discard_page(struct ept_change *change, uint32_t number)
{
	struct ept_invalidation *items = change->invalidations.items;
	size_t count = change->invalidations.count;
	uint64_t at = change->ept->config.memory.pages_at.v +
		      ((uint64_t)number << EPT_PAGE_SHIFT);

	if (count && items[count - 1].start.v + items[count - 1].bytes == at) {
		items[count - 1].bytes += EPT_PAGE_BYTES;
	} else {
		items[change->invalidations.count++] = (struct ept_invalidation){
			.kind = EPT_INVALIDATE_DISCARD,
			.start = { at },
			.bytes = EPT_PAGE_BYTES,
		};
	}
}

enum ept_status ept_scrub(struct ept *ept, unsigned limit, struct ept_change *change)
{
	size_t pages = quarantined_pages(ept);

	ept_change_begin(change, ept, NULL);
	if (!ept_list_reserve(&change->scrubbed_tables, limit, sizeof(uint32_t)) ||
	    !ept_list_reserve(&change->scrubbed_pages, pages, sizeof(uint32_t)) ||
	    !ept_list_reserve(&change->invalidations, pages, sizeof(struct ept_invalidation)) ||
	    !ept_change_reserve(change, (size_t)limit * EPT_ENTRIES))
		return EPT_NO_MEMORY;
	take_tables(ept, limit, &change->scrubbed_tables);
	take_pages(ept, pages, &change->scrubbed_pages);
	for (size_t at = 0; at < change->scrubbed_tables.count; at++)
		scrub_table(change, ((uint32_t *)change->scrubbed_tables.items)[at]);
	/* In order, so that a stretch of pages is one call for whoever discards them. */
	if (change->scrubbed_pages.count)
		qsort(change->scrubbed_pages.items, change->scrubbed_pages.count,
		      sizeof(uint32_t), compare);
	for (size_t at = 0; at < change->scrubbed_pages.count; at++)
		discard_page(change, ((uint32_t *)change->scrubbed_pages.items)[at]);
	return EPT_OK;
}

void ept_scrub_finish(struct ept_change *change)
{
	struct ept *ept = change->ept;
	const uint32_t *tables = change->scrubbed_tables.items;
	const uint32_t *pages = change->scrubbed_pages.items;

	pthread_mutex_lock(&ept->tables.lock);
	for (size_t at = 0; at < change->scrubbed_tables.count; at++) {
		ept->tables.tables[tables[at]].state = EPT_TABLE_FREE;
		ept->tables.tables[tables[at]].list_next = ept->tables.free;
		ept->tables.free = tables[at];
	}
	pthread_mutex_unlock(&ept->tables.lock);
	pthread_mutex_lock(&ept->pages.lock);
	for (size_t at = 0; at < change->scrubbed_pages.count; at++) {
		ept->pages.list_next[pages[at]] = ept->pages.free;
		ept->pages.free = pages[at];
	}
	pthread_mutex_unlock(&ept->pages.lock);
	change->scrubbed_tables.count = 0;
	change->scrubbed_pages.count = 0;
}
