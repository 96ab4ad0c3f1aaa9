// SPDX-License-Identifier: MIT
/*
 * The direct engine: the engine's tables, in the format of NPT, are walked as ordinary page tables,
 * guests run at CPL 3, and the gate is a handful of exception handlers at CPL 0. Needs no nested
 * virtualization.
 *
 * Every root has one entry for the gate's window, supervisor-only, through which the gate sees its
 * code, its vCPUs' pages and all table pages at the window's base plus their fleet-physical address.
 *
 * References are to AMD APM Vol. 2: "Long-mode page translation", "Task-state segment",
 * "Long-mode interrupt control transfers".
 */
#include "gate.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gate_direct_code.h"
#include "s2vm/guest_abi.h"

extern const unsigned char gate_direct_code[], gate_direct_code_end[];
extern const unsigned char gate_direct_chain[], gate_direct_chain_end[];
extern const unsigned char gate_direct_flush_chain[], gate_direct_flush_chain_end[];

/* The window: the last root entry of the lower half, so that guests have all that lies below. */
#define WINDOW_INDEX 255u
#define WINDOW_BASE  ((uint64_t)WINDOW_INDEX << 39)

/* Pages of gate memory. */
enum gate_page {
	PAGE_CODE,
	PAGE_IDT,
	PAGE_GDT,
	PAGE_SERVICE_ROOT,
	PAGE_WINDOW_PDPT,
	PAGE_WINDOW_PT, /* of the first 2 MiB, where code is */
	PAGE_WINDOW_PD, /* one for each GiB of gate and tables */
};

/* Bits of window entries: supervisor, accessed and dirty. */
#define WINDOW_PRESENT	  (UINT64_C(1) << 0)
#define WINDOW_WRITE	  (UINT64_C(1) << 1)
#define WINDOW_AD	  (UINT64_C(3) << 5)
#define WINDOW_LARGE	  (UINT64_C(1) << 7)
#define WINDOW_NO_EXECUTE (UINT64_C(1) << 63)
#define WINDOW_DATA	  (WINDOW_PRESENT | WINDOW_WRITE | WINDOW_AD | WINDOW_NO_EXECUTE)

/* Selectors, which are indexes into the GDT of gdt_write(). */
#define SELECTOR_GATE_CODE  0x08
#define SELECTOR_GATE_DATA  0x10
#define SELECTOR_GUEST_CODE 0x1b
#define SELECTOR_GUEST_DATA 0x23
#define SELECTOR_TSS	    0x28

/* A vCPU's gate page: its TSS with the port bitmap, lists of edits, and the gate's stack. */
struct gate_page_layout {
	uint8_t tss[104];
	uint8_t ports[0x100 / 8]; /* ports beyond are beyond the TSS's limit, and refused */
	uint8_t ports_end;	  /* all ones, as the processor wants it */
	uint8_t unused[0x200 - 104 - 0x100 / 8 - 1];
	uint64_t list[2 * GATE_CHAIN_EDITS + 2];
	uint8_t stack[0x1000 - 0x200 - 8 * (2 * GATE_CHAIN_EDITS + 2)];
};

_Static_assert(sizeof(struct gate_page_layout) == EPT_PAGE_BYTES, "a gate page is one page");

/* What the processor pushes when CPL 3 is interrupted; below it the error code, if there is one. */
struct interrupt_frame {
	uint64_t rip;
	uint64_t cs;
	uint64_t rflags;
	uint64_t rsp;
	uint64_t ss;
};

#define PAGE_FAULT_VECTOR 14

/* Exceptions that push an error code. */
#define VECTORS_WITH_CODE                                                                          \
	(UINT32_C(1) << 8 | UINT32_C(1) << 10 | UINT32_C(1) << 11 | UINT32_C(1) << 12 |            \
	 UINT32_C(1) << 13 | UINT32_C(1) << 14 | UINT32_C(1) << 17 | UINT32_C(1) << 21)

static uint64_t window(uint64_t fleet_physical)
{
	return WINDOW_BASE + fleet_physical;
}

static uint64_t *gate_words(const struct gate *gate, uint64_t page)
{
	return (uint64_t *)(gate->memory->gate.mapping + page * EPT_PAGE_BYTES);
}

static uint64_t window_gib(uint64_t table_end)
{
	return (table_end + (UINT64_C(1) << 30) - 1) >> 30;
}

/* First of the vCPUs' gate pages, after the window's page directories. */
static uint64_t vcpu_page(const struct gate *gate, unsigned index)
{
	uint64_t end = gate->memory->tables.at.v + gate->memory->tables.bytes;

	return PAGE_WINDOW_PD + window_gib(end) + index;
}

