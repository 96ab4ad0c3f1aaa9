/* SPDX-License-Identifier: MIT */
/* Progress of long work, on a terminal; nothing in a pipe. */
#ifndef VMM_PROGRESS_H
#define VMM_PROGRESS_H

#include <stdbool.h>

struct progress {
	bool shown;
	unsigned long total;
	unsigned long last_percent;
	const char *what;
};

/* Begins to show how much of @total is done, if stderr is a terminal or @always. */
void progress_begin(struct progress *progress, const char *what, unsigned long total, bool always);
void progress_at(struct progress *progress, unsigned long done);
void progress_end(struct progress *progress);

#endif
