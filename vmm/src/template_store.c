// SPDX-License-Identifier: MIT
/* The directory that templates are in. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "template_internal.h"

/* What directories are called that are no templates: not yet, or not any more. */
#define TEMPORARY ".s2vm-"

#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)

const char *template_directory(const char *option)
{
	const char *directory = option ? option : getenv(TEMPLATE_ENVIRONMENT);

	return directory && *directory ? directory : TEMPLATE_DIRECTORY;
}

bool template_check_name(const char *name, struct error *error)
{
	return template_name_good(name) ||
	       error_set(error, EXIT_INPUT,
			 "a template's name has up to %u letters, digits, '.', '_' and '-', and no '.' first",
			 TEMPLATE_NAME_MAX);
}

/* Makes a directory and those that it is in, as far as they are missing. */
static bool make_directories(const char *path)
{
	char *copy = strdup(path);
	bool made = copy;

	for (char *at = copy; made && at && *at;) {
		at = strchr(at + 1, '/');
		if (at)
			*at = 0;
		made = mkdir(copy, 0755) == 0 || errno == EEXIST;
		if (at)
			*at = '/';
	}
	free(copy);
	return made;
}

int template_open_parent(const char *directory, struct error *error)
{
	int fd = -1;

	if (make_directories(directory))
		fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		error_set(error, EXIT_INPUT, "cannot have templates in %s: %s", directory,
			  strerror(errno));
	return fd;
}

/* ---- removing ---- */

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static bool unlink_files(int directory, DIR *entries)
{
	const struct dirent *entry;
	bool done = true;

	while ((entry = readdir(entries)))
		if (!is_dots(entry->d_name))
			done &= unlinkat(directory, entry->d_name, 0) == 0;
	return done;
}

/* To be closed by closedir(); NULL with errno. @directory stays as it is. */
static DIR *entries_of(int directory)
{
	int fd = openat(directory, ".", OPEN_DIRECTORY);
	DIR *entries = fd < 0 ? NULL : fdopendir(fd);

	if (!entries && fd >= 0)
		close(fd);
	return entries;
}

bool template_unlink_all(int parent, const char *at, int directory)
{
	DIR *entries = entries_of(directory);
	bool done = entries && unlink_files(directory, entries);

	if (entries)
		closedir(entries);
	return done && unlinkat(parent, at, AT_REMOVEDIR) == 0;
}

/* What a process has left behind that was killed: nobody has it locked. */
static void remove_left(int parent, const char *name)
{
	int fd = openat(parent, name, OPEN_DIRECTORY);

	if (fd < 0)
		return;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		template_unlink_all(parent, name, fd);
	close(fd);
}

static void remove_all_left(int parent)
{
	DIR *entries = entries_of(parent);
	const struct dirent *entry;

	if (!entries)
		return;
	while ((entry = readdir(entries)))
		if (strncmp(entry->d_name, TEMPORARY, strlen(TEMPORARY)) == 0)
			remove_left(parent, entry->d_name);
	closedir(entries);
}

/* Whether the directory is still there: somebody may have taken it for one that was left behind. */
static bool lock_temporary(int fd)
{
	struct stat status;

	return flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &status) == 0 && status.st_nlink;
}

int template_make_temporary(int parent, char *name)
{
	remove_all_left(parent);
	for (unsigned number = 0; number < 10000; number++) {
		int fd;

		sprintf(name, TEMPORARY "%u", number);
		if (mkdirat(parent, name, 0700) < 0) {
			if (errno == EEXIST)
				continue;
			return -1;
		}
		fd = openat(parent, name, OPEN_DIRECTORY);
		if (fd >= 0 && lock_temporary(fd))
			return fd;
		if (fd >= 0)
			close(fd);
	}
	errno = EEXIST;
	return -1;
}

