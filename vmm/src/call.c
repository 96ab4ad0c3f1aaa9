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
		.write_faults = guest->seat->write_faults,
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

/* Guests' text goes to stderr: results are what stdout is for. Control characters become dots. */
static uint64_t call_write(struct guest *guest, struct gpa from, uint64_t bytes)
{
	char text[S2VM_WRITE_MAX];

	if (bytes > sizeof(text) || !guest_read(guest, from, text, bytes))
		return S2VM_ERROR;
	for (uint64_t at = 0; at < bytes; at++)
		if ((unsigned char)text[at] < ' ' && text[at] != '\n' && text[at] != '\t')
			text[at] = '.';
	if (!guest->fleet->config.quiet)
		fwrite(text, 1, bytes, stderr);
	return bytes;
}

bool call_serve(struct seat *seat)
{
	struct guest *guest = seat->owner;
	struct kvm_regs registers = seat->vcpu.run->s.regs.regs;
	uint64_t result = 0;

	switch (registers.rax) {
	case S2VM_CALL_EXIT:
		return guest_exit(seat, registers.rdi);
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
	gate_set_result(&seat->vcpu, result);
	return true;
}