uint64_t gate_memory_pages(uint64_t vcpus, uint64_t table_bytes)
{
	/* Gate memory comes before the tables, and is at most this large itself. */
	uint64_t pages = PAGE_WINDOW_PD + vcpus + 1;

	pages += window_gib(table_bytes + 2 * pages * EPT_PAGE_BYTES + (UINT64_C(4) << 20)) + 1;
	return (pages + EPT_ENTRIES - 1) / EPT_ENTRIES * EPT_ENTRIES;
}

/* Maps gate memory and tables from WINDOW_BASE on: 4 KiB pages in the first 2 MiB, then larger ones. */
static void window_write(const struct gate *gate)
{
	uint64_t end = gate->memory->tables.at.v + gate->memory->tables.bytes;
	uint64_t *pdpt = gate_words(gate, PAGE_WINDOW_PDPT);
	uint64_t *pt = gate_words(gate, PAGE_WINDOW_PT);
	uint64_t *pd = gate_words(gate, PAGE_WINDOW_PD);

	for (uint64_t gib = 0; gib < window_gib(end); gib++)
		pdpt[gib] = (PAGE_WINDOW_PD + gib) * EPT_PAGE_BYTES | WINDOW_PRESENT |
			    WINDOW_WRITE | WINDOW_AD;
	for (uint64_t at = 0; at < end; at += ept_entry_span(2))
		pd[at / ept_entry_span(2)] = at | WINDOW_DATA | WINDOW_LARGE;
	pd[0] = PAGE_WINDOW_PT * EPT_PAGE_BYTES | WINDOW_PRESENT | WINDOW_WRITE | WINDOW_AD;
	for (uint64_t page = 0; page < EPT_ENTRIES; page++)
		pt[page] = page * EPT_PAGE_BYTES | WINDOW_DATA;
	pt[PAGE_CODE] = PAGE_CODE * EPT_PAGE_BYTES | WINDOW_PRESENT | WINDOW_AD;
}

/* 64-bit interrupt gates to the stubs, which guests cannot call by themselves (DPL 0). */
static void idt_write(const struct gate *gate)
{
	uint64_t *idt = gate_words(gate, PAGE_IDT);

	for (uint64_t vector = 0; vector < GATE_VECTORS; vector++) {
		uint64_t stub = window(PAGE_CODE * EPT_PAGE_BYTES + vector * GATE_STUB_BYTES);

		idt[2 * vector] = (stub & 0xffff) | (uint64_t)SELECTOR_GATE_CODE << 16 |
				  UINT64_C(0x8e) << 40 | (stub >> 16 & 0xffff) << 48;
		idt[2 * vector + 1] = stub >> 32;
	}
}

/* Flat 64-bit segments. The TSS's descriptor is never loaded: KVM is given the register itself. */
static void gdt_write(const struct gate *gate)
{
	uint64_t *gdt = gate_words(gate, PAGE_GDT);

	gdt[SELECTOR_GATE_CODE / 8] = UINT64_C(0x00af9b000000ffff);
	gdt[SELECTOR_GATE_DATA / 8] = UINT64_C(0x00cf93000000ffff);
	gdt[SELECTOR_GUEST_CODE / 8] = UINT64_C(0x00affb000000ffff);
	gdt[SELECTOR_GUEST_DATA / 8] = UINT64_C(0x00cff3000000ffff);
}

void gate_create(struct gate *gate, enum engine engine, const struct host *host,
		 struct memory *memory, unsigned vcpus)
{
	*gate = (struct gate){
		.engine = engine,
		.host = host,
		.memory = memory,
		.service_root = { PAGE_SERVICE_ROOT * EPT_PAGE_BYTES },
		.vcpus = vcpus,
	};
	memcpy(gate_words(gate, PAGE_CODE), gate_direct_code,
	       (size_t)(gate_direct_code_end - gate_direct_code));
	window_write(gate);
	idt_write(gate);
	gdt_write(gate);
	gate_root_entry(gate, &(unsigned){ 0 },
			&gate_words(gate, PAGE_SERVICE_ROOT)[WINDOW_INDEX]);
}

void gate_root_entry(const struct gate *gate, unsigned *index, uint64_t *entry)
{
	(void)gate;
	*index = WINDOW_INDEX;
	*entry = PAGE_WINDOW_PDPT * EPT_PAGE_BYTES | WINDOW_PRESENT | WINDOW_WRITE | WINDOW_AD;
}

uint64_t gate_gpa_end(const struct gate *gate)
{
	(void)gate;
	return WINDOW_BASE;
}

