/* SPDX-License-Identifier: MIT */
/* The sections and files of a Linux guest's template, for who writes and who reads them. */
#ifndef VMM_LINUX_TEMPLATE_FORMAT_H
#define VMM_LINUX_TEMPLATE_FORMAT_H

#include <stdio.h>

#include "linux_template.h"

/* Each section is one structure; versions of what is in it count as its own. */
static const struct template_key linux_template_machine_key = { "machine", 0, 1 };
static const struct template_key linux_template_state_key = { "guest", 0, GUEST_STATE_VERSION };

/* The file with what the guest wrote to disk @number. */
static inline void linux_template_disk_name(unsigned number, char *name, size_t bytes)
{
	snprintf(name, bytes, "disk%u", number);
}

#endif
