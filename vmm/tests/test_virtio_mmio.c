// SPDX-License-Identifier: MIT
/*
 * The virtio transport and its queues, by way of a kind of device that copies what it reads to what
 * it may write, byte for byte: negotiation, interrupts, saving, and rings that no driver may write.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "driver.h"

#define COPY_ID	     42
#define COPY_FEATURE 3
#define INDIRECT     FEATURE(VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT_IDX    FEATURE(VIRTIO_RING_F_EVENT_IDX)

static struct virtio_mmio virtio;
static struct driver *driver;
static unsigned char configuration[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 };
static unsigned served;
static unsigned offer_meanwhile; /* chains that the driver adds while one is served */

static const char *serve_copy(void *device, const struct virtqueue *queue,
			      struct virtqueue_chain *chain, uint32_t *written)
{
	struct virtqueue_stream tail;
	unsigned char byte;

	(void)device;
	served++;
	for (; offer_meanwhile; offer_meanwhile--)
		driver_offer(driver, 0);
	while (chain->in.left && chain->out.left > 1) {
		if (!virtqueue_read(queue, &chain->in, &byte, 1) ||
		    !virtqueue_write(queue, &chain->out, &byte, 1))
			return "refused";
		++*written;
	}
	/* The last one that it may write, wherever that is. */
	if (!chain->out.left)
		return NULL;
	tail = virtqueue_cut(&chain->out, 1);
	return virtqueue_write(queue, &tail, "!", 1) ? NULL : "refused";
}

static const struct virtio_kind copy_kind = {
	.name = "copy",
	.id = COPY_ID,
	.queues = 2,
	.serve = serve_copy,
};

static int begin(void **state)
{
	(void)state;
	served = 0;
	offer_meanwhile = 0;
	driver = driver_begin();
	driver->virtio = &virtio;
	virtio_mmio_init(&virtio, &copy_kind, NULL, FEATURE(COPY_FEATURE), configuration,
			 sizeof(configuration), driver_memory(driver), driver_line(driver));
	return 0;
}

static uint32_t status(void)
{
	return driver_read(driver, VIRTIO_MMIO_STATUS);
}

static void set_status(uint32_t value)
{
	driver_write(driver, VIRTIO_MMIO_STATUS, value);
}

static void set_features(uint64_t features)
{
	for (uint32_t half = 0; half < 2; half++) {
		driver_write(driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
		driver_write(driver, VIRTIO_MMIO_DRIVER_FEATURES,
			     (uint32_t)(features >> 32 * half));
	}
}

/* --- registers --- */

static void it_says_what_it_is(void **state)
{
	(void)state;
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_DEVICE_ID), COPY_ID);
	assert_int_equal(driver_offered(driver), FEATURE(COPY_FEATURE) |
							 FEATURE(VIRTIO_F_VERSION_1) | INDIRECT |
							 EVENT_IDX);
	driver_write(driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_DEVICE_FEATURES), 0);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_SHM_LEN_LOW), 0xffffffff);
	assert_int_equal(status(), 0);
}

static void the_configuration_is_read_in_any_width(void **state)
{
	(void)state;
	assert_int_equal(driver_configuration(driver, 0, 4), 0x04030201);
	assert_int_equal(driver_configuration(driver, 1, 1), 2);
	assert_int_equal(driver_configuration(driver, 2, 2), 0x0403);
	assert_int_equal(driver_configuration(driver, 0, 8), UINT64_C(0x0807060504030201));
	assert_int_equal(driver_configuration(driver, 8, 4), 0x0a09);
	assert_int_equal(driver_configuration(driver, 10, 4), 0);
	assert_int_equal(driver_configuration(driver, 0xff, 8), 0);
	driver_write(driver, VIRTIO_MMIO_CONFIG, 0xffffffff);
	assert_int_equal(configuration[0], 1);
}

