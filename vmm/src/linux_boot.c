// SPDX-License-Identifier: MIT
#include "linux_boot.h"

#include <assert.h>
#include <asm/bootparam.h>
#include <string.h>

#include "acpi.h"

#define PAGE_BYTES  4096u
#define LARGE_BYTES (UINT64_C(1) << 21)
#define ENTRIES	    512u
#define MAPPED_GIB  4u

/* Segments of the boot protocol: __BOOT_CS and __BOOT_DS. */
#define CODE_SELECTOR 0x10u
#define DATA_SELECTOR 0x18u

/*
 * Flat segments (Intel SDM Vol. 3A, "Segment Descriptors"): present, accessed; execute and read,
 * 64-bit; read and write, 32-bit.
 */
#define CODE_DESCRIPTOR UINT64_C(0x00af9b000000ffff)
#define DATA_DESCRIPTOR UINT64_C(0x00cf93000000ffff)

static const uint64_t gdt[] = { 0, 0, CODE_DESCRIPTOR, DATA_DESCRIPTOR };

/*
 * Entries of stage-1 tables (Intel SDM Vol. 3A, "4-Level Paging"). Accessed and dirty are set, so
 * that the processor need not write to the tables.
 */
#define ENTRY_TABLE UINT64_C(0x23) /* present, writable, accessed */
#define ENTRY_LARGE UINT64_C(0xe3) /* the same, dirty, a page of 2 MiB */

/* Processor state of 64-bit mode. */
#define RFLAGS_START UINT64_C(0x2)
#define CR0_START    UINT64_C(0x80010031) /* PG, WP, NE, ET, PE */
#define CR4_START    UINT64_C(0x20)	  /* PAE */
#define EFER_START   UINT64_C(0x500)	  /* LME, LMA */

/* The boot loader's number for one that has none. */
#define LOADER_UNKNOWN 0xffu

/* Kinds of memory, ACPI 6.5, table 15.3. */
#define E820_RAM      1u
#define E820_RESERVED 2u
#define E820_ACPI     3u

#define SEED_OFFSET (sizeof(struct setup_data))

const char *const linux_area_names[LINUX_AREAS] = {
	[LINUX_GDT] = "GDT",
	[LINUX_BOOT_PARAMS] = "boot_params",
	[LINUX_PAGE_TABLES] = "page tables",
	[LINUX_SEED] = "seed",
	[LINUX_CMDLINE] = "command line",
	[LINUX_ACPI] = "ACPI tables",
	[LINUX_GENERATION] = "generation id",
	[LINUX_FIRMWARE] = "reset vector",
	[LINUX_KERNEL] = "kernel",
	[LINUX_INITRD] = "initrd",
};

/* In 16-bit mode: mov dx, port; mov al, value; out dx, al; hlt; and again hlt, should it go on. */
static const uint8_t reset_code[] = {
	0xba, PLATFORM_RESET_PORT & 0xff, PLATFORM_RESET_PORT >> 8,
	0xb0, PLATFORM_RESET_VALUE,
	0xee,
	0xf4,
	0xeb, 0xfd,
};

_Static_assert(sizeof(reset_code) <= 0x100000 - PLATFORM_RESET_VECTOR, "it ends at 1 MiB");

/*
 * What always lies at the same place. The first page is left out, as firmware would have used it.
 * So is what follows 0x90000: a kernel that unpacks itself takes two pages below 0x9f000 for a
 * trampoline while these page tables are in use.
 */
static const struct linux_area fixed[LINUX_AREAS] = {
	[LINUX_GDT] = { { 0x1000 }, sizeof(gdt) },
	[LINUX_BOOT_PARAMS] = { { 0x2000 }, sizeof(struct boot_params) },
	[LINUX_PAGE_TABLES] = { { 0x3000 }, (2 + MAPPED_GIB) * PAGE_BYTES },
	[LINUX_SEED] = { { 0x9000 }, SEED_OFFSET + LINUX_SEED_BYTES },
	[LINUX_CMDLINE] = { { 0x10000 }, 0x10000 },
	[LINUX_ACPI] = { { PLATFORM_ACPI_BASE }, PLATFORM_ACPI_BYTES },
	[LINUX_GENERATION] = { { PLATFORM_GENERATION }, PAGE_BYTES },
	[LINUX_FIRMWARE] = { { PLATFORM_RESET_VECTOR }, sizeof(reset_code) },
};

