// SPDX-License-Identifier: MIT
/*
 * Overlays in files (disk.h), and reading through all that a disk has. The bitmap is in memory as
 * a whole, and its pages that differ from the file's are marked; a flush makes the data durable
 * first, and then writes them.
 */
#include "disk_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC	"s2vmdisk"
#define VERSION 1
#define BATCH	32 /* transfers at once */

struct header {
	char magic[8];
	uint32_t version;
	uint32_t cluster_bytes;
	uint64_t base_bytes;
	int64_t base_changed_s; /* when it, or the overlay under this one, was written last */
	int64_t base_changed_ns;
};

struct disk_overlay {
	struct disk_overlay *under; /* what is only read; NULL: the base */
	int fd;
	uint64_t clusters;
	uint64_t data_at;
	uint64_t map_pages;
	unsigned char *map; /* a bit for each cluster, from the lowest on */
	bool *changed;	    /* for each page of the map: the file's is older */
};

/* --- the bitmap --- */

static bool is_here(const struct disk_overlay *overlay, uint64_t cluster)
{
	return overlay->map[cluster / 8] >> cluster % 8 & 1;
}

static void set_here(struct disk_overlay *overlay, uint64_t first, uint64_t count)
{
	for (uint64_t cluster = first; cluster < first + count; cluster++) {
		if (is_here(overlay, cluster))
			continue;
		overlay->map[cluster / 8] |= (unsigned char)(1u << cluster % 8);
		overlay->changed[cluster / 8 / DISK_CLUSTER] = true;
	}
}

bool overlay_write_map(struct disk *disk)
{
	const struct disk_overlay *overlay = disk->files->overlay;

	for (uint64_t page = 0; page < overlay->map_pages; page++) {
		if (!overlay->changed[page])
			continue;
		if (!disk_transfer(disk, overlay->fd, true, (page + 1) * DISK_CLUSTER,
				   overlay->map + page * DISK_CLUSTER, DISK_CLUSTER))
			return false;
	}
	return true;
}

static bool map_changed(const struct disk_overlay *overlay)
{
	return memchr(overlay->changed, true, overlay->map_pages) != NULL;
}

/* Until all of it is durable, every page of the map that has changed stays to be written. */
bool overlay_flush(struct disk *disk)
{
	struct disk_overlay *overlay = disk->files->overlay;

	if (fdatasync(overlay->fd) < 0)
		return false;
	if (!map_changed(overlay))
		return true;
	if (!overlay_write_map(disk) || fdatasync(overlay->fd) < 0)
		return false;
	memset(overlay->changed, false, overlay->map_pages);
	return true;
}

/* --- reading and writing --- */

/* Transfers that have been collected, to be run together. */
struct batch {
	const struct disk *disk;
	unsigned count;
	struct disk_transfer transfers[BATCH];
};

static bool batch_run(struct batch *batch)
{
	unsigned count = batch->count;

	batch->count = 0;
	return !count || batch->disk->io->run(batch->transfers, count);
}

static bool batch_add(struct batch *batch, struct disk_transfer transfer)
{
	if (batch->count == BATCH && !batch_run(batch))
		return false;
	batch->transfers[batch->count++] = transfer;
	return true;
}

/* The uppermost overlay file that has a cluster; NULL: it is the base's. */
static const struct disk_overlay *layer_of(const struct disk *disk, uint64_t cluster)
{
	const struct disk_overlay *overlay = disk->files->overlay;

	while (overlay && !is_here(overlay, cluster))
		overlay = overlay->under;
	return overlay;
}

static const unsigned char *in_memory(const struct disk *disk, uint64_t cluster)
{
	return disk->map ? disk_map_find(disk->map, cluster) : NULL;
}

bool overlay_has(const struct disk *disk, uint64_t cluster)
{
	return in_memory(disk, cluster) || layer_of(disk, cluster);
}

