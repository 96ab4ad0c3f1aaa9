// SPDX-License-Identifier: MIT
#include "console_log.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

/* How panic() of Linux begins, also where it ends another (kernel/panic.c). */
static const char panic_begins[] = "Kernel panic - not syncing";

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Behind "[    1.234567] ", and the thread or CPU, which a kernel may write behind that. */
static const char *behind_stamps(const char *line)
{
	while (*line == '[') {
		const char *end = strchr(line, ']');

		if (!end)
			return line;
		line = end + 1 + strspn(end + 1, " ");
	}
	return line;
}

/* Only the first one counts: others come of it. */
static void look_at_line(struct console_log *log)
{
	const char *text;

	log->line[log->line_bytes] = 0;
	log->line_bytes = 0;
	text = behind_stamps(log->line);
	if (atomic_load(&log->panicked_ns) ||
	    strncmp(text, panic_begins, sizeof(panic_begins) - 1) != 0)
		return;
	strcpy(log->panic, text);
	atomic_store(&log->panicked_ns, now());
}

static bool shown(uint8_t byte)
{
	return (byte >= ' ' && byte != 0x7f) || byte == '\t' || byte == '\n';
}

void console_log_put(struct console_log *log, uint8_t byte)
{
	if (atomic_load(&log->panicked_ns))
		atomic_store(&log->panicked_ns, now());
	if (!shown(byte))
		return;
	log->bytes[log->next] = (char)byte;
	log->next = (log->next + 1) % CONSOLE_LOG_BYTES;
	if (log->count < CONSOLE_LOG_BYTES)
		log->count++;
	if (byte == '\n')
		look_at_line(log);
	else if (log->line_bytes < CONSOLE_LOG_LINE - 1)
		log->line[log->line_bytes++] = (char)byte;
}

void console_log_copy(const struct console_log *log, char *to, size_t size)
{
	size_t count = log->count < size ? log->count : size - 1;
	size_t first = log->next + CONSOLE_LOG_BYTES - count;
	bool cut = count == CONSOLE_LOG_BYTES || count < log->count;
	char *begin = to;

	for (size_t i = 0; i < count; i++)
		to[i] = log->bytes[(first + i) % CONSOLE_LOG_BYTES];
	to[count] = 0;
	/* A line without its beginning is left out, unless it is all that there is. */
	if (cut && strchr(to, '\n'))
		begin = strchr(to, '\n') + 1;
	memmove(to, begin, strlen(begin) + 1);
}
