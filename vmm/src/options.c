// SPDX-License-Identifier: MIT
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Digits only: strtoull alone would take spaces, signs and nothing at all. */
static bool digits(const char *text, uint64_t *number, const char **rest)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*number = strtoull(text, &end, 0);
	*rest = end;
	return errno == 0;
}

bool option_size(const char *text, const char *option, uint64_t *bytes, struct error *error)
{
	static const char units[] = "KMGT";
	const char *rest;
	const char *unit;
	unsigned shift = 0;

	if (!digits(text, bytes, &rest))
		return error_set(error, EXIT_INPUT,
				 "%s wants a size such as 64M, not \"%s\"", option, text);
	if (*rest) {
		unit = strchr(units, toupper((unsigned char)*rest));
		if (!unit || rest[1])
			return error_set(error, EXIT_INPUT,
					 "%s wants a size with K, M, G or T, not \"%s\"", option,
					 text);
		shift = 10 * (unsigned)(unit - units + 1);
	}
	if (*bytes == 0 || *bytes > UINT64_MAX >> 16 >> shift)
		return error_set(error, EXIT_INPUT, "%s: \"%s\" is out of range", option, text);
	*bytes <<= shift;
	return true;
}

bool option_number(const char *text, const char *option, uint64_t least, uint64_t most,
		   uint64_t *number, struct error *error)
{
	const char *rest;

	if (!digits(text, number, &rest) || *rest || *number < least || *number > most)
		return error_set(error, EXIT_INPUT,
				 "%s wants a number from %llu to %llu, not \"%s\"", option,
				 (unsigned long long)least, (unsigned long long)most, text);
	return true;
}

const char *const option_entries[] = { "auto", "4K", "2M", NULL };

/* "one, two or three" for a message. */
static void join(char *to, size_t size, const char *const *names)
{
	size_t used = 0;

	for (unsigned i = 0; names[i]; i++) {
		const char *before = i == 0 ? "" : names[i + 1] ? ", " : " or ";

		used += (size_t)snprintf(to + used, size - used, "%s%s", before, names[i]);
	}
}

bool option_name(const char *text, const char *option, const char *const *names, unsigned *place,
		 struct error *error)
{
	char all[96];

	for (*place = 0; names[*place]; (*place)++)
		if (strcmp(text, names[*place]) == 0)
			return true;
	join(all, sizeof(all), names);
	return error_set(error, EXIT_INPUT, "%s is %s, not \"%s\"", option, all, text);
}

/* The next word of a list; false at its end. Words that do not fit are wrong anyway. */
static bool next_word(const char **text, char *word, size_t size)
{
	size_t length;

	if (!*text)
		return false;
	length = strcspn(*text, ",");
	snprintf(word, size, "%.*s", (int)(length < size ? length : size - 1), *text);
	*text = (*text)[length] ? *text + length + 1 : NULL;
	return true;
}

bool option_list(const char *text, const char *option, const char *const *names, unsigned *places,
		 struct error *error)
{
	char word[32];
	unsigned place;

	*places = 0;
	while (next_word(&text, word, sizeof(word))) {
		if (!option_name(word, option, names, &place, error))
			return false;
		*places |= 1u << place;
	}
	return true;
}

const char *const option_level_names[] = {"pt", "pd", "pdpt", "pml4", NULL};

/* A level by its number or name; 0 if it is none. */
static unsigned level_of(const char *word, unsigned top)
{
	for (unsigned level = 1; level <= top; level++)
		if (strcmp(word, option_level_names[level - 1]) == 0 ||
		    (word[0] == (char)('0' + level) && !word[1]))
			return level;
	return 0;
}

bool option_levels(const char *text, const char *option, unsigned top, unsigned *levels,
		   struct error *error)
{
	const char *rest = text;
	char word[32];
	unsigned level;

