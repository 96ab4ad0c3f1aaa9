/* SPDX-License-Identifier: MIT */
/*
 * The devices of one Linux guest, wired as platform.h says: what answers at a port or an address,
 * and whose interrupt is at which pin of the I/O APIC. It has the lock that devices want
 * (device.h).
 */
#ifndef VMM_BOARD_H
#define VMM_BOARD_H

#include <pthread.h>

#include "console_log.h"
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
	BOARD_EXITED,	/* by the debug exit port */
	BOARD_PANICKED, /* by pvpanic */
};

/* Interrupts to the guest's CPUs, and calls of the thread of the first one's seat; from any thread. */
struct board_cpus {
	void (*interrupt)(void *context, unsigned cpu, uint8_t vector);
	void *context;
	unsigned count;
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

#define BOARD_STATE_VERSION 1

/*
 * All that a guest can notice of its devices: plain data without padding, to be saved as it is.
 * What a part has beside it (a disk's contents, a memory, where output goes) is its owner's matter.
 */
struct board_state {
	uint32_t version;
	uint32_t power;	   /* enum board_power */
	uint32_t occupied; /* bit n: there is a device in slot n */
	uint32_t exit_status; /* where BOARD_EXITED */
	struct rtc_state rtc;
	struct pci_host_state pci_host;
	struct serial_state serial;
	struct ioapic_state ioapic;
	struct virtio_mmio_state slots[PLATFORM_VIRTIO_SLOTS]; /* zeros where there is no device */
};

/* What is not on every board. */
struct board_parts {
	struct board_cpus cpus;
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
	struct board_cpus cpus;
	struct serial serial;
	struct ioapic ioapic;
	struct rtc rtc;
	struct pci_host pci_host;
	enum board_power power;
	uint8_t exit_status; /* where BOARD_EXITED */
	bool ready;	     /* it has said so since this was asked last; under the lock */
	struct serial_output output;
	struct console_log log; /* of what went there */
	struct board_slot slots[PLATFORM_VIRTIO_SLOTS];
	struct virtio_rng rng;
	struct virtio_console control;
	bool busy;	/* some device may have work */
	bool restoring; /* lines that change are no edges now */
	bool owes;	/* edges of the lines that were raised when its state was saved */
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

/* Where it is BOARD_EXITED: with what status. */
uint8_t board_exit_status(struct board *board);

/* Whether the guest has said, since this was asked last, that it is where it is to be. */
bool board_take_ready(struct board *board);

/*
 * When its kernel, which has panicked, wrote last, by the monotonic clock in nanoseconds; 0 if it
 * has not. Takes no lock.
 */
uint64_t board_panicked_ns(const struct board *board);

/* What it wrote then, or "" if it has not; and the last lines that the guest wrote. */
struct board_last_words {
	char panic[CONSOLE_LOG_LINE];
	char lines[CONSOLE_LOG_BYTES + 1];
};

void board_last_words(struct board *board, struct board_last_words *words);

/* Saves what the board is now, between two accesses. Takes its lock, from any thread. */
void board_save(struct board *board, struct board_state *state);

/*
 * Makes a board be what @state says. It was made of the same parts as the one that was saved, and
 * its guest has not run yet; where its local APICs are restored is no matter, as long as that is
 * before board_work(), which sends the interrupts of lines that are raised. Takes its lock.
 * False, with nothing changed, if @state is none of this version, of other parts, or one that
 * cannot be.
 */
bool board_restore(struct board *board, const struct board_state *state);

/* Raises the generic event device's interrupt: the generation id has changed. */
void board_event(struct board *board);

/* Characters that come in at the serial port. Returns how many of them there was room for. */
size_t board_input(struct board *board, const uint8_t *bytes, size_t count);

#endif
