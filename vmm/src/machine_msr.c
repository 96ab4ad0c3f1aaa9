// SPDX-License-Identifier: MIT
/*
 * MSRs of Linux guests that are not simply those of the vCPU, because their state is the VMM's, or
 * because they would reach beyond the guest. References: AMD APM Vol. 2, Appendix A; Intel SDM
 * Vol. 3A, "x2APIC register address space", and Vol. 4.
 */
#include <sys/ioctl.h>

#include "gate_internal.h"
#include "platform.h"

#define MSR_APIC_ID  0x802u
#define MSR_APIC_LDR 0x80du
#define MSR_APIC_ICR 0x830u
#define MSR_TSC_AUX  0xc0000103u

/* What there is to know of those that always read the same. */
enum msr_write {
	MSR_READ_ONLY, /* as on a processor */
	MSR_SAME,      /* may be written what it is */
	MSR_IGNORED,   /* may be written, and stays */
};

static const struct msr_constant {
	uint32_t index;
	enum msr_write write;
	uint64_t value;
} constants[] = {
	{ MACHINE_MSR_APIC_BASE, MSR_SAME, MACHINE_APIC_BASE },
	{ 0x0000003a, MSR_READ_ONLY, 1 }, /* FEATURE_CONTROL: locked, without VMX */
	{ 0x0000003b, MSR_SAME, 0 },	/* TSC_ADJUST */
	{ 0x0000008b, MSR_IGNORED, 0 }, /* microcode's version */
	{ 0x00000179, MSR_READ_ONLY, 0 }, /* MCG_CAP: no banks */
	{ 0x0000017a, MSR_IGNORED, 0 },	  /* MCG_STATUS */
	{ 0x000001a0, MSR_SAME, 0x1801 }, /* MISC_ENABLE: fast strings; no BTS, no PEBS */
	{ MSR_APIC_ID, MSR_READ_ONLY, 0 },
	{ MSR_APIC_LDR, MSR_READ_ONLY, 1 },
	{ 0xc0010010, MSR_IGNORED, 0 }, /* SYSCFG */
	{ 0xc0010015, MSR_IGNORED, 0 }, /* HWCR */
	{ 0xc0010055, MSR_IGNORED, 0 }, /* interrupts for power states */
	{ 0xc0010114, MSR_IGNORED, 0 }, /* VM_CR */
	{ 0xc0011029, MSR_IGNORED, 0 }, /* DE_CFG */
};

/*
 * TSC deadline; of the local APIC: version, TPR, PPR and EOI, SVR to ESR (with ISR, TMR and IRR),
 * LVT of CMCI, the other LVTs to the timer's count, its divisor, and interrupts to itself. Not ID,
 * LDR and ICR, which have to do with other CPUs.
 */
const struct machine_msr_range machine_apic_msrs[MACHINE_APIC_MSRS] = {
	{ 0x6e0, 0x6e0 }, { 0x803, 0x803 }, { 0x808, 0x808 }, { 0x80a, 0x80b },
	{ 0x80f, 0x828 }, { 0x82f, 0x82f }, { 0x832, 0x839 }, { 0x83e, 0x83f },
};

uint32_t machine_free_msr(enum gate_guests guests, unsigned number)
{
	if (number < MACHINE_FREE_MSRS)
		return machine_free_msrs[number];
	if (guests != GATE_LINUX)
		return 0;
	number -= MACHINE_FREE_MSRS;
	if (number == 0)
		return MSR_TSC_AUX;
	number--;
	for (unsigned i = 0; i < MACHINE_APIC_MSRS; i++) {
		const struct machine_msr_range *range = &machine_apic_msrs[i];
		unsigned count = range->last - range->first + 1;

		if (number < count)
			return range->first + number;
		number -= count;
	}
	return 0;
}

static const struct msr_constant *find_constant(uint32_t index)
{
	for (unsigned i = 0; i < sizeof(constants) / sizeof(constants[0]); i++)
		if (constants[i].index == index)
			return &constants[i];
	return NULL;
}

static bool constant(const struct msr_constant *constant, struct machine_msr *msr)
{
	if (!msr->write)
		msr->value = constant->value;
	else if (constant->write == MSR_SAME)
		return msr->value == constant->value;
	return !msr->write || constant->write == MSR_IGNORED;
}

static bool signal_index(const struct gate *gate, unsigned index, unsigned vector)
{
	/* A message to one local APIC by its number, KVM_X2APIC_API_USE_32BIT_IDS. */
	struct kvm_msi message = {
		.address_lo = 0xfee00000 | (index & 0xff) << 12,
		.address_hi = index & ~0xffu,
		.data = vector,
	};

	return ioctl(gate->memory->vm, KVM_SIGNAL_MSI, &message) >= 0;
}

