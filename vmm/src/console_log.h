/* SPDX-License-Identifier: MIT */
/*
 * The end of what a guest has written to its console, for who wants to know why it came to its own
 * end; and whether its kernel has written that it panicked, after which Linux stays where it is.
 *
 * Adding and copying is by one thread at a time, which the owner's lock sees to. @panicked_ns may
 * be read by any thread; it is by the monotonic clock.
 */
#ifndef VMM_CONSOLE_LOG_H
#define VMM_CONSOLE_LOG_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define CONSOLE_LOG_BYTES 2048u
#define CONSOLE_LOG_LINE  160u /* how much of a line is looked at */

struct console_log {
	char bytes[CONSOLE_LOG_BYTES];
	size_t next;  /* where the next one goes */
	size_t count; /* that there are */
	char line[CONSOLE_LOG_LINE]; /* the line that is being written */
	size_t line_bytes;
	char panic[CONSOLE_LOG_LINE]; /* what it said, ended by 0 */
	_Atomic uint64_t panicked_ns; /* and when it wrote last from then on; 0: it has not */
};

/* What is zero is an empty log. */
void console_log_put(struct console_log *log, uint8_t byte);

/*
 * Copies the last lines, as many as there are or fit, without what would move a terminal's cursor
 * about, and ends them with 0.
 */
void console_log_copy(const struct console_log *log, char *to, size_t size);

#endif
