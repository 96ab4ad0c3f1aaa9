// SPDX-License-Identifier: MIT
/*
 * What all gates share. Every gate lives in the same address space of its own: a window, for
 * supervisors only, that shows the gate's memory and all tables. Under the direct engine the window
 * is in every root; under svm and vmx it is the guest hypervisor's whole address space.
 *
 * References: AMD APM Vol. 2, "Long-mode page translation", "Task-state segment", "Long-mode
 * interrupt control transfers".
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gate_internal.h"
#include "linux_boot.h"
#include "s2vm/guest_abi.h"

/* Bits of window entries: supervisor, accessed and dirty. */
#define WINDOW_PRESENT	  (UINT64_C(1) << 0)
#define WINDOW_WRITE	  (UINT64_C(1) << 1)
#define WINDOW_AD	  (UINT64_C(3) << 5)
#define WINDOW_LARGE	  (UINT64_C(1) << 7)
#define WINDOW_NO_EXECUTE (UINT64_C(1) << 63)
#define WINDOW_TABLE	  (WINDOW_PRESENT | WINDOW_WRITE | WINDOW_AD)
#define WINDOW_DATA	  (WINDOW_TABLE | WINDOW_NO_EXECUTE)

static const struct gate_ops *ops_of(enum engine engine)
{
	static const struct gate_ops *const ops[] = {
		[ENGINE_DIRECT] = &gate_direct_ops,
		[ENGINE_SVM] = &gate_svm_ops,
		[ENGINE_VMX] = &gate_vmx_ops,
	};

	return ops[engine];
}

void *gate_memory(const struct gate *gate, uint64_t page)
{
	return gate->memory->gate.mapping + page * EPT_PAGE_BYTES;
}

/* ---- layout ---- */

static uint64_t window_end(const struct gate *gate)
{
	return gate->memory->tables.at.v + gate->memory->tables.bytes;
}

static uint64_t gibs(uint64_t bytes)
{
	return (bytes + (UINT64_C(1) << 30) - 1) >> 30;
}

uint64_t gate_memory_pages(uint64_t vcpus, uint64_t table_bytes)
{
	/* Gate memory comes before the tables, and is in the window too. */
	uint64_t pages = GATE_PAGE_WINDOW_PD + vcpus * GATE_VCPU_PAGES + 1;

	pages += gibs(table_bytes + 2 * pages * EPT_PAGE_BYTES + (UINT64_C(4) << 20)) + 1;
	return (pages + EPT_ENTRIES - 1) / EPT_ENTRIES * EPT_ENTRIES;
}

uint64_t gate_vcpu_at(const struct gate_vcpu *vcpu, unsigned which)
{
	uint64_t page = GATE_PAGE_WINDOW_PD + gibs(window_end(vcpu->gate)) +
			(uint64_t)vcpu->index * GATE_VCPU_PAGES + which;

	return page * EPT_PAGE_BYTES;
}

void *gate_vcpu_memory(const struct gate_vcpu *vcpu, unsigned which)
{
	return vcpu->gate->memory->gate.mapping + gate_vcpu_at(vcpu, which);
}

/* Maps gate memory and tables: 4 KiB pages in the first 2 MiB, then larger ones. */
static void write_window(const struct gate *gate)
{
	uint64_t *pdpt = gate_memory(gate, GATE_PAGE_WINDOW_PDPT);
	uint64_t *pt = gate_memory(gate, GATE_PAGE_WINDOW_PT);
	uint64_t *pd = gate_memory(gate, GATE_PAGE_WINDOW_PD);

	for (uint64_t gib = 0; gib < gibs(window_end(gate)); gib++)
		pdpt[gib] = (GATE_PAGE_WINDOW_PD + gib) * EPT_PAGE_BYTES | WINDOW_TABLE;
	for (uint64_t at = 0; at < window_end(gate); at += ept_entry_span(2))
		pd[at / ept_entry_span(2)] = at | WINDOW_DATA | WINDOW_LARGE;
	pd[0] = GATE_PAGE_WINDOW_PT * EPT_PAGE_BYTES | WINDOW_TABLE;
	for (uint64_t page = 0; page < EPT_ENTRIES; page++)
		pt[page] = page * EPT_PAGE_BYTES | WINDOW_DATA;
	pt[GATE_PAGE_CODE] = GATE_PAGE_CODE * EPT_PAGE_BYTES | WINDOW_PRESENT | WINDOW_AD;
}

