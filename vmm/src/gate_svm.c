// SPDX-License-Identifier: MIT
/*
 * The svm engine: the engine's tables are the nested tables (NPT) of a guest hypervisor, which is the
 * gate, and a guest is a machine of its own under it. KVM runs the nested guest and shadows the
 * tables.
 *
 * References: AMD APM Vol. 2, chapter "Secure Virtual Machine", and Appendix B, "VMCB layout".
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "gate_internal.h"
#include "linux_boot.h"

/* Pages of GATE_PAGE_COMMON. */
#define IOPM_PAGE   GATE_PAGE_COMMON
#define IOPM_PAGES  3
#define MSRPM_PAGE  (GATE_PAGE_COMMON + IOPM_PAGES)
#define MSRPM_PAGES 2

/* Pages of a vCPU. */
enum { PAGE_GATE, PAGE_VMCB, PAGE_HOST_SAVE };

#define EFER_SVME      (UINT64_C(1) << 12)
#define MSR_HOST_SAVE  0xc0010117u
#define EXIT_INVALID   UINT64_MAX
#define CPUID_BYTES    2 /* of the instruction: without next-RIP saving it is stepped by hand */
#define MSR_BYTES      2 /* of RDMSR and WRMSR */

/* EFER's bits that a guest may set, beside LMA, which follows CR0: SCE, LME, NXE. */
#define EFER_FREE (UINT64_C(1) << 0 | EFER_LME | UINT64_C(1) << 11)
#define EFER_LME  (UINT64_C(1) << 8)
#define EFER_LMA  (UINT64_C(1) << 10)
#define CR0_PG	  (UINT64_C(1) << 31)
#define MSR_EFER  0xc0000080u
#define MSR_PAT	  0x277u

enum svm_exit {
	SVM_EXIT_RDPMC = 0x6f,
	SVM_EXIT_CPUID = 0x72,
	SVM_EXIT_RSM = 0x73,
	SVM_EXIT_HLT = 0x78,
	SVM_EXIT_INVLPGA = 0x7a,
	SVM_EXIT_IO = 0x7b,
	SVM_EXIT_MSR = 0x7c,
	SVM_EXIT_SHUTDOWN = 0x7f,
	SVM_EXIT_VMRUN = 0x80,
	SVM_EXIT_LAST_SVM = 0x86, /* VMRUN to SKINIT */
	SVM_EXIT_MONITOR = 0x8a,
	SVM_EXIT_XSETBV = 0x8d, /* MWAIT lies between */
	SVM_EXIT_NPF = 0x400,
};

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
	uint8_t reserved_60[0x70 - 0x60];
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
	uint8_t reserved_4a0[0x4d0 - 0x4a0];
	uint64_t efer;
	uint8_t reserved_4d8[0x548 - 0x4d8];
	uint64_t cr4, cr3, cr0, dr7, dr6, rflags, rip;
	uint8_t reserved_580[0x5d8 - 0x580];
	uint64_t rsp;
	uint8_t reserved_5e0[0x5f8 - 0x5e0];
	uint64_t rax;
	uint8_t reserved_600[0x668 - 0x600];
	uint64_t pat;
	uint8_t reserved_670[0x1000 - 0x670];
};

_Static_assert(offsetof(struct vmcb, exit_code) == 0x70, "VMCB layout");
_Static_assert(offsetof(struct vmcb, event) == 0xa8, "VMCB layout");
_Static_assert(offsetof(struct vmcb, nested_cr3) == 0xb0, "VMCB layout");
_Static_assert(offsetof(struct vmcb, efer) == 0x4d0, "VMCB layout");
_Static_assert(offsetof(struct vmcb, cr4) == 0x548, "VMCB layout");
_Static_assert(offsetof(struct vmcb, rip) == 0x578, "VMCB layout");
_Static_assert(offsetof(struct vmcb, rax) == 0x5f8, "VMCB layout");
_Static_assert(sizeof(struct vmcb) == EPT_PAGE_BYTES, "VMCB layout");

