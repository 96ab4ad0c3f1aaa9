// SPDX-License-Identifier: MIT
/*
 * walk: pages through stage-1 tables of its own, in which nothing is marked accessed or dirty, so that
 * the processor writes to them while it walks. They lie in memory that all guests share until it is
 * written: each guest must get its own, and find in it what its own accesses left.
 *
 * For machines only: under the direct engine a guest has no stage-1 tables.
 */
#include "guest.h"
#include "line.h"

#define PRESENT	 0x01ULL
#define WRITABLE 0x02ULL
#define ACCESSED 0x20ULL
#define DIRTY	 0x40ULL
#define LARGE	 0x80ULL
#define GIB	 (1ULL << 30)

/* Initialized, so that they lie in the program's image and not in memory that starts as zeros. */
static uint64_t gibs[512] __attribute__((aligned(4096), section(".data"))) = {
	/* The first GiB holds the program, the second the memory file; the third is never accessed. */
	[0] = 0 * GIB | PRESENT | WRITABLE | LARGE,
	[1] = 1 * GIB | PRESENT | WRITABLE | LARGE,
	[2] = 2 * GIB | PRESENT | WRITABLE | LARGE,
};
static uint64_t root[512] __attribute__((aligned(4096), section(".data"))) = {
	[0] = (uint64_t)gibs + PRESENT + WRITABLE,
};

static _Noreturn void wrong(const char *what)
{
	struct line line;

	line_start(&line);
	line_add_text(&line, what);
	line_write(&line);
	guest_exit(GUEST_WRONG);
}

_Noreturn void guest_main(uint64_t id, uint8_t *memory, uint64_t bytes, uint64_t arg,
			  uint64_t seed)
{
	volatile uint64_t *entries = gibs;

	(void)arg;
	(void)seed;
	asm volatile("mov %0, %%cr3" : : "r"(root) : "memory");
	if (entries[1] & (ACCESSED | DIRTY))
		wrong("walk: the second GiB was accessed before this guest began");
	(void)*(volatile uint8_t *)memory;
	if (!(entries[1] & ACCESSED) || (entries[1] & DIRTY))
		wrong("walk: a read did not mark its entry accessed, or marked it dirty");
	*(volatile uint8_t *)(memory + bytes - 1) = (uint8_t)id;
	if (!(entries[1] & DIRTY))
		wrong("walk: a write did not mark its entry dirty");
	if (entries[2] & (ACCESSED | DIRTY))
		wrong("walk: an entry is marked that nobody used");
	guest_result(0, 0, 0, 0);
	guest_exit(GUEST_OK);
}
