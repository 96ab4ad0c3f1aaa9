// SPDX-License-Identifier: MIT
#include "doctor.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor_internal.h"
#include "ept/check.h"

extern const unsigned char doctor_code[], doctor_code_end[];

void doctor_say(struct doctor *doctor, enum doctor_verdict verdict, const char *format, ...)
{
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	doctor->failed = doctor->failed || verdict == DOCTOR_FAIL;
	doctor->report(doctor->context, verdict, text);
}

/* ---- the fleet under test ---- */

static bool make_file(struct doctor *doctor, struct error *error)
{
	uint64_t *words;

	if (!memfile_create(&doctor->file, "self-test", DOCTOR_FILE_PAGES * EPT_PAGE_BYTES, error))
		return false;
	words = doctor->file.mapping;
	for (uint64_t page = 0; page < DOCTOR_FILE_PAGES; page++)
		words[page * EPT_PAGE_BYTES / sizeof(*words)] = page + 1;
	return memfile_seal(&doctor->file, error);
}

static bool make_fleet(struct doctor *doctor, enum engine engine, struct error *error)
{
	static const uint64_t roles[STEPPED] = {
		[READER] = DOCTOR_READ,
		[OWN_ROOT] = DOCTOR_OWN_ROOT,
		[WRITER] = DOCTOR_WRITE,
	};
	struct fleet_config config = {
		.engine = engine,
		.guests = DOCTOR_GUESTS,
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
	for (unsigned id = 0; id < STEPPED; id++)
		if (!fleet_prepare(doctor->fleet, roles[id], &doctor->guests[id], error))
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

/* A guest's next report: the first word of each part of the file; zeros if it ended. */
struct words {
	unsigned long long at[DOCTOR_PARTS];
};

static struct words words_of(const struct doctor *doctor, unsigned id)
{
	struct guest *guest = doctor->guests[id];
	struct words words = { 0 };

	if (!guest_step(guest))
		return words;
	for (unsigned at = 0; at < sizeof(guest->result); at++)
		words.at[at / 8] = words.at[at / 8] << 8 | guest->result[at];
	return words;
}

unsigned long long doctor_word(const struct doctor *doctor, unsigned id)
{
	return words_of(doctor, id).at[0];
}

/* ---- entries ---- */

_Atomic uint64_t *doctor_entry(const struct doctor *doctor, struct ept_space *space,
			       struct gpa gpa, unsigned level, struct fpa *at)
{
	const struct ept_format *format = gate_format(&doctor->fleet->gate);
	struct fpa table = ept_space_root(space);
	_Atomic uint64_t *entry;

	for (unsigned here = EPT_ROOT_LEVEL;; here--) {
		at->v = table.v + ept_entry_index(gpa, here) * sizeof(uint64_t);
		entry = memory_at(&doctor->fleet->memory, *at);
		if (here == level)
			return entry;
		table = ept_entry_target(format, atomic_load(entry));
	}
}

bool doctor_store(const struct doctor *doctor, struct fpa at, uint64_t value, struct error *error)
{
	struct ept_edit edit = { .entry = at, .value = value, .by = EPT_EDIT_GATE };

	return gate_commit(&doctor->fleet->service, &edit, 1, NULL, error);
}

struct fpa doctor_page_at(const struct doctor *doctor, uint64_t page)
{
	struct fpa window = doctor->fleet->memory.windows[doctor->fleet->file_number];

	return (struct fpa){ window.v + page * EPT_PAGE_BYTES };
}

uint64_t doctor_leaf(const struct doctor *doctor, uint64_t page)
{
	return ept_entry_leaf(gate_format(&doctor->fleet->gate), doctor_page_at(doctor, page),
			      EPT_READ);
}

/*
 * Shows page @to of the file instead of page @from: the gate stores the entry, and the page that was
 * there is dropped from all translations, because guests that do not pass their gates would go on
 * with what they have cached.
 */
static bool commit_leaf(const struct doctor *doctor, uint64_t from, uint64_t to,
			struct error *error)
{
	struct fpa at;

	doctor_entry(doctor, doctor->guests[READER]->space, doctor_file, 1, &at);
	if (!doctor_store(doctor, at, doctor_leaf(doctor, to), error))
		return false;
	memory_drop(&doctor->fleet->memory, doctor_page_at(doctor, from), EPT_PAGE_BYTES);
	return true;
}

/* ---- guests that are stepped ---- */

/* Whether the engine runs guests at all: what it cannot run it cannot harm. */
static bool test_reading(struct doctor *doctor)
{
	struct words words = words_of(doctor, READER);
	struct guest *guest = doctor->guests[READER];

	if (guest->status != GUEST_RUNNING) {
		doctor_say(doctor, DOCTOR_NOTE, "engine %s cannot run guests here: %s",
			   engine_name(doctor->fleet->config.engine), guest->report);
		return false;
	}
	doctor_say(doctor,
		   doctor_verdict(words.at[0] == 1 && words.at[1] == 513 && words.at[2] == 1025 &&
				  words.at[3] == 1537),
		   "a guest runs and reads the memory file: %llu, %llu, %llu, %llu (1, 513, 1025, 1537 expected)",
		   words.at[0], words.at[1], words.at[2], words.at[3]);
	return true;
}

/*
 * The guest has a root of its own, and below it the leaf tables of the file that others have. Would KVM
 * shadow these again, it would need more than this allows: KVM may keep a page or two besides.
 */
#define SHADOW_SLACK 2

static void test_two_roots(struct doctor *doctor)
{
	struct fleet *fleet = doctor->fleet;
	uint64_t before = host_shadow_pages(fleet->stats_fd);
	unsigned long long word = doctor_word(doctor, OWN_ROOT);
	uint64_t more = host_shadow_pages(fleet->stats_fd) - before;
	struct ept_space_usage usage;

	ept_space_usage(doctor->guests[OWN_ROOT]->space, &usage);
	doctor_say(doctor, doctor_verdict(word == 1 && usage.tables_alone && usage.tables_shared),
		   "a guest with a root of its own reads it through the same leaf tables: %llu (1 expected)",
		   word);
	if (!before)
		doctor_say(doctor, DOCTOR_NOTE,
			   "this KVM does not shadow the tables, or keeps no count");
	else
		doctor_say(doctor, doctor_verdict(more <= usage.tables_alone + SHADOW_SLACK),
			   "two roots on one table use one shadow page: %llu more pages for the %llu tables of its own",
			   (unsigned long long)more, (unsigned long long)usage.tables_alone);
}

static bool test_gate_edit(struct doctor *doctor, struct error *error)
{
	unsigned long long words[2];

	if (!commit_leaf(doctor, 0, 1, error))
		return false;
	words[0] = doctor_word(doctor, READER);
	words[1] = doctor_word(doctor, OWN_ROOT);
	doctor_say(doctor, doctor_verdict(words[0] == 2 && words[1] == 2),
		   "an edit through the gate is seen by all who share the table: %llu, %llu (2, 2 expected)",
		   words[0], words[1]);
	return true;
}

/*
 * The reason for the gate: KVM does not see a store of the VMM's. A KVM that does see it, because it
 * does not shadow these tables, breaks nothing.
 */
static bool test_outside_store(struct doctor *doctor, struct error *error)
{
	unsigned long long word;
	struct fpa at;

	atomic_store(doctor_entry(doctor, doctor->guests[READER]->space, doctor_file, 1, &at),
		     doctor_leaf(doctor, 2));
	word = doctor_word(doctor, READER);
	if (word == 2)
		doctor_say(doctor, DOCTOR_PASS,
			   "a store from outside is not seen, which is why the gate exists: still %llu",
			   word);
	else
		doctor_say(doctor, word == 3 ? DOCTOR_NOTE : DOCTOR_FAIL,
			   "a store from outside was seen (%llu): this KVM does not shadow these tables",
			   word);
	if (!commit_leaf(doctor, 1, 0, error))
		return false;
	word = doctor_word(doctor, OWN_ROOT);
	doctor_say(doctor, doctor_verdict(word == 1),
		   "the gate sets the entry right again: %llu (1 expected)", word);
	return true;
}

/*
 * Private writes are seen by nobody else. The first makes the guest a path of its own; the second then
 * makes an upper entry of this path, through which the guest has read, point at another table. This is
 * where a KVM that does not notice an edit lets the others read the writer's memory.
 */
static void test_unshare(struct doctor *doctor)
{
	unsigned long long first = doctor_word(doctor, WRITER);
	unsigned long long second = doctor_word(doctor, WRITER);
	struct words writer = words_of(doctor, WRITER);
	struct words reader = words_of(doctor, READER);
	struct words own = words_of(doctor, OWN_ROOT);

	doctor_say(doctor,
		   doctor_verdict(first == 1 && second == DOCTOR_WRITTEN && reader.at[0] == 1 &&
				  own.at[0] == 1),
		   "a guest sees its own write, the others do not: %llu, then %llu; %llu, %llu (1, 99; 1, 1 expected)",
		   first, second, reader.at[0], own.at[0]);
	doctor_say(doctor,
		   doctor_verdict(writer.at[1] == DOCTOR_WRITTEN && reader.at[1] == 513 &&
				  own.at[1] == 513),
		   "the same where an upper entry changes: %llu; %llu, %llu (99; 513, 513 expected)",
		   writer.at[1], reader.at[1], own.at[1]);
}

/* ---- shadow pages ---- */

/* Marks the tables that entries of @table, which is at @level, point at. */
static void mark_children(const struct doctor *doctor, unsigned char *level_of, uint64_t table,
			  unsigned level)
{
	const struct memory_area *tables = &doctor->fleet->memory.tables;
	const uint64_t *entries = (const uint64_t *)(tables->mapping + table * EPT_PAGE_BYTES);

	for (unsigned index = 0; index < EPT_ENTRIES; index++) {
		uint64_t offset = ept_entry_target(gate_format(&doctor->fleet->gate),
						   entries[index]).v - tables->at.v;

		if (ept_entry_present(entries[index]) && offset < tables->bytes)
			level_of[offset / EPT_PAGE_BYTES] = (unsigned char)(level - 1);
	}
}

/* Distinct tables that hardware reaches from the roots of guests that have run. */
static uint64_t count_tables(const struct doctor *doctor)
{
	const struct memory_area *tables = &doctor->fleet->memory.tables;
	uint64_t limit = tables->bytes / EPT_PAGE_BYTES;
	unsigned char *level_of = calloc(limit, 1);
	uint64_t count = 0;

	if (!level_of)
		return 0;
	for (unsigned id = 0; id < STEPPED; id++) {
		struct fpa root = ept_space_root(doctor->guests[id]->space);

		level_of[(root.v - tables->at.v) / EPT_PAGE_BYTES] = EPT_ROOT_LEVEL;
	}
	for (unsigned level = EPT_ROOT_LEVEL; level > 1; level--)
		for (uint64_t table = 0; table < limit; table++)
			if (level_of[table] == level)
				mark_children(doctor, level_of, table, level);
	for (uint64_t table = 0; table < limit; table++)
		count += level_of[table] != 0;
	free(level_of);
	return count;
}

/*
 * Beside the guests' tables KVM shadows those of the gate under the direct engine: the service vCPU's
 * root, the window's three, and a page for each 2 MiB of it that is mapped by one entry and was used.
 * The others' guests have had the template's root until their first fault.
 */
#define SHADOW_GATE 8

static void test_shadow_pages(struct doctor *doctor)
{
	uint64_t tables = count_tables(doctor);
	uint64_t pages = host_shadow_pages(doctor->fleet->stats_fd);

	if (!pages)
		return;
	doctor_say(doctor, doctor_verdict(tables && pages <= tables + SHADOW_GATE),
		   "KVM has one shadow page for each table: %llu pages for %llu tables (up to %d more expected)",
		   (unsigned long long)pages, (unsigned long long)tables, SHADOW_GATE);
}

/* ---- a table's second life ---- */

/* The leaf table that a guest has for part @part of the file. */
static uint64_t leaf_table(const struct doctor *doctor, const struct guest *guest, unsigned part)
{
	struct gpa gpa = { S2VM_FILE_BASE + part * (uint64_t)DOCTOR_PART_BYTES };
	struct fpa at;

	doctor_entry(doctor, guest->space, gpa, 1, &at);
	return at.v & ~(uint64_t)(EPT_PAGE_BYTES - 1);
}

/* Parts that the first tenant writes to, and the one that the second does. */
#define FIRST_PARTS 3
#define SECOND_PART 3

/*
 * A guest that owns tables, leaf tables of three parts among them, ends; scrubbed, they become those of
 * another, which has another part at the same places. KVM has kept its shadows of them.
 */
static bool test_second_life(struct doctor *doctor, struct error *error)
{
	const uint64_t first = DOCTOR_TENANT | FIRST_PARTS << DOCTOR_END_SHIFT;
	const uint64_t second = DOCTOR_TENANT | SECOND_PART << DOCTOR_FIRST_SHIFT |
				(SECOND_PART + 1) << DOCTOR_END_SHIFT;
	struct guest **tenants = &doctor->guests[TENANTS];
	uint64_t leaves[FIRST_PARTS], leaf;
	unsigned long long words[2];
	bool reused = false;

	if (!fleet_prepare(doctor->fleet, first, &tenants[0], error))
		return false;
	words[0] = doctor_word(doctor, TENANTS);
	for (unsigned part = 0; part < FIRST_PARTS; part++)
		leaves[part] = leaf_table(doctor, tenants[0], part);
	ept_space_destroy(tenants[0]->space);
	tenants[0]->space = NULL;
	while (fleet_scrub(doctor->fleet))
		;
	if (!fleet_prepare(doctor->fleet, second, &tenants[1], error))
		return false;
	words[1] = doctor_word(doctor, TENANTS + 1);
	leaf = leaf_table(doctor, tenants[1], SECOND_PART);
	for (unsigned part = 0; part < FIRST_PARTS; part++)
		reused = reused || leaves[part] == leaf;
	doctor_say(doctor, doctor_verdict(words[0] == 1027 && words[1] == 1539 && reused),
		   "a leaf table of a guest that ended%s shows its next owner nothing old: %llu, then %llu (1027, 1539 expected)",
		   reused ? "" : " is NOT reused, or", words[0], words[1]);
	return true;
}

/* ---- all of it ---- */

static void report_violation(void *context, const char *text)
{
	doctor_say(context, DOCTOR_FAIL, "%s", text);
}

static void test_invariants(struct doctor *doctor)
{
	if (!ept_check(doctor->fleet->ept, report_violation, doctor))
		doctor_say(doctor, DOCTOR_PASS, "the checker finds no violated invariant");
}

static bool run_tests(struct doctor *doctor, struct error *error)
{
	test_two_roots(doctor);
	if (!test_gate_edit(doctor, error) || !test_outside_store(doctor, error))
		return false;
	test_unshare(doctor);
	test_shadow_pages(doctor);
	/* Where edits get lost, what guests do next can be anything, and for ever. */
	if (doctor->failed)
		return true;
	if (!test_second_life(doctor, error) || !doctor_test_running(doctor, error))
		return false;
	test_invariants(doctor);
	return true;
}

enum doctor_outcome doctor_test(enum engine engine, doctor_report report, void *context,
				struct error *error)
{
	struct doctor doctor = {
		.report = report,
		.context = context,
		.file.fd = -1,
		.program.image.fd = -1,
	};
	enum doctor_outcome outcome = DOCTOR_ERROR;

	if (make_fleet(&doctor, engine, error)) {
		if (!test_reading(&doctor))
			outcome = DOCTOR_CANNOT_RUN;
		else if (run_tests(&doctor, error))
			outcome = DOCTOR_TRUSTED;
	}
	release(&doctor);
	return outcome != DOCTOR_ERROR && doctor.failed ? DOCTOR_NOT_TRUSTED : outcome;
}
