// SPDX-License-Identifier: MIT
#include "memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define PAGE_BYTES 4096u

static uint64_t pages_of(uint64_t bytes)
{
	return (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
}

/* Reads one byte, because what cannot be read (a directory, say) may well be opened. */
static bool check_file(const struct memfile *file, uint64_t bytes, struct error *error)
{
	struct stat status;
	char byte;

	if (fstat(file->fd, &status) < 0)
		return error_set(error, EXIT_INPUT, "%s: %s", file->name, strerror(errno));
	if (!S_ISREG(status.st_mode))
		return error_set(error, EXIT_INPUT,
				 "%s is not a regular file: name a file, or copy its contents into one",
				 file->name);
	if (status.st_size == 0)
		return error_set(error, EXIT_INPUT,
				 "%s is empty: guests need at least one byte of memory", file->name);
	if (bytes > (uint64_t)status.st_size)
		return error_set(error, EXIT_INPUT,
				 "%s has %lld bytes, fewer than the --size of %llu: make it longer or the size smaller",
				 file->name, (long long)status.st_size, (unsigned long long)bytes);
	if (pread(file->fd, &byte, 1, 0) != 1)
		return error_set(error, EXIT_INPUT, "cannot read %s: %s", file->name,
				 strerror(errno));
	return true;
}

/* Files of hugetlbfs have pages of another size, and mappings of them whole such pages. */
static uint64_t page_bytes_of(int fd)
{
	struct statfs status;

	if (fstatfs(fd, &status) < 0 || status.f_type != HUGETLBFS_MAGIC)
		return PAGE_BYTES;
	return (uint64_t)status.f_bsize;
}

static bool map_file(struct memfile *file, struct error *error)
{
	int protection = PROT_READ | (file->writable ? PROT_WRITE : 0);

	file->pages = pages_of(file->bytes);
	file->page_bytes = page_bytes_of(file->fd);
	file->mapping_bytes = (file->pages * PAGE_BYTES + file->page_bytes - 1) /
			      file->page_bytes * file->page_bytes;
	file->mapping =
		mmap(NULL, file->mapping_bytes, protection, MAP_SHARED, file->fd, 0);
	if (file->mapping == MAP_FAILED) {
		file->mapping = NULL;
		return error_set(error, EXIT_INPUT, "cannot map %s: %s", file->name,
				 strerror(errno));
	}
	return true;
}

bool memfile_open(struct memfile *file, const char *path, uint64_t bytes, bool writable,
		  struct error *error)
{
	struct stat status;

	*file = (struct memfile){ .fd = -1, .writable = writable, .name = strdup(path) };
	if (!file->name)
		return error_set(error, EXIT_FAILED, "out of memory");
	/* A FIFO would make open() wait for a writer. */
	file->fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
	if (file->fd < 0) {
		error_set(error, EXIT_INPUT, "cannot open memory file %s%s: %s", path,
			  writable ? " for writing" : "", strerror(errno));
		memfile_close(file);
		return false;
	}
	if (!check_file(file, bytes, error) || fstat(file->fd, &status) < 0) {
		memfile_close(file);
		return false;
	}
	file->bytes = bytes ? bytes : (uint64_t)status.st_size;
	if (!map_file(file, error)) {
		memfile_close(file);
		return false;
	}
	return true;
}

bool memfile_create(struct memfile *file, const char *name, uint64_t bytes, struct error *error)
{
	*file = (struct memfile){ .writable = true, .bytes = bytes, .name = strdup(name) };
	file->fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (!file->name || file->fd < 0 || ftruncate(file->fd, (off_t)bytes) < 0) {
		error_set(error, EXIT_FAILED, "cannot make memory for %s: %s", name,
			  strerror(errno));
		memfile_close(file);
		return false;
	}
	if (!map_file(file, error)) {
		memfile_close(file);
		return false;
	}
	return true;
}

bool memfile_seal(struct memfile *file, struct error *error)
{
	/* The kernel refuses to seal against writes while a writable mapping exists. */
	munmap(file->mapping, file->mapping_bytes);
	file->mapping = NULL;
	file->writable = false;
	if (fcntl(file->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return error_set(error, EXIT_FAILED, "cannot seal %s: %s", file->name,
				 strerror(errno));
	return map_file(file, error);
}

void memfile_close(struct memfile *file)
{
	if (file->mapping)
		munmap(file->mapping, file->mapping_bytes);
	if (file->fd >= 0)
		close(file->fd);
	free(file->name);
	*file = (struct memfile){ .fd = -1 };
}

bool memfile_shrank(const struct memfile *file)
{
	struct stat status;

	return fstat(file->fd, &status) < 0 || (uint64_t)status.st_size < file->bytes;
}

bool memfile_read_page(const struct memfile *file, uint64_t page, void *to)
{
	uint64_t start = page * PAGE_BYTES;
	size_t done = 0;

	while (done < PAGE_BYTES) {
		ssize_t got = pread(file->fd, (char *)to + done, PAGE_BYTES - done,
				    (off_t)(start + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		done += (size_t)got;
	}
	memset((char *)to + done, 0, PAGE_BYTES - done);
	return done == PAGE_BYTES || start + done >= file->bytes;
}

bool memfile_write(const struct memfile *file, uint64_t offset, const void *from, uint64_t bytes)
{
	size_t done = 0;

	/* hugetlbfs has no write(). */
	if (file->page_bytes != PAGE_BYTES) {
		memcpy((char *)file->mapping + offset, from, bytes);
		return true;
	}
	while (done < bytes) {
		ssize_t put = pwrite(file->fd, (const char *)from + done, bytes - done,
				     (off_t)(offset + done));

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return false;
		done += (size_t)put;
	}
	return true;
}

void memfile_give_back(const struct memfile *file, uint64_t page, uint64_t count)
{
	posix_fadvise(file->fd, (off_t)(page * PAGE_BYTES), (off_t)(count * PAGE_BYTES),
		      POSIX_FADV_DONTNEED);
}
