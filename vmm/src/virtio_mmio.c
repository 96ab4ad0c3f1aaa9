// SPDX-License-Identifier: MIT
#include "virtio_mmio.h"

#include <assert.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>

#define MAGIC	     0x74726976 /* "virt" (4.2.2) */
#define VERSION	     2
#define VENDOR	     0x6d763273 /* "s2vm" */
#define WINDOW	     0x200
#define NO_SHM	     0xffffffff /* what there is no shared memory of (4.2.2.1) */
#define FEATURE(bit) (UINT64_C(1) << (bit))

#define TRANSPORT_FEATURES                                                                         \
	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |                      \
	 FEATURE(VIRTIO_RING_F_EVENT_IDX))

#define STATUS_OF_DRIVER                                                                           \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |      \
	 VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED)
#define STATUS_STOPPED (VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET)
#define INTERRUPTS     (VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG)

/* Steps of the driver's, each with the one that comes before it (3.1.1). */
static const struct {
	uint32_t bit, after;
} steps[] = {
	{ VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_ACKNOWLEDGE },
	{ VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER },
	{ VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK },
};

/*
 * Registers that are 32 bits of the queue that is selected. The driver writes them before it is
 * ready.
 */
static const struct {
	uint16_t offset, field;
} queue_registers[] = {
	{ VIRTIO_MMIO_QUEUE_NUM, offsetof(struct virtqueue_state, size) },
	{ VIRTIO_MMIO_QUEUE_DESC_LOW, offsetof(struct virtqueue_state, descriptors) },
	{ VIRTIO_MMIO_QUEUE_DESC_HIGH, offsetof(struct virtqueue_state, descriptors) + 4 },
	{ VIRTIO_MMIO_QUEUE_AVAIL_LOW, offsetof(struct virtqueue_state, available) },
	{ VIRTIO_MMIO_QUEUE_AVAIL_HIGH, offsetof(struct virtqueue_state, available) + 4 },
	{ VIRTIO_MMIO_QUEUE_USED_LOW, offsetof(struct virtqueue_state, used) },
	{ VIRTIO_MMIO_QUEUE_USED_HIGH, offsetof(struct virtqueue_state, used) + 4 },
};

static void set_line(struct virtio_mmio *virtio)
{
	bool raised = virtio->state.interrupt;

	if (raised == virtio->raised)
		return;
	virtio->raised = raised;
	virtio->line.set(virtio->line.context, raised);
}

static void interrupt(struct virtio_mmio *virtio, uint32_t reason)
{
	virtio->state.interrupt |= reason;
	set_line(virtio);
}

static bool runs(const struct virtio_mmio *virtio)
{
	return (virtio->state.status & (VIRTIO_CONFIG_S_DRIVER_OK | STATUS_STOPPED)) ==
	       VIRTIO_CONFIG_S_DRIVER_OK;
}

