// SPDX-License-Identifier: MIT
/*
 * Guests that run by themselves and do not come out, while another thread takes rights from them: when
 * a commit returns, they must not have what it took. What a guest reads it shows in its mirror, a page
 * of its own that the doctor looks into.
 */
#include <stdatomic.h>
#include <time.h>

#include "doctor_internal.h"

/* How long a guest may take until it shows what it has to, on a host that may have one CPU. */
#define LIMIT_NS UINT64_C(10000000000)
#define NAP_NS	 1000000

/* How long what must not happen is waited for. */
#define QUIET_NAPS 20

static void nap(void)
{
	const struct timespec time = { .tv_nsec = NAP_NS };

	nanosleep(&time, NULL);
}

/* What a guest's first rounds showed of the file's first word, and how often it has gone round. */
struct mirror {
	_Atomic uint64_t word;
	_Atomic uint64_t rounds;
};

/* A word of guest memory as the VMM sees it; NULL while there is no private page. */
static void *look_at(const struct doctor *doctor, const struct guest *guest, struct gpa gpa)
{
	const struct memory_area *pages = &doctor->fleet->memory.pages;
	unsigned rights;
	struct fpa at;

	if (!ept_space_translate(guest->space, gpa, &at, &rights) ||
	    at.v - pages->at.v >= pages->bytes)
		return NULL;
	return memory_at(&doctor->fleet->memory, at);
}

static struct mirror *mirror_of(const struct doctor *doctor, const struct guest *guest)
{
	return look_at(doctor, guest, (struct gpa){ S2VM_STACK_END - DOCTOR_MIRROR });
}

/* Whether a guest has ended, so that its status can be read. */
static bool is_over(const struct guest *guest)
{
	bool over;

	pthread_mutex_lock(&guest->fleet->lock);
	over = !guest->seat->guest;
	pthread_mutex_unlock(&guest->fleet->lock);
	return over;
}

/*
 * What the guest reads now: its mirror after two more rounds, the first of which may have begun
 * before. 0 if it makes none.
 */
static unsigned long long read_now(const struct doctor *doctor, const struct guest *guest)
{
	uint64_t deadline = now_ns() + LIMIT_NS;
	struct mirror *mirror = NULL;
	uint64_t begin = 0;

	while (now_ns() < deadline && !is_over(guest)) {
		struct mirror *now = mirror_of(doctor, guest);

		if (now != mirror) {
			mirror = now;
			begin = mirror ? atomic_load(&mirror->rounds) : 0;
		} else if (mirror && atomic_load(&mirror->rounds) >= begin + 2) {
			return atomic_load(&mirror->word);
		}
		nap();
	}
	return 0;
}

/* Waits until a counter in the guest's first page of the file goes up, and returns where it is. */
static _Atomic uint64_t *counting(const struct doctor *doctor, const struct guest *guest)
{
	uint64_t deadline = now_ns() + LIMIT_NS;
	_Atomic uint64_t *counter = NULL;
	uint64_t begin = 0;

	while (now_ns() < deadline && !is_over(guest)) {
		_Atomic uint64_t *now = look_at(doctor, guest, doctor_file);

		if (now != counter) {
			counter = now;
			begin = counter ? atomic_load(counter) : 0;
		} else if (counter && atomic_load(counter) != begin) {
			return counter;
		}
		nap();
	}
	return NULL;
}

static void wait_for_end(const struct guest *guest)
{
	uint64_t deadline = now_ns() + LIMIT_NS;

	while (!is_over(guest) && now_ns() < deadline)
		nap();
}

/* All guests leave their guests, as if each one's space had changed. */
static void recall_all(const struct doctor *doctor)
{
	for (unsigned id = 0; id < DOCTOR_GUESTS; id++)
		if (doctor->guests[id] && doctor->guests[id]->space)
			fleet_recall(doctor->fleet, doctor->guests[id]->space,
				     ept_space_root(doctor->guests[id]->space));
}

static unsigned long long since_us(uint64_t begin)
{
	return (now_ns() - begin) / 1000;
}

/* ---- edits by hand ---- */

