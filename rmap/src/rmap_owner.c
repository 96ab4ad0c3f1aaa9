// SPDX-License-Identifier: MIT
/*
 * Table -> entries that point at it. An entry points at one table at most, so the hash is keyed by
 * the entry, and taking an owner away costs the same for a table of a thousand owners as for one.
 */
#include "rmap_internal.h"

#include <assert.h>

static uint64_t owner_key(struct rmap_entry parent)
{
	return (uint64_t)parent.table * RMAP_ENTRIES + parent.index;
}

static uint64_t owner_key_of(const void *node)
{
	return owner_key(((const struct rmap_owner *)node)->parent);
}

static struct rmap_owner *owner_at(const struct rmap *map, uint32_t node)
{
	return rmap_pool_at(&map->owner_pool, node);
}

static bool same_entry(struct rmap_entry a, struct rmap_entry b)
{
	return a.table == b.table && a.index == b.index;
}

static uint32_t owner_lookup(struct rmap *map, struct rmap_entry parent)
{
	uint32_t node = *rmap_pool_chain(&map->owner_pool, owner_key(parent));

	while (node != RMAP_NONE && !same_entry(owner_at(map, node)->parent, parent))
		node = owner_at(map, node)->link.next;
	return node;
}

/* Puts a node in front of its child's list of owners. */
static void list_insert(struct rmap *map, uint32_t node)
{
	struct rmap_owner *owner = owner_at(map, node);
	uint32_t *head = &map->owners[owner->child];

	owner->prev = RMAP_NONE;
	owner->next = *head;
	if (*head != RMAP_NONE)
		owner_at(map, *head)->prev = node;
	*head = node;
}

static void list_remove(struct rmap *map, uint32_t node)
{
	const struct rmap_owner *owner = owner_at(map, node);

	if (owner->prev == RMAP_NONE)
		map->owners[owner->child] = owner->next;
	else
		owner_at(map, owner->prev)->next = owner->next;
	if (owner->next != RMAP_NONE)
		owner_at(map, owner->next)->prev = owner->prev;
}

bool rmap_owner_add(struct rmap *map, uint32_t child, struct rmap_entry parent)
{
	uint32_t node;

	assert(child < map->tables && parent.table < map->tables);
	pthread_mutex_lock(&map->lock);
	assert(owner_lookup(map, parent) == RMAP_NONE);
	node = rmap_pool_take(&map->owner_pool);
	if (node != RMAP_NONE) {
		owner_at(map, node)->parent = parent;
		owner_at(map, node)->child = child;
		rmap_pool_link(&map->owner_pool, owner_key(parent), node);
		list_insert(map, node);
		rmap_pool_spread(&map->owner_pool, owner_key_of);
	}
	pthread_mutex_unlock(&map->lock);
	return node != RMAP_NONE;
}

bool rmap_owner_remove(struct rmap *map, struct rmap_entry parent)
{
	uint32_t node;

	pthread_mutex_lock(&map->lock);
	node = owner_lookup(map, parent);
	if (node != RMAP_NONE) {
		rmap_pool_unlink(&map->owner_pool, owner_key(parent), node);
		list_remove(map, node);
		rmap_pool_put(&map->owner_pool, node);
	}
	pthread_mutex_unlock(&map->lock);
	return node != RMAP_NONE;
}

void rmap_owner_move(struct rmap *map, uint32_t child, struct rmap_entry parent)
{
	uint32_t node;

	assert(child < map->tables);
	pthread_mutex_lock(&map->lock);
	node = owner_lookup(map, parent);
	assert(node != RMAP_NONE);
	list_remove(map, node);
	owner_at(map, node)->child = child;
	list_insert(map, node);
	pthread_mutex_unlock(&map->lock);
}

size_t rmap_owner_find(struct rmap *map, uint32_t child, struct rmap_entry *out, size_t max)
{
	size_t found = 0;

	pthread_mutex_lock(&map->lock);
	for (uint32_t node = map->owners[child]; node != RMAP_NONE;
	     node = owner_at(map, node)->next) {
		if (found < max)
			out[found] = owner_at(map, node)->parent;
		found++;
	}
	pthread_mutex_unlock(&map->lock);
	return found;
}

bool rmap_owner_holds(struct rmap *map, uint32_t child, struct rmap_entry parent)
{
	uint32_t node;
	bool holds;

	pthread_mutex_lock(&map->lock);
	node = owner_lookup(map, parent);
	holds = node != RMAP_NONE && owner_at(map, node)->child == child;
	pthread_mutex_unlock(&map->lock);
	return holds;
}
