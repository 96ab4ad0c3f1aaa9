// SPDX-License-Identifier: MIT
/* What the engine's benchmark found: a table for people, JSON for programs. */
#include <stdio.h>

#include "bench_engine.h"
#include "report.h"

struct row {
	const char *key; /* in the JSON */
	const char *label;
};

static const struct row rows[] = {
	[BENCH_FILL] = { "fill", "read fault: make and fill a table" },
	[BENCH_SHARE] = { "share", "read fault: find a table to share" },
	[BENCH_FOUND] = { "found", "read fault: nothing is missing" },
	[BENCH_INDEX] = { "index", "lookup in the index alone" },
	[BENCH_UNSHARE_ALL] = { "first_write", "write: copy root, three tables, page" },
	[BENCH_UNSHARE] = { "unshare_write", "write: copy three tables, page" },
	[BENCH_WRITE] = { "later_write", "write: copy page" },
	[BENCH_CLONE_SMALL] = { "clone_64m", "clone 64 MiB" },
	[BENCH_CLONE_MEDIUM] = { "clone_1g", "clone 1 GiB" },
	[BENCH_CLONE_LARGE] = { "clone_64g", "clone 64 GiB" },
	[BENCH_RESET] = { "reset", "reset after a write" },
	[BENCH_SNAPSHOT] = { "snapshot", "snapshot after a write" },
	[BENCH_UNMAP] = { "unmap_1g", "unmap 1 GiB of shared tables" },
	[BENCH_RECLAIM_ONE] = { "reclaim_one", "reclaim a page of one guest" },
	[BENCH_RECLAIM_MANY] = { "reclaim_many", "reclaim a page of 1,000 guests" },
};

static double ratio(const struct bench_engine_result *result, enum bench_engine_op a,
		    enum bench_engine_op b)
{
	uint64_t below = result->ops[b].p50;

	return below ? (double)result->ops[a].p50 / (double)below : 0;
}

static void print_row(const struct row *row, const struct bench_engine_figures *figures)
{
	printf("%-38s %8llu %8llu %7llu %6llu %7llu %6llu %6llu\n", row->label,
	       (unsigned long long)figures->p50, (unsigned long long)figures->p99,
	       (unsigned long long)figures->edits, (unsigned long long)figures->tables_filled,
	       (unsigned long long)figures->tables_shared,
	       (unsigned long long)figures->tables_copied,
	       (unsigned long long)figures->pages_copied);
}

void bench_engine_print(const struct bench_engine_result *result)
{
	printf("The engine alone, in one thread. Times are without the clock's %llu ns.\n\n",
	       (unsigned long long)result->clock_ns);
	printf("%-38s %17s %7s %21s %6s\n", "", "ns", "", "tables", "pages");
	printf("%-38s %8s %8s %7s %6s %7s %6s %6s\n", "", "p50", "p99", "edits", "filled",
	       "shared", "copied", "copied");
	for (unsigned op = 0; op < BENCH_ENGINE_OPS; op++)
		print_row(&rows[op], &result->ops[op]);
	printf("\nmaking a table over finding one: whole faults %.1f, over the lookup alone %.1f\n",
	       ratio(result, BENCH_FILL, BENCH_SHARE), ratio(result, BENCH_FILL, BENCH_INDEX));
	printf("edits to reclaim a page: %llu with one guest, %llu with %d\n",
	       (unsigned long long)result->ops[BENCH_RECLAIM_ONE].edits,
	       (unsigned long long)result->ops[BENCH_RECLAIM_MANY].edits, BENCH_ENGINE_GUESTS);
}

static json_t *integer(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *figures_json(const struct bench_engine_figures *figures)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "count",
			 integer(figures->count), "p50_ns", integer(figures->p50), "p99_ns",
			 integer(figures->p99), "edits", integer(figures->edits),
			 "invalidations", integer(figures->invalidations), "tables_filled",
			 integer(figures->tables_filled), "tables_shared",
			 integer(figures->tables_shared), "tables_copied",
			 integer(figures->tables_copied), "pages_copied",
			 integer(figures->pages_copied));
}

bool bench_engine_write_json(const struct bench_engine_result *result,
			     const struct bench_options *options, struct error *error)
{
	json_t *object = json_pack("{s:s, s:o, s:i, s:{s:f, s:f}}", "schema",
				   "s2vm-bench-engine-1", "clock_ns", integer(result->clock_ns),
				   "guests", BENCH_ENGINE_GUESTS, "ratios", "fill_over_share",
				   ratio(result, BENCH_FILL, BENCH_SHARE), "fill_over_index",
				   ratio(result, BENCH_FILL, BENCH_INDEX));
	json_t *ops = json_object();

	for (unsigned op = 0; op < BENCH_ENGINE_OPS; op++)
		json_object_set_new(ops, rows[op].key, figures_json(&result->ops[op]));
	json_object_set_new(object, "operations", ops);
	return bench_write_object(object, options, error);
}
