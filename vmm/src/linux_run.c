// SPDX-License-Identifier: MIT
#include "linux_run.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "control.h"
#include "findings.h"
#include "fleet.h"
#include "linux_template.h"
#include "report.h"

/* What one guest has of its own. Its disks stay as they are when it starts anew. */
struct resident {
	struct disk disks[BOARD_DISKS];
	unsigned disk_count; /* that are open */
	struct tap taps[BOARD_NETS];
	struct board_net nets[BOARD_NETS];
	unsigned net_count; /* that are open */
	struct linux_identity identity;
	struct console_lines lines;
};

/* All guests of a run. */
struct household {
	const struct linux_run *run;
	const struct linux_guest *guest; /* what they start from, */
	const struct linux_template *template; /* or what they are clones of */
	struct resident *residents;
	struct fleet_computer *computers;
};

static bool several(const struct linux_run *run)
{
	return run->guests > 1;
}

/* Whether guests have copies of what they write of one memory, which stays as it is. */
static bool copies(const struct linux_run *run)
{
	return several(run) || run->template || run->private_memory;
}

/* Each guest may have been frozen once, and one is just frozen anew. */
static unsigned snapshots(const struct linux_run *run)
{
	if (!copies(run))
		return 0;
	return run->guests < FLEET_SNAPSHOTS ? run->guests + 1 : FLEET_SNAPSHOTS;
}

/* ---- one guest's console ---- */

static void put_nothing(void *context, uint8_t byte)
{
	(void)context;
	(void)byte;
}

static struct serial_output output_of(const struct linux_run *run, struct resident *resident)
{
	if (!several(run) && !run->json)
		return (struct serial_output){ console_put, NULL };
	if (run->report.quiet || run->json)
		return (struct serial_output){ put_nothing, NULL };
	return (struct serial_output){ console_put_line, &resident->lines };
}

/* ---- running ---- */

static bool launch_all(struct fleet *fleet, const struct linux_run *run, struct error *error)
{
	uint64_t begin = now_ns();
	struct guest *guest;

	for (unsigned i = 0; i < run->guests && !*run->stop; i++) {
		/* Those that run may all have ended meanwhile; the next one has its turn all the same. */
		if (i && run->every_ns)
			fleet_wait(fleet, begin + i * run->every_ns, run->stop);
		if (!fleet_launch(fleet, 0, &guest, error))
			return false;
	}
	return true;
}

static bool run_guests(struct fleet *fleet, const struct linux_run *run, struct error *error)
{
	struct console *console = NULL;
	bool launched = launch_all(fleet, run, error);

	if (launched && !several(run) && !run->json)
		console = access_open_console(fleet->guests);
	if (!launched || !fleet_wait(fleet, run->deadline_ns, run->stop))
		fleet_stop(fleet, !launched || *run->stop ? GUEST_STOPPED : GUEST_TIMEOUT);
	console_close(console);
	return launched;
}

static bool ended_well(const struct guest *guest)
{
	return guest->status == GUEST_OK || guest->status == GUEST_RESET;
}

static int status_of(const struct fleet *fleet)
{
	for (unsigned i = 0; i < fleet->guest_count; i++)
		if (!ended_well(&fleet->guests[i])) {
			report_failures(fleet);
			return EXIT_GUEST;
		}
	return EXIT_DONE;
}

/* What the guests did together, and what the checker finds. */
static int report(struct fleet *fleet, const struct linux_run *run, uint64_t elapsed_ns)
{
	struct findings findings = { 0 };
	int status = status_of(fleet);

	if (run->check)
		findings_take(&findings, fleet);
	if (run->json)
		report_run_json(fleet, elapsed_ns, run->check ? &findings : NULL);
	else if (several(run))
		report_run(fleet, elapsed_ns, &run->report);
	if (run->check && !run->json)
		findings_print(&findings, "check: ");
	findings_free(&findings);
	return findings.violations ? EXIT_INVARIANT : status;
}

static struct fleet_config config_of(const struct household *all)
{
	const struct linux_run *run = all->run;
	struct fleet_config config = {
		.engine = run->engine,
		.guests = run->guests,
		.cpus = all->template ? all->template->machine.cpus : run->guest.cpus,
		.mode = copies(run) ? EPT_PRIVATE : EPT_SHARED,
		.sharing = copies(run) && run->sharing,
		.computers = all->computers,
		.snapshots = snapshots(run),
	};

