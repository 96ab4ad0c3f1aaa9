/* SPDX-License-Identifier: MIT */
/*
 * The engine's own types, and what its files offer each other.
 *
 * A table is one page of EPT_ENTRIES entries in fleet memory and one struct ept_table beside it.
 * Descriptors are never freed while the engine lives, so a stale pointer to one is safe to lock and
 * look at again. docs/sharing.md draws the states; docs/locking.md has the rules behind the comments
 * here.
 */
#ifndef EPT_INTERNAL_H
#define EPT_INTERNAL_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "ept/ept.h"
#include "ept/trace.h"

#define EPT_NONE  UINT32_MAX
#define EPT_FILES 1024

enum ept_table_state {
	EPT_TABLE_FREE,	       /* zero, in the pool's free list or never used */
	EPT_TABLE_LIVE,	       /* has references */
	EPT_TABLE_QUARANTINED, /* no references; KVM may hold a shadow of it until it is scrubbed */
};

/*
 * What a table in the share index translates. Guests may share it if all of this is equal: a table
 * is never shared among different levels, rights, modes, or sharing domains (S8). The format is the
 * engine's and thus equal for all.
 */
struct ept_key {
	uint32_t domain;
	struct file_page first;
	uint8_t level;
	uint8_t rights;
	uint8_t mode;
	bool large; /* the page-size class */
};

struct ept_table {
	/* Guards the entries and all below. Taken after the lock of its space and of its parents. */
	pthread_mutex_t lock;
	/*
	 * Entries, in all spaces, that point at this table; for a root, spaces that have it (F1).
	 * Goes up under this table's lock, or under that of a table one of whose entries points
	 * here, or of a space whose root it is; goes down under this table's lock only. Read
	 * without a lock it is a hint.
	 */
	_Atomic uint32_t use_count;
	/* Was used by several since its entries were last sanitized: some may grant too much. */
	atomic_bool tainted;
	uint8_t level;
	uint8_t state; /* enum ept_table_state */
	bool published; /* an entry that hardware can reach has pointed here */
	bool clean;	/* made by read faults only: holds nothing that a region could not restore */
	bool shared_writable; /* shows a region of mode EPT_SHARED only: sharers may all write */
	bool indexed;
	struct ept_key key; /* where indexed */
	uint32_t index_next;
	uint32_t list_next; /* in a free list or the quarantine */
};

/* Tables: descriptors, and which of them are free. */
struct ept_table_pool {
	pthread_mutex_t lock; /* guards the lists */
	struct ept_table *tables;
	uint32_t next_unused;
	uint32_t free;
	uint32_t quarantine;
	uint32_t quarantined;
	_Atomic uint64_t live[EPT_ROOT_LEVEL + 1];
};

/* Private pages: a count for each, and which of them are free. */
struct ept_page_pool {
	pthread_mutex_t lock; /* guards the lists; counts are atomic */
	/*
	 * Leaf entries, in all tables, that map the page (S3). Goes up under the lock of a table one
	 * of whose entries maps it.
	 */
	_Atomic uint32_t *counts;
	uint32_t *list_next;
	uint32_t next_unused;
	uint32_t free;
	uint32_t quarantine;
	uint32_t quarantined;
	_Atomic uint64_t live;
};

/* Tables that show one region only, found by what they translate. */
struct ept_index {
	pthread_mutex_t lock; /* guards the chains; taken after tables' locks */
	uint32_t *buckets;
	uint32_t bucket_count;
	uint32_t count;
};

struct ept_stat {
	_Atomic uint64_t faults, spurious, pages_copied, share_events;
	_Atomic uint64_t events[EPT_EVENT_KINDS];
};

struct ept_file_chunk;

/* What becomes of a file while it is mapped. */
struct ept_file_state {
	_Atomic uint64_t pages; /* that regions may map */
	uint64_t capacity;	/* to which it may grow */
	atomic_bool special;	/* there are chunks: some pages were moved or watched */
	_Atomic(struct ept_file_chunk *) *chunks;
};

