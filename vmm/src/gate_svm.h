/* SPDX-License-Identifier: MIT */
/* The svm engine's VMCB. References: AMD APM Vol. 2, Appendix B, "VMCB layout". */
#ifndef VMM_GATE_SVM_H
#define VMM_GATE_SVM_H

#include <stddef.h>

#include "gate_internal.h"

/* Pages of a vCPU. */
enum { PAGE_GATE, PAGE_VMCB, PAGE_HOST_SAVE };

#define EFER_SVME (UINT64_C(1) << 12)

struct vmcb_segment {
	uint16_t selector;
	uint16_t attributes;
	uint32_t limit;
	uint64_t base;
};

/* The parts of a VMCB that are used; the rest stays 0. */
struct vmcb {
	uint16_t intercept_cr_read;
	uint16_t intercept_cr_write;
	uint16_t intercept_dr_read;
	uint16_t intercept_dr_write;
	uint32_t intercept_exceptions;
	uint32_t intercept_1;
	uint32_t intercept_2;
	uint8_t reserved_14[0x40 - 0x14];
	uint64_t iopm;
	uint64_t msrpm;
	uint64_t tsc_offset;
	uint32_t asid;
	uint32_t tlb_control;
	uint8_t reserved_60[0x68 - 0x60];
	uint64_t interrupt_shadow;
	uint64_t exit_code;
	uint64_t exit_info_1;
	uint64_t exit_info_2;
	uint64_t exit_int_info;
	uint64_t nested_enable;
	uint8_t reserved_98[0xa8 - 0x98];
	uint64_t event;
	uint64_t nested_cr3;
	uint8_t reserved_b8[0x400 - 0xb8];
	struct vmcb_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	uint8_t reserved_4a0[0x4cb - 0x4a0];
	uint8_t cpl;
	uint8_t reserved_4cc[0x4d0 - 0x4cc];
	uint64_t efer;
	uint8_t reserved_4d8[0x548 - 0x4d8];
	uint64_t cr4, cr3, cr0, dr7, dr6, rflags, rip;
	uint8_t reserved_580[0x5d8 - 0x580];
	uint64_t rsp;
	uint8_t reserved_5e0[0x5f8 - 0x5e0];
	uint64_t rax;
	uint8_t reserved_600[0x640 - 0x600];
	uint64_t cr2;
	uint8_t reserved_648[0x668 - 0x648];
	uint64_t pat;
	uint8_t reserved_670[0x1000 - 0x670];
};

_Static_assert(offsetof(struct vmcb, exit_code) == 0x70, "VMCB layout");
_Static_assert(offsetof(struct vmcb, event) == 0xa8, "VMCB layout");
_Static_assert(offsetof(struct vmcb, nested_cr3) == 0xb0, "VMCB layout");
_Static_assert(offsetof(struct vmcb, cpl) == 0x4cb, "VMCB layout");
_Static_assert(offsetof(struct vmcb, efer) == 0x4d0, "VMCB layout");
_Static_assert(offsetof(struct vmcb, cr4) == 0x548, "VMCB layout");
_Static_assert(offsetof(struct vmcb, rip) == 0x578, "VMCB layout");
_Static_assert(offsetof(struct vmcb, rax) == 0x5f8, "VMCB layout");
_Static_assert(offsetof(struct vmcb, cr2) == 0x640, "VMCB layout");
_Static_assert(sizeof(struct vmcb) == EPT_PAGE_BYTES, "VMCB layout");

static inline struct vmcb *vmcb_of(const struct gate_vcpu *vcpu)
{
	return gate_vcpu_memory(vcpu, PAGE_VMCB);
}

/* The vCPU's VMCB with what is intercepted, and @root; the rest of it is 0. */
struct vmcb *svm_new_vmcb(struct gate_vcpu *vcpu, struct fpa root);

/* The vCPU is about to enter its guest, whose general registers but rax, rsp, rip and rflags are @registers. */
bool svm_stand_in_gate(struct gate_vcpu *vcpu, const struct kvm_regs *registers,
		       struct error *error);

/* gate_svm_state.c: parts of struct gate_ops. */
bool svm_save(struct gate_vcpu *vcpu, struct vcpu_state *state, struct error *error);
bool svm_restore(struct gate_vcpu *vcpu, struct fpa root, const struct vcpu_state *state,
		 struct error *error);

#endif
