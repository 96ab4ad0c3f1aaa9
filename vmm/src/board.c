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

/* The ports take bytes, and whoever writes more to them means something else. */
static bool byte_written(struct device_access *access)
{
	if (!access->write)
		access->value = 0;
	return access->write && access->bytes == 1;
}

static void exit_access(void *device, struct device_access *access)
{
	struct board *board = device;

	if (!byte_written(access))
		return;
	board->exit_status = (uint8_t)access->value;
	board->power = BOARD_EXITED;
}

static const struct device_type exit_type = {
	.name = "debug exit",
	.window = 1,
	.access = exit_access,
};

static void ready_access(void *device, struct device_access *access)
{
	bool *ready = device;

	if (byte_written(access))
		*ready = true;
}

static const struct device_type ready_type = {
	.name = "ready",
	.window = 1,
	.access = ready_access,
};

/* Which events there are is read before one is written. */
static void panic_access(void *device, struct device_access *access)
{
	enum board_power *power = device;

	if (!access->write)
		access->value = PLATFORM_PANIC_PANICKED;
	else if (access->value & PLATFORM_PANIC_PANICKED)
		*power = BOARD_PANICKED;
}

static const struct device_type panic_type = {
	.name = "pvpanic",
	.window = 1,
	.access = panic_access,
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
	{ BOARD_PORTS, PLATFORM_DEBUG_EXIT_PORT, &exit_type, 0 },
	{ BOARD_PORTS, PLATFORM_READY_PORT, &ready_type, offsetof(struct board, ready) },
	{ BOARD_PORTS, PLATFORM_PANIC_PORT, &panic_type, offsetof(struct board, power) },
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

/*
 * What is raised, and was when the state was saved, is one more edge. The one that was sent then
 * may be in the local APIC that was saved, but it need not: the guest's CPU may have been saved
 * before the device raised its line. One edge too many does no harm: until the driver has
 * acknowledged it is the same interrupt, and after that one in which it finds nothing to do. One
 * too few would leave a driver waiting for ever, because a line that stays raised has no more.
 */
static void send_owed(struct board *board)
{
	if (board->serial.raised)
		ioapic_edge(&board->ioapic, PLATFORM_SERIAL_GSI);
	for (unsigned i = 0; i < PLATFORM_VIRTIO_SLOTS; i++)
		if (board->slots[i].virtio && board->slots[i].virtio->raised)
			ioapic_edge(&board->ioapic, PLATFORM_VIRTIO_GSI + i);
	board->owes = false;
}

bool board_work(struct board *board)
{
	bool more = false;

	pthread_mutex_lock(&board->lock);
	if (board->owes)
		send_owed(board);
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
		board->cpus.call(board->cpus.context);
	return sent;
}

/* ---- wires ---- */

/* A CPU has its number, and the bit of that number where numbers are logical. */
static unsigned destinations(const struct ioapic_message *message, unsigned cpus)
{
	unsigned all = (1u << cpus) - 1;

	if (message->destination == 0xff)
		return all;
	if (message->logical)
		return message->destination & all;
	return message->destination < cpus ? 1u << message->destination : 0;
}

static void send(void *context, struct ioapic_message message)
{
	struct board *board = context;
	unsigned cpus = destinations(&message, board->cpus.count);

	if (message.lowest)
		cpus &= ~cpus + 1;
	for (unsigned cpu = 0; cpus >> cpu; cpu++)
		if (cpus >> cpu & 1)
			board->cpus.interrupt(board->cpus.context, cpu, message.vector);
}

static void serial_line(void *context, bool raised)
{
	struct board *board = context;

	if (raised && !board->restoring)
		ioapic_edge(&board->ioapic, PLATFORM_SERIAL_GSI);
}

/* Keeps the end of what the guest writes. */
static void serial_put(void *context, uint8_t byte)
{
	struct board *board = context;

	console_log_put(&board->log, byte);
	board->output.put(board->output.context, byte);
}

static void slot_line(void *context, bool raised)
{
	struct board_slot *slot = context;

	if (raised && !slot->board->restoring)
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
	port->board->cpus.call(port->board->cpus.context);
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
	board->cpus = parts->cpus;
	pthread_mutex_init(&board->lock, NULL);
	ioapic_init(&board->ioapic, (struct ioapic_output){ send, board });
	board->output = parts->output;
	serial_init(&board->serial, (struct serial_output){ serial_put, board },
		    (struct device_line){ serial_line, board });
	rtc_init(&board->rtc);
	pci_host_init(&board->pci_host);
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

uint8_t board_exit_status(struct board *board)
{
	uint8_t status;

	pthread_mutex_lock(&board->lock);
	status = board->exit_status;
	pthread_mutex_unlock(&board->lock);
	return status;
}

bool board_take_ready(struct board *board)
{
	bool ready;

	pthread_mutex_lock(&board->lock);
	ready = board->ready;
	board->ready = false;
	pthread_mutex_unlock(&board->lock);
	return ready;
}

uint64_t board_panicked_ns(const struct board *board)
{
	return atomic_load(&board->log.panicked_ns);
}

void board_last_words(struct board *board, struct board_last_words *words)
{
	pthread_mutex_lock(&board->lock);
	memcpy(words->panic, board->log.panic, sizeof(words->panic));
	console_log_copy(&board->log, words->lines, sizeof(words->lines));
	pthread_mutex_unlock(&board->lock);
}

/* ---- saving ---- */

_Static_assert(sizeof(struct board_state) ==
		       4 * sizeof(uint32_t) + sizeof(struct rtc_state) +
			       sizeof(struct pci_host_state) + sizeof(struct serial_state) +
			       sizeof(struct ioapic_state) +
			       PLATFORM_VIRTIO_SLOTS * sizeof(struct virtio_mmio_state),
	       "nothing of the VMM's memory is in a state beside what it says");

static uint32_t occupied(const struct board *board)
{
	uint32_t bits = 0;

	for (unsigned i = 0; i < PLATFORM_VIRTIO_SLOTS; i++)
		bits |= board->slots[i].virtio ? 1u << i : 0;
	return bits;
}

void board_save(struct board *board, struct board_state *state)
{
	memset(state, 0, sizeof(*state));
	state->version = BOARD_STATE_VERSION;
	pthread_mutex_lock(&board->lock);
	state->power = board->power;
	state->occupied = occupied(board);
	state->exit_status = board->exit_status;
	rtc_save(&board->rtc, &state->rtc);
	pci_host_save(&board->pci_host, &state->pci_host);
	serial_save(&board->serial, &state->serial);
	ioapic_save(&board->ioapic, &state->ioapic);
	for (unsigned i = 0; i < PLATFORM_VIRTIO_SLOTS; i++)
		if (board->slots[i].virtio)
			virtio_mmio_save(board->slots[i].virtio, &state->slots[i]);
	pthread_mutex_unlock(&board->lock);
}

static void line_to_nowhere(void *context, bool raised)
{
	(void)context;
	(void)raised;
}

/*
 * Whether a slot's device could be what @state says: a copy of it that interrupts nobody tries to.
 */
static bool slot_good(const struct virtio_mmio *virtio, const struct virtio_mmio_state *state)
{
	static const struct virtio_mmio_state absent;
	struct virtio_mmio copy;

	if (!virtio)
		return memcmp(state, &absent, sizeof(absent)) == 0;
	copy = *virtio;
	copy.line = (struct device_line){ line_to_nowhere, NULL };
	return virtio_mmio_restore(&copy, state);
}

/* The same for all that has no wires, and the serial port. */
static bool others_good(const struct board *board, const struct board_state *state)
{
	struct rtc rtc = board->rtc;
	struct pci_host pci_host = board->pci_host;
	struct ioapic ioapic = board->ioapic;
	struct serial serial;

	serial_init(&serial, board->serial.output, (struct device_line){ line_to_nowhere, NULL });
	return rtc_restore(&rtc, &state->rtc) && pci_host_restore(&pci_host, &state->pci_host) &&
	       ioapic_restore(&ioapic, &state->ioapic) && serial_restore(&serial, &state->serial);
}

static bool state_good(const struct board *board, const struct board_state *state)
{
	if (state->version != BOARD_STATE_VERSION || state->power > BOARD_PANICKED ||
	    state->occupied != occupied(board) || state->exit_status > UINT8_MAX ||
	    !others_good(board, state))
		return false;
	for (unsigned i = 0; i < PLATFORM_VIRTIO_SLOTS; i++)
		if (!slot_good(board->slots[i].virtio, &state->slots[i]))
			return false;
	return true;
}

/* None of these refuses what is good. */
static void take_state(struct board *board, const struct board_state *state)
{
	board->restoring = true;
	board->power = (enum board_power)state->power;
	board->exit_status = (uint8_t)state->exit_status;
	rtc_restore(&board->rtc, &state->rtc);
	pci_host_restore(&board->pci_host, &state->pci_host);
	serial_restore(&board->serial, &state->serial);
	ioapic_restore(&board->ioapic, &state->ioapic);
	for (unsigned i = 0; i < PLATFORM_VIRTIO_SLOTS; i++)
		if (board->slots[i].virtio)
			virtio_mmio_restore(board->slots[i].virtio, &state->slots[i]);
	board->restoring = false;
	board->owes = true;
	board->busy = true;
}

bool board_restore(struct board *board, const struct board_state *state)
{
	bool good;

	pthread_mutex_lock(&board->lock);
	good = state_good(board, state);
	if (good)
		take_state(board, state);
	pthread_mutex_unlock(&board->lock);
	return good;
}

size_t board_input(struct board *board, const uint8_t *bytes, size_t count)
{
	size_t taken;

	pthread_mutex_lock(&board->lock);
	taken = serial_input(&board->serial, bytes, count);
	pthread_mutex_unlock(&board->lock);
	return taken;
}

void board_event(struct board *board)
{
	pthread_mutex_lock(&board->lock);
	ioapic_edge(&board->ioapic, PLATFORM_EVENT_GSI);
	pthread_mutex_unlock(&board->lock);
}
