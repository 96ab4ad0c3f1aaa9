// SPDX-License-Identifier: MIT
/* ACPI tables as the bytes that a guest reads: nothing here knows how they were put together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "acpi.h"

static uint8_t area[PLATFORM_ACPI_BYTES];

static uint64_t number(const uint8_t *at, size_t bytes)
{
	uint64_t value = 0;

	memcpy(&value, at, bytes);
	return value;
}

static uint8_t sum(const uint8_t *bytes, size_t count)
{
	unsigned all = 0;

	while (count--)
		all += *bytes++;
	return (uint8_t)all;
}

/* The table at a guest-physical address, which must lie whole in the area. Its sum is right. */
static const uint8_t *table_at(uint64_t address, const char *signature)
{
	uint64_t offset = address - PLATFORM_ACPI_BASE;
	uint64_t length;

	assert_true(address >= PLATFORM_ACPI_BASE && offset + 36 <= sizeof(area));
	length = number(area + offset + 4, 4);
	assert_true(length >= 36 && length <= sizeof(area) - offset);
	assert_memory_equal(area + offset, signature, 4);
	assert_int_equal(sum(area + offset, length), 0);
	return area + offset;
}

static const uint8_t *xsdt_of(unsigned cpus)
{
	memset(area, 0xee, sizeof(area));
	assert_true(acpi_write(area, cpus) <= sizeof(area));
	return table_at(number(area + 24, 8), "XSDT");
}

static const uint8_t *fadt_of(unsigned cpus)
{
	return table_at(number(xsdt_of(cpus) + 36, 8), "FACP");
}

static const uint8_t *madt_of(unsigned cpus)
{
	return table_at(number(xsdt_of(cpus) + 44, 8), "APIC");
}

static const uint8_t *dsdt_of(unsigned cpus)
{
	return table_at(number(fadt_of(cpus) + 140, 8), "DSDT");
}

/* ACPI 6.5, 5.2.5.3 and 5.2.8. */
static void the_root_pointer_leads_to_two_tables(void **state)
{
	(void)state;
	for (unsigned cpus = 1; cpus <= PLATFORM_CPUS_MAX; cpus++) {
		const uint8_t *xsdt = xsdt_of(cpus);

		assert_memory_equal(area, "RSD PTR ", 8);
		assert_int_equal(area[15], 2);
		assert_int_equal(number(area + 20, 4), 36);
		assert_int_equal(sum(area, 20), 0);
		assert_int_equal(sum(area, 36), 0);
		assert_int_equal(number(xsdt + 4, 4), 36 + 2 * 8);
		table_at(number(xsdt + 36, 8), "FACP");
		table_at(number(xsdt + 44, 8), "APIC");
	}
}

static void what_follows_the_tables_is_left_alone(void **state)
{
	size_t used;

	(void)state;
	memset(area, 0xee, sizeof(area));
	used = acpi_write(area, PLATFORM_CPUS_MAX);
	assert_true(used < sizeof(area));
	for (size_t i = used; i < sizeof(area); i++)
		assert_int_equal(area[i], 0xee);
}

/* A generic address of one byte in I/O space, 5.2.3.2. */
static void assert_port(const uint8_t *at, uint64_t port)
{
	static const uint8_t byte_in_io[] = { 1, 8, 0, 1 };

	assert_memory_equal(at, byte_in_io, sizeof(byte_in_io));
	assert_int_equal(number(at + 4, 8), port);
}

/* 5.2.9: hardware-reduced: no interrupt, no register blocks, but reset and sleep registers. */
static void the_machine_is_hardware_reduced(void **state)
{
	const uint8_t *fadt = fadt_of(1);
	uint64_t flags = number(fadt + 112, 4);

	(void)state;
	assert_int_equal(number(fadt + 4, 4), 276);
	assert_int_equal(fadt[8], 6);
	assert_true(flags & 1u << 20);
	assert_true(flags & 1u << 10);
	for (unsigned i = 46; i < 104; i++)
		assert_int_equal(fadt[i], 0);
	for (unsigned i = 148; i < 244; i++)
		assert_int_equal(fadt[i], 0);
	assert_int_equal(number(fadt + 109, 2) & 2, 0); /* no 8042 */
	assert_port(fadt + 116, PLATFORM_RESET_PORT);
	assert_int_equal(fadt[128], PLATFORM_RESET_VALUE);
	assert_port(fadt + 244, PLATFORM_SLEEP_CONTROL_PORT);
	assert_port(fadt + 256, PLATFORM_SLEEP_STATUS_PORT);
}

