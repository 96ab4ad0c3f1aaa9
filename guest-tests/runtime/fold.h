/* SPDX-License-Identifier: MIT */
/*
 * A cheap sum that depends on the words' order. The guests compute it over what they read, and
 * whoever checks them computes it over the file; both include this header, and nothing else.
 */
#ifndef FOLD_H
#define FOLD_H

#include <stdint.h>

/* Start from h = 0. The multiplier, 2^64 divided by the golden ratio, is odd and well mixed. */
static inline uint64_t fold(uint64_t h, uint64_t word)
{
	h = (h ^ word) * 0x9e3779b97f4a7c15;
	return h ^ h >> 32;
}

/*
 * Which byte of a 4 KiB page the scan's word for this page starts at. It moves from page to page,
 * so that the words do not all compete for the same few lines of the CPU's cache.
 */
static inline uint64_t fold_offset(uint64_t page)
{
	return page * 64 % 4096;
}

#endif
