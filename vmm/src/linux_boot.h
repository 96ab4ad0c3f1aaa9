/* SPDX-License-Identifier: MIT */
/*
 * The memory image that a Linux guest starts from, and where its first CPU starts: the 64-bit boot
 * protocol (Documentation/arch/x86/boot.rst, zero-page.rst) on the machine of platform.h.
 *
 * First linux_boot_plan() looks at all that was asked for and says where it comes to; then
 * linux_boot_load() writes it, which cannot fail.
 */
#ifndef VMM_LINUX_BOOT_H
#define VMM_LINUX_BOOT_H

#include <stdbool.h>
#include <stdint.h>

#include "blob.h"
#include "ept/addr.h"
#include "error.h"
#include "linux_image.h"
#include "platform.h"

#define LINUX_SEED_BYTES       32
#define LINUX_GENERATION_BYTES 16

/* What lies where; none overlaps another. */
enum linux_area_name {
	LINUX_GDT,
	LINUX_BOOT_PARAMS,
	LINUX_PAGE_TABLES,
	LINUX_SEED,
	LINUX_CMDLINE,
	LINUX_ACPI,
	LINUX_GENERATION,
	LINUX_FIRMWARE,
	LINUX_KERNEL,
	LINUX_INITRD,
	LINUX_AREAS,
};

struct linux_area {
	struct gpa start;
	uint64_t bytes; /* 0 for what there is not */
};

extern const char *const linux_area_names[LINUX_AREAS];

struct linux_boot {
	uint64_t ram_bytes; /* of the guest, without holes; what exceeds whole pages is not used */
	unsigned cpus;	    /* 1 to PLATFORM_CPUS_MAX */
	const struct linux_image *kernel;
	const struct blob *initrd; /* NULL for none */
	const char *cmdline;
	const uint8_t *seed;	   /* LINUX_SEED_BYTES for the kernel's random numbers, or NULL */
	const uint8_t *generation; /* LINUX_GENERATION_BYTES, the generation id, or NULL for 0 */
};

struct linux_plan {
	struct linux_area areas[LINUX_AREAS];
};

/*
 * How the first CPU begins. All that is not here is as after a reset: other general registers are
 * 0, interrupts are off, there is no IDT and no task. The protocol wants code and data segments to
 * be those of the GDT, whose descriptors @code and @data repeat; it asks for no stack.
 */
struct linux_start {
	uint64_t rip;
	uint64_t rsi; /* boot_params */
	uint64_t rflags;
	uint64_t cr0, cr3, cr4, efer;
	struct gpa gdt;
	uint16_t gdt_limit;
	uint16_t code_selector; /* for cs */
	uint16_t data_selector; /* for ds, es, fs, gs and ss */
	uint64_t code, data;
};

/*
 * Reads an initial RAM disk: a cpio archive, or one of the compressed files that kernels unpack. To
 * be freed by blob_free().
 */
bool linux_initrd_open(struct blob *initrd, const char *path, struct error *error);

/* Decides where everything lies, or says why it cannot. */
bool linux_boot_plan(const struct linux_boot *boot, struct linux_plan *plan, struct error *error);

/*
 * Writes what was planned to @ram, which is @boot->ram_bytes long and all zero. Pages that stay
 * zero are not written.
 */
void linux_boot_load(const struct linux_boot *boot, const struct linux_plan *plan, void *ram,
		     struct linux_start *start);

/*
 * Where the seed's bytes lie, in guest-physical memory and in @ram: a machine that starts from a
 * copy of the image gets other ones by writing LINUX_SEED_BYTES there before its first instruction.
 * Only for an image with a seed. What has long been started is told by the generation id.
 */
struct gpa linux_boot_seed(const struct linux_plan *plan);

#endif
