// SPDX-License-Identifier: MIT
#include "console.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <unistd.h>

#define ESCAPE 0x1d /* Ctrl-] */

/* How long input waits for room, in milliseconds. */
#define ROOM_WAIT 20

struct console {
	struct console_input input;
	struct termios before;
	bool raw;
	int end; /* an eventfd: the thread is to end */
	pthread_t thread;
};

/* Whether the console ends, after at most @milliseconds. */
static bool ending(const struct console *console, int milliseconds)
{
	struct pollfd poll_end = { .fd = console->end, .events = POLLIN };

	return poll(&poll_end, 1, milliseconds) > 0;
}

static void pass_on(const struct console *console, const uint8_t *bytes, size_t count)
{
	while (count) {
		size_t taken = console->input.take(console->input.context, bytes, count);

		bytes += taken;
		count -= taken;
		if (count && ending(console, ROOM_WAIT))
			return;
	}
}

/* One read of input; false when there will be no more. */
static bool read_some(const struct console *console)
{
	uint8_t bytes[256];
	ssize_t got = read(STDIN_FILENO, bytes, sizeof(bytes));

	if (got < 0)
		return errno == EINTR || errno == EAGAIN;
	for (ssize_t at = 0; at < got; at++) {
		if (bytes[at] == ESCAPE && console->raw)
			console->input.escape(console->input.context);
		else
			pass_on(console, &bytes[at], 1);
	}
	return got > 0;
}

static void *thread_main(void *argument)
{
	struct console *console = argument;
	struct pollfd polls[] = {
		{ .fd = STDIN_FILENO, .events = POLLIN },
		{ .fd = console->end, .events = POLLIN },
	};

	do {
		if (poll(polls, 2, -1) < 0 && errno != EINTR)
			break;
	} while (!polls[1].revents && (!polls[0].revents || read_some(console)));
	return NULL;
}

/* Output is left as it is: what the guest sends has its carriage returns. */
static void make_raw(struct console *console)
{
	struct termios raw;

	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &console->before) < 0)
		return;
	raw = console->before;
	cfmakeraw(&raw);
	console->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

static void restore(const struct console *console)
{
	if (console->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &console->before);
}

struct console *console_open(struct console_input input)
{
	struct console *console = calloc(1, sizeof(*console));

	if (!console)
		return NULL;
	console->input = input;
	console->end = eventfd(0, EFD_CLOEXEC);
	if (console->end >= 0) {
		make_raw(console);
		if (pthread_create(&console->thread, NULL, thread_main, console) == 0)
			return console;
		restore(console);
		close(console->end);
	}
	free(console);
	return NULL;
}

void console_close(struct console *console)
{
	uint64_t one = 1;

	if (!console)
		return;
	if (write(console->end, &one, sizeof(one)) == sizeof(one))
		pthread_join(console->thread, NULL);
	restore(console);
	close(console->end);
	free(console);
}

/* What nobody can take is lost, as on a line. */
static void put_all(const char *bytes, size_t count)
{
	while (count) {
		ssize_t written = write(STDOUT_FILENO, bytes, count);

		if (written < 0 && errno != EINTR)
			return;
		if (written > 0) {
			bytes += written;
			count -= (size_t)written;
		}
	}
}

void console_put(void *context, uint8_t byte)
{
	(void)context;
	put_all((const char *)&byte, 1);
}

/* In one piece, so that lines of several guests do not mix. */
static void put_line(struct console_lines *lines)
{
	char line[CONSOLE_LINE + 32];
	int length = snprintf(line, sizeof(line), "guest %u: %.*s\n", lines->guest,
			      (int)lines->used, lines->text);

	put_all(line, (size_t)length);
	lines->used = 0;
}

/* What would move a terminal's cursor about is left out. */
void console_put_line(void *context, uint8_t byte)
{
	struct console_lines *lines = context;

	if (byte == '\n' || lines->used == CONSOLE_LINE)
		put_line(lines);
	if (byte >= ' ' || byte == '\t')
		lines->text[lines->used++] = (char)byte;
}

void console_end_line(struct console_lines *lines)
{
	if (lines->used)
		put_line(lines);
}