bool gate_signal(const struct gate_vcpu *vcpu, unsigned vector)
{
	return signal_index(vcpu->gate, vcpu->index, vector);
}

/* The interrupt command register's fields. */
#define ICR_MODE(icr)	   ((icr) >> 8 & 7)
#define ICR_LOGICAL(icr)   ((icr) >> 11 & 1)
#define ICR_ASSERT(icr)	   ((icr) >> 14 & 1)
#define ICR_LEVEL(icr)	   ((icr) >> 15 & 1)
#define ICR_SHORTHAND(icr) ((icr) >> 18 & 3)
#define ICR_TO(icr)	   ((uint32_t)((icr) >> 32))

enum { TO_FIELD, TO_SELF, TO_ALL, TO_OTHERS };
enum { MODE_FIXED, MODE_LOWEST, MODE_INIT = 5, MODE_START = 6 };

/* Those that the destination field names. All CPUs are in the first cluster of logical numbers. */
static unsigned named_cpus(uint64_t icr, unsigned all)
{
	uint32_t to = ICR_TO(icr);

	if (to == UINT32_MAX)
		return all;
	if (ICR_LOGICAL(icr))
		return to >> 16 ? 0 : to & all;
	return to < PLATFORM_CPUS_MAX ? 1u << to & all : 0;
}

unsigned machine_icr_cpus(uint64_t icr, unsigned from, unsigned cpus)
{
	unsigned all = (1u << cpus) - 1;

	switch (ICR_SHORTHAND(icr)) {
	case TO_SELF:
		return 1u << from;
	case TO_ALL:
		return all;
	case TO_OTHERS:
		return all & ~(1u << from);
	default:
		return named_cpus(icr, all);
	}
}

/* To one CPU. INIT counts when it is asserted; the first CPU is not started by messages. NMIs are dropped. */
static void send_to(const struct gate_vcpu *vcpu, unsigned cpu, uint64_t icr)
{
	const struct gate_commands *commands = &vcpu->gate->commands;
	unsigned index = vcpu->index - vcpu->cpu + cpu;

	switch (ICR_MODE(icr)) {
	case MODE_FIXED:
	case MODE_LOWEST:
		signal_index(vcpu->gate, index, icr & 0xff);
		break;
	case MODE_INIT:
		if (cpu && cpu != vcpu->cpu && (ICR_ASSERT(icr) || !ICR_LEVEL(icr)))
			commands->send(commands->context, index, GATE_INIT, 0);
		break;
	case MODE_START:
		if (cpu && cpu != vcpu->cpu)
			commands->send(commands->context, index, GATE_START, icr & 0xff);
		break;
	default:
		break;
	}
}

static bool command(const struct gate_vcpu *vcpu, struct machine_msr *msr)
{
	unsigned cpus;

	if (!msr->write) {
		msr->value = 0;
		return true;
	}
	cpus = machine_icr_cpus(msr->value, vcpu->cpu, vcpu->gate->cpus);
	if (ICR_MODE(msr->value) == MODE_LOWEST)
		cpus &= ~cpus + 1;
	for (unsigned cpu = 0; cpus >> cpu; cpu++)
		if (cpus >> cpu & 1)
			send_to(vcpu, cpu, msr->value);
	return true;
}

/* What an MSR reads as whose value has to do with the CPU's number. */
static struct msr_constant of_cpu(const struct msr_constant *constant, unsigned cpu)
{
	struct msr_constant own = *constant;

	switch (constant->index) {
	case MACHINE_MSR_APIC_BASE:
		own.value &= ~(cpu ? MACHINE_APIC_BSP : 0);
		break;
	case MSR_APIC_ID:
		own.value = cpu;
		break;
	case MSR_APIC_LDR:
		own.value = cpu >> 4 << 16 | 1u << (cpu & 15);
		break;
	default:
		break;
	}
	return own;
}

bool machine_msr(const struct gate_vcpu *vcpu, struct machine_msr *msr)
{
	const struct msr_constant *found = find_constant(msr->index);
	struct msr_constant own;

	if (!found)
		return msr->index == MSR_APIC_ICR && command(vcpu, msr);
	own = of_cpu(found, vcpu->cpu);
	return constant(&own, msr);
}

struct machine_msr machine_msr_asked(const struct kvm_regs *registers, bool write)
{
	return (struct machine_msr){
		.index = (uint32_t)registers->rcx,
		.write = write,
		.value = registers->rdx << 32 | (registers->rax & UINT32_MAX),
	};
}

void machine_msr_answer(const struct machine_msr *msr, struct kvm_regs *registers)
{
	if (msr->write)
		return;
	registers->rax = msr->value & UINT32_MAX;
	registers->rdx = msr->value >> 32;
}
