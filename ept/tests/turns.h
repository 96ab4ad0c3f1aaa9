/* SPDX-License-Identifier: MIT */
/*
 * Two threads that take turns: the second steps in at a chosen point of what the first does, and
 * has the turn until it is done or must wait. One of them runs at any time, so a run is the same
 * each time, and a test can try all points one after the other.
 *
 * A point is where the first thread is about to lock a mutex. Who finds a mutex locked, or calls
 * sched_yield(), gives the turn to the other. A program that is linked with this has the linker
 * wrap both functions; threads that take no turns lock as always.
 */
#ifndef TURNS_H
#define TURNS_H

#include "port.h"

struct turns {
	struct world *world;
	/* In the first thread. */
	void (*first)(void *argument);
	/* Begins at point @point of the first thread, from 1 on. */
	void (*second)(void *argument);
	void *arguments[2];
	unsigned point;
	/* The points where this mutex is about to be locked; NULL: those of any. */
	const pthread_mutex_t *only;
	/* How it went: */
	bool reached; /* there is such a point; otherwise the second thread came after the first */
	bool ended_within; /* the second thread ended before the first one */
};

void turns_run(struct turns *turns);

#endif
