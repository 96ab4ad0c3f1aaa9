// SPDX-License-Identifier: MIT
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "baseline.h"
#include "bench.h"
#include "fold.h"
#include "progress.h"
#include "report.h"

/* How long one guest may take, whatever the host. */
#define GUEST_LIMIT_NS UINT64_C(120000000000)

/* Guests that compute the whole file's SHA-256 in a series: with sharing, the second is a later one. */
#define DIGEST_GUESTS(sharing) ((sharing) ? 2u : 1u)

/* Pages that a guest writes to, all in one 2 MiB, to time write faults; and how many guests do. */
#define WRITE_PAGES  256
#define WRITE_GUESTS 8

/* The benchmark's inputs and what guests must compute of them. */
struct bench {
	const struct bench_options *options;
	struct bench_result *result;
	struct memfile file;
	struct program scan;
	struct program digest;
	struct program touch;
	uint64_t expected_fold;
	uint8_t expected_sha256[32];
	struct progress progress;
	unsigned long done;
	uint64_t *samples[2]; /* launch and read times of the series under way, in ns */
};

enum { LAUNCH, READ };

static bool out_of_memory(struct error *error)
{
	return error_set(error, EXIT_FAILED, "out of memory");
}

/* ---- inputs ---- */

/* Fills a made-up file with words that are all different. */
static void fill_file(struct memfile *file)
{
	uint64_t *words = file->mapping;

	for (uint64_t at = 0; at < file->pages * EPT_PAGE_BYTES / sizeof(*words); at++)
		words[at] = fold(at, 1);
}

static bool open_file(struct bench *bench, struct error *error)
{
	const struct bench_options *options = bench->options;

	if (options->file)
		return memfile_open(&bench->file, options->file, options->size, false, error);
	if (!memfile_create(&bench->file, "made-up file", options->size, error))
		return false;
	fill_file(&bench->file);
	return memfile_seal(&bench->file, error);
}

/* One page's part in what guests must compute. */
static void expect_page(struct bench *bench, EVP_MD_CTX *sha256, uint64_t page,
			const unsigned char *contents)
{
	uint64_t rest = bench->file.bytes - page * EPT_PAGE_BYTES;
	uint64_t word;

	memcpy(&word, contents + fold_offset(page), sizeof(word));
	bench->expected_fold = fold(bench->expected_fold, word);
	EVP_DigestUpdate(sha256, contents, rest < EPT_PAGE_BYTES ? rest : EPT_PAGE_BYTES);
}

/* What the programs scan and digest must compute. Reads the file, whose mapping could end early. */
static bool expect(struct bench *bench, struct error *error)
{
	EVP_MD_CTX *sha256 = EVP_MD_CTX_new();
	unsigned char contents[EPT_PAGE_BYTES];
	bool whole = sha256 && EVP_DigestInit_ex(sha256, EVP_sha256(), NULL);

	for (uint64_t page = 0; page < bench->file.pages && whole; page++) {
		whole = memfile_read_page(&bench->file, page, contents);
		expect_page(bench, sha256, page, contents);
	}
	if (whole)
		EVP_DigestFinal_ex(sha256, bench->expected_sha256, NULL);
	EVP_MD_CTX_free(sha256);
	if (!whole)
		return error_set(error, EXIT_INPUT, "cannot read all of %s", bench->file.name);
	return true;
}

static bool prepare(struct bench *bench, struct error *error)
{
	if (!open_file(bench, error) || !program_load(&bench->scan, "scan", error) ||
	    !program_load(&bench->digest, "digest", error) ||
	    !program_load(&bench->touch, "touch", error) || !expect(bench, error))
		return false;
	for (unsigned kind = LAUNCH; kind <= READ; kind++) {
		bench->samples[kind] = calloc(bench->options->guests, sizeof(uint64_t));
		if (!bench->samples[kind])
			return out_of_memory(error);
	}
	return true;
}

static void release(struct bench *bench)
{
	free(bench->samples[LAUNCH]);
	free(bench->samples[READ]);
	program_unload(&bench->scan);
	program_unload(&bench->digest);
	program_unload(&bench->touch);
	memfile_close(&bench->file);
}

/* ---- figures ---- */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

uint64_t bench_percentile(uint64_t *samples, uint64_t count, unsigned percent)
{
	qsort(samples, count, sizeof(*samples), compare);
	return count ? samples[(count * percent + 99) / 100 - 1] : 0;
}

