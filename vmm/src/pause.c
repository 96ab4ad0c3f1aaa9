// SPDX-License-Identifier: MIT
/*
 * Pausing a fleet: no operation of the engine is under way, and none begins. Guests that merely run go on,
 * with their doors held (seat.c): a vCPU that comes out of its guest waits at its door, before anything is
 * served. So serving an exit costs nothing more where nobody pauses.
 *
 * An operation under way may itself want a door, to call a vCPU out. Therefore whoever does not get all
 * seats to rest soon lets all doors go and begins anew, and the fleet's lock, which comes before doors, is
 * only tried. Each attempt takes longer than the one before: with many more guests than CPUs, operations
 * wait for a CPU for long.
 */
#include <stdlib.h>
#include <unistd.h>

#include "fleet.h"

#define ATTEMPT_NS 500000000u	 /* at first, for operations under way to come to their end */
#define LIMIT_NS   10000000000u /* then somebody is stuck */
#define LOOK_US	   100

/* Whether the seat has no guest; it gets none while operations are held off. */
static bool is_idle(struct fleet *fleet, const struct seat *seat)
{
	bool idle;

	if (pthread_mutex_trylock(&fleet->lock))
		return false;
	idle = !seat->guest;
	pthread_mutex_unlock(&fleet->lock);
	return idle;
}

/*
 * Whether the seat rests: with its door held if its vCPU is in its guest and nobody calls it out, or
 * waits to be started.
 */
static bool hold(struct fleet *fleet, unsigned index)
{
	struct seat *seat = &fleet->seats[index];

	if (fleet->held_doors[index])
		return true;
	pthread_mutex_lock(&seat->door.lock);
	if ((seat->door.in_guest && !seat->vcpu.run->immediate_exit) || seat->door.waiting ||
	    seat->door.resting) {
		fleet->held_doors[index] = true;
		return true;
	}
	pthread_mutex_unlock(&seat->door.lock);
	return is_idle(fleet, seat);
}

static void let_go(struct fleet *fleet)
{
	for (unsigned i = 0; i < fleet->seat_count; i++)
		if (fleet->held_doors[i]) {
			fleet->held_doors[i] = false;
			pthread_mutex_unlock(&fleet->seats[i].door.lock);
		}
}

static bool hold_all(struct fleet *fleet)
{
	bool all = true;

	for (unsigned i = 0; i < fleet->seat_count; i++)
		all &= hold(fleet, i);
	return all;
}

static bool attempt(struct fleet *fleet, uint64_t end)
{
	while (!hold_all(fleet)) {
		if (now_ns() > end) {
			let_go(fleet);
			return false;
		}
		usleep(LOOK_US);
	}
	return true;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

bool fleet_pause(struct fleet *fleet, struct error *error)
{
	uint64_t end = now_ns() + LIMIT_NS;
	uint64_t length = ATTEMPT_NS;
	bool paused;

	pthread_rwlock_wrlock(&fleet->operations);
	fleet->held_doors = calloc(fleet->seat_count, sizeof(*fleet->held_doors));
	if (!fleet->held_doors) {
		pthread_rwlock_unlock(&fleet->operations);
		return error_set(error, EXIT_FAILED, "no memory to pause %u guests",
				 fleet->seat_count);
	}
	while (!(paused = attempt(fleet, earlier(now_ns() + length, end))) && now_ns() < end) {
		usleep(LOOK_US);
		length *= 2;
	}
	if (paused)
		return true;
	fleet_resume(fleet);
	return error_set(error, EXIT_FAILED,
			 "the fleet does not come to rest within %u s; try again when it is less busy",
			 (unsigned)(LIMIT_NS / 1000000000u));
}

void fleet_resume(struct fleet *fleet)
{
	let_go(fleet);
	free(fleet->held_doors);
	fleet->held_doors = NULL;
	pthread_rwlock_unlock(&fleet->operations);
}