/* What is intercepted, and so reaches the gate and not KVM: docs/security.md says why. */
#define INTERCEPT_1                                                                               \
	(UINT32_C(1) << 1    /* NMI */                                                            \
	 | UINT32_C(1) << 15 /* RDPMC */                                                          \
	 | UINT32_C(1) << 18 /* CPUID */                                                          \
	 | UINT32_C(1) << 19 /* RSM */                                                            \
	 | UINT32_C(1) << 26 /* INVLPGA */                                                        \
	 | UINT32_C(1) << 27 /* ports, by the permission map */                                   \
	 | UINT32_C(1) << 28 /* MSRs, by the permission map */                                    \
	 | UINT32_C(1) << 29 /* task switches */                                                  \
	 | UINT32_C(1) << 31 /* shutdown */)
/* HLT, where nothing would wake a guest. KVM halts the vCPU of one with interrupts. */
#define INTERCEPT_HLT (UINT32_C(1) << 24)
/* VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT; MONITOR, MWAIT (both kinds), XSETBV. */
#define INTERCEPT_2 (UINT32_C(0x7f) | UINT32_C(0xf) << 10)

static struct vmcb *vmcb_of(const struct gate_vcpu *vcpu)
{
	return gate_vcpu_memory(vcpu, PAGE_VMCB);
}

/* Two bits for each MSR; 0xc000_0000 and up are the map's second part. */
static void free_msr(uint8_t *map, uint32_t msr)
{
	uint32_t bit = 2 * (msr & 0x1fff);

	if (msr >= 0xc0000000)
		map += 0x800;
	map[bit / 8] &= (uint8_t)~(3u << bit % 8);
}

static void write_msr_map(const struct gate *gate)
{
	uint8_t *msrs = gate_memory(gate, MSRPM_PAGE);
	uint32_t msr;

	memset(msrs, 0xff, MSRPM_PAGES * EPT_PAGE_BYTES);
	for (unsigned i = 0; (msr = machine_free_msr(gate->guests, i)); i++)
		free_msr(msrs, msr);
}

static bool svm_create(struct gate *gate, struct error *error)
{
	(void)error;
	machine_write_ports(gate, gate_memory(gate, IOPM_PAGE), 8 * IOPM_PAGES * EPT_PAGE_BYTES);
	write_msr_map(gate);
	return true;
}

/* VM_HSAVE_PA: where VMRUN keeps the gate's own state. */
static bool svm_prepare(struct gate_vcpu *vcpu, struct error *error)
{
	return gate_set_msr(vcpu, MSR_HOST_SAVE, gate_vcpu_at(vcpu, PAGE_HOST_SAVE), error);
}

static struct vmcb_segment flat(uint16_t selector, uint16_t attributes)
{
	return (struct vmcb_segment){ selector, attributes, 0xffffffff, 0 };
}

static void write_control(const struct gate_vcpu *vcpu, struct vmcb *vmcb, struct fpa root)
{
	vmcb->intercept_1 = INTERCEPT_1;
	if (vcpu->gate->guests == GATE_PROGRAMS)
		vmcb->intercept_1 |= INTERCEPT_HLT;
	vmcb->intercept_2 = INTERCEPT_2;
	vmcb->iopm = IOPM_PAGE * EPT_PAGE_BYTES;
	vmcb->msrpm = MSRPM_PAGE * EPT_PAGE_BYTES;
	vmcb->asid = vcpu->index + 1;
	vmcb->nested_enable = 1;
	vmcb->nested_cr3 = root.v;
}

/* What all guests start with: no tables but the GDT, and registers as they are after a reset. */
static void write_processor(struct vmcb *vmcb)
{
	vmcb->ldtr.attributes = 0x82;
	vmcb->tr = (struct vmcb_segment){ 24, 0x8b, 0xffff, 0 };
	vmcb->dr6 = 0xffff0ff0;
	vmcb->dr7 = 0x400;
	vmcb->pat = UINT64_C(0x0007040600070406);
}

/*
 * A program starts in 64-bit mode with its own tables, and without descriptor tables: an exception
 * that it is not prepared for shuts it down.
 */
static void write_program(struct vmcb *vmcb, const struct gate_start *start)
{
	write_processor(vmcb);
	vmcb->cs = flat(8, 0xa9b);
	vmcb->ss = vmcb->ds = vmcb->es = vmcb->fs = vmcb->gs = flat(16, 0xc93);
	vmcb->efer = EFER_SVME | 0xd00;
	vmcb->cr0 = 0x80010033;
	vmcb->cr3 = start->machine_root.v;
	vmcb->cr4 = 0x620;
	vmcb->rflags = 2;
	vmcb->rip = start->entry.v;
	vmcb->rsp = start->stack.v;
}

