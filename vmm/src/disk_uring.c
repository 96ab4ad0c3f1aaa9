// SPDX-License-Identifier: MIT
/*
 * Disk transfers by io_uring: those of a request are under way together. Each thread has a ring of
 * its own, made for its first request that has several transfers, so that nothing is locked.
 */
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>

#include "disk_internal.h"

#define DEPTH	  32u /* transfers under way, and entries of a ring */
#define PART_MOST (1u << 30)

struct ring {
	struct io_uring uring;
	bool works; /* not for want of a kernel that has it and lets us, for instance */
};

static pthread_key_t ring_key;
static pthread_once_t ring_once = PTHREAD_ONCE_INIT;

/* ---- rings ---- */

static void free_ring(void *argument)
{
	struct ring *ring = argument;

	if (ring->works)
		io_uring_queue_exit(&ring->uring);
	free(ring);
}

/* A child has its parent's ring in memory, and is to have one of its own. */
static void forget_ring(void)
{
	pthread_setspecific(ring_key, NULL);
}

static void make_key(void)
{
	if (pthread_key_create(&ring_key, free_ring) != 0 ||
	    pthread_atfork(NULL, NULL, forget_ring) != 0)
		abort();
}

/* Kernels before 5.6 have rings, but not these two operations. */
static bool knows_operations(struct io_uring *uring)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
	bool known = probe && io_uring_opcode_supported(probe, IORING_OP_READ) &&
		     io_uring_opcode_supported(probe, IORING_OP_WRITE);

	if (probe)
		io_uring_free_probe(probe);
	return known;
}

static void open_ring(struct ring *ring)
{
	if (io_uring_queue_init(DEPTH, &ring->uring, 0) < 0)
		return;
	ring->works = knows_operations(&ring->uring);
	if (!ring->works)
		io_uring_queue_exit(&ring->uring);
}

/* The thread's own; NULL if there is none, which is tried once. */
static struct ring *ring_of_thread(void)
{
	struct ring *ring;

	pthread_once(&ring_once, make_key);
	ring = pthread_getspecific(ring_key);
	if (!ring) {
		ring = calloc(1, sizeof(*ring));
		if (!ring)
			return NULL;
		if (pthread_setspecific(ring_key, ring) != 0) {
			free(ring);
			return NULL;
		}
		open_ring(ring);
	}
	return ring->works ? ring : NULL;
}

/* ---- transfers ---- */

/* Up to DEPTH transfers, and how far each has come. */
struct batch {
	struct io_uring *uring;
	const struct disk_transfer *transfers;
	size_t done[DEPTH];
	unsigned pending; /* that are queued or under way */
	int error;	  /* of the first that failed */
};

enum batch_result {
	BATCH_DONE,
	BATCH_FAILED,
	BATCH_REFUSED, /* the kernel took none of them */
};

/* There is room: each transfer is queued once at a time, and there are not more than entries. */
static void queue(struct batch *batch, size_t number)
{
	const struct disk_transfer *transfer = &batch->transfers[number];
	struct io_uring_sqe *entry = io_uring_get_sqe(batch->uring);
	char *at = (char *)transfer->buffer + batch->done[number];
	uint64_t offset = transfer->offset + batch->done[number];
	size_t left = transfer->bytes - batch->done[number];
	unsigned part = left < PART_MOST ? (unsigned)left : PART_MOST;

	if (transfer->write)
		io_uring_prep_write(entry, transfer->fd, at, part, offset);
	else
		io_uring_prep_read(entry, transfer->fd, at, part, offset);
	io_uring_sqe_set_data64(entry, number);
	batch->pending++;
}

/* What is done in part goes on; after an error all that is under way comes to its end. */
static void complete(struct batch *batch, size_t number, int result)
{
	batch->pending--;
	if (result == 0)
		result = -EIO; /* The file was cut off. */
	if (result > 0)
		batch->done[number] += (size_t)result;
	else if (result != -EINTR && result != -EAGAIN && !batch->error)
		batch->error = -result;
	if (!batch->error && batch->done[number] < batch->transfers[number].bytes)
		queue(batch, number);
}

static void take_completions(struct batch *batch)
{
	struct io_uring_cqe *completion;

	while (io_uring_peek_cqe(batch->uring, &completion) == 0) {
		size_t number = (size_t)io_uring_cqe_get_data64(completion);
		int result = completion->res;

		io_uring_cqe_seen(batch->uring, completion);
		complete(batch, number, result);
	}
}

/* A signal came, or the kernel is short of something for the moment. */
static bool passes(int error)
{
	return error == -EINTR || error == -EAGAIN || error == -EBUSY;
}

/*
 * The kernel may write to the buffers until all of them are done, so there is no way back once it
 * has taken one: nothing that is right leads to abort().
 */
static enum batch_result run_batch(struct io_uring *uring, const struct disk_transfer *transfers,
				   unsigned count)
{
	struct batch batch = { .uring = uring, .transfers = transfers };

	for (unsigned i = 0; i < count; i++)
		queue(&batch, i);
	while (batch.pending) {
		int submitted = io_uring_submit_and_wait(uring, 1);

		if (submitted < 0 && !passes(submitted)) {
			if (io_uring_sq_ready(uring) < count)
				abort();
			return BATCH_REFUSED;
		}
		take_completions(&batch);
	}
	if (batch.error)
		errno = batch.error;
	return batch.error ? BATCH_FAILED : BATCH_DONE;
}

/* One transfer alone has nothing to wait beside, and needs no more than one call as it is. */
static bool run_uring(const struct disk_transfer *transfers, unsigned count)
{
	struct ring *ring = count > 1 ? ring_of_thread() : NULL;

	if (!ring)
		return disk_io_plain.run(transfers, count);
	while (count) {
		unsigned part = count < DEPTH ? count : DEPTH;
		enum batch_result result = run_batch(&ring->uring, transfers, part);

		if (result == BATCH_REFUSED) {
			ring->works = false;
			io_uring_queue_exit(&ring->uring);
			return disk_io_plain.run(transfers, count);
		}
		if (result == BATCH_FAILED)
			return false;
		transfers += part;
		count -= part;
	}
	return true;
}

const struct disk_io disk_io_uring = { .run = run_uring };