static void other_widths_reach_no_register(void **state)
{
	struct device_access odd[] = {
		{ .offset = VIRTIO_MMIO_STATUS, .bytes = 1, .write = true, .value = 1 },
		{ .offset = VIRTIO_MMIO_STATUS, .bytes = 8, .write = true, .value = 1 },
		{ .offset = VIRTIO_MMIO_STATUS + 1, .bytes = 4, .write = true, .value = 1 },
		{ .offset = 0x1fe, .bytes = 4, .write = true, .value = 1 },
	};
	struct device_access read = { .bytes = 2, .value = 77 };

	(void)state;
	for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		virtio_mmio_type.access(&virtio, &odd[i]);
	assert_int_equal(status(), 0);
	virtio_mmio_type.access(&virtio, &read);
	assert_int_equal(read.value, 0);
}

static void there_are_as_many_queues_as_the_kind_has(void **state)
{
	(void)state;
	for (uint32_t number = 0; number < 4; number++) {
		driver_write(driver, VIRTIO_MMIO_QUEUE_SEL, number);
		assert_int_equal(driver_read(driver, VIRTIO_MMIO_QUEUE_NUM_MAX),
				 number < 2 ? VIRTQUEUE_SIZE : 0);
	}
	driver_negotiate(driver, FEATURE(VIRTIO_F_VERSION_1));
	driver_write(driver, VIRTIO_MMIO_QUEUE_SEL, 0xffffffff);
	driver_write(driver, VIRTIO_MMIO_QUEUE_NUM, 8);
	driver_write(driver, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_int_equal(status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

/* --- status --- */

static void steps_come_in_their_order(void **state)
{
	(void)state;
	set_status(VIRTIO_CONFIG_S_DRIVER);
	assert_int_equal(status(), 0);
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(status(), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	assert_int_equal(status(), VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	/* No bit is taken back, but all at once. */
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
	assert_int_equal(status(), VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	set_status(0);
	assert_int_equal(status(), 0);
	/* What only the device may say. */
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(status(), VIRTIO_CONFIG_S_ACKNOWLEDGE);
}

static void features_that_it_has_not_are_refused(void **state)
{
	const uint64_t refused[] = {
		0,
		FEATURE(COPY_FEATURE),
		FEATURE(VIRTIO_F_VERSION_1) | FEATURE(4),
		FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_F_RING_PACKED),
	};
	uint32_t before = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	(void)state;
	set_status(before);
	for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		set_features(refused[i]);
		set_status(before | VIRTIO_CONFIG_S_FEATURES_OK);
		assert_int_equal(status(), before);
	}
	set_features(FEATURE(VIRTIO_F_VERSION_1));
	set_status(before | VIRTIO_CONFIG_S_FEATURES_OK);
	assert_int_equal(status(), before | VIRTIO_CONFIG_S_FEATURES_OK);
	/* They are settled then. */
	set_features(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(4));
	assert_int_equal(virtio.state.features, FEATURE(VIRTIO_F_VERSION_1));
}

static void a_queue_begins_after_the_features(void **state)
{
	(void)state;
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	driver_set_queue(driver, 8);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_QUEUE_READY), 0);
	driver_negotiate(driver, FEATURE(VIRTIO_F_VERSION_1));
	driver_set_queue(driver, 8);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_QUEUE_READY), 1);
	/* It is what it is then. */
	driver_write(driver, VIRTIO_MMIO_QUEUE_NUM, 16);
	driver_write(driver, VIRTIO_MMIO_QUEUE_DESC_LOW, 1);
	assert_int_equal(virtio.queues[0].state.size, 8);
	assert_int_equal(virtio.queues[0].state.descriptors, DESCRIPTORS_AT);
	driver_write(driver, VIRTIO_MMIO_QUEUE_READY, 0);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_QUEUE_READY), 0);
}

static void a_failed_driver_is_left_alone(void **state)
{
	const struct driver_buffer buffer = { BUFFERS_AT, 1, true };

	(void)state;
	driver_start(driver, 0, 8);
	set_status(DRIVER_STARTED | VIRTIO_CONFIG_S_FAILED);
	driver_chain(driver, &buffer, 1);
	driver_notify(driver);
	assert_int_equal(served, 0);
	assert_int_equal(status(), DRIVER_STARTED | VIRTIO_CONFIG_S_FAILED);
}

