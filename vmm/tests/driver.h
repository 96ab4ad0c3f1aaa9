/* SPDX-License-Identifier: MIT */
/*
 * A driver of virtio devices, for tests: it knows the device by its registers and by what both have
 * in guest memory, which is flat here and lies between GUEST_START and GUEST_END.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "virtio_mmio.h"

#define GUEST_BYTES (1u << 20)
#define GUEST_START UINT64_C(0x100000)
#define GUEST_END   (GUEST_START + GUEST_BYTES)

/*
 * Where the parts of queue 0 lie, and what remains for buffers. Those of queue n lie n times
 * DRIVER_QUEUE_BYTES behind them, in what would be buffers otherwise.
 */
#define DRIVER_QUEUES	   2
#define DRIVER_QUEUE_BYTES (GUEST_BYTES / DRIVER_QUEUES)
#define DESCRIPTORS_AT GUEST_START
#define AVAILABLE_AT   (GUEST_START + 0x4000)
#define USED_AT	       (GUEST_START + 0x8000)
#define TABLE_AT       (GUEST_START + 0xc000)
#define BUFFERS_AT     (GUEST_START + 0x10000)
/* Guest memory that may only be read, in its last page. */
#define READ_ONLY_AT (GUEST_END - 0x1000)

#define DRIVER_STARTED                                                                             \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |      \
	 VIRTIO_CONFIG_S_DRIVER_OK)

#define FEATURE(bit) (UINT64_C(1) << (bit))

struct driver_queue {
	uint32_t size;
	uint16_t available; /* the next index */
	uint16_t used;	    /* up to where used chains have been seen */
	uint16_t next;	    /* free descriptor */
};

struct driver {
	struct virtio_mmio *virtio;
	unsigned number; /* of the queue that all calls are about; 0 at first */
	struct driver_queue queues[DRIVER_QUEUES];
	bool line;
	unsigned raises;
	unsigned writes; /* of the device to guest memory */
	unsigned char memory[GUEST_BYTES];
};

/* One driver, whose memory is zero again and which has no device. */
struct driver *driver_begin(void);
struct device_memory driver_memory(struct driver *driver);
struct device_line driver_line(struct driver *driver);

/* Where guest memory is seen; it must be within it. */
void *driver_at(struct driver *driver, uint64_t gpa);

uint32_t driver_read(struct driver *driver, uint64_t offset);
void driver_write(struct driver *driver, uint64_t offset, uint32_t value);
uint64_t driver_configuration(struct driver *driver, uint64_t offset, unsigned bytes);

/* Both halves of what the device offers. */
uint64_t driver_offered(struct driver *driver);

/*
 * From a reset to FEATURES_OK, which must be accepted; and from there, with a queue of @size, to
 * DRIVER_OK.
 */
void driver_negotiate(struct driver *driver, uint64_t features);
void driver_set_queue(struct driver *driver, uint32_t size);
void driver_start(struct driver *driver, uint64_t features, uint32_t size);

/* The same with all DRIVER_QUEUES queues. */
void driver_start_all(struct driver *driver, uint64_t features, uint32_t size);

/* All calls that follow are about queue @number. */
void driver_select(struct driver *driver, unsigned number);

/* Lets the device work until it has nothing to do. */
void driver_work(struct driver *driver);

/* Writes a descriptor of the queue's own table, or of the one at TABLE_AT. */
void driver_describe(struct driver *driver, uint16_t number, uint64_t at, uint32_t bytes,
		     unsigned flags, uint16_t next);
void driver_describe_indirect(struct driver *driver, uint16_t number, uint64_t at, uint32_t bytes,
			      unsigned flags, uint16_t next);

/* One buffer of a chain, by driver_chain(). */
struct driver_buffer {
	uint64_t at;
	uint32_t bytes;
	bool write;
};

/* Makes a chain of @count buffers available; returns its head. Descriptors are taken in turn. */
uint16_t driver_chain(struct driver *driver, const struct driver_buffer *buffers, unsigned count);

/* Makes the chain that begins with @head available. */
void driver_offer(struct driver *driver, uint16_t head);

/* Notifies the device, and lets it work until it has nothing to do. */
void driver_notify(struct driver *driver);

/*
 * The next chain that the device has done with, which must be @head; returns what it says it wrote.
 */
uint32_t driver_done(struct driver *driver, uint16_t head);

/* The device has given nothing back that was not asked for by driver_done(). */
bool driver_idle(struct driver *driver);

/* Clears the interrupt, and returns what it was for. */
uint32_t driver_acknowledge(struct driver *driver);

/* The device needs a reset, has said so, and from now on nothing changes; then it is reset. */
void driver_expect_broken(struct driver *driver);

#endif
