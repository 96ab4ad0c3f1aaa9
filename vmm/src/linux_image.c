// SPDX-License-Identifier: MIT
/* Nothing in a file is trusted: numbers are compared with the file's size before they are used. */
#include "linux_image.h"

#include <elf.h>
#include <string.h>

#include "platform.h"

/* Boot protocol, "The Real-Mode Kernel Header". */
#define HEADER_AT	   0x1f1u
#define HEADER_LENGTH_AT   0x201u
#define HEADER_LENGTH_FROM 0x202u
#define HEADER_MAGIC	   0x53726448u /* "HdrS" */
#define BOOT_FLAG	   0xaa55u
#define PROTOCOL_2_12	   0x20cu
#define SECTOR_BYTES	   512u
#define SETUP_SECTORS_OLD  4u /* what 0 stands for */
#define PARAGRAPH_BYTES	   16u
#define ENTRY_64	   0x200u
#define ALIGNMENT_MAX	   (UINT64_C(1) << 30)

/* All that is used is in the header from this length on. */
#define HEADER_NEEDED (offsetof(struct setup_header, handover_offset))

/* COMMAND_LINE_SIZE of x86 without the 0, for a file that does not say. */
#define VMLINUX_CMDLINE_MAX 2047u

/* xen/include/public/elfnote.h: the note that a kernel for PVH has. */
#define XEN_NOTE_NAME		"Xen"
#define XEN_NOTE_PHYS32_ENTRY	18u

/* What other files begin with, to say more than that they are no kernel. */
static const struct {
	size_t at;
	const char *magic;
	size_t length;
	const char *text;
} others[] = {
	{ 0x38, "ARM\x64", 4, "a kernel for arm64: name one for x86-64" },
	{ 0x24, "\x18\x28\x6f\x01", 4, "a kernel for arm: name one for x86-64" },
	{ 0x38, "RSC\x05", 4, "a kernel for RISC-V: name one for x86-64" },
	{ 0, "\x1f\x8b", 2, "a file compressed by gzip: unpack it" },
	{ 0, "\xfd" "7zXZ", 5, "a file compressed by xz: unpack it" },
	{ 0, "\x28\xb5\x2f\xfd", 4, "a file compressed by zstd: unpack it" },
	{ 0, "070701", 6, "an initial RAM disk: name a kernel" },
	{ 0, "!<arch>", 7, "a package or archive: unpack it and name the vmlinuz in it" },
};

static bool refuse(const struct linux_image *image, const char *text, struct error *error)
{
	return error_set(error, EXIT_INPUT, "%s is %s", image->name, text);
}

static bool refuse_unknown(const struct linux_image *image, size_t size, struct error *error)
{
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (others[i].at + others[i].length <= size &&
		    memcmp(image->bytes + others[i].at, others[i].magic, others[i].length) == 0)
			return refuse(image, others[i].text, error);
	return refuse(image,
		      "no Linux kernel: name a bzImage, such as /boot/vmlinuz-*, or an ELF vmlinux",
		      error);
}

static bool damaged(const struct linux_image *image, const char *field, struct error *error)
{
	return error_set(error, EXIT_INPUT,
			 "%s is damaged: its %s cannot be right; copy or build it again",
			 image->name, field);
}

static bool cut_off(const struct linux_image *image, uint64_t needed, size_t size,
		    struct error *error)
{
	return error_set(error, EXIT_INPUT,
			 "%s is cut off: it has %zu of at least %llu bytes; copy it again",
			 image->name, size, (unsigned long long)needed);
}

static bool ends_before(const struct linux_image *image, const char *what, struct error *error)
{
	return error_set(error, EXIT_INPUT,
			 "%s is cut off: it ends before its %s do; copy it again", image->name,
			 what);
}

/* --- bzImage --- */

static bool is_bzimage(const struct linux_image *image, size_t size)
{
	struct setup_header header;

	if (size < HEADER_AT + offsetof(struct setup_header, realmode_swtch))
		return false;
	memcpy(&header, image->bytes + HEADER_AT,
	       offsetof(struct setup_header, realmode_swtch));
	return header.boot_flag == BOOT_FLAG && header.header == HEADER_MAGIC;
}

/* Copies the header, as long as it says it is; fields that are not known here are left out. */
static bool copy_header(struct linux_image *image, size_t size, struct error *error)
{
	size_t length = HEADER_LENGTH_FROM + image->bytes[HEADER_LENGTH_AT] - HEADER_AT;
	uint16_t version;

	memcpy(&version, image->bytes + HEADER_AT + offsetof(struct setup_header, version),
	       sizeof(version));
	if (version < PROTOCOL_2_12)
		return error_set(error, EXIT_INPUT,
				 "%s is too old: it has boot protocol %u.%02u, and 2.12 is needed; name Linux 3.8 or later",
				 image->name, version >> 8, version & 0xff);
	if (length < HEADER_NEEDED)
		return damaged(image, "header's length", error);
	if (HEADER_AT + length > size)
		return cut_off(image, HEADER_AT + length, size, error);
	if (length > sizeof(image->header))
		length = sizeof(image->header);
	memcpy(&image->header, image->bytes + HEADER_AT, length);
	return true;
}

