// SPDX-License-Identifier: MIT
/*
 * Cloning a space, freezing it, and going back to it. All three change entries of roots only: what
 * lies below is shared and found out about by write faults (F2, F18).
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
	for (unsigned index = 0; index < EPT_ENTRIES; index++) {
		uint64_t entry = ept_entry_load(ept, root, index);

		if (!ept_entry_present(entry) || ept_entry_fixed(ept, root, index) ||
		    entry == entry_for_sharing(ept, entry))
			continue;
		ept_change_store(change, root, index, entry_for_sharing(ept, entry));
	}
	return change->edits.count ? ept_change_invalidate_space(change) : EPT_OK;
}

/* Points the entries of a new root, which nobody sees yet, at what the parent's point at. */
static enum ept_status share_root(struct ept *ept, struct ept_table *from, struct ept_table *to)
{
	_Atomic uint64_t *entries = ept_table_entries(ept, to);

	for (unsigned index = 0; index < EPT_ENTRIES; index++) {
		uint64_t entry = ept_entry_load(ept, from, index);
		struct rmap_entry at = { ept_table_number(ept, to), (uint16_t)index };
		struct ept_table *child;

		if (!ept_entry_present(entry) || ept_entry_fixed(ept, from, index))
			continue;
		child = ept_entry_child(ept, entry);
		if (!rmap_owner_add(ept->rmap, ept_table_number(ept, child), at))
			return EPT_NO_MEMORY;
		ept_table_get(child);
		atomic_store_explicit(&entries[index], entry_for_sharing(ept, entry),
				      memory_order_release);
		ept_count(&ept->stat.tables_cloned);
	}
	return EPT_OK;
}

static enum ept_status clone_into(struct ept_change *change, struct ept_space *clone)
{
	struct ept_space *parent = change->space;
	enum ept_status status;

	if (!ept_region_copy(clone, parent))
		return EPT_NO_MEMORY;
	status = protect_root(change);
	if (status == EPT_OK)
		status = share_root(change->ept, parent->root, clone->root);
	if (status == EPT_OK && parent->frozen) {
		atomic_fetch_add(&parent->references, 1);
		clone->parent = parent;
	}
	return status;
}

enum ept_status ept_space_clone(struct ept_space *parent, struct ept_space **out,
				struct ept_change *change)
{
	enum ept_status status;
	struct ept_space *clone;

	if (!parent->options.sharing)
		return EPT_INVALID;
	status = ept_space_prepare(parent->ept, &parent->options, &clone);
	if (status != EPT_OK)
		return status;
	pthread_mutex_lock(&parent->lock);
	ept_change_begin(change, parent->ept, parent);
	status = clone_into(change, clone);
	if (status != EPT_OK) {
		ept_change_abort(change, status);
		ept_space_destroy(clone);
		return status;
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

/* Entry @index of the space's root is to point at what the parent's points at. */
static enum ept_status reset_entry(struct ept_change *change, unsigned index)
{
	struct ept *ept = change->ept;
	struct ept_table *root = change->space->root;
	uint64_t mine = ept_entry_load(ept, root, index);
	uint64_t theirs = ept_entry_load(ept, change->space->parent->root, index);
	struct ept_table *child;

	if (!ept_entry_present(theirs)) {
		if (ept_entry_present(mine))
			ept_change_store(change, root, index, 0);
		return EPT_OK;
	}
	child = ept_entry_child(ept, theirs);
	if (ept_entry_present(mine) && ept_entry_child(ept, mine) == child)
		return EPT_OK;
	ept_table_get(child);
	return ept_change_link(change, root, index, child,
			       ept_entry_rights(ept->config.format,
						entry_for_sharing(ept, theirs)));
}

static enum ept_status reset_root(struct ept_change *change)
{
	enum ept_status status;

	if (!ept_change_reserve(change, EPT_ENTRIES))
		return EPT_NO_MEMORY;
	for (unsigned index = 0; index < EPT_ENTRIES; index++) {
		if (ept_entry_fixed(change->ept, change->space->root, index))
			continue;
		status = reset_entry(change, index);
		if (status != EPT_OK)
			return status;
	}
	return ept_change_invalidate_space(change);
}

enum ept_status ept_space_reset(struct ept_space *space, struct ept_change *change)
{
	struct ept_space *parent = space->parent;
	enum ept_status status = EPT_FROZEN;

	if (!parent)
		return EPT_NO_PARENT;
	pthread_mutex_lock(&space->lock);
	ept_change_begin(change, space->ept, space);
	if (space->frozen)
		return ept_change_abort(change, status);
	pthread_mutex_lock(&parent->lock);
	status = reset_root(change);
	/* Regions last: they have no undo, and their copy fails without having changed any. */
	if (status == EPT_OK && !ept_region_copy(space, parent))
		status = EPT_NO_MEMORY;
	pthread_mutex_unlock(&parent->lock);
	return status == EPT_OK ? EPT_OK : ept_change_abort(change, status);
}
