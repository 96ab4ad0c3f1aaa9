/* SPDX-License-Identifier: MIT */
/*
 * The benchmark of write faults: between the marks 0 and 1 it writes one word to each of the first
 * pages of the memory file. Its result is the number of pages.
 *
 * It does not use its stack, so that every fault between the marks is one of the memory file's.
 * check-writes looks for it in the program's instructions.
 *
 * Argument: how many pages to write, at most as many as there are.
 */
#include "guest.h"

_Noreturn void guest_main(uint64_t id, uint8_t *memory, uint64_t bytes, uint64_t arg, uint64_t seed)
{
	(void)id;

	if (arg > guest_pages(bytes))
		guest_exit(GUEST_REFUSED);

	guest_mark(0);
	for (uint64_t page = 0; page < arg; page++)
		*(volatile uint64_t *)(memory + page * GUEST_PAGE) = seed + page;
	guest_mark(1);

	guest_result(arg, 0, 0, 0);
	guest_exit(GUEST_OK);
}