/* The TSS: where the gate's stack is, and the one port that guests may use. */
static void tss_write(struct gate_page_layout *page, uint64_t stack_end)
{
	uint16_t bitmap = offsetof(struct gate_page_layout, ports);

	memset(page, 0, sizeof(*page));
	memcpy(&page->tss[4], &stack_end, sizeof(stack_end)); /* RSP0 */
	memcpy(&page->tss[102], &bitmap, sizeof(bitmap));
	memset(page->ports, 0xff, sizeof(page->ports));
	page->ports[S2VM_CALL_PORT / 8] &= (uint8_t)~(1u << S2VM_CALL_PORT % 8);
	page->ports_end = 0xff;
}

bool gate_vcpu_create(struct gate *gate, struct gate_vcpu *vcpu, int vm, unsigned index,
		      struct error *error)
{
	uint64_t page = vcpu_page(gate, index);

	*vcpu = (struct gate_vcpu){ .gate = gate, .index = index };
	vcpu->page = (unsigned char *)gate_words(gate, page);
	vcpu->fd = ioctl(vm, KVM_CREATE_VCPU, index);
	if (vcpu->fd < 0)
		return error_set(error, errno == EMFILE ? EXIT_HOST : EXIT_FAILED,
				 "cannot make vCPU %u: %s%s", index, strerror(errno),
				 errno == EMFILE ? "; raise the limit of open files (ulimit -n)" :
						   "");
	vcpu->run = mmap(NULL, (size_t)gate->host->vcpu_mmap_bytes, PROT_READ | PROT_WRITE,
			 MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED || ioctl(vcpu->fd, KVM_SET_CPUID2, gate->host->cpuid) < 0) {
		error_set(error, EXIT_FAILED, "cannot set up vCPU %u: %s", index,
			  strerror(errno));
		close(vcpu->fd);
		return false;
	}
	vcpu->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	tss_write((struct gate_page_layout *)vcpu->page,
		  window((page + 1) * EPT_PAGE_BYTES));
	return true;
}

