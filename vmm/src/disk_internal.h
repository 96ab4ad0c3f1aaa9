/* SPDX-License-Identifier: MIT */
/* Between disk.c (raw files), disk_overlay.c, disk_map.c and disk_freeze.c. */
#ifndef VMM_DISK_INTERNAL_H
#define VMM_DISK_INTERNAL_H

#include <stdatomic.h>
#include <time.h>

#include "disk.h"

struct disk_overlay;

/*
 * A raw file, or a base and the overlays of it that are files. With more than one user, nobody
 * writes to them.
 */
struct disk_files {
	atomic_uint users; /* disks and layers; the last one closes them */
	char *name;	   /* of the raw file or base, as it was given, for messages */
	char *path;	   /* the same, absolute where that can be had */
	int fd;
	uint64_t bytes;
	struct timespec changed;      /* when it was written last, as it was opened */
	struct disk_overlay *overlay; /* the uppermost one; NULL: there is none */
};

struct disk_files *disk_files_get(struct disk_files *files);
void disk_files_put(struct disk_files *files);

/* Writes what the disk's overlay file is to have of it, as far as that can be done. */
void disk_settle(struct disk *disk);

/* Whether the files themselves are what the disk's writes go to. */
static inline bool disk_writes_files(const struct disk *disk)
{
	return disk->access == DISK_WRITABLE && !disk->map;
}

static inline uint64_t disk_clusters(const struct disk *disk)
{
	return (disk->bytes + DISK_CLUSTER - 1) / DISK_CLUSTER;
}

/* Opens and locks @path, a file or block device; -1 if it cannot be had, with nothing made. */
int disk_file_open(const char *path, enum disk_access access, struct error *error);

/* Locks the whole of an open file, called @path in messages. */
bool disk_file_lock(int fd, const char *path, enum disk_access access, struct error *error);

/* Zeros in a file: with its space freed, or kept; false if there is no way but to write them. */
bool disk_file_zero(int fd, uint64_t offset, uint64_t bytes, enum disk_space space);

/* One transfer. */
bool disk_transfer(const struct disk *disk, int fd, bool write, uint64_t offset, void *buffer,
		   size_t bytes);

/* ---- overlays in files ---- */

/* Whether a cluster is in an overlay, in memory or a file, and not only in the base. */
bool overlay_has(const struct disk *disk, uint64_t cluster);

/* From memory, overlay files and base. */
bool overlay_read(struct disk *disk, uint64_t offset, void *to, size_t bytes);
bool overlay_write(struct disk *disk, uint64_t offset, const void *from, size_t bytes);
bool overlay_flush(struct disk *disk);
bool overlay_discard(struct disk *disk, uint64_t offset, uint64_t bytes);

/* Whole clusters; false if there is no way but to write them. */
bool overlay_zero(struct disk *disk, uint64_t offset, uint64_t bytes, enum disk_space space);

/* Writes bits that have changed; without a promise that they, and what they stand for, stay. */
bool overlay_write_map(struct disk *disk);
void overlay_close_all(struct disk_files *files);

/*
 * A new file for an overlay, locked; -1 if there is one already, which errno tells (EEXIST), or it
 * cannot be made.
 */
int overlay_make_file(const char *path, struct error *error);

/*
 * Puts an overlay in the new file @fd, which it owns then, over the base of @disk. Only
 * overlay_finish() says in the file that it is one, when all else is durable: until then whoever
 * opens it is refused. Clusters that are put there as zeros take no space.
 */
bool overlay_begin(struct disk *disk, int fd, const char *path, struct error *error);
void overlay_put_zeros(struct disk *disk, uint64_t cluster, uint64_t count);
bool overlay_finish(struct disk *disk);

/* ---- overlays in memory ---- */

/* An empty one; NULL without memory. */
struct disk_map *disk_map_make(uint64_t clusters);
struct disk_map *disk_map_get(struct disk_map *map);
void disk_map_put(struct disk_map *map);

/* No clusters are put here any more. */
void disk_chunk_leave(struct disk_chunk *chunk);

/* What is in a cluster; NULL: it is not here. It stays until the map's user writes or puts it. */
const unsigned char *disk_map_find(const struct disk_map *map, uint64_t cluster);

/* To disk->map, which becomes another one if it has other users. */
bool disk_map_write(struct disk *disk, uint64_t offset, const void *from, size_t bytes);
bool disk_map_flush(struct disk *disk);
bool disk_map_discard(struct disk *disk, uint64_t offset, uint64_t bytes);
bool disk_map_zero(struct disk *disk, uint64_t offset, uint64_t bytes, enum disk_space space);

#endif