/* 2.1.2: a driver that is at work is told by an interrupt. */
static void needs_reset(struct virtio_mmio *virtio, const char *why)
{
	virtio->why = why;
	virtio->state.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (virtio->state.status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(virtio, VIRTIO_MMIO_INT_CONFIG);
}

/* --- negotiation --- */

static void reset(struct virtio_mmio *virtio)
{
	uint32_t generation = virtio->state.generation;

	virtio->state = (struct virtio_mmio_state){
		.version = VIRTIO_MMIO_STATE_VERSION,
		.id = virtio->kind->id,
		.generation = generation,
	};
	for (unsigned i = 0; i < VIRTIO_MMIO_QUEUES; i++)
		virtio->queues[i] = (struct virtqueue){ .number = i, .memory = &virtio->memory };
	virtio->why = NULL;
	virtio->idle = 0;
	set_line(virtio);
}

static void take_features(struct virtio_mmio *virtio)
{
	for (unsigned i = 0; i < VIRTIO_MMIO_QUEUES; i++) {
		virtio->queues[i].indirect =
			virtio->state.features & FEATURE(VIRTIO_RING_F_INDIRECT_DESC);
		virtio->queues[i].event_index =
			virtio->state.features & FEATURE(VIRTIO_RING_F_EVENT_IDX);
	}
}

/* 2.2.2 and 6.2: what was not offered cannot be had, and older drivers are not served. */
static bool features_good(const struct virtio_mmio *virtio)
{
	return !(virtio->state.features & ~virtio->offered) &&
	       virtio->state.features & FEATURE(VIRTIO_F_VERSION_1);
}

static void all_wait(struct virtio_mmio *virtio)
{
	for (unsigned i = 0; i < virtio->kind->queues; i++)
		if (virtio->queues[i].state.ready)
			virtio->state.waiting |= 1u << i;
}

/*
 * A step that is not due is not done, and none is taken back (2.1.1): the driver sees that when it
 * reads.
 */
static void write_status(struct virtio_mmio *virtio, uint32_t value)
{
	uint32_t was = virtio->state.status;
	uint32_t is = was | (value & STATUS_OF_DRIVER);

	if (!value) {
		reset(virtio);
		return;
	}
	if (!(was & VIRTIO_CONFIG_S_FEATURES_OK) && !features_good(virtio))
		is &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (!(is & steps[i].after))
			is &= ~steps[i].bit;
	virtio->state.status = is;
	if (~was & is & VIRTIO_CONFIG_S_FEATURES_OK)
		take_features(virtio);
	if (~was & is & VIRTIO_CONFIG_S_DRIVER_OK)
		all_wait(virtio);
}

static void write_features(struct virtio_mmio *virtio, uint32_t value)
{
	uint64_t *features = &virtio->state.features;

	if (virtio->state.status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	if (virtio->state.driver_select == 0)
		*features = (*features & ~UINT64_C(0xffffffff)) | value;
	else if (virtio->state.driver_select == 1)
		*features = (*features & 0xffffffff) | (uint64_t)value << 32;
}

static uint32_t read_features(const struct virtio_mmio *virtio)
{
	if (virtio->state.device_select > 1)
		return 0;
	return (uint32_t)(virtio->offered >> (32 * virtio->state.device_select));
}

/* --- queues --- */

/* NULL if there is none of this number. */
static struct virtqueue *selected(struct virtio_mmio *virtio)
{
	if (virtio->state.queue_select >= virtio->kind->queues)
		return NULL;
	return &virtio->queues[virtio->state.queue_select];
}

static void write_ready(struct virtio_mmio *virtio, uint32_t value)
{
	struct virtqueue *queue = selected(virtio);

	if (!queue || !(virtio->state.status & VIRTIO_CONFIG_S_FEATURES_OK) ||
	    virtio->state.status & STATUS_STOPPED)
		return;
	if (!(value & 1)) {
		queue->state.ready = 0;
		virtio->state.waiting &= ~(1u << virtio->state.queue_select);
	} else if (!queue->state.ready && !virtqueue_start(queue)) {
		needs_reset(virtio, queue->why);
	}
}

static void write_queue(struct virtio_mmio *virtio, uint64_t offset, uint32_t value)
{
	struct virtqueue *queue = selected(virtio);

	if (!queue || queue->state.ready)
		return;
	for (unsigned i = 0; i < sizeof(queue_registers) / sizeof(queue_registers[0]); i++)
		if (queue_registers[i].offset == offset)
			memcpy((char *)&queue->state + queue_registers[i].field, &value,
			       sizeof(value));
}

static void notify(struct virtio_mmio *virtio, uint32_t number)
{
	if (number < virtio->kind->queues && virtio->queues[number].state.ready)
		virtio->state.waiting |= 1u << number;
}

/*
 * Whether there is a chain that the device has nothing for. What it has is asked for last, so that
 * whatever it fetches then has a place.
 */
static bool waits_for_device(struct virtio_mmio *virtio, struct virtqueue *queue)
{
	const struct virtio_kind *kind = virtio->kind;

	return kind->has && virtqueue_look(queue) == VIRTQUEUE_CHAIN &&
	       !kind->has(virtio->device, queue->number);
}

/* Serves one chain. VIRTQUEUE_BROKEN: the device needs a reset. */
static enum virtqueue_result serve_one(struct virtio_mmio *virtio, struct virtqueue *queue)
{
	enum virtqueue_result result;
	uint32_t written = 0;

	if (waits_for_device(virtio, queue)) {
		virtio->idle |= 1u << queue->number;
		return VIRTQUEUE_NONE;
	}
	result = virtqueue_pop(queue, &virtio->chain);
	if (result == VIRTQUEUE_NONE)
		return virtqueue_await(queue);
	if (result == VIRTQUEUE_BROKEN)
		return result;
	queue->why = virtio->kind->serve(virtio->device, queue, &virtio->chain, &written);
	if (queue->why || !virtqueue_push(queue, virtio->chain.head, written))
		return VIRTQUEUE_BROKEN;
	return VIRTQUEUE_CHAIN;
}

/*
 * As many chains as a queue has entries, at most: a driver can add them faster than they are
 * served.
 */
static void serve_queue(struct virtio_mmio *virtio, unsigned number)
{
	struct virtqueue *queue = &virtio->queues[number];
	enum virtqueue_result result = VIRTQUEUE_CHAIN;
	enum virtqueue_result tell;

	for (unsigned i = 0; result == VIRTQUEUE_CHAIN && i < queue->state.size; i++)
		result = serve_one(virtio, queue);
	if (result == VIRTQUEUE_NONE && !(virtio->idle & 1u << number))
		virtio->state.waiting &= ~(1u << number);
	tell = result == VIRTQUEUE_BROKEN ? result : virtqueue_tell(queue);
	if (tell == VIRTQUEUE_CHAIN)
		interrupt(virtio, VIRTIO_MMIO_INT_VRING);
	else if (tell == VIRTQUEUE_BROKEN)
		needs_reset(virtio, queue->why);
}

/*
 * A queue whose chains wait for the device stays one that is to be served, also in a state that is
 * saved: who goes on from that asks the device anew.
 */
static uint32_t due(const struct virtio_mmio *virtio)
{
	return runs(virtio) ? virtio->state.waiting & ~virtio->idle : 0;
}

static bool virtio_mmio_work(void *device)
{
	struct virtio_mmio *virtio = device;

	for (unsigned i = 0; i < virtio->kind->queues; i++)
		if (due(virtio) & 1u << i)
			serve_queue(virtio, i);
	return due(virtio);
}

/* --- registers (4.2.2) --- */

static uint32_t read_register(struct virtio_mmio *virtio, uint64_t offset)
{
	const struct virtqueue *queue = selected(virtio);

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return virtio->kind->id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return read_features(virtio);
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return queue ? VIRTQUEUE_SIZE : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return queue ? queue->state.ready : 0;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return virtio->state.interrupt;
	case VIRTIO_MMIO_STATUS:
		return virtio->state.status;
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return NO_SHM;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return virtio->state.generation;
	default: /* for writing, or none */
		return 0;
	}
}

static void write_register(struct virtio_mmio *virtio, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		virtio->state.device_select = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		virtio->state.driver_select = value;
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		virtio->state.queue_select = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		write_features(virtio, value);
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		write_ready(virtio, value);
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		notify(virtio, value);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		virtio->state.interrupt &= ~value;
		set_line(virtio);
		break;
	case VIRTIO_MMIO_STATUS:
		write_status(virtio, value);
		break;
	default:
		write_queue(virtio, offset, value);
		break;
	}
}

