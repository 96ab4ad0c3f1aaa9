/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the vmx engine share: fields of a VMCS, and a Linux guest's registers in it.
 *
 * References: Intel SDM Vol. 3C, "Guest-state area", and Vol. 3D, Appendix B, "Field encoding in VMCS".
 */
#ifndef VMM_GATE_VMX_H
#define VMM_GATE_VMX_H

#include "gate_internal.h"

#define VMX_CR4_VMXE UINT64_C(0x2000)
#define VMX_CR0_NE   (UINT64_C(1) << 5) /* cannot be 0 in VMX operation */

#define VMCS_PAT	      0x2804u
#define VMCS_EFER	      0x2806u
#define VMCS_ENTRY_CONTROLS   0x4012u
#define VMCS_ENTRY_EVENT      0x4016u
#define VMCS_ENTRY_ERROR      0x4018u
#define VMCS_INTERRUPTIBILITY 0x4824u
#define VMCS_CR0_MASK	      0x6000u
#define VMCS_CR0_SHADOW	      0x6004u
#define VMCS_GUEST_CR0	      0x6800u
#define VMCS_GUEST_CR3	      0x6802u
#define VMCS_GUEST_CR4	      0x6804u
#define VMCS_GUEST_DR7	      0x681au

/* Fields with their values, as the gate's chains have them on their list. */
struct vmx_fields {
	uint64_t *list;
	size_t count;
};

static inline void vmx_put(struct vmx_fields *fields, uint64_t field, uint64_t value)
{
	fields->list[2 * fields->count] = field;
	fields->list[2 * fields->count + 1] = value;
	fields->count++;
}

/*
 * A Linux guest's registers that are in its VMCS. With them FS, GS, LDTR, TR and the MSRs of SYSENTER,
 * which under svm stay in the vCPU.
 */
struct vmx_guest {
	struct kvm_sregs sregs; /* CR0 and CR4 as the guest reads them; not CR2 and what is behind EFER */
	uint64_t rip, rsp, rflags;
	uint64_t dr7;
	uint64_t pat;
	uint64_t pdptes[4];	/* where the guest has PAE paging */
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pending_debug; /* exceptions, as the VMCS has them */
	uint64_t shadow;	/* bit 0: behind STI, bit 1: behind MOV to SS no interrupt comes yet */
	/* To be delivered before the next instruction, with its error code from bit 32 on; 0 for nothing. */
	uint64_t event;
};

/* How many fields vmx_put_guest() puts. */
#define VMX_GUEST_FIELDS 61

/* What is to be written for a guest to have these registers. */
void vmx_put_guest(struct vmx_fields *fields, const struct gate_vmx *vmx,
		   const struct vmx_guest *guest);

/*
 * Reads all of them. The vCPU has passed its gate or has come out to it, and has not been entered since;
 * it keeps its registers, and what it was to do. False if KVM failed.
 */
bool vmx_read_guest(struct gate_vcpu *vcpu, struct vmx_guest *guest, struct error *error);

/* Between these and what is saved of a vCPU; parts of struct gate_ops. */
void vmx_guest_of(const struct vcpu_state *state, struct vmx_guest *guest);
bool vmx_save(struct gate_vcpu *vcpu, struct vcpu_state *state, struct error *error);

/* gate_vmx.c: reads fields into their places; at most GATE_CHAIN_READS. Otherwise as vmx_read_guest(). */
bool vmx_read_fields(struct gate_vcpu *vcpu, struct vmx_fields *fields, struct error *error);

#endif
