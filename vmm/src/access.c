// SPDX-License-Identifier: MIT
/* Between a Linux guest's vCPU and its devices. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "board.h"
#include "console.h"
#include "fleet.h"
#include "platform.h"

/* The guest's own address for one in the window without memory. */
static uint64_t address_of(const struct fleet *fleet, uint64_t fleet_physical)
{
	return fleet_physical - fleet->memory.hole.v + PLATFORM_RAM_HOLE;
}

bool access_end_panicked(struct seat *seat)
{
	struct board_last_words words;

	board_last_words(seat->owner->board, &words);
	return guest_end(seat, GUEST_FAILED, "its kernel panicked%s%s", *words.panic ? ": " : "",
			 words.panic);
}

/* One that panicked before, and was told to reset then (panic=), is no guest that wants to. */
static bool end_reset(struct seat *seat)
{
	if (board_panicked_ns(seat->owner->board))
		return access_end_panicked(seat);
	return guest_end(seat, GUEST_RESET, "it resets");
}

/* What the guest asked for, to its end. */
static bool obey(struct seat *seat)
{
	switch (board_power(seat->owner->board)) {
	case BOARD_OFF:
		return guest_done(seat);
	case BOARD_RESET:
		return end_reset(seat);
	case BOARD_EXITED:
		return guest_exit(seat, board_exit_status(seat->owner->board));
	case BOARD_PANICKED:
		return access_end_panicked(seat);
	default:
		return true;
	}
}

/* KVM emulates an access of any size up to 8; those that a device knows have a power of two. */
static void access_once(struct guest *guest, enum board_bus bus, uint64_t at,
			const struct gate_access *device, unsigned char *data)
{
	struct device_access access = {
		.offset = at,
		.bytes = device->bytes,
		.write = device->write,
	};

	if (device->bytes & (device->bytes - 1)) {
		if (!device->write)
			memset(data, 0xff, device->bytes);
		return;
	}
	if (device->write)
		memcpy(&access.value, data, device->bytes);
	board_access(guest->board, bus, &access);
	if (!device->write)
		memcpy(data, &access.value, device->bytes);
}

bool access_serve(struct seat *seat, const struct gate_exit *exit)
{
	const struct gate_access *device = &exit->device;
	enum board_bus bus = exit->kind == GATE_EXIT_PORT ? BOARD_PORTS : BOARD_MEMORY;
	uint64_t at = bus == BOARD_PORTS ? device->at : address_of(seat->fleet, device->at);
	unsigned char *data = device->data;

	for (unsigned i = 0; i < device->count; i++)
		access_once(seat->owner, bus, at, device, data + i * device->bytes);
	return obey(seat);
}

void access_work(struct seat *seat)
{
	struct board *board = seat->owner->board;

	while (board && board_work(board) && !seat_stops(seat))
		;
}

void access_called(struct seat *seat)
{
	if (!seat->owner->board)
		return;
	board_called(seat->owner->board);
	access_work(seat);
}

static bool read_memory(void *context, struct gpa from, void *to, size_t bytes)
{
	return guest_read(context, from, to, bytes);
}

static bool write_memory(void *context, struct gpa to, const void *from, size_t bytes)
{
	return guest_write(context, to, from, bytes);
}

static void interrupt(void *context, unsigned cpu, uint8_t vector)
{
	struct guest *guest = context;

	gate_signal(&guest->seat[cpu].vcpu, vector);
}

static void call(void *context)
{
	struct guest *guest = context;

	seat_call(guest->seat);
}

/* The agent measures how long that took: only then it knows what the answer is worth. */
static void tell_time(struct guest *guest)
{
	struct timespec now;
	char line[64];
	int count;

	clock_gettime(CLOCK_REALTIME, &now);
	count = snprintf(line, sizeof(line), "time %lld.%06ld\n", (long long)now.tv_sec,
			 now.tv_nsec / 1000);
	virtio_console_send(&guest->board->control, line, (size_t)count);
	call(guest);
}

/* What the guest's agent says, with the board locked; what it does not say to us is for people. */
static void hear(void *context, const char *line)
{
	struct guest *guest = context;

	if (strcmp(line, "ready") == 0)
		guest->board->ready = true;
	else if (strcmp(line, "time?") == 0)
		tell_time(guest);
	else if (!guest->fleet->config.quiet)
		fprintf(stderr, "guest %u: %s\n", guest->id, line);
}

/* One for all guests of the fleet, and none if they have no networks. */
static bool need_listener(struct fleet *fleet, const struct fleet_computer *computer,
			  struct error *error)
{
	if (computer->net_count && !fleet->listener)
		fleet->listener = listener_open(error);
	return fleet->listener || !computer->net_count;
}

bool access_create_board(struct guest *guest, struct error *error)
{
	const struct fleet_computer *computer;

	if (fleet_guests(&guest->fleet->config) != GATE_LINUX)
		return true;
	computer = &guest->fleet->config.computers[guest->id];
	if (!need_listener(guest->fleet, computer, error))
		return false;
	guest->board = calloc(1, sizeof(*guest->board));
	if (!guest->board)
		return error_set(error, EXIT_FAILED, "out of memory");
	board_init(guest->board, &(struct board_parts){
					 .cpus = { interrupt, guest, guest->cpus, call },
					 .memory = { read_memory, write_memory, guest },
					 .output = computer->output,
					 .disks = computer->disks,
					 .disk_count = computer->disk_count,
					 .nets = computer->nets,
					 .net_count = computer->net_count,
					 .listener = guest->fleet->listener,
					 .hearer = { hear, guest },
				 });
	return true;
}

static size_t take_input(void *context, const uint8_t *bytes, size_t count)
{
	const struct guest *guest = context;

	return board_input(guest->board, bytes, count);
}

static void take_escape(void *context)
{
	struct guest *guest = context;

	guest_stop(guest, GUEST_STOPPED);
}

struct console *access_open_console(struct guest *guest)
{
	return console_open((struct console_input){ take_input, guest, take_escape });
}

void access_destroy_board(struct guest *guest)
{
	if (!guest->board)
		return;
	board_destroy(guest->board);
	free(guest->board);
	guest->board = NULL;
}