/* How many of @bytes from @offset on are in one place: a cluster in memory, or a part of a file. */
static size_t same_place(const struct disk *disk, uint64_t offset, size_t bytes)
{
	uint64_t cluster = offset / DISK_CLUSTER;
	const struct disk_overlay *layer = layer_of(disk, cluster);
	uint64_t end = (cluster + 1) * DISK_CLUSTER;

	while (!in_memory(disk, cluster) && end < offset + bytes) {
		cluster = end / DISK_CLUSTER;
		if (in_memory(disk, cluster) || layer_of(disk, cluster) != layer)
			break;
		end += DISK_CLUSTER;
	}
	return end < offset + bytes ? (size_t)(end - offset) : bytes;
}

static struct disk_transfer read_of(const struct disk *disk, uint64_t offset, void *to,
				    size_t bytes)
{
	const struct disk_overlay *layer = layer_of(disk, offset / DISK_CLUSTER);

	if (layer)
		return (struct disk_transfer){ layer->fd, false, layer->data_at + offset, to,
					       bytes };
	return (struct disk_transfer){ disk->files->fd, false, offset, to, bytes };
}

bool overlay_read(struct disk *disk, uint64_t offset, void *to, size_t bytes)
{
	struct batch batch = { .disk = disk };
	char *at = to;

	while (bytes) {
		const unsigned char *cluster = in_memory(disk, offset / DISK_CLUSTER);
		size_t part = same_place(disk, offset, bytes);

		if (cluster)
			memcpy(at, cluster + offset % DISK_CLUSTER, part);
		else if (!batch_add(&batch, read_of(disk, offset, at, part)))
			return false;
		offset += part;
		at += part;
		bytes -= part;
	}
	return batch_run(&batch);
}

/*
 * Copies a cluster from below, the last one of which may be short, so that a part of it can be
 * written.
 */
static bool bring_here(struct disk *disk, uint64_t cluster)
{
	struct disk_overlay *overlay = disk->files->overlay;
	unsigned char copy[DISK_CLUSTER] = { 0 };
	uint64_t offset = cluster * DISK_CLUSTER;
	size_t bytes = DISK_CLUSTER;

	if (is_here(overlay, cluster))
		return true;
	if (bytes > disk->bytes - offset)
		bytes = (size_t)(disk->bytes - offset);
	if (!overlay_read(disk, offset, copy, bytes) ||
	    !disk_transfer(disk, overlay->fd, true, overlay->data_at + offset, copy, sizeof(copy)))
		return false;
	set_here(overlay, cluster, 1);
	return true;
}

/* Only where a write begins or ends within a cluster is something from below needed. */
bool overlay_write(struct disk *disk, uint64_t offset, const void *from, size_t bytes)
{
	struct disk_overlay *overlay = disk->files->overlay;
	uint64_t end = offset + bytes;
	uint64_t first = offset / DISK_CLUSTER;
	uint64_t last = (end + DISK_CLUSTER - 1) / DISK_CLUSTER;

	if (!bytes)
		return true;
	if (offset % DISK_CLUSTER && !bring_here(disk, first))
		return false;
	if (end % DISK_CLUSTER && !bring_here(disk, last - 1))
		return false;
	if (!disk_transfer(disk, overlay->fd, true, overlay->data_at + offset,
			   (void *)(uintptr_t)from, bytes))
		return false;
	set_here(overlay, first, last - first);
	return true;
}

/*
 * Of what is in the overlay the space is given back; it stays there, as zeros. The base shows
 * nowhere.
 */
bool overlay_discard(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	struct disk_overlay *overlay = disk->files->overlay;
	uint64_t first = (offset + DISK_CLUSTER - 1) / DISK_CLUSTER;
	uint64_t last = (offset + bytes) / DISK_CLUSTER;

	while (first < last) {
		uint64_t end = first;

		while (end < last && is_here(overlay, end))
			end++;
		if (end > first &&
		    !disk_file_zero(overlay->fd, overlay->data_at + first * DISK_CLUSTER,
				    (end - first) * DISK_CLUSTER, DISK_FREE_SPACE) &&
		    errno != EOPNOTSUPP)
			return false;
		first = end;
		while (first < last && !is_here(overlay, first))
			first++;
	}
	return true;
}

bool overlay_zero(struct disk *disk, uint64_t offset, uint64_t bytes, enum disk_space space)
{
	struct disk_overlay *overlay = disk->files->overlay;

	if (!disk_file_zero(overlay->fd, overlay->data_at + offset, bytes, space))
		return false;
	set_here(overlay, offset / DISK_CLUSTER, bytes / DISK_CLUSTER);
	return true;
}

