// SPDX-License-Identifier: MIT
/* The bits of each format. */
#include "ept/format.h"

/*
 * Intel SDM Vol. 3C, "EPT translation mechanism", formats of EPT PML4E, PDPTE, PDE and PTE: bit 0
 * read, 1 write, 2 execute, 5:3 memory type of a leaf (6 is write-back), 7 a PDE that maps 2 MiB,
 * 8 accessed, 9 dirty.
 */
const struct ept_format ept_format_ept = {
	.name = "ept",
	.table_bits = UINT64_C(1) << 0 | UINT64_C(1) << 8,
	.leaf_bits = UINT64_C(1) << 0 | UINT64_C(6) << 3 | UINT64_C(1) << 8 | UINT64_C(1) << 9,
	.accessed_bit = UINT64_C(1) << 8,
	.large_bit = UINT64_C(1) << 7,
	.write = { .granted = UINT64_C(1) << 1 },
	.exec = { .granted = UINT64_C(1) << 2 },
	.address_shift = 12,
};

/*
 * AMD APM Vol. 2, "Long-mode page translation" and "Nested paging": nested tables have the long-mode
 * format and are walked as user accesses. Bit 0 present, 1 writable, 2 user, 5 accessed, 6 dirty, 7 a
 * PDE that maps 2 MiB, 63 no-execute.
 */
const struct ept_format ept_format_npt = {
	.name = "npt",
	.table_bits = UINT64_C(1) << 0 | UINT64_C(1) << 2 | UINT64_C(1) << 5,
	.leaf_bits = UINT64_C(1) << 0 | UINT64_C(1) << 2 | UINT64_C(1) << 5 | UINT64_C(1) << 6,
	.accessed_bit = UINT64_C(1) << 5,
	.large_bit = UINT64_C(1) << 7,
	.write = { .granted = UINT64_C(1) << 1 },
	.exec = { .denied = UINT64_C(1) << 63 },
	.address_shift = 12,
};

/* Polarities reversed, the address moved, and no bit where the others have theirs. */
const struct ept_format ept_format_scrambled = {
	.name = "scrambled",
	.table_bits = UINT64_C(1) << 61,
	.leaf_bits = UINT64_C(1) << 62 | UINT64_C(1) << 3,
	.accessed_bit = UINT64_C(1) << 3,
	.large_bit = UINT64_C(1) << 57,
	.write = { .denied = UINT64_C(1) << 60 },
	.exec = { .granted = UINT64_C(1) << 59, .denied = UINT64_C(1) << 58 },
	.address_shift = 17,
};