struct bench_times bench_times_of(uint64_t *samples, uint64_t count)
{
	return (struct bench_times){
		.p50 = (double)bench_percentile(samples, count, 50) / 1e3,
		.p99 = (double)bench_percentile(samples, count, 99) / 1e3,
	};
}

/* Sorts its part of the samples: only the parts' order matters, and they keep that. */
static double median_us(uint64_t *samples, uint64_t count)
{
	return bench_times_of(samples, count).p50;
}

/*
 * Launch time of the last tenth of guests over that of a tenth near the first, which is cold and left
 * out. The samples are in the order of launches.
 */
static double growth_of(uint64_t *samples, uint64_t count)
{
	uint64_t part = count / 10;
	double early;

	if (part < 2)
		return 1;
	early = median_us(samples + part, part);
	return early > 0 ? median_us(samples + count - part, part) / early : 1;
}

static bool fold_matches(const struct bench *bench, const uint8_t *result)
{
	uint64_t value = 0;

	for (unsigned at = 0; at < 8; at++)
		value = value << 8 | result[at];
	return value == bench->expected_fold;
}

/* Faults of a guest while it came up, and while it read the file. */
static void note_faults(struct bench_series *series, uint64_t id, uint64_t launch, uint64_t read)
{
	if (id == 0) {
		series->faults_first = read;
		return;
	}
	if (read > series->faults_later)
		series->faults_later = read;
	if (launch > series->faults_launch_later)
		series->faults_launch_later = launch;
}

static void summarize(struct bench *bench, struct bench_series *series)
{
	uint64_t guests = bench->options->guests;

	series->read_us_first = bench->samples[READ][0] / 1000;
	series->launch_us = bench_times_of(bench->samples[LAUNCH], guests);
	series->read_us_later = guests > 1 ? bench_times_of(bench->samples[READ] + 1, guests - 1) :
					     bench_times_of(bench->samples[READ], 1);
	if (guests == 1)
		series->faults_later = series->faults_first;
	series->table_bytes = series->points[guests - 1];
	series->table_bytes_written = series->points[0];
	if (guests > 1)
		series->table_bytes_written =
			(series->points[guests - 1] - series->points[0]) / (guests - 1);
}

/* ---- fleets ---- */

static bool create_fleet(const struct bench *bench, const struct program *program, bool sharing,
			 uint64_t guests, struct fleet **fleet, struct error *error)
{
	struct fleet_config config = {
		.engine = bench->options->engine,
		.guests = (unsigned)guests,
		.file = &bench->file,
		.mode = EPT_PRIVATE,
		.entries = bench->options->entries,
		.program = program,
		.sharing = sharing,
	};

	return fleet_create(fleet, &config, error);
}

bool bench_run_guest(struct fleet *fleet, uint64_t argument, struct guest **guest,
		      struct error *error)
{
	if (!fleet_launch(fleet, argument, guest, error))
		return false;
	if (!fleet_wait(fleet, now_ns() + GUEST_LIMIT_NS, NULL))
		fleet_stop(fleet, GUEST_TIMEOUT);
	if (!guest_ended_well(*guest))
		return error_set(error, EXIT_GUEST, "guest %u: %s", (*guest)->id,
				 (*guest)->report);
	return true;
}

static bool scan_guest(struct bench *bench, struct fleet *fleet, struct bench_series *series,
		       uint64_t id, struct error *error)
{
	uint64_t before, after;
	struct ept_usage usage;
	struct guest *guest;

	if (!bench_run_guest(fleet, 0, &guest, error))
		return false;
	bench->samples[LAUNCH][id] = guest->first_result.ns - guest->launched.ns;
	bench->samples[READ][id] = guest->marks[1].ns - guest->marks[0].ns;
	note_faults(series, id, guest->marks[0].kvm_faults - guest->launched.kvm_faults,
		    guest->marks[1].kvm_faults - guest->marks[0].kvm_faults);
	before = id ? series->points[id - 1] : 0;
	ept_usage(fleet->ept, &usage);
	series->points[id] = report_table_bytes(&usage);
	after = guest->tables_before_write ? guest->tables_before_write * EPT_PAGE_BYTES :
					     series->points[id];
	if (id && after - before > series->table_bytes_later)
		series->table_bytes_later = after - before;
	series->digest_ok = series->digest_ok && fold_matches(bench, guest->result);
	progress_at(&bench->progress, ++bench->done);
	return true;
}

static bool scan_fleet(struct bench *bench, struct bench_series *series, bool sharing,
		       struct error *error)
{
	uint64_t before = host_sec_page_tables();
	struct fleet *fleet;
	bool ran = true;

