/* SPDX-License-Identifier: MIT */
/*
 * The devices of one Linux guest, wired as platform.h says: what answers at a port or an address, and
 * whose interrupt is at which pin of the I/O APIC. It has the lock that devices want (device.h).
 */
#ifndef VMM_BOARD_H
#define VMM_BOARD_H

#include <pthread.h>

#include "ioapic.h"
#include "rtc.h"
#include "serial.h"

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

/* Interrupts to the guest's first CPU, from any thread. */
struct board_cpu {
	void (*interrupt)(void *context, uint8_t vector);
	void *context;
};

struct board {
	pthread_mutex_t lock;
	struct board_cpu cpu;
	struct serial serial;
	struct ioapic ioapic;
	struct rtc rtc;
	enum board_power power;
};

void board_init(struct board *board, struct board_cpu cpu, struct serial_output output);
void board_destroy(struct board *board);

/*
 * Does an access of the guest's, whose @offset is a port or an address. Where there is no device, all ones
 * are read and nothing is written.
 */
void board_access(struct board *board, enum board_bus bus, struct device_access *access);

/* What the guest has asked for by now. */
enum board_power board_power(struct board *board);

/* Characters that come in at the serial port. Returns how many of them there was room for. */
size_t board_input(struct board *board, const uint8_t *bytes, size_t count);

#endif