	*levels = 0;
	if (strcmp(text, "all") == 0)
		*levels = (2u << top) - 2;
	if (strcmp(text, "all") == 0 || strcmp(text, "none") == 0)
		return true;
	while (next_word(&rest, word, sizeof(word))) {
		level = level_of(word, top);
		if (!level)
			return error_set(error, EXIT_INPUT,
					 "%s is all, none, or a list of pt to %s or 1 to %u, such "
					 "as pt,pd; not \"%s\"",
					 option, option_level_names[top - 1], top, text);
		*levels |= 1u << level;
	}
	return true;
}

bool option_range(const char *text, const char *option, uint64_t *from, uint64_t *until,
		  struct error *error)
{
	const char *rest;
	bool good = digits(text, from, &rest) && *rest == '-';

	*until = 0;
	if (good && rest[1])
		good = digits(rest + 1, until, &rest) && !*rest && *from < *until;
	return good || error_set(error, EXIT_INPUT,
				 "%s wants FROM-UNTIL, the second greater than the first, or "
				 "FROM-, not \"%s\"",
				 option, text);
}

/* "FROM-UNTIL", which is in it, or one number. */
static bool numbers_of(const char *word, uint64_t *from, uint64_t *until)
{
	const char *rest;

	if (!digits(word, from, &rest))
		return false;
	*until = *from;
	if (*rest == '-' && !digits(rest + 1, until, &rest))
		return false;
	return !*rest && *from <= *until;
}

bool option_numbers(const char *text, const char *option, uint64_t count, bool *chosen,
		    struct error *error)
{
	const char *rest = text;
	uint64_t from, until;
	char word[48];

	while (next_word(&rest, word, sizeof(word))) {
		if (!numbers_of(word, &from, &until) || until >= count)
			return error_set(error, EXIT_INPUT,
					 "%s wants numbers of guests up to %llu, such as 0,4-7, not \"%s\"",
					 option, (unsigned long long)count - 1, text);
		while (from <= until)
			chosen[from++] = true;
	}
	return true;
}

bool option_switch(const char *text, const char *option, bool *on, struct error *error)
{
	*on = strcmp(text, "on") == 0;
	if (!*on && strcmp(text, "off") != 0)
		return error_set(error, EXIT_INPUT, "%s is on or off, not \"%s\"", option, text);
	return true;
}

/* "52:54:00:12:34:56"; false for an address of several cards at once, or of none. */
static bool parse_mac(const char *text, uint8_t mac[6])
{
	uint8_t any = 0;

	if (strlen(text) != 17)
		return false;
	for (unsigned i = 0; i < 6; i++, text += 3) {
		if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]) ||
		    text[2] != (i < 5 ? ':' : '\0'))
			return false;
		mac[i] = (uint8_t)strtoul(text, NULL, 16);
		any |= mac[i];
	}
	return any && !(mac[0] & 1);
}

/* Where the value of @key ends, copied to @value; NULL if @text does not begin so, or it is too long. */
static const char *take_value(const char *text, const char *key, char *value, size_t room)
{
	size_t bytes = strlen(key);
	size_t length;

	if (strncmp(text, key, bytes) != 0)
		return NULL;
	length = strcspn(text + bytes, ",");
	if (!length || length >= room)
		return NULL;
	memcpy(value, text + bytes, length);
	value[length] = '\0';
	return text + bytes + length;
}

bool option_net(const char *text, struct option_net *net, struct error *error)
{
	const char *rest = take_value(text, "tap=", net->tap, sizeof(net->tap));
	char mac[18] = "";

	if (rest && *rest)
		rest = take_value(rest, ",mac=", mac, sizeof(mac));
	if (!rest || *rest)
		return error_set(error, EXIT_INPUT,
				 "--net wants tap=NAME or tap=NAME,mac=ADDRESS, not \"%s\"", text);
	net->has_mac = *mac;
	if (*mac && !parse_mac(mac, net->mac))
		return error_set(error, EXIT_INPUT,
				 "--net: \"%s\" is no address of one network card, such as "
				 "52:54:00:12:34:56",
				 mac);
	return true;
}