	if (!create_fleet(bench, &bench->scan, sharing, bench->options->guests, &fleet, error))
		return false;
	bench->result->engine = fleet->config.engine;
	for (uint64_t id = 0; id < bench->options->guests && ran; id++)
		ran = scan_guest(bench, fleet, series, id, error);
	if (ran) {
		uint64_t after = host_sec_page_tables();

		series->sec_page_tables_bytes = after > before ? after - before : 0;
		series->kvm_shadow_pages = host_shadow_pages(fleet->stats_fd);
		ept_usage(fleet->ept, &series->usage);
	}
	fleet_destroy(fleet);
	return ran;
}

/* Whether guests that share or do not share compute the file's SHA-256. */
static bool digest_fleet(struct bench *bench, struct bench_series *series, bool sharing,
			 struct error *error)
{
	struct fleet *fleet;
	struct guest *guest;
	bool ran = true;

	if (!create_fleet(bench, &bench->digest, sharing, DIGEST_GUESTS(sharing), &fleet, error))
		return false;
	for (unsigned id = 0; id < DIGEST_GUESTS(sharing) && ran; id++) {
		ran = bench_run_guest(fleet, 0, &guest, error);
		if (ran && memcmp(guest->result, bench->expected_sha256, 32) != 0)
			series->digest_ok = false;
	}
	fleet_destroy(fleet);
	return ran;
}

static bool fleet_series(struct bench *bench, enum bench_series_name name, struct error *error)
{
	struct bench_series *series = &bench->result->series[name];
	bool sharing = name == BENCH_SHARED;

	series->digest_ok = true;
	if (!scan_fleet(bench, series, sharing, error) ||
	    !digest_fleet(bench, series, sharing, error))
		return false;
	if (sharing)
		bench->result->launch_growth =
			growth_of(bench->samples[LAUNCH], bench->options->guests);
	summarize(bench, series);
	return true;
}

/* ---- one VM per guest ---- */

static bool scan_vm(struct bench *bench, const struct baseline *baseline, struct baseline_vm **vm,
		    struct bench_series *series, uint64_t id, struct error *error)
{
	struct baseline_guest guest;
	uint64_t bytes;

	if (!baseline_run(baseline, (unsigned)id, vm, &guest, error))
		return false;
	bench->samples[LAUNCH][id] = guest.launch_ns;
	bench->samples[READ][id] = guest.read_ns;
	note_faults(series, id, guest.launch_faults, guest.read_faults);
	bytes = baseline_table_bytes(*vm);
	series->points[id] = bytes + (id ? series->points[id - 1] : 0);
	if (id && bytes > series->table_bytes_later)
		series->table_bytes_later = bytes;
	series->digest_ok = series->digest_ok && guest.exited &&
			    fold_matches(bench, guest.result);
	progress_at(&bench->progress, ++bench->done);
	return true;
}

static bool digest_vm(struct bench *bench, const struct baseline *scan,
		      struct bench_series *series, struct error *error)
{
	struct baseline baseline = *scan;
	struct baseline_guest guest;
	struct baseline_vm *vm;

	baseline.program = &bench->digest;
	if (!baseline_run(&baseline, 0, &vm, &guest, error))
		return false;
	if (!guest.exited || memcmp(guest.result, bench->expected_sha256, 32) != 0)
		series->digest_ok = false;
	baseline_destroy(vm);
	return true;
}

static bool run_vms(struct bench *bench, const struct baseline *baseline, struct baseline_vm **vms,
		    struct bench_series *series, struct error *error)
{
	uint64_t before = host_sec_page_tables();
	uint64_t after;

	for (uint64_t id = 0; id < bench->options->guests; id++)
		if (!scan_vm(bench, baseline, &vms[id], series, id, error))
			return false;
	after = host_sec_page_tables();
	series->sec_page_tables_bytes = after > before ? after - before : 0;
	for (uint64_t id = 0; id < bench->options->guests; id++)
		series->kvm_shadow_pages += baseline_shadow_pages(vms[id]);
	return digest_vm(bench, baseline, series, error);
}

static bool vm_series(struct bench *bench, struct error *error)
{
	struct bench_series *series = &bench->result->series[BENCH_VM_PER_GUEST];
	struct baseline_vm **vms = calloc(bench->options->guests, sizeof(struct baseline_vm *));
	struct host host;
	struct baseline baseline = {
		.host = &host,
		.file = &bench->file,
		.program = &bench->scan,
		.machine = bench->result->engine != ENGINE_DIRECT,
	};
	bool ran = false;

	if (!vms)
		return out_of_memory(error);
	if (host_open(&host, error)) {
		series->digest_ok = true;
		ran = run_vms(bench, &baseline, vms, series, error);
		if (ran)
			summarize(bench, series);
		for (uint64_t id = 0; id < bench->options->guests && vms[id]; id++)
			baseline_destroy(vms[id]);
		host_close(&host);
	}
	free(vms);
	return ran;
}

