// SPDX-License-Identifier: MIT
/*
 * What an operator does to guests while they run on other CPUs: what an operation has taken away nobody
 * may have when it returns, and what it has not nobody may miss. Guests check what they read, all the
 * time; running_code.h says how. A test named T6_..., F22_... or the like is for that row of docs/sharing.md.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ept/check.h"
#include "gate_vmx.h"
#include "ops.h"
#include "running_code.h"

#define SKIPPED 77

/* How long a test goes on unless S2VM_TEST_MS says otherwise: in an emulator this can be long. */
static uint64_t test_ns = UINT64_C(1500000000);

/* How long a guest may take to do its next step. */
#define LIMIT_NS UINT64_C(20000000000)

extern const unsigned char running_code[], running_code_end[];

static const struct gpa file_base = { S2VM_FILE_BASE };

/* ---- a fleet with its file ---- */

struct world {
	int fd; /* the file, to write to it behind the fleet's back */
	struct memfile file;
	struct program program;
	struct fleet *fleet;
	struct guest *guests[32];
	unsigned count;
};

static void write_page(const struct world *world, uint64_t page, uint64_t first, uint64_t last)
{
	uint64_t words[EPT_PAGE_BYTES / 8] = { [0] = first, [EPT_PAGE_BYTES / 8 - 1] = last };

	assert_int_equal(pwrite(world->fd, words, sizeof(words), (off_t)(page * sizeof(words))),
			 sizeof(words));
}

static void write_right(const struct world *world, uint64_t page)
{
	write_page(world, page, page + 1, ~(page + 1));
}

static void make_file(struct world *world, bool writable)
{
	char path[] = "/tmp/s2vm-running-XXXXXX";
	struct error error;

	world->fd = mkstemp(path);
	assert_true(world->fd >= 0);
	for (uint64_t page = 0; page < RUNNING_PAGES; page++)
		write_right(world, page);
	if (!memfile_open(&world->file, path, 0, writable, &error))
		fail_msg("%s", error.text);
	unlink(path);
}

static struct world *make_world(unsigned guests, enum ept_mode mode)
{
	struct world *world = calloc(1, sizeof(*world));
	struct fleet_config config = {
		.engine = ENGINE_AUTO,
		.guests = guests,
		.mode = mode,
		.sharing = true,
		.quiet = true,
		.spare_pages = 4,
		.snapshots = 32,
	};
	struct error error;

	assert_non_null(world);
	make_file(world, mode == EPT_SHARED);
	config.file = &world->file;
	config.program = &world->program;
	if (!program_from_code(&world->program, running_code,
			       (size_t)(running_code_end - running_code), &error) ||
	    !fleet_create(&world->fleet, &config, &error))
		fail_msg("%s", error.text);
	return world;
}

static void say(void *context, const char *text)
{
	(void)context;
	print_error("%s\n", text);
}

/* Stops all guests; none may have found anything wrong, but those that were ended on purpose. */
static void end_world(struct world *world)
{
	unsigned wrong = 0;

	fleet_stop(world->fleet, GUEST_STOPPED);
	for (unsigned i = 0; i < world->count; i++) {
		const struct guest *guest = world->guests[i];

		if (guest->status != GUEST_FAILED && guest->status != GUEST_HOST_ERROR)
			continue;
		print_error("guest %u: %s, words", i, guest->report);
		for (unsigned at = 0; at < sizeof(guest->result); at++)
			print_error("%s%02x", at % 8 ? "" : " ", guest->result[at]);
		print_error("\n");
		wrong++;
	}
	assert_int_equal(wrong, 0);
	assert_int_equal(ept_check(world->fleet->ept, say, NULL), 0);
	fleet_destroy(world->fleet);
	program_unload(&world->program);
	memfile_close(&world->file);
	close(world->fd);
	free(world);
}

