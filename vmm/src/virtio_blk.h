/* SPDX-License-Identifier: MIT */
/*
 * A virtio block device (virtio 1.2, 5.2) with one queue, in front of a disk. A request that the
 * disk cannot do ends with a status for the driver; a chain that is no request makes the device
 * need a reset. Data passes through a buffer, in parts of VIRTIO_BLK_PART bytes: whatever a driver
 * asks for, no more memory than that is needed.
 *
 * It has no lock: the device's owner sees to it (device.h).
 */
#ifndef VMM_VIRTIO_BLK_H
#define VMM_VIRTIO_BLK_H

#include <linux/virtio_blk.h>

#include "disk.h"
#include "virtio_mmio.h"

#define VIRTIO_BLK_PART (64u << 10)

struct virtio_blk {
	struct virtio_mmio virtio; /* to be accessed by way of virtio_mmio_type */
	struct disk *disk;
	char id[VIRTIO_BLK_ID_BYTES]; /* filled up with zeros; not ended by one if it is as long */
	struct virtio_blk_config configuration;
	unsigned char part[VIRTIO_BLK_PART];
};

/* @id tells this disk from others of its guest; it is cut off after 20 characters. */
void virtio_blk_init(struct virtio_blk *blk, struct disk *disk, const char *id,
		     struct device_memory memory, struct device_line line);

#endif
