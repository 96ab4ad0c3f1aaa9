// SPDX-License-Identifier: MIT
/*
 * Unsharing: a table that a space is about to change becomes its own.
 *
 * A table that several entries point at is never changed, but for absent entries that a fault fills
 * for all sharers (F21). A space that wants another change copies the table, takes a reference on
 * all that its entries refer to (F6), and points its own entry at the copy. What the copy shares
 * with the original from then on is read-only in the copy. In the original some entries may go on
 * granting write: no path through it does, because every entry that points at a shared table is
 * read-only (F18). When the original has one user again and that user wants to write, those entries
 * are corrected first ("sanitized"); until then the table is marked tainted.
 */
#include "ept_internal.h"

/* Whether an entry of a table that was shared may keep its right to write. */
static bool may_stay_writable(const struct ept *ept, unsigned level, uint64_t entry)
{
	struct fpa target = ept_entry_target(ept->config.format, entry);
	struct ept_table *child;

	if (ept_entry_is_leaf(ept->config.format, level, entry))
		return !ept_page_is_private(ept, target) || !ept_page_is_shared(ept, target);
	child = ept_table_of(ept, target);
	return child->shared_writable ||
	       (!ept_table_is_shared(child) && !atomic_load(&child->tainted));
}

/* Takes the reference that a copy of leaf @entry needs; returns the copy, read-only if shared. */
static uint64_t leaf_copy(struct ept *ept, const struct ept_format *format,
			  const struct ept_memory *memory, uint64_t entry)
{
	struct fpa target = ept_entry_target(format, entry);

	if (!ept_memory_has_page(memory, target))
		return entry;
	ept_page_get(ept, target);
	return ept_entry_with_write(format, entry, false);
}

/* The same for an entry that points at a table. */
static uint64_t link_copy(struct ept *ept, uint64_t entry)
{
	struct ept_table *child = ept_entry_child(ept, entry);

	ept_table_get(child);
	if (child->shared_writable)
		return entry;
	return ept_entry_with_write(ept->config.format, entry, false);
}

static uint64_t entry_copy(struct ept *ept, const struct ept_table *table, unsigned index,
			   uint64_t entry)
{
	if (ept_entry_is_leaf(ept->config.format, table->level, entry))
		return leaf_copy(ept, ept->config.format, &ept->config.memory, entry);
	if (ept_entry_fixed(ept, table, index))
		return entry;
	return link_copy(ept, entry);
}

/* Copies a line of a PT; returns whether an entry in it maps a private page. */
static bool copy_line(const struct ept_format *format, const struct ept_memory *memory,
		      const _Atomic uint64_t *from, _Atomic uint64_t *to)
{
	bool any = false;

#pragma GCC unroll 8
	for (unsigned at = 0; at < EPT_LINE; at++) {
		uint64_t entry = atomic_load_explicit(&from[at], memory_order_acquire);

		any |= ept_memory_has_page(memory, ept_entry_target(format, entry));
		atomic_store_explicit(&to[at], entry, memory_order_relaxed);
	}
	return any;
}

/*
 * A PT is full as a rule, and most of it maps a file's pages, whose entries are copied as they are. What
 * they are decoded with is read before, and not for each.
 */
static void copy_leaves(struct ept *ept, const struct ept_table *table, _Atomic uint64_t *to)
{
	const struct ept_format format = *ept->config.format;
	const struct ept_memory memory = ept->config.memory;
	const _Atomic uint64_t *from = ept_table_entries(ept, table);

	for (unsigned first = 0; first < EPT_ENTRIES; first += EPT_LINE) {
		if (!copy_line(&format, &memory, &from[first], &to[first]))
			continue;
		for (unsigned index = first; index < first + EPT_LINE; index++) {
			uint64_t entry = ept_entry_load(ept, table, index);

			if (ept_entry_present(entry))
				atomic_store_explicit(&to[index],
						      leaf_copy(ept, &format, &memory, entry),
						      memory_order_relaxed);
		}
	}
}

static void copy_entries(struct ept *ept, const struct ept_table *table, _Atomic uint64_t *to)
{
	for (unsigned index = ept_table_skip_empty(ept, table, 0); index < EPT_ENTRIES;
	     index = ept_table_skip_empty(ept, table, index + 1)) {
		uint64_t entry = ept_entry_load(ept, table, index);

		if (ept_entry_present(entry))
			atomic_store_explicit(&to[index], entry_copy(ept, table, index, entry),
					      memory_order_relaxed);
	}
}

