// SPDX-License-Identifier: MIT
/*
 * Bytes as the state file of a template: it is refused in one line, or all of its sections lie
 * within it and describe files that a template may have.
 *
 *	seal		a byte: whether the header is made right, checksum and all
 *	state		all bytes that are left
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "template_internal.h"

static void die(const char *text)
{
	fprintf(stderr, "%s\n", text);
	abort();
}

static void refused(const struct error *error)
{
	input_say("refused: %s", error->text);
	if (error->exit != EXIT_INPUT || !error->text[0] || strchr(error->text, '\n'))
		die("a refusal without a line that says why");
}

/* Reads all that a section is said to have, so that the sanitizer sees where it is. */
static void check_section(const uint8_t *state, size_t size, const char *tag, uint32_t number)
{
	struct template_section section;
	const uint8_t *bytes;
	unsigned sum = 0;

	if (!template_state_find(state, size, tag, number, &section))
		return;
	bytes = section.bytes;
	for (size_t at = 0; at < section.count; at++)
		sum += bytes[at];
	input_say("section %s %u, version %u: %zu bytes, sum %u", tag, number, section.version,
		  section.count, sum);
	if ((uintptr_t)bytes % TEMPLATE_SECTION_ALIGN || bytes < state ||
	    bytes + section.count > state + size)
		die("a section outside of the state");
}

static void check_file(const uint8_t *state, size_t size, uint32_t number)
{
	struct template_section section;
	struct template_file file;

	if (!template_state_find(state, size, TEMPLATE_FILE_TAG, number, &section))
		return;
	memcpy(&file, section.bytes, sizeof(file));
	if (!memchr(file.name, 0, sizeof(file.name)) || strchr(file.name, '/') ||
	    file.name[0] == '.' || !file.name[0])
		die("a file that may be anywhere");
}

static void use(const uint8_t *state, size_t size)
{
	static const char *const tags[] = { "cpu", "board", "machine", "disks", "file", "" };

	for (unsigned tag = 0; tag < sizeof(tags) / sizeof(tags[0]); tag++)
		for (uint32_t number = 0; number < 4; number++)
			check_section(state, size, tags[tag], number);
	check_file(state, size, 0);
	check_file(state, size, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = { bytes, size };
	bool seal = input_below(&input, 2);
	size_t left = input.left;
	uint8_t *state = malloc(left ? left : 1);
	struct error error;

	if (!state)
		die("out of memory");
	memcpy(state, input.bytes, left);
	if (seal && left >= sizeof(struct template_header) && !template_state_seal(state, left))
		die("no checksum");
	if (template_state_check(state, left, "fuzzed", &error))
		use(state, left);
	else
		refused(&error);
	free(state);
	return 0;
}
