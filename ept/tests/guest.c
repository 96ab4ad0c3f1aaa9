// SPDX-License-Identifier: MIT
/* Guests of the test port: each operation of a space, committed. */
#include "port.h"

#include <stdlib.h>

static void guests_add(struct world *world, struct guest *guest)
{
	unsigned i = 0;

	pthread_mutex_lock(&world->guests_lock);
	while (i < PORT_GUESTS && world->guests[i])
		i++;
	if (i < PORT_GUESTS)
		world->guests[i] = guest;
	pthread_mutex_unlock(&world->guests_lock);
	if (i == PORT_GUESTS)
		port_fail(world, "too many guests");
}

static void guests_remove(struct world *world, const struct guest *guest)
{
	pthread_mutex_lock(&world->guests_lock);
	for (unsigned i = 0; i < PORT_GUESTS; i++)
		if (world->guests[i] == guest)
			world->guests[i] = NULL;
	pthread_mutex_unlock(&world->guests_lock);
}

static struct guest *guest_alloc(struct world *world)
{
	struct guest *guest = calloc(1, sizeof(*guest));

	if (!guest)
		port_fail(world, "no memory for a guest");
	guest->world = world;
	return guest;
}

enum ept_status guest_try_create(struct world *world, uint32_t domain, bool sharing,
				 struct guest **out)
{
	struct ept_space_options options = {.domain = domain, .sharing = sharing};
	struct ept_space *space = NULL;
	enum ept_status status = ept_space_create(world->ept, &options, &space);

	*out = NULL;
	if (status != EPT_OK)
		return status;
	*out = guest_alloc(world);
	(*out)->space = space;
	(*out)->root = ept_space_root(space);
	guests_add(world, *out);
	return EPT_OK;
}

struct guest *guest_create(struct world *world, uint32_t domain, bool sharing)
{
	struct guest *guest;

	if (guest_try_create(world, domain, sharing, &guest) != EPT_OK)
		port_fail(world, "no space for a guest");
	return guest;
}

void guest_destroy(struct guest *guest)
{
	struct world *world = guest->world;

	guests_remove(world, guest);
	ept_space_destroy(guest->space);
	free(guest);
	if (world->check_every && world->operations++ % world->check_every == 0)
		world_check(world);
}

enum ept_status guest_map(struct guest *guest, const struct ept_region *region)
{
	struct ept_change change = {0};

	return world_run(guest->world, &change, ept_space_map(guest->space, region, &change),
			 &guest->last);
}

enum ept_status guest_unmap(struct guest *guest, uint64_t start, uint64_t bytes)
{
	struct ept_change change = {0};
	struct gpa gpa = {start};

	return world_run(guest->world, &change, ept_space_unmap(guest->space, gpa, bytes, &change),
			 &guest->last);
}

enum ept_status guest_protect(struct guest *guest, uint64_t start, uint64_t bytes, unsigned rights)
{
	struct ept_change change = {0};
	struct gpa gpa = {start};

	return world_run(guest->world, &change,
			 ept_space_protect(guest->space, gpa, bytes, rights, &change),
			 &guest->last);
}

enum ept_status guest_fault(struct guest *guest, uint64_t gpa, unsigned access)
{
	struct ept_change change = {0};
	struct gpa at = {gpa};

	return world_run(guest->world, &change, ept_space_fault(guest->space, at, access, &change),
			 &guest->last);
}

enum ept_status guest_clone(struct guest *parent, struct guest **out)
{
	struct ept_change change = {0};
	struct guest *child = guest_alloc(parent->world);
	enum ept_status status;
	struct tally tally;

	status = ept_space_clone(parent->space, &child->space, &change);
	if (status == EPT_OK) {
		child->root = ept_space_root(child->space);
		guests_add(parent->world, child);
	}
	*out = status == EPT_OK ? child : NULL;
	if (status != EPT_OK)
		free(child);
	status = world_run(parent->world, &change, status, &tally);
	/* Threads clone one parent at the same time, and none of them asks for this. */
	if (parent->world->kvm)
		parent->last = tally;
	return status;
}

