/* SPDX-License-Identifier: MIT */
/* A file as it was when it was read, whole, into memory where nobody else can change it. */
#ifndef VMM_BLOB_H
#define VMM_BLOB_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct blob {
	char *name; /* for messages */
	uint8_t *bytes;
	size_t size; /* at least 1 */
};

#define BLOB_MAX (UINT64_C(1) << 31)

/* Reads the file at @path. @what it is stands in messages, such as "kernel". */
bool blob_read(struct blob *blob, const char *path, const char *what, struct error *error);

void blob_free(struct blob *blob);

#endif
