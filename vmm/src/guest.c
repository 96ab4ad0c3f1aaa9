// SPDX-License-Identifier: MIT
/* A guest's run loop, and how guests end. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fleet.h"

const char *guest_status_name(enum guest_status status)
{
	static const char *const names[] = {
		[GUEST_RUNNING] = "running", [GUEST_OK] = "ok",
		[GUEST_FAILED] = "failed",   [GUEST_FAULT] = "fault",
		[GUEST_TIMEOUT] = "timeout", [GUEST_STOPPED] = "stopped",
		[GUEST_FILE] = "file",	     [GUEST_HOST_ERROR] = "host-error",
		[GUEST_RESET] = "reset",
	};

	return names[status];
}

/* Whether this is the CPU that ends the guest: only the first counts. */
static bool claim_end(struct seat *seat, enum guest_status status)
{
	struct guest *guest = seat->owner;
	bool first;

	pthread_mutex_lock(&seat->fleet->lock);
	first = guest->status == GUEST_RUNNING;
	if (first) {
		guest->status = status;
		guest->ended_by = seat;
	}
	pthread_mutex_unlock(&seat->fleet->lock);
	return first;
}

bool guest_end(struct seat *seat, enum guest_status status, const char *format, ...)
{
	struct guest *guest = seat->owner;
	va_list arguments;

	if (!claim_end(seat, status))
		return false;
	va_start(arguments, format);
	vsnprintf(guest->report, sizeof(guest->report), format, arguments);
	va_end(arguments);
	return false;
}

bool guest_done(struct seat *seat)
{
	claim_end(seat, GUEST_OK);
	return false;
}

bool guest_exit(struct seat *seat, uint64_t value)
{
	if (value == 0)
		guest_done(seat);
	else
		guest_end(seat, GUEST_FAILED, "it exited with status %llu",
			  (unsigned long long)value);
	/* Another CPU may have come first. */
	if (seat->owner->ended_by == seat)
		seat->owner->exit_value = value;
	return false;
}

/* Exceptions by their names: AMD APM Vol. 2, "Exception and interrupt vectors". */
static const char *exception_name(unsigned vector)
{
	static const char *const names[] = {
		[0] = "divide error",	       [1] = "debug exception",
		[3] = "breakpoint",	       [4] = "overflow",
		[5] = "bound range exceeded",  [6] = "invalid opcode",
		[7] = "no device",	       [8] = "double fault",
		[10] = "invalid TSS",	       [11] = "segment not present",
		[12] = "stack fault",	       [13] = "general protection fault",
		[14] = "page fault",	       [16] = "x87 error",
		[17] = "alignment check",      [18] = "machine check",
		[19] = "SIMD error",	       [21] = "control protection fault",
	};

	if (vector >= sizeof(names) / sizeof(names[0]) || !names[vector])
		return "exception";
	return names[vector];
}

/* Adds the registers to a report, as the guest had them. */
static void report_registers(struct seat *seat, const struct gate_exit *exit)
{
	struct guest *guest = seat->owner;
	size_t used = strlen(guest->report);
	struct kvm_regs regs;

	gate_registers(&seat->vcpu, exit, &regs);
	snprintf(guest->report + used, sizeof(guest->report) - used,
		 "; rip %#llx rsp %#llx rflags %#llx rax %#llx rbx %#llx rcx %#llx rdx %#llx rsi %#llx"
		 " rdi %#llx rbp %#llx r8 %#llx r9 %#llx r10 %#llx r11 %#llx r12 %#llx r13 %#llx"
		 " r14 %#llx r15 %#llx",
		 regs.rip, regs.rsp, regs.rflags, regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi,
		 regs.rdi, regs.rbp, regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13,
		 regs.r14, regs.r15);
}

static bool serve_exception(struct seat *seat, const struct gate_exit *exit)
{
	return guest_end(seat, GUEST_FAULT, "it caused exception %u (%s), error code %#llx",
			 exit->vector, exception_name(exit->vector),
			 (unsigned long long)exit->error_code);
}

/* By the user, the time limit, moment.c: go_back, or fleet.c: end_panicked. */
static bool end_as_told(struct seat *seat, enum guest_status status)
{
	switch (status) {
	case GUEST_FAILED:
		return access_end_panicked(seat);
	case GUEST_TIMEOUT:
		return guest_end(seat, status, "it ran longer than its time limit");
	case GUEST_HOST_ERROR:
		return guest_end(seat, status, "it could not be taken back to where it was");
	default:
		return guest_end(seat, status, "it was stopped");
	}
}

