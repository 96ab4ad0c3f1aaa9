// SPDX-License-Identifier: MIT
/*
 * Memory files: where their pages lie, and which of them are watched.
 *
 * A page lies in its file's window, at its own offset, unless it was moved: then it lies in a page of a
 * spare file. Both directions are kept in arrays for each 2 MiB that has such pages, and are never
 * freed before the engine is, so they are read without a lock.
 */
#include "ept_internal.h"

#include <stdlib.h>

/* What is unusual about 2 MiB of a file. */
struct ept_file_chunk {
	/*
	 * Where a page of a file lies, or whose page lies in one of a spare file, in both cases plus 1;
	 * 0: nowhere else, or nobody's.
	 */
	_Atomic uint64_t place[EPT_ENTRIES];
	_Atomic uint64_t watched[EPT_ENTRIES / 64];
	_Atomic uint32_t special; /* pages that lie elsewhere, and pages that are watched */
};

/* A file's number and its page as one word, and back. */
#define PLACE_PAGE_BITS 40

static uint64_t place_of(struct file_page page)
{
	return ((uint64_t)page.file << PLACE_PAGE_BITS | page.page) + 1;
}

static struct file_page page_of(uint64_t place)
{
	return (struct file_page){
		.file = (uint32_t)((place - 1) >> PLACE_PAGE_BITS),
		.page = (place - 1) & ((UINT64_C(1) << PLACE_PAGE_BITS) - 1),
	};
}

static struct ept_file_chunk *chunk_of(const struct ept *ept, struct file_page page)
{
	const struct ept_file_state *state = &ept->file_states[page.file];

	if (!atomic_load_explicit(&state->special, memory_order_acquire))
		return NULL;
	return atomic_load_explicit(&state->chunks[page.page / EPT_ENTRIES], memory_order_acquire);
}

/* The same, made if there is none; NULL without memory. The caller holds files_lock. */
static struct ept_file_chunk *chunk_make(struct ept *ept, struct file_page page)
{
	struct ept_file_state *state = &ept->file_states[page.file];
	uint64_t chunks = (state->capacity + EPT_ENTRIES - 1) / EPT_ENTRIES;
	struct ept_file_chunk *chunk;

	if (!state->chunks)
		state->chunks = calloc(chunks, sizeof(*state->chunks));
	if (!state->chunks)
		return NULL;
	chunk = atomic_load(&state->chunks[page.page / EPT_ENTRIES]);
	if (chunk)
		return chunk;
	chunk = calloc(1, sizeof(*chunk));
	if (!chunk)
		return NULL;
	atomic_store_explicit(&state->chunks[page.page / EPT_ENTRIES], chunk,
			      memory_order_release);
	atomic_store_explicit(&state->special, true, memory_order_release);
	return chunk;
}

void ept_files_free(struct ept *ept)
{
	unsigned count = atomic_load(&ept->file_count);

	for (unsigned file = 0; file < count; file++) {
		struct ept_file_state *state = &ept->file_states[file];
		uint64_t chunks = (state->capacity + EPT_ENTRIES - 1) / EPT_ENTRIES;

		for (uint64_t at = 0; state->chunks && at < chunks; at++)
			free(atomic_load(&state->chunks[at]));
		free(state->chunks);
	}
	pthread_mutex_destroy(&ept->files_lock);
}

static uint64_t capacity_of(const struct ept_file *file)
{
	return file->capacity > file->pages ? file->capacity : file->pages;
}

/* Whether a file's window lies where entries can point, and beside those of all others. */
static bool window_valid(const struct ept *ept, const struct ept_file *file)
{
	uint64_t bytes = capacity_of(file) << EPT_PAGE_SHIFT;
	unsigned count = atomic_load(&ept->file_count);

	if (file->window.v % EPT_PAGE_BYTES || file->window.v >= EPT_FPA_END ||
	    capacity_of(file) > (EPT_FPA_END - file->window.v) >> EPT_PAGE_SHIFT)
		return false;
	for (unsigned other = 0; other < count; other++) {
		uint64_t start = ept->files[other].window.v;
		uint64_t end = start + (ept->file_states[other].capacity << EPT_PAGE_SHIFT);

		if (file->window.v < end && start < file->window.v + bytes)
			return false;
	}
	return true;
}

int ept_file_add(struct ept *ept, const struct ept_file *file)
{
	unsigned number;

	pthread_mutex_lock(&ept->files_lock);
	number = atomic_load(&ept->file_count);
	if (!window_valid(ept, file))
		number = EPT_FILES;
	if (number < EPT_FILES) {
		ept->files[number] = *file;
		ept->file_states[number].capacity = capacity_of(file);
		atomic_store(&ept->file_states[number].pages, file->pages);
		atomic_store(&ept->file_count, number + 1);
	}
	pthread_mutex_unlock(&ept->files_lock);
	return number < EPT_FILES ? (int)number : -1;
}

enum ept_status ept_file_grow(struct ept *ept, uint32_t file, uint64_t pages)
{
	enum ept_status status = EPT_INVALID;

	if (file >= atomic_load(&ept->file_count))
		return EPT_INVALID;
	pthread_mutex_lock(&ept->files_lock);
	if (pages >= atomic_load(&ept->file_states[file].pages) &&
	    pages <= ept->file_states[file].capacity) {
		atomic_store(&ept->file_states[file].pages, pages);
		status = EPT_OK;
	}
	pthread_mutex_unlock(&ept->files_lock);
	return status;
}

