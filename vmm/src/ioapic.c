// SPDX-License-Identifier: MIT
#include "ioapic.h"

/* "Memory Mapped Registers for Accessing IOAPIC Registers": each has 32 bits. */
#define SELECT_AT 0x00u
#define WINDOW_AT 0x10u
#define BYTES	  0x20u

/* "IOAPIC Registers"; of the table of entries each has two. */
#define REGISTER_ID	     0x00u
#define REGISTER_VERSION     0x01u
#define REGISTER_ARBITRATION 0x02u
#define REGISTER_TABLE	     0x10u

#define VERSION	     0x11u
#define VERSION_PINS ((PLATFORM_IOAPIC_PINS - 1u) << 16)
#define ID_BITS	     0x0f000000u

/* "IOREDTBL": status bits, which are for reading, are never set. */
#define ENTRY_VECTOR(entry)	 ((uint8_t)(entry))
#define ENTRY_MODE(entry)	 ((entry) >> 8 & 7)
#define ENTRY_LOGICAL		 (UINT64_C(1) << 11)
#define ENTRY_MASKED		 (UINT64_C(1) << 16)
#define ENTRY_DESTINATION(entry) ((uint8_t)((entry) >> 56))
#define ENTRY_BITS		 UINT64_C(0xff0000000001afff)

/* Fixed and lowest priority have a vector. NMI, SMI, INIT and ExtINT are not connected. */
#define MODE_LOWEST	 1
#define MODE_LAST_VECTOR MODE_LOWEST

static uint32_t read_register(const struct ioapic_state *state)
{
	uint32_t entry = state->select - REGISTER_TABLE;

	switch (state->select) {
	case REGISTER_ID:
	case REGISTER_ARBITRATION:
		return state->id;
	case REGISTER_VERSION:
		return VERSION | VERSION_PINS;
	default:
		break;
	}
	if (state->select < REGISTER_TABLE || entry / 2 >= PLATFORM_IOAPIC_PINS)
		return 0;
	return (uint32_t)(state->entries[entry / 2] >> (entry % 2 ? 32 : 0));
}

static void write_register(struct ioapic_state *state, uint32_t value)
{
	uint32_t number = state->select - REGISTER_TABLE;
	unsigned shift = number % 2 ? 32 : 0;
	uint64_t *entry;

	if (state->select == REGISTER_ID)
		state->id = value & ID_BITS;
	if (state->select < REGISTER_TABLE || number / 2 >= PLATFORM_IOAPIC_PINS)
		return;
	entry = &state->entries[number / 2];
	*entry &= ~((uint64_t)UINT32_MAX << shift);
	*entry |= (uint64_t)value << shift;
	*entry &= ENTRY_BITS;
}

/* "must be accessed with 32-bit instructions": others are ignored. */
static void ioapic_access(void *device, struct device_access *access)
{
	struct ioapic_state *state = &((struct ioapic *)device)->state;
	bool good = access->bytes == 4;

	if (!access->write)
		access->value = 0;
	if (good && access->offset == SELECT_AT && access->write)
		state->select = access->value & 0xff;
	else if (good && access->offset == SELECT_AT)
		access->value = state->select;
	else if (good && access->offset == WINDOW_AT && access->write)
		write_register(state, (uint32_t)access->value);
	else if (good && access->offset == WINDOW_AT)
		access->value = read_register(state);
}

const struct device_type ioapic_type = {
	.name = "ioapic",
	.window = BYTES,
	.access = ioapic_access,
};

void ioapic_init(struct ioapic *ioapic, struct ioapic_output output)
{
	*ioapic = (struct ioapic){
		.state = { .version = IOAPIC_STATE_VERSION, .id = PLATFORM_IOAPIC_ID << 24 },
		.output = output,
	};
	for (unsigned pin = 0; pin < PLATFORM_IOAPIC_PINS; pin++)
		ioapic->state.entries[pin] = ENTRY_MASKED;
}

/* An edge at a pin that is masked is lost ("Interrupt Mask"). */
void ioapic_edge(struct ioapic *ioapic, unsigned pin)
{
	uint64_t entry = ioapic->state.entries[pin];

	if (entry & ENTRY_MASKED || ENTRY_MODE(entry) > MODE_LAST_VECTOR)
		return;
	ioapic->output.send(ioapic->output.context, (struct ioapic_message){
							    .vector = ENTRY_VECTOR(entry),
							    .destination = ENTRY_DESTINATION(entry),
							    .logical = entry & ENTRY_LOGICAL,
							    .lowest = ENTRY_MODE(entry) == MODE_LOWEST,
						    });
}

void ioapic_save(const struct ioapic *ioapic, struct ioapic_state *state)
{
	*state = ioapic->state;
}

static bool state_good(const struct ioapic_state *state)
{
	if (state->version != IOAPIC_STATE_VERSION || state->select > 0xff ||
	    state->id & ~ID_BITS || state->reserved)
		return false;
	for (unsigned pin = 0; pin < PLATFORM_IOAPIC_PINS; pin++)
		if (state->entries[pin] & ~ENTRY_BITS)
			return false;
	return true;
}

bool ioapic_restore(struct ioapic *ioapic, const struct ioapic_state *state)
{
	if (!state_good(state))
		return false;
	ioapic->state = *state;
	return true;
}
