// SPDX-License-Identifier: MIT
/* The block device in front of raw and overlaid disks, driven as a guest's driver does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "driver.h"
#include "virtio_blk.h"

#define SECTORS 1024u
#define BYTES	(SECTORS * DISK_SECTOR)

/* What the requests of this test have in guest memory. */
#define HEADER_AT BUFFERS_AT
#define STATUS_AT (BUFFERS_AT + 0x100)
#define DATA_AT	  (BUFFERS_AT + 0x1000)
#define NO_STATUS 0x77

#define FLUSH  FEATURE(VIRTIO_BLK_F_FLUSH)
#define WRITES (FLUSH | FEATURE(VIRTIO_BLK_F_DISCARD) | FEATURE(VIRTIO_BLK_F_WRITE_ZEROES))

static char path[] = "/tmp/s2vm-blk-XXXXXX";
static struct virtio_blk blk;
static struct disk disk;
static struct driver *driver;

static void make_file(void)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	for (unsigned i = 0; i < BYTES; i++)
		fputc((int)(1 + i / DISK_SECTOR % 250), file);
	fclose(file);
}

static void begin_device(void)
{
	driver = driver_begin();
	driver->virtio = &blk.virtio;
	virtio_blk_init(&blk, &disk, "disk-0", driver_memory(driver), driver_line(driver));
}

static int begin_raw(void **state)
{
	struct error error;

	(void)state;
	make_file();
	assert_true(disk_open(&disk, path, DISK_WRITABLE, &error));
	begin_device();
	driver_start(driver, WRITES, 16);
	return 0;
}

static int begin_overlay(void **state)
{
	struct error error;

	(void)state;
	make_file();
	assert_true(disk_open_overlay(&disk, path, NULL, &error));
	begin_device();
	driver_start(driver, WRITES, 16);
	return 0;
}

static int begin_read_only(void **state)
{
	struct error error;

	(void)state;
	make_file();
	assert_true(disk_open(&disk, path, DISK_READ_ONLY, &error));
	begin_device();
	driver_start(driver, FEATURE(VIRTIO_BLK_F_RO), 16);
	return 0;
}

static int end(void **state)
{
	(void)state;
	disk_close(&disk);
	return 0;
}

static void set_header(uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr header = { .type = type, .sector = sector };

	memcpy(driver_at(driver, HEADER_AT), &header, sizeof(header));
	*(unsigned char *)driver_at(driver, STATUS_AT) = NO_STATUS;
}

static unsigned status(void)
{
	return *(unsigned char *)driver_at(driver, STATUS_AT);
}

/*
 * A request with @bytes of data at DATA_AT, of which the device is to say that it wrote @written.
 */
static unsigned request(uint32_t type, uint64_t sector, uint32_t bytes, bool in, uint32_t written)
{
	const struct driver_buffer buffers[] = {
		{ HEADER_AT, sizeof(struct virtio_blk_outhdr), false },
		{ bytes ? DATA_AT : STATUS_AT, bytes ? bytes : 1, bytes ? in : true },
		{ STATUS_AT, 1, true },
	};
	uint16_t head;

	set_header(type, sector);
	head = driver_chain(driver, buffers, bytes ? 3 : 2);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, head), written);
	assert_int_equal(driver_acknowledge(driver), VIRTIO_MMIO_INT_VRING);
	return status();
}

static unsigned read_sectors(uint64_t sector, uint32_t count)
{
	memset(driver_at(driver, DATA_AT), 0xee, count * DISK_SECTOR);
	return request(VIRTIO_BLK_T_IN, sector, count * DISK_SECTOR, true, count * DISK_SECTOR + 1);
}

static unsigned write_sectors(uint64_t sector, uint32_t count, int value)
{
	memset(driver_at(driver, DATA_AT), value, count * DISK_SECTOR);
	return request(VIRTIO_BLK_T_OUT, sector, count * DISK_SECTOR, false, 1);
}

/* All bytes of @count sectors are @value, or what the file began with if that is negative. */
static void check_sectors(uint64_t sector, uint32_t count, int value)
{
	const unsigned char *data = driver_at(driver, DATA_AT);

	assert_int_equal(read_sectors(sector, count), VIRTIO_BLK_S_OK);
	for (uint32_t i = 0; i < count * DISK_SECTOR; i++) {
		int first = (int)(1 + (sector + i / DISK_SECTOR) % 250);

		assert_int_equal(data[i], value < 0 ? first : value);
	}
}