/* A descriptor's type and flags, as a VMCB has them side by side: APM Vol. 2, "VMCB segments". */
static struct vmcb_segment segment_of(uint16_t selector, uint64_t descriptor)
{
	return flat(selector,
		    (uint16_t)((descriptor >> 40 & 0xff) | (descriptor >> 52 & 0xf) << 8));
}

/* As the boot protocol wants it. */
static void write_linux(struct vmcb *vmcb, const struct linux_start *start)
{
	write_processor(vmcb);
	vmcb->cs = segment_of(start->code_selector, start->code);
	vmcb->ss = segment_of(start->data_selector, start->data);
	vmcb->ds = vmcb->es = vmcb->fs = vmcb->gs = vmcb->ss;
	vmcb->gdtr = (struct vmcb_segment){ .limit = start->gdt_limit, .base = start->gdt.v };
	vmcb->efer = EFER_SVME | start->efer;
	vmcb->cr0 = start->cr0;
	vmcb->cr3 = start->cr3;
	vmcb->cr4 = start->cr4;
	vmcb->rflags = start->rflags;
	vmcb->rip = start->rip;
}

static bool svm_start(struct gate_vcpu *vcpu, const struct gate_start *start, struct error *error)
{
	struct vmcb *vmcb = vmcb_of(vcpu);

	memset(vmcb, 0, sizeof(*vmcb));
	write_control(vcpu, vmcb, start->root);
	if (start->linux_start)
		write_linux(vmcb, start->linux_start);
	else
		write_program(vmcb, start);
	if (!gate_set_sregs(vcpu, vcpu->gate->service_root, SELECTOR_GATE_CODE,
			    SELECTOR_GATE_DATA, EFER_SVME, 0, error))
		return false;
	vcpu->run->s.regs.regs = gate_first_registers(start);
	vcpu->run->s.regs.regs.rip = gate_label(gate_svm_enter);
	vcpu->run->s.regs.regs.rax = gate_vcpu_at(vcpu, PAGE_VMCB);
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return true;
}

/* A nested page fault: APM Vol. 2, "Nested page faults", EXITINFO1. */
static void decode_fault(const struct vmcb *vmcb, struct gate_exit *exit)
{
	exit->kind = GATE_EXIT_FAULT;
	exit->gpa.v = vmcb->exit_info_2;
	exit->error_code = vmcb->exit_info_1;
	exit->access = EPT_READ;
	if (vmcb->exit_info_1 & 1u << 1)
		exit->access = EPT_WRITE;
	else if (vmcb->exit_info_1 & 1u << 4)
		exit->access = EPT_EXEC;
}

/* The processor's rax is in the VMCB while the gate runs; the others are in the vCPU. */
static struct kvm_regs guest_registers(const struct gate_vcpu *vcpu, const struct vmcb *vmcb)
{
	struct kvm_regs registers = vcpu->run->s.regs.regs;

	registers.rax = vmcb->rax;
	return registers;
}

