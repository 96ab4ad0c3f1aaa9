/* SPDX-License-Identifier: MIT */
/*
 * Linux kernels for x86-64: what a file of one holds and where in memory it wants to be.
 *
 *	bzImage	   boot protocol 2.12 or later with a 64-bit entry (Documentation/arch/x86/boot.rst)
 *	vmlinux	   an ELF file as linked, not compressed; known by its note of an entry for PVH
 *
 * Both are entered in 64-bit mode with boot_params in rsi, which an ELF file's own entry takes too.
 */
#ifndef VMM_LINUX_IMAGE_H
#define VMM_LINUX_IMAGE_H

#include <asm/bootparam.h>
#include <stddef.h>
#include <stdint.h>

#include "blob.h"
#include "ept/addr.h"
#include "error.h"

enum linux_image_kind {
	LINUX_BZIMAGE,
	LINUX_VMLINUX,
};

#define LINUX_SEGMENTS 16

/* Bytes of the file, and where they come to, counted from the place where the kernel is loaded. */
struct linux_segment {
	uint64_t file_at;
	uint64_t bytes;
	uint64_t at;
};

struct linux_image {
	struct blob file; /* empty for linux_image_parse() */
	const char *name; /* for messages */
	const uint8_t *bytes;
	enum linux_image_kind kind;
	struct setup_header header; /* as boot_params is to begin with */
	struct linux_segment segments[LINUX_SEGMENTS];
	unsigned segment_count;
	struct gpa start;      /* where it is loaded, above 1 MiB and below 4 GiB */
	uint64_t memory_bytes; /* that it needs there, all segments included */
	uint64_t entry;	       /* counted from @start */
	uint64_t cmdline_max;  /* characters of a command line */
	uint64_t initrd_end;   /* one past the highest address of an initial RAM disk */
};

/* Reads a kernel file. */
bool linux_image_open(struct linux_image *image, const char *path, struct error *error);

/* Takes @size bytes at @bytes as a kernel file named @name; they must stay. */
bool linux_image_parse(struct linux_image *image, const void *bytes, size_t size, const char *name,
		       struct error *error);

void linux_image_close(struct linux_image *image);

#endif
