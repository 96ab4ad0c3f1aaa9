// SPDX-License-Identifier: MIT
/*
 * Cloning a space, freezing it, and going back to it. A clone has its parent's root until it writes:
 * one count goes up, and the entries of the root lose the right to write, of which there are at most
 * 512 (F2, F18). Going back is having the parent's root again.
 */
#include "ept_internal.h"

/* Whether @entry of a root may stay writable for all who share what it points at. */
static uint64_t entry_for_sharing(const struct ept *ept, uint64_t entry)
{
	bool writable = ept_entry_writable(ept->config.format, entry) &&
			ept_entry_child(ept, entry)->shared_writable;

	return ept_entry_with_write(ept->config.format, entry, writable);
}

/* Takes the right to write from the entries of the space's root, so that what is below can be shared. */
static enum ept_status protect_root(struct ept_change *change)
{
	struct ept *ept = change->ept;
	struct ept_table *root = change->space->root;

	if (!ept_change_reserve(change, EPT_ENTRIES))
		return EPT_NO_MEMORY;
	for (unsigned index = ept_table_skip_empty(ept, root, 0); index < EPT_ENTRIES;
	     index = ept_table_skip_empty(ept, root, index + 1)) {
		uint64_t entry = ept_entry_load(ept, root, index);

		if (!ept_entry_present(entry) || ept_entry_fixed(ept, root, index) ||
		    entry == entry_for_sharing(ept, entry))
			continue;
		ept_change_store(change, root, index, entry_for_sharing(ept, entry));
	}
	return change->edits.count ? ept_change_invalidate_space(change) : EPT_OK;
}

static enum ept_status clone_into(struct ept_change *change, struct ept_space *clone)
{
	struct ept_space *parent = change->space;
	enum ept_status status;

	if (!ept_region_copy(clone, parent))
		return EPT_NO_MEMORY;
	status = protect_root(change);
	if (status != EPT_OK)
		return status;
	status = ept_root_for_clone(parent, &clone->root);
	if (status != EPT_OK)
		return status;
	ept_event(change->ept, EPT_EVENT_CLONE, parent->root, clone);
	if (parent->frozen) {
		atomic_fetch_add(&parent->references, 1);
		clone->parent = parent;
	}
	return EPT_OK;
}

enum ept_status ept_space_clone(struct ept_space *parent, struct ept_space **out,
				struct ept_change *change)
{
	struct ept_space *clone;
	enum ept_status status;

	if (!parent->options.sharing)
		return EPT_INVALID;
	clone = ept_space_new(parent->ept, &parent->options);
	if (!clone)
		return EPT_NO_MEMORY;
	pthread_mutex_lock(&parent->lock);
	ept_change_begin(change, parent->ept, parent);
	status = clone_into(change, clone);
	if (status != EPT_OK) {
		ept_space_discard(clone);
		return ept_change_abort(change, status);
	}
	ept_space_publish(clone);
	*out = clone;
	return EPT_OK;
}

enum ept_status ept_space_freeze(struct ept_space *space, struct ept_change *change)
{
	enum ept_status status;

	pthread_mutex_lock(&space->lock);
	ept_change_begin(change, space->ept, space);
	if (space->frozen)
		return EPT_OK;
	status = protect_root(change);
	if (status != EPT_OK)
		return ept_change_abort(change, status);
	space->frozen = true;
	return EPT_OK;
}

enum ept_status ept_space_snapshot(struct ept_space *space, struct ept_space **frozen,
				   struct ept_change *change)
{
	struct ept_space *parent;
	enum ept_status status;

	if (!space->options.sharing)
		return EPT_INVALID;
	parent = ept_space_new(space->ept, &space->options);
	if (!parent)
		return EPT_NO_MEMORY;
	pthread_mutex_lock(&space->lock);
	ept_change_begin(change, space->ept, space);
	status = space->frozen ? EPT_FROZEN : clone_into(change, parent);
	if (status != EPT_OK) {
		ept_space_discard(parent);
		return ept_change_abort(change, status);
	}
	/* It takes the place of the space among its ancestors. */
	parent->frozen = true;
	parent->parent = space->parent;
	space->parent = parent;
	atomic_store(&parent->references, 2);
	ept_space_publish(parent);
	*frozen = parent;
	return EPT_OK;
}

/* The space gets the parent's root back; its own goes, with all that only it refers to. */
static enum ept_status reset_root(struct ept_change *change)
{
	struct ept_space *parent = change->space->parent;
	enum ept_status status;
	struct ept_table *root;

	if (change->space->root == parent->root)
		return EPT_OK;
	if (ept_change_invalidate_space(change) != EPT_OK)
		return EPT_NO_MEMORY;
	status = ept_root_for_clone(parent, &root);
	if (status != EPT_OK)
		return status;
	ept_change_set_root(change, root);
	ept_event(change->ept, EPT_EVENT_CLONE, root, change->space);
	return EPT_OK;
}

enum ept_status ept_space_reset(struct ept_space *space, struct ept_change *change)
{
	struct ept_space *parent;
	enum ept_status status;

	pthread_mutex_lock(&space->lock);
	ept_change_begin(change, space->ept, space);
	parent = space->parent; /* A snapshot puts another one in between. */
	if (!parent || space->frozen)
		return ept_change_abort(change, parent ? EPT_FROZEN : EPT_NO_PARENT);
	pthread_mutex_lock(&parent->lock);
	status = reset_root(change);
	/* Regions last: they have no undo, and their copy fails without having changed any. */
	if (status == EPT_OK && !ept_region_copy(space, parent))
		status = EPT_NO_MEMORY;
	pthread_mutex_unlock(&parent->lock);
	return status == EPT_OK ? EPT_OK : ept_change_abort(change, status);
}
