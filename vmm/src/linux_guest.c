// SPDX-License-Identifier: MIT
#include "linux_guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "host.h"

/*
 * The machine has no timer to measure the TSC with, and AMD's processors have no CPUID leaf that
 * tells its rate, so the command line does, where it does not say something else.
 */
static bool complete_cmdline(struct linux_guest *guest, const char *wanted, struct error *error)
{
	static const char option[] = "tsc_early_khz=";
	unsigned khz = strstr(wanted, option) ? 0 : host_tsc_khz();

	if (khz && asprintf(&guest->cmdline, "%s%s%s%u", wanted, *wanted ? " " : "", option,
			    khz) < 0)
		guest->cmdline = NULL;
	if (!khz)
		guest->cmdline = strdup(wanted);
	return guest->cmdline || error_set(error, EXIT_FAILED, "out of memory");
}

bool linux_identity_make(struct linux_identity *identity, struct error *error)
{
	if (getrandom(identity, sizeof(*identity), 0) != sizeof(*identity))
		return error_set(error, EXIT_FAILED, "no random numbers: %s", strerror(errno));
	return true;
}

bool linux_mac_make(uint8_t mac[6], struct error *error)
{
	if (getrandom(mac, 6, 0) != 6)
		return error_set(error, EXIT_FAILED, "no random numbers: %s", strerror(errno));
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 0x02);
	return true;
}

static bool load(struct linux_guest *guest, unsigned cpus, struct error *error)
{
	struct linux_identity identity;
	struct linux_boot boot = {
		.ram_bytes = guest->memory.bytes,
		.cpus = cpus,
		.kernel = &guest->kernel,
		.initrd = guest->initrd.bytes ? &guest->initrd : NULL,
		.cmdline = guest->cmdline,
		.seed = identity.seed,
		.generation = identity.generation,
	};
	struct linux_plan plan;

	if (!linux_identity_make(&identity, error) || !linux_boot_plan(&boot, &plan, error))
		return false;
	linux_boot_load(&boot, &plan, guest->memory.mapping, &guest->start);
	guest->seed = linux_boot_seed(&plan);
	return true;
}

bool linux_guest_open(struct linux_guest *guest, const struct linux_request *request,
		      struct error *error)
{
	*guest = (struct linux_guest){ .memory.fd = -1 };
	if (!linux_image_open(&guest->kernel, request->kernel, error))
		return false;
	if ((!request->initrd || linux_initrd_open(&guest->initrd, request->initrd, error)) &&
	    complete_cmdline(guest, request->cmdline ? request->cmdline : "", error) &&
	    memfile_create(&guest->memory, "the guest's memory", request->memory, error) &&
	    load(guest, request->cpus, error) && (!request->copied || memfile_seal(&guest->memory, error)))
		return true;
	linux_guest_close(guest);
	return false;
}

void linux_guest_close(struct linux_guest *guest)
{
	memfile_close(&guest->memory);
	free(guest->cmdline);
	if (guest->initrd.bytes)
		blob_free(&guest->initrd);
	linux_image_close(&guest->kernel);
}
