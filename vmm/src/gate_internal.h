/* SPDX-License-Identifier: MIT */
/* What the engines' gates have in common: the window, the code page, chains of edits. */
#ifndef VMM_GATE_INTERNAL_H
#define VMM_GATE_INTERNAL_H

#include "gate.h"
#include "gate_code.h"

extern const unsigned char gate_code[], gate_code_end[];
extern const unsigned char gate_chain_end[], gate_root_chain_end[], gate_invept_chain_end[];
extern const unsigned char gate_nmi_return[];
extern const unsigned char gate_svm_enter[], gate_svm_take_nmi[];
extern const unsigned char gate_vmx_begin[], gate_vmx_write_end[], gate_vmx_read_end[];
extern const unsigned char gate_vmx_orders_end[];
extern const unsigned char gate_vmx_launch[], gate_vmx_resume[], gate_vmx_exit[];

/*
 * The window through which a gate sees its code, its vCPUs' pages and all table pages: this base
 * plus their fleet-physical address. It is the last entry of the lower half of a root.
 */
#define GATE_WINDOW_INDEX 255u
#define GATE_WINDOW	  ((uint64_t)GATE_WINDOW_INDEX << 39)

/* The first pages of gate memory. After them come the window's page directories. */
enum gate_page {
	GATE_PAGE_CODE,
	GATE_PAGE_IDT,
	GATE_PAGE_GDT,
	GATE_PAGE_SERVICE_ROOT,
	GATE_PAGE_WINDOW_PDPT,
	GATE_PAGE_WINDOW_PT, /* of the first 2 MiB, where code is */
	GATE_PAGE_COMMON,    /* the engine's own: permission maps */
	GATE_PAGE_WINDOW_PD = GATE_PAGE_COMMON + 5, /* one for each GiB of gate and tables */
};

/* Each vCPU has three pages: the gate's, and two that the engine gives a meaning. */
#define GATE_VCPU_PAGES 3

/* Selectors, which are indexes into the GDT. */
#define SELECTOR_GATE_CODE  0x08
#define SELECTOR_GATE_DATA  0x10
#define SELECTOR_GUEST_CODE 0x1b
#define SELECTOR_GUEST_DATA 0x23
#define SELECTOR_TSS	    0x28

/* The gate's page of a vCPU: its TSS with the port bitmap, lists for chains, and a stack. */
struct gate_page_layout {
	uint8_t tss[104];
	uint8_t ports[0x100 / 8]; /* ports beyond are beyond the TSS's limit, and refused */
	uint8_t ports_end;	  /* all ones, as the processor wants it */
	uint8_t unused[0x100 - 104 - 0x100 / 8 - 1];
	uint64_t report[GATE_VMX_REPORT_BYTES / 8 + 2];
	uint64_t list[2 * GATE_CHAIN_EDITS + 8];
	uint64_t orders[2 * GATE_CHAIN_ORDERS + 2]; /* vmx: fields to write on the way to the guest */
	uint8_t stack[0x1000 - 0x100 - 8 * (GATE_VMX_REPORT_BYTES / 8 + 2) -
		      8 * (2 * GATE_CHAIN_EDITS + 8) - 8 * (2 * GATE_CHAIN_ORDERS + 2)];
};

_Static_assert(sizeof(struct gate_page_layout) == EPT_PAGE_BYTES, "a gate page is one page");

/* One engine's part of the interface in gate.h. */
struct gate_ops {
	const struct ept_format *format;
	uint64_t gpa_end;
	/* Writes what all vCPUs have in common into the pages from GATE_PAGE_COMMON on. */
	bool (*create)(struct gate *gate, struct error *error);
	/* Sets what a new vCPU needs before it can run a guest. */
	bool (*prepare)(struct gate_vcpu *vcpu, struct error *error);
	bool (*start)(struct gate_vcpu *vcpu, const struct gate_start *start, struct error *error);
	/*
	 * The same with the state that a start-up message of @vector leaves: real mode at vector << 12. NULL
	 * where guests have one CPU.
	 */
	bool (*start_cpu)(struct gate_vcpu *vcpu, const struct fpa *root, uint8_t vector,
			  struct error *error);
	/* Says what a KVM_EXIT_IO at a port of the gate's means. */
	void (*decode)(struct gate_vcpu *vcpu, struct gate_exit *exit);
	/* Puts what follows the edits on the list, if there is a root; returns the chain's end. */
	const unsigned char *(*finish_list)(struct gate_vcpu *vcpu, const struct fpa *root,
					    uint64_t *list_end);
	/* Sets the registers with which the vCPU goes back to its guest after a chain. */
	void (*go_back)(struct gate_vcpu *vcpu, struct kvm_regs *registers);
	/* Before that, where the gate runs in the guest's root: from now on in @root. Often NULL. */
	void (*leave_root)(struct gate_vcpu *vcpu, const struct fpa *root);
	/* gate_pass() for a vCPU that may be in its guest, or anywhere on the way there and back. */
	bool (*pass)(struct gate_vcpu *vcpu, const struct fpa *root, struct error *error);
	void (*registers)(const struct gate_vcpu *vcpu, const struct gate_exit *exit,
			  struct kvm_regs *registers);
	/*
	 * What the guest's processor and the gate's have one each of, for a vCPU at its gate. Restoring
	 * leaves the vCPU about to enter its guest with @root. NULL where there are no Linux guests.
	 */
	bool (*save)(struct gate_vcpu *vcpu, struct vcpu_state *state, struct error *error);
	bool (*restore)(struct gate_vcpu *vcpu, struct fpa root, const struct vcpu_state *state,
			struct error *error);
};