static void nothing_is_served_before_the_driver_is_ready(void **state)
{
	const struct driver_buffer buffer = { BUFFERS_AT, 1, true };
	uint16_t head;

	(void)state;
	driver_negotiate(driver, FEATURE(VIRTIO_F_VERSION_1));
	driver_set_queue(driver, 8);
	head = driver_chain(driver, &buffer, 1);
	assert_false(virtio_mmio_type.work(&virtio));
	assert_int_equal(served, 0);
	/* What waited is served then, without a notification. */
	set_status(status() | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_false(virtio_mmio_type.work(&virtio));
	assert_int_equal(driver_done(driver, head), 0);
	/* One that came too early changes nothing. */
	driver_negotiate(driver, FEATURE(VIRTIO_F_VERSION_1));
	driver_set_queue(driver, 8);
	driver_chain(driver, &buffer, 1);
	driver_notify(driver);
	assert_int_equal(served, 1);
}

static void a_changed_configuration_is_told(void **state)
{
	uint32_t generation = driver_read(driver, VIRTIO_MMIO_CONFIG_GENERATION);

	(void)state;
	virtio_mmio_configured(&virtio);
	assert_false(driver->line);
	driver_start(driver, 0, 8);
	assert_int_not_equal(driver_read(driver, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	virtio_mmio_configured(&virtio);
	assert_true(driver->line);
	assert_int_equal(driver_acknowledge(driver), VIRTIO_MMIO_INT_CONFIG);
}

static void a_reset_lowers_the_line(void **state)
{
	(void)state;
	driver_start(driver, 0, 8);
	virtio_mmio_configured(&virtio);
	assert_true(driver->line);
	set_status(0);
	assert_false(driver->line);
	driver_write(driver, VIRTIO_MMIO_QUEUE_SEL, 0);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_QUEUE_READY), 0);
}

/* --- queues --- */

static void copy_one(const char *text)
{
	uint32_t bytes = (uint32_t)strlen(text);
	const struct driver_buffer buffers[] = {
		{ BUFFERS_AT, bytes, false },
		{ BUFFERS_AT + 0x1000, bytes + 1, true },
	};
	uint16_t head;

	memcpy(driver_at(driver, BUFFERS_AT), text, bytes);
	memset(driver_at(driver, BUFFERS_AT + 0x1000), 0, bytes + 1);
	head = driver_chain(driver, buffers, 2);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, head), bytes);
	assert_memory_equal(driver_at(driver, BUFFERS_AT + 0x1000), text, bytes);
	assert_int_equal(*(char *)driver_at(driver, BUFFERS_AT + 0x1000 + bytes), '!');
}

static void chains_are_served_and_given_back(void **state)
{
	(void)state;
	driver_start(driver, 0, 8);
	copy_one("hello");
	assert_true(driver->line);
	assert_int_equal(driver_acknowledge(driver), VIRTIO_MMIO_INT_VRING);
	assert_true(driver_idle(driver));
	driver_notify(driver);
	assert_false(driver->line);
}

static void indexes_go_round(void **state)
{
	(void)state;
	driver_start(driver, EVENT_IDX, 4);
	for (unsigned i = 0; i < 70000; i++)
		copy_one("x");
	assert_true(driver_idle(driver));
}

