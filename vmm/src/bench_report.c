// SPDX-License-Identifier: MIT
/* What the benchmark found: a table for people, JSON for programs, points for the plot. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "report.h"

static const char *const series_names[] = {
	[BENCH_SHARED] = "shared",
	[BENCH_PRIVATE] = "private",
	[BENCH_VM_PER_GUEST] = "vm_per_guest",
};

/* ---- for people ---- */

/* A row's figure of one series: bytes, times or counts, as text. */
typedef void (*row_figure)(const struct bench_series *series, char *text);

static void figure_tables(const struct bench_series *series, char *text)
{
	report_bytes(series->table_bytes, text);
}

static void level_figure(const struct bench_series *series, unsigned level, char *text)
{
	if (report_table_bytes(&series->usage))
		sprintf(text, "%llu", (unsigned long long)series->usage.tables[level]);
	else
		strcpy(text, "-");
}

static void figure_pt(const struct bench_series *series, char *text)
{
	level_figure(series, 1, text);
}

static void figure_pd(const struct bench_series *series, char *text)
{
	level_figure(series, 2, text);
}

static void figure_pdpt(const struct bench_series *series, char *text)
{
	level_figure(series, 3, text);
}

static void figure_pml4(const struct bench_series *series, char *text)
{
	level_figure(series, 4, text);
}

static void figure_one_more(const struct bench_series *series, char *text)
{
	report_bytes(series->table_bytes_later, text);
}

static void figure_one_more_end(const struct bench_series *series, char *text)
{
	report_bytes(series->table_bytes_written, text);
}

static void figure_shadow(const struct bench_series *series, char *text)
{
	sprintf(text, "%llu", (unsigned long long)series->kvm_shadow_pages);
}

static void figure_kernel(const struct bench_series *series, char *text)
{
	report_bytes(series->sec_page_tables_bytes, text);
}

static void figure_faults_first(const struct bench_series *series, char *text)
{
	sprintf(text, "%llu", (unsigned long long)series->faults_first);
}

static void figure_faults_later(const struct bench_series *series, char *text)
{
	sprintf(text, "%llu", (unsigned long long)series->faults_later);
}

static void figure_faults_launch(const struct bench_series *series, char *text)
{
	sprintf(text, "%llu", (unsigned long long)series->faults_launch_later);
}

static void figure_launch(const struct bench_series *series, char *text)
{
	snprintf(text, 24, "%.0f / %.0f us", series->launch_us.p50, series->launch_us.p99);
}

static void figure_read_first(const struct bench_series *series, char *text)
{
	sprintf(text, "%llu us", (unsigned long long)series->read_us_first);
}

static void figure_read_later(const struct bench_series *series, char *text)
{
	snprintf(text, 24, "%.0f / %.0f us", series->read_us_later.p50,
		 series->read_us_later.p99);
}

static void figure_digest(const struct bench_series *series, char *text)
{
	strcpy(text, series->digest_ok ? "ok" : "WRONG");
}

struct row {
	const char *label;
	row_figure figure;
};

static const struct row rows[] = {
	{ "table memory", figure_tables },
	{ "  PT tables", figure_pt },
	{ "  PD tables", figure_pd },
	{ "  PDPT tables", figure_pdpt },
	{ "  PML4 tables", figure_pml4 },
	{ "  one more adds before it writes", figure_one_more },
	{ "  and by its end", figure_one_more_end },
	{ "KVM shadow pages", figure_shadow },
	{ "SecPageTables of the host", figure_kernel },
	{ "faults to read, first guest", figure_faults_first },
	{ "faults to read, later guest (most)", figure_faults_later },
	{ "faults before, later guest (most)", figure_faults_launch },
	{ "launch to first result, p50 / p99", figure_launch },
	{ "read the file, first guest", figure_read_first },
	{ "read the file, later, p50 / p99", figure_read_later },
	{ "contents seen by guests", figure_digest },
};

static double ratio(double a, double b)
{
	return b > 0 ? a / b : 0;
}

/* Private over shared. Where sharing needs none at all, as if it needed one. */
static double fault_ratio(const struct bench_result *result)
{
	const struct bench_series *series = result->series;
	uint64_t shared = series[BENCH_SHARED].faults_later;

	return ratio((double)series[BENCH_PRIVATE].faults_later, shared ? (double)shared : 1);
}

static double read_ratio(const struct bench_result *result)
{
	return ratio(result->series[BENCH_PRIVATE].read_us_later.p50,
		     result->series[BENCH_SHARED].read_us_later.p50);
}

static double table_ratio(const struct bench_result *result)
{
	return ratio((double)result->series[BENCH_PRIVATE].table_bytes,
		     (double)result->series[BENCH_SHARED].table_bytes);
}

static void print_write_fault(const char *label, const struct bench_write_fault *fault)
{
	printf("%-35s %.1f us: trap %.1f, engine %.1f, copy and edits %.1f (%llu faults)\n", label,
	       fault->total, fault->trap, fault->engine, fault->edit,
	       (unsigned long long)fault->count);
}

