/* SPDX-License-Identifier: MIT */
/* Makes a failing sequence of operations short: delta debugging, each try in a process of its own. */
#ifndef MINIMISE_H
#define MINIMISE_H

#include <stddef.h>
#include <stdint.h>

/* Runs the operations with these numbers, in this order, and ends the process if they fail. */
typedef void (*minimise_run)(const uint64_t *operations, size_t count);

/*
 * Leaves out of @operations what is not needed for the failure; returns how many are left. 0 if the whole
 * sequence does not fail.
 */
size_t minimise(uint64_t *operations, size_t count, minimise_run run);

#endif
