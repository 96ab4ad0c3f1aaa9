// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "driver.h"

static struct driver the_driver;

static bool within(uint64_t at, size_t bytes, uint64_t end)
{
	return at >= GUEST_START && at <= end && bytes <= end - at;
}

static bool read_memory(void *context, struct gpa from, void *to, size_t bytes)
{
	struct driver *driver = context;

	if (!within(from.v, bytes, GUEST_END))
		return false;
	memcpy(to, driver->memory + (from.v - GUEST_START), bytes);
	return true;
}

static bool write_memory(void *context, struct gpa to, const void *from, size_t bytes)
{
	struct driver *driver = context;

	if (!within(to.v, bytes, READ_ONLY_AT))
		return false;
	driver->writes++;
	memcpy(driver->memory + (to.v - GUEST_START), from, bytes);
	return true;
}

static void set_line(void *context, bool raised)
{
	struct driver *driver = context;

	assert_int_not_equal(driver->line, raised);
	driver->line = raised;
	driver->raises += raised;
}

struct driver *driver_begin(void)
{
	memset(&the_driver, 0, sizeof(the_driver));
	return &the_driver;
}

struct device_memory driver_memory(struct driver *driver)
{
	return (struct device_memory){ read_memory, write_memory, driver };
}

struct device_line driver_line(struct driver *driver)
{
	return (struct device_line){ set_line, driver };
}

void *driver_at(struct driver *driver, uint64_t gpa)
{
	assert_true(gpa >= GUEST_START && gpa < GUEST_END);
	return driver->memory + (gpa - GUEST_START);
}

void driver_select(struct driver *driver, unsigned number)
{
	driver->number = number;
}

static struct driver_queue *queue_of(struct driver *driver)
{
	return &driver->queues[driver->number];
}

/* Where the selected queue has what queue 0 has at @at. */
static uint64_t of_queue(const struct driver *driver, uint64_t at)
{
	return at + driver->number * DRIVER_QUEUE_BYTES;
}

/* --- registers --- */

static uint64_t access_device(struct driver *driver, struct device_access access)
{
	virtio_mmio_type.access(driver->virtio, &access);
	return access.value;
}

uint32_t driver_read(struct driver *driver, uint64_t offset)
{
	return (uint32_t)access_device(driver,
				       (struct device_access){ .offset = offset, .bytes = 4 });
}

void driver_write(struct driver *driver, uint64_t offset, uint32_t value)
{
	access_device(driver,
		      (struct device_access){
			      .offset = offset, .bytes = 4, .write = true, .value = value });
}

uint64_t driver_configuration(struct driver *driver, uint64_t offset, unsigned bytes)
{
	return access_device(driver, (struct device_access){ .offset = VIRTIO_MMIO_CONFIG + offset,
							     .bytes = bytes });
}

