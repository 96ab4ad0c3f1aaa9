// SPDX-License-Identifier: MIT
/*
 * The vmx engine: the engine's tables are the EPT of a guest hypervisor, which is the gate, and a
 * guest is a machine of its own under it. KVM runs the nested guest and shadows the tables.
 *
 * References: Intel SDM Vol. 3C, chapters "Virtual machine control structures" to "VM exits", and
 * Vol. 3D, Appendix A, "VMX capability reporting facility", and B, "Field encoding in VMCS".
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "gate_internal.h"
#include "s2vm/guest_abi.h"

/* Pages of GATE_PAGE_COMMON. */
enum { PORTS_LOW = GATE_PAGE_COMMON, PORTS_HIGH, MSRS };

/* Pages of a vCPU. */
enum { PAGE_GATE, PAGE_VMXON, PAGE_VMCS };

#define CR4_VMXE	    0x2000u
#define MSR_FEATURE_CONTROL 0x3au
#define FEATURE_CONTROL_ON  5u /* locked, VMX allowed outside SMX */

/* Feature MSRs. */
#define MSR_VMX_BASIC	     0x480u
#define MSR_VMX_PROCBASED_2  0x48bu
#define MSR_VMX_EPT_VPID_CAP 0x48cu
#define BASIC_TRUE_CONTROLS  (UINT64_C(1) << 55)
#define EPT_CAP_WALK_4	     (UINT64_C(1) << 6)
#define EPT_CAP_WRITE_BACK   (UINT64_C(1) << 14)
#define EPT_CAP_INVEPT	     (UINT64_C(1) << 20)
#define EPT_CAP_SINGLE	     (UINT64_C(1) << 25)

/* Controls. */
#define PIN_NMI		   (UINT32_C(1) << 3)
#define PROC_HLT	   (UINT32_C(1) << 7)
#define PROC_MWAIT	   (UINT32_C(1) << 10)
#define PROC_RDPMC	   (UINT32_C(1) << 11)
#define PROC_IO_BITMAPS	   (UINT32_C(1) << 25)
#define PROC_MSR_BITMAPS   (UINT32_C(1) << 28)
#define PROC_MONITOR	   (UINT32_C(1) << 29)
#define PROC_SECONDARY	   (UINT32_C(1) << 31)
#define PROC_2_EPT	   (UINT32_C(1) << 1)
#define PROC_2_RDTSCP	   (UINT32_C(1) << 3)
#define EXIT_HOST_64	   (UINT32_C(1) << 9)
#define ENTRY_GUEST_64	   (UINT32_C(1) << 9)

/* An EPT pointer's low bits: write-back, four levels; no accessed and dirty bits. */
#define EPTP_BITS (UINT64_C(6) | UINT64_C(3) << 3)

#define VMCS_EPT_POINTER 0x201au

enum vmx_exit {
	VMX_EXIT_TRIPLE_FAULT = 2,
	VMX_EXIT_CPUID = 10,
	VMX_EXIT_HLT = 12,
	VMX_EXIT_VMCALL = 18,
	VMX_EXIT_VMXON = 27,
	VMX_EXIT_IO = 30,
	VMX_EXIT_RDMSR = 31,
	VMX_EXIT_WRMSR = 32,
	VMX_EXIT_GUEST_STATE = 33,
	VMX_EXIT_EPT_VIOLATION = 48,
	VMX_EXIT_EPT_MISCONFIGURATION = 49,
};

/* What the gate left on its page: GATE_VMX_… of gate_code.h. */
struct vmx_report {
	uint64_t rax;
	uint64_t reason;
	uint64_t qualification;
	uint64_t gpa;
	uint64_t rip;
	uint64_t length;
	uint64_t rsp;
	uint64_t rflags;
};

static const struct vmx_report *report_of(const struct gate_vcpu *vcpu)
{
	return (const struct vmx_report *)gate_layout(vcpu)->report;
}

/* ---- what the processor offers ---- */

