/* SPDX-License-Identifier: MIT */
/*
 * Formats of table entries, as data. The engine knows none of their bits: it asks for an entry that
 * points at a table or at a page and grants given rights, and asks an entry what it grants.
 *
 * In every format an entry that is not present is 0 as a whole, so that no stale address is left for
 * speculation to follow (CVE-2018-3646).
 */
#ifndef EPT_FORMAT_H
#define EPT_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "ept/addr.h"

/* Rights that an entry grants, or that an access needs. */
enum ept_rights {
	EPT_READ = 1,
	EPT_WRITE = 2,
	EPT_EXEC = 4,
};

/* Bits that are set where a right is granted, and bits that are set where it is not. */
struct ept_right_bits {
	uint64_t granted;
	uint64_t denied;
};

struct ept_format {
	const char *name;
	uint64_t table_bits; /* set in every entry that points at a table, accessed included */
	uint64_t leaf_bits;  /* set in every entry that maps a page; accessed and dirty included, or
				the processor would write to shared tables */
	uint64_t accessed_bit; /* in every leaf entry: set again by who walks it */
	uint64_t large_bit;  /* set besides in an entry of a PD that maps 2 MiB at once */
	struct ept_right_bits write;
	struct ept_right_bits exec;
	unsigned address_shift; /* of a page's number within an entry */
};

#define EPT_ADDRESS_BITS 40 /* of a page's number: addresses of up to 52 bits */

extern const struct ept_format ept_format_ept;
extern const struct ept_format ept_format_npt;

/* Like no processor's: for tests, where a bit that somebody wrote by hand then shows. */
extern const struct ept_format ept_format_scrambled;

static inline uint64_t ept_right_encode(struct ept_right_bits bits, bool granted)
{
	return granted ? bits.granted : bits.denied;
}

static inline uint64_t ept_address_encode(const struct ept_format *format, struct fpa at)
{
	return at.v >> EPT_PAGE_SHIFT << format->address_shift;
}

/* An entry for a table at @at. Only EPT_WRITE of @rights matters: leaves restrict the rest. */
static inline uint64_t ept_entry_table(const struct ept_format *format, struct fpa at,
				       unsigned rights)
{
	return ept_address_encode(format, at) | format->table_bits |
	       ept_right_encode(format->write, rights & EPT_WRITE) |
	       ept_right_encode(format->exec, true);
}

/* An entry of a PT for the 4 KiB page at @at. */
static inline uint64_t ept_entry_leaf(const struct ept_format *format, struct fpa at,
				      unsigned rights)
{
	return ept_address_encode(format, at) | format->leaf_bits |
	       ept_right_encode(format->write, rights & EPT_WRITE) |
	       ept_right_encode(format->exec, rights & EPT_EXEC);
}

/* An entry of a PD for the 2 MiB at @at, a multiple of that. */
static inline uint64_t ept_entry_large_leaf(const struct ept_format *format, struct fpa at,
					    unsigned rights)
{
	return ept_entry_leaf(format, at, rights) | format->large_bit;
}

/* Whether a present entry of a table of @level maps memory, and not a table. */
static inline bool ept_entry_is_leaf(const struct ept_format *format, unsigned level,
				     uint64_t entry)
{
	return level == 1 || (level == EPT_LARGE_LEVEL && (entry & format->large_bit));
}

static inline bool ept_entry_present(uint64_t entry)
{
	return entry != 0;
}

static inline struct fpa ept_entry_target(const struct ept_format *format, uint64_t entry)
{
	uint64_t mask = (UINT64_C(1) << EPT_ADDRESS_BITS) - 1;

	return (struct fpa){ (entry >> format->address_shift & mask) << EPT_PAGE_SHIFT };
}

static inline bool ept_right_granted(struct ept_right_bits bits, uint64_t entry)
{
	return (entry & bits.granted) == bits.granted && !(entry & bits.denied);
}

/* The rights that a present entry grants; those of a whole path are the intersection. */
static inline unsigned ept_entry_rights(const struct ept_format *format, uint64_t entry)
{
	return EPT_READ | (ept_right_granted(format->write, entry) ? EPT_WRITE : 0) |
	       (ept_right_granted(format->exec, entry) ? EPT_EXEC : 0);
}

static inline bool ept_entry_writable(const struct ept_format *format, uint64_t entry)
{
	return ept_entry_rights(format, entry) & EPT_WRITE;
}

/* The same entry with the right to write granted, or taken away. */
static inline uint64_t ept_entry_with_write(const struct ept_format *format, uint64_t entry,
					    bool granted)
{
	return (entry & ~(format->write.granted | format->write.denied)) |
	       ept_right_encode(format->write, granted);
}

#endif
