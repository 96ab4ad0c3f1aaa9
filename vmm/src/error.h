/* SPDX-License-Identifier: MIT */
/* What went wrong, for the user: one line that names the cause and the way out, and an exit status. */
#ifndef VMM_ERROR_H
#define VMM_ERROR_H

#include <stdbool.h>

/* Exit statuses of s2vm, documented in docs/operating.md. */
enum error_exit {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,    /* the operation failed */
	EXIT_INPUT = 2,	    /* usage or input */
	EXIT_CONFIG = 3,    /* bad configuration file */
	EXIT_NO_SUCH = 4,   /* no such fleet, guest or template */
	EXIT_HOST = 5,	    /* this host cannot run it */
	EXIT_GUEST = 6,	    /* a guest ended badly */
	EXIT_INVARIANT = 7, /* an invariant was violated */
};

struct error {
	enum error_exit exit;
	char text[512];
};

/* Fills in @error and returns false, so that a function can end with it. */
__attribute__((format(printf, 3, 4))) bool error_set(struct error *error, enum error_exit exit,
						     const char *format, ...);

/* Prints the line, prefixed with the program's name, to stderr. Returns the exit status. */
int error_print(const struct error *error);

#endif