/* --- opening --- */

/* Of an overlay of what was written last at @changed. */
static struct header header_over(const struct disk *disk, struct timespec changed)
{
	struct header header = {
		.version = VERSION,
		.cluster_bytes = DISK_CLUSTER,
		.base_bytes = disk->bytes,
		.base_changed_s = changed.tv_sec,
		.base_changed_ns = changed.tv_nsec,
	};

	memcpy(header.magic, MAGIC, sizeof(header.magic));
	return header;
}

/* What the next layer is made for: the uppermost one up to now, called @name. */
static bool describe_under(const struct disk *disk, const char *name, struct header *header,
			   struct error *error)
{
	const struct disk_files *files = disk->files;
	struct stat status;

	if (fstat(files->overlay ? files->overlay->fd : files->fd, &status) < 0)
		return error_set(error, EXIT_INPUT, "%s: %s", name, strerror(errno));
	*header = header_over(disk, status.st_mtim);
	return true;
}

static bool allocate(struct disk *disk, struct error *error)
{
	struct disk_overlay *overlay = calloc(1, sizeof(*overlay));

	if (!overlay)
		return error_set(error, EXIT_FAILED, "out of memory");
	overlay->under = disk->files->overlay;
	disk->files->overlay = overlay;
	overlay->fd = -1;
	overlay->clusters = disk_clusters(disk);
	overlay->map_pages = (overlay->clusters / 8 + DISK_CLUSTER) / DISK_CLUSTER;
	overlay->data_at = (1 + overlay->map_pages) * DISK_CLUSTER;
	overlay->map = calloc(overlay->map_pages, DISK_CLUSTER);
	overlay->changed = calloc(overlay->map_pages, sizeof(*overlay->changed));
	if (!overlay->map || !overlay->changed)
		return error_set(error, EXIT_FAILED, "no memory for the overlay of %s",
				 disk->files->name);
	return true;
}

static uint64_t file_bytes(const struct disk_overlay *overlay)
{
	return overlay->data_at + overlay->clusters * DISK_CLUSTER;
}

static bool not_made(const char *path, struct error *error)
{
	return error_set(error, EXIT_FAILED, "cannot make the overlay %s: %s", path,
			 strerror(errno));
}

/* As long as it has to be, and empty. */
static bool set_length(const struct disk_overlay *overlay)
{
	return ftruncate(overlay->fd, (off_t)file_bytes(overlay)) == 0;
}

static bool write_header(const struct disk *disk, struct header *header)
{
	return disk_transfer(disk, disk->files->overlay->fd, true, 0, header, sizeof(*header));
}

static bool check_header(const char *path, const char *under, const struct header *is,
			 const struct header *expected, struct error *error)
{
	if (memcmp(is->magic, expected->magic, sizeof(is->magic)) != 0)
		return error_set(error, EXIT_INPUT,
				 "%s is no overlay: name one, an empty file, or a new one", path);
	if (is->version != expected->version || is->cluster_bytes != expected->cluster_bytes)
		return error_set(error, EXIT_INPUT, "%s is an overlay of version %u, not %u", path,
				 is->version, expected->version);
	if (memcmp(is, expected, sizeof(*is)) != 0)
		return error_set(error, EXIT_INPUT,
				 "%s is not an overlay of %s as it is now: that was written to, or it is another one",
				 path, under);
	return true;
}

static bool load(struct disk *disk, const char *path, const char *under,
		 const struct header *expected, struct error *error)
{
	struct disk_overlay *overlay = disk->files->overlay;
	struct header header = { 0 };

	/* What is too short is none, whatever else it is. */
	if (!disk_transfer(disk, overlay->fd, false, 0, &header, sizeof(header)))
		memset(&header, 0, sizeof(header));
	if (!check_header(path, under, &header, expected, error))
		return false;
	if (lseek(overlay->fd, 0, SEEK_END) < (off_t)file_bytes(overlay))
		return error_set(error, EXIT_INPUT, "the overlay %s has been cut off", path);
	if (!disk_transfer(disk, overlay->fd, false, DISK_CLUSTER, overlay->map,
			   overlay->map_pages * DISK_CLUSTER))
		return error_set(error, EXIT_FAILED, "cannot read %s: %s", path, strerror(errno));
	return true;
}

