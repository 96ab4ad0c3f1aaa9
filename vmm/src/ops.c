// SPDX-License-Identifier: MIT
/*
 * Operations on guests that run. Each asks the engine for a change of its own and has it done by the
 * service vCPU's gate; fleet_commit() then takes the guest's vCPU out of it, or pages out of KVM, where
 * that is needed.
 *
 * Operations go on beside each other and are held off while the fleet is paused (fleet.operations).
 * Where one gives memory another use, it also excludes those that read guest memory for a guest's
 * call, who found out where it lies before (fleet.memory_lock).
 */
#include "ops.h"

#include <string.h>

/* Whether it is worth to ask the engine once more. */
static bool again(struct fleet *fleet, enum ept_status status)
{
	return (status == EPT_NO_TABLE || status == EPT_NO_PAGE) && fleet_scrub(fleet);
}

/* Waits while the fleet is paused. Whether the operation gives memory another use is @memory. */
static void begin(struct fleet *fleet, bool memory)
{
	pthread_rwlock_rdlock(&fleet->operations);
	if (memory)
		pthread_rwlock_wrlock(&fleet->memory_lock);
}

static void end(struct fleet *fleet, bool memory)
{
	if (memory)
		pthread_rwlock_unlock(&fleet->memory_lock);
	pthread_rwlock_unlock(&fleet->operations);
}

/* Does what the engine has decided, if it has. */
static bool finish(struct fleet *fleet, struct ept_change *change, enum ept_status status,
		   const char *what, struct error *error)
{
	bool done;

	if (status == EPT_OK)
		done = fleet_commit(fleet, NULL, change, error);
	else
		done = error_set(error, status == EPT_NO_MEMORY ? EXIT_FAILED : EXIT_INPUT,
				 "cannot %s: %s", what, ept_status_text(status));
	ept_change_free(change);
	return done;
}

/* ---- one guest's memory ---- */

bool fleet_unmap(struct fleet *fleet, struct guest *guest, struct gpa start, uint64_t bytes,
		 struct error *error)
{
	struct ept_change change = { 0 };
	enum ept_status status;
	bool done;

	begin(fleet, true);
	do
		status = ept_space_unmap(guest->space, start, bytes, &change);
	while (again(fleet, status));
	done = finish(fleet, &change, status, "unmap a guest's memory", error);
	end(fleet, true);
	return done;
}

bool fleet_protect(struct fleet *fleet, struct guest *guest, struct gpa start, uint64_t bytes,
		   unsigned rights, struct error *error)
{
	struct ept_change change = { 0 };
	enum ept_status status;
	bool done;

	begin(fleet, false);
	do
		status = ept_space_protect(guest->space, start, bytes, rights, &change);
	while (again(fleet, status));
	done = finish(fleet, &change, status, "protect a guest's memory", error);
	end(fleet, false);
	return done;
}

/* The engine maps what the format can; the gate, or the guest's own tables, may reach less. */
static bool check_range(const struct fleet *fleet, struct gpa start, uint64_t bytes,
			struct error *error)
{
	uint64_t end = gate_gpa_end(&fleet->gate);

	if (start.v < end && bytes <= end - start.v)
		return true;
	return error_set(error, EXIT_INPUT,
			 "guests of engine %s have no memory from %#llx on: use a lower address",
			 engine_name(fleet->config.engine), (unsigned long long)end);
}

bool fleet_move(struct fleet *fleet, struct guest *guest, struct gpa from, uint64_t bytes,
		struct gpa to, struct error *error)
{
	struct ept_change change = { 0 };
	enum ept_status status;
	bool done;

	if (!check_range(fleet, to, bytes, error))
		return false;
	begin(fleet, false);
	do
		status = ept_space_move(guest->space, from, bytes, to, &change);
	while (again(fleet, status));
	done = finish(fleet, &change, status, "move a guest's memory", error);
	end(fleet, false);
	return done;
}

bool fleet_map_file(struct fleet *fleet, struct guest *guest, struct gpa start,
		    struct file_page first, uint64_t count, unsigned rights, struct error *error)
{
	struct ept_region region = fleet_file_region(fleet);
	struct ept_change change = { 0 };
	enum ept_status status;
	bool done;

