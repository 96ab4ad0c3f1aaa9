// SPDX-License-Identifier: MIT
/*
 * Bytes as what a guest does to a device: accesses of any kind, and rings with anything in them.
 * Whatever it is, a device stays within guest memory and within its work, a device that needs a
 * reset does nothing, its line is what its registers say, what it saves it can restore, and a base
 * or a disk that is only read stays as it is.
 *
 *	device, features and queue, queue size
 *					a byte for each; the device is started as a driver does
 *	operation, its arguments	as often as there are bytes left
 */
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "input.h"
#include "serial.h"
#include "virtio_blk.h"
#include "virtio_console.h"
#include "virtio_net.h"
#include "virtio_rng.h"

#define OPERATIONS 100
#define SECTORS	   67
#define DISK_BYTES (SECTORS * DISK_SECTOR)

/* Guest memory: the queue's areas, an indirect table, and buffers. */
#define MEMORY_AT   UINT64_C(0x10000)
#define MEMORY	    0x10000u
#define DESCRIPTORS MEMORY_AT
#define AVAILABLE   (MEMORY_AT + 0x1000)
#define USED	    (MEMORY_AT + 0x2000)
#define TABLE	    (MEMORY_AT + 0x3000)
#define BUFFERS	    (MEMORY_AT + 0x4000)

#define READY (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)

static unsigned char memory[MEMORY];
static unsigned char base[DISK_BYTES];
static char base_path[32];
static uint32_t size; /* of that queue, as it was set first */
static uint16_t available;
static bool line;
static bool asleep; /* the device may not access memory */
static unsigned queue; /* whose areas those below are */
static unsigned accesses;

static struct serial serial;
static struct virtio_rng rng;
static struct virtio_blk blk;
static struct virtio_net net;
static struct virtio_console console;
static struct disk disk;
static struct tap tap;
static int network = -1; /* what is behind the TAP */
static unsigned listens;
static struct virtio_mmio *virtio;

static void die(const char *text)
{
	fprintf(stderr, "%s\n", text);
	abort();
}

