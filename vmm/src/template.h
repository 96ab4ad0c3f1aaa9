/* SPDX-License-Identifier: MIT */
/*
 * Templates: what a guest was when it was frozen, for clones that go on from there. One is a
 * directory DIR/NAME with these files, which nobody changes any more (docs/templates.md):
 *
 *	memory	the guest's memory; pages that are zero are holes
 *	state	all else, in sections; it also says what the other files must be
 *	...	such as disk0, overlays of disks
 *
 * A template that is open is locked (flock() of its directory), so that it cannot be removed. One
 * is made under a name that nobody looks at, and has its own when it is complete and durable.
 *
 * Nothing here has a lock: each template and each writer belongs to one thread at a time.
 */
#ifndef VMM_TEMPLATE_H
#define VMM_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "memfile.h"

#define TEMPLATE_DIRECTORY   "/var/lib/s2vm/templates"
#define TEMPLATE_ENVIRONMENT "S2VM_TEMPLATES"
#define TEMPLATE_NAME_MAX    64 /* letters, digits, '.', '_' and '-'; not '.' first */
#define TEMPLATE_TAG_MAX     15 /* letters, digits and '-' */
#define TEMPLATE_SECTIONS    64
#define TEMPLATE_FILES	     16 /* beside the state */

/* Which section: there is one with this tag and number, of the version that is wanted. */
struct template_key {
	const char *tag;
	uint32_t number; /* such as that of a CPU */
	uint32_t version;
};

/* Where templates are: @option if it is not NULL, or what the environment says, or the default. */
const char *template_directory(const char *option);

/* ---- making one ---- */

struct template_writer {
	char *name;	 /* for messages */
	char *temporary; /* of the directory while it is made, below @parent */
	char *path;	 /* the same, whole */
	int parent;	 /* open directories */
	int directory;
	uint8_t *state; /* the state file as far as it is known */
	size_t bytes;
	unsigned sections;
};

/*
 * Begins a template @name in @directory, which is made if it is not there. Refused in one line if
 * the name is none, or if there is one. On failure there is nothing to abort.
 */
bool template_begin(struct template_writer *writer, const char *directory, const char *name,
		    struct error *error);

/* Adds a section. */
bool template_put(struct template_writer *writer, struct template_key key, const void *bytes,
		  size_t count, struct error *error);

/* Memory as its pages are read: @read is false if one cannot be had, as memfile_read_page() is. */
struct template_memory {
	uint64_t bytes; /* at least 1 */
	bool (*read)(void *context, uint64_t page, void *to);
	void *context;
};

/* Writes the memory, once: its pages in order, but for those that are zero. */
bool template_put_memory(struct template_writer *writer, const struct template_memory *memory,
			 struct error *error);

/* The same for memory that is mapped. */
bool template_put_mapping(struct template_writer *writer, const void *mapping, uint64_t bytes,
			  struct error *error);

/*
 * Where other files of the template are to be made, under names as templates have: they are taken
 * as they are, closed, by template_finish().
 */
const char *template_path(const struct template_writer *writer);

/*
 * Makes all of it durable and gives it its name. False, with nothing left, if there is one of that
 * name by now or the disk is full, say.
 */
bool template_finish(struct template_writer *writer, struct error *error);

/* Leaves nothing behind. */
void template_abort(struct template_writer *writer);

/* ---- using one ---- */

struct template {
	char *name;
	int directory;	/* locked, shared */
	uint8_t *state; /* the state file, checked */
	size_t bytes;
	struct memfile memory; /* to be read only */
};

/*
 * Opens template @name of @directory, and checks all of it: a file whose size and time of change
 * are those that the state says is taken for what it was, one with another time if its checksum is
 * right. Refused in one line, with nothing left open: EXIT_NO_SUCH if there is none.
 */
bool template_open(struct template *template, const char *directory, const char *name,
		   struct error *error);

void template_close(struct template *template);

struct template_section {
	const void *bytes; /* aligned to 8; valid until the template is closed */
	size_t count;
	uint32_t version;
};

/* False if there is none; the version is the caller's to look at. */
bool template_find(const struct template *template, const char *tag, uint32_t number,
		   struct template_section *section);

/* Copies a section of this version and of @count bytes, or says which of these it is not. */
bool template_get(const struct template *template, struct template_key key, void *to, size_t count,
		  struct error *error);

/*
 * Computes the checksums of all files. Those that are right have the time of change that the state
 * says from then on, where that can be set, so that opening a copy does not compute them again.
 */
bool template_verify(const struct template *template, struct error *error);

/* When it was made, in nanoseconds since 1970 (UTC). */
uint64_t template_created_ns(const struct template *template);

/* ---- all of them ---- */

struct template_info {
	char name[TEMPLATE_NAME_MAX + 1];
	uint64_t created_ns;
	uint64_t memory_bytes;
	uint64_t disk_bytes; /* that all its files take */
	char problem[256];   /* why it cannot be used; empty, with the above known, if it can */
};

/*
 * All templates of @directory, by name, to be freed with free(). Checksums of files are not
 * computed. There are none where there is no such directory.
 */
bool template_list(const char *directory, struct template_info **infos, size_t *count,
		   struct error *error);

/* Removes a template, whatever it holds. Refused while somebody has it open. */
bool template_remove(const char *directory, const char *name, struct error *error);

#endif
