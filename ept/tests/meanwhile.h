/* SPDX-License-Identifier: MIT */
/*
 * Something else that happens at a moment of an operation: the moment is when the engine takes or
 * has given up a lock, so a test of one thread can have what several threads seldom have. A program
 * that links this library calls these functions in the place of the C library's, through the
 * linker's --wrap.
 */
#ifndef MEANWHILE_H
#define MEANWHILE_H

#include <stdbool.h>

#include <pthread.h>

enum meanwhile_when { BEFORE_LOCK, AFTER_UNLOCK };

/* Calls @act once, the @nth time from now, counted from 1, that @lock is taken or given up. */
void meanwhile(enum meanwhile_when when, const pthread_mutex_t *lock, unsigned nth,
	       void (*act)(void *context), void *context);

/* Whether it has been called; it will not be any more. */
bool meanwhile_happened(void);

#endif