static bool feature_msr(const struct host *host, uint32_t index, uint64_t *value,
			struct error *error)
{
	union {
		struct kvm_msrs list;
		char bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} msrs = { .list.nmsrs = 1 };

	msrs.list.entries[0].index = index;
	if (ioctl(host->fd, KVM_GET_MSRS, &msrs) != 1)
		return error_set(error, EXIT_HOST, "this KVM does not tell feature MSR %#x", index);
	*value = msrs.list.entries[0].data;
	return true;
}

/* A control's value: what is wanted, what must be, and nothing that may not be. */
static bool control(const struct host *host, uint32_t msr, uint32_t wanted, uint32_t *value,
		    struct error *error)
{
	uint64_t allowed = 0;

	if (!feature_msr(host, msr, &allowed, error))
		return false;
	*value = (wanted | (uint32_t)allowed) & (uint32_t)(allowed >> 32);
	if ((*value & wanted) != wanted)
		return error_set(error, EXIT_HOST,
				 "this processor lacks VMX controls %#x (feature MSR %#x)",
				 wanted & ~*value, msr);
	return true;
}

static bool read_controls(struct gate *gate, struct error *error)
{
	const struct host *host = gate->host;
	struct gate_vmx *vmx = &gate->vmx;
	uint32_t first = 0x481;
	uint64_t basic = 0;

	if (!feature_msr(host, MSR_VMX_BASIC, &basic, error))
		return false;
	vmx->revision = basic & 0x7fffffff;
	if (basic & BASIC_TRUE_CONTROLS)
		first = 0x48d;
	return control(host, first, PIN_NMI, &vmx->pin, error) &&
	       control(host, first + 1,
		       PROC_SECONDARY | PROC_IO_BITMAPS | PROC_MSR_BITMAPS | PROC_HLT |
			       PROC_MWAIT | PROC_MONITOR | PROC_RDPMC,
		       &vmx->proc, error) &&
	       control(host, MSR_VMX_PROCBASED_2, PROC_2_EPT | PROC_2_RDTSCP, &vmx->proc_2,
		       error) &&
	       control(host, first + 2, EXIT_HOST_64, &vmx->exit, error) &&
	       control(host, first + 3, ENTRY_GUEST_64, &vmx->entry, error);
}

static bool check_ept(struct gate *gate, struct error *error)
{
	uint64_t needed = EPT_CAP_WALK_4 | EPT_CAP_WRITE_BACK | EPT_CAP_INVEPT;
	uint64_t offered;

	if (!feature_msr(gate->host, MSR_VMX_EPT_VPID_CAP, &gate->vmx.ept_features, error))
		return false;
	offered = gate->vmx.ept_features;
	if ((offered & needed) != needed)
		return error_set(error, EXIT_HOST,
				 "this processor's EPT lacks four-level walks, write-back tables or INVEPT (%#llx of %#llx)",
				 (unsigned long long)(offered & needed),
				 (unsigned long long)needed);
	return true;
}

/* ---- what all vCPUs have in common ---- */

/* A bit for each MSR to read, and 2 KiB behind one to write; those from 0xc000_0000 come second. */
static void free_msr(uint8_t *map, uint32_t msr)
{
	uint32_t bit = msr & 0x1fff;

	if (msr >= 0xc0000000)
		map += 0x400;
	map[bit / 8] &= (uint8_t)~(1u << bit % 8);
	map[0x800 + bit / 8] &= (uint8_t)~(1u << bit % 8);
}

static bool vmx_create(struct gate *gate, struct error *error)
{
	uint8_t *ports = gate_memory(gate, PORTS_LOW);
	uint8_t *msrs = gate_memory(gate, MSRS);

	if (!read_controls(gate, error) || !check_ept(gate, error))
		return false;
	memset(ports, 0xff, 2 * EPT_PAGE_BYTES);
	ports[S2VM_CALL_PORT / 8] &= (uint8_t)~(1u << S2VM_CALL_PORT % 8);
	memset(msrs, 0xff, EPT_PAGE_BYTES);
	for (unsigned i = 0; i < MACHINE_FREE_MSRS; i++)
		free_msr(msrs, machine_free_msrs[i]); /* FS and GS base are in the VMCS */
	return true;
}

