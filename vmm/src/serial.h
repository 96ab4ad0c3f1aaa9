/* SPDX-License-Identifier: MIT */
/*
 * A 16550A serial port, as in the data sheet "PC16550D Universal Asynchronous Receiver/Transmitter
 * with FIFOs" (National Semiconductor, June 1995; what is quoted is a chapter of it), wired as in a
 * PC: OUT2 connects its interrupt. It has no notion of time:
 *  - what is transmitted is out at once, so that the transmitter is always empty;
 *  - a character timeout ("FIFO Interrupt Mode Operation") is over at once, so that all that is
 *    received is reported, below the trigger level as a timeout;
 *  - divisor and format have no effect.
 * The other side is always there: CTS, DSR and DCD are on, RI is off.
 */
#ifndef VMM_SERIAL_H
#define VMM_SERIAL_H

#include "device.h"

#define SERIAL_FIFO	     16
#define SERIAL_INPUT	     4096
#define SERIAL_STATE_VERSION 1

/*
 * All that a guest can notice of the port, to be saved as it is. Registers have their data sheet's
 * names.
 */
struct serial_state {
	uint32_t version;
	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
	uint8_t lsr;	   /* errors only */
	uint8_t msr;	   /* inputs, and their changes since it was read */
	uint8_t thr_empty; /* 1: this has not been reported since it came to be */
	uint8_t received;  /* characters in the FIFO, of which 1 counts if it is off */
	uint8_t reserved;
	uint8_t fifo[SERIAL_FIFO];
	uint8_t fifo_lsr[SERIAL_FIFO]; /* each character's errors */
};

struct serial_output {
	void (*put)(void *context, uint8_t byte);
	void *context;
};

struct serial {
	struct serial_state state;
	struct serial_output output;
	struct device_line line;
	bool raised;
	/*
	 * What waits for room in the FIFO, of which the guest knows nothing: characters, with LSR's
	 * BI << 8.
	 */
	uint16_t input[SERIAL_INPUT];
	unsigned input_first;
	unsigned input_count;
};

extern const struct device_type serial_type;

/* As after a reset. */
void serial_init(struct serial *serial, struct serial_output output, struct device_line line);

/* Characters that come in. Returns how many of them there was room for, from the first on. */
size_t serial_input(struct serial *serial, const uint8_t *bytes, size_t count);

/*
 * A break that comes in, after which Linux takes a character for a command to it. False: no room.
 */
bool serial_input_break(struct serial *serial);

/* What is not in the FIFO yet is not saved. */
void serial_save(const struct serial *serial, struct serial_state *state);

/*
 * False, with nothing changed, if @state is none of this version. What waited for room is dropped.
 */
bool serial_restore(struct serial *serial, const struct serial_state *state);

#endif
