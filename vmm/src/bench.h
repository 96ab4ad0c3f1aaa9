/* SPDX-License-Identifier: MIT */
/*
 * The fleet benchmark: the same guests on the same file three times, with shared tables, with private
 * ones, and as one KVM VM each. docs/benchmarks.md says what each figure means.
 */
#ifndef VMM_BENCH_H
#define VMM_BENCH_H

#include <jansson.h>
#include <stdint.h>

#include "ept/ept.h"
#include "error.h"
#include "fleet.h"
#include "gate.h"

enum bench_kind { BENCH_FLEET, BENCH_ENGINE, BENCH_THRESHOLD };

enum bench_series_name { BENCH_SHARED, BENCH_PRIVATE, BENCH_VM_PER_GUEST, BENCH_SERIES };

struct bench_options {
	enum bench_kind kind;
	bool guests_only; /* options were given that BENCH_ENGINE has no use for */
	bool fleet_only;  /* and such that only BENCH_FLEET has a use for */
	uint64_t guests;
	uint64_t size;
	const char *file;   /* NULL: made up, of @size bytes */
	const char *output; /* where the JSON goes too; NULL for nowhere */
	const char *points; /* where table bytes by number of guests go; NULL for nowhere */
	enum engine engine;
	enum fleet_entries entries;
	bool json;
	bool progress; /* also where there is no terminal */
};

/* Two points of a distribution, in microseconds. */
struct bench_times {
	double p50;
	double p99;
};

struct bench_series {
	struct bench_times launch_us;	    /* all guests */
	struct bench_times read_us_later; /* all but the first */
	uint64_t read_us_first;
	uint64_t faults_first;	      /* stage-2 faults while reading the file */
	uint64_t faults_later;	      /* the most that any later guest took for that */
	uint64_t faults_launch_later; /* and before, from its launch on */
	uint64_t table_bytes;
	uint64_t table_bytes_later; /* what one more guest adds before its first write */
	uint64_t table_bytes_written; /* what one more guest adds by its end */
	uint64_t kvm_shadow_pages;
	uint64_t sec_page_tables_bytes;
	struct ept_usage usage; /* tables by level; zero for one VM per guest */
	uint64_t *points;	/* table bytes after each guest */
	bool digest_ok;
};

/* A write fault's time by where it goes, in microseconds, and the gate's part in it. */
struct bench_write_fault {
	uint64_t count;
	double total;
	double trap;
	double engine;
	double edit;
	double gate_runs; /* of its vCPU's gate: one, whatever is to be stored */
};

struct bench_result {
	enum engine engine;
	uint64_t guests;
	uint64_t file_bytes;
	const char *file;
	struct bench_series series[BENCH_SERIES];
	struct bench_write_fault first_write; /* with the tables that it unshares */
	struct bench_write_fault later_write; /* in the same 2 MiB */
	double launch_growth; /* launch time of the last tenth of guests over that of the second */
};

/* Runs all of it. The result is to be freed also on failure. */
bool bench_fleet(const struct bench_options *options, struct bench_result *result,
		 struct error *error);
void bench_free(struct bench_result *result);

/* Launches a guest and waits for its end, which must be a good one. */
bool bench_run_guest(struct fleet *fleet, uint64_t argument, struct guest **guest,
		     struct error *error);

/* By nearest rank, after sorting @samples; 0 if there are none. */
uint64_t bench_percentile(uint64_t *samples, uint64_t count, unsigned percent);

/* Both points of @samples, which are in ns and are sorted afterwards. */
struct bench_times bench_times_of(uint64_t *samples, uint64_t count);

/* Whether all guests of all series computed what the file holds. */
bool bench_digests_ok(const struct bench_result *result);

/* bench_report.c: a table for people, the JSON object of schema s2vm-bench-1, and the plot's data. */
void bench_print(const struct bench_result *result);
bool bench_write_json(const struct bench_result *result, const struct bench_options *options,
		      struct error *error);
/* Writes @object where the options ask for it, and frees it. */
bool bench_write_object(json_t *object, const struct bench_options *options, struct error *error);
bool bench_write_points(const struct bench_result *result, const char *path,
			struct error *error);

#endif
