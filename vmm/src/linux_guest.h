/* SPDX-License-Identifier: MIT */
/*
 * What a Linux guest starts from: a kernel and what belongs to it, loaded into memory of its own.
 */
#ifndef VMM_LINUX_GUEST_H
#define VMM_LINUX_GUEST_H

#include "linux_boot.h"
#include "memfile.h"

#define LINUX_MEMORY_DEFAULT (UINT64_C(256) << 20)

struct linux_request {
	const char *kernel;
	const char *initrd;  /* NULL for none */
	const char *cmdline; /* NULL for an empty one */
	uint64_t memory;     /* in bytes */
};

struct linux_guest {
	struct linux_image kernel;
	struct blob initrd;
	char *cmdline; /* with what the VMM adds */
	struct memfile memory;
	struct linux_start start;
};

/* Reads the files, and writes them to memory as the guest finds it at its start. */
bool linux_guest_open(struct linux_guest *guest, const struct linux_request *request,
		      struct error *error);

void linux_guest_close(struct linux_guest *guest);

#endif