extern const struct gate_ops gate_direct_ops, gate_svm_ops, gate_vmx_ops;

/* Where the gate sees fleet-physical memory. */
static inline uint64_t gate_window(uint64_t fleet_physical)
{
	return GATE_WINDOW + fleet_physical;
}

/* Where a label of the gate's code is for the gate. */
static inline uint64_t gate_label(const unsigned char *label)
{
	return gate_window(GATE_PAGE_CODE * EPT_PAGE_BYTES) + (uint64_t)(label - gate_code);
}

/* Fleet-physical address of the vCPU's page @which, and where the VMM sees it. */
uint64_t gate_vcpu_at(const struct gate_vcpu *vcpu, unsigned which);
void *gate_vcpu_memory(const struct gate_vcpu *vcpu, unsigned which);

/* Page @page of gate memory, as the VMM sees it. */
void *gate_memory(const struct gate *gate, uint64_t page);

static inline struct gate_page_layout *gate_layout(const struct gate_vcpu *vcpu)
{
	return gate_vcpu_memory(vcpu, 0);
}

/*
 * 64-bit mode for the gate or, under the direct engine, for a guest: paging with @root, write
 * protection, no-execute and SSE; no system calls, no alignment checks, no PCIDs, no global pages:
 * nothing that would outlive a change of tables.
 */
bool gate_set_sregs(struct gate_vcpu *vcpu, struct fpa root, unsigned code, unsigned data,
		    uint64_t more_efer, uint64_t more_cr4, struct error *error);

/* A guest's general registers at its start, as s2vm/guest_abi.h has them. */
struct kvm_regs gate_first_registers(const struct gate_start *start);

/* Sets a register of the vCPU's model-specific ones. */
bool gate_set_msr(struct gate_vcpu *vcpu, uint32_t index, uint64_t value, struct error *error);

/* Runs the gate from @rip with @rsp until a chain is done; all other registers are lost. */
bool gate_run_chain(struct gate_vcpu *vcpu, uint64_t rip, uint64_t rsp, struct error *error);

/* Where the stack of the vCPU's gate begins. */
static inline uint64_t gate_stack(const struct gate_vcpu *vcpu)
{
	return gate_window(gate_vcpu_at(vcpu, 0) + EPT_PAGE_BYTES);
}

/* Flat segments for 64-bit mode, of the privilege that the selector asks for. */
struct kvm_segment gate_code_segment(unsigned selector);
struct kvm_segment gate_data_segment(unsigned selector);

/* The type of the gate's TSS in the task register, to be set whenever all of these registers are. */
unsigned char gate_tss_type(const struct gate *gate);

/* Gives the vCPU @root in a run of its gate and all of its general registers back afterwards. */
bool gate_take_root(struct gate_vcpu *vcpu, const struct fpa *root, struct error *error);

/*
 * Drops an exception that KVM was about to deliver. Delivering it could use translations that are
 * gone; the instruction that caused it runs again. With @nmi an NMI is pending afterwards.
 */
bool gate_drop_events(struct gate_vcpu *vcpu, unsigned nmi, struct error *error);

/*
 * Takes back an interrupt that KVM was about to deliver, for the same reason: to be delivered when the
 * guest is entered by its gate, as its local APIC has let it go. @vector is -1 if there was none.
 */
bool gate_take_interrupt(struct gate_vcpu *vcpu, int *vector, struct error *error);

/* Under svm and vmx: whether the vCPU is in its guest, by what KVM says and not the registers. */
bool gate_in_guest(struct gate_vcpu *vcpu, bool *in_guest, struct error *error);

/*
 * Takes a vCPU from its guest to its gate, by an NMI: every gate intercepts it, and nothing of the
 * guest runs before. Afterwards the gate has reported an exit that nobody has looked at.
 */
bool gate_interrupt(struct gate_vcpu *vcpu, struct error *error);

