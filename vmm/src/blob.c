// SPDX-License-Identifier: MIT
#include "blob.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool check_size(int fd, struct blob *blob, const char *what, struct error *error)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return error_set(error, EXIT_INPUT, "%s %s: %s", what, blob->name, strerror(errno));
	if (!S_ISREG(status.st_mode))
		return error_set(error, EXIT_INPUT,
				 "%s %s is not a regular file: name a file", what, blob->name);
	if (status.st_size == 0)
		return error_set(error, EXIT_INPUT, "%s %s is empty: copy it again", what,
				 blob->name);
	if ((uint64_t)status.st_size > BLOB_MAX)
		return error_set(error, EXIT_INPUT,
				 "%s %s has %lld bytes: more than 2 GiB are not taken", what,
				 blob->name, (long long)status.st_size);
	blob->size = (size_t)status.st_size;
	return true;
}

static bool read_all(int fd, struct blob *blob, const char *what, struct error *error)
{
	size_t done = 0;

	while (done < blob->size) {
		ssize_t got = read(fd, blob->bytes + done, blob->size - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return error_set(error, EXIT_INPUT, "cannot read %s %s: %s", what,
					 blob->name,
					 got < 0 ? strerror(errno) : "it became shorter meanwhile");
		done += (size_t)got;
	}
	return true;
}

static bool fill(int fd, struct blob *blob, const char *what, struct error *error)
{
	if (!check_size(fd, blob, what, error))
		return false;
	blob->bytes = malloc(blob->size);
	if (!blob->bytes)
		return error_set(error, EXIT_FAILED, "out of memory for %s %s of %zu bytes", what,
				 blob->name, blob->size);
	return read_all(fd, blob, what, error);
}

bool blob_read(struct blob *blob, const char *path, const char *what, struct error *error)
{
	bool good;
	int fd;

	*blob = (struct blob){ .name = strdup(path) };
	if (!blob->name)
		return error_set(error, EXIT_FAILED, "out of memory");
	/* A FIFO would make open() wait for a writer. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		error_set(error, EXIT_INPUT, "cannot open %s %s: %s", what, path, strerror(errno));
		blob_free(blob);
		return false;
	}
	good = fill(fd, blob, what, error);
	close(fd);
	if (!good)
		blob_free(blob);
	return good;
}

void blob_free(struct blob *blob)
{
	free(blob->name);
	free(blob->bytes);
	*blob = (struct blob){ 0 };
}
