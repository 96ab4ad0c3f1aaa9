// SPDX-License-Identifier: MIT
/*
 * File page -> entries that map it. What one table maps of one file with one phase is a span: a
 * base page and a bit per entry. A table's base decides its hash chain by the 2 MiB of the file that
 * the base lies in, so the tables that can map a page are in two chains.
 */
#include "rmap_internal.h"

#include <assert.h>

static int64_t span_base(struct file_page first, struct rmap_entry at)
{
	return (int64_t)first.page - at.index;
}

static bool bit_test(const struct rmap_span *span, unsigned bit)
{
	return span->bits[bit / 64] >> bit % 64 & 1;
}

/* The bits of word @word that are among [first, end). */
static uint64_t word_mask(unsigned word, unsigned first, unsigned end)
{
	uint64_t mask = UINT64_MAX;

	if (first > word * 64)
		mask <<= first - word * 64;
	if (end < word * 64 + 64)
		mask &= UINT64_MAX >> (word * 64 + 64 - end);
	return mask;
}

static void bits_assign(struct rmap_span *span, unsigned first, unsigned count, bool value)
{
	unsigned end = first + count;

	for (unsigned word = first / 64; word * 64 < end; word++) {
		uint64_t mask = word_mask(word, first, end);

		if (value)
			span->bits[word] |= mask;
		else
			span->bits[word] &= ~mask;
	}
}

static bool bits_any(const struct rmap_span *span)
{
	uint64_t any = 0;

	for (unsigned word = 0; word < RMAP_ENTRIES / 64; word++)
		any |= span->bits[word];
	return any;
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
	       (rmap_span_at(map, node)->file != file || rmap_span_at(map, node)->base != base))
		node = rmap_span_at(map, node)->next;
	return node;
}

/* Makes a span, whose table, file and base are filled in, known. */
static void span_insert(struct rmap *map, uint32_t node)
{
	struct rmap_span *span = rmap_span_at(map, node);

	span->next = map->spans[span->table];
	map->spans[span->table] = node;
	rmap_hash_link(map, node);
}

static uint32_t span_create(struct rmap *map, uint32_t table, uint32_t file, int64_t base)
{
	uint32_t node;

	if (!rmap_pool_reserve(&map->span_pool, 1))
		return RMAP_NONE;
	node = rmap_pool_take(&map->span_pool);
	*rmap_span_at(map, node) = (struct rmap_span){ .table = table, .file = file, .base = base };
	span_insert(map, node);
	return node;
}

static void span_delete(struct rmap *map, uint32_t node)
{
	const struct rmap_span *span = rmap_span_at(map, node);
	uint32_t *at = &map->spans[span->table];

	while (*at != node)
		at = &rmap_span_at(map, *at)->next;
	*at = span->next;
	rmap_hash_unlink(map, node);
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
		bits_assign(rmap_span_at(map, node), at.index, count, true);
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
		bits_assign(rmap_span_at(map, node), at.index, count, false);
		if (!bits_any(rmap_span_at(map, node)))
			span_delete(map, node);
	}
	pthread_mutex_unlock(&map->lock);
}

static void clear_locked(struct rmap *map, uint32_t table)
{
	while (map->spans[table] != RMAP_NONE)
		span_delete(map, map->spans[table]);
}

/* Span @node, but of table @to. */
static bool span_copy(struct rmap *map, uint32_t node, uint32_t to)
{
	uint32_t copy;

	if (!rmap_pool_reserve(&map->span_pool, 1))
		return false;
	copy = rmap_pool_take(&map->span_pool);
	*rmap_span_at(map, copy) = *rmap_span_at(map, node);
	rmap_span_at(map, copy)->table = to;
	span_insert(map, copy);
	return true;
}

bool rmap_page_copy(struct rmap *map, uint32_t from, uint32_t to)
{
	bool copied = true;

	pthread_mutex_lock(&map->lock);
	assert(map->spans[to] == RMAP_NONE);
	for (uint32_t node = map->spans[from]; node != RMAP_NONE && copied;
	     node = rmap_span_at(map, node)->next)
		copied = span_copy(map, node, to);
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
	uint64_t key = rmap_hash_key(page.file, base);
	unsigned index;

	for (uint32_t node = rmap_hash_chain(map, key); node != RMAP_NONE;
	     node = rmap_span_at(map, node)->chain_next) {
		const struct rmap_span *span = rmap_span_at(map, node);

		/* Two keys can meet in one chain: only spans of this key count here. */
		if (rmap_hash_key(span->file, span->base) != key || !span_maps(span, page, &index))
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
	for (uint32_t node = map->spans[table]; node != RMAP_NONE;
	     node = rmap_span_at(map, node)->next)
		count += bits_count(rmap_span_at(map, node));
	pthread_mutex_unlock(&map->lock);
	return count;
}

bool rmap_page_holds(struct rmap *map, struct file_page page, struct rmap_entry at)
{
	uint32_t node;
	bool holds;

	pthread_mutex_lock(&map->lock);
	node = span_lookup(map, at.table, page.file, span_base(page, at));
	holds = node != RMAP_NONE && bit_test(rmap_span_at(map, node), at.index);
	pthread_mutex_unlock(&map->lock);
	return holds;
}
