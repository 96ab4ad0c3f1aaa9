/* SPDX-License-Identifier: MIT */
/* What tests of disks have in common: a base in a directory of its own, and copies to compare. */
#ifndef DISK_CASE_H
#define DISK_CASE_H

#include <stdbool.h>
#include <stdint.h>

#include "disk.h"

/* More than two leaves of a map in memory, and no whole number of clusters. */
#define CASE_BYTES ((9u << 20) + 3 * DISK_SECTOR)

extern char case_directory[];
extern char case_base[64];
extern char case_overlay[64];  /* does not exist at first, and neither does the next */
extern char case_exported[64];
extern unsigned char case_first[CASE_BYTES]; /* what the base has */
extern struct error case_error;
extern unsigned case_descriptors; /* that were open when the test began */

/* For cmocka: of all tests, and of each. It fails if a test has left descriptors open. */
int case_setup(void **state);
int case_teardown(void **state);
int case_begin(void **state);
int case_end(void **state);

#define DISK_CASE(test) cmocka_unit_test_setup_teardown(test, case_begin, case_end)

unsigned case_open_descriptors(void);

/*
 * KiB of memory that overlays take: mappings without large pages are theirs, and some of
 * sanitizers, which are not accounted for (VM_NORESERVE).
 */
unsigned long case_memory(void);

/* @done is false, and case_error has one line with @word. */
void case_refuse(bool done, enum error_exit status, const char *word);

/* A model is an allocated copy of what a disk must show. */
unsigned char *case_copy(const unsigned char *model);
void case_put(struct disk *disk, unsigned char *model, uint32_t offset, uint32_t bytes, int value);

void case_check_part(struct disk *disk, const unsigned char *model, size_t offset, size_t bytes);
void case_check(struct disk *disk, const unsigned char *model);

/* By a disk that goes on from there, and by the base with overlay file @path. */
void case_check_layers(const struct disk_layers *layers, const unsigned char *model);
void case_check_file(const char *path, const unsigned char *model);

#endif
