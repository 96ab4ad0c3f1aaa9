// SPDX-License-Identifier: MIT
/*
 * A fault, from the vCPU to the engine and back: the hot path. The gate has reported an access that
 * the guest's tables do not grant. The engine decides what is to change, the change is done through
 * the same vCPU's gate, and the guest tries again.
 */
#include "ops.h"

/* A fault that changes nothing this often in a row is one that KVM does not see the end of. */
#define IDLE_FAULTS 1000

static const char *access_name(unsigned access)
{
	switch (access) {
	case EPT_WRITE:
		return "write to";
	case EPT_EXEC:
		return "execute at";
	default:
		return "read";
	}
}

/* The guest is about to write to a watched page: true if it may, now that who watches was told. */
static bool tell_watcher(struct guest *guest, const struct gate_exit *exit)
{
	struct fleet_write write = { .guest = guest, .gpa = exit->gpa };
	struct ept_region region;

	if (!ept_space_region(guest->space, exit->gpa, &region))
		return true; /* Taken away meanwhile: the engine says so. */
	write.page = region.first;
	write.page.page += (exit->gpa.v - region.start.v) >> EPT_PAGE_SHIFT;
	return fleet_tell_watcher(guest->fleet, &write);
}

/* Whether the engine may now give another answer than @status. */
static bool try_again(struct guest *guest, const struct gate_exit *exit, enum ept_status status)
{
	switch (status) {
	case EPT_NO_TABLE:
	case EPT_NO_PAGE:
		return fleet_scrub(guest->fleet);
	case EPT_WATCHED:
		return tell_watcher(guest, exit);
	default:
		return false;
	}
}

/* The engine's answer, after all that can be done for a better one. */
static enum ept_status ask_engine(struct seat *seat, const struct gate_exit *exit)
{
	struct guest *guest = seat->owner;
	enum ept_status status;

	do
		status = ept_space_fault(guest->space, exit->gpa, exit->access,
					 &seat->change);
	while (try_again(guest, exit, status));
	return status;
}

static bool refuse(struct seat *seat, const struct gate_exit *exit, enum ept_status status)
{
	switch (status) {
	case EPT_OUTSIDE:
		return guest_end(seat, GUEST_FAULT, "it tried to %s %#llx, which is not its memory",
				 access_name(exit->access), (unsigned long long)exit->gpa.v);
	case EPT_DENIED:
		return guest_end(seat, GUEST_FAULT, "it tried to %s %#llx, which it may not",
				 access_name(exit->access), (unsigned long long)exit->gpa.v);
	case EPT_WATCHED:
		return guest_end(seat, GUEST_FAULT,
				 "it tried to write to %#llx, a page of %s that is watched",
				 (unsigned long long)exit->gpa.v, seat->fleet->config.file->name);
	default:
		return guest_end(seat, GUEST_HOST_ERROR, "its access at %#llx could not be served: %s",
				 (unsigned long long)exit->gpa.v, ept_status_text(status));
	}
}

/* Notices a fault that comes back although the engine finds nothing to change. */
static bool check_progress(struct seat *seat, const struct gate_exit *exit, bool idle)
{
	if (!idle || exit->gpa.v != seat->idle_gpa.v) {
		seat->idle_gpa = exit->gpa;
		seat->idle_faults = 0;
		return true;
	}
	if (++seat->idle_faults < IDLE_FAULTS)
		return true;
	return guest_end(seat, GUEST_HOST_ERROR, "its access at %#llx faults for ever",
			 (unsigned long long)exit->gpa.v);
}

static bool not_committed(struct seat *seat, const struct error *error)
{
	const struct memfile *file = seat->fleet->config.file;

	if (memfile_shrank(file))
		return guest_end(seat, GUEST_FILE, "memory file %s was cut off while guests used it",
				 file->name);
	return guest_end(seat, GUEST_HOST_ERROR, "%s", error->text);
}

/* For benchmarks: what a guest costs that has not written yet. */
static void note_first_write(struct guest *guest)
{
	struct ept_usage usage;
	uint64_t tables = 0;

	if (guest->tables_before_write)
		return;
	ept_usage(guest->fleet->ept, &usage);
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		tables += usage.tables[level];
	guest->tables_before_write = tables;
}

bool fault_serve(struct seat *seat, const struct gate_exit *exit)
{
	uint64_t begin, decided, runs;
	enum ept_status status;
	struct error error;
	bool idle;

	if (exit->access == EPT_WRITE)
		note_first_write(seat->owner);
	begin = now_ns();
	status = ask_engine(seat, exit);
	decided = now_ns();
	runs = seat->vcpu.runs;
	if (status != EPT_OK)
		return refuse(seat, exit, status);
	idle = ept_change_is_empty(&seat->change);
	if (!fleet_commit(seat->fleet, seat, &seat->change, &error))
		return not_committed(seat, &error);
	if (exit->access == EPT_WRITE && !idle) {
		seat->write_faults.count++;
		seat->write_faults.engine_ns += decided - begin;
		seat->write_faults.edit_ns += now_ns() - decided;
		seat->write_faults.gate_runs += seat->vcpu.runs - runs;
	}
	return check_progress(seat, exit, idle);
}
