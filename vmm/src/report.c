// SPDX-License-Identifier: MIT
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "board.h"

uint64_t report_table_bytes(const struct ept_usage *usage)
{
	uint64_t tables = 0;

	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		tables += usage->tables[level];
	return tables * EPT_PAGE_BYTES;
}

const char *report_bytes(uint64_t bytes, char *text)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 1024 && unit < 4) {
		value /= 1024;
		unit++;
	}
	snprintf(text, 16, value < 10 && unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return text;
}

static void result_hex(const struct guest *guest, char *text)
{
	for (unsigned at = 0; at < sizeof(guest->result); at++)
		sprintf(text + 2 * at, "%02x", guest->result[at]);
	if (!guest->results)
		strcpy(text, "-");
}

/* What each space pays for; without memory for that, @count is 0. */
struct accounts {
	struct ept_account *items;
	size_t count;
};

static struct accounts take_accounts(const struct fleet *fleet)
{
	size_t max = fleet->guest_count + 1ul; /* the template's is one */
	struct accounts accounts = { .items = calloc(max, sizeof(*accounts.items)) };

	if (accounts.items)
		accounts.count = ept_accounts(fleet->ept, accounts.items, max);
	return accounts;
}

/* All zero where there is none. */
static struct ept_account account_of(const struct accounts *accounts, const struct ept_space *space)
{
	for (size_t at = 0; at < accounts->count; at++)
		if (accounts->items[at].space == space)
			return accounts->items[at];
	return (struct ept_account){ 0 };
}

static uint64_t part_of(const struct ept_account *account)
{
	return account->tables_part_bytes + account->pages_part_bytes;
}

static uint64_t all_parts(const struct accounts *accounts)
{
	uint64_t bytes = 0;

	for (size_t at = 0; at < accounts->count; at++)
		bytes += part_of(&accounts->items[at]);
	return bytes;
}

static double in_kib(uint64_t bytes)
{
	return (double)bytes / 1024;
}

static void print_guest(const struct guest *guest, const struct accounts *accounts)
{
	struct ept_account account = account_of(accounts, guest->space);
	char result[2 * sizeof(guest->result) + 1];
	struct ept_space_usage usage;

	result_hex(guest, result);
	ept_space_usage(guest->space, &usage);
	printf("%5u %-10s %4llu %8llu %8llu %7llu %7llu %10.1f  %s\n", guest->id,
	       guest_status_name(guest->status), (unsigned long long)guest->exit_value,
	       (unsigned long long)ept_space_faults(guest->space),
	       (unsigned long long)(usage.pages_alone + usage.pages_shared),
	       (unsigned long long)usage.tables_alone, (unsigned long long)usage.tables_shared,
	       in_kib(part_of(&account)), result);
}

static void print_template(const struct ept_space *space, const struct accounts *accounts)
{
	struct ept_account template = account_of(accounts, space);

	printf("    - %-10s %4s %8s %8llu %7llu %7llu %10.1f  -\n", "template", "-", "-",
	       (unsigned long long)(template.pages_alone + template.pages_shared),
	       (unsigned long long)template.tables_alone, (unsigned long long)template.tables_shared,
	       in_kib(part_of(&template)));
}

/* What no guest has alone, and all together, which is what the pools have given out. */
static void print_totals(const struct fleet *fleet, const struct accounts *accounts)
{
	struct ept_usage usage;

	for (unsigned domain = 0; domain < FLEET_DOMAINS; domain++)
		if (fleet->templates[domain])
			print_template(fleet->templates[domain], accounts);
	ept_usage(fleet->ept, &usage);
	printf("    - %-10s %4s %8s %8llu %7llu %7s %10.1f  -\n", "total", "-", "-",
	       (unsigned long long)usage.pages,
	       (unsigned long long)(report_table_bytes(&usage) / EPT_PAGE_BYTES), "-",
	       in_kib(all_parts(accounts)));
}

static unsigned count_status(const struct fleet *fleet, enum guest_status status)
{
	unsigned count = 0;

	for (unsigned i = 0; i < fleet->guest_count; i++)
		count += fleet->guests[i].status == status;
	return count;
}

/* Regions too small to hold a table's span wherever they lie: the index has none of theirs (T9). */
static unsigned small_regions(const struct fleet *fleet)
{
	uint64_t span = ept_table_span(1);
	unsigned count = 0;

	for (unsigned i = 0; i < fleet->region_count; i++)
		count += fleet->regions[i].bytes < span;
	return count;
}

static uint64_t share_events(const struct fleet *fleet)
{
	struct ept_counters counters;

	ept_counters(fleet->ept, &counters);
	return counters.share_events;
}

