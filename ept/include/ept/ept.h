/* SPDX-License-Identifier: MIT */
/*
 * The engine: spaces of guest-physical memory, made of regions of memory files, and the tables that
 * translate them, shared among spaces wherever that cannot be seen.
 *
 * It keeps a use count for every table, finds tables to share in an index, copies a shared table
 * before a space changes it ("unshare"), and returns what is to be stored and invalidated as values
 * (ept/change.h). It runs the same in a VMM and in a test.
 *
 * Locks, outermost first: a space's; its parent's; tables' from the root down, of one path; the share
 * index's, the pools', the reverse map's. docs/locking.md says for each transition of a use count
 * who may do it.
 */
#ifndef EPT_EPT_H
#define EPT_EPT_H

#include <stdbool.h>
#include <stdint.h>

#include "ept/addr.h"
#include "ept/change.h"
#include "ept/format.h"
#include "rmap/rmap.h"

/* How a region's writes act. */
enum ept_mode {
	EPT_PRIVATE, /* the first write to a page gives the guest its own copy */
	EPT_SHARED,  /* writes go to the memory file */
};

/* Guest-physical memory that shows pages of a memory file. */
struct ept_region {
	struct gpa start;
	uint64_t bytes;		/* a multiple of EPT_PAGE_BYTES */
	struct file_page first; /* what lies at start */
	unsigned rights;	/* of enum ept_rights; EPT_READ always */
	enum ept_mode mode;
	/*
	 * Entries of 2 MiB wherever the region covers an aligned span and shows 2 MiB of the file
	 * that begin at a multiple of 2 MiB. The first private write to such a span breaks its entry.
	 */
	bool large;
};

/*
 * At most so many tables, 16 GiB of them: with 512 entries each they cannot hold as many references to a
 * table or page as a count of 32 bits can.
 */
#define EPT_TABLES_MAX (UINT32_C(1) << 22)

/* The fleet-physical memory that the engine hands out. Both lie within the fleet's one VM. */
struct ept_memory {
	void *tables;	     /* where the caller sees the table pages; zero at first */
	struct fpa tables_at;
	uint32_t table_count;
	struct fpa pages_at; /* private pages; the engine never looks into them */
	uint32_t page_count;
};

struct ept_config {
	const struct ept_format *format;
	struct ept_memory memory;
	/*
	 * One entry that every root has, for the gate; 0 for none. The engine leaves it alone and
	 * maps nothing in its span.
	 */
	unsigned root_entry_index;
	uint64_t root_entry;
	/* Levels of tables that guests may find in the share index: bit n for level n. */
	unsigned share_levels;
	/* A space that needs no more tables than this beside its root has its own (F19). */
	unsigned share_threshold;
	/*
	 * Each time that a table is to be shared has a number, from 0. Those below @share_from and from
	 * @share_until on (0: no end) are not shared, to find by bisection the one that does harm (F12).
	 */
	uint64_t share_from;
	uint64_t share_until;
};

#define EPT_SHARE_ALL (1u << 1 | 1u << 2 | 1u << 3)

/* A memory file's pages as one stretch of fleet-physical memory. */
struct ept_file {
	struct fpa window; /* a multiple of 2 MiB, where regions are to have large entries */
	uint64_t pages;
	uint64_t capacity; /* pages to which it may grow within its window; @pages if that is more */
	bool writable;	   /* whether regions of mode EPT_SHARED may map it */
	bool spare;	   /* no region maps it: pages of other files may be moved here */
};

struct ept_space_options {
	uint32_t domain; /* guests share tables within a sharing domain only (B8) */
	bool sharing;	 /* off: every table is the space's own */
};

/* What the engine has done, since it was created. Counters only go up. */
struct ept_counters {
	uint64_t faults;	 /* ept_space_fault() that succeeded */
	uint64_t spurious;	 /* of these: nothing was missing */
	uint64_t tables_filled;	 /* tables made for a fault */
	uint64_t tables_shared;	 /* tables found in the share index */
	uint64_t tables_cloned;	 /* tables shared by cloning */
	uint64_t tables_copied;	 /* unshared */
	uint64_t pages_copied;	 /* data copy-on-write */
	uint64_t leaves_broken;	 /* entries of 2 MiB replaced by tables */
	uint64_t tables_dropped; /* references dropped */
	uint64_t tables_freed;	 /* last references dropped */
	uint64_t share_events;	 /* times that a table was to be shared */
};