TAILQ_HEAD(ept_space_list, ept_space);

struct ept {
	struct ept_config config;
	struct ept_table_pool tables;
	struct ept_page_pool pages;
	struct ept_index index;
	struct rmap *rmap;
	/* Guards the files, and is held during a pass over one: outermost, never with a space's lock. */
	pthread_mutex_t files_lock;
	struct ept_file files[EPT_FILES];
	struct ept_file_state file_states[EPT_FILES];
	_Atomic unsigned file_count;
	pthread_mutex_t spaces_lock; /* guards the list of spaces; nothing is locked while it is held */
	struct ept_space_list spaces;
	struct ept_stat stat;
	struct ept_trace *trace; /* NULL: off */
	_Atomic uint32_t next_space;
};

struct ept_space {
	/*
	 * Guards all below, and the entries of a root that is the space's alone. Taken before all
	 * other locks.
	 */
	pthread_mutex_t lock;
	struct ept *ept;
	uint32_t number;
	struct ept_space_options options;
	struct ept_table *root;
	struct ept_list regions; /* of struct ept_region, by address */
	uint64_t tables_needed;	 /* by the regions */
	struct ept_region pending; /* what an unfinished map will add */
	struct ept_space *parent; /* frozen; NULL if the space is no clone of a frozen one */
	bool frozen;
	_Atomic uint32_t references; /* its owner, and each clone that has it as its parent */
	_Atomic uint64_t faults;
	TAILQ_ENTRY(ept_space) link;
};

/* list.c: growing arrays. */
bool ept_list_reserve(struct ept_list *list, size_t more, size_t item_bytes);
void ept_list_free(struct ept_list *list);

/* table.c */
bool ept_tables_init(struct ept *ept);
void ept_tables_free(struct ept *ept);

/* A free table with a use count of 1 that belongs to the caller, or NULL. */
struct ept_table *ept_table_take(struct ept *ept, unsigned level);

/* One more entry points at @table; the caller holds its lock or that of a parent of it. */
void ept_table_get(struct ept_table *table);

/* One entry less points at @table. Takes its lock; with the last one it goes into quarantine. */
void ept_table_put(struct ept *ept, struct ept_table *table);

/* The one answer to "is this table shared?" (CVE-2026-23100). Exact under the table's lock. */
static inline bool ept_table_is_shared(const struct ept_table *table)
{
	return atomic_load_explicit(&table->use_count, memory_order_acquire) > 1;
}

static inline uint32_t ept_table_number(const struct ept *ept, const struct ept_table *table)
{
	return (uint32_t)(table - ept->tables.tables);
}

static inline struct fpa ept_table_at(const struct ept *ept, const struct ept_table *table)
{
	uint64_t offset = (uint64_t)ept_table_number(ept, table) << EPT_PAGE_SHIFT;

	return (struct fpa){ ept->config.memory.tables_at.v + offset };
}

/* The table that lies at @at, which an entry or an edit names. */
static inline struct ept_table *ept_table_of(const struct ept *ept, struct fpa at)
{
	uint64_t number = (at.v - ept->config.memory.tables_at.v) >> EPT_PAGE_SHIFT;

	assert(number < ept->config.memory.table_count);
	return &ept->tables.tables[number];
}

/* Whether @entry of a table of @level points at a table. */
static inline bool ept_entry_is_table(const struct ept *ept, unsigned level, uint64_t entry)
{
	return ept_entry_present(entry) && !ept_entry_is_leaf(ept->config.format, level, entry);
}

static inline struct ept_table *ept_entry_child(const struct ept *ept, uint64_t entry)
{
	return ept_table_of(ept, ept_entry_target(ept->config.format, entry));
}

static inline _Atomic uint64_t *ept_table_entries(const struct ept *ept,
						  const struct ept_table *table)
{
	unsigned char *memory = ept->config.memory.tables;

	return (_Atomic uint64_t *)(memory +
				    ((size_t)ept_table_number(ept, table) << EPT_PAGE_SHIFT));
}

