// SPDX-License-Identifier: MIT
#include "virtqueue.h"

#include <assert.h>
#include <emmintrin.h>
#include <linux/virtio_ring.h>
#include <string.h>

/* Guest and host are both x86, so that what virtio calls little-endian is ours. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "virtio's structures are little-endian");

struct descriptor {
	uint64_t at;
	uint32_t bytes;
	uint16_t flags;
	uint16_t next;
};

struct used_entry {
	uint32_t head;
	uint32_t bytes;
};

/* Offsets in the two rings (2.7.6, 2.7.8), both of which begin with flags. */
#define RING_FLAGS 0u
#define RING_INDEX 2u
#define RING	   4u

/*
 * The three areas of a queue (2.7): alignment, and bytes for @size entries with both event fields.
 */
#define DESCRIPTORS_ALIGN	16u
#define AVAILABLE_ALIGN		2u
#define USED_ALIGN		4u
#define DESCRIPTORS_BYTES(size) ((uint64_t)(size) * sizeof(struct descriptor))
#define AVAILABLE_BYTES(size)	(RING + (uint64_t)(size) * sizeof(uint16_t) + sizeof(uint16_t))
#define USED_BYTES(size)                                                                           \
	(RING + (uint64_t)(size) * sizeof(struct used_entry) + sizeof(uint16_t))

static enum virtqueue_result broken(struct virtqueue *queue, const char *why)
{
	queue->why = why;
	return VIRTQUEUE_BROKEN;
}

static bool read_guest(const struct virtqueue *queue, uint64_t from, void *to, size_t bytes)
{
	return queue->memory->read(queue->memory->context, (struct gpa){ from }, to, bytes);
}

static bool write_guest(const struct virtqueue *queue, uint64_t to, const void *from, size_t bytes)
{
	return queue->memory->write(queue->memory->context, (struct gpa){ to }, from, bytes);
}

static bool area_good(uint64_t at, unsigned align, uint64_t bytes)
{
	return at % align == 0 && at + bytes > at;
}

static bool size_good(uint32_t size)
{
	return size && size <= VIRTQUEUE_SIZE && (size & (size - 1)) == 0;
}

bool virtqueue_start(struct virtqueue *queue)
{
	struct virtqueue_state *state = &queue->state;

	if (!size_good(state->size)) {
		queue->why = "a queue's size is no power of two up to what is offered";
		return false;
	}
	if (!area_good(state->descriptors, DESCRIPTORS_ALIGN, DESCRIPTORS_BYTES(state->size)) ||
	    !area_good(state->available, AVAILABLE_ALIGN, AVAILABLE_BYTES(state->size)) ||
	    !area_good(state->used, USED_ALIGN, USED_BYTES(state->size))) {
		queue->why = "a queue's areas are not aligned, or beyond all addresses";
		return false;
	}
	if (!state->ready) {
		state->next_available = 0;
		state->next_used = 0;
		state->told = 0;
	}
	state->ready = 1;
	return true;
}

/* How many chains wait. */
static enum virtqueue_result waiting(struct virtqueue *queue, uint16_t *count)
{
	uint16_t index;

	if (!read_guest(queue, queue->state.available + RING_INDEX, &index, sizeof(index)))
		return broken(queue, "the available ring is not in memory");
	*count = (uint16_t)(index - queue->state.next_available);
	if (*count > queue->state.size)
		return broken(queue, "more chains are available than the queue has entries");
	return *count ? VIRTQUEUE_CHAIN : VIRTQUEUE_NONE;
}

/* A table of descriptors: the queue's own, or an indirect one. */
struct table {
	uint64_t at;
	uint32_t count;
	bool indirect;
};

/*
 * Adds one buffer to @chain; what can be written comes after all that can only be read (2.7.4.2).
 */