/* What there is at this moment. */
struct ept_usage {
	uint64_t tables[EPT_ROOT_LEVEL + 1]; /* in use, by level; [0] unused */
	uint64_t tables_quarantined;	     /* free, but not scrubbed yet */
	uint64_t pages;			     /* private pages in use */
	uint64_t pages_quarantined;
	uint64_t indexed; /* tables in the share index */
};

/* What one space is translated by. */
struct ept_space_usage {
	uint64_t tables_alone;	/* that no other space uses */
	uint64_t tables_shared; /* that others use too */
	uint64_t pages_alone;	/* private pages */
	uint64_t pages_shared;	/* private pages that another table also maps */
};

/* A space's part of all that is in use. */
struct ept_account {
	struct ept_space *space;
	uint64_t tables_alone; /* that no other space is translated by */
	uint64_t tables_shared;
	uint64_t tables_part_bytes; /* its part, where each table is divided among its spaces */
	uint64_t pages_alone;	    /* private pages, the same */
	uint64_t pages_shared;
	uint64_t pages_part_bytes;
};

struct ept;
struct ept_space;

/* An engine, or NULL when memory ran out, or what is configured is not aligned, overlaps or is too high. */
struct ept *ept_create(const struct ept_config *config);

/* All spaces must be destroyed before. */
void ept_destroy(struct ept *ept);

/*
 * Makes a memory file known, before any space maps it: its number, or -1 when there are too many files, or its
 * window is not aligned to a page, overlaps that of another, or is too high.
 */
int ept_file_add(struct ept *ept, const struct ept_file *file);

/* The file has @pages now, no fewer than before and at most its capacity. */
enum ept_status ept_file_grow(struct ept *ept, uint32_t file, uint64_t pages);

/*
 * Passes over all entries that map @count pages of a file from @first on, whatever the number of
 * spaces: one table is edited for each step, and no space is locked. They return with a change to
 * finish like the operations on spaces, and exclude each other until then.
 */

/*
 * Takes the pages from all tables, so that the caller may do as it likes with the memory behind them. A
 * guest that comes back to one of them faults it in again.
 */
enum ept_status ept_file_reclaim(struct ept *ept, struct file_page first, uint64_t count,
				 struct ept_change *change);

/*
 * Moves a page of a file that no region may write to: copied to the free page @to of a spare file, or back
 * to its own place, where it must still be, and from then on found there. Its old place is unused when the change is finished.
 */
enum ept_status ept_file_move(struct ept *ept, struct file_page page, struct file_page to,
			      struct ept_change *change);

/*
 * Watches pages: from the end of the change on nobody writes to them, neither a guest, whose write
 * fault ends with EPT_WATCHED, nor who asks ept_file_write_begin() (F29).
 */
enum ept_status ept_file_watch(struct ept *ept, struct file_page first, uint64_t count,
			       struct ept_change *change);

/* No longer. Guests get the right to write back when they fault. Pages that there are not do not matter. */
void ept_file_unwatch(struct ept *ept, struct file_page first, uint64_t count);

bool ept_file_watched(const struct ept *ept, struct file_page page);

/*
 * For who writes to a file other than through a guest's tables: EPT_WATCHED, or EPT_OK and nobody
 * begins to watch before ept_file_write_end().
 */
enum ept_status ept_file_write_begin(struct ept *ept, struct file_page page);
void ept_file_write_end(struct ept *ept);

/*
 * Sets bit i of @accessed (the others stay) if page @first + i was accessed since the last harvest
 * through some table, as far as the processor or KVM notes that, and begins anew.
 * EPT_INVALID where the format has no bit for it.
 */
enum ept_status ept_file_harvest(struct ept *ept, struct file_page first, uint64_t count,
				 uint64_t *accessed, struct ept_change *change);

/* An empty space. Its root exists at once. */
enum ept_status ept_space_create(struct ept *ept, const struct ept_space_options *options,
				 struct ept_space **out);

/*
 * The operations below lock the space, and on EPT_OK return with it locked and a change to finish
 * (ept/change.h). On any other status nothing is locked, nothing changed, @change is empty.
 */

