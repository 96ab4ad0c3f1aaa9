// SPDX-License-Identifier: MIT
/*
 * A Linux guest's registers between its VMCS and struct vmx_guest. All others of its processor are the
 * vCPU's too, and KVM tells them: general registers, CR2, DR0 to DR3, DR6, the x87 and vector registers,
 * and the MSRs that the gate leaves alone.
 */
#include <stddef.h>
#include <string.h>

#include "gate_vmx.h"
#include "vcpu_state.h"

#define EFER_LMA (UINT64_C(1) << 10)

/* "IA-32e mode guest": the processor keeps it equal to EFER.LMA while the guest runs. */
#define ENTRY_GUEST_64 (UINT32_C(1) << 9)

/* Interruptibility: by STI, by MOV SS. Guests have no NMI and no SMI that could hold off others. */
#define SHADOW_BITS UINT64_C(3)

/* Segments in the order of their fields, each at the same distance from the first of its kind. */
#define SEGMENTS 8

static const size_t segment_at[SEGMENTS] = {
	offsetof(struct kvm_sregs, es), offsetof(struct kvm_sregs, cs),
	offsetof(struct kvm_sregs, ss), offsetof(struct kvm_sregs, ds),
	offsetof(struct kvm_sregs, fs), offsetof(struct kvm_sregs, gs),
	offsetof(struct kvm_sregs, ldt), offsetof(struct kvm_sregs, tr),
};

enum { SEGMENT_SELECTOR = 0x800, SEGMENT_LIMIT = 0x4800, SEGMENT_ACCESS = 0x4814, SEGMENT_BASE = 0x6806 };
enum { GDTR_LIMIT = 0x4810, IDTR_LIMIT = 0x4812, GDTR_BASE = 0x6816, IDTR_BASE = 0x6818 };

/* What is the same on both sides. */
static const struct plain_field {
	uint32_t field;
	size_t at;
} plain_fields[] = {
	{ VMCS_GUEST_CR3, offsetof(struct vmx_guest, sregs.cr3) },
	{ VMCS_EFER, offsetof(struct vmx_guest, sregs.efer) },
	{ VMCS_GUEST_RIP, offsetof(struct vmx_guest, rip) },
	{ VMCS_GUEST_RSP, offsetof(struct vmx_guest, rsp) },
	{ VMCS_GUEST_RFLAGS, offsetof(struct vmx_guest, rflags) },
	{ VMCS_GUEST_DR7, offsetof(struct vmx_guest, dr7) },
	{ VMCS_PAT, offsetof(struct vmx_guest, pat) },
	{ 0x280a, offsetof(struct vmx_guest, pdptes[0]) },
	{ 0x280c, offsetof(struct vmx_guest, pdptes[1]) },
	{ 0x280e, offsetof(struct vmx_guest, pdptes[2]) },
	{ 0x2810, offsetof(struct vmx_guest, pdptes[3]) },
	{ 0x482a, offsetof(struct vmx_guest, sysenter_cs) },
	{ 0x6824, offsetof(struct vmx_guest, sysenter_esp) },
	{ 0x6826, offsetof(struct vmx_guest, sysenter_eip) },
	{ 0x6822, offsetof(struct vmx_guest, pending_debug) },
};

#define PLAIN_FIELDS (sizeof(plain_fields) / sizeof(plain_fields[0]))

_Static_assert(4 * SEGMENTS + 4 + PLAIN_FIELDS + 10 == VMX_GUEST_FIELDS, "as many as are put below");
_Static_assert(VMX_GUEST_FIELDS <= GATE_CHAIN_WRITES && VMX_GUEST_FIELDS <= GATE_CHAIN_READS,
	       "one run of the gate takes all");

/* SDM Vol. 3C, "Guest register state", format of access rights. */
static uint64_t access_of(const struct kvm_segment *segment)
{
	return segment->type | (uint64_t)segment->s << 4 | (uint64_t)segment->dpl << 5 |
	       (uint64_t)segment->present << 7 | (uint64_t)segment->avl << 12 |
	       (uint64_t)segment->l << 13 | (uint64_t)segment->db << 14 |
	       (uint64_t)segment->g << 15 | (uint64_t)segment->unusable << 16;
}