#define DO(call)                                              \
	do {                                                  \
		struct error error_;                          \
		struct error *error = &error_;                \
		if (!(call))                                  \
			fail_msg("%s: %s", #call, error->text); \
	} while (0)

static struct guest *launch(struct world *world, uint64_t role)
{
	struct guest **guest = &world->guests[world->count++];

	DO(fleet_launch(world->fleet, role, guest, error));
	return *guest;
}

/* One that the test itself runs, result by result. */
static struct guest *prepare(struct world *world, uint64_t role)
{
	struct guest **guest = &world->guests[world->count++];

	DO(fleet_prepare(world->fleet, role, guest, error));
	return *guest;
}

/* A word of its last result. */
static uint64_t reported(const struct guest *guest, unsigned number)
{
	uint64_t word = 0;

	for (unsigned at = 0; at < 8; at++)
		word = word << 8 | guest->result[8 * number + at];
	return word;
}

/* ---- guests that run ---- */

static void nap(uint64_t ns)
{
	const struct timespec time = { .tv_nsec = (long)ns };

	nanosleep(&time, NULL);
}

static bool is_over(const struct guest *guest)
{
	bool over;

	pthread_mutex_lock(&guest->fleet->lock);
	over = !guest->seat->guest;
	pthread_mutex_unlock(&guest->fleet->lock);
	return over;
}

/* A word of a private page, where it lies now; NULL while there is none. */
static _Atomic uint64_t *private_word(const struct guest *guest, struct gpa gpa)
{
	const struct memory_area *pages = &guest->fleet->memory.pages;
	unsigned rights;
	struct fpa at;

	if (!ept_space_translate(guest->space, gpa, &at, &rights) ||
	    at.v - pages->at.v >= pages->bytes)
		return NULL;
	return memory_at(&guest->fleet->memory, at);
}

static const struct gpa mirror = { S2VM_STACK_END - RUNNING_MIRROR };

/* Waits until the guest has gone round once more, and returns where it counts; NULL if it does not. */
static _Atomic uint64_t *goes_on(const struct guest *guest)
{
	uint64_t deadline = now_ns() + LIMIT_NS;
	_Atomic uint64_t *counter = NULL;
	uint64_t begin = 0;

	while (now_ns() < deadline && !is_over(guest)) {
		_Atomic uint64_t *now = private_word(guest, mirror);

		if (now != counter) {
			counter = now;
			begin = counter ? atomic_load(counter) : 0;
		} else if (counter && atomic_load(counter) != begin) {
			return counter;
		}
		nap(100000);
	}
	return NULL;
}

static void must_go_on(const struct guest *guest)
{
	if (goes_on(guest))
		return;
	print_error("guest %u does not go on: %s, %s; words", guest->id,
		    is_over(guest) ? guest_status_name(guest->status) : "running", guest->report);
	for (unsigned i = 0; i < 4; i++)
		print_error(" %llx", (unsigned long long)reported(guest, i));
	print_error("\n");
	fail();
}

static void wait_for_end(const struct guest *guest)
{
	uint64_t deadline = now_ns() + LIMIT_NS;

	while (!is_over(guest) && now_ns() < deadline)
		nap(100000);
	assert_true(is_over(guest));
}

/* How long an operation takes while guests run. */
struct timing {
	uint64_t count;
	uint64_t total;
	uint64_t most;
};

#define TIMED(timing, call)                                 \
	do {                                                \
		uint64_t begin_ = now_ns();                 \
		DO(call);                                   \
		note_time(timing, now_ns() - begin_);       \
	} while (0)

static void note_time(struct timing *timing, uint64_t ns)
{
	timing->count++;
	timing->total += ns;
	if (ns > timing->most)
		timing->most = ns;
}

static void print_time(const char *what, const struct timing *timing)
{
	if (timing->count)
		print_message("             %s: %llu times, %.1f us on average, %.1f at most\n", what,
			      (unsigned long long)timing->count,
			      (double)timing->total / 1e3 / (double)timing->count,
			      (double)timing->most / 1e3);
}

/* ---- one guest's memory ---- */

/* Alone or not, each guest sees its own counts or, set back, the file, and never an old count. */
static void T6_B1_a_guest_is_reset_while_both_write(void **state)
{
	struct world *world = make_world(3, EPT_PRIVATE);
	struct guest *reset = launch(world, RUNNING_WRITE);
	struct guest *other = launch(world, RUNNING_WRITE);
	struct guest *reader = launch(world, RUNNING_READ);
	uint64_t end = now_ns() + test_ns;
	struct timing timing = { 0 };

	(void)state;
	while (now_ns() < end) {
		must_go_on(reset);
		TIMED(&timing, fleet_reset(world->fleet, reset, error));
	}
	must_go_on(reset);
	must_go_on(other);
	must_go_on(reader);
	print_time("reset", &timing);
	end_world(world);
}

/* The pages that a guest had are nobody's any more: it counts in others, from 0. */
static void B1_a_reset_is_over_when_it_returns(void **state)
{
	struct world *world = make_world(1, EPT_PRIVATE);
	struct guest *guest = launch(world, RUNNING_WRITE);
	uint64_t end = now_ns() + test_ns / 3;

	(void)state;
	while (now_ns() < end) {
		_Atomic uint64_t *counter;
		uint64_t count;

		must_go_on(guest);
		counter = private_word(guest, mirror);
		DO(fleet_reset(world->fleet, guest, error));
		count = counter ? atomic_load(counter) : 0;
		nap(200000);
		/* A page that has been scrubbed since is all zero. */
		if (counter && private_word(guest, mirror) != counter)
			assert_true(atomic_load(counter) == count || !atomic_load(counter));
	}
	end_world(world);
}

static void take_page(struct world *world, struct guest *guest, unsigned round,
		      struct timing *timings)
{
	struct gpa elsewhere = { 2 * file_base.v };

	switch (round % 3) {
	case 0:
		TIMED(&timings[0], fleet_unmap(world->fleet, guest, file_base, EPT_PAGE_BYTES,
					       error));
		break;
	case 1:
		TIMED(&timings[1], fleet_unmap(world->fleet, guest, file_base,
					       RUNNING_PAGES * EPT_PAGE_BYTES, error));
		break;
	default:
		TIMED(&timings[2], fleet_move(world->fleet, guest, file_base, EPT_PAGE_BYTES,
					      elsewhere, error));
		break;
	}
}

/* Readers do not get round once more without the page that they read. */
static void T6_memory_is_gone_when_unmap_or_move_returns(void **state)
{
	struct world *world = make_world(25, EPT_PRIVATE);
	struct guest *writer = launch(world, RUNNING_WRITE);
	struct timing timings[3] = { 0 };

	(void)state;
	for (unsigned round = 0; round < 24; round++) {
		struct guest *guest = launch(world, RUNNING_SPIN);
		_Atomic uint64_t *counter = goes_on(guest);
		uint64_t count;

		assert_non_null(counter);
		take_page(world, guest, round, timings);
		count = atomic_load(counter);
		wait_for_end(guest);
		assert_int_equal(guest->status, GUEST_FAULT);
		/* It may have been between its read and its count. */
		assert_in_range(atomic_load(counter) - count, 0, 1);
	}
	must_go_on(writer);
	print_time("unmap of a page", &timings[0]);
	print_time("unmap of the file", &timings[1]);
	print_time("move of a page's address", &timings[2]);
	end_world(world);
}

static void T6_nothing_is_written_when_protect_returns(void **state)
{
	struct world *world = make_world(17, EPT_PRIVATE);
	struct guest *other = launch(world, RUNNING_WRITE);
	struct timing timing = { 0 };

	(void)state;
	for (unsigned round = 0; round < 16; round++) {
		struct guest *guest = launch(world, RUNNING_WRITE);
		_Atomic uint64_t *word;
		uint64_t value;

		must_go_on(guest);
		word = private_word(guest, file_base);
		assert_non_null(word);
		TIMED(&timing, fleet_protect(world->fleet, guest, file_base, EPT_PAGE_BYTES,
					     EPT_READ, error));
		value = atomic_load(word);
		wait_for_end(guest);
		assert_int_equal(guest->status, GUEST_FAULT);
		assert_int_equal(atomic_load(word), value);
	}
	must_go_on(other);
	print_time("protect", &timing);
	end_world(world);
}

/* Another page of the file in the place of the first, between two looks of the guest. */
static void T6_what_is_mapped_instead_is_seen(void **state)
{
	struct world *world = make_world(2, EPT_PRIVATE);
	struct guest *guest = prepare(world, RUNNING_REPORT);
	struct guest *reader = launch(world, RUNNING_READ);

	(void)state;
	for (uint64_t page = 0; page < 200; page++) {
		assert_true(guest_step(guest));
		assert_int_equal(reported(guest, 0), page ? page : 1);
		assert_int_equal(reported(guest, 1), RUNNING_STRIDE + 1);
		DO(fleet_unmap(world->fleet, guest, file_base, EPT_PAGE_BYTES, error));
		DO(fleet_map_file(world->fleet, guest, file_base, fleet_page(world->fleet, page), 1,
				  EPT_READ, error));
	}
	must_go_on(reader);
	end_world(world);
}

/* ---- snapshots ---- */

struct counts {
	uint64_t at[RUNNING_PARTS + 1]; /* the last one is the mirror's */
};

static struct counts counts_of(const struct world *world, struct ept_space *space)
{
	struct counts counts;
	unsigned rights;
	struct fpa at;

	for (unsigned i = 0; i <= RUNNING_PARTS; i++) {
		struct gpa gpa = { file_base.v + (uint64_t)i * RUNNING_STRIDE * EPT_PAGE_BYTES };

		assert_true(ept_space_translate(space, i < RUNNING_PARTS ? gpa : mirror, &at,
						&rights));
		assert_true(memory_read(&world->fleet->memory, at, &counts.at[i], 8));
	}
	return counts;
}

/* As they were between two writes of the guest: it writes the pages in their order, the mirror last. */
static void check_moment(const struct counts *counts)
{
	uint64_t tag = UINT64_C(1) << RUNNING_TAG_SHIFT;
	uint64_t before = tag | counts->at[RUNNING_PARTS];
	bool written = true;

	for (unsigned i = 0; i < RUNNING_PARTS; i++) {
		if (written && counts->at[i] != before + 1)
			written = false;
		if (!written)
			assert_int_equal(counts->at[i], before);
	}
}

static void B2_T6_a_snapshot_is_one_moment_of_a_guest_that_runs(void **state)
{
	struct world *world = make_world(22, EPT_PRIVATE);
	struct guest *guest = launch(world, RUNNING_WRITE);
	struct guest *other = launch(world, RUNNING_WRITE);
	struct timing timing = { 0 };

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		struct ept_space *frozen;
		struct counts counts, later;
		struct guest *clone;

		must_go_on(guest);
		TIMED(&timing, fleet_snapshot(world->fleet, guest, &frozen, error));
		counts = counts_of(world, frozen);
		check_moment(&counts);
		fleet_launch_from(world->fleet, frozen);
		clone = prepare(world, RUNNING_REPORT);
		must_go_on(guest);
		later = counts_of(world, frozen);
		assert_memory_equal(&counts, &later, sizeof(counts));
		assert_true(guest_step(clone));
		for (unsigned i = 0; i < RUNNING_PARTS; i++)
			assert_int_equal(reported(clone, i), counts.at[i]);
		fleet_drop_snapshot(world->fleet, frozen);
	}
	must_go_on(other);
	print_time("snapshot", &timing);
	end_world(world);
}

