// SPDX-License-Identifier: MIT
/*
 * Overlays in memory (disk.h): a map of two levels, of which maps that have been frozen, and those
 * that go on from there, have as much in common as is still the same.
 *
 *	map      one pointer for each leaf
 *	leaf     one pointer for each of LEAF_CLUSTERS clusters: NULL where it is not here
 *	cluster  its bytes, in a chunk
 *
 * Each of the three counts its users: the disks and layers of a map, the maps of a leaf, the leaves
 * of a cluster. What has one user, all the way down, is written in place; of what has more, the
 * writer makes a copy of its own first, from the map on down. A user is added by one that is there
 * already, so a count of 1 that its only user sees does not rise.
 *
 * A chunk is memory for clusters, at a multiple of its size, so that a cluster's address tells its
 * chunk. One disk takes clusters from it, one after another and each once. Any thread gives them
 * back: their memory goes to the host at once, and the chunk with its last cluster.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "disk_internal.h"

#define LEAF_CLUSTERS  1024u
#define CHUNK_BYTES    (2u << 20)
#define CHUNK_CLUSTERS (CHUNK_BYTES / DISK_CLUSTER - 1)

/* What it is for is in its first cluster. */
struct disk_chunk {
	atomic_uint live; /* clusters in use, and one more while a disk takes some here */
	unsigned taken;	  /* the disk's own */
	atomic_uint users[CHUNK_CLUSTERS];
};

_Static_assert(sizeof(struct disk_chunk) <= DISK_CLUSTER, "clusters begin behind it");

struct leaf {
	atomic_uint users;
	unsigned char *clusters[LEAF_CLUSTERS];
};

struct disk_map {
	atomic_uint users;
	uint64_t count;
	struct leaf *leaves[];
};

/* Stand for clusters, and leaves, of zeros, and are known by their addresses. */
static const unsigned char zeros[DISK_CLUSTER];
static struct leaf zero_leaf;

static unsigned char *zero_cluster(void)
{
	return (unsigned char *)(uintptr_t)zeros;
}

/* ---- chunks ---- */

static struct disk_chunk *chunk_of(const unsigned char *cluster)
{
	return (struct disk_chunk *)((uintptr_t)cluster & ~(uintptr_t)(CHUNK_BYTES - 1));
}

static atomic_uint *users_of(const unsigned char *cluster)
{
	return &chunk_of(cluster)->users[(uintptr_t)cluster % CHUNK_BYTES / DISK_CLUSTER - 1];
}

/*
 * The last one in an area of twice the size: the next area is then below this chunk and ends where
 * it begins, so that the kernel sees one mapping. A large page would cost a disk that has one
 * cluster 2 MiB.
 */
