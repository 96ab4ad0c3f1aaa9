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
#include "driver.h"
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

#define CPUS 2

/* By CPU, and by vector. */
static unsigned vectors[CPUS][256];

static void count_interrupt(void *context, unsigned cpu, uint8_t vector)
{
	(void)context;
	assert_in_range(cpu, 0, CPUS - 1);
	vectors[cpu][vector]++;
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

static atomic_uint calls;

static void count_call(void *context)
{
	(void)context;
	calls++;
}

static void make_board(struct board *board)
{
	memset(vectors, 0, sizeof(vectors));
	calls = 0;
	board_init(board, &(struct board_parts){
				  .cpus = { count_interrupt, NULL, CPUS, count_call },
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
	assert_int_equal(vectors[0][0x22], 1);
	assert_int_equal(vectors[1][0x22], 0);
	assert_int_equal(in(&board, PLATFORM_SERIAL_PORT, 1), 'x');
	board_destroy(&board);
}

/* Has a character interrupt with vector 0x22 whom an entry of the I/O APIC says. */
static void interrupt_by(uint32_t low, uint32_t destination)
{
	static struct board board;

	make_board(&board);
	access_board(&board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE, 4, true,
		     0x11 + 2 * PLATFORM_SERIAL_GSI);
	access_board(&board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE + 0x10, 4, true, destination << 24);
	access_board(&board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE, 4, true,
		     0x10 + 2 * PLATFORM_SERIAL_GSI);
	access_board(&board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE + 0x10, 4, true, low | 0x22);
	out(&board, PLATFORM_SERIAL_PORT + 4, 0x08);
	out(&board, PLATFORM_SERIAL_PORT + 1, 0x01);
	board_input(&board, (const uint8_t *)"x", 1);
	board_destroy(&board);
}

/* A number that no CPU has is nobody's, whatever other guests have. */
static void interrupts_go_to_cpus_of_this_board(void **state)
{
	static const struct {
		uint32_t low, destination;
		unsigned first, second;
	} cases[] = {
		{ 0, 0, 1, 0 },		   /* by number */
		{ 0, 1, 0, 1 },
		{ 0, 2, 0, 0 },
		{ 0, 0xfe, 0, 0 },
		{ 0, 0xff, 1, 1 },	   /* all */
		{ 1 << 11, 1, 1, 0 },	   /* by bits */
		{ 1 << 11, 2, 0, 1 },
		{ 1 << 11, 3, 1, 1 },
		{ 1 << 11, 0xfc, 0, 0 },
		{ 1 << 11 | 1 << 8, 3, 1, 0 }, /* the same, to one of them */
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		interrupt_by(cases[i].low, cases[i].destination);
		assert_int_equal(vectors[0][0x22], cases[i].first);
		assert_int_equal(vectors[1][0x22], cases[i].second);
	}
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
		{ PLATFORM_DEBUG_EXIT_PORT, 0, BOARD_EXITED },
		{ PLATFORM_DEBUG_EXIT_PORT, 7, BOARD_EXITED },
		{ PLATFORM_READY_PORT, 1, BOARD_ON },
		{ PLATFORM_PANIC_PORT, 1, BOARD_PANICKED },
		{ PLATFORM_PANIC_PORT, 2, BOARD_ON },
		{ PLATFORM_PANIC_PORT, 0xff, BOARD_PANICKED },
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
				   .cpus = { count_interrupt, NULL, CPUS, count_call },
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
				   .cpus = { count_interrupt, NULL, CPUS, count_call },
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

static void the_exit_port_has_a_status(void **state)
{
	static struct board board;

	(void)state;
	make_board(&board);
	assert_int_equal(in(&board, PLATFORM_DEBUG_EXIT_PORT, 1), 0);
	/* A word is not for this port, and not for the next one. */
	access_board(&board, BOARD_PORTS, PLATFORM_DEBUG_EXIT_PORT, 2, true, 0x107);
	assert_int_equal(board_power(&board), BOARD_ON);
	assert_false(board_take_ready(&board));
	out(&board, PLATFORM_DEBUG_EXIT_PORT, 200);
	assert_int_equal(board_power(&board), BOARD_EXITED);
	assert_int_equal(board_exit_status(&board), 200);
	board_destroy(&board);
}

static void ready_is_told_once(void **state)
{
	static struct board board;

	(void)state;
	make_board(&board);
	assert_int_equal(in(&board, PLATFORM_READY_PORT, 1), 0);
	assert_false(board_take_ready(&board));
	out(&board, PLATFORM_READY_PORT, 0);
	assert_true(board_take_ready(&board));
	assert_false(board_take_ready(&board));
	out(&board, PLATFORM_READY_PORT, 0xff);
	assert_true(board_take_ready(&board));
	board_destroy(&board);
}

/* As QEMU's document says: which events there are is read first. */
static void pvpanic_says_what_it_takes(void **state)
{
	static struct board board;

	(void)state;
	make_board(&board);
	assert_int_equal(in(&board, PLATFORM_PANIC_PORT, 1), PLATFORM_PANIC_PANICKED);
	board_destroy(&board);
}

static void say(struct board *board, const char *text)
{
	while (*text)
		out(board, PLATFORM_SERIAL_PORT, (uint8_t)*text++);
}

static void count_byte(void *context, uint8_t byte)
{
	unsigned *count = context;

	(void)byte;
	(*count)++;
}

static void the_last_words_are_kept(void **state)
{
	static struct board board;
	static struct board_last_words words;
	unsigned put = 0;

	(void)state;
	board_init(&board, &(struct board_parts){ .cpus = { count_interrupt, NULL, 1, count_call },
						  .output = { count_byte, &put } });
	board_last_words(&board, &words);
	assert_string_equal(words.lines, "");
	say(&board, "one\r\n\x1b[2Jtwo\r\n");
	assert_int_equal(put, 5 + 9);
	board_last_words(&board, &words);
	assert_string_equal(words.lines, "one\n[2Jtwo\n");
	assert_string_equal(words.panic, "");
	/* Only whole lines, up to its size. */
	for (unsigned i = 0; i < 1000; i++)
		say(&board, "0123456789\n");
	say(&board, "end");
	board_last_words(&board, &words);
	assert_int_equal(strlen(words.lines), 11 * ((CONSOLE_LOG_BYTES - 3) / 11) + 3);
	assert_memory_equal(words.lines, "0123456789\n", 11);
	assert_string_equal(words.lines + strlen(words.lines) - 4, "\nend");
	board_destroy(&board);
}

/* A kernel that panicked goes on to say why, and all that it says counts. */
static void check_says_when(struct board *board)
{
	uint64_t before = board_panicked_ns(board);

	say(board, ".");
	assert_int_equal(!board_panicked_ns(board), !before);
	assert_true(!before || board_panicked_ns(board) > before);
}

static void a_panic_is_seen_where_a_line_begins_so(void **state)
{
	static const struct {
		const char *line;
		const char *panic; /* NULL for none */
	} cases[] = {
		{ "Kernel panic - not syncing: x\r\n", "Kernel panic - not syncing: x" },
		{ "[    1.234567] Kernel panic - not syncing: y\n", "Kernel panic - not syncing: y" },
		{ "[    1.234567][    T1] Kernel panic - not syncing\n", "Kernel panic - not syncing" },
		{ "one\n[2.0] Kernel panic - not syncing: z\ntwo\n", "Kernel panic - not syncing: z" },
		{ "[2.0] Kernel panic - not syncing: a\n[3.0] Kernel panic - not syncing: b\n",
		  "Kernel panic - not syncing: a" },
		{ "Kernel panic - not syncing: no end", NULL },
		{ "it said Kernel panic - not syncing\n", NULL },
		{ "[    1.234567] Kernel panic - syncing\n", NULL },
		{ "[    1.234567 Kernel panic - not syncing\n", NULL },
		{ "[    1.234567] ---[ end Kernel panic - not syncing: x ]---\n", NULL },
		{ "[\n]\n\n", NULL },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		static struct board board;
		static struct board_last_words words;

		make_board(&board);
		say(&board, cases[i].line);
		board_last_words(&board, &words);
		assert_string_equal(words.panic, cases[i].panic ? cases[i].panic : "");
		assert_int_equal(!board_panicked_ns(&board), !cases[i].panic);
		check_says_when(&board);
		/* It is for the guest's owner to end it. */
		assert_int_equal(board_power(&board), BOARD_ON);
		board_destroy(&board);
	}
}

/* Longer lines than are looked at, with and without a panic at their beginning. */
static void long_lines_are_cut_off(void **state)
{
	static struct board board;
	static struct board_last_words words;

	(void)state;
	make_board(&board);
	for (unsigned i = 0; i < 5 * CONSOLE_LOG_BYTES; i++)
		say(&board, i % 3 ? "x" : "]");
	board_last_words(&board, &words);
	assert_int_equal(strlen(words.lines), CONSOLE_LOG_BYTES);
	say(&board, "\n[1.0] Kernel panic - not syncing: ");
	for (unsigned i = 0; i < 2 * CONSOLE_LOG_LINE; i++)
		say(&board, "y");
	say(&board, "\n");
	board_last_words(&board, &words);
	assert_memory_equal(words.panic, "Kernel panic - not syncing: yyy", 31);
	assert_true(strlen(words.panic) < CONSOLE_LOG_LINE);
	board_destroy(&board);
}

/* ---- saving ---- */

#define SLOT_PIN    PLATFORM_VIRTIO_GSI /* of slot 0, random numbers */
#define SLOT_VECTOR 0x31
#define PORT_VECTOR 0x22

static struct driver *driver;

/* A board whose random numbers go to the driver's memory. Interrupts are counted anew. */
static void make_saved_board(struct board *board)
{
	memset(vectors, 0, sizeof(vectors));
	board_init(board, &(struct board_parts){
				  .cpus = { count_interrupt, NULL, 1, count_call },
				  .memory = driver_memory(driver),
				  .output = { put_nowhere, NULL },
			  });
	driver->virtio = board->slots[0].virtio;
}

static void set_pin(struct board *board, uint32_t pin, uint32_t value)
{
	access_board(board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE, 4, true, 0x10 + 2 * pin);
	access_board(board, BOARD_MEMORY, PLATFORM_IOAPIC_BASE + 0x10, 4, true, value);
}

/* A board with something to be told of each of its devices, and with a driver at its slot 0. */
static void make_used_board(struct board *board)
{
	driver = driver_begin();
	make_saved_board(board);
	out(board, PLATFORM_RTC_PORT, 0x32);
	access_board(board, BOARD_PORTS, PCI_HOST_PORT, 4, true, 0x80000008);
	set_pin(board, SLOT_PIN, SLOT_VECTOR);
	set_pin(board, PLATFORM_SERIAL_GSI, PORT_VECTOR);
	out(board, PLATFORM_SERIAL_PORT + 4, 0x08); /* OUT2 */
	out(board, PLATFORM_SERIAL_PORT + 1, 0x01); /* received data */
	driver_start(driver, 0, 8);
}

static void work_off(struct board *board)
{
	unsigned rounds = 0;

	while (board_work(board))
		assert_true(++rounds < 1000);
}

static void a_saved_board_is_all_there(void **state)
{
	static struct board board, other;
	static struct board_state saved, again;

	(void)state;
	make_used_board(&board);
	board_input(&board, (const uint8_t *)"xy", 2);
	out(&board, PLATFORM_RESET_PORT, PLATFORM_RESET_VALUE);
	/* What was in memory before does not stay between what is saved. */
	memset(&saved, 0xa5, sizeof(saved));
	memset(&again, 0x5a, sizeof(again));
	board_save(&board, &saved);
	make_saved_board(&other);
	assert_true(board_restore(&other, &saved));
	board_save(&other, &again);
	assert_memory_equal(&saved, &again, sizeof(saved));

	assert_int_equal(board_power(&other), BOARD_RESET);
	assert_int_equal(in(&other, PLATFORM_RTC_PORT + 1, 1), 0x20);
	assert_int_equal(in(&other, PCI_HOST_PORT, 4), 0x80000008);
	assert_int_equal(in(&other, PLATFORM_SERIAL_PORT, 1), 'x');
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_STATUS), DRIVER_STARTED);
	board_destroy(&board);
	board_destroy(&other);
}

/*
 * The local APIC that was saved need not know of them, and is not there yet when the board is
 * restored.
 */
static void raised_lines_interrupt_after_a_restore(void **state)
{
	static struct board board, other;
	static struct board_state saved;

	(void)state;
	make_used_board(&board);
	board_input(&board, (const uint8_t *)"x", 1);
	virtio_mmio_configured(driver->virtio);
	assert_int_equal(vectors[0][PORT_VECTOR], 1);
	assert_int_equal(vectors[0][SLOT_VECTOR], 1);
	board_save(&board, &saved);

	make_saved_board(&other);
	assert_true(board_restore(&other, &saved));
	assert_int_equal(vectors[0][PORT_VECTOR], 0);
	assert_int_equal(vectors[0][SLOT_VECTOR], 0);
	work_off(&other);
	assert_int_equal(vectors[0][PORT_VECTOR], 1);
	assert_int_equal(vectors[0][SLOT_VECTOR], 1);
	work_off(&other);
	assert_int_equal(vectors[0][PORT_VECTOR], 1);
	assert_int_equal(vectors[0][SLOT_VECTOR], 1);

	/* The lines are as if they had been raised here. */
	assert_int_equal(in(&other, PLATFORM_SERIAL_PORT, 1), 'x');
	access_board(&other, BOARD_MEMORY, PLATFORM_VIRTIO_BASE + VIRTIO_MMIO_INTERRUPT_ACK, 4,
		     true, VIRTIO_MMIO_INT_CONFIG);
	board_input(&other, (const uint8_t *)"y", 1);
	virtio_mmio_configured(driver->virtio);
	assert_int_equal(vectors[0][PORT_VECTOR], 2);
	assert_int_equal(vectors[0][SLOT_VECTOR], 2);
	board_destroy(&board);
	board_destroy(&other);
}

static void lines_that_are_not_raised_stay_so(void **state)
{
	static struct board board, other;
	static struct board_state saved;

	(void)state;
	make_used_board(&board);
	board_save(&board, &saved);
	make_saved_board(&other);
	assert_true(board_restore(&other, &saved));
	work_off(&other);
	for (unsigned vector = 0; vector < 256; vector++)
		assert_int_equal(vectors[0][vector], 0);
	board_destroy(&board);
	board_destroy(&other);
}

static void what_waited_is_done_after_a_restore(void **state)
{
	static const struct driver_buffer buffer = { BUFFERS_AT, 16, true };
	static struct board board, other;
	static struct board_state saved;
	uint16_t head;

	(void)state;
	make_used_board(&board);
	head = driver_chain(driver, &buffer, 1);
	driver_write(driver, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	board_save(&board, &saved);

	make_saved_board(&other);
	assert_true(board_restore(&other, &saved));
	assert_true(driver_idle(driver));
	work_off(&other);
	assert_int_equal(driver_done(driver, head), 16);
	assert_int_equal(vectors[0][SLOT_VECTOR], 1);
	board_destroy(&board);
	board_destroy(&other);
}

/* What is wrong comes last on the way, and what was taken over before it would show. */
static void what_no_board_can_be_changes_nothing(void **state)
{
	static struct board board, other;
	static struct board_state good, bad, before, after;

	(void)state;
	make_used_board(&board);
	board_input(&board, (const uint8_t *)"x", 1);
	virtio_mmio_configured(driver->virtio);
	board_save(&board, &good);
	make_saved_board(&other);
	set_pin(&other, PLATFORM_SERIAL_GSI, PORT_VECTOR);
	set_pin(&other, SLOT_PIN, SLOT_VECTOR);
	board_save(&other, &before);
#define REFUSE(field, value)                                                                       \
	do {                                                                                       \
		bad = good;                                                                        \
		bad.field = (value);                                                               \
		assert_false(board_restore(&other, &bad));                                         \
		work_off(&other);                                                                  \
		board_save(&other, &after);                                                        \
		assert_memory_equal(&before, &after, sizeof(before));                              \
	} while (0)
	REFUSE(version, BOARD_STATE_VERSION + 1);
	REFUSE(power, 100);
	REFUSE(occupied, 0);
	REFUSE(occupied, 7);
	REFUSE(occupied, 1u << PLATFORM_VIRTIO_SLOTS | 3);
	REFUSE(exit_status, 256);
	REFUSE(rtc.version, RTC_STATE_VERSION + 1);
	REFUSE(rtc.index, 0x80);
	REFUSE(rtc.reserved[2], 1);
	REFUSE(pci_host.version, PCI_HOST_STATE_VERSION + 1);
	REFUSE(pci_host.address, 1);
	REFUSE(serial.received, 2);
	REFUSE(ioapic.entries[23], 1 << 14);
	REFUSE(slots[0].version, VIRTIO_MMIO_STATE_VERSION + 1);
	REFUSE(slots[0].queues[0].size, 7);
	REFUSE(slots[7].version, VIRTIO_MMIO_STATE_VERSION);
#undef REFUSE
	for (unsigned vector = 0; vector < 256; vector++)
		assert_int_equal(vectors[0][vector], 0);
	assert_true(board_restore(&other, &good));
	board_destroy(&board);
	board_destroy(&other);
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
		cmocka_unit_test(interrupts_go_to_cpus_of_this_board),
		cmocka_unit_test(power_is_asked_for_by_ports),
		cmocka_unit_test(slots_without_a_device_say_so),
		cmocka_unit_test(what_the_agent_is_told_calls_the_seat),
		cmocka_unit_test(networks_come_behind_disks),
		cmocka_unit_test(a_frame_calls_the_seat),
		cmocka_unit_test(a_bus_with_a_bridge_only),
		cmocka_unit_test(the_clock_tells_the_time),
		cmocka_unit_test(the_exit_port_has_a_status),
		cmocka_unit_test(ready_is_told_once),
		cmocka_unit_test(pvpanic_says_what_it_takes),
		cmocka_unit_test(the_last_words_are_kept),
		cmocka_unit_test(a_panic_is_seen_where_a_line_begins_so),
		cmocka_unit_test(long_lines_are_cut_off),
		cmocka_unit_test(a_saved_board_is_all_there),
		cmocka_unit_test(raised_lines_interrupt_after_a_restore),
		cmocka_unit_test(lines_that_are_not_raised_stay_so),
		cmocka_unit_test(what_waited_is_done_after_a_restore),
		cmocka_unit_test(what_no_board_can_be_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
