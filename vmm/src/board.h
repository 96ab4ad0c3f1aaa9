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
#include "listener.h"
#include "pci_host.h"
#include "rtc.h"
#include "serial.h"
#include "virtio_blk.h"
#include "virtio_console.h"
#include "virtio_net.h"
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

/* Interrupts to the guest's first CPU, and calls of the thread of its seat; from any thread. */
struct board_cpu {
	void (*interrupt)(void *context, uint8_t vector);
	void *context;
	/* Has that thread call board_called() and board_work(), even if its vCPU is in its guest. */
	void (*call)(void *context);
};

/* A slot for a virtio device, whose interrupt is its own. */
struct board_slot {
	struct board *board;
	unsigned number;
	struct virtio_mmio *virtio; /* NULL: none is there */
};

/* Slots with random numbers and the control console; disks and then networks are in the others. */
enum { BOARD_RNG, BOARD_CONTROL, BOARD_FREE };

#define BOARD_DISKS (PLATFORM_VIRTIO_SLOTS - BOARD_FREE)
#define BOARD_NETS  (PLATFORM_VIRTIO_SLOTS - BOARD_FREE)

struct board_net {
	struct tap *tap;
	uint8_t mac[6];
};

/* What is not on every board. */
struct board_parts {
	struct board_cpu cpu;
	struct device_memory memory;
	struct serial_output output;
	struct disk *disks;
	unsigned disk_count;
	const struct board_net *nets;
	unsigned net_count;	   /* with the disks not more than there are free slots */
	struct listener *listener; /* to the networks; closed before the board is destroyed */
	/* Lines at the control console, in the thread of the seat, with the board locked. */
	struct virtio_console_hearer hearer;
};

/* A network, and what listens to it. */
struct board_port {
	struct board *board;
	struct listener_source source;
	struct virtio_net net;
};

struct board {
	pthread_mutex_t lock;
	struct board_cpu cpu;
	struct serial serial;
	struct ioapic ioapic;
	struct rtc rtc;
	struct pci_host pci_host;
	enum board_power power;
	struct board_slot slots[PLATFORM_VIRTIO_SLOTS];
	struct virtio_rng rng;
	struct virtio_console control;
	bool busy; /* some device may have work */
	/* These are large, so memory of those that are not there is not touched. They come last. */
	struct virtio_blk blks[BOARD_DISKS];
	struct board_port ports[BOARD_NETS];
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

/* The thread was called: devices may have something from outside, so there may be work. */
void board_called(struct board *board);

/*
 * Sends a line of text, which has no end of its own, to the agent in the guest. From any thread; false
 * if the agent leaves so much unread that there is no room for it.
 */
bool board_tell(struct board *board, const char *line);

/* What the guest has asked for by now. */
enum board_power board_power(struct board *board);

/* Characters that come in at the serial port. Returns how many of them there was room for. */
size_t board_input(struct board *board, const uint8_t *bytes, size_t count);

#endif
