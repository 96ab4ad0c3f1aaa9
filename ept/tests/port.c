// SPDX-License-Identifier: MIT
/* The world: memory, files, walks, and the commit of changes. */
#include "port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ept_internal.h"
#include "kvm_model.h"

#define TABLES_AT     UINT64_C(0x100000000)
#define PAGES_AT      UINT64_C(0x1000000000)
#define WINDOWS_AT    UINT64_C(0x20000000000)
#define WINDOW_STRIDE UINT64_C(0x20000000000)
#define GATE_AT	      UINT64_C(0x7000)

/* More than any world of one thread lives, under any sanitizer. */
#define WORLD_SECONDS 100

void port_fail(struct world *world, const char *text, ...)
{
	char line[512];
	va_list args;

	va_start(args, text);
	vsnprintf(line, sizeof(line), text, args);
	va_end(args);
	fprintf(stderr, "%s%s%s\n", line, world->describe ? "; " : "",
		world->describe ? world->describe() : "");
	if (world->exits)
		_exit(1);
	if (!world->kvm)
		abort();
	fail_msg("%s", line);
	abort();
}

struct world_options world_defaults(const void *format)
{
	return (struct world_options){
		.format = format,
		.tables = 512,
		.pages = 1024,
		.share_levels = EPT_SHARE_ALL,
	};
}

static struct page *pages_create(uint64_t count)
{
	struct page *pages = calloc(count ? count : 1, sizeof(*pages));

	for (uint64_t i = 0; i < count; i++)
		for (unsigned w = 0; w < PORT_WORDS; w++)
			pages[i].words[w] = PORT_POISON;
	return pages;
}

static struct ept *engine_create(struct world *world, const struct world_options *options)
{
	struct ept_config config = {
		.format = options->format,
		.memory =
			{
				.tables = world->tables,
				.tables_at = {TABLES_AT},
				.table_count = options->tables,
				.pages_at = {PAGES_AT},
				.page_count = options->pages,
			},
		.root_entry_index = PORT_GATE_INDEX,
		.share_levels = options->share_levels,
		.share_threshold = options->share_threshold,
		.share_from = options->share_from,
		.share_until = options->share_until,
	};

	config.root_entry = ept_entry_table(options->format, (struct fpa){GATE_AT}, RWX);
	return ept_create(&config);
}

struct world *world_create(const struct world_options *options)
{
	struct world *world = calloc(1, sizeof(*world));

	/* An engine that waits for itself should not use up the time of the whole run. */
	alarm(options->threads ? 0 : WORLD_SECONDS);
	world->format = options->format;
	world->table_count = options->tables;
	world->page_count = options->pages;
	world->tables = aligned_alloc(EPT_PAGE_BYTES, (size_t)options->tables * EPT_PAGE_BYTES);
	memset(world->tables, 0, (size_t)options->tables * EPT_PAGE_BYTES);
	world->pages = pages_create(options->pages);
	world->check_every = options->threads ? 0 : 1;
	pthread_rwlock_init(&world->running, NULL);
	pthread_mutex_init(&world->guests_lock, NULL);
	world->kvm = options->threads ? NULL : kvm_create(world);
	world->ept = engine_create(world, options);
	if (!world->ept)
		port_fail(world, "no engine");
	return world;
}

static void require_nothing_left(struct world *world)
{
	struct ept_usage usage;

	world_scrub_all(world);
	ept_usage(world->ept, &usage);
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		if (usage.tables[level])
			port_fail(world, "%u tables of level %u left",
				  (unsigned)usage.tables[level], level);
	if (usage.pages || usage.indexed || usage.tables_quarantined || usage.pages_quarantined)
		port_fail(world, "left: %u pages, %u indexed", (unsigned)usage.pages,
			  (unsigned)usage.indexed);
}

