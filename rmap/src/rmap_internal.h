/* SPDX-License-Identifier: MIT */
/* Inside of the reverse map: two indexes over pools of numbered nodes, under one lock. */
#ifndef RMAP_INTERNAL_H
#define RMAP_INTERNAL_H

#include <pthread.h>

#include "rmap/rmap.h"

/* No node. Nodes are numbered from 0 in their pool. */
#define RMAP_NONE UINT32_MAX

/*
 * A growing pool of equal nodes. Numbers instead of pointers let it move when it grows. The first
 * four bytes of a free node are the number of the next one.
 */
struct rmap_pool {
	unsigned char *nodes;
	size_t node_bytes;
	uint32_t capacity; /* nodes allocated */
	uint32_t used;	   /* nodes handed out */
	uint32_t free;	   /* first free node */
};

/*
 * All entries of one table that map one file with one phase: entry i maps page @base + i of the
 * file where bit i is set. One such node describes what a fill of a whole leaf table did.
 */
struct rmap_span {
	uint32_t chain_next; /* in the hash chain */
	uint32_t chain_prev;
	uint32_t table;
	uint32_t file;
	uint32_t next; /* the table's next span */
	int64_t base;  /* negative where the file begins in the middle of the table */
	uint64_t bits[RMAP_ENTRIES / 64];
};

/* Spans by the 2 MiB of the file that their bases lie in. */
struct rmap_hash {
	uint32_t *buckets;
	uint32_t count; /* of buckets; a power of two */
};

/* Neighbouring entries of one table: as many as there are bits in a group's mask. */
#define RMAP_GROUP 32

/* An entry that points at a table. Slots are numbered through all groups of the pool. */
struct rmap_slot {
	uint32_t child;
	uint32_t next; /* in the list of the child's owners */
	uint32_t prev;
};

struct rmap_group {
	uint32_t table;
	uint16_t first; /* the index of the entry that the first slot is for */
	uint32_t used;	/* the slots whose entries point at tables; never 0 */
	struct rmap_slot slots[RMAP_GROUP];
};

/*
 * The groups of one table, for entries that point at tables. A table where few do, as is usual at
 * the upper levels, has few groups; one where none does has no block.
 */
struct rmap_block {
	uint32_t groups[RMAP_ENTRIES / RMAP_GROUP];
};

struct rmap {
	pthread_mutex_t lock; /* innermost of all locks; guards everything below */
	uint32_t tables;
	uint32_t *spans;  /* by table: its first span */
	uint32_t *blocks; /* by table: its block */
	uint32_t *owners; /* by table: the slot of the first entry that points at it */
	struct rmap_pool span_pool;
	struct rmap_hash span_hash;
	struct rmap_pool block_pool;
	struct rmap_pool group_pool;
};

/* rmap_pool.c */
void rmap_pool_init(struct rmap_pool *pool, size_t node_bytes);
void rmap_pool_free(struct rmap_pool *pool);

/* Room for @count nodes, so that taking them cannot fail; false when memory ran out. */
bool rmap_pool_reserve(struct rmap_pool *pool, uint32_t count);

/* The number of a free node, taken from the pool; what is in it is undefined. Room was reserved. */
uint32_t rmap_pool_take(struct rmap_pool *pool);
void rmap_pool_put(struct rmap_pool *pool, uint32_t node);
size_t rmap_pool_bytes(const struct rmap_pool *pool);

static inline void *rmap_pool_at(const struct rmap_pool *pool, uint32_t node)
{
	return pool->nodes + (size_t)node * pool->node_bytes;
}

/* rmap_hash.c */
bool rmap_hash_init(struct rmap_hash *hash);
void rmap_hash_free(struct rmap_hash *hash);
size_t rmap_hash_bytes(const struct rmap_hash *hash);

/* The key of spans of @file whose bases lie in the same 2 MiB as @base. */
uint64_t rmap_hash_key(uint32_t file, int64_t base);

/* The first span of the chain that spans with @key are in, and others with them. */
uint32_t rmap_hash_chain(const struct rmap *map, uint64_t key);

/* Puts span @node in, or takes it out of, the chain of its key. */
void rmap_hash_link(struct rmap *map, uint32_t node);
void rmap_hash_unlink(struct rmap *map, uint32_t node);

static inline struct rmap_span *rmap_span_at(const struct rmap *map, uint32_t node)
{
	return rmap_pool_at(&map->span_pool, node);
}

#endif
