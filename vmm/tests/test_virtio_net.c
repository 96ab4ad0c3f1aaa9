// SPDX-License-Identifier: MIT
/*
 * The network device, driven as a guest's driver does. One of a pair of sockets stands in for its TAP,
 * the other one is the network.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "driver.h"
#include "virtio_net.h"

#define HEADER	  12u
#define RECEIVE	  0
#define SEND	  1
#define ROOM	  (HEADER + 1514u)
#define SENT_AT	  (BUFFERS_AT + 0x40000)
#define FRAME_MAX 1514u

static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 7 };

static struct virtio_net net;
static struct driver *driver;
static struct tap tap;
static int network = -1;
static unsigned listens;
static const char *comes_then; /* a frame that comes between the look and the listening */
static bool deaf;	       /* listening fails */

/* A frame is told by its text; it is filled up to the least length of one. */
static void send_frame(const char *text)
{
	char frame[60] = { 0 };

	strncpy(frame, text, sizeof(frame) - 1);
	assert_int_equal(send(network, frame, sizeof(frame), 0), sizeof(frame));
}

static void frame_came(void)
{
	virtio_net_arrived(&net);
	virtio_mmio_call(&net.virtio);
}

/* As the listener does: what is there by now is told at once. */
static bool listen_to_it(void *context)
{
	char byte;

	(void)context;
	listens++;
	if (comes_then)
		send_frame(comes_then);
	comes_then = NULL;
	if (recv(tap.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
		virtio_net_arrived(&net);
	return !deaf;
}

static const struct virtio_net_wire wire = { &tap, listen_to_it, NULL };

static int begin(void **state)
{
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	tap = (struct tap){ .fd = pair[0], .mtu = 1500 };
	network = pair[1];
	listens = 0;
	comes_then = NULL;
	deaf = false;
	driver = driver_begin();
	driver->virtio = &net.virtio;
	virtio_net_init(&net, &wire, mac, driver_memory(driver), driver_line(driver));
	driver_start_all(driver, FEATURE(VIRTIO_NET_F_MAC) | FEATURE(VIRTIO_NET_F_STATUS), 8);
	driver_work(driver);
	return 0;
}

static int end(void **state)
{
	(void)state;
	tap_close(&tap);
	if (network >= 0)
		close(network);
	return 0;
}

/* Offers a chain to receive by, in two buffers; they are told apart by @number. */
static uint16_t offer_room(unsigned number)
{
	uint64_t at = BUFFERS_AT + number * 0x1000;
	const struct driver_buffer buffers[] = {
		{ at, HEADER, true },
		{ at + HEADER, ROOM - HEADER, true },
	};

	driver_select(driver, RECEIVE);
	return driver_chain(driver, buffers, 2);
}

static void expect_frame(uint16_t head, unsigned number, const char *text)
{
	static const struct virtio_net_hdr_v1 header = { .num_buffers = 1 };
	const char *at = driver_at(driver, BUFFERS_AT + number * 0x1000);

	driver_select(driver, RECEIVE);
	assert_int_equal(driver_done(driver, head), HEADER + 60);
	assert_memory_equal(at, &header, sizeof(header));
	assert_string_equal(at + HEADER, text);
}

static void it_says_what_it_is(void **state)
{
	uint64_t offered = driver_offered(driver);

	(void)state;
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_DEVICE_ID), 1);
	assert_true(offered & FEATURE(VIRTIO_NET_F_MAC));
	assert_true(offered & FEATURE(VIRTIO_NET_F_MTU));
	assert_int_equal(driver_configuration(driver, 0, 1), 2);
	assert_int_equal(driver_configuration(driver, 5, 1), 7);
	assert_int_equal(driver_configuration(driver, 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(driver_configuration(driver, 10, 2), 1500);
}

static void a_frame_is_received(void **state)
{
	uint16_t head = offer_room(0);

	(void)state;
	send_frame("hello");
	driver_notify(driver);
	expect_frame(head, 0, "hello");
	assert_true(driver_idle(driver));
	assert_int_equal(driver_acknowledge(driver), VIRTIO_MMIO_INT_VRING);
}

static void frames_come_one_by_one_and_in_order(void **state)
{
	static const char *const texts[] = { "a", "b", "c", "d" };
	uint16_t heads[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		heads[i] = offer_room(i);
		send_frame(texts[i]);
	}
	driver_notify(driver);
	for (unsigned i = 0; i < 4; i++)
		expect_frame(heads[i], i, texts[i]);
}

/* What the driver has no room for stays with the host, which drops what becomes too much. */
static void no_frame_is_taken_without_room(void **state)
{
	char byte;

	(void)state;
	send_frame("waits");
	frame_came();
	driver_work(driver);
	driver_notify(driver);
	assert_int_equal(recv(tap.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT), 1);
	assert_int_equal(listens, 0);
	offer_room(0);
	driver_notify(driver);
	expect_frame(0, 0, "waits");
}

/* Nobody listens to a network while it could not be received from; and once is enough. */
static void it_listens_once(void **state)
{
	(void)state;
	assert_int_equal(listens, 0);
	offer_room(0);
	driver_notify(driver);
	assert_int_equal(listens, 1);
	offer_room(1);
	driver_notify(driver);
	assert_false(virtio_mmio_type.work(&net.virtio));
	assert_int_equal(listens, 1);
	send_frame("at last");
	driver_notify(driver);
	assert_true(driver_idle(driver));
	frame_came();
	driver_work(driver);
	expect_frame(0, 0, "at last");
	assert_int_equal(listens, 2);
}

/* Somebody else's call is no frame of ours. */
static void a_call_without_a_frame_changes_nothing(void **state)
{
	(void)state;
	offer_room(0);
	driver_notify(driver);
	virtio_mmio_call(&net.virtio);
	driver_work(driver);
	assert_int_equal(listens, 1);
	assert_true(driver_idle(driver));
}

static void a_frame_before_the_listening_is_not_missed(void **state)
{
	(void)state;
	offer_room(0);
	comes_then = "just now";
	driver_notify(driver);
	/* The listener's thread has told us; the seat's is called. */
	assert_true(driver_idle(driver));
	virtio_mmio_call(&net.virtio);
	driver_work(driver);
	expect_frame(0, 0, "just now");
}

static void work_is_bounded(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++)
		offer_room(i);
	for (unsigned i = 0; i < 12; i++)
		send_frame("many");
	driver_write(driver, VIRTIO_MMIO_QUEUE_NOTIFY, RECEIVE);
	assert_false(virtio_mmio_type.work(&net.virtio));
	assert_int_equal(listens, 0);
	for (unsigned i = 0; i < 4; i++)
		expect_frame((uint16_t)(2 * i), i, "many");
	assert_true(driver_idle(driver));
	/* As many chains as the queue has entries: then others have their turn. */
	for (unsigned i = 0; i < 8; i++)
		driver_describe(driver, (uint16_t)i, BUFFERS_AT, ROOM, VRING_DESC_F_WRITE, 0);
	for (unsigned i = 0; i < 8; i++)
		driver_offer(driver, (uint16_t)i);
	driver_write(driver, VIRTIO_MMIO_QUEUE_NOTIFY, RECEIVE);
	assert_true(virtio_mmio_type.work(&net.virtio));
	assert_false(virtio_mmio_type.work(&net.virtio));
}

static void what_does_not_fit_is_lost(void **state)
{
	const struct driver_buffer small = { BUFFERS_AT, HEADER + 20, true };
	uint16_t head = driver_chain(driver, &small, 1);
	uint16_t next = offer_room(1);

	(void)state;
	send_frame("too long");
	send_frame("fits");
	driver_notify(driver);
	assert_int_equal(driver_done(driver, head), 0);
	expect_frame(next, 1, "fits");
}

/* Offers a frame of @bytes to be sent, with its header in the same buffer. */
static uint16_t offer_frame(uint32_t bytes)
{
	const struct driver_buffer buffer = { SENT_AT, HEADER + bytes, false };

	driver_select(driver, SEND);
	return driver_chain(driver, &buffer, 1);
}

static ssize_t sent(char *frame, size_t room)
{
	return recv(network, frame, room, MSG_DONTWAIT);
}

static void a_frame_is_sent(void **state)
{
	char frame[FRAME_MAX];
	uint16_t head = offer_frame(100);

	(void)state;
	memset(driver_at(driver, SENT_AT), 0xee, HEADER);
	memset(driver_at(driver, SENT_AT + HEADER), 'x', 100);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, head), 0);
	assert_int_equal(sent(frame, sizeof(frame)), 100);
	assert_int_equal(frame[0], 'x');
	assert_int_equal(frame[99], 'x');
	assert_int_equal(sent(frame, sizeof(frame)), -1);
}

