// SPDX-License-Identifier: MIT
/*
 * Frames come at any time, while the guest runs, is out, has no room, or makes room: with the listener's
 * thread and the seat's, none is missed. Where one were, the test would wait for it in vain.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "driver.h"
#include "fleet.h"
#include "listener.h"
#include "virtio_net.h"

#define FRAMES	 20000u
#define CHAINS	 4u
#define ROOM	 0x100u
#define HEADER	 12u
#define LIMIT_NS UINT64_C(20000000000)

static struct kvm_run run;
static struct seat seat;
static struct virtio_net net;
static struct driver *driver;
static struct tap tap;
static int network;
static struct listener_source source;
static atomic_uint received;

/* What the guest's driver knows. */
static unsigned waiting; /* chains that it has offered and not got back, */
static unsigned oldest;	 /* and the first of them */

static void arrived(void *context)
{
	(void)context;
	virtio_net_arrived(&net);
	seat_call(&seat);
}

static bool listen_to_it(void *context)
{
	(void)context;
	return listener_once(&source);
}

/* ---- the guest ---- */

static void take_frames(void)
{
	while (!driver_idle(driver)) {
		const unsigned *frame = driver_at(driver, BUFFERS_AT + oldest * ROOM + HEADER);

		assert_int_equal(driver_done(driver, (uint16_t)oldest), HEADER + 64);
		assert_int_equal(*frame, atomic_load(&received));
		oldest = (oldest + 1) % CHAINS;
		waiting--;
		atomic_fetch_add(&received, 1);
	}
}

static void make_room(void)
{
	for (; waiting < CHAINS; waiting++) {
		unsigned number = (oldest + waiting) % CHAINS;
		const struct driver_buffer buffer = { BUFFERS_AT + number * ROOM, ROOM, true };

		driver_chain(driver, &buffer, 1);
	}
}

/* Whether the vCPU would come out of its guest now. */
static bool kicked(void)
{
	bool is;

	pthread_mutex_lock(&seat.door.lock);
	is = run.immediate_exit;
	pthread_mutex_unlock(&seat.door.lock);
	return is;
}

/* Runs it until it notifies its device, true, or is kicked. */
static bool run_guest(void)
{
	while (!kicked()) {
		take_frames();
		if (waiting < CHAINS && rand() % 4 == 0) {
			make_room();
			return true;
		}
		sched_yield();
	}
	return false;
}

static void *run_seat(void *argument)
{
	(void)argument;
	for (;;) {
		struct seat_order order = seat_enter(&seat);
		bool notified;

		if (order.what == SEAT_STOP)
			return NULL;
		if (order.what == SEAT_WORK) {
			virtio_mmio_call(&net.virtio);
			driver_work(driver);
		}
		if (order.what != SEAT_ENTER)
			continue;
		notified = run_guest();
		seat_leave(&seat);
		if (notified)
			driver_notify(driver);
	}
}

/* ---- the network ---- */

static void wait_for(unsigned frames)
{
	uint64_t limit = now_ns() + LIMIT_NS;

	while (atomic_load(&received) < frames) {
		assert_true(now_ns() < limit);
		sched_yield();
	}
}

static void send_frames(void)
{
	for (unsigned i = 0; i < FRAMES; i++) {
		unsigned frame[16] = { i };

		assert_int_equal(send(network, frame, sizeof(frame), 0), sizeof(frame));
		if (rand() % 4 == 0)
			wait_for(i + 1);
	}
	wait_for(FRAMES);
}

static void make_seat(void)
{
	seat = (struct seat){ .vcpu = { .run = &run } };
	pthread_mutex_init(&seat.door.lock, NULL);
	pthread_cond_init(&seat.door.out, NULL);
	seat_install_kick();
	seat_take(&seat, NULL, (struct fpa){ 0 });
}

static void make_device(void)
{
	static const uint8_t mac[6] = { 2 };
	static const struct virtio_net_wire wire = { &tap, listen_to_it, NULL };

	driver = driver_begin();
	driver->virtio = &net.virtio;
	virtio_net_init(&net, &wire, mac, driver_memory(driver), driver_line(driver));
	driver_start(driver, FEATURE(VIRTIO_RING_F_EVENT_IDX), CHAINS);
}

static void no_frame_is_missed(void **state)
{
	struct error error;
	struct listener *listener = listener_open(&error);
	pthread_t thread;
	int pair[2];

	(void)state;
	assert_non_null(listener);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(fcntl(pair[0], F_SETFL, O_NONBLOCK), 0);
	tap = (struct tap){ .fd = pair[0] };
	network = pair[1];
	source = (struct listener_source){ listener, tap.fd, arrived, NULL };
	make_seat();
	make_device();
	assert_int_equal(pthread_create(&thread, NULL, run_seat, NULL), 0);
	send_frames();
	seat_stop(&seat, GUEST_STOPPED);
	pthread_join(thread, NULL);
	listener_close(listener);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_frame_is_missed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
