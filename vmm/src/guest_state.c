// SPDX-License-Identifier: MIT
#include "guest_state.h"

#include <string.h>

#include "fleet.h"

bool guest_call_to_rest(struct guest *guest)
{
	return seat_call_to_rest(guest->seat);
}

void guest_release(struct guest *guest)
{
	seat_release(guest->seat);
}

bool guest_save(const struct guest *guest, struct guest_state *state, struct error *error)
{
	memset(state, 0, sizeof(*state));
	state->version = GUEST_STATE_VERSION;
	state->cpu_count = 1;
	if (!gate_save(&guest->seat->vcpu, &state->cpus[0], error))
		return false;
	board_save(guest->board, &state->board);
	return true;
}

static bool restore_cpu(struct guest *guest, const struct guest_state *state, struct error *error)
{
	struct gate_vcpu *vcpu = &guest->seat->vcpu;
	struct gate_restart restart = {
		.root = ept_space_root(guest->space),
		.state = &state->cpus[0],
	};

	return gate_time_offset(vcpu, restart.state, &restart.tsc_offset, error) &&
	       gate_restore(vcpu, &restart, error);
}

bool guest_restore(struct guest *guest, const struct guest_state *state, struct error *error)
{
	if (state->version != GUEST_STATE_VERSION || state->cpu_count != 1 ||
	    state->cpus[0].version != VCPU_STATE_VERSION)
		return error_set(error, EXIT_INPUT,
				 "the guest was saved by another version of s2vm");
	if (!board_restore(guest->board, &state->board))
		return error_set(error, EXIT_INPUT,
				 "the guest was saved with other devices: it needs as many disks and networks");
	return restore_cpu(guest, state, error);
}

void guest_tell_generation(struct guest *guest)
{
	board_event(guest->board);
}