static void buffers_may_be_divided_anyhow(void **state)
{
	const struct driver_buffer buffers[] = {
		{ BUFFERS_AT, 1, false },	  { BUFFERS_AT + 0x100, 3, false },
		{ BUFFERS_AT + 0x200, 2, false }, { BUFFERS_AT + 0x300, 2, true },
		{ BUFFERS_AT + 0x400, 4, true },  { BUFFERS_AT + 0x500, 1, true },
	};

	(void)state;
	driver_start(driver, 0, 8);
	memcpy(driver_at(driver, BUFFERS_AT), "a", 1);
	memcpy(driver_at(driver, BUFFERS_AT + 0x100), "bcd", 3);
	memcpy(driver_at(driver, BUFFERS_AT + 0x200), "ef", 2);
	assert_int_equal(driver_chain(driver, buffers, 6), 0);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, 0), 6);
	assert_memory_equal(driver_at(driver, BUFFERS_AT + 0x300), "ab", 3);
	assert_memory_equal(driver_at(driver, BUFFERS_AT + 0x400), "cdef", 5);
	assert_memory_equal(driver_at(driver, BUFFERS_AT + 0x500), "!", 2);
}

/* A table of its own for a chain, alone or behind a descriptor of the queue's (2.7.5.3.2). */
static void tables_may_be_indirect(void **state)
{
	(void)state;
	driver_start(driver, INDIRECT, 8);
	memcpy(driver_at(driver, BUFFERS_AT), "abcd", 4);
	driver_describe_indirect(driver, 0, BUFFERS_AT + 2, 2, VRING_DESC_F_NEXT, 2);
	driver_describe_indirect(driver, 2, BUFFERS_AT + 0x1000, 5, VRING_DESC_F_WRITE, 0);
	driver_describe(driver, 3, BUFFERS_AT, 2, VRING_DESC_F_NEXT, 5);
	/* What the table's own descriptor says of writing does not count. */
	driver_describe(driver, 5, TABLE_AT, 3 * 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0);
	driver_offer(driver, 3);
	driver_offer(driver, 5);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, 3), 4);
	assert_int_equal(driver_done(driver, 5), 2);
	assert_memory_equal(driver_at(driver, BUFFERS_AT + 0x1000), "cdcd!", 5);
}

static void a_chain_may_be_as_long_as_the_queue(void **state)
{
	struct driver_buffer buffers[8];

	(void)state;
	driver_start(driver, INDIRECT, 8);
	for (unsigned i = 0; i < 8; i++) {
		buffers[i] = (struct driver_buffer){ BUFFERS_AT + i, 1, true };
		driver_describe_indirect(driver, (uint16_t)i, BUFFERS_AT + i, 1,
					 VRING_DESC_F_WRITE | (i < 7 ? VRING_DESC_F_NEXT : 0u),
					 (uint16_t)(i + 1));
	}
	driver_chain(driver, buffers, 8);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, 0), 0);
	driver_describe(driver, 1, TABLE_AT, 8 * 16, VRING_DESC_F_INDIRECT, 0);
	driver_offer(driver, 1);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, 1), 0);
}

static void a_driver_may_want_no_interrupts(void **state)
{
	(void)state;
	driver_start(driver, 0, 8);
	*(uint16_t *)driver_at(driver, AVAILABLE_AT) = VRING_AVAIL_F_NO_INTERRUPT;
	copy_one("quiet");
	assert_false(driver->line);
	*(uint16_t *)driver_at(driver, AVAILABLE_AT) = 0;
	copy_one("loud");
	assert_true(driver->line);
}

/* 2.7.7.2: an interrupt when the entry that the driver names is used, and no other. */
static void with_event_indexes_it_interrupts_as_asked(void **state)
{
	uint16_t *used_event;
	const uint16_t *available_event;

	(void)state;
	driver_start(driver, EVENT_IDX, 8);
	used_event = driver_at(driver, AVAILABLE_AT + 4 + 2 * 8);
	available_event = driver_at(driver, USED_AT + 4 + 8 * 8);
	*used_event = 2;
	copy_one("0");
	copy_one("1");
	assert_false(driver->line);
	assert_int_equal(*available_event, 2);
	copy_one("2");
	assert_true(driver->line);
	driver_acknowledge(driver);
	copy_one("3");
	assert_false(driver->line);
	assert_int_equal(*available_event, 4);
}