/* ---- pages of the file ---- */

/* To a spare page, to another and back, each time with nothing right left where the page was. */
static void move_about(struct world *world, uint64_t number, struct timing *timing)
{
	struct file_page page = fleet_page(world->fleet, number);

	TIMED(timing, fleet_move_page(world->fleet, page, number % 2, error));
	write_page(world, number, 0xbad, 0xbad);
	TIMED(timing, fleet_move_page(world->fleet, page, 2 + number % 2, error));
	write_right(world, number);
	TIMED(timing, fleet_move_page_home(world->fleet, page, error));
}

static void F22_T6_no_sharer_sees_where_a_page_was(void **state)
{
	static const uint64_t pages[] = { 0, 1, 511, 512, 1023 };
	struct world *world = make_world(3, EPT_PRIVATE);
	struct guest *spins = launch(world, RUNNING_SPIN);
	struct guest *reads = launch(world, RUNNING_READ);
	struct guest *never_ran = prepare(world, RUNNING_REPORT);
	uint64_t end = now_ns() + test_ns;
	struct timing timing = { 0 };

	(void)state;
	must_go_on(spins);
	must_go_on(reads);
	for (unsigned round = 0; now_ns() < end; round++)
		move_about(world, pages[round % 5], &timing);
	assert_true(guest_step(never_ran));
	assert_int_equal(reported(never_ran, 0), 1);
	must_go_on(spins);
	must_go_on(reads);
	print_time("move of a file page", &timing);
	end_world(world);
}

