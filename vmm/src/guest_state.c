// SPDX-License-Identifier: MIT
#include "guest_state.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fleet.h"
#include "linux_boot.h"

/* What its agent is told. */
struct agent_line {
	size_t used;
	char text[512];
};

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

/* ---- telling it that it is another one ---- */

/* Adds what fits, as a line has more room than all of it needs. */
__attribute__((format(printf, 2, 3))) static void add(struct agent_line *line, const char *format,
						      ...)
{
	size_t room = sizeof(line->text) - line->used;
	va_list list;
	int count;

	va_start(list, format);
	count = vsnprintf(line->text + line->used, room, format, list);
	va_end(list);
	if (count > 0)
		line->used += (size_t)count < room ? (size_t)count : room - 1;
}

static void add_generation(struct agent_line *line, struct guest *guest)
{
	unsigned char generation[LINUX_GENERATION_BYTES] = { 0 };

	guest_read(guest, (struct gpa){ PLATFORM_GENERATION }, generation, sizeof(generation));
	add(line, " generation=");
	for (size_t i = 0; i < sizeof(generation); i++)
		add(line, "%02x", generation[i]);
}

static void add_macs(struct agent_line *line, const struct guest *guest)
{
	const struct fleet_computer *computer = &guest->fleet->config.computers[guest->id];

	add(line, " mac=");
	for (unsigned i = 0; i < computer->net_count; i++) {
		const uint8_t *mac = computer->nets[i].mac;

		add(line, "%s%02x:%02x:%02x:%02x:%02x:%02x", i ? "," : "", mac[0], mac[1], mac[2],
		    mac[3], mac[4], mac[5]);
	}
}

/* An agent that has left thousands of characters unread is none, and is not told. */
void guest_tell_clone(struct guest *guest)
{
	struct agent_line line = { 0 };
	struct timespec now;

	board_event(guest->board);
	clock_gettime(CLOCK_REALTIME, &now);
	add(&line, "clone number=%u", guest->id);
	add_generation(&line, guest);
	add_macs(&line, guest);
	add(&line, " time=%lld.%06ld", (long long)now.tv_sec, now.tv_nsec / 1000);
	board_tell(guest->board, line.text);
}