_Static_assert(sizeof(struct boot_params) == PAGE_BYTES, "zero-page.rst");

static uint64_t mib_up(uint64_t bytes)
{
	return (bytes + (1u << 20) - 1) >> 20;
}

/* --- the initial RAM disk --- */

/* How those begin that Linux unpacks (lib/decompress.c, usr/gen_init_cpio.c). */
static const struct {
	const char *magic;
	size_t length;
} initrd_formats[] = {
	{ "070701", 6 },	     /* cpio */
	{ "070702", 6 },	     /* cpio with checksums */
	{ "\x1f\x8b", 2 },	     /* gzip */
	{ "\x1f\x9e", 2 },	     /* an older gzip */
	{ "BZh", 3 },		     /* bzip2 */
	{ "\x5d\x00\x00", 3 },	     /* lzma */
	{ "\xfd" "7zXZ", 5 },	     /* xz */
	{ "\x89LZO", 4 },	     /* lzop */
	{ "\x02\x21\x4c\x18", 4 },   /* lz4, its older format */
	{ "\x28\xb5\x2f\xfd", 4 },   /* zstd */
};

static bool is_initrd(const struct blob *file)
{
	for (size_t i = 0; i < sizeof(initrd_formats) / sizeof(initrd_formats[0]); i++)
		if (file->size >= initrd_formats[i].length &&
		    memcmp(file->bytes, initrd_formats[i].magic, initrd_formats[i].length) == 0)
			return true;
	return false;
}

bool linux_initrd_open(struct blob *initrd, const char *path, struct error *error)
{
	if (!blob_read(initrd, path, "initrd", error))
		return false;
	if (is_initrd(initrd))
		return true;
	blob_free(initrd);
	return error_set(error, EXIT_INPUT,
			 "%s is no initrd: name a cpio archive (newc), as it is or compressed by gzip, xz, zstd, lz4, lzop, lzma or bzip2",
			 path);
}

/* --- the plan --- */

/* One past the last byte of RAM below the hole. */
static uint64_t low_end(const struct linux_boot *boot)
{
	uint64_t end = boot->ram_bytes & ~(uint64_t)(PAGE_BYTES - 1);

	return end < PLATFORM_RAM_HOLE ? end : PLATFORM_RAM_HOLE;
}

static bool plan_cmdline(const struct linux_boot *boot, struct linux_plan *plan,
			 struct error *error)
{
	uint64_t most = fixed[LINUX_CMDLINE].bytes - 1;
	size_t length = strlen(boot->cmdline);

	if (boot->kernel->cmdline_max < most)
		most = boot->kernel->cmdline_max;
	if (length > most)
		return error_set(error, EXIT_INPUT,
				 "the command line has %zu characters, and %s takes %llu: make it shorter",
				 length, boot->kernel->name, (unsigned long long)most);
	plan->areas[LINUX_CMDLINE].bytes = length + 1;
	return true;
}

static bool plan_kernel(const struct linux_boot *boot, struct linux_plan *plan,
			struct error *error)
{
	const struct linux_image *kernel = boot->kernel;
	uint64_t end = kernel->start.v + kernel->memory_bytes;

	if (end > PLATFORM_RAM_HOLE)
		return error_set(error, EXIT_INPUT,
				 "%s does not fit below 3 GiB: it needs memory up to %llu MiB; name another kernel",
				 kernel->name, (unsigned long long)mib_up(end));
	if (end > low_end(boot))
		return error_set(error, EXIT_INPUT,
				 "%s is too large for %llu MiB of memory: it needs at least %llu MiB",
				 kernel->name, (unsigned long long)(boot->ram_bytes >> 20),
				 (unsigned long long)mib_up(end));
	plan->areas[LINUX_KERNEL] = (struct linux_area){ kernel->start, kernel->memory_bytes };
	return true;
}