/* 64-bit interrupt gates to the stubs, which guests cannot call by themselves (DPL 0). */
static void write_idt(const struct gate *gate)
{
	uint64_t *idt = gate_memory(gate, GATE_PAGE_IDT);

	for (uint64_t vector = 0; vector < GATE_VECTORS; vector++) {
		uint64_t stub = gate_label(gate_code) + vector * GATE_STUB_BYTES;

		idt[2 * vector] = (stub & 0xffff) | (uint64_t)SELECTOR_GATE_CODE << 16 |
				  UINT64_C(0x8e) << 40 | (stub >> 16 & 0xffff) << 48;
		idt[2 * vector + 1] = stub >> 32;
	}
}

/* Flat 64-bit segments. The TSS's descriptor is never loaded: KVM is given the register itself. */
static void write_gdt(const struct gate *gate)
{
	uint64_t *gdt = gate_memory(gate, GATE_PAGE_GDT);

	gdt[SELECTOR_GATE_CODE / 8] = UINT64_C(0x00af9b000000ffff);
	gdt[SELECTOR_GATE_DATA / 8] = UINT64_C(0x00cf93000000ffff);
	gdt[SELECTOR_GUEST_CODE / 8] = UINT64_C(0x00affb000000ffff);
	gdt[SELECTOR_GUEST_DATA / 8] = UINT64_C(0x00cff3000000ffff);
}

static uint64_t window_entry(void)
{
	return GATE_PAGE_WINDOW_PDPT * EPT_PAGE_BYTES | WINDOW_TABLE;
}

bool gate_create(struct gate *gate, enum engine engine, enum gate_guests guests,
		 const struct host *host, struct memory *memory, struct error *error)
{
	uint64_t *service_root;

	*gate = (struct gate){
		.engine = engine,
		.guests = guests,
		.cpus = 1,
		.ops = ops_of(engine),
		.host = host,
		.memory = memory,
		.service_root = { GATE_PAGE_SERVICE_ROOT * EPT_PAGE_BYTES },
	};
	memcpy(gate_memory(gate, GATE_PAGE_CODE), gate_code, (size_t)(gate_code_end - gate_code));
	write_window(gate);
	write_idt(gate);
	write_gdt(gate);
	service_root = gate_memory(gate, GATE_PAGE_SERVICE_ROOT);
	service_root[GATE_WINDOW_INDEX] = window_entry();
	return gate->ops->create(gate, error);
}

const struct ept_format *gate_format(const struct gate *gate)
{
	return gate->ops->format;
}

/* Guests of svm and vmx are in another address space than their gate: no root shows it to them. */
void gate_root_entry(const struct gate *gate, unsigned *index, uint64_t *entry)
{
	*index = GATE_WINDOW_INDEX;
	*entry = gate->engine == ENGINE_DIRECT ? window_entry() : 0;
}

uint64_t gate_gpa_end(const struct gate *gate)
{
	return gate->ops->gpa_end;
}

void gate_prepare_host(struct host *host, enum gate_guests guests)
{
	if (guests == GATE_LINUX)
		machine_offer_timer(host);
}

/* ---- vCPUs ---- */

/* The TSS: where the gate's stack is, and the one port that guests of the direct engine may use. */
static void write_tss(struct gate_page_layout *page, uint64_t stack_end)
{
	uint16_t bitmap = offsetof(struct gate_page_layout, ports);

	memset(page, 0, sizeof(*page));
	memcpy(&page->tss[4], &stack_end, sizeof(stack_end)); /* RSP0 */
	memcpy(&page->tss[102], &bitmap, sizeof(bitmap));
	memset(page->ports, 0xff, sizeof(page->ports));
	page->ports[S2VM_CALL_PORT / 8] &= (uint8_t)~(1u << S2VM_CALL_PORT % 8);
	page->ports_end = 0xff;
}

static bool open_vcpu(struct gate_vcpu *vcpu, int vm, struct error *error)
{
	const struct host *host = vcpu->gate->host;

	vcpu->fd = ioctl(vm, KVM_CREATE_VCPU, vcpu->index);
	if (vcpu->fd < 0)
		return error_set(error, errno == EMFILE ? EXIT_HOST : EXIT_FAILED,
				 "cannot make vCPU %u: %s%s", vcpu->index, strerror(errno),
				 errno == EMFILE ? "; raise the limit of open files (ulimit -n)" :
						   "");
	vcpu->run = mmap(NULL, (size_t)host->vcpu_mmap_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			 vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED)
		vcpu->run = NULL;
	if (!vcpu->run || ioctl(vcpu->fd, KVM_SET_CPUID2, host->cpuid) < 0)
		return error_set(error, EXIT_FAILED, "cannot set up vCPU %u: %s", vcpu->index,
				 strerror(errno));
	return true;
}