/* Entries are stored by other threads' gates; acquire pairs with the release of a plain edit. */
static inline uint64_t ept_entry_load(const struct ept *ept, const struct ept_table *table,
				      unsigned index)
{
	return atomic_load_explicit(&ept_table_entries(ept, table)[index], memory_order_acquire);
}

/*
 * Tables of upper levels are almost empty as a rule: who goes through all of one's entries passes by
 * absent ones in lines of the cache.
 */
#define EPT_LINE 8u /* entries in a line */

static inline bool ept_line_is_empty(const _Atomic uint64_t *line)
{
	uint64_t any = 0;

#pragma GCC unroll 8
	for (unsigned at = 0; at < EPT_LINE; at++)
		any |= atomic_load_explicit(&line[at], memory_order_acquire);
	return !ept_entry_present(any);
}

/* The first entry of @table from @index on that may be present; EPT_ENTRIES if there is none. */
static inline unsigned ept_table_skip_empty(const struct ept *ept, const struct ept_table *table,
					    unsigned index)
{
	const _Atomic uint64_t *entries = ept_table_entries(ept, table);

	while (index % EPT_LINE == 0 && index < EPT_ENTRIES && ept_line_is_empty(&entries[index]))
		index += EPT_LINE;
	return index;
}

/* Whether the engine leaves this entry of @table alone: the gate's, in every root. */
static inline bool ept_entry_fixed(const struct ept *ept, const struct ept_table *table,
				   unsigned index)
{
	return table->level == EPT_ROOT_LEVEL && ept->config.root_entry &&
	       index == ept->config.root_entry_index;
}

/* page.c */
bool ept_pages_init(struct ept *ept);
void ept_pages_free(struct ept *ept);

/* Takes a free page with a count of 1; false if there is none. */
bool ept_page_take(struct ept *ept, struct fpa *page);
/* Gives back a page that no entry has mapped yet. */
void ept_page_give_back(struct ept *ept, struct fpa page);
/* One more leaf maps the page; the caller holds the lock of a table that maps it. */
void ept_page_get(struct ept *ept, struct fpa page);
/* One leaf less; with the last one the page goes into quarantine. */
void ept_page_put(struct ept *ept, struct fpa page);
bool ept_page_is_shared(const struct ept *ept, struct fpa page);

/* Whether @at is a private page (and not a memory file's). */
static inline bool ept_memory_has_page(const struct ept_memory *memory, struct fpa at)
{
	return at.v - memory->pages_at.v < (uint64_t)memory->page_count << EPT_PAGE_SHIFT;
}

static inline bool ept_page_is_private(const struct ept *ept, struct fpa at)
{
	return ept_memory_has_page(&ept->config.memory, at);
}

static inline uint32_t ept_page_number(const struct ept *ept, struct fpa page)
{
	return (uint32_t)((page.v - ept->config.memory.pages_at.v) >> EPT_PAGE_SHIFT);
}


/*
 * What the reverse map calls the pages that a leaf entry of @level maps, of which @page is the first. It
 * knows a file's 2 MiB pages as pages of another file.
 */
static inline struct file_page ept_rmap_page(struct file_page page, unsigned level)
{
	if (level == EPT_LARGE_LEVEL)
		return (struct file_page){ page.file + EPT_FILES, page.page / EPT_ENTRIES };
	return page;
}

/* file.c */
void ept_files_free(struct ept *ept);
/* The memory file's page that lies at @at; false if none does. */
bool ept_file_page_of(const struct ept *ept, struct fpa at, struct file_page *page);
/* Where a page of a memory file lies. */
struct fpa ept_file_page_at(const struct ept *ept, struct file_page page);
/* How many pages it has at this moment. */
uint64_t ept_file_pages(const struct ept *ept, uint32_t file);
/* Whether nothing is special about the 2 MiB around @page: all of it is at home and not watched. */
bool ept_file_is_plain(const struct ept *ept, struct file_page page);
/* Whether @page was moved, and which page of a spare file it lies in. */
bool ept_file_page_moved(const struct ept *ept, struct file_page page, struct file_page *to);
/* Whether @spare is a spare file's page in which no page lies. */
bool ept_file_place_free(const struct ept *ept, struct file_page spare);
/* The rest with files_lock held. Room for a page that moves; false without memory. */
bool ept_file_place_prepare(struct ept *ept, struct file_page page, struct file_page to);
/* @page lies in @to from now on, which is itself or was free. */
void ept_file_place_set(struct ept *ept, struct file_page page, struct file_page to);
void ept_file_place_release(struct ept *ept, struct file_page spare);
bool ept_file_watch_prepare(struct ept *ept, struct file_page first, uint64_t count);
void ept_file_watch_set(struct ept *ept, struct file_page page, bool watched);

