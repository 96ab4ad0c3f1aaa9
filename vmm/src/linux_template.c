// SPDX-License-Identifier: MIT
#include "linux_template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "linux_template_format.h"

bool linux_template_disk(const struct linux_template *template, unsigned number,
			 struct disk *disk, struct error *error)
{
	const struct linux_template_disk *saved = &template->machine.disks[number];
	const char *layers[2] = { saved->path };
	char overlay[64];
	char *path;
	bool opened;

	if (saved->read_only)
		return disk_open(disk, saved->path, DISK_READ_ONLY, error);
	linux_template_disk_name(number, overlay, sizeof(overlay));
	/* By the open directory: it is this template's whatever becomes of its name. */
	if (asprintf(&path, "/proc/self/fd/%d/%s", template->files.directory, overlay) < 0)
		return error_set(error, EXIT_FAILED, "out of memory");
	layers[1] = path;
	opened = disk_open_overlays(disk, layers, 2, NULL, error);
	free(path);
	return opened;
}

/* What the checksum does not tell: that the parts fit each other. */
static bool machine_good(const struct linux_template *template)
{
	const struct linux_template_machine *machine = &template->machine;

	if (machine->disk_count > BOARD_DISKS || machine->net_count > BOARD_NETS ||
	    machine->disk_count + machine->net_count > BOARD_DISKS ||
	    machine->cpus != template->state.cpu_count ||
	    machine->cpus < 1 || machine->cpus > PLATFORM_CPUS_MAX ||
	    machine->memory != template->files.memory.bytes)
		return false;
	for (unsigned i = 0; i < machine->disk_count; i++)
		if (!memchr(machine->disks[i].path, 0, LINUX_DISK_PATH))
			return false;
	return true;
}

bool linux_template_open(struct linux_template *template, const char *directory, const char *name,
			 struct error *error)
{
	if (!template_open(&template->files, directory, name, error))
		return false;
	if (template_get(&template->files, linux_template_machine_key, &template->machine,
			 sizeof(template->machine), error) &&
	    template_get(&template->files, linux_template_state_key, &template->state,
			 sizeof(template->state), error)) {
		if (machine_good(template))
			return true;
		error_set(error, EXIT_INPUT, "template %s is not one of a Linux guest", name);
	}
	linux_template_close(template);
	return false;
}

bool linux_template_put(struct template_writer *writer,
			const struct linux_template_machine *machine,
			const struct guest_state *state, struct error *error)
{
	return template_put(writer, linux_template_machine_key, machine, sizeof(*machine), error) &&
	       template_put(writer, linux_template_state_key, state, sizeof(*state), error);
}

void linux_template_close(struct linux_template *template)
{
	template_close(&template->files);
}
