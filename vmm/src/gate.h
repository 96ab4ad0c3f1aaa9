/* SPDX-License-Identifier: MIT */
/*
 * Gates: the few instructions of guest-hypervisor code that enter a guest, come back on what
 * concerns the tables, and store the engine's edits. KVM tracks stores that a vCPU makes, and not
 * those of the VMM, so every edit of a published entry is made here (docs/architecture.md, "The
 * contract with KVM").
 *
 * This is the interface that the run loop sees. Each engine has one implementation.
 */
#ifndef VMM_GATE_H
#define VMM_GATE_H

#include <linux/kvm.h>
#include <stdint.h>

#include "ept/ept.h"
#include "error.h"
#include "host.h"
#include "memory.h"

enum engine { ENGINE_AUTO, ENGINE_DIRECT, ENGINE_SVM, ENGINE_VMX };

/* What the guests of a fleet are. */
enum gate_guests {
	GATE_PROGRAMS, /* s2vm/guest_abi.h: no devices, no interrupts */
	GATE_LINUX,    /* whole computers, with those of platform.h */
};

struct gate_ops;
struct vcpu_state;

/* What the processor's VMX wants and offers: read once, and the same for all vCPUs. */
struct gate_vmx {
	uint32_t revision; /* of a VMCS */
	uint32_t pin, proc, proc_2, exit, entry; /* controls */
	uint64_t ept_features;
};

/* What a CPU of a Linux guest asks of another one, other than an interrupt with a vector. */
enum gate_command {
	GATE_INIT,  /* to wait for GATE_START, whatever it does */
	GATE_START, /* to begin in real mode, if it waits */
};

/* Who does so, for vCPU @index. Called while the vCPU that asks is about to come out of gate_run(). */
struct gate_commands {
	void (*send)(void *context, unsigned index, enum gate_command command, uint8_t vector);
	void *context;
};

/* What all vCPUs of a fleet have in common. */
struct gate {
	enum engine engine;
	enum gate_guests guests;
	unsigned cpus; /* of each guest; their vCPUs follow each other */
	struct gate_commands commands;
	const struct gate_ops *ops;
	const struct host *host;
	struct memory *memory;
	struct fpa service_root; /* the gate's own address space */
	struct gate_vmx vmx;	 /* for that engine only */
};

/* One vCPU, as its gate knows it. */
struct gate_vcpu {
	struct gate *gate;
	int fd;
	unsigned index; /* among all of the VM */
	unsigned cpu;	/* among those of its guest */
	struct kvm_run *run;
	bool used;     /* a guest has run on it: it has registers to forget */
	bool entered;  /* vmx: the guest was launched, and is resumed from now on */
	bool in_gate;  /* the last exit was one of its gate, where chains can run */
	unsigned orders; /* vmx: how many fields its gate writes on the way back to the guest */
	uint64_t runs; /* of its gate, to commit edits or to have a root */
};

/* Registers that a guest starts with. All others are 0. */
struct gate_start {
	struct fpa root;
	struct gpa entry;
	struct gpa stack;
	struct gpa machine_root; /* svm, vmx: where the program's own stage-1 tables are */
	uint64_t arguments[5]; /* rdi, rsi, rdx, rcx, r8 */
	const struct linux_start *linux_start; /* instead of all but @root; NULL for programs */
};

/* Why a vCPU came out of KVM_RUN. */
enum gate_exit_kind {
	GATE_EXIT_FAULT,       /* the guest cannot go on without the engine */
	GATE_EXIT_CALL,	       /* the guest calls s2vm */
	GATE_EXIT_EXCEPTION,   /* the guest did what it may not */
	GATE_EXIT_INTERRUPTED, /* a signal, or somebody set immediate_exit */
	GATE_EXIT_BAD_ADDRESS, /* KVM could not reach memory behind an address: EFAULT */
	GATE_EXIT_HOST,	       /* KVM ended the vCPU */
	GATE_EXIT_SERVED,      /* the gate has dealt with it: run the vCPU again */
	GATE_EXIT_PORT,	       /* a Linux guest accesses a port, */
	GATE_EXIT_MEMORY,      /* or an address without memory */
};

/* Ports or addresses that a guest accesses; what is read goes to @data before the vCPU runs again. */
struct gate_access {
	uint64_t at;	/* a port, or fleet-physical */
	unsigned bytes; /* of each access */
	unsigned count; /* of accesses, all at @at, one behind the other in @data */
	bool write;
	void *data;
};

struct gate_exit {
	enum gate_exit_kind kind;
	struct gpa gpa;	     /* FAULT: where */
	unsigned access;     /* FAULT: one of enum ept_rights */
	unsigned vector;     /* EXCEPTION */
	uint64_t error_code; /* EXCEPTION, and FAULT for a report */
	char text[160];	     /* HOST, BAD_ADDRESS: what KVM said */
	struct gate_access device; /* PORT, MEMORY */
};

