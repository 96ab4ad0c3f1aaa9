// SPDX-License-Identifier: MIT
/* What guests may ask of s2vm: s2vm/guest_abi.h. */
#include <stdio.h>
#include <string.h>

#include "fleet.h"

static uint64_t guest_faults(const struct guest *guest)
{
	return host_counter_read(guest->seat->faults);
}

static struct guest_mark mark_now(const struct guest *guest)
{
	return (struct guest_mark){
		.ns = now_ns(),
		.kvm_faults = guest_faults(guest),
		.write_faults = guest->write_faults,
		.set = true,
	};
}

static void call_result(struct guest *guest, const struct kvm_regs *registers)
{
	const uint64_t words[] = { registers->rdi, registers->rsi, registers->rdx,
				   registers->r10 };

	if (!guest->results++)
		guest->first_result = mark_now(guest);
	for (unsigned at = 0; at < sizeof(guest->result); at++)
		guest->result[at] = (uint8_t)(words[at / 8] >> (56 - 8 * (at % 8)));
}

static uint64_t call_mark(struct guest *guest, uint64_t number)
{
	if (number >= S2VM_MARKS)
		return S2VM_ERROR;
	guest->marks[number] = mark_now(guest);
	return 0;
}

/* Makes one page readable, as a read of the guest's own would. */
static bool fill_in(struct guest *guest, struct gpa gpa)
{
	struct error error;

	return ept_space_fault(guest->space, gpa, EPT_READ, &guest->seat->change) == EPT_OK &&
	       fleet_commit(guest->fleet, NULL, &guest->seat->change, &error);
}

/*
 * Copies guest memory through the guest's own tables, so it gets what the guest would read. With the
 * fleet's memory lock, for an operator may take the memory away at any time.
 */
static bool copy_memory(struct guest *guest, struct gpa gpa, void *to, uint64_t bytes)
{
	unsigned char *at = to;

	while (bytes) {
		uint64_t part = EPT_PAGE_BYTES - gpa.v % EPT_PAGE_BYTES;
		struct ept_region region;
		struct fpa from;
		unsigned rights;

		if (part > bytes)
			part = bytes;
		if (!ept_space_region(guest->space, gpa, &region))
			return false;
		if (!ept_space_translate(guest->space, gpa, &from, &rights) &&
		    (!fill_in(guest, gpa) ||
		     !ept_space_translate(guest->space, gpa, &from, &rights)))
			return false;
		if (!memory_read(&guest->fleet->memory, from, at, part))
			return false;
		at += part;
		gpa.v += part;
		bytes -= part;
	}
	return true;
}

static bool read_memory(struct guest *guest, struct gpa gpa, void *to, uint64_t bytes)
{
	bool copied;

	pthread_rwlock_rdlock(&guest->fleet->memory_lock);
	copied = copy_memory(guest, gpa, to, bytes);
	pthread_rwlock_unlock(&guest->fleet->memory_lock);
	return copied;
}

/* Guests' text goes to stderr: results are what stdout is for. Control characters become dots. */
static uint64_t call_write(struct guest *guest, struct gpa from, uint64_t bytes)
{
	char text[S2VM_WRITE_MAX];

	if (bytes > sizeof(text) || !read_memory(guest, from, text, bytes))
		return S2VM_ERROR;
	for (uint64_t at = 0; at < bytes; at++)
		if ((unsigned char)text[at] < ' ' && text[at] != '\n' && text[at] != '\t')
			text[at] = '.';
	if (!guest->fleet->config.quiet)
		fwrite(text, 1, bytes, stderr);
	return bytes;
}

static bool call_exit(struct guest *guest, uint64_t value)
{
	guest->exit_value = value;
	if (value == 0) {
		guest->status = GUEST_OK;
		return false;
	}
	return guest_end(guest, GUEST_FAILED, "it exited with status %llu",
			 (unsigned long long)value);
}

bool call_serve(struct guest *guest)
{
	struct kvm_regs registers = guest->seat->vcpu.run->s.regs.regs;
	uint64_t result = 0;

	switch (registers.rax) {
	case S2VM_CALL_EXIT:
		return call_exit(guest, registers.rdi);
	case S2VM_CALL_RESULT:
		call_result(guest, &registers);
		break;
	case S2VM_CALL_WRITE:
		result = call_write(guest, (struct gpa){ registers.rdi }, registers.rsi);
		break;
	case S2VM_CALL_MARK:
		result = call_mark(guest, registers.rdi);
		break;
	default:
		result = S2VM_ERROR;
		break;
	}
	gate_set_result(&guest->seat->vcpu, result);
	return true;
}
