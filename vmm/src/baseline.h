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
	uint64_t faults;    /* that KVM took for it up to mark 1 */
	uint8_t result[32];
	bool exited; /* with status 0 */
};

struct baseline_vm;

/*
 * Makes a VM, runs one guest in it to its end, and keeps the VM. The file must be open for private
 * use.
 */
bool baseline_run(const struct host *host, const struct memfile *file,
		  const struct program *program, unsigned id, struct baseline_vm **vm,
		  struct baseline_guest *guest, struct error *error);
void baseline_destroy(struct baseline_vm *vm);

/* Shadow pages, which here are the guest's stage-2 tables, that KVM keeps for the VM. */
uint64_t baseline_shadow_pages(const struct baseline_vm *vm);

#endif
