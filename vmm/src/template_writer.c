// SPDX-License-Identifier: MIT
/* Making a template. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "template_internal.h"

#define PAGE_BYTES 4096u
#define PART_PAGES 64u /* that are read or written at once */
#define SECOND_NS  UINT64_C(1000000000)

/* ---- checksums ---- */

bool template_page_is_zero(const void *page)
{
	static const unsigned char zeros[PAGE_BYTES];

	return memcmp(page, zeros, PAGE_BYTES) == 0;
}

uint64_t template_changed_ns(const struct stat *status)
{
	return (uint64_t)status->st_mtim.tv_sec * SECOND_NS + (uint64_t)status->st_mtim.tv_nsec;
}

/* Reads @bytes at @offset, filled up with zeros where the file ends. */
static bool read_part(int fd, uint64_t offset, unsigned char *to, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t got = pread(fd, to + done, bytes - done, (off_t)(offset + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return false;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	memset(to + done, 0, bytes - done);
	return true;
}

static bool sum_pages(EVP_MD_CTX *context, const unsigned char *pages, size_t bytes, uint64_t first)
{
	for (uint64_t page = 0; page * PAGE_BYTES < bytes; page++) {
		const unsigned char *at = pages + page * PAGE_BYTES;
		uint64_t number = first + page;

		if (template_page_is_zero(at))
			continue;
		if (!EVP_DigestUpdate(context, &number, sizeof(number)) ||
		    !EVP_DigestUpdate(context, at, PAGE_BYTES))
			return false;
	}
	return true;
}

/* The next page with data from @page on; pages of the file where there are none. */
static uint64_t next_page(int fd, uint64_t page, uint64_t pages)
{
	off_t data = lseek(fd, (off_t)(page * PAGE_BYTES), SEEK_DATA);

	if (data < 0)
		return errno == ENXIO ? pages : page; /* Others do not know about holes. */
	return (uint64_t)data / PAGE_BYTES;
}

static bool sum_file(int fd, uint64_t bytes, EVP_MD_CTX *context, unsigned char *part)
{
	uint64_t pages = (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
	uint64_t page = next_page(fd, 0, pages);

	while (page < pages) {
		uint64_t count = pages - page < PART_PAGES ? pages - page : PART_PAGES;

		if (!read_part(fd, page * PAGE_BYTES, part, count * PAGE_BYTES) ||
		    !sum_pages(context, part, count * PAGE_BYTES, page))
			return false;
		page = next_page(fd, page + count, pages);
	}
	return EVP_DigestUpdate(context, &bytes, sizeof(bytes));
}

bool template_file_sum(int fd, uint64_t bytes, uint8_t *sum)
{
	unsigned char *part = malloc(PART_PAGES * PAGE_BYTES);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool done;

	errno = ENOMEM; /* if libcrypto fails */
	done = part && context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) &&
	       sum_file(fd, bytes, context, part) && EVP_DigestFinal_ex(context, sum, NULL);
	EVP_MD_CTX_free(context);
	free(part);
	return done;
}

/* ---- beginning and ending ---- */

static bool failed(const struct template_writer *writer, const char *what, struct error *error)
{
	return error_set(error, EXIT_FAILED, "cannot make template %s: %s: %s", writer->name, what,
			 strerror(errno));
}

static bool exists(const struct template_writer *writer, struct error *error)
{
	return error_set(error, EXIT_INPUT,
			 "there is a template %s: choose another name, or remove it first",
			 writer->name);
}

static void free_writer(struct template_writer *writer)
{
	if (writer->directory >= 0)
		close(writer->directory);
	if (writer->parent >= 0)
		close(writer->parent);
	free(writer->name);
	free(writer->temporary);
	free(writer->path);
	free(writer->state);
	*writer = (struct template_writer){ .parent = -1, .directory = -1 };
}

/* The state begins with room for its header. */
static bool make_temporary(struct template_writer *writer, const char *directory,
			   struct error *error)
{
	writer->temporary = malloc(16);
	writer->state = calloc(1, sizeof(struct template_header));
	writer->bytes = sizeof(struct template_header);
	if (!writer->temporary || !writer->state)
		return error_set(error, EXIT_FAILED, "out of memory");
	writer->directory = template_make_temporary(writer->parent, writer->temporary);
	if (writer->directory < 0)
		return error_set(error, EXIT_FAILED, "cannot make a directory in %s: %s", directory,
				 strerror(errno));
	if (asprintf(&writer->path, "%s/%s", directory, writer->temporary) < 0) {
		writer->path = NULL;
		unlinkat(writer->parent, writer->temporary, AT_REMOVEDIR);
		return error_set(error, EXIT_FAILED, "out of memory");
	}
	return true;
}

bool template_begin(struct template_writer *writer, const char *directory, const char *name,
		    struct error *error)
{
	bool begun;

	*writer = (struct template_writer){ .parent = -1, .directory = -1 };
	if (!template_check_name(name, error))
		return false;
	writer->name = strdup(name);
	if (!writer->name)
		return error_set(error, EXIT_FAILED, "out of memory");
	writer->parent = template_open_parent(directory, error);
	begun = writer->parent >= 0;
	if (begun && faccessat(writer->parent, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		begun = exists(writer, error);
	begun = begun && make_temporary(writer, directory, error);
	if (!begun)
		free_writer(writer);
	return begun;
}

void template_abort(struct template_writer *writer)
{
	if (writer->directory >= 0)
		template_unlink_all(writer->parent, writer->temporary, writer->directory);
	free_writer(writer);
}

const char *template_path(const struct template_writer *writer)
{
	return writer->path;
}

/* ---- contents ---- */

bool template_put(struct template_writer *writer, struct template_key key, const void *bytes,
		  size_t count, struct error *error)
{
	struct template_section other;

	if (!template_tag_good(key.tag) ||
	    template_state_find(writer->state, writer->bytes, key.tag, key.number, &other))
		return error_set(error, EXIT_FAILED,
				 "cannot make template %s: section %s %u is there twice, or has no name",
				 writer->name, key.tag, key.number);
	if (count > TEMPLATE_STATE_MAX - writer->bytes || writer->sections == TEMPLATE_SECTIONS)
		return error_set(error, EXIT_FAILED,
				 "cannot make template %s: there is no room for section %s %u",
				 writer->name, key.tag, key.number);
	if (!template_state_add(&writer->state, &writer->bytes, key, bytes, count))
		return error_set(error, EXIT_FAILED, "out of memory");
	writer->sections++;
	return true;
}

static bool write_all(int fd, uint64_t offset, const unsigned char *from, size_t bytes)
{
	while (bytes) {
		ssize_t put = pwrite(fd, from, bytes, (off_t)offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return false;
		from += put;
		offset += (size_t)put;
		bytes -= (size_t)put;
	}
	return true;
}

/* Pages that are to be written together: those before @count, from page @first on. */
struct run {
	int fd;
	uint64_t bytes; /* of the file */
	uint64_t first;
	unsigned count;
	unsigned char *pages;
};

static bool end_run(struct run *run)
{
	uint64_t offset = run->first * PAGE_BYTES;
	uint64_t bytes = run->count * (uint64_t)PAGE_BYTES;

	if (bytes > run->bytes - offset)
		bytes = run->bytes - offset;
	run->count = 0;
	return write_all(run->fd, offset, run->pages, bytes);
}

static bool read_next(const struct template_memory *memory, uint64_t page, void *to)
{
	if (memory->read(memory->context, page, to))
		return true;
	errno = EIO;
	return false;
}

static bool write_pages(struct run *run, const struct template_memory *memory)
{
	for (uint64_t page = 0; page * PAGE_BYTES < memory->bytes; page++) {
		unsigned char *to = run->pages + run->count * PAGE_BYTES;

		if (!read_next(memory, page, to))
			return false;
		if (!run->count)
			run->first = page;
		if (!template_page_is_zero(to)) {
			if (++run->count < PART_PAGES)
				continue;
		}
		if (run->count && !end_run(run))
			return false;
	}
	return !run->count || end_run(run);
}

bool template_put_memory(struct template_writer *writer, const struct template_memory *memory,
			 struct error *error)
{
	struct run run = { .bytes = memory->bytes, .pages = malloc(PART_PAGES * PAGE_BYTES) };
	bool done;

	run.fd = openat(writer->directory, TEMPLATE_MEMORY, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
			0444);
	done = run.pages && run.fd >= 0 && ftruncate(run.fd, (off_t)memory->bytes) == 0 &&
	       write_pages(&run, memory);
	if (!done)
		failed(writer, "its memory", error);
	if (run.fd >= 0)
		close(run.fd);
	free(run.pages);
	return done;
}

/* Of a mapping that ends within its last page. */
struct mapping {
	const unsigned char *at;
	uint64_t bytes;
};

static bool read_mapping(void *context, uint64_t page, void *to)
{
	const struct mapping *mapping = context;
	uint64_t left = mapping->bytes - page * PAGE_BYTES;

	memset(to, 0, PAGE_BYTES);
	memcpy(to, mapping->at + page * PAGE_BYTES, left < PAGE_BYTES ? left : PAGE_BYTES);
	return true;
}

bool template_put_mapping(struct template_writer *writer, const void *mapping, uint64_t bytes,
			  struct error *error)
{
	struct mapping context = { mapping, bytes };
	struct template_memory memory = { bytes, read_mapping, &context };

	return template_put_memory(writer, &memory, error);
}

/* ---- finishing ---- */

/* Says what file @fd is from now on, and makes it so. */
static bool describe(int fd, const char *name, struct template_file *file)
{
	struct stat status;

	memset(file, 0, sizeof(*file));
	if (fchmod(fd, 0444) < 0 || fsync(fd) < 0 || fstat(fd, &status) < 0)
		return false;
	memcpy(file->name, name, strlen(name));
	file->bytes = (uint64_t)status.st_size;
	file->changed_ns = template_changed_ns(&status);
	return template_file_sum(fd, file->bytes, file->sum);
}

static bool take_file(struct template_writer *writer, const char *name, unsigned number,
		      struct error *error)
{
	struct template_key key = { TEMPLATE_FILE_TAG, number, TEMPLATE_FILE_VERSION };
	int fd = openat(writer->directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct template_file file;
	bool done;

	done = fd >= 0 && describe(fd, name, &file);
	if (!done)
		failed(writer, name, error);
	if (fd >= 0)
		close(fd);
	return done && template_put(writer, key, &file, sizeof(file), error);
}

static bool file_name_good(const char *name)
{
	return template_name_good(name) && strlen(name) < TEMPLATE_NAME_MAX &&
	       strcmp(name, TEMPLATE_STATE) != 0;
}

/* All files but the memory, which comes first. */
static bool take_entries(struct template_writer *writer, DIR *entries, struct error *error)
{
	const struct dirent *entry;
	unsigned number = 1;

	while ((entry = readdir(entries))) {
		const char *name = entry->d_name;

		if (strcmp(name, TEMPLATE_MEMORY) == 0 || strcmp(name, ".") == 0 ||
		    strcmp(name, "..") == 0)
			continue;
		if (!file_name_good(name) || number == TEMPLATE_FILES)
			return error_set(error, EXIT_FAILED,
					 "cannot make template %s: it cannot have a file %s",
					 writer->name, name);
		if (!take_file(writer, name, number++, error))
			return false;
	}
	return true;
}

static bool take_files(struct template_writer *writer, struct error *error)
{
	int fd = openat(writer->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
	bool done;

	if (!entries) {
		if (fd >= 0)
			close(fd);
		return failed(writer, "its directory", error);
	}
	done = take_file(writer, TEMPLATE_MEMORY, 0, error) && take_entries(writer, entries, error);
	closedir(entries);
	return done;
}

static bool write_state(struct template_writer *writer, struct error *error)
{
	struct template_header *header = (struct template_header *)writer->state;
	struct timespec now;
	bool done;
	int fd;

	clock_gettime(CLOCK_REALTIME, &now);
	header->created_ns = (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
	if (!template_state_seal(writer->state, writer->bytes))
		return error_set(error, EXIT_FAILED, "template %s: no checksum can be computed",
				 writer->name);
	fd = openat(writer->directory, TEMPLATE_STATE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
		    0444);
	done = fd >= 0 && write_all(fd, 0, writer->state, writer->bytes) && fchmod(fd, 0444) == 0 &&
	       fsync(fd) == 0;
	if (!done)
		failed(writer, "its state", error);
	if (fd >= 0)
		close(fd);
	return done;
}

/*
 * An empty directory of that name would be no template, and is replaced. The lock is one of a
 * reader's before others can see the directory, so that nobody finds it to be in use by a writer.
 */
static bool give_name(struct template_writer *writer, struct error *error)
{
	if (fsync(writer->directory) < 0 || flock(writer->directory, LOCK_SH) < 0)
		return failed(writer, "its directory", error);
	if (renameat(writer->parent, writer->temporary, writer->parent, writer->name) < 0) {
		if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR)
			return exists(writer, error);
		return failed(writer, "its directory", error);
	}
	if (fsync(writer->parent) < 0)
		return failed(writer, "the directory that it is in", error);
	return true;
}

bool template_finish(struct template_writer *writer, struct error *error)
{
	bool done = take_files(writer, error) && write_state(writer, error) &&
		    give_name(writer, error);

	if (done)
		free_writer(writer);
	else
		template_abort(writer);
	return done;
}