/* VMXON region and VMCS begin with the revision that the processor wants. */
static bool vmx_prepare(struct gate_vcpu *vcpu, struct error *error)
{
	const uint32_t *revision = &vcpu->gate->vmx.revision;

	memcpy(gate_vcpu_memory(vcpu, PAGE_VMXON), revision, sizeof(*revision));
	memcpy(gate_vcpu_memory(vcpu, PAGE_VMCS), revision, sizeof(*revision));
	return gate_set_msr(vcpu, MSR_FEATURE_CONTROL, FEATURE_CONTROL_ON, error);
}

/* ---- a guest's VMCS ---- */

/* Fields to write, gathered for one run of the gate's chain. */
struct fields {
	uint64_t *list;
	size_t count;
};

static void put(struct fields *fields, uint64_t field, uint64_t value)
{
	fields->list[2 * fields->count] = field;
	fields->list[2 * fields->count + 1] = value;
	fields->count++;
}

static uint64_t list_at(const struct gate_vcpu *vcpu)
{
	return gate_window(gate_vcpu_at(vcpu, PAGE_GATE) +
			   offsetof(struct gate_page_layout, list));
}

static bool write_fields(struct gate_vcpu *vcpu, const struct fields *fields,
			 struct error *error)
{
	uint64_t end = gate_label(gate_vmx_write_end);

	return gate_run_chain(vcpu, end - fields->count * GATE_CHAIN_WRITE_BYTES, list_at(vcpu),
			      error);
}

static void put_controls(struct fields *fields, const struct gate_vmx *vmx, struct fpa root)
{
	put(fields, 0x4000, vmx->pin);
	put(fields, 0x4002, vmx->proc);
	put(fields, 0x401e, vmx->proc_2);
	put(fields, 0x400c, vmx->exit);
	put(fields, 0x4012, vmx->entry);
	put(fields, 0x2000, PORTS_LOW * EPT_PAGE_BYTES);
	put(fields, 0x2002, PORTS_HIGH * EPT_PAGE_BYTES);
	put(fields, 0x2004, MSRS * EPT_PAGE_BYTES);
	put(fields, VMCS_EPT_POINTER, root.v | EPTP_BITS);
	put(fields, 0x2800, UINT64_MAX); /* no linked VMCS */
	put(fields, 0x4004, 0);		 /* exceptions are the guest's own */
	put(fields, 0x6000, 0);		 /* CR0 is its own too, */
	put(fields, 0x6002, CR4_VMXE);	 /* CR4 but for VMXE, which it sees as 0 */
	put(fields, 0x6006, 0);
}

/* ES, CS, SS, DS, FS, GS, LDTR, TR, in the order of their fields. */
struct vmcs_segment {
	uint64_t selector;
	uint64_t limit;
	uint64_t access;
};

static void put_segments(struct fields *fields)
{
	static const struct vmcs_segment segments[] = {
		{ 16, 0xffffffff, 0xc093 }, { 8, 0xffffffff, 0xa09b },
		{ 16, 0xffffffff, 0xc093 }, { 16, 0xffffffff, 0xc093 },
		{ 16, 0xffffffff, 0xc093 }, { 16, 0xffffffff, 0xc093 },
		{ 0, 0, 0x10000 },	    { 24, 0xffff, 0x8b },
	};

	for (unsigned i = 0; i < sizeof(segments) / sizeof(segments[0]); i++) {
		put(fields, 0x0800 + 2 * i, segments[i].selector);
		put(fields, 0x4800 + 2 * i, segments[i].limit);
		put(fields, 0x4814 + 2 * i, segments[i].access);
		put(fields, 0x6806 + 2 * i, 0);
	}
	put(fields, 0x4810, 0); /* limits of GDTR and IDTR: an unexpected exception is a triple fault */
	put(fields, 0x4812, 0);
	put(fields, 0x6816, 0);
	put(fields, 0x6818, 0);
}

