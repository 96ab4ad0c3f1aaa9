/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's reader. The first result ends its launch, the marks 0 and 1 enclose one scan of
 * the memory file, and the last result is the scan's fold.
 *
 * It writes no memory, not even its stack: such a guest needs no table of its own but the root, and
 * that is what is measured. check-writes looks for it in the program's instructions.
 *
 * Argument: how many times to scan once more, outside the marks. All scans must agree.
 */
#include "guest.h"
#include "scan.h"

_Noreturn void guest_main(uint64_t id, uint8_t *memory, uint64_t bytes, uint64_t arg, uint64_t seed)
{
	uint64_t h;

	(void)id, (void)seed;

	guest_result(0, 0, 0, 0);

	guest_mark(0);
	h = scan_memory(memory, bytes);
	guest_mark(1);

	for (; arg; arg--)
		if (scan_memory(memory, bytes) != h)
			guest_exit(GUEST_WRONG);

	guest_result(h, 0, 0, 0);
	guest_exit(GUEST_OK);
}