void world_destroy(struct world *world)
{
	for (unsigned i = 0; i < PORT_GUESTS; i++)
		if (world->guests[i])
			guest_destroy(world->guests[i]);
	require_nothing_left(world);
	ept_destroy(world->ept);
	kvm_destroy(world->kvm);
	for (unsigned i = 0; i < world->file_count; i++)
		free(world->files[i].pages);
	pthread_rwlock_destroy(&world->running);
	pthread_mutex_destroy(&world->guests_lock);
	free(world->pages);
	free(world->tables);
	free(world);
}

uint64_t world_stamp(uint32_t file, uint64_t page, unsigned word)
{
	return (((uint64_t)file + 1) << 56 | page << 8 | word) ^ UINT64_C(0x00a5a5a5a5a5a5a5);
}

struct fpa world_file_page(const struct world *world, uint32_t file, uint64_t page)
{
	return ept_file_page_at(world->ept, (struct file_page){file, page});
}

static uint32_t file_add(struct world *world, uint64_t pages, uint64_t capacity, bool writable,
			 bool spare)
{
	struct port_file *file = &world->files[world->file_count];
	uint32_t number = world->file_count++;

	file->ept = (struct ept_file){
		.window = {WINDOWS_AT + number * WINDOW_STRIDE},
		.pages = pages,
		.capacity = capacity,
		.writable = writable,
		.spare = spare,
	};
	file->pages = writable || spare ? pages_create(capacity) : NULL;
	for (uint64_t i = 0; writable && i < capacity; i++)
		for (unsigned w = 0; w < PORT_WORDS; w++)
			file->pages[i].words[w] = world_stamp(number, i, w);
	if (ept_file_add(world->ept, &file->ept) != (int)number)
		port_fail(world, "a file's number is not the next one");
	return number;
}

uint32_t world_file(struct world *world, uint64_t pages, bool writable)
{
	return file_add(world, pages, pages, writable, false);
}

uint32_t world_growing_file(struct world *world, uint64_t pages, uint64_t capacity, bool writable)
{
	return file_add(world, pages, capacity, writable, false);
}

enum ept_status world_grow(struct world *world, uint32_t file, uint64_t pages)
{
	enum ept_status status = ept_file_grow(world->ept, file, pages);

	if (status == EPT_OK)
		world->files[file].ept.pages = pages;
	return status;
}

uint32_t world_spare_file(struct world *world, uint64_t pages)
{
	return file_add(world, pages, pages, false, true);
}

enum ept_status world_reclaim(struct world *world, struct file_page first, uint64_t count,
			      struct tally *tally)
{
	struct ept_change change = {0};

	return world_run(world, &change, ept_file_reclaim(world->ept, first, count, &change),
			 tally);
}

enum ept_status world_watch(struct world *world, struct file_page first, uint64_t count,
			    struct tally *tally)
{
	struct ept_change change = {0};

	return world_run(world, &change, ept_file_watch(world->ept, first, count, &change), tally);
}

enum ept_status world_harvest(struct world *world, struct file_page first, uint64_t count,
			      uint64_t *accessed, struct tally *tally)
{
	struct ept_change change = {0};

	return world_run(world, &change,
			 ept_file_harvest(world->ept, first, count, accessed, &change), tally);
}

enum ept_status world_move_page(struct world *world, struct file_page page, struct file_page to,
				struct tally *tally)
{
	struct ept_change change = {0};

	return world_run(world, &change, ept_file_move(world->ept, page, to, &change), tally);
}

bool world_is_table(const struct world *world, struct fpa at)
{
	return at.v >= TABLES_AT &&
	       at.v - TABLES_AT < (uint64_t)world->table_count * EPT_PAGE_BYTES;
}

bool world_is_private(const struct world *world, struct fpa at)
{
	return at.v >= PAGES_AT && at.v - PAGES_AT < (uint64_t)world->page_count * EPT_PAGE_BYTES;
}

uint32_t world_table_number(const struct world *world, struct fpa at)
{
	(void)world;
	return (uint32_t)((at.v - TABLES_AT) / EPT_PAGE_BYTES);
}

static uint64_t *entry_at(const struct world *world, struct fpa entry)
{
	return &world->tables[(entry.v - TABLES_AT) / sizeof(uint64_t)];
}

