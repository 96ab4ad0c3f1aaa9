// SPDX-License-Identifier: MIT
#include "pci_host.h"

#define DATA_AT	       4u
#define WINDOW	       8u
#define ENABLE	       (UINT32_C(1) << 31)
#define ADDRESS_BITS   (ENABLE | UINT32_C(0x00fffffc))
#define FUNCTION(at)   ((at) & UINT32_C(0x00ffff00)) /* bus, device and function */
#define REGISTER(at)   ((at) & 0xfc)
#define REGISTER_ID    0x00
#define REGISTER_CLASS 0x08

/* A host bridge of no maker's: Red Hat's numbers for bridges of virtual machines. */
#define BRIDGE_ID    UINT32_C(0x00081b36)
#define BRIDGE_CLASS UINT32_C(0x06000000)

/* Of a register of 32 bits; the bridge has nothing to be set. */
static uint32_t read_register(uint32_t address)
{
	if (!(address & ENABLE) || FUNCTION(address))
		return UINT32_MAX;
	switch (REGISTER(address)) {
	case REGISTER_ID:
		return BRIDGE_ID;
	case REGISTER_CLASS:
		return BRIDGE_CLASS;
	default:
		return 0;
	}
}

/* CONFIG_ADDRESS has 32 bits and knows no other accesses; of CONFIG_DATA parts may be read. */
static void pci_host_access(void *device, struct device_access *access)
{
	struct pci_host *host = device;
	bool address = access->offset == 0 && access->bytes == 4;

	if (access->write) {
		if (address)
			host->state.address = (uint32_t)access->value & ADDRESS_BITS;
	} else if (address) {
		access->value = host->state.address;
	} else if (access->offset < DATA_AT) {
		access->value = UINT64_MAX;
	} else {
		access->value = read_register(host->state.address) >> 8 * (access->offset - DATA_AT);
	}
}

const struct device_type pci_host_type = {
	.name = "pci host",
	.window = WINDOW,
	.access = pci_host_access,
};

void pci_host_init(struct pci_host *host)
{
	*host = (struct pci_host){ .state.version = PCI_HOST_STATE_VERSION };
}

void pci_host_save(const struct pci_host *host, struct pci_host_state *state)
{
	*state = host->state;
}

bool pci_host_restore(struct pci_host *host, const struct pci_host_state *state)
{
	if (state->version != PCI_HOST_STATE_VERSION || state->address & ~ADDRESS_BITS)
		return false;
	host->state = *state;
	return true;
}
