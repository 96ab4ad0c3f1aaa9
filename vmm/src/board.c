// SPDX-License-Identifier: MIT
#include "board.h"

#include <linux/virtio_mmio.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "platform.h"

/*
 * The keyboard controller's command port, of which there is only what PCs reset by (Intel 8042,
 * command 0xfe): Linux tries it before it tries what is slow. It is never busy.
 */
#define KEYBOARD_PORT  0x64
#define KEYBOARD_RESET 0xfe

/* ---- small devices ---- */

/* ACPI 6.5, 4.8.3.6 and 4.8.3.7. */
static void power_access(void *device, struct device_access *access)
{
	enum board_power *power = device;
	uint64_t off = PLATFORM_SLEEP_ENABLE | PLATFORM_SLEEP_S5 << PLATFORM_SLEEP_TYPE_SHIFT;

	if (!access->write) {
		access->value = 0;
		return;
	}
	if (access->offset == 0 && access->value == PLATFORM_RESET_VALUE)
		*power = BOARD_RESET;
	else if (access->offset == PLATFORM_SLEEP_CONTROL_PORT - PLATFORM_RESET_PORT &&
		 access->value == off)
		*power = BOARD_OFF;
}

static const struct device_type power_type = {
	.name = "power",
	.window = PLATFORM_SLEEP_STATUS_PORT + 1 - PLATFORM_RESET_PORT,
	.access = power_access,
};

static void keyboard_access(void *device, struct device_access *access)
{
	enum board_power *power = device;

	if (!access->write)
		access->value = 0;
	else if (access->value == KEYBOARD_RESET)
		*power = BOARD_RESET;
}

static const struct device_type keyboard_type = {
	.name = "keyboard",
	.window = 1,
	.access = keyboard_access,
};

/* A slot without a device (virtio 1.2, 4.2.2). */
static void absent_access(struct device_access *access)
{
	if (access->write)
		return;
	switch (access->offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		access->value = 0x74726976;
		break;
	case VIRTIO_MMIO_VERSION:
		access->value = 2;
		break;
	default:
		access->value = 0;
		break;
	}
}

static void slot_access(void *device, struct device_access *access)
{
	struct board *board = device;
	unsigned number = (unsigned)(access->offset / PLATFORM_VIRTIO_BYTES);
	struct virtio_mmio *virtio = board->slots[number].virtio;

	access->offset %= PLATFORM_VIRTIO_BYTES;
	if (!virtio) {
		absent_access(access);
		return;
	}
	virtio_mmio_type.access(virtio, access);
	/*
	 * The device's line has levels and the pin edges: what is not acknowledged yet is one more.
	 */
	if (access->write && access->offset == VIRTIO_MMIO_INTERRUPT_ACK && virtio->raised)
		ioapic_edge(&board->ioapic, PLATFORM_VIRTIO_GSI + number);
}

static const struct device_type slot_type = {
	.name = "virtio slots",
	.window = PLATFORM_VIRTIO_SLOTS * PLATFORM_VIRTIO_BYTES,
	.access = slot_access,
};

/* ---- buses ---- */

/* What answers where. */
static const struct window {
	enum board_bus bus;
	uint64_t base;
	const struct device_type *type;
	size_t device; /* in struct board */
} windows[] = {
	{ BOARD_PORTS, PLATFORM_SERIAL_PORT, &serial_type, offsetof(struct board, serial) },
	{ BOARD_PORTS, PLATFORM_RTC_PORT, &rtc_type, offsetof(struct board, rtc) },
	{ BOARD_PORTS, PCI_HOST_PORT, &pci_host_type, offsetof(struct board, pci_host) },
	{ BOARD_PORTS, PLATFORM_RESET_PORT, &power_type, offsetof(struct board, power) },
	{ BOARD_PORTS, KEYBOARD_PORT, &keyboard_type, offsetof(struct board, power) },
	{ BOARD_MEMORY, PLATFORM_IOAPIC_BASE, &ioapic_type, offsetof(struct board, ioapic) },
	{ BOARD_MEMORY, PLATFORM_VIRTIO_BASE, &slot_type, 0 },
};

static const struct window *find_window(enum board_bus bus, uint64_t at)
{
	for (unsigned i = 0; i < sizeof(windows) / sizeof(windows[0]); i++)
		if (windows[i].bus == bus && at - windows[i].base < windows[i].type->window)
			return &windows[i];
	return NULL;
}

/* Bits that an access of @bytes has. */
static uint64_t bits_of(unsigned bytes)
{
	return bytes < 8 ? (UINT64_C(1) << 8 * bytes) - 1 : UINT64_MAX;
}

void board_access(struct board *board, enum board_bus bus, struct device_access *access)
{
	const struct window *window = find_window(bus, access->offset);

	if (!window) {
		if (!access->write)
			access->value = bits_of(access->bytes);
		return;
	}
	access->offset -= window->base;
	pthread_mutex_lock(&board->lock);
	board->busy = true;
	window->type->access((char *)board + window->device, access);
	pthread_mutex_unlock(&board->lock);
	access->value &= bits_of(access->bytes);
}

