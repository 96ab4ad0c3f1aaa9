/* SPDX-License-Identifier: MIT */
/* Writes the engine's events to a file while a fleet runs (F12): docs/operating.md, "s2vm-trace-1". */
#ifndef VMM_TRACER_H
#define VMM_TRACER_H

#include "ept/trace.h"
#include "error.h"

/* Events that the ring keeps until they are written. */
#define TRACER_CAPACITY (UINT32_C(1) << 16)

struct tracer;

/* Makes the file, or empties it; it may be none of @others, paths that NULL ends. */
bool tracer_open(struct tracer **tracer, const char *path, const char *const *others,
		 struct error *error);

/* Writes events from the first one on, in a thread of its own. */
bool tracer_start(struct tracer *tracer, struct ept *ept, struct error *error);

/*
 * Writes what is left, if it was started, and closes the file. False if not all could be written. No
 * operation may be under way.
 */
bool tracer_close(struct tracer *tracer, struct error *error);

#endif