/* Adds a region where there is none. Tables come with faults. */
enum ept_status ept_space_map(struct ept_space *space, const struct ept_region *region,
			      struct ept_change *change);

/* Takes away whatever regions there are in [start, start + bytes), whole or in part. */
enum ept_status ept_space_unmap(struct ept_space *space, struct gpa start, uint64_t bytes,
				struct ept_change *change);

/* Gives the regions in [start, start + bytes) other rights; there must be no hole in it. */
enum ept_status ept_space_protect(struct ept_space *space, struct gpa start, uint64_t bytes,
				  unsigned rights, struct ept_change *change);

/*
 * Moves the regions and the private pages of [from, from + bytes), which must have no hole, to @to, where
 * there must be no region.
 */
enum ept_status ept_space_move(struct ept_space *space, struct gpa from, uint64_t bytes,
			       struct gpa to, struct ept_change *change);

/*
 * Makes an access of @access (one of enum ept_rights) at @gpa possible: fills in what is missing,
 * and for a write unshares the tables on the path and copies the page. A change without edits means
 * that somebody else did it meanwhile.
 */
enum ept_status ept_space_fault(struct ept_space *space, struct gpa gpa, unsigned access,
				struct ept_change *change);

/*
 * A space with the regions and the memory of @parent, sharing all of its tables, the root included,
 * until it writes. The entries of the parent's root lose the right to write.
 */
enum ept_status ept_space_clone(struct ept_space *parent, struct ept_space **out,
				struct ept_change *change);

/* Lets no operation change the space's memory any more, so that clones can be reset to it. */
enum ept_status ept_space_freeze(struct ept_space *space, struct ept_change *change);

/*
 * Freezes what a space is at this moment, as a new space @frozen, and lets the space go on as its first
 * clone (B2). Costs what a clone costs: the entries of the root lose the right to write.
 */
enum ept_status ept_space_snapshot(struct ept_space *space, struct ept_space **frozen,
				   struct ept_change *change);

/* Gives a clone of a frozen space that space's regions and memory back. */
enum ept_status ept_space_reset(struct ept_space *space, struct ept_change *change);

/*
 * Ends a space, whose vCPUs are stopped and will not enter its guest again. What only it used goes
 * into quarantine. A frozen space's memory stays for as long as clones of it exist.
 */
void ept_space_destroy(struct ept_space *space);

/* The sharing domain of the space, and of all that are cloned from it. */
uint32_t ept_space_domain(const struct ept_space *space);

/*
 * Takes tables and pages out of quarantine: the change scrubs up to @limit tables and discards
 * pages. EPT_OK with an empty change: there was nothing to do.
 */
enum ept_status ept_scrub(struct ept *ept, unsigned limit, struct ept_change *change);

/*
 * The root's place, for a guest's entry. It changes when a space that shares its root becomes
 * different from those that have it too; the change then says so (root_changed).
 */
struct fpa ept_space_root(const struct ept_space *space);

/*
 * What @gpa translates to and the rights on its whole path; false where an entry is missing. For
 * the VMM's own accesses to guest memory; the answer holds while the guest does not run.
 */
bool ept_space_translate(struct ept_space *space, struct gpa gpa, struct fpa *to,
			 unsigned *rights);

/* The region that covers @gpa; false if there is none. */
bool ept_space_region(struct ept_space *space, struct gpa gpa, struct ept_region *out);

/* Number of faults of the space that ended with EPT_OK. */
uint64_t ept_space_faults(const struct ept_space *space);

void ept_usage(struct ept *ept, struct ept_usage *usage);
void ept_counters(struct ept *ept, struct ept_counters *counters);
void ept_space_usage(struct ept_space *space, struct ept_space_usage *usage);

/*
 * Divides all tables and private pages among the spaces, up to @max of them; the parts add up to what
 * ept_usage() says. Returns the number of spaces, 0 without memory. No operation may be under way.
 */
size_t ept_accounts(struct ept *ept, struct ept_account *accounts, size_t max);

/* A number that no other space of the engine has had; and how many tables its regions need. */
uint32_t ept_space_number(const struct ept_space *space);
uint64_t ept_space_tables(struct ept_space *space);

/* Bytes of the VMM's own memory that the engine's descriptors and the reverse map occupy. */
uint64_t ept_overhead_bytes(struct ept *ept);

#endif