/*
 * Fills the fresh table @copy with what @table, whose lock is held, translates. The reverse map
 * comes first, as it is all that can fail; what it knows of @copy then goes with @copy.
 */
static enum ept_status copy_table(struct ept *ept, struct ept_table *table, struct ept_table *copy)
{
	uint32_t from = ept_table_number(ept, table);
	uint32_t to = ept_table_number(ept, copy);

	if (!rmap_page_copy(ept->rmap, from, to) || !rmap_owner_copy(ept->rmap, from, to))
		return EPT_NO_MEMORY;
	if (table->level == 1)
		copy_leaves(ept, table, ept_table_entries(ept, copy));
	else
		copy_entries(ept, table, ept_table_entries(ept, copy));
	return EPT_OK;
}

/* Takes away rights that entries of @table kept while it was shared. It is held. */
static enum ept_status sanitize(struct ept_change *change, struct ept_table *table)
{
	struct ept *ept = change->ept;

	if (!atomic_load(&table->tainted))
		return EPT_OK;
	if (!ept_change_reserve(change, EPT_ENTRIES))
		return EPT_NO_MEMORY;
	for (unsigned index = ept_table_skip_empty(ept, table, 0); index < EPT_ENTRIES;
	     index = ept_table_skip_empty(ept, table, index + 1)) {
		uint64_t entry = ept_entry_load(ept, table, index);

		if (ept_entry_present(entry) && ept_entry_writable(ept->config.format, entry) &&
		    !may_stay_writable(ept, table->level, entry))
			ept_change_store(change, table, index,
					 ept_entry_with_write(ept->config.format, entry, false));
	}
	ept_change_sanitized(change, table);
	return EPT_OK;
}

/* The space is the only user of @child, which is locked: keep it so, and make it writable. */
static enum ept_status keep(struct ept_change *change, struct ept_table *parent, unsigned index,
			    unsigned rights, struct ept_table *child)
{
	const struct ept_format *format = change->ept->config.format;
	uint64_t entry = ept_entry_load(change->ept, parent, index);
	enum ept_status status;

	ept_change_hold(change, child, true);
	if (!(rights & EPT_WRITE) ||
	    (ept_entry_writable(format, entry) && !atomic_load(&child->tainted)))
		return EPT_OK;
	status = sanitize(change, child);
	if (status != EPT_OK)
		return status;
	if (!ept_change_reserve(change, 1))
		return EPT_NO_MEMORY;
	ept_change_store(change, parent, index, ept_entry_with_write(format, entry, true));
	return EPT_OK;
}

/* Others use @child, which is locked: the entry is to point at a copy instead. Unlocks @child. */
static enum ept_status replace(struct ept_change *change, struct ept_table *parent, unsigned index,
			       unsigned rights, struct ept_table *child, struct ept_table *copy)
{
	enum ept_status status = copy_table(change->ept, child, copy);

	pthread_mutex_unlock(&child->lock);
	if (status == EPT_OK)
		status = ept_change_invalidate_space(change);
	if (status != EPT_OK) {
		ept_table_put(change->ept, copy);
		return status;
	}
	ept_change_add_fresh(change, copy, false);
	ept_event(change->ept, EPT_EVENT_UNSHARE, copy, change->space);
	return ept_change_link(change, parent, index, copy, rights);
}

/* F5: take a table without the lock, lock again, look again at the count. */
static enum ept_status unshare_child(struct ept_change *change, struct ept_table *parent, unsigned index,
			       unsigned rights, struct ept_table **child)
{
	struct ept_table *copy = ept_table_take(change->ept, (*child)->level);

	if (!copy)
		return EPT_NO_TABLE;
	pthread_mutex_lock(&(*child)->lock);
	if (ept_table_is_shared(*child)) {
		struct ept_table *original = *child;

		*child = copy;
		return replace(change, parent, index, rights, original, copy);
	}
	ept_table_put(change->ept, copy);
	return keep(change, parent, index, rights, *child);
}

enum ept_status ept_own_child(struct ept_change *change, struct ept_table *parent, unsigned index,
			      unsigned rights, struct ept_table **child)
{
	*child = ept_entry_child(change->ept, ept_entry_load(change->ept, parent, index));
	if (ept_change_is_fresh(change, *child))
		return EPT_OK;
	pthread_mutex_lock(&(*child)->lock);
	if (!ept_table_is_shared(*child))
		return keep(change, parent, index, rights, *child);
	pthread_mutex_unlock(&(*child)->lock);
	return unshare_child(change, parent, index, rights, child);
}