/*
 * Where KVM has local APICs, all vCPUs but the first wait to be started by one. The APIC is the
 * guest's, in x2APIC mode: then it has no address, which would be one of the fleet's.
 */
static bool prepare_apic(struct gate_vcpu *vcpu, struct error *error)
{
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };
	uint64_t base = MACHINE_APIC_BASE & ~(vcpu->cpu ? MACHINE_APIC_BSP : 0);

	if (vcpu->gate->guests != GATE_LINUX)
		return true;
	if (ioctl(vcpu->fd, KVM_SET_MP_STATE, &state) < 0)
		return error_set(error, EXIT_FAILED, "cannot start vCPU %u: %s", vcpu->index,
				 strerror(errno));
	return gate_set_msr(vcpu, MACHINE_MSR_APIC_BASE, base, error);
}

bool gate_vcpu_create(struct gate *gate, struct gate_vcpu *vcpu, int vm, unsigned index,
		      struct error *error)
{
	*vcpu = (struct gate_vcpu){
		.gate = gate,
		.index = index,
		.cpu = index % gate->cpus,
		.fd = -1,
	};
	if (open_vcpu(vcpu, vm, error)) {
		vcpu->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
		write_tss(gate_layout(vcpu), gate_stack(vcpu));
		if (prepare_apic(vcpu, error) && gate->ops->prepare(vcpu, error))
			return true;
	}
	gate_vcpu_destroy(vcpu);
	return false;
}

void gate_vcpu_destroy(struct gate_vcpu *vcpu)
{
	if (vcpu->run)
		munmap(vcpu->run, (size_t)vcpu->gate->host->vcpu_mmap_bytes);
	if (vcpu->fd >= 0)
		close(vcpu->fd);
	*vcpu = (struct gate_vcpu){ .fd = -1 };
}

static struct kvm_segment segment(unsigned selector, unsigned type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = (uint16_t)selector,
		.type = (uint8_t)type,
		.present = 1,
		.dpl = selector & 3,
		.db = !code,
		.s = 1,
		.l = code,
		.g = 1,
	};
}

/*
 * VMX wants a TSS that is busy. SVM takes either, and QEMU's SVM looks into the port bitmap of an
 * available one only. KVM on AMD reads it back as busy, whatever it was (svm_get_segment()).
 */
unsigned char gate_tss_type(const struct gate *gate)
{
	return gate->host->svm ? 9 : 11;
}

struct kvm_segment gate_code_segment(unsigned selector)
{
	return segment(selector, 11, true);
}

struct kvm_segment gate_data_segment(unsigned selector)
{
	return segment(selector, 3, false);
}

bool gate_set_sregs(struct gate_vcpu *vcpu, struct fpa root, unsigned code, unsigned data,
		    uint64_t more_efer, uint64_t more_cr4, struct error *error)
{
	struct kvm_sregs *sregs = &vcpu->run->s.regs.sregs;

	if (ioctl(vcpu->fd, KVM_GET_SREGS, sregs) < 0)
		return error_set(error, EXIT_FAILED, "cannot read the registers of vCPU %u: %s",
				 vcpu->index, strerror(errno));
	sregs->cs = gate_code_segment(code);
	sregs->ss = gate_data_segment(data);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss;
	sregs->tr = (struct kvm_segment){
		.base = gate_window(gate_vcpu_at(vcpu, 0)),
		.limit = offsetof(struct gate_page_layout, ports_end),
		.selector = SELECTOR_TSS,
		.type = gate_tss_type(vcpu->gate),
		.present = 1,
	};
	sregs->ldt = (struct kvm_segment){ .type = 2, .unusable = 1 };
	sregs->gdt = (struct kvm_dtable){ .base = gate_window(GATE_PAGE_GDT * EPT_PAGE_BYTES),
					  .limit = SELECTOR_TSS - 1 };
	sregs->idt = (struct kvm_dtable){ .base = gate_window(GATE_PAGE_IDT * EPT_PAGE_BYTES),
					  .limit = 16 * GATE_VECTORS - 1 };
	sregs->cr0 = 0x80010033; /* PG, WP, NE, ET, MP, PE */
	sregs->cr2 = 0;
	sregs->cr3 = root.v;
	sregs->cr4 = 0x620 | more_cr4;	 /* OSXMMEXCPT, OSFXSR, PAE */
	sregs->efer = 0xd00 | more_efer; /* NXE, LMA, LME */
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
	return true;
}

