// SPDX-License-Identifier: MIT
/* The state file of a template, as bytes. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "template_internal.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "states are little-endian");
_Static_assert(sizeof(struct template_header) == 64, "a header has no padding");
_Static_assert(sizeof(struct template_section_header) == 32, "nor have sections");
_Static_assert(sizeof(struct template_file) == 112, "nor have files");

static bool letter_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool template_tag_good(const char *tag)
{
	size_t length = 0;

	while (letter_or_digit(tag[length]) || tag[length] == '-')
		if (++length > TEMPLATE_TAG_MAX)
			return false;
	return length && !tag[length];
}

bool template_name_good(const char *name)
{
	size_t length = 0;

	while (letter_or_digit(name[length]) || (name[length] && strchr("._-", name[length])))
		if (++length > TEMPLATE_NAME_MAX)
			return false;
	return length && !name[length] && name[0] != '.';
}

static size_t filled_up(size_t bytes)
{
	return (bytes + TEMPLATE_SECTION_ALIGN - 1) / TEMPLATE_SECTION_ALIGN *
	       TEMPLATE_SECTION_ALIGN;
}

/* ---- writing ---- */

bool template_state_add(uint8_t **state, size_t *bytes, struct template_key key, const void *from,
			size_t count)
{
	struct template_section_header header = { .bytes = count };
	size_t more = sizeof(header) + filled_up(count);
	uint8_t *at;

	at = realloc(*state, *bytes + more);
	if (!at)
		return false;
	*state = at;
	at += *bytes;
	*bytes += more;
	memset(at, 0, more);
	memcpy(header.tag, key.tag, strlen(key.tag));
	header.number = key.number;
	header.version = key.version;
	memcpy(at, &header, sizeof(header));
	if (count)
		memcpy(at + sizeof(header), from, count);
	return true;
}

/* Of all bytes but those of the sum itself. False if libcrypto cannot. */
static bool sum_of(const uint8_t *state, size_t bytes, uint8_t *sum)
{
	size_t at = offsetof(struct template_header, sum);
	size_t behind = at + TEMPLATE_SUM_BYTES;
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool done = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) &&
		    EVP_DigestUpdate(context, state, at) &&
		    EVP_DigestUpdate(context, state + behind, bytes - behind) &&
		    EVP_DigestFinal_ex(context, sum, NULL);

	EVP_MD_CTX_free(context);
	return done;
}

bool template_state_seal(uint8_t *state, size_t bytes)
{
	struct template_header *header = (struct template_header *)state;

	memcpy(header->magic, TEMPLATE_MAGIC, sizeof(header->magic));
	header->format = TEMPLATE_FORMAT;
	header->reserved = 0;
	header->bytes = bytes;
	return sum_of(state, bytes, header->sum);
}

/* ---- reading ---- */

/* The file as a whole: each thing that may be wrong with it has a line of its own. */
static bool check_header(const uint8_t *state, size_t bytes, const char *name, struct error *error)
{
	const struct template_header *header = (const struct template_header *)state;
	uint8_t sum[TEMPLATE_SUM_BYTES];

	if (bytes >= sizeof(header->magic) &&
	    memcmp(header->magic, TEMPLATE_MAGIC, sizeof(header->magic)) != 0)
		return error_set(error, EXIT_INPUT,
				 "template %s: its file state is no state of a template", name);
	if (bytes < sizeof(*header))
		return error_set(error, EXIT_INPUT,
				 "template %s: its file state is cut off: it has %zu bytes", name,
				 bytes);
	if (header->format != TEMPLATE_FORMAT)
		return error_set(error, EXIT_INPUT,
				 "template %s has format %u, and this s2vm knows %u: make it anew",
				 name, header->format, TEMPLATE_FORMAT);
	if (header->bytes > bytes)
		return error_set(error, EXIT_INPUT,
				 "template %s: its file state is cut off: it has %zu of %llu bytes",
				 name, bytes, (unsigned long long)header->bytes);
	if (header->bytes < bytes)
		return error_set(error, EXIT_INPUT,
				 "template %s: its file state is too long: it has %zu bytes, not %llu",
				 name, bytes, (unsigned long long)header->bytes);
	if (!sum_of(state, bytes, sum))
		return error_set(error, EXIT_FAILED, "template %s: no checksum can be computed",
				 name);
	if (memcmp(sum, header->sum, sizeof(sum)) != 0)
		return error_set(error, EXIT_INPUT,
				 "template %s: its file state has been altered: the checksum is wrong",
				 name);
	return true;
}

