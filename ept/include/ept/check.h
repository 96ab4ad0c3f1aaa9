/* SPDX-License-Identifier: MIT */
/*
 * The checker: walks all tables of all spaces and compares what it finds with what the engine
 * believes. Invariants are named as in docs/sharing.md.
 *
 *   S1  a table's use count is the number of entries, and of spaces as their root, that point at it
 *   S2  no path to a table or private page that others use grants write, but where the region is
 *       of mode EPT_SHARED
 *   S3  a private page's count is the number of leaf entries that map it
 *   S4  no entry points at a free or quarantined table or page
 *   S5  every present entry maps what its space's regions say
 *   S7  the reverse map holds what the walk found, and nothing else
 *   S8  a table is used at one level, and one in the share index maps what its key says
 *   S9  no leaf grants write to a memory file, even below a read-only path, but where a region of
 *       mode EPT_SHARED shows it
 *
 * S6 and S10 are about moments, not states: the tests' software TLB and snapshots hold them.
 */
#ifndef EPT_CHECK_H
#define EPT_CHECK_H

#include <stddef.h>

#include "ept/ept.h"

/* Called for each violation, with one line of text. */
typedef void (*ept_check_report)(void *context, const char *text);

/*
 * Returns the number of violations. The caller sees to it that no operation is under way. Reports
 * EPT_NO_MEMORY as one violation if there is no memory to check with.
 */
size_t ept_check(struct ept *ept, ept_check_report report, void *context);

#endif
