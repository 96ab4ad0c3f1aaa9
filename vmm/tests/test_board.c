// SPDX-License-Identifier: MIT
/* The I/O APIC, driven as a kernel does, and the board around it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "board.h"
#include "ioapic.h"

#define MASKED (UINT32_C(1) << 16)

/* What went out last. */
struct wire {
	struct ioapic_message message;
	unsigned count;
};

static void note(void *context, struct ioapic_message message)
{
	struct wire *wire = context;

	wire->message = message;
	wire->count++;
}

static void write_at(struct ioapic *ioapic, uint64_t offset, uint32_t value)
{
	struct device_access access = { .offset = offset, .bytes = 4, .write = true, .value = value };

	ioapic_type.access(ioapic, &access);
}

static uint32_t read_at(struct ioapic *ioapic, uint64_t offset)
{
	struct device_access access = { .offset = offset, .bytes = 4 };

	ioapic_type.access(ioapic, &access);
	return (uint32_t)access.value;
}

static void set(struct ioapic *ioapic, uint32_t number, uint32_t value)
{
	write_at(ioapic, 0x00, number);
	write_at(ioapic, 0x10, value);
}

static uint32_t get(struct ioapic *ioapic, uint32_t number)
{
	write_at(ioapic, 0x00, number);
	return read_at(ioapic, 0x10);
}

static struct ioapic made(struct wire *wire)
{
	struct ioapic ioapic;

	*wire = (struct wire){ 0 };
	ioapic_init(&ioapic, (struct ioapic_output){ note, wire });
	return ioapic;
}

static void it_is_found(void **state)
{
	struct wire wire;
	struct ioapic ioapic = made(&wire);

	(void)state;
	assert_int_equal(get(&ioapic, 0) >> 24, PLATFORM_IOAPIC_ID);
	assert_int_equal(get(&ioapic, 1) & 0xff, 0x11);
	assert_int_equal((get(&ioapic, 1) >> 16 & 0xff) + 1, PLATFORM_IOAPIC_PINS);
	for (uint32_t pin = 0; pin < PLATFORM_IOAPIC_PINS; pin++)
		assert_int_equal(get(&ioapic, 0x10 + 2 * pin), MASKED);
}

static void an_edge_is_sent_where_its_entry_says(void **state)
{
	struct wire wire;
	struct ioapic ioapic = made(&wire);

	(void)state;
	set(&ioapic, 0x10 + 2 * 4 + 1, UINT32_C(3) << 24);
	set(&ioapic, 0x10 + 2 * 4, 0x31 | 1 << 11);
	ioapic_edge(&ioapic, 4);
	assert_int_equal(wire.count, 1);
	assert_int_equal(wire.message.vector, 0x31);
	assert_int_equal(wire.message.destination, 3);
	assert_true(wire.message.logical);
	ioapic_edge(&ioapic, 5);
	assert_int_equal(wire.count, 1);
}

static void a_masked_edge_is_lost(void **state)
{
	struct wire wire;
	struct ioapic ioapic = made(&wire);

	(void)state;
	set(&ioapic, 0x10, MASKED | 0x31);
	ioapic_edge(&ioapic, 0);
	set(&ioapic, 0x10, 0x31);
	assert_int_equal(wire.count, 0);
}

/* An NMI of the guest's would be taken for one of its gate's. */
static void only_interrupts_with_a_vector_are_sent(void **state)
{
	struct wire wire;
	struct ioapic ioapic = made(&wire);

	(void)state;
	for (uint32_t mode = 2; mode < 8; mode++) {
		set(&ioapic, 0x10, 0x31 | mode << 8);
		ioapic_edge(&ioapic, 0);
	}
	assert_int_equal(wire.count, 0);
	set(&ioapic, 0x10, 0x31 | 1 << 8);
	ioapic_edge(&ioapic, 0);
	assert_int_equal(wire.count, 1);
}