static bool within(uint64_t at, size_t bytes)
{
	accesses++;
	if (asleep)
		die("a device accesses memory that it has nothing to do with");
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

static void set_line(void *context, bool raised)
{
	(void)context;
	if (raised == line)
		die("a line is set to what it is");
	line = raised;
}

static void put(void *context, uint8_t byte)
{
	(void)context;
	(void)byte;
}

static const struct device_memory guest_memory = { .read = read_memory, .write = write_memory };
static const struct device_line guest_line = { .set = set_line };

/* --- the serial port --- */

static void serial_again(void)
{
	struct serial_state state;
	struct serial_state again;

	serial_save(&serial, &state);
	if (!serial_restore(&serial, &state))
		die("the serial port's state cannot be restored");
	serial_save(&serial, &again);
	if (memcmp(&state, &again, sizeof(state)) != 0)
		die("the serial port's state is another one when it is restored");
}

static void run_serial(struct input *input)
{
	static const unsigned widths[] = { 1, 1, 1, 2, 4, 8 };
	uint8_t bytes[64];

	serial_init(&serial, (struct serial_output){ .put = put }, guest_line);
	for (unsigned i = 0; input->left && i < OPERATIONS; i++) {
		struct device_access access = {
			.offset = input_below(input, 8),
			.bytes = widths[input_below(input, 6)],
			.write = input_byte(input) & 1,
			.value = input_byte(input),
		};

		serial_type.access(&serial, &access);
		if (serial.state.received > SERIAL_FIFO)
			die("more characters than the FIFO holds");
		if (access.value & 1) {
			memset(bytes, (int)access.value, sizeof(bytes));
			serial_input(&serial, bytes, access.value % sizeof(bytes));
		} else if (access.value & 2) {
			serial_input_break(&serial);
		}
		serial_again();
	}
}

/* --- virtio --- */

static uint32_t access_register(uint64_t offset, bool write, uint32_t value)
{
	struct device_access access = {
		.offset = offset, .bytes = 4, .write = write, .value = value
	};

	asleep = true;
	virtio_mmio_type.access(virtio, &access);
	asleep = false;
	return (uint32_t)access.value;
}

static void write_register(uint64_t offset, uint32_t value)
{
	access_register(offset, true, value);
}

static void store(uint64_t at, const void *from, size_t bytes)
{
	memcpy(memory + (at - MEMORY_AT), from, bytes);
}

/* The other queues of a device stay as they are, without memory. */
static void start(struct input *input)
{
	uint32_t features = input_byte(input);
	uint64_t ring = (uint64_t)(features & 3) << VIRTIO_RING_F_INDIRECT_DESC;

	size = 1u << input_below(input, 9);
	available = 0;
	queue = virtio->kind->queues > 1 ? features >> 2 & 1 : 0;
	write_register(VIRTIO_MMIO_STATUS, 0);
	write_register(VIRTIO_MMIO_STATUS, READY & ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK);
	write_register(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	write_register(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(ring & virtio->offered));
	write_register(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	write_register(VIRTIO_MMIO_DRIVER_FEATURES, 1u << (VIRTIO_F_VERSION_1 - 32));
	write_register(VIRTIO_MMIO_STATUS, READY);
	write_register(VIRTIO_MMIO_QUEUE_SEL, queue);
	write_register(VIRTIO_MMIO_QUEUE_NUM, size);
	write_register(VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)DESCRIPTORS);
	write_register(VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)AVAILABLE);
	write_register(VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)USED);
	write_register(VIRTIO_MMIO_QUEUE_READY, 1);
	write_register(VIRTIO_MMIO_STATUS, READY | VIRTIO_CONFIG_S_DRIVER_OK);
	store(AVAILABLE + 2, &available, sizeof(available));
	input_say("started queue %u, features %#llx, %u entries", queue, (unsigned long long)ring,
		  size);
}

static uint64_t some_address(struct input *input)
{
	unsigned kind = input_below(input, 6);

	if (kind == 0)
		return input_address(input);
	if (kind == 1)
		return MEMORY_AT + MEMORY - input_byte(input);
	if (kind == 2)
		return DESCRIPTORS + 64u * input_byte(input);
	if (kind == 3)
		return TABLE;
	return BUFFERS + 16u * input_byte(input);
}

static uint32_t some_bytes(struct input *input)
{
	static const uint32_t sizes[] = { 0, 1, 15, 16, 17, 32, 512, 1024, 0x8000, 0xffffffff };
	unsigned kind = input_below(input, 12);

	return kind < 10 ? sizes[kind] : input_byte(input) * (kind == 10 ? 1u : 512u);
}

static void describe(struct input *input, uint64_t table)
{
	struct vring_desc descriptor;
	unsigned number = input_below(input, 16);

	descriptor.addr = some_address(input);
	descriptor.len = some_bytes(input);
	descriptor.flags = (uint16_t)input_below(input, 8);
	descriptor.next = input_byte(input) % 17;
	input_say("%s %u: %#llx, %u bytes, flags %u, next %u",
		  table == TABLE ? "indirect" : "descriptor", number,
		  (unsigned long long)descriptor.addr, descriptor.len, descriptor.flags,
		  descriptor.next);
	store(table + number * sizeof(descriptor), &descriptor, sizeof(descriptor));
}

