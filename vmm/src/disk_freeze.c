// SPDX-License-Identifier: MIT
/* What a disk's contents were at one moment: to go on from, to go back to, as a file. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk_internal.h"

#define PART_CLUSTERS 64u /* that are copied at once */

struct disk_layers {
	atomic_uint users;
	struct disk_files *files;
	struct disk_map *map; /* NULL: of a disk that is only read */
	enum disk_access access;
};

struct disk_layers *disk_layers_keep(struct disk_layers *layers)
{
	atomic_fetch_add(&layers->users, 1);
	return layers;
}

void disk_layers_release(struct disk_layers *layers)
{
	if (!layers || atomic_fetch_sub(&layers->users, 1) > 1)
		return;
	disk_map_put(layers->map);
	disk_files_put(layers->files);
	free(layers);
}

const char *disk_layers_base(const struct disk_layers *layers)
{
	return layers->files->path;
}

/* ---- freezing ---- */

/* From now on its writes go to memory; those up to now are durable in its overlay file. */
static bool leave_files(struct disk *disk, struct error *error)
{
	struct disk_map *map;

	if (!disk->files->overlay)
		return error_set(
			error, EXIT_INPUT,
			"cannot freeze the disk %s, since the guest writes to that file itself: freeze one whose disks are overlays, such as one of a template or of several guests",
			disk->files->name);
	map = disk_map_make(disk_clusters(disk));
	if (!map)
		return error_set(error, EXIT_FAILED, "no memory for an overlay of %s",
				 disk->files->name);
	if (!overlay_flush(disk)) {
		error_set(error, EXIT_FAILED, "cannot freeze the overlay of %s: %s",
			  disk->files->name, strerror(errno));
		disk_map_put(map);
		return false;
	}
	disk->map = map;
	return true;
}

bool disk_freeze(struct disk *disk, struct disk_layers **layers, struct error *error)
{
	struct disk_layers *frozen = calloc(1, sizeof(*frozen));

	*layers = NULL;
	if (!frozen)
		return error_set(error, EXIT_FAILED, "out of memory");
	if (disk_writes_files(disk) && !leave_files(disk, error)) {
		free(frozen);
		return false;
	}
	atomic_init(&frozen->users, 1);
	frozen->files = disk_files_get(disk->files);
	frozen->map = disk_map_get(disk->map);
	frozen->access = disk->access;
	*layers = frozen;
	return true;
}

/* ---- going on from there, and back to there ---- */

/* Another disk of these contents. */
static void take_over(struct disk *disk, const struct disk_layers *layers)
{
	disk->files = disk_files_get(layers->files);
	disk->map = disk_map_get(layers->map);
	disk->bytes = layers->files->bytes;
	disk->access = layers->access;
}

void disk_open_layers(struct disk *disk, const struct disk_layers *layers)
{
	*disk = (struct disk){ .io = disk_io_default };
	take_over(disk, layers);
}

bool disk_go_back(struct disk *disk, const struct disk_layers *layers, struct error *error)
{
	struct disk_files *files = disk->files;
	struct disk_map *map = disk->map;

	if (disk_writes_files(disk) && !files->overlay)
		return error_set(
			error, EXIT_INPUT,
			"the disk %s cannot go back, since the guest writes to that file itself",
			files->name);
	if (disk->bytes != layers->files->bytes || disk->access != layers->access)
		return error_set(
			error, EXIT_INPUT,
			"the disk %s cannot go back to what another disk, over %s, was: it has another size, or is not written to",
			files->name, layers->files->name);
	disk_settle(disk);
	take_over(disk, layers);
	disk_map_put(map);
	disk_files_put(files);
	return true;
}

/* ---- a file of it ---- */

static bool is_zero(const unsigned char *cluster)
{
	static const unsigned char zeros[DISK_CLUSTER];

	return memcmp(cluster, zeros, DISK_CLUSTER) == 0;
}

