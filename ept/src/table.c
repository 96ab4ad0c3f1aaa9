// SPDX-License-Identifier: MIT
/*
 * Tables and their use counts.
 *
 *	free --take--> live --last put--> quarantined --scrub--> free
 *
 * A table that hardware could reach goes through quarantine, because KVM keeps its shadow of the
 * page until the page is scrubbed through the gate, and would serve it to the page's next owner.
 */
#include "ept_internal.h"

#include <stdlib.h>

bool ept_tables_init(struct ept *ept)
{
	struct ept_table_pool *pool = &ept->tables;

	pthread_mutex_init(&pool->lock, NULL);
	pool->free = EPT_NONE;
	pool->quarantine = EPT_NONE;
	pool->tables = calloc(ept->config.memory.table_count, sizeof(*pool->tables));
	return pool->tables;
}

void ept_tables_free(struct ept *ept)
{
	for (uint32_t number = 0; number < ept->tables.next_unused; number++)
		pthread_mutex_destroy(&ept->tables.tables[number].lock);
	free(ept->tables.tables);
	pthread_mutex_destroy(&ept->tables.lock);
}

static struct ept_table *pool_pop(struct ept *ept)
{
	struct ept_table_pool *pool = &ept->tables;
	struct ept_table *table = NULL;

	pthread_mutex_lock(&pool->lock);
	if (pool->free != EPT_NONE) {
		table = &pool->tables[pool->free];
		pool->free = table->list_next;
	} else if (pool->next_unused < ept->config.memory.table_count) {
		table = &pool->tables[pool->next_unused++];
		pthread_mutex_init(&table->lock, NULL);
	}
	pthread_mutex_unlock(&pool->lock);
	return table;
}

static void pool_push_free(struct ept *ept, struct ept_table *table)
{
	pthread_mutex_lock(&ept->tables.lock);
	table->state = EPT_TABLE_FREE;
	table->list_next = ept->tables.free;
	ept->tables.free = ept_table_number(ept, table);
	pthread_mutex_unlock(&ept->tables.lock);
}

static void pool_push_quarantine(struct ept *ept, struct ept_table *table)
{
	pthread_mutex_lock(&ept->tables.lock);
	table->state = EPT_TABLE_QUARANTINED;
	table->list_next = ept->tables.quarantine;
	ept->tables.quarantine = ept_table_number(ept, table);
	ept->tables.quarantined++;
	pthread_mutex_unlock(&ept->tables.lock);
}

struct ept_table *ept_table_take(struct ept *ept, unsigned level)
{
	struct ept_table *table = pool_pop(ept);

	if (!table)
		return NULL;
	/* Locked, so that whoever still looks at the descriptor's last life sees it whole. */
	pthread_mutex_lock(&table->lock);
	assert(table->state == EPT_TABLE_FREE && !table->indexed);
	atomic_store(&table->use_count, 1);
	atomic_store(&table->tainted, false);
	table->level = (uint8_t)level;
	table->state = EPT_TABLE_LIVE;
	table->published = false;
	table->clean = false;
	table->shared_writable = false;
	pthread_mutex_unlock(&table->lock);
	ept_count(&ept->tables.live[level]);
	return table;
}

void ept_table_get(struct ept_table *table)
{
	uint32_t before = atomic_fetch_add(&table->use_count, 1);

	assert(before > 0 && before < UINT32_MAX);
	(void)before;
	/* Cleared only by a table's one user, who does not give it away at that moment. */
	if (!atomic_load(&table->tainted))
		atomic_store(&table->tainted, true);
}

/* Takes one reference away; true if it was the last one, and @table thus the caller's. */
static bool put_reference(struct ept *ept, struct ept_table *table)
{
	uint32_t before;

	pthread_mutex_lock(&table->lock);
	before = atomic_fetch_sub(&table->use_count, 1);
	assert(before > 0 && table->state == EPT_TABLE_LIVE);
	/* Nobody finds a table whose count has reached 0, so it does so exactly once (F23). */
	if (before == 1)
		ept_index_remove(ept, table);
	ept_event(ept, EPT_EVENT_ZAP, table, NULL);
	pthread_mutex_unlock(&table->lock);
	return before == 1;
}

/* A PT is full as a rule: what its entries are decoded with is read before, and not for each. */
static void drop_leaves(struct ept *ept, const struct ept_table *table)
{
	const struct ept_format format = *ept->config.format;
	const struct ept_memory memory = ept->config.memory;
	const _Atomic uint64_t *entries = ept_table_entries(ept, table);

	for (unsigned index = 0; index < EPT_ENTRIES; index++) {
		uint64_t entry = atomic_load_explicit(&entries[index], memory_order_acquire);
		struct fpa target = ept_entry_target(&format, entry);

		if (ept_memory_has_page(&memory, target) && ept_entry_present(entry))
			ept_page_put(ept, target);
	}
}

/* One of an upper level, which holds no private pages; tables that die go in front of @dead. */
static void drop_tables(struct ept *ept, const struct ept_table *table, uint32_t *dead)
{
	for (unsigned index = ept_table_skip_empty(ept, table, 0); index < EPT_ENTRIES;
	     index = ept_table_skip_empty(ept, table, index + 1)) {
		uint64_t entry = ept_entry_load(ept, table, index);
		struct ept_table *child;

		if (ept_entry_fixed(ept, table, index) ||
		    !ept_entry_is_table(ept, table->level, entry))
			continue;
		child = ept_entry_child(ept, entry);
		if (put_reference(ept, child)) {
			child->list_next = *dead;
			*dead = ept_table_number(ept, child);
		}
	}
}

/* Drops what a dead table's entries refer to. */
static void drop_entries(struct ept *ept, struct ept_table *table, uint32_t *dead)
{
	rmap_page_clear(ept->rmap, ept_table_number(ept, table));
	rmap_owner_clear(ept->rmap, ept_table_number(ept, table));
	if (table->level == 1)
		drop_leaves(ept, table);
	else
		drop_tables(ept, table, dead);
}

/* A page that hardware never saw can be wiped by hand. */
static void wipe(struct ept *ept, struct ept_table *table)
{
	_Atomic uint64_t *entries = ept_table_entries(ept, table);

	for (unsigned index = 0; index < EPT_ENTRIES; index++)
		atomic_store_explicit(&entries[index], 0, memory_order_relaxed);
}

static void retire(struct ept *ept, struct ept_table *table)
{
	atomic_fetch_sub(&ept->tables.live[table->level], 1);
	ept_event(ept, EPT_EVENT_FREE, table, NULL);
	if (table->published) {
		pool_push_quarantine(ept, table);
	} else {
		wipe(ept, table);
		pool_push_free(ept, table);
	}
}

void ept_table_put(struct ept *ept, struct ept_table *table)
{
	uint32_t dead = ept_table_number(ept, table);

	if (!put_reference(ept, table))
		return;
	table->list_next = EPT_NONE;
	while (dead != EPT_NONE) {
		struct ept_table *next = &ept->tables.tables[dead];

		dead = next->list_next;
		drop_entries(ept, next, &dead);
		retire(ept, next);
	}
}
