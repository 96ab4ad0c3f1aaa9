// SPDX-License-Identifier: MIT
/*
 * Guest memory, for calls and devices: by way of the guest's own tables, so that what is read is
 * what the guest would read, and what is written is unshared as the guest's own writes are. For any
 * thread whose vCPU, if it has one, is out; the guest's other CPUs run meanwhile.
 */
#include <string.h>

#include "fleet.h"

/* Makes one page accessible, as an access of the guest's own would. */
static bool fill_in(struct guest *guest, struct gpa gpa, unsigned access)
{
	struct ept_change change = { 0 };
	enum ept_status status;
	struct error error;
	bool done;

	do
		status = ept_space_fault(guest->space, gpa, access, &change);
	while ((status == EPT_NO_TABLE || status == EPT_NO_PAGE) && fleet_scrub(guest->fleet));
	done = status == EPT_OK && fleet_commit(guest->fleet, NULL, &change, &error);
	ept_change_free(&change);
	return done;
}

/* Where the guest has a page, with the right to @access it. */
static bool find(struct guest *guest, struct gpa gpa, unsigned access, struct fpa *at)
{
	struct ept_region region;
	unsigned rights;

	if (!ept_space_region(guest->space, gpa, &region))
		return false;
	if (ept_space_translate(guest->space, gpa, at, &rights) && rights & access)
		return true;
	return fill_in(guest, gpa, access) &&
	       ept_space_translate(guest->space, gpa, at, &rights) && rights & access;
}

/* Of @bytes from @gpa on, those that lie in its page. */
static uint64_t within_page(struct gpa gpa, uint64_t bytes)
{
	uint64_t rest = EPT_PAGE_BYTES - gpa.v % EPT_PAGE_BYTES;

	return bytes < rest ? bytes : rest;
}

static bool is_still_at(struct guest *guest, struct gpa gpa, struct fpa at)
{
	struct fpa now;
	unsigned rights;

	return ept_space_translate(guest->space, gpa, &now, &rights) && now.v == at.v;
}

/*
 * Reads what lies within one page. If another CPU has got a copy of the page meanwhile, the old one may
 * have found another use. A page that the guest may write to stays where it is.
 */
static bool read_part(struct guest *guest, struct gpa gpa, unsigned char *to, uint64_t bytes)
{
	struct fpa from;

	do {
		if (!find(guest, gpa, EPT_READ, &from) ||
		    !memory_read(&guest->fleet->memory, from, to, bytes))
			return false;
	} while (!is_still_at(guest, gpa, from));
	return true;
}

static bool copy_from(struct guest *guest, struct gpa gpa, unsigned char *to, uint64_t bytes)
{
	while (bytes) {
		uint64_t part = within_page(gpa, bytes);

		if (!read_part(guest, gpa, to, part))
			return false;
		to += part;
		gpa.v += part;
		bytes -= part;
	}
	return true;
}

static bool copy_to(struct guest *guest, struct gpa gpa, const unsigned char *from, uint64_t bytes)
{
	while (bytes) {
		uint64_t part = within_page(gpa, bytes);
		struct fpa to;

		if (!find(guest, gpa, EPT_WRITE, &to) ||
		    !memory_write(&guest->fleet->memory, to, from, part))
			return false;
		from += part;
		gpa.v += part;
		bytes -= part;
	}
	return true;
}

/* With the fleet's memory lock, for an operator may take the memory away at any time. */
bool guest_read(struct guest *guest, struct gpa from, void *to, uint64_t bytes)
{
	bool copied;

	pthread_rwlock_rdlock(&guest->fleet->memory_lock);
	copied = copy_from(guest, from, to, bytes);
	pthread_rwlock_unlock(&guest->fleet->memory_lock);
	return copied;
}

bool guest_write(struct guest *guest, struct gpa to, const void *from, uint64_t bytes)
{
	bool copied;

	pthread_rwlock_rdlock(&guest->fleet->memory_lock);
	copied = copy_to(guest, to, from, bytes);
	pthread_rwlock_unlock(&guest->fleet->memory_lock);
	return copied;
}
