// SPDX-License-Identifier: MIT
/* The map as a whole, and the pools of nodes that its two indexes lie in. */
#include "rmap_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 64

bool rmap_pool_init(struct rmap_pool *pool, size_t node_bytes)
{
	*pool = (struct rmap_pool){ .node_bytes = node_bytes, .free = RMAP_NONE };
	pool->buckets = malloc(FIRST_CAPACITY * sizeof(*pool->buckets));
	if (!pool->buckets)
		return false;
	memset(pool->buckets, 0xff, FIRST_CAPACITY * sizeof(*pool->buckets));
	pool->bucket_count = FIRST_CAPACITY;
	return true;
}

void rmap_pool_free(struct rmap_pool *pool)
{
	free(pool->nodes);
	free(pool->buckets);
}

size_t rmap_pool_bytes(const struct rmap_pool *pool)
{
	return pool->capacity * pool->node_bytes + pool->bucket_count * sizeof(*pool->buckets);
}

static struct rmap_link *link_at(const struct rmap_pool *pool, uint32_t node)
{
	return rmap_pool_at(pool, node);
}

static bool pool_grow(struct rmap_pool *pool)
{
	uint32_t capacity = pool->capacity ? pool->capacity * 2 : FIRST_CAPACITY;
	unsigned char *nodes;

	if (capacity <= pool->capacity)
		return false;
	nodes = realloc(pool->nodes, capacity * pool->node_bytes);
	if (!nodes)
		return false;
	pool->nodes = nodes;
	for (uint32_t node = capacity; node-- > pool->capacity;) {
		link_at(pool, node)->next = pool->free;
		pool->free = node;
	}
	pool->capacity = capacity;
	return true;
}

uint32_t rmap_pool_take(struct rmap_pool *pool)
{
	uint32_t node;

	if (pool->free == RMAP_NONE && !pool_grow(pool))
		return RMAP_NONE;
	node = pool->free;
	pool->free = link_at(pool, node)->next;
	memset(rmap_pool_at(pool, node), 0, pool->node_bytes);
	pool->used++;
	return node;
}

void rmap_pool_put(struct rmap_pool *pool, uint32_t node)
{
	link_at(pool, node)->next = pool->free;
	pool->free = node;
	pool->used--;
}

uint32_t *rmap_pool_chain(struct rmap_pool *pool, uint64_t key)
{
	/* Fibonacci hashing: the upper bits of the product depend on all bits of the key. */
	uint64_t hash = (key * 0x9e3779b97f4a7c15u) >> 32;

	return &pool->buckets[hash & (pool->bucket_count - 1)];
}

void rmap_pool_link(struct rmap_pool *pool, uint64_t key, uint32_t node)
{
	uint32_t *chain = rmap_pool_chain(pool, key);

	link_at(pool, node)->next = *chain;
	*chain = node;
}

void rmap_pool_unlink(struct rmap_pool *pool, uint64_t key, uint32_t node)
{
	uint32_t *at = rmap_pool_chain(pool, key);

	while (*at != node) {
		assert(*at != RMAP_NONE);
		at = &link_at(pool, *at)->next;
	}
	*at = link_at(pool, node)->next;
}

static void rehash(struct rmap_pool *pool, const uint32_t *old, uint32_t old_count,
		   uint64_t (*key_of)(const void *node))
{
	for (uint32_t bucket = 0; bucket < old_count; bucket++) {
		uint32_t node = old[bucket];

		while (node != RMAP_NONE) {
			uint32_t next = link_at(pool, node)->next;

			rmap_pool_link(pool, key_of(rmap_pool_at(pool, node)), node);
			node = next;
		}
	}
}

void rmap_pool_spread(struct rmap_pool *pool, uint64_t (*key_of)(const void *node))
{
	uint32_t count = pool->bucket_count * 2;
	uint32_t *old = pool->buckets;
	uint32_t *buckets;

	if (pool->used <= pool->bucket_count || count < pool->bucket_count)
		return;
	buckets = malloc(count * sizeof(*buckets));
	if (!buckets)
		return;
	memset(buckets, 0xff, count * sizeof(*buckets));
	pool->buckets = buckets;
	pool->bucket_count = count;
	rehash(pool, old, count / 2, key_of);
	free(old);
}

static uint32_t *heads_create(uint32_t tables)
{
	uint32_t *heads = malloc(tables * sizeof(*heads));

	if (heads)
		memset(heads, 0xff, tables * sizeof(*heads));
	return heads;
}

struct rmap *rmap_create(uint32_t tables)
{
	struct rmap *map = calloc(1, sizeof(*map));

	if (!map)
		return NULL;
	pthread_mutex_init(&map->lock, NULL);
	map->tables = tables;
	map->spans = heads_create(tables);
	map->owners = heads_create(tables);
	if (!map->spans || !map->owners ||
	    !rmap_pool_init(&map->span_pool, sizeof(struct rmap_span)) ||
	    !rmap_pool_init(&map->owner_pool, sizeof(struct rmap_owner))) {
		rmap_destroy(map);
		return NULL;
	}
	return map;
}

void rmap_destroy(struct rmap *map)
{
	if (!map)
		return;
	rmap_pool_free(&map->span_pool);
	rmap_pool_free(&map->owner_pool);
	free(map->spans);
	free(map->owners);
	pthread_mutex_destroy(&map->lock);
	free(map);
}

size_t rmap_bytes(struct rmap *map)
{
	size_t bytes;

	pthread_mutex_lock(&map->lock);
	bytes = sizeof(*map) + 2 * map->tables * sizeof(uint32_t) +
		rmap_pool_bytes(&map->span_pool) + rmap_pool_bytes(&map->owner_pool);
	pthread_mutex_unlock(&map->lock);
	return bytes;
}