void gate_vcpu_destroy(struct gate_vcpu *vcpu)
{
	munmap(vcpu->run, (size_t)vcpu->gate->host->vcpu_mmap_bytes);
	close(vcpu->fd);
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
 * 64-bit mode with paging, write protection, no-execute and SSE; no system calls, no alignment
 * checks, no PCIDs, no global pages: nothing that would outlive a change of tables.
 */
static void set_system_registers(const struct gate_vcpu *vcpu, struct fpa root, unsigned code,
				 unsigned data)
{
	struct kvm_sregs *sregs = &vcpu->run->s.regs.sregs;

	sregs->cs = segment(code, 11, true);
	sregs->ss = segment(data, 3, false);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss;
	sregs->tr = (struct kvm_segment){
		.base = window(vcpu_page(vcpu->gate, vcpu->index) * EPT_PAGE_BYTES),
		.limit = offsetof(struct gate_page_layout, ports_end),
		.selector = SELECTOR_TSS,
		.type = 11,
		.present = 1,
	};
	sregs->ldt = (struct kvm_segment){ .type = 2, .unusable = 1 };
	sregs->gdt = (struct kvm_dtable){ .base = window(PAGE_GDT * EPT_PAGE_BYTES),
					  .limit = SELECTOR_TSS - 1 };
	sregs->idt = (struct kvm_dtable){ .base = window(PAGE_IDT * EPT_PAGE_BYTES),
					  .limit = 16 * GATE_VECTORS - 1 };
	sregs->cr0 = 0x80010033; /* PG, WP, NE, ET, MP, PE */
	sregs->cr2 = 0;
	sregs->cr3 = root.v;
	sregs->cr4 = 0x620;  /* OSXMMEXCPT, OSFXSR, PAE */
	sregs->efer = 0xd00; /* NXE, LMA, LME */
}

/* The state that the synced registers leave out, as it is after a reset: no guest sees another's. */
static bool forget_guest(struct gate_vcpu *vcpu, struct error *error)
{
	struct kvm_fpu fpu = { .fcw = 0x37f, .mxcsr = 0x1f80 };
	struct kvm_vcpu_events events = { 0 };
	struct kvm_debugregs debug = { .dr6 = 0xffff0ff0, .dr7 = 0x400 };
	struct kvm_xsave xsave = { 0 };

	if (!vcpu->used)
		return true;
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

static bool read_system_registers(struct gate_vcpu *vcpu, struct error *error)
{
	if (ioctl(vcpu->fd, KVM_GET_SREGS, &vcpu->run->s.regs.sregs) < 0)
		return error_set(error, EXIT_FAILED, "cannot read the registers of vCPU %u: %s",
				 vcpu->index, strerror(errno));
	return true;
}

bool gate_start(struct gate_vcpu *vcpu, const struct gate_start *start, struct error *error)
{
	if (!forget_guest(vcpu, error) || !read_system_registers(vcpu, error))
		return false;
	set_system_registers(vcpu, start->root, SELECTOR_GUEST_CODE, SELECTOR_GUEST_DATA);
	vcpu->run->s.regs.regs = (struct kvm_regs){
		.rip = start->entry.v,
		.rsp = start->stack.v,
		.rdi = start->arguments[0],
		.rsi = start->arguments[1],
		.rdx = start->arguments[2],
		.rcx = start->arguments[3],
		.r8 = start->arguments[4],
		.rflags = 2,
	};
	vcpu->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	vcpu->used = true;
	return true;
}

bool gate_start_service(struct gate_vcpu *vcpu, struct error *error)
{
	if (!read_system_registers(vcpu, error))
		return false;
	set_system_registers(vcpu, vcpu->gate->service_root, SELECTOR_GATE_CODE,
			     SELECTOR_GATE_DATA);
	vcpu->run->s.regs.regs = (struct kvm_regs){ .rflags = 2 };
	vcpu->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	return true;
}

/* Whether the vCPU is in the gate, by the privilege that KVM says it has. */
static bool in_gate(const struct gate_vcpu *vcpu)
{
	return vcpu->run->s.regs.sregs.cs.selector == SELECTOR_GATE_CODE;
}

/* The frame that an exception left on the gate's stack, which guests cannot reach. */
static const struct interrupt_frame *frame_of(const struct gate_vcpu *vcpu, unsigned vector,
					      uint64_t *error_code)
{
	uint64_t stack_page = window(vcpu_page(vcpu->gate, vcpu->index) * EPT_PAGE_BYTES);
	uint64_t offset = vcpu->run->s.regs.regs.rsp - stack_page;
	bool has_code = VECTORS_WITH_CODE >> vector & 1;
	const uint64_t *words;

	if (offset > EPT_PAGE_BYTES - sizeof(struct interrupt_frame) - 8 || offset % 8)
		return NULL;
	words = (const uint64_t *)(vcpu->page + offset);
	*error_code = has_code ? words[0] : 0;
	return (const struct interrupt_frame *)(words + has_code);
}

/* Page-fault error code: AMD APM Vol. 2, "Page-fault error code". */
static unsigned access_of(uint64_t error_code)
{
	if (error_code & 1u << 1)
		return EPT_WRITE;
	return error_code & 1u << 4 ? EPT_EXEC : EPT_READ;
}

static void decode_exception(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	uint64_t offset = vcpu->run->s.regs.regs.rip - window(PAGE_CODE * EPT_PAGE_BYTES);
	const struct interrupt_frame *frame;

	exit->kind = GATE_EXIT_HOST;
	exit->vector = (unsigned)(offset / GATE_STUB_BYTES);
	if (offset >= GATE_VECTORS * GATE_STUB_BYTES) {
		snprintf(exit->text, sizeof(exit->text), "the gate reports from rip %#llx",
			 vcpu->run->s.regs.regs.rip);
		return;
	}
	frame = frame_of(vcpu, exit->vector, &exit->error_code);
	if (!frame || !(frame->cs & 3)) {
		snprintf(exit->text, sizeof(exit->text), "the gate itself took exception %u",
			 exit->vector);
		return;
	}
	exit->kind = GATE_EXIT_EXCEPTION;
	if (exit->vector != PAGE_FAULT_VECTOR)
		return;
	exit->kind = GATE_EXIT_FAULT;
	exit->gpa.v = vcpu->run->s.regs.sregs.cr2;
	exit->access = access_of(exit->error_code);
}

static void decode_port(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	const struct kvm_run *run = vcpu->run;

	if (in_gate(vcpu) && run->io.port == GATE_PORT_FAULT) {
		decode_exception(vcpu, exit);
		return;
	}
	if (!in_gate(vcpu) && run->io.port == S2VM_CALL_PORT && run->io.size == 1 &&
	    run->io.count == 1 && run->io.direction == KVM_EXIT_IO_OUT) {
		exit->kind = GATE_EXIT_CALL;
		return;
	}
	exit->kind = GATE_EXIT_HOST;
	snprintf(exit->text, sizeof(exit->text),
		 "it used port %#x in a way that is no call to s2vm (%s, %u bytes, %u times)",
		 run->io.port, run->io.direction == KVM_EXIT_IO_OUT ? "out" : "in", run->io.size,
		 run->io.count);
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
		snprintf(exit->text, sizeof(exit->text), "it caused a triple fault");
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
		snprintf(exit->text, sizeof(exit->text), "KVM returned for reason %u, which nobody expects",
			 run->exit_reason);
		break;
	}
}

void gate_run(struct gate_vcpu *vcpu, struct gate_exit *exit)
{
	*exit = (struct gate_exit){ 0 };
	if (ioctl(vcpu->fd, KVM_RUN, 0) < 0)
		decode_failure(exit);
	else if (vcpu->run->exit_reason == KVM_EXIT_INTR)
		exit->kind = GATE_EXIT_INTERRUPTED;
	else if (vcpu->run->exit_reason == KVM_EXIT_IO)
		decode_port(vcpu, exit);
	else
		decode_other(vcpu->run, exit);
}

/* Writes the list of edits that the chain pops, with a root at its end if there is one to load. */
static void list_write(struct gate_vcpu *vcpu, const struct ept_edit *edits, size_t count,
		       const struct fpa *root)
{
	struct gate_page_layout *page = (struct gate_page_layout *)vcpu->page;

	for (size_t at = 0; at < count; at++) {
		page->list[2 * at] = window(edits[at].entry.v);
		page->list[2 * at + 1] = edits[at].value;
	}
	if (root)
		page->list[2 * count] = root->v;
}

/* Runs the vCPU through a chain. Signals may come in between; the chain goes on where it was. */
static bool run_chain(struct gate_vcpu *vcpu, struct error *error)
{
	struct kvm_run *run = vcpu->run;
	int status;

	do
		status = ioctl(vcpu->fd, KVM_RUN, 0);
	while (status < 0 && (errno == EINTR || errno == EAGAIN) &&
	       (run->immediate_exit = 0, true));
	if (status < 0)
		return error_set(error, EXIT_FAILED, "the gate could not store: %s",
				 strerror(errno));
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != GATE_PORT_DONE || !in_gate(vcpu))
		return error_set(error, EXIT_FAILED,
				 "the gate stopped while it stored: exit reason %u at rip %#llx",
				 run->exit_reason, run->s.regs.regs.rip);
	return true;
}

