/* SPDX-License-Identifier: MIT */
/*
 * All that a Linux guest can notice of one of its CPUs, as plain data: what a template keeps, what a
 * clone begins with, and what a reset goes back to. It is the engine's own only in that its guest has
 * been told what processor it runs on.
 */
#ifndef VMM_VCPU_STATE_H
#define VMM_VCPU_STATE_H

#include <linux/kvm.h>
#include <stdint.h>

#define VCPU_STATE_VERSION 1
#define VCPU_STATE_MSRS	   16

struct vcpu_state {
	uint32_t version;
	uint32_t waits;	 /* to be started by another CPU: nothing that follows counts */
	uint32_t shadow; /* of an instruction behind which no interrupt comes: STI, MOV to SS */
	/*
	 * What is to be delivered before the next instruction, in the format of EVENTINJ (AMD APM Vol. 2,
	 * "Event injection"), or 0.
	 */
	uint64_t event;
	uint64_t pat;
	/* Where the engine keeps these apart from the vCPU: of PAE paging, SYSENTER's CS, ESP, EIP, DR6's. */
	uint64_t pdptes[4];
	uint64_t sysenter[3];
	uint64_t pending_debug;
	uint64_t tsc;
	uint64_t tsc_khz;
	uint64_t real_ns; /* when the TSC was that, since 1970 */
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_debugregs debug;
	struct kvm_lapic_state apic;
	uint32_t xsave[1024]; /* struct kvm_xsave, with x87 and SSE only */
	uint32_t msr_count;
	struct kvm_msr_entry msrs[VCPU_STATE_MSRS];
};

#endif
