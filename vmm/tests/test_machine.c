// SPDX-License-Identifier: MIT
/* What Linux guests are told of their processor, and MSRs that are the VMM's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gate_internal.h"
#include "s2vm/guest_abi.h"

/* A KVM that says of every leaf up to 0x20, 0x40000001 and 0x80000020 that all is there. */
static struct kvm_cpuid2 *everything(void)
{
	static const uint32_t firsts[] = { 0, 0x40000000, 0x80000000 };
	static const uint32_t counts[] = { 0x21, 2, 0x21 };
	struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + 128 * sizeof(list->entries[0]));

	assert_non_null(list);
	for (unsigned i = 0; i < 3; i++)
		for (uint32_t leaf = 0; leaf < counts[i]; leaf++)
			list->entries[list->nent++] = (struct kvm_cpuid_entry2){
				.function = firsts[i] + leaf,
				.eax = UINT32_MAX,
				.ebx = UINT32_MAX,
				.ecx = UINT32_MAX,
				.edx = UINT32_MAX,
			};
	return list;
}

static struct kvm_regs ask(enum gate_guests guests, struct kvm_cpuid2 *list, uint32_t leaf)
{
	struct host host = { .cpuid = list };
	struct gate gate = { .guests = guests, .host = &host };
	struct kvm_regs registers = { .rax = leaf };

	machine_cpuid(&gate, &registers);
	return registers;
}

static void hidden(void **state)
{
	struct kvm_cpuid2 *list = everything();

	(void)state;
	for (enum gate_guests guests = GATE_PROGRAMS; guests <= GATE_LINUX; guests++) {
		struct kvm_regs one = ask(guests, list, 1);
		struct kvm_regs extended = ask(guests, list, 0x80000001);

		assert_int_equal(one.rcx & (1u << 3 | 1u << 5 | 3u << 26), 0); /* MONITOR, VMX, XSAVE */
		assert_int_equal(one.rdx & 1u << 12, 0);		       /* MTRR */
		assert_int_equal(extended.rcx & 1u << 2, 0);		       /* SVM */
		assert_int_equal(ask(guests, list, 0x8000000a).rax, 0);
		assert_int_equal(ask(guests, list, 0xd).rax, 0);
		assert_int_equal(ask(guests, list, UINT32_MAX).rax, 0);
	}
	free(list);
}

/* None of KVM's features: each is an MSR or a call that would reach KVM. */
static void linux_sees_a_hypervisor_without_features(void **state)
{
	struct kvm_cpuid2 *list = everything();
	struct kvm_regs name = ask(GATE_LINUX, list, 0x40000000);
	struct kvm_regs features = ask(GATE_LINUX, list, 0x40000001);

	(void)state;
	assert_int_equal(name.rax, 0x40000001);
	assert_int_equal(name.rbx, 0x4b4d564b);
	assert_int_equal(features.rax | features.rbx | features.rcx | features.rdx, 0);
	assert_int_equal(ask(GATE_PROGRAMS, list, 0x40000000).rax, 0);
	free(list);
}

static void linux_sees_an_apic_whatever_kvm_says(void **state)
{
	struct kvm_cpuid2 nothing = { 0 };
	struct kvm_regs one = ask(GATE_LINUX, &nothing, 1);

	(void)state;
	assert_true(one.rdx & 1u << 9);
	assert_true(one.rcx & 1u << 21); /* x2APIC */
	assert_true(one.rcx & 1u << 24); /* TSC deadline */
	assert_true(one.rcx & 1u << 31); /* hypervisor */
	assert_int_equal(one.rbx, 0);	 /* its number */
	assert_true(ask(GATE_LINUX, &nothing, 0x80000007).rdx & 1u << 8);
}

/* What one CPU among several is told of its place. */
static void cpus_are_told_apart(void **state)
{
	struct gate gate = { .guests = GATE_LINUX, .cpus = 3 };

	(void)state;
	for (unsigned cpu = 0; cpu < 3; cpu++) {
		/* Numbers in the VM have nothing to do with it. */
		struct gate_vcpu vcpu = { .gate = &gate, .index = 6 + cpu, .cpu = cpu };
		struct kvm_regs one = { 0 }, threads = { 0 }, cores = { 0 }, beyond = { 0 };
		struct kvm_regs sizes = { 0 };

		machine_cpuid_place(&vcpu, 1, 0, &one);
		assert_int_equal(one.rbx, cpu << 24 | 3 << 16);
		assert_true(one.rdx & 1u << 28);
		machine_cpuid_place(&vcpu, 0xb, 0, &threads);
		assert_int_equal(threads.rax, 0);
		assert_int_equal(threads.rbx, 1);
		assert_int_equal(threads.rcx, 0x100);
		assert_int_equal(threads.rdx, cpu);
		machine_cpuid_place(&vcpu, 0xb, 1, &cores);
		assert_int_equal(cores.rax, 2);
		assert_int_equal(cores.rbx, 3);
		assert_int_equal(cores.rcx, 0x201);
		assert_int_equal(cores.rdx, cpu);
		machine_cpuid_place(&vcpu, 0xb, 2, &beyond);
		assert_int_equal(beyond.rbx, 0);
		assert_int_equal(beyond.rcx, 2);
		machine_cpuid_place(&vcpu, 0x80000008, 0, &sizes);
		assert_int_equal(sizes.rcx, 2 << 12 | 2);
	}
}

