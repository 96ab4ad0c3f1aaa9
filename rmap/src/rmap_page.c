// SPDX-License-Identifier: MIT
/*
 * File page -> entries that map it. What one table maps of one file with one phase is a span: a
 * base page and a bit per entry. A table's base decides its hash chain by the 2 MiB of the file that
 * the base lies in, so the tables that can map a page are in two chains.
 */
#include "rmap_internal.h"

#include <assert.h>
#include <string.h>

/* Bases run from -(RMAP_ENTRIES - 1); the bias makes the chunk's number non-negative. */
static uint64_t span_key(uint32_t file, int64_t base)
{
	uint64_t chunk = (uint64_t)(base + RMAP_ENTRIES) / RMAP_ENTRIES;

	return (uint64_t)file << 40 ^ chunk;
}

static uint64_t span_key_of(const void *node)
{
	const struct rmap_span *span = node;

	return span_key(span->file, span->base);
}

static struct rmap_span *span_at(const struct rmap *map, uint32_t node)
{
	return rmap_pool_at(&map->span_pool, node);
}

static int64_t span_base(struct file_page first, struct rmap_entry at)
{
	return (int64_t)first.page - at.index;
}

static bool bit_test(const struct rmap_span *span, unsigned bit)
{
	return span->bits[bit / 64] >> bit % 64 & 1;
}

static void bits_assign(struct rmap_span *span, unsigned first, unsigned count, bool value)
{
	for (unsigned bit = first; bit < first + count; bit++) {
		uint64_t mask = UINT64_C(1) << bit % 64;

		if (value)
			span->bits[bit / 64] |= mask;
		else
			span->bits[bit / 64] &= ~mask;
	}
}

static unsigned bits_count(const struct rmap_span *span)
{
	unsigned count = 0;

	for (unsigned word = 0; word < RMAP_ENTRIES / 64; word++)
		count += (unsigned)__builtin_popcountll(span->bits[word]);
	return count;
}

static uint32_t span_lookup(struct rmap *map, uint32_t table, uint32_t file, int64_t base)
{
	uint32_t node = map->spans[table];

	while (node != RMAP_NONE &&
	       (span_at(map, node)->file != file || span_at(map, node)->base != base))
		node = span_at(map, node)->next;
	return node;
}

static uint32_t span_create(struct rmap *map, uint32_t table, uint32_t file, int64_t base)
{
	uint32_t node = rmap_pool_take(&map->span_pool);
	struct rmap_span *span;

	if (node == RMAP_NONE)
		return RMAP_NONE;
	span = span_at(map, node);
	span->table = table;
	span->file = file;
	span->base = base;
	span->next = map->spans[table];
	map->spans[table] = node;
	rmap_pool_link(&map->span_pool, span_key(file, base), node);
	rmap_pool_spread(&map->span_pool, span_key_of);
	return node;
}

static void span_delete(struct rmap *map, uint32_t node)
{
	const struct rmap_span *span = span_at(map, node);
	uint32_t *at = &map->spans[span->table];

	while (*at != node)
		at = &span_at(map, *at)->next;
	*at = span->next;
	rmap_pool_unlink(&map->span_pool, span_key(span->file, span->base), node);
	rmap_pool_put(&map->span_pool, node);
}

bool rmap_page_add(struct rmap *map, struct file_page first, struct rmap_entry at, unsigned count)
{
	int64_t base = span_base(first, at);
	uint32_t node;

	assert(at.table < map->tables && at.index + count <= RMAP_ENTRIES);
	pthread_mutex_lock(&map->lock);
	node = span_lookup(map, at.table, first.file, base);
	if (node == RMAP_NONE)
		node = span_create(map, at.table, first.file, base);
	if (node != RMAP_NONE)
		bits_assign(span_at(map, node), at.index, count, true);
	pthread_mutex_unlock(&map->lock);
	return node != RMAP_NONE;
}

