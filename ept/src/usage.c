// SPDX-License-Identifier: MIT
/* What there is and what was done: numbers for users, kept or counted by walking. */
#include "ept_internal.h"

void ept_counters(struct ept *ept, struct ept_counters *counters)
{
	*counters = (struct ept_counters){
		.faults = atomic_load(&ept->stat.faults),
		.spurious = atomic_load(&ept->stat.spurious),
		.tables_filled = atomic_load(&ept->stat.events[EPT_EVENT_FILL]),
		.tables_shared = atomic_load(&ept->stat.events[EPT_EVENT_SHARE]),
		.tables_cloned = atomic_load(&ept->stat.events[EPT_EVENT_CLONE]),
		.tables_copied = atomic_load(&ept->stat.events[EPT_EVENT_UNSHARE]),
		.pages_copied = atomic_load(&ept->stat.pages_copied),
		.leaves_broken = atomic_load(&ept->stat.events[EPT_EVENT_BREAK]),
		.tables_dropped = atomic_load(&ept->stat.events[EPT_EVENT_ZAP]),
		.tables_freed = atomic_load(&ept->stat.events[EPT_EVENT_FREE]),
		.share_events = atomic_load(&ept->stat.share_events),
	};
}

void ept_usage(struct ept *ept, struct ept_usage *usage)
{
	*usage = (struct ept_usage){ .pages = atomic_load(&ept->pages.live) };
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		usage->tables[level] = atomic_load(&ept->tables.live[level]);
	pthread_mutex_lock(&ept->tables.lock);
	usage->tables_quarantined = ept->tables.quarantined;
	pthread_mutex_unlock(&ept->tables.lock);
	pthread_mutex_lock(&ept->pages.lock);
	usage->pages_quarantined = ept->pages.quarantined;
	pthread_mutex_unlock(&ept->pages.lock);
	pthread_mutex_lock(&ept->index.lock);
	usage->indexed = ept->index.count;
	pthread_mutex_unlock(&ept->index.lock);
}

uint64_t ept_overhead_bytes(struct ept *ept)
{
	uint64_t tables, pages;

	pthread_mutex_lock(&ept->tables.lock);
	tables = ept->tables.next_unused;
	pthread_mutex_unlock(&ept->tables.lock);
	pthread_mutex_lock(&ept->pages.lock);
	pages = ept->pages.next_unused;
	pthread_mutex_unlock(&ept->pages.lock);
	return tables * sizeof(struct ept_table) + pages * 2 * sizeof(uint32_t) +
	       ept->index.bucket_count * sizeof(uint32_t) + rmap_bytes(ept->rmap);
}

/* A place in a walk: a table, the next of its entries, and whether others use it. */
struct place {
	struct ept_table *table;
	unsigned index;
	bool shared;
};

static void count_page(struct ept *ept, const struct place *place, uint64_t entry,
		       struct ept_space_usage *usage)
{
	struct fpa target = ept_entry_target(ept->config.format, entry);

	if (!ept_page_is_private(ept, target))
		return;
	if (place->shared || ept_page_is_shared(ept, target))
		usage->pages_shared++;
	else
		usage->pages_alone++;
}

/* Counts a table and begins a walk of its entries. What a shared table refers to is shared too. */
static void count_table(struct place *place, struct ept_table *table, bool shared_above,
			struct ept_space_usage *usage)
{
	*place = (struct place){
		.table = table,
		.shared = shared_above || ept_table_is_shared(table),
	};
	if (place->shared)
		usage->tables_shared++;
	else
		usage->tables_alone++;
}

/* The space's lock keeps every table on its paths from going away while they are counted. */
void ept_space_usage(struct ept_space *space, struct ept_space_usage *usage)
{
	struct ept *ept = space->ept;
	struct place stack[EPT_ROOT_LEVEL];
	unsigned depth = 1;

	*usage = (struct ept_space_usage){ 0 };
	pthread_mutex_lock(&space->lock);
	count_table(&stack[0], space->root, false, usage);
	while (depth) {
		struct place *place = &stack[depth - 1];
		uint64_t entry;

		if (place->index == EPT_ENTRIES) {
			depth--;
			continue;
		}
		entry = ept_entry_load(ept, place->table, place->index);
		if (ept_entry_fixed(ept, place->table, place->index++) || !ept_entry_present(entry))
			continue;
		if (ept_entry_is_leaf(ept->config.format, place->table->level, entry)) {
			count_page(ept, place, entry, usage);
			continue;
		}
		count_table(&stack[depth++], ept_entry_child(ept, entry), place->shared, usage);
	}
	pthread_mutex_unlock(&space->lock);
}
