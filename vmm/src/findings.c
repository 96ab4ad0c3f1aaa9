// SPDX-License-Identifier: MIT
#include "findings.h"
#include "ept/check.h"

#include <ctype.h>
#include <stdio.h>

/* A table gone wrong may show in each entry of each guest; the first violations say enough. */
#define TEXTS_MAX 1000

static void note(void *context, const char *text)
{
	struct findings *findings = context;

	findings->violations++;
	if (json_array_size(findings->texts) < TEXTS_MAX)
		json_array_append_new(findings->texts, json_string(text));
}

void findings_take(struct findings *findings, struct fleet *fleet)
{
	struct ept_usage usage;

	*findings = (struct findings){
		.texts = json_array(),
		.spaces = fleet->guest_count,
	};
	for (unsigned domain = 0; domain < FLEET_DOMAINS; domain++)
		findings->spaces += fleet->templates[domain] ? 1 : 0;
	ept_usage(fleet->ept, &usage);
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		findings->tables += usage.tables[level];
	ept_check(fleet->ept, note, findings);
}

void findings_free(struct findings *findings)
{
	json_decref(findings->texts);
}

/* Another process may have made the text: it cannot do anything to a terminal. */
static void print_text(const char *text)
{
	for (; *text; text++)
		putchar(iscntrl((unsigned char)*text) ? '.' : *text);
}

void findings_print(const struct findings *findings, const char *before)
{
	size_t shown = json_array_size(findings->texts);

	for (size_t at = 0; at < shown; at++) {
		fputs(before, stdout);
		print_text(json_string_value(json_array_get(findings->texts, at)));
		putchar('\n');
	}
	if (findings->violations > shown)
		printf("%s%llu more\n", before, (unsigned long long)(findings->violations - shown));
	printf("%s%llu tables of %llu spaces: ", before, (unsigned long long)findings->tables,
	       (unsigned long long)findings->spaces);
	if (findings->violations)
		printf("%llu violation%s\n", (unsigned long long)findings->violations,
		       findings->violations == 1 ? "" : "s");
	else
		puts("no violation");
}

json_t *findings_json(const struct findings *findings)
{
	return json_pack("{s:I, s:I, s:I, s:O}", "tables", (json_int_t)findings->tables, "spaces",
			 (json_int_t)findings->spaces, "violations",
			 (json_int_t)findings->violations, "texts", findings->texts);
}
