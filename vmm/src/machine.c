// SPDX-License-Identifier: MIT
/*
 * What a guest that is a machine of its own may know of its processor. Leaves and bits that are not
 * on the list read as 0.
 */
#include "gate_internal.h"

/* A leaf that guests may read, and the bits of it that they may see. */
struct cpuid_rule {
	uint32_t leaf;
	uint32_t eax, ebx, ecx, edx;
};

#define ALL UINT32_MAX

/*
 * Intel SDM Vol. 2A and AMD APM Vol. 3, CPUID. Left out: virtualization itself (VMX, SVM), x2APIC and
 * MONITOR, which reach beyond the guest, XSAVE and what needs it, performance counters, and all that
 * names this very CPU among others.
 */
static const struct cpuid_rule rules[] = {
	{ 0x00000000, ALL, ALL, ALL, ALL },
	{ 0x00000001, ALL, 0x0000ff00, 0x42982203, 0x078bf9ff & ~0x1000u },
	{ 0x00000007, 0, 0x20140708, 0, 0 },
	{ 0x80000000, ALL, ALL, ALL, ALL },
	{ 0x80000001, ALL, 0, 0x00000121, 0x2c100800 },
	{ 0x80000008, 0x0000ffff, 0, 0, 0 },
};

static const struct cpuid_rule *find_rule(uint32_t leaf)
{
	for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].leaf == leaf)
			return &rules[i];
	return NULL;
}

static const struct kvm_cpuid_entry2 *find_leaf(const struct host *host, uint32_t leaf,
						uint32_t index)
{
	for (unsigned at = 0; at < host->cpuid->nent; at++) {
		const struct kvm_cpuid_entry2 *entry = &host->cpuid->entries[at];
		bool indexed = entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

		if (entry->function == leaf && (!indexed || entry->index == index))
			return entry;
	}
	return NULL;
}

void machine_cpuid(const struct host *host, struct kvm_regs *registers)
{
	uint32_t leaf = (uint32_t)registers->rax;
	uint32_t index = (uint32_t)registers->rcx;
	const struct cpuid_rule *rule = find_rule(leaf);
	const struct kvm_cpuid_entry2 *entry = rule ? find_leaf(host, leaf, index) : NULL;

	registers->rax = entry ? entry->eax & rule->eax : 0;
	registers->rbx = entry ? entry->ebx & rule->ebx : 0;
	registers->rcx = entry ? entry->ecx & rule->ecx : 0;
	registers->rdx = entry ? entry->edx & rule->edx : 0;
}