static enum virtqueue_result add_piece(struct virtqueue *queue, struct virtqueue_chain *chain,
				       const struct descriptor *descriptor)
{
	struct virtqueue_stream *stream = &chain->in;
	struct virtqueue_piece *piece;

	if (chain->count == queue->state.size)
		return broken(queue, "a chain is longer than its queue, or a loop");
	if (!descriptor->bytes)
		return broken(queue, "a buffer is empty");
	if (descriptor->at + descriptor->bytes < descriptor->at)
		return broken(queue, "a buffer is beyond all addresses");
	piece = &chain->pieces[chain->count++];
	*piece = (struct virtqueue_piece){ { descriptor->at }, descriptor->bytes };
	if (descriptor->flags & VRING_DESC_F_WRITE)
		stream = &chain->out;
	else if (chain->out.left)
		return broken(queue, "a buffer to read comes after one to write");
	if (!stream->left)
		stream->piece = piece;
	stream->left += descriptor->bytes;
	/* 2.7.4.2: not more than 2^32 bytes in all. */
	if (chain->in.left + chain->out.left > UINT64_C(1) << 32)
		return broken(queue, "a chain has more than 4 GiB");
	return VIRTQUEUE_CHAIN;
}

/* Goes over to the indirect table that is the last descriptor of the chain's own (2.7.5.3). */
static enum virtqueue_result enter_table(struct virtqueue *queue, struct table *table,
					 const struct descriptor *descriptor)
{
	if (!queue->indirect)
		return broken(queue, "an indirect table was not negotiated");
	if (table->indirect)
		return broken(queue, "an indirect table is in another one");
	if (descriptor->flags & VRING_DESC_F_NEXT)
		return broken(queue, "a descriptor follows an indirect table");
	if (!descriptor->bytes || descriptor->bytes % sizeof(struct descriptor))
		return broken(queue, "an indirect table is not one of descriptors");
	if (descriptor->at + descriptor->bytes < descriptor->at)
		return broken(queue, "an indirect table is beyond all addresses");
	*table = (struct table){
		.at = descriptor->at,
		.count = (uint32_t)(descriptor->bytes / sizeof(struct descriptor)),
		.indirect = true,
	};
	return VIRTQUEUE_CHAIN;
}

/*
 * Each turn adds a buffer, of which there is a limit, or enters an indirect table, which is done
 * once.
 */
static enum virtqueue_result walk(struct virtqueue *queue, struct virtqueue_chain *chain)
{
	struct table table = { .at = queue->state.descriptors, .count = queue->state.size };
	enum virtqueue_result result;
	struct descriptor descriptor;
	uint16_t at = chain->head;

	for (;;) {
		if (at >= table.count)
			return broken(queue, "a descriptor's number is not one of its table");
		if (!read_guest(queue, table.at + at * sizeof(descriptor), &descriptor,
				sizeof(descriptor)))
			return broken(queue, "a table of descriptors is not in memory");
		if (descriptor.flags & VRING_DESC_F_INDIRECT) {
			result = enter_table(queue, &table, &descriptor);
			at = 0;
		} else {
			result = add_piece(queue, chain, &descriptor);
			at = descriptor.next;
		}
		if (result != VIRTQUEUE_CHAIN)
			return result;
		if (!(descriptor.flags & (VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT)))
			return VIRTQUEUE_CHAIN;
	}
}

enum virtqueue_result virtqueue_look(struct virtqueue *queue)
{
	uint16_t count;

	return waiting(queue, &count);
}

enum virtqueue_result virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *chain)
{
	struct virtqueue_state *state = &queue->state;
	enum virtqueue_result result;
	uint64_t entry;
	uint16_t count;

	assert(state->ready);
	result = waiting(queue, &count);
	if (result != VIRTQUEUE_CHAIN)
		return result;
	/* The index is read before what it says is there. */
	_mm_lfence();
	chain->count = 0;
	chain->in = chain->out = (struct virtqueue_stream){ 0 };
	entry = state->available + RING + state->next_available % state->size * sizeof(chain->head);
	if (!read_guest(queue, entry, &chain->head, sizeof(chain->head)))
		return broken(queue, "the available ring is not in memory");
	result = walk(queue, chain);
	if (result == VIRTQUEUE_CHAIN)
		state->next_available++;
	return result;
}

