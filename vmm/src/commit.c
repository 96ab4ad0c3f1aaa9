// SPDX-License-Identifier: MIT
/*
 * Doing what the engine decided: copies, then stores, then invalidations, and only then the change is
 * finished and what it replaced is free. Entries that were present are stored by a gate, because KVM
 * tracks a vCPU's stores and not the VMM's.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "fleet.h"

/* An entry that was not present: KVM holds nothing of it, so the VMM may store it itself. */
static void store_plain(const struct fleet *fleet, const struct ept_edit *edit)
{
	_Atomic uint64_t *entry = memory_at(&fleet->memory, edit->entry);

	atomic_store_explicit(entry, edit->value, memory_order_release);
}

/* In one run of a gate, or of as many as they need: of the seat's, with its root, or the service's. */
static bool store_by_gate(struct fleet *fleet, struct seat *seat, const struct ept_edit *edits,
			  size_t count, const struct fpa *root, struct error *error)
{
	bool stored;

	if (seat)
		return gate_commit(&seat->vcpu, edits, count, root, error);
	pthread_mutex_lock(&fleet->service_lock);
	stored = gate_commit(&fleet->service, edits, count, NULL, error);
	pthread_mutex_unlock(&fleet->service_lock);
	return stored;
}

/*
 * Edits in their order. Those before the first that a gate must make the VMM stores itself, as those
 * behind the last; a gate makes all between them, so that it runs once. @root, which is NULL unless
 * the seat's vCPU is to forget its translations, goes with them.
 */
static bool store_edits(struct fleet *fleet, struct seat *seat, const struct ept_change *change,
			const struct fpa *root, struct error *error)
{
	const struct ept_edit *edits = ept_change_edits(change);
	size_t end = change->edits.count;
	size_t first = 0;
	size_t last = end;

	while (first < end && edits[first].by == EPT_EDIT_PLAIN)
		store_plain(fleet, &edits[first++]);
	while (last > first && edits[last - 1].by == EPT_EDIT_PLAIN)
		last--;
	if ((last > first || root) &&
	    !store_by_gate(fleet, seat, &edits[first], last - first, root, error))
		return false;
	while (last < end)
		store_plain(fleet, &edits[last++]);
	return true;
}

/* Whether vCPUs of the change's space are to forget their translations: it names no other space. */
static bool wants_flush(const struct ept_change *change)
{
	const struct ept_invalidation *items = ept_change_invalidations(change);

	for (size_t at = 0; at < change->invalidations.count; at++)
		if (items[at].kind == EPT_INVALIDATE_SPACE)
			return true;
	return false;
}

static bool invalidate_pages(struct fleet *fleet, const struct ept_change *change,
			     struct error *error)
{
	const struct ept_invalidation *items = ept_change_invalidations(change);

	for (size_t at = 0; at < change->invalidations.count; at++)
		if (items[at].kind == EPT_INVALIDATE_DISCARD)
			memory_discard(&fleet->memory, items[at].start, items[at].bytes);
		else if (items[at].kind == EPT_INVALIDATE_PAGES &&
			 !memory_drop(&fleet->memory, items[at].start, items[at].bytes))
			return error_set(error, EXIT_FAILED,
					 "the host does not take pages away from KVM: %s; is the memory locked?",
					 strerror(errno));
	return true;
}

/*
 * Stores or invalidations failed, and the VM is of no use any more. An operation only has to let go of its
 * locks; tables that were not scrubbed are lost, for nobody may have them.
 */
static void give_up(struct ept_change *change)
{
	if (change->sweep.kind)
		ept_change_cancel(change);
	while (change->space && ept_change_finish(change) == EPT_MORE)
		;
}

void fleet_recall(struct fleet *fleet, const struct ept_space *space, struct fpa root)
{
	for (unsigned i = 0; i < fleet->seat_count; i++)
		seat_recall(&fleet->seats[i], space, root);
}

/* Whether all that the change takes from vCPUs is a page: one entry for it is one for a copy now. */
static bool only_copies(const struct ept_change *change)
{
	return change->has_copy && !change->root_changed && change->edits.count == 1 &&
	       ept_change_edits(change)->level == 1;
}

/*
 * No other vCPU of the space goes on with what it has cached; @seat's is out, and passes its gate. A
 * page is dropped from all translations, for which no vCPU has to come out: where there are more of
 * them than CPUs, each that is called out first waits for its turn.
 */
static void flush_others(const struct fleet *fleet, const struct seat *seat,
			 const struct ept_change *change, struct fpa root)
{
	const struct guest *guest = seat->owner;

	if (guest->cpus == 1 ||
	    (only_copies(change) &&
	     memory_drop(&fleet->memory, change->copy.from, EPT_PAGE_BYTES)))
		return;
	for (unsigned cpu = 0; cpu < guest->cpus; cpu++)
		if (&guest->seat[cpu] != seat)
			seat_recall(&guest->seat[cpu], change->space, root);
}

/*
 * Stores, and then no vCPU of the space goes on with what it has cached. That of @seat passes its
 * gate in the run that stores; otherwise all are called out.
 */
static bool store_and_flush(struct fleet *fleet, struct seat *seat,
			    const struct ept_change *change, struct error *error)
{
	struct fpa root;

	if (!wants_flush(change))
		return store_edits(fleet, seat, change, NULL, error);
	root = ept_space_root(change->space);
	if (seat) {
		seat_passes(seat, root);
		if (!store_edits(fleet, seat, change, &root, error))
			return false;
		flush_others(fleet, seat, change, root);
		return true;
	}
	if (!store_edits(fleet, NULL, change, NULL, error))
		return false;
	fleet_recall(fleet, change->space, root);
	return true;
}

static bool commit_step(struct fleet *fleet, struct seat *seat, struct ept_change *change,
			struct error *error)
{
	if (change->has_copy &&
	    !memory_read(&fleet->memory, change->copy.from,
			 memory_at(&fleet->memory, change->copy.to), EPT_PAGE_BYTES)) {
		ept_change_cancel(change);
		return error_set(error, EXIT_INPUT, "%s was cut off while guests used it",
				 fleet->config.file->name);
	}
	if (store_and_flush(fleet, seat, change, error) &&
	    invalidate_pages(fleet, change, error))
		return true;
	give_up(change);
	return false;
}

bool fleet_commit(struct fleet *fleet, struct seat *seat, struct ept_change *change,
		  struct error *error)
{
	enum ept_status status;

	/* Another change came first, which the vCPU is yet to be told of: it does that before it goes on. */
	if (seat && seat_must_pass(seat))
		seat = NULL;
	do {
		if (!commit_step(fleet, seat, change, error))
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