void rmap_page_remove(struct rmap *map, struct file_page first, struct rmap_entry at,
		      unsigned count)
{
	uint32_t node;

	assert(at.table < map->tables && at.index + count <= RMAP_ENTRIES);
	pthread_mutex_lock(&map->lock);
	node = span_lookup(map, at.table, first.file, span_base(first, at));
	if (node != RMAP_NONE) {
		bits_assign(span_at(map, node), at.index, count, false);
		if (!bits_count(span_at(map, node)))
			span_delete(map, node);
	}
	pthread_mutex_unlock(&map->lock);
}

static void clear_locked(struct rmap *map, uint32_t table)
{
	while (map->spans[table] != RMAP_NONE)
		span_delete(map, map->spans[table]);
}

bool rmap_page_copy(struct rmap *map, uint32_t from, uint32_t to)
{
	bool copied = true;

	pthread_mutex_lock(&map->lock);
	assert(map->spans[to] == RMAP_NONE);
	for (uint32_t node = map->spans[from]; node != RMAP_NONE && copied;
	     node = span_at(map, node)->next) {
		uint32_t copy =
			span_create(map, to, span_at(map, node)->file, span_at(map, node)->base);

		copied = copy != RMAP_NONE;
		if (copied)
			memcpy(span_at(map, copy)->bits, span_at(map, node)->bits,
			       sizeof(span_at(map, copy)->bits));
	}
	if (!copied)
		clear_locked(map, to);
	pthread_mutex_unlock(&map->lock);
	return copied;
}

void rmap_page_clear(struct rmap *map, uint32_t table)
{
	pthread_mutex_lock(&map->lock);
	clear_locked(map, table);
	pthread_mutex_unlock(&map->lock);
}

/* Whether @span maps @page, and through which of its table's entries. */
static bool span_maps(const struct rmap_span *span, struct file_page page, unsigned *index)
{
	int64_t offset = (int64_t)page.page - span->base;

	*index = (unsigned)offset;
	return span->file == page.file && offset >= 0 && offset < RMAP_ENTRIES &&
	       bit_test(span, *index);
}

static size_t find_in_chain(struct rmap *map, struct file_page page, int64_t base,
			    struct rmap_entry *out, size_t max)
{
	size_t found = 0;
	unsigned index;

	for (uint32_t node = *rmap_pool_chain(&map->span_pool, span_key(page.file, base));
	     node != RMAP_NONE; node = span_at(map, node)->link.next) {
		const struct rmap_span *span = span_at(map, node);

		/* Two keys can meet in one chain: only spans of this key count here. */
		if (span_key(span->file, span->base) != span_key(page.file, base) ||
		    !span_maps(span, page, &index))
			continue;
		if (found < max)
			out[found] = (struct rmap_entry){ span->table, (uint16_t)index };
		found++;
	}
	return found;
}

size_t rmap_page_find(struct rmap *map, struct file_page page, struct rmap_entry *out, size_t max)
{
	int64_t base = (int64_t)page.page;
	size_t found;

	pthread_mutex_lock(&map->lock);
	found = find_in_chain(map, page, base, out, max);
	found += find_in_chain(map, page, base - RMAP_ENTRIES, found < max ? out + found : NULL,
			       found < max ? max - found : 0);
	pthread_mutex_unlock(&map->lock);
	return found;
}

unsigned rmap_page_count(struct rmap *map, uint32_t table)
{
	unsigned count = 0;

	pthread_mutex_lock(&map->lock);
	for (uint32_t node = map->spans[table]; node != RMAP_NONE; node = span_at(map, node)->next)
		count += bits_count(span_at(map, node));
	pthread_mutex_unlock(&map->lock);
	return count;
}

bool rmap_page_holds(struct rmap *map, struct file_page page, struct rmap_entry at)
{
	uint32_t node;
	bool holds;

	pthread_mutex_lock(&map->lock);
	node = span_lookup(map, at.table, page.file, span_base(page, at));
	holds = node != RMAP_NONE && bit_test(span_at(map, node), at.index);
	pthread_mutex_unlock(&map->lock);
	return holds;
}