bool gate_set_msr(struct gate_vcpu *vcpu, uint32_t index, uint64_t value, struct error *error)
{
	union {
		struct kvm_msrs list;
		char bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} msrs = { .list.nmsrs = 1 };

	msrs.list.entries[0] = (struct kvm_msr_entry){ .index = index, .data = value };
	if (ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) != 1)
		return error_set(error, EXIT_HOST,
				 "this KVM refuses to set MSR %#x, which nested virtualization needs",
				 index);
	return true;
}

struct kvm_regs gate_first_registers(const struct gate_start *start)
{
	if (start->linux_start)
		return (struct kvm_regs){ .rsi = start->linux_start->rsi, .rflags = 2 };
	return (struct kvm_regs){
		.rip = start->entry.v,
		.rsp = start->stack.v,
		.rdi = start->arguments[0],
		.rsi = start->arguments[1],
		.rdx = start->arguments[2],
		.rcx = start->arguments[3],
		.r8 = start->arguments[4],
		.rflags = 2,
	};
}

/* The state that the synced registers leave out, as it is after a reset: no guest sees another's. */
static bool forget_guest(struct gate_vcpu *vcpu, struct error *error)
{
	struct kvm_fpu fpu = { .fcw = 0x37f, .mxcsr = 0x1f80 };
	struct kvm_vcpu_events events = { 0 };
	struct kvm_debugregs debug = { .dr6 = 0xffff0ff0, .dr7 = 0x400 };
	struct kvm_xsave xsave = { 0 };

	/* FCW and MXCSR in the legacy area; XSTATE_BV 0 sets all other components to their start. */
	xsave.region[0] = 0x37f;
	xsave.region[6] = 0x1f80;
	if (ioctl(vcpu->fd, KVM_SET_XSAVE, &xsave) < 0 ||
	    ioctl(vcpu->fd, KVM_SET_FPU, &fpu) < 0 ||
	    ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) < 0 ||
	    ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug) < 0)
		return error_set(error, EXIT_FAILED, "cannot clear the registers of vCPU %u: %s",
				 vcpu->index, strerror(errno));
	return true;
}

bool gate_start(struct gate_vcpu *vcpu, const struct gate_start *start, struct error *error)
{
	if (vcpu->used && !forget_guest(vcpu, error))
		return false;
	vcpu->used = true;
	return vcpu->gate->ops->start(vcpu, start, error);
}

/* Registers of a local APIC, in struct kvm_lapic_state: Intel SDM Vol. 3A, table 11-1. */
#define APIC_TPR	0x80
#define APIC_SVR	0xf0
#define APIC_ISR	0x100 /* and TMR, and IRR */
#define APIC_ESR	0x280
#define APIC_LVT	0x320 /* timer, thermal, counters, LINT0, LINT1, error */
#define APIC_LVT_END	0x380
#define APIC_COUNT	0x380 /* of the timer, and what is left of it */
#define APIC_DIVIDE	0x3e0
#define APIC_MASKED	0x10000u
#define APIC_SVR_RESET	0xffu

/* As INIT leaves it: "Local APIC State After It Receives an INIT Message". Its number stays. */
static void reset_apic(struct kvm_lapic_state *apic)
{
	uint32_t masked = APIC_MASKED;
	uint32_t svr = APIC_SVR_RESET;

	memset(&apic->regs[APIC_TPR], 0, 4);
	memset(&apic->regs[APIC_ISR], 0, APIC_ESR + 4 - APIC_ISR);
	memset(&apic->regs[APIC_COUNT], 0, APIC_DIVIDE + 4 - APIC_COUNT);
	memcpy(&apic->regs[APIC_SVR], &svr, sizeof(svr));
	for (unsigned at = APIC_LVT; at < APIC_LVT_END; at += 0x10)
		memcpy(&apic->regs[at], &masked, sizeof(masked));
}

