// SPDX-License-Identifier: MIT
#include "baseline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fleet.h"
#include "s2vm/guest_abi.h"

/*
 * The VM's own first pages. Guest-virtual is guest-physical, by 2 MiB pages for the guest; the last
 * entry of the PDPT shows the same pages to the processor's supervisor accesses, for the TSS.
 */
enum boot_page {
	BOOT_UNUSED,
	BOOT_PML4,
	BOOT_PDPT,
	BOOT_SUPERVISOR_PD,
	BOOT_TSS,
	BOOT_PD, /* one for each GiB of guest memory */
};

#define SUPERVISOR_GIB 511u
#define TABLE_BITS     0x27u /* present, writable, user, accessed */
#define PAGE_BITS      0xe7u /* the same, dirty and large */
#define SUPERVISOR     4u    /* the user bit, to be taken away */
#define SLOTS	       (2 + PROGRAM_SEGMENTS + 1)
#define RUN_LIMIT_NS   UINT64_C(60000000000)

struct mapping {
	void *at;
	uint64_t bytes;
};

struct baseline_vm {
	const struct host *host;
	uint64_t host_table_bytes; /* that the host had more of when the guest had run */
	int vm;
	int vm_stats;
	int vcpu;
	int vcpu_stats;
	struct kvm_run *run;
	struct mapping mappings[SLOTS];
	unsigned slots;
	struct host_counter faults;
};

static bool failed(struct error *error, const char *what)
{
	return error_set(error, EXIT_FAILED, "one VM per guest: %s failed: %s%s", what,
			 strerror(errno),
			 errno == EMFILE ? "; raise the limit of open files (ulimit -n)" : "");
}

/* Memory at @at: private copies of a file's pages, or, without a file, zeros. */
static bool add_memory(struct baseline_vm *vm, uint64_t at, uint64_t bytes, int fd,
		       uint64_t offset, struct error *error)
{
	int flags = MAP_PRIVATE | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0);
	void *mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);
	struct kvm_userspace_memory_region region = {
		.slot = vm->slots,
		.guest_phys_addr = at,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)mapping,
	};

	if (mapping == MAP_FAILED)
		return failed(error, "mmap");
	vm->mappings[vm->slots++] = (struct mapping){ mapping, bytes };
	if (ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return failed(error, "KVM_SET_USER_MEMORY_REGION");
	return true;
}

static uint64_t *boot_page(const struct baseline_vm *vm, uint64_t page)
{
	return (uint64_t *)((char *)vm->mappings[0].at + page * EPT_PAGE_BYTES);
}

static void write_tables(const struct baseline_vm *vm, uint64_t gibs)
{
	boot_page(vm, BOOT_PML4)[0] = BOOT_PDPT * EPT_PAGE_BYTES | TABLE_BITS;
	boot_page(vm, BOOT_PDPT)[SUPERVISOR_GIB] =
		BOOT_SUPERVISOR_PD * EPT_PAGE_BYTES | TABLE_BITS;
	boot_page(vm, BOOT_SUPERVISOR_PD)[0] = PAGE_BITS & ~SUPERVISOR;
	for (uint64_t gib = 0; gib < gibs; gib++) {
		boot_page(vm, BOOT_PDPT)[gib] = (BOOT_PD + gib) * EPT_PAGE_BYTES | TABLE_BITS;
		for (uint64_t entry = 0; entry < EPT_ENTRIES; entry++)
			boot_page(vm, BOOT_PD + gib)[entry] =
				(gib << 30) + entry * ept_entry_span(2) + PAGE_BITS;
	}
}

/* A TSS whose port bitmap allows the call port only. */
static void write_tss(const struct baseline_vm *vm)
{
	uint8_t *tss = (uint8_t *)boot_page(vm, BOOT_TSS);
	uint16_t bitmap = 104;

	memcpy(tss + 102, &bitmap, sizeof(bitmap));
	memset(tss + 104, 0xff, 33);
	tss[104 + S2VM_CALL_PORT / 8] &= (uint8_t)~(1u << S2VM_CALL_PORT % 8);
}

