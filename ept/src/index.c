// SPDX-License-Identifier: MIT
/*
 * The share index: what a table translates -> the table, in constant time.
 *
 * A table in the index is pointed at by read-only entries only (but for tables of mode EPT_SHARED),
 * so whoever finds it can use it without changing anything of those who have it. Before a table's
 * contents change it leaves the index, under its lock.
 *
 * Order of locks: a table's, then the index's. A lookup needs them the other way round, and so only
 * tries the table's: while a table is in the index it is not freed and has the level of its key, so
 * who holds its lock waits for lower tables at most, and lets it go.
 */
#include "ept_internal.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

bool ept_index_init(struct ept *ept)
{
	struct ept_index *index = &ept->index;
	uint32_t count = 64;

	/* As many chains as there can be tables: chains stay short without ever growing. */
	while (count < ept->config.memory.table_count && count < UINT32_C(1) << 24)
		count *= 2;
	pthread_mutex_init(&index->lock, NULL);
	index->bucket_count = count;
	index->buckets = malloc(count * sizeof(*index->buckets));
	if (index->buckets)
		memset(index->buckets, 0xff, count * sizeof(*index->buckets));
	return index->buckets;
}

void ept_index_free(struct ept *ept)
{
	free(ept->index.buckets);
	pthread_mutex_destroy(&ept->index.lock);
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
	return hash ^ hash >> 32;
}

static uint32_t *chain_of(struct ept_index *index, const struct ept_key *key)
{
	uint64_t hash = mix(0, (uint64_t)key->domain << 32 | key->first.file);

	hash = mix(hash, key->first.page);
	hash = mix(hash, (uint64_t)key->large << 24 | (uint64_t)key->level << 16 |
				 (uint64_t)key->rights << 8 | key->mode);
	return &index->buckets[hash & (index->bucket_count - 1)];
}

static bool key_equal(const struct ept_key *a, const struct ept_key *b)
{
	return a->domain == b->domain && a->first.file == b->first.file &&
	       a->first.page == b->first.page && a->level == b->level &&
	       a->rights == b->rights && a->mode == b->mode && a->large == b->large;
}

/* The caller holds the index's lock; keys of tables in chains do not change without it. */
static struct ept_table *lookup(struct ept *ept, const struct ept_key *key)
{
	uint32_t number = *chain_of(&ept->index, key);

	while (number != EPT_NONE) {
		struct ept_table *table = &ept->tables.tables[number];

		if (key_equal(&table->key, key))
			return table;
		number = table->index_next;
	}
	return NULL;
}

/* The table with this key, locked; NULL if there is none; @busy if there is but its lock is taken. */
static struct ept_table *try_lookup(struct ept *ept, const struct ept_key *key, bool *busy)
{
	struct ept_table *table;

	pthread_mutex_lock(&ept->index.lock);
	table = lookup(ept, key);
	*busy = table && pthread_mutex_trylock(&table->lock) != 0;
	pthread_mutex_unlock(&ept->index.lock);
	return *busy ? NULL : table;
}

struct ept_table *ept_index_get(struct ept *ept, const struct ept_key *key)
{
	struct ept_table *table;
	bool busy;

	while (!(table = try_lookup(ept, key, &busy)) && busy)
		sched_yield();
	if (!table)
		return NULL;
	ept_table_get(table);
	table->published = true;
	pthread_mutex_unlock(&table->lock);
	return table;
}

void ept_index_add(struct ept *ept, struct ept_table *table)
{
	uint32_t *chain = chain_of(&ept->index, &table->key);

	pthread_mutex_lock(&table->lock);
	pthread_mutex_lock(&ept->index.lock);
	if (!lookup(ept, &table->key)) {
		table->indexed = true;
		table->index_next = *chain;
		*chain = ept_table_number(ept, table);
		ept->index.count++;
	}
	pthread_mutex_unlock(&ept->index.lock);
	pthread_mutex_unlock(&table->lock);
}

void ept_index_remove(struct ept *ept, struct ept_table *table)
{
	uint32_t *at;

	if (!table->indexed)
		return;
	pthread_mutex_lock(&ept->index.lock);
	at = chain_of(&ept->index, &table->key);
	while (&ept->tables.tables[*at] != table)
		at = &ept->tables.tables[*at].index_next;
	*at = table->index_next;
	ept->index.count--;
	pthread_mutex_unlock(&ept->index.lock);
	table->indexed = false;
}
