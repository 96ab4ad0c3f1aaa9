/* SPDX-License-Identifier: MIT */
/*
 * What an operation of the engine wants done, as values.
 *
 * An operation decides under locks and returns a change: pages to copy, entries to store, and
 * translations to invalidate, in this order. Its caller does all of it and then calls
 * ept_change_finish(), which drops what the change replaced and unlocks. A long operation has several
 * steps; ept_change_finish() then returns EPT_MORE and the next step stands in the change.
 *
 *	status = ept_space_fault(space, gpa, EPT_WRITE, &change);
 *	if (status != EPT_OK)
 *		return status;
 *	do
 *		commit(&change);
 *	while ((status = ept_change_finish(&change)) == EPT_MORE);
 *
 * Between an operation's success and the last ept_change_finish() the space and the tables on its
 * path are locked; the thread that got the change must finish it and must not start another
 * operation before.
 */
#ifndef EPT_CHANGE_H
#define EPT_CHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ept/addr.h"
#include "rmap/rmap.h"

struct ept;
struct ept_space;
struct ept_table;

/* How an operation ended. On anything but EPT_OK and EPT_MORE nothing was changed. */
enum ept_status {
	EPT_OK,
	EPT_MORE,      /* the operation goes on: another step stands in the change */
	EPT_NO_MEMORY, /* the VMM's own memory ran out */
	EPT_NO_TABLE,  /* no table page is free; scrubbing may give some back */
	EPT_NO_PAGE,   /* no private page is free; scrubbing may give some back */
	EPT_OUTSIDE,   /* the address is in no region */
	EPT_DENIED,    /* the region does not grant this access */
	EPT_OVERLAP,   /* a region is there already, or none where one must be */
	EPT_INVALID,   /* not aligned, empty, or beyond what can be addressed */
	EPT_FROZEN,    /* a frozen space's memory cannot be changed */
	EPT_NO_PARENT, /* the space was not cloned from a frozen one */
	EPT_WATCHED,   /* the page of the memory file is watched: tell who watches, and then try again */
};

const char *ept_status_text(enum ept_status status);

/* Who may store an entry. */
enum ept_edit_by {
	EPT_EDIT_GATE, /* the gate: the entry was present, and KVM must notice the store */
	EPT_EDIT_PLAIN /* anybody: the entry was not present and KVM holds nothing of it */
};

/* Store @value at @entry, in one piece. Edits are made in the order in which they stand. */
struct ept_edit {
	struct fpa entry;
	uint64_t value;
	uint64_t old;
	enum ept_edit_by by;
	/* For the engine: the table's level, for a table may have a new life once it is unlocked; */
	uint8_t level;
	bool moved; /* and whether what is referred to goes from one entry to another. */
};

/* Copy 4 KiB to a private page that no entry points at yet. */
struct ept_copy {
	struct fpa to;
	struct fpa from;
};

enum ept_invalidation_kind {
	/*
	 * Every vCPU of @space passes its gate before it runs its guest again, forgets what it has
	 * cached of the space, and enters with the space's root of that time.
	 */
	EPT_INVALIDATE_SPACE,
	/* Every translation to the pages goes, whoever uses it; the contents stay. */
	EPT_INVALIDATE_PAGES,
	/* The same, and the contents go too: the pages are free. */
	EPT_INVALIDATE_DISCARD,
};

struct ept_invalidation {
	enum ept_invalidation_kind kind;
	struct ept_space *space; /* EPT_INVALIDATE_SPACE */
	struct fpa start;	 /* the others */
	uint64_t bytes;
};

/* A growing array. */
struct ept_list {
	void *items;
	size_t count;
	size_t capacity;
};

/* An operation that takes several steps, and how far it got. */
struct ept_progress {
	unsigned stage;
	unsigned kind;
	unsigned rights;
	struct gpa start;
	struct gpa at;
	struct gpa end;
	struct gpa to; /* where another range begins, of the same size */
};

/* A pass over all entries that map pages of a memory file, and how far it got. */
struct ept_sweep {
	unsigned kind;
	unsigned stage;
	struct file_page at;
	uint64_t first;
	uint64_t end;
	uint64_t tables;	/* edited so far */
	bool large;		/* an entry of 2 MiB among them, so it is about more pages than asked for */
	uint64_t *accessed;	/* harvest: the caller's bits */
	struct fpa from;	/* move: where the page lay, */
	struct file_page to;	/* which page it is to lie in, */
	struct file_page left;	/* and the spare page that it leaves, */
	bool release;		/* if any */
};

/*
 * Tables that the change keeps locked: one of each level below the root, and where private pages move,
 * those of level 1 that they move to.
 */
#define EPT_HELD (2 * EPT_ROOT_LEVEL)

struct ept_held {
	struct ept_table *table;
	bool owned;	/* the space's alone, to be changed: it leaves the share index */
	bool sanitized; /* its entries were checked after it had been shared */
};

/* Tables that the change made: nobody else sees them before it is finished. */
struct ept_fresh {
	struct ept_table *table;
	bool index; /* to be found by others from now on */
};

struct ept_change {
	/* For the caller. */
	struct ept_list edits;	       /* of struct ept_edit */
	struct ept_list invalidations; /* of struct ept_invalidation */
	struct ept_copy copy;
	bool has_copy;
	/* The space has another root: its vCPUs enter with ept_space_root() from now on. */
	bool root_changed;

	/* For the engine. */
	struct ept *ept;
	struct ept_space *space;
	struct ept_table *old_root; /* where root_changed */
	struct ept_held held[EPT_HELD];
	unsigned held_count;
	struct ept_fresh fresh[EPT_ROOT_LEVEL];
	unsigned fresh_count;
	struct ept_progress progress;
	struct ept_sweep sweep;
	struct ept_list found;	 /* of struct rmap_entry */
	struct ept_list watched; /* of uint64_t: bits of the pass's pages, which were before */
	/* An entry that is to map a copy: the reverse map knows it for the original until then. */
	struct file_page copied;
	struct rmap_entry copied_by;
	bool copied_known;
	struct ept_list scrubbed_tables; /* of uint32_t */
	struct ept_list scrubbed_pages;	 /* of uint32_t */
};

static inline struct ept_edit *ept_change_edits(const struct ept_change *change)
{
	return change->edits.items;
}

/* Whether there is nothing to do but to finish: another vCPU has done it meanwhile. */
static inline bool ept_change_is_empty(const struct ept_change *change)
{
	return !change->edits.count && !change->root_changed;
}

static inline struct ept_invalidation *ept_change_invalidations(const struct ept_change *change)
{
	return change->invalidations.items;
}

/*
 * To be called when all of a change is done: its copies, edits and invalidations. Drops what was
 * replaced and unlocks. EPT_OK: the operation is over. EPT_MORE: do its next step. Any other status:
 * a later step could not be prepared, the operation is over and has not changed what any address
 * translates to.
 */
enum ept_status ept_change_finish(struct ept_change *change);

/*
 * Instead of doing the change of a fault, or the first one of a pass over a file, of which nothing has been
 * done yet: everything is as before, but for a page that may have to be scrubbed again.
 */
void ept_change_cancel(struct ept_change *change);

/* Frees the arrays of a change that is finished, or zero. */
void ept_change_free(struct ept_change *change);

#endif
