// SPDX-License-Identifier: MIT
#include "moment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "linux_boot.h"
#include "ops.h"

/* ---- keeping them ---- */

static struct fleet_moment *new_moment(struct fleet *fleet, struct error *error)
{
	struct fleet_moment *moment = calloc(1, sizeof(*moment));

	if (!moment) {
		error_set(error, EXIT_FAILED, "out of memory");
		return NULL;
	}
	moment->users = 1;
	moment->next = fleet->moments;
	fleet->moments = moment;
	return moment;
}

/* Frees a moment that no list has any more. */
static void end_moment(struct fleet_moment *moment)
{
	while (moment->disk_count)
		disk_layers_release(moment->disks[--moment->disk_count]);
	free(moment);
}

static void forget(struct fleet *fleet, struct fleet_moment *moment)
{
	struct fleet_moment **at = &fleet->moments;

	while (*at != moment)
		at = &(*at)->next;
	*at = moment->next;
	if (moment->memory)
		fleet_drop_snapshot(fleet, moment->memory);
	end_moment(moment);
}

/* All of these have fleet.moments_lock held. */
static void release(struct fleet *fleet, struct fleet_moment *moment)
{
	if (moment && --moment->users == 0)
		forget(fleet, moment);
}

static void set_origin(struct guest *guest, struct fleet_moment *moment)
{
	struct fleet_moment *before = guest->origin;

	moment->users++;
	guest->origin = moment;
	release(guest->fleet, before);
}

void fleet_release_moment(struct fleet *fleet, struct fleet_moment *moment)
{
	pthread_mutex_lock(&fleet->moments_lock);
	release(fleet, moment);
	pthread_mutex_unlock(&fleet->moments_lock);
}

bool fleet_first_moment(struct fleet *fleet, struct error *error)
{
	if (!fleet->config.state)
		return true;
	fleet->first_moment = new_moment(fleet, error);
	if (!fleet->first_moment)
		return false;
	fleet->first_moment->state = *fleet->config.state;
	fleet->launch_moment = fleet->first_moment;
	return true;
}

void fleet_end_moments(struct fleet *fleet)
{
	while (fleet->moments) {
		struct fleet_moment *moment = fleet->moments;

		fleet->moments = moment->next;
		end_moment(moment);
	}
}

struct guest *fleet_find_guest(struct fleet *fleet, unsigned id, struct error *error)
{
	unsigned count;

	pthread_mutex_lock(&fleet->moments_lock);
	count = fleet->guest_count;
	pthread_mutex_unlock(&fleet->moments_lock);
	if (id < count)
		return &fleet->guests[id];
	error_set(error, EXIT_NO_SUCH, "there is no guest %u, it runs guests from 0 to %u", id,
		  fleet->config.guests - 1);
	return NULL;
}

/* ---- disks: their guest rests, or has not begun ---- */

static const struct fleet_computer *computer_of(const struct guest *guest)
{
	return &guest->fleet->config.computers[guest->id];
}

static bool freeze_disks(struct guest *guest, struct fleet_moment *moment, struct error *error)
{
	const struct fleet_computer *computer = computer_of(guest);

	for (; moment->disk_count < computer->disk_count; moment->disk_count++)
		if (!disk_freeze(&computer->disks[moment->disk_count],
				 &moment->disks[moment->disk_count], error))
			return false;
	return true;
}

static bool take_disks_back(struct guest *guest, struct error *error)
{
	const struct fleet_computer *computer = computer_of(guest);

	for (unsigned i = 0; i < guest->origin->disk_count; i++)
		if (!disk_go_back(&computer->disks[i], guest->origin->disks[i], error))
			return false;
	return true;
}

bool fleet_take_moment(struct guest *guest, struct error *error)
{
	set_origin(guest, guest->fleet->launch_moment);
	return guest->origin->disk_count ? take_disks_back(guest, error) :
					   freeze_disks(guest, guest->origin, error);
}

void fleet_launch_moment(struct fleet *fleet, struct fleet_moment *moment)
{
	struct fleet_moment *before;

	pthread_mutex_lock(&fleet->moments_lock);
	before = fleet->launch_moment;
	fleet->launch_moment = moment ? moment : fleet->first_moment;
	fleet_launch_from(fleet, moment ? moment->memory : NULL);
	if (moment)
		moment->users++;
	if (before != fleet->first_moment)
		release(fleet, before);
	pthread_mutex_unlock(&fleet->moments_lock);
}

/* ---- freezing ---- */

static bool call_to_rest(struct guest *guest, struct error *error)
{
	if (guest_call_to_rest(guest))
		return true;
	return error_set(error, EXIT_GUEST, "guest %u has ended", guest->id);
}

