// SPDX-License-Identifier: MIT
#include "virtio_rng.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/random.h>

/* From the host's generator, which has been seeded long ago when guests run. */
static bool fill(unsigned char *to, size_t bytes)
{
	while (bytes) {
		ssize_t got = getrandom(to, bytes, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		to += got;
		bytes -= (size_t)got;
	}
	return true;
}

static const char *virtio_rng_serve(void *device, const struct virtqueue *queue,
				    struct virtqueue_chain *chain, uint32_t *written)
{
	unsigned char bytes[VIRTIO_RNG_BYTES];
	size_t count = sizeof(bytes);
	bool done;

	(void)device;
	if (chain->in.left || !chain->out.left)
		return "a request for random bytes has bytes of its own, or room for none";
	if (count > chain->out.left)
		count = (size_t)chain->out.left;
	if (!fill(bytes, count))
		return "the host has no random bytes";
	done = virtqueue_write(queue, &chain->out, bytes, count);
	/* Nobody else is to have them. */
	explicit_bzero(bytes, sizeof(bytes));
	*written = (uint32_t)count;
	return done ? NULL : "a buffer is not in memory";
}

static const struct virtio_kind virtio_rng_kind = {
	.name = "virtio-rng",
	.id = VIRTIO_ID_RNG,
	.queues = 1,
	.serve = virtio_rng_serve,
};

void virtio_rng_init(struct virtio_rng *rng, struct device_memory memory, struct device_line line)
{
	virtio_mmio_init(&rng->virtio, &virtio_rng_kind, rng, 0, NULL, 0, memory, line);
}