static void it_says_what_it_is(void **state)
{
	(void)state;
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_DEVICE_ID), 2);
	assert_int_equal(driver_configuration(driver, 0, 8), SECTORS);
	assert_int_equal(
		driver_configuration(driver, offsetof(struct virtio_blk_config, seg_max), 4),
		VIRTQUEUE_SIZE - 2);
	assert_int_equal(
		driver_configuration(driver, offsetof(struct virtio_blk_config, blk_size), 4), 512);
	assert_int_equal(driver_configuration(
				 driver, offsetof(struct virtio_blk_config, max_discard_seg), 4),
			 16);
	assert_int_equal(driver_offered(driver) & (WRITES | FEATURE(VIRTIO_BLK_F_RO)), WRITES);
}

static void sectors_are_read_and_written(void **state)
{
	(void)state;
	check_sectors(0, 1, -1);
	check_sectors(SECTORS - 3, 3, -1);
	/* More than one part of the device's, and not at a part's beginning. */
	assert_int_equal(write_sectors(5, 300, 'w'), VIRTIO_BLK_S_OK);
	check_sectors(5, 300, 'w');
	check_sectors(4, 1, -1);
	check_sectors(305, 1, -1);
	assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, false, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(write_sectors(SECTORS - 1, 1, 'l'), VIRTIO_BLK_S_OK);
	check_sectors(SECTORS - 1, 1, 'l');
}

static void what_is_not_on_the_disk_is_an_error(void **state)
{
	const uint64_t beyond[] = { SECTORS, SECTORS - 1, UINT64_C(1) << 55, UINT64_MAX,
				    UINT64_MAX - 1 };

	(void)state;
	for (unsigned i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
		assert_int_equal(request(VIRTIO_BLK_T_IN, beyond[i], 1024, true, 1),
				 VIRTIO_BLK_S_IOERR);
		assert_int_equal(request(VIRTIO_BLK_T_OUT, beyond[i], 1024, false, 1),
				 VIRTIO_BLK_S_IOERR);
	}
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 100, true, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 513, false, 1), VIRTIO_BLK_S_IOERR);
	check_sectors(0, 2, -1);
	check_sectors(SECTORS - 1, 1, -1);
}

static void the_id_can_be_read(void **state)
{
	(void)state;
	memset(driver_at(driver, DATA_AT), 0xee, 64);
	assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, 20, true, 21), VIRTIO_BLK_S_OK);
	assert_memory_equal(driver_at(driver, DATA_AT), "disk-0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, 4, true, 5), VIRTIO_BLK_S_OK);
	assert_int_equal(request(99, 0, 512, true, 1), VIRTIO_BLK_S_UNSUPP);
}

static unsigned range_request(uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes range = { sector, count, flags };

	memcpy(driver_at(driver, DATA_AT), &range, sizeof(range));
	return request(type, 0, sizeof(range), false, 1);
}

static void ranges_are_zeroed(void **state)
{
	(void)state;
	assert_int_equal(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 3, 100, 0), VIRTIO_BLK_S_OK);
	check_sectors(3, 100, 0);
	check_sectors(2, 1, -1);
	check_sectors(103, 1, -1);
	assert_int_equal(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 200, 100, 1), VIRTIO_BLK_S_OK);
	check_sectors(200, 100, 0);
	assert_int_equal(write_sectors(208, 8, 'd'), VIRTIO_BLK_S_OK);
	assert_int_equal(range_request(VIRTIO_BLK_T_DISCARD, 208, 8, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(read_sectors(208, 8), VIRTIO_BLK_S_OK);
	check_sectors(300, 1, -1);
}

static void wrong_ranges_are_errors(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		uint32_t type = i ? VIRTIO_BLK_T_DISCARD : VIRTIO_BLK_T_WRITE_ZEROES;

		assert_int_equal(range_request(type, SECTORS, 1, 0), VIRTIO_BLK_S_IOERR);
		assert_int_equal(range_request(type, UINT64_MAX, 2, 0), VIRTIO_BLK_S_IOERR);
		assert_int_equal(range_request(type, 0, 0xffffffff, 0), VIRTIO_BLK_S_IOERR);
		assert_int_equal(range_request(type, 0, 1, 2), VIRTIO_BLK_S_UNSUPP);
		assert_int_equal(request(type, 0, 8, false, 1), VIRTIO_BLK_S_IOERR);
		assert_int_equal(request(type, 0, 0, false, 1), VIRTIO_BLK_S_IOERR);
		assert_int_equal(request(type, 0, 17 * 16, false, 1), VIRTIO_BLK_S_IOERR);
	}
	assert_int_equal(range_request(VIRTIO_BLK_T_DISCARD, 0, 1, 1), VIRTIO_BLK_S_UNSUPP);
	check_sectors(0, 8, -1);
}