static bool forget_interrupts(struct gate_vcpu *vcpu, struct error *error)
{
	struct kvm_lapic_state apic;

	if (ioctl(vcpu->fd, KVM_GET_LAPIC, &apic) >= 0) {
		reset_apic(&apic);
		if (ioctl(vcpu->fd, KVM_SET_LAPIC, &apic) >= 0)
			return true;
	}
	return error_set(error, EXIT_FAILED, "cannot reset the local APIC of vCPU %u: %s",
			 vcpu->index, strerror(errno));
}

bool gate_start_cpu(struct gate_vcpu *vcpu, const struct fpa *root, uint8_t vector,
		    struct error *error)
{
	if (vcpu->used && (!forget_guest(vcpu, error) || !forget_interrupts(vcpu, error)))
		return false;
	vcpu->used = true;
	return vcpu->gate->ops->start_cpu(vcpu, root, vector, error);
}

bool gate_starts_cpus(const struct gate *gate)
{
	return gate->ops->start_cpu;
}

bool gate_start_service(struct gate_vcpu *vcpu, struct error *error)
{
	if (!gate_set_sregs(vcpu, vcpu->gate->service_root, SELECTOR_GATE_CODE, SELECTOR_GATE_DATA,
			    0, 0, error))
		return false;
	vcpu->run->s.regs.regs = (struct kvm_regs){ .rflags = 2 };
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return true;
}

/* ---- running ---- */

/* A guest used a port. Those of the gate cannot be meant: it is refused them. */
static void decode_call(const struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	const struct kvm_run *run = vcpu->run;
	bool out = run->io.direction == KVM_EXIT_IO_OUT;

	if (run->io.port == S2VM_CALL_PORT && run->io.size == 1 && run->io.count == 1 && out) {
		exit->kind = GATE_EXIT_CALL;
		return;
	}
	exit->kind = GATE_EXIT_HOST;
	snprintf(exit->text, sizeof(exit->text),
		 "it used port %#x in a way that is no call to s2vm (%s, %u bytes, %u times)",
		 run->io.port, out ? "out" : "in", run->io.size, run->io.count);
}

static void decode_device_port(const struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	struct kvm_run *run = vcpu->run;

	exit->kind = GATE_EXIT_PORT;
	exit->device = (struct gate_access){
		.at = run->io.port,
		.bytes = run->io.size,
		.count = run->io.count,
		.write = run->io.direction == KVM_EXIT_IO_OUT,
		.data = (char *)run + run->io.data_offset,
	};
}

static void decode_device_memory(const struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	struct kvm_run *run = vcpu->run;

	exit->kind = GATE_EXIT_MEMORY;
	exit->device = (struct gate_access){
		.at = run->mmio.phys_addr,
		.bytes = run->mmio.len,
		.count = 1,
		.write = run->mmio.is_write,
		.data = run->mmio.data,
	};
}

static void decode_port(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	vcpu->in_gate = gate_port(vcpu) >= GATE_PORT_EXCEPTION &&
			gate_port(vcpu) <= GATE_PORT_NO_VMX;
	if (vcpu->in_gate)
		vcpu->gate->ops->decode(vcpu, exit);
	else if (vcpu->gate->guests == GATE_LINUX)
		decode_device_port(vcpu, exit);
	else
		decode_call(vcpu, exit);
}

static void decode_failure(struct gate_exit *exit)
{
	if (errno == EINTR || errno == EAGAIN) {
		exit->kind = GATE_EXIT_INTERRUPTED;
		return;
	}
	exit->kind = errno == EFAULT || errno == EHWPOISON ? GATE_EXIT_BAD_ADDRESS :
							     GATE_EXIT_HOST;
	snprintf(exit->text, sizeof(exit->text), "KVM_RUN failed: %s", strerror(errno));
}

