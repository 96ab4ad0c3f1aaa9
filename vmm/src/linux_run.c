// SPDX-License-Identifier: MIT
#include "linux_run.h"

#include <stdlib.h>
#include <string.h>

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

/* One life of the guest, from its start to where it is off or resets. */
static int run_life(const struct linux_run *run, const struct linux_guest *guest,
		    struct disk *disks, enum guest_status *how)
{
	/* There is nobody to share tables with. */
	struct fleet_config config = {
		.engine = run->engine,
		.guests = 1,
		.file = &guest->memory,
		.mode = EPT_SHARED,
		.linux_start = &guest->start,
		.disks = disks,
		.disk_count = run->disk_count,
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

/* A reset is a new start with memory as it was, in a new fleet. The disks stay as they are. */
static int run_lives(const struct linux_run *run, struct disk *disks)
{
	struct linux_guest guest;
	enum guest_status how;
	struct error error;
	int status;

	do {
		how = GUEST_STOPPED;
		if (!linux_guest_open(&guest, &run->guest, &error))
			return error_print(&error);
		status = run_life(run, &guest, disks, &how);
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

int linux_run(const struct linux_run *run)
{
	struct disk disks[BOARD_DISKS];
	unsigned opened = 0;
	struct error error;
	int status;

	while (opened < run->disk_count && open_disk(&disks[opened], run->disks[opened], &error))
		opened++;
	if (opened < run->disk_count)
		status = error_print(&error);
	else
		status = run_lives(run, disks);
	while (opened)
		disk_close(&disks[--opened]);
	return status;
}
