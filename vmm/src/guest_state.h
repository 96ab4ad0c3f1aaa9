/* SPDX-License-Identifier: MIT */
/*
 * All of a Linux guest at one moment, but for its memory and what is on its disks. Plain data, as it
 * stands in a template's file.
 */
#ifndef VMM_GUEST_STATE_H
#define VMM_GUEST_STATE_H

#include "board.h"
#include "error.h"
#include "vcpu_state.h"

#define GUEST_STATE_VERSION 1

struct guest_state {
	uint32_t version;
	uint32_t cpu_count;
	struct vcpu_state cpus[PLATFORM_CPUS_MAX];
	struct board_state board;
};

struct guest;

/*
 * Brings a guest to rest, and lets it go on. At rest its CPUs have passed their gates, and neither they nor
 * its devices do anything. One caller at a time for each guest, and with no engine lock held. False,
 * with nothing to release, if the guest ends or has ended.
 */
bool guest_call_to_rest(struct guest *guest);
void guest_release(struct guest *guest);

/* Saves a guest that rests. */
bool guest_save(struct guest *guest, struct guest_state *state, struct error *error);

/*
 * Makes a guest that rests, or that has not begun, go on from @state, with its clocks as if it had been
 * running since. Its memory is to be what it was at that moment. After a failure it must not run.
 */
bool guest_restore(struct guest *guest, const struct guest_state *state, struct error *error);

/*
 * Tells a guest that rests, or that has not begun, that it is another one than the one it was copied
 * from: that its generation id, which is in its memory, has changed, and, for its agent, who it is now
 * (docs/devices.md, "Control console"). It hears of that when it runs.
 */
void guest_tell_clone(struct guest *guest);

#endif