static void set_access(struct kvm_segment *segment, uint64_t access)
{
	segment->type = access & 15;
	segment->s = access >> 4 & 1;
	segment->dpl = access >> 5 & 3;
	segment->present = access >> 7 & 1;
	segment->avl = access >> 12 & 1;
	segment->l = access >> 13 & 1;
	segment->db = access >> 14 & 1;
	segment->g = access >> 15 & 1;
	segment->unusable = access >> 16 & 1;
}

static void put_segments(struct vmx_fields *fields, const struct kvm_sregs *sregs)
{
	for (unsigned i = 0; i < SEGMENTS; i++) {
		const struct kvm_segment *segment =
			(const struct kvm_segment *)((const char *)sregs + segment_at[i]);

		vmx_put(fields, SEGMENT_SELECTOR + 2 * i, segment->selector);
		vmx_put(fields, SEGMENT_LIMIT + 2 * i, segment->limit);
		vmx_put(fields, SEGMENT_ACCESS + 2 * i, access_of(segment));
		vmx_put(fields, SEGMENT_BASE + 2 * i, segment->base);
	}
	vmx_put(fields, GDTR_LIMIT, sregs->gdt.limit);
	vmx_put(fields, GDTR_BASE, sregs->gdt.base);
	vmx_put(fields, IDTR_LIMIT, sregs->idt.limit);
	vmx_put(fields, IDTR_BASE, sregs->idt.base);
}

void vmx_put_guest(struct vmx_fields *fields, const struct gate_vmx *vmx,
		   const struct vmx_guest *guest)
{
	const struct kvm_sregs *sregs = &guest->sregs;

	put_segments(fields, sregs);
	for (unsigned i = 0; i < PLAIN_FIELDS; i++)
		vmx_put(fields, plain_fields[i].field,
			*(const uint64_t *)((const char *)guest + plain_fields[i].at));
	vmx_put(fields, VMCS_CR0_MASK, VMX_CR0_NE);
	vmx_put(fields, VMCS_CR0_SHADOW, sregs->cr0);
	vmx_put(fields, VMCS_GUEST_CR0, sregs->cr0 | VMX_CR0_NE);
	vmx_put(fields, VMCS_GUEST_CR4, sregs->cr4 | VMX_CR4_VMXE);
	vmx_put(fields, VMCS_ENTRY_CONTROLS,
		(vmx->entry & ~ENTRY_GUEST_64) | (sregs->efer & EFER_LMA ? ENTRY_GUEST_64 : 0));
	vmx_put(fields, VMCS_INTERRUPTIBILITY, guest->shadow);
	vmx_put(fields, VMCS_ENTRY_EVENT, guest->event & UINT32_MAX);
	vmx_put(fields, VMCS_ENTRY_ERROR, guest->event >> 32);
	vmx_put(fields, 0x4826, 0); /* active, not halted */
	vmx_put(fields, 0x2802, 0); /* DEBUGCTL, an MSR that guests do not have */
}

/* ---- reading ---- */

/* The value of a field that is among them. */
static uint64_t get(const struct vmx_fields *fields, uint64_t field)
{
	size_t at = 0;

	while (at < fields->count - 1 && fields->list[2 * at] != field)
		at++;
	return fields->list[2 * at + 1];
}

/* What the gate would still write before it enters the guest. */
static void apply_orders(const struct gate_vcpu *vcpu, struct vmx_fields *fields)
{
	const uint64_t *orders = gate_layout(vcpu)->orders;

	for (unsigned i = 0; i < vcpu->orders; i++)
		for (size_t at = 0; at < fields->count; at++)
			if (fields->list[2 * at] == orders[2 * i])
				fields->list[2 * at + 1] = orders[2 * i + 1];
}

