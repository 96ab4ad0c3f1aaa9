/* SPDX-License-Identifier: MIT */
/* Runs one Linux guest to its end, with its serial port on stdin and stdout. */
#ifndef VMM_LINUX_RUN_H
#define VMM_LINUX_RUN_H

#include "board.h"
#include "gate.h"
#include "linux_guest.h"
#include "options.h"

struct linux_run {
	struct linux_request guest;
	const char *disks[BOARD_DISKS]; /* FILE, or FILE,ro */
	unsigned disk_count;
	struct option_net nets[BOARD_NETS];
	unsigned net_count; /* with the disks not more than there are free slots */
	bool reboot; /* it starts anew where it resets */
	enum engine engine;
	uint64_t deadline_ns; /* when it is ended, by the monotonic clock */
	volatile bool *stop;  /* the user wants an end */
};

/* Returns the exit status, and has said what went wrong. */
int linux_run(const struct linux_run *run);

#endif
