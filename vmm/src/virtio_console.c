// SPDX-License-Identifier: MIT
#include "virtio_console.h"

#include <linux/virtio_ids.h>
#include <string.h>

/* The port's queues (5.3.2). */
enum { TO_GUEST, FROM_GUEST, QUEUES };

static const char refused[] = "a buffer is not in memory";

/* ---- to the guest ---- */

bool virtio_console_send(struct virtio_console *console, const void *bytes, size_t count)
{
	const unsigned char *from = bytes;

	if (count > VIRTIO_CONSOLE_QUEUE - console->count)
		return false;
	for (size_t i = 0; i < count; i++)
		console->queue[(console->first + console->count++) % VIRTIO_CONSOLE_QUEUE] =
			from[i];
	virtio_mmio_call(&console->virtio);
	return true;
}

static bool virtio_console_has(void *device, unsigned queue)
{
	const struct virtio_console *console = device;

	return queue != TO_GUEST || console->count;
}

/* Those that wait and lie behind each other, at most @room. */
static unsigned next_part(const struct virtio_console *console, uint64_t room)
{
	unsigned part = VIRTIO_CONSOLE_QUEUE - console->first;

	if (part > console->count)
		part = console->count;
	return part < room ? part : (unsigned)room;
}

static const char *to_guest(struct virtio_console *console, const struct virtqueue *queue,
			    struct virtqueue_chain *chain, uint32_t *written)
{
	if (chain->in.left || !chain->out.left)
		return "a chain to receive by has bytes of its own, or no room";
	while (console->count && chain->out.left) {
		unsigned part = next_part(console, chain->out.left);

		if (!virtqueue_write(queue, &chain->out, console->queue + console->first, part))
			return refused;
		*written += part;
		console->first = (console->first + part) % VIRTIO_CONSOLE_QUEUE;
		console->count -= part;
	}
	return NULL;
}

/* ---- from the guest ---- */

static void end_line(struct virtio_console *console)
{
	console->line[console->line_bytes] = '\0';
	console->line_bytes = 0;
	console->hearer.line(console->hearer.context, console->line);
}

/* A terminal's lines end with a carriage return too. */
static void take_byte(struct virtio_console *console, unsigned char byte)
{
	bool printable = byte >= ' ' && byte <= '~';

	if (byte == '\n')
		end_line(console);
	else if (byte != '\r' && console->line_bytes < VIRTIO_CONSOLE_LINE - 1)
		console->line[console->line_bytes++] = printable ? (char)byte : '?';
}

static const char *from_guest(struct virtio_console *console, const struct virtqueue *queue,
			      struct virtqueue_chain *chain)
{
	unsigned char bytes[256];

	if (chain->out.left)
		return "a chain to send has room to write";
	for (unsigned done = 0; chain->in.left && done < VIRTIO_CONSOLE_CHAIN;) {
		unsigned part = chain->in.left < sizeof(bytes) ? (unsigned)chain->in.left :
								 (unsigned)sizeof(bytes);

		if (!virtqueue_read(queue, &chain->in, bytes, part))
			return refused;
		for (unsigned i = 0; i < part; i++)
			take_byte(console, bytes[i]);
		done += part;
	}
	return NULL;
}

static const char *virtio_console_serve(void *device, const struct virtqueue *queue,
					struct virtqueue_chain *chain, uint32_t *written)
{
	struct virtio_console *console = device;

	if (queue->number == TO_GUEST)
		return to_guest(console, queue, chain, written);
	return from_guest(console, queue, chain);
}

static const struct virtio_kind virtio_console_kind = {
	.name = "virtio-console",
	.id = VIRTIO_ID_CONSOLE,
	.queues = QUEUES,
	.has = virtio_console_has,
	.serve = virtio_console_serve,
};

void virtio_console_init(struct virtio_console *console, struct virtio_console_hearer hearer,
			 struct device_memory memory, struct device_line line)
{
	console->hearer = hearer;
	console->first = console->count = console->line_bytes = 0;
	virtio_mmio_init(&console->virtio, &virtio_console_kind, console, 0, NULL, 0, memory, line);
}
