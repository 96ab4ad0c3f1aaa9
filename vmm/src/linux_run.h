/* SPDX-License-Identifier: MIT */
/*
 * Runs Linux guests to their end: one with its serial port on stdin and stdout, or several that begin
 * from the same memory, whose lines come out with their numbers. All may be clones of a template.
 */
#ifndef VMM_LINUX_RUN_H
#define VMM_LINUX_RUN_H

#include "board.h"
#include "gate.h"
#include "linux_guest.h"
#include "report.h"
#include "options.h"

struct linux_run {
	struct linux_request guest; /* what they boot from, unless they are */
	const char *template;	    /* clones of this one, */
	const char *templates;	    /* of that directory */
	unsigned guests;
	uint64_t every_ns; /* from one launch to the next; 0: all at once */
	const char *disks[BOARD_DISKS]; /* FILE, or FILE,ro; of each guest */
	unsigned disk_count;
	bool reboot;  /* the only guest starts anew where it resets */
	bool sharing; /* of tables */
	bool private_memory; /* also with one guest, which can then be frozen while it runs */
	bool json;    /* print one JSON object, and nothing that guests say */
	bool check;   /* look for violations of invariants at the end */
	struct report_options report;
	struct option_net nets[BOARD_NETS];
	unsigned net_count; /* with the disks not more than there are free slots */
	enum engine engine;
	uint64_t deadline_ns; /* when they are ended, by the monotonic clock */
	volatile bool *stop;  /* the user wants an end */
};

/* Returns the exit status, and has said what went wrong. */
int linux_run(const struct linux_run *run);

#endif
