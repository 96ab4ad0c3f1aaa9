/* SPDX-License-Identifier: MIT */
/*
 * A model of what KVM and the processor keep of tables, as far as it can serve something stale:
 *
 * - A shadow page for each (table, level, writable path), shared by all spaces that reach the
 *   table. It is filled entry by entry when a guest's access faults, and then used without a look
 *   at memory.
 * - A store of the gate to an upper entry drops that entry's shadow and every cached translation
 *   that went through it. A store to a leaf entry drops nothing: it leaves the shadow out of sync,
 *   until a vCPU passes its gate or the table is linked anew.
 * - A store that is not the gate's is not noticed at all.
 * - A TLB for each vCPU, tagged by space.
 * - An access that makes KVM fetch a leaf entry is noted in the entry.
 *
 * So a missing gate store, a missing invalidation, or a table reused without a scrub lets a guest
 * read what it must not, as it would on a real machine.
 */
#ifndef KVM_MODEL_H
#define KVM_MODEL_H

#include "port.h"

struct kvm_model;

struct kvm_model *kvm_create(struct world *world);
void kvm_destroy(struct kvm_model *kvm);

/* An access of the guest's current vCPU; false if the gate would report a fault. */
bool kvm_access(struct kvm_model *kvm, struct guest *guest, struct gpa gpa, unsigned access,
		struct fpa *page);

/* Memory at @entry was stored to, by the gate or by the VMM. */
void kvm_stored(struct kvm_model *kvm, struct fpa entry, enum ept_edit_by by);

/* All vCPUs of @guest pass the gate. */
void kvm_pass_gate(struct kvm_model *kvm, struct guest *guest);

/* All translations to the pages go. */
void kvm_drop_pages(struct kvm_model *kvm, struct fpa start, uint64_t bytes);

/* Whether anybody could still use a translation to @page without a look at the tables. */
bool kvm_reaches(struct kvm_model *kvm, struct fpa page);

/*
 * S6: no cached translation grants more than its guest's regions, or reaches another page than a
 * walk would now. And the contract with KVM: no entry that KVM knew as present was changed behind
 * its back.
 */
void kvm_check(struct kvm_model *kvm);

#endif