	if (all->template) {
		config.engine = all->template->machine.engine;
		config.file = &all->template->files.memory;
		config.state = &all->template->state;
	} else {
		config.file = &all->guest->memory;
		config.linux_start = &all->guest->start;
	}
	return config;
}

/* Runs the guests, while others may ask for things. */
static bool run_controlled(struct fleet *fleet, const struct linux_run *run, struct error *error)
{
	struct control *control = NULL;
	bool ran;

	if (!control_start(&control, fleet, error))
		fprintf(stderr,
			"s2vm: these guests cannot be checked and frozen while they run: %s\n",
			error->text);
	ran = run_guests(fleet, run, error);
	if (control)
		control_stop(control);
	return ran;
}

/* One life of all guests, from their start to where they are off or reset. */
static int run_life(const struct household *all, enum guest_status *how)
{
	struct fleet_config config = config_of(all);
	uint64_t begin = now_ns();
	struct fleet *fleet;
	struct error error;
	int status;

	if (!fleet_create(&fleet, &config, &error))
		return error_print(&error);
	if (run_controlled(fleet, all->run, &error)) {
		for (unsigned i = 0; i < all->run->guests; i++)
			console_end_line(&all->residents[i].lines);
		status = report(fleet, all->run, now_ns() - begin);
		*how = fleet->guest_count ? fleet->guests[0].status : GUEST_STOPPED;
	} else {
		status = error_print(&error);
	}
	fleet_destroy(fleet);
	return status;
}

/* ---- what each has of its own ---- */

static bool open_disk(const struct linux_run *run, struct disk *disk, const char *wanted,
		      struct error *error)
{
	const char *end = strrchr(wanted, ',');
	bool read_only = end && strcmp(end, ",ro") == 0;
	char *path = strndup(wanted, read_only ? (size_t)(end - wanted) : strlen(wanted));
	bool opened;

	if (!path)
		return error_set(error, EXIT_FAILED, "out of memory");
	if (several(run) && !read_only)
		opened = disk_open_overlay(disk, path, NULL, error);
	else
		opened = disk_open(disk, path, read_only ? DISK_READ_ONLY : DISK_WRITABLE, error);
	free(path);
	return opened;
}

static bool open_disk_of(const struct household *all, struct disk *disk, unsigned number,
			 struct error *error)
{
	if (all->template)
		return linux_template_disk(all->template, number, disk, error);
	return open_disk(all->run, disk, all->run->disks[number], error);
}

/* @wanted with the guest's number in place of %d. */
static bool tap_name(const struct linux_run *run, const struct option_net *wanted, unsigned id,
		     char *name, struct error *error)
{
	const char *place = strstr(wanted->tap, "%d");
	int length;

	if (several(run) && (!place || wanted->has_mac))
		return error_set(error, EXIT_INPUT,
				 "guests of one fleet have a TAP and an address each: --net tap=NAME%%d without mac=, where %%d is a guest's number");
	if (place)
		length = snprintf(name, IFNAMSIZ, "%.*s%u%s", (int)(place - wanted->tap),
				  wanted->tap, id, place + 2);
	else
		length = snprintf(name, IFNAMSIZ, "%s", wanted->tap);
	return length < IFNAMSIZ ||
	       error_set(error, EXIT_INPUT, "the name of TAP %s is too long for guest %u",
			 wanted->tap, id);
}

static bool open_nets(const struct linux_run *run, struct resident *resident, unsigned id,
		      struct error *error)
{
	for (; resident->net_count < run->net_count; resident->net_count++) {
		const struct option_net *wanted = &run->nets[resident->net_count];
		struct board_net *net = &resident->nets[resident->net_count];
		char name[IFNAMSIZ];

		net->tap = &resident->taps[resident->net_count];
		memcpy(net->mac, wanted->mac, sizeof(net->mac));
		if (!tap_name(run, wanted, id, name, error) ||
		    (!wanted->has_mac && !linux_mac_make(net->mac, error)) ||
		    !tap_open(net->tap, name, error))
			return false;
	}
	return true;
}

static bool open_resident(const struct household *all, struct resident *resident, unsigned id,
			  struct error *error)
{
	unsigned count = all->template ? all->template->machine.disk_count : all->run->disk_count;

	resident->lines.guest = id;
	for (; resident->disk_count < count; resident->disk_count++)
		if (!open_disk_of(all, &resident->disks[resident->disk_count],
				  resident->disk_count, error))
			return false;
	return open_nets(all->run, resident, id, error) &&
	       linux_identity_make(&resident->identity, error);
}