static void what_is_for_reading_stays(void **state)
{
	struct wire wire;
	struct ioapic ioapic = made(&wire);

	(void)state;
	set(&ioapic, 1, 0);
	assert_int_equal(get(&ioapic, 1) & 0xff, 0x11);
	set(&ioapic, 0x10, UINT32_MAX);
	assert_int_equal(get(&ioapic, 0x10), 0x1afff);
	set(&ioapic, 0x11, UINT32_MAX);
	assert_int_equal(get(&ioapic, 0x11), 0xff000000);
	set(&ioapic, 0x10 + 2 * PLATFORM_IOAPIC_PINS, UINT32_MAX);
	assert_int_equal(get(&ioapic, 0x10 + 2 * PLATFORM_IOAPIC_PINS), 0);
	assert_int_equal(get(&ioapic, 0xff), 0);
}

static void a_state_is_what_was_saved(void **state)
{
	struct wire wire;
	struct ioapic ioapic = made(&wire), other = made(&wire);
	struct ioapic_state saved;

	(void)state;
	set(&ioapic, 0x10 + 2 * 7, 0x41);
	ioapic_save(&ioapic, &saved);
	assert_true(ioapic_restore(&other, &saved));
	assert_memory_equal(&other.state, &ioapic.state, sizeof(saved));
	saved.entries[0] |= 1 << 14;
	assert_false(ioapic_restore(&other, &saved));
	saved.entries[0] = 0;
	saved.version++;
	assert_false(ioapic_restore(&other, &saved));
	assert_memory_equal(&other.state, &ioapic.state, sizeof(saved));
}

/* ---- the board ---- */

static void count_interrupt(void *context, uint8_t vector)
{
	unsigned *vectors = context;

	vectors[vector]++;
}

static void put_nowhere(void *context, uint8_t byte)
{
	(void)context;
	(void)byte;
}

static uint64_t access_board(struct board *board, enum board_bus bus, uint64_t at, unsigned bytes,
			     bool write, uint64_t value)
{
	struct device_access access = { at, bytes, write, value };

	board_access(board, bus, &access);
	return access.value;
}

static uint64_t in(struct board *board, uint64_t port, unsigned bytes)
{
	return access_board(board, BOARD_PORTS, port, bytes, false, 0);
}

static void out(struct board *board, uint64_t port, uint64_t value)
{
	access_board(board, BOARD_PORTS, port, 1, true, value);
}

static unsigned vectors[256];
static atomic_uint calls;

static void count_call(void *context)
{
	assert_ptr_equal(context, vectors);
	calls++;
}

static void make_board(struct board *board)
{
	memset(vectors, 0, sizeof(vectors));
	calls = 0;
	board_init(board, &(struct board_parts){
				  .cpu = { count_interrupt, vectors, count_call },
				  .output = { put_nowhere, NULL },
			  });
}

static void nothing_reads_as_ones(void **state)
{
	static struct board board;

	(void)state;
	make_board(&board);
	assert_int_equal(in(&board, 0x20, 1), 0xff);
	assert_int_equal(access_board(&board, BOARD_MEMORY, 0xd8000000, 8, false, 0), UINT64_MAX);
	out(&board, 0x80, 1);
	assert_int_equal(board_power(&board), BOARD_ON);
	board_destroy(&board);
}

static void input_interrupts_the_first_cpu(void **state)
{
	static struct board board;

	(void)state;
	make_board(&board);
	access_board(&board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE, 4, true,
		     0x10 + 2 * PLATFORM_SERIAL_GSI);
	access_board(&board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE + 0x10, 4, true, 0x22);
	out(&board, PLATFORM_SERIAL_PORT + 4, 0x08); /* OUT2 */
	out(&board, PLATFORM_SERIAL_PORT + 1, 0x01); /* received data */
	assert_int_equal(board_input(&board, (const uint8_t *)"x", 1), 1);
	assert_int_equal(vectors[0x22], 1);
	assert_int_equal(in(&board, PLATFORM_SERIAL_PORT, 1), 'x');
	board_destroy(&board);
}

static void interrupts_to_other_cpus_are_dropped(void **state)
{
	static struct board board;

	(void)state;
	make_board(&board);
	access_board(&board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE, 4, true,
		     0x11 + 2 * PLATFORM_SERIAL_GSI);
	access_board(&board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE + 0x10, 4, true, 1 << 24);
	access_board(&board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE, 4, true,
		     0x10 + 2 * PLATFORM_SERIAL_GSI);
	access_board(&board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE + 0x10, 4, true, 0x22);
	out(&board, PLATFORM_SERIAL_PORT + 4, 0x08);
	out(&board, PLATFORM_SERIAL_PORT + 1, 0x01);
	board_input(&board, (const uint8_t *)"x", 1);
	assert_int_equal(vectors[0x22], 0);
	board_destroy(&board);
}

