// SPDX-License-Identifier: MIT
#include "disk_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* --- files --- */

static bool transfer_one(const struct disk_transfer *transfer)
{
	struct iovec part = { transfer->buffer, transfer->bytes };
	off_t offset = (off_t)transfer->offset;

	while (part.iov_len) {
		ssize_t done = transfer->write ? pwritev(transfer->fd, &part, 1, offset)
					       : preadv(transfer->fd, &part, 1, offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done == 0)
			errno = EIO; /* The file was cut off. */
		if (done <= 0)
			return false;
		part.iov_base = (char *)part.iov_base + done;
		part.iov_len -= (size_t)done;
		offset += done;
	}
	return true;
}

static bool run_plain(const struct disk_transfer *transfers, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!transfer_one(&transfers[i]))
			return false;
	return true;
}

const struct disk_io disk_io_plain = { .run = run_plain };

const struct disk_io *disk_io_default = &disk_io_uring;

bool disk_transfer(const struct disk *disk, int fd, bool write, uint64_t offset, void *buffer,
		   size_t bytes)
{
	struct disk_transfer transfer = { fd, write, offset, buffer, bytes };

	return disk->io->run(&transfer, 1);
}

bool disk_file_lock(int fd, const char *path, enum disk_access access, struct error *error)
{
	struct flock lock = {
		.l_type = access == DISK_WRITABLE ? F_WRLCK : F_RDLCK,
		.l_whence = SEEK_SET,
	};

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return true;
	if (errno == EAGAIN || errno == EACCES)
		return error_set(error, EXIT_INPUT,
				 "%s is in use as a disk: stop who has it, or make an overlay of it that nobody else writes",
				 path);
	return error_set(error, EXIT_FAILED, "cannot lock %s: %s", path, strerror(errno));
}

static bool check_file(int fd, const char *path, struct error *error)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return error_set(error, EXIT_INPUT, "%s: %s", path, strerror(errno));
	if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
		return error_set(error, EXIT_INPUT,
				 "%s is neither a file nor a block device: a disk is one of them",
				 path);
	return true;
}

int disk_file_open(const char *path, enum disk_access access, struct error *error)
{
	bool writable = access == DISK_WRITABLE;
	/* A FIFO would make open() wait for a writer. */
	int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		error_set(error, EXIT_INPUT, "cannot open disk %s%s: %s", path,
			  writable ? " for writing" : "", strerror(errno));
		return -1;
	}
	if (!check_file(fd, path, error) || !disk_file_lock(fd, path, access, error)) {
		close(fd);
		return -1;
	}
	return fd;
}

bool disk_file_zero(int fd, uint64_t offset, uint64_t bytes, enum disk_space space)
{
	int how = space == DISK_FREE_SPACE ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

	return fallocate(fd, how | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes) == 0;
}

/* --- the files of a disk --- */

/* What has no path any more, such as a file that has been removed, keeps the one given. */
static bool name_files(struct disk_files *files, const char *path, struct error *error)
{
	files->name = strdup(path);
	files->path = realpath(path, NULL);
	if (!files->path)
		files->path = strdup(path);
	if (files->name && files->path)
		return true;
	return error_set(error, EXIT_FAILED, "out of memory");
}

static bool open_first(struct disk_files *files, enum disk_access access, struct error *error)
{
	struct stat status;
	off_t bytes;

	files->fd = disk_file_open(files->name, access, error);
	if (files->fd < 0)
		return false;
	bytes = lseek(files->fd, 0, SEEK_END);
	if (bytes <= 0 || bytes % DISK_SECTOR)
		return error_set(
			error, EXIT_INPUT,
			"%s has %lld bytes: a disk has one sector of %u bytes, or several",
			files->name, (long long)bytes, DISK_SECTOR);
	if (fstat(files->fd, &status) < 0)
		return error_set(error, EXIT_INPUT, "%s: %s", files->name, strerror(errno));
	files->bytes = (uint64_t)bytes;
	files->changed = status.st_mtim;
	return true;
}

static struct disk_files *files_open(const char *path, enum disk_access access, struct error *error)
{
	struct disk_files *files = calloc(1, sizeof(*files));

	if (!files) {
		error_set(error, EXIT_FAILED, "out of memory");
		return NULL;
	}
	atomic_init(&files->users, 1);
	files->fd = -1;
	if (name_files(files, path, error) && open_first(files, access, error))
		return files;
	disk_files_put(files);
	return NULL;
}

struct disk_files *disk_files_get(struct disk_files *files)
{
	atomic_fetch_add(&files->users, 1);
	return files;
}

void disk_files_put(struct disk_files *files)
{
	if (!files || atomic_fetch_sub(&files->users, 1) > 1)
		return;
	overlay_close_all(files);
	if (files->fd >= 0)
		close(files->fd);
	free(files->path);
	free(files->name);
	free(files);
}