static void get_segments(const struct vmx_fields *fields, struct kvm_sregs *sregs)
{
	for (unsigned i = 0; i < SEGMENTS; i++) {
		struct kvm_segment *segment =
			(struct kvm_segment *)((char *)sregs + segment_at[i]);

		segment->selector = (uint16_t)get(fields, SEGMENT_SELECTOR + 2 * i);
		segment->limit = (uint32_t)get(fields, SEGMENT_LIMIT + 2 * i);
		segment->base = get(fields, SEGMENT_BASE + 2 * i);
		set_access(segment, get(fields, SEGMENT_ACCESS + 2 * i));
	}
	sregs->gdt.limit = (uint16_t)get(fields, GDTR_LIMIT);
	sregs->gdt.base = get(fields, GDTR_BASE);
	sregs->idt.limit = (uint16_t)get(fields, IDTR_LIMIT);
	sregs->idt.base = get(fields, IDTR_BASE);
}

static uint64_t event_of(const struct vmx_fields *fields)
{
	uint64_t event = get(fields, VMCS_ENTRY_EVENT);

	if (!(event & MACHINE_EVENT_VALID))
		return 0;
	if (event & MACHINE_EVENT_ERROR_CODE)
		event |= get(fields, VMCS_ENTRY_ERROR) << 32;
	return event;
}

static void get_guest(const struct vmx_fields *fields, struct vmx_guest *guest)
{
	uint64_t cr0 = get(fields, VMCS_GUEST_CR0) & ~VMX_CR0_NE;

	get_segments(fields, &guest->sregs);
	for (unsigned i = 0; i < PLAIN_FIELDS; i++)
		*(uint64_t *)((char *)guest + plain_fields[i].at) =
			get(fields, plain_fields[i].field);
	guest->sregs.cr0 = cr0 | (get(fields, VMCS_CR0_SHADOW) & VMX_CR0_NE);
	guest->sregs.cr4 = get(fields, VMCS_GUEST_CR4) & ~VMX_CR4_VMXE;
	guest->shadow = get(fields, VMCS_INTERRUPTIBILITY) & SHADOW_BITS;
	guest->event = event_of(fields);
}

bool vmx_read_guest(struct gate_vcpu *vcpu, struct vmx_guest *guest, struct error *error)
{
	uint64_t list[2 * VMX_GUEST_FIELDS];
	struct vmx_fields fields = { .list = list };

	*guest = (struct vmx_guest){ 0 };
	vmx_put_guest(&fields, &vcpu->gate->vmx, guest);
	if (!vmx_read_fields(vcpu, &fields, error))
		return false;
	apply_orders(vcpu, &fields);
	get_guest(&fields, guest);
	return true;
}

/* ---- the state of a guest that is saved ---- */

void vmx_guest_of(const struct vcpu_state *state, struct vmx_guest *guest)
{
	*guest = (struct vmx_guest){
		.sregs = state->sregs,
		.rip = state->regs.rip,
		.rsp = state->regs.rsp,
		.rflags = state->regs.rflags,
		.dr7 = state->debug.dr7,
		.pat = state->pat,
		.sysenter_cs = state->sysenter[0],
		.sysenter_esp = state->sysenter[1],
		.sysenter_eip = state->sysenter[2],
		.pending_debug = state->pending_debug,
		.shadow = state->shadow,
		.event = state->event,
	};
	memcpy(guest->pdptes, state->pdptes, sizeof(guest->pdptes));
}

/* What is not in the VMCS is the vCPU's, and saved already. */
bool vmx_save(struct gate_vcpu *vcpu, struct vcpu_state *state, struct error *error)
{
	const struct kvm_sregs vcpu_sregs = state->sregs;
	struct vmx_guest guest;

	if (!vmx_read_guest(vcpu, &guest, error))
		return false;
	state->sregs = guest.sregs;
	state->sregs.cr2 = vcpu_sregs.cr2;
	state->sregs.cr8 = vcpu_sregs.cr8;
	state->sregs.apic_base = vcpu_sregs.apic_base;
	state->regs.rip = guest.rip;
	state->regs.rsp = guest.rsp;
	state->regs.rflags = guest.rflags;
	state->debug.dr7 = guest.dr7;
	state->pat = guest.pat;
	state->sysenter[0] = guest.sysenter_cs;
	state->sysenter[1] = guest.sysenter_esp;
	state->sysenter[2] = guest.sysenter_eip;
	state->pending_debug = guest.pending_debug;
	state->shadow = (uint32_t)guest.shadow;
	state->event = guest.event;
	memcpy(state->pdptes, guest.pdptes, sizeof(state->pdptes));
	return true;
}
