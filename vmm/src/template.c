// SPDX-License-Identifier: MIT
/* Opening a template, and checking what it has. */
#include "template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "template_internal.h"

#define SECOND_NS     UINT64_C(1000000000)
#define STAT_BLOCK    512 /* what st_blocks counts */
#define OPEN_FILE     (O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)

/* When a file's checksum is computed. */
enum trust {
	TRUST_TIMES,	/* if its time of change is another one */
	TRUST_CONTENTS, /* always */
};

/* ---- files ---- */

static bool file_at(const struct template *template, unsigned number, struct template_file *file)
{
	struct template_section section;

	if (!template_state_find(template->state, template->bytes, TEMPLATE_FILE_TAG, number,
				 &section))
		return false;
	memcpy(file, section.bytes, sizeof(*file));
	return true;
}

static bool check_contents(const struct template *template, int fd,
			   const struct template_file *file, struct error *error)
{
	uint8_t sum[TEMPLATE_SUM_BYTES];

	if (!template_file_sum(fd, file->bytes, sum))
		return error_set(error, EXIT_INPUT, "template %s: cannot read its file %s: %s",
				 template->name, file->name, strerror(errno));
	if (memcmp(sum, file->sum, sizeof(sum)) != 0)
		return error_set(error, EXIT_INPUT,
				 "template %s: its file %s has been changed: the checksum is wrong",
				 template->name, file->name);
	return true;
}

static bool check_file(const struct template *template, int fd, const struct template_file *file,
		       enum trust trust, struct error *error)
{
	struct stat status;

	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
		return error_set(error, EXIT_INPUT, "template %s: its file %s is no file",
				 template->name, file->name);
	if ((uint64_t)status.st_size != file->bytes)
		return error_set(error, EXIT_INPUT,
				 "template %s: its file %s has %lld bytes instead of %llu",
				 template->name, file->name, (long long)status.st_size,
				 (unsigned long long)file->bytes);
	if (trust == TRUST_TIMES && template_changed_ns(&status) == file->changed_ns)
		return true;
	return check_contents(template, fd, file, error);
}

static int open_file(const struct template *template, const char *name, struct error *error)
{
	int fd = openat(template->directory, name, OPEN_FILE);

	if (fd < 0 && errno == ENOENT)
		error_set(error, EXIT_INPUT, "template %s: its file %s is missing", template->name,
			  name);
	else if (fd < 0)
		error_set(error, EXIT_INPUT, "template %s: cannot open its file %s: %s",
			  template->name, name, strerror(errno));
	return fd;
}

/* From file @number on. */
static bool check_files(const struct template *template, unsigned number, enum trust trust,
			struct error *error)
{
	struct template_file file;
	bool good = true;

	for (; good && file_at(template, number, &file); number++) {
		int fd = open_file(template, file.name, error);

		good = fd >= 0 && check_file(template, fd, &file, trust, error);
		if (fd >= 0)
			close(fd);
	}
	return good;
}

/* ---- the state ---- */

static bool read_all(int fd, uint8_t *to, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t got = read(fd, to + done, bytes - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got == 0)
			errno = EIO; /* It became shorter meanwhile. */
		if (got <= 0)
			return false;
		done += (size_t)got;
	}
	return true;
}

/* What is larger than any state is not read. */
static bool read_state(struct template *template, int fd, struct error *error)
{
	struct stat status;

	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) ||
	    status.st_size > TEMPLATE_STATE_MAX)
		return error_set(error, EXIT_INPUT,
				 "template %s: its file state is no file, or larger than any state",
				 template->name);
	template->bytes = (size_t)status.st_size;
	template->state = malloc(template->bytes + 1);
	if (!template->state)
		return error_set(error, EXIT_FAILED, "out of memory");
	if (!read_all(fd, template->state, template->bytes))
		return error_set(error, EXIT_INPUT, "template %s: cannot read its file state: %s",
				 template->name, strerror(errno));
	return template_state_check(template->state, template->bytes, template->name, error);
}

static bool open_state(struct template *template, struct error *error)
{
	int fd = open_file(template, TEMPLATE_STATE, error);
	bool done = fd >= 0 && read_state(template, fd, error);

	if (fd >= 0)
		close(fd);
	return done;
}

/* ---- opening ---- */

/* It may be removed in the moment between finding and locking it. */
static bool lock(const struct template *template, struct error *error)
{
	struct stat status;

	bool locked = flock(template->directory, LOCK_SH | LOCK_NB) == 0;

	if (!locked && errno != EWOULDBLOCK)
		return error_set(error, EXIT_FAILED, "cannot lock template %s: %s", template->name,
				 strerror(errno));
	if (!locked || fstat(template->directory, &status) < 0 || !status.st_nlink)
		return error_set(error, EXIT_NO_SUCH, "template %s is being removed",
				 template->name);
	return true;
}

