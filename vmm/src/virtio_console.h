/* SPDX-License-Identifier: MIT */
/*
 * A virtio console (virtio 1.2, 5.3) with its one port, by which the VMM speaks with an agent in the
 * guest. What the guest writes is taken as lines of text, which are handed to somebody; what the VMM
 * sends waits in a bounded queue until the guest takes it.
 *
 * It has no lock: the device's owner sees to it (device.h).
 */
#ifndef VMM_VIRTIO_CONSOLE_H
#define VMM_VIRTIO_CONSOLE_H

#include "virtio_mmio.h"

/* Bytes that wait for the guest, at most. */
#define VIRTIO_CONSOLE_QUEUE 4096u

/* Of a longer line the guest's own end is dropped; it ends with a zero, which counts. */
#define VIRTIO_CONSOLE_LINE 512u

/* Of one chain of the guest's so many bytes are looked at. */
#define VIRTIO_CONSOLE_CHAIN (64u << 10)

/*
 * Who hears the guest's lines, without their ends, and with a question mark in place of each byte that
 * is no printable character of ASCII. It must not call the device.
 */
struct virtio_console_hearer {
	void (*line)(void *context, const char *line);
	void *context;
};

struct virtio_console {
	struct virtio_mmio virtio; /* to be accessed by way of virtio_mmio_type */
	struct virtio_console_hearer hearer;
	unsigned first; /* of those that wait, in @queue, */
	unsigned count; /* and how many do */
	unsigned char queue[VIRTIO_CONSOLE_QUEUE];
	unsigned line_bytes;
	char line[VIRTIO_CONSOLE_LINE]; /* that is not ended yet */
};

void virtio_console_init(struct virtio_console *console, struct virtio_console_hearer hearer,
			 struct device_memory memory, struct device_line line);

/*
 * Sends all of @bytes to the guest, or nothing if there is no room for all of them. The caller sees to
 * it that work is done.
 */
bool virtio_console_send(struct virtio_console *console, const void *bytes, size_t count);

#endif