/*
 * What lies beyond the configuration's end is 0. No kind of device has anything to be written yet.
 */
static uint64_t read_configuration(const struct virtio_mmio *virtio, uint64_t offset,
				   unsigned bytes)
{
	uint64_t value = 0;

	if (offset >= virtio->configuration_bytes)
		return 0;
	if (bytes > virtio->configuration_bytes - offset)
		bytes = (unsigned)(virtio->configuration_bytes - offset);
	memcpy(&value, (const char *)virtio->configuration + offset, bytes);
	return value;
}

/*
 * 4.2.2.2: registers are read and written with 32 bits, aligned; the configuration as its fields
 * are.
 */
static void virtio_mmio_access(void *device, struct device_access *access)
{
	struct virtio_mmio *virtio = device;
	bool aligned = access->bytes == 4 && access->offset % 4 == 0;

	if (access->offset >= VIRTIO_MMIO_CONFIG) {
		if (!access->write)
			access->value = read_configuration(
				virtio, access->offset - VIRTIO_MMIO_CONFIG, access->bytes);
	} else if (access->write) {
		if (aligned)
			write_register(virtio, access->offset, (uint32_t)access->value);
	} else {
		access->value = aligned ? read_register(virtio, access->offset) : 0;
	}
}

const struct device_type virtio_mmio_type = {
	.name = "virtio-mmio",
	.window = WINDOW,
	.trigger = DEVICE_LEVEL,
	.access = virtio_mmio_access,
	.work = virtio_mmio_work,
};