static void F27_T6_pages_are_reclaimed_from_readers_and_writers(void **state)
{
	struct world *world = make_world(3, EPT_PRIVATE);
	struct guest *reader = launch(world, RUNNING_READ);
	struct guest *writers[] = { launch(world, RUNNING_WRITE), launch(world, RUNNING_WRITE) };
	uint64_t end = now_ns() + test_ns;
	struct timing page = { 0 }, all = { 0 };

	(void)state;
	must_go_on(reader);
	for (uint64_t round = 0; now_ns() < end; round++) {
		TIMED(&page, fleet_reclaim(world->fleet, fleet_page(world->fleet, round % 2), 1,
					   error));
		if (round % 16)
			continue;
		TIMED(&all, fleet_reclaim(world->fleet, fleet_page(world->fleet, 0), RUNNING_PAGES,
					  error));
		must_go_on(reader);
	}
	must_go_on(writers[0]);
	must_go_on(writers[1]);
	print_time("reclaim of a page", &page);
	print_time("reclaim of 1024 pages", &all);
	end_world(world);
}

/* Runs of the gate that it takes to reclaim the whole file from @guests guests that have read it. */
static uint64_t runs_to_reclaim(unsigned guests)
{
	struct world *world = make_world(guests, EPT_PRIVATE);
	uint64_t before, runs;
	uint64_t begin;

	for (unsigned i = 0; i < guests; i++)
		assert_true(guest_step(prepare(world, RUNNING_REPORT)));
	before = world->fleet->service.runs;
	begin = now_ns();
	DO(fleet_reclaim(world->fleet, fleet_page(world->fleet, 0), RUNNING_PAGES, error));
	runs = world->fleet->service.runs - before;
	print_message("             reclaim of 1024 pages from %u guests: %.1f us, %llu runs of the gate\n",
		      guests, (double)(now_ns() - begin) / 1e3, (unsigned long long)runs);
	for (unsigned i = 0; i < guests; i++) {
		assert_true(guest_step(world->guests[i]));
		assert_int_equal(reported(world->guests[i], 3), 3 * RUNNING_STRIDE + 1);
	}
	end_world(world);
	return runs;
}

static void F27_reclaim_costs_the_same_for_any_number_of_guests(void **state)
{
	uint64_t runs = runs_to_reclaim(1);

	(void)state;
	assert_true(runs > 0);
	assert_int_equal(runs_to_reclaim(16), runs);
}

static void F27_what_was_accessed_is_known(void **state)
{
	struct world *world = make_world(1, EPT_PRIVATE);
	struct guest *guest = launch(world, RUNNING_SPIN);
	uint64_t accessed[RUNNING_PAGES / 64] = { 0 };
	struct file_page first = fleet_page(world->fleet, 0);
	struct timing timing = { 0 };
	struct error refused;

	(void)state;
	if (world->fleet->config.engine == ENGINE_VMX) {
		assert_false(fleet_harvest(world->fleet, first, 1, accessed, &refused));
		assert_int_equal(refused.exit, EXIT_HOST);
		end_world(world);
		return;
	}
	for (unsigned round = 0; round < 10; round++) {
		must_go_on(guest);
		memset(accessed, 0, sizeof(accessed));
		TIMED(&timing, fleet_harvest(world->fleet, first, RUNNING_PAGES, accessed, error));
		assert_true(accessed[0] & 1);
	}
	for (unsigned i = 0; i < RUNNING_PAGES / 64; i++)
		assert_int_equal(accessed[i], i == 0);
	print_time("harvest of 1024 pages, one of them accessed", &timing);
	end_world(world);
}

/* ---- everything at once ---- */

struct operator {
	struct world *world;
	struct guest *guest;
	uint64_t end;
	atomic_uint failed;
};

static void *reset_again_and_again(void *argument)
{
	struct operator *operator = argument;
	struct error error;

	while (now_ns() < operator->end && !operator->failed) {
		if (!fleet_reset(operator->world->fleet, operator->guest, &error))
			operator->failed = 1;
		nap(100000);
	}
	return NULL;
}

