// SPDX-License-Identifier: MIT
#include "linux_run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "console.h"
#include "fleet.h"
#include "report.h"

static size_t take_input(void *context, const uint8_t *bytes, size_t count)
{
	const struct guest *guest = context;

	return board_input(guest->board, bytes, count);
}

static void take_escape(void *context)
{
	struct guest *guest = context;

	seat_stop(guest->seat, GUEST_STOPPED);
}

static bool run_guest(struct fleet *fleet, const struct linux_run *run, enum guest_status *how,
		      struct error *error)
{
	struct console *console;
	struct guest *guest;

	if (!fleet_launch(fleet, 0, &guest, error))
		return false;
	console = console_open((struct console_input){ take_input, guest, take_escape });
	if (!fleet_wait(fleet, run->deadline_ns, run->stop))
		fleet_stop(fleet, *run->stop ? GUEST_STOPPED : GUEST_TIMEOUT);
	console_close(console);
	*how = guest->status;
	return true;
}

static int status_of(const struct fleet *fleet, enum guest_status how)
{
	if (how == GUEST_OK || how == GUEST_RESET)
		return EXIT_DONE;
	report_failures(fleet);
	return EXIT_GUEST;
}

/* What stays as it is when the guest starts anew. */
struct parts {
	struct disk disks[BOARD_DISKS];
	unsigned disk_count;
	struct tap taps[BOARD_NETS];
	struct board_net nets[BOARD_NETS];
	unsigned net_count;
};

/* One life of the guest, from its start to where it is off or resets. */
static int run_life(const struct linux_run *run, const struct linux_guest *guest,
		    struct parts *parts, enum guest_status *how)
{
	/* There is nobody to share tables with. */
	struct fleet_config config = {
		.engine = run->engine,
		.guests = 1,
		.file = &guest->memory,
		.mode = EPT_SHARED,
		.linux_start = &guest->start,
		.disks = parts->disks,
		.disk_count = parts->disk_count,
		.nets = parts->nets,
		.net_count = parts->net_count,
	};
	struct fleet *fleet;
	struct error error;
	int status;

	if (!fleet_create(&fleet, &config, &error))
		return error_print(&error);
	if (run_guest(fleet, run, how, &error))
		status = status_of(fleet, *how);
	else
		status = error_print(&error);
	fleet_destroy(fleet);
	return status;
}

/* A reset is a new start with memory as it was, in a new fleet. */
static int run_lives(const struct linux_run *run, struct parts *parts)
{
	struct linux_guest guest;
	enum guest_status how;
	struct error error;
	int status;

	do {
		how = GUEST_STOPPED;
		if (!linux_guest_open(&guest, &run->guest, &error))
			return error_print(&error);
		status = run_life(run, &guest, parts, &how);
		linux_guest_close(&guest);
	} while (how == GUEST_RESET && run->reboot && !*run->stop);
	return status;
}

static bool open_disk(struct disk *disk, const char *wanted, struct error *error)
{
	const char *end = strrchr(wanted, ',');
	bool read_only = end && strcmp(end, ",ro") == 0;
	char *path = strndup(wanted, read_only ? (size_t)(end - wanted) : strlen(wanted));
	bool opened;

	if (!path)
		return error_set(error, EXIT_FAILED, "out of memory");
	opened = disk_open(disk, path, read_only ? DISK_READ_ONLY : DISK_WRITABLE, error);
	free(path);
	return opened;
}

/* A new address for each card, marked as one that nobody has assigned (IEEE 802-2014, 8.4). */
static bool make_mac(uint8_t mac[6], struct error *error)
{
	if (getrandom(mac, 6, 0) != 6)
		return error_set(error, EXIT_FAILED, "no random numbers: %s", strerror(errno));
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 0x02);
	return true;
}

static bool open_net(struct board_net *net, struct tap *tap, const struct option_net *wanted,
		     struct error *error)
{
	net->tap = tap;
	memcpy(net->mac, wanted->mac, sizeof(net->mac));
	return (wanted->has_mac || make_mac(net->mac, error)) &&
	       tap_open(tap, wanted->tap, error);
}

static bool open_parts(struct parts *parts, const struct linux_run *run, struct error *error)
{
	for (; parts->disk_count < run->disk_count; parts->disk_count++)
		if (!open_disk(&parts->disks[parts->disk_count], run->disks[parts->disk_count],
			       error))
			return false;
	for (; parts->net_count < run->net_count; parts->net_count++)
		if (!open_net(&parts->nets[parts->net_count], &parts->taps[parts->net_count],
			      &run->nets[parts->net_count], error))
			return false;
	return true;
}

static void close_parts(struct parts *parts)
{
	while (parts->net_count)
		tap_close(&parts->taps[--parts->net_count]);
	while (parts->disk_count)
		disk_close(&parts->disks[--parts->disk_count]);
}

int linux_run(const struct linux_run *run)
{
	struct parts parts = { .disk_count = 0 };
	struct error error;
	int status;

	if (open_parts(&parts, run, &error))
		status = run_lives(run, &parts);
	else
		status = error_print(&error);
	close_parts(&parts);
	return status;
}
