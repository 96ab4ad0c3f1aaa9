// SPDX-License-Identifier: MIT
/* The entropy device, driven as a guest's driver does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "driver.h"
#include "virtio_rng.h"

static struct virtio_rng rng;
static struct driver *driver;

static int begin(void **state)
{
	(void)state;
	driver = driver_begin();
	driver->virtio = &rng.virtio;
	virtio_rng_init(&rng, driver_memory(driver), driver_line(driver));
	driver_start(driver, 0, 8);
	return 0;
}

static unsigned nonzero(uint64_t at, uint32_t bytes)
{
	const unsigned char *memory = driver_at(driver, at);
	unsigned count = 0;

	for (uint32_t i = 0; i < bytes; i++)
		count += memory[i] != 0;
	return count;
}

static void it_says_what_it_is(void **state)
{
	(void)state;
	assert_int_equal(driver_read(driver, VIRTIO_MMIO_DEVICE_ID), 4);
	assert_int_equal(driver_configuration(driver, 0, 4), 0);
}

static void buffers_are_filled(void **state)
{
	const struct driver_buffer buffers[] = {
		{ BUFFERS_AT, 64, true },
		{ BUFFERS_AT + 0x1000, 100, true },
	};
	uint16_t head = driver_chain(driver, buffers, 2);

	(void)state;
	driver_notify(driver);
	assert_int_equal(driver_done(driver, head), 164);
	assert_int_equal(driver_acknowledge(driver), VIRTIO_MMIO_INT_VRING);
	assert_true(nonzero(BUFFERS_AT, 64) > 32);
	assert_true(nonzero(BUFFERS_AT + 0x1000, 100) > 50);
	assert_int_equal(nonzero(BUFFERS_AT + 64, 0x1000 - 64), 0);
	assert_int_equal(nonzero(BUFFERS_AT + 0x1000 + 100, 0x1000), 0);
}

static void bytes_differ_from_time_to_time(void **state)
{
	const struct driver_buffer first = { BUFFERS_AT, 32, true };
	const struct driver_buffer second = { BUFFERS_AT + 32, 32, true };

	(void)state;
	driver_chain(driver, &first, 1);
	driver_chain(driver, &second, 1);
	driver_notify(driver);
	assert_memory_not_equal(driver_at(driver, BUFFERS_AT), driver_at(driver, BUFFERS_AT + 32),
				32);
}

static void one_request_is_not_filled_without_end(void **state)
{
	const struct driver_buffer large = { BUFFERS_AT, 0x20000, true };
	uint16_t head = driver_chain(driver, &large, 1);

	(void)state;
	driver_notify(driver);
	assert_int_equal(driver_done(driver, head), VIRTIO_RNG_BYTES);
	assert_int_equal(nonzero(BUFFERS_AT + VIRTIO_RNG_BYTES, 0x20000 - VIRTIO_RNG_BYTES), 0);
}

static void wrong_requests_break_it(void **state)
{
	const struct driver_buffer wrong[][2] = {
		{ { BUFFERS_AT, 16, false }, { BUFFERS_AT, 16, true } },
		{ { BUFFERS_AT, 16, false }, { BUFFERS_AT, 16, false } },
		{ { BUFFERS_AT, 16, true }, { GUEST_END, 16, true } },
		{ { BUFFERS_AT, 16, true }, { READ_ONLY_AT, 16, true } },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		driver_chain(driver, wrong[i], 2);
		driver_notify(driver);
		assert_true(driver_idle(driver));
		driver_expect_broken(driver);
		driver_start(driver, 0, 8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(it_says_what_it_is, begin),
		cmocka_unit_test_setup(buffers_are_filled, begin),
		cmocka_unit_test_setup(bytes_differ_from_time_to_time, begin),
		cmocka_unit_test_setup(one_request_is_not_filled_without_end, begin),
		cmocka_unit_test_setup(wrong_requests_break_it, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