/* A chain that comes when the device is about to stop looking is not left lying. */
static void what_comes_meanwhile_is_served(void **state)
{
	const struct driver_buffer buffer = { BUFFERS_AT, 1, true };

	(void)state;
	driver_start(driver, EVENT_IDX, 8);
	offer_meanwhile = 3;
	driver_chain(driver, &buffer, 1);
	driver_notify(driver);
	assert_int_equal(served, 4);
}

static void work_is_bounded(void **state)
{
	(void)state;
	driver_start(driver, 0, 4);
	driver_describe(driver, 0, BUFFERS_AT, 1, VRING_DESC_F_WRITE, 0);
	driver_offer(driver, 0);
	driver_write(driver, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	assert_int_equal(served, 0);
	for (unsigned round = 1; round <= 10; round++) {
		for (unsigned i = round == 1; i < 4; i++)
			driver_offer(driver, 0);
		assert_true(virtio_mmio_type.work(&virtio));
		assert_int_equal(served, 4 * round);
	}
	assert_false(virtio_mmio_type.work(&virtio));
}

static void other_queues_are_not_concerned(void **state)
{
	(void)state;
	driver_start(driver, 0, 8);
	driver_write(driver, VIRTIO_MMIO_QUEUE_NOTIFY, 1);
	driver_write(driver, VIRTIO_MMIO_QUEUE_NOTIFY, 2);
	driver_write(driver, VIRTIO_MMIO_QUEUE_NOTIFY, 0xffffffff);
	assert_false(virtio_mmio_type.work(&virtio));
	assert_int_equal(virtio.state.waiting, 0);
	copy_one("still here");
}

/* --- what no driver may do --- */

static void wrong_queue(uint64_t descriptors, uint64_t available, uint64_t used, uint32_t size)
{
	driver_negotiate(driver, FEATURE(VIRTIO_F_VERSION_1));
	driver_write(driver, VIRTIO_MMIO_QUEUE_SEL, 0);
	driver_write(driver, VIRTIO_MMIO_QUEUE_NUM, size);
	driver_write(driver, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)descriptors);
	driver_write(driver, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(descriptors >> 32));
	driver_write(driver, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)available);
	driver_write(driver, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(available >> 32));
	driver_write(driver, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)used);
	driver_write(driver, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(used >> 32));
	driver_write(driver, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_true(status() & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_non_null(virtio.why);
	/* The driver is not at work yet, so nobody is interrupted. */
	assert_false(driver->line);
}

static void queues_that_cannot_be_break_it(void **state)
{
	(void)state;
	wrong_queue(DESCRIPTORS_AT, AVAILABLE_AT, USED_AT, 0);
	wrong_queue(DESCRIPTORS_AT, AVAILABLE_AT, USED_AT, 3);
	wrong_queue(DESCRIPTORS_AT, AVAILABLE_AT, USED_AT, 2 * VIRTQUEUE_SIZE);
	wrong_queue(DESCRIPTORS_AT, AVAILABLE_AT, USED_AT, 0x80000000);
	wrong_queue(DESCRIPTORS_AT + 8, AVAILABLE_AT, USED_AT, 8);
	wrong_queue(DESCRIPTORS_AT, AVAILABLE_AT + 1, USED_AT, 8);
	wrong_queue(DESCRIPTORS_AT, AVAILABLE_AT, USED_AT + 2, 8);
	wrong_queue(UINT64_C(0) - 16, AVAILABLE_AT, USED_AT, 8);
	wrong_queue(DESCRIPTORS_AT, UINT64_C(0) - 16, USED_AT, 8);
	wrong_queue(DESCRIPTORS_AT, AVAILABLE_AT, UINT64_C(0) - 16, 8);
}

/* A queue whose areas look well and are not in memory: it is noticed when they are used. */
static void queues_outside_of_memory_break_it(void **state)
{
	const uint64_t outside[] = { 0,		GUEST_START - 16,  GUEST_END - 2,
				     GUEST_END, UINT64_C(1) << 63, READ_ONLY_AT };

	(void)state;
	for (unsigned area = 0; area < 3; area++)
		for (unsigned i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
			struct virtqueue_state *queue = &virtio.queues[0].state;
			uint64_t *areas[] = { &queue->descriptors, &queue->available,
					      &queue->used };

			driver_start(driver, EVENT_IDX, 256);
			driver_describe(driver, 0, BUFFERS_AT, 1, VRING_DESC_F_WRITE, 0);
			driver_offer(driver, 0);
			/* Only what the device writes must be writable. */
			if (outside[i] == READ_ONLY_AT && area != 2)
				continue;
			*areas[area] = outside[i];
			driver_notify(driver);
			driver_expect_broken(driver);
		}
}

struct hostile {
	const char *name;
	uint64_t at;
	uint32_t bytes;
	unsigned flags;
	uint16_t next;
	const char *why; /* a word of what the device says */
};

/* The chain's second descriptor, behind a good one to write. */
static const struct hostile hostile_descriptors[] = {
	{ "a loop", BUFFERS_AT, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 0, "loop" },
	{ "a loop of one", BUFFERS_AT, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1, "loop" },
	{ "beyond the table", BUFFERS_AT, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 8, "number" },
	{ "far beyond it", BUFFERS_AT, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 0xffff,
	  "number" },
	{ "read after write", BUFFERS_AT, 1, 0, 0, "after" },
	{ "empty", BUFFERS_AT, 0, VRING_DESC_F_WRITE, 0, "empty" },
	{ "wraps", UINT64_C(0) - 1, 2, VRING_DESC_F_WRITE, 0, "beyond all" },
	{ "ends at the end of addresses", UINT64_C(0) - 2, 2, VRING_DESC_F_WRITE, 0, "beyond all" },
	{ "below memory", GUEST_START - 2, 2, VRING_DESC_F_WRITE, 0, "refused" },
	{ "beyond memory", GUEST_END - 1, 2, VRING_DESC_F_WRITE, 0, "refused" },
	{ "not writable", READ_ONLY_AT, 2, VRING_DESC_F_WRITE, 0, "refused" },
	{ "an empty table", TABLE_AT, 0, VRING_DESC_F_INDIRECT, 0, "not one of" },
	{ "half a descriptor", TABLE_AT, 24, VRING_DESC_F_INDIRECT, 0, "not one of" },
	{ "a table outside", GUEST_END, 16, VRING_DESC_F_INDIRECT, 0, "not in memory" },
	{ "a table that wraps", UINT64_C(0) - 16, 32, VRING_DESC_F_INDIRECT, 0, "beyond all" },
	{ "a table and more", TABLE_AT, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 2,
	  "follows" },
	{ "a table in a table", TABLE_AT, 16, VRING_DESC_F_INDIRECT, 0, "in another" },
};

static void hostile_chains_break_it(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(hostile_descriptors) / sizeof(hostile_descriptors[0]);
	     i++) {
		const struct hostile *hostile = &hostile_descriptors[i];

		driver_start(driver, INDIRECT, 8);
		driver_describe(driver, 0, BUFFERS_AT, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT,
				1);
		driver_describe(driver, 1, hostile->at, hostile->bytes, hostile->flags,
				hostile->next);
		driver_describe(driver, 2, BUFFERS_AT, 1, VRING_DESC_F_WRITE, 0);
		driver_describe_indirect(driver, 0, TABLE_AT, 16, VRING_DESC_F_INDIRECT, 0);
		driver_offer(driver, 0);
		driver_notify(driver);
		if (!virtio.why || !strstr(virtio.why, hostile->why))
			fail_msg("%s: %s", hostile->name, virtio.why ? virtio.why : "not noticed");
		assert_true(driver_idle(driver));
		driver_expect_broken(driver);
	}
}

