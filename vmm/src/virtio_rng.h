/* SPDX-License-Identifier: MIT */
/*
 * A virtio entropy device (virtio 1.2, 5.4): random bytes of the host's, never the same for two
 * guests.
 *
 * It has no lock: the device's owner sees to it (device.h).
 */
#ifndef VMM_VIRTIO_RNG_H
#define VMM_VIRTIO_RNG_H

#include "virtio_mmio.h"

/* Of each chain at most so many bytes are filled, which a device is free to do (5.4.6.2). */
#define VIRTIO_RNG_BYTES 4096u

struct virtio_rng {
	struct virtio_mmio virtio; /* to be accessed by way of virtio_mmio_type */
};

void virtio_rng_init(struct virtio_rng *rng, struct device_memory memory, struct device_line line);

#endif