/* The guest rests. Its memory comes last: nothing can fail behind that. */
static bool take(struct guest *guest, struct fleet_moment *moment, struct error *error)
{
	return guest_save(guest, &moment->state, error) && freeze_disks(guest, moment, error) &&
	       fleet_snapshot(guest->fleet, guest, &moment->memory, error);
}

static bool freeze(struct guest *guest, struct fleet_moment *moment, struct error *error)
{
	bool taken;

	if (!call_to_rest(guest, error))
		return false;
	taken = take(guest, moment, error);
	if (taken)
		set_origin(guest, moment);
	guest_release(guest);
	return taken;
}

static bool may_freeze(const struct fleet *fleet, struct error *error)
{
	if (fleet_guests(&fleet->config) != GATE_LINUX)
		return error_set(error, EXIT_INPUT, "only Linux guests can be frozen while they run");
	if (fleet->config.mode != EPT_PRIVATE)
		return error_set(error, EXIT_INPUT,
				 "the guest's memory is its own: start it with --mode private to freeze it while it runs");
	return true;
}

bool fleet_freeze(struct fleet *fleet, struct guest *guest, struct fleet_moment **out,
		  struct error *error)
{
	struct fleet_moment *moment;

	if (!may_freeze(fleet, error))
		return false;
	pthread_mutex_lock(&fleet->moments_lock);
	moment = new_moment(fleet, error);
	if (moment && !freeze(guest, moment, error)) {
		release(fleet, moment);
		moment = NULL;
	}
	pthread_mutex_unlock(&fleet->moments_lock);
	*out = moment;
	return moment;
}

/* ---- going back ---- */

/* A guest that goes on from where it has been before is another one. */
static bool renew(struct guest *guest, struct error *error)
{
	unsigned char generation[LINUX_GENERATION_BYTES];

	if (getrandom(generation, sizeof(generation), 0) != sizeof(generation))
		return error_set(error, EXIT_FAILED, "no random numbers: %s", strerror(errno));
	if (!guest_write(guest, (struct gpa){ PLATFORM_GENERATION }, generation,
			 sizeof(generation)))
		return error_set(error, EXIT_FAILED, "no private page is free for guest %u",
				 guest->id);
	guest_tell_clone(guest);
	return true;
}

/* The guest rests. */
static bool go_back(struct guest *guest, struct error *error)
{
	if (!fleet_reset(guest->fleet, guest, error))
		return false;
	if (take_disks_back(guest, error) && guest_restore(guest, &guest->origin->state, error) &&
	    renew(guest, error))
		return true;
	guest_stop(guest, GUEST_HOST_ERROR);
	return false;
}

bool fleet_go_back(struct fleet *fleet, struct guest *guest, struct error *error)
{
	bool back;

	pthread_mutex_lock(&fleet->moments_lock);
	if (!guest->origin) {
		back = error_set(error, EXIT_INPUT,
				 "guest %u was neither frozen nor launched from a template",
				 guest->id);
	} else if (call_to_rest(guest, error)) {
		back = go_back(guest, error);
		guest_release(guest);
	} else {
		back = false;
	}
	pthread_mutex_unlock(&fleet->moments_lock);
	return back;
}

/* ---- writing it to a file ---- */

struct frozen_memory {
	const struct fleet *fleet;
	struct ept_space *space;
};

/* platform.h: where a page of the file is in guest-physical memory. */
static struct gpa address_of_page(uint64_t page)
{
	uint64_t at = page * EPT_PAGE_BYTES;

	return (struct gpa){ at < PLATFORM_RAM_HOLE ?
				     at :
				     at - PLATFORM_RAM_HOLE + PLATFORM_RAM_HOLE_END };
}

/* What has no entry has never been touched: it is as it is in the file. */
static bool read_page(void *context, uint64_t page, void *to)
{
	const struct frozen_memory *memory = context;
	struct fpa at;
	unsigned rights;

	if (!ept_space_translate(memory->space, address_of_page(page), &at, &rights))
		return memfile_read_page(memory->fleet->config.file, page, to);
	return memory_read(&memory->fleet->memory, at, to, EPT_PAGE_BYTES);
}

bool fleet_write_memory(const struct fleet *fleet, const struct fleet_moment *moment,
			struct template_writer *writer, struct error *error)
{
	struct frozen_memory frozen = { fleet, moment->memory };
	struct template_memory memory = {
		.bytes = fleet->config.file->bytes,
		.read = read_page,
		.context = &frozen,
	};

	return template_put_memory(writer, &memory, error);
}
