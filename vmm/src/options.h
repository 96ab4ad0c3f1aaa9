/* SPDX-License-Identifier: MIT */
/* What the commands' options have in common. */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

/* A size in bytes, with an optional K, M, G or T (binary). */
bool option_size(const char *text, const char *option, uint64_t *bytes, struct error *error);

/* A number of at least @least and at most @most. */
bool option_number(const char *text, const char *option, uint64_t least, uint64_t most,
		   uint64_t *number, struct error *error);

/* One of @names, which NULL ends: its place among them. */
bool option_name(const char *text, const char *option, const char *const *names, unsigned *place,
		 struct error *error);

/* Some of @names, which NULL ends, with commas between them: bit n of @places for the nth. */
bool option_list(const char *text, const char *option, const char *const *names, unsigned *places,
		 struct error *error);

/* Levels of tables up to @top, as numbers or names, or "all" or "none": bit n for level n. */
bool option_levels(const char *text, const char *option, unsigned top, unsigned *levels,
		   struct error *error);

/* "FROM-UNTIL", which are numbers and not in it, or "FROM-" without an end, which @until = 0 stands
 * for. */
bool option_range(const char *text, const char *option, uint64_t *from, uint64_t *until,
		  struct error *error);

/* Some of the numbers below @count, such as "0,4-7": sets their places in @chosen. */
bool option_numbers(const char *text, const char *option, uint64_t count, bool *chosen,
		    struct error *error);

/* A network of a guest's. */
struct option_net {
	char tap[16]; /* as long as Linux's names of interfaces can be */
	bool has_mac;
	uint8_t mac[6];
};

/* "tap=NAME", and after a comma "mac=ADDRESS" if wanted: six bytes, of one card only. */
bool option_net(const char *text, struct option_net *net, struct error *error);

/* Names of tables by level, from level 1 on. */
extern const char *const option_level_names[];

/* Names of enum fleet_entries, in its order. */
extern const char *const option_entries[];

/* "on" or "off". */
bool option_switch(const char *text, const char *option, bool *on, struct error *error);

#endif