	region.start = start;
	region.bytes = count * EPT_PAGE_BYTES;
	region.first = first;
	region.rights = rights;
	if (!check_range(fleet, start, region.bytes, error))
		return false;
	begin(fleet, false);
	do
		status = ept_space_map(guest->space, &region, &change);
	while (again(fleet, status));
	done = finish(fleet, &change, status, "map the memory file", error);
	end(fleet, false);
	return done;
}

bool fleet_reset(struct fleet *fleet, struct guest *guest, struct error *error)
{
	struct ept_change change = { 0 };
	enum ept_status status;
	bool done;

	begin(fleet, true);
	do
		status = ept_space_reset(guest->space, &change);
	while (again(fleet, status));
	done = finish(fleet, &change, status, "reset a guest", error);
	end(fleet, true);
	return done;
}

/* Where @space stands among the snapshots, or where one can; NULL if nowhere. Under the fleet's lock. */
static struct ept_space **snapshot_slot(struct fleet *fleet, const struct ept_space *space)
{
	for (unsigned at = 0; at < FLEET_SNAPSHOTS; at++)
		if (fleet->snapshots[at] == space)
			return &fleet->snapshots[at];
	return NULL;
}

/* The fleet ends snapshots that nobody has dropped. */
static bool keep_snapshot(struct fleet *fleet, struct ept_space *frozen, struct error *error)
{
	struct ept_space **slot;

	pthread_mutex_lock(&fleet->lock);
	slot = snapshot_slot(fleet, NULL);
	if (slot)
		*slot = frozen;
	pthread_mutex_unlock(&fleet->lock);
	if (slot)
		return true;
	ept_space_destroy(frozen);
	return error_set(error, EXIT_INPUT,
			 "a fleet has at most %d snapshots at a time: drop one", FLEET_SNAPSHOTS);
}

bool fleet_snapshot(struct fleet *fleet, struct guest *guest, struct ept_space **frozen,
		    struct error *error)
{
	struct ept_change change = { 0 };
	enum ept_status status;
	bool done;

	if (!fleet->config.sharing)
		return error_set(error, EXIT_INPUT,
				 "a snapshot shares its guest's tables, and sharing is off");
	begin(fleet, false);
	do
		status = ept_space_snapshot(guest->space, frozen, &change);
	while (again(fleet, status));
	done = finish(fleet, &change, status, "freeze a guest's memory", error) &&
	       keep_snapshot(fleet, *frozen, error);
	end(fleet, false);
	return done;
}

void fleet_launch_from(struct fleet *fleet, struct ept_space *frozen)
{
	fleet->launch_from = frozen;
}

void fleet_drop_snapshot(struct fleet *fleet, struct ept_space *frozen)
{
	begin(fleet, false);
	pthread_mutex_lock(&fleet->lock);
	*snapshot_slot(fleet, frozen) = NULL;
	pthread_mutex_unlock(&fleet->lock);
	if (fleet->launch_from == frozen)
		fleet_launch_from(fleet, NULL);
	ept_space_destroy(frozen);
	end(fleet, false);
}

/* ---- pages of the memory file ---- */

bool fleet_reclaim(struct fleet *fleet, struct file_page first, uint64_t count,
		   struct error *error)
{
	struct ept_change change = { 0 };
	bool done;

	begin(fleet, false);
	done = finish(fleet, &change, ept_file_reclaim(fleet->ept, first, count, &change),
		      "reclaim pages", error);
	if (done)
		memfile_give_back(fleet->config.file, first.page, count);
	end(fleet, false);
	return done;
}

/* What is in the page's old place is of no use any more, unless that is its own in the file. */
static bool move_page(struct fleet *fleet, struct file_page page, struct file_page to,
		      struct error *error)
{
	struct ept_change change = { 0 };
	enum ept_status status;
	struct fpa left = { 0 };
	bool done;

	begin(fleet, true);
	status = ept_file_move(fleet->ept, page, to, &change);
	if (status == EPT_OK)
		left = change.sweep.from;
	done = finish(fleet, &change, status, "move a page", error);
	if (done && memory_is_spare(&fleet->memory, left))
		memory_discard(&fleet->memory, left, EPT_PAGE_BYTES);
	else if (done)
		memfile_give_back(fleet->config.file, page.page, 1);
	end(fleet, true);
	return done;
}

