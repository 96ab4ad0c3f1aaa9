/* SPDX-License-Identifier: MIT */
/* What a run did, for people and for programs. */
#ifndef VMM_REPORT_H
#define VMM_REPORT_H

#include <jansson.h>

#include "findings.h"
#include "fleet.h"

struct report_options {
	bool headers;
	bool quiet; /* the summary only */
};

/* What each guest did, one line each, and what the fleet took, to stdout. */
void report_run(const struct fleet *fleet, uint64_t elapsed_ns,
		const struct report_options *options);

/* The same as one JSON object of schema s2vm-run-1, with what the checker found, if @findings is not NULL. */
void report_run_json(const struct fleet *fleet, uint64_t elapsed_ns,
		     const struct findings *findings);

/* One line to stderr for each guest that ended badly. */
void report_failures(const struct fleet *fleet);

/* Tables by level, as an object with members pt, pd, pdpt, pml4. */
json_t *report_levels(const struct ept_usage *usage);

/* All tables of a usage, in bytes. */
uint64_t report_table_bytes(const struct ept_usage *usage);

/* Prints a JSON value as a line, and frees it. */
void report_json(json_t *value);

/* A number of bytes as people write it, such as "1.5 MiB", in a buffer of at least 16. */
const char *report_bytes(uint64_t bytes, char *text);

#endif
