/* SPDX-License-Identifier: MIT */
/*
 * An I/O APIC, as in the data sheet "82093AA I/O Advanced Programmable Interrupt Controller"
 * (Intel, May 1996; what is quoted is a section of it), with the pins of platform.h. All are edges:
 * an entry that says level acts as one for edges, and there is no end of interrupt to be heard of.
 */
#ifndef VMM_IOAPIC_H
#define VMM_IOAPIC_H

#include "device.h"
#include "platform.h"

#define IOAPIC_STATE_VERSION 1

/* All that a guest can notice, to be saved as it is. */
struct ioapic_state {
	uint32_t version;
	uint32_t select; /* IOREGSEL */
	uint32_t id;	 /* bits 24 to 27 of its register */
	uint32_t reserved;
	uint64_t entries[PLATFORM_IOAPIC_PINS];
};

/* What goes to local APICs: an interrupt with a vector. */
struct ioapic_message {
	uint8_t vector;
	uint8_t destination; /* the number of a local APIC, or bits of logical ones; 0xff for all */
	bool logical;
	bool lowest; /* to one of them only */
};

struct ioapic_output {
	void (*send)(void *context, struct ioapic_message message);
	void *context;
};

struct ioapic {
	struct ioapic_state state;
	struct ioapic_output output;
};

extern const struct device_type ioapic_type;

/* As after a reset: all pins are masked. */
void ioapic_init(struct ioapic *ioapic, struct ioapic_output output);

/* An edge at @pin, below PLATFORM_IOAPIC_PINS. */
void ioapic_edge(struct ioapic *ioapic, unsigned pin);

void ioapic_save(const struct ioapic *ioapic, struct ioapic_state *state);

/* False, with nothing changed, if @state is none of this version, or one that cannot be. */
bool ioapic_restore(struct ioapic *ioapic, const struct ioapic_state *state);

#endif