/* Pages move and go while guests copy them, and one of the guests is reset by another thread. */
static void T6_F22_all_at_once(void **state)
{
	static const uint64_t pages[] = { 0, 1, 300, 301, 600, 900 };
	struct world *world = make_world(3, EPT_PRIVATE);
	struct guest *guests[] = { launch(world, RUNNING_WRITE), launch(world, RUNNING_WRITE),
				   launch(world, RUNNING_READ) };
	struct operator operator = {
		.world = world, .guest = guests[0], .end = now_ns() + test_ns };
	struct timing timing = { 0 };
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, reset_again_and_again, &operator), 0);
	for (unsigned round = 0; now_ns() < operator.end; round++) {
		move_about(world, pages[round % 6], &timing);
		DO(fleet_reclaim(world->fleet, fleet_page(world->fleet, 0), RUNNING_PAGES, error));
	}
	pthread_join(thread, NULL);
	assert_int_equal(operator.failed, 0);
	for (unsigned i = 0; i < 3; i++)
		must_go_on(guests[i]);
	end_world(world);
}

/* The pause waits for operations of other threads, ops.c: begin, or tables are found half changed. */
static void B5_a_fleet_is_checked_while_another_thread_works_on_it(void **state)
{
	struct world *world = make_world(2, EPT_PRIVATE);
	struct operator operator = {
		.world = world, .guest = launch(world, RUNNING_WRITE), .end = now_ns() + test_ns };
	struct timing timing = { 0 };
	pthread_t thread;

	(void)state;
	launch(world, RUNNING_READ);
	assert_int_equal(pthread_create(&thread, NULL, reset_again_and_again, &operator), 0);
	while (now_ns() < operator.end) {
		uint64_t start = now_ns();
		uint64_t violations;

		DO(fleet_pause(world->fleet, error));
		violations = ept_check(world->fleet->ept, say, NULL);
		fleet_resume(world->fleet);
		note_time(&timing, now_ns() - start);
		assert_int_equal(violations, 0);
	}
	pthread_join(thread, NULL);
	assert_int_equal(operator.failed, 0);
	must_go_on(world->guests[0]);
	must_go_on(world->guests[1]);
	print_time("check", &timing);
	end_world(world);
}

/* ---- watching ---- */

/* What the watcher and the test tell each other. */
struct watching {
	struct world *world;
	pthread_mutex_t lock;
	unsigned char bytes[EPT_PAGE_BYTES]; /* of the page when it began to be watched */
	atomic_bool ready;
	atomic_uint told;
	atomic_uint wrong;
	atomic_uint told_of_file;
	bool refuse;
};

static uint64_t file_word(const struct world *world, uint64_t page, uint64_t word)
{
	uint64_t value = 0;

	if (pread(world->fd, &value, 8, (off_t)(page * EPT_PAGE_BYTES + 8 * word)) != 8)
		return UINT64_MAX;
	return value;
}

/* The guest counts in page 1, then in page 0: now it is between these two, or before both. */
static bool is_before(const struct world *world, const struct fleet_write *write)
{
	uint64_t word = write->guest->id + 1;

	return file_word(world, 1, word) ==
	       file_word(world, 0, word) + (write->page.page == 0);
}

static bool is_as_it_was(const struct watching *watching, uint64_t page)
{
	unsigned char bytes[EPT_PAGE_BYTES];

	return pread(watching->world->fd, bytes, sizeof(bytes),
		     (off_t)(page * EPT_PAGE_BYTES)) == EPT_PAGE_BYTES &&
	       memcmp(bytes, watching->bytes, sizeof(bytes)) == 0;
}

static void watcher(void *context, const struct fleet_write *write)
{
	struct watching *watching = context;
	struct fleet *fleet = watching->world->fleet;

	if (watching->refuse)
		return;
	pthread_mutex_lock(&watching->lock);
	while (!watching->ready && ept_file_watched(fleet->ept, write->page))
		nap(10000);
	/* Unless the other guest came first, and the page is watched no more. */
	if (ept_file_watched(fleet->ept, write->page)) {
		nap(100000);
		if (!is_as_it_was(watching, write->page.page) ||
		    (write->guest && !is_before(watching->world, write)))
			watching->wrong++;
		watching->ready = false;
		fleet_unwatch(fleet, write->page, 1);
		watching->told_of_file += !write->guest;
		watching->told++;
	}
	pthread_mutex_unlock(&watching->lock);
}

/* Watches a page and notes what is in it. */
static void begin_to_watch(struct watching *watching, uint64_t page, struct timing *timing)
{
	struct world *world = watching->world;

	TIMED(timing, fleet_watch(world->fleet, fleet_page(world->fleet, page), 1, error));
	assert_int_equal(pread(world->fd, watching->bytes, EPT_PAGE_BYTES,
			       (off_t)(page * EPT_PAGE_BYTES)),
			 EPT_PAGE_BYTES);
	watching->ready = true;
}

static void wait_until_told(struct watching *watching, unsigned times)
{
	uint64_t deadline = now_ns() + LIMIT_NS;

	while (watching->told < times && now_ns() < deadline)
		nap(50000);
	assert_int_equal(watching->told, times);
}