/* Tables are read while other threads store to them: this load and that store are partners. */
uint64_t world_load(const struct world *world, struct fpa entry)
{
	return __atomic_load_n(entry_at(world, entry), __ATOMIC_ACQUIRE);
}

void world_store(struct world *world, struct fpa entry, uint64_t value)
{
	__atomic_store_n(entry_at(world, entry), value, __ATOMIC_RELEASE);
}

/* The page's words, or NULL for a page of a file that is not writable. */
static struct page *page_at(struct world *world, struct fpa at)
{
	uint64_t file = (at.v - WINDOWS_AT) / WINDOW_STRIDE;

	if (world_is_private(world, at))
		return &world->pages[(at.v - PAGES_AT) / EPT_PAGE_BYTES];
	if (at.v < WINDOWS_AT || file >= world->file_count ||
	    (at.v - WINDOWS_AT) % WINDOW_STRIDE / EPT_PAGE_BYTES >= world->files[file].ept.pages)
		port_fail(world, "no memory at %#llx", (unsigned long long)at.v);
	return world->files[file].pages
		       ? &world->files[file]
				  .pages[(at.v - WINDOWS_AT) % WINDOW_STRIDE / EPT_PAGE_BYTES]
		       : NULL;
}

uint64_t world_peek(struct world *world, struct fpa at, unsigned word)
{
	struct page *page = page_at(world, at);
	uint64_t offset = at.v - WINDOWS_AT;

	if (page)
		return __atomic_load_n(&page->words[word], __ATOMIC_RELAXED);
	return world_stamp((uint32_t)(offset / WINDOW_STRIDE),
			   offset % WINDOW_STRIDE / EPT_PAGE_BYTES, word);
}

static void world_poke(struct world *world, struct fpa at, unsigned word, uint64_t value)
{
	struct page *page = page_at(world, at);

	if (!page)
		port_fail(world, "S9: a write to read-only memory at %#llx",
			  (unsigned long long)at.v);
	__atomic_store_n(&page->words[word], value, __ATOMIC_RELAXED);
}

void world_set(struct world *world, struct fpa page, unsigned word, uint64_t value)
{
	world_poke(world, page, word, value);
}

struct fpa leaf_page(struct fpa target, unsigned level, struct gpa gpa)
{
	uint64_t offset = gpa.v & (ept_entry_span(level) - 1);

	return (struct fpa){target.v + (offset & ~(uint64_t)(EPT_PAGE_BYTES - 1))};
}

void world_walk(const struct world *world, struct fpa root, struct gpa gpa, struct walk *out)
{
	struct fpa table = root;

	*out = (struct walk){.rights = RWX};
	for (unsigned level = EPT_ROOT_LEVEL; level >= 1; level--) {
		uint64_t entry;

		if (!world_is_table(world, table))
			return;
		out->entries[level] = (struct fpa){table.v + ept_entry_index(gpa, level) * 8};
		entry = world_load(world, out->entries[level]);
		if (!ept_entry_present(entry))
			return;
		out->rights &= ept_entry_rights(world->format, entry);
		table = ept_entry_target(world->format, entry);
		out->level = level;
		if (ept_entry_is_leaf(world->format, level, entry))
			break;
	}
	out->page = leaf_page(table, out->level, gpa);
	out->complete = true;
}

static void report(void *context, const char *text)
{
	struct world *world = context;

	fprintf(stderr, "checker: %s%s%s\n", text, world->describe ? "; " : "",
		world->describe ? world->describe() : "");
}

void world_check(struct world *world)
{
	if (ept_check(world->ept, report, world))
		port_fail(world, "the checker found violations");
	if (world->kvm)
		kvm_check(world->kvm);
}

