// SPDX-License-Identifier: MIT
/* Sizes, numbers and switches as users write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "options.h"

static void sizes_have_binary_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{ "1", 1 },
		{ "4096", 4096 },
		{ "0x1000", 4096 },
		{ "64k", 64u << 10 },
		{ "64M", 64u << 20 },
		{ "3G", UINT64_C(3) << 30 },
		{ "2T", UINT64_C(2) << 40 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct error error;
		uint64_t bytes = 0;

		assert_true(option_size(cases[i].text, "--size", &bytes, &error));
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static void wrong_sizes_are_named(void **state)
{
	static const char *const cases[] = { "",    "M",   "-1",   " 1",    "1X", "1MB",
					     "1.5", "0",   "0M",   "1M ",   "x",  "99999999999999999999",
					     "17592186044416T" };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct error error;
		uint64_t bytes;

		assert_false(option_size(cases[i], "--size", &bytes, &error));
		assert_int_equal(error.exit, EXIT_INPUT);
		assert_non_null(strstr(error.text, "--size"));
	}
}

static void numbers_have_bounds(void **state)
{
	struct error error;
	uint64_t number;

	(void)state;
	assert_true(option_number("10", "--guests", 1, 10, &number, &error));
	assert_int_equal(number, 10);
	assert_false(option_number("11", "--guests", 1, 10, &number, &error));
	assert_false(option_number("0", "--guests", 1, 10, &number, &error));
	assert_false(option_number("ten", "--guests", 1, 10, &number, &error));
	assert_false(option_number("1a", "--guests", 1, 10, &number, &error));
	assert_int_equal(error.exit, EXIT_INPUT);
}

static void switches_are_on_or_off(void **state)
{
	struct error error;
	bool on = false;

	(void)state;
	assert_true(option_switch("on", "--sharing", &on, &error));
	assert_true(on);
	assert_true(option_switch("off", "--sharing", &on, &error));
	assert_false(on);
	assert_false(option_switch("yes", "--sharing", &on, &error));
}

static void levels_have_names_and_numbers(void **state)
{
	static const struct {
		const char *text;
		unsigned levels;
	} cases[] = {
		{"all", 0xe},	     {"none", 0},  {"pt", 2},	{"pd", 4},	 {"pdpt", 8},
		{"pt,pd,pdpt", 0xe}, {"1,3", 0xa}, {"1,pt", 2}, {"pdpt,1", 0xa},
	};
	static const char *const wrong[] = {
		"",	     ",",   "pt,",   ",pt",
		"pt,,pd",    "0",   "4",     "pml4",
		"11",	     "PT",  "pt pd", "all,pt",
		"none,none", " pt", "-1",    "ptptptptptptptptptptptptptptptptptptptpt"};
	struct error error;
	unsigned levels;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_true(option_levels(cases[i].text, "--share-levels", 3, &levels, &error));
		assert_int_equal(levels, cases[i].levels);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_false(option_levels(wrong[i], "--share-levels", 3, &levels, &error));
		assert_int_equal(error.exit, EXIT_INPUT);
		assert_non_null(strstr(error.text, "--share-levels"));
	}
	assert_true(option_levels("pml4", "--level", 4, &levels, &error));
	assert_int_equal(levels, 1u << 4);
}

static void ranges_are_half_open(void **state)
{
	static const char *const wrong[] = {"",
					    "-",
					    "5",
					    "-5",
					    "5-5",
					    "6-5",
					    "0-0",
					    "1-2-",
					    "1 -2",
					    "a-b",
					    "1-2x",
					    "1--2",
					    "0-99999999999999999999"};
	uint64_t from, until;
	struct error error;

	(void)state;
	assert_true(option_range("3-7", "--share-events", &from, &until, &error));
	assert_int_equal(from, 3);
	assert_int_equal(until, 7);
	assert_true(option_range("12-", "--share-events", &from, &until, &error));
	assert_int_equal(from, 12);
	assert_int_equal(until, 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_false(option_range(wrong[i], "--share-events", &from, &until, &error));
		assert_int_equal(error.exit, EXIT_INPUT);
		assert_non_null(strstr(error.text, "--share-events"));
	}
}

static void lists_name_some(void **state)
{
	static const char *const names[] = {"fill", "share", "free", NULL};
	struct error error;
	unsigned places;

	(void)state;
	assert_true(option_list("free,fill", "--event", names, &places, &error));
	assert_int_equal(places, 5);
	assert_false(option_list("fill,walk", "--event", names, &places, &error));
	assert_string_equal(error.text, "--event is fill, share or free, not \"walk\"");
	assert_false(option_list("", "--event", names, &places, &error));
	assert_false(option_list("fill,", "--event", names, &places, &error));
}

static void networks_are_a_tap_and_an_address(void **state)
{
	static const uint8_t mac[6] = { 0x52, 0x54, 0, 0x12, 0xab, 0xff };
	struct option_net net;
	struct error error;

	(void)state;
	assert_true(option_net("tap=tap0", &net, &error));
	assert_string_equal(net.tap, "tap0");
	assert_false(net.has_mac);
	assert_true(option_net("tap=a-name-of-15-by,mac=52:54:00:12:AB:ff", &net, &error));
	assert_string_equal(net.tap, "a-name-of-15-by");
	assert_true(net.has_mac);
	assert_memory_equal(net.mac, mac, sizeof(mac));
}

static void wrong_networks_are_named(void **state)
{
	static const char *const cases[] = {
		"",
		"tap0",
		"tap=",
		"tap=,mac=52:54:00:12:34:56",
		"tap=a-name-of-16-byt",
		"tap=tap0,",
		"tap=tap0,mac=",
		"tap=tap0,mtu=1500",
		"mac=52:54:00:12:34:56",
		"tap=tap0,mac=52:54:00:12:34:56,",
		"tap=tap0,mac=52:54:00:12:34",
		"tap=tap0,mac=52:54:00:12:34:5",
		"tap=tap0,mac=52:54:00:12:34:5g",
		"tap=tap0,mac=52:54:00:12:34:567",
		"tap=tap0,mac=52-54-00-12-34-56",
		"tap=tap0,mac=+1:54:00:12:34:56",
		"tap=tap0,mac= 1:54:00:12:34:56",
		"tap=tap0,mac=53:54:00:12:34:56",
		"tap=tap0,mac=ff:ff:ff:ff:ff:ff",
		"tap=tap0,mac=00:00:00:00:00:00",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct option_net net;
		struct error error;

		if (option_net(cases[i], &net, &error))
			fail_msg("%s is taken", cases[i]);
		assert_int_equal(error.exit, EXIT_INPUT);
		assert_non_null(strstr(error.text, "--net"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_have_binary_units),
		cmocka_unit_test(wrong_sizes_are_named),
		cmocka_unit_test(numbers_have_bounds),
		cmocka_unit_test(switches_are_on_or_off),
		cmocka_unit_test(levels_have_names_and_numbers),
		cmocka_unit_test(ranges_are_half_open),
		cmocka_unit_test(lists_name_some),
		cmocka_unit_test(networks_are_a_tap_and_an_address),
		cmocka_unit_test(wrong_networks_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