static struct gate one_cpu = { .guests = GATE_LINUX, .cpus = 1 };
static const struct gate_vcpu alone = { .gate = &one_cpu };

static bool read_msr_of(const struct gate_vcpu *vcpu, uint32_t index, uint64_t *value)
{
	struct machine_msr msr = { .index = index };
	bool done = machine_msr(vcpu, &msr);

	*value = msr.value;
	return done;
}

static bool write_msr_of(const struct gate_vcpu *vcpu, uint32_t index, uint64_t value)
{
	struct machine_msr msr = { .index = index, .write = true, .value = value };

	return machine_msr(vcpu, &msr);
}

static bool read_msr(uint32_t index, uint64_t *value)
{
	return read_msr_of(&alone, index, value);
}

static bool write_msr(uint32_t index, uint64_t value)
{
	return write_msr_of(&alone, index, value);
}

static void the_apic_stays_what_it_is(void **state)
{
	uint64_t base, value;

	(void)state;
	assert_true(read_msr(0x1b, &base));
	assert_int_equal(base, 0xfee00d00);
	assert_true(write_msr(0x1b, base));
	assert_false(write_msr(0x1b, base & ~UINT64_C(0x400)));
	assert_false(write_msr(0x1b, base + 0x1000));
	assert_true(read_msr(0x802, &value));
	assert_int_equal(value, 0);
	assert_false(write_msr(0x802, 0));
	assert_true(read_msr(0x80d, &value));
	assert_int_equal(value, 1);
}

/* ---- what one local APIC sends to others ---- */

/* The middle one of three guests of two CPUs: its vCPUs have the numbers 2 and 3. */
#define BASE 2u
#define CPUS 2u

/* What has been sent, by number of vCPU: interrupts as KVM was told, and commands. */
static unsigned interrupts[8], resets[8], starts[8];

int __wrap_ioctl(int fd, unsigned long request, void *argument);

int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
	const struct kvm_msi *message = argument;
	unsigned to;

	(void)fd;
	assert_int_equal(request, KVM_SIGNAL_MSI);
	to = (message->address_lo >> 12 & 0xff) | message->address_hi;
	assert_in_range(to, 0, 7);
	assert_int_equal(message->address_lo & ~0xff000u, 0xfee00000);
	assert_int_equal(message->data, 0x31);
	interrupts[to]++;
	return 1;
}

static void note_command(void *context, unsigned index, enum gate_command command, uint8_t vector)
{
	(void)context;
	assert_in_range(index, 0, 7);
	if (command == GATE_INIT) {
		resets[index]++;
		return;
	}
	assert_int_equal(vector, 0x31);
	starts[index]++;
}

/* Writes @icr on CPU @cpu of that guest. */
static void send(unsigned cpu, uint64_t icr)
{
	struct memory memory = { .vm = -1 };
	struct gate gate = {
		.guests = GATE_LINUX,
		.cpus = CPUS,
		.memory = &memory,
		.commands = { note_command, NULL },
	};
	struct gate_vcpu vcpu = { .gate = &gate, .index = BASE + cpu, .cpu = cpu };

	memset(interrupts, 0, sizeof(interrupts));
	memset(resets, 0, sizeof(resets));
	memset(starts, 0, sizeof(starts));
	assert_true(write_msr_of(&vcpu, 0x830, icr));
}

/* Those of @counts that are not 0, bit n for vCPU n. */
static unsigned set_of(const unsigned *counts)
{
	unsigned set = 0;

	for (unsigned i = 0; i < 8; i++)
		set |= counts[i] ? 1u << i : 0;
	return set;
}

#define LOGICAL	  (UINT64_C(1) << 11)
#define SHORT(to) ((uint64_t)(to) << 18)
#define TO(cpu)	  ((uint64_t)(cpu) << 32)