static void commit_copy(struct world *world, const struct ept_copy *copy)
{
	uint64_t file = (copy->to.v - WINDOWS_AT) / WINDOW_STRIDE;

	if (!world_is_private(world, copy->to) &&
	    (copy->to.v < WINDOWS_AT || file >= world->file_count || !world->files[file].ept.spare))
		port_fail(world, "a copy to %#llx", (unsigned long long)copy->to.v);
	for (unsigned w = 0; w < PORT_WORDS; w++)
		world_poke(world, copy->to, w, world_peek(world, copy->from, w));
}

/* What an edit at @edits[@at] replaces, if the edits before it were not there. */
static uint64_t before_change(struct world *world, const struct ept_edit *edits, size_t at)
{
	for (size_t i = 0; i < at; i++)
		if (edits[i].entry.v == edits[at].entry.v)
			return edits[i].old;
	return world_load(world, edits[at].entry);
}

/* What an edit says of the memory that it replaces must be so. */
static void commit_edit(struct world *world, const struct ept_edit *edits, size_t at)
{
	const struct ept_edit *edit = &edits[at];
	uint64_t found;

	if (!world_is_table(world, edit->entry) || edit->entry.v % sizeof(uint64_t))
		port_fail(world, "an edit at %#llx", (unsigned long long)edit->entry.v);
	found = before_change(world, edits, at);
	if (found != edit->old)
		port_fail(world, "an edit of %#llx expects %#llx, memory has %#llx",
			  (unsigned long long)edit->entry.v, (unsigned long long)edit->old,
			  (unsigned long long)found);
	if (edit->by == EPT_EDIT_PLAIN && found)
		port_fail(world, "a plain edit replaces a present entry");
	world_store(world, edit->entry, edit->value);
	if (world->kvm)
		kvm_stored(world->kvm, edit->entry, edit->by);
}

static struct guest *guest_of(struct world *world, const struct ept_space *space)
{
	struct guest *guest = NULL;

	pthread_mutex_lock(&world->guests_lock);
	for (unsigned i = 0; i < PORT_GUESTS; i++)
		if (world->guests[i] && world->guests[i]->space == space)
			guest = world->guests[i];
	pthread_mutex_unlock(&world->guests_lock);
	return guest;
}

/* All vCPUs of the space's guest pass the gate, and enter with the root of this moment. */
static void pass_gate(struct world *world, const struct ept_space *space)
{
	struct guest *guest = guest_of(world, space);

	if (!guest)
		port_fail(world, "an invalidation of a space that is no guest's");
	guest->root = ept_space_root(space);
	if (world->kvm)
		kvm_pass_gate(world->kvm, guest);
}

static void discard(struct world *world, struct fpa start, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += EPT_PAGE_BYTES) {
		struct fpa page = {start.v + at};

		if (!world_is_private(world, page))
			port_fail(world, "what is discarded is no private page");
		for (unsigned w = 0; w < PORT_WORDS; w++)
			world_poke(world, page, w, PORT_POISON);
	}
}

static void commit_invalidation(struct world *world, const struct ept_invalidation *what)
{
	if (what->kind == EPT_INVALIDATE_SPACE) {
		pass_gate(world, what->space);
		return;
	}
	if (!what->bytes || what->bytes % EPT_PAGE_BYTES || what->start.v % EPT_PAGE_BYTES)
		port_fail(world, "an invalidation of no whole pages");
	if (world->kvm)
		kvm_drop_pages(world->kvm, what->start, what->bytes);
	if (what->kind == EPT_INVALIDATE_DISCARD)
		discard(world, what->start, what->bytes);
}

static void commit_edits(struct world *world, const struct ept_change *change, struct tally *tally)
{
	for (size_t i = 0; i < change->edits.count; i++) {
		const struct ept_edit *edits = ept_change_edits(change);
		bool by_gate = edits[i].by == EPT_EDIT_GATE;

		tally->gate_edits += by_gate;
		tally->plain_edits += !by_gate;
		/* A gate's store takes effect for all vCPUs at once: none is within an access. */
		if (by_gate)
			pthread_rwlock_wrlock(&world->running);
		commit_edit(world, edits, i);
		if (by_gate)
			pthread_rwlock_unlock(&world->running);
	}
}

