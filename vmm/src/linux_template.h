/* SPDX-License-Identifier: MIT */
/*
 * What a template of a Linux guest holds, and how one is made: a guest is booted, and frozen where it is
 * ready. Clones go on from there (linux_run.h).
 */
#ifndef VMM_LINUX_TEMPLATE_H
#define VMM_LINUX_TEMPLATE_H

#include "disk.h"
#include "gate.h"
#include "guest_state.h"
#include "linux_guest.h"
#include "options.h"
#include "template.h"

struct fleet;

#define LINUX_DISK_PATH 4096

/* A disk that the guest had. What it wrote is the template's file diskN, for the Nth. */
struct linux_template_disk {
	char path[LINUX_DISK_PATH]; /* of the base, absolute */
	uint32_t read_only;
	uint32_t reserved;
};

/* What clones must have in common with the guest, beside its state. */
struct linux_template_machine {
	uint64_t memory; /* bytes */
	uint32_t engine;
	uint32_t cpus;
	uint32_t disk_count;
	uint32_t net_count;
	struct linux_template_disk disks[BOARD_DISKS];
};

struct linux_template {
	struct template files;
	struct linux_template_machine machine;
	struct guest_state state;
};

/* Opens a template, which stays where it is until it is closed. On failure nothing is left open. */
bool linux_template_open(struct linux_template *template, const char *directory, const char *name,
			 struct error *error);
void linux_template_close(struct linux_template *template);

/* Disk @number of a clone: the guest's as it was, under an overlay in memory. */
bool linux_template_disk(const struct linux_template *template, unsigned number,
			 struct disk *disk, struct error *error);

/* Adds what a template has beside memory and disks. */
bool linux_template_put(struct template_writer *writer,
			const struct linux_template_machine *machine,
			const struct guest_state *state, struct error *error);

/* Where a template is to be; without a name there is to be none. */
struct linux_template_place {
	const char *directory;
	const char *name;
};

/*
 * Freezes a guest of @fleet, which goes on while a template is made of that (moment.h). Where none could
 * be made the guest may have been frozen all the same.
 */
bool linux_template_freeze(struct fleet *fleet, struct guest *guest,
			   const struct linux_template_place *place, struct error *error);

/* What to make a template of. */
struct linux_template_request {
	const char *directory;
	const char *name;
	struct linux_request guest;
	const char *disks[BOARD_DISKS]; /* FILE, or FILE,ro */
	unsigned disk_count;
	struct option_net nets[BOARD_NETS];
	unsigned net_count; /* with the disks not more than there are free slots */
	const char *until; /* what its console says when it is ready, or NULL: it says so at a port */
	enum engine engine;
	bool quiet; /* its console is not printed */
	uint64_t deadline_ns;
	volatile bool *stop;
};

/* Returns the exit status, and has said what went wrong. On failure there is no template. */
int linux_template_create(const struct linux_template_request *request);

#endif
