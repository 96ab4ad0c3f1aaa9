/* SPDX-License-Identifier: MIT */
/* Memory files: what guests map. Opened read-only for private use, so that nothing can write to them. */
#ifndef VMM_MEMFILE_H
#define VMM_MEMFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct memfile {
	char *name;	/* for messages */
	int fd;
	bool writable;
	uint64_t bytes; /* that guests see; the last page may be filled up with zeros */
	uint64_t pages;	/* of 4 KiB */
	uint64_t page_bytes;	/* of the memory behind it: more than 4 KiB on hugetlbfs */
	void *mapping;	/* of all pages, shared */
	uint64_t mapping_bytes;
};

/*
 * Opens @path. @bytes is how much of it guests see, 0 for all of it; the file must be at least as
 * long. @writable: guests' writes go to the file (mode shared).
 */
bool memfile_open(struct memfile *file, const char *path, uint64_t bytes, bool writable,
		  struct error *error);

/* A memory file of @bytes zero bytes without a path, for program images and tests. */
bool memfile_create(struct memfile *file, const char *name, uint64_t bytes, struct error *error);

/* No writes from here on, by anybody, for a file of memfile_create(). */
bool memfile_seal(struct memfile *file, struct error *error);

void memfile_close(struct memfile *file);

/* Whether the file has become shorter than what guests were promised. */
bool memfile_shrank(const struct memfile *file);

/*
 * Reads page @page to @to (4096 bytes), filled up with zeros at the file's end. False if the file
 * has been cut off before this page.
 */
bool memfile_read_page(const struct memfile *file, uint64_t page, void *to);

/* Writes @bytes bytes at @offset of a writable file, within its @file->bytes. */
bool memfile_write(const struct memfile *file, uint64_t offset, const void *from, uint64_t bytes);

/* The host may have the memory behind pages that nobody maps, where the file can be read again. */
void memfile_give_back(const struct memfile *file, uint64_t page, uint64_t count);

#endif
