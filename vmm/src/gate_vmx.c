// SPDX-License-Identifier: MIT
/*
 * The vmx engine: the engine's tables are the EPT of a guest hypervisor, which is the gate, and a
 * guest is a machine of its own under it. KVM runs the nested guest and shadows the tables.
 *
 * References: Intel SDM Vol. 3C, chapters "Virtual machine control structures" to "VM exits", and
 * Vol. 3D, Appendix A, "VMX capability reporting facility", and B, "Field encoding in VMCS".
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "gate_vmx.h"
#include "linux_boot.h"
#include "vcpu_state.h"

/* Pages of GATE_PAGE_COMMON. */
enum { PORTS_LOW = GATE_PAGE_COMMON, PORTS_HIGH, MSRS };

/* Pages of a vCPU. */
enum { PAGE_GATE, PAGE_VMXON, PAGE_VMCS };

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
#define PROC_2_ANY_MODE	   (UINT32_C(1) << 7) /* unrestricted guest: also without paging */
#define PROC_2_INVPCID	   (UINT32_C(1) << 12)
#define EXIT_SAVE_DEBUG	   (UINT32_C(1) << 2) /* DR7 and DEBUGCTL */
#define EXIT_HOST_64	   (UINT32_C(1) << 9)
#define EXIT_SAVE_PAT	   (UINT32_C(1) << 18)
#define EXIT_LOAD_PAT	   (UINT32_C(1) << 19)
#define EXIT_SAVE_EFER	   (UINT32_C(1) << 20)
#define EXIT_LOAD_EFER	   (UINT32_C(1) << 21)
#define ENTRY_LOAD_DEBUG   (UINT32_C(1) << 2)
#define ENTRY_GUEST_64	   (UINT32_C(1) << 9) /* kept by the processor where all modes are the guest's */
#define ENTRY_LOAD_PAT	   (UINT32_C(1) << 14)
#define ENTRY_LOAD_EFER	   (UINT32_C(1) << 15)

#define MSR_EFER  0xc0000080u
#define MSR_PAT	  0x277u
#define PAT_RESET UINT64_C(0x0007040600070406)
#define GATE_EFER UINT64_C(0xd00) /* NXE, LMA, LME */

/* Where it is 0, in real mode, exceptions have no error code. */
#define CR0_PE UINT64_C(1)

/* An EPT pointer's low bits: write-back, four levels; no accessed and dirty bits. */
#define EPTP_BITS (UINT64_C(6) | UINT64_C(3) << 3)

#define VMCS_EPT_POINTER 0x201au

/* An event's bits that an entry takes: vector, type, error code, valid; all others must be 0. */
#define EVENT_BITS UINT64_C(0x80000fff)

enum vmx_exit {
	VMX_EXIT_TRIPLE_FAULT = 2,
	VMX_EXIT_CPUID = 10,
	VMX_EXIT_GETSEC = 11,
	VMX_EXIT_HLT = 12,
	VMX_EXIT_INVD = 13,
	VMX_EXIT_RDPMC = 15,
	VMX_EXIT_VMCALL = 18,
	VMX_EXIT_VMXON = 27,
	VMX_EXIT_CONTROL_REGISTER = 28,
	VMX_EXIT_IO = 30,
	VMX_EXIT_RDMSR = 31,
	VMX_EXIT_WRMSR = 32,
	VMX_EXIT_GUEST_STATE = 33,
	VMX_EXIT_MWAIT = 36,
	VMX_EXIT_MONITOR = 39,
	VMX_EXIT_EPT_VIOLATION = 48,
	VMX_EXIT_EPT_MISCONFIGURATION = 49,
	VMX_EXIT_INVEPT = 50,
	VMX_EXIT_INVVPID = 53,
	VMX_EXIT_XSETBV = 55,
	VMX_EXIT_VMFUNC = 59,
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
	uint64_t event;
	uint64_t event_error;
};

_Static_assert(sizeof(struct vmx_report) == GATE_VMX_REPORT_BYTES, "as the gate leaves it");

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

/* What guests want of the processor. */
struct wanted_controls {
	uint32_t pin, proc, proc_2, exit, entry;
};

/*
 * A kernel goes through all modes, changes EFER and PAT, and has its debug registers; where it halts an
 * interrupt wakes it. External interrupts do not come to the gate: KVM injects those of the vCPU's local
 * APIC into the guest (nested_exit_on_intr() in Linux's arch/x86/kvm/vmx/nested.c).
 */
