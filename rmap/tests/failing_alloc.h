/* SPDX-License-Identifier: MIT */
/*
 * malloc(), calloc() and realloc() that fail on request. A program that links this library calls
 * them instead of the C library's, the code under test included; shared libraries do not.
 */
#ifndef FAILING_ALLOC_H
#define FAILING_ALLOC_H

#include <stdbool.h>

/* The @k-th allocation from now, counted from 1, fails, and so do all that follow it. */
void failing_alloc_arm(unsigned k);

/* Between these allocations neither fail nor count. */
void failing_alloc_pause(void);
void failing_alloc_resume(void);

/* No allocation fails any more. Whether one has failed since it was armed. */
bool failing_alloc_disarm(void);

#endif