/* As high as the kernel reaches, so that it does not stand in the way of what the kernel needs. */
static bool plan_initrd(const struct linux_boot *boot, struct linux_plan *plan,
			struct error *error)
{
	const struct linux_area *kernel = &plan->areas[LINUX_KERNEL];
	uint64_t end = low_end(boot);
	uint64_t floor = kernel->start.v + kernel->bytes;
	uint64_t bytes;

	if (!boot->initrd)
		return true;
	bytes = (boot->initrd->size + PAGE_BYTES - 1) & ~(uint64_t)(PAGE_BYTES - 1);
	if (boot->kernel->initrd_end < end)
		end = boot->kernel->initrd_end & ~(uint64_t)(PAGE_BYTES - 1);
	if (end < floor || end - floor < bytes)
		return error_set(error, EXIT_INPUT,
				 "initrd %s is too large: of the memory that the kernel leaves it needs %llu MiB, and finds %llu MiB; give more memory or a smaller initrd",
				 boot->initrd->name, (unsigned long long)mib_up(bytes),
				 (unsigned long long)(end < floor ? 0 : (end - floor) >> 20));
	plan->areas[LINUX_INITRD] =
		(struct linux_area){ { end - bytes }, boot->initrd->size };
	return true;
}

static bool apart(const struct linux_area *one, const struct linux_area *other)
{
	return one->start.v + one->bytes <= other->start.v ||
	       other->start.v + other->bytes <= one->start.v;
}

static void assert_apart(const struct linux_boot *boot, const struct linux_plan *plan)
{
	for (unsigned i = 0; i < LINUX_AREAS; i++) {
		assert(plan->areas[i].start.v + plan->areas[i].bytes <= low_end(boot));
		for (unsigned j = 0; j < i; j++)
			assert(apart(&plan->areas[i], &plan->areas[j]));
	}
}

bool linux_boot_plan(const struct linux_boot *boot, struct linux_plan *plan, struct error *error)
{
	assert(boot->cpus >= 1 && boot->cpus <= PLATFORM_CPUS_MAX);
	memcpy(plan->areas, fixed, sizeof(fixed));
	if (!boot->seed)
		plan->areas[LINUX_SEED] = (struct linux_area){ 0 };
	if (!plan_cmdline(boot, plan, error) || !plan_kernel(boot, plan, error) ||
	    !plan_initrd(boot, plan, error))
		return false;
	assert_apart(boot, plan);
	return true;
}

/* --- writing it --- */

static void *at(void *ram, const struct linux_plan *plan, enum linux_area_name name)
{
	return (uint8_t *)ram + plan->areas[name].start.v;
}

static void add_memory(struct boot_params *params, uint64_t start, uint64_t end, uint32_t type)
{
	if (start < end)
		params->e820_table[params->e820_entries++] =
			(struct boot_e820_entry){ start, end - start, type };
}

static void write_memory_map(const struct linux_boot *boot, struct boot_params *params)
{
	uint64_t pages = boot->ram_bytes & ~(uint64_t)(PAGE_BYTES - 1);

	add_memory(params, 0, PLATFORM_LOW_RAM_END, E820_RAM);
	add_memory(params, PLATFORM_ACPI_BASE, PLATFORM_ACPI_BASE + PLATFORM_ACPI_BYTES,
		   E820_ACPI);
	add_memory(params, PLATFORM_GENERATION, PLATFORM_FIRMWARE + PAGE_BYTES, E820_RESERVED);
	add_memory(params, PLATFORM_HIGH_RAM, low_end(boot), E820_RAM);
	if (pages > PLATFORM_RAM_HOLE)
		add_memory(params, PLATFORM_RAM_HOLE_END,
			   PLATFORM_RAM_HOLE_END + (pages - PLATFORM_RAM_HOLE), E820_RAM);
}

static void write_boot_params(const struct linux_boot *boot, const struct linux_plan *plan,
			      struct boot_params *params)
{
	struct setup_header *header = &params->hdr;

