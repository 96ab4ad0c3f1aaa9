// SPDX-License-Identifier: MIT
/*
 * The ring of events. A writer takes a number and fills the slot that it stands for; a reader takes a slot
 * whose number is the same before and after, so writers never wait.
 */
#include "ept/trace.h"
#include "ept_internal.h"

#include <stdlib.h>

struct slot {
	_Atomic uint64_t number; /* plus 1; 0 while it is written */
	_Atomic uint64_t table_and_space;
	_Atomic uint64_t count_level_kind;
};

struct ept_trace {
	_Atomic uint64_t next;
	uint32_t capacity;
	struct slot slots[];
};

const char *ept_event_name(enum ept_event_kind kind)
{
	static const char *const names[] = {
		[EPT_EVENT_FILL] = "fill",   [EPT_EVENT_SHARE] = "share",
		[EPT_EVENT_CLONE] = "clone", [EPT_EVENT_UNSHARE] = "unshare",
		[EPT_EVENT_BREAK] = "break", [EPT_EVENT_ZAP] = "zap",
		[EPT_EVENT_FREE] = "free",
	};

	return names[kind];
}

bool ept_trace_start(struct ept *ept, uint32_t capacity)
{
	struct ept_trace *trace = calloc(1, sizeof(*trace) + capacity * sizeof(struct slot));

	assert(capacity && !(capacity & (capacity - 1)));
	if (!trace)
		return false;
	trace->capacity = capacity;
	free(ept->trace);
	ept->trace = trace;
	return true;
}

static void record(struct ept_trace *trace, enum ept_event_kind kind,
		   const struct ept_table *table, uint32_t number, uint32_t space)
{
	uint64_t event = atomic_fetch_add(&trace->next, 1);
	struct slot *slot = &trace->slots[event & (trace->capacity - 1)];
	uint32_t count = atomic_load_explicit(&table->use_count, memory_order_relaxed);

	atomic_store(&slot->number, 0);
	atomic_store(&slot->table_and_space, (uint64_t)number << 32 | space);
	atomic_store(&slot->count_level_kind,
		     (uint64_t)count << 32 | (uint64_t)table->level << 8 | kind);
	atomic_store(&slot->number, event + 1);
}

void ept_event(struct ept *ept, enum ept_event_kind kind, const struct ept_table *table,
	       const struct ept_space *space)
{
	ept_count(&ept->stat.events[kind]);
	if (ept->trace)
		record(ept->trace, kind, table, ept_table_number(ept, table),
		       space ? space->number : EPT_NO_SPACE);
}

/* Reads the event that has @number; false if it is not there any more, or not yet. */
static bool read_slot(const struct ept_trace *trace, uint64_t number, struct ept_event *event)
{
	const struct slot *slot = &trace->slots[number & (trace->capacity - 1)];
	uint64_t first, second;

	if (atomic_load(&slot->number) != number + 1)
		return false;
	first = atomic_load(&slot->table_and_space);
	second = atomic_load(&slot->count_level_kind);
	*event = (struct ept_event){
		.number = number,
		.table = (uint32_t)(first >> 32),
		.space = (uint32_t)first,
		.count = (uint32_t)(second >> 32),
		.level = (uint8_t)(second >> 8),
		.kind = (uint8_t)second,
	};
	return atomic_load(&slot->number) == number + 1;
}

size_t ept_trace_read(struct ept *ept, uint64_t *next, struct ept_event *events, size_t max)
{
	struct ept_trace *trace = ept->trace;
	uint64_t end = trace ? atomic_load(&trace->next) : *next;
	size_t count = 0;

	if (trace && end - *next > trace->capacity)
		*next = end - trace->capacity;
	for (; *next < end && count < max; (*next)++)
		if (read_slot(trace, *next, &events[count]))
			count++;
	return count;
}