static struct disk_chunk *chunk_make(void)
{
	char *area = mmap(NULL, 2 * CHUNK_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct disk_chunk *chunk;
	size_t before;

	if (area == MAP_FAILED)
		return NULL;
	chunk = chunk_of((unsigned char *)area + CHUNK_BYTES);
	before = (size_t)((char *)chunk - area);
	munmap(area, before);
	if (before < CHUNK_BYTES)
		munmap((char *)chunk + CHUNK_BYTES, CHUNK_BYTES - before);
	(void)madvise(chunk, CHUNK_BYTES, MADV_NOHUGEPAGE);
	atomic_init(&chunk->live, 1);
	return chunk;
}

static void chunk_put(struct disk_chunk *chunk, unsigned count)
{
	if (atomic_fetch_sub(&chunk->live, count) == count)
		munmap(chunk, CHUNK_BYTES);
}

void disk_chunk_leave(struct disk_chunk *chunk)
{
	if (chunk)
		chunk_put(chunk, 1);
}

/* ---- clusters ---- */

/* A new one of zeros. */
static unsigned char *cluster_take(struct disk *disk)
{
	struct disk_chunk *chunk = disk->chunk;
	unsigned number;

	if (!chunk || chunk->taken == CHUNK_CLUSTERS) {
		chunk = chunk_make();
		if (!chunk)
			return NULL;
		disk_chunk_leave(disk->chunk);
		disk->chunk = chunk;
	}
	number = chunk->taken++;
	atomic_init(&chunk->users[number], 1);
	atomic_fetch_add(&chunk->live, 1);
	return (unsigned char *)chunk + (number + 1) * DISK_CLUSTER;
}

/* Whether users are counted. */
static bool has_memory(const unsigned char *cluster)
{
	return cluster && cluster != zeros;
}

static void cluster_get(const unsigned char *cluster)
{
	if (has_memory(cluster))
		atomic_fetch_add_explicit(users_of(cluster), 1, memory_order_relaxed);
}

/* Clusters side by side that nobody uses any more; none are if they are in different chunks. */
struct dead {
	unsigned char *first;
	unsigned count;
};

/* The chunk is there as long as these are counted; if no others are it goes as a whole. */
static void bury(struct dead *dead)
{
	struct disk_chunk *chunk = chunk_of(dead->first);

	if (!dead->count)
		return;
	if (atomic_load(&chunk->live) > dead->count)
		(void)madvise(dead->first, (size_t)dead->count * DISK_CLUSTER, MADV_DONTNEED);
	chunk_put(chunk, dead->count);
	dead->count = 0;
}

static void cluster_put(unsigned char *cluster, struct dead *dead)
{
	if (!has_memory(cluster) || atomic_fetch_sub(users_of(cluster), 1) > 1)
		return;
	if (dead->count && cluster != dead->first + (size_t)dead->count * DISK_CLUSTER)
		bury(dead);
	if (!dead->count)
		dead->first = cluster;
	dead->count++;
}

/* ---- leaves ---- */

static void leaf_get(struct leaf *leaf)
{
	if (leaf && leaf != &zero_leaf)
		atomic_fetch_add_explicit(&leaf->users, 1, memory_order_relaxed);
}

static void leaf_put(struct leaf *leaf)
{
	struct dead dead = { 0 };

	if (!leaf || leaf == &zero_leaf || atomic_fetch_sub(&leaf->users, 1) > 1)
		return;
	for (unsigned i = 0; i < LEAF_CLUSTERS; i++)
		cluster_put(leaf->clusters[i], &dead);
	bury(&dead);
	free(leaf);
}

/* A new one of the same clusters. */
static struct leaf *leaf_copy(const struct leaf *leaf)
{
	struct leaf *copy = calloc(1, sizeof(*copy));

	if (!copy)
		return NULL;
	atomic_init(&copy->users, 1);
	for (unsigned i = 0; leaf && i < LEAF_CLUSTERS; i++) {
		copy->clusters[i] = leaf == &zero_leaf ? zero_cluster() : leaf->clusters[i];
		cluster_get(copy->clusters[i]);
	}
	return copy;
}

/* ---- maps ---- */

struct disk_map *disk_map_make(uint64_t clusters)
{
	uint64_t count = (clusters + LEAF_CLUSTERS - 1) / LEAF_CLUSTERS;
	struct disk_map *map = calloc(1, sizeof(*map) + count * sizeof(struct leaf *));