const char *engine_name(enum engine engine);

/* The engine of that name; false if there is none. */
bool engine_parse(const char *name, enum engine *engine);

/*
 * What a host offers: the best engine for ENGINE_AUTO. For any other engine an error that says what
 * the host lacks.
 */
bool engine_choose(const struct host *host, enum engine wanted, enum engine *engine,
		   struct error *error);

/* Pages of gate memory that a fleet of @vcpus with @bytes of tables needs. */
uint64_t gate_memory_pages(uint64_t vcpus, uint64_t table_bytes);

/*
 * Builds the gate's code and tables in gate memory, which must not have been used yet. False with
 * @error if the host lacks what the engine needs.
 */
bool gate_create(struct gate *gate, enum engine engine, enum gate_guests guests,
		 const struct host *host, struct memory *memory, struct error *error);

/* Adds to what vCPUs are told to be what these guests need. To be called before gate_create(). */
void gate_prepare_host(struct host *host, enum gate_guests guests);

/* The format of the engine's tables. */
const struct ept_format *gate_format(const struct gate *gate);

/* The entry that every root of the engine's has, for the gate; 0 for none. */
void gate_root_entry(const struct gate *gate, unsigned *index, uint64_t *entry);

/* One past the highest guest-physical address that guests of this engine can use. */
uint64_t gate_gpa_end(const struct gate *gate);

/* Makes vCPU @index of @vm. */
bool gate_vcpu_create(struct gate *gate, struct gate_vcpu *vcpu, int vm, unsigned index,
		      struct error *error);
void gate_vcpu_destroy(struct gate_vcpu *vcpu);

/* Sets the vCPU's state so that the next gate_run() begins a guest. */
bool gate_start(struct gate_vcpu *vcpu, const struct gate_start *start, struct error *error);

/*
 * The same for a further CPU of a Linux guest, which a start-up message of @vector has told to begin. If
 * the vCPU has run before, it has passed its gate since its guest was entered last.
 */
bool gate_start_cpu(struct gate_vcpu *vcpu, const struct fpa *root, uint8_t vector,
		    struct error *error);

/* Whether the engine can do that. */
bool gate_starts_cpus(const struct gate *gate);

/* Sets the state of a vCPU that only commits edits. */
bool gate_start_service(struct gate_vcpu *vcpu, struct error *error);

/* Runs the vCPU until it comes out of KVM_RUN. */
void gate_run(struct gate_vcpu *vcpu, struct gate_exit *exit);

/*
 * Lets KVM finish the instruction of which an access was served, and nothing more. True if it is one
 * that accesses devices several times: @exit has the next access.
 */
bool gate_finish_access(struct gate_vcpu *vcpu, struct gate_exit *exit);

/*
 * Takes a vCPU that is not running, wherever its guest was interrupted, through its gate: when this
 * returns it has forgotten its cached translations and goes on with @root. An exception that was
 * about to be delivered is dropped, since its instruction runs again. False if KVM failed.
 */
bool gate_pass(struct gate_vcpu *vcpu, const struct fpa *root, struct error *error);

/*
 * Stores @count edits, in order, and returns when they are done. With a @root the vCPU then forgets
 * its cached translations and has that root. The vCPU is a service vCPU, for which @root is NULL, or
 * stopped by a fault. False if KVM failed.
 */
bool gate_commit(struct gate_vcpu *vcpu, const struct ept_edit *edits, size_t count,
		 const struct fpa *root, struct error *error);

/* The guest's registers after an exit; those of a fault are the interrupted code's. */
void gate_registers(const struct gate_vcpu *vcpu, const struct gate_exit *exit,
		    struct kvm_regs *registers);

/* Sets rax, for a call's result. */
void gate_set_result(struct gate_vcpu *vcpu, uint64_t value);

/*
 * All that a Linux guest can notice of its CPU. The vCPU has passed its gate (gate_pass()), and has not
 * been entered since; nobody else uses it. False if KVM failed.
 */
bool gate_save(struct gate_vcpu *vcpu, struct vcpu_state *state, struct error *error);

/* From where a guest goes on. */
struct gate_restart {
	struct fpa root;
	const struct vcpu_state *state;
	uint64_t tsc_offset; /* the same for all CPUs of a guest */
};

/*
 * The offset to the host's TSC with which @vcpu shows what the saved TSC would, had it gone on since. For
 * the first CPU of a guest.
 */
bool gate_time_offset(const struct gate_vcpu *vcpu, const struct vcpu_state *state,
		      uint64_t *offset, struct error *error);

/* Instead of gate_start(): the next gate_run() goes on with what was saved. */
bool gate_restore(struct gate_vcpu *vcpu, const struct gate_restart *restart, struct error *error);

/*
 * Interrupts a Linux guest, whether it runs or not: @vector is pending in its local APIC. To be called
 * from any thread.
 */
bool gate_signal(const struct gate_vcpu *vcpu, unsigned vector);

#endif
