/* SPDX-License-Identifier: MIT */
/*
 * The reverse map: from a page of a memory file to the entries that map it, and from a table to the
 * entries that point at it. It holds numbers only and knows neither formats nor KVM.
 *
 * Tables are numbered from 0 by the engine, entries from 0 to RMAP_ENTRIES - 1 within a table.
 *
 * Locking: every function takes the map's own lock, which is innermost: nothing is called while it
 * is held. A caller that acts on what a find returned must lock the table and look again, because
 * the answer is a copy.
 *
 * Memory: functions that add return false when memory ran out, and then have changed nothing.
 */
#ifndef RMAP_RMAP_H
#define RMAP_RMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RMAP_ENTRIES 512

/* A 4 KiB page of a memory file: the file's number in the engine and the page's index in it. */
struct file_page {
	uint32_t file;
	uint64_t page;
};

/* An entry: its table's number and its index in that table. */
struct rmap_entry {
	uint32_t table;
	uint16_t index;
};

struct rmap;

/* A reverse map for tables numbered below @tables, or NULL when memory ran out. */
struct rmap *rmap_create(uint32_t tables);
void rmap_destroy(struct rmap *map);

/*
 * Entries @at, @at + 1, … (@count of them, all in one table) map the file's pages @first,
 * @first + 1, …; none of these entries is known to the map before.
 */
bool rmap_page_add(struct rmap *map, struct file_page first, struct rmap_entry at, unsigned count);

/* The same entries no longer map those pages; entries that are not in the map are left out. */
void rmap_page_remove(struct rmap *map, struct file_page first, struct rmap_entry at,
		      unsigned count);

/* Table @to, of which the map knows no page, maps what table @from maps, entry by entry. */
bool rmap_page_copy(struct rmap *map, uint32_t from, uint32_t to);

/* Table @table maps no page any more. */
void rmap_page_clear(struct rmap *map, uint32_t table);

/*
 * Entries that map @page: writes up to @max of them to @out and returns how many there are in all.
 */
size_t rmap_page_find(struct rmap *map, struct file_page page, struct rmap_entry *out, size_t max);

/* Number of pages that @table maps, and whether its entry @at maps @page: for the checker. */
unsigned rmap_page_count(struct rmap *map, uint32_t table);
bool rmap_page_holds(struct rmap *map, struct file_page page, struct rmap_entry at);

/* Entry @parent points at table @child, and did not point at any table before. */
bool rmap_owner_add(struct rmap *map, uint32_t child, struct rmap_entry parent);

/* Entry @parent no longer points at a table. Returns false if the map knew of no such entry. */
bool rmap_owner_remove(struct rmap *map, struct rmap_entry parent);

/* Entry @parent, which the map knows, now points at table @child. Cannot fail. */
void rmap_owner_move(struct rmap *map, uint32_t child, struct rmap_entry parent);

/* Table @to, which points at no table, points at what table @from points at, entry by entry. */
bool rmap_owner_copy(struct rmap *map, uint32_t from, uint32_t to);

/* Table @table points at no table any more. */
void rmap_owner_clear(struct rmap *map, uint32_t table);

/* Entries that point at @child: as rmap_page_find(). */
size_t rmap_owner_find(struct rmap *map, uint32_t child, struct rmap_entry *out, size_t max);

/* Whether entry @parent points at @child: for the checker. */
bool rmap_owner_holds(struct rmap *map, uint32_t child, struct rmap_entry parent);

/* Number of bytes that the map occupies. */
size_t rmap_bytes(struct rmap *map);

#endif