static void put_guest(struct fields *fields, const struct gate_start *start)
{
	put_segments(fields);
	put(fields, 0x6800, 0x80010033);
	put(fields, 0x6802, start->machine_root.v);
	put(fields, 0x6804, 0x620 | CR4_VMXE);
	put(fields, 0x681a, 0x400); /* DR7 */
	put(fields, VMCS_GUEST_RSP, start->stack.v);
	put(fields, VMCS_GUEST_RIP, start->entry.v);
	put(fields, VMCS_GUEST_RFLAGS, 2);
	put(fields, 0x4824, 0); /* interruptibility */
	put(fields, 0x4826, 0); /* active */
	put(fields, 0x6822, 0); /* no pending debug exceptions */
	put(fields, 0x2802, 0); /* DEBUGCTL */
	put(fields, 0x482a, 0); /* SYSENTER */
	put(fields, 0x6824, 0);
	put(fields, 0x6826, 0);
}

/* The gate's own state, to which the processor returns. */
static void put_host(struct fields *fields, const struct gate_vcpu *vcpu)
{
	uint64_t page = gate_window(gate_vcpu_at(vcpu, PAGE_GATE));

	put(fields, 0x0c00, SELECTOR_GATE_DATA);
	put(fields, 0x0c02, SELECTOR_GATE_CODE);
	put(fields, 0x0c04, SELECTOR_GATE_DATA);
	put(fields, 0x0c06, SELECTOR_GATE_DATA);
	put(fields, 0x0c08, SELECTOR_GATE_DATA);
	put(fields, 0x0c0a, SELECTOR_GATE_DATA);
	put(fields, 0x0c0c, SELECTOR_TSS);
	put(fields, 0x6c00, 0x80010033);
	put(fields, 0x6c02, vcpu->gate->service_root.v);
	put(fields, 0x6c04, 0x620 | CR4_VMXE);
	put(fields, 0x6c06, 0);
	put(fields, 0x6c08, 0);
	put(fields, 0x6c0a, page); /* TR */
	put(fields, 0x6c0c, gate_window(GATE_PAGE_GDT * EPT_PAGE_BYTES));
	put(fields, 0x6c0e, gate_window(GATE_PAGE_IDT * EPT_PAGE_BYTES));
	put(fields, 0x6c14, page + offsetof(struct gate_page_layout, report));
	put(fields, 0x6c16, gate_label(gate_vmx_exit));
}

/* VMXON, and a VMCS that is current and clear. */
static bool begin_vmx(struct gate_vcpu *vcpu, struct error *error)
{
	uint64_t *list = gate_layout(vcpu)->list;

	list[0] = gate_vcpu_at(vcpu, PAGE_VMXON);
	list[1] = gate_vcpu_at(vcpu, PAGE_VMCS);
	return gate_run_chain(vcpu, gate_label(gate_vmx_begin), list_at(vcpu), error);
}

static bool vmx_start(struct gate_vcpu *vcpu, const struct gate_start *start, struct error *error)
{
	struct fields fields = { .list = gate_layout(vcpu)->list };

	if (!gate_set_sregs(vcpu, vcpu->gate->service_root, SELECTOR_GATE_CODE,
			    SELECTOR_GATE_DATA, 0, CR4_VMXE, error) ||
	    (!vcpu->entered && !begin_vmx(vcpu, error)))
		return false;
	put_controls(&fields, &vcpu->gate->vmx, start->root);
	put_host(&fields, vcpu);
	if (!write_fields(vcpu, &fields, error))
		return false;
	fields.count = 0;
	put_guest(&fields, start);
	if (!write_fields(vcpu, &fields, error))
		return false;
	vcpu->run->s.regs.regs = gate_first_registers(start);
	vcpu->run->s.regs.regs.rip =
		gate_label(vcpu->entered ? gate_vmx_resume : gate_vmx_launch);
	vcpu->run->s.regs.regs.rflags = 2;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	vcpu->entered = true;
	return true;
}

/* ---- exits ---- */

