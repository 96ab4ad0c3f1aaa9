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

#include "gate_svm.h"
#include "linux_boot.h"

/* Pages of GATE_PAGE_COMMON. */
#define IOPM_PAGE   GATE_PAGE_COMMON
#define IOPM_PAGES  3
#define MSRPM_PAGE  (GATE_PAGE_COMMON + IOPM_PAGES)
#define MSRPM_PAGES 2

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

static void svm_go_back(struct gate_vcpu *vcpu, struct kvm_regs *registers)
{
	registers->rip = gate_label(gate_svm_enter);
	registers->rax = gate_vcpu_at(vcpu, PAGE_VMCB);
}

bool svm_stand_in_gate(struct gate_vcpu *vcpu, const struct kvm_regs *registers,
		       struct error *error)
{
	if (!gate_set_sregs(vcpu, vcpu->gate->service_root, SELECTOR_GATE_CODE,
			    SELECTOR_GATE_DATA, EFER_SVME, 0, error))
		return false;
	vcpu->run->s.regs.regs = *registers;
	/* An interrupt that is pending already is the guest's, and not for the gate before it has entered. */
	vcpu->run->s.regs.regs.rflags = 2;
	svm_go_back(vcpu, &vcpu->run->s.regs.regs);
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return true;
}

static struct vmcb_segment real_mode(uint16_t attributes)
{
	return (struct vmcb_segment){ 0, attributes, 0xffff, 0 };
}

/* As after INIT and a start-up message: APM Vol. 2, "Processor Initialization State". */
static void write_started(struct vmcb *vmcb, uint8_t vector)
{
	write_processor(vmcb);
	vmcb->cs = real_mode(0x9b);
	vmcb->cs.selector = (uint16_t)(vector << 8);
	vmcb->cs.base = (uint64_t)vector << 12;
	vmcb->ds = vmcb->es = vmcb->fs = vmcb->gs = vmcb->ss = real_mode(0x93);
	vmcb->gdtr = vmcb->idtr = vmcb->ldtr = real_mode(0x82);
	vmcb->tr = real_mode(0x8b);
	vmcb->efer = EFER_SVME;
	vmcb->cr0 = 0x60000010;
	vmcb->rflags = 2;
}

struct vmcb *svm_new_vmcb(struct gate_vcpu *vcpu, struct fpa root)
{
	struct vmcb *vmcb = vmcb_of(vcpu);

	memset(vmcb, 0, sizeof(*vmcb));
	write_control(vcpu, vmcb, root);
	return vmcb;
}

static bool svm_start(struct gate_vcpu *vcpu, const struct gate_start *start, struct error *error)
{
	struct vmcb *vmcb = svm_new_vmcb(vcpu, start->root);
	struct kvm_regs registers = gate_first_registers(start);

	if (start->linux_start)
		write_linux(vmcb, start->linux_start);
	else
		write_program(vmcb, start);
	return svm_stand_in_gate(vcpu, &registers, error);
}

static bool svm_start_cpu(struct gate_vcpu *vcpu, const struct fpa *root, uint8_t vector,
			  struct error *error)
{
	struct kvm_regs registers = { .rflags = 2 };

	write_started(svm_new_vmcb(vcpu, *root), vector);
	return svm_stand_in_gate(vcpu, &registers, error);
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

	machine_answer_cpuid(vcpu, &registers);
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

/*
 * Where the vCPU is in its gate, VMRUN is still to come. From its guest an NMI takes it there, and
 * stays pending as long as GIF is 0.
 */
static bool svm_pass(struct gate_vcpu *vcpu, const struct fpa *root, struct error *error)
{
	struct kvm_regs registers;
	struct vmcb *vmcb = vmcb_of(vcpu);
	bool in_guest;
	bool taken;
	int vector;

	if (!gate_in_guest(vcpu, &in_guest, error))
		return false;
	vcpu->runs++;
	vmcb->nested_cr3 = root->v;
	if (!in_guest)
		return true;
	if (!gate_take_interrupt(vcpu, &vector, error) || !gate_interrupt(vcpu, error))
		return false;
	deliver_again(vmcb);
	if (vector >= 0)
		vmcb->event = machine_interrupt((unsigned)vector);
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
	.start_cpu = svm_start_cpu,
	.decode = svm_decode,
	.finish_list = svm_finish_list,
	.go_back = svm_go_back,
	.pass = svm_pass,
	.registers = svm_registers,
	.save = svm_save,
	.restore = svm_restore,
};