bool virtqueue_push(struct virtqueue *queue, uint16_t head, uint32_t bytes)
{
	struct virtqueue_state *state = &queue->state;
	struct used_entry entry = { head, bytes };
	uint64_t at = state->used + RING + state->next_used % state->size * sizeof(entry);
	uint16_t next = (uint16_t)(state->next_used + 1);

	if (!write_guest(queue, at, &entry, sizeof(entry)))
		goto refused;
	/* The entry, and what was written to the chain, are there before the index says so. */
	_mm_sfence();
	if (!write_guest(queue, state->used + RING_INDEX, &next, sizeof(next)))
		goto refused;
	state->next_used = next;
	return true;
refused:
	queue->why = "the used ring is not in memory";
	return false;
}

/*
 * Where the driver finds from which chain on to notify, and we from which on to interrupt (2.7.10,
 * 2.7.7).
 */
static uint64_t available_event(const struct virtqueue_state *state)
{
	return state->used + RING + state->size * sizeof(struct used_entry);
}

static uint64_t used_event(const struct virtqueue_state *state)
{
	return state->available + RING + state->size * sizeof(uint16_t);
}

enum virtqueue_result virtqueue_await(struct virtqueue *queue)
{
	struct virtqueue_state *state = &queue->state;
	uint16_t count;

	if (queue->event_index &&
	    !write_guest(queue, available_event(state), &state->next_available,
			 sizeof(state->next_available)))
		return broken(queue, "the used ring is not in memory");
	/* Either we see the driver's new index now, or it sees this request afterwards. */
	_mm_mfence();
	return waiting(queue, &count);
}

enum virtqueue_result virtqueue_tell(struct virtqueue *queue)
{
	struct virtqueue_state *state = &queue->state;
	uint16_t told = state->told;
	uint16_t word;

	state->told = state->next_used;
	if (told == state->next_used)
		return VIRTQUEUE_NONE;
	/* Either the driver sees our new index, or we see what it has asked for since. */
	_mm_mfence();
	if (!read_guest(queue,
			queue->event_index ? used_event(state) : state->available + RING_FLAGS,
			&word, sizeof(word)))
		return broken(queue, "the available ring is not in memory");
	if (!queue->event_index)
		return word & VRING_AVAIL_F_NO_INTERRUPT ? VIRTQUEUE_NONE : VIRTQUEUE_CHAIN;
	/* Whether entry @word is one of those from @told on. */
	return (uint16_t)(word - told) < (uint16_t)(state->next_used - told) ? VIRTQUEUE_CHAIN
									     : VIRTQUEUE_NONE;
}

/* The part of a stream's first piece that is left, at most @bytes; they are done now. */
static struct virtqueue_piece take(struct virtqueue_stream *stream, size_t bytes)
{
	struct virtqueue_piece part = {
		{ stream->piece->at.v + stream->skip },
		stream->piece->bytes - stream->skip,
	};

	if (part.bytes > bytes)
		part.bytes = (uint32_t)bytes;
	stream->skip += part.bytes;
	stream->left -= part.bytes;
	if (stream->skip == stream->piece->bytes) {
		stream->piece++;
		stream->skip = 0;
	}
	return part;
}

bool virtqueue_read(const struct virtqueue *queue, struct virtqueue_stream *in, void *to,
		    size_t bytes)
{
	unsigned char *at = to;

	if (bytes > in->left)
		return false;
	while (bytes) {
		struct virtqueue_piece part = take(in, bytes);

		if (!read_guest(queue, part.at.v, at, part.bytes))
			return false;
		at += part.bytes;
		bytes -= part.bytes;
	}
	return true;
}

bool virtqueue_write(const struct virtqueue *queue, struct virtqueue_stream *out, const void *from,
		     size_t bytes)
{
	const unsigned char *at = from;

	if (bytes > out->left)
		return false;
	while (bytes) {
		struct virtqueue_piece part = take(out, bytes);

		if (!write_guest(queue, part.at.v, at, part.bytes))
			return false;
		at += part.bytes;
		bytes -= part.bytes;
	}
	return true;
}

struct virtqueue_stream virtqueue_cut(struct virtqueue_stream *stream, uint64_t bytes)
{
	struct virtqueue_stream tail = *stream;

	assert(bytes <= stream->left);
	stream->left -= bytes;
	while (tail.left > bytes)
		take(&tail, tail.left - bytes);
	return tail;
}