/* ---- write faults ---- */

/* Adds what a guest's writes took; the trap is what is left when the VMM's own parts are taken off. */
static void add_writes(struct bench_write_fault *sum, const struct guest *guest)
{
	const struct guest_mark *begin = &guest->marks[0];
	const struct guest_mark *end = &guest->marks[1];
	double total = (double)(end->ns - begin->ns) / 1e3;
	double engine =
		(double)(end->write_faults.engine_ns - begin->write_faults.engine_ns) / 1e3;
	double edit = (double)(end->write_faults.edit_ns - begin->write_faults.edit_ns) / 1e3;

	sum->count += end->write_faults.count - begin->write_faults.count;
	sum->total += total;
	sum->engine += engine;
	sum->edit += edit;
	sum->gate_runs +=
		(double)(end->write_faults.gate_runs - begin->write_faults.gate_runs);
	sum->trap += total - engine - edit;
}

static void average_writes(struct bench_write_fault *sum)
{
	double count = sum->count ? (double)sum->count : 1;

	sum->total /= count;
	sum->engine /= count;
	sum->edit /= count;
	sum->gate_runs /= count;
	sum->trap /= count;
}

/* What @many write faults take beyond those of @first, one each. */
static void subtract_writes(struct bench_write_fault *many, const struct bench_write_fault *first)
{
	many->count -= first->count;
	many->total -= first->total;
	many->engine -= first->engine;
	many->edit -= first->edit;
	many->gate_runs -= first->gate_runs;
	many->trap -= first->trap;
}

/* Half of the guests write once, the others to many pages; each gets its tables with its first. */
static bool time_writes(struct bench *bench, struct error *error)
{
	struct bench_write_fault *first = &bench->result->first_write;
	struct bench_write_fault *later = &bench->result->later_write;
	uint64_t pages = bench->file.pages < WRITE_PAGES ? bench->file.pages : WRITE_PAGES;
	struct fleet *fleet;
	struct guest *guest;
	bool ran = true;

	if (!create_fleet(bench, &bench->touch, true, 2 * WRITE_GUESTS, &fleet, error))
		return false;
	for (unsigned id = 0; id < 2 * WRITE_GUESTS && ran; id++) {
		ran = bench_run_guest(fleet, id % 2 ? pages : 1, &guest, error);
		if (ran)
			add_writes(id % 2 ? later : first, guest);
	}
	fleet_destroy(fleet);
	if (!ran)
		return false;
	subtract_writes(later, first);
	average_writes(first);
	average_writes(later);
	return true;
}

/* ---- all of it ---- */

static bool run_series(struct bench *bench, struct error *error)
{
	for (unsigned name = 0; name < BENCH_SERIES; name++) {
		bench->result->series[name].points =
			calloc(bench->options->guests, sizeof(uint64_t));
		if (!bench->result->series[name].points)
			return out_of_memory(error);
	}
	return fleet_series(bench, BENCH_SHARED, error) &&
	       fleet_series(bench, BENCH_PRIVATE, error) && vm_series(bench, error) &&
	       time_writes(bench, error);
}

bool bench_fleet(const struct bench_options *options, struct bench_result *result,
		 struct error *error)
{
	struct bench bench = {
		.options = options,
		.result = result,
		.file.fd = -1,
		.scan.image.fd = -1,
		.digest.image.fd = -1,
		.touch.image.fd = -1,
	};
	bool ran;

	*result = (struct bench_result){ .guests = options->guests, .file = options->file };
	ran = prepare(&bench, error);
	if (ran) {
		result->file_bytes = bench.file.bytes;
		progress_begin(&bench.progress, "guests run", BENCH_SERIES * options->guests,
			       options->progress);
		ran = run_series(&bench, error);
		progress_end(&bench.progress);
	}
	release(&bench);
	return ran;
}

void bench_free(struct bench_result *result)
{
	for (unsigned name = 0; name < BENCH_SERIES; name++)
		free(result->series[name].points);
}

bool bench_digests_ok(const struct bench_result *result)
{
	for (unsigned name = 0; name < BENCH_SERIES; name++)
		if (!result->series[name].digest_ok)
			return false;
	return true;
}