/* A leaf edit, and the page that was there is dropped: no guest has to come out. */
static bool test_drop(struct doctor *doctor, const struct guest *guest, struct error *error)
{
	unsigned long long before = read_now(doctor, guest), after, took;
	uint64_t begin;
	struct fpa at;

	doctor_entry(doctor, guest->space, doctor_file, 1, &at);
	if (!doctor_store(doctor, at, doctor_leaf(doctor, 1), error))
		return false;
	begin = now_ns();
	memory_drop(&doctor->fleet->memory, doctor_page_at(doctor, 0), EPT_PAGE_BYTES);
	took = since_us(begin);
	after = read_now(doctor, guest);
	doctor_say(doctor, doctor_verdict(before == 1 && after == 2),
		   "a leaf edit reaches a guest that runs, by dropping the page: %llu, then %llu (1, 2 expected; %llu us)",
		   before, after, took);
	return true;
}

/*
 * The same edit back, and all guests come out and pass their gates: the one that runs, and those that
 * stand where they called the VMM, which is in their guests too.
 */
static bool test_recall(struct doctor *doctor, const struct guest *guest, struct error *error)
{
	unsigned long long before = read_now(doctor, guest), after, reader, own, took;
	uint64_t begin;
	struct fpa at;

	doctor_entry(doctor, guest->space, doctor_file, 1, &at);
	if (!doctor_store(doctor, at, doctor_leaf(doctor, 0), error))
		return false;
	begin = now_ns();
	recall_all(doctor);
	took = since_us(begin);
	after = read_now(doctor, guest);
	doctor_say(doctor, doctor_verdict(before == 2 && after == 1),
		   "a leaf edit reaches a guest that runs, by calling it out: %llu, then %llu (2, 1 expected; %llu us)",
		   before, after, took);
	reader = doctor_word(doctor, READER);
	own = doctor_word(doctor, OWN_ROOT);
	doctor_say(doctor, doctor_verdict(reader == 1 && own == 1),
		   "it reaches those that were in the middle of a call, too: %llu, %llu (1, 1 expected)",
		   reader, own);
	return true;
}

/* A PD entry that points at the next leaf table instead, and back. */
static bool test_upper(struct doctor *doctor, const struct guest *guest, struct error *error)
{
	unsigned long long other, before;
	uint64_t entries[2];
	struct fpa at;

	entries[0] = atomic_load(doctor_entry(doctor, guest->space, doctor_file, 2, &at));
	entries[1] = atomic_load(doctor_entry(doctor, guest->space, doctor_file, 2, &at) + 1);
	if (!doctor_store(doctor, at, entries[1], error))
		return false;
	recall_all(doctor);
	other = read_now(doctor, guest);
	if (!doctor_store(doctor, at, entries[0], error))
		return false;
	recall_all(doctor);
	before = read_now(doctor, guest);
	doctor_say(doctor, doctor_verdict(other == 513 && before == 1),
		   "an edit of an upper entry reaches a guest that runs: %llu, then %llu (513, 1 expected)",
		   other, before);
	return true;
}

/* ---- changes of the engine's ---- */

static bool commit(struct doctor *doctor, const char *what, enum ept_status status,
		   struct error *error)
{
	if (status != EPT_OK)
		return error_set(error, EXIT_FAILED, "cannot %s: %s", what,
				 ept_status_text(status));
	return fleet_commit(doctor->fleet, NULL, &doctor->fleet->change, error);
}

/* Whether a word stays as it is for a while. */
static bool stays(const _Atomic uint64_t *word)
{
	uint64_t value = atomic_load(word);

	for (unsigned naps = 0; naps < QUIET_NAPS; naps++) {
		nap();
		if (atomic_load(word) != value)
			return false;
	}
	return true;
}

/* A guest that writes is cloned: the page that it wrote to is the clone's too from then on. */
static bool test_clone(struct doctor *doctor, const struct guest *guest, struct error *error)
{
	_Atomic uint64_t *shared = counting(doctor, guest);
	_Atomic uint64_t *own;
	struct ept_space *clone;
	bool kept;

	if (!commit(doctor, "clone a guest",
		    ept_space_clone(guest->space, &clone, &doctor->fleet->change), error))
		return false;
	kept = shared && stays(shared);
	own = counting(doctor, guest);
	doctor_say(doctor, doctor_verdict(kept && own && own != shared),
		   "a clone keeps what a guest that runs had written until then, %s",
		   !kept ? "NOT: the guest still writes to it" :
		   own	 ? "and the guest goes on with its own" :
			   "but the guest does NOT go on");
	ept_space_destroy(clone);
	return true;
}

