/* SPDX-License-Identifier: MIT */
/*
 * A split virtqueue, from the device's side (virtio 1.2, 2.7). Rings and descriptors lie in guest
 * memory and change at any time, so each is read once, into memory of our own, checked there and
 * used from there. What no driver may write breaks the queue: its owner stops and has @why.
 *
 * It has no lock: the device's owner sees to it (device.h).
 */
#ifndef VMM_VIRTQUEUE_H
#define VMM_VIRTQUEUE_H

#include "device.h"

/* Entries of a queue at most, and so descriptors of a chain (2.7.5.3.1). */
#define VIRTQUEUE_SIZE 256

/* What is to be saved of a queue. Addresses are as the driver wrote them, checked where @ready. */
struct virtqueue_state {
	uint64_t descriptors;
	uint64_t available; /* the "driver area" */
	uint64_t used;	    /* the "device area" */
	uint32_t size;	    /* entries */
	uint32_t ready;	    /* 1: the driver may use it */
	uint16_t next_available;
	uint16_t next_used;
	uint16_t told; /* next_used when it was last decided whether to interrupt */
	uint16_t reserved;
};

struct virtqueue {
	struct virtqueue_state state;
	unsigned number; /* of its device's */
	const struct device_memory *memory;
	bool indirect;	  /* VIRTIO_F_INDIRECT_DESC was negotiated */
	bool event_index; /* VIRTIO_F_EVENT_IDX was negotiated */
	const char *why;  /* it is broken */
};

/* A stretch of guest memory, never empty, whose end does not wrap. */
struct virtqueue_piece {
	struct gpa at;
	uint32_t bytes;
};

/* Pieces that are read or written from the first byte to the last. */
struct virtqueue_stream {
	const struct virtqueue_piece *piece;
	uint32_t skip; /* bytes of the first piece that are done */
	uint64_t left;
};

/* What a driver asks for: it stays where it is until the next one is taken. */
struct virtqueue_chain {
	uint16_t head;
	struct virtqueue_stream in;  /* what the device may read */
	struct virtqueue_stream out; /* what it may write */
	unsigned count;
	struct virtqueue_piece pieces[VIRTQUEUE_SIZE]; /* first all of @in, then all of @out */
};

enum virtqueue_result {
	VIRTQUEUE_NONE,	 /* the driver asks for nothing */
	VIRTQUEUE_CHAIN, /* it does */
	VIRTQUEUE_BROKEN,
};

/* Whether size and addresses are those of a queue; if so, and not @ready yet, it begins. */
bool virtqueue_start(struct virtqueue *queue);

/* Whether there is a chain to be taken. */
enum virtqueue_result virtqueue_look(struct virtqueue *queue);

/* Takes the next chain. */
enum virtqueue_result virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *chain);

/* Gives back a chain in which the device has written @bytes. False: broken. */
bool virtqueue_push(struct virtqueue *queue, uint16_t head, uint32_t bytes);

/*
 * There was nothing more to pop: asks to be notified of the next chain. VIRTQUEUE_CHAIN if there is
 * one by now, of which there may be no notification.
 */
enum virtqueue_result virtqueue_await(struct virtqueue *queue);

/*
 * Whether the driver wants to be told of what was pushed since this was asked last (2.7.7, 2.7.10).
 */
enum virtqueue_result virtqueue_tell(struct virtqueue *queue);

/* Copies the next @bytes. False if there are not as many, or if guest memory refuses. */
bool virtqueue_read(const struct virtqueue *queue, struct virtqueue_stream *in, void *to,
		    size_t bytes);
bool virtqueue_write(const struct virtqueue *queue, struct virtqueue_stream *out, const void *from,
		     size_t bytes);

/* The last @bytes of a stream that has as many; they are no longer its own. */
struct virtqueue_stream virtqueue_cut(struct virtqueue_stream *stream, uint64_t bytes);

#endif