bool board_work(struct board *board)
{
	bool more = false;

	pthread_mutex_lock(&board->lock);
	for (unsigned i = 0; i < PLATFORM_VIRTIO_SLOTS && board->busy; i++)
		if (board->slots[i].virtio)
			more |= virtio_mmio_type.work(board->slots[i].virtio);
	board->busy = more;
	pthread_mutex_unlock(&board->lock);
	return more;
}

void board_called(struct board *board)
{
	pthread_mutex_lock(&board->lock);
	for (unsigned i = 0; i < PLATFORM_VIRTIO_SLOTS; i++)
		if (board->slots[i].virtio)
			virtio_mmio_call(board->slots[i].virtio);
	board->busy = true;
	pthread_mutex_unlock(&board->lock);
}

bool board_tell(struct board *board, const char *line)
{
	char bytes[VIRTIO_CONSOLE_QUEUE];
	int count = snprintf(bytes, sizeof(bytes), "%s\n", line);
	bool sent;

	if (count < 0 || (size_t)count >= sizeof(bytes))
		return false;
	pthread_mutex_lock(&board->lock);
	sent = virtio_console_send(&board->control, bytes, (size_t)count);
	pthread_mutex_unlock(&board->lock);
	if (sent)
		board->cpu.call(board->cpu.context);
	return sent;
}

/* ---- wires ---- */

/* The only CPU has number 0, and bit 0 where numbers are logical. */
static void send(void *context, struct ioapic_message message)
{
	struct board *board = context;
	bool first = message.logical ? message.destination & 1 : message.destination == 0;

	if (first || message.destination == 0xff)
		board->cpu.interrupt(board->cpu.context, message.vector);
}

static void serial_line(void *context, bool raised)
{
	struct board *board = context;

	if (raised)
		ioapic_edge(&board->ioapic, PLATFORM_SERIAL_GSI);
}

static void slot_line(void *context, bool raised)
{
	struct board_slot *slot = context;

	if (raised)
		ioapic_edge(&slot->board->ioapic, PLATFORM_VIRTIO_GSI + slot->number);
}

/* Puts a device into a slot, and returns its interrupt line. */
static struct device_line plug(struct board *board, unsigned number, struct virtio_mmio *virtio)
{
	struct board_slot *slot = &board->slots[number];

	*slot = (struct board_slot){ board, number, virtio };
	return (struct device_line){ slot_line, slot };
}

static void plug_disk(struct board *board, unsigned number, struct disk *disk,
		      struct device_memory memory)
{
	struct virtio_blk *blk = &board->blks[number];
	char id[VIRTIO_BLK_ID_BYTES];

	snprintf(id, sizeof(id), "disk%u", number);
	virtio_blk_init(blk, disk, id, memory, plug(board, BOARD_FREE + number, &blk->virtio));
}

static bool listen_to_port(void *context)
{
	const struct board_port *port = context;

	return listener_once(&port->source);
}

/* The thread of the seat does the rest. */
static void port_arrived(void *context)
{
	struct board_port *port = context;

	virtio_net_arrived(&port->net);
	port->board->cpu.call(port->board->cpu.context);
}

static void plug_net(struct board *board, unsigned number, const struct board_parts *parts)
{
	const struct board_net *net = &parts->nets[number];
	unsigned slot = BOARD_FREE + parts->disk_count + number;
	struct board_port *port = &board->ports[number];
	const struct virtio_net_wire wire = { net->tap, listen_to_port, port };

	port->board = board;
	port->source = (struct listener_source){ parts->listener, net->tap->fd, port_arrived, port };
	virtio_net_init(&port->net, &wire, net->mac, parts->memory,
			plug(board, slot, &port->net.virtio));
}

void board_init(struct board *board, const struct board_parts *parts)
{
	memset(board, 0, offsetof(struct board, blks));
	board->cpu = parts->cpu;
	pthread_mutex_init(&board->lock, NULL);
	ioapic_init(&board->ioapic, (struct ioapic_output){ send, board });
	serial_init(&board->serial, parts->output, (struct device_line){ serial_line, board });
	virtio_rng_init(&board->rng, parts->memory, plug(board, BOARD_RNG, &board->rng.virtio));
	virtio_console_init(&board->control, parts->hearer, parts->memory,
			    plug(board, BOARD_CONTROL, &board->control.virtio));
	for (unsigned i = 0; i < parts->disk_count; i++)
		plug_disk(board, i, &parts->disks[i], parts->memory);
	for (unsigned i = 0; i < parts->net_count; i++)
		plug_net(board, i, parts);
}

void board_destroy(struct board *board)
{
	pthread_mutex_destroy(&board->lock);
}

enum board_power board_power(struct board *board)
{
	enum board_power power;

	pthread_mutex_lock(&board->lock);
	power = board->power;
	pthread_mutex_unlock(&board->lock);
	return power;
}

size_t board_input(struct board *board, const uint8_t *bytes, size_t count)
{
	size_t taken;

	pthread_mutex_lock(&board->lock);
	taken = serial_input(&board->serial, bytes, count);
	pthread_mutex_unlock(&board->lock);
	return taken;
}
