// SPDX-License-Identifier: MIT
/*
 * What a guest that is a machine of its own may know of its processor, and what it may not do. Leaves
 * and bits of CPUID that are not on the list read as 0.
 */
#include <stdio.h>
#include <string.h>

#include "gate_internal.h"
#include "s2vm/guest_abi.h"

/* A leaf that guests may read, and the bits of it that they may see. Behind a list is leaf ALL. */
struct cpuid_rule {
	uint32_t leaf;
	uint32_t eax, ebx, ecx, edx;
	struct cpuid_bits {
		uint32_t eax, ebx, ecx, edx;
	} set; /* bits that they see whatever KVM says */
};

#define ALL UINT32_MAX

/*
 * Intel SDM Vol. 2A and AMD APM Vol. 3, CPUID. Left out: virtualization itself (VMX, SVM), x2APIC and
 * MONITOR, which reach beyond the guest, XSAVE and what needs it, performance counters, and all that
 * names this very CPU among others.
 */
static const struct cpuid_rule program_rules[] = {
	{ 0x00000000, ALL, ALL, ALL, ALL, { 0 } },
	{ 0x00000001, ALL, 0x0000ff00, 0x42982203, 0x078bf9ff & ~0x1000u, { 0 } },
	{ 0x00000007, 0, 0x20140708, 0, 0, { 0 } },
	{ 0x80000000, ALL, ALL, ALL, ALL, { 0 } },
	{ 0x80000001, ALL, 0, 0x00000121, 0x2c100800, { 0 } },
	{ 0x80000008, 0x0000ffff, 0, 0, 0, { 0 } },
	{ ALL, 0, 0, 0, 0, { 0 } },
};

/*
 * Linux guests see more. KVM emulates x2APIC and the deadline timer whatever the processor has.
 * That they run under a hypervisor named KVM makes Linux stay in x2APIC mode without remapping of
 * interrupts; this one has no features, so that nothing of it is used. The TSC and the local APIC's
 * timer go on in all states, at one rate. There are machine checks, with no bank to report any, and
 * no memory types by MTRR.
 */
static const struct cpuid_rule linux_rules[] = {
	{ 0x00000000, ALL, ALL, ALL, ALL, { 0 } },
	{ 0x00000001, ALL, 0x0000ff00, 0x42d82203, 0x078bebff, { 0, 0, 0x81200000, 0x200 } },
	{ 0x00000006, 0, 0, 0, 0, { 0x4, 0, 0, 0 } },
	{ 0x00000007, 0, 0x2014078b, 0, 0, { 0 } },
	{ 0x40000000, 0, 0, 0, 0, { 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d } },
	{ 0x80000000, ALL, ALL, ALL, ALL, { 0 } },
	{ 0x80000001, ALL, 0, 0x00000121, 0x2c100800, { 0 } },
	{ 0x80000002, ALL, ALL, ALL, ALL, { 0 } },
	{ 0x80000003, ALL, ALL, ALL, ALL, { 0 } },
	{ 0x80000004, ALL, ALL, ALL, ALL, { 0 } },
	{ 0x80000007, 0, 0, 0, 0, { 0, 0, 0, 0x100 } },
	{ 0x80000008, 0x0000ffff, 0, 0, 0, { 0 } },
	{ ALL, 0, 0, 0, 0, { 0 } },
};

/* The rule for the leaf; for one that is not on the list that at its end. */
static const struct cpuid_rule *find_rule(const struct gate *gate, uint32_t leaf)
{
	static const struct cpuid_rule *const lists[] = {
		[GATE_PROGRAMS] = program_rules,
		[GATE_LINUX] = linux_rules,
	};
	const struct cpuid_rule *rule = lists[gate->guests];

	while (rule->leaf != ALL && rule->leaf != leaf)
		rule++;
	return rule;
}

static struct kvm_cpuid_entry2 *find_leaf(const struct host *host, uint32_t leaf,
						uint32_t index)
{
	for (unsigned at = 0; at < host->cpuid->nent; at++) {
		struct kvm_cpuid_entry2 *entry = &host->cpuid->entries[at];
		bool indexed = entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

		if (entry->function == leaf && (!indexed || entry->index == index))
			return entry;
	}
	return NULL;
}

void machine_offer_timer(struct host *host)
{
	struct kvm_cpuid_entry2 *leaf = find_leaf(host, 1, 0);

	if (leaf)
		leaf->ecx |= UINT32_C(1) << 24;
}

void machine_cpuid(const struct gate *gate, struct kvm_regs *registers)
{
	uint32_t leaf = (uint32_t)registers->rax;
	uint32_t index = (uint32_t)registers->rcx;
	static const struct kvm_cpuid_entry2 nothing;
	const struct cpuid_rule *rule = find_rule(gate, leaf);
	const struct kvm_cpuid_entry2 *entry = find_leaf(gate->host, leaf, index);

	if (!entry)
		entry = &nothing;
	registers->rax = (entry->eax & rule->eax) | rule->set.eax;
	registers->rbx = (entry->ebx & rule->ebx) | rule->set.ebx;
	registers->rcx = (entry->ecx & rule->ecx) | rule->set.ecx;
	registers->rdx = (entry->edx & rule->edx) | rule->set.edx;
}

/* Kinds of levels in leaf 0bh: Intel SDM Vol. 2A, CPUID. */
#define LEVEL_THREADS (1u << 8)
#define LEVEL_CORES   (2u << 8)

