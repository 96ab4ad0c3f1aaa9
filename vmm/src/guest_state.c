// SPDX-License-Identifier: MIT
#include "guest_state.h"

#include <string.h>

#include "fleet.h"

static void release_first(struct guest *guest, unsigned cpus)
{
	while (cpus)
		seat_release(&guest->seat[--cpus]);
}

bool guest_call_to_rest(struct guest *guest)
{
	for (unsigned cpu = 0; cpu < guest->cpus; cpu++)
		if (!seat_call_to_rest(&guest->seat[cpu])) {
			release_first(guest, cpu);
			return false;
		}
	return true;
}

void guest_release(struct guest *guest)
{
	release_first(guest, guest->cpus);
}

/* ---- saving ---- */

static bool save_cpu(struct seat *seat, struct vcpu_state *state, struct error *error)
{
	if (!seat_waits(seat))
		return gate_save(&seat->vcpu, state, error);
	memset(state, 0, sizeof(*state));
	state->version = VCPU_STATE_VERSION;
	state->waits = true;
	return true;
}

bool guest_save(struct guest *guest, struct guest_state *state, struct error *error)
{
	memset(state, 0, sizeof(*state));
	state->version = GUEST_STATE_VERSION;
	state->cpu_count = guest->cpus;
	for (unsigned cpu = 0; cpu < guest->cpus; cpu++)
		if (!save_cpu(&guest->seat[cpu], &state->cpus[cpu], error))
			return false;
	board_save(guest->board, &state->board);
	return true;
}

/* ---- restoring ---- */

static bool restore_cpu(struct seat *seat, const struct gate_restart *restart, struct error *error)
{
	seat_set_waiting(seat, restart->state->waits);
	return restart->state->waits || gate_restore(&seat->vcpu, restart, error);
}

/* All at one rate, and from one offset, so that their clocks agree as they did before. */
static bool restore_cpus(struct guest *guest, const struct guest_state *state, struct error *error)
{
	struct gate_restart restart = { .root = ept_space_root(guest->space) };

	if (!gate_time_offset(&guest->seat->vcpu, &state->cpus[0], &restart.tsc_offset, error))
		return false;
	for (unsigned cpu = 0; cpu < guest->cpus; cpu++) {
		restart.state = &state->cpus[cpu];
		if (!restore_cpu(&guest->seat[cpu], &restart, error))
			return false;
	}
	return true;
}

static bool check_versions(const struct guest *guest, const struct guest_state *state,
			   struct error *error)
{
	bool known = state->version == GUEST_STATE_VERSION;

	for (unsigned cpu = 0; known && cpu < guest->cpus; cpu++)
		known = state->cpus[cpu].version == VCPU_STATE_VERSION;
	return known || error_set(error, EXIT_INPUT,
				  "the guest was saved by another version of s2vm");
}

bool guest_restore(struct guest *guest, const struct guest_state *state, struct error *error)
{
	if (state->cpu_count != guest->cpus)
		return error_set(error, EXIT_INPUT, "the guest was saved with %u CPUs, not %u",
				 state->cpu_count, guest->cpus);
	if (!check_versions(guest, state, error))
		return false;
	if (!board_restore(guest->board, &state->board))
		return error_set(error, EXIT_INPUT,
				 "the guest was saved with other devices: it needs as many disks and networks");
	return restore_cpus(guest, state, error);
}

void guest_tell_generation(struct guest *guest)
{
	board_event(guest->board);
}