uint64_t driver_offered(struct driver *driver)
{
	uint64_t features;

	driver_write(driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	features = (uint64_t)driver_read(driver, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
	driver_write(driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	return features | driver_read(driver, VIRTIO_MMIO_DEVICE_FEATURES);
}

static void add_status(struct driver *driver, uint32_t bit)
{
	driver_write(driver, VIRTIO_MMIO_STATUS, driver_read(driver, VIRTIO_MMIO_STATUS) | bit);
}

void driver_negotiate(struct driver *driver, uint64_t features)
{
	driver_write(driver, VIRTIO_MMIO_STATUS, 0);
	add_status(driver, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	add_status(driver, VIRTIO_CONFIG_S_DRIVER);
	driver_write(driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	driver_write(driver, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
	driver_write(driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	driver_write(driver, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
	add_status(driver, VIRTIO_CONFIG_S_FEATURES_OK);
	assert_true(driver_read(driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK);
}

static void write_pair(struct driver *driver, uint64_t offset, uint64_t value)
{
	driver_write(driver, offset, (uint32_t)value);
	driver_write(driver, offset + 4, (uint32_t)(value >> 32));
}

void driver_set_queue(struct driver *driver, uint32_t size)
{
	*queue_of(driver) = (struct driver_queue){ .size = size };
	memset(driver_at(driver, of_queue(driver, GUEST_START)), 0, BUFFERS_AT - GUEST_START);
	driver_write(driver, VIRTIO_MMIO_QUEUE_SEL, driver->number);
	driver_write(driver, VIRTIO_MMIO_QUEUE_NUM, size);
	write_pair(driver, VIRTIO_MMIO_QUEUE_DESC_LOW, of_queue(driver, DESCRIPTORS_AT));
	write_pair(driver, VIRTIO_MMIO_QUEUE_AVAIL_LOW, of_queue(driver, AVAILABLE_AT));
	write_pair(driver, VIRTIO_MMIO_QUEUE_USED_LOW, of_queue(driver, USED_AT));
	driver_write(driver, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void start_queues(struct driver *driver, uint64_t features, uint32_t size, unsigned count)
{
	driver_negotiate(driver, features | FEATURE(VIRTIO_F_VERSION_1));
	while (count) {
		driver_select(driver, --count);
		driver_set_queue(driver, size);
	}
	add_status(driver, VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_STATUS), DRIVER_STARTED);
}

void driver_start(struct driver *driver, uint64_t features, uint32_t size)
{
	start_queues(driver, features, size, 1);
}

void driver_start_all(struct driver *driver, uint64_t features, uint32_t size)
{
	start_queues(driver, features, size, DRIVER_QUEUES);
}

/* --- the queue --- */

static void describe(struct driver *driver, uint64_t table, uint16_t number,
		     struct vring_desc descriptor)
{
	memcpy(driver_at(driver, table + number * sizeof(descriptor)), &descriptor,
	       sizeof(descriptor));
}

void driver_describe(struct driver *driver, uint16_t number, uint64_t at, uint32_t bytes,
		     unsigned flags, uint16_t next)
{
	describe(driver, of_queue(driver, DESCRIPTORS_AT), number,
		 (struct vring_desc){ at, bytes, (uint16_t)flags, next });
}

void driver_describe_indirect(struct driver *driver, uint16_t number, uint64_t at, uint32_t bytes,
			      unsigned flags, uint16_t next)
{
	describe(driver, of_queue(driver, TABLE_AT), number,
		 (struct vring_desc){ at, bytes, (uint16_t)flags, next });
}

uint16_t driver_chain(struct driver *driver, const struct driver_buffer *buffers, unsigned count)
{
	struct driver_queue *queue = queue_of(driver);
	uint16_t head = (uint16_t)(queue->next % queue->size);

	for (unsigned i = 0; i < count; i++) {
		uint16_t number = (uint16_t)(queue->next++ % queue->size);

		driver_describe(driver, number, buffers[i].at, buffers[i].bytes,
				(buffers[i].write ? VRING_DESC_F_WRITE : 0u) |
					(i + 1 < count ? VRING_DESC_F_NEXT : 0u),
				(uint16_t)(queue->next % queue->size));
	}
	driver_offer(driver, head);
	return head;
}

void driver_offer(struct driver *driver, uint16_t head)
{
	uint16_t *available = driver_at(driver, of_queue(driver, AVAILABLE_AT));
	struct driver_queue *queue = queue_of(driver);

	available[2 + queue->available++ % queue->size] = head;
	available[1] = queue->available;
}

void driver_work(struct driver *driver)
{
	unsigned rounds = 0;

	while (virtio_mmio_type.work(driver->virtio))
		assert_true(++rounds < 1000);
}

void driver_notify(struct driver *driver)
{
	driver_write(driver, VIRTIO_MMIO_QUEUE_NOTIFY, driver->number);
	driver_work(driver);
}

static uint16_t used_index(struct driver *driver)
{
	return ((uint16_t *)driver_at(driver, of_queue(driver, USED_AT)))[1];
}

bool driver_idle(struct driver *driver)
{
	return used_index(driver) == queue_of(driver)->used;
}

uint32_t driver_done(struct driver *driver, uint16_t head)
{
	const struct vring_used_elem *entries = driver_at(driver, of_queue(driver, USED_AT) + 4);
	struct driver_queue *queue = queue_of(driver);

	assert_false(driver_idle(driver));
	entries += queue->used++ % queue->size;
	assert_int_equal(entries->id, head);
	return entries->len;
}

uint32_t driver_acknowledge(struct driver *driver)
{
	uint32_t reasons = driver_read(driver, VIRTIO_MMIO_INTERRUPT_STATUS);

	driver_write(driver, VIRTIO_MMIO_INTERRUPT_ACK, reasons);
	assert_false(driver->line);
	return reasons;
}

void driver_expect_broken(struct driver *driver)
{
	unsigned writes;

	assert_int_equal(driver_read(driver, VIRTIO_MMIO_STATUS),
			 DRIVER_STARTED | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_non_null(driver->virtio->why);
	assert_true(driver->line);
	assert_true(driver_acknowledge(driver) & VIRTIO_MMIO_INT_CONFIG);
	writes = driver->writes;
	driver_notify(driver);
	assert_int_equal(driver->writes, writes);
	assert_false(driver->line);
	/* As a driver does that does not know of this bit. */
	add_status(driver, VIRTIO_CONFIG_S_DRIVER_OK);
	driver_notify(driver);
	assert_int_equal(driver->writes, writes);
	driver_write(driver, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_STATUS), 0);
	assert_null(driver->virtio->why);
}