static void decode_other(const struct kvm_run *run, struct gate_exit *exit)
{
	exit->kind = GATE_EXIT_HOST;
	switch (run->exit_reason) {
	case KVM_EXIT_SHUTDOWN:
		machine_refuse(exit, MACHINE_TRIPLE_FAULT, 0);
		break;
	case KVM_EXIT_HLT:
		machine_refuse(exit, MACHINE_HALT, 0);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(exit->text, sizeof(exit->text),
			 "the processor refused to enter it, hardware reason %#llx",
			 run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		snprintf(exit->text, sizeof(exit->text),
			 "KVM could not emulate an instruction (internal error %u)",
			 run->internal.suberror);
		break;
	case KVM_EXIT_MMIO:
		snprintf(exit->text, sizeof(exit->text),
			 "it reached fleet-physical address %#llx, where nothing is",
			 run->mmio.phys_addr);
		break;
	default:
		snprintf(exit->text, sizeof(exit->text),
			 "KVM returned for reason %u, which nobody expects", run->exit_reason);
		break;
	}
}

void gate_run(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	*exit = (struct gate_exit){ 0 };
	vcpu->in_gate = false;
	if (ioctl(vcpu->fd, KVM_RUN, 0) < 0)
		decode_failure(exit);
	else if (vcpu->run->exit_reason == KVM_EXIT_INTR)
		exit->kind = GATE_EXIT_INTERRUPTED;
	else if (vcpu->run->exit_reason == KVM_EXIT_IO)
		decode_port(vcpu, exit);
	else if (vcpu->run->exit_reason == KVM_EXIT_MMIO && vcpu->gate->guests == GATE_LINUX)
		decode_device_memory(vcpu, exit);
	else
		decode_other(vcpu->run, exit);
}

bool gate_finish_access(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	if (vcpu->in_gate)
		return false;
	vcpu->run->immediate_exit = 1;
	gate_run(vcpu, exit);
	vcpu->run->immediate_exit = 0;
	return exit->kind == GATE_EXIT_PORT || exit->kind == GATE_EXIT_MEMORY;
}

/* ---- chains ---- */

/* Whether a KVM_RUN that failed was only interrupted: the chain goes on where it was. */
static bool interrupted(struct kvm_run *run)
{
	if (errno != EINTR && errno != EAGAIN)
		return false;
	/* Whoever wants the vCPU out of its guest has also told its seat, which looks before it enters. */
	run->immediate_exit = 0;
	return true;
}

static int run_uninterrupted(struct gate_vcpu *vcpu)
{
	int status;

	do
		status = ioctl(vcpu->fd, KVM_RUN, 0);
	while (status < 0 && interrupted(vcpu->run));
	return status;
}

bool gate_run_chain(struct gate_vcpu *vcpu, uint64_t rip, uint64_t rsp, struct error *error)
{
	struct kvm_run *run = vcpu->run;

	run->s.regs.regs.rip = rip;
	run->s.regs.regs.rsp = rsp;
	run->s.regs.regs.rflags = 2;
	run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	if (run_uninterrupted(vcpu) < 0)
		return error_set(error, EXIT_FAILED, "the gate could not store: %s",
				 strerror(errno));
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != GATE_PORT_DONE)
		return error_set(error, EXIT_FAILED,
				 "the gate stopped while it stored: exit reason %u, port %#x, rip %#llx",
				 run->exit_reason,
				 run->exit_reason == KVM_EXIT_IO ? run->io.port : 0,
				 run->s.regs.regs.rip);
	return true;
}

static bool commit_some(struct gate_vcpu *vcpu, const struct ept_edit *edits, size_t count,
			const struct fpa *root, struct error *error)
{
	struct gate_page_layout *page = gate_layout(vcpu);
	const unsigned char *end = gate_chain_end;
	uint64_t list = gate_vcpu_at(vcpu, 0) + offsetof(struct gate_page_layout, list);

	for (size_t at = 0; at < count; at++) {
		page->list[2 * at] = gate_window(edits[at].entry.v);
		page->list[2 * at + 1] = edits[at].value;
	}
	if (root)
		end = vcpu->gate->ops->finish_list(vcpu, root, &page->list[2 * count]);
	/*
	 * Nothing to run but the chain's last `out` (svm: VMRUN reads the root). If the vCPU stands at it since its
	 * last chain, KVM would take it for done and run on behind it.
	 */
	if (!count && end == gate_chain_end)
		return true;
	vcpu->runs++;
	return gate_run_chain(vcpu, gate_label(end) - count * GATE_CHAIN_EDIT_BYTES,
			      gate_window(list), error);
}

bool gate_commit(struct gate_vcpu *vcpu, const struct ept_edit *edits, size_t count,
		 const struct fpa *root, struct error *error)
{
	struct kvm_regs saved = vcpu->run->s.regs.regs;
	bool done = true;

	while (done && count > GATE_CHAIN_EDITS) {
		done = commit_some(vcpu, edits, GATE_CHAIN_EDITS, NULL, error);
		edits += GATE_CHAIN_EDITS;
		count -= GATE_CHAIN_EDITS;
	}
	done = done && commit_some(vcpu, edits, count, root, error);
	vcpu->gate->ops->go_back(vcpu, &saved);
	vcpu->run->s.regs.regs = saved;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return done;
}

