// SPDX-License-Identifier: MIT
/* Pools of numbered nodes, which the map's indexes lie in. */
#include "rmap_internal.h"

#include <assert.h>
#include <stdlib.h>

#define FIRST_CAPACITY 64

void rmap_pool_init(struct rmap_pool *pool, size_t node_bytes)
{
	*pool = (struct rmap_pool){ .node_bytes = node_bytes, .free = RMAP_NONE };
}

void rmap_pool_free(struct rmap_pool *pool)
{
	free(pool->nodes);
}

size_t rmap_pool_bytes(const struct rmap_pool *pool)
{
	return pool->capacity * pool->node_bytes;
}

static uint32_t *next_free(const struct rmap_pool *pool, uint32_t node)
{
	return rmap_pool_at(pool, node);
}

/* Twice as many nodes. */
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
		*next_free(pool, node) = pool->free;
		pool->free = node;
	}
	pool->capacity = capacity;
	return true;
}

bool rmap_pool_reserve(struct rmap_pool *pool, uint32_t count)
{
	while (pool->capacity - pool->used < count)
		if (!pool_grow(pool))
			return false;
	return true;
}

uint32_t rmap_pool_take(struct rmap_pool *pool)
{
	uint32_t node = pool->free;

	assert(node != RMAP_NONE);
	pool->free = *next_free(pool, node);
	pool->used++;
	return node;
}

void rmap_pool_put(struct rmap_pool *pool, uint32_t node)
{
	*next_free(pool, node) = pool->free;
	pool->free = node;
	pool->used--;
}
