/* SPDX-License-Identifier: MIT */
/*
 * A virtio device behind registers in memory (virtio 1.2, 2.1 status, 2.2 features, 4.2 MMIO),
 * version 2 of these registers. It does for all kinds of devices what they have in common:
 * negotiation, queues, interrupts. A kind of device (virtio_blk.h, virtio_net.h) is what it does
 * with a chain.
 *
 * The driver's states, each of which needs the one before:
 *
 *	0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK
 *	|                                            chains are served here only
 *	+-- from everywhere, by writing 0
 *
 * FAILED, which the driver sets, and NEEDS_RESET, which the device does when the driver has broken
 * a rule of the queues, stop a device where it is: no chain is taken, pushed or written to any more
 * until it is reset. Nobody else is concerned.
 *
 * It has no lock: the device's owner sees to it (device.h). An access only notes that a queue is to
 * be served; virtio_mmio_type.work() serves it.
 */
#ifndef VMM_VIRTIO_MMIO_H
#define VMM_VIRTIO_MMIO_H

#include "device.h"
#include "virtqueue.h"

#define VIRTIO_MMIO_QUEUES	  4
#define VIRTIO_MMIO_STATE_VERSION 1

/* A kind of device. */
struct virtio_kind {
	const char *name;
	uint32_t id;	 /* its number (virtio 1.2, 5) */
	unsigned queues; /* at most VIRTIO_MMIO_QUEUES */

	/*
	 * Whether the device has something for a chain of the queue of this number, without which
	 * none is taken from it. Asked only while a chain waits; after it was false, not before
	 * virtio_mmio_call(). NULL: no queue's chains wait for the device.
	 */
	bool (*has)(void *device, unsigned queue);

	/*
	 * Does what a chain asks for. NULL, with how much was written of what it may write, or why
	 * no driver can ask for that: the device needs a reset then.
	 */
	const char *(*serve)(void *device, const struct virtqueue *queue,
			     struct virtqueue_chain *chain, uint32_t *written);
};

/*
 * What is to be saved of a device; its own configuration and what is behind it are its owner's
 * matter.
 */
struct virtio_mmio_state {
	uint32_t version;
	uint32_t id;	   /* of its kind */
	uint64_t features; /* that the driver has accepted */
	uint32_t status;
	uint32_t interrupt; /* reasons that the driver has not acknowledged */
	uint32_t generation;
	uint32_t device_select; /* what registers are about: halves of the features, a queue */
	uint32_t driver_select;
	uint32_t queue_select;
	uint32_t waiting; /* queues to be served, bit n for queue n */
	uint32_t reserved;
	struct virtqueue_state queues[VIRTIO_MMIO_QUEUES]; /* filled in by saving */
};

struct virtio_mmio {
	struct virtio_mmio_state state;
	const struct virtio_kind *kind;
	void *device; /* of that kind */
	uint64_t offered;
	const void *configuration; /* what the driver reads of it */
	size_t configuration_bytes;
	struct device_memory memory;
	struct device_line line;
	bool raised;
	const char *why; /* it needs a reset; NULL if it does not */
	uint32_t idle;	 /* queues whose chains wait for the device, bit n for queue n */
	struct virtqueue queues[VIRTIO_MMIO_QUEUES];
	struct virtqueue_chain chain; /* that is served */
};

/* For a struct virtio_mmio. */
extern const struct device_type virtio_mmio_type;

/*
 * A device of @kind that offers @features beside those of the transport. @configuration is read
 * whenever the driver reads it, and must outlive the device as @device must.
 */
void virtio_mmio_init(struct virtio_mmio *virtio, const struct virtio_kind *kind, void *device,
		      uint64_t features, const void *configuration, size_t configuration_bytes,
		      struct device_memory memory, struct device_line line);

/* The device may have something for chains that wait: work is to be done again. */
void virtio_mmio_call(struct virtio_mmio *virtio);

/* The configuration has changed: to be called by who changed it. */
void virtio_mmio_configured(struct virtio_mmio *virtio);

void virtio_mmio_save(const struct virtio_mmio *virtio, struct virtio_mmio_state *state);

/*
 * For a device that was made like the one that was saved. False if @state is none of this version
 * and of this device; it is as after a reset then.
 */
bool virtio_mmio_restore(struct virtio_mmio *virtio, const struct virtio_mmio_state *state);

#endif
