// SPDX-License-Identifier: MIT
/*
 * The direct engine: the engine's tables, in the format of NPT, are walked as ordinary page tables,
 * guests run at CPL 3, and the gate is a handful of exception handlers at CPL 0. Needs no nested
 * virtualization.
 *
 * References are to AMD APM Vol. 2: "Long-mode interrupt control transfers", "Page-fault exception".
 */
#include <stdio.h>

#include "gate_internal.h"

/* What the processor pushes when CPL 3 is interrupted; below it the error code, if there is one. */
struct interrupt_frame {
	uint64_t rip;
	uint64_t cs;
	uint64_t rflags;
	uint64_t rsp;
	uint64_t ss;
};

#define PAGE_FAULT_VECTOR 14

/*
 * Guests have interrupts on, though nobody sends any: Bochs keeps those of its host off, too, while a
 * guest has them off, and a guest at CPL 3 cannot change it.
 */
#define RFLAGS_INTERRUPTS (UINT64_C(1) << 9)

/* Exceptions that push an error code. */
#define VECTORS_WITH_CODE                                                                          \
	(UINT32_C(1) << 8 | UINT32_C(1) << 10 | UINT32_C(1) << 11 | UINT32_C(1) << 12 |            \
	 UINT32_C(1) << 13 | UINT32_C(1) << 14 | UINT32_C(1) << 17 | UINT32_C(1) << 21)

static bool direct_create(struct gate *gate, struct error *error)
{
	(void)gate;
	(void)error;
	return true;
}

static bool direct_prepare(struct gate_vcpu *vcpu, struct error *error)
{
	(void)vcpu;
	(void)error;
	return true;
}

static bool direct_start(struct gate_vcpu *vcpu, const struct gate_start *start,
			 struct error *error)
{
	if (!gate_set_sregs(vcpu, start->root, SELECTOR_GUEST_CODE, SELECTOR_GUEST_DATA, 0, 0,
			    error))
		return false;
	vcpu->run->s.regs.regs = gate_first_registers(start);
	vcpu->run->s.regs.regs.rflags |= RFLAGS_INTERRUPTS;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return true;
}

/* The frame that an exception left on the gate's stack, which guests cannot reach. */
static const struct interrupt_frame *frame_of(const struct gate_vcpu *vcpu, unsigned vector,
					      uint64_t *error_code)
{
	uint64_t offset = vcpu->run->s.regs.regs.rsp - gate_window(gate_vcpu_at(vcpu, 0));
	bool has_code = VECTORS_WITH_CODE >> vector & 1;
	const uint64_t *words;

	if (offset > EPT_PAGE_BYTES - sizeof(struct interrupt_frame) - (has_code ? 8 : 0) || offset % 8)
		return NULL;
	words = (const uint64_t *)((unsigned char *)gate_vcpu_memory(vcpu, 0) + offset);
	*error_code = has_code ? words[0] : 0;
	return (const struct interrupt_frame *)(words + has_code);
}

static unsigned access_of(uint64_t error_code)
{
	if (error_code & 1u << 1)
		return EPT_WRITE;
	return error_code & 1u << 4 ? EPT_EXEC : EPT_READ;
}

/* An exception: the stub's place is its number. Only one that came from CPL 3 is the guest's. */
static void direct_decode(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	uint64_t offset = vcpu->run->s.regs.regs.rip - gate_label(gate_code);
	const struct interrupt_frame *frame;

	exit->kind = GATE_EXIT_HOST;
	exit->vector = (unsigned)(offset / GATE_STUB_BYTES);
	if (gate_port(vcpu) != GATE_PORT_EXCEPTION || exit->vector >= GATE_VECTORS) {
		snprintf(exit->text, sizeof(exit->text), "the gate reports port %#x from rip %#llx",
			 gate_port(vcpu), vcpu->run->s.regs.regs.rip);
		return;
	}
	frame = frame_of(vcpu, exit->vector, &exit->error_code);
	if (!frame || !(frame->cs & 3)) {
		snprintf(exit->text, sizeof(exit->text), "the gate itself took exception %u",
			 exit->vector);
		return;
	}
	exit->kind = GATE_EXIT_EXCEPTION;
	if (exit->vector != PAGE_FAULT_VECTOR)
		return;
	exit->kind = GATE_EXIT_FAULT;
	exit->gpa.v = vcpu->run->s.regs.sregs.cr2;
	exit->access = access_of(exit->error_code);
}

static const unsigned char *direct_finish_list(struct gate_vcpu *vcpu, const struct fpa *root,
					       uint64_t *list_end)
{
	(void)vcpu;
	*list_end = root->v;
	return gate_root_chain_end;
}

/* Back to the stub that reported the fault, behind its `out`, which is done. */
static void direct_go_back(struct gate_vcpu *vcpu, struct kvm_regs *registers)
{
	(void)vcpu;
	registers->rip = (registers->rip & ~(uint64_t)(GATE_STUB_BYTES - 1)) + 2;
}

/*
 * The gate's code is found through the vCPU's root. The one that it has may be dead by now, and scrubbed,
 * so it must not run there even to get another.
 */
static void direct_leave_root(struct gate_vcpu *vcpu, const struct fpa *root)
{
	struct kvm_sregs *sregs = &vcpu->run->s.regs.sregs;

	sregs->cr3 = root->v;
	sregs->tr.type = gate_tss_type(vcpu->gate);
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
}

/* Wherever it is, the chain can run there at CPL 0, and the segments that were are put back. */
static bool direct_pass(struct gate_vcpu *vcpu, const struct fpa *root, struct error *error)
{
	struct kvm_sregs *sregs = &vcpu->run->s.regs.sregs;
	struct kvm_segment code = sregs->cs;
	struct kvm_segment stack = sregs->ss;
	bool passed;

	if (!gate_drop_events(vcpu, 0, error))
		return false;
	sregs->cs = gate_code_segment(SELECTOR_GATE_CODE);
	sregs->ss = gate_data_segment(SELECTOR_GATE_DATA);
	sregs->tr.type = gate_tss_type(vcpu->gate);
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
	passed = gate_take_root(vcpu, root, error);
	sregs->cs = code;
	sregs->ss = stack;
	sregs->tr.type = gate_tss_type(vcpu->gate);
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
	return passed;
}

static void direct_registers(const struct gate_vcpu *vcpu, const struct gate_exit *exit,
			     struct kvm_regs *registers)
{
	const struct interrupt_frame *frame;
	uint64_t error_code;

	if (exit->kind != GATE_EXIT_FAULT && exit->kind != GATE_EXIT_EXCEPTION)
		return;
	frame = frame_of(vcpu, exit->vector, &error_code);
	if (!frame)
		return;
	registers->rip = frame->rip;
	registers->rsp = frame->rsp;
	registers->rflags = frame->rflags;
}

const struct gate_ops gate_direct_ops = {
	.format = &ept_format_npt,
	.gpa_end = GATE_WINDOW,
	.create = direct_create,
	.prepare = direct_prepare,
	.start = direct_start,
	.decode = direct_decode,
	.finish_list = direct_finish_list,
	.go_back = direct_go_back,
	.leave_root = direct_leave_root,
	.pass = direct_pass,
	.registers = direct_registers,
};