/* Each of these, and nothing beside it. */
static void power_is_asked_for_by_ports(void **state)
{
	static const struct {
		uint16_t port;
		uint8_t value;
		enum board_power power;
	} cases[] = {
		{ PLATFORM_RESET_PORT, 1, BOARD_RESET },
		{ PLATFORM_RESET_PORT, 2, BOARD_ON },
		{ PLATFORM_SLEEP_CONTROL_PORT, 0x34, BOARD_OFF },
		{ PLATFORM_SLEEP_CONTROL_PORT, 0x30, BOARD_ON },
		{ PLATFORM_SLEEP_STATUS_PORT, 0x34, BOARD_ON },
		{ 0x64, 0xfe, BOARD_RESET },
		{ 0x64, 0xff, BOARD_ON },
		{ 0x65, 0xfe, BOARD_ON },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		static struct board board;

		make_board(&board);
		out(&board, cases[i].port, cases[i].value);
		assert_int_equal(board_power(&board), cases[i].power);
		board_destroy(&board);
	}
}

static void slots_without_a_device_say_so(void **state)
{
	static struct board board;

	(void)state;
	make_board(&board);
	for (unsigned slot = BOARD_FREE; slot < PLATFORM_VIRTIO_SLOTS; slot++) {
		uint64_t base = PLATFORM_VIRTIO_BASE + slot * PLATFORM_VIRTIO_BYTES;

		assert_int_equal(access_board(&board, BOARD_MEMORY, base, 4, false, 0), 0x74726976);
		assert_int_equal(access_board(&board, BOARD_MEMORY, base + 4, 4, false, 0), 2);
		assert_int_equal(access_board(&board, BOARD_MEMORY, base + 8, 4, false, 0), 0);
	}
	board_destroy(&board);
}

