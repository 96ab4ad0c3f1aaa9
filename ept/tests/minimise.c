// SPDX-License-Identifier: MIT
#include "minimise.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the tries have to say would drown what is left in the end. */
static void be_quiet(void)
{
	int nowhere = open("/dev/null", O_WRONLY);

	dup2(nowhere, STDOUT_FILENO);
	dup2(nowhere, STDERR_FILENO);
}

static bool fails(const uint64_t *operations, size_t count, minimise_run run)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		be_quiet();
		run(operations, count);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child) {
		perror("minimise");
		exit(2);
	}
	return !WIFEXITED(status) || WEXITSTATUS(status);
}

/* @operations without @part of them from @start on. */
static size_t without(const uint64_t *operations, size_t count, size_t start, size_t part,
		      uint64_t *rest)
{
	size_t end = start + part < count ? start + part : count;

	memcpy(rest, operations, start * sizeof(*rest));
	memcpy(rest + start, operations + end, (count - end) * sizeof(*rest));
	return start + count - end;
}

size_t minimise(uint64_t *operations, size_t count, minimise_run run)
{
	uint64_t *rest = malloc(count * sizeof(*rest));
	size_t part = count / 2;

	if (!fails(operations, count, run))
		count = 0;
	while (count && part) {
		bool shorter = false;

		for (size_t start = 0; start < count;) {
			size_t left = without(operations, count, start, part, rest);

			if (left < count && fails(rest, left, run)) {
				memcpy(operations, rest, left * sizeof(*rest));
				count = left;
				shorter = true;
			} else {
				start += part;
			}
		}
		/* What could not go before may be able to now; single ones are tried until none can. */
		if (part > 1)
			part /= 2;
		else if (!shorter)
			part = 0;
	}
	free(rest);
	return count;
}
