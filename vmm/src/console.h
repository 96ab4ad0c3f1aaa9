/* SPDX-License-Identifier: MIT */
/*
 * Connects a guest's serial port with stdin and stdout, or those of several with stdout alone. A
 * terminal is raw meanwhile, so that the guest gets each key, and is put back at the end; Ctrl-] is not
 * for the guest, but ends it.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include <stddef.h>
#include <stdint.h>

/* Where input goes: returns how much of it there was room for. */
struct console_input {
	size_t (*take)(void *context, const uint8_t *bytes, size_t count);
	void *context;
	void (*escape)(void *context); /* the user wants an end */
};

struct console;

/* NULL where there is no memory or thread for it: the guest has no input then. */
struct console *console_open(struct console_input input);

/* Also for NULL. */
void console_close(struct console *console);

/* A character from the guest. */
void console_put(void *context, uint8_t byte);

#define CONSOLE_LINE 256

/* What one of several guests writes, which comes out line by line with its number. */
struct console_lines {
	unsigned guest;
	size_t used;
	char text[CONSOLE_LINE];
};

/* The same from guest @context->guest. By one thread at a time for each. */
void console_put_line(void *context, uint8_t byte);

/* Its last line, if that has no end. */
void console_end_line(struct console_lines *lines);

#endif