/* Only what a template has is removed: files, and a state among them. */
static bool looks_like_one(int directory, const char *name, struct error *error)
{
	DIR *entries = entries_of(directory);
	const struct dirent *entry;
	bool good = entries;
	struct stat status;

	while (good && (entry = readdir(entries)))
		good = is_dots(entry->d_name) ||
		       (fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
			S_ISREG(status.st_mode));
	if (entries)
		closedir(entries);
	if (!good || faccessat(directory, TEMPLATE_STATE, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return error_set(error, EXIT_INPUT,
				 "%s is no template: it has no state, or more than files; remove it yourself",
				 name);
	return true;
}

static bool cannot_remove(const char *name, struct error *error)
{
	return error_set(error, EXIT_FAILED, "cannot remove template %s: %s", name,
			 strerror(errno));
}

/*
 * It loses its name first and its files then, so that at no time a part of it has that name. The
 * new name is that of an empty directory of ours, which it replaces.
 */
static bool remove_open(int parent, const char *name, int directory, struct error *error)
{
	char temporary[16];
	int empty;
	bool done;

	if (flock(directory, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return error_set(error, EXIT_FAILED,
					 "template %s is in use: end the guests that were made from it",
					 name);
		return cannot_remove(name, error);
	}
	if (!looks_like_one(directory, name, error))
		return false;
	empty = template_make_temporary(parent, temporary);
	if (empty < 0)
		return cannot_remove(name, error);
	done = renameat(parent, name, parent, temporary) == 0 &&
	       template_unlink_all(parent, temporary, directory);
	if (!done) {
		cannot_remove(name, error);
		unlinkat(parent, temporary, AT_REMOVEDIR); /* if it is the empty one still */
	}
	close(empty);
	return done;
}

int template_open_one(int parent, const char *directory, const char *name, struct error *error)
{
	int fd = parent < 0 ? -1 : openat(parent, name, OPEN_DIRECTORY);

	if (fd >= 0)
		return fd;
	if (errno == ENOENT)
		error_set(error, EXIT_NO_SUCH, "there is no template %s in %s", name, directory);
	else
		error_set(error, EXIT_INPUT, "cannot open template %s in %s: %s", name, directory,
			  strerror(errno));
	return -1;
}

bool template_remove(const char *directory, const char *name, struct error *error)
{
	int parent, fd;
	bool done;

	if (!template_check_name(name, error))
		return false;
	parent = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = template_open_one(parent, directory, name, error);
	done = fd >= 0 && remove_open(parent, name, fd, error);
	if (fd >= 0)
		close(fd);
	if (parent >= 0)
		close(parent);
	return done;
}

/* ---- listing ---- */

static int compare(const void *a, const void *b)
{
	const struct template_info *one = a, *other = b;

	return strcmp(one->name, other->name);
}

/* Room for one more; NULL if memory is short. */
static struct template_info *add(struct template_info **infos, size_t *count)
{
	struct template_info *more = realloc(*infos, (*count + 1) * sizeof(*more));

	if (!more)
		return NULL;
	*infos = more;
	more += (*count)++;
	memset(more, 0, sizeof(*more));
	return more;
}

/* Other things may be there, too, but no template has such a name. */
static bool list_entries(int parent, const char *directory, DIR *entries,
			 struct template_info **infos, size_t *count)
{
	const struct dirent *entry;
	struct template_info *info;

	while ((entry = readdir(entries))) {
		if (!template_name_good(entry->d_name))
			continue;
		info = add(infos, count);
		if (!info)
			return false;
		strcpy(info->name, entry->d_name);
		template_look(parent, directory, info);
	}
	return true;
}

bool template_list(const char *directory, struct template_info **infos, size_t *count,
		   struct error *error)
{
	int parent = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *entries = parent < 0 ? NULL : entries_of(parent);
	bool none = !entries && errno == ENOENT;
	bool listed = false;

	*infos = NULL;
	*count = 0;
	if (entries) {
		listed = list_entries(parent, directory, entries, infos, count);
		closedir(entries);
	}
	if (parent >= 0)
		close(parent);
	if (*count)
		qsort(*infos, *count, sizeof(**infos), compare);
	return listed || none ||
	       error_set(error, EXIT_FAILED, "cannot list the templates in %s: %s", directory,
			 strerror(errno));
}
