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

/* What the guest asked for, to its end. */
static bool obey(struct guest *guest)
{
	switch (board_power(guest->board)) {
	case BOARD_OFF:
		guest->status = GUEST_OK;
		return false;
	case BOARD_RESET:
		return guest_end(guest, GUEST_RESET, "it resets");
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

bool access_serve(struct guest *guest, const struct gate_exit *exit)
{
	const struct gate_access *device = &exit->device;
	enum board_bus bus = exit->kind == GATE_EXIT_PORT ? BOARD_PORTS : BOARD_MEMORY;
	uint64_t at = bus == BOARD_PORTS ? device->at : address_of(guest->fleet, device->at);
	unsigned char *data = device->data;

	for (unsigned i = 0; i < device->count; i++)
		access_once(guest, bus, at, device, data + i * device->bytes);
	return obey(guest);
}

void access_work(struct guest *guest)
{
	if (guest->board)
		while (board_work(guest->board) && !seat_stops(guest->seat))
			;
}

void access_called(struct guest *guest)
{
	if (!guest->board)
		return;
	board_called(guest->board);
	access_work(guest);
}

static bool read_memory(void *context, struct gpa from, void *to, size_t bytes)
{
	return guest_read(context, from, to, bytes);
}

static bool write_memory(void *context, struct gpa to, const void *from, size_t bytes)
{
	return guest_write(context, to, from, bytes);
}

static void interrupt(void *context, uint8_t vector)
{
	struct guest *guest = context;

	gate_signal(&guest->seat->vcpu, vector);
}

static void call(void *context)
{
	struct guest *guest = context;

	seat_call(guest->seat);
}

/* What the guest's agent says; what it does not say to us is for people. */
static void hear(void *context, const char *line)
{
	struct guest *guest = context;

	if (strcmp(line, "ready") == 0)
		atomic_store(&guest->ready, true);
	else if (!guest->fleet->config.quiet)
		fprintf(stderr, "guest %u: %s\n", guest->id, line);
}

/* One for all guests of the fleet, and none if they have no networks. */
static bool need_listener(struct fleet *fleet, struct error *error)
{
	if (fleet->config.net_count && !fleet->listener)
		fleet->listener = listener_open(error);
	return fleet->listener || !fleet->config.net_count;
}

bool access_create_board(struct guest *guest, struct error *error)
{
	if (fleet_guests(&guest->fleet->config) != GATE_LINUX)
		return true;
	if (!need_listener(guest->fleet, error))
		return false;
	guest->board = calloc(1, sizeof(*guest->board));
	if (!guest->board)
		return error_set(error, EXIT_FAILED, "out of memory");
	board_init(guest->board, &(struct board_parts){
					 .cpu = { interrupt, guest, call },
					 .memory = { read_memory, write_memory, guest },
					 .output = { console_put, NULL },
					 .disks = guest->fleet->config.disks,
					 .disk_count = guest->fleet->config.disk_count,
					 .nets = guest->fleet->config.nets,
					 .net_count = guest->fleet->config.net_count,
					 .listener = guest->fleet->listener,
					 .hearer = { hear, guest },
				 });
	return true;
}

void access_destroy_board(struct guest *guest)
{
	if (!guest->board)
		return;
	board_destroy(guest->board);
	free(guest->board);
	guest->board = NULL;
}
