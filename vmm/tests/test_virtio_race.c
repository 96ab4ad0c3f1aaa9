// SPDX-License-Identifier: MIT
/*
 * A driver and a device on two processors, with event indexes: each tells the other only when it has been
 * asked to, and sleeps otherwise. What one of them misses makes both sleep for ever, and the test fail.
 */
#include <emmintrin.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "virtio_mmio.h"

#define ENTRIES	  8u
#define CHAINS	  100000u
#define SECONDS	  60
#define MEMORY	  0x4000
#define AVAILABLE 0x1000
#define USED	  0x2000
#define BUFFERS	  0x3000

static _Alignas(4096) unsigned char memory[MEMORY];
static struct virtio_mmio virtio;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the device */
static sem_t notified;	  /* the driver has something for the device */
static sem_t interrupted; /* and the other way round */
static unsigned notifications;
static unsigned interrupts;
static uint32_t served;
static volatile bool ending;

static volatile uint16_t *word(unsigned at)
{
	return (volatile uint16_t *)(void *)(memory + at);
}

/* As the interface has it, what is aligned is one access. */
static bool read_memory(void *context, struct gpa from, void *to, size_t bytes)
{
	uint16_t value;

	(void)context;
	if (from.v > MEMORY || bytes > MEMORY - from.v)
		return false;
	if (bytes != sizeof(value)) {
		memcpy(to, memory + from.v, bytes);
		return true;
	}
	value = *word((unsigned)from.v);
	memcpy(to, &value, sizeof(value));
	return true;
}

static bool write_memory(void *context, struct gpa to, const void *from, size_t bytes)
{
	uint16_t value;

	(void)context;
	if (to.v > MEMORY || bytes > MEMORY - to.v)
		return false;
	if (bytes != sizeof(value)) {
		memcpy(memory + to.v, from, bytes);
		return true;
	}
	memcpy(&value, from, sizeof(value));
	*word((unsigned)to.v) = value;
	return true;
}

static void set_line(void *context, bool raised)
{
	(void)context;
	if (!raised)
		return;
	interrupts++;
	sem_post(&interrupted);
}

/* Writes the number of the chain. */
static const char *serve(void *device, const struct virtqueue *queue, struct virtqueue_chain *chain,
			 uint32_t *written)
{
	(void)device;
	*written = sizeof(served);
	served++;
	return virtqueue_write(queue, &chain->out, &served, sizeof(served)) ? NULL : "refused";
}

static const struct virtio_kind kind = { .name = "count", .id = 42, .queues = 1, .serve = serve };

static uint32_t access_device(uint64_t offset, bool write, uint32_t value)
{
	struct device_access access = {
		.offset = offset, .bytes = 4, .write = write, .value = value
	};

	pthread_mutex_lock(&lock);
	virtio_mmio_type.access(&virtio, &access);
	pthread_mutex_unlock(&lock);
	return (uint32_t)access.value;
}

static void *run_device(void *context)
{
	(void)context;
	for (;;) {
		bool more = true;

		sem_wait(&notified);
		if (ending)
			return NULL;
		access_device(VIRTIO_MMIO_QUEUE_NOTIFY, true, 0);
		while (more) {
			pthread_mutex_lock(&lock);
			more = virtio_mmio_type.work(&virtio);
			pthread_mutex_unlock(&lock);
		}
	}
}

static void start(void)
{
	const uint32_t registers[][2] = {
		{ VIRTIO_MMIO_STATUS, 1 },
		{ VIRTIO_MMIO_STATUS, 3 },
		{ VIRTIO_MMIO_DRIVER_FEATURES, 1u << VIRTIO_RING_F_EVENT_IDX },
		{ VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1 },
		{ VIRTIO_MMIO_DRIVER_FEATURES, 1u << (VIRTIO_F_VERSION_1 - 32) },
		{ VIRTIO_MMIO_STATUS, 11 },
		{ VIRTIO_MMIO_QUEUE_NUM, ENTRIES },
		{ VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAILABLE },
		{ VIRTIO_MMIO_QUEUE_USED_LOW, USED },
		{ VIRTIO_MMIO_QUEUE_DESC_LOW, 0x100 },
		{ VIRTIO_MMIO_QUEUE_READY, 1 },
		{ VIRTIO_MMIO_STATUS, 15 },
	};

	virtio_mmio_init(&virtio, &kind, NULL, 0, NULL, 0,
			 (struct device_memory){ read_memory, write_memory, NULL },
			 (struct device_line){ .set = set_line });
	for (unsigned i = 0; i < sizeof(registers) / sizeof(registers[0]); i++)
		access_device(registers[i][0], true, registers[i][1]);
	assert_int_equal(access_device(VIRTIO_MMIO_STATUS, false, 0), 15);
	for (unsigned i = 0; i < ENTRIES; i++) {
		struct vring_desc descriptor = { BUFFERS + 4 * i, 4, VRING_DESC_F_WRITE, 0 };

		memcpy(memory + 0x100 + i * sizeof(descriptor), &descriptor, sizeof(descriptor));
		*word(AVAILABLE + 4 + 2 * i) = (uint16_t)i;
	}
}

/* Makes the next chain available, and notifies if the device asked for this one. */
static void offer(uint16_t *available)
{
	uint16_t event;

	*word(AVAILABLE + 2) = ++*available;
	_mm_mfence();
	event = *word(USED + 4 + 8 * ENTRIES);
	if (event == (uint16_t)(*available - 1)) {
		notifications++;
		sem_post(&notified);
	}
}

/* Sleeps until the chain after @used is done; false if that takes too long. */
static bool await(uint16_t used, const struct timespec *deadline)
{
	for (;;) {
		*word(AVAILABLE + 4 + 2 * ENTRIES) = used;
		_mm_mfence();
		if (*word(USED + 2) != used)
			return true;
		while (sem_timedwait(&interrupted, deadline) < 0)
			if (errno != EINTR)
				return false;
		access_device(VIRTIO_MMIO_INTERRUPT_ACK, true, VIRTIO_MMIO_INT_VRING);
	}
}

static void nobody_sleeps_for_ever(void **state)
{
	struct timespec deadline;
	uint16_t available = 0;
	uint16_t used = 0;
	uint32_t done = 0;
	uint32_t offered = 0;
	pthread_t device;
	uint32_t number;

	(void)state;
	start();
	sem_init(&notified, 0, 0);
	sem_init(&interrupted, 0, 0);
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += SECONDS;
	assert_int_equal(pthread_create(&device, NULL, run_device, NULL), 0);
	while (done < CHAINS) {
		/* Sometimes one at a time, sometimes as many as there is room for. */
		unsigned room = offered / 1000 % 2 ? ENTRIES : 1;

		while (offered < CHAINS && offered - done < room) {
			offer(&available);
			offered++;
		}
		if (!await(used, &deadline))
			fail_msg("after %u chains", done);
		while (*word(USED + 2) != used) {
			memcpy(&number, memory + BUFFERS + 4 * (used % ENTRIES), sizeof(number));
			assert_int_equal(number, ++done);
			used++;
		}
	}
	ending = true;
	sem_post(&notified);
	pthread_join(device, NULL);
	assert_null(virtio.why);
	print_message("%u chains, %u notifications, %u interrupts\n", done, notifications,
		      interrupts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_sleeps_for_ever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