static bool open_directory(struct template *template, int parent, const char *directory,
			   const char *name, struct error *error)
{
	template->directory = template_open_one(parent, directory, name, error);
	if (template->directory < 0)
		return false;
	template->name = strdup(name);
	if (!template->name)
		return error_set(error, EXIT_FAILED, "out of memory");
	return lock(template, error);
}

/* What is checked is the file that is mapped. It is opened before for a line of its own. */
static bool open_memory(struct template *template, const char *directory, struct error *error)
{
	int fd = open_file(template, TEMPLATE_MEMORY, error);
	struct template_file file;
	char *path;
	bool done;

	if (fd < 0)
		return false;
	close(fd);
	if (asprintf(&path, "%s/%s/" TEMPLATE_MEMORY, directory, template->name) < 0)
		return error_set(error, EXIT_FAILED, "out of memory");
	done = file_at(template, 0, &file) &&
	       memfile_open(&template->memory, path, 0, false, error) &&
	       check_file(template, template->memory.fd, &file, TRUST_TIMES, error);
	free(path);
	return done;
}

bool template_open(struct template *template, const char *directory, const char *name,
		   struct error *error)
{
	int parent;
	bool done;

	*template = (struct template){ .directory = -1, .memory.fd = -1 };
	if (!template_check_name(name, error))
		return false;
	parent = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	done = open_directory(template, parent, directory, name, error) &&
	       open_state(template, error) && open_memory(template, directory, error) &&
	       check_files(template, 1, TRUST_TIMES, error);
	if (parent >= 0)
		close(parent);
	if (!done)
		template_close(template);
	return done;
}

void template_close(struct template *template)
{
	memfile_close(&template->memory);
	if (template->directory >= 0)
		close(template->directory);
	free(template->state);
	free(template->name);
	*template = (struct template){ .directory = -1, .memory.fd = -1 };
}

/* ---- sections ---- */

bool template_find(const struct template *template, const char *tag, uint32_t number,
		   struct template_section *section)
{
	return template_state_find(template->state, template->bytes, tag, number, section);
}

bool template_get(const struct template *template, struct template_key key, void *to, size_t count,
		  struct error *error)
{
	struct template_section section;

	if (!template_find(template, key.tag, key.number, &section))
		return error_set(error, EXIT_INPUT, "template %s has no section %s %u",
				 template->name, key.tag, key.number);
	if (section.version != key.version)
		return error_set(error, EXIT_INPUT,
				 "template %s: section %s %u has version %u, and this s2vm knows %u: make it anew",
				 template->name, key.tag, key.number, section.version, key.version);
	if (section.count != count)
		return error_set(error, EXIT_INPUT,
				 "template %s: section %s %u has %zu bytes instead of %zu",
				 template->name, key.tag, key.number, section.count, count);
	memcpy(to, section.bytes, count);
	return true;
}

uint64_t template_created_ns(const struct template *template)
{
	return ((const struct template_header *)template->state)->created_ns;
}

/* ---- verifying ---- */

/* Only its owner may set it, which is no reason to complain. */
static void set_time(const struct template *template, const struct template_file *file)
{
	struct timespec times[] = {
		{ .tv_nsec = UTIME_OMIT },
		{ (time_t)(file->changed_ns / SECOND_NS), (long)(file->changed_ns % SECOND_NS) },
	};

	utimensat(template->directory, file->name, times, AT_SYMLINK_NOFOLLOW);
}

bool template_verify(const struct template *template, struct error *error)
{
	struct template_file file;

	if (!check_files(template, 0, TRUST_CONTENTS, error))
		return false;
	for (unsigned number = 0; file_at(template, number, &file); number++)
		set_time(template, &file);
	return true;
}

/* ---- looking ---- */

/* Size, and space on the disk, of all files. */
static bool add_up(const struct template *template, struct template_info *info, struct error *error)
{
	struct template_file file;
	struct stat status;

	for (unsigned number = 0; file_at(template, number, &file); number++) {
		if (fstatat(template->directory, file.name, &status, AT_SYMLINK_NOFOLLOW) < 0)
			return error_set(error, EXIT_INPUT, "template %s: its file %s is missing",
					 template->name, file.name);
		if ((uint64_t)status.st_size != file.bytes)
			return error_set(error, EXIT_INPUT,
					 "template %s: its file %s has %lld bytes instead of %llu",
					 template->name, file.name, (long long)status.st_size,
					 (unsigned long long)file.bytes);
		if (number == 0)
			info->memory_bytes = file.bytes;
		info->disk_bytes += (uint64_t)status.st_blocks * STAT_BLOCK;
	}
	return true;
}

void template_look(int parent, const char *directory, struct template_info *info)
{
	struct template template = { .directory = -1, .memory.fd = -1 };
	struct error error;

	if (open_directory(&template, parent, directory, info->name, &error) &&
	    open_state(&template, &error) && add_up(&template, info, &error))
		info->created_ns = template_created_ns(&template);
	else
		snprintf(info->problem, sizeof(info->problem), "%.*s",
			 (int)sizeof(info->problem) - 1, error.text);
	template_close(&template);
}
