// SPDX-License-Identifier: MIT
/*
 * Saving and restoring a Linux guest's CPU. What the guest's processor and the gate's have in common is
 * in the vCPU, and KVM tells it; what they have one each of is the engine's (struct gate_ops).
 *
 * Reference: Documentation/virt/kvm/api.rst; for the order of restoring, MSRs that arm a timer come
 * after the local APIC, and that after the TSC.
 */
#include "vcpu_state.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "gate_internal.h"

#define MSR_TSC		 0x10u
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_TSC_AUX	 0xc0000103u

_Static_assert(MACHINE_FREE_MSRS + 2 <= VCPU_STATE_MSRS, "there is room for all MSRs");

/* The local APIC's number as its registers have it: Intel SDM Vol. 3A, "Local APIC ID". */
#define APIC_ID_REGISTER 0x20

static bool refused(const struct gate_vcpu *vcpu, const char *what, struct error *error)
{
	return error_set(error, EXIT_FAILED, "cannot %s vCPU %u: %s", what, vcpu->index,
			 strerror(errno));
}

static uint64_t real_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- time ---- */

/* As many MSRs as there are at most, for KVM_GET_MSRS and KVM_SET_MSRS. */
union msr_list {
	struct kvm_msrs list;
	char bytes[sizeof(struct kvm_msrs) + VCPU_STATE_MSRS * sizeof(struct kvm_msr_entry)];
};

static bool read_tsc(const struct gate_vcpu *vcpu, uint64_t *tsc)
{
	union msr_list msrs = { .list.nmsrs = 1 };

	msrs.list.entries[0].index = MSR_TSC;
	if (ioctl(vcpu->fd, KVM_GET_MSRS, &msrs) != 1)
		return false;
	*tsc = msrs.list.entries[0].data;
	return true;
}

/* Both at one moment. */
static bool save_time(const struct gate_vcpu *vcpu, struct vcpu_state *state)
{
	int khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);

	if (khz <= 0 || !read_tsc(vcpu, &state->tsc))
		return false;
	state->real_ns = real_ns();
	state->tsc_khz = (uint64_t)khz;
	return true;
}

static struct kvm_device_attr offset_attribute(uint64_t *offset)
{
	return (struct kvm_device_attr){
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};
}

/* What the TSC is to show now: as if it had gone on. It never goes back, whatever the host's clock did. */
static uint64_t tsc_now(const struct vcpu_state *state)
{
	uint64_t now = real_ns();
	uint64_t passed = now > state->real_ns ? now - state->real_ns : 0;

	return state->tsc + (uint64_t)((unsigned __int128)passed * state->tsc_khz / 1000000);
}

bool gate_time_offset(const struct gate_vcpu *vcpu, const struct vcpu_state *state,
		      uint64_t *offset, struct error *error)
{
	struct kvm_device_attr attribute = offset_attribute(offset);
	uint64_t tsc;

	if (ioctl(vcpu->fd, KVM_SET_TSC_KHZ, state->tsc_khz) < 0)
		return error_set(error, EXIT_HOST,
				 "this host's processor cannot count at the %llu kHz that the guest is used to",
				 (unsigned long long)state->tsc_khz);
	if (ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attribute) < 0 || !read_tsc(vcpu, &tsc))
		return refused(vcpu, "read the time of", error);
	*offset += tsc_now(state) - tsc;
	return true;
}

static bool restore_time(const struct gate_vcpu *vcpu, const struct vcpu_state *state,
			 uint64_t offset)
{
	struct kvm_device_attr attribute = offset_attribute(&offset);

	return ioctl(vcpu->fd, KVM_SET_TSC_KHZ, state->tsc_khz) == 0 &&
	       ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attribute) == 0;
}

/* ---- MSRs ---- */