int overlay_make_file(const char *path, struct error *error)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	int reason = errno;

	if (fd < 0) {
		error_set(error, EXIT_INPUT, "cannot make the overlay %s: %s", path,
			  strerror(reason));
		errno = reason;
		return -1;
	}
	if (disk_file_lock(fd, path, DISK_WRITABLE, error))
		return fd;
	unlink(path);
	close(fd);
	errno = EAGAIN;
	return -1;
}

/* Makes the file if there is none; *made says so. */
static int open_file(const char *path, bool *made, struct error *error)
{
	int fd = overlay_make_file(path, error);

	*made = fd >= 0;
	if (fd < 0 && errno == EEXIST)
		return disk_file_open(path, DISK_WRITABLE, error);
	return fd;
}

/* An overlay that is only read from now on, over layer @under. */
static bool open_frozen(struct disk *disk, const char *path, const char *under, struct error *error)
{
	struct header header;

	if (!describe_under(disk, under, &header, error) || !allocate(disk, error))
		return false;
	disk->files->overlay->fd = disk_file_open(path, DISK_READ_ONLY, error);
	return disk->files->overlay->fd >= 0 && load(disk, path, under, &header, error);
}

static bool open_overlay(struct disk *disk, const char *path, const char *under,
			 struct error *error)
{
	struct header header;
	bool made;
	bool good;

	if (!describe_under(disk, under, &header, error) || !allocate(disk, error))
		return false;
	disk->files->overlay->fd = open_file(path, &made, error);
	if (disk->files->overlay->fd < 0)
		return false;
	if (lseek(disk->files->overlay->fd, 0, SEEK_END) == 0)
		good = (set_length(disk->files->overlay) && write_header(disk, &header)) ||
		       not_made(path, error);
	else
		good = load(disk, path, under, &header, error);
	if (!good && made)
		unlink(path);
	return good;
}

static bool open_top(struct disk *disk, const char *path, const char *under, struct error *error)
{
	if (path)
		return open_overlay(disk, path, under, error);
	disk->map = disk_map_make(disk_clusters(disk));
	return disk->map || error_set(error, EXIT_FAILED, "no memory for an overlay of %s", under);
}

bool disk_open_overlays(struct disk *disk, const char *const *layers, unsigned count,
			const char *overlay, struct error *error)
{
	bool good = disk_open(disk, layers[0], DISK_READ_ONLY, error);

	if (!good)
		return false;
	for (unsigned i = 1; good && i < count; i++)
		good = open_frozen(disk, layers[i], layers[i - 1], error);
	if (!good || !open_top(disk, overlay, layers[count - 1], error)) {
		disk_close(disk);
		return false;
	}
	disk->access = DISK_WRITABLE;
	return true;
}

bool disk_open_overlay(struct disk *disk, const char *base, const char *overlay,
		       struct error *error)
{
	return disk_open_overlays(disk, &base, 1, overlay, error);
}

void overlay_close_all(struct disk_files *files)
{
	while (files->overlay) {
		struct disk_overlay *overlay = files->overlay;

		files->overlay = overlay->under;
		if (overlay->fd >= 0)
			close(overlay->fd);
		free(overlay->changed);
		free(overlay->map);
		free(overlay);
	}
}

/* --- new ones, of which nobody knows before they are complete --- */

bool overlay_begin(struct disk *disk, int fd, const char *path, struct error *error)
{
	if (!allocate(disk, error)) {
		close(fd);
		return false;
	}
	disk->files->overlay->fd = fd;
	return set_length(disk->files->overlay) || not_made(path, error);
}

void overlay_put_zeros(struct disk *disk, uint64_t cluster, uint64_t count)
{
	set_here(disk->files->overlay, cluster, count);
}

bool overlay_finish(struct disk *disk)
{
	struct header header = header_over(disk, disk->files->changed);

	return overlay_flush(disk) && write_header(disk, &header) &&
	       fsync(disk->files->overlay->fd) == 0;
}