static void F29_T7_who_watches_is_told_before_a_write(void **state)
{
	struct watching watching = { .world = make_world(2, EPT_SHARED),
				     .lock = PTHREAD_MUTEX_INITIALIZER };
	struct world *world = watching.world;
	struct timing timing = { 0 };
	uint64_t end = now_ns() + test_ns;
	unsigned rounds = 0;

	(void)state;
	fleet_set_watcher(world->fleet, watcher, &watching);
	launch(world, RUNNING_TELL);
	launch(world, RUNNING_TELL);
	while (now_ns() < end) {
		begin_to_watch(&watching, rounds % 2, &timing);
		wait_until_told(&watching, ++rounds);
	}
	assert_int_equal(watching.wrong, 0);
	print_time("watch", &timing);
	end_world(world);
}

static void F29_T7_writes_through_s2vm_are_told_too(void **state)
{
	struct watching watching = { .world = make_world(1, EPT_SHARED),
				     .lock = PTHREAD_MUTEX_INITIALIZER };
	struct world *world = watching.world;
	const uint64_t words[2] = { 77, 78 };
	struct timing timing = { 0 };
	struct error refused;

	(void)state;
	fleet_set_watcher(world->fleet, watcher, &watching);
	begin_to_watch(&watching, 3, &timing);
	/* The last word of page 2, and the first of page 3. */
	DO(fleet_write_file(world->fleet, 3 * EPT_PAGE_BYTES - 8, words, sizeof(words), error));
	assert_int_equal(watching.told_of_file, 1);
	assert_int_equal(watching.wrong, 0);
	assert_int_equal(file_word(world, 2, 511), 77);
	assert_int_equal(file_word(world, 3, 0), 78);
	watching.refuse = true;
	begin_to_watch(&watching, 3, &timing);
	assert_false(fleet_write_file(world->fleet, 3 * EPT_PAGE_BYTES, words, 8, &refused));
	assert_non_null(strstr(refused.text, "watched"));
	assert_int_equal(file_word(world, 3, 0), 78);
	assert_false(fleet_write_file(world->fleet, RUNNING_PAGES * EPT_PAGE_BYTES, words, 8,
				      &refused));
	end_world(world);
}

static void F29_T7_a_write_that_is_not_let_through_ends_the_guest(void **state)
{
	struct watching watching = { .world = make_world(1, EPT_SHARED),
				     .lock = PTHREAD_MUTEX_INITIALIZER,
				     .refuse = true };
	struct world *world = watching.world;
	struct timing timing = { 0 };
	struct guest *guest;

	(void)state;
	fleet_set_watcher(world->fleet, watcher, &watching);
	guest = launch(world, RUNNING_TELL);
	while (file_word(world, 0, 1) < 1000)
		nap(100000);
	begin_to_watch(&watching, 0, &timing);
	wait_for_end(guest);
	assert_int_equal(guest->status, GUEST_FAULT);
	assert_non_null(strstr(guest->report, "watched"));
	assert_true(is_as_it_was(&watching, 0));
	end_world(world);
}

/* ---- guests with several CPUs ---- */

/* Of the guest's own memory at @page of the file. */
static uint64_t word_for(struct guest *guest, uint64_t page, uint64_t offset)
{
	struct gpa at = { file_base.v + page * EPT_PAGE_BYTES + offset };
	uint64_t word;

	assert_true(guest_read(guest, at, &word, sizeof(word)));
	return word;
}

/*
 * Makes the vCPU of the next seat, which has no guest, a second CPU of @guest, to do @role as guest
 * @number would.
 */
static void add_cpu(struct world *world, struct guest *guest, uint64_t role, uint64_t number)
{
	const struct program *program = &world->program;
	struct seat *seat = &guest->seat[guest->cpus++];
	struct gate_start start = {
		.root = ept_space_root(guest->space),
		.entry = program->entry,
		.stack = program->stack_end,
		.machine_root = program->machine_root,
		.arguments = { number, S2VM_FILE_BASE, world->file.bytes, role },
	};

	seat->owner = guest;
	DO(gate_start(&seat->vcpu, &start, error));
	seat_take(seat, guest->space, start.root);
}

/* Lets all CPUs of a guest that was prepared run. */
static void let_go(struct guest *guest)
{
	struct fleet *fleet = guest->fleet;

	pthread_mutex_lock(&fleet->lock);
	fleet->running++;
	guest->cpus_running = guest->cpus;
	for (unsigned cpu = 0; cpu < guest->cpus; cpu++) {
		guest->seat[cpu].guest = guest;
		pthread_cond_signal(&guest->seat[cpu].wake);
	}
	pthread_mutex_unlock(&fleet->lock);
}

/*
 * One reads some pages, and goes on from the page that the other's write had copied, without leaving the
 * guest by itself. When one exits, the other one is stopped, and the guest has ended well.
 */