/* How many bits tell CPUs apart. */
static unsigned number_bits(unsigned cpus)
{
	unsigned bits = 0;

	while (1u << bits < cpus)
		bits++;
	return bits;
}

/* One processor with a core for each CPU, each of one thread. */
static void place_levels(const struct gate_vcpu *vcpu, uint32_t index, struct kvm_regs *registers)
{
	unsigned cpus = vcpu->gate->cpus;

	registers->rax = index == 1 ? number_bits(cpus) : 0;
	registers->rbx = index == 1 ? cpus : index == 0;
	registers->rcx = (index & 0xff) |
			 (index == 1 ? LEVEL_CORES : index == 0 ? LEVEL_THREADS : 0);
	registers->rdx = vcpu->cpu;
}

/* AMD APM Vol. 3, Appendix E.3.2, E.4.2 and E.4.7. */
void machine_cpuid_place(const struct gate_vcpu *vcpu, uint32_t leaf, uint32_t index,
			 struct kvm_regs *registers)
{
	unsigned cpus = vcpu->gate->cpus;

	if (vcpu->gate->guests != GATE_LINUX)
		return;
	switch (leaf) {
	case 0x00000001:
		registers->rbx |= vcpu->cpu << 24;
		registers->rbx |= cpus > 1 ? cpus << 16 : 0;
		registers->rdx |= cpus > 1 ? 1u << 28 : 0; /* what these bits count is there */
		break;
	case 0x0000000b:
		place_levels(vcpu, index, registers);
		break;
	case 0x80000001:
		registers->rcx |= cpus > 1 ? 1u << 1 : 0; /* it counts cores */
		break;
	case 0x80000008:
		registers->rcx = number_bits(cpus) << 12 | (cpus - 1);
		break;
	default:
		break;
	}
}

void machine_answer_cpuid(const struct gate_vcpu *vcpu, struct kvm_regs *registers)
{
	uint32_t leaf = (uint32_t)registers->rax;
	uint32_t index = (uint32_t)registers->rcx;

	machine_cpuid(vcpu->gate, registers);
	machine_cpuid_place(vcpu, leaf, index, registers);
}

/* SYSENTER_CS, _ESP, _EIP; STAR, LSTAR, CSTAR, SFMASK; FS, GS and kernel GS base. */
const uint32_t machine_free_msrs[MACHINE_FREE_MSRS] = {
	0x174,	    0x175,	0x176,	    0xc0000081, 0xc0000082,
	0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102,
};

bool machine_has_invpcid(const struct gate *gate)
{
	struct kvm_regs registers = { .rax = 7 };

	machine_cpuid(gate, &registers);
	return registers.rbx >> 10 & 1;
}

void machine_write_ports(const struct gate *gate, uint8_t *map, unsigned ports)
{
	if (gate->guests == GATE_PROGRAMS) {
		memset(map, 0xff, ports / 8);
		map[S2VM_CALL_PORT / 8] &= (uint8_t)~(1u << S2VM_CALL_PORT % 8);
		return;
	}
	/* The gate's ports only: all others of a Linux guest are its devices', or absent. */
	memset(map, 0, ports / 8);
	for (unsigned port = GATE_PORT_EXCEPTION; port <= GATE_PORT_NO_VMX; port++)
		map[port / 8] |= (uint8_t)(1u << port % 8);
}

/* ---- events ---- */

#define EVENT_VECTOR(event) ((event) & 0xff)
#define EVENT_TYPE(event)   ((event) >> 8 & 7)
#define EVENT_EXCEPTION	    3u
#define EVENT_SOFTWARE	    4u /* by an instruction; vmx has 5 and 6 beside it for INT1, INT3 and INTO, */
#define VECTOR_BP	    3u /* for which svm says that they are exceptions */
#define VECTOR_OF	    4u

uint64_t machine_exception(enum machine_vector vector)
{
	return (uint64_t)vector | EVENT_EXCEPTION << 8 | MACHINE_EVENT_VALID |
	       (vector == MACHINE_GP ? MACHINE_EVENT_ERROR_CODE : 0);
}

uint64_t machine_interrupt(unsigned vector)
{
	return vector | MACHINE_EVENT_VALID;
}

uint64_t machine_event_again(uint64_t event)
{
	bool instruction = EVENT_TYPE(event) >= EVENT_SOFTWARE ||
			   (EVENT_TYPE(event) == EVENT_EXCEPTION &&
			    (EVENT_VECTOR(event) == VECTOR_BP || EVENT_VECTOR(event) == VECTOR_OF));

	return event & MACHINE_EVENT_VALID && !instruction ? event : 0;
}

void machine_refuse(struct gate_exit *exit, enum machine_offence offence, uint64_t number)
{
	static const char *const texts[] = {
		[MACHINE_HALT] = "it halted, and nothing can wake it",
		[MACHINE_TRIPLE_FAULT] = "it caused a triple fault",
		[MACHINE_PORT_IN] = "it used port %#llx (in), which it may not",
		[MACHINE_PORT_OUT] = "it used port %#llx (out), which it may not",
		[MACHINE_MSR_READ] = "it read MSR %#llx, which it may not",
		[MACHINE_MSR_WRITE] = "it wrote MSR %#llx, which it may not",
		[MACHINE_HYPERVISOR] =
			"it used an instruction that is a hypervisor's, exit code %#llx",
		[MACHINE_OTHER] = "it did what it may not, exit code %#llx",
	};

	exit->kind = GATE_EXIT_HOST;
	snprintf(exit->text, sizeof(exit->text), texts[offence], (unsigned long long)number);
}
