// SPDX-License-Identifier: MIT
/*
 * Doing what the engine decided: copies, then stores, then invalidations, and only then the change is
 * finished and what it replaced is free. Entries that were present are stored by a gate, because KVM
 * tracks a vCPU's stores and not the VMM's.
 */
#include <stdatomic.h>

#include "fleet.h"

/* An entry that was not present: KVM holds nothing of it, so the VMM may store it itself. */
static void store_plain(const struct fleet *fleet, const struct ept_edit *edit)
{
	_Atomic uint64_t *entry = memory_at(&fleet->memory, edit->entry);

	atomic_store_explicit(entry, edit->value, memory_order_release);
}

static bool store_by_gate(struct fleet *fleet, struct gate_vcpu *vcpu, const struct ept_edit *edits,
			  size_t count, struct error *error)
{
	bool stored;

	if (vcpu)
		return gate_commit(vcpu, edits, count, NULL, error);
	pthread_mutex_lock(&fleet->service_lock);
	stored = gate_commit(&fleet->service, edits, count, NULL, error);
	pthread_mutex_unlock(&fleet->service_lock);
	return stored;
}

/* Edits in their order: runs of those that a gate must make, and the others one by one. */
static bool store_edits(struct fleet *fleet, struct gate_vcpu *vcpu,
			const struct ept_change *change, struct error *error)
{
	const struct ept_edit *edits = ept_change_edits(change);
	size_t count = change->edits.count;
	size_t at = 0;

	while (at < count) {
		size_t first = at;

		while (at < count && edits[at].by == EPT_EDIT_GATE)
			at++;
		if (at > first &&
		    !store_by_gate(fleet, vcpu, &edits[first], at - first, error))
			return false;
		while (at < count && edits[at].by == EPT_EDIT_PLAIN)
			store_plain(fleet, &edits[at++]);
	}
	return true;
}

/* Whether edits are all in one run that a gate makes, so that the root can go with them. */
static bool all_by_gate(const struct ept_change *change)
{
	const struct ept_edit *edits = ept_change_edits(change);

	for (size_t at = 0; at < change->edits.count; at++)
		if (edits[at].by != EPT_EDIT_GATE)
			return false;
	return true;
}

/* The same for a vCPU that then forgets its translations and has @root: all in one run, if it can be. */
static bool store_edits_and_root(struct fleet *fleet, struct gate_vcpu *vcpu,
				 const struct ept_change *change, const struct fpa *root,
				 struct error *error)
{
	if (all_by_gate(change))
		return gate_commit(vcpu, ept_change_edits(change), change->edits.count, root,
				   error);
	return store_edits(fleet, vcpu, change, error) && gate_commit(vcpu, NULL, 0, root, error);
}

/* Whether the change wants the vCPU that commits it to forget its translations. */
static bool wants_flush(const struct ept_change *change)
{
	const struct ept_invalidation *items = ept_change_invalidations(change);

	for (size_t at = 0; at < change->invalidations.count; at++)
		if (items[at].kind == EPT_INVALIDATE_SPACE)
			return true;
	return false;
}

/*
 * A space's only vCPU forgets its translations in its gate, as it commits; the others' spaces that
 * change here, templates, have none that runs.
 */
static void invalidate_pages(struct fleet *fleet, const struct ept_change *change)
{
	const struct ept_invalidation *items = ept_change_invalidations(change);

	for (size_t at = 0; at < change->invalidations.count; at++)
		if (items[at].kind == EPT_INVALIDATE_PAGES)
			memory_drop(&fleet->memory, items[at].start, items[at].bytes);
		else if (items[at].kind == EPT_INVALIDATE_DISCARD)
			memory_discard(&fleet->memory, items[at].start, items[at].bytes);
}

static bool commit_step(struct fleet *fleet, struct gate_vcpu *vcpu, struct ept_change *change,
			struct error *error)
{
	struct fpa root;
	bool stored;

	if (change->has_copy &&
	    !memory_read(&fleet->memory, change->copy.from,
			 memory_at(&fleet->memory, change->copy.to), EPT_PAGE_BYTES)) {
		ept_change_cancel(change);
		return error_set(error, EXIT_INPUT, "%s was cut off while guests used it",
				 fleet->config.file->name);
	}
	if (vcpu && wants_flush(change)) {
		root = ept_space_root(change->space);
		stored = store_edits_and_root(fleet, vcpu, change, &root, error);
	} else {
		stored = store_edits(fleet, vcpu, change, error);
	}
	if (!stored) {
		/*
		 * The VM is of no use any more. An operation only has to let go of its locks; tables
		 * that were not scrubbed are lost, for nobody may have them.
		 */
		while (change->space && ept_change_finish(change) == EPT_MORE)
			;
		return false;
	}
	invalidate_pages(fleet, change);
	return true;
}

bool fleet_commit(struct fleet *fleet, struct gate_vcpu *vcpu, struct ept_change *change,
		  struct error *error)
{
	enum ept_status status;

	do {
		if (!commit_step(fleet, vcpu, change, error))
			return false;
		status = ept_change_finish(change);
	} while (status == EPT_MORE);
	if (status != EPT_OK)
		return error_set(error, EXIT_FAILED, "%s", ept_status_text(status));
	return true;
}

#define SCRUB_TABLES 8

bool fleet_scrub(struct fleet *fleet)
{
	struct ept_change change = { 0 };
	struct error error;
	bool gained = false;

	if (ept_scrub(fleet->ept, SCRUB_TABLES, &change) == EPT_OK) {
		gained = change.scrubbed_tables.count || change.scrubbed_pages.count;
		if (!fleet_commit(fleet, NULL, &change, &error))
			gained = false;
	}
	ept_change_free(&change);
	return gained;
}
