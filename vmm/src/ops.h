/* SPDX-License-Identifier: MIT */
/*
 * What an operator does to guests and to their memory file while they run: from any thread but a
 * guest's own, with the exception of a watcher. When one of these returns true, no vCPU can use any more what it has
 * taken away; when it returns false, @error says why, and guests' memory is as it was unless the host
 * failed.
 */
#ifndef VMM_OPS_H
#define VMM_OPS_H

#include "fleet.h"

/* Page @number of the fleet's memory file. */
static inline struct file_page fleet_page(const struct fleet *fleet, uint64_t number)
{
	return (struct file_page){ .file = (uint32_t)fleet->file_number, .page = number };
}

/* ---- one guest's memory ---- */

/* Takes [start, start + bytes) away. A guest that touches it later is ended. */
bool fleet_unmap(struct fleet *fleet, struct guest *guest, struct gpa start, uint64_t bytes,
		 struct error *error);

/* Gives it other rights; there must be no hole in it. */
bool fleet_protect(struct fleet *fleet, struct guest *guest, struct gpa start, uint64_t bytes,
		   unsigned rights, struct error *error);

/* Moves it, with what the guest wrote there, to where the guest has no memory. */
bool fleet_move(struct fleet *fleet, struct guest *guest, struct gpa from, uint64_t bytes,
		struct gpa to, struct error *error);

/* Shows @count pages of the memory file from @first on, where the guest has no memory. */
bool fleet_map_file(struct fleet *fleet, struct guest *guest, struct gpa start,
		    struct file_page first, uint64_t count, unsigned rights, struct error *error);

/*
 * Gives the guest the memory back that its parent has: the template, or its last snapshot. Its registers
 * stay as they are.
 */
bool fleet_reset(struct fleet *fleet, struct guest *guest, struct error *error);

/*
 * Freezes what the guest's memory is at this moment as @frozen, the parent of the guest from now on, and
 * of those that are launched after fleet_launch_from(). It is the fleet's until fleet_drop_snapshot().
 */
bool fleet_snapshot(struct fleet *fleet, struct guest *guest, struct ept_space **frozen,
		    struct error *error);

/* Its memory stays for as long as guests have it for a parent. */
void fleet_drop_snapshot(struct fleet *fleet, struct ept_space *frozen);

/*
 * Guests of its sharing domain that are launched from now on have the memory of @frozen; all that of the
 * template where it is NULL.
 * For the thread that launches guests.
 */
void fleet_launch_from(struct fleet *fleet, struct ept_space *frozen);

/* ---- pages of the memory file, for all guests at once ---- */

/*
 * Takes @count pages from all tables and gives the memory behind them back, as far as the host can have it:
 * what is in a file on a disk can be read again. A guest that comes back to a page faults it in.
 */
bool fleet_reclaim(struct fleet *fleet, struct file_page first, uint64_t count,
		   struct error *error);

/* Moves a page to page @spare of the fleet's spare memory, which must be free; and back home. */
bool fleet_move_page(struct fleet *fleet, struct file_page page, uint64_t spare,
		     struct error *error);
bool fleet_move_page_home(struct fleet *fleet, struct file_page page, struct error *error);

/*
 * Sets bit i of @accessed if some guest has accessed page @first + i since the last harvest. Every page counts as
 * accessed when its table entry is made.
 */
bool fleet_harvest(struct fleet *fleet, struct file_page first, uint64_t count,
		   uint64_t *accessed, struct error *error);

/* Who is told of writes to watched pages; to be set before the first page is watched. */
void fleet_set_watcher(struct fleet *fleet, fleet_watcher *watcher, void *context);

/*
 * From now on nobody writes to the pages without the watcher having been told before (F29). It is told on the
 * thread that is about to write, and may unwatch the page, which lets the write happen; otherwise the
 * guest is ended, or fleet_write_file() fails.
 */
bool fleet_watch(struct fleet *fleet, struct file_page first, uint64_t count,
		 struct error *error);
void fleet_unwatch(struct fleet *fleet, struct file_page first, uint64_t count);

/* Tells the watcher; true if the page is not watched any more. */
bool fleet_tell_watcher(struct fleet *fleet, const struct fleet_write *write);

/* Writes @bytes bytes to the memory file at @offset, which must be writable, page by page. */
bool fleet_write_file(struct fleet *fleet, uint64_t offset, const void *from, uint64_t bytes,
		      struct error *error);

#endif