/* How often tables were shared, and what was not and why (F12, F19, T9). */
static void print_sharing(const struct fleet *fleet)
{
	if (!fleet->config.sharing)
		return;
	if (fleet_below_threshold(fleet)) {
		printf("not shared: a guest needs %llu tables, threshold %u\n",
		       (unsigned long long)fleet->tables_needed, fleet->config.share_threshold);
		return;
	}
	printf("share events %llu; %u of %u regions are below 2 MiB and not shared through the index\n",
	       (unsigned long long)share_events(fleet), small_regions(fleet),
	       fleet->region_count);
}

static void print_summary(const struct fleet *fleet, uint64_t elapsed_ns)
{
	char tables[16], pages[16];
	struct ept_usage usage;
	unsigned well = count_status(fleet, GUEST_OK);

	ept_usage(fleet->ept, &usage);
	printf("%u of %u guests ended well in %.2f s, engine %s, sharing %s\n", well,
	       fleet->guest_count, (double)elapsed_ns / 1e9, engine_name(fleet->config.engine),
	       fleet->config.sharing ? "on" : "off");
	printf("tables %s (PT %llu, PD %llu, PDPT %llu, PML4 %llu), private pages %s, KVM shadow pages %llu\n",
	       report_bytes(report_table_bytes(&usage), tables),
	       (unsigned long long)usage.tables[1], (unsigned long long)usage.tables[2],
	       (unsigned long long)usage.tables[3], (unsigned long long)usage.tables[4],
	       report_bytes(usage.pages * EPT_PAGE_BYTES, pages),
	       (unsigned long long)host_shadow_pages(fleet->stats_fd));
	print_sharing(fleet);
}

static void print_guests(const struct fleet *fleet, bool headers)
{
	struct accounts accounts = take_accounts(fleet);

	if (headers)
		puts("guest status     exit   faults  private  tables  shared  part(KiB)  result");
	for (unsigned i = 0; i < fleet->guest_count; i++)
		print_guest(&fleet->guests[i], &accounts);
	print_totals(fleet, &accounts);
	free(accounts.items);
}

void report_run(const struct fleet *fleet, uint64_t elapsed_ns,
		const struct report_options *options)
{
	if (!options->quiet)
		print_guests(fleet, options->headers);
	print_summary(fleet, elapsed_ns);
}

static json_t *integer(uint64_t value)
{
	return json_integer((json_int_t)value);
}

/* Whether a page of the guest's RAM is a copy of its own. */
static bool is_copy(const struct guest *guest, struct gpa gpa)
{
	const struct memory_area *pages = &guest->fleet->memory.pages;
	unsigned rights;
	struct fpa at;

	return ept_space_translate(guest->space, gpa, &at, &rights) && at.v >= pages->at.v &&
	       at.v < pages->at.v + pages->bytes;
}

/* Whether the guest has written to what one table of the lowest level translates. */
static bool wrote_in_span(const struct guest *guest, struct gpa gpa, uint64_t end)
{
	uint64_t next = (gpa.v | (ept_table_span(1) - 1)) + 1;

	for (; gpa.v < end && gpa.v < next; gpa.v += EPT_PAGE_BYTES)
		if (is_copy(guest, gpa))
			return true;
	return false;
}

/*
 * In how many regions of 2 MiB a Linux guest has written, where its writes are its own: as many tables
 * of the lowest level it must have. Page by page, so this takes a while; the guest has ended.
 */
static uint64_t regions_written(const struct guest *guest)
{
	const struct fleet *fleet = guest->fleet;
	uint64_t count = 0;

	for (unsigned i = 0; guest->board && i < fleet->region_count; i++) {
		const struct ept_region *region = &fleet->regions[i];
		uint64_t end = region->start.v + region->bytes;
		struct gpa at = region->start;

		for (; region->mode == EPT_PRIVATE && at.v < end;
		     at.v = (at.v | (ept_table_span(1) - 1)) + 1)
			count += wrote_in_span(guest, at, end);
	}
	return count;
}

/* Stage-2 faults that KVM took for the guest's vCPUs since its launch. */
static uint64_t kvm_faults(const struct guest *guest)
{
	uint64_t count = 0;

	for (unsigned cpu = 0; cpu < guest->cpus; cpu++)
		count += host_counter_read(guest->seat[cpu].faults);
	return count - guest->launched.kvm_faults;
}

static json_t *guest_json(const struct guest *guest, const struct accounts *accounts)
{
	struct ept_account account = account_of(accounts, guest->space);
	char result[2 * sizeof(guest->result) + 1];
	struct ept_space_usage usage;

	result_hex(guest, result);
	ept_space_usage(guest->space, &usage);
	return json_pack("{s:i, s:o, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "id",
			 (int)guest->id, "domain", integer(ept_space_domain(guest->space)), "status", guest_status_name(guest->status), "exit",
			 integer(guest->exit_value), "result", result, "faults",
			 integer(ept_space_faults(guest->space)), "private_pages",
			 integer(usage.pages_alone + usage.pages_shared), "tables_alone",
			 integer(usage.tables_alone), "tables_shared", integer(usage.tables_shared),
			 "space", integer(ept_space_number(guest->space)), "tables_part_bytes",
			 integer(account.tables_part_bytes), "private_part_bytes",
			 integer(account.pages_part_bytes), "kvm_faults", integer(kvm_faults(guest)),
			 "regions_written", integer(regions_written(guest)), "launched_ns",
			 integer(guest->launched.ns), "report", guest->report);
}