static void interrupts_reach_those_who_are_meant(void **state)
{
	static const struct {
		uint64_t icr;
		unsigned cpus; /* bit n for CPU n of the same guest */
	} cases[] = {
		{ TO(0), 1 },
		{ TO(1), 2 },
		{ TO(2), 0 }, /* as vCPUs of the VM there are 2 and 3 */
		{ TO(3), 0 },
		{ TO(0x80000001), 0 },
		{ TO(0xffffffff), 3 },
		{ TO(1) | LOGICAL, 1 },
		{ TO(2) | LOGICAL, 2 },
		{ TO(3) | LOGICAL, 3 },
		{ TO(0xfffc) | LOGICAL, 0 },
		{ TO(0x10001) | LOGICAL, 0 }, /* another cluster */
		{ TO(0xffffffff) | LOGICAL, 3 },
		{ TO(3) | LOGICAL | 1 << 8, 1 }, /* to one of them */
		{ SHORT(1), 2 },
		{ SHORT(2), 3 },
		{ SHORT(3), 1 },
		{ SHORT(3) | TO(3), 1 },
		{ TO(0) | 2 << 8, 0 }, /* modes without a vector */
		{ TO(0) | 4 << 8, 0 },
		{ TO(0) | 7 << 8, 0 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		send(1, cases[i].icr | 0x31);
		assert_int_equal(set_of(interrupts), cases[i].cpus << BASE);
		assert_int_equal(set_of(resets) | set_of(starts), 0);
	}
}

/* Not the first, which starts with the guest, and not itself. */
static void other_cpus_are_reset_and_started(void **state)
{
	(void)state;
	send(0, TO(1) | 5 << 8 | 1 << 14 | 1 << 15);
	assert_int_equal(set_of(resets), 2 << BASE);
	send(0, TO(1) | 5 << 8 | 1 << 15); /* not asserted */
	assert_int_equal(set_of(resets), 0);
	send(0, SHORT(3) | 5 << 8 | 1 << 14);
	assert_int_equal(set_of(resets), 2 << BASE);
	send(0, TO(1) | 6 << 8 | 0x31);
	assert_int_equal(set_of(starts), 2 << BASE);
	send(0, TO(0xffffffff) | 6 << 8 | 0x31);
	assert_int_equal(set_of(starts), 2 << BASE);
	send(1, TO(0xffffffff) | 5 << 8 | 1 << 14);
	assert_int_equal(set_of(resets), 0);
	for (uint64_t to = 2; to < 64; to++) {
		send(0, TO(to) | 5 << 8 | 1 << 14);
		send(0, TO(to) | 6 << 8 | 0x31);
		assert_int_equal(set_of(resets) | set_of(starts) | set_of(interrupts), 0);
	}
}

/* Each knows its own number, and who is first. */
static void apics_have_numbers_of_their_guest(void **state)
{
	struct gate gate = { .guests = GATE_LINUX, .cpus = CPUS };
	struct gate_vcpu second = { .gate = &gate, .index = BASE + 1, .cpu = 1 };
	uint64_t value;

	(void)state;
	assert_true(read_msr_of(&second, 0x802, &value));
	assert_int_equal(value, 1);
	assert_true(read_msr_of(&second, 0x80d, &value));
	assert_int_equal(value, 2);
	assert_true(read_msr_of(&second, 0x1b, &value));
	assert_int_equal(value, 0xfee00c00);
	assert_true(write_msr_of(&second, 0x1b, value));
	assert_false(write_msr_of(&second, 0x1b, value | 0x100));
}

/* KVM's own MSRs, SVM's, MTRRs, performance counters. */
static void others_are_refused(void **state)
{
	static const uint32_t refused[] = { 0x11, 0x12, 0x4b564d00, 0x4b564d01, 0xc0010117, 0xfe,
					    0x200, 0xc1, 0x186, 0xc0010000, 0x831, 0x1d9 };
	uint64_t value;

	(void)state;
	for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		assert_false(read_msr(refused[i], &value));
		assert_false(write_msr(refused[i], 0));
	}
}

/* Linux reads some of Intel's without being prepared for an exception. */
static void intel_constants(void **state)
{
	uint64_t value;

	(void)state;
	assert_true(read_msr(0x1a0, &value));
	assert_true(value & 1);			 /* fast strings, or Linux does without them */
	assert_false(value & UINT64_C(1) << 34); /* no-execute is not switched off */
	assert_true(write_msr(0x1a0, value));
	assert_false(write_msr(0x1a0, value | 1u << 18)); /* MONITOR */
	assert_true(read_msr(0x3a, &value));
	assert_int_equal(value, 1); /* locked, and no VMX */
	assert_false(write_msr(0x3a, 5));
}

static bool is_free(enum gate_guests guests, uint32_t msr)
{
	uint32_t other;

	for (unsigned i = 0; (other = machine_free_msr(guests, i)); i++)
		if (msr == other)
			return true;
	return false;
}