/* The same for a root, which no entry points at: the space itself does. */
enum ept_status ept_own_root(struct ept_change *change)
{
	struct ept_table *root = change->space->root;
	enum ept_status status = EPT_OK;
	struct ept_table *copy;

	if (!ept_table_is_shared(root))
		return EPT_OK;
	copy = ept_table_take(change->ept, EPT_ROOT_LEVEL);
	if (!copy)
		return EPT_NO_TABLE;
	pthread_mutex_lock(&root->lock);
	if (ept_table_is_shared(root))
		status = copy_table(change->ept, root, copy);
	else
		status = EPT_MORE; /* The others left meanwhile. */
	pthread_mutex_unlock(&root->lock);
	if (status == EPT_OK)
		status = ept_change_invalidate_space(change);
	if (status != EPT_OK) {
		ept_table_put(change->ept, copy);
		return status == EPT_MORE ? EPT_OK : status;
	}
	ept_change_add_fresh(change, copy, false);
	ept_change_set_root(change, copy);
	ept_event(change->ept, EPT_EVENT_UNSHARE, copy, change->space);
	return EPT_OK;
}

/* A table like @table, for nobody yet; its lower tables and private pages are shared with @table. */
static enum ept_status copy_alone(struct ept *ept, struct ept_table *table, struct ept_table **out)
{
	struct ept_table *copy = ept_table_take(ept, table->level);
	enum ept_status status;

	if (!copy)
		return EPT_NO_TABLE;
	pthread_mutex_lock(&table->lock);
	status = copy_table(ept, table, copy);
	/* What it refers to has other users now: who writes through it must look. */
	atomic_store(&table->tainted, true);
	pthread_mutex_unlock(&table->lock);
	if (status != EPT_OK) {
		ept_table_put(ept, copy);
		return status;
	}
	pthread_mutex_lock(&copy->lock);
	copy->published = true;
	pthread_mutex_unlock(&copy->lock);
	*out = copy;
	return EPT_OK;
}

/* Puts a copy in the place of the table that entry @index of @parent points at. */
static enum ept_status replace_alone(struct ept *ept, struct ept_table *parent, unsigned index,
				     struct ept_table **copy)
{
	const struct ept_format *format = ept->config.format;
	uint64_t entry = ept_entry_load(ept, parent, index);
	struct ept_table *child = ept_entry_child(ept, entry);
	enum ept_status status = copy_alone(ept, child, copy);

	if (status != EPT_OK)
		return status;
	atomic_store(&ept_table_entries(ept, parent)[index],
		     ept_entry_table(format, ept_table_at(ept, *copy),
				     ept_entry_rights(format, entry)));
	rmap_owner_move(ept->rmap, ept_table_number(ept, *copy),
			(struct rmap_entry){ ept_table_number(ept, parent), (uint16_t)index });
	ept_table_put(ept, child);
	return EPT_OK;
}

/* Replaces all tables below @root, which nobody else has, by copies. */
static enum ept_status copy_below(struct ept *ept, struct ept_table *root)
{
	struct {
		struct ept_table *table;
		unsigned index;
	} stack[EPT_ROOT_LEVEL] = { { .table = root } };
	unsigned depth = 1;
	enum ept_status status = EPT_OK;

	while (depth && status == EPT_OK) {
		struct ept_table *table = stack[depth - 1].table;
		unsigned index = stack[depth - 1].index++;

		if (index == EPT_ENTRIES) {
			depth--;
			continue;
		}
		if (ept_entry_fixed(ept, table, index) ||
		    !ept_entry_is_table(ept, table->level, ept_entry_load(ept, table, index)))
			continue;
		stack[depth].index = 0;
		status = replace_alone(ept, table, index, &stack[depth].table);
		depth++;
	}
	return status;
}

enum ept_status ept_root_for_clone(struct ept_space *space, struct ept_table **root)
{
	struct ept *ept = space->ept;
	enum ept_status status;

	if (ept_space_shares(space) && ept_share_event(ept)) {
		*root = space->root;
		ept_table_get(*root);
		return EPT_OK;
	}
	status = copy_alone(ept, space->root, root);
	if (status != EPT_OK)
		return status;
	status = copy_below(ept, *root);
	if (status != EPT_OK)
		ept_table_put(ept, *root);
	return status;
}