/* sweep.c */
/* Goes on with a pass up to the next edits or invalidations; with stage 0 it is over. */
enum ept_status ept_sweep_step(struct ept_change *change);
/* Ends a pass and unlocks; returns @status, with which it ends. */
enum ept_status ept_sweep_end(struct ept_change *change, enum ept_status status);

/* index.c */
bool ept_index_init(struct ept *ept);
void ept_index_free(struct ept *ept);

/* A table with this key, with one reference more, which is the caller's; NULL if there is none. */
struct ept_table *ept_index_get(struct ept *ept, const struct ept_key *key);
/* Lets others find @table, unless one with its key is there already. Takes its lock. */
void ept_index_add(struct ept *ept, struct ept_table *table);
/* The caller holds the table's lock. */
void ept_index_remove(struct ept *ept, struct ept_table *table);

/* region.c: all with the space's lock held. */
const struct ept_region *ept_region_find(const struct ept_space *space, struct gpa gpa);
bool ept_region_any(const struct ept_space *space, struct gpa start, struct gpa end);
bool ept_region_covers(const struct ept_space *space, struct gpa start, struct gpa end);
/* Room for what a cut and an insertion add, so that they cannot fail. */
bool ept_region_reserve(struct ept_space *space);
void ept_region_insert(struct ept_space *space, const struct ept_region *region);
void ept_region_cut(struct ept_space *space, struct gpa start, struct gpa end);
void ept_region_set_rights(struct ept_space *space, struct gpa start, struct gpa end,
			   unsigned rights);
/* The regions of [start, end), whose goal is free, begin at @to from now on. */
void ept_region_move(struct ept_space *space, struct gpa start, struct gpa end, struct gpa to);
bool ept_region_copy(struct ept_space *to, const struct ept_space *from);

static inline struct gpa ept_region_end(const struct ept_region *region)
{
	return (struct gpa){ region->start.v + region->bytes };
}

/* The file page that a region shows at @gpa. */
static inline struct file_page ept_region_page(const struct ept_region *region, struct gpa gpa)
{
	uint64_t page = region->first.page + ((gpa.v - region->start.v) >> EPT_PAGE_SHIFT);

	return (struct file_page){ region->first.file, page };
}

/* Whether guests may write through to the file. */
static inline bool ept_region_writes_through(const struct ept_region *region)
{
	return region->mode == EPT_SHARED && (region->rights & EPT_WRITE);
}

/* space.c */
/* A space without a root, which nobody knows of until it is published; NULL without memory. */
struct ept_space *ept_space_new(struct ept *ept, const struct ept_space_options *options);
void ept_space_publish(struct ept_space *space);
/* Frees a space that has no root. */
void ept_space_discard(struct ept_space *space);
void ept_space_put(struct ept_space *space);

/* change.c */
void ept_change_begin(struct ept_change *change, struct ept *ept, struct ept_space *space);
/* The space is to have @root, a reference on which the caller gives away. */
void ept_change_set_root(struct ept_change *change, struct ept_table *root);
/* Undoes what was prepared and unlocks everything; returns @status. */
enum ept_status ept_change_abort(struct ept_change *change, enum ept_status status);
/* Keeps @table, whose lock the caller has taken, locked until the change ends. */
void ept_change_hold(struct ept_change *change, struct ept_table *table, bool owned);
/*
 * Unlocks the tables that the change holds, after those that the space owns have left the share index:
 * what is unshared cannot be shared again before it is changed (CVE-2025-38084).
 */
