/* SPDX-License-Identifier: MIT */
/* Between disk.c, which has raw files, and disk_overlay.c. */
#ifndef VMM_DISK_INTERNAL_H
#define VMM_DISK_INTERNAL_H

#include "disk.h"

/* Opens and locks @path, a file or block device; -1 if it cannot be had, with nothing made. */
int disk_file_open(const char *path, enum disk_access access, struct error *error);

/* Locks the whole of an open file, called @path in messages. */
bool disk_file_lock(int fd, const char *path, enum disk_access access, struct error *error);

/* Zeros in a file: with its space freed, or kept; false if there is no way but to write them. */
bool disk_file_zero(int fd, uint64_t offset, uint64_t bytes, enum disk_space space);

/* One transfer. */
bool disk_transfer(const struct disk *disk, int fd, bool write, uint64_t offset, void *buffer,
		   size_t bytes);

bool overlay_read(struct disk *disk, uint64_t offset, void *to, size_t bytes);
bool overlay_write(struct disk *disk, uint64_t offset, const void *from, size_t bytes);
bool overlay_flush(struct disk *disk);
bool overlay_discard(struct disk *disk, uint64_t offset, uint64_t bytes);

/* Whole clusters; false if there is no way but to write them. */
bool overlay_zero(struct disk *disk, uint64_t offset, uint64_t bytes, enum disk_space space);
void overlay_close(struct disk *disk);

#endif