/* A chain as a block device wants it, of which other operations may change parts. */
static void describe_request(struct input *input)
{
	struct virtio_blk_outhdr header = {
		.type = input_below(input, 16),
		.sector = input_below(input, SECTORS + 2),
	};
	bool in = input_byte(input) & 1;
	const struct vring_desc chain[] = {
		{ BUFFERS, sizeof(header), VRING_DESC_F_NEXT, 1 },
		{ BUFFERS + 0x100, some_bytes(input),
		  (uint16_t)(VRING_DESC_F_NEXT | (in ? VRING_DESC_F_WRITE : 0)), 2 },
		{ BUFFERS + 0x20, 1, VRING_DESC_F_WRITE, 0 },
	};

	input_say("request %u of sector %llu, %u bytes %s", header.type,
		  (unsigned long long)header.sector, chain[1].len, in ? "in" : "out");
	store(BUFFERS, &header, sizeof(header));
	store(DESCRIPTORS, chain, sizeof(chain));
}

static void offer(struct input *input)
{
	uint16_t head = (uint16_t)input_below(input, 18);

	input_say("offer %u", head);
	store(AVAILABLE + 4 + 2 * (available % size), &head, sizeof(head));
	available++;
	store(AVAILABLE + 2, &available, sizeof(available));
}

/* A register's name is half of its offset; values are words or small. */
static void access_any(struct input *input)
{
	static const unsigned widths[] = { 4, 4, 4, 4, 1, 2, 8 };
	struct device_access access = {
		.offset = 2u * input_byte(input) & 0x1ff,
		.bytes = widths[input_below(input, 7)],
		.write = input_byte(input) & 1,
	};

	access.value = input_byte(input) & 1 ? input_word(input) : input_byte(input);
	input_say("%s %#llx, %u bytes, value %#llx", access.write ? "write" : "read",
		  (unsigned long long)access.offset, access.bytes,
		  (unsigned long long)access.value);
	asleep = true;
	virtio_mmio_type.access(virtio, &access);
	asleep = false;
}

/*
 * A piece of work is bounded: by chains, by descriptors of each, and by parts of data of each of
 * these.
 */
static void work(void)
{
	bool runs = access_register(VIRTIO_MMIO_STATUS, false, 0) ==
		    (READY | VIRTIO_CONFIG_S_DRIVER_OK);

	write_register(VIRTIO_MMIO_QUEUE_NOTIFY, queue);
	accesses = 0;
	asleep = !runs;
	virtio_mmio_type.work(virtio);
	asleep = false;
	if (accesses > VIRTQUEUE_SIZE * (2 * VIRTQUEUE_SIZE + 64))
		die("more work than a queue can ask for");
	input_say("work: status %#x%s%s", access_register(VIRTIO_MMIO_STATUS, false, 0),
		  virtio->why ? ", " : "", virtio->why ? virtio->why : "");
}

static void virtio_again(void)
{
	struct virtio_mmio_state state;
	struct virtio_mmio_state again;

	virtio_mmio_save(virtio, &state);
	if (!virtio_mmio_restore(virtio, &state))
		die("a device's state cannot be restored");
	virtio_mmio_save(virtio, &again);
	if (memcmp(&state, &again, sizeof(state)) != 0)
		die("a device's state is another one when it is restored");
}

/* Something from outside: a frame, or text. What nobody takes is not kept for ever. */
static void arrive(struct input *input)
{
	unsigned char bytes[2000] = { 0 };
	unsigned count = 1 + input_byte(input) * 7u;

	memset(bytes, 'x', count);
	if (virtio == &net.virtio) {
		if (send(network, bytes, count, MSG_DONTWAIT) < 0)
			input_say("nobody takes frames");
		if (listens)
			virtio_net_arrived(&net);
		listens = 0;
	} else if (virtio == &console.virtio) {
		virtio_console_send(&console, bytes, count);
	}
	virtio_mmio_call(virtio);
	input_say("%u bytes arrive", count);
}

static void poke(struct input *input)
{
	unsigned at = input_byte(input) * 256u + input_byte(input);

	memory[at] = input_byte(input);
	input_say("byte %#x: %u", at, memory[at]);
}

