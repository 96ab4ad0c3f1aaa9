/* SPDX-License-Identifier: MIT */
/*
 * The devices of a Linux guest's machine, for the guest: ACPI 6.5, chapters 5, 6 and 19. All
 * numbers are those of platform.h. The C preprocessor reads this file before iasl does.
 */
#include "platform.h"

/* What all devices have: their interrupts come as edges to high and are not shared. */
#define EDGE(gsi) Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { gsi }

/*
 * The identifier is what Linux's virtio_mmio knows such devices by. Addresses and interrupts are
 * written out, because iasl 20200925 makes wrong lengths of what it has to compute inside a
 * resource; a test holds them against platform.h.
 */
#define VIRTIO_SLOT(name, uid, address, gsi)						\
	Device (name)									\
	{										\
		Name (_HID, "LNRO0005")							\
		Name (_UID, uid)							\
		Name (_CRS, ResourceTemplate ()						\
		{									\
			Memory32Fixed (ReadWrite, address, PLATFORM_VIRTIO_BYTES)	\
			EDGE (gsi)							\
		})									\
	}

DefinitionBlock ("dsdt.aml", "DSDT", 2, "S2VM  ", "S2VMMACH", 1)
{
	/* Soft off: what goes into the sleep control register (7.4.2). */
	Name (\_S5, Package () { PLATFORM_SLEEP_S5, 0, 0, 0 })

	Scope (\_SB)
	{
		Device (COM1)
		{
			Name (_HID, EisaId ("PNP0501"))
			Name (_UID, 0)
			Name (_DDN, "COM1")
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, PLATFORM_SERIAL_PORT, PLATFORM_SERIAL_PORT, 1,
				    PLATFORM_SERIAL_PORTS)
				EDGE (PLATFORM_SERIAL_GSI)
			})
		}

		Device (RTC0)
		{
			Name (_HID, EisaId ("PNP0B00"))
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, PLATFORM_RTC_PORT, PLATFORM_RTC_PORT, 1,
				    PLATFORM_RTC_PORTS)
			})
		}

		/* Present, enabled, shown and working (6.3.7): Linux asks. */
		Device (PEVT)
		{
			Name (_HID, "QEMU0001")
			Name (_STA, 0x0f)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, PLATFORM_PANIC_PORT, PLATFORM_PANIC_PORT, 1, 1)
			})
		}

		VIRTIO_SLOT (VIO0, 0, 0xd0000000, 5)
		VIRTIO_SLOT (VIO1, 1, 0xd0001000, 6)
		VIRTIO_SLOT (VIO2, 2, 0xd0002000, 7)
		VIRTIO_SLOT (VIO3, 3, 0xd0003000, 8)
		VIRTIO_SLOT (VIO4, 4, 0xd0004000, 9)
		VIRTIO_SLOT (VIO5, 5, 0xd0005000, 10)
		VIRTIO_SLOT (VIO6, 6, 0xd0006000, 11)
		VIRTIO_SLOT (VIO7, 7, 0xd0007000, 12)
		VIRTIO_SLOT (VIO8, 8, 0xd0008000, 13)
		VIRTIO_SLOT (VIO9, 9, 0xd0009000, 14)
		VIRTIO_SLOT (VIOA, 10, 0xd000a000, 15)
		VIRTIO_SLOT (VIOB, 11, 0xd000b000, 16)
		VIRTIO_SLOT (VIOC, 12, 0xd000c000, 17)
		VIRTIO_SLOT (VIOD, 13, 0xd000d000, 18)
		VIRTIO_SLOT (VIOE, 14, 0xd000e000, 19)
		VIRTIO_SLOT (VIOF, 15, 0xd000f000, 20)

		/*
		 * "Virtual Machine Generation ID" (Microsoft, 2012): ADDR has the address of the id
		 * as its low and its high half; 0x80 says that the id has changed.
		 */
		Device (VGEN)
		{
			Name (_HID, "VMGENCTR")
			Name (_CID, "VM_Gen_Counter")
			Name (_DDN, "VM_Gen_Counter")
			Name (ADDR, Package () { PLATFORM_GENERATION, 0 })
		}

		/* The generic event device (5.6.9): interrupts that stand for notifications. */
		Device (GED0)
		{
			Name (_HID, "ACPI0013")
			Name (_UID, 0)
			Name (_CRS, ResourceTemplate ()
			{
				EDGE (PLATFORM_EVENT_GSI)
			})
			Method (_EVT, 1, Serialized)
			{
				If (Arg0 == PLATFORM_EVENT_GSI)
				{
					Notify (\_SB.VGEN, 0x80)
				}
			}
		}
	}
}