static struct wanted_controls wanted_by(const struct gate *gate)
{
	struct wanted_controls wanted = {
		.pin = PIN_NMI,
		.proc = PROC_SECONDARY | PROC_IO_BITMAPS | PROC_MSR_BITMAPS | PROC_MWAIT |
			PROC_MONITOR | PROC_RDPMC,
		.proc_2 = PROC_2_EPT | PROC_2_RDTSCP,
		.exit = EXIT_HOST_64,
		.entry = ENTRY_GUEST_64,
	};

	if (gate->guests == GATE_PROGRAMS) {
		wanted.proc |= PROC_HLT;
		return wanted;
	}
	wanted.proc_2 |= PROC_2_ANY_MODE;
	if (machine_has_invpcid(gate))
		wanted.proc_2 |= PROC_2_INVPCID;
	wanted.exit |= EXIT_SAVE_DEBUG | EXIT_SAVE_PAT | EXIT_LOAD_PAT | EXIT_SAVE_EFER |
		       EXIT_LOAD_EFER;
	wanted.entry |= ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER;
	return wanted;
}

static bool read_controls(struct gate *gate, struct error *error)
{
	const struct wanted_controls wanted = wanted_by(gate);
	const struct host *host = gate->host;
	struct gate_vmx *vmx = &gate->vmx;
	uint32_t first = 0x481;
	uint64_t basic = 0;

	if (!feature_msr(host, MSR_VMX_BASIC, &basic, error))
		return false;
	vmx->revision = basic & 0x7fffffff;
	if (basic & BASIC_TRUE_CONTROLS)
		first = 0x48d;
	return control(host, first, wanted.pin, &vmx->pin, error) &&
	       control(host, first + 1, wanted.proc, &vmx->proc, error) &&
	       control(host, MSR_VMX_PROCBASED_2, wanted.proc_2, &vmx->proc_2, error) &&
	       control(host, first + 2, wanted.exit, &vmx->exit, error) &&
	       control(host, first + 3, wanted.entry, &vmx->entry, error);
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

/* EFER and PAT, FS and GS base are in the VMCS; KVM checks what is written to them. */
static void write_msr_map(const struct gate *gate)
{
	uint8_t *msrs = gate_memory(gate, MSRS);
	uint32_t msr;

	memset(msrs, 0xff, EPT_PAGE_BYTES);
	for (unsigned i = 0; (msr = machine_free_msr(gate->guests, i)); i++)
		free_msr(msrs, msr);
	if (gate->guests == GATE_PROGRAMS)
		return;
	free_msr(msrs, MSR_EFER);
	free_msr(msrs, MSR_PAT);
}

static bool vmx_create(struct gate *gate, struct error *error)
{
	if (!read_controls(gate, error) || !check_ept(gate, error))
		return false;
	machine_write_ports(gate, gate_memory(gate, PORTS_LOW), 2 * 8 * EPT_PAGE_BYTES);
	write_msr_map(gate);
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

static uint64_t list_at(const struct gate_vcpu *vcpu)
{
	return gate_window(gate_vcpu_at(vcpu, PAGE_GATE) +
			   offsetof(struct gate_page_layout, list));
}

static bool write_fields(struct gate_vcpu *vcpu, const struct vmx_fields *fields,
			 struct error *error)
{
	uint64_t end = gate_label(gate_vmx_write_end);

	return gate_run_chain(vcpu, end - fields->count * GATE_CHAIN_WRITE_BYTES, list_at(vcpu),
			      error);
}

/* Each value takes the place of its field on the list that the gate reads, which is behind it by then. */
bool vmx_read_fields(struct gate_vcpu *vcpu, struct vmx_fields *fields, struct error *error)
{
	struct kvm_regs registers = vcpu->run->s.regs.regs;
	uint64_t *list = gate_layout(vcpu)->list;
	bool done;

	for (size_t i = 0; i < fields->count; i++) {
		list[2 * i] = fields->list[2 * i];
		list[2 * i + 1] = list_at(vcpu) + 2 * i * sizeof(*list);
	}
	done = gate_run_chain(vcpu,
			      gate_label(gate_vmx_read_end) - fields->count * GATE_CHAIN_READ_BYTES,
			      list_at(vcpu), error);
	for (size_t i = 0; i < fields->count; i++)
		fields->list[2 * i + 1] = list[2 * i];
	vcpu->run->s.regs.regs = registers;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return done;
}

static bool read_field(struct gate_vcpu *vcpu, uint64_t field, uint64_t *value,
		       struct error *error)
{
	uint64_t list[2] = { field };
	struct vmx_fields fields = { list, 1 };
	bool done = vmx_read_fields(vcpu, &fields, error);

	*value = list[1];
	return done;
}

/* ---- what is written on the way back to the guest ---- */

/* Until the guest is entered, this stands in the vCPU's page: chains may run before. */
static void order(struct gate_vcpu *vcpu, uint64_t field, uint64_t value)
{
	uint64_t *at = &gate_layout(vcpu)->orders[2 * vcpu->orders];

	assert(vcpu->orders < GATE_CHAIN_ORDERS);
	at[0] = field;
	at[1] = value;
	vcpu->orders++;
}

static void vmx_go_back(struct gate_vcpu *vcpu, struct kvm_regs *registers)
{
	uint64_t *end = &gate_layout(vcpu)->orders[2 * vcpu->orders];

	registers->rip = gate_label(gate_vmx_resume);
	if (!vcpu->orders)
		return;
	end[0] = registers->rcx;
	end[1] = registers->rdx;
	registers->rip = gate_label(gate_vmx_orders_end) - vcpu->orders * GATE_CHAIN_WRITE_BYTES;
	registers->rsp = gate_window(gate_vcpu_at(vcpu, PAGE_GATE) +
				     offsetof(struct gate_page_layout, orders));
}

/* Behind the instruction that came out, which was not delayed by the one before it any more. */
static void step(struct gate_vcpu *vcpu)
{
	const struct vmx_report *report = report_of(vcpu);

	order(vcpu, VMCS_GUEST_RIP, report->rip + report->length);
	order(vcpu, VMCS_INTERRUPTIBILITY, 0);
}

static void deliver_again(struct gate_vcpu *vcpu)
{
	const struct vmx_report *report = report_of(vcpu);
	uint64_t event = machine_event_again(report->event) & EVENT_BITS;

	if (!event)
		return;
	order(vcpu, VMCS_ENTRY_EVENT, event);
	order(vcpu, VMCS_ENTRY_ERROR, report->event_error);
}

/* In real mode exceptions have no error codes, and an entry with one fails. */
static bool inject(struct gate_vcpu *vcpu, enum machine_vector vector, struct error *error)
{
	uint64_t event = machine_exception(vector);
	uint64_t cr0;

	if (event & MACHINE_EVENT_ERROR_CODE) {
		if (!read_field(vcpu, VMCS_GUEST_CR0, &cr0, error))
			return false;
		if (!(cr0 & CR0_PE))
			event &= ~MACHINE_EVENT_ERROR_CODE;
	}
	order(vcpu, VMCS_ENTRY_EVENT, event);
	order(vcpu, VMCS_ENTRY_ERROR, 0);
	return true;
}

/* ---- a guest's start ---- */

static void put_controls(struct vmx_fields *fields, const struct gate_vmx *vmx, struct fpa root)
{
	vmx_put(fields, 0x4000, vmx->pin);
	vmx_put(fields, 0x4002, vmx->proc);
	vmx_put(fields, 0x401e, vmx->proc_2);
	vmx_put(fields, 0x400c, vmx->exit);
	vmx_put(fields, 0x2000, PORTS_LOW * EPT_PAGE_BYTES);
	vmx_put(fields, 0x2002, PORTS_HIGH * EPT_PAGE_BYTES);
	vmx_put(fields, 0x2004, MSRS * EPT_PAGE_BYTES);
	vmx_put(fields, VMCS_EPT_POINTER, root.v | EPTP_BITS);
	vmx_put(fields, 0x2800, UINT64_MAX); /* no linked VMCS */
	vmx_put(fields, 0x4004, 0);		 /* exceptions are the guest's own */
	vmx_put(fields, 0x6002, VMX_CR4_VMXE); /* CR4 too but for this, which it sees as 0 */
	vmx_put(fields, 0x6006, 0);
}

/* A flat segment with a descriptor's type and flags. */
static struct kvm_segment segment_of(unsigned selector, uint64_t descriptor)
{
	return (struct kvm_segment){
		.selector = (uint16_t)selector,
		.limit = 0xffffffff,
		.type = descriptor >> 40 & 15,
		.s = descriptor >> 44 & 1,
		.dpl = descriptor >> 45 & 3,
		.present = descriptor >> 47 & 1,
		.avl = descriptor >> 52 & 1,
		.l = descriptor >> 53 & 1,
		.db = descriptor >> 54 & 1,
		.g = descriptor >> 55 & 1,
	};
}

/* What all guests start with, as it is after a reset: an unexpected exception is a triple fault. */
static struct vmx_guest new_guest(struct kvm_segment code, struct kvm_segment data)
{
	return (struct vmx_guest){
		.sregs = {
			.cs = code,
			.ds = data,
			.es = data,
			.fs = data,
			.gs = data,
			.ss = data,
			.tr = { .selector = 24, .limit = 0xffff, .type = 11, .present = 1 },
			.ldt = { .unusable = 1 },
		},
		.rflags = 2,
		.dr7 = 0x400,
		.pat = PAT_RESET,
	};
}

static struct vmx_guest new_program(const struct gate_start *start)
{
	struct vmx_guest guest = new_guest(segment_of(8, UINT64_C(0x00af9b000000ffff)),
					   segment_of(16, UINT64_C(0x00cf93000000ffff)));

	guest.sregs.cr0 = 0x80010033;
	guest.sregs.cr3 = start->machine_root.v;
	guest.sregs.cr4 = 0x620;
	guest.sregs.efer = GATE_EFER;
	guest.rip = start->entry.v;
	guest.rsp = start->stack.v;
	return guest;
}

/* As the boot protocol wants it. */
static struct vmx_guest new_linux(const struct linux_start *start)
{
	struct vmx_guest guest = new_guest(segment_of(start->code_selector, start->code),
					   segment_of(start->data_selector, start->data));

	guest.sregs.gdt = (struct kvm_dtable){ .base = start->gdt.v,
					       .limit = (uint16_t)start->gdt_limit };
	guest.sregs.cr0 = start->cr0;
	guest.sregs.cr3 = start->cr3;
	guest.sregs.cr4 = start->cr4;
	guest.sregs.efer = start->efer;
	guest.rip = start->rip;
	guest.rflags = start->rflags;
	return guest;
}

/* The gate's own state, to which the processor returns. */
static void put_host(struct vmx_fields *fields, const struct gate_vcpu *vcpu)
{
	uint64_t page = gate_window(gate_vcpu_at(vcpu, PAGE_GATE));

	vmx_put(fields, 0x0c00, SELECTOR_GATE_DATA);
	vmx_put(fields, 0x0c02, SELECTOR_GATE_CODE);
	vmx_put(fields, 0x0c04, SELECTOR_GATE_DATA);
	vmx_put(fields, 0x0c06, SELECTOR_GATE_DATA);
	vmx_put(fields, 0x0c08, SELECTOR_GATE_DATA);
	vmx_put(fields, 0x0c0a, SELECTOR_GATE_DATA);
	vmx_put(fields, 0x0c0c, SELECTOR_TSS);
	vmx_put(fields, 0x6c00, 0x80010033);
	vmx_put(fields, 0x6c02, vcpu->gate->service_root.v);
	vmx_put(fields, 0x6c04, 0x620 | VMX_CR4_VMXE);
	vmx_put(fields, 0x6c06, 0);
	vmx_put(fields, 0x6c08, 0);
	vmx_put(fields, 0x6c0a, page); /* TR */
	vmx_put(fields, 0x6c0c, gate_window(GATE_PAGE_GDT * EPT_PAGE_BYTES));
	vmx_put(fields, 0x6c0e, gate_window(GATE_PAGE_IDT * EPT_PAGE_BYTES));
	vmx_put(fields, 0x6c14, page + offsetof(struct gate_page_layout, report));
	vmx_put(fields, 0x6c16, gate_label(gate_vmx_exit));
	if (vcpu->gate->guests == GATE_PROGRAMS)
		return;
	vmx_put(fields, 0x2c00, PAT_RESET);
	vmx_put(fields, 0x2c02, GATE_EFER);
}

/* VMXON, and a VMCS that is current and clear. */
static bool begin_vmx(struct gate_vcpu *vcpu, struct error *error)
{
	uint64_t *list = gate_layout(vcpu)->list;

	list[0] = gate_vcpu_at(vcpu, PAGE_VMXON);
	list[1] = gate_vcpu_at(vcpu, PAGE_VMCS);
	return gate_run_chain(vcpu, gate_label(gate_vmx_begin), list_at(vcpu), error);
}

/* The gate is about to enter a guest with these registers; general registers are the caller's. */
static bool begin_guest(struct gate_vcpu *vcpu, struct fpa root, const struct vmx_guest *guest,
			struct error *error)
{
	struct vmx_fields fields = { .list = gate_layout(vcpu)->list };
	struct kvm_regs registers = vcpu->run->s.regs.regs;

	if (!gate_set_sregs(vcpu, vcpu->gate->service_root, SELECTOR_GATE_CODE,
			    SELECTOR_GATE_DATA, 0, VMX_CR4_VMXE, error) ||
	    (!vcpu->entered && !begin_vmx(vcpu, error)))
		return false;
	put_controls(&fields, &vcpu->gate->vmx, root);
	put_host(&fields, vcpu);
	if (!write_fields(vcpu, &fields, error))
		return false;
	fields.count = 0;
	vmx_put_guest(&fields, &vcpu->gate->vmx, guest);
	if (!write_fields(vcpu, &fields, error))
		return false;
	vcpu->run->s.regs.regs = registers;
	vcpu->run->s.regs.regs.rip =
		gate_label(vcpu->entered ? gate_vmx_resume : gate_vmx_launch);
	vcpu->run->s.regs.regs.rflags = 2;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	vcpu->entered = true;
	vcpu->orders = 0;
	return true;
}

static bool vmx_restore(struct gate_vcpu *vcpu, struct fpa root, const struct vcpu_state *state,
		 struct error *error)
{
	struct vmx_guest guest;

	vmx_guest_of(state, &guest);
	vcpu->run->s.regs.regs = state->regs;
	return begin_guest(vcpu, root, &guest, error);
}

static bool vmx_start(struct gate_vcpu *vcpu, const struct gate_start *start, struct error *error)
{
	struct vmx_guest guest = start->linux_start ? new_linux(start->linux_start) :
						      new_program(start);

	vcpu->run->s.regs.regs = gate_first_registers(start);
	return begin_guest(vcpu, start->root, &guest, error);
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

/* The gate has left all registers as the guest's. */
static bool serve_msr(struct gate_vcpu *vcpu, bool write, struct error *error)
{
	struct kvm_regs *registers = &vcpu->run->s.regs.regs;
	struct machine_msr msr = machine_msr_asked(registers, write);

	if (!machine_msr(vcpu, &msr))
		return inject(vcpu, MACHINE_GP, error);
	machine_msr_answer(&msr, registers);
	step(vcpu);
	return true;
}

/*
 * Exit qualification for control-register accesses: a MOV to CR0 that changes what NE reads as, which it
 * does when it is executed again, as all that it reads as is the guest's own; or one to CR4 that is to
 * set VMXE.
 */
#define QUALIFICATION_MOV(qualification) (((qualification) & 0x3f) >> 4 == 0)
#define QUALIFICATION_CR(qualification)	 ((qualification) & 0xf)

static bool serve_control_register(struct gate_vcpu *vcpu, struct error *error)
{
	uint64_t shadow;

	if (QUALIFICATION_CR(report_of(vcpu)->qualification) == 4)
		return inject(vcpu, MACHINE_GP, error);
	if (!read_field(vcpu, VMCS_CR0_SHADOW, &shadow, error))
		return false;
	order(vcpu, VMCS_CR0_SHADOW, shadow ^ VMX_CR0_NE);
	return true;
}

/* Whether it is one of those two, and not of a control register that this processor insists on. */
static bool is_control_register(const struct vmx_report *report)
{
	unsigned number = QUALIFICATION_CR(report->qualification);

	return QUALIFICATION_MOV(report->qualification) && (number == 0 || number == 4);
}

/* What any machine may do; false if it is nothing of that. */
static bool serve_instruction(struct gate_vcpu *vcpu)
{
	if (report_of(vcpu)->reason != VMX_EXIT_CPUID)
		return false;
	machine_answer_cpuid(vcpu, &vcpu->run->s.regs.regs);
	step(vcpu);
	return true;
}

/* Serves what a Linux guest may do; *@served is false if it is something that ends it. */
static bool serve_linux(struct gate_vcpu *vcpu, bool *served, struct error *error)
{
	*served = true;
	switch (report_of(vcpu)->reason) {
	case VMX_EXIT_RDMSR:
		return serve_msr(vcpu, false, error);
	case VMX_EXIT_WRMSR:
		return serve_msr(vcpu, true, error);
	case VMX_EXIT_INVD: /* Nothing is lost by not doing it. */
		step(vcpu);
		return true;
	case VMX_EXIT_CONTROL_REGISTER:
		*served = is_control_register(report_of(vcpu));
		return !*served || serve_control_register(vcpu, error);
	case VMX_EXIT_RDPMC:
		return inject(vcpu, MACHINE_GP, error);
	/* What its processor does not have. */
	case VMX_EXIT_GETSEC:
	case VMX_EXIT_VMCALL ... VMX_EXIT_VMXON:
	case VMX_EXIT_MWAIT:
	case VMX_EXIT_MONITOR:
	case VMX_EXIT_INVEPT:
	case VMX_EXIT_INVVPID:
	case VMX_EXIT_XSETBV:
	case VMX_EXIT_VMFUNC:
		return inject(vcpu, MACHINE_UD, error);
	default:
		*served = false;
		return true;
	}
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

static void serve_or_refuse(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	bool served = serve_instruction(vcpu);
	struct error error;

	exit->kind = GATE_EXIT_SERVED;
	if (!served && vcpu->gate->guests == GATE_LINUX &&
	    !serve_linux(vcpu, &served, &error)) {
		exit->kind = GATE_EXIT_HOST;
		snprintf(exit->text, sizeof(exit->text), "%.150s", error.text);
	} else if (!served) {
		refuse(vcpu, exit);
	}
}

/* The guest has been entered, with all that was to be written before. */
static void decode_exit(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	const struct vmx_report *report = report_of(vcpu);

	vcpu->orders = 0;
	deliver_again(vcpu);
	if (report->reason == VMX_EXIT_EPT_VIOLATION)
		decode_violation(report, exit);
	else
		serve_or_refuse(vcpu, exit);
	vmx_go_back(vcpu, &vcpu->run->s.regs.regs);
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
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

/* Whether the vCPU, which is not in its guest, has come out of it, and its gate has not said so yet. */
static bool exit_is_unreported(const struct gate_vcpu *vcpu)
{
	return vcpu->run->s.regs.regs.rip >= gate_label(gate_vmx_exit);
}

/* To the gate's report, at which nobody looks: what the guest came out for it does again. */
static bool leave_guest(struct gate_vcpu *vcpu, struct error *error)
{
	struct kvm_regs registers;
	bool left;
	int vector;

	if (!gate_take_interrupt(vcpu, &vector, error) || !gate_interrupt(vcpu, error))
		return false;
	vcpu->orders = 0;
	deliver_again(vcpu);
	if (vector >= 0)
		order(vcpu, VMCS_ENTRY_EVENT, machine_interrupt((unsigned)vector));
	registers = vcpu->run->s.regs.regs;
	left = unblock_nmi(vcpu, error);
	vmx_go_back(vcpu, &registers);
	vcpu->run->s.regs.regs = registers;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return left;
}

/* Before the first of the orders, with the registers that they take, wherever among them the vCPU is. */
static void begin_orders_again(struct gate_vcpu *vcpu)
{
	const uint64_t *end = &gate_layout(vcpu)->orders[2 * vcpu->orders];
	struct kvm_regs *registers = &vcpu->run->s.regs.regs;

	if (!vcpu->orders)
		return;
	registers->rcx = end[0];
	registers->rdx = end[1];
	vmx_go_back(vcpu, registers);
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

/* In its gate or, by an NMI, from its guest there. */
static bool vmx_pass(struct gate_vcpu *vcpu, const struct fpa *root, struct error *error)
{
	bool in_guest;

	if (!gate_in_guest(vcpu, &in_guest, error))
		return false;
	if (!in_guest && !exit_is_unreported(vcpu))
		begin_orders_again(vcpu);
	else if (!leave_guest(vcpu, error))
		return false;
	return gate_take_root(vcpu, root, error);
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
	.save = vmx_save,
	.restore = vmx_restore,
};
