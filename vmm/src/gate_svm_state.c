// SPDX-License-Identifier: MIT
/*
 * A guest's registers between the VMCB and struct vcpu_state. VMRUN exchanges those that are here; FS,
 * GS, TR and LDTR stay in the vCPU, with the MSRs that belong to them, as only VMLOAD and VMSAVE
 * exchange these (APM Vol. 2, "VMRUN instruction", "VMSAVE and VMLOAD instructions").
 */
#include "gate_svm.h"
#include "vcpu_state.h"

/* A descriptor's type and flags, as a VMCB has them side by side: APM Vol. 2, "VMCB segments". */
static struct kvm_segment to_segment(const struct vmcb_segment *from)
{
	unsigned flags = from->attributes;

	return (struct kvm_segment){
		.base = from->base,
		.limit = from->limit,
		.selector = from->selector,
		.type = flags & 15,
		.s = flags >> 4 & 1,
		.dpl = flags >> 5 & 3,
		.present = flags >> 7 & 1,
		.avl = flags >> 8 & 1,
		.l = flags >> 9 & 1,
		.db = flags >> 10 & 1,
		.g = flags >> 11 & 1,
		.unusable = !(flags >> 7 & 1),
	};
}

static struct vmcb_segment from_segment(const struct kvm_segment *from)
{
	unsigned flags = from->type | (unsigned)from->s << 4 | (unsigned)from->dpl << 5 |
			 (unsigned)from->present << 7 | (unsigned)from->avl << 8 |
			 (unsigned)from->l << 9 | (unsigned)from->db << 10 |
			 (unsigned)from->g << 11;

	return (struct vmcb_segment){
		.selector = from->selector,
		.attributes = (uint16_t)flags,
		.limit = from->limit,
		.base = from->base,
	};
}

static struct kvm_dtable to_table(const struct vmcb_segment *from)
{
	return (struct kvm_dtable){ .base = from->base, .limit = (uint16_t)from->limit };
}

static struct vmcb_segment from_table(const struct kvm_dtable *from)
{
	return (struct vmcb_segment){ .limit = from->limit, .base = from->base };
}

/* Whether the vCPU has come back from its guest, and its gate has not said so yet. */
static bool exit_is_unreported(const struct gate_vcpu *vcpu)
{
	return vcpu->run->s.regs.regs.rip != gate_label(gate_svm_enter);
}

bool svm_save(struct gate_vcpu *vcpu, struct vcpu_state *state, struct error *error)
{
	const struct vmcb *vmcb = vmcb_of(vcpu);
	struct kvm_sregs *sregs = &state->sregs;

	(void)error;
	sregs->es = to_segment(&vmcb->es);
	sregs->cs = to_segment(&vmcb->cs);
	sregs->ss = to_segment(&vmcb->ss);
	sregs->ds = to_segment(&vmcb->ds);
	sregs->ss.dpl = vmcb->cpl;
	sregs->gdt = to_table(&vmcb->gdtr);
	sregs->idt = to_table(&vmcb->idtr);
	sregs->cr0 = vmcb->cr0;
	sregs->cr2 = vmcb->cr2;
	sregs->cr3 = vmcb->cr3;
	sregs->cr4 = vmcb->cr4;
	sregs->efer = vmcb->efer & ~EFER_SVME;
	state->regs.rax = vmcb->rax;
	state->regs.rsp = vmcb->rsp;
	state->regs.rip = vmcb->rip;
	state->regs.rflags = vmcb->rflags;
	state->debug.dr6 = vmcb->dr6;
	state->debug.dr7 = vmcb->dr7;
	state->pat = vmcb->pat;
	state->event = exit_is_unreported(vcpu) ? machine_event_again(vmcb->exit_int_info) : vmcb->event;
	state->shadow = vmcb->interrupt_shadow & 1;
	return true;
}

/* A segment's privilege level is SS's: there is no other place for it in the state. */
bool svm_restore(struct gate_vcpu *vcpu, struct fpa root, const struct vcpu_state *state,
		 struct error *error)
{
	const struct kvm_sregs *sregs = &state->sregs;
	struct vmcb *vmcb = svm_new_vmcb(vcpu, root);
	struct kvm_sregs *stay;

	vmcb->es = from_segment(&sregs->es);
	vmcb->cs = from_segment(&sregs->cs);
	vmcb->ss = from_segment(&sregs->ss);
	vmcb->ds = from_segment(&sregs->ds);
	vmcb->cpl = sregs->ss.dpl;
	vmcb->gdtr = from_table(&sregs->gdt);
	vmcb->idtr = from_table(&sregs->idt);
	vmcb->cr0 = sregs->cr0;
	vmcb->cr2 = sregs->cr2;
	vmcb->cr3 = sregs->cr3;
	vmcb->cr4 = sregs->cr4;
	vmcb->efer = sregs->efer | EFER_SVME;
	vmcb->rax = state->regs.rax;
	vmcb->rsp = state->regs.rsp;
	vmcb->rip = state->regs.rip;
	vmcb->rflags = state->regs.rflags;
	vmcb->dr6 = state->debug.dr6;
	vmcb->dr7 = state->debug.dr7;
	vmcb->pat = state->pat;
	vmcb->event = state->event;
	vmcb->interrupt_shadow = state->shadow;
	if (!svm_stand_in_gate(vcpu, &state->regs, error))
		return false;
	stay = &vcpu->run->s.regs.sregs;
	stay->fs = sregs->fs;
	stay->gs = sregs->gs;
	stay->tr = sregs->tr;
	stay->ldt = sregs->ldt;
	return true;
}
