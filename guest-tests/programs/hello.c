/* SPDX-License-Identifier: MIT */
/* The smallest useful guest: says who it is. Its result is its number. */
#include "guest.h"
#include "line.h"

_Noreturn void guest_main(uint64_t id, uint8_t *memory, uint64_t bytes, uint64_t arg, uint64_t seed)
{
	struct line line;

	(void)memory, (void)bytes, (void)arg, (void)seed;

	line_start(&line);
	line_add_text(&line, "hello from guest ");
	line_add_decimal(&line, id);
	line_write(&line);

	guest_result(id, 0, 0, 0);
	guest_exit(GUEST_OK);
}