static void a_frame_in_pieces_is_one_frame(void **state)
{
	const struct driver_buffer buffers[] = {
		{ SENT_AT, 5, false },
		{ SENT_AT + 5, HEADER - 5 + 20, false },
		{ SENT_AT + 0x1000, 30, false },
	};
	char frame[FRAME_MAX];

	(void)state;
	driver_select(driver, SEND);
	driver_chain(driver, buffers, 3);
	memset(driver_at(driver, SENT_AT + 0x1000), 'y', 30);
	driver_notify(driver);
	assert_int_equal(sent(frame, sizeof(frame)), 50);
	assert_int_equal(frame[20], 'y');
}

static void what_is_no_frame_is_not_sent(void **state)
{
	static const uint32_t sizes[] = { 0, 13, VIRTIO_NET_FRAME + 1, 200000 };
	char frame[FRAME_MAX];

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint16_t head = offer_frame(sizes[i]);

		driver_notify(driver);
		assert_int_equal(driver_done(driver, head), 0);
		assert_int_equal(sent(frame, sizeof(frame)), -1);
	}
	offer_frame(14);
	driver_notify(driver);
	assert_int_equal(sent(frame, sizeof(frame)), 14);
}

static void the_network_does_not_block_the_guest(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		uint16_t head = offer_frame(1500);

		driver_notify(driver);
		assert_int_equal(driver_done(driver, head), 0);
	}
}