/* What follows the real-mode code is the kernel, which is loaded as one piece. */
static bool find_payload(struct linux_image *image, size_t size, struct error *error)
{
	const struct setup_header *header = &image->header;
	uint64_t sectors = header->setup_sects ? header->setup_sects : SETUP_SECTORS_OLD;
	struct linux_segment *segment = &image->segments[0];

	segment->file_at = (sectors + 1) * SECTOR_BYTES;
	segment->bytes = (uint64_t)header->syssize * PARAGRAPH_BYTES;
	if (segment->bytes <= ENTRY_64)
		return damaged(image, "syssize", error);
	if (segment->file_at + segment->bytes > size)
		return cut_off(image, segment->file_at + segment->bytes, size, error);
	image->segment_count = 1;
	image->entry = ENTRY_64;
	return true;
}

/* "init_size": where the kernel runs, it needs that much, and moves there if it is loaded elsewhere. */
static bool find_place(struct linux_image *image, struct error *error)
{
	const struct setup_header *header = &image->header;
	uint64_t alignment = header->relocatable_kernel ? header->kernel_alignment : 1;
	uint64_t start = header->pref_address;

	if (!alignment || alignment & (alignment - 1) || alignment > ALIGNMENT_MAX)
		return damaged(image, "kernel_alignment", error);
	if (start < PLATFORM_HIGH_RAM || start > PLATFORM_RAM_HOLE)
		return damaged(image, "pref_address", error);
	image->start.v = (start + alignment - 1) & ~(alignment - 1);
	image->memory_bytes = header->init_size;
	if (image->memory_bytes < image->segments[0].bytes)
		image->memory_bytes = image->segments[0].bytes;
	return true;
}

static bool parse_bzimage(struct linux_image *image, size_t size, struct error *error)
{
	const struct setup_header *header = &image->header;

	image->kind = LINUX_BZIMAGE;
	if (!copy_header(image, size, error))
		return false;
	if (!(header->xloadflags & XLF_KERNEL_64))
		return refuse(image,
			      "a kernel for 32-bit processors, or without a 64-bit entry: name one for x86-64",
			      error);
	if (!(header->loadflags & LOADED_HIGH))
		return damaged(image, "loadflags", error);
	image->cmdline_max = header->cmdline_size;
	image->initrd_end = (uint64_t)header->initrd_addr_max + 1;
	return find_payload(image, size, error) && find_place(image, error);
}

/* --- vmlinux --- */

/* Whether a range of the file lies in it. */
static bool within(uint64_t at, uint64_t bytes, size_t size)
{
	return at <= size && bytes <= size - at;
}

static uint64_t up_to_4(uint64_t bytes)
{
	return (bytes + 3) & ~UINT64_C(3);
}

/* Whether one of the notes in @bytes bytes at @note is that of an entry for PVH. */
static bool has_pvh_note(const uint8_t *note, uint64_t bytes)
{
	Elf64_Nhdr header;

	while (bytes >= sizeof(header)) {
		uint64_t length;

		memcpy(&header, note, sizeof(header));
		length = sizeof(header) + up_to_4(header.n_namesz) + up_to_4(header.n_descsz);
		if (length > bytes)
			return false;
		if (header.n_type == XEN_NOTE_PHYS32_ENTRY &&
		    header.n_namesz == sizeof(XEN_NOTE_NAME) &&
		    memcmp(note + sizeof(header), XEN_NOTE_NAME, sizeof(XEN_NOTE_NAME)) == 0)
			return true;
		note += length;
		bytes -= length;
	}
	return false;
}

/* Adds a segment; @at is its address until all are known. */
static bool add_segment(struct linux_image *image, const Elf64_Phdr *from, size_t size,
			struct error *error)
{
	uint64_t end = from->p_paddr + from->p_memsz;

	if (image->segment_count == LINUX_SEGMENTS)
		return damaged(image, "number of segments", error);
	if (from->p_filesz > from->p_memsz || from->p_paddr < PLATFORM_HIGH_RAM ||
	    end < from->p_paddr || end > PLATFORM_RAM_HOLE)
		return damaged(image, "segments' addresses", error);
	if (!within(from->p_offset, from->p_filesz, size))
		return ends_before(image, "segments", error);
	image->segments[image->segment_count++] = (struct linux_segment){
		.file_at = from->p_offset,
		.bytes = from->p_filesz,
		.at = from->p_paddr,
	};
	if (!image->start.v || from->p_paddr < image->start.v)
		image->start.v = from->p_paddr;
	if (end > image->memory_bytes)
		image->memory_bytes = end;
	return true;
}

