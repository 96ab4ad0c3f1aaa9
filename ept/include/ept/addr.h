/* SPDX-License-Identifier: MIT */
/*
 * Kinds of addresses, each a type of its own so that they cannot be mixed up, and the geometry of
 * four-level tables, which EPT and NPT share (Intel SDM Vol. 3C, "EPT translation mechanism"; AMD APM
 * Vol. 2, "Long-mode page translation").
 *
 * Levels are those of tables: 1 is a PT, whose entries map 4 KiB pages; 2 a PD, 3 a PDPT, 4 the
 * PML4, which is a space's root. There is no table of level 0.
 */
#ifndef EPT_ADDR_H
#define EPT_ADDR_H

#include <stdint.h>

#define EPT_PAGE_SHIFT 12
#define EPT_PAGE_BYTES 4096u
#define EPT_ENTRIES    512u
#define EPT_ROOT_LEVEL 4u

/* The level whose entries may map memory without tables of a lower level: 2 MiB at once. */
#define EPT_LARGE_LEVEL 2u

/* Guest-physical: what a guest's memory accesses are made with. */
struct gpa {
	uint64_t v;
};

/* Fleet-physical: an address in the memory of the one VM that a fleet is; what entries hold. */
struct fpa {
	uint64_t v;
};

/* Bytes that one entry, or all entries, of a table of @level translate. */
static inline uint64_t ept_entry_span(unsigned level)
{
	return UINT64_C(1) << (EPT_PAGE_SHIFT + 9 * (level - 1));
}

static inline uint64_t ept_table_span(unsigned level)
{
	return ept_entry_span(level + 1);
}

/* Which entry of a table of @level translates @gpa. */
static inline unsigned ept_entry_index(struct gpa gpa, unsigned level)
{
	return (unsigned)(gpa.v >> (EPT_PAGE_SHIFT + 9 * (level - 1))) & (EPT_ENTRIES - 1);
}

/* One past the highest guest-physical address of four levels of tables. */
#define EPT_GPA_END (UINT64_C(1) << 48)

/* One past the highest fleet-physical address that an entry can hold. */
#define EPT_FPA_END (UINT64_C(1) << 52)

#endif