static void operate(struct input *input)
{
	switch (input_below(input, 10)) {
	case 0:
		access_any(input);
		break;
	case 1:
		describe(input, TABLE);
		break;
	case 2:
		describe_request(input);
		break;
	case 3:
		poke(input);
		break;
	case 4:
		start(input);
		break;
	case 5:
		virtio_again();
		break;
	case 6:
		describe(input, DESCRIPTORS);
		break;
	case 7:
		offer(input);
		break;
	case 8:
		arrive(input);
		break;
	default:
		work();
		break;
	}
	if (line != (access_register(VIRTIO_MMIO_INTERRUPT_STATUS, false, 0) != 0))
		die("the line is not what the interrupt status says");
}

static void run_virtio(struct input *input)
{
	memset(memory, 0, sizeof(memory));
	start(input);
	for (unsigned i = 0; input->left && i < OPERATIONS; i++)
		operate(input);
	virtio_again();
}

/* Made once, of bytes that are not 0. */
static void make_base(void)
{
	int fd = memfd_create("base", MFD_CLOEXEC);

	memset(base, 'b', sizeof(base));
	if (fd < 0 || write(fd, base, sizeof(base)) != (ssize_t)sizeof(base))
		die("there is no base");
	snprintf(base_path, sizeof(base_path), "/proc/self/fd/%d", fd);
}

static void run_blk(struct input *input, bool read_only)
{
	static unsigned char now[DISK_BYTES];
	struct error error;

	if (!base_path[0])
		make_base();
	if (read_only ? !disk_open(&disk, base_path, DISK_READ_ONLY, &error)
		      : !disk_open_overlay(&disk, base_path, NULL, &error))
		die(error.text);
	virtio_blk_init(&blk, &disk, "fuzz", guest_memory, guest_line);
	virtio = &blk.virtio;
	run_virtio(input);
	disk_close(&disk);
	if (!disk_open(&disk, base_path, DISK_READ_ONLY, &error) ||
	    !disk_read(&disk, 0, now, sizeof(now)) || memcmp(now, base, sizeof(now)) != 0)
		die("the base is not what it was");
	disk_close(&disk);
}

static bool listen_to_network(void *context)
{
	(void)context;
	if (virtio != &net.virtio || listens++)
		die("a network is listened to twice");
	return true;
}

/* What the guest sends is read, so that there is room. */
static void run_net(struct input *input)
{
	static const uint8_t mac[6] = { 2 };
	static const struct virtio_net_wire wire = { &tap, listen_to_network, NULL };
	static unsigned char frame[VIRTIO_NET_FRAME];
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) < 0)
		die("there is no network");
	tap = (struct tap){ .fd = pair[0], .mtu = 1500 };
	network = pair[1];
	listens = 0;
	virtio_net_init(&net, &wire, mac, guest_memory, guest_line);
	virtio = &net.virtio;
	run_virtio(input);
	while (recv(network, frame, sizeof(frame), MSG_DONTWAIT) > 0)
		;
	close(pair[0]);
	close(pair[1]);
}

static void hear(void *context, const char *text)
{
	(void)context;
	if (strlen(text) >= VIRTIO_CONSOLE_LINE)
		die("a line is too long");
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			die("a line is no text");
}

static void run_console(struct input *input)
{
	virtio_console_init(&console, (struct virtio_console_hearer){ hear, NULL }, guest_memory,
			    guest_line);
	virtio = &console.virtio;
	run_virtio(input);
}

static void run_rng(struct input *input)
{
	virtio_rng_init(&rng, guest_memory, guest_line);
	virtio = &rng.virtio;
	run_virtio(input);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t bytes_left)
{
	struct input input = { bytes, bytes_left };
	unsigned kind = input_below(&input, 8);

	line = false;
	if (kind == 0)
		run_serial(&input);
	else if (kind == 1)
		run_rng(&input);
	else if (kind == 6)
		run_net(&input);
	else if (kind == 7)
		run_console(&input);
	else
		run_blk(&input, kind == 2);
	return 0;
}
