/* SPDX-License-Identifier: MIT */
/*
 * The test port: the engine over plain memory. It commits changes as the contract in ept/change.h
 * says and checks each step of it, runs guests' accesses through a model of KVM (kvm_model.h), and
 * runs the checker after each operation.
 *
 * A page's contents are two words: enough to see which page it is, what was written to it, and
 * whether a copy lost the word that was not written.
 */
#ifndef PORT_H
#define PORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "ept/check.h"
#include "ept/ept.h"

#define PORT_FILES  16
#define PORT_GUESTS 256
#define PORT_VCPUS  2
#define PORT_TLB    64
#define PORT_WORDS  2
#define PORT_POISON UINT64_C(0xdeaddeaddeaddead)

#define KIB4   UINT64_C(0x1000)
#define MIB2   UINT64_C(0x200000)
#define GIB1   UINT64_C(0x40000000)
#define GIB512 (GIB1 * 512)

#define RX  (EPT_READ | EPT_EXEC)
#define RW  (EPT_READ | EPT_WRITE)
#define RWX (EPT_READ | EPT_WRITE | EPT_EXEC)

/* An entry that every root has, pointing outside of everything. */
#define PORT_GATE_INDEX 509

struct page {
	uint64_t words[PORT_WORDS];
};

struct port_file {
	struct ept_file ept;
	struct page *pages; /* NULL for a file that is not writable: its words are computed */
};

/* A translation as a vCPU caches it, with the entries that the walk went through, by level. */
struct translation {
	bool valid;
	struct gpa gpa;
	struct fpa page;
	unsigned rights;
	struct fpa entries[EPT_ROOT_LEVEL + 1];
};

/* What the last operation asked for. */
struct tally {
	unsigned steps;
	unsigned gate_edits;
	unsigned plain_edits;
	unsigned copies;
	unsigned invalidations; /* of any kind */
	unsigned discards;	/* of these */
};

struct guest {
	struct world *world;
	struct ept_space *space;
	struct fpa root; /* what its vCPUs entered with; another one only after a passed gate */
	struct translation tlbs[PORT_VCPUS][PORT_TLB];
	unsigned vcpu; /* which of its vCPUs makes the next access */
	struct tally last;
};

struct world_options {
	const struct ept_format *format;
	uint32_t tables;
	uint32_t pages;
	unsigned share_levels;
	unsigned share_threshold;
	uint64_t share_from;
	uint64_t share_until;
	bool threads; /* several threads use the world: no model of KVM, no checks in between */
};

struct world {
	const struct ept_format *format;
	struct ept *ept;
	uint64_t *tables;
	uint32_t table_count;
	struct page *pages;
	uint32_t page_count;
	struct port_file files[PORT_FILES];
	unsigned file_count;
	struct guest *guests[PORT_GUESTS];
	struct kvm_model *kvm; /* NULL if several threads use the world */
	unsigned check_every;  /* operations between two runs of the checker; 0 for never */
	unsigned operations;
	bool exits; /* a failure ends the process at once, not a test */
	const char *(*describe)(void); /* what to print with a failure, or NULL */
	/* Read-locked while a guest accesses memory, write-locked while all vCPUs are stopped. */
	pthread_rwlock_t running;
	pthread_mutex_t guests_lock;
};

/* A walk of the tables in memory. */
struct walk {
	bool complete;
	unsigned rights;
	unsigned level; /* of the leaf entry */
	struct fpa page;
	struct fpa entries[EPT_ROOT_LEVEL + 1]; /* by level; 0 where the walk did not come */
};

/* Many tables and pages, all levels shared. */
struct world_options world_defaults(const void *format);
struct world *world_create(const struct world_options *options);
/* Ends the guests that are left, and requires that nothing is in use then. */
void world_destroy(struct world *world);

/* Ends the test, or in a world of threads the program, with a message. */
void port_fail(struct world *world, const char *text, ...)
	__attribute__((noreturn, format(printf, 2, 3)));

uint32_t world_file(struct world *world, uint64_t pages, bool writable);
/* The same, of a file that may grow to @capacity pages, and making it grow. */
uint32_t world_growing_file(struct world *world, uint64_t pages, uint64_t capacity, bool writable);
enum ept_status world_grow(struct world *world, uint32_t file, uint64_t pages);
/* A file that pages of others can be moved to. */
uint32_t world_spare_file(struct world *world, uint64_t pages);
enum ept_status world_reclaim(struct world *world, struct file_page first, uint64_t count,
			      struct tally *tally);
enum ept_status world_watch(struct world *world, struct file_page first, uint64_t count,
			    struct tally *tally);
enum ept_status world_harvest(struct world *world, struct file_page first, uint64_t count,
			      uint64_t *accessed, struct tally *tally);