static void F22_T4_a_cpu_sees_what_the_other_one_writes(void **state)
{
	struct timing timing = { 0 };
	uint64_t end = now_ns() + test_ns;

	(void)state;
	while (now_ns() < end) {
		struct world *world = make_world(2, EPT_PRIVATE);
		struct guest *guest = prepare(world, RUNNING_LEAD);
		uint64_t begin = now_ns();

		add_cpu(world, guest, RUNNING_FOLLOW, guest->id);
		let_go(guest);
		if (!fleet_wait(world->fleet, now_ns() + LIMIT_NS, NULL)) {
			struct gpa led = { S2VM_STACK_END - RUNNING_LED };
			_Atomic uint64_t *word = private_word(guest, led);

			fail_msg("they stand at page %llu", word ? (unsigned long long)*word : 0);
		}
		assert_int_equal(guest->cpus_running, 0);
		if (guest->status != GUEST_OK)
			print_error("page %llu is %llx, status %s: %s\n",
				    (unsigned long long)reported(guest, 0),
				    (unsigned long long)reported(guest, 1),
				    guest_status_name(guest->status), guest->report);
		assert_int_equal(guest->status, GUEST_OK);
		note_time(&timing, (now_ns() - begin) / (RUNNING_PAGES / RUNNING_STEP));
		end_world(world);
	}
	print_time("a page", &timing);
}

/*
 * Both write to the same two pages at once, each to words of its own: the second page's, then the
 * first's. Each fault of one finds what the other one's has done, and no write is lost.
 */
static void F22_T4_cpus_fault_at_the_same_time(void **state)
{
	uint64_t end = now_ns() + test_ns;
	unsigned rounds = 0;

	(void)state;
	for (; now_ns() < end || !rounds; rounds++) {
		struct world *world = make_world(2, EPT_PRIVATE);
		struct guest *guest = prepare(world, RUNNING_TELL);
		uint64_t deadline = now_ns() + LIMIT_NS;

		add_cpu(world, guest, RUNNING_TELL, 1);
		let_go(guest);
		while ((!word_for(guest, 0, 8) || !word_for(guest, 0, 16)) && now_ns() < deadline)
			nap(100000);
		fleet_stop(world->fleet, GUEST_STOPPED);
		assert_int_equal(guest->status, GUEST_STOPPED);
		for (unsigned word = 1; word <= 2; word++) {
			uint64_t first = word_for(guest, 0, 8 * word);
			uint64_t second = word_for(guest, 1, 8 * word);

			assert_true(first > 0);
			assert_in_range(second - first, 0, 1);
		}
		assert_int_equal(word_for(guest, 0, 0), 1);
		end_world(world);
	}
}

/* ---- guest memory, for devices ---- */

/* What is written for a guest is unshared as its own writes are, and no other guest sees it. */
static void F22_what_is_written_for_a_guest_is_its_own(void **state)
{
	struct world *world = make_world(2, EPT_PRIVATE);
	struct guest *one = prepare(world, RUNNING_SPIN);
	struct guest *other = prepare(world, RUNNING_SPIN);
	const uint64_t words[] = { 99, 98 };
	struct gpa across = { file_base.v + EPT_PAGE_BYTES - 8 };

	(void)state;
	assert_int_equal(word_for(one, 0, 0), 1);
	assert_true(guest_write(one, across, words, sizeof(words)));
	assert_int_equal(word_for(one, 0, EPT_PAGE_BYTES - 8), 99);
	assert_int_equal(word_for(one, 1, 0), 98);
	assert_int_equal(word_for(one, 0, 0), 1);
	assert_int_equal(word_for(other, 0, EPT_PAGE_BYTES - 8), ~UINT64_C(1));
	assert_int_equal(word_for(other, 1, 0), 2);
	assert_true(guest_write(other, across, words, 1));
	assert_int_equal(word_for(other, 1, 0), 2);
	assert_int_equal(word_for(one, 1, 0), 98);
	end_world(world);
}

static void F22_what_is_not_the_guests_is_not_accessed_for_it(void **state)
{
	struct world *world = make_world(1, EPT_PRIVATE);
	struct guest *guest = prepare(world, RUNNING_SPIN);
	struct gpa end = { file_base.v + RUNNING_PAGES * EPT_PAGE_BYTES };
	const struct gpa strange[] = { { 0 }, { end.v }, { end.v - 4 }, { UINT64_MAX - 3 } };
	uint64_t word = 99;

	(void)state;
	for (unsigned i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
		assert_false(guest_read(guest, strange[i], &word, sizeof(word)));
		assert_false(guest_write(guest, strange[i], &word, sizeof(word)));
	}
	DO(fleet_protect(world->fleet, guest, file_base, EPT_PAGE_BYTES, EPT_READ, error));
	assert_false(guest_write(guest, file_base, &word, sizeof(word)));
	assert_int_equal(word_for(guest, 0, 0), 1);
	end_world(world);
}

/* In mode shared, what is written for a guest is in the file, as its own writes are. */
static void F22_what_is_written_for_a_guest_is_in_the_file(void **state)
{
	struct world *world = make_world(2, EPT_SHARED);
	struct guest *one = prepare(world, RUNNING_SPIN);
	struct guest *other = prepare(world, RUNNING_SPIN);
	uint64_t word = 99;

	(void)state;
	assert_true(guest_write(one, file_base, &word, sizeof(word)));
	assert_int_equal(word_for(other, 0, 0), 99);
	assert_int_equal(file_word(world, 0, 0), 99);
	end_world(world);
}

/* ---- what is refused ---- */