bool fleet_move_page(struct fleet *fleet, struct file_page page, uint64_t spare,
		     struct error *error)
{
	struct file_page to = { .file = (uint32_t)fleet->spare_number, .page = spare };

	if (!fleet->config.spare_pages)
		return error_set(error, EXIT_INPUT, "the fleet has no spare memory");
	return move_page(fleet, page, to, error);
}

bool fleet_move_page_home(struct fleet *fleet, struct file_page page, struct error *error)
{
	return move_page(fleet, page, page, error);
}

/*
 * EPT's accessed and dirty bits stay switched off: with them on, a processor counts its walks of a guest's own tables as
 * writes to these, and every guest would soon have copies of the tables that it brought along.
 */
bool fleet_harvest(struct fleet *fleet, struct file_page first, uint64_t count,
		   uint64_t *accessed, struct error *error)
{
	struct ept_change change = { 0 };
	bool done;

	if (fleet->config.engine == ENGINE_VMX)
		return error_set(error, EXIT_HOST,
				 "engine vmx does not note which pages guests access: EPT's accessed bits would make walks of guests' tables writes");
	begin(fleet, false);
	done = finish(fleet, &change, ept_file_harvest(fleet->ept, first, count, accessed, &change),
		      "ask which pages were accessed", error);
	end(fleet, false);
	return done;
}

/* ---- watching ---- */

void fleet_set_watcher(struct fleet *fleet, fleet_watcher *watcher, void *context)
{
	fleet->watcher = watcher;
	fleet->watcher_context = context;
}

bool fleet_watch(struct fleet *fleet, struct file_page first, uint64_t count,
		 struct error *error)
{
	struct ept_change change = { 0 };
	bool done;

	begin(fleet, false);
	done = finish(fleet, &change, ept_file_watch(fleet->ept, first, count, &change),
		      "watch pages", error);
	end(fleet, false);
	return done;
}

/* It changes no table. A watcher calls it within an operation, for whose end a pause may be waiting. */
void fleet_unwatch(struct fleet *fleet, struct file_page first, uint64_t count)
{
	ept_file_unwatch(fleet->ept, first, count);
}

bool fleet_tell_watcher(struct fleet *fleet, const struct fleet_write *write)
{
	if (fleet->watcher)
		fleet->watcher(fleet->watcher_context, write);
	return !ept_file_watched(fleet->ept, write->page);
}

/* Up to the end of one page, of which the watcher is told first. */
static bool write_page(struct fleet *fleet, uint64_t offset, const void *from, uint64_t bytes,
		       struct error *error)
{
	const struct memfile *file = fleet->config.file;
	struct fleet_write write = { .page = fleet_page(fleet, offset / EPT_PAGE_BYTES) };
	bool written;

	while (ept_file_write_begin(fleet->ept, write.page) == EPT_WATCHED)
		if (!fleet_tell_watcher(fleet, &write))
			return error_set(error, EXIT_INPUT, "page %llu of %s is watched",
					 (unsigned long long)write.page.page, file->name);
	written = memfile_write(file, offset, from, bytes);
	ept_file_write_end(fleet->ept);
	return written || error_set(error, EXIT_INPUT, "cannot write to %s", file->name);
}

bool fleet_write_file(struct fleet *fleet, uint64_t offset, const void *from, uint64_t bytes,
		      struct error *error)
{
	const struct memfile *file = fleet->config.file;
	const unsigned char *at = from;

	if (!file->writable)
		return error_set(error, EXIT_INPUT, "%s was not opened for writing", file->name);
	if (offset > file->bytes || bytes > file->bytes - offset)
		return error_set(error, EXIT_INPUT, "%s has %llu bytes", file->name,
				 (unsigned long long)file->bytes);
	while (bytes) {
		uint64_t part = EPT_PAGE_BYTES - offset % EPT_PAGE_BYTES;

		if (part > bytes)
			part = bytes;
		if (!write_page(fleet, offset, at, part, error))
			return false;
		offset += part;
		at += part;
		bytes -= part;
	}
	return true;
}
