// SPDX-License-Identifier: MIT
#include "report.h"

#include <stdio.h>
#include <string.h>

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

static void print_guest(const struct guest *guest)
{
	char result[2 * sizeof(guest->result) + 1];
	struct ept_space_usage usage;

	result_hex(guest, result);
	ept_space_usage(guest->space, &usage);
	printf("%5u %-10s %4llu %8llu %8llu %7llu %7llu  %s\n", guest->id,
	       guest_status_name(guest->status), (unsigned long long)guest->exit_value,
	       (unsigned long long)ept_space_faults(guest->space),
	       (unsigned long long)(usage.pages_alone + usage.pages_shared),
	       (unsigned long long)usage.tables_alone, (unsigned long long)usage.tables_shared,
	       result);
}

static unsigned count_status(const struct fleet *fleet, enum guest_status status)
{
	unsigned count = 0;

	for (unsigned i = 0; i < fleet->guest_count; i++)
		count += fleet->guests[i].status == status;
	return count;
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
}

void report_run(const struct fleet *fleet, uint64_t elapsed_ns,
		const struct report_options *options)
{
	if (options->headers && !options->quiet)
		puts("guest status     exit   faults  private  tables  shared  result");
	for (unsigned i = 0; i < fleet->guest_count && !options->quiet; i++)
		print_guest(&fleet->guests[i]);
	print_summary(fleet, elapsed_ns);
}

static json_t *integer(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *guest_json(const struct guest *guest)
{
	char result[2 * sizeof(guest->result) + 1];
	struct ept_space_usage usage;

	result_hex(guest, result);
	ept_space_usage(guest->space, &usage);
	return json_pack("{s:i, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:s}", "id", (int)guest->id,
			 "status", guest_status_name(guest->status), "exit",
			 integer(guest->exit_value), "result", result, "faults",
			 integer(ept_space_faults(guest->space)), "private_pages",
			 integer(usage.pages_alone + usage.pages_shared), "tables_alone",
			 integer(usage.tables_alone), "tables_shared",
			 integer(usage.tables_shared), "report", guest->report);
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

void report_run_json(const struct fleet *fleet, uint64_t elapsed_ns)
{
	json_t *guests = json_array();
	struct ept_usage usage;

	for (unsigned i = 0; i < fleet->guest_count; i++)
		json_array_append_new(guests, guest_json(&fleet->guests[i]));
	ept_usage(fleet->ept, &usage);
	report_json(json_pack(
		"{s:s, s:s, s:s, s:b, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "schema",
		"s2vm-run-1", "engine", engine_name(fleet->config.engine), "mode",
		fleet->config.mode == EPT_SHARED ? "shared" : "private", "sharing",
		fleet->config.sharing, "memory_file", fleet->config.file->name, "file_bytes",
		integer(fleet->config.file->bytes), "elapsed_us", integer(elapsed_ns / 1000),
		"tables", report_levels(&usage), "table_bytes",
		integer(report_table_bytes(&usage)), "private_bytes",
		integer(usage.pages * EPT_PAGE_BYTES), "kvm_shadow_pages",
		integer(host_shadow_pages(fleet->stats_fd)), "guests", guests));
}

void report_failures(const struct fleet *fleet)
{
	for (unsigned i = 0; i < fleet->guest_count; i++)
		if (!guest_ended_well(&fleet->guests[i]))
			fprintf(stderr, "s2vm: guest %u: %s\n", i, fleet->guests[i].report);
}
