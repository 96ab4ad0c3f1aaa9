// SPDX-License-Identifier: MIT
/*
 * Table -> entries that point at it. An entry points at one table at most, so what is known of it
 * has a place of its own, found by table and index: a slot. The slots of the entries that point at
 * one table are a list. Taking an owner away costs the same for a table of a thousand owners as for
 * one, and copying a table's slots is a pass over its groups.
 */
#include "rmap_internal.h"

#include <assert.h>
#include <string.h>

#define GROUPS (RMAP_ENTRIES / RMAP_GROUP)

static_assert(RMAP_GROUP == 8 * sizeof(((struct rmap_group *)0)->used), "a bit for each slot");

static struct rmap_group *group_at(const struct rmap *map, uint32_t group)
{
	return rmap_pool_at(&map->group_pool, group);
}

static struct rmap_slot *slot_at(const struct rmap *map, uint32_t slot)
{
	return &group_at(map, slot / RMAP_GROUP)->slots[slot % RMAP_GROUP];
}

static struct rmap_entry slot_entry(const struct rmap *map, uint32_t slot)
{
	const struct rmap_group *group = group_at(map, slot / RMAP_GROUP);

	return (struct rmap_entry){ group->table, (uint16_t)(group->first + slot % RMAP_GROUP) };
}

/* The groups of @table, which has a block. */
static uint32_t *groups_of(const struct rmap *map, uint32_t table)
{
	struct rmap_block *block = rmap_pool_at(&map->block_pool, map->blocks[table]);

	return block->groups;
}

static uint32_t group_lookup(const struct rmap *map, struct rmap_entry parent)
{
	if (map->blocks[parent.table] == RMAP_NONE)
		return RMAP_NONE;
	return groups_of(map, parent.table)[parent.index / RMAP_GROUP];
}

/* The slot of an entry that points at a table; RMAP_NONE for one that does not. */
static uint32_t slot_lookup(const struct rmap *map, struct rmap_entry parent)
{
	uint32_t group;

	assert(parent.table < map->tables && parent.index < RMAP_ENTRIES);
	group = group_lookup(map, parent);
	if (group == RMAP_NONE || !(group_at(map, group)->used >> parent.index % RMAP_GROUP & 1))
		return RMAP_NONE;
	return group * RMAP_GROUP + parent.index % RMAP_GROUP;
}

static void block_create(struct rmap *map, uint32_t table)
{
	map->blocks[table] = rmap_pool_take(&map->block_pool);
	memset(groups_of(map, table), 0xff, sizeof(struct rmap_block));
}

/* Room for @groups groups of @table, and its block. */
static bool reserve(struct rmap *map, uint32_t table, uint32_t groups)
{
	return (map->blocks[table] != RMAP_NONE || rmap_pool_reserve(&map->block_pool, 1)) &&
	       rmap_pool_reserve(&map->group_pool, groups);
}

/* A group without slots for the entries around @parent, for which room was reserved. */
static uint32_t group_create(struct rmap *map, struct rmap_entry parent)
{
	uint32_t group = rmap_pool_take(&map->group_pool);
	unsigned number = parent.index / RMAP_GROUP;

	assert(group < RMAP_NONE / RMAP_GROUP);
	if (map->blocks[parent.table] == RMAP_NONE)
		block_create(map, parent.table);
	groups_of(map, parent.table)[number] = group;
	group_at(map, group)->table = parent.table;
	group_at(map, group)->first = (uint16_t)(number * RMAP_GROUP);
	group_at(map, group)->used = 0;
	return group;
}

static void block_delete(struct rmap *map, uint32_t table)
{
	rmap_pool_put(&map->block_pool, map->blocks[table]);
	map->blocks[table] = RMAP_NONE;
}

/* The groups that @table has are written to @out, which has room for all; returns their number. */
static uint32_t groups_list(const struct rmap *map, uint32_t table, uint32_t *out)
{
	uint32_t count = 0;

	if (map->blocks[table] == RMAP_NONE)
		return 0;
	for (unsigned number = 0; number < GROUPS; number++)
		if (groups_of(map, table)[number] != RMAP_NONE)
			out[count++] = groups_of(map, table)[number];
	return count;
}

static void group_delete(struct rmap *map, uint32_t group)
{
	uint32_t table = group_at(map, group)->table;
	uint32_t others[GROUPS];

	groups_of(map, table)[group_at(map, group)->first / RMAP_GROUP] = RMAP_NONE;
	rmap_pool_put(&map->group_pool, group);
	if (!groups_list(map, table, others))
		block_delete(map, table);
}

/* Puts a slot in front of the list of @child's owners. */
static void list_insert(struct rmap *map, uint32_t slot, uint32_t child)
{
	uint32_t *head = &map->owners[child];

	*slot_at(map, slot) = (struct rmap_slot){ child, *head, RMAP_NONE };
	if (*head != RMAP_NONE)
		slot_at(map, *head)->prev = slot;
	*head = slot;
}

static void list_remove(struct rmap *map, uint32_t slot)
{
	const struct rmap_slot *owner = slot_at(map, slot);

	if (owner->prev == RMAP_NONE)
		map->owners[owner->child] = owner->next;
	else
		slot_at(map, owner->prev)->next = owner->next;
	if (owner->next != RMAP_NONE)
		slot_at(map, owner->next)->prev = owner->prev;
}

