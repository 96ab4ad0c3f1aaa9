// SPDX-License-Identifier: MIT
/* The control console, driven as a guest's driver does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "driver.h"
#include "virtio_console.h"

#define TO_GUEST   0
#define FROM_GUEST 1
#define SENT_AT	   (BUFFERS_AT + 0x40000)

static struct virtio_console console;
static struct driver *driver;
static unsigned lines;
static char last[2 * VIRTIO_CONSOLE_LINE];

static void hear(void *context, const char *line)
{
	assert_ptr_equal(context, &console);
	lines++;
	snprintf(last, sizeof(last), "%s", line);
}

static int begin(void **state)
{
	(void)state;
	driver = driver_begin();
	driver->virtio = &console.virtio;
	lines = 0;
	last[0] = '\0';
	virtio_console_init(&console, (struct virtio_console_hearer){ hear, &console },
			    driver_memory(driver), driver_line(driver));
	driver_start_all(driver, 0, 8);
	driver_work(driver);
	return 0;
}

/* The guest writes @bytes, in one buffer. */
static void write_bytes(const void *bytes, uint32_t count)
{
	const struct driver_buffer buffer = { SENT_AT, count, false };
	uint16_t head;

	driver_select(driver, FROM_GUEST);
	head = driver_chain(driver, &buffer, 1);
	memcpy(driver_at(driver, SENT_AT), bytes, count);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, head), 0);
}

static void write_text(const char *text)
{
	write_bytes(text, (uint32_t)strlen(text));
}

static void expect_lines(unsigned count, const char *text)
{
	assert_int_equal(lines, count);
	assert_string_equal(last, text);
}

static uint16_t offer_room(uint64_t at, uint32_t bytes)
{
	const struct driver_buffer buffer = { at, bytes, true };

	driver_select(driver, TO_GUEST);
	return driver_chain(driver, &buffer, 1);
}

static void it_says_what_it_is(void **state)
{
	(void)state;
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_DEVICE_ID), 3);
	assert_int_equal(driver_offered(driver) & 0xffffff, 0);
}

static void lines_are_heard(void **state)
{
	(void)state;
	write_text("ready\n");
	expect_lines(1, "ready");
	write_text("clone 3 ready\r\nand more");
	expect_lines(2, "clone 3 ready");
	write_text(" of it\n\n");
	expect_lines(4, "");
	write_text("a\nb\nc\n");
	expect_lines(7, "c");
}

/* What reaches a terminal or a log is text. */
static void lines_are_text(void **state)
{
	static const char bytes[] = "a\x1b[2J\0\x80\xff\tz\n";

	(void)state;
	write_bytes(bytes, sizeof(bytes) - 1);
	expect_lines(1, "a?[2J????z");
}

static void long_lines_are_cut(void **state)
{
	char text[1000];

	(void)state;
	memset(text, 'x', sizeof(text));
	for (unsigned i = 0; i < 5; i++)
		write_bytes(text, sizeof(text));
	write_text("\n");
	assert_int_equal(lines, 1);
	assert_int_equal(strlen(last), VIRTIO_CONSOLE_LINE - 1);
	write_text("short\n");
	expect_lines(2, "short");
}

/* Of a long chain only so much is looked at. */
static void one_chain_is_not_read_without_end(void **state)
{
	const struct driver_buffer buffers[] = {
		{ BUFFERS_AT, 0x60000, false },
		{ BUFFERS_AT, 0x60000, false },
	};
	uint16_t head;

	(void)state;
	memset(driver_at(driver, BUFFERS_AT), '\n', 0x60000);
	driver_select(driver, FROM_GUEST);
	head = driver_chain(driver, buffers, 2);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, head), 0);
	assert_int_equal(lines, VIRTIO_CONSOLE_CHAIN);
}

static void what_is_sent_comes(void **state)
{
	uint16_t head = offer_room(BUFFERS_AT, 100);

	(void)state;
	driver_notify(driver);
	assert_true(driver_idle(driver));
	assert_true(virtio_console_send(&console, "clone 1\n", 8));
	driver_work(driver);
	assert_int_equal(driver_done(driver, head), 8);
	assert_memory_equal(driver_at(driver, BUFFERS_AT), "clone 1\n", 8);
	assert_int_equal(driver_acknowledge(driver), VIRTIO_MMIO_INT_VRING);
	assert_true(driver_idle(driver));
}

/* Nothing is lost that was sent before the guest was there to take it, or had room. */
static void what_is_sent_waits(void **state)
{
	(void)state;
	assert_true(virtio_console_send(&console, "hello, guest\n", 13));
	driver_work(driver);
	driver_start_all(driver, 0, 8);
	driver_work(driver);
	offer_room(BUFFERS_AT, 5);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, 0), 5);
	assert_true(driver_idle(driver));
	offer_room(BUFFERS_AT + 5, 100);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, 1), 8);
	assert_memory_equal(driver_at(driver, BUFFERS_AT), "hello, guest\n", 13);
}

static void no_more_waits_than_there_is_room(void **state)
{
	static char text[VIRTIO_CONSOLE_QUEUE];

	(void)state;
	memset(text, 't', sizeof(text));
	assert_true(virtio_console_send(&console, text, 100));
	assert_false(virtio_console_send(&console, text, sizeof(text)));
	assert_true(virtio_console_send(&console, text, sizeof(text) - 100));
	assert_false(virtio_console_send(&console, "x", 1));
	offer_room(BUFFERS_AT, 100);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, 0), 100);
	/* What waits goes around the end of the queue now. */
	memset(text, 'u', 50);
	assert_true(virtio_console_send(&console, text, 50));
	offer_room(BUFFERS_AT, sizeof(text));
	driver_notify(driver);
	assert_int_equal(driver_done(driver, 1), sizeof(text) - 50);
	assert_memory_equal(driver_at(driver, BUFFERS_AT + sizeof(text) - 100), text, 50);
}

static void wrong_chains_break_it(void **state)
{
	static const struct {
		unsigned queue;
		struct driver_buffer buffers[2];
	} cases[] = {
		{ TO_GUEST, { { BUFFERS_AT, 10, false }, { BUFFERS_AT, 10, true } } },
		{ TO_GUEST, { { BUFFERS_AT, 10, false }, { BUFFERS_AT, 10, false } } },
		{ TO_GUEST, { { GUEST_END, 1, true }, { BUFFERS_AT, 10, true } } },
		{ FROM_GUEST, { { SENT_AT, 10, false }, { SENT_AT, 10, true } } },
		{ FROM_GUEST, { { SENT_AT, 10, false }, { GUEST_END, 10, false } } },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin(state);
		virtio_console_send(&console, "something", 9);
		driver_select(driver, cases[i].queue);
		driver_chain(driver, cases[i].buffers, 2);
		driver_notify(driver);
		driver_expect_broken(driver);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(it_says_what_it_is, begin),
		cmocka_unit_test_setup(lines_are_heard, begin),
		cmocka_unit_test_setup(lines_are_text, begin),
		cmocka_unit_test_setup(long_lines_are_cut, begin),
		cmocka_unit_test_setup(one_chain_is_not_read_without_end, begin),
		cmocka_unit_test_setup(what_is_sent_comes, begin),
		cmocka_unit_test_setup(what_is_sent_waits, begin),
		cmocka_unit_test_setup(no_more_waits_than_there_is_room, begin),
		cmocka_unit_test_setup(wrong_chains_break_it, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