static bool add_all_memory(struct baseline_vm *vm, const struct memfile *file,
			   const struct program *program, struct error *error)
{
	uint64_t end = S2VM_FILE_BASE + file->pages * EPT_PAGE_BYTES;
	uint64_t gibs = (end + (UINT64_C(1) << 30) - 1) >> 30;

	if (!add_memory(vm, 0, (BOOT_PD + gibs) * EPT_PAGE_BYTES, -1, 0, error) ||
	    !add_memory(vm, S2VM_FILE_BASE, file->pages * EPT_PAGE_BYTES, file->fd, 0, error))
		return false;
	for (unsigned i = 0; i < program->region_count; i++) {
		const struct ept_region *region = &program->regions[i];

		if (!add_memory(vm, region->start.v, region->bytes, program->image.fd,
				region->first.page * EPT_PAGE_BYTES, error))
			return false;
	}
	write_tables(vm, gibs);
	write_tss(vm);
	return true;
}

static struct kvm_segment segment(unsigned selector, unsigned type, bool code)
{
	return (struct kvm_segment){ .limit = 0xffffffff, .selector = (uint16_t)selector,
				     .type = (uint8_t)type, .present = 1, .dpl = selector & 3,
				     .db = !code, .s = 1, .l = code, .g = 1 };
}

/* A program at CPL 3, with the VM's tables, or a machine at CPL 0 with the program's own. */
static bool set_system_registers(struct baseline_vm *vm, const struct baseline *baseline,
				 struct error *error)
{
	struct kvm_sregs *sregs = &vm->run->s.regs.sregs;

	if (ioctl(vm->vcpu, KVM_GET_SREGS, sregs) < 0)
		return failed(error, "KVM_GET_SREGS");
	sregs->cs = segment(baseline->machine ? 0x08 : 0x1b, 11, true);
	sregs->ss = segment(baseline->machine ? 0x10 : 0x23, 3, false);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss;
	sregs->tr = (struct kvm_segment){
		.base = ((uint64_t)SUPERVISOR_GIB << 30) + BOOT_TSS * EPT_PAGE_BYTES,
		.limit = 104 + 32, .selector = 0x28, .type = 11, .present = 1,
	};
	sregs->idt = (struct kvm_dtable){ 0 };
	sregs->cr0 = 0x80010033;
	sregs->cr3 = baseline->machine ? baseline->program->machine_root.v :
					 BOOT_PML4 * EPT_PAGE_BYTES;
	sregs->cr4 = 0x620;
	sregs->efer = 0xd00;
	return true;
}

static bool set_registers(struct baseline_vm *vm, const struct baseline *baseline, unsigned id,
			  struct error *error)
{
	if (!set_system_registers(vm, baseline, error))
		return false;
	vm->run->s.regs.regs = (struct kvm_regs){
		.rip = baseline->program->entry.v, .rsp = baseline->program->stack_end.v,
		.rdi = id, .rsi = S2VM_FILE_BASE, .rdx = baseline->file->bytes, .r8 = id + 1,
		.rflags = 2,
	};
	vm->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	vm->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	return true;
}

static bool create(struct baseline_vm *vm, const struct baseline *baseline, unsigned id,
		   struct error *error)
{
	vm->vm = ioctl(vm->host->fd, KVM_CREATE_VM, 0);
	if (vm->vm < 0)
		return failed(error, "KVM_CREATE_VM");
	if (!add_all_memory(vm, baseline->file, baseline->program, error))
		return false;
	vm->vcpu = ioctl(vm->vm, KVM_CREATE_VCPU, 0);
	if (vm->vcpu < 0)
		return failed(error, "KVM_CREATE_VCPU");
	vm->run = mmap(NULL, (size_t)vm->host->vcpu_mmap_bytes, PROT_READ | PROT_WRITE,
		       MAP_SHARED, vm->vcpu, 0);
	if (vm->run == MAP_FAILED) {
		vm->run = NULL;
		return failed(error, "mmap");
	}
	if (ioctl(vm->vcpu, KVM_SET_CPUID2, vm->host->cpuid) < 0)
		return failed(error, "KVM_SET_CPUID2");
	return set_registers(vm, baseline, id, error);
}

