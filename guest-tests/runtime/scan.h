/* SPDX-License-Identifier: MIT */
/* Reading a memory file: one word of every page, so that each page's translation is needed. */
#ifndef SCAN_H
#define SCAN_H

#include "fold.h"
#include "guest.h"

/*
 * The reads are volatile, since each scan must read again. The assembly hides from the compiler
 * that h starts from 0, and what else it could keep ready beside the offset: it would run out of
 * registers that need not be saved, and the saving would write to the stack, which scan.c must not.
 */
static GUEST_INLINE uint64_t scan_memory(const uint8_t *memory, uint64_t bytes)
{
	uint64_t h;

	asm volatile("xor %k0, %k0" : "=r"(h) : : "cc");
	for (uint64_t offset = 0; offset < bytes; offset += GUEST_PAGE) {
		uint64_t place = offset + fold_offset(offset / GUEST_PAGE);

		h = fold(h, *(const volatile uint64_t *)(memory + place));
		asm volatile("" : "+r"(offset));
	}
	return h;
}

#endif