/* A slot, which is in no list yet, for an entry that has none; RMAP_NONE when memory ran out. */
static uint32_t slot_create(struct rmap *map, struct rmap_entry parent)
{
	uint32_t group = group_lookup(map, parent);

	if (group == RMAP_NONE) {
		if (!reserve(map, parent.table, 1))
			return RMAP_NONE;
		group = group_create(map, parent);
	}
	group_at(map, group)->used |= UINT32_C(1) << parent.index % RMAP_GROUP;
	return group * RMAP_GROUP + parent.index % RMAP_GROUP;
}

static void slot_delete(struct rmap *map, uint32_t slot)
{
	struct rmap_group *group = group_at(map, slot / RMAP_GROUP);

	group->used &= ~(UINT32_C(1) << slot % RMAP_GROUP);
	if (!group->used)
		group_delete(map, slot / RMAP_GROUP);
}

bool rmap_owner_add(struct rmap *map, uint32_t child, struct rmap_entry parent)
{
	uint32_t slot;

	assert(child < map->tables);
	pthread_mutex_lock(&map->lock);
	assert(slot_lookup(map, parent) == RMAP_NONE);
	slot = slot_create(map, parent);
	if (slot != RMAP_NONE)
		list_insert(map, slot, child);
	pthread_mutex_unlock(&map->lock);
	return slot != RMAP_NONE;
}

bool rmap_owner_remove(struct rmap *map, struct rmap_entry parent)
{
	uint32_t slot;

	pthread_mutex_lock(&map->lock);
	slot = slot_lookup(map, parent);
	if (slot != RMAP_NONE) {
		list_remove(map, slot);
		slot_delete(map, slot);
	}
	pthread_mutex_unlock(&map->lock);
	return slot != RMAP_NONE;
}

void rmap_owner_move(struct rmap *map, uint32_t child, struct rmap_entry parent)
{
	uint32_t slot;

	assert(child < map->tables);
	pthread_mutex_lock(&map->lock);
	slot = slot_lookup(map, parent);
	assert(slot != RMAP_NONE);
	list_remove(map, slot);
	list_insert(map, slot, child);
	pthread_mutex_unlock(&map->lock);
}

/* A group of @table, for which room was reserved, with the slots of group @from. */
static void group_copy(struct rmap *map, uint32_t from, uint32_t table)
{
	const struct rmap_group *original = group_at(map, from);
	uint32_t group = group_create(map, (struct rmap_entry){ table, original->first });

	group_at(map, group)->used = original->used;
	for (uint32_t left = original->used; left; left &= left - 1) {
		uint32_t bit = (uint32_t)__builtin_ctz(left);

		list_insert(map, group * RMAP_GROUP + bit, original->slots[bit].child);
	}
}

bool rmap_owner_copy(struct rmap *map, uint32_t from, uint32_t to)
{
	uint32_t groups[GROUPS];
	uint32_t count;
	bool room;

	assert(from < map->tables && to < map->tables);
	pthread_mutex_lock(&map->lock);
	assert(map->blocks[to] == RMAP_NONE);
	count = groups_list(map, from, groups);
	room = !count || reserve(map, to, count);
	for (uint32_t at = 0; room && at < count; at++)
		group_copy(map, groups[at], to);
	pthread_mutex_unlock(&map->lock);
	return room;
}

/* Takes all slots of a group out of their lists, and gives the group back. */
static void group_clear(struct rmap *map, uint32_t group)
{
	for (uint32_t left = group_at(map, group)->used; left; left &= left - 1)
		list_remove(map, group * RMAP_GROUP + (uint32_t)__builtin_ctz(left));
	rmap_pool_put(&map->group_pool, group);
}

void rmap_owner_clear(struct rmap *map, uint32_t table)
{
	uint32_t groups[GROUPS];
	uint32_t count;

	assert(table < map->tables);
	pthread_mutex_lock(&map->lock);
	count = groups_list(map, table, groups);
	for (uint32_t at = 0; at < count; at++)
		group_clear(map, groups[at]);
	if (count)
		block_delete(map, table);
	pthread_mutex_unlock(&map->lock);
}

size_t rmap_owner_find(struct rmap *map, uint32_t child, struct rmap_entry *out, size_t max)
{
	size_t found = 0;

	pthread_mutex_lock(&map->lock);
	for (uint32_t slot = map->owners[child]; slot != RMAP_NONE;
	     slot = slot_at(map, slot)->next) {
		if (found < max)
			out[found] = slot_entry(map, slot);
		found++;
	}
	pthread_mutex_unlock(&map->lock);
	return found;
}

bool rmap_owner_holds(struct rmap *map, uint32_t child, struct rmap_entry parent)
{
	uint32_t slot;
	bool holds;

	pthread_mutex_lock(&map->lock);
	slot = slot_lookup(map, parent);
	holds = slot != RMAP_NONE && slot_at(map, slot)->child == child;
	pthread_mutex_unlock(&map->lock);
	return holds;
}
