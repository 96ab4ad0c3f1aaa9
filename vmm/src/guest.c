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

bool guest_end(struct guest *guest, enum guest_status status, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(guest->report, sizeof(guest->report), format, arguments);
	va_end(arguments);
	guest->status = status;
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
static void report_registers(struct guest *guest, const struct gate_exit *exit)
{
	size_t used = strlen(guest->report);
	struct kvm_regs regs;

	gate_registers(&guest->seat->vcpu, exit, &regs);
	snprintf(guest->report + used, sizeof(guest->report) - used,
		 "; rip %#llx rsp %#llx rflags %#llx rax %#llx rbx %#llx rcx %#llx rdx %#llx rsi %#llx"
		 " rdi %#llx rbp %#llx r8 %#llx r9 %#llx r10 %#llx r11 %#llx r12 %#llx r13 %#llx"
		 " r14 %#llx r15 %#llx",
		 regs.rip, regs.rsp, regs.rflags, regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi,
		 regs.rdi, regs.rbp, regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13,
		 regs.r14, regs.r15);
}

static bool serve_exception(struct guest *guest, const struct gate_exit *exit)
{
	return guest_end(guest, GUEST_FAULT, "it caused exception %u (%s), error code %#llx",
			 exit->vector, exception_name(exit->vector),
			 (unsigned long long)exit->error_code);
}

static bool end_as_told(struct guest *guest, enum guest_status status)
{
	return guest_end(guest, status,
			 status == GUEST_TIMEOUT ? "it ran longer than its time limit" :
						   "it was stopped");
}

/* KVM found no memory behind a page that the guest may use: it was cut off from its file. */
static bool serve_bad_address(struct guest *guest, const struct gate_exit *exit)
{
	const struct memfile *file = guest->fleet->config.file;

	if (memfile_shrank(file))
		return guest_end(guest, GUEST_FILE, "memory file %s was cut off while guests used it",
				 file->name);
	return guest_end(guest, GUEST_HOST_ERROR, "%s", exit->text);
}

/* Serves one exit; false if the guest has ended. */
static bool serve(struct guest *guest, const struct gate_exit *exit)
{
	switch (exit->kind) {
	case GATE_EXIT_FAULT:
		return fault_serve(guest, exit);
	case GATE_EXIT_PORT:
	case GATE_EXIT_MEMORY:
		return access_serve(guest, exit);
	case GATE_EXIT_CALL:
		return call_serve(guest);
	case GATE_EXIT_EXCEPTION:
		return serve_exception(guest, exit);
	case GATE_EXIT_BAD_ADDRESS:
		return serve_bad_address(guest, exit);
	case GATE_EXIT_INTERRUPTED: /* What somebody wants of it stands at its seat's door. */
	case GATE_EXIT_SERVED:
		return true;
	case GATE_EXIT_HOST:
		break;
	}
	return guest_end(guest, GUEST_FAULT, "%s", exit->text);
}

/*
 * An instruction that the vCPU is in the middle of comes to its end before the vCPU passes its gate; one
 * that accesses several devices goes on for at most 1024 accesses, then KVM lets it go.
 */
static bool finish_accesses(struct guest *guest)
{
	struct gate_exit exit;

	while (gate_finish_access(&guest->seat->vcpu, &exit))
		if (!access_serve(guest, &exit))
			return false;
	return true;
}

static bool pass(struct guest *guest, const struct fpa *root)
{
	struct error error;

	if (!finish_accesses(guest))
		return false;
	return gate_pass(&guest->seat->vcpu, root, &error) ||
	       guest_end(guest, GUEST_HOST_ERROR, "%s", error.text);
}

/* Does what others want of the vCPU, until nobody does and it counts as in its guest. */
static bool enter(struct guest *guest)
{
	struct seat_order order = seat_enter(guest->seat);

	while (order.what == SEAT_PASS || order.what == SEAT_WORK) {
		if (order.what == SEAT_WORK)
			access_called(guest);
		else if (!pass(guest, &order.root))
			return false;
		order = seat_enter(guest->seat);
	}
	return order.what == SEAT_ENTER || end_as_told(guest, order.stop);
}

/* Runs up to the next exit and serves it; false if the guest has ended. */
static bool run_once(struct guest *guest)
{
	struct gate_exit exit;

	access_work(guest);
	if (!enter(guest))
		return false;
	gate_run(&guest->seat->vcpu, &exit);
	seat_leave(guest->seat);
	if (serve(guest, &exit))
		return true;
	if (guest->status == GUEST_FAULT || guest->status == GUEST_HOST_ERROR)
		report_registers(guest, &exit);
	return false;
}

void guest_run(struct guest *guest)
{
	while (run_once(guest))
		;
}

bool guest_step(struct guest *guest)
{
	unsigned results = guest->results;

	while (guest->results == results)
		if (!run_once(guest))
			return false;
	return true;
}
