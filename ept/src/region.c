// SPDX-License-Identifier: MIT
/* A space's regions: an array by address, without overlaps. */
#include "ept_internal.h"

#include <stdlib.h>
#include <string.h>

static struct ept_region *regions_of(const struct ept_space *space)
{
	return space->regions.items;
}

/* The first region that ends beyond @gpa, or the number of regions. */
static size_t first_beyond(const struct ept_space *space, struct gpa gpa)
{
	const struct ept_region *regions = regions_of(space);
	size_t low = 0;
	size_t high = space->regions.count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ept_region_end(&regions[middle]).v <= gpa.v)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct ept_region *ept_region_find(const struct ept_space *space, struct gpa gpa)
{
	size_t at = first_beyond(space, gpa);

	if (at == space->regions.count || regions_of(space)[at].start.v > gpa.v)
		return NULL;
	return &regions_of(space)[at];
}

bool ept_region_any(const struct ept_space *space, struct gpa start, struct gpa end)
{
	size_t at = first_beyond(space, start);

	return at < space->regions.count && regions_of(space)[at].start.v < end.v;
}

bool ept_region_covers(const struct ept_space *space, struct gpa start, struct gpa end)
{
	struct gpa at = start;

	while (at.v < end.v) {
		const struct ept_region *region = ept_region_find(space, at);

		if (!region)
			return false;
		at = ept_region_end(region);
	}
	return true;
}

bool ept_region_reserve(struct ept_space *space)
{
	return ept_list_reserve(&space->regions, 2, sizeof(struct ept_region));
}

void ept_region_insert(struct ept_space *space, const struct ept_region *region)
{
	size_t at = first_beyond(space, region->start);
	struct ept_region *regions = regions_of(space);

	assert(space->regions.count < space->regions.capacity);
	memmove(&regions[at + 1], &regions[at],
		(space->regions.count - at) * sizeof(*regions));
	regions[at] = *region;
	space->regions.count++;
}

/* Makes @at a border between regions, if it lies inside one. */
static void split(struct ept_space *space, struct gpa at)
{
	struct ept_region *lower = (struct ept_region *)ept_region_find(space, at);
	struct ept_region upper;

	if (!lower || lower->start.v == at.v)
		return;
	upper = *lower;
	upper.start = at;
	upper.bytes = ept_region_end(lower).v - at.v;
	upper.first = ept_region_page(lower, at);
	lower->bytes = at.v - lower->start.v;
	ept_region_insert(space, &upper);
}

void ept_region_cut(struct ept_space *space, struct gpa start, struct gpa end)
{
	struct ept_region *regions;
	size_t first, last;

	split(space, start);
	split(space, end);
	regions = regions_of(space);
	first = first_beyond(space, start);
	last = first_beyond(space, end);
	if (first == last)
		return;
	memmove(&regions[first], &regions[last],
		(space->regions.count - last) * sizeof(*regions));
	space->regions.count -= last - first;
}

void ept_region_set_rights(struct ept_space *space, struct gpa start, struct gpa end,
			   unsigned rights)
{
	struct ept_region *regions;

	split(space, start);
	split(space, end);
	regions = regions_of(space);
	for (size_t at = first_beyond(space, start); at < first_beyond(space, end); at++)
		regions[at].rights = rights;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = ((const struct ept_region *)a)->start.v;
	uint64_t y = ((const struct ept_region *)b)->start.v;

	return (x > y) - (x < y);
}

void ept_region_move(struct ept_space *space, struct gpa start, struct gpa end, struct gpa to)
{
	struct ept_region *regions;
	size_t first, last;

	split(space, start);
	split(space, end);
	regions = regions_of(space);
	first = first_beyond(space, start);
	last = first_beyond(space, end);
	for (size_t at = first; at < last; at++)
		regions[at].start.v = regions[at].start.v - start.v + to.v;
	qsort(regions, space->regions.count, sizeof(*regions), compare);
}

bool ept_region_copy(struct ept_space *to, const struct ept_space *from)
{
	size_t count = from->regions.count;

	if (count > to->regions.count &&
	    !ept_list_reserve(&to->regions, count - to->regions.count, sizeof(struct ept_region)))
		return false;
	if (count)
		memcpy(to->regions.items, from->regions.items, count * sizeof(struct ept_region));
	to->regions.count = count;
	to->tables_needed = from->tables_needed;
	return true;
}

bool ept_space_region(struct ept_space *space, struct gpa gpa, struct ept_region *out)
{
	const struct ept_region *region;

	pthread_mutex_lock(&space->lock);
	region = ept_region_find(space, gpa);
	if (region)
		*out = *region;
	pthread_mutex_unlock(&space->lock);
	return region;
}
