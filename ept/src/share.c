// SPDX-License-Identifier: MIT
/* Whether to share: by the space's own wish, its size, and the number of the event. */
#include "ept_internal.h"

bool ept_space_shares(const struct ept_space *space)
{
	unsigned threshold = space->ept->config.share_threshold;

	return space->options.sharing && (!threshold || space->tables_needed > threshold);
}

bool ept_share_event(struct ept *ept)
{
	uint64_t number = atomic_fetch_add(&ept->stat.share_events, 1);

	return number >= ept->config.share_from &&
	       (!ept->config.share_until || number < ept->config.share_until);
}

/* Tables of @level that regions need; neighbours may need the same one. */
static uint64_t tables_of_level(const struct ept_space *space, unsigned level)
{
	const struct ept_region *regions = space->regions.items;
	uint64_t span = ept_table_span(level);
	uint64_t next = 0; /* the first that has not been counted yet */
	uint64_t tables = 0;

	for (size_t at = 0; at < space->regions.count; at++) {
		uint64_t first = regions[at].start.v / span;
		uint64_t end = (ept_region_end(&regions[at]).v - 1) / span + 1;

		if (first < next)
			first = next;
		if (end > first)
			tables += end - first;
		next = end > next ? end : next;
	}
	return tables;
}

void ept_space_measure(struct ept_space *space)
{
	space->tables_needed = 0;
	for (unsigned level = 1; level < EPT_ROOT_LEVEL; level++)
		space->tables_needed += tables_of_level(space, level);
}

uint64_t ept_space_tables(struct ept_space *space)
{
	uint64_t tables;

	pthread_mutex_lock(&space->lock);
	tables = space->tables_needed;
	pthread_mutex_unlock(&space->lock);
	return tables;
}