static bool commit_some(struct gate_vcpu *vcpu, const struct ept_edit *edits, size_t count,
			const struct fpa *root, struct error *error)
{
	struct kvm_run *run = vcpu->run;
	uint64_t page = vcpu_page(vcpu->gate, vcpu->index) * EPT_PAGE_BYTES;
	const unsigned char *end = root ? gate_direct_flush_chain_end : gate_direct_chain_end;

	list_write(vcpu, edits, count, root);
	run->s.regs.regs.rip = window(PAGE_CODE * EPT_PAGE_BYTES) +
			       (uint64_t)(end - gate_direct_code) - count * GATE_CHAIN_EDIT_BYTES;
	run->s.regs.regs.rsp = window(page + offsetof(struct gate_page_layout, list));
	run->s.regs.regs.rflags = 2;
	run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return run_chain(vcpu, error);
}

bool gate_commit(struct gate_vcpu *vcpu, const struct ept_edit *edits, size_t count,
		 const struct fpa *root, struct error *error)
{
	struct kvm_run *run = vcpu->run;
	struct kvm_regs saved = run->s.regs.regs;
	bool done = true;

	while (done && count > GATE_CHAIN_EDITS) {
		done = commit_some(vcpu, edits, GATE_CHAIN_EDITS, NULL, error);
		edits += GATE_CHAIN_EDITS;
		count -= GATE_CHAIN_EDITS;
	}
	done = done && commit_some(vcpu, edits, count, root, error);
	/* Back to the stub that reported the fault, behind its `out`, which is done. */
	run->s.regs.regs = saved;
	run->s.regs.regs.rip = (saved.rip & ~(uint64_t)(GATE_STUB_BYTES - 1)) + 2;
	run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	return done;
}

void gate_registers(const struct gate_vcpu *vcpu, const struct gate_exit *exit,
		    struct kvm_regs *registers)
{
	const struct interrupt_frame *frame;
	uint64_t error_code;

	*registers = vcpu->run->s.regs.regs;
	if (!in_gate(vcpu) ||
	    (exit->kind != GATE_EXIT_FAULT && exit->kind != GATE_EXIT_EXCEPTION))
		return;
	frame = frame_of(vcpu, exit->vector, &error_code);
	if (!frame)
		return;
	registers->rip = frame->rip;
	registers->rsp = frame->rsp;
	registers->rflags = frame->rflags;
}

void gate_set_result(struct gate_vcpu *vcpu, uint64_t value)
{
	vcpu->run->s.regs.regs.rax = value;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}