static void close_resident(struct resident *resident)
{
	while (resident->net_count)
		tap_close(&resident->taps[--resident->net_count]);
	while (resident->disk_count)
		disk_close(&resident->disks[--resident->disk_count]);
}

/* Guests that start from one memory would otherwise all draw the same random numbers. */
static void describe(const struct household *all, unsigned id)
{
	struct resident *resident = &all->residents[id];
	struct fleet_computer *computer = &all->computers[id];

	*computer = (struct fleet_computer){
		.disks = resident->disks,
		.disk_count = resident->disk_count,
		.nets = resident->nets,
		.net_count = resident->net_count,
		.output = output_of(all->run, resident),
	};
	if (!copies(all->run))
		return;
	/* A clone has long used the seed; it is told of its generation. */
	if (!all->template)
		computer->own[0] = (struct fleet_bytes){ all->guest->seed,
							 resident->identity.seed,
							 LINUX_SEED_BYTES };
	computer->own[1] = (struct fleet_bytes){ { PLATFORM_GENERATION },
						 resident->identity.generation,
						 LINUX_GENERATION_BYTES };
}

static void describe_all(const struct household *all)
{
	for (unsigned id = 0; id < all->run->guests; id++)
		describe(all, id);
}

/* A reset is a new start with memory as it was, in a new fleet. */
static int run_lives(struct household *all)
{
	const struct linux_run *run = all->run;
	struct linux_request request = run->guest;
	struct linux_guest guest;
	enum guest_status how;
	struct error error;
	int status;

	request.copied = copies(run);
	do {
		how = GUEST_STOPPED;
		if (!linux_guest_open(&guest, &request, &error))
			return error_print(&error);
		all->guest = &guest;
		describe_all(all);
		status = run_life(all, &how);
		linux_guest_close(&guest);
	} while (!several(run) && how == GUEST_RESET && run->reboot && !*run->stop);
	return status;
}

/* Clones that reset have no beginning to go back to: that is their end. */
static int run_clones(struct household *all)
{
	enum guest_status how;

	describe_all(all);
	return run_life(all, &how);
}

static int open_and_run(struct household *all)
{
	struct error error;

	if (!all->residents || !all->computers) {
		error_set(&error, EXIT_FAILED, "no memory for %u guests", all->run->guests);
		return error_print(&error);
	}
	for (unsigned id = 0; id < all->run->guests; id++)
		if (!open_resident(all, &all->residents[id], id, &error))
			return error_print(&error);
	return all->template ? run_clones(all) : run_lives(all);
}

static int run_household(const struct linux_run *run, const struct linux_template *template)
{
	struct household all = {
		.run = run,
		.template = template,
		.residents = calloc(run->guests, sizeof(*all.residents)),
		.computers = calloc(run->guests, sizeof(*all.computers)),
	};
	int status = open_and_run(&all);

	for (unsigned id = 0; all.residents && id < run->guests; id++)
		close_resident(&all.residents[id]);
	free(all.residents);
	free(all.computers);
	return status;
}

static bool check_engine(const struct linux_run *run, const struct linux_template *template,
			 struct error *error)
{
	enum engine made = template->machine.engine;

	if (run->engine == ENGINE_AUTO || run->engine == made)
		return true;
	return error_set(error, EXIT_INPUT, "template %s was made by engine %s, and runs by it only",
			 run->template, engine_name(made));
}

/* The guest has drivers for as many cards as it had. */
static bool check_nets(const struct linux_run *run, const struct linux_template *template,
		       struct error *error)
{
	unsigned count = template->machine.net_count;

	return run->net_count == count ||
	       error_set(error, EXIT_INPUT, "template %s has %u networks: give as many --net",
			 run->template, count);
}

static int run_template(const struct linux_run *run)
{
	struct linux_template *template = malloc(sizeof(*template));
	struct error error;
	int status;

	if (!template)
		error_set(&error, EXIT_FAILED, "out of memory");
	if (!template || !linux_template_open(template, run->templates, run->template, &error)) {
		free(template);
		return error_print(&error);
	}
	if (check_engine(run, template, &error) && check_nets(run, template, &error))
		status = run_household(run, template);
	else
		status = error_print(&error);
	linux_template_close(template);
	free(template);
	return status;
}

int linux_run(const struct linux_run *run)
{
	return run->template ? run_template(run) : run_household(run, NULL);
}