static void S10_what_cannot_be_done_is_refused_and_changes_nothing(void **state)
{
	struct world *world = make_world(2, EPT_PRIVATE);
	struct fleet *fleet = world->fleet;
	struct guest *guest = launch(world, RUNNING_READ);
	struct file_page page = fleet_page(fleet, 0);
	struct error error;

	(void)state;
	assert_false(fleet_map_file(fleet, guest, file_base, page, 1, EPT_READ, &error));
	assert_false(fleet_map_file(fleet, guest, (struct gpa){ gate_gpa_end(&fleet->gate) }, page,
				    1, EPT_READ, &error));
	assert_false(fleet_move(fleet, guest, file_base, EPT_PAGE_BYTES, file_base, &error));
	assert_false(fleet_move_page(fleet, page, 4, &error));
	assert_false(fleet_move_page_home(fleet, page, &error));
	assert_false(fleet_reclaim(fleet, page, RUNNING_PAGES + 1, &error));
	assert_false(fleet_write_file(fleet, 0, &error, 1, &error));
	must_go_on(guest);
	end_world(world);
}

/* It has passed its gate in the middle of a program, and goes on there afterwards. */
static void registers_of_vmx_can_be_read(void **state)
{
	struct world *world = make_world(1, EPT_PRIVATE);
	struct guest *guest = prepare(world, RUNNING_REPORT);
	struct gate_vcpu *vcpu = &guest->seat->vcpu;
	struct fpa root = ept_space_root(guest->space);
	struct vmx_guest first, second;
	struct kvm_regs before, after;

	(void)state;
	assert_true(guest_step(guest));
	if (vcpu->gate->engine == ENGINE_VMX) {
		DO(gate_pass(vcpu, &root, error));
		before = vcpu->run->s.regs.regs;
		DO(vmx_read_guest(vcpu, &first, error));
		DO(vmx_read_guest(vcpu, &second, error));
		after = vcpu->run->s.regs.regs;
		assert_memory_equal(&first, &second, sizeof(first));
		assert_memory_equal(&before, &after, sizeof(before));
		assert_in_range(first.rip, S2VM_PROGRAM_BASE, S2VM_FILE_BASE);
		assert_in_range(first.rsp, S2VM_STACK_END - S2VM_STACK_BYTES, S2VM_STACK_END);
		assert_int_equal(first.rflags & ~UINT64_C(0xad5), 2); /* but for IF and arithmetic's */
		assert_int_equal(first.sregs.cr0, 0x80010033);
		assert_int_equal(first.sregs.cr3, world->program.machine_root.v);
		assert_int_equal(first.sregs.cr4, 0x620);
		assert_int_equal(first.sregs.cs.selector, 8);
		assert_true(first.sregs.cs.l && first.sregs.cs.g && !first.sregs.cs.db);
		assert_int_equal(first.sregs.ss.type, 3);
		assert_int_equal(first.sregs.gs.limit, 0xffffffff);
		assert_int_equal(first.sregs.tr.limit, 0xffff);
		assert_true(first.sregs.ldt.unusable);
		assert_int_equal(first.event | first.shadow | first.pending_debug, 0);
	}
	assert_true(guest_step(guest));
	assert_int_equal(reported(guest, 3), 3 * RUNNING_STRIDE + 1);
	end_world(world);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registers_of_vmx_can_be_read),
		cmocka_unit_test(T6_B1_a_guest_is_reset_while_both_write),
		cmocka_unit_test(B1_a_reset_is_over_when_it_returns),
		cmocka_unit_test(T6_memory_is_gone_when_unmap_or_move_returns),
		cmocka_unit_test(T6_nothing_is_written_when_protect_returns),
		cmocka_unit_test(T6_what_is_mapped_instead_is_seen),
		cmocka_unit_test(B2_T6_a_snapshot_is_one_moment_of_a_guest_that_runs),
		cmocka_unit_test(F22_T6_no_sharer_sees_where_a_page_was),
		cmocka_unit_test(F27_T6_pages_are_reclaimed_from_readers_and_writers),
		cmocka_unit_test(F27_reclaim_costs_the_same_for_any_number_of_guests),
		cmocka_unit_test(F27_what_was_accessed_is_known),
		cmocka_unit_test(T6_F22_all_at_once),
		cmocka_unit_test(B5_a_fleet_is_checked_while_another_thread_works_on_it),
		cmocka_unit_test(F29_T7_who_watches_is_told_before_a_write),
		cmocka_unit_test(F29_T7_writes_through_s2vm_are_told_too),
		cmocka_unit_test(F29_T7_a_write_that_is_not_let_through_ends_the_guest),
		cmocka_unit_test(F22_T4_a_cpu_sees_what_the_other_one_writes),
		cmocka_unit_test(F22_T4_cpus_fault_at_the_same_time),
		cmocka_unit_test(F22_what_is_written_for_a_guest_is_its_own),
		cmocka_unit_test(F22_what_is_not_the_guests_is_not_accessed_for_it),
		cmocka_unit_test(F22_what_is_written_for_a_guest_is_in_the_file),
		cmocka_unit_test(S10_what_cannot_be_done_is_refused_and_changes_nothing),
	};
	struct host host = { .fd = -1 };
	const char *ms = getenv("S2VM_TEST_MS");
	struct error error;

	if (ms)
		test_ns = strtoull(ms, NULL, 10) * 1000000;
	if (!host_open(&host, &error)) {
		print_message("SKIP: %s\n", error.text);
		return SKIPPED;
	}
	host_close(&host);
	if (argc > 1) /* a name, or a pattern with * in it */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
