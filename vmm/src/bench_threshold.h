/* SPDX-License-Identifier: MIT */
/*
 * The benchmark of small guests: how long they live and what tables they take, with sharing and
 * without, by how many tables they need. It is what the threshold's default comes from (F19).
 */
#ifndef VMM_BENCH_THRESHOLD_H
#define VMM_BENCH_THRESHOLD_H

#include <stdint.h>

#include "bench.h"
#include "error.h"

#define BENCH_THRESHOLD_SIZES 4
#define BENCH_THRESHOLD_KINDS 3

/* Median times, and what one more guest adds to its fleet's tables on average. */
struct bench_threshold_row {
	double shared_us;
	double alone_us;
	double shared_bytes;
	double alone_bytes;
};

struct bench_threshold_size {
	uint64_t bytes;		/* of the file */
	uint64_t tables_needed; /* by a guest, beside its root */
	enum engine engine;
	struct bench_threshold_row rows[BENCH_THRESHOLD_KINDS];
};

struct bench_threshold_result {
	uint64_t guests;
	struct bench_threshold_size sizes[BENCH_THRESHOLD_SIZES];
};

bool bench_threshold(const struct bench_options *options, struct bench_threshold_result *result,
		     struct error *error);

/* A table for people, the JSON object of schema s2vm-bench-threshold-1. */
void bench_threshold_print(const struct bench_threshold_result *result);
bool bench_threshold_write_json(const struct bench_threshold_result *result,
				const struct bench_options *options, struct error *error);

#endif
