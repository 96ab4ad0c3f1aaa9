// SPDX-License-Identifier: MIT
/* Makes templates: boots a guest, waits until it is ready, and freezes it there. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "fleet.h"
#include "linux_template_format.h"
#include "report.h"

/* How often it is looked whether the guest is ready. */
#define LOOK_NS UINT64_C(20000000)

#define WORDS_MAX 256

/* What is waited for. */
struct wish {
	const char *words; /* on the console; NULL for none */
	size_t count;
	char heard[WORDS_MAX]; /* the last @count characters */
	atomic_bool granted;
};

struct maker {
	const struct linux_template_request *request;
	struct template_writer writer;
	struct linux_guest files;
	struct disk disks[BOARD_DISKS];
	unsigned disk_count; /* that are open */
	struct tap taps[BOARD_NETS];
	struct board_net nets[BOARD_NETS];
	unsigned net_count; /* that are open */
	struct wish wish;
	struct linux_template_machine machine;
	struct guest_state state;
};

/* ---- the console ---- */

static void hear(struct wish *wish, char character)
{
	if (!wish->words)
		return;
	memmove(wish->heard, wish->heard + 1, wish->count - 1);
	wish->heard[wish->count - 1] = character;
	if (memcmp(wish->heard, wish->words, wish->count) == 0)
		atomic_store(&wish->granted, true);
}

static void put(void *context, uint8_t byte)
{
	struct maker *maker = context;

	if (!maker->request->quiet)
		console_put(NULL, byte);
	hear(&maker->wish, (char)byte);
}

/* ---- writing it ---- */

static bool write_files(struct maker *maker, struct error *error)
{
	struct template_writer *writer = &maker->writer;
	const struct memfile *memory = &maker->files.memory;

	/* What was written to a disk is in its overlay when that is closed. */
	while (maker->disk_count)
		disk_close(&maker->disks[--maker->disk_count]);
	return linux_template_put(writer, &maker->machine, &maker->state, error) &&
	       template_put_mapping(writer, memory->mapping, memory->bytes, error);
}

/* The guest is at rest, and ends there: its memory stays as its CPU and its devices know it. */
static bool freeze(struct maker *maker, struct guest *guest, struct error *error)
{
	bool saved;

	if (!guest_call_to_rest(guest))
		return error_set(error, EXIT_GUEST, "the guest ended before it could be frozen: %s",
				 guest->report);
	saved = guest_save(guest, &maker->state, error);
	guest_stop(guest, GUEST_STOPPED);
	guest_release(guest);
	fleet_stop(guest->fleet, GUEST_STOPPED);
	maker->machine.engine = guest->fleet->config.engine;
	maker->machine.cpus = maker->state.cpu_count;
	return saved;
}

/* ---- running the guest ---- */

/* One that waits for words does not look at the port. */
static bool is_ready(struct maker *maker, struct guest *guest)
{
	return maker->wish.words ? atomic_load(&maker->wish.granted) :
				   board_take_ready(guest->board);
}

static bool over(const struct linux_template_request *request)
{
	return *request->stop || now_ns() >= request->deadline_ns;
}

/* Until the guest is ready; false if it has ended, or nobody waits any more. */
static bool wait_until_ready(struct maker *maker, struct guest *guest, struct error *error)
{
	const struct linux_template_request *request = maker->request;

	while (!over(request)) {
		if (is_ready(maker, guest))
			return true;
		if (fleet_wait(guest->fleet, now_ns() + LOOK_NS, request->stop))
			return error_set(error, EXIT_GUEST, "the guest ended before it was ready%s%s",
					 *guest->report ? ": " : "", guest->report);
	}
	return error_set(error, EXIT_GUEST, "the guest was not ready %s",
			 *request->stop ? "when it was stopped" : "within its time limit");
}

static bool run_and_freeze(struct maker *maker, struct fleet *fleet, struct error *error)
{
	struct console *console;
	struct guest *guest;
	bool ready;

	if (!fleet_launch(fleet, 0, &guest, error))
		return false;
	console = access_open_console(guest);
	ready = wait_until_ready(maker, guest, error);
	console_close(console);
	return ready && freeze(maker, guest, error);
}

static bool run(struct maker *maker, struct error *error)
{
	const struct fleet_computer computer = {
		.disks = maker->disks,
		.disk_count = maker->disk_count,
		.nets = maker->nets,
		.net_count = maker->net_count,
		.output = { put, maker },
	};
	const struct fleet_config config = {
		.engine = maker->request->engine,
		.guests = 1,
		.cpus = maker->request->guest.cpus,
		.file = &maker->files.memory,
		.mode = EPT_SHARED,
		.linux_start = &maker->files.start,
		.computers = &computer,
	};
	struct fleet *fleet;
	bool frozen;

	if (!fleet_create(&fleet, &config, error))
		return false;
	frozen = run_and_freeze(maker, fleet, error);
	fleet_destroy(fleet);
	return frozen;
}