void virtio_mmio_init(struct virtio_mmio *virtio, const struct virtio_kind *kind, void *device,
		      uint64_t features, const void *configuration, size_t configuration_bytes,
		      struct device_memory memory, struct device_line line)
{
	assert(kind->queues <= VIRTIO_MMIO_QUEUES);
	assert(configuration_bytes <= WINDOW - VIRTIO_MMIO_CONFIG);
	*virtio = (struct virtio_mmio){
		.kind = kind,
		.device = device,
		.offered = features | TRANSPORT_FEATURES,
		.configuration = configuration,
		.configuration_bytes = configuration_bytes,
		.memory = memory,
		.line = line,
	};
	reset(virtio);
}

void virtio_mmio_call(struct virtio_mmio *virtio)
{
	virtio->idle = 0;
}

void virtio_mmio_configured(struct virtio_mmio *virtio)
{
	virtio->state.generation++;
	if (virtio->state.status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(virtio, VIRTIO_MMIO_INT_CONFIG);
}

/* --- saving --- */

void virtio_mmio_save(const struct virtio_mmio *virtio, struct virtio_mmio_state *state)
{
	*state = virtio->state;
	for (unsigned i = 0; i < VIRTIO_MMIO_QUEUES; i++)
		state->queues[i] = virtio->queues[i].state;
}

/* Whether each step of the driver's has the one before it. */
static bool status_good(uint32_t status)
{
	if (status & ~(uint32_t)(STATUS_OF_DRIVER | VIRTIO_CONFIG_S_NEEDS_RESET))
		return false;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (status & steps[i].bit && !(status & steps[i].after))
			return false;
	return true;
}

static bool queue_good(struct virtqueue *queue)
{
	return queue->state.ready == 0 || (queue->state.ready == 1 && virtqueue_start(queue));
}

/* Looks at a state that has been taken over. */
static bool state_good(struct virtio_mmio *virtio)
{
	const struct virtio_mmio_state *state = &virtio->state;

	if (state->version != VIRTIO_MMIO_STATE_VERSION || state->id != virtio->kind->id ||
	    state->reserved || state->interrupt & ~(uint32_t)INTERRUPTS ||
	    state->waiting >> virtio->kind->queues || !status_good(state->status))
		return false;
	if (state->status & VIRTIO_CONFIG_S_FEATURES_OK && !features_good(virtio))
		return false;
	for (unsigned i = 0; i < VIRTIO_MMIO_QUEUES; i++) {
		bool ready = virtio->queues[i].state.ready;

		if (!queue_good(&virtio->queues[i]))
			return false;
		if (ready &&
		    (i >= virtio->kind->queues || !(state->status & VIRTIO_CONFIG_S_FEATURES_OK)))
			return false;
		if (!ready && state->waiting & 1u << i)
			return false;
	}
	return true;
}

bool virtio_mmio_restore(struct virtio_mmio *virtio, const struct virtio_mmio_state *state)
{
	bool good;

	reset(virtio);
	virtio->state = *state;
	for (unsigned i = 0; i < VIRTIO_MMIO_QUEUES; i++)
		virtio->queues[i].state = state->queues[i];
	good = state_good(virtio);
	if (!good)
		reset(virtio);
	else if (state->status & VIRTIO_CONFIG_S_FEATURES_OK)
		take_features(virtio);
	if (state->status & VIRTIO_CONFIG_S_NEEDS_RESET && good)
		virtio->why = "it needed a reset when it was saved";
	set_line(virtio);
	return good;
}
