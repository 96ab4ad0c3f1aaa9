/* SPDX-License-Identifier: MIT */
/* The least files that are taken for Linux kernels, for tests to begin with and to damage. */
#ifndef TESTS_LINUX_FILES_H
#define TESTS_LINUX_FILES_H

#include <asm/bootparam.h>
#include <elf.h>
#include <stddef.h>
#include <stdint.h>

/* One sector of setup code behind the boot sector, then 1 KiB of kernel. */
#define BZIMAGE_PAYLOAD_AT    0x400
#define BZIMAGE_PAYLOAD_BYTES 0x400
#define BZIMAGE_START	      0x1000000
#define BZIMAGE_MEMORY	      0x800000
#define BZIMAGE_CMDLINE	      0x7ff

struct bzimage_file {
	uint8_t boot[0x1f1];
	struct setup_header header;
	uint8_t setup[BZIMAGE_PAYLOAD_AT - 0x1f1 - sizeof(struct setup_header)];
	uint8_t payload[BZIMAGE_PAYLOAD_BYTES];
} __attribute__((packed));

static inline struct bzimage_file bzimage_file(void)
{
	struct bzimage_file file = {
		.header = {
			.setup_sects = 1,
			.syssize = BZIMAGE_PAYLOAD_BYTES / 16,
			.boot_flag = 0xaa55,
			.jump = 0x6aeb, /* over 0x6a bytes, where the header ends */
			.header = 0x53726448,
			.version = 0x20f,
			.loadflags = LOADED_HIGH,
			.initrd_addr_max = 0x7fffffff,
			.kernel_alignment = 0x200000,
			.relocatable_kernel = 1,
			.xloadflags = XLF_KERNEL_64,
			.cmdline_size = BZIMAGE_CMDLINE,
			.pref_address = BZIMAGE_START,
			.init_size = BZIMAGE_MEMORY,
		},
	};

	for (size_t i = 0; i < sizeof(file.payload); i++)
		file.payload[i] = (uint8_t)(i | 1);
	return file;
}

/* Two segments with a gap between them, and the note of a PVH entry. */
#define VMLINUX_START  0x1000000
#define VMLINUX_SECOND 0x1200000
#define VMLINUX_MEMORY 0x203000
#define VMLINUX_ENTRY  0x10

struct vmlinux_file {
	Elf64_Ehdr header;
	Elf64_Phdr segments[3];
	uint8_t text[100];
	uint8_t data[100];
	struct {
		Elf64_Nhdr header;
		char name[4];
		uint32_t entry;
	} notes[2];
};

static inline struct vmlinux_file vmlinux_file(void)
{
	struct vmlinux_file file = {
		.header = {
			.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
				     EV_CURRENT },
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_version = EV_CURRENT,
			.e_entry = VMLINUX_START + VMLINUX_ENTRY,
			.e_phoff = offsetof(struct vmlinux_file, segments),
			.e_ehsize = sizeof(Elf64_Ehdr),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 3,
		},
		.segments = {
			{ .p_type = PT_LOAD, .p_flags = PF_R | PF_X,
			  .p_offset = offsetof(struct vmlinux_file, text),
			  .p_vaddr = 0xffffffff81000000, .p_paddr = VMLINUX_START,
			  .p_filesz = 100, .p_memsz = 100 },
			{ .p_type = PT_LOAD, .p_flags = PF_R | PF_W,
			  .p_offset = offsetof(struct vmlinux_file, data),
			  .p_vaddr = 0xffffffff81200000, .p_paddr = VMLINUX_SECOND,
			  .p_filesz = 100, .p_memsz = 0x3000 },
			{ .p_type = PT_NOTE,
			  .p_offset = offsetof(struct vmlinux_file, notes),
			  .p_filesz = sizeof(file.notes), .p_memsz = sizeof(file.notes) },
		},
		.notes = {
			{ { 4, 4, 6 }, "GNU", 0 },
			{ { 4, 4, 18 }, "Xen", VMLINUX_START + 0x20 },
		},
	};

	for (size_t i = 0; i < sizeof(file.text); i++) {
		file.text[i] = 0x90;
		file.data[i] = 0xdd;
	}
	return file;
}

#endif
