/* SPDX-License-Identifier: MIT */
/*
 * Linux guests with a shell at their serial port, for tests that ask them what they are. They start from
 * what scripts/linux-guest makes, in build/linux-guest or $S2VM_LINUX_GUEST.
 */
#ifndef VMM_TESTS_LINUX_SHELL_H
#define VMM_TESTS_LINUX_SHELL_H

#include <stdatomic.h>

#include "fleet.h"
#include "linux_guest.h"

#define SHELL_HEARD 65536

/* What a guest has said. */
struct shell_ear {
	_Atomic size_t used;
	char text[SHELL_HEARD];
};

/* Loads a guest with the initial RAM disk of that name. False if it is not there, which has been said. */
bool shell_open(struct linux_guest *guest, const char *initrd);

struct shell_ear *shell_new_ear(void);

/* An output of a guest's, whose context is an ear. */
void shell_put(void *context, uint8_t byte);

/* An ear for each of @count guests. */
void shell_hear(struct fleet_computer *computers, struct shell_ear **ears, unsigned count);

/* Each of these fails the test if it cannot be done. */
struct fleet *shell_fleet(const struct fleet_config *config);
struct guest *shell_launch(struct fleet *fleet);

/* No invariant is violated. */
void shell_check(struct fleet *fleet);

/* Whether a guest says @text behind what it had said up to @from, before it takes too long. */
bool shell_says(struct shell_ear *ear, size_t from, const char *text);

/* Types a line, which has its newline, and expects @answer. */
void shell_ask(struct guest *guest, struct shell_ear *ear, const char *line, const char *answer);

/* Types a line, and expects nothing. */
void shell_type(struct guest *guest, const char *line);

#endif
