// SPDX-License-Identifier: MIT
/*
 * The hash of spans. All tables that map the same 2 MiB of a file are in one chain, which is as
 * long as the file is popular; so chains have two directions, and leaving one costs the same in
 * each.
 */
#include "rmap_internal.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_COUNT 64

static bool hash_allocate(struct rmap_hash *hash, uint32_t count)
{
	uint32_t *buckets = malloc(count * sizeof(*buckets));

	if (!buckets)
		return false;
	memset(buckets, 0xff, count * sizeof(*buckets));
	*hash = (struct rmap_hash){ buckets, count };
	return true;
}

bool rmap_hash_init(struct rmap_hash *hash)
{
	return hash_allocate(hash, FIRST_COUNT);
}

void rmap_hash_free(struct rmap_hash *hash)
{
	free(hash->buckets);
}

size_t rmap_hash_bytes(const struct rmap_hash *hash)
{
	return hash->count * sizeof(*hash->buckets);
}

/* Bases run from -(RMAP_ENTRIES - 1); the bias makes the chunk's number non-negative. */
uint64_t rmap_hash_key(uint32_t file, int64_t base)
{
	uint64_t chunk = (uint64_t)(base + RMAP_ENTRIES) / RMAP_ENTRIES;

	return (uint64_t)file << 40 ^ chunk;
}

static uint32_t *bucket_of(const struct rmap *map, uint64_t key)
{
	/* Fibonacci hashing: the upper bits of the product depend on all bits of the key. */
	uint64_t hash = (key * 0x9e3779b97f4a7c15u) >> 32;

	return &map->span_hash.buckets[hash & (map->span_hash.count - 1)];
}

uint32_t rmap_hash_chain(const struct rmap *map, uint64_t key)
{
	return *bucket_of(map, key);
}

static void chain_push(struct rmap *map, uint32_t node)
{
	struct rmap_span *span = rmap_span_at(map, node);
	uint32_t *head = bucket_of(map, rmap_hash_key(span->file, span->base));

	span->chain_prev = RMAP_NONE;
	span->chain_next = *head;
	if (*head != RMAP_NONE)
		rmap_span_at(map, *head)->chain_prev = node;
	*head = node;
}

/*
 * Gives the hash as many buckets as there are spans. Does nothing where memory is short: chains
 * only get longer.
 */
static void spread(struct rmap *map)
{
	struct rmap_hash old = map->span_hash;

	if (map->span_pool.used <= old.count || old.count > UINT32_MAX / 2 ||
	    !hash_allocate(&map->span_hash, old.count * 2))
		return;
	for (uint32_t bucket = 0; bucket < old.count; bucket++) {
		uint32_t node = old.buckets[bucket];

		while (node != RMAP_NONE) {
			uint32_t next = rmap_span_at(map, node)->chain_next;

			chain_push(map, node);
			node = next;
		}
	}
	rmap_hash_free(&old);
}

void rmap_hash_link(struct rmap *map, uint32_t node)
{
	chain_push(map, node);
	spread(map);
}

void rmap_hash_unlink(struct rmap *map, uint32_t node)
{
	const struct rmap_span *span = rmap_span_at(map, node);

	if (span->chain_prev == RMAP_NONE)
		*bucket_of(map, rmap_hash_key(span->file, span->base)) = span->chain_next;
	else
		rmap_span_at(map, span->chain_prev)->chain_next = span->chain_next;
	if (span->chain_next != RMAP_NONE)
		rmap_span_at(map, span->chain_next)->chain_prev = span->chain_prev;
}
