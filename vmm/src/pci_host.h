/* SPDX-License-Identifier: MIT */
/*
 * A PCI bus with nothing on it but the bridge that it belongs to, by configuration mechanism 1 (PCI
 * Local Bus Specification 3.0, 3.2.2.3.2). Linux calls a PC without any an error.
 */
#ifndef VMM_PCI_HOST_H
#define VMM_PCI_HOST_H

#include "device.h"

#define PCI_HOST_PORT 0xcf8

#define PCI_HOST_STATE_VERSION 1

/* All that a guest can notice, to be saved as it is. */
struct pci_host_state {
	uint32_t version;
	uint32_t address; /* what CONFIG_DATA is about */
};

struct pci_host {
	struct pci_host_state state;
};

extern const struct device_type pci_host_type;

void pci_host_init(struct pci_host *host);

void pci_host_save(const struct pci_host *host, struct pci_host_state *state);

/* False, with nothing changed, if @state is none of this version, or one that cannot be. */
bool pci_host_restore(struct pci_host *host, const struct pci_host_state *state);

#endif
