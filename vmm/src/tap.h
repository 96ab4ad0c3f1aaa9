/* SPDX-License-Identifier: MIT */
/*
 * A TAP: a network interface of the host's, whose other end is a file descriptor. What the host sends
 * by it is read, frame by frame, and what is written comes in there. Whatever keeps frames apart and
 * does not block can stand in for one: tests use a pair of sockets.
 */
#ifndef VMM_TAP_H
#define VMM_TAP_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct tap {
	int fd;
	uint16_t mtu; /* of the interface, when it was opened */
};

/*
 * Opens a TAP that exists: making one is the operator's matter, who also says what it is connected
 * with. Nobody else has it then. False if there is none of this name, or somebody has it.
 */
bool tap_open(struct tap *tap, const char *name, struct error *error);
void tap_close(struct tap *tap);

enum tap_result {
	TAP_NONE,  /* there is no frame now */
	TAP_FRAME, /* there was one */
	TAP_GONE,  /* there will be no more */
};

/* Takes the next frame, without its end if it is longer than @room. Does not wait. */
enum tap_result tap_read(const struct tap *tap, void *to, size_t room, size_t *bytes);

/* Sends a frame, which is lost where the host does not take it, as on a wire. */
void tap_write(const struct tap *tap, const void *from, size_t bytes);

#endif
