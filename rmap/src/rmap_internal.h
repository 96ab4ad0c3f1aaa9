/* SPDX-License-Identifier: MIT */
/* Inside of the reverse map: two indexes over pools of numbered nodes, under one lock. */
#ifndef RMAP_INTERNAL_H
#define RMAP_INTERNAL_H

#include <pthread.h>

#include "rmap/rmap.h"

/* No node. Nodes are numbered from 0 in their pool. */
#define RMAP_NONE UINT32_MAX

/*
 * A growing pool of equal nodes with a free list, and a hash table of chains over it. Each node
 * begins with a struct rmap_link. Numbers instead of pointers let the pool move when it grows.
 */
struct rmap_link {
	uint32_t next; /* in the hash chain, or in the free list */
};

struct rmap_pool {
	unsigned char *nodes;
	size_t node_bytes;
	uint32_t capacity; /* nodes allocated */
	uint32_t used;	   /* nodes handed out */
	uint32_t free;	   /* first free node */
	uint32_t *buckets;
	uint32_t bucket_count; /* a power of two */
};

/*
 * All entries of one table that map one file with one phase: entry i maps page @base + i of the
 * file where bit i is set. One such node describes what a fill of a whole leaf table did.
 */
struct rmap_span {
	struct rmap_link link;
	uint32_t table;
	uint32_t file;
	uint32_t next; /* the table's next span */
	int64_t base;  /* negative where the file begins in the middle of the table */
	uint64_t bits[RMAP_ENTRIES / 64];
};

/* One entry that points at a table, in the hash by entry and in the list of the table's owners. */
struct rmap_owner {
	struct rmap_link link;
	struct rmap_entry parent;
	uint32_t child;
	uint32_t next;
	uint32_t prev;
};

struct rmap {
	pthread_mutex_t lock; /* innermost of all locks; guards everything below */
	uint32_t tables;
	uint32_t *spans;  /* by table: its first span */
	uint32_t *owners; /* by table: the first entry that points at it */
	struct rmap_pool span_pool;
	struct rmap_pool owner_pool;
};

bool rmap_pool_init(struct rmap_pool *pool, size_t node_bytes);
void rmap_pool_free(struct rmap_pool *pool);

/* The number of a free node, taken from the pool, or RMAP_NONE when memory ran out. */
uint32_t rmap_pool_take(struct rmap_pool *pool);
void rmap_pool_put(struct rmap_pool *pool, uint32_t node);
size_t rmap_pool_bytes(const struct rmap_pool *pool);

/* The hash chain of a key, which is one number already mixed from its parts. */
uint32_t *rmap_pool_chain(struct rmap_pool *pool, uint64_t key);

/* Puts a taken node in, or takes it out of, the chain of its key. */
void rmap_pool_link(struct rmap_pool *pool, uint64_t key, uint32_t node);
void rmap_pool_unlink(struct rmap_pool *pool, uint64_t key, uint32_t node);

/*
 * Gives the hash as many buckets as nodes are in use. @key_of tells a node's key. Does nothing
 * where memory is short: chains only get longer.
 */
void rmap_pool_spread(struct rmap_pool *pool, uint64_t (*key_of)(const void *node));

static inline void *rmap_pool_at(const struct rmap_pool *pool, uint32_t node)
{
	return pool->nodes + (size_t)node * pool->node_bytes;
}

#endif
