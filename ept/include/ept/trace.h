/* SPDX-License-Identifier: MIT */
/*
 * Events of tables: what happened to which, for whom (F12). They are counted always, and recorded in a
 * ring while tracing is on. Off, an event costs one load more.
 */
#ifndef EPT_TRACE_H
#define EPT_TRACE_H

#include "ept/ept.h"

enum ept_event_kind {
	EPT_EVENT_FILL,	   /* a table was made for a fault */
	EPT_EVENT_SHARE,   /* a table was found in the share index */
	EPT_EVENT_CLONE,   /* a root was shared by cloning, or by going back to a parent */
	EPT_EVENT_UNSHARE, /* a table was copied before a change; it is the copy */
	EPT_EVENT_BREAK,   /* an entry of 2 MiB was replaced by this table */
	EPT_EVENT_ZAP,	   /* a reference was dropped */
	EPT_EVENT_FREE,	   /* the last one was */
	EPT_EVENT_KINDS,
};

/* The space of an event that no space caused alone. */
#define EPT_NO_SPACE UINT32_MAX

struct ept_event {
	uint64_t number; /* from 0, since tracing was switched on */
	uint32_t table;	 /* its number */
	uint32_t space;	 /* ept_space_number(), or EPT_NO_SPACE */
	uint32_t count;	 /* the table's use count afterwards */
	uint8_t level;
	uint8_t kind;
};

const char *ept_event_name(enum ept_event_kind kind);

/*
 * Records events from now on, the last @capacity of them, a power of two. Not while others use the
 * engine. False without memory.
 */
bool ept_trace_start(struct ept *ept, uint32_t capacity);

/*
 * Copies up to @max events from number *@next on, the oldest first, and sets *@next to what comes after
 * them. Events that were overwritten before they were read are left out: numbers show the gap.
 */
size_t ept_trace_read(struct ept *ept, uint64_t *next, struct ept_event *events, size_t max);

#endif