static void what_the_agent_is_told_calls_the_seat(void **state)
{
	static struct board board;
	char line[VIRTIO_CONSOLE_QUEUE];

	(void)state;
	make_board(&board);
	assert_true(board_tell(&board, "clone number=1"));
	assert_int_equal(calls, 1);
	assert_int_equal(board.control.count, strlen("clone number=1\n"));
	memset(line, 'x', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	/* The end of the line would still have had room. */
	assert_false(board_tell(&board, line));
	assert_int_equal(calls, 1);
	board_destroy(&board);
}

static uint64_t device_id(struct board *board, unsigned slot)
{
	return access_board(board, BOARD_MEMORY,
			    PLATFORM_VIRTIO_BASE + slot * PLATFORM_VIRTIO_BYTES + 8, 4, false, 0);
}

static void networks_come_behind_disks(void **state)
{
	static struct board board;
	struct disk disk = { .bytes = 512 };
	struct tap taps[2] = { { .fd = -1 }, { .fd = -1 } };
	const struct board_net nets[] = { { &taps[0], { 2 } }, { &taps[1], { 4 } } };

	(void)state;
	board_init(&board, &(struct board_parts){
				   .cpu = { count_interrupt, vectors, count_call },
				   .output = { put_nowhere, NULL },
				   .disks = &disk,
				   .disk_count = 1,
				   .nets = nets,
				   .net_count = 2,
			   });
	assert_int_equal(device_id(&board, 0), 4);
	assert_int_equal(device_id(&board, 1), 3);
	assert_int_equal(device_id(&board, 2), 2);
	assert_int_equal(device_id(&board, 3), 1);
	assert_int_equal(device_id(&board, 4), 1);
	assert_int_equal(device_id(&board, 5), 0);
	board_destroy(&board);
}

/* A frame takes a thread of its own to be noticed, and one more to be received: this one. */
static void a_frame_calls_the_seat(void **state)
{
	static struct board board;
	static struct tap tap;
	const struct board_net net = { &tap, { 2 } };
	struct error error;
	struct listener *listener = listener_open(&error);
	int pair[2];

	(void)state;
	assert_non_null(listener);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	tap = (struct tap){ .fd = pair[0] };
	calls = 0;
	board_init(&board, &(struct board_parts){
				   .cpu = { count_interrupt, vectors, count_call },
				   .output = { put_nowhere, NULL },
				   .nets = &net,
				   .net_count = 1,
				   .listener = listener,
			   });
	assert_true(board.ports[0].net.wire.listen(board.ports[0].net.wire.context));
	assert_int_equal(send(pair[1], "frame", 5, 0), 5);
	for (unsigned i = 0; i < 1000 && !calls; i++)
		usleep(10000);
	assert_int_equal(calls, 1);
	board_called(&board);
	assert_true(board.busy);
	assert_false(board_work(&board));
	listener_close(listener);
	board_destroy(&board);
	close(pair[0]);
	close(pair[1]);
}

/* As Linux looks for mechanism 1, and for what is on the bus. */
static void a_bus_with_a_bridge_only(void **state)
{
	static struct board board;

	(void)state;
	make_board(&board);
	out(&board, PCI_HOST_PORT + 3, 1);
	assert_int_equal(in(&board, PCI_HOST_PORT, 4), 0);
	access_board(&board, BOARD_PORTS, PCI_HOST_PORT, 4, true, 0x80000000);
	assert_int_equal(in(&board, PCI_HOST_PORT, 4), 0x80000000);
	assert_int_equal(in(&board, PCI_HOST_PORT + 4, 4), 0x00081b36);
	assert_int_equal(in(&board, PCI_HOST_PORT + 6, 2), 0x0008);
	access_board(&board, BOARD_PORTS, PCI_HOST_PORT, 4, true, 0x80000008);
	assert_int_equal(in(&board, PCI_HOST_PORT + 6, 2), 0x0600);
	for (uint32_t slot = 1; slot < 32; slot++) {
		access_board(&board, BOARD_PORTS, PCI_HOST_PORT, 4, true, 0x80000000 | slot << 11);
		assert_int_equal(in(&board, PCI_HOST_PORT + 4, 4), UINT32_MAX);
	}
	access_board(&board, BOARD_PORTS, PCI_HOST_PORT, 4, true, 0);
	assert_int_equal(in(&board, PCI_HOST_PORT + 4, 4), UINT32_MAX);
	board_destroy(&board);
}

/* BCD, and no more than a second away from the host's. */
static void the_clock_tells_the_time(void **state)
{
	static struct board board;

	(void)state;
	make_board(&board);
	out(&board, PLATFORM_RTC_PORT, 0x0b);
	assert_int_equal(in(&board, PLATFORM_RTC_PORT + 1, 1), 0x02);
	out(&board, PLATFORM_RTC_PORT, 0x8a);
	assert_int_equal(in(&board, PLATFORM_RTC_PORT + 1, 1) & 0x80, 0);
	out(&board, PLATFORM_RTC_PORT, 0x0d);
	assert_int_equal(in(&board, PLATFORM_RTC_PORT + 1, 1), 0x80);
	out(&board, PLATFORM_RTC_PORT, 0x32);
	assert_int_equal(in(&board, PLATFORM_RTC_PORT + 1, 1), 0x20);
	for (uint8_t index = 0; index < 10; index++) {
		uint64_t value;

		out(&board, PLATFORM_RTC_PORT, index);
		value = in(&board, PLATFORM_RTC_PORT + 1, 1);
		assert_true((value & 0xf) < 10 && value >> 4 < 10);
	}
	board_destroy(&board);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_found),
		cmocka_unit_test(an_edge_is_sent_where_its_entry_says),
		cmocka_unit_test(a_masked_edge_is_lost),
		cmocka_unit_test(only_interrupts_with_a_vector_are_sent),
		cmocka_unit_test(what_is_for_reading_stays),
		cmocka_unit_test(a_state_is_what_was_saved),
		cmocka_unit_test(nothing_reads_as_ones),
		cmocka_unit_test(input_interrupts_the_first_cpu),
		cmocka_unit_test(interrupts_to_other_cpus_are_dropped),
		cmocka_unit_test(power_is_asked_for_by_ports),
		cmocka_unit_test(slots_without_a_device_say_so),
		cmocka_unit_test(what_the_agent_is_told_calls_the_seat),
		cmocka_unit_test(networks_come_behind_disks),
		cmocka_unit_test(a_frame_calls_the_seat),
		cmocka_unit_test(a_bus_with_a_bridge_only),
		cmocka_unit_test(the_clock_tells_the_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
