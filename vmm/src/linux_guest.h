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
	unsigned cpus;	     /* that the guest is told of, at most PLATFORM_CPUS_MAX */
	bool copied; /* several guests start from this memory, which nobody writes to from then on */
};

/* What no two guests may have in common. */
struct linux_identity {
	uint8_t seed[LINUX_SEED_BYTES];
	uint8_t generation[LINUX_GENERATION_BYTES];
};

struct linux_guest {
	struct linux_image kernel;
	struct blob initrd;
	char *cmdline; /* with what the VMM adds */
	struct memfile memory;
	struct linux_start start;
	struct gpa seed; /* where the seed of an identity lies; its generation is where platform.h says */
};

/* A new address for a network card, marked as one that nobody has assigned (IEEE 802-2014, 8.4). */
bool linux_mac_make(uint8_t mac[6], struct error *error);

/* A new one, from the host's random numbers. */
bool linux_identity_make(struct linux_identity *identity, struct error *error);

/* Reads the files, and writes them to memory as the guest finds it at its start. */
bool linux_guest_open(struct linux_guest *guest, const struct linux_request *request,
		      struct error *error);

void linux_guest_close(struct linux_guest *guest);

#endif