void bench_print(const struct bench_result *result)
{
	char bytes[16];

	printf("%llu guests on one file of %s, engine %s%s%s\n\n",
	       (unsigned long long)result->guests, report_bytes(result->file_bytes, bytes),
	       engine_name(result->engine), result->file ? ": " : "",
	       result->file ? result->file : "");
	printf("%-35s %18s %18s %18s\n", "", "shared tables", "private tables",
	       "one VM per guest");
	for (unsigned row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
		printf("%-35s", rows[row].label);
		for (unsigned name = 0; name < BENCH_SERIES; name++) {
			char text[32];

			rows[row].figure(&result->series[name], text);
			printf(" %18s", text);
		}
		putchar('\n');
	}
	printf("\nprivate over shared: table memory %.0f, faults of a later guest %.0f, time to read %.0f\n",
	       table_ratio(result), fault_ratio(result), read_ratio(result));
	print_write_fault("first write of a clone", &result->first_write);
	print_write_fault("further writes in the same 2 MiB", &result->later_write);
	printf("%-35s %.2f times that of the second tenth\n", "launch time of the last tenth",
	       result->launch_growth);
}

/* ---- for programs ---- */

static json_t *times_json(const struct bench_times *times)
{
	return json_pack("{s:f, s:f}", "p50", times->p50, "p99", times->p99);
}

static json_t *integer(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *series_json(const struct bench_series *series)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b}", "launch_us",
			 times_json(&series->launch_us), "read_us_later",
			 times_json(&series->read_us_later), "read_us_first",
			 integer(series->read_us_first), "faults_first",
			 integer(series->faults_first), "faults_later",
			 integer(series->faults_later), "faults_launch_later",
			 integer(series->faults_launch_later), "table_bytes",
			 integer(series->table_bytes), "table_bytes_later",
			 integer(series->table_bytes_later), "table_bytes_later_end",
			 integer(series->table_bytes_written), "tables",
			 report_levels(&series->usage), "kvm_shadow_pages",
			 integer(series->kvm_shadow_pages), "sec_page_tables_bytes",
			 integer(series->sec_page_tables_bytes), "digest_ok", series->digest_ok);
}

static json_t *write_fault_json(const struct bench_write_fault *fault)
{
	return json_pack("{s:o, s:f, s:f, s:f, s:f, s:f}", "count", integer(fault->count),
			 "total", fault->total, "trap", fault->trap, "engine", fault->engine,
			 "edit", fault->edit, "gate_runs", fault->gate_runs);
}

static json_t *result_json(const struct bench_result *result)
{
	json_t *object = json_pack(
		"{s:s, s:s, s:o, s:o, s:b, s:f}", "schema", "s2vm-bench-1", "engine",
		engine_name(result->engine), "guests", integer(result->guests), "file_bytes",
		integer(result->file_bytes), "digest_ok", bench_digests_ok(result),
		"launch_growth", result->launch_growth);

	for (unsigned name = 0; name < BENCH_SERIES; name++)
		json_object_set_new(object, series_names[name],
				    series_json(&result->series[name]));
	json_object_set_new(object, "ratios",
			    json_pack("{s:f, s:f, s:f}", "read_us_later", read_ratio(result),
				      "faults_later", fault_ratio(result), "table_bytes",
				      table_ratio(result)));
	json_object_set_new(object, "write_fault_us",
			    json_pack("{s:o, s:o}", "first",
				      write_fault_json(&result->first_write), "later",
				      write_fault_json(&result->later_write)));
	return object;
}

bool bench_write_object(json_t *object, const struct bench_options *options, struct error *error)
{
	bool written = !options->output ||
		       json_dump_file(object, options->output, JSON_INDENT(2)) == 0;

	if (!written)
		error_set(error, EXIT_FAILED, "cannot write %s: %s", options->output,
			  strerror(errno));
	if (options->json)
		report_json(json_incref(object));
	json_decref(object);
	return written;
}

bool bench_write_json(const struct bench_result *result, const struct bench_options *options,
		      struct error *error)
{
	return bench_write_object(result_json(result), options, error);
}

/* ---- for the plot ---- */

bool bench_write_points(const struct bench_result *result, const char *path,
			struct error *error)
{
	FILE *file = fopen(path, "we");

	if (!file)
		return error_set(error, EXIT_FAILED, "cannot write %s: %s", path,
				 strerror(errno));
	fprintf(file, "# guests shared private vm_per_guest\n");
	for (uint64_t id = 0; id < result->guests; id++) {
		fprintf(file, "%llu", (unsigned long long)id + 1);
		for (unsigned name = 0; name < BENCH_SERIES; name++)
			fprintf(file, " %llu",
				(unsigned long long)result->series[name].points[id]);
		fputc('\n', file);
	}
	if (fclose(file) != 0)
		return error_set(error, EXIT_FAILED, "cannot write %s: %s", path,
				 strerror(errno));
	return true;
}
