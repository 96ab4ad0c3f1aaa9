// SPDX-License-Identifier: MIT
#include "memory.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define GIB (UINT64_C(1) << 30)

static bool check_addresses(const struct memory *memory, struct fpa at, uint64_t bytes,
			    struct error *error)
{
	if (at.v + bytes <= UINT64_C(1) << memory->physical_bits)
		return true;
	return error_set(error, EXIT_HOST,
			 "the fleet needs %llu GiB of physical addresses, this KVM offers %u bits: use fewer guests or less memory",
			 (unsigned long long)((at.v + bytes) / GIB), memory->physical_bits);
}

static bool add_slot(struct memory *memory, struct fpa at, uint64_t bytes, void *mapping,
		     bool writable, struct error *error)
{
	struct kvm_userspace_memory_region region = {
		.slot = memory->slots,
		.flags = writable ? 0 : KVM_MEM_READONLY,
		.guest_phys_addr = at.v,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)mapping,
	};

	if (!check_addresses(memory, at, bytes, error))
		return false;
	if (ioctl(memory->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return error_set(error, EXIT_FAILED, "KVM refused a memory slot of %llu bytes: %s",
				 (unsigned long long)bytes, strerror(errno));
	memory->slots++;
	return true;
}

static bool area_create(struct memory *memory, struct memory_area *area, const char *name,
			struct fpa at, uint64_t pages, bool writable, struct error *error)
{
	*area = (struct memory_area){ .at = at, .bytes = pages * EPT_PAGE_BYTES, .fd = -1 };
	area->fd = memfd_create(name, MFD_CLOEXEC);
	if (area->fd < 0 || ftruncate(area->fd, (off_t)area->bytes) < 0)
		return error_set(error, EXIT_FAILED, "cannot make memory for %s: %s", name,
				 strerror(errno));
	area->mapping = mmap(NULL, area->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, area->fd, 0);
	if (area->mapping == MAP_FAILED) {
		area->mapping = NULL;
		return error_set(error, EXIT_FAILED, "cannot map %llu bytes for %s: %s",
				 (unsigned long long)area->bytes, name, strerror(errno));
	}
	return add_slot(memory, at, area->bytes, area->mapping, writable, error);
}

static void area_destroy(struct memory_area *area)
{
	if (area->mapping)
		munmap(area->mapping, area->bytes);
	if (area->fd >= 0)
		close(area->fd);
}

static struct fpa align_up(uint64_t at, uint64_t to)
{
	return (struct fpa){ (at + to - 1) & ~(to - 1) };
}

bool memory_create(struct memory *memory, const struct host *host, int vm,
		   uint64_t gate_pages, uint64_t table_pages, uint64_t private_pages,
		   struct error *error)
{
	*memory = (struct memory){
		.vm = vm,
		.physical_bits = host->physical_bits,
		.gate.fd = -1,
		.tables.fd = -1,
		.pages.fd = -1,
		.spare.fd = -1,
	};
	if (!area_create(memory, &memory->gate, "s2vm gate", (struct fpa){ 0 }, gate_pages, true,
			 error))
		return false;
	/* The gate's window maps gate and tables by 2 MiB pages. */
	if (!area_create(memory, &memory->tables, "s2vm tables",
			 align_up(memory->gate.bytes, UINT64_C(2) << 20), table_pages, true,
			 error))
		return false;
	if (!area_create(memory, &memory->pages, "s2vm private pages",
			 align_up(memory->tables.at.v + memory->tables.bytes, GIB), private_pages,
			 true, error))
		return false;
	memory->next_window = align_up(memory->pages.at.v + memory->pages.bytes, GIB);
	return true;
}

void memory_destroy(struct memory *memory)
{
	area_destroy(&memory->gate);
	area_destroy(&memory->tables);
	area_destroy(&memory->pages);
	area_destroy(&memory->spare);
}

bool memory_add_spare(struct memory *memory, uint64_t pages, struct error *error)
{
	struct fpa window = memory->next_window;

	if (!area_create(memory, &memory->spare, "s2vm spare pages", window, pages, false, error))
		return false;
	memory->next_window = align_up(window.v + memory->spare.bytes, GIB);
	return true;
}

bool memory_add_hole(struct memory *memory, uint64_t pages, struct fpa *window,
		     struct error *error)
{
	*window = memory->next_window;
	if (!check_addresses(memory, *window, pages * EPT_PAGE_BYTES, error))
		return false;
	memory->hole = *window;
	memory->hole_bytes = pages * EPT_PAGE_BYTES;
	memory->next_window = align_up(window->v + memory->hole_bytes, GIB);
	return true;
}

bool memory_add_file(struct memory *memory, const struct memfile *file, struct fpa *window,
		     struct error *error)
{
	if (memory->file_count == MEMORY_FILES)
		return error_set(error, EXIT_INPUT, "a fleet has at most %d memory files",
				 MEMORY_FILES);
	*window = memory->next_window;
	if (!add_slot(memory, *window, file->pages * EPT_PAGE_BYTES, file->mapping, file->writable,
		      error))
		return false;
	memory->files[memory->file_count] = file;
	memory->windows[memory->file_count++] = *window;
	memory->next_window = align_up(window->v + file->pages * EPT_PAGE_BYTES, GIB);
	return true;
}

static bool area_has(const struct memory_area *area, struct fpa at)
{
	return at.v - area->at.v < area->bytes;
}

bool memory_is_spare(const struct memory *memory, struct fpa at)
{
	return area_has(&memory->spare, at);
}

void *memory_at(const struct memory *memory, struct fpa at)
{
	const struct memory_area *areas[] = { &memory->pages, &memory->tables, &memory->gate,
					      &memory->spare };

	for (unsigned i = 0; i < sizeof(areas) / sizeof(areas[0]); i++)
		if (area_has(areas[i], at))
			return areas[i]->mapping + (at.v - areas[i]->at.v);
	abort(); /* An address that nobody was given. */
}

/* A memory file is read by system call: a mapping of it would raise SIGBUS where it was cut off. */
static bool read_file(const struct memory *memory, struct fpa from, void *to, uint64_t bytes)
{
	unsigned char page[EPT_PAGE_BYTES];

	for (unsigned i = 0; i < memory->file_count; i++) {
		uint64_t offset = from.v - memory->windows[i].v;

		if (offset >= memory->files[i]->pages * EPT_PAGE_BYTES)
			continue;
		if (bytes == EPT_PAGE_BYTES)
			return memfile_read_page(memory->files[i], offset / EPT_PAGE_BYTES, to);
		if (!memfile_read_page(memory->files[i], offset / EPT_PAGE_BYTES, page))
			return false;
		memcpy(to, page + offset % EPT_PAGE_BYTES, bytes);
		return true;
	}
	return false;
}

bool memory_read(const struct memory *memory, struct fpa from, void *to, uint64_t bytes)
{
	assert(from.v % EPT_PAGE_BYTES + bytes <= EPT_PAGE_BYTES);
	if (from.v >= memory->pages.at.v + memory->pages.bytes && !memory_is_spare(memory, from))
		return read_file(memory, from, to, bytes);
	memcpy(to, memory_at(memory, from), bytes);
	return true;
}

/* As guests see it: whoever looks there meanwhile sees all of it or nothing. */
static void store(unsigned char *to, const void *from, uint64_t bytes)
{
	union {
		uint16_t two;
		uint32_t four;
		uint64_t eight;
	} value = { 0 };

	if ((bytes != 2 && bytes != 4 && bytes != 8) || (uintptr_t)to % bytes) {
		memcpy(to, from, bytes);
		return;
	}
	memcpy(&value, from, bytes);
	if (bytes == 2)
		__atomic_store_n((uint16_t *)to, value.two, __ATOMIC_RELEASE);
	else if (bytes == 4)
		__atomic_store_n((uint32_t *)to, value.four, __ATOMIC_RELEASE);
	else
		__atomic_store_n((uint64_t *)to, value.eight, __ATOMIC_RELEASE);
}

bool memory_write(const struct memory *memory, struct fpa to, const void *from, uint64_t bytes)
{
	assert(to.v % EPT_PAGE_BYTES + bytes <= EPT_PAGE_BYTES);
	for (unsigned i = 0; i < memory->file_count; i++) {
		const struct memfile *file = memory->files[i];
		uint64_t offset = to.v - memory->windows[i].v;

		if (offset >= file->pages * EPT_PAGE_BYTES)
			continue;
		if (file->writable)
			store((unsigned char *)file->mapping + offset, from, bytes);
		return file->writable;
	}
	if (!area_has(&memory->pages, to))
		return false;
	store(memory_at(memory, to), from, bytes);
	return true;
}

/* In whole pages of the file's own, which may be larger than ours: the host takes no less. */
static bool drop_file(const struct memfile *file, uint64_t offset, uint64_t bytes)
{
	uint64_t start = offset & ~(file->page_bytes - 1);
	uint64_t end = (offset + bytes + file->page_bytes - 1) & ~(file->page_bytes - 1);

	return madvise((char *)file->mapping + start, end - start, MADV_DONTNEED) == 0;
}

bool memory_drop(const struct memory *memory, struct fpa at, uint64_t bytes)
{
	for (unsigned i = 0; i < memory->file_count; i++) {
		uint64_t offset = at.v - memory->windows[i].v;

		if (offset < memory->files[i]->pages * EPT_PAGE_BYTES)
			return drop_file(memory->files[i], offset, bytes);
	}
	/* Where there is no memory, a translation leads here and nowhere else. */
	if (at.v - memory->hole.v < memory->hole_bytes)
		return true;
	return madvise(memory_at(memory, at), bytes, MADV_DONTNEED) == 0;
}

void memory_discard(const struct memory *memory, struct fpa at, uint64_t bytes)
{
	const struct memory_area *area =
		memory_is_spare(memory, at) ? &memory->spare : &memory->pages;

	assert(area_has(area, at));
	fallocate(area->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		  (off_t)(at.v - area->at.v), (off_t)bytes);
}
