/* SPDX-License-Identifier: MIT */
/*
 * The parts of a template's code: template_state.c has the state file as bytes, template_writer.c
 * makes templates, template.c opens them, template_store.c has the directory that they are in.
 */
#ifndef VMM_TEMPLATE_INTERNAL_H
#define VMM_TEMPLATE_INTERNAL_H

#include "template.h"

#define TEMPLATE_MAGIC	       "s2vmtmpl"
#define TEMPLATE_FORMAT	       1
#define TEMPLATE_SUM_BYTES     32 /* SHA-256 */
#define TEMPLATE_STATE_MAX     (UINT32_C(16) << 20)
#define TEMPLATE_SECTION_ALIGN 8u

#define TEMPLATE_STATE	"state"
#define TEMPLATE_MEMORY "memory"

/* The state file begins so. All numbers are little-endian. */
struct template_header {
	char magic[8];
	uint32_t format;
	uint32_t reserved;
	uint64_t bytes; /* of the file */
	uint64_t created_ns;
	uint8_t sum[TEMPLATE_SUM_BYTES]; /* of all other bytes of the file */
};

/* A section begins so; its bytes follow, filled up with zeros. */
struct template_section_header {
	char tag[TEMPLATE_TAG_MAX + 1]; /* filled up with zeros */
	uint32_t number;
	uint32_t version;
	uint64_t bytes;
};

/* A section for each file beside the state; number 0 is the memory's. */
#define TEMPLATE_FILE_TAG     "file"
#define TEMPLATE_FILE_VERSION 1

struct template_file {
	char name[TEMPLATE_NAME_MAX]; /* filled up with zeros */
	uint64_t bytes;
	uint64_t changed_ns; /* its time of change, since 1970 (UTC) */
	uint8_t sum[TEMPLATE_SUM_BYTES];
};

/* --- template_state.c --- */

bool template_tag_good(const char *tag);

/* Appends a section to @state of @bytes bytes, which may move; false if memory is short. */
bool template_state_add(uint8_t **state, size_t *bytes, struct template_key key, const void *from,
			size_t count);

/* Fills in length, checksum and what else a header has, for an end. */
bool template_state_seal(uint8_t *state, size_t bytes);

/* Whether all of it is a state; @name is for messages. */
bool template_state_check(const uint8_t *state, size_t bytes, const char *name,
			  struct error *error);

/* For a state that was checked. */
bool template_state_find(const uint8_t *state, size_t bytes, const char *tag, uint32_t number,
			 struct template_section *section);

/* --- template_store.c --- */

/* The directory that templates are in, which is made if it is not there; -1 where it failed. */
int template_open_parent(const char *directory, struct error *error);

/* The directory of a template in @parent, which is called @directory; -1 where it failed. */
int template_open_one(int parent, const char *directory, const char *name, struct error *error);

bool template_name_good(const char *name);
bool template_check_name(const char *name, struct error *error);

/* Removes all files below directory @at of @parent, open as @directory, and then @at itself. */
bool template_unlink_all(int parent, const char *at, int directory);

/* A directory of our own in @parent, locked; -1 with errno. @name, of at least 16 bytes, gets its name. */
int template_make_temporary(int parent, char *name);

/* --- template.c --- */

/* Fills in all but the name, for the template of that name in @parent. */
void template_look(int parent, const char *directory, struct template_info *info);

/* --- template_writer.c --- */

struct stat;

/*
 * The checksum of file @fd of @bytes bytes: SHA-256 of each page of 4 KiB, filled up with zeros,
 * that is not all zeros, in order, with its number before it (8 bytes), and of the length (8
 * bytes) at the end. So holes cost nothing, and are nothing else than zeros. False with errno.
 */
bool template_file_sum(int fd, uint64_t bytes, uint8_t *sum);

uint64_t template_changed_ns(const struct stat *status);
bool template_page_is_zero(const void *page);

#endif