/* --- disks --- */

bool disk_open(struct disk *disk, const char *path, enum disk_access access, struct error *error)
{
	*disk = (struct disk){ .access = access, .io = disk_io_default };
	disk->files = files_open(path, access, error);
	if (!disk->files)
		return false;
	disk->bytes = disk->files->bytes;
	return true;
}

void disk_settle(struct disk *disk)
{
	/* Nobody was promised that this is durable, and there is nobody to tell any more. */
	if (disk->files && disk->files->overlay && disk_writes_files(disk))
		(void)overlay_write_map(disk);
}

void disk_close(struct disk *disk)
{
	disk_settle(disk);
	disk_map_put(disk->map);
	disk_chunk_leave(disk->chunk);
	disk_files_put(disk->files);
	*disk = (struct disk){ 0 };
}

static bool raw_write(struct disk *disk, uint64_t offset, const void *from, size_t bytes)
{
	/* A transfer's buffer is written to only where it reads. */
	return disk_transfer(disk, disk->files->fd, true, offset, (void *)(uintptr_t)from, bytes);
}

static bool raw_flush(struct disk *disk)
{
	return fdatasync(disk->files->fd) == 0;
}

/* That a host cannot do it is no failure: nobody is promised anything. */
static bool raw_discard(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	return disk_file_zero(disk->files->fd, offset, bytes, DISK_FREE_SPACE) ||
	       errno == EOPNOTSUPP;
}

static bool raw_zero(struct disk *disk, uint64_t offset, uint64_t bytes, enum disk_space space)
{
	return disk_file_zero(disk->files->fd, offset, bytes, space);
}

/* What writing is for a disk, by where it goes. */
struct writing {
	bool (*write)(struct disk *disk, uint64_t offset, const void *from, size_t bytes);
	bool (*flush)(struct disk *disk);
	bool (*discard)(struct disk *disk, uint64_t offset, uint64_t bytes);
	bool (*zero)(struct disk *disk, uint64_t offset, uint64_t bytes, enum disk_space space);
};

static const struct writing *writing_of(const struct disk *disk)
{
	static const struct writing raw = { raw_write, raw_flush, raw_discard, raw_zero };
	static const struct writing overlay = { overlay_write, overlay_flush, overlay_discard,
						overlay_zero };
	static const struct writing map = { disk_map_write, disk_map_flush, disk_map_discard,
					    disk_map_zero };

	assert(disk->access == DISK_WRITABLE);
	if (disk->map)
		return &map;
	return disk->files->overlay ? &overlay : &raw;
}

static void check_range(const struct disk *disk, uint64_t offset, uint64_t bytes)
{
	assert(offset <= disk->bytes && bytes <= disk->bytes - offset);
}

bool disk_read(struct disk *disk, uint64_t offset, void *to, size_t bytes)
{
	check_range(disk, offset, bytes);
	return overlay_read(disk, offset, to, bytes);
}

bool disk_write(struct disk *disk, uint64_t offset, const void *from, size_t bytes)
{
	check_range(disk, offset, bytes);
	return writing_of(disk)->write(disk, offset, from, bytes);
}

bool disk_flush(struct disk *disk)
{
	return writing_of(disk)->flush(disk);
}

bool disk_discard(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	check_range(disk, offset, bytes);
	return !bytes || writing_of(disk)->discard(disk, offset, bytes);
}

static bool write_zeros(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	static const unsigned char zeros[16 * DISK_CLUSTER];

	while (bytes) {
		size_t part = bytes < sizeof(zeros) ? (size_t)bytes : sizeof(zeros);

		if (!disk_write(disk, offset, zeros, part))
			return false;
		offset += part;
		bytes -= part;
	}
	return true;
}

/* Whole clusters. */
static bool zero_clusters(struct disk *disk, uint64_t offset, uint64_t bytes, enum disk_space space)
{
	if (!bytes)
		return true;
	if (writing_of(disk)->zero(disk, offset, bytes, space))
		return true;
	return write_zeros(disk, offset, bytes);
}

bool disk_zero(struct disk *disk, uint64_t offset, uint64_t bytes, enum disk_space space)
{
	uint64_t end = offset + bytes;
	uint64_t first = (offset + DISK_CLUSTER - 1) / DISK_CLUSTER * DISK_CLUSTER;
	uint64_t last = end / DISK_CLUSTER * DISK_CLUSTER;

	check_range(disk, offset, bytes);
	assert(disk->access == DISK_WRITABLE);
	if (first >= last)
		return write_zeros(disk, offset, bytes);
	return write_zeros(disk, offset, first - offset) &&
	       zero_clusters(disk, first, last - first, space) &&
	       write_zeros(disk, last, end - last);
}
