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
 * An overlay may also be in memory. Then what it has can be frozen, which takes as long for much as
 * for little: the disk and all that go on from there read the same clusters, and whoever writes to
 * one gets another. That does not become slower with how often it is done, since there is one map
 * for each disk, and not one for each time. A cluster goes with the last map that has it.
 *
 * A disk has no lock of its own: it belongs to one device (device.h). What several disks have in
 * common does not change, and its users are counted with atomics, so each disk may have its own
 * thread.
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

struct disk_files;
struct disk_map;
struct disk_chunk;

struct disk {
	struct disk_files *files; /* a raw file, or a base and overlays of it */
	struct disk_map *map;	  /* an overlay in memory over them; NULL: there is none */
	struct disk_chunk *chunk; /* where it puts the next clusters */
	uint64_t bytes;
	enum disk_access access;
	const struct disk_io *io;
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

/*
 * What a disk's contents were at one moment. They do not change, may be read by any number of disks
 * at the same time, without a lock, and go with the last that uses them: its holders are counted,
 * and so is each disk that goes on from there. These functions may be called by several threads for
 * the same layers. All of them want that no request of @disk is under way.
 */
struct disk_layers;

/*
 * What @disk shows now; the disk goes on in memory. Takes a flush if it has an overlay file, which
 * is not written any more from then on, and otherwise no time that grows with the disk. One that is
 * a raw file and is written to cannot be frozen. On failure @layers is NULL and @disk as it was.
 */
bool disk_freeze(struct disk *disk, struct disk_layers **layers, struct error *error);

/* One holder more, and one less; NULL is nothing. */
struct disk_layers *disk_layers_keep(struct disk_layers *layers);
void disk_layers_release(struct disk_layers *layers);

/*
 * Another disk that goes on from there in memory, and is closed as any; one that is only read if
 * the frozen one was. Takes no memory before it is written to, and cannot fail.
 */
void disk_open_layers(struct disk *disk, const struct disk_layers *layers);

/*
 * @disk shows what it showed then, or another disk of the same size and access did; what was
 * written since is dropped. That of an overlay file stays in the file, which is closed. Needs no
 * memory: what is refused (other layers, raw files that are written to) leaves the disk as it was.
 */
bool disk_go_back(struct disk *disk, const struct disk_layers *layers, struct error *error);

/* The absolute path of the base, or of the raw file; it lives as long as @layers. */
const char *disk_layers_base(const struct disk_layers *layers);

/*
 * Makes the overlay file @path, which must not exist: over the same base it shows what @layers
 * show. It is durable when this returns. On failure there is no file; of an end in between, one
 * that is refused. Any thread may do it, also while disks go on from there.
 */
bool disk_export(const struct disk_layers *layers, const char *path, struct error *error);

#endif
