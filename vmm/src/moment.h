/* SPDX-License-Identifier: MIT */
/*
 * Moments of Linux guests while they run: what one was is kept, it goes on, and it or others can go back
 * to that later. For any thread but a guest's own; with no engine lock held.
 */
#ifndef VMM_MOMENT_H
#define VMM_MOMENT_H

#include "fleet.h"
#include "guest_state.h"
#include "template.h"

struct fleet_moment {
	struct fleet_moment *next; /* of its fleet */
	struct guest_state state;
	struct ept_space *memory; /* frozen; NULL: what the fleet's guests begin with */
	struct disk_layers *disks[BOARD_DISKS];
	unsigned disk_count; /* that are frozen */
	unsigned users;		  /* under fleet.moments_lock */
};

/* Guest @id, if it has been launched; NULL with EXIT_NO_SUCH if not. */
struct guest *fleet_find_guest(struct fleet *fleet, unsigned id, struct error *error);

/*
 * Freezes what the guest is at this moment, with its disks, and lets it go on (B2). From now on a reset
 * takes it back to there. To be released.
 */
bool fleet_freeze(struct fleet *fleet, struct guest *guest, struct fleet_moment **moment,
		  struct error *error);

/* Guests that are launched from now on go on from there; all that from where the first did with NULL. */
void fleet_launch_moment(struct fleet *fleet, struct fleet_moment *moment);

void fleet_release_moment(struct fleet *fleet, struct fleet_moment *moment);

/*
 * Takes the guest back to where it was frozen last, or was launched from: memory, CPUs, devices and disks
 * (B1). Its clocks are right, and its generation id is a new one. If this fails midway the guest is ended.
 */
bool fleet_go_back(struct fleet *fleet, struct guest *guest, struct error *error);

/* Writes the memory of a moment to a template that is being made. */
bool fleet_write_memory(const struct fleet *fleet, const struct fleet_moment *moment,
			struct template_writer *writer, struct error *error);

/* What guests of a fleet begin with, made by the fleet, and the end of all moments with it. */
bool fleet_first_moment(struct fleet *fleet, struct error *error);
void fleet_end_moments(struct fleet *fleet);

/*
 * A new guest goes on from where the next one is to, as do its disks; what those of the first one are is what
 * all of them began with. With fleet.moments_lock held, if others use the fleet.
 */
bool fleet_take_moment(struct guest *guest, struct error *error);

#endif
