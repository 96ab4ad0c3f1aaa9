/* SPDX-License-Identifier: MIT */
/* The user's wish to stop. */
#ifndef VMM_INTERRUPTS_H
#define VMM_INTERRUPTS_H

#include <stdbool.h>

/*
 * From now on a first SIGINT or SIGTERM sets what is returned, so that guests can be ended in order; a
 * second one kills.
 */
volatile bool *interrupts_catch(void);

#endif
