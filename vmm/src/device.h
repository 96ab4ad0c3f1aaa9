/* SPDX-License-Identifier: MIT */
/*
 * Between a device and the rest of the VMM. A device sees accesses to its own window of ports or
 * addresses, guest memory through two calls, and an interrupt line. It knows nothing of KVM, of
 * vCPUs and of other devices.
 *
 * A device has no lock: it is used by one thread at a time, and whoever has several (the vCPUs of a
 * guest, a thread that waits for input) takes a lock of its own around every call, also around
 * those that are not in this file. The calls that a device makes itself are made by the thread that
 * calls it, with that lock held.
 */
#ifndef VMM_DEVICE_H
#define VMM_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ept/addr.h"

/* One read or write of the guest's within a device's window. */
struct device_access {
	uint64_t offset; /* in the window */
	unsigned bytes;	 /* 1, 2, 4 or 8; only the first lies in the window for sure */
	bool write;
	uint64_t value; /* what is written, or what the device fills in; bits beyond @bytes are 0 */
};

enum device_trigger {
	DEVICE_EDGE,  /* an interrupt for each time that the line is raised */
	DEVICE_LEVEL, /* an interrupt as long as it is */
};

/* An interrupt line. A device calls @set only if the line changes; it begins lowered. */
struct device_line {
	void (*set)(void *context, bool raised);
	void *context;
};

/*
 * Guest memory. A device never holds a pointer into it: each of its accesses passes the guest's
 * tables, and unshares what it writes to as a write by a processor does. Both calls are false if
 * any of the bytes is not memory of this guest that it may itself access so, also where the
 * addresses wrap; some of the bytes may have been copied then. An aligned access of 2, 4 or 8 bytes
 * is one access.
 */
struct device_memory {
	bool (*read)(void *context, struct gpa from, void *to, size_t bytes);
	bool (*write)(void *context, struct gpa to, const void *from, size_t bytes);
	void *context;
};

/* What a device of some type is to who owns it. */
struct device_type {
	const char *name;
	uint64_t window; /* in bytes */
	enum device_trigger trigger;

	/* Does an access, at once. */
	void (*access)(void *device, struct device_access *access);

	/*
	 * Does some of the work that accesses have left to do, a bounded part of it, and tells
	 * whether there is more. To be called after each access until it is false, by the same
	 * thread or another. NULL: there never is any.
	 */
	bool (*work)(void *device);
};

#endif
