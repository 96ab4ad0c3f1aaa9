// SPDX-License-Identifier: MIT
/*
 * Bytes as changes to the saved state of a board whose guest has started its devices, and then as
 * what that guest does: the state is refused with nothing changed, or it is what the board is now.
 * Whatever the guest does then, devices stay within guest memory, and the board can be saved and
 * restored again.
 *
 *	changes		how many; of each the offset in the state, and a byte
 *	operation, its arguments	as often as there are bytes left
 */
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "board.h"
#include "input.h"

#define CHANGES	   16
#define OPERATIONS 60
#define DISK_BYTES (67 * DISK_SECTOR)

/* Guest memory: the queue's areas, one after another, for each slot that has a device. */
#define MEMORY_AT   UINT64_C(0x10000)
#define MEMORY	    0x18000u
#define AREAS(slot) (MEMORY_AT + (slot) * 0x8000u)

#define READY (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)

static unsigned char memory[MEMORY];
static struct board board;
static struct disk disk;
static struct board_state good;

static void die(const char *text)
{
	fprintf(stderr, "%s\n", text);
	abort();
}

static bool within(uint64_t at, size_t bytes)
{
	return at >= MEMORY_AT && at <= MEMORY_AT + MEMORY && bytes <= MEMORY_AT + MEMORY - at;
}

static bool read_memory(void *context, struct gpa from, void *to, size_t bytes)
{
	(void)context;
	if (!within(from.v, bytes))
		return false;
	memcpy(to, memory + (from.v - MEMORY_AT), bytes);
	return true;
}

static bool write_memory(void *context, struct gpa to, const void *from, size_t bytes)
{
	(void)context;
	if (!within(to.v, bytes))
		return false;
	memcpy(memory + (to.v - MEMORY_AT), from, bytes);
	return true;
}

static void interrupt(void *context, unsigned cpu, uint8_t vector)
{
	(void)context;
	(void)cpu;
	(void)vector;
}

static void call(void *context)
{
	(void)context;
}

static void put(void *context, uint8_t byte)
{
	(void)context;
	(void)byte;
}

static void make_board(void)
{
	board_init(&board, &(struct board_parts){
				   .cpus = { interrupt, NULL, 1, call },
				   .memory = { .read = read_memory, .write = write_memory },
				   .output = { put, NULL },
				   .disks = &disk,
				   .disk_count = 1,
			   });
}

/* ---- a guest that has started ---- */

static void write_register(unsigned slot, uint64_t offset, uint32_t value)
{
	struct device_access access = {
		.offset = PLATFORM_VIRTIO_BASE + slot * PLATFORM_VIRTIO_BYTES + offset,
		.bytes = 4,
		.write = true,
		.value = value,
	};

	board_access(&board, BOARD_MEMORY, &access);
}

static void start_device(unsigned slot)
{
	write_register(slot, VIRTIO_MMIO_STATUS, READY & ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK);
	write_register(slot, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	write_register(slot, VIRTIO_MMIO_DRIVER_FEATURES, 1u << (VIRTIO_F_VERSION_1 - 32));
	write_register(slot, VIRTIO_MMIO_STATUS, READY);
	write_register(slot, VIRTIO_MMIO_QUEUE_NUM, 8);
	write_register(slot, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)AREAS(slot));
	write_register(slot, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)AREAS(slot) + 0x1000);
	write_register(slot, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)AREAS(slot) + 0x2000);
	write_register(slot, VIRTIO_MMIO_QUEUE_READY, 1);
	write_register(slot, VIRTIO_MMIO_STATUS, READY | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void open_disk(void)
{
	int fd = memfd_create("disk", 0);
	struct error error;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (fd < 0 || ftruncate(fd, DISK_BYTES) < 0 ||
	    !disk_open(&disk, path, DISK_WRITABLE, &error))
		die("no disk");
}

static void begin(void)
{
	if (good.version)
		return;
	open_disk();
	make_board();
	start_device(0);
	start_device(2);
	board_input(&board, (const uint8_t *)"x", 1);
	board_save(&board, &good);
	board_destroy(&board);
}

/* ---- what is done ---- */

static unsigned place_below(struct input *input, unsigned limit)
{
	unsigned high = input_byte(input);

	return (high << 8 | input_byte(input)) % limit;
}

static void change(struct input *input, struct board_state *state)
{
	unsigned count = input_below(input, CHANGES);

	*state = good;
	for (unsigned i = 0; i < count; i++) {
		unsigned at = place_below(input, sizeof(*state));

		((unsigned char *)state)[at] = input_byte(input);
		input_say("byte %#x of the state: %#x", at, ((unsigned char *)state)[at]);
	}
}

static void access_any(struct input *input)
{
	static const struct {
		enum board_bus bus;
		uint64_t at;
		unsigned bytes;
	} places[] = {
		{ BOARD_PORTS, PLATFORM_SERIAL_PORT, 8 },
		{ BOARD_PORTS, PLATFORM_RTC_PORT, 2 },
		{ BOARD_PORTS, PLATFORM_DEBUG_EXIT_PORT, 5 },
		{ BOARD_PORTS, PCI_HOST_PORT, 8 },
		{ BOARD_MEMORY, PLATFORM_IOAPIC_BASE, 0x20 },
		{ BOARD_MEMORY, PLATFORM_VIRTIO_BASE, 0x100 },
		{ BOARD_MEMORY, PLATFORM_VIRTIO_BASE + 2 * PLATFORM_VIRTIO_BYTES, 0x100 },
	};
	unsigned place = input_below(input, sizeof(places) / sizeof(places[0]));
	struct device_access access = {
		.offset = places[place].at + input_below(input, places[place].bytes),
		.bytes = 1u << input_below(input, 4),
		.write = input_byte(input) & 1,
		.value = input_byte(input),
	};

	input_say("%s %#llx, %u bytes, value %#llx", access.write ? "write" : "read",
		  (unsigned long long)access.offset, access.bytes,
		  (unsigned long long)access.value);
	board_access(&board, places[place].bus, &access);
}

static void operate(struct input *input)
{
	uint8_t byte;

	switch (input_below(input, 4)) {
	case 0:
		byte = input_byte(input);
		board_input(&board, &byte, 1);
		break;
	case 1:
		memory[place_below(input, MEMORY)] = input_byte(input);
		break;
	case 2:
		board_work(&board);
		break;
	default:
		access_any(input);
		break;
	}
}

/* What is a board can be one again. */
static void again(void)
{
	struct board_state state, other;

	board_save(&board, &state);
	board_destroy(&board);
	make_board();
	if (!board_restore(&board, &state))
		die("a board's state cannot be restored");
	board_save(&board, &other);
	if (memcmp(&state, &other, sizeof(state)) != 0)
		die("a board's state is another one when it is restored");
}

static void refused(const struct board_state *before)
{
	struct board_state after;

	input_say("refused");
	board_save(&board, &after);
	if (memcmp(before, &after, sizeof(after)) != 0)
		die("a state that was refused has changed something");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = { bytes, size };
	struct board_state state, before;

	begin();
	memset(memory, 0, sizeof(memory));
	make_board();
	board_save(&board, &before);
	change(&input, &state);
	if (board_restore(&board, &state)) {
		again();
		for (unsigned i = 0; input.left && i < OPERATIONS; i++)
			operate(&input);
		again();
	} else {
		refused(&before);
	}
	board_destroy(&board);
	return 0;
}
