// SPDX-License-Identifier: MIT
/*
 * From how many tables on sharing them pays (F19): guests of growing size with shared tables and with
 * their own, in pairs, so that what else the machine does falls on both alike.
 */
#include "bench_threshold.h"

#include <stdio.h>
#include <stdlib.h>

#include "report.h"

#define MIB (UINT64_C(1) << 20)

/* What a guest does with the file. */
static const struct kind {
	const char *key; /* in the JSON */
	const char *label;
	const char *program;
	bool all_pages; /* the program's argument: all of the file's pages, or one */
} kinds[BENCH_THRESHOLD_KINDS] = {
	{ "reads", "reads all", "scan", false },
	{ "writes_one", "writes a page", "touch", false },
	{ "writes_all", "writes all", "touch", true },
};

static const uint64_t sizes[BENCH_THRESHOLD_SIZES] = { MIB / 16, 2 * MIB, 4 * MIB, 8 * MIB };

enum side { SHARED, ALONE, SIDES };

/* A fleet of each side, on the same file. */
struct pair {
	struct fleet *fleets[SIDES];
	uint64_t *samples[SIDES];
	uint64_t tables[SIDES]; /* bytes, with the first guest */
};

static uint64_t table_bytes(struct fleet *fleet)
{
	struct ept_usage usage;

	ept_usage(fleet->ept, &usage);
	return report_table_bytes(&usage);
}

/* From asking for its launch until its thread has said that it has ended. */
static bool time_guest(struct fleet *fleet, uint64_t argument, uint64_t *ns, struct error *error)
{
	uint64_t start = now_ns();
	struct guest *guest;

	if (!bench_run_guest(fleet, argument, &guest, error))
		return false;
	*ns = now_ns() - start;
	return true;
}

/* The first guest of each side comes before what is timed: it may make what later ones share. */
static bool run_pair(struct pair *pair, uint64_t guests, uint64_t argument, struct error *error)
{
	uint64_t ns;

	for (unsigned side = SHARED; side < SIDES; side++) {
		if (!time_guest(pair->fleets[side], argument, &ns, error))
			return false;
		pair->tables[side] = table_bytes(pair->fleets[side]);
	}
	for (uint64_t at = 0; at < 2 * guests; at++) {
		/* Each goes first as often as second. */
		unsigned side = (at ^ at >> 1) & 1;

		if (!time_guest(pair->fleets[side], argument, &pair->samples[side][at / 2], error))
			return false;
	}
	return true;
}

static void take_figures(const struct pair *pair, uint64_t guests, struct bench_threshold_row *row)
{
	double us[SIDES], bytes[SIDES];

	for (unsigned side = SHARED; side < SIDES; side++) {
		us[side] = bench_times_of(pair->samples[side], guests).p50;
		bytes[side] = (double)(table_bytes(pair->fleets[side]) - pair->tables[side]) /
			      (double)guests;
	}
	row->shared_us = us[SHARED];
	row->alone_us = us[ALONE];
	row->shared_bytes = bytes[SHARED];
	row->alone_bytes = bytes[ALONE];
}

static bool create_pair(struct pair *pair, const struct bench_options *options,
			const struct memfile *file, const struct program *program,
			struct error *error)
{
	for (unsigned side = SHARED; side < SIDES; side++) {
		struct fleet_config config = {
			.engine = options->engine,
			.guests = (unsigned)options->guests + 1,
			.file = file,
			.mode = EPT_PRIVATE,
			.entries = options->entries,
			.program = program,
			.sharing = side == SHARED,
		};

		pair->samples[side] = calloc(options->guests, sizeof(uint64_t));
		if (!pair->samples[side])
			return error_set(error, EXIT_FAILED, "out of memory");
		if (!fleet_create(&pair->fleets[side], &config, error))
			return false;
	}
	return true;
}

static void destroy_pair(struct pair *pair)
{
	for (unsigned side = SHARED; side < SIDES; side++) {
		if (pair->fleets[side])
			fleet_destroy(pair->fleets[side]);
		free(pair->samples[side]);
	}
}