/* On a disk that is larger than what one range may have. */
static void ranges_have_a_limit(void **state)
{
	uint32_t most;
	struct error error;

	disk_close(&disk);
	assert_int_equal(truncate(path, (off_t)1 << 31), 0);
	assert_true(disk_open(&disk, path, DISK_WRITABLE, &error));
	begin_device();
	driver_start(driver, WRITES, 16);
	(void)state;
	most = (uint32_t)driver_configuration(
		driver, offsetof(struct virtio_blk_config, max_discard_sectors), 4);
	assert_int_equal(range_request(VIRTIO_BLK_T_DISCARD, 8, most, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(range_request(VIRTIO_BLK_T_DISCARD, 0, most + 1, 0), VIRTIO_BLK_S_IOERR);
	most = (uint32_t)driver_configuration(
		driver, offsetof(struct virtio_blk_config, max_write_zeroes_sectors), 4);
	assert_int_equal(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 8, most, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 0, most + 1, 1),
			 VIRTIO_BLK_S_IOERR);
	check_sectors(0, 8, -1);
	check_sectors(8, 16, 0);
}

/* One good range and one that is wrong: neither is done. */
static void ranges_are_looked_at_before_any_is_done(void **state)
{
	const struct virtio_blk_discard_write_zeroes ranges[] = { { 0, 8, 0 }, { SECTORS, 8, 0 } };

	(void)state;
	memcpy(driver_at(driver, DATA_AT), ranges, sizeof(ranges));
	assert_int_equal(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof(ranges), false, 1),
			 VIRTIO_BLK_S_IOERR);
	check_sectors(0, 8, -1);
}

static void a_read_only_disk_stays_as_it_is(void **state)
{
	(void)state;
	assert_int_equal(driver_offered(driver) & (WRITES | FEATURE(VIRTIO_BLK_F_RO)),
			 FEATURE(VIRTIO_BLK_F_RO));
	check_sectors(0, 10, -1);
	assert_int_equal(write_sectors(0, 1, 'w'), VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(VIRTIO_BLK_T_DISCARD, 0, 1, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, false, 1), VIRTIO_BLK_S_OK);
	check_sectors(0, 10, -1);
}

/* 2.7.4.1: header, data and status may share descriptors, or have several. */
static void requests_may_be_divided_anyhow(void **state)
{
	const struct driver_buffer read[] = {
		{ HEADER_AT, 5, false },
		{ HEADER_AT + 5, 11, false },
		{ DATA_AT, 100, true },
		{ DATA_AT + 100, 413, true },
	};
	const struct driver_buffer write[] = {
		{ DATA_AT, 16 + 512, false },
		{ STATUS_AT, 1, true },
	};
	struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_OUT, .sector = 9 };
	const unsigned char *data = driver_at(driver, DATA_AT);
	uint16_t head;

	(void)state;
	set_header(VIRTIO_BLK_T_IN, 7);
	head = driver_chain(driver, read, 4);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, head), 513);
	for (unsigned i = 0; i < 512; i++)
		assert_int_equal(data[i], 8);
	assert_int_equal(data[512], VIRTIO_BLK_S_OK);

	memset(driver_at(driver, DATA_AT), 'v', 1024);
	memcpy(driver_at(driver, DATA_AT), &header, sizeof(header));
	*(unsigned char *)driver_at(driver, STATUS_AT) = NO_STATUS;
	head = driver_chain(driver, write, 2);
	driver_notify(driver);
	assert_int_equal(driver_done(driver, head), 1);
	assert_int_equal(status(), VIRTIO_BLK_S_OK);
	driver_acknowledge(driver);
	check_sectors(9, 1, 'v');
}