enum ept_status guest_freeze(struct guest *guest)
{
	struct ept_change change = {0};

	return world_run(guest->world, &change, ept_space_freeze(guest->space, &change),
			 &guest->last);
}

enum ept_status guest_reset(struct guest *guest)
{
	struct ept_change change = {0};

	return world_run(guest->world, &change, ept_space_reset(guest->space, &change),
			 &guest->last);
}

enum ept_status guest_move(struct guest *guest, uint64_t from, uint64_t bytes, uint64_t to)
{
	struct ept_change change = {0};
	struct gpa start = {from};
	struct gpa goal = {to};

	return world_run(guest->world, &change,
			 ept_space_move(guest->space, start, bytes, goal, &change), &guest->last);
}

enum ept_status guest_snapshot(struct guest *guest, struct guest **frozen)
{
	struct ept_change change = {0};
	struct guest *parent = guest_alloc(guest->world);
	enum ept_status status = ept_space_snapshot(guest->space, &parent->space, &change);

	if (status == EPT_OK) {
		parent->root = ept_space_root(parent->space);
		guests_add(guest->world, parent);
	}
	*frozen = status == EPT_OK ? parent : NULL;
	if (status != EPT_OK)
		free(parent);
	return world_run(guest->world, &change, status, &guest->last);
}

void guest_must_read(struct guest *guest, uint64_t gpa, uint64_t value)
{
	uint64_t found = 0;
	enum ept_status status = guest_read(guest, gpa, &found);

	if (status != EPT_OK)
		port_fail(guest->world, "a read at %#llx: %s", (unsigned long long)gpa,
			  ept_status_text(status));
	if (found != value)
		port_fail(guest->world, "read %#llx at %#llx instead of %#llx",
			  (unsigned long long)found, (unsigned long long)gpa,
			  (unsigned long long)value);
}

void guest_must_write(struct guest *guest, uint64_t gpa, uint64_t value)
{
	enum ept_status status = guest_write(guest, gpa, value);

	if (status != EPT_OK)
		port_fail(guest->world, "a write at %#llx: %s", (unsigned long long)gpa,
			  ept_status_text(status));
}

struct ept_region region_of(uint64_t start, uint64_t bytes, uint32_t file, uint64_t page,
			    unsigned rights)
{
	return (struct ept_region){
		.start = {start},
		.bytes = bytes,
		.first = {file, page},
		.rights = rights,
		.mode = EPT_PRIVATE,
	};
}

void guest_must_map(struct guest *guest, uint64_t start, uint64_t bytes, uint32_t file,
		    uint64_t page, unsigned rights)
{
	struct ept_region region = region_of(start, bytes, file, page, rights);
	enum ept_status status = guest_map(guest, &region);

	if (status != EPT_OK)
		port_fail(guest->world, "mapping %#llx: %s", (unsigned long long)start,
			  ept_status_text(status));
}

struct guest *guest_must_clone(struct guest *parent)
{
	struct guest *child;
	enum ept_status status = guest_clone(parent, &child);

	if (status != EPT_OK)
		port_fail(parent->world, "cloning: %s", ept_status_text(status));
	return child;
}

struct fpa guest_table(struct guest *guest, uint64_t gpa, unsigned level)
{
	struct walk walk;

	world_walk(guest->world, ept_space_root(guest->space), (struct gpa){gpa}, &walk);
	return (struct fpa){walk.entries[level].v & ~(uint64_t)(EPT_PAGE_BYTES - 1)};
}

uint64_t guest_entry(struct guest *guest, uint64_t gpa, unsigned level)
{
	struct walk walk;

	world_walk(guest->world, ept_space_root(guest->space), (struct gpa){gpa}, &walk);
	return walk.entries[level].v ? world_load(guest->world, walk.entries[level]) : 0;
}