static bool all_zero(const uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (bytes[i])
			return false;
	return true;
}

static bool tag_good(const char *tag)
{
	size_t length = strnlen(tag, TEMPLATE_TAG_MAX + 1);

	return length <= TEMPLATE_TAG_MAX && template_tag_good(tag) &&
	       all_zero((const uint8_t *)tag + length, TEMPLATE_TAG_MAX + 1 - length);
}

/* How long the section at @at is, with all that belongs to it; 0 if there cannot be one. */
static size_t section_bytes(const uint8_t *state, size_t bytes, size_t at)
{
	const struct template_section_header *header =
		(const struct template_section_header *)(state + at);
	size_t left = bytes - at;
	size_t behind;

	if (left < sizeof(*header) || !tag_good(header->tag))
		return 0;
	left -= sizeof(*header);
	if (header->bytes > left || filled_up(header->bytes) > left)
		return 0;
	behind = sizeof(*header) + header->bytes;
	if (!all_zero(state + at + behind, filled_up(header->bytes) - header->bytes))
		return 0;
	return sizeof(*header) + filled_up(header->bytes);
}

/*
 * Looks for a section among those before @end. Sections are few, so they are gone through one by
 * one.
 */
static bool find(const uint8_t *state, size_t end, const char *tag, uint32_t number,
		 struct template_section *section)
{
	const struct template_section_header *header;

	for (size_t at = sizeof(struct template_header); at < end;
	     at += sizeof(*header) + filled_up(header->bytes)) {
		header = (const struct template_section_header *)(state + at);
		if (strcmp(header->tag, tag) == 0 && header->number == number) {
			*section = (struct template_section){ header + 1, header->bytes,
							      header->version };
			return true;
		}
	}
	return false;
}

/*
 * Whoever can write the file can make the checksum right, so sections are looked at all the same.
 */
static bool sections_good(const uint8_t *state, size_t bytes)
{
	struct template_section other;
	unsigned count = 0;
	size_t length;

	for (size_t at = sizeof(struct template_header); at < bytes; at += length) {
		const struct template_section_header *header =
			(const struct template_section_header *)(state + at);

		length = section_bytes(state, bytes, at);
		if (!length || ++count > TEMPLATE_SECTIONS ||
		    find(state, at, header->tag, header->number, &other))
			return false;
	}
	return true;
}

static bool file_good(const struct template_section *section, unsigned number)
{
	const struct template_file *file = section->bytes;
	size_t length;

	if (section->version != TEMPLATE_FILE_VERSION || section->count != sizeof(*file))
		return false;
	length = strnlen(file->name, sizeof(file->name));
	if (length == sizeof(file->name) || !template_name_good(file->name) ||
	    !all_zero((const uint8_t *)file->name + length, sizeof(file->name) - length))
		return false;
	/* The first one is the memory, and no other. */
	return strcmp(file->name, TEMPLATE_STATE) != 0 &&
	       (strcmp(file->name, TEMPLATE_MEMORY) == 0) == (number == 0) && file->bytes;
}

static bool files_good(const uint8_t *state, size_t bytes)
{
	struct template_section section;
	unsigned number = 0;

	while (template_state_find(state, bytes, TEMPLATE_FILE_TAG, number, &section))
		if (!file_good(&section, number) || ++number > TEMPLATE_FILES)
			return false;
	return number;
}

bool template_state_check(const uint8_t *state, size_t bytes, const char *name,
			  struct error *error)
{
	if (!check_header(state, bytes, name, error))
		return false;
	if (((const struct template_header *)state)->reserved || !sections_good(state, bytes) ||
	    !files_good(state, bytes))
		return error_set(error, EXIT_INPUT,
				 "template %s: its file state is damaged: make it anew", name);
	return true;
}

bool template_state_find(const uint8_t *state, size_t bytes, const char *tag, uint32_t number,
			 struct template_section *section)
{
	return find(state, bytes, tag, number, section);
}