static void set_guest_registers(struct gate_vcpu *vcpu, struct vmcb *vmcb,
				const struct kvm_regs *registers)
{
	uint64_t rax = vcpu->run->s.regs.regs.rax;

	vmcb->rax = registers->rax;
	vcpu->run->s.regs.regs = *registers;
	vcpu->run->s.regs.regs.rax = rax;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

static void serve_cpuid(struct gate_vcpu *vcpu, struct vmcb *vmcb)
{
	struct kvm_regs registers = guest_registers(vcpu, vmcb);

	machine_cpuid(vcpu->gate, &registers);
	set_guest_registers(vcpu, vmcb, &registers);
	vmcb->rip += CPUID_BYTES;
}

/* The error code comes with the event. */
static void deliver_again(struct vmcb *vmcb)
{
	vmcb->event = machine_event_again(vmcb->exit_int_info);
}

/*
 * EFER is the guest's but for SVME, without which KVM takes the vCPU for one that runs no guest.
 * LME cannot change while there is paging.
 */
static bool access_efer(struct vmcb *vmcb, struct machine_msr *msr)
{
	uint64_t kept = EFER_SVME | (vmcb->efer & EFER_LMA);

	if (!msr->write) {
		msr->value = vmcb->efer & ~EFER_SVME;
		return true;
	}
	if (msr->value & ~(EFER_FREE | EFER_LMA) ||
	    (vmcb->cr0 & CR0_PG && (msr->value ^ vmcb->efer) & EFER_LME))
		return false;
	vmcb->efer = kept | (msr->value & EFER_FREE);
	return true;
}

/* Each byte is a memory type; 2 and 3 are none, nor is what is above 7. */
static bool access_pat(struct vmcb *vmcb, struct machine_msr *msr)
{
	if (!msr->write) {
		msr->value = vmcb->pat;
		return true;
	}
	for (unsigned shift = 0; shift < 64; shift += 8) {
		unsigned type = msr->value >> shift & 0xff;

		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	vmcb->pat = msr->value;
	return true;
}

static bool access_msr(const struct gate_vcpu *vcpu, struct vmcb *vmcb, struct machine_msr *msr)
{
	switch (msr->index) {
	case MSR_EFER:
		return access_efer(vmcb, msr);
	case MSR_PAT:
		return access_pat(vmcb, msr);
	default:
		return machine_msr(vcpu, msr);
	}
}

static void serve_msr(struct gate_vcpu *vcpu, struct vmcb *vmcb)
{
	struct kvm_regs registers = guest_registers(vcpu, vmcb);
	struct machine_msr msr = machine_msr_asked(&registers, vmcb->exit_info_1 & 1);

	if (!access_msr(vcpu, vmcb, &msr)) {
		vmcb->event = machine_exception(MACHINE_GP);
		return;
	}
	machine_msr_answer(&msr, &registers);
	set_guest_registers(vcpu, vmcb, &registers);
	vmcb->rip += MSR_BYTES;
}

/* What a Linux guest's processor does not have, and the exception that its instructions cause. */
static bool serve_absent(struct vmcb *vmcb)
{
	switch (vmcb->exit_code) {
	case SVM_EXIT_RDPMC:
		vmcb->event = machine_exception(MACHINE_GP);
		return true;
	case SVM_EXIT_RSM:
	case SVM_EXIT_INVLPGA:
	case SVM_EXIT_VMRUN ... SVM_EXIT_LAST_SVM:
	case SVM_EXIT_MONITOR ... SVM_EXIT_XSETBV:
		vmcb->event = machine_exception(MACHINE_UD);
		return true;
	default:
		return false;
	}
}

/* False: it is something that ends the guest. */
static bool serve_linux(struct gate_vcpu *vcpu, struct vmcb *vmcb)
{
	if (vcpu->gate->guests != GATE_LINUX)
		return false;
	if (vmcb->exit_code != SVM_EXIT_MSR)
		return serve_absent(vmcb);
	serve_msr(vcpu, vmcb);
	return true;
}

/* The consistency checks of VMRUN failed: the VMM's mistake, not the guest's. */
static void decode_invalid(const struct vmcb *vmcb, struct gate_exit *exit)
{
	exit->kind = GATE_EXIT_HOST;
	snprintf(exit->text, sizeof(exit->text),
		 "VMRUN refused its VMCB: a consistency check failed (cr0 %#llx cr3 %#llx cr4 %#llx efer %#llx)",
		 (unsigned long long)vmcb->cr0, (unsigned long long)vmcb->cr3,
		 (unsigned long long)vmcb->cr4, (unsigned long long)vmcb->efer);
}

static void refuse(const struct gate_vcpu *vcpu, const struct vmcb *vmcb, struct gate_exit *exit)
{
	uint64_t info = vmcb->exit_info_1;

	switch (vmcb->exit_code) {
	case SVM_EXIT_HLT:
		machine_refuse(exit, MACHINE_HALT, 0);
		break;
	case SVM_EXIT_SHUTDOWN:
		machine_refuse(exit, MACHINE_TRIPLE_FAULT, 0);
		break;
	case SVM_EXIT_IO:
		machine_refuse(exit, info & 1 ? MACHINE_PORT_IN : MACHINE_PORT_OUT,
			       info >> 16 & 0xffff);
		break;
	case SVM_EXIT_MSR:
		machine_refuse(exit, info & 1 ? MACHINE_MSR_WRITE : MACHINE_MSR_READ,
			       vcpu->run->s.regs.regs.rcx & 0xffffffff);
		break;
	case SVM_EXIT_VMRUN ... SVM_EXIT_LAST_SVM:
		machine_refuse(exit, MACHINE_HYPERVISOR, vmcb->exit_code);
		break;
	case EXIT_INVALID:
		decode_invalid(vmcb, exit);
		break;
	default:
		machine_refuse(exit, MACHINE_OTHER, vmcb->exit_code);
		break;
	}
}

static void decode_exit(struct gate_vcpu *vcpu, struct vmcb *vmcb, struct gate_exit *exit)
{
	deliver_again(vmcb);
	if (vmcb->exit_code == SVM_EXIT_NPF) {
		decode_fault(vmcb, exit);
	} else if (vmcb->exit_code == SVM_EXIT_CPUID) {
		serve_cpuid(vcpu, vmcb);
		exit->kind = GATE_EXIT_SERVED;
	} else if (serve_linux(vcpu, vmcb)) {
		exit->kind = GATE_EXIT_SERVED;
	} else {
		refuse(vcpu, vmcb, exit);
	}
}

static void svm_decode(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	if (gate_port(vcpu) == GATE_PORT_EXIT) {
		decode_exit(vcpu, vmcb_of(vcpu), exit);
		return;
	}
	exit->kind = GATE_EXIT_HOST;
	snprintf(exit->text, sizeof(exit->text),
		 "the gate itself took an exception: port %#x, rip %#llx", gate_port(vcpu),
		 vcpu->run->s.regs.regs.rip);
}

/* VMRUN reads the root anew, and KVM synchronizes and flushes at each. */
static const unsigned char *svm_finish_list(struct gate_vcpu *vcpu, const struct fpa *root,
					    uint64_t *list_end)
{
	(void)list_end;
	vmcb_of(vcpu)->nested_cr3 = root->v;
	return gate_chain_end;
}

static void svm_go_back(struct gate_vcpu *vcpu, struct kvm_regs *registers)
{
	registers->rip = gate_label(gate_svm_enter);
	registers->rax = gate_vcpu_at(vcpu, PAGE_VMCB);
}

/*
 * Where the vCPU is in its gate, VMRUN is still to come. From its guest an NMI takes it there, and
 * stays pending as long as GIF is 0.
 */
static bool svm_pass(struct gate_vcpu *vcpu, const struct fpa *root, struct error *error)
{
	struct kvm_regs registers;
	bool in_guest;
	bool taken;

	if (!gate_in_guest(vcpu, &in_guest, error))
		return false;
	vcpu->runs++;
	if (!in_guest) {
		vmcb_of(vcpu)->nested_cr3 = root->v;
		return true;
	}
	if (!gate_interrupt(vcpu, error))
		return false;
	deliver_again(vmcb_of(vcpu));
	vmcb_of(vcpu)->nested_cr3 = root->v;
	registers = vcpu->run->s.regs.regs;
	taken = gate_run_chain(vcpu, gate_label(gate_svm_take_nmi), gate_stack(vcpu), error);
	svm_go_back(vcpu, &registers);
	vcpu->run->s.regs.regs = registers;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return taken;
}

static void svm_registers(const struct gate_vcpu *vcpu, const struct gate_exit *exit,
			  struct kvm_regs *registers)
{
	const struct vmcb *vmcb = vmcb_of(vcpu);

	(void)exit;
	if (vcpu->run->exit_reason != KVM_EXIT_IO || gate_port(vcpu) != GATE_PORT_EXIT)
		return;
	registers->rax = vmcb->rax;
	registers->rip = vmcb->rip;
	registers->rsp = vmcb->rsp;
	registers->rflags = vmcb->rflags;
}

const struct gate_ops gate_svm_ops = {
	.format = &ept_format_npt,
	.gpa_end = UINT64_C(1) << 47,
	.create = svm_create,
	.prepare = svm_prepare,
	.start = svm_start,
	.decode = svm_decode,
	.finish_list = svm_finish_list,
	.go_back = svm_go_back,
	.pass = svm_pass,
	.registers = svm_registers,
};
