// SPDX-License-Identifier: MIT
#include "progress.h"

#include <stdio.h>
#include <unistd.h>

void progress_begin(struct progress *progress, const char *what, unsigned long total, bool always)
{
	*progress = (struct progress){
		.shown = (always || isatty(STDERR_FILENO)) && total,
		.total = total,
		.last_percent = 101,
		.what = what,
	};
}

void progress_at(struct progress *progress, unsigned long done)
{
	unsigned long percent;

	if (!progress->shown)
		return;
	percent = done * 100 / progress->total;
	if (percent == progress->last_percent)
		return;
	progress->last_percent = percent;
	fprintf(stderr, "\r%s: %lu of %lu ", progress->what, done, progress->total);
	fflush(stderr);
}

void progress_end(struct progress *progress)
{
	if (progress->shown)
		fprintf(stderr, "\r\033[K");
}