static void tables_that_were_not_negotiated_break_it(void **state)
{
	(void)state;
	driver_start(driver, 0, 8);
	driver_describe(driver, 0, TABLE_AT, 16, VRING_DESC_F_INDIRECT, 0);
	driver_describe_indirect(driver, 0, BUFFERS_AT, 1, VRING_DESC_F_WRITE, 0);
	driver_offer(driver, 0);
	driver_notify(driver);
	driver_expect_broken(driver);
}

static void chains_that_are_too_long_break_it(void **state)
{
	(void)state;
	/* By one descriptor, in a table that has room for it. */
	driver_start(driver, INDIRECT, 8);
	for (uint16_t i = 0; i < 9; i++)
		driver_describe_indirect(driver, i, BUFFERS_AT, 1,
					 VRING_DESC_F_WRITE | (i < 8 ? VRING_DESC_F_NEXT : 0u),
					 (uint16_t)(i + 1));
	driver_describe(driver, 0, TABLE_AT, 9 * 16, VRING_DESC_F_INDIRECT, 0);
	driver_offer(driver, 0);
	driver_notify(driver);
	driver_expect_broken(driver);
	/* By their bytes. */
	driver_start(driver, 0, 8);
	driver_describe(driver, 0, 0, 0xffffffff, VRING_DESC_F_NEXT, 1);
	driver_describe(driver, 1, 0, 2, VRING_DESC_F_WRITE, 0);
	driver_offer(driver, 0);
	driver_notify(driver);
	assert_int_equal(served, 0);
	driver_expect_broken(driver);
}

