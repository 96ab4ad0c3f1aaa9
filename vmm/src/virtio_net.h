/* SPDX-License-Identifier: MIT */
/*
 * A virtio network device (virtio 1.2, 5.1) with one queue each to receive and to send, in front of a
 * TAP. It offers no offloads: each chain is one whole frame behind a header that says nothing. A
 * frame is copied by way of a buffer of the device's.
 *
 * Receiving has two sides. The driver makes chains available; and the TAP has frames, of which
 * nobody but the kernel knows. The device reads from the TAP only while a chain waits, so that what
 * the driver has no room for stays in the TAP's own queue, where the host bounds it. When the TAP has
 * nothing more, the device asks to be told (virtio_net_wire.listen), and is deaf until it is told
 * (virtio_net_arrived). No frame is missed: whoever is asked looks at the TAP itself after it was
 * asked, and tells of what is there by then.
 *
 * It has no lock: the device's owner sees to it (device.h).
 */
#ifndef VMM_VIRTIO_NET_H
#define VMM_VIRTIO_NET_H

#include <linux/virtio_net.h>
#include <stdatomic.h>

#include "tap.h"
#include "virtio_mmio.h"

/* A frame at most: a header, with one VLAN tag, and as much as IP can have in one packet. */
#define VIRTIO_NET_FRAME (18u + 65535u)

/* What the device is connected with. */
struct virtio_net_wire {
	struct tap *tap;
	/*
	 * Has virtio_net_arrived() called once, when the TAP has a frame, also one that it has by
	 * now. False if that cannot be: the link is down from then on.
	 */
	bool (*listen)(void *context);
	void *context;
};

struct virtio_net {
	struct virtio_mmio virtio; /* to be accessed by way of virtio_mmio_type */
	struct virtio_net_wire wire;
	struct virtio_net_config configuration;
	atomic_bool listening; /* set before listen(), cleared by virtio_net_arrived() */
	size_t frame_bytes;
	unsigned char frame[VIRTIO_NET_FRAME]; /* that is received or sent */
};

void virtio_net_init(struct virtio_net *net, const struct virtio_net_wire *wire,
		     const uint8_t mac[6], struct device_memory memory, struct device_line line);

/*
 * The TAP has a frame. From any thread, without the device's lock; afterwards the caller sees to it
 * that virtio_mmio_call() is called and work is done.
 */
void virtio_net_arrived(struct virtio_net *net);

#endif
