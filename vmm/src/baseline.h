/* SPDX-License-Identifier: MIT */
/*
 * The baseline of benchmarks: what other VMMs do. One KVM VM for each guest, its memory a private
 * mapping of the same file, its stage-2 tables KVM's own. The same guest programs run in it.
 */
#ifndef VMM_BASELINE_H
#define VMM_BASELINE_H

#include <stdint.h>

#include "error.h"
#include "host.h"
#include "memfile.h"
#include "program.h"

/* What a guest of the baseline did. */
struct baseline_guest {
	uint64_t launch_ns; /* from before its VM was made to its first result */
	uint64_t read_ns;   /* between its marks 0 and 1 */
	uint64_t launch_faults; /* that KVM took for it up to mark 0 */
	uint64_t read_faults;	/* and between marks 0 and 1 */
	uint8_t result[32];
	bool exited; /* with status 0 */
};

struct baseline_vm;

/* What all guests of the baseline have in common. The file must be open for private use. */
struct baseline {
	const struct host *host;
	const struct memfile *file;
	const struct program *program;
	/* How guests run: at CPL 3 as under the direct engine, or as machines of their own. */
	bool machine;
};

/* Makes a VM, runs guest @id in it to its end, and keeps the VM. */
bool baseline_run(const struct baseline *baseline, unsigned id, struct baseline_vm **vm,
		  struct baseline_guest *guest, struct error *error);
void baseline_destroy(struct baseline_vm *vm);

/* Shadow pages that KVM keeps for the VM: 0 where it has hardware walk the VM's own tables. */
uint64_t baseline_shadow_pages(const struct baseline_vm *vm);

/* Bytes of stage-2 tables that KVM keeps for the VM: its shadow pages, or what the host counts. */
uint64_t baseline_table_bytes(const struct baseline_vm *vm);

#endif
