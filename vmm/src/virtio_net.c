// SPDX-License-Identifier: MIT
#include "virtio_net.h"

#include <linux/if_ether.h>
#include <linux/virtio_ids.h>
#include <string.h>

#define FEATURE(bit) (UINT64_C(1) << (bit))

/* The device's queues (5.1.2). */
enum { RECEIVE, SEND, QUEUES };

#define MTU_LEAST 68 /* 5.1.4.1 */

static const char refused[] = "a buffer is not in memory";

/* ---- receiving ---- */

/* Nothing will come any more, and nothing will go out. */
static void link_down(struct virtio_net *net)
{
	net->configuration.status = 0;
	virtio_mmio_configured(&net->virtio);
}

static bool link_is_up(const struct virtio_net *net)
{
	return net->configuration.status & VIRTIO_NET_S_LINK_UP;
}

/*
 * Takes the next frame from the TAP. It is said that we listen before we do, because we may be told
 * of a frame at once.
 */
static bool fetch(struct virtio_net *net)
{
	switch (tap_read(net->wire.tap, net->frame, sizeof(net->frame), &net->frame_bytes)) {
	case TAP_FRAME:
		return true;
	case TAP_NONE:
		atomic_store(&net->listening, true);
		if (!net->wire.listen(net->wire.context))
			link_down(net);
		return false;
	case TAP_GONE:
		break;
	}
	link_down(net);
	return false;
}

static bool virtio_net_has(void *device, unsigned queue)
{
	struct virtio_net *net = device;

	if (queue != RECEIVE)
		return true;
	return link_is_up(net) && !atomic_load(&net->listening) && fetch(net);
}

/* The driver gets a chain back empty if the frame does not fit: it is lost. */
static const char *receive(struct virtio_net *net, const struct virtqueue *queue,
			   struct virtqueue_chain *chain, uint32_t *written)
{
	/* 5.1.6: with its last field also where VIRTIO_NET_F_MRG_RXBUF was not negotiated. */
	const struct virtio_net_hdr_v1 header = { .num_buffers = 1 };

	if (chain->in.left || chain->out.left < sizeof(header))
		return "a chain to receive by has bytes of its own, or no room for a header";
	if (chain->out.left < sizeof(header) + net->frame_bytes)
		return NULL;
	if (!virtqueue_write(queue, &chain->out, &header, sizeof(header)) ||
	    !virtqueue_write(queue, &chain->out, net->frame, net->frame_bytes))
		return refused;
	*written = (uint32_t)(sizeof(header) + net->frame_bytes);
	return NULL;
}

/* ---- sending ---- */

/* A frame that is too short or too long to be one is lost. */
static const char *send(struct virtio_net *net, const struct virtqueue *queue,
			struct virtqueue_chain *chain)
{
	struct virtio_net_hdr_v1 header;
	size_t bytes;

	if (chain->out.left || chain->in.left < sizeof(header))
		return "a chain to send has room to write, or no header";
	if (!virtqueue_read(queue, &chain->in, &header, sizeof(header)))
		return refused;
	if (chain->in.left < ETH_HLEN || chain->in.left > sizeof(net->frame) || !link_is_up(net))
		return NULL;
	bytes = (size_t)chain->in.left;
	if (!virtqueue_read(queue, &chain->in, net->frame, bytes))
		return refused;
	tap_write(net->wire.tap, net->frame, bytes);
	return NULL;
}

static const char *virtio_net_serve(void *device, const struct virtqueue *queue,
				    struct virtqueue_chain *chain, uint32_t *written)
{
	struct virtio_net *net = device;

	if (queue->number == RECEIVE)
		return receive(net, queue, chain, written);
	return send(net, queue, chain);
}

static const struct virtio_kind virtio_net_kind = {
	.name = "virtio-net",
	.id = VIRTIO_ID_NET,
	.queues = QUEUES,
	.has = virtio_net_has,
	.serve = virtio_net_serve,
};

void virtio_net_init(struct virtio_net *net, const struct virtio_net_wire *wire,
		     const uint8_t mac[6], struct device_memory memory, struct device_line line)
{
	uint64_t features = FEATURE(VIRTIO_NET_F_MAC) | FEATURE(VIRTIO_NET_F_STATUS);

	net->wire = *wire;
	net->frame_bytes = 0;
	atomic_init(&net->listening, false);
	net->configuration = (struct virtio_net_config){ .status = VIRTIO_NET_S_LINK_UP };
	memcpy(net->configuration.mac, mac, sizeof(net->configuration.mac));
	if (wire->tap->mtu >= MTU_LEAST) {
		features |= FEATURE(VIRTIO_NET_F_MTU);
		net->configuration.mtu = wire->tap->mtu;
	}
	virtio_mmio_init(&net->virtio, &virtio_net_kind, net, features, &net->configuration,
			 sizeof(net->configuration), memory, line);
}

void virtio_net_arrived(struct virtio_net *net)
{
	atomic_store(&net->listening, false);
}
