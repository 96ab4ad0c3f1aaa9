// SPDX-License-Identifier: MIT
#include "doctor.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "ept/check.h"
#include "fleet.h"

extern const unsigned char doctor_code[], doctor_code_end[];

/* The memory file: 8 MiB, so that it has four leaf tables; page i begins with word i + 1. */
#define FILE_PAGES 2048u
#define GUESTS	   3u

struct doctor {
	doctor_report report;
	void *context;
	bool failed;
	struct memfile file;
	struct program program;
	struct fleet *fleet;
	struct guest *guests[GUESTS];
};

__attribute__((format(printf, 3, 4))) static void say(struct doctor *doctor,
						      enum doctor_verdict verdict,
						      const char *format, ...)
{
	char text[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	doctor->failed = doctor->failed || verdict == DOCTOR_FAIL;
	doctor->report(doctor->context, verdict, text);
}

static enum doctor_verdict verdict(bool good)
{
	return good ? DOCTOR_PASS : DOCTOR_FAIL;
}

/* ---- the fleet under test ---- */

static bool make_file(struct doctor *doctor, struct error *error)
{
	uint64_t *words;

	if (!memfile_create(&doctor->file, "self-test", FILE_PAGES * EPT_PAGE_BYTES, error))
		return false;
	words = doctor->file.mapping;
	for (uint64_t page = 0; page < FILE_PAGES; page++)
		words[page * EPT_PAGE_BYTES / sizeof(*words)] = page + 1;
	return memfile_seal(&doctor->file, error);
}

static bool make_fleet(struct doctor *doctor, enum engine engine, struct error *error)
{
	struct fleet_config config = {
		.engine = engine,
		.guests = GUESTS,
		.file = &doctor->file,
		.mode = EPT_PRIVATE,
		.program = &doctor->program,
		.sharing = true,
		.quiet = true,
	};

	if (!make_file(doctor, error) ||
	    !program_from_code(&doctor->program, doctor_code,
			       (size_t)(doctor_code_end - doctor_code), error) ||
	    !fleet_create(&doctor->fleet, &config, error))
		return false;
	for (unsigned id = 0; id < GUESTS; id++)
		if (!fleet_prepare(doctor->fleet, 0, &doctor->guests[id], error))
			return false;
	return true;
}

static void release(struct doctor *doctor)
{
	if (doctor->fleet)
		fleet_destroy(doctor->fleet);
	program_unload(&doctor->program);
	memfile_close(&doctor->file);
}

/* What the guest reads at its file's first word; 0 if it ended. */
static uint64_t word_of(const struct doctor *doctor, unsigned id)
{
	struct guest *guest = doctor->guests[id];
	uint64_t word = 0;

	if (!guest_step(guest))
		return 0;
	for (unsigned at = 0; at < 8; at++)
		word = word << 8 | guest->result[at];
	return word;
}

/* Where the entry of the file's first page lies, in the leaf table that all guests share. */
static _Atomic uint64_t *leaf_entry(const struct doctor *doctor, struct fpa *at)
{
	struct fpa table = ept_space_root(doctor->guests[0]->space);
	struct gpa gpa = { S2VM_FILE_BASE };

	for (unsigned level = EPT_ROOT_LEVEL;; level--) {
		at->v = table.v + ept_entry_index(gpa, level) * sizeof(uint64_t);
		if (level == 1)
			return memory_at(&doctor->fleet->memory, *at);
		table = ept_entry_target(gate_format(&doctor->fleet->gate),
					 *(uint64_t *)memory_at(&doctor->fleet->memory, *at));
	}
}

static struct fpa page_at(const struct doctor *doctor, uint64_t page)
{
	struct fpa window = doctor->fleet->memory.windows[doctor->fleet->file_number];

	return (struct fpa){ window.v + page * EPT_PAGE_BYTES };
}

/* The same leaf entry, but for page @page of the file. */
static uint64_t leaf_for(const struct doctor *doctor, uint64_t page)
{
	return ept_entry_leaf(gate_format(&doctor->fleet->gate), page_at(doctor, page), EPT_READ);
}

/*
 * Maps page @to of the file instead of page @from, as the engine would: the gate stores the entry, and
 * the page that was mapped is dropped from all translations, because guests that do not pass their
 * gates would go on with what they have cached.
 */
static bool commit_leaf(const struct doctor *doctor, uint64_t from, uint64_t to,
			struct error *error)
{
	struct ept_edit edit = { .value = leaf_for(doctor, to), .by = EPT_EDIT_GATE };

	edit.old = *leaf_entry(doctor, &edit.entry);
	if (!gate_commit(&doctor->fleet->service, &edit, 1, NULL, error))
		return false;
	memory_drop(&doctor->fleet->memory, page_at(doctor, from), EPT_PAGE_BYTES);
	return true;
}

/* ---- what is tested ---- */

static void test_reading(struct doctor *doctor)
{
	uint64_t word = word_of(doctor, 0);

	say(doctor, verdict(word == 1), "a guest runs and reads the memory file: %llu (1 expected)",
	    (unsigned long long)word);
}

/*
 * Guest 1 has a root of its own, and below it the leaf tables of the file that guest 0 has. Would KVM
 * shadow these four again, it would need more than this allows: KVM may keep a page or two besides.
 */
#define SHADOW_SLACK 2

static void test_two_roots(struct doctor *doctor)
{
	struct fleet *fleet = doctor->fleet;
	uint64_t before = host_shadow_pages(fleet->stats_fd);
	uint64_t word = word_of(doctor, 1);
	uint64_t more = host_shadow_pages(fleet->stats_fd) - before;
	struct ept_space_usage usage;

	ept_space_usage(doctor->guests[1]->space, &usage);
	say(doctor, verdict(word == 1 && usage.tables_alone && usage.tables_shared),
	    "a guest with a root of its own reads it through the same leaf tables: %llu (1 expected)",
	    (unsigned long long)word);
	if (!before)
		say(doctor, DOCTOR_NOTE, "this KVM does not shadow the tables, or keeps no count");
	else
		say(doctor, verdict(more <= usage.tables_alone + SHADOW_SLACK),
		    "two roots on one table use one shadow page: %llu more pages for the %llu tables of its own",
		    (unsigned long long)more, (unsigned long long)usage.tables_alone);
}

static bool test_gate_edit(struct doctor *doctor, struct error *error)
{
	uint64_t words[2];

	if (!commit_leaf(doctor, 0, 1, error))
		return false;
	words[0] = word_of(doctor, 0);
	words[1] = word_of(doctor, 1);
	say(doctor, verdict(words[0] == 2 && words[1] == 2),
	    "an edit through the gate is seen by all who share the table: %llu, %llu (2, 2 expected)",
	    (unsigned long long)words[0], (unsigned long long)words[1]);
	return true;
}

/*
 * The reason for the gate: KVM does not see a store of the VMM's. A KVM that does see it, because it
 * does not shadow these tables, breaks nothing.
 */
static bool test_outside_store(struct doctor *doctor, struct error *error)
{
	struct fpa at;
	uint64_t word;

	atomic_store(leaf_entry(doctor, &at), leaf_for(doctor, 2));
	word = word_of(doctor, 0);
	if (word == 2)
		say(doctor, DOCTOR_PASS,
		    "a store from outside is not seen, which is why the gate exists: still %llu",
		    (unsigned long long)word);
	else
		say(doctor, word == 3 ? DOCTOR_NOTE : DOCTOR_FAIL,
		    "a store from outside was seen (%llu): this KVM does not shadow these tables",
		    (unsigned long long)word);
	if (!commit_leaf(doctor, 1, 0, error))
		return false;
	word = word_of(doctor, 1);
	say(doctor, verdict(word == 1), "the gate sets the entry right again: %llu (1 expected)",
	    (unsigned long long)word);
	return true;
}

/* A private write of guest 2, after its first report, is seen by nobody else. */
static void test_unshare(struct doctor *doctor)
{
	uint64_t first = word_of(doctor, 2);
	uint64_t second = word_of(doctor, 2);

	say(doctor,
	    verdict(first == 1 && second == 99 && word_of(doctor, 0) == 1 &&
		    word_of(doctor, 1) == 1),
	    "a guest sees its own write, the others do not: %llu, then %llu (1, 99 expected)",
	    (unsigned long long)first, (unsigned long long)second);
}

static void report_violation(void *context, const char *text)
{
	say(context, DOCTOR_FAIL, "%s", text);
}

static void test_invariants(struct doctor *doctor)
{
	if (!ept_check(doctor->fleet->ept, report_violation, doctor))
		say(doctor, DOCTOR_PASS, "the checker finds no violated invariant");
}

static bool run_tests(struct doctor *doctor, struct error *error)
{
	test_reading(doctor);
	test_two_roots(doctor);
	if (!test_gate_edit(doctor, error) || !test_outside_store(doctor, error))
		return false;
	test_unshare(doctor);
	test_invariants(doctor);
	return true;
}

bool doctor_test(enum engine engine, doctor_report report, void *context, struct error *error)
{
	struct doctor doctor = {
		.report = report,
		.context = context,
		.file.fd = -1,
		.program.image.fd = -1,
	};
	bool ran = make_fleet(&doctor, engine, error) && run_tests(&doctor, error);

	release(&doctor);
	if (!ran)
		return false;
	error->text[0] = 0;
	error->exit = EXIT_INVARIANT;
	return !doctor.failed;
}
