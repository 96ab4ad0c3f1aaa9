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

/* --- disks --- */

bool disk_open(struct disk *disk, const char *path, enum disk_access access, struct error *error)
{
	off_t bytes;

	*disk = (struct disk){ .fd = -1, .access = access, .io = disk_io_default };
	disk->name = strdup(path);
	if (!disk->name)
		return error_set(error, EXIT_FAILED, "out of memory");
	disk->fd = disk_file_open(path, access, error);
	if (disk->fd < 0)
		goto failed;
	bytes = lseek(disk->fd, 0, SEEK_END);
	if (bytes <= 0 || bytes % DISK_SECTOR) {
		error_set(error, EXIT_INPUT,
			  "%s has %lld bytes: a disk has one sector of %u bytes, or several", path,
			  (long long)bytes, DISK_SECTOR);
		goto failed;
	}
	disk->bytes = (uint64_t)bytes;
	return true;
failed:
	disk_close(disk);
	return false;
}

void disk_close(struct disk *disk)
{
	if (disk->overlay)
		overlay_close(disk);
	if (disk->fd >= 0)
		close(disk->fd);
	free(disk->name);
	*disk = (struct disk){ .fd = -1 };
}

static void check_range(const struct disk *disk, uint64_t offset, uint64_t bytes)
{
	assert(offset <= disk->bytes && bytes <= disk->bytes - offset);
}

bool disk_read(struct disk *disk, uint64_t offset, void *to, size_t bytes)
{
	check_range(disk, offset, bytes);
	if (disk->overlay)
		return overlay_read(disk, offset, to, bytes);
	return disk_transfer(disk, disk->fd, false, offset, to, bytes);
}

bool disk_write(struct disk *disk, uint64_t offset, const void *from, size_t bytes)
{
	check_range(disk, offset, bytes);
	assert(disk->access == DISK_WRITABLE);
	if (disk->overlay)
		return overlay_write(disk, offset, from, bytes);
	/* A transfer's buffer is written to only where it reads. */
	return disk_transfer(disk, disk->fd, true, offset, (void *)(uintptr_t)from, bytes);
}

bool disk_flush(struct disk *disk)
{
	assert(disk->access == DISK_WRITABLE);
	return disk->overlay ? overlay_flush(disk) : fdatasync(disk->fd) == 0;
}

/* That a host cannot do it is no failure: nobody is promised anything. */
bool disk_discard(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	check_range(disk, offset, bytes);
	assert(disk->access == DISK_WRITABLE);
	if (!bytes)
		return true;
	if (disk->overlay)
		return overlay_discard(disk, offset, bytes);
	return disk_file_zero(disk->fd, offset, bytes, DISK_FREE_SPACE) || errno == EOPNOTSUPP;
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
	if (disk->overlay ? overlay_zero(disk, offset, bytes, space)
			  : disk_file_zero(disk->fd, offset, bytes, space))
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
