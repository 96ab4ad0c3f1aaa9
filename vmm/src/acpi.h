/* SPDX-License-Identifier: MIT */
/*
 * ACPI tables of a Linux guest: a hardware-reduced machine (ACPI 6.5, 4.1) of which platform.h has
 * the numbers. They are RSDP, XSDT, FADT, MADT, and a DSDT that iasl makes of vmm/acpi/dsdt.asl.
 */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include <stddef.h>

#include "platform.h"

/*
 * Writes the tables of a machine of @cpus CPUs, 1 to PLATFORM_CPUS_MAX, as they are to lie from
 * PLATFORM_ACPI_BASE on, to @area of PLATFORM_ACPI_BYTES bytes. The RSDP comes first. Returns how
 * many bytes they take; those behind them are left as they are.
 */
size_t acpi_write(void *area, unsigned cpus);

#endif
