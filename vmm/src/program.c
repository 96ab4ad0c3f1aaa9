// SPDX-License-Identifier: MIT
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "s2vm/guest_abi.h"

#define PROGRAM_LIMIT (UINT64_C(1) << 28)

static uint64_t page_down(uint64_t at)
{
	return at & ~(uint64_t)(EPT_PAGE_BYTES - 1);
}

static uint64_t page_up(uint64_t at)
{
	return page_down(at + EPT_PAGE_BYTES - 1);
}

/* Where the programs that come with s2vm are: beside its own executable, as built or installed. */
static bool find_program(const char *name, char *path, size_t bytes, struct error *error)
{
	char self[PATH_MAX];
	ssize_t length;

	if (strchr(name, '/')) {
		snprintf(path, bytes, "%s", name);
		return true;
	}
	length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (length < 0)
		return error_set(error, EXIT_FAILED, "cannot find my own executable: %s",
				 strerror(errno));
	self[length] = 0;
	snprintf(path, bytes, "%s/../share/s2vm/guests/%s", dirname(self), name);
	if (access(path, F_OK) < 0)
		return error_set(error, EXIT_INPUT,
				 "no guest program named %s (looked for %s): name one that comes with s2vm, or a path with a slash",
				 name, path);
	return true;
}

static unsigned rights_of(uint32_t flags)
{
	return EPT_READ | (flags & PF_W ? EPT_WRITE : 0) | (flags & PF_X ? EPT_EXEC : 0);
}

/* Appends @bytes at @start to what guests map of the image. Image pages follow each other. */
static bool add_region(struct program *program, uint64_t start, uint64_t bytes, unsigned rights,
		       const char *path, struct error *error)
{
	const struct ept_region *last;
	struct ept_region *region;
	uint64_t page = 0;

	if (program->region_count > PROGRAM_SEGMENTS)
		return error_set(error, EXIT_INPUT, "%s has more than %d segments", path,
				 PROGRAM_SEGMENTS);
	if (program->region_count) {
		last = &program->regions[program->region_count - 1];
		page = last->first.page + last->bytes / EPT_PAGE_BYTES;
	}
	region = &program->regions[program->region_count++];
	*region = (struct ept_region){
		.start = { start },
		.bytes = bytes,
		.first = { .page = page },
		.rights = rights,
		.mode = EPT_PRIVATE,
	};
	return true;
}

/* Plans one loadable segment: whole pages, apart from all others and from the memory file. */
static bool plan_segment(struct program *program, const GElf_Phdr *segment, const char *path,
			 struct error *error)
{
	uint64_t start = page_down(segment->p_vaddr);
	uint64_t end = page_up(segment->p_vaddr + segment->p_memsz);

	if (segment->p_vaddr < S2VM_PROGRAM_BASE || segment->p_vaddr >= S2VM_FILE_BASE ||
	    segment->p_memsz > PROGRAM_LIMIT ||
	    end > S2VM_FILE_BASE || segment->p_filesz > segment->p_memsz)
		return error_set(error, EXIT_INPUT,
				 "%s does not fit: its segment at %#llx must lie between %#x and %#x; link it there",
				 path, (unsigned long long)segment->p_vaddr, S2VM_PROGRAM_BASE,
				 S2VM_FILE_BASE);
	for (unsigned i = 0; i < program->region_count; i++)
		if (start < (program->regions[i].start.v + program->regions[i].bytes) &&
		    end > program->regions[i].start.v)
			return error_set(error, EXIT_INPUT,
					 "%s has two segments in one page at %#llx: link it with page-aligned segments",
					 path, (unsigned long long)start);
	return add_region(program, start, end - start, rights_of(segment->p_flags), path, error);
}

/* The program's note, if it has one: s2vm/guest_abi.h. */
static void read_note(struct program *program, Elf *elf, const GElf_Phdr *segment)
{
	Elf_Data *data = elf_getdata_rawchunk(elf, (int64_t)segment->p_offset, segment->p_filesz,
					      ELF_T_NHDR);
	size_t at = 0, name, description;
	GElf_Nhdr note;

	while (data && (at = gelf_getnote(data, at, &note, &name, &description)) > 0)
		if (note.n_type == S2VM_NOTE_MACHINE_ROOT && note.n_descsz == sizeof(uint64_t) &&
		    note.n_namesz == sizeof(S2VM_NOTE_NAME) &&
		    memcmp((char *)data->d_buf + name, S2VM_NOTE_NAME, sizeof(S2VM_NOTE_NAME)) == 0)
			memcpy(&program->machine_root.v, (char *)data->d_buf + description,
			       sizeof(uint64_t));
}

