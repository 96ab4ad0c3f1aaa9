/* SPDX-License-Identifier: MIT */
/*
 * What is behind a disk of a guest's: a raw file (or block device), or a base that is never written
 * and an overlay that has what was. Whoever opens one has it locked (F_OFD_SETLK: also against
 * other opens in this process): shared for what is only read, exclusive for what is written.
 *
 * An overlay is one sparse file:
 *
 *	0                  header: what it is an overlay of
 *	DISK_CLUSTER       bitmap, one bit for each cluster of the disk that is here
 *	data_at            the clusters, each at its place
 *
 * Data is made durable before the bits that say that it is here, so what was flushed stays, and
 * what was not is as new or as before, for each cluster. A base that has changed since the overlay
 * was made is refused, also one that is an overlay.
 *
 * A disk has no lock of its own: it belongs to one device (device.h).
 */
#ifndef VMM_DISK_H
#define VMM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define DISK_SECTOR  512u
#define DISK_CLUSTER 4096u

/* One read or write of a file, all of it. */
struct disk_transfer {
	int fd;
	bool write;
	uint64_t offset;
	void *buffer;
	size_t bytes;
};

/* How files are read and written. */
struct disk_io {
	/* Does all of these, in any order, and returns when all are done; false if one failed. */
	bool (*run)(const struct disk_transfer *transfers, unsigned count);
};

/* By preadv() and pwritev(), one after another. */
extern const struct disk_io disk_io_plain;

/* By io_uring, several at once; as disk_io_plain where the kernel has none or does not let us. */
extern const struct disk_io disk_io_uring;

/* What disks have that are opened from now on: disk_io_uring unless somebody sets another. */
extern const struct disk_io *disk_io_default;

enum disk_access {
	DISK_READ_ONLY,
	DISK_WRITABLE,
};

struct disk_overlay;

struct disk {
	char *name; /* for messages */
	int fd;	    /* of the raw file, or of the base */
	uint64_t bytes;
	enum disk_access access;
	const struct disk_io *io;
	struct disk_overlay *overlay; /* NULL for a raw file */
};

/* A raw file. On failure nothing is left open or locked. */
bool disk_open(struct disk *disk, const char *path, enum disk_access access, struct error *error);

/*
 * @base under the overlay in file @overlay, which is made if it does not exist or is empty. NULL:
 * an overlay in memory, gone with the disk. On failure there is no new file.
 */
bool disk_open_overlay(struct disk *disk, const char *base, const char *overlay,
		       struct error *error);

/*
 * The same over several layers, of which the first is the base and each other one an overlay of
 * those before it: all of them are only read, and may be under any number of disks.
 */
bool disk_open_overlays(struct disk *disk, const char *const *layers, unsigned count,
			const char *overlay, struct error *error);

/* Also writes what an overlay has in memory, as far as that can be done. */
void disk_close(struct disk *disk);

/*
 * All of these are within the disk: offset + bytes <= disk->bytes. Those that write are for
 * writable disks. False: the host failed (errno says why), and what was to be written may be old or
 * new.
 */
bool disk_read(struct disk *disk, uint64_t offset, void *to, size_t bytes);
bool disk_write(struct disk *disk, uint64_t offset, const void *from, size_t bytes);
bool disk_flush(struct disk *disk);

/*
 * What these bytes are does not matter any more; the host may have their space where that is whole.
 */
bool disk_discard(struct disk *disk, uint64_t offset, uint64_t bytes);

enum disk_space {
	DISK_KEEP_SPACE, /* where the host can do that, so that there is room for later writes */
	DISK_FREE_SPACE,
};

/* They are 0 from now on. */
bool disk_zero(struct disk *disk, uint64_t offset, uint64_t bytes, enum disk_space space);

#endif