void world_commit(struct world *world, const struct ept_change *change, struct tally *tally)
{
	tally->steps++;
	if (change->has_copy) {
		tally->copies++;
		commit_copy(world, &change->copy);
	}
	commit_edits(world, change, tally);
	for (size_t i = 0; i < change->invalidations.count; i++) {
		const struct ept_invalidation *what = &ept_change_invalidations(change)[i];

		tally->invalidations++;
		tally->discards += what->kind == EPT_INVALIDATE_DISCARD;
		pthread_rwlock_wrlock(&world->running);
		commit_invalidation(world, what);
		pthread_rwlock_unlock(&world->running);
	}
}

enum ept_status world_run(struct world *world, struct ept_change *change, enum ept_status status,
			  struct tally *tally)
{
	*tally = (struct tally){0};
	if (status == EPT_OK) {
		do
			world_commit(world, change, tally);
		while ((status = ept_change_finish(change)) == EPT_MORE);
	} else if (!ept_change_is_empty(change) || change->invalidations.count ||
		   change->has_copy) {
		port_fail(world, "a failed operation left a change");
	}
	ept_change_free(change);
	if (world->check_every && world->operations++ % world->check_every == 0)
		world_check(world);
	return status;
}

enum ept_status world_scrub(struct world *world, unsigned limit)
{
	struct ept_change change = {0};
	struct tally tally;

	return world_run(world, &change, ept_scrub(world->ept, limit, &change), &tally);
}

void world_scrub_all(struct world *world)
{
	struct ept_usage usage;

	do {
		if (world_scrub(world, 4) != EPT_OK)
			port_fail(world, "scrubbing failed");
		ept_usage(world->ept, &usage);
	} while (usage.tables_quarantined || usage.pages_quarantined);
}

struct port_access {
	struct guest *guest;
	struct gpa gpa;
	unsigned access;
	uint64_t value;
};

static bool reach(struct port_access *access, struct fpa *page)
{
	struct world *world = access->guest->world;
	struct walk walk;

	if (world->kvm)
		return kvm_access(world->kvm, access->guest, access->gpa, access->access, page);
	world_walk(world, access->guest->root, access->gpa, &walk);
	*page = walk.page;
	return walk.complete && (walk.rights & access->access);
}

/* One attempt; no vCPU is stopped between the walk and the access. */
static bool attempt(struct port_access *access)
{
	struct world *world = access->guest->world;
	unsigned word = access->gpa.v >> 3 & 1;
	struct fpa page;
	bool reached;

	pthread_rwlock_rdlock(&world->running);
	reached = reach(access, &page);
	if (reached && access->access == EPT_WRITE)
		world_poke(world, page, word, access->value);
	else if (reached)
		access->value = world_peek(world, page, word);
	pthread_rwlock_unlock(&world->running);
	return reached;
}

static enum ept_status access_memory(struct port_access *access)
{
	struct world *world = access->guest->world;
	unsigned attempts = world->kvm ? 2 : 100000;

	while (attempts--) {
		enum ept_status status;

		if (attempt(access))
			return EPT_OK;
		status = guest_fault(access->guest, access->gpa.v, access->access);
		if (status != EPT_OK)
			return status;
	}
	if (attempt(access))
		return EPT_OK;
	port_fail(world, "a fault for access %u at %#llx did not help", access->access,
		  (unsigned long long)access->gpa.v);
}

enum ept_status guest_read(struct guest *guest, uint64_t gpa, uint64_t *value)
{
	struct port_access access = {guest, {gpa}, EPT_READ, 0};
	enum ept_status status = access_memory(&access);

	*value = access.value;
	return status;
}

enum ept_status guest_write(struct guest *guest, uint64_t gpa, uint64_t value)
{
	struct port_access access = {guest, {gpa}, EPT_WRITE, value};

	return access_memory(&access);
}

enum ept_status guest_exec(struct guest *guest, uint64_t gpa)
{
	struct port_access access = {guest, {gpa}, EPT_EXEC, 0};

	return access_memory(&access);
}