/* KVM found no memory behind a page that the guest may use: it was cut off from its file. */
static bool serve_bad_address(struct seat *seat, const struct gate_exit *exit)
{
	const struct memfile *file = seat->fleet->config.file;

	if (memfile_shrank(file))
		return guest_end(seat, GUEST_FILE, "memory file %s was cut off while guests used it",
				 file->name);
	return guest_end(seat, GUEST_HOST_ERROR, "%s", exit->text);
}

/* Serves one exit; false if the guest has ended. */
static bool serve(struct seat *seat, const struct gate_exit *exit)
{
	switch (exit->kind) {
	case GATE_EXIT_FAULT:
		return fault_serve(seat, exit);
	case GATE_EXIT_PORT:
	case GATE_EXIT_MEMORY:
		return access_serve(seat, exit);
	case GATE_EXIT_CALL:
		return call_serve(seat);
	case GATE_EXIT_EXCEPTION:
		return serve_exception(seat, exit);
	case GATE_EXIT_BAD_ADDRESS:
		return serve_bad_address(seat, exit);
	case GATE_EXIT_INTERRUPTED: /* What somebody wants of it stands at its seat's door. */
	case GATE_EXIT_SERVED:
		return true;
	case GATE_EXIT_HOST:
		break;
	}
	return guest_end(seat, GUEST_FAULT, "%s", exit->text);
}

/*
 * An instruction that the vCPU is in the middle of comes to its end before the vCPU passes its gate; one
 * that accesses several devices goes on for at most 1024 accesses, then KVM lets it go.
 */
static bool finish_accesses(struct seat *seat)
{
	struct gate_exit exit;

	while (gate_finish_access(&seat->vcpu, &exit))
		if (!access_serve(seat, &exit))
			return false;
	return true;
}

static bool pass(struct seat *seat, const struct fpa *root)
{
	struct error error;

	if (!finish_accesses(seat))
		return false;
	return gate_pass(&seat->vcpu, root, &error) ||
	       guest_end(seat, GUEST_HOST_ERROR, "%s", error.text);
}

/* One that has run comes out of its guest first; then it waits, and begins anew. */
static bool reset(struct seat *seat, struct fpa root)
{
	struct error error;
	uint8_t vector;

	if (seat->vcpu.used && !pass(seat, &root))
		return false;
	if (!seat_wait_for_start(seat, &vector, &root))
		return true; /* The door says what with. */
	return gate_start_cpu(&seat->vcpu, &root, vector, &error) ||
	       guest_end(seat, GUEST_HOST_ERROR, "%s", error.text);
}

/* Others have the vCPU meanwhile. */
static bool rest(struct seat *seat, const struct fpa *root)
{
	if (seat->vcpu.used && !pass(seat, root))
		return false;
	seat_rest(seat);
	return true;
}

static bool obey(struct seat *seat, const struct seat_order *order)
{
	switch (order->what) {
	case SEAT_PASS:
		return pass(seat, &order->root);
	case SEAT_RESET:
		return reset(seat, order->root);
	case SEAT_REST:
		return rest(seat, &order->root);
	case SEAT_WORK:
		access_called(seat);
		return true;
	default:
		return end_as_told(seat, order->stop);
	}
}

/* Does what others want of the vCPU, until nobody does and it counts as in its guest. */
static bool enter(struct seat *seat)
{
	struct seat_order order = seat_enter(seat);

	while (order.what != SEAT_ENTER) {
		if (!obey(seat, &order))
			return false;
		order = seat_enter(seat);
	}
	return true;
}

/* Runs up to the next exit and serves it; false if the guest has ended. */
static bool run_once(struct seat *seat)
{
	const struct guest *guest = seat->owner;
	struct gate_exit exit;

	access_work(seat);
	if (!enter(seat))
		return false;
	gate_run(&seat->vcpu, &exit);
	seat_leave(seat);
	if (serve(seat, &exit))
		return true;
	if (guest->ended_by == seat &&
	    (guest->status == GUEST_FAULT || guest->status == GUEST_HOST_ERROR))
		report_registers(seat, &exit);
	return false;
}

void guest_stop(struct guest *guest, enum guest_status status)
{
	for (unsigned cpu = 0; cpu < guest->cpus; cpu++)
		seat_stop(&guest->seat[cpu], status);
}

void guest_run(struct seat *seat)
{
	const struct guest *guest = seat->owner;

	while (run_once(seat))
		;
	for (unsigned cpu = 0; guest->ended_by == seat && cpu < guest->cpus; cpu++)
		if (&guest->seat[cpu] != seat)
			seat_stop(&guest->seat[cpu], GUEST_STOPPED);
}

bool guest_step(struct guest *guest)
{
	unsigned results = guest->results;

	while (guest->results == results)
		if (!run_once(guest->seat))
			return false;
	return true;
}