void ept_change_settle(struct ept_change *change);
bool ept_change_holds(const struct ept_change *change, const struct ept_table *table);
void ept_change_sanitized(struct ept_change *change, const struct ept_table *table);
void ept_change_add_fresh(struct ept_change *change, struct ept_table *table, bool index);
bool ept_change_is_fresh(const struct ept_change *change, const struct ept_table *table);
/* Reserves room for @count edits, so that the next stores cannot fail. */
bool ept_change_reserve(struct ept_change *change, size_t count);
/*
 * Entry @index of @table is to become @value: at once in a fresh table, else by an edit, for which
 * room was reserved. What the old entry referred to is dropped when the change is finished, what the
 * new one refers to belongs to the entry from now on.
 */
void ept_change_store(struct ept_change *change, struct ept_table *table, unsigned index,
		      uint64_t value);
/*
 * The private page that entry @index of @table maps, a table of level 1 like @to, is to be mapped by the absent
 * entry @to_index of @to instead. Both are held; room for two edits was reserved.
 */
void ept_change_move(struct ept_change *change, struct ept_table *table, unsigned index,
		     struct ept_table *to, unsigned to_index);
/*
 * Entry @index of @table is to point at @child, whose reference goes to the entry, also on failure.
 */
enum ept_status ept_change_link(struct ept_change *change, struct ept_table *table, unsigned index,
				struct ept_table *child, unsigned rights);
enum ept_status ept_change_invalidate_space(struct ept_change *change);

/* leaf.c */
/* The beginning of the span that a table of @level has around @gpa. */
struct gpa ept_span_start(struct gpa gpa, unsigned level);
/* Whether an entry of a table of @level is to map what @region shows around @gpa. */
bool ept_region_has_leaf(const struct ept *ept, const struct ept_region *region, struct gpa gpa,
			 unsigned level);
/*
 * Fills all absent entries of @table, which is held or fresh and translates @gpa, that can map what
 * @region shows. Nothing at levels that cannot.
 */
enum ept_status ept_fill_leaves(struct ept_change *change, struct ept_table *table,
				const struct ept_region *region, struct gpa gpa);
/*
 * Puts a table that maps the same by 4 KiB in the place of the leaf entry that maps @gpa in @table,
 * which is the space's own. The entries of those who had the table with it stay as they are.
 */
enum ept_status ept_break_leaf(struct ept_change *change, struct ept_table *table, struct gpa gpa,
			       struct ept_table **child);

/* own.c */
/* Makes the root the space's alone, by giving it a new one if others have it too. */
enum ept_status ept_own_root(struct ept_change *change);

/*
 * A root for another space that is to have what @space has, which is locked: the same one, or a copy of
 * all tables where they may not be shared. The reference is the caller's.
 */
enum ept_status ept_root_for_clone(struct ept_space *space, struct ept_table **root);

/*
 * Makes the table below entry @index of @parent the space's alone, by copying it if others use it,
 * and keeps it locked. With EPT_WRITE in @rights the entry and all of the table's entries that it
 * may grant then allow writing.
 */
enum ept_status ept_own_child(struct ept_change *change, struct ept_table *parent, unsigned index,
			      unsigned rights, struct ept_table **child);

/* map.c */
enum ept_status ept_map_step(struct ept_change *change);

/* scrub.c */
void ept_scrub_finish(struct ept_change *change);

/* trace.c: counts an event of @table, and records it while tracing is on. @space may be NULL. */
void ept_event(struct ept *ept, enum ept_event_kind kind, const struct ept_table *table,
	       const struct ept_space *space);

/* share.c */
/* Whether the space may share tables at all. */
bool ept_space_shares(const struct ept_space *space);
/* Whether this time a table may be shared: each question is a numbered event. */
bool ept_share_event(struct ept *ept);
/* Tables that the space's regions need, beside a root; to be called when they have changed. */
void ept_space_measure(struct ept_space *space);

static inline void ept_count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

#endif
