/* SPDX-License-Identifier: MIT */
/*
 * A line for s2vm's log. It is put together here and written by one call, so that the lines of
 * several guests do not mix.
 */
#ifndef LINE_H
#define LINE_H

#include <stdint.h>

struct line {
	uint64_t used;
	char text[120];
};

static inline void line_start(struct line *line)
{
	line->used = 0;
}

/* What does not fit is cut off; there is always room for the end of the line. */
void line_add_text(struct line *line, const char *text);
void line_add_decimal(struct line *line, uint64_t number);
void line_add_hex(struct line *line, uint64_t number);

/* End the line, write it, and start the next one. */
void line_write(struct line *line);

#endif