static Elf64_Phdr program_header(const struct linux_image *image, const Elf64_Ehdr *elf, unsigned i)
{
	Elf64_Phdr header;

	memcpy(&header, image->bytes + elf->e_phoff + i * sizeof(header), sizeof(header));
	return header;
}

static bool check_headers(const struct linux_image *image, const Elf64_Ehdr *elf, size_t size,
			  struct error *error)
{
	if (elf->e_phentsize != sizeof(Elf64_Phdr))
		return damaged(image, "ELF header", error);
	if (!within(elf->e_phoff, (uint64_t)elf->e_phnum * sizeof(Elf64_Phdr), size))
		return ends_before(image, "program headers", error);
	return true;
}

/* Programs have other notes, or none. */
static bool check_notes(const struct linux_image *image, const Elf64_Ehdr *elf, size_t size,
			struct error *error)
{
	for (unsigned i = 0; i < elf->e_phnum; i++) {
		Elf64_Phdr header = program_header(image, elf, i);

		if (header.p_type != PT_NOTE)
			continue;
		if (!within(header.p_offset, header.p_filesz, size))
			return ends_before(image, "notes", error);
		if (has_pvh_note(image->bytes + header.p_offset, header.p_filesz))
			return true;
	}
	return refuse(image,
		      "an ELF file without a PVH entry: name a bzImage, or a vmlinux with CONFIG_PVH",
		      error);
}

static bool read_segments(struct linux_image *image, const Elf64_Ehdr *elf, size_t size,
			  struct error *error)
{
	for (unsigned i = 0; i < elf->e_phnum; i++) {
		Elf64_Phdr header = program_header(image, elf, i);

		if (header.p_type == PT_LOAD && header.p_memsz &&
		    !add_segment(image, &header, size, error))
			return false;
	}
	return image->segment_count || damaged(image, "list of segments", error);
}

/* Addresses of segments and the entry, counted from where the lowest segment is. */
static bool make_relative(struct linux_image *image, uint64_t entry, struct error *error)
{
	image->memory_bytes -= image->start.v;
	image->entry = entry - image->start.v;
	if (entry < image->start.v || image->entry >= image->memory_bytes)
		return damaged(image, "entry", error);
	for (unsigned i = 0; i < image->segment_count; i++)
		image->segments[i].at -= image->start.v;
	return true;
}

/* The header that a bzImage brings and boot_params must have. */
static struct setup_header vmlinux_header(void)
{
	return (struct setup_header){
		.boot_flag = BOOT_FLAG,
		.header = HEADER_MAGIC,
		.version = PROTOCOL_2_12,
		.loadflags = LOADED_HIGH,
		.xloadflags = XLF_KERNEL_64,
		.cmdline_size = VMLINUX_CMDLINE_MAX,
	};
}

static bool check_elf(const struct linux_image *image, const Elf64_Ehdr *elf, struct error *error)
{
	if (elf->e_ident[EI_CLASS] != ELFCLASS64 || elf->e_ident[EI_DATA] != ELFDATA2LSB ||
	    elf->e_machine != EM_X86_64)
		return refuse(image, "an ELF file for another architecture: name a kernel for x86-64",
			      error);
	if (elf->e_type != ET_EXEC)
		return refuse(image, "an ELF file, but no linked kernel: name a vmlinux or a bzImage",
			      error);
	return true;
}

static bool parse_vmlinux(struct linux_image *image, size_t size, struct error *error)
{
	Elf64_Ehdr elf;

	image->kind = LINUX_VMLINUX;
	if (size < sizeof(elf))
		return cut_off(image, sizeof(elf), size, error);
	memcpy(&elf, image->bytes, sizeof(elf));
	image->header = vmlinux_header();
	image->cmdline_max = VMLINUX_CMDLINE_MAX;
	image->initrd_end = PLATFORM_RAM_HOLE;
	return check_elf(image, &elf, error) && check_headers(image, &elf, size, error) &&
	       check_notes(image, &elf, size, error) && read_segments(image, &elf, size, error) &&
	       make_relative(image, elf.e_entry, error);
}

bool linux_image_parse(struct linux_image *image, const void *bytes, size_t size, const char *name,
		       struct error *error)
{
	*image = (struct linux_image){ .name = name, .bytes = bytes };
	if (size >= SELFMAG && memcmp(bytes, ELFMAG, SELFMAG) == 0)
		return parse_vmlinux(image, size, error);
	if (is_bzimage(image, size))
		return parse_bzimage(image, size, error);
	return refuse_unknown(image, size, error);
}

bool linux_image_open(struct linux_image *image, const char *path, struct error *error)
{
	struct blob file;

	*image = (struct linux_image){ 0 };
	if (!blob_read(&file, path, "kernel", error))
		return false;
	if (!linux_image_parse(image, file.bytes, file.size, file.name, error)) {
		blob_free(&file);
		*image = (struct linux_image){ 0 };
		return false;
	}
	image->file = file;
	return true;
}

void linux_image_close(struct linux_image *image)
{
	blob_free(&image->file);
	*image = (struct linux_image){ 0 };
}
