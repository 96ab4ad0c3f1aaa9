// SPDX-License-Identifier: MIT
/* Templates of guests that go on: what is written is a moment of theirs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fleet.h"
#include "linux_template_format.h"
#include "moment.h"

struct keeper {
	struct fleet *fleet;
	struct guest *guest;
	const struct fleet_moment *moment;
	struct template_writer writer;
	struct linux_template_machine machine;
};

static const struct fleet_computer *computer_of(const struct keeper *keeper)
{
	return &keeper->fleet->config.computers[keeper->guest->id];
}

/* What the guest wrote, over a base that has not changed. */
static bool write_disk(struct keeper *keeper, unsigned number, struct error *error)
{
	struct linux_template_disk *saved = &keeper->machine.disks[number];
	const struct disk_layers *layers = keeper->moment->disks[number];
	char name[64];
	char *path;
	bool written;

	if (strlen(disk_layers_base(layers)) >= sizeof(saved->path))
		return error_set(error, EXIT_INPUT, "the name of disk %s is too long",
				 disk_layers_base(layers));
	strcpy(saved->path, disk_layers_base(layers));
	saved->read_only = computer_of(keeper)->disks[number].access == DISK_READ_ONLY;
	if (saved->read_only)
		return true;
	linux_template_disk_name(number, name, sizeof(name));
	if (asprintf(&path, "%s/%s", template_path(&keeper->writer), name) < 0)
		return error_set(error, EXIT_FAILED, "out of memory");
	written = disk_export(layers, path, error);
	free(path);
	return written;
}

static bool write_moment(struct keeper *keeper, struct error *error)
{
	const struct fleet_config *config = &keeper->fleet->config;
	struct linux_template_machine *machine = &keeper->machine;

	machine->memory = config->file->bytes;
	machine->engine = config->engine;
	machine->cpus = keeper->moment->state.cpu_count;
	machine->net_count = computer_of(keeper)->net_count;
	for (; machine->disk_count < keeper->moment->disk_count; machine->disk_count++)
		if (!write_disk(keeper, machine->disk_count, error))
			return false;
	return linux_template_put(&keeper->writer, machine, &keeper->moment->state, error) &&
	       fleet_write_memory(keeper->fleet, keeper->moment, &keeper->writer, error);
}

static bool freeze_and_write(struct keeper *keeper, struct error *error)
{
	struct fleet_moment *moment;
	bool written;

	if (!fleet_freeze(keeper->fleet, keeper->guest, &moment, error))
		return false;
	keeper->moment = moment;
	written = write_moment(keeper, error);
	fleet_release_moment(keeper->fleet, moment);
	return written;
}

/* There is to be no doubt about its name before the guest is frozen. */
static bool keep(struct keeper *keeper, const struct linux_template_place *place,
		 struct error *error)
{
	if (!template_begin(&keeper->writer, place->directory, place->name, error))
		return false;
	if (freeze_and_write(keeper, error))
		return template_finish(&keeper->writer, error);
	template_abort(&keeper->writer);
	return false;
}

static bool freeze_only(struct fleet *fleet, struct guest *guest, struct error *error)
{
	struct fleet_moment *moment;

	if (!fleet_freeze(fleet, guest, &moment, error))
		return false;
	fleet_release_moment(fleet, moment);
	return true;
}

bool linux_template_freeze(struct fleet *fleet, struct guest *guest,
			   const struct linux_template_place *place, struct error *error)
{
	struct keeper *keeper;
	bool kept;

	if (!place->name)
		return freeze_only(fleet, guest, error);
	keeper = calloc(1, sizeof(*keeper));
	if (!keeper)
		return error_set(error, EXIT_FAILED, "out of memory");
	keeper->fleet = fleet;
	keeper->guest = guest;
	kept = keep(keeper, place, error);
	free(keeper);
	return kept;
}
