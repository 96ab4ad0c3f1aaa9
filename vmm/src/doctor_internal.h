/* SPDX-License-Identifier: MIT */
/* What the doctor's tests have in common. */
#ifndef VMM_DOCTOR_INTERNAL_H
#define VMM_DOCTOR_INTERNAL_H

#include "doctor.h"
#include "doctor_code.h"
#include "fleet.h"

/* The memory file: page i begins with word i + 1. */
#define DOCTOR_FILE_PAGES (DOCTOR_PARTS * (DOCTOR_PART_BYTES / EPT_PAGE_BYTES))

/*
 * Those that are run step by step, two for tables' second lives, and those that run by themselves, in
 * the order in which they are launched.
 */
enum { READER, OWN_ROOT, WRITER, STEPPED, TENANTS = STEPPED, SPIN_READ = TENANTS + 2, SPIN_WRITE,
       SPIN_OWN, DOCTOR_GUESTS };

struct doctor {
	doctor_report report;
	void *context;
	bool failed;
	struct memfile file;
	struct program program;
	struct fleet *fleet;
	struct guest *guests[DOCTOR_GUESTS];
};

__attribute__((format(printf, 3, 4))) void doctor_say(struct doctor *doctor,
						      enum doctor_verdict verdict,
						      const char *format, ...);

static inline enum doctor_verdict doctor_verdict(bool good)
{
	return good ? DOCTOR_PASS : DOCTOR_FAIL;
}

/* The file's first word as a stepped guest reports it next; 0 if it ended. */
unsigned long long doctor_word(const struct doctor *doctor, unsigned id);

/* Where guests see the memory file. */
static const struct gpa doctor_file = { S2VM_FILE_BASE };

/* Where the entry for @gpa lies, in the table of @level that @space has there. */
_Atomic uint64_t *doctor_entry(const struct doctor *doctor, struct ept_space *space,
			       struct gpa gpa, unsigned level, struct fpa *at);

/* Stores one entry through the gate, and nothing else. */
bool doctor_store(const struct doctor *doctor, struct fpa at, uint64_t value, struct error *error);

/* A leaf entry for page @page of the file. */
uint64_t doctor_leaf(const struct doctor *doctor, uint64_t page);
struct fpa doctor_page_at(const struct doctor *doctor, uint64_t page);

/* doctor_running.c: rights taken from guests that run meanwhile. False with @error if it cannot go on. */
bool doctor_test_running(struct doctor *doctor, struct error *error);

#endif