/* The port that the vCPU's last exit was about. */
static inline unsigned gate_port(const struct gate_vcpu *vcpu)
{
	return vcpu->run->io.port;
}

/* machine.c: what guests that are machines of their own may know and do, under svm and vmx alike. */

/* Answers a CPUID instruction, by the list of what they may see. */
void machine_cpuid(const struct gate *gate, struct kvm_regs *registers);

/*
 * Adds to the answer for leaf @leaf, subleaf @index, what it says of this CPU among those of its guest, if it is
 * a Linux guest.
 */
void machine_cpuid_place(const struct gate_vcpu *vcpu, uint32_t leaf, uint32_t index,
			 struct kvm_regs *registers);
/* Both: what the vCPU answers the CPUID instruction. */
void machine_answer_cpuid(const struct gate_vcpu *vcpu, struct kvm_regs *registers);

/* Whether guests see that there is the instruction INVPCID, which vmx must be told to allow. */
bool machine_has_invpcid(const struct gate *gate);

/* Has KVM offer the local APIC's timer that counts as the TSC does. */
void machine_offer_timer(struct host *host);

/* Bit n of @map says that port n is refused; @ports is a multiple of 8. */
void machine_write_ports(const struct gate *gate, uint8_t *map, unsigned ports);

/* MSRs that they may use freely: state of their own vCPU, which the gate does not depend on. */
#define MACHINE_FREE_MSRS 10
extern const uint32_t machine_free_msrs[MACHINE_FREE_MSRS];

/* MSRs that Linux guests may use freely beside these: of their own local APIC. */
struct machine_msr_range {
	uint32_t first, last;
};

#define MACHINE_APIC_MSRS 8
extern const struct machine_msr_range machine_apic_msrs[MACHINE_APIC_MSRS];

/* All that these guests may use freely, one for each @number from 0 on; then 0. */
uint32_t machine_free_msr(enum gate_guests guests, unsigned number);

/* IA32_APIC_BASE of the first CPU, in x2APIC mode: Intel SDM Vol. 3A, "x2APIC mode". */
#define MACHINE_MSR_APIC_BASE 0x1bu
#define MACHINE_APIC_BSP      UINT64_C(0x100)
#define MACHINE_APIC_BASE     (UINT64_C(0xfee00c00) | MACHINE_APIC_BSP)

/* An access of a Linux guest's to an MSR that is not free. */
struct machine_msr {
	uint32_t index;
	bool write;
	uint64_t value; /* that is written, or filled in */
};

/*
 * Which CPUs a command to the local APIC of CPU @from means, in a guest of @cpus CPUs: bit n for CPU n.
 * @icr is what is written to the interrupt command register in x2APIC mode.
 */
unsigned machine_icr_cpus(uint64_t icr, unsigned from, unsigned cpus);

/* Does what the MSR stands for; false if a processor would cause a general protection fault. */
bool machine_msr(const struct gate_vcpu *vcpu, struct machine_msr *msr);

/* What RDMSR or, with @write, WRMSR asks for with these registers, and its answer in them. */
struct machine_msr machine_msr_asked(const struct kvm_regs *registers, bool write);
void machine_msr_answer(const struct machine_msr *msr, struct kvm_regs *registers);

/*
 * Events, as svm and vmx have them alike: to be injected when a guest is entered, or that was being
 * delivered when it came out (AMD APM Vol. 2, "Event injection"; Intel SDM Vol. 3C, "VM-entry
 * interruption-information field"). Error codes lie elsewhere.
 */
#define MACHINE_EVENT_ERROR_CODE (UINT64_C(1) << 11)
#define MACHINE_EVENT_VALID	 (UINT64_C(1) << 31)

enum machine_vector { MACHINE_UD = 6, MACHINE_GP = 13 };

/* An exception; its error code, if it has one, is 0. */
uint64_t machine_exception(enum machine_vector vector);

/* An interrupt from outside. */
uint64_t machine_interrupt(unsigned vector);

/*
 * What was being delivered when the guest came out is delivered when it goes on: an interrupt would
 * be lost otherwise. Returns 0 if it was nothing, or something that its instruction does once more.
 */
uint64_t machine_event_again(uint64_t event);

/* What a machine may not do. */
enum machine_offence {
	MACHINE_HALT,
	MACHINE_TRIPLE_FAULT,
	MACHINE_PORT_IN,
	MACHINE_PORT_OUT,
	MACHINE_MSR_READ,
	MACHINE_MSR_WRITE,
	MACHINE_HYPERVISOR, /* an instruction that is a hypervisor's */
	MACHINE_OTHER,
};

/* Ends a guest for an offence. @number is the port, the MSR, or else the processor's exit code. */
void machine_refuse(struct gate_exit *exit, enum machine_offence offence, uint64_t number);

#endif