/* Serves the calls that benchmark programs make; false when the guest has exited. */
static bool serve_call(struct baseline_vm *vm, uint64_t begin, uint64_t *mark,
		       struct baseline_guest *guest)
{
	struct kvm_regs *regs = &vm->run->s.regs.regs;
	const uint64_t words[] = { regs->rdi, regs->rsi, regs->rdx, regs->r10 };

	switch (regs->rax) {
	case S2VM_CALL_EXIT:
		guest->exited = regs->rdi == 0;
		return false;
	case S2VM_CALL_RESULT:
		if (!guest->launch_ns)
			guest->launch_ns = now_ns() - begin;
		for (unsigned at = 0; at < sizeof(guest->result); at++)
			guest->result[at] = (uint8_t)(words[at / 8] >> (56 - 8 * (at % 8)));
		break;
	case S2VM_CALL_MARK:
		if (regs->rdi == 1) {
			guest->read_ns = now_ns() - *mark;
			guest->read_faults =
				host_counter_read(vm->faults) - guest->launch_faults;
		} else {
			guest->launch_faults = host_counter_read(vm->faults);
		}
		*mark = now_ns();
		break;
	default:
		break;
	}
	regs->rax = 0;
	vm->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	return true;
}

static bool run(struct baseline_vm *vm, uint64_t begin, struct baseline_guest *guest,
		struct error *error)
{
	uint64_t mark = begin;

	while (now_ns() - begin < RUN_LIMIT_NS) {
		if (ioctl(vm->vcpu, KVM_RUN, 0) < 0) {
			if (errno == EINTR)
				continue;
			return failed(error, "KVM_RUN");
		}
		if (vm->run->exit_reason != KVM_EXIT_IO || vm->run->io.port != S2VM_CALL_PORT)
			return error_set(error, EXIT_FAILED,
					 "one VM per guest: the guest ended with KVM exit reason %u",
					 vm->run->exit_reason);
		if (!serve_call(vm, begin, &mark, guest))
			return true;
	}
	return error_set(error, EXIT_FAILED, "one VM per guest: the guest does not end");
}

bool baseline_run(const struct baseline *baseline, unsigned id, struct baseline_vm **out,
		  struct baseline_guest *guest, struct error *error)
{
	struct baseline_vm *vm = calloc(1, sizeof(*vm));
	uint64_t tables = host_sec_page_tables();
	uint64_t begin = now_ns();

	*guest = (struct baseline_guest){ 0 };
	if (!vm)
		return error_set(error, EXIT_FAILED, "out of memory");
	vm->host = baseline->host;
	vm->vm = vm->vcpu = vm->vm_stats = vm->vcpu_stats = -1;
	if (!create(vm, baseline, id, error)) {
		baseline_destroy(vm);
		return false;
	}
	vm->vm_stats = host_stats_open(vm->vm);
	vm->vcpu_stats = host_stats_open(vm->vcpu);
	vm->faults = host_counter_find(vm->vcpu_stats, "pf_taken");
	if (!run(vm, begin, guest, error)) {
		baseline_destroy(vm);
		return false;
	}
	vm->host_table_bytes = host_sec_page_tables();
	vm->host_table_bytes -= tables < vm->host_table_bytes ? tables : vm->host_table_bytes;
	*out = vm;
	return true;
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

void baseline_destroy(struct baseline_vm *vm)
{
	if (vm->run)
		munmap(vm->run, (size_t)vm->host->vcpu_mmap_bytes);
	close_if_open(vm->vcpu_stats);
	close_if_open(vm->vm_stats);
	close_if_open(vm->vcpu);
	close_if_open(vm->vm);
	for (unsigned i = 0; i < vm->slots; i++)
		munmap(vm->mappings[i].at, vm->mappings[i].bytes);
	free(vm);
}

uint64_t baseline_shadow_pages(const struct baseline_vm *vm)
{
	return host_shadow_pages(vm->vm_stats);
}

uint64_t baseline_table_bytes(const struct baseline_vm *vm)
{
	uint64_t shadow = baseline_shadow_pages(vm) * EPT_PAGE_BYTES;

	return shadow ? shadow : vm->host_table_bytes;
}
