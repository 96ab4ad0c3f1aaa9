/* SPDX-License-Identifier: MIT */
/*
 * The engine's benchmark: operations of ept/ alone, in plain memory and one thread, without KVM.
 * docs/benchmarks.md says what each row means.
 */
#ifndef VMM_BENCH_ENGINE_H
#define VMM_BENCH_ENGINE_H

#include <stdint.h>

#include "bench.h"
#include "error.h"

enum bench_engine_op {
	BENCH_FILL,	   /* a read fault that makes a PT and fills it */
	BENCH_SHARE,	   /* one that finds the same PT in the share index */
	BENCH_FOUND,	   /* one that finds nothing missing */
	BENCH_INDEX,	   /* the lookup in the index alone */
	BENCH_UNSHARE_ALL, /* a clone's first write: the root, three tables and a page are copied */
	BENCH_UNSHARE,	   /* a write that copies three tables and a page */
	BENCH_WRITE,	   /* a further one in the same 2 MiB: a page */
	BENCH_CLONE_SMALL, /* of a frozen space of 64 MiB */
	BENCH_CLONE_MEDIUM, /* 1 GiB */
	BENCH_CLONE_LARGE,  /* 64 GiB */
	BENCH_RESET,	    /* of a clone that has written to one page */
	BENCH_SNAPSHOT,	    /* of a space that has written */
	BENCH_UNMAP,	    /* of 1 GiB, all tables of which are shared */
	BENCH_RECLAIM_ONE,  /* of a page that one guest maps */
	BENCH_RECLAIM_MANY, /* of one that BENCH_ENGINE_GUESTS map */
	BENCH_ENGINE_OPS,
};

#define BENCH_ENGINE_GUESTS 1000

/* Times are in ns, without what reading the clock takes; the rest is the most that any one did. */
struct bench_engine_figures {
	uint64_t count;
	uint64_t p50;
	uint64_t p99;
	uint64_t edits;
	uint64_t invalidations;
	uint64_t tables_filled;
	uint64_t tables_shared;
	uint64_t tables_copied;
	uint64_t pages_copied;
};

struct bench_engine_result {
	uint64_t clock_ns; /* taken off each time */
	struct bench_engine_figures ops[BENCH_ENGINE_OPS];
};

bool bench_engine(struct bench_engine_result *result, struct error *error);

/* bench_engine_report.c: a table for people, the JSON object of schema s2vm-bench-engine-1. */
void bench_engine_print(const struct bench_engine_result *result);
bool bench_engine_write_json(const struct bench_engine_result *result,
			     const struct bench_options *options, struct error *error);

#endif
