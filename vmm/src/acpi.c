// SPDX-License-Identifier: MIT
#include "acpi.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

/* dsdt_aml_code, which iasl has made. */
#include "dsdt.hex"

#define PACKED __attribute__((packed))

#define OEM_ID	     "S2VM  "
#define OEM_TABLE_ID "S2VMMACH"
#define CREATOR_ID   "S2VM"

/* System description table header, 5.2.6. */
struct table_header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} PACKED;

/* Root system description pointer, 5.2.5.3. */
struct rsdp {
	char signature[8];
	uint8_t checksum; /* of the first RSDP_OLD_BYTES */
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum;
	uint8_t reserved[3];
} PACKED;

#define RSDP_OLD_BYTES 20

/* Extended system description table, 5.2.8. */
struct xsdt {
	struct table_header header;
	uint64_t tables[2];
} PACKED;

/* Generic address structure, 5.2.3.2. */
struct generic_address {
	uint8_t space;
	uint8_t bits;
	uint8_t offset;
	uint8_t access;
	uint64_t at;
} PACKED;

#define SPACE_IO    1
#define ACCESS_BYTE 1

/* Fixed ACPI description table, 5.2.9. Unused: what hardware-reduced machines do not have. */
struct fadt {
	struct table_header header;
	uint32_t facs;
	uint32_t dsdt;
	uint8_t reserved0;
	uint8_t profile;
	uint8_t unused0[60];
	uint8_t day_alarm;
	uint8_t month_alarm;
	uint8_t century;
	uint16_t boot_architecture;
	uint8_t reserved1;
	uint32_t flags;
	struct generic_address reset;
	uint8_t reset_value;
	uint16_t arm_boot_architecture;
	uint8_t minor_version;
	uint64_t x_facs;
	uint64_t x_dsdt;
	struct generic_address unused1[8];
	struct generic_address sleep_control;
	struct generic_address sleep_status;
	uint64_t hypervisor;
} PACKED;

#define FADT_MAJOR 6
#define FADT_MINOR 5

/* Flags, table 5.10. There is no power or sleep button, and the RTC wakes nobody. */
#define FADT_WBINVD		(1u << 0)
#define FADT_PROC_C1		(1u << 2)
#define FADT_NO_POWER_BUTTON	(1u << 4)
#define FADT_NO_SLEEP_BUTTON	(1u << 5)
#define FADT_NO_RTC_WAKE	(1u << 6)
#define FADT_RESET		(1u << 10)
#define FADT_HEADLESS		(1u << 12)
#define FADT_HARDWARE_REDUCED	(1u << 20)

/* IA-PC boot architecture, table 5.11. It has an RTC, but no 8042. */
#define FADT_NO_VGA (1u << 2)

/* Multiple APIC description table, 5.2.12, with the entries of this machine. */
struct madt_lapic {
	uint8_t type;
	uint8_t length;
	uint8_t processor;
	uint8_t apic;
	uint32_t flags;
} PACKED;

struct madt_ioapic {
	uint8_t type;
	uint8_t length;
	uint8_t id;
	uint8_t reserved;
	uint32_t address;
	uint32_t gsi_base;
} PACKED;

struct madt {
	struct table_header header;
	uint32_t lapic_address;
	uint32_t flags;
	struct madt_ioapic ioapic;
	/* Numbers below 255 stand in these entries also where CPUs use x2APIC (5.2.12.12). */
	struct madt_lapic lapics[PLATFORM_CPUS_MAX];
} PACKED;

#define MADT_LAPIC	   0
#define MADT_IOAPIC	   1
#define MADT_LAPIC_ENABLED 1u

_Static_assert(sizeof(struct rsdp) == 36, "ACPI 6.5, table 5.3");
_Static_assert(sizeof(struct table_header) == 36, "ACPI 6.5, table 5.4");
_Static_assert(sizeof(struct fadt) == 276, "ACPI 6.5, table 5.9");
_Static_assert(sizeof(struct madt_lapic) == 8, "ACPI 6.5, table 5.21");
_Static_assert(sizeof(struct madt_ioapic) == 12, "ACPI 6.5, table 5.24");

/* The area while it is filled, table after table. */
struct area {
	uint8_t *bytes;
	size_t used;
};

#define TABLE_ALIGNMENT 64u

/* All tables fit, however they are aligned. */
_Static_assert(sizeof(struct rsdp) + sizeof(struct xsdt) + sizeof(struct fadt) +
			       sizeof(struct madt) + sizeof(dsdt_aml_code) + 5 * TABLE_ALIGNMENT <=
		       PLATFORM_ACPI_BYTES,
	       "the ACPI area is too small");

