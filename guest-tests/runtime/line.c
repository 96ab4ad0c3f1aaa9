/* SPDX-License-Identifier: MIT */
#include "line.h"
#include "guest.h"

static void add_byte(struct line *line, char byte)
{
	if (line->used < sizeof(line->text) - 1)
		line->text[line->used++] = byte;
}

static void add_number(struct line *line, uint64_t number, uint64_t base)
{
	char digits[20];
	unsigned int count = 0;

	do {
		digits[count++] = "0123456789abcdef"[number % base];
		number /= base;
	} while (number);
	while (count)
		add_byte(line, digits[--count]);
}

void line_add_text(struct line *line, const char *text)
{
	while (*text)
		add_byte(line, *text++);
}

void line_add_decimal(struct line *line, uint64_t number)
{
	add_number(line, number, 10);
}

void line_add_hex(struct line *line, uint64_t number)
{
	line_add_text(line, "0x");
	add_number(line, number, 16);
}

void line_write(struct line *line)
{
	line->text[line->used++] = '\n';
	guest_write(line->text, line->used);
	line_start(line);
}