static bool run_kind(const struct bench_options *options, const struct memfile *file,
		     const struct kind *kind, struct bench_threshold_size *size,
		     struct bench_threshold_row *row, struct error *error)
{
	struct program program = { .image.fd = -1 };
	struct pair pair = { 0 };
	bool ran = program_load(&program, kind->program, error) &&
		   create_pair(&pair, options, file, &program, error) &&
		   run_pair(&pair, options->guests, kind->all_pages ? file->pages : 1, error);

	if (ran) {
		take_figures(&pair, options->guests, row);
		size->tables_needed = pair.fleets[ALONE]->tables_needed;
		size->engine = pair.fleets[ALONE]->config.engine;
	}
	destroy_pair(&pair);
	program_unload(&program);
	return ran;
}

static bool run_size(const struct bench_options *options, struct bench_threshold_size *size,
		     struct error *error)
{
	struct memfile file = { .fd = -1 };
	bool ran = memfile_create(&file, "made-up file", size->bytes, error) &&
		   memfile_seal(&file, error);

	for (unsigned kind = 0; kind < BENCH_THRESHOLD_KINDS && ran; kind++)
		ran = run_kind(options, &file, &kinds[kind], size, &size->rows[kind], error);
	memfile_close(&file);
	return ran;
}

bool bench_threshold(const struct bench_options *options, struct bench_threshold_result *result,
		     struct error *error)
{
	*result = (struct bench_threshold_result){ .guests = options->guests };
	for (unsigned at = 0; at < BENCH_THRESHOLD_SIZES; at++) {
		result->sizes[at].bytes = sizes[at];
		if (!run_size(options, &result->sizes[at], error))
			return false;
	}
	return true;
}

/* ---- reports ---- */

static void print_size(const struct bench_threshold_size *size)
{
	char text[16], shared[16], alone[16];

	report_bytes(size->bytes, text);
	for (unsigned kind = 0; kind < BENCH_THRESHOLD_KINDS; kind++) {
		const struct bench_threshold_row *row = &size->rows[kind];

		report_bytes((uint64_t)row->shared_bytes, shared);
		report_bytes((uint64_t)row->alone_bytes, alone);
		printf("%8llu  %-8s  %-14s %9.0f %9.0f %7.2f  %10s %10s\n",
		       (unsigned long long)size->tables_needed, text, kinds[kind].label,
		       row->shared_us, row->alone_us, row->shared_us / row->alone_us, shared,
		       alone);
	}
}

void bench_threshold_print(const struct bench_threshold_result *result)
{
	printf("%llu guests of each kind, engine %s; medians, from launch to end\n\n",
	       (unsigned long long)result->guests, engine_name(result->sizes[0].engine));
	printf("%8s  %-8s  %-14s %27s  %21s\n", "tables", "", "", "us", "tables of one more");
	printf("%8s  %-8s  %-14s %9s %9s %7s  %10s %10s\n", "needed", "file", "a guest", "shared",
	       "alone", "ratio", "shared", "alone");
	for (unsigned at = 0; at < BENCH_THRESHOLD_SIZES; at++)
		print_size(&result->sizes[at]);
}

static json_t *row_json(const struct bench_threshold_row *row)
{
	return json_pack("{s:f, s:f, s:f, s:f}", "shared_us", row->shared_us, "alone_us",
			 row->alone_us, "shared_table_bytes", row->shared_bytes,
			 "alone_table_bytes", row->alone_bytes);
}

static json_t *size_json(const struct bench_threshold_size *size)
{
	json_t *object = json_pack("{s:I, s:I}", "file_bytes", (json_int_t)size->bytes,
				   "tables_needed", (json_int_t)size->tables_needed);

	for (unsigned kind = 0; kind < BENCH_THRESHOLD_KINDS; kind++)
		json_object_set_new(object, kinds[kind].key, row_json(&size->rows[kind]));
	return object;
}

bool bench_threshold_write_json(const struct bench_threshold_result *result,
				const struct bench_options *options, struct error *error)
{
	json_t *list = json_array();

	for (unsigned at = 0; at < BENCH_THRESHOLD_SIZES; at++)
		json_array_append_new(list, size_json(&result->sizes[at]));
	return bench_write_object(json_pack("{s:s, s:I, s:s, s:o}", "schema",
					    "s2vm-bench-threshold-1", "guests",
					    (json_int_t)result->guests, "engine",
					    engine_name(result->sizes[0].engine), "sizes", list),
				  options, error);
}