json_t *report_levels(const struct ept_usage *usage)
{
	return json_pack("{s:o, s:o, s:o, s:o}", "pt", integer(usage->tables[1]), "pd",
			 integer(usage->tables[2]), "pdpt", integer(usage->tables[3]), "pml4",
			 integer(usage->tables[4]));
}

void report_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(value);
}

static json_t *template_json(const struct ept_space *space, const struct accounts *accounts)
{
	struct ept_account account = account_of(accounts, space);

	return json_pack("{s:o, s:o, s:o, s:o}", "domain", integer(ept_space_domain(space)),
			 "space", integer(ept_space_number(space)), "tables_part_bytes",
			 integer(account.tables_part_bytes), "private_part_bytes",
			 integer(account.pages_part_bytes));
}

/* One for each sharing domain, where guests are clones. */
static json_t *templates_json(const struct fleet *fleet, const struct accounts *accounts)
{
	json_t *templates = json_array();

	for (unsigned domain = 0; domain < FLEET_DOMAINS; domain++)
		if (fleet->templates[domain])
			json_array_append_new(templates,
					      template_json(fleet->templates[domain], accounts));
	return templates;
}

/* What each guest and the template pay, and all of them. */
static void add_accounts(json_t *report, const struct fleet *fleet)
{
	struct accounts accounts = take_accounts(fleet);
	json_t *guests = json_array();

	for (unsigned i = 0; i < fleet->guest_count; i++)
		json_array_append_new(guests, guest_json(&fleet->guests[i], &accounts));
	json_object_set_new(report, "templates", templates_json(fleet, &accounts));
	json_object_set_new(report, "parts_bytes", integer(all_parts(&accounts)));
	json_object_set_new(report, "guests", guests);
	free(accounts.items);
}

static void add_sharing(json_t *report, const struct fleet *fleet)
{
	bool small = fleet_below_threshold(fleet);

	json_object_set_new(report, "share_events", integer(share_events(fleet)));
	json_object_set_new(report, "tables_needed", integer(fleet->tables_needed));
	json_object_set_new(report, "share_threshold", integer(fleet->config.share_threshold));
	json_object_set_new(report, "not_shared", small ? json_string("threshold") : json_null());
	json_object_set_new(report, "regions", integer(fleet->region_count));
	json_object_set_new(report, "regions_not_shared", integer(small_regions(fleet)));
}

void report_run_json(const struct fleet *fleet, uint64_t elapsed_ns,
		     const struct findings *findings)
{
	struct ept_usage usage;
	json_t *report;

	ept_usage(fleet->ept, &usage);
	report = json_pack("{s:s, s:s, s:s, s:b, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "schema",
			   "s2vm-run-1", "engine", engine_name(fleet->config.engine), "mode",
			   fleet->config.mode == EPT_SHARED ? "shared" : "private", "sharing",
			   fleet->config.sharing, "memory_file", fleet->config.file->name,
			   "file_bytes", integer(fleet->config.file->bytes), "elapsed_us",
			   integer(elapsed_ns / 1000), "tables", report_levels(&usage),
			   "table_bytes", integer(report_table_bytes(&usage)), "private_bytes",
			   integer(usage.pages * EPT_PAGE_BYTES), "kvm_shadow_pages",
			   integer(host_shadow_pages(fleet->stats_fd)));
	add_sharing(report, fleet);
	if (findings)
		json_object_set_new(report, "check", findings_json(findings));
	add_accounts(report, fleet);
	report_json(report);
}

/* What a guest wrote last, if its kernel panicked: whoever reads this may not see its console. */
static void print_last_words(const struct guest *guest)
{
	struct board_last_words words;

	if (!guest->board || guest->status != GUEST_FAILED ||
	    (!board_panicked_ns(guest->board) && board_power(guest->board) != BOARD_PANICKED))
		return;
	board_last_words(guest->board, &words);
	for (char *next = words.lines, *line; (line = strsep(&next, "\n"));)
		if (*line)
			fprintf(stderr, "guest %u: %s\n", guest->id, line);
}

void report_failures(const struct fleet *fleet)
{
	for (unsigned i = 0; i < fleet->guest_count; i++) {
		if (guest_ended_well(&fleet->guests[i]))
			continue;
		fprintf(stderr, "s2vm: guest %u: %s\n", i, fleet->guests[i].report);
		print_last_words(&fleet->guests[i]);
	}
}
