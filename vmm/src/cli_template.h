/* SPDX-License-Identifier: MIT */
/* Between the subcommands of s2vm template. */
#ifndef VMM_CLI_TEMPLATE_H
#define VMM_CLI_TEMPLATE_H

#include <argp.h>

/* What the option that all of them have says. */
struct cli_template_place {
	const char *directory; /* NULL where it was not given */
};

/* That option, for a subcommand's own argp; its first child's input is a struct cli_template_place. */
extern const struct argp_child cli_template_place_options[];

int cli_template_create(int argc, char **argv);

#endif