enum ept_status world_move_page(struct world *world, struct file_page page, struct file_page to,
				struct tally *tally);
/* Memory changes behind the guests' backs, as when a file is punched or a page is used otherwise.
 */
void world_set(struct world *world, struct fpa page, unsigned word, uint64_t value);
/* Where a page of a file lies, by the engine. */
struct fpa world_file_page(const struct world *world, uint32_t file, uint64_t page);
/* What word @word of a page of a file that nobody wrote reads as. */
uint64_t world_stamp(uint32_t file, uint64_t page, unsigned word);

uint64_t world_load(const struct world *world, struct fpa entry);
void world_store(struct world *world, struct fpa entry, uint64_t value);
bool world_is_table(const struct world *world, struct fpa at);
bool world_is_private(const struct world *world, struct fpa at);
uint32_t world_table_number(const struct world *world, struct fpa at);
uint64_t world_peek(struct world *world, struct fpa page, unsigned word);
/* The 4 KiB page at @gpa that a leaf entry of @level with that target maps. */
struct fpa leaf_page(struct fpa target, unsigned level, struct gpa gpa);
void world_walk(const struct world *world, struct fpa root, struct gpa gpa, struct walk *out);

/* Runs the checker and the KVM model's; any violation ends the test. */
void world_check(struct world *world);
enum ept_status world_scrub(struct world *world, unsigned limit);
/* Scrubs until there is nothing in quarantine. */
void world_scrub_all(struct world *world);

/* Does what a change asks for and finishes it; @status is the operation's own. */
enum ept_status world_run(struct world *world, struct ept_change *change, enum ept_status status,
			  struct tally *tally);
/* One step only, for tests that look at what is true before it is finished. */
void world_commit(struct world *world, const struct ept_change *change, struct tally *tally);

struct guest *guest_create(struct world *world, uint32_t domain, bool sharing);
/* The same, without requiring that it succeeds. */
enum ept_status guest_try_create(struct world *world, uint32_t domain, bool sharing,
				 struct guest **out);
void guest_destroy(struct guest *guest);
enum ept_status guest_map(struct guest *guest, const struct ept_region *region);
enum ept_status guest_unmap(struct guest *guest, uint64_t start, uint64_t bytes);
enum ept_status guest_protect(struct guest *guest, uint64_t start, uint64_t bytes, unsigned rights);
enum ept_status guest_fault(struct guest *guest, uint64_t gpa, unsigned access);
enum ept_status guest_clone(struct guest *parent, struct guest **out);
enum ept_status guest_freeze(struct guest *guest);
enum ept_status guest_reset(struct guest *guest);
enum ept_status guest_move(struct guest *guest, uint64_t from, uint64_t bytes, uint64_t to);
/* @frozen is what the guest was; nobody runs in it. */
enum ept_status guest_snapshot(struct guest *guest, struct guest **frozen);

/*
 * Accesses as a guest makes them: through its caches, then its tables, and on a fault through the
 * engine. The word is chosen by bit 3 of @gpa.
 */
enum ept_status guest_read(struct guest *guest, uint64_t gpa, uint64_t *value);
enum ept_status guest_write(struct guest *guest, uint64_t gpa, uint64_t value);
enum ept_status guest_exec(struct guest *guest, uint64_t gpa);

/* The same for tests: what succeeds must, and must read as said. */
void guest_must_read(struct guest *guest, uint64_t gpa, uint64_t value);
void guest_must_write(struct guest *guest, uint64_t gpa, uint64_t value);
/* A region that maps pages of @file from @page; private, unless the test changes it. */
struct ept_region region_of(uint64_t start, uint64_t bytes, uint32_t file, uint64_t page,
			    unsigned rights);
void guest_must_map(struct guest *guest, uint64_t start, uint64_t bytes, uint32_t file,
		    uint64_t page, unsigned rights);
struct guest *guest_must_clone(struct guest *parent);

/* Table of @level on the path to @gpa, 0 if there is none; and the entry of that level. */
struct fpa guest_table(struct guest *guest, uint64_t gpa, unsigned level);
uint64_t guest_entry(struct guest *guest, uint64_t gpa, unsigned level);

/* A test for each format: a row of three in an array of struct CMUnitTest. */
#define EACH_FORMAT(test)                                                                          \
	{#test ".ept", test, NULL, NULL, (void *)(uintptr_t)&ept_format_ept},                      \
		{#test ".npt", test, NULL, NULL, (void *)(uintptr_t)&ept_format_npt},              \
	{                                                                                          \
#test ".scrambled", test, NULL, NULL, (void *)(uintptr_t)&ept_format_scrambled     \
	}

#endif