/* 5.2.12. */
static void each_cpu_has_a_local_apic(void **state)
{
	(void)state;
	for (unsigned cpus = 1; cpus <= PLATFORM_CPUS_MAX; cpus++) {
		const uint8_t *madt = madt_of(cpus);
		const uint8_t *end = madt + number(madt + 4, 4);
		unsigned lapics = 0, ioapics = 0;
		const uint8_t *entry;

		assert_int_equal(number(madt + 36, 4), PLATFORM_LAPIC_BASE);
		assert_int_equal(number(madt + 40, 4), 0); /* no 8259 */
		for (entry = madt + 44; entry < end; entry += entry[1]) {
			assert_true(entry[1] >= 8 && entry[1] <= end - entry);
			if (entry[0] == 0) {
				assert_int_equal(entry[1], 8);
				assert_int_equal(entry[2], lapics);
				assert_int_equal(entry[3], lapics++);
				assert_int_equal(number(entry + 4, 4), 1);
			} else {
				assert_int_equal(entry[0], 1);
				assert_int_equal(entry[1], 12);
				assert_true(entry[2] >= cpus);
				assert_int_equal(number(entry + 4, 4), PLATFORM_IOAPIC_BASE);
				assert_int_equal(number(entry + 8, 4), 0);
				ioapics++;
			}
		}
		assert_ptr_equal(entry, end);
		assert_int_equal(lapics, cpus);
		assert_int_equal(ioapics, 1);
	}
}

/* Where @bytes next occur in a table after @from; NULL if nowhere. */
static const uint8_t *find(const uint8_t *table, const uint8_t *from, const void *bytes,
			   size_t count)
{
	return memmem(from, number(table + 4, 4) - (size_t)(from - table), bytes, count);
}

/* 6.4.3.6: an interrupt that is consumed, an edge to high, not shared, and its number. */
static void assert_interrupt(const uint8_t *at, uint64_t gsi)
{
	static const uint8_t edge[] = { 0x89, 6, 0, 0x03, 1 };

	assert_memory_equal(at, edge, sizeof(edge));
	assert_int_equal(number(at + 5, 4), gsi);
}

static void slots_are_where_devices_will_answer(void **state)
{
	static const uint8_t fixed_memory[] = { 0x86, 9, 0, 1 }; /* 6.4.3.4 */
	const uint8_t *dsdt = dsdt_of(1);
	const uint8_t *at = dsdt;
	unsigned slots = 0;

	(void)state;
	for (; (at = find(dsdt, at + 1, fixed_memory, sizeof(fixed_memory))); slots++) {
		assert_int_equal(number(at + 4, 4),
				 PLATFORM_VIRTIO_BASE + slots * PLATFORM_VIRTIO_BYTES);
		assert_int_equal(number(at + 8, 4), PLATFORM_VIRTIO_BYTES);
		assert_interrupt(at + 12, PLATFORM_VIRTIO_GSI + slots);
	}
	assert_int_equal(slots, PLATFORM_VIRTIO_SLOTS);
	assert_true(PLATFORM_VIRTIO_GSI + PLATFORM_VIRTIO_SLOTS <= PLATFORM_EVENT_GSI);
	assert_true(PLATFORM_EVENT_GSI < PLATFORM_IOAPIC_PINS);
}

static void ports_are_where_devices_will_answer(void **state)
{
	/* 6.4.2.5: sixteen bits are decoded; least, greatest, alignment, length. */
	static const uint8_t serial[] = {
		0x47, 1, PLATFORM_SERIAL_PORT & 0xff, PLATFORM_SERIAL_PORT >> 8,
		PLATFORM_SERIAL_PORT & 0xff, PLATFORM_SERIAL_PORT >> 8, 1, PLATFORM_SERIAL_PORTS,
	};
	static const uint8_t rtc[] = {
		0x47, 1, PLATFORM_RTC_PORT, 0, PLATFORM_RTC_PORT, 0, 1, PLATFORM_RTC_PORTS,
	};
	const uint8_t *dsdt = dsdt_of(1);
	const uint8_t *at = find(dsdt, dsdt, serial, sizeof(serial));

	(void)state;
	assert_non_null(at);
	assert_interrupt(at + sizeof(serial), PLATFORM_SERIAL_GSI);
	assert_non_null(find(dsdt, dsdt, rtc, sizeof(rtc)));
}

