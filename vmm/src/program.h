/* SPDX-License-Identifier: MIT */
/*
 * Guest programs. A static 64-bit ELF file becomes a memory file, its image: all of its segments and
 * a stack, once for the whole fleet, each to be mapped privately by every guest.
 */
#ifndef VMM_PROGRAM_H
#define VMM_PROGRAM_H

#include "ept/ept.h"
#include "error.h"
#include "memfile.h"

#define PROGRAM_SEGMENTS 16

struct program {
	struct memfile image;
	struct gpa entry;
	struct gpa stack_end;
	struct gpa machine_root; /* its own stage-1 tables, for svm and vmx; 0 if it has none */
	/* What to map of the image; first.file is to be filled in by who maps. */
	struct ept_region regions[PROGRAM_SEGMENTS + 1];
	unsigned region_count;
};

/* @name is the name of a program that comes with s2vm, or a path with a slash in it. */
bool program_load(struct program *program, const char *name, struct error *error);

/*
 * A program of @bytes machine code at @code, which run from their first byte, with stage-1 tables that
 * show guest-physical memory as it is.
 */
bool program_from_code(struct program *program, const void *code, size_t bytes,
		       struct error *error);

void program_unload(struct program *program);

#endif