/* What an engine adds to these is kept where the gate's own is kept apart: EFER, PAT. */
static void free_msrs(void **state)
{
	static const uint32_t both[] = { 0x174, 0x176, 0xc0000081, 0xc0000084, 0xc0000100, 0xc0000102 };
	static const uint32_t only_linux[] = { 0xc0000103, 0x6e0, 0x803, 0x80b, 0x838, 0x83f };
	static const uint32_t none[] = { 0x1b, 0x3a, 0x277, 0x480, 0x802, 0x80d, 0x830, 0xc0000080,
					 0xc0010117, 0x4b564d01 };

	(void)state;
	for (unsigned i = 0; i < sizeof(both) / sizeof(both[0]); i++) {
		assert_true(is_free(GATE_PROGRAMS, both[i]));
		assert_true(is_free(GATE_LINUX, both[i]));
	}
	for (unsigned i = 0; i < sizeof(only_linux) / sizeof(only_linux[0]); i++) {
		assert_false(is_free(GATE_PROGRAMS, only_linux[i]));
		assert_true(is_free(GATE_LINUX, only_linux[i]));
	}
	for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		assert_false(is_free(GATE_PROGRAMS, none[i]));
		assert_false(is_free(GATE_LINUX, none[i]));
	}
}

#define PORTS 0x10000u

static void port_map(enum gate_guests guests, uint8_t *map)
{
	struct gate gate = { .guests = guests };

	machine_write_ports(&gate, map, PORTS);
}

static bool is_refused(const uint8_t *map, unsigned port)
{
	return map[port / 8] >> port % 8 & 1;
}

static void ports(void **state)
{
	static uint8_t program[PORTS / 8], computer[PORTS / 8];

	(void)state;
	port_map(GATE_PROGRAMS, program);
	port_map(GATE_LINUX, computer);
	for (unsigned port = 0; port < PORTS; port++) {
		assert_int_equal(is_refused(program, port), port != S2VM_CALL_PORT);
		assert_int_equal(is_refused(computer, port), port >= 0xf0 && port <= 0xf4);
	}
}

/* An instruction leaves the upper halves of its registers 0, and a write leaves them as they are. */
static void registers_of_msr_instructions(void **state)
{
	struct kvm_regs registers = { .rax = UINT64_C(0x1111111122222222),
				      .rcx = UINT64_C(0x33333333c0000080),
				      .rdx = UINT64_C(0x4444444455555555) };
	struct machine_msr msr = machine_msr_asked(&registers, true);

	(void)state;
	assert_true(msr.write);
	assert_int_equal(msr.index, 0xc0000080);
	assert_int_equal(msr.value, UINT64_C(0x5555555522222222));
	machine_msr_answer(&msr, &registers);
	assert_int_equal(registers.rax, UINT64_C(0x1111111122222222));

	msr = machine_msr_asked(&registers, false);
	msr.value = UINT64_C(0x6666666677777777);
	machine_msr_answer(&msr, &registers);
	assert_int_equal(registers.rax, 0x77777777);
	assert_int_equal(registers.rdx, 0x66666666);
}

static void what_is_delivered_again(void **state)
{
	static const uint64_t valid = UINT64_C(1) << 31;
	static const uint64_t again[] = { 0x0ec, 0x202, 0x301, 0x30e | 1 << 11 };
	/* INT3 and INTO as svm has them; INT, INT1, INT3 as vmx does. */
	static const uint64_t not_again[] = { 0x303, 0x304, 0x480, 0x501, 0x603 };

	(void)state;
	for (unsigned i = 0; i < sizeof(again) / sizeof(again[0]); i++) {
		assert_int_equal(machine_event_again(again[i] | valid), again[i] | valid);
		assert_int_equal(machine_event_again(again[i]), 0);
	}
	for (unsigned i = 0; i < sizeof(not_again) / sizeof(not_again[0]); i++)
		assert_int_equal(machine_event_again(not_again[i] | valid), 0);
	assert_int_equal(machine_exception(MACHINE_UD), 0x306 | valid);
	assert_int_equal(machine_exception(MACHINE_GP), 0x30d | 1 << 11 | valid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hidden),
		cmocka_unit_test(linux_sees_a_hypervisor_without_features),
		cmocka_unit_test(linux_sees_an_apic_whatever_kvm_says),
		cmocka_unit_test(the_apic_stays_what_it_is),
		cmocka_unit_test(cpus_are_told_apart),
		cmocka_unit_test(interrupts_reach_those_who_are_meant),
		cmocka_unit_test(other_cpus_are_reset_and_started),
		cmocka_unit_test(apics_have_numbers_of_their_guest),
		cmocka_unit_test(others_are_refused),
		cmocka_unit_test(intel_constants),
		cmocka_unit_test(free_msrs),
		cmocka_unit_test(ports),
		cmocka_unit_test(registers_of_msr_instructions),
		cmocka_unit_test(what_is_delivered_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