static void a_panic_is_told_by_a_port(void **state)
{
	static const uint8_t port[] = {
		0x47, 1, PLATFORM_PANIC_PORT & 0xff, PLATFORM_PANIC_PORT >> 8,
		PLATFORM_PANIC_PORT & 0xff, PLATFORM_PANIC_PORT >> 8, 1, 1,
	};
	const uint8_t *dsdt = dsdt_of(1);

	(void)state;
	assert_non_null(find(dsdt, dsdt, "\x0dQEMU0001", 10));
	assert_non_null(find(dsdt, dsdt, "_STA\x0a\x0f", 6));
	assert_non_null(find(dsdt, dsdt, port, sizeof(port)));
}

/* ADDR: a package of two, a double word and zero; its page is not in the tables' area. */
static void the_generation_id_is_found(void **state)
{
	static const uint8_t address[] = {
		'A', 'D', 'D', 'R', 0x12, 8, 2, 0x0c, PLATFORM_GENERATION & 0xff,
		PLATFORM_GENERATION >> 8 & 0xff, PLATFORM_GENERATION >> 16 & 0xff,
		PLATFORM_GENERATION >> 24 & 0xff, 0,
	};
	const uint8_t *dsdt = dsdt_of(1);

	(void)state;
	assert_non_null(find(dsdt, dsdt, address, sizeof(address)));
	assert_non_null(find(dsdt, dsdt, "\x0dVMGENCTR", 10));
	assert_non_null(find(dsdt, dsdt, "\x0dVM_Gen_Counter", 16));
	assert_int_equal(PLATFORM_GENERATION % 4096, 0);
	assert_true(PLATFORM_GENERATION >= PLATFORM_ACPI_BASE + PLATFORM_ACPI_BYTES);
}

/* 7.4.2: _S5, a package of four that begins with the type. */
static void the_machine_can_be_switched_off(void **state)
{
	static const uint8_t s5[] = {
		'_', 'S', '5', '_', 0x12, 7, 4, 0x0a, PLATFORM_SLEEP_S5, 0, 0, 0,
	};
	const uint8_t *dsdt = dsdt_of(1);

	(void)state;
	assert_non_null(find(dsdt, dsdt, s5, sizeof(s5)));
	assert_true(PLATFORM_SLEEP_S5 << PLATFORM_SLEEP_TYPE_SHIFT < PLATFORM_SLEEP_ENABLE);
}

static void write_table(const char *directory, const uint8_t *table)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%.4s.dat", directory, (const char *)table);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(table, 1, number(table + 4, 4), file), number(table + 4, 4));
	fclose(file);
}

/* What iasl disassembles, it must be able to compile to the same table. */
static void iasl_understands_all_tables(void **state)
{
	static const char script[] =
		"cd %s && for table in XSDT FACP APIC DSDT; do"
		"	iasl -d $table.dat >$table.log 2>&1 &&"
		"	! grep -Ei 'error|warning|invalid|unknown|incorrect' $table.log &&"
		"	! grep -Ei 'invalid|incorrect|table terminates' $table.dsl ||"
		"	{ cat $table.log; exit 1; }; done &&"
		"iasl -vx 6035 -p again DSDT.dsl >again.log 2>&1 &&"
		"tail -c +37 DSDT.dat >one && tail -c +37 again.aml >other && cmp one other";
	char directory[] = "/tmp/s2vm-acpi-XXXXXX";
	char command[sizeof(script) + sizeof(directory)];

	(void)state;
	assert_non_null(mkdtemp(directory));
	write_table(directory, xsdt_of(PLATFORM_CPUS_MAX));
	write_table(directory, fadt_of(PLATFORM_CPUS_MAX));
	write_table(directory, madt_of(PLATFORM_CPUS_MAX));
	write_table(directory, dsdt_of(PLATFORM_CPUS_MAX));
	snprintf(command, sizeof(command), script, directory);
	assert_int_equal(system(command), 0);
	snprintf(command, sizeof(command), "rm -r %s", directory);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_root_pointer_leads_to_two_tables),
		cmocka_unit_test(what_follows_the_tables_is_left_alone),
		cmocka_unit_test(the_machine_is_hardware_reduced),
		cmocka_unit_test(each_cpu_has_a_local_apic),
		cmocka_unit_test(slots_are_where_devices_will_answer),
		cmocka_unit_test(ports_are_where_devices_will_answer),
		cmocka_unit_test(a_panic_is_told_by_a_port),
		cmocka_unit_test(the_generation_id_is_found),
		cmocka_unit_test(the_machine_can_be_switched_off),
		cmocka_unit_test(iasl_understands_all_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