static bool test_protect(struct doctor *doctor, const struct guest *guest, struct error *error)
{
	_Atomic uint64_t *counter = counting(doctor, guest);
	uint64_t begin = now_ns();
	unsigned long long took;
	bool kept;

	if (!commit(doctor, "protect a page",
		    ept_space_protect(guest->space, doctor_file,
				      EPT_PAGE_BYTES, EPT_READ, &doctor->fleet->change),
		    error))
		return false;
	took = since_us(begin);
	kept = counter && stays(counter);
	wait_for_end(guest);
	doctor_say(doctor,
		   doctor_verdict(kept && is_over(guest) && guest->status == GUEST_FAULT),
		   "the right to write is gone when the commit returns: %s (%llu us)",
		   !kept	    ? "NOT, the guest still writes" :
		   is_over(guest) ? "the guest's next write ended it" :
				      "but the guest goes on",
		   took);
	return true;
}

/* Back to the template, whose root the guest has from then on. */
static bool test_reset(struct doctor *doctor, const struct guest *guest, struct error *error)
{
	unsigned long long before = read_now(doctor, guest), after;

	if (!commit(doctor, "reset a guest",
		    ept_space_reset(guest->space, &doctor->fleet->change), error))
		return false;
	after = read_now(doctor, guest);
	doctor_say(doctor, doctor_verdict(before == DOCTOR_WRITTEN && after == 1),
		   "a guest that is reset while it runs reads the file again: %llu, then %llu (99, 1 expected)",
		   before, after);
	return true;
}

/* One page, which is a leaf entry, or the whole file, which is an upper one. */
static bool test_unmap(struct doctor *doctor, const struct guest *guest, uint64_t bytes,
		       const char *what, struct error *error)
{
	struct mirror *mirror;
	uint64_t rounds;

	read_now(doctor, guest);
	mirror = mirror_of(doctor, guest);
	if (!commit(doctor, "unmap memory",
		    ept_space_unmap(guest->space, doctor_file, bytes,
				    &doctor->fleet->change),
		    error))
		return false;
	rounds = mirror ? atomic_load(&mirror->rounds) : 0;
	wait_for_end(guest);
	/* It may have been between its read and its count. */
	doctor_say(doctor,
		   doctor_verdict(mirror && is_over(guest) && guest->status == GUEST_FAULT &&
				  atomic_load(&mirror->rounds) <= rounds + 1),
		   "%s is gone from a guest that runs when the commit returns: %llu more rounds (1 at most), it %s",
		   what,
		   mirror ? (unsigned long long)(atomic_load(&mirror->rounds) - rounds) : 0,
		   is_over(guest) ? "ended" : "goes on");
	return true;
}

/* One after the other, so that a host with one or two CPUs has time for each. */
bool doctor_test_running(struct doctor *doctor, struct error *error)
{
	struct guest **reader = &doctor->guests[SPIN_READ];
	struct guest **writer = &doctor->guests[SPIN_WRITE];
	struct guest **own = &doctor->guests[SPIN_OWN];

	return fleet_launch(doctor->fleet, DOCTOR_SPIN_READ, reader, error) &&
	       test_drop(doctor, *reader, error) && test_recall(doctor, *reader, error) &&
	       test_upper(doctor, *reader, error) &&
	       test_unmap(doctor, *reader, EPT_PAGE_BYTES, "a page", error) &&
	       fleet_launch(doctor->fleet, DOCTOR_SPIN_WRITE, writer, error) &&
	       test_clone(doctor, *writer, error) && test_protect(doctor, *writer, error) &&
	       fleet_launch(doctor->fleet, DOCTOR_SPIN_OWN, own, error) &&
	       test_reset(doctor, *own, error) &&
	       test_unmap(doctor, *own, DOCTOR_FILE_PAGES * EPT_PAGE_BYTES, "the file", error);
}
