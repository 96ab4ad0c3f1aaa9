/* SPDX-License-Identifier: MIT */
/*
 * A PCI bus with nothing on it but the bridge that it belongs to, by configuration mechanism 1 (PCI
 * Local Bus Specification 3.0, 3.2.2.3.2). Linux calls a PC without any an error.
 */
#ifndef VMM_PCI_HOST_H
#define VMM_PCI_HOST_H

#include "device.h"

#define PCI_HOST_PORT 0xcf8

struct pci_host {
	uint32_t address; /* what CONFIG_DATA is about */
};

extern const struct device_type pci_host_type;

#endif