static struct table_header header_of(const char *signature, size_t length, uint8_t revision)
{
	struct table_header header = {
		.length = (uint32_t)length,
		.revision = revision,
		.oem_revision = 1,
		.creator_revision = 1,
	};

	memcpy(header.signature, signature, sizeof(header.signature));
	memcpy(header.oem_id, OEM_ID, sizeof(header.oem_id));
	memcpy(header.oem_table_id, OEM_TABLE_ID, sizeof(header.oem_table_id));
	memcpy(header.creator_id, CREATOR_ID, sizeof(header.creator_id));
	return header;
}

/* What makes the sum of all @count bytes 0, if it comes to where a 0 is now. */
static uint8_t checksum(const void *bytes, size_t count)
{
	const uint8_t *byte = bytes;
	unsigned sum = 0;

	while (count--)
		sum += *byte++;
	return (uint8_t)-sum;
}

/* Appends a table and sets its checksum. Returns its guest-physical address. */
static uint64_t append(struct area *area, const void *table, size_t bytes)
{
	size_t start = (area->used + TABLE_ALIGNMENT - 1) / TABLE_ALIGNMENT * TABLE_ALIGNMENT;
	struct table_header *header = (struct table_header *)(area->bytes + start);

	memcpy(header, table, bytes);
	header->checksum = 0;
	header->checksum = checksum(header, bytes);
	area->used = start + bytes;
	return PLATFORM_ACPI_BASE + start;
}

static struct generic_address port(uint16_t number)
{
	return (struct generic_address){
		.space = SPACE_IO, .bits = 8, .access = ACCESS_BYTE, .at = number,
	};
}

static uint64_t append_fadt(struct area *area, uint64_t dsdt)
{
	struct fadt fadt = {
		.header = header_of("FACP", sizeof(fadt), FADT_MAJOR),
		.boot_architecture = FADT_NO_VGA,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON |
			 FADT_NO_RTC_WAKE | FADT_RESET | FADT_HEADLESS | FADT_HARDWARE_REDUCED,
		.reset = port(PLATFORM_RESET_PORT),
		.reset_value = PLATFORM_RESET_VALUE,
		.minor_version = FADT_MINOR,
		.x_dsdt = dsdt,
		.sleep_control = port(PLATFORM_SLEEP_CONTROL_PORT),
		.sleep_status = port(PLATFORM_SLEEP_STATUS_PORT),
	};

	return append(area, &fadt, sizeof(fadt));
}

static uint64_t append_madt(struct area *area, unsigned cpus)
{
	size_t bytes = offsetof(struct madt, lapics) + cpus * sizeof(struct madt_lapic);
	struct madt madt = {
		.header = header_of("APIC", bytes, 6),
		.lapic_address = PLATFORM_LAPIC_BASE,
		.ioapic = {
			.type = MADT_IOAPIC,
			.length = sizeof(madt.ioapic),
			.id = PLATFORM_IOAPIC_ID,
			.address = PLATFORM_IOAPIC_BASE,
		},
	};

	for (unsigned cpu = 0; cpu < cpus; cpu++)
		madt.lapics[cpu] = (struct madt_lapic){
			.type = MADT_LAPIC,
			.length = sizeof(struct madt_lapic),
			.processor = (uint8_t)cpu,
			.apic = (uint8_t)cpu,
			.flags = MADT_LAPIC_ENABLED,
		};
	return append(area, &madt, bytes);
}

static void write_rsdp(struct area *area, uint64_t xsdt)
{
	struct rsdp rsdp = { .revision = 2, .length = sizeof(rsdp), .xsdt = xsdt };

	memcpy(rsdp.signature, "RSD PTR ", sizeof(rsdp.signature));
	memcpy(rsdp.oem_id, OEM_ID, sizeof(rsdp.oem_id));
	rsdp.checksum = checksum(&rsdp, RSDP_OLD_BYTES);
	rsdp.extended_checksum = checksum(&rsdp, sizeof(rsdp));
	memcpy(area->bytes, &rsdp, sizeof(rsdp));
}

size_t acpi_write(void *bytes, unsigned cpus)
{
	struct area area = { .bytes = bytes, .used = sizeof(struct rsdp) };
	struct xsdt xsdt = { .header = header_of("XSDT", sizeof(xsdt), 1) };
	uint64_t dsdt;

	assert(cpus >= 1 && cpus <= PLATFORM_CPUS_MAX);
	assert(((const struct table_header *)dsdt_aml_code)->length == sizeof(dsdt_aml_code));
	dsdt = append(&area, dsdt_aml_code, sizeof(dsdt_aml_code));
	xsdt.tables[0] = append_fadt(&area, dsdt);
	xsdt.tables[1] = append_madt(&area, cpus);
	write_rsdp(&area, append(&area, &xsdt, sizeof(xsdt)));
	return area.used;
}