	*header = boot->kernel->header;
	header->type_of_loader = LOADER_UNKNOWN;
	header->ext_loader_type = 0;
	header->ext_loader_ver = 0;
	header->code32_start = (uint32_t)plan->areas[LINUX_KERNEL].start.v;
	header->cmd_line_ptr = (uint32_t)plan->areas[LINUX_CMDLINE].start.v;
	header->ramdisk_image = (uint32_t)plan->areas[LINUX_INITRD].start.v;
	header->ramdisk_size = (uint32_t)plan->areas[LINUX_INITRD].bytes;
	header->setup_data = plan->areas[LINUX_SEED].start.v;
	params->acpi_rsdp_addr = plan->areas[LINUX_ACPI].start.v;
	write_memory_map(boot, params);
}

/* A PML4, a PDPT, and for each GiB a PD, one after another. */
static void write_page_tables(uint64_t *tables, uint64_t start)
{
	uint64_t *pdpt = tables + ENTRIES;
	uint64_t *pds = pdpt + ENTRIES;

	tables[0] = (start + PAGE_BYTES) | ENTRY_TABLE;
	for (unsigned gib = 0; gib < MAPPED_GIB; gib++)
		pdpt[gib] = (start + (2 + gib) * PAGE_BYTES) | ENTRY_TABLE;
	for (unsigned i = 0; i < MAPPED_GIB * ENTRIES; i++)
		pds[i] = i * LARGE_BYTES | ENTRY_LARGE;
}

static void write_seed(const uint8_t *seed, void *to)
{
	struct setup_data data = { .type = SETUP_RNG_SEED, .len = LINUX_SEED_BYTES };

	memcpy(to, &data, sizeof(data));
	memcpy((uint8_t *)to + SEED_OFFSET, seed, LINUX_SEED_BYTES);
}

static void write_kernel(const struct linux_image *kernel, uint8_t *to)
{
	for (unsigned i = 0; i < kernel->segment_count; i++)
		memcpy(to + kernel->segments[i].at, kernel->bytes + kernel->segments[i].file_at,
		       kernel->segments[i].bytes);
}

static struct linux_start start_of(const struct linux_boot *boot, const struct linux_plan *plan)
{
	return (struct linux_start){
		.rip = plan->areas[LINUX_KERNEL].start.v + boot->kernel->entry,
		.rsi = plan->areas[LINUX_BOOT_PARAMS].start.v,
		.rflags = RFLAGS_START,
		.cr0 = CR0_START,
		.cr3 = plan->areas[LINUX_PAGE_TABLES].start.v,
		.cr4 = CR4_START,
		.efer = EFER_START,
		.gdt = plan->areas[LINUX_GDT].start,
		.gdt_limit = sizeof(gdt) - 1,
		.code_selector = CODE_SELECTOR,
		.data_selector = DATA_SELECTOR,
		.code = CODE_DESCRIPTOR,
		.data = DATA_DESCRIPTOR,
	};
}

void linux_boot_load(const struct linux_boot *boot, const struct linux_plan *plan, void *ram,
		     struct linux_start *start)
{
	memcpy(at(ram, plan, LINUX_GDT), gdt, sizeof(gdt));
	write_boot_params(boot, plan, at(ram, plan, LINUX_BOOT_PARAMS));
	write_page_tables(at(ram, plan, LINUX_PAGE_TABLES),
			  plan->areas[LINUX_PAGE_TABLES].start.v);
	if (boot->seed)
		write_seed(boot->seed, at(ram, plan, LINUX_SEED));
	memcpy(at(ram, plan, LINUX_CMDLINE), boot->cmdline, strlen(boot->cmdline));
	acpi_write(at(ram, plan, LINUX_ACPI), boot->cpus);
	if (boot->generation)
		memcpy(at(ram, plan, LINUX_GENERATION), boot->generation, LINUX_GENERATION_BYTES);
	memcpy(at(ram, plan, LINUX_FIRMWARE), reset_code, sizeof(reset_code));
	write_kernel(boot->kernel, at(ram, plan, LINUX_KERNEL));
	if (boot->initrd)
		memcpy(at(ram, plan, LINUX_INITRD), boot->initrd->bytes, boot->initrd->size);
	*start = start_of(boot, plan);
}

struct gpa linux_boot_seed(const struct linux_plan *plan)
{
	return (struct gpa){ plan->areas[LINUX_SEED].start.v + SEED_OFFSET };
}