/* ---- passing the gate ---- */

bool gate_take_root(struct gate_vcpu *vcpu, const struct fpa *root, struct error *error)
{
	struct kvm_regs saved = vcpu->run->s.regs.regs;
	bool done = commit_some(vcpu, NULL, 0, root, error);

	vcpu->run->s.regs.regs = saved;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return done;
}

bool gate_drop_events(struct gate_vcpu *vcpu, unsigned nmi, struct error *error)
{
	struct kvm_vcpu_events events;

	if (ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
		return error_set(error, EXIT_FAILED, "cannot read the events of vCPU %u: %s",
				 vcpu->index, strerror(errno));
	memset(&events.exception, 0, sizeof(events.exception));
	events.exception_has_payload = 0;
	events.nmi.pending = (uint8_t)nmi;
	events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING;
	if (ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) < 0)
		return error_set(error, EXIT_FAILED, "cannot interrupt vCPU %u: %s", vcpu->index,
				 strerror(errno));
	return true;
}

bool gate_take_interrupt(struct gate_vcpu *vcpu, int *vector, struct error *error)
{
	struct kvm_vcpu_events events;

	*vector = -1;
	if (vcpu->gate->guests != GATE_LINUX)
		return true;
	if (ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
		return error_set(error, EXIT_FAILED, "cannot read the events of vCPU %u: %s",
				 vcpu->index, strerror(errno));
	if (!events.interrupt.injected)
		return true;
	*vector = events.interrupt.nr;
	events.interrupt.injected = 0;
	events.flags = 0;
	if (ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) < 0)
		return error_set(error, EXIT_FAILED, "cannot interrupt vCPU %u: %s", vcpu->index,
				 strerror(errno));
	return true;
}

bool gate_in_guest(struct gate_vcpu *vcpu, bool *in_guest, struct error *error)
{
	/* Behind the header, one or two pages that nobody looks at. */
	union {
		struct kvm_nested_state state;
		char bytes[sizeof(struct kvm_nested_state) + 2 * EPT_PAGE_BYTES];
	} nested = { .state.size = sizeof(nested) };

	if (ioctl(vcpu->fd, KVM_GET_NESTED_STATE, &nested) < 0)
		return error_set(error, EXIT_FAILED, "cannot tell where vCPU %u is: %s",
				 vcpu->index, strerror(errno));
	*in_guest = nested.state.flags & KVM_STATE_NESTED_GUEST_MODE;
	return true;
}

bool gate_interrupt(struct gate_vcpu *vcpu, struct error *error)
{
	if (!gate_drop_events(vcpu, 1, error))
		return false;
	if (run_uninterrupted(vcpu) < 0)
		return error_set(error, EXIT_FAILED, "vCPU %u cannot leave its guest: %s",
				 vcpu->index, strerror(errno));
	if (vcpu->run->exit_reason != KVM_EXIT_IO || gate_port(vcpu) != GATE_PORT_EXIT)
		return error_set(error, EXIT_FAILED,
				 "vCPU %u did not leave its guest for its gate: exit reason %u",
				 vcpu->index, vcpu->run->exit_reason);
	return true;
}

/* Lets KVM finish a port access of the guest's that it handed over, and nothing more. */
static void finish_port(struct gate_vcpu *vcpu)
{
	vcpu->run->immediate_exit = 1;
	ioctl(vcpu->fd, KVM_RUN, 0);
	vcpu->run->immediate_exit = 0;
}

bool gate_pass(struct gate_vcpu *vcpu, const struct fpa *root, struct error *error)
{
	if (vcpu->gate->ops->leave_root)
		vcpu->gate->ops->leave_root(vcpu, root);
	if (vcpu->in_gate)
		return gate_commit(vcpu, NULL, 0, root, error);
	finish_port(vcpu);
	return vcpu->gate->ops->pass(vcpu, root, error);
}

/* ---- for who looks at guests ---- */

void gate_registers(const struct gate_vcpu *vcpu, const struct gate_exit *exit,
		    struct kvm_regs *registers)
{
	*registers = vcpu->run->s.regs.regs;
	vcpu->gate->ops->registers(vcpu, exit, registers);
}

void gate_set_result(struct gate_vcpu *vcpu, uint64_t value)
{
	vcpu->run->s.regs.regs.rax = value;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}
