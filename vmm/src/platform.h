/* SPDX-License-Identifier: MIT */
/*
 * The machine that a Linux guest finds, in numbers: guest-physical addresses, I/O ports and global
 * system interrupts (GSI, inputs of the I/O APIC). The loader lays memory out by them, the ACPI
 * tables tell them to the guest, and devices answer at them. ASL includes this file too
 * (vmm/acpi/dsdt.asl), so there are macros of plain numbers here and nothing else.
 *
 *	0x00000000  RAM		what the kernel is started with lies here (linux_boot.c)
 *	0x000a0000  hole	no RAM is reported; there must be no option ROM either
 *	0x000e0000  RAM		ACPI tables; in the last pages the generation id, and what resets
 *	0x00100000  RAM		up to 3 GiB
 *	0xc0000000  hole	devices: virtio-mmio, I/O APIC, local APIC
 *	0x100000000 RAM		what does not fit below 3 GiB
 *
 * Memory of a guest is one stretch of bytes: what is below 3 GiB has its address as offset, also in
 * the lower hole, and at 4 GiB follows the byte of offset 3 GiB.
 */
#ifndef VMM_PLATFORM_H
#define VMM_PLATFORM_H

#define PLATFORM_CPUS_MAX 4

#define PLATFORM_LOW_RAM_END  0xa0000
#define PLATFORM_ACPI_BASE    0xe0000 /* the RSDP lies at the very beginning */
#define PLATFORM_ACPI_BYTES   0x1e000
/*
 * A page of its own in reserved memory, as the specification of the generation id wants it; the 16
 * bytes of the id come first.
 */
#define PLATFORM_GENERATION   0xfe000
/*
 * Where a PC's firmware begins. Linux without EFI does not use the reset register of a machine that
 * is hardware-reduced unless told to (reboot=acpi); it goes to real mode, and jumps to the vector.
 * The code there resets by the register.
 */
#define PLATFORM_FIRMWARE     0xff000
#define PLATFORM_RESET_VECTOR 0xffff0
#define PLATFORM_HIGH_RAM     0x100000
#define PLATFORM_RAM_HOLE     0xc0000000
#define PLATFORM_RAM_HOLE_END 0x100000000

/* Local APICs have their numbers from 0 on, CPU by CPU. */
#define PLATFORM_LAPIC_BASE  0xfee00000
#define PLATFORM_IOAPIC_BASE 0xfec00000
#define PLATFORM_IOAPIC_ID   PLATFORM_CPUS_MAX
#define PLATFORM_IOAPIC_PINS 24 /* GSI 0 to 23; there is no 8259 */

/* All interrupts are edges to high: nobody need hear of an end of interrupt. */
#define PLATFORM_SERIAL_PORT  0x3f8 /* 16550, eight ports */
#define PLATFORM_SERIAL_PORTS 8
#define PLATFORM_SERIAL_GSI   4

/* MC146818: index and data; its interrupt is not connected. */
#define PLATFORM_RTC_PORT  0x70
#define PLATFORM_RTC_PORTS 2

/*
 * Ports by which a guest says something to the VMM, a byte each, and which read as 0. Debug exit:
 * the guest is ended, well if the byte is 0, and badly with any other status. Ready: whatever it
 * is, the guest has come to where it was started for.
 */
#define PLATFORM_DEBUG_EXIT_PORT 0x501
#define PLATFORM_READY_PORT	 0x502

/*
 * pvpanic (QEMU, docs/specs/pvpanic): its port reads as the events that may be written to it, of
 * which there is this one.
 */
#define PLATFORM_PANIC_PORT	0x505
#define PLATFORM_PANIC_PANICKED 1

/*
 * Slots of virtio-mmio, at PLATFORM_VIRTIO_BASE + n * PLATFORM_VIRTIO_BYTES with GSI
 * PLATFORM_VIRTIO_GSI + n. A slot without a device reads as magic number, version 2 and device id 0
 * (virtio 1.2, 4.2.2), which drivers pass over in silence.
 */
#define PLATFORM_VIRTIO_SLOTS 16
#define PLATFORM_VIRTIO_BASE  0xd0000000
#define PLATFORM_VIRTIO_BYTES 0x1000
#define PLATFORM_VIRTIO_GSI   5

/* The generic event device: the generation id has changed. */
#define PLATFORM_EVENT_GSI 21

/*
 * Reset: a byte with this value written to this port (ACPI 6.5, 4.8.3.6). Sleep: the registers of
 * hardware-reduced ACPI (4.8.3.7); a write to the control register with PLATFORM_SLEEP_ENABLE and
 * with the type PLATFORM_SLEEP_S5, shifted, switches the machine off. The status register reads as
 * 0.
 */
#define PLATFORM_RESET_PORT	    0x600
#define PLATFORM_RESET_VALUE	    1
#define PLATFORM_SLEEP_CONTROL_PORT 0x601
#define PLATFORM_SLEEP_STATUS_PORT  0x602
#define PLATFORM_SLEEP_ENABLE	    0x20
#define PLATFORM_SLEEP_TYPE_SHIFT   2
#define PLATFORM_SLEEP_S5	    5

#endif