static void wrong_indexes_break_it(void **state)
{
	(void)state;
	driver_start(driver, 0, 8);
	driver_offer(driver, 8);
	driver_notify(driver);
	driver_expect_broken(driver);
	driver_start(driver, 0, 8);
	((uint16_t *)driver_at(driver, AVAILABLE_AT))[1] = 9;
	driver_notify(driver);
	driver_expect_broken(driver);
	/* It goes back. */
	driver_start(driver, 0, 8);
	copy_one("good");
	driver_acknowledge(driver);
	((uint16_t *)driver_at(driver, AVAILABLE_AT))[1] = 0;
	driver_notify(driver);
	driver_expect_broken(driver);
}

/* What was served before a chain that breaks the device has been given back. */
static void it_works_again_after_a_reset(void **state)
{
	(void)state;
	driver_start(driver, 0, 8);
	copy_one("before");
	driver_acknowledge(driver);
	driver_offer(driver, 8);
	driver_notify(driver);
	driver_expect_broken(driver);
	driver_start(driver, 0, 8);
	copy_one("after");
}

/* --- saving --- */

static void it_goes_on_where_it_was_saved(void **state)
{
	const struct driver_buffer buffer = { BUFFERS_AT, 1, true };
	struct virtio_mmio_state saved;
	uint16_t head;

	(void)state;
	driver_start(driver, EVENT_IDX | INDIRECT, 8);
	for (unsigned i = 0; i < 11; i++)
		copy_one("before");
	head = driver_chain(driver, &buffer, 1);
	driver_write(driver, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	virtio_mmio_save(&virtio, &saved);
	driver->line = false;
	virtio_mmio_init(&virtio, &copy_kind, NULL, FEATURE(COPY_FEATURE), configuration,
			 sizeof(configuration), driver_memory(driver), driver_line(driver));
	assert_true(virtio_mmio_restore(&virtio, &saved));
	/* The interrupt that was not acknowledged, and the chain that was not served. */
	assert_true(driver->line);
	assert_true(virtio.queues[0].indirect && virtio.queues[0].event_index);
	assert_false(virtio_mmio_type.work(&virtio));
	driver_done(driver, head);
	driver_acknowledge(driver);
	copy_one("after");
}

static void what_is_no_state_is_refused(void **state)
{
	struct virtio_mmio_state good;
	struct virtio_mmio_state bad;

	(void)state;
	driver_start(driver, 0, 8);
	virtio_mmio_save(&virtio, &good);
#define REFUSE(field, value)                                                                       \
	do {                                                                                       \
		bad = good;                                                                        \
		bad.field = (value);                                                               \
		assert_false(virtio_mmio_restore(&virtio, &bad));                                  \
		assert_int_equal(status(), 0);                                                     \
	} while (0)
	REFUSE(version, 2);
	REFUSE(id, COPY_ID + 1);
	REFUSE(features, 0);
	REFUSE(features, good.features | FEATURE(VIRTIO_F_RING_PACKED));
	REFUSE(status, DRIVER_STARTED & ~VIRTIO_CONFIG_S_DRIVER);
	REFUSE(status, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	REFUSE(status, DRIVER_STARTED | 0x100);
	REFUSE(interrupt, 4);
	REFUSE(waiting, 2);
	REFUSE(waiting, 4);
	REFUSE(queues[0].ready, 2);
	REFUSE(queues[0].size, 7);
	REFUSE(queues[0].size, 2 * VIRTQUEUE_SIZE);
	REFUSE(queues[0].descriptors, UINT64_C(0) - 16);
	REFUSE(queues[3], good.queues[0]);
#undef REFUSE
	assert_true(virtio_mmio_restore(&virtio, &good));
	copy_one("good");
}

static void a_broken_device_stays_broken_when_restored(void **state)
{
	struct virtio_mmio_state saved;

	(void)state;
	driver_start(driver, 0, 8);
	driver_offer(driver, 8);
	driver_notify(driver);
	virtio_mmio_save(&virtio, &saved);
	assert_true(virtio_mmio_restore(&virtio, &saved));
	driver_expect_broken(driver);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(it_says_what_it_is, begin),
		cmocka_unit_test_setup(the_configuration_is_read_in_any_width, begin),
		cmocka_unit_test_setup(other_widths_reach_no_register, begin),
		cmocka_unit_test_setup(there_are_as_many_queues_as_the_kind_has, begin),
		cmocka_unit_test_setup(steps_come_in_their_order, begin),
		cmocka_unit_test_setup(features_that_it_has_not_are_refused, begin),
		cmocka_unit_test_setup(a_queue_begins_after_the_features, begin),
		cmocka_unit_test_setup(a_failed_driver_is_left_alone, begin),
		cmocka_unit_test_setup(nothing_is_served_before_the_driver_is_ready, begin),
		cmocka_unit_test_setup(a_changed_configuration_is_told, begin),
		cmocka_unit_test_setup(a_reset_lowers_the_line, begin),
		cmocka_unit_test_setup(chains_are_served_and_given_back, begin),
		cmocka_unit_test_setup(indexes_go_round, begin),
		cmocka_unit_test_setup(buffers_may_be_divided_anyhow, begin),
		cmocka_unit_test_setup(tables_may_be_indirect, begin),
		cmocka_unit_test_setup(a_chain_may_be_as_long_as_the_queue, begin),
		cmocka_unit_test_setup(a_driver_may_want_no_interrupts, begin),
		cmocka_unit_test_setup(with_event_indexes_it_interrupts_as_asked, begin),
		cmocka_unit_test_setup(what_comes_meanwhile_is_served, begin),
		cmocka_unit_test_setup(work_is_bounded, begin),
		cmocka_unit_test_setup(other_queues_are_not_concerned, begin),
		cmocka_unit_test_setup(queues_that_cannot_be_break_it, begin),
		cmocka_unit_test_setup(queues_outside_of_memory_break_it, begin),
		cmocka_unit_test_setup(hostile_chains_break_it, begin),
		cmocka_unit_test_setup(tables_that_were_not_negotiated_break_it, begin),
		cmocka_unit_test_setup(chains_that_are_too_long_break_it, begin),
		cmocka_unit_test_setup(wrong_indexes_break_it, begin),
		cmocka_unit_test_setup(it_works_again_after_a_reset, begin),
		cmocka_unit_test_setup(it_goes_on_where_it_was_saved, begin),
		cmocka_unit_test_setup(what_is_no_state_is_refused, begin),
		cmocka_unit_test_setup(a_broken_device_stays_broken_when_restored, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