static void wrong_chains_break_it(void **state)
{
	static const struct {
		unsigned queue;
		struct driver_buffer buffers[2];
	} cases[] = {
		{ RECEIVE, { { BUFFERS_AT, HEADER, false }, { BUFFERS_AT, ROOM, true } } },
		{ RECEIVE, { { BUFFERS_AT, 5, true }, { BUFFERS_AT, HEADER - 6, true } } },
		{ RECEIVE, { { BUFFERS_AT, HEADER, true }, { GUEST_END, ROOM, true } } },
		{ RECEIVE, { { READ_ONLY_AT, HEADER, true }, { BUFFERS_AT, ROOM, true } } },
		{ SEND, { { SENT_AT, 100, false }, { SENT_AT, 1, true } } },
		{ SEND, { { SENT_AT, 5, false }, { SENT_AT, HEADER - 6, false } } },
		{ SEND, { { GUEST_END, HEADER, false }, { SENT_AT, 100, false } } },
		{ SEND, { { SENT_AT, HEADER, false }, { GUEST_END - 50, 100, false } } },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin(state);
		send_frame("to nobody");
		driver_select(driver, cases[i].queue);
		driver_chain(driver, cases[i].buffers, 2);
		driver_notify(driver);
		driver_expect_broken(driver);
		end(state);
	}
	begin(state);
}

static void the_link_goes_down_with_the_tap(void **state)
{
	uint16_t head;

	(void)state;
	close(network);
	network = -1;
	offer_room(0);
	driver_notify(driver);
	assert_int_equal(driver_configuration(driver, 6, 2), 0);
	assert_int_equal(driver_acknowledge(driver), VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(listens, 0);
	frame_came();
	driver_work(driver);
	assert_false(driver->line);
	assert_int_equal(listens, 0);
	head = offer_frame(60);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, head), 0);
}

static void the_link_goes_down_where_nobody_can_listen(void **state)
{
	(void)state;
	deaf = true;
	offer_room(0);
	driver_notify(driver);
	assert_int_equal(driver_configuration(driver, 6, 2), 0);
	assert_int_equal(driver_acknowledge(driver), VIRTIO_MMIO_INT_CONFIG);
}

/* It listened when it was reset, and is told of what comes afterwards. */
static void it_receives_after_a_reset(void **state)
{
	(void)state;
	offer_room(0);
	driver_notify(driver);
	assert_int_equal(listens, 1);
	driver_start_all(driver, 0, 8);
	driver_work(driver);
	offer_room(0);
	driver_notify(driver);
	send_frame("again");
	frame_came();
	driver_work(driver);
	expect_frame(0, 0, "again");
}

/* Nothing of who listened is in a state: the one that goes on asks its own TAP. */
static void it_receives_where_it_was_saved(void **state)
{
	struct virtio_mmio_state saved;

	(void)state;
	offer_room(0);
	driver_notify(driver);
	virtio_mmio_save(&net.virtio, &saved);
	driver->line = false;
	virtio_net_init(&net, &wire, mac, driver_memory(driver), driver_line(driver));
	assert_true(virtio_mmio_restore(&net.virtio, &saved));
	listens = 0;
	driver_work(driver);
	assert_int_equal(listens, 1);
	send_frame("elsewhere");
	frame_came();
	driver_work(driver);
	expect_frame(0, 0, "elsewhere");
}

#define NET_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		NET_TEST(it_says_what_it_is),
		NET_TEST(a_frame_is_received),
		NET_TEST(frames_come_one_by_one_and_in_order),
		NET_TEST(no_frame_is_taken_without_room),
		NET_TEST(it_listens_once),
		NET_TEST(a_call_without_a_frame_changes_nothing),
		NET_TEST(a_frame_before_the_listening_is_not_missed),
		NET_TEST(work_is_bounded),
		NET_TEST(what_does_not_fit_is_lost),
		NET_TEST(a_frame_is_sent),
		NET_TEST(a_frame_in_pieces_is_one_frame),
		NET_TEST(what_is_no_frame_is_not_sent),
		NET_TEST(the_network_does_not_block_the_guest),
		NET_TEST(wrong_chains_break_it),
		NET_TEST(the_link_goes_down_with_the_tap),
		NET_TEST(the_link_goes_down_where_nobody_can_listen),
		NET_TEST(it_receives_after_a_reset),
		NET_TEST(it_receives_where_it_was_saved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
