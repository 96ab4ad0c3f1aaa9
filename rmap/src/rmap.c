// SPDX-License-Identifier: MIT
/* The map as a whole. */
#include "rmap_internal.h"

#include <stdlib.h>
#include <string.h>

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
	map->blocks = heads_create(tables);
	map->owners = heads_create(tables);
	rmap_pool_init(&map->span_pool, sizeof(struct rmap_span));
	rmap_pool_init(&map->block_pool, sizeof(struct rmap_block));
	rmap_pool_init(&map->group_pool, sizeof(struct rmap_group));
	if (!map->spans || !map->blocks || !map->owners || !rmap_hash_init(&map->span_hash)) {
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
	rmap_hash_free(&map->span_hash);
	rmap_pool_free(&map->block_pool);
	rmap_pool_free(&map->group_pool);
	free(map->spans);
	free(map->blocks);
	free(map->owners);
	pthread_mutex_destroy(&map->lock);
	free(map);
}

size_t rmap_bytes(struct rmap *map)
{
	size_t bytes;

	pthread_mutex_lock(&map->lock);
	bytes = sizeof(*map) + 3 * sizeof(uint32_t) * map->tables +
		rmap_pool_bytes(&map->span_pool) + rmap_hash_bytes(&map->span_hash) +
		rmap_pool_bytes(&map->block_pool) + rmap_pool_bytes(&map->group_pool);
	pthread_mutex_unlock(&map->lock);
	return bytes;
}
