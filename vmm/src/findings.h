/* SPDX-License-Identifier: MIT */
/* What the checker finds in a fleet (docs/sharing.md, "Invariants"). */
#ifndef VMM_FINDINGS_H
#define VMM_FINDINGS_H

#include <jansson.h>

#include "fleet.h"

struct findings {
	json_t *texts;	     /* of the first violations, with the paths on which they were seen */
	uint64_t violations; /* all */
	uint64_t tables;     /* that were looked at */
	uint64_t spaces;     /* the template's is one */
};

/* Looks at a fleet that is paused, or whose guests have all ended. */
void findings_take(struct findings *findings, struct fleet *fleet);

void findings_free(struct findings *findings);

/* A line for each violation, and one that sums up, to stdout, each after @before. */
void findings_print(const struct findings *findings, const char *before);

/* Members tables, spaces, violations, and the texts. */
json_t *findings_json(const struct findings *findings);

#endif