uint64_t ept_file_pages(const struct ept *ept, uint32_t file)
{
	return atomic_load(&ept->file_states[file].pages);
}

static uint64_t place(const struct ept *ept, struct file_page page)
{
	const struct ept_file_chunk *chunk = chunk_of(ept, page);

	return chunk ? atomic_load_explicit(&chunk->place[page.page % EPT_ENTRIES],
					    memory_order_acquire) :
		       0;
}

static struct fpa window_at(const struct ept *ept, struct file_page page)
{
	return (struct fpa){ ept->files[page.file].window.v + (page.page << EPT_PAGE_SHIFT) };
}

struct fpa ept_file_page_at(const struct ept *ept, struct file_page page)
{
	uint64_t moved = place(ept, page);

	return window_at(ept, moved ? page_of(moved) : page);
}

bool ept_file_page_of(const struct ept *ept, struct fpa at, struct file_page *page)
{
	unsigned count = atomic_load(&ept->file_count);
	uint64_t owner;

	for (unsigned file = 0; file < count; file++) {
		uint64_t offset = at.v - ept->files[file].window.v;

		if (offset >> EPT_PAGE_SHIFT >= ept->file_states[file].capacity)
			continue;
		*page = (struct file_page){ file, offset >> EPT_PAGE_SHIFT };
		if (!ept->files[file].spare)
			return true;
		owner = place(ept, *page);
		if (owner)
			*page = page_of(owner);
		return owner;
	}
	return false;
}

bool ept_file_place_free(const struct ept *ept, struct file_page spare)
{
	return ept->files[spare.file].spare && spare.page < ept_file_pages(ept, spare.file) &&
	       !place(ept, spare);
}

bool ept_file_page_moved(const struct ept *ept, struct file_page page, struct file_page *to)
{
	uint64_t moved = place(ept, page);

	if (moved)
		*to = page_of(moved);
	return moved;
}

bool ept_file_place_prepare(struct ept *ept, struct file_page page, struct file_page to)
{
	return chunk_make(ept, page) && chunk_make(ept, to);
}

static void place_set(struct ept *ept, struct file_page page, uint64_t value)
{
	struct ept_file_chunk *chunk = chunk_of(ept, page);
	uint64_t before = atomic_exchange(&chunk->place[page.page % EPT_ENTRIES], value);

	if (!before && value)
		atomic_fetch_add(&chunk->special, 1);
	else if (before && !value)
		atomic_fetch_sub(&chunk->special, 1);
}

void ept_file_place_set(struct ept *ept, struct file_page page, struct file_page to)
{
	bool home = to.file == page.file && to.page == page.page;

	/* Who finds the new place must find out whose page lies there. */
	if (!home)
		place_set(ept, to, place_of(page));
	place_set(ept, page, home ? 0 : place_of(to));
}

void ept_file_place_release(struct ept *ept, struct file_page spare)
{
	place_set(ept, spare, 0);
}

/* ---- watching (F29) ---- */

bool ept_file_watched(const struct ept *ept, struct file_page page)
{
	const struct ept_file_chunk *chunk = chunk_of(ept, page);
	unsigned bit = page.page % EPT_ENTRIES;

	return chunk && (atomic_load(&chunk->watched[bit / 64]) >> bit % 64 & 1);
}

bool ept_file_watch_prepare(struct ept *ept, struct file_page first, uint64_t count)
{
	for (uint64_t page = first.page & ~(uint64_t)(EPT_ENTRIES - 1); page < first.page + count;
	     page += EPT_ENTRIES)
		if (!chunk_make(ept, (struct file_page){ first.file, page }))
			return false;
	return true;
}

void ept_file_watch_set(struct ept *ept, struct file_page page, bool watched)
{
	struct ept_file_chunk *chunk = chunk_of(ept, page);
	unsigned bit = page.page % EPT_ENTRIES;
	uint64_t mask = UINT64_C(1) << bit % 64;

	if (watched && !(atomic_fetch_or(&chunk->watched[bit / 64], mask) & mask))
		atomic_fetch_add(&chunk->special, 1);
	else if (!watched && chunk && (atomic_fetch_and(&chunk->watched[bit / 64], ~mask) & mask))
		atomic_fetch_sub(&chunk->special, 1);
}

bool ept_file_is_plain(const struct ept *ept, struct file_page page)
{
	const struct ept_file_chunk *chunk = chunk_of(ept, page);

	return !chunk || !atomic_load(&chunk->special);
}

enum ept_status ept_file_write_begin(struct ept *ept, struct file_page page)
{
	pthread_mutex_lock(&ept->files_lock);
	if (!ept_file_watched(ept, page))
		return EPT_OK;
	pthread_mutex_unlock(&ept->files_lock);
	return EPT_WATCHED;
}

void ept_file_write_end(struct ept *ept)
{
	pthread_mutex_unlock(&ept->files_lock);
}

void ept_file_unwatch(struct ept *ept, struct file_page first, uint64_t count)
{
	pthread_mutex_lock(&ept->files_lock);
	for (uint64_t page = first.page; page < first.page + count; page++)
		ept_file_watch_set(ept, (struct file_page){ first.file, page }, false);
	pthread_mutex_unlock(&ept->files_lock);
}
