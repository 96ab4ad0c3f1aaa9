/* SPDX-License-Identifier: MIT */
/*
 * A fleet's physical memory: the one VM's memory slots and where each lies.
 *
 *	0            the gate's code, its tables, one page for each vCPU
 *	tables_at    table pages, which the gate can store to
 *	pages_at     private pages
 *	beyond       a window for each memory file, and one for spare pages, aligned to 1 GiB
 *
 * Gate, tables, private and spare pages lie in memfds, so that pages can be given back and dropped from
 * KVM's translations (MADV_DONTNEED on a shared mapping keeps the contents).
 */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "ept/addr.h"
#include "error.h"
#include "host.h"
#include "memfile.h"

/* A stretch of fleet-physical memory and where the VMM sees it. */
struct memory_area {
	struct fpa at;
	uint64_t bytes;
	unsigned char *mapping;
	int fd; /* -1: the mapping is a memory file's */
};

#define MEMORY_FILES 64

struct memory {
	int vm;
	unsigned physical_bits;
	unsigned slots;
	struct memory_area gate;
	struct memory_area tables;
	struct memory_area pages;
	struct memory_area spare; /* where pages of files can be moved to; often none */
	struct fpa hole;      /* a window without memory, */
	uint64_t hole_bytes;  /* of that size, 0 for none */
	struct fpa next_window;
	const struct memfile *files[MEMORY_FILES];
	struct fpa windows[MEMORY_FILES];
	unsigned file_count;
};

/* Makes the three areas of the given sizes, in pages, and their slots in @vm. */
bool memory_create(struct memory *memory, const struct host *host, int vm,
		   uint64_t gate_pages, uint64_t table_pages, uint64_t private_pages,
		   struct error *error);
void memory_destroy(struct memory *memory);

/* Gives @file a window, read-only in KVM unless the file is writable. It must outlive the memory. */
bool memory_add_file(struct memory *memory, const struct memfile *file, struct fpa *window,
		     struct error *error);

/*
 * Reserves a window of @pages without memory. KVM hands over each access of a guest's there, with the
 * fleet-physical address.
 */
bool memory_add_hole(struct memory *memory, uint64_t pages, struct fpa *window,
		     struct error *error);

/* Makes @pages spare pages, which KVM lets guests only read. */
bool memory_add_spare(struct memory *memory, uint64_t pages, struct error *error);
bool memory_is_spare(const struct memory *memory, struct fpa at);

/* Where the VMM sees gate, table, private or spare memory at @at. */
void *memory_at(const struct memory *memory, struct fpa at);

/*
 * Copies @bytes from fleet-physical memory that lie within one page. False if a memory file has been
 * cut off there.
 */
bool memory_read(const struct memory *memory, struct fpa from, void *to, uint64_t bytes);

/*
 * Copies @bytes to private pages or a file that guests may write to, where they lie within one page. 2, 4
 * or 8 bytes that are aligned are one access.
 */
bool memory_write(const struct memory *memory, struct fpa to, const void *from, uint64_t bytes);

/*
 * Drops all translations to [at, at + bytes), which lie in one area or file, from every vCPU. False if the
 * host refuses: they may still be there.
 */
bool memory_drop(const struct memory *memory, struct fpa at, uint64_t bytes);

/* The same for private or spare pages, and the memory goes too. */
void memory_discard(const struct memory *memory, struct fpa at, uint64_t bytes);

#endif
