/* SPDX-License-Identifier: MIT */
/*
 * One thread that waits for all guests' file descriptors at once. It does no work itself: it says,
 * once each time that it was asked to, that there is something to be read.
 */
#ifndef VMM_LISTENER_H
#define VMM_LISTENER_H

#include "error.h"

struct listener;

/* A file descriptor that is listened to. It must stay where it is until the listener is closed. */
struct listener_source {
	struct listener *listener;
	int fd;
	/* Called by the listener's thread, with no lock of the listener's. */
	void (*arrived)(void *context);
	void *context;
};

/* NULL with @error if there is no thread or no memory for it. */
struct listener *listener_open(struct error *error);

/* Ends the thread; nobody is told of anything any more. Also for NULL. */
void listener_close(struct listener *listener);

/*
 * Has arrived() called once, when there is something to be read, or at once if there is by now: from
 * any thread, before this returns or later. False if the kernel has no memory for it.
 */
bool listener_once(const struct listener_source *source);

#endif