static bool plan(struct program *program, Elf *elf, const char *path, struct error *error)
{
	GElf_Ehdr header;
	size_t count;

	if (elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &header) ||
	    gelf_getclass(elf) != ELFCLASS64 || header.e_machine != EM_X86_64)
		return error_set(error, EXIT_INPUT,
				 "%s is no 64-bit x86 ELF program: build it like those in guest-tests/programs",
				 path);
	if (header.e_type != ET_EXEC)
		return error_set(error, EXIT_INPUT,
				 "%s is not a static executable: link it with -static and without -pie",
				 path);
	if (elf_getphdrnum(elf, &count) < 0)
		return error_set(error, EXIT_INPUT, "%s: %s", path, elf_errmsg(-1));
	for (size_t i = 0; i < count; i++) {
		GElf_Phdr segment;

		if (!gelf_getphdr(elf, (int)i, &segment))
			return error_set(error, EXIT_INPUT, "%s: %s", path, elf_errmsg(-1));
		if (segment.p_type == PT_NOTE)
			read_note(program, elf, &segment);
		if (segment.p_type == PT_LOAD && segment.p_memsz &&
		    !plan_segment(program, &segment, path, error))
			return false;
	}
	program->entry.v = header.e_entry;
	if (!program->region_count)
		return error_set(error, EXIT_INPUT, "%s has nothing to load", path);
	return true;
}

/* The stack comes last in the image. Its lowest page is followed by nothing: overflow faults. */
static bool make_image(struct program *program, const char *path, struct error *error)
{
	const struct ept_region *last;

	if (!add_region(program, S2VM_STACK_END - S2VM_STACK_BYTES, S2VM_STACK_BYTES,
			EPT_READ | EPT_WRITE, path, error))
		return false;
	program->stack_end.v = S2VM_STACK_END;
	last = &program->regions[program->region_count - 1];
	return memfile_create(&program->image, path,
			      last->first.page * EPT_PAGE_BYTES + last->bytes, error);
}

/* Where in the image the byte at @at lies; the address is in a planned region. */
static unsigned char *image_at(const struct program *program, uint64_t at)
{
	for (unsigned i = 0; i < program->region_count; i++) {
		const struct ept_region *region = &program->regions[i];

		if (at - region->start.v < region->bytes)
			return (unsigned char *)program->image.mapping +
			       region->first.page * EPT_PAGE_BYTES + (at - region->start.v);
	}
	return NULL;
}

static bool read_segments(struct program *program, Elf *elf, int fd, const char *path,
			  struct error *error)
{
	size_t count = 0;

	elf_getphdrnum(elf, &count);
	for (size_t i = 0; i < count; i++) {
		GElf_Phdr segment;

		if (!gelf_getphdr(elf, (int)i, &segment) || segment.p_type != PT_LOAD ||
		    !segment.p_filesz)
			continue;
		if (pread(fd, image_at(program, segment.p_vaddr), segment.p_filesz,
			  (off_t)segment.p_offset) != (ssize_t)segment.p_filesz)
			return error_set(error, EXIT_INPUT,
					 "%s ends before its segments do: it is cut off", path);
	}
	return true;
}

static bool load_elf(struct program *program, int fd, const char *path, struct error *error)
{
	bool loaded = false;
	Elf *elf;

	elf_version(EV_CURRENT);
	elf = elf_begin(fd, ELF_C_READ, NULL);
	if (!elf)
		return error_set(error, EXIT_INPUT, "%s: %s", path, elf_errmsg(-1));
	if (plan(program, elf, path, error) && make_image(program, path, error))
		loaded = read_segments(program, elf, fd, path, error) &&
			 memfile_seal(&program->image, error);
	elf_end(elf);
	return loaded;
}

bool program_load(struct program *program, const char *name, struct error *error)
{
	char path[PATH_MAX];
	struct stat status;
	bool loaded;
	int fd;

	*program = (struct program){ .image.fd = -1 };
	if (!find_program(name, path, sizeof(path), error))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
		error_set(error, EXIT_INPUT, "cannot open program %s: %s", path,
			  fd < 0 ? strerror(errno) : "it is not a regular file");
		if (fd >= 0)
			close(fd);
		return false;
	}
	loaded = load_elf(program, fd, path, error);
	close(fd);
	if (!loaded)
		program_unload(program);
	return loaded;
}

/* Stage-1 tables as the guest runtime has them: 512 GiB by large pages, accessed and dirty. */
static void write_identity(struct program *program)
{
	uint64_t *root = (uint64_t *)image_at(program, program->machine_root.v);
	uint64_t *pdpt = root + EPT_ENTRIES;

	root[0] = (program->machine_root.v + EPT_PAGE_BYTES) | 0x27;
	for (uint64_t gib = 0; gib < EPT_ENTRIES; gib++)
		pdpt[gib] = gib << 30 | 0xe7;
}

bool program_from_code(struct program *program, const void *code, size_t bytes,
		       struct error *error)
{
	uint64_t tables = S2VM_PROGRAM_BASE + page_up(bytes);

	*program = (struct program){
		.image.fd = -1,
		.entry = { S2VM_PROGRAM_BASE },
		.machine_root = { tables },
	};
	if (!add_region(program, S2VM_PROGRAM_BASE, page_up(bytes), EPT_READ | EPT_EXEC, "code",
			error) ||
	    !add_region(program, tables, 2 * EPT_PAGE_BYTES, EPT_READ | EPT_WRITE, "code",
			error) ||
	    !make_image(program, "code", error))
		return false;
	memcpy(program->image.mapping, code, bytes);
	write_identity(program);
	if (!memfile_seal(&program->image, error)) {
		program_unload(program);
		return false;
	}
	return true;
}

void program_unload(struct program *program)
{
	memfile_close(&program->image);
}