/* ---- its disks ---- */

/* @wanted is FILE or FILE,ro. */
static bool describe_disk(struct linux_template_disk *disk, const char *wanted,
			  struct error *error)
{
	const char *end = strrchr(wanted, ',');
	char path[LINUX_DISK_PATH];
	char *absolute;

	disk->read_only = end && strcmp(end, ",ro") == 0;
	if (!disk->read_only)
		end = wanted + strlen(wanted);
	if ((size_t)(end - wanted) >= sizeof(path))
		return error_set(error, EXIT_INPUT, "the name of disk %s is too long", wanted);
	memcpy(path, wanted, (size_t)(end - wanted));
	path[end - wanted] = 0;
	absolute = realpath(path, NULL);
	if (!absolute)
		return error_set(error, EXIT_INPUT, "cannot open %s: %s", path, strerror(errno));
	snprintf(disk->path, sizeof(disk->path), "%s", absolute);
	free(absolute);
	return true;
}

/* The base is not written to: what the guest writes is a part of the template. */
static bool open_disk(struct maker *maker, unsigned number, struct error *error)
{
	const struct linux_template_disk *saved = &maker->machine.disks[number];
	struct disk *disk = &maker->disks[number];
	char name[64];
	char *overlay;
	bool opened;

	if (saved->read_only)
		return disk_open(disk, saved->path, DISK_READ_ONLY, error);
	linux_template_disk_name(number, name, sizeof(name));
	if (asprintf(&overlay, "%s/%s", template_path(&maker->writer), name) < 0)
		return error_set(error, EXIT_FAILED, "out of memory");
	opened = disk_open_overlay(disk, saved->path, overlay, error);
	free(overlay);
	return opened;
}

static bool open_disks(struct maker *maker, struct error *error)
{
	const struct linux_template_request *request = maker->request;

	for (; maker->disk_count < request->disk_count; maker->disk_count++)
		if (!describe_disk(&maker->machine.disks[maker->disk_count],
				   request->disks[maker->disk_count], error) ||
		    !open_disk(maker, maker->disk_count, error))
			return false;
	maker->machine.disk_count = maker->disk_count;
	return true;
}

/* ---- its networks ---- */

static bool open_nets(struct maker *maker, struct error *error)
{
	const struct linux_template_request *request = maker->request;

	for (; maker->net_count < request->net_count; maker->net_count++) {
		const struct option_net *wanted = &request->nets[maker->net_count];
		struct board_net *net = &maker->nets[maker->net_count];

		net->tap = &maker->taps[maker->net_count];
		memcpy(net->mac, wanted->mac, sizeof(net->mac));
		if ((!wanted->has_mac && !linux_mac_make(net->mac, error)) ||
		    !tap_open(net->tap, wanted->tap, error))
			return false;
	}
	maker->machine.net_count = maker->net_count;
	return true;
}

static void close_nets(struct maker *maker)
{
	while (maker->net_count)
		tap_close(&maker->taps[--maker->net_count]);
}

/* ---- all of it ---- */

static bool make_files(struct maker *maker, struct error *error)
{
	bool made;

	if (!linux_guest_open(&maker->files, &maker->request->guest, error))
		return false;
	maker->machine.memory = maker->files.memory.bytes;
	made = open_disks(maker, error) && open_nets(maker, error) && run(maker, error) && write_files(maker, error);
	while (maker->disk_count)
		disk_close(&maker->disks[--maker->disk_count]);
	close_nets(maker);
	linux_guest_close(&maker->files);
	return made;
}

static bool make(struct maker *maker, struct error *error)
{
	const struct linux_template_request *request = maker->request;

	if (maker->wish.words &&
	    (maker->wish.count < 1 || maker->wish.count > WORDS_MAX))
		return error_set(error, EXIT_INPUT, "--until is a text of 1 to %d characters",
				 WORDS_MAX);
	if (!template_begin(&maker->writer, request->directory, request->name, error))
		return false;
	if (make_files(maker, error))
		return template_finish(&maker->writer, error);
	template_abort(&maker->writer);
	return false;
}

int linux_template_create(const struct linux_template_request *request)
{
	struct maker *maker = calloc(1, sizeof(*maker));
	struct error error;
	bool made;

	if (!maker) {
		error_set(&error, EXIT_FAILED, "out of memory");
		return error_print(&error);
	}
	maker->request = request;
	maker->wish.words = request->until;
	maker->wish.count = request->until ? strlen(request->until) : 0;
	made = make(maker, &error);
	free(maker);
	return made ? EXIT_DONE : error_print(&error);
}