	if (!map)
		return NULL;
	atomic_init(&map->users, 1);
	map->count = count;
	return map;
}

struct disk_map *disk_map_get(struct disk_map *map)
{
	if (map)
		atomic_fetch_add_explicit(&map->users, 1, memory_order_relaxed);
	return map;
}

void disk_map_put(struct disk_map *map)
{
	if (!map || atomic_fetch_sub(&map->users, 1) > 1)
		return;
	for (uint64_t i = 0; i < map->count; i++)
		leaf_put(map->leaves[i]);
	free(map);
}

const unsigned char *disk_map_find(const struct disk_map *map, uint64_t cluster)
{
	const struct leaf *leaf = map->leaves[cluster / LEAF_CLUSTERS];

	if (leaf == &zero_leaf)
		return zeros;
	return leaf ? leaf->clusters[cluster % LEAF_CLUSTERS] : NULL;
}

/* ---- writing ---- */

static bool own_map(struct disk *disk)
{
	struct disk_map *map = disk->map;
	struct disk_map *copy;

	if (atomic_load(&map->users) == 1)
		return true;
	copy = disk_map_make(disk_clusters(disk));
	if (!copy)
		return false;
	for (uint64_t i = 0; i < map->count; i++) {
		copy->leaves[i] = map->leaves[i];
		leaf_get(copy->leaves[i]);
	}
	disk->map = copy;
	disk_map_put(map);
	return true;
}

/* Where the map has a cluster, for writing; NULL without memory. */
static unsigned char **own_place(struct disk *disk, uint64_t cluster)
{
	struct leaf **at;
	struct leaf *leaf;

	if (!own_map(disk))
		return NULL;
	at = &disk->map->leaves[cluster / LEAF_CLUSTERS];
	leaf = *at;
	if (!leaf || leaf == &zero_leaf || atomic_load(&leaf->users) > 1) {
		leaf = leaf_copy(*at);
		if (!leaf)
			return NULL;
		leaf_put(*at);
		*at = leaf;
	}
	return &leaf->clusters[cluster % LEAF_CLUSTERS];
}

static void replace(unsigned char **place, unsigned char *with)
{
	struct dead dead = { 0 };

	cluster_put(*place, &dead);
	bury(&dead);
	*place = with;
}

static void set_zero(struct disk *disk, uint64_t cluster)
{
	unsigned char **place = own_place(disk, cluster);

	if (place)
		replace(place, zero_cluster());
}

/* The last cluster of a disk may be short. */
static bool fill(struct disk *disk, uint64_t cluster, unsigned char *to)
{
	uint64_t left = disk->bytes - cluster * DISK_CLUSTER;

	return overlay_read(disk, cluster * DISK_CLUSTER, to,
			    left < DISK_CLUSTER ? (size_t)left : DISK_CLUSTER);
}

/* All within one cluster. */
static bool write_part(struct disk *disk, uint64_t offset, const void *from, size_t bytes)
{
	uint64_t cluster = offset / DISK_CLUSTER;
	unsigned char **place = own_place(disk, cluster);
	unsigned char *own;

	if (!place)
		return false;
	if (!has_memory(*place) || atomic_load(users_of(*place)) > 1) {
		own = cluster_take(disk);
		if (!own)
			return false;
		if (bytes < DISK_CLUSTER && !fill(disk, cluster, own)) {
			replace(&own, NULL);
			return false;
		}
		replace(place, own);
	}
	memcpy(*place + offset % DISK_CLUSTER, from, bytes);
	return true;
}

bool disk_map_write(struct disk *disk, uint64_t offset, const void *from, size_t bytes)
{
	const char *at = from;

	while (bytes) {
		size_t part = DISK_CLUSTER - offset % DISK_CLUSTER;

		if (part > bytes)
			part = bytes;
		if (!write_part(disk, offset, at, part))
			return false;
		offset += part;
		at += part;
		bytes -= part;
	}
	return true;
}

/* It ends with the process, and nothing before. */
bool disk_map_flush(struct disk *disk)
{
	(void)disk;
	return true;
}

/* Nobody is promised anything, so what there is no memory for stays. */
bool disk_map_discard(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	uint64_t last = (offset + bytes) / DISK_CLUSTER;
	uint64_t cluster = (offset + DISK_CLUSTER - 1) / DISK_CLUSTER;

	while (cluster < last) {
		if (!disk->map->leaves[cluster / LEAF_CLUSTERS]) {
			cluster = (cluster / LEAF_CLUSTERS + 1) * LEAF_CLUSTERS;
			continue;
		}
		if (has_memory(disk_map_find(disk->map, cluster)))
			set_zero(disk, cluster);
		cluster++;
	}
	return true;
}

/* How many clusters from @cluster on, of those before @last, are a whole leaf; 0: they are none. */
static uint64_t whole_leaf(uint64_t cluster, uint64_t last)
{
	bool whole = cluster % LEAF_CLUSTERS == 0 && last - cluster >= LEAF_CLUSTERS;

	return whole ? LEAF_CLUSTERS : 0;
}

static bool zero_whole_leaf(struct disk *disk, uint64_t cluster)
{
	struct leaf **at;

	if (!own_map(disk))
		return false;
	at = &disk->map->leaves[cluster / LEAF_CLUSTERS];
	leaf_put(*at);
	*at = &zero_leaf;
	return true;
}

bool disk_map_zero(struct disk *disk, uint64_t offset, uint64_t bytes, enum disk_space space)
{
	uint64_t cluster = offset / DISK_CLUSTER;
	uint64_t last = cluster + bytes / DISK_CLUSTER;

	(void)space; /* What is never promised need not be kept. */
	while (cluster < last) {
		uint64_t whole = whole_leaf(cluster, last);

		if (whole && !zero_whole_leaf(disk, cluster))
			return false;
		if (!whole && disk_map_find(disk->map, cluster) != zeros)
			set_zero(disk, cluster);
		if (disk_map_find(disk->map, cluster) != zeros)
			return false;
		cluster += whole ? whole : 1;
	}
	return true;
}
