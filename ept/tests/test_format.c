// SPDX-License-Identifier: MIT
/* Encoding and decoding of entries: round trips for every format, known patterns for two. */
#include "port.h"

static const unsigned all_rights[] = {EPT_READ, RW, RX, RWX};

static const struct fpa places[] = {
	{0},
	{EPT_PAGE_BYTES},
	{UINT64_C(0x123456789000)},
	{UINT64_C(0xffffffffff000)},
	{UINT64_C(0x8000000000000)},
};

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static void test_leaf_round_trip(void **state)
{
	const struct ept_format *format = *state;

	for (size_t p = 0; p < COUNT(places); p++)
		for (size_t r = 0; r < COUNT(all_rights); r++) {
			uint64_t entry = ept_entry_leaf(format, places[p], all_rights[r]);

			assert_true(ept_entry_present(entry));
			assert_int_equal(ept_entry_target(format, entry).v, places[p].v);
			assert_int_equal(ept_entry_rights(format, entry), all_rights[r]);
			assert_int_equal(ept_entry_writable(format, entry) != 0,
					 (all_rights[r] & EPT_WRITE) != 0);
		}
}

/* Of an entry that points at a table only the right to write differs: leaves restrict the rest. */
static void test_table_round_trip(void **state)
{
	const struct ept_format *format = *state;

	for (size_t p = 0; p < COUNT(places); p++)
		for (size_t r = 0; r < COUNT(all_rights); r++) {
			uint64_t entry = ept_entry_table(format, places[p], all_rights[r]);
			unsigned write = all_rights[r] & EPT_WRITE;

			assert_true(ept_entry_present(entry));
			assert_int_equal(ept_entry_target(format, entry).v, places[p].v);
			assert_int_equal(ept_entry_rights(format, entry), RX | write);
		}
}

static void test_with_write_changes_nothing_else(void **state)
{
	const struct ept_format *format = *state;

	for (size_t p = 0; p < COUNT(places); p++)
		for (size_t r = 0; r < COUNT(all_rights); r++) {
			unsigned others = all_rights[r] & ~(unsigned)EPT_WRITE;
			uint64_t entry = ept_entry_leaf(format, places[p], all_rights[r]);

			assert_int_equal(ept_entry_with_write(format, entry, true),
					 ept_entry_leaf(format, places[p], others | EPT_WRITE));
			assert_int_equal(ept_entry_with_write(format, entry, false),
					 ept_entry_leaf(format, places[p], others));
		}
}

static void test_absent_entry_is_zero(void **state)
{
	const struct ept_format *format = *state;

	assert_false(ept_entry_present(0));
	assert_int_equal(ept_entry_target(format, 0).v, 0);
}

/* No bit of the address is a bit of something else. */
static void test_fields_do_not_overlap(void **state)
{
	const struct ept_format *format = *state;
	uint64_t address = ((UINT64_C(1) << EPT_ADDRESS_BITS) - 1) << format->address_shift;
	uint64_t rights = format->write.granted | format->write.denied | format->exec.granted |
			  format->exec.denied;

	assert_int_equal(address & (rights | format->leaf_bits | format->table_bits), 0);
	assert_int_equal(rights & (format->leaf_bits | format->table_bits), 0);
}

/* Intel SDM Vol. 3C, format of an EPT PTE and of an EPT PDE that references a table. */
static void test_ept_patterns(void **state)
{
	const struct ept_format *format = &ept_format_ept;
	struct fpa at = {UINT64_C(0x12345000)};

	(void)state;
	/* Read 0, write 1, execute 2, write-back 5:3 = 6, accessed 8, dirty 9. */
	assert_int_equal(ept_entry_leaf(format, at, EPT_READ), 0x12345331);
	assert_int_equal(ept_entry_leaf(format, at, RW), 0x12345333);
	assert_int_equal(ept_entry_leaf(format, at, RX), 0x12345335);
	assert_int_equal(ept_entry_leaf(format, at, RWX), 0x12345337);
	/* Bits 6:3 of an entry that references a table are reserved. */
	assert_int_equal(ept_entry_table(format, at, EPT_READ), 0x12345105);
	assert_int_equal(ept_entry_table(format, at, RW), 0x12345107);
}

/* AMD APM Vol. 2, long-mode PTE and PDE: present 0, write 1, user 2, accessed 5, dirty 6, NX 63. */
static void test_npt_patterns(void **state)
{
	const struct ept_format *format = &ept_format_npt;
	struct fpa at = {UINT64_C(0x12345000)};

	(void)state;
	assert_int_equal(ept_entry_leaf(format, at, EPT_READ), UINT64_C(0x8000000012345065));
	assert_int_equal(ept_entry_leaf(format, at, RW), UINT64_C(0x8000000012345067));
	assert_int_equal(ept_entry_leaf(format, at, RX), 0x12345065);
	assert_int_equal(ept_entry_leaf(format, at, RWX), 0x12345067);
	assert_int_equal(ept_entry_table(format, at, EPT_READ), 0x12345025);
	assert_int_equal(ept_entry_table(format, at, RW), 0x12345027);
}

static void test_geometry(void **state)
{
	struct gpa gpa = {(UINT64_C(5) << 39) | (UINT64_C(6) << 30) | (7 << 21) | (8 << 12) | 9};

	(void)state;
	assert_int_equal(ept_entry_index(gpa, 4), 5);
	assert_int_equal(ept_entry_index(gpa, 3), 6);
	assert_int_equal(ept_entry_index(gpa, 2), 7);
	assert_int_equal(ept_entry_index(gpa, 1), 8);
	assert_int_equal(ept_entry_span(1), KIB4);
	assert_int_equal(ept_entry_span(2), MIB2);
	assert_int_equal(ept_table_span(2), GIB1);
	assert_int_equal(ept_table_span(3), GIB512);
	assert_int_equal(ept_table_span(4), EPT_GPA_END);
}

static void test_status_texts(void **state)
{
	(void)state;
	for (int status = EPT_OK; status <= EPT_NO_PARENT; status++)
		assert_non_null(ept_status_text((enum ept_status)status));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(test_leaf_round_trip),
		EACH_FORMAT(test_table_round_trip),
		EACH_FORMAT(test_with_write_changes_nothing_else),
		EACH_FORMAT(test_absent_entry_is_zero),
		EACH_FORMAT(test_fields_do_not_overlap),
		cmocka_unit_test(test_ept_patterns),
		cmocka_unit_test(test_npt_patterns),
		cmocka_unit_test(test_geometry),
		cmocka_unit_test(test_status_texts),
	};

	return cmocka_run_group_tests_name("ept.format", tests, NULL, NULL);
}
