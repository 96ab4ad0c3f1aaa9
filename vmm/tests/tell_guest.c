// SPDX-License-Identifier: MIT
/*
 * tell_guest KERNEL INITRD CMDLINE TAP LINE: runs a Linux guest with a network, and when its agent is
 * ready tells it LINE. What the guest writes to its serial port goes to stdout, what its agent says to
 * stderr. For guest-tests/run-linux.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "board.h"
#include "console.h"
#include "fleet.h"
#include "linux_guest.h"

#define LIMIT_NS UINT64_C(300000000000)

static bool wait_until_ready(struct guest *guest, uint64_t deadline_ns)
{
	while (now_ns() < deadline_ns) {
		if (board_take_ready(guest->board))
			return true;
		usleep(10000);
	}
	return false;
}

static int run(struct fleet *fleet, const char *line)
{
	uint64_t deadline_ns = now_ns() + LIMIT_NS;
	struct guest *guest;
	struct error error;
	bool done;

	if (!fleet_launch(fleet, 0, &guest, &error))
		return error_print(&error);
	done = wait_until_ready(guest, deadline_ns) && board_tell(guest->board, line) &&
	       fleet_wait(fleet, deadline_ns, NULL);
	fleet_stop(fleet, GUEST_TIMEOUT);
	return done && guest->status == GUEST_OK ? EXIT_DONE : EXIT_GUEST;
}

static int create_and_run(const struct linux_guest *guest, const struct board_net *net,
			  const char *line)
{
	const struct fleet_computer computer = {
		.output = { console_put, NULL },
		.nets = net,
		.net_count = 1,
	};
	const struct fleet_config config = {
		.engine = ENGINE_AUTO,
		.guests = 1,
		.file = &guest->memory,
		.mode = EPT_SHARED,
		.linux_start = &guest->start,
		.computers = &computer,
	};
	struct fleet *fleet;
	struct error error;
	int status;

	if (!fleet_create(&fleet, &config, &error))
		return error_print(&error);
	status = run(fleet, line);
	fleet_destroy(fleet);
	return status;
}

int main(int argc, char **argv)
{
	const struct linux_request request = {
		.kernel = argv[1],
		.initrd = argc == 6 ? argv[2] : NULL,
		.cmdline = argc == 6 ? argv[3] : NULL,
		.memory = LINUX_MEMORY_DEFAULT,
		.cpus = 1,
	};
	struct linux_guest guest;
	struct tap tap;
	const struct board_net net = { &tap, { 2, 0, 0, 0, 0, 1 } };
	struct error error;
	int status;

	if (argc != 6) {
		fprintf(stderr, "usage: tell_guest KERNEL INITRD CMDLINE TAP LINE\n");
		return EXIT_INPUT;
	}
	if (!tap_open(&tap, argv[4], &error))
		return error_print(&error);
	if (linux_guest_open(&guest, &request, &error)) {
		status = create_and_run(&guest, &net, argv[5]);
		linux_guest_close(&guest);
	} else {
		status = error_print(&error);
	}
	tap_close(&tap);
	return status;
}