static void many_requests_wait_at_once(void **state)
{
	const struct driver_buffer buffers[] = {
		{ HEADER_AT, sizeof(struct virtio_blk_outhdr), false },
		{ DATA_AT, 512, true },
		{ STATUS_AT, 1, true },
	};
	uint16_t heads[5];

	(void)state;
	set_header(VIRTIO_BLK_T_IN, 1);
	for (unsigned i = 0; i < 5; i++)
		heads[i] = driver_chain(driver, buffers, 3);
	driver_notify(driver);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(driver_done(driver, heads[i]), 513);
	assert_true(driver_idle(driver));
	assert_int_equal(driver->raises, 1);
}

/* A host that fails is an error of that request's. */
static bool fail_all(const struct disk_transfer *transfers, unsigned count)
{
	(void)transfers;
	(void)count;
	return false;
}

static void errors_of_the_host_are_told(void **state)
{
	static const struct disk_io failing = { .run = fail_all };

	(void)state;
	disk.io = &failing;
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 512, true, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 512, false, 1), VIRTIO_BLK_S_IOERR);
	disk.io = &disk_io_plain;
	check_sectors(0, 1, -1);
}

static void wrong_requests_break_it(void **state)
{
	static const struct {
		struct driver_buffer buffers[3];
		unsigned count;
	} wrong[] = {
		/* No status; no header, or half of one; data or header outside of memory. */
		{ { { HEADER_AT, 16, false } }, 1 },
		{ { { STATUS_AT, 1, true } }, 1 },
		{ { { HEADER_AT, 15, false }, { STATUS_AT, 1, true } }, 2 },
		{ { { HEADER_AT, 16, false }, { GUEST_END, 512, true }, { STATUS_AT, 1, true } },
		  3 },
		{ { { HEADER_AT, 16, false }, { READ_ONLY_AT, 512, true }, { STATUS_AT, 1, true } },
		  3 },
		{ { { HEADER_AT, 16, false }, { DATA_AT, 512, true }, { READ_ONLY_AT, 1, true } },
		  3 },
		{ { { GUEST_END - 8, 16, false }, { STATUS_AT, 1, true } }, 2 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		set_header(VIRTIO_BLK_T_IN, 0);
		driver_chain(driver, wrong[i].buffers, wrong[i].count);
		driver_notify(driver);
		assert_true(driver_idle(driver));
		assert_int_equal(status(), NO_STATUS);
		driver_expect_broken(driver);
		driver_start(driver, WRITES, 16);
	}
	check_sectors(0, 1, -1);
}

static void what_a_write_cannot_have_is_not_written(void **state)
{
	const struct driver_buffer buffers[] = {
		{ HEADER_AT, 16, false },
		{ GUEST_END - 256, 512, false },
		{ STATUS_AT, 1, true },
	};

	(void)state;
	set_header(VIRTIO_BLK_T_OUT, 0);
	driver_chain(driver, buffers, 3);
	driver_notify(driver);
	driver_expect_broken(driver);
	driver_start(driver, WRITES, 16);
	check_sectors(0, 1, -1);
}

static int setup(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
	(void)state;
	return unlink(path);
}

#define RAW(test)	cmocka_unit_test_setup_teardown(test, begin_raw, end)
#define OVERLAY(test)	cmocka_unit_test_setup_teardown(test, begin_overlay, end)
#define READ_ONLY(test) cmocka_unit_test_setup_teardown(test, begin_read_only, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RAW(it_says_what_it_is),
		RAW(sectors_are_read_and_written),
		OVERLAY(sectors_are_read_and_written),
		RAW(what_is_not_on_the_disk_is_an_error),
		OVERLAY(what_is_not_on_the_disk_is_an_error),
		RAW(the_id_can_be_read),
		RAW(ranges_are_zeroed),
		OVERLAY(ranges_are_zeroed),
		RAW(wrong_ranges_are_errors),
		RAW(ranges_have_a_limit),
		RAW(ranges_are_looked_at_before_any_is_done),
		READ_ONLY(a_read_only_disk_stays_as_it_is),
		RAW(requests_may_be_divided_anyhow),
		RAW(many_requests_wait_at_once),
		RAW(errors_of_the_host_are_told),
		RAW(wrong_requests_break_it),
		OVERLAY(what_a_write_cannot_have_is_not_written),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
