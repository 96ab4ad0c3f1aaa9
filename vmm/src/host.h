/* SPDX-License-Identifier: MIT */
/* /dev/kvm: what this host's KVM can do, and its statistics. Linux's Documentation/virt/kvm/api.rst. */
#ifndef VMM_HOST_H
#define VMM_HOST_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct host {
	int fd;
	int max_vcpus;
	int max_memslots;
	int vcpu_mmap_bytes;
	int sync_regs; /* what KVM_CAP_SYNC_REGS offers, a mask */
	bool readonly_memory;
	bool statistics;
	bool svm; /* nested virtualization is offered to guests */
	bool vmx;
	unsigned physical_bits; /* of addresses in a VM */
	struct kvm_cpuid2 *cpuid; /* what is supported */
};

/* Opens /dev/kvm and asks it for all of the above. */
bool host_open(struct host *host, struct error *error);
void host_close(struct host *host);

/* Bytes that the host could give to whoever asks now; UINT64_MAX where it does not tell. */
uint64_t host_available_bytes(void);

/* The rate of a vCPU's TSC, or 0 where KVM does not tell. */
unsigned host_tsc_khz(void);

/* Why this host offers no nested virtualization of a kind ("svm", "vmx"): one line. */
void host_nested_reason(const char *kind, char *text, size_t bytes);

/*
 * A counter of a VM or vCPU statistics descriptor (KVM_GET_STATS_FD), by name. Looked up once, read
 * often. @offset is negative if KVM has no such counter.
 */
struct host_counter {
	int fd;
	long offset;
};

/* The statistics descriptor of a VM or vCPU, or -1. */
int host_stats_open(int fd);
struct host_counter host_counter_find(int stats_fd, const char *name);
uint64_t host_counter_read(struct host_counter counter);

/* Shadow pages that a VM has at this moment, by its statistics descriptor. */
uint64_t host_shadow_pages(int stats_fd);

/* Bytes of second-level tables in the whole host: SecPageTables of /proc/meminfo. */
uint64_t host_sec_page_tables(void);

#endif