/* SDM Vol. 3C, "VM-instruction error numbers", those that an entry can end with. */
static const char *entry_error(uint64_t number)
{
	switch (number) {
	case 4:
		return "VMLAUNCH with a VMCS that is not clear";
	case 5:
		return "VMRESUME with a VMCS that was not launched";
	case 7:
		return "a control field is invalid";
	case 8:
		return "a host-state field is invalid";
	case 26:
		return "events are blocked by MOV SS";
	default:
		return "see the SDM's list of VM-instruction errors";
	}
}

/* SDM Vol. 3C, "Exit qualification for EPT violations": bit 1 write, bit 2 fetch. */
static void decode_violation(const struct vmx_report *report, struct gate_exit *exit)
{
	exit->kind = GATE_EXIT_FAULT;
	exit->gpa.v = report->gpa;
	exit->error_code = report->qualification;
	exit->access = EPT_READ;
	if (report->qualification & 1u << 1)
		exit->access = EPT_WRITE;
	else if (report->qualification & 1u << 2)
		exit->access = EPT_EXEC;
}

/* Answers CPUID and steps over it. The gate has left all registers as the guest's. */
static void serve_cpuid(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	const struct vmx_report *report = report_of(vcpu);
	struct fields fields = { .list = gate_layout(vcpu)->list };
	struct kvm_regs registers = vcpu->run->s.regs.regs;
	struct error error;

	exit->kind = GATE_EXIT_SERVED;
	machine_cpuid(vcpu->gate, &registers);
	put(&fields, VMCS_GUEST_RIP, report->rip + report->length);
	if (!write_fields(vcpu, &fields, &error)) {
		exit->kind = GATE_EXIT_HOST;
		snprintf(exit->text, sizeof(exit->text), "%.150s", error.text);
	}
	registers.rip = gate_label(gate_vmx_resume);
	vcpu->run->s.regs.regs = registers;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

/* What the VMM has set up wrongly is not the guest's mistake, and is said in the manual's words. */
static void decode_setup(const struct vmx_report *report, struct gate_exit *exit)
{
	exit->kind = GATE_EXIT_HOST;
	if (report->reason == VMX_EXIT_EPT_MISCONFIGURATION)
		snprintf(exit->text, sizeof(exit->text),
			 "the entry that translates %#llx is misconfigured",
			 (unsigned long long)report->gpa);
	else
		snprintf(exit->text, sizeof(exit->text),
			 "VM entry refused its guest state, qualification %#llx",
			 (unsigned long long)report->qualification);
}

static void refuse(const struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	const struct vmx_report *report = report_of(vcpu);
	uint64_t msr = vcpu->run->s.regs.regs.rcx & 0xffffffff;
	unsigned reason = report->reason & 0xffff;

	switch (reason) {
	case VMX_EXIT_HLT:
		machine_refuse(exit, MACHINE_HALT, 0);
		break;
	case VMX_EXIT_TRIPLE_FAULT:
		machine_refuse(exit, MACHINE_TRIPLE_FAULT, 0);
		break;
	case VMX_EXIT_IO:
		machine_refuse(exit,
			       report->qualification & 1u << 3 ? MACHINE_PORT_IN :
								 MACHINE_PORT_OUT,
			       report->qualification >> 16 & 0xffff);
		break;
	case VMX_EXIT_RDMSR:
		machine_refuse(exit, MACHINE_MSR_READ, msr);
		break;
	case VMX_EXIT_WRMSR:
		machine_refuse(exit, MACHINE_MSR_WRITE, msr);
		break;
	case VMX_EXIT_VMCALL ... VMX_EXIT_VMXON:
		machine_refuse(exit, MACHINE_HYPERVISOR, reason);
		break;
	case VMX_EXIT_GUEST_STATE:
	case VMX_EXIT_EPT_MISCONFIGURATION:
		decode_setup(report, exit);
		break;
	default:
		machine_refuse(exit, MACHINE_OTHER, reason);
		break;
	}
}

static void decode_exit(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	const struct vmx_report *report = report_of(vcpu);

	switch (report->reason) {
	case VMX_EXIT_EPT_VIOLATION:
		decode_violation(report, exit);
		break;
	case VMX_EXIT_CPUID:
		serve_cpuid(vcpu, exit);
		break;
	default:
		refuse(vcpu, exit);
		break;
	}
}

static void vmx_decode(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	unsigned long long rax = vcpu->run->s.regs.regs.rax;

	if (gate_port(vcpu) == GATE_PORT_EXIT) {
		decode_exit(vcpu, exit);
		return;
	}
	exit->kind = GATE_EXIT_HOST;
	if (gate_port(vcpu) == GATE_PORT_NO_ENTRY)
		snprintf(exit->text, sizeof(exit->text), "VM entry failed with error %llu: %s", rax,
			 entry_error(rax));
	else
		snprintf(exit->text, sizeof(exit->text),
			 "the gate itself took an exception: port %#x, rip %#llx",
			 gate_port(vcpu), vcpu->run->s.regs.regs.rip);
}

/* The EPT pointer, then INVEPT: KVM does not synchronize EPT at an entry by itself. */
static const unsigned char *vmx_finish_list(struct gate_vcpu *vcpu, const struct fpa *root,
					    uint64_t *list_end)
{
	bool single = vcpu->gate->vmx.ept_features & EPT_CAP_SINGLE;

	list_end[0] = VMCS_EPT_POINTER;
	list_end[1] = root->v | EPTP_BITS;
	list_end[2] = single ? 1 : 2; /* this context, or all */
	list_end[3] = root->v | EPTP_BITS;
	list_end[4] = 0;
	return gate_invept_chain_end;
}

static void vmx_go_back(struct gate_vcpu *vcpu, struct kvm_regs *registers)
{
	(void)vcpu;
	registers->rip = gate_label(gate_vmx_resume);
}

/* NMIs are blocked after one that was an exit, until an IRET: to the end of a chain. */
static bool unblock_nmi(struct gate_vcpu *vcpu, struct error *error)
{
	uint64_t *list = gate_layout(vcpu)->list;

	list[0] = gate_label(gate_chain_end);
	list[1] = SELECTOR_GATE_CODE;
	list[2] = 2; /* RFLAGS */
	list[3] = gate_stack(vcpu);
	list[4] = SELECTOR_GATE_DATA;
	return gate_run_chain(vcpu, gate_label(gate_nmi_return), list_at(vcpu), error);
}

/* In its gate or, by an NMI, from its guest there. */
static bool vmx_pass(struct gate_vcpu *vcpu, const struct fpa *root, struct error *error)
{
	struct kvm_regs registers;
	bool in_guest;
	bool passed;

	if (!gate_in_guest(vcpu, &in_guest, error))
		return false;
	if (!in_guest)
		return gate_take_root(vcpu, root, error);
	if (!gate_interrupt(vcpu, error))
		return false;
	registers = vcpu->run->s.regs.regs;
	passed = unblock_nmi(vcpu, error) && gate_take_root(vcpu, root, error);
	vmx_go_back(vcpu, &registers);
	vcpu->run->s.regs.regs = registers;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return passed;
}

static void vmx_registers(const struct gate_vcpu *vcpu, const struct gate_exit *exit,
			  struct kvm_regs *registers)
{
	const struct vmx_report *report = report_of(vcpu);

	(void)exit;
	if (vcpu->run->exit_reason != KVM_EXIT_IO || gate_port(vcpu) != GATE_PORT_EXIT)
		return;
	registers->rip = report->rip;
	registers->rsp = report->rsp;
	registers->rflags = report->rflags;
}

const struct gate_ops gate_vmx_ops = {
	.format = &ept_format_ept,
	.gpa_end = UINT64_C(1) << 47,
	.create = vmx_create,
	.prepare = vmx_prepare,
	.start = vmx_start,
	.decode = vmx_decode,
	.finish_list = vmx_finish_list,
	.go_back = vmx_go_back,
	.pass = vmx_pass,
	.registers = vmx_registers,
};