static bool save_msrs(const struct gate_vcpu *vcpu, struct vcpu_state *state)
{
	union msr_list msrs = { .list.nmsrs = MACHINE_FREE_MSRS + 2 };

	for (unsigned i = 0; i < MACHINE_FREE_MSRS; i++)
		msrs.list.entries[i].index = machine_free_msrs[i];
	msrs.list.entries[MACHINE_FREE_MSRS].index = MSR_TSC_AUX;
	msrs.list.entries[MACHINE_FREE_MSRS + 1].index = MSR_TSC_DEADLINE;
	if (ioctl(vcpu->fd, KVM_GET_MSRS, &msrs) != (int)msrs.list.nmsrs)
		return false;
	state->msr_count = msrs.list.nmsrs;
	memcpy(state->msrs, msrs.list.entries, state->msr_count * sizeof(*state->msrs));
	return true;
}

static bool restore_msrs(const struct gate_vcpu *vcpu, const struct vcpu_state *state)
{
	union msr_list msrs = { .list.nmsrs = state->msr_count };

	if (state->msr_count > VCPU_STATE_MSRS)
		return false;
	memcpy(msrs.list.entries, state->msrs, state->msr_count * sizeof(*state->msrs));
	return ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) == (int)msrs.list.nmsrs;
}

/* ---- saving ---- */

bool gate_save(struct gate_vcpu *vcpu, struct vcpu_state *state, struct error *error)
{
	memset(state, 0, sizeof(*state));
	state->version = VCPU_STATE_VERSION;
	state->regs = vcpu->run->s.regs.regs;
	state->sregs = vcpu->run->s.regs.sregs;
	if (!save_time(vcpu, state) || !save_msrs(vcpu, state) ||
	    ioctl(vcpu->fd, KVM_GET_LAPIC, &state->apic) < 0 ||
	    ioctl(vcpu->fd, KVM_GET_XSAVE, state->xsave) < 0 ||
	    ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &state->debug) < 0)
		return refused(vcpu, "save", error);
	return vcpu->gate->ops->save(vcpu, state, error);
}

/* ---- restoring ---- */

/* Its number is that of the vCPU, which differs from guest to guest. */
static bool restore_apic(const struct gate_vcpu *vcpu, const struct vcpu_state *state)
{
	struct kvm_lapic_state apic = state->apic;
	uint32_t id = vcpu->index;

	memcpy(&apic.regs[APIC_ID_REGISTER], &id, sizeof(id));
	return ioctl(vcpu->fd, KVM_SET_LAPIC, &apic) == 0;
}

/* Nothing of what ran here before: an instruction that KVM has begun, what it was to deliver. */
static bool forget_events(const struct gate_vcpu *vcpu)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_vcpu_events events = { .flags = KVM_VCPUEVENT_VALID_NMI_PENDING };

	return ioctl(vcpu->fd, KVM_SET_MP_STATE, &runnable) == 0 &&
	       ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) == 0;
}

/* CR2 is one register for the gate and its guest, where the engine has not one each. */
static bool restore_registers(struct gate_vcpu *vcpu, const struct gate_restart *restart,
			      struct error *error)
{
	if (!vcpu->gate->ops->restore(vcpu, restart->root, restart->state, error))
		return false;
	vcpu->run->s.regs.sregs.cr2 = restart->state->sregs.cr2;
	vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
	return true;
}

/* DR7 is the engine's matter: no breakpoint of the guest's is to be armed while its gate runs. */
static bool restore_debug(const struct gate_vcpu *vcpu, const struct vcpu_state *state)
{
	struct kvm_debugregs debug = state->debug;

	debug.dr7 = 0x400;
	return ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug) == 0;
}

bool gate_restore(struct gate_vcpu *vcpu, const struct gate_restart *restart, struct error *error)
{
	const struct vcpu_state *state = restart->state;

	vcpu->used = true;
	if (!forget_events(vcpu) || !restore_time(vcpu, state, restart->tsc_offset) ||
	    !restore_apic(vcpu, state) || !restore_msrs(vcpu, state) ||
	    ioctl(vcpu->fd, KVM_SET_XSAVE, state->xsave) < 0 ||
	    !restore_debug(vcpu, state))
		return refused(vcpu, "restore", error);
	return restore_registers(vcpu, restart, error);
}