/* Zeros take no space. */
static bool write_clusters(struct disk *to, uint64_t cluster, const unsigned char *bytes,
			   uint64_t count)
{
	for (uint64_t first = 0, end; first < count; first = end) {
		bool zero = is_zero(bytes + first * DISK_CLUSTER);

		for (end = first + 1; end < count; end++)
			if (is_zero(bytes + end * DISK_CLUSTER) != zero)
				break;
		if (zero)
			overlay_put_zeros(to, cluster + first, end - first);
		else if (!overlay_write(to, (cluster + first) * DISK_CLUSTER,
					bytes + first * DISK_CLUSTER, (end - first) * DISK_CLUSTER))
			return false;
	}
	return true;
}

/* The last cluster may be short; zeros fill it up. */
static bool read_clusters(struct disk *from, uint64_t cluster, unsigned char *bytes, uint64_t count)
{
	uint64_t offset = cluster * DISK_CLUSTER;
	uint64_t size = count * DISK_CLUSTER;

	if (size > from->bytes - offset) {
		size = from->bytes - offset;
		memset(bytes + size, 0, count * DISK_CLUSTER - size);
	}
	return disk_read(from, offset, bytes, size);
}

static bool copy_clusters(struct disk *from, struct disk *to, unsigned char *part)
{
	uint64_t clusters = disk_clusters(from);
	uint64_t end;

	for (uint64_t first = 0; first < clusters; first = end) {
		end = first + 1;
		if (!overlay_has(from, first))
			continue;
		while (end < clusters && end - first < PART_CLUSTERS && overlay_has(from, end))
			end++;
		if (!read_clusters(from, first, part, end - first) ||
		    !write_clusters(to, first, part, end - first))
			return false;
	}
	return true;
}

static bool copy(struct disk *from, struct disk *to)
{
	unsigned char *part = malloc(PART_CLUSTERS * DISK_CLUSTER);
	bool done = part && copy_clusters(from, to, part);

	free(part);
	return done;
}

/* The name of a new file is durable when its directory is. */
static bool sync_directory(const char *path)
{
	char *copy_of_path = strdup(path);
	int fd = -1;
	bool done;

	if (copy_of_path)
		fd = open(dirname(copy_of_path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	done = fd >= 0 && fsync(fd) == 0;
	if (fd >= 0)
		close(fd);
	free(copy_of_path);
	return done;
}

/* An overlay of it would show what was written to the base since in between. */
static bool check_base(const struct disk_files *files, struct error *error)
{
	struct stat status;

	if (fstat(files->fd, &status) < 0)
		return error_set(error, EXIT_FAILED, "%s: %s", files->name, strerror(errno));
	if (status.st_mtim.tv_sec != files->changed.tv_sec ||
	    status.st_mtim.tv_nsec != files->changed.tv_nsec)
		return error_set(
			error, EXIT_INPUT,
			"%s has been written to since it was opened as a disk: nothing can be an overlay of it as it was",
			files->name);
	return true;
}

/* Closes @fd. */
static bool write_file(const struct disk_layers *layers, const char *path, int fd,
		       struct error *error)
{
	struct disk from = {
		.files = layers->files,
		.map = layers->map,
		.bytes = layers->files->bytes,
		.access = DISK_READ_ONLY,
		.io = disk_io_default,
	};
	/* The base alone, and then the new file over it. */
	struct disk_files files = {
		.name = layers->files->name,
		.fd = layers->files->fd,
		.bytes = layers->files->bytes,
		.changed = layers->files->changed,
	};
	struct disk to = {
		.files = &files,
		.bytes = from.bytes,
		.access = DISK_WRITABLE,
		.io = disk_io_default,
	};
	bool done;

	done = overlay_begin(&to, fd, path, error);
	if (done) {
		done = copy(&from, &to) && overlay_finish(&to) && sync_directory(path);
		if (!done)
			error_set(error, EXIT_FAILED, "cannot write the overlay %s: %s", path,
				  strerror(errno));
	}
	overlay_close_all(&files);
	return done;
}

bool disk_export(const struct disk_layers *layers, const char *path, struct error *error)
{
	int fd;

	if (!check_base(layers->files, error))
		return false;
	fd = overlay_make_file(path, error);
	if (fd < 0)
		return false;
	if (write_file(layers, path, fd, error))
		return true;
	unlink(path);
	return false;
}
