/* SPDX-License-Identifier: MIT */
/*
 * The devices of one Linux guest, wired as platform.h says: what answers at a port or an address,
 * and whose interrupt is at which pin of the I/O APIC. It has the lock that devices want
 * (device.h).
 */
#ifndef VMM_BOARD_H
#define VMM_BOARD_H

#include <pthread.h>

#include "ioapic.h"
#include "pci_host.h"
#include "rtc.h"
#include "serial.h"
#include "virtio_blk.h"
#include "virtio_rng.h"

enum board_bus {
	BOARD_PORTS,
	BOARD_MEMORY, /* guest-physical */
};

/* Whether the guest is to go on. */
enum board_power {
	BOARD_ON,
	BOARD_OFF,
	BOARD_RESET,
};

/* Interrupts to the guest's CPUs, from any thread. */
struct board_cpus {
	void (*interrupt)(void *context, unsigned cpu, uint8_t vector);
	void *context;
	unsigned count;
};

/* A slot for a virtio device, whose interrupt is its own. */
struct board_slot {
	struct board *board;
	unsigned number;
	struct virtio_mmio *virtio; /* NULL: none is there */
};

/* The first slot has random numbers, the others have disks. */
#define BOARD_DISKS (PLATFORM_VIRTIO_SLOTS - 1)

/* What is not on every board. */
struct board_parts {
	struct board_cpus cpus;
	struct device_memory memory;
	struct serial_output output;
	struct disk *disks;
	unsigned disk_count; /* at most BOARD_DISKS */
};

struct board {
	pthread_mutex_t lock;
	struct board_cpus cpus;
	struct serial serial;
	struct ioapic ioapic;
	struct rtc rtc;
	struct pci_host pci_host;
	enum board_power power;
	struct board_slot slots[PLATFORM_VIRTIO_SLOTS];
	struct virtio_rng rng;
	struct virtio_blk blks[BOARD_DISKS];
	bool busy; /* some device may have work */
};

void board_init(struct board *board, const struct board_parts *parts);
void board_destroy(struct board *board);

/*
 * Does an access of the guest's, whose @offset is a port or an address. Where there is no device,
 * all ones are read and nothing is written.
 */
void board_access(struct board *board, enum board_bus bus, struct device_access *access);

/*
 * Does a bounded part of what accesses have left to do, and tells whether there is more. For the
 * thread of the guest's seat.
 */
bool board_work(struct board *board);

/* What the guest has asked for by now. */
enum board_power board_power(struct board *board);

/* Characters that come in at the serial port. Returns how many of them there was room for. */
size_t board_input(struct board *board, const uint8_t *bytes, size_t count);

#endif
