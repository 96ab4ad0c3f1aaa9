/* SPDX-License-Identifier: MIT */
/* What test_running.c and its guests agree on; read by the assembler too. */
#ifndef RUNNING_CODE_H
#define RUNNING_CODE_H

/*
 * Page p of the memory file begins with word p + 1 and ends with its complement. What a guest finds wrong it
 * reports as its result - page, what it read, what it expected, its count - and exits with status 1.
 *
 * What a guest does, in the low byte of its argument.
 */
#define RUNNING_READ   0 /* check the first and last word of every page, without end */
#define RUNNING_WRITE  1 /* count in the first words of some pages, and check them */
#define RUNNING_SPIN   2 /* read the first page, without end */
#define RUNNING_REPORT 3 /* report the first words of the pages that RUNNING_WRITE counts in */
#define RUNNING_TELL   4 /* count in the second page, then in the first, without end */
#define RUNNING_LEAD   5 /* write every 32nd page when RUNNING_FOLLOW is ready, and exit with status 0 */
#define RUNNING_FOLLOW 6 /* the same guest's other CPU: read these pages before and after that */

/* Where RUNNING_WRITE counts: pages 0, 300, 600 and 900. Its count is in the mirror, too. */
#define RUNNING_STRIDE 300
#define RUNNING_PARTS  4
#define RUNNING_PAGES  1024

/* Where a guest's mirror is, below its stack's end: what it has counted. */
#define RUNNING_MIRROR 64

#define RUNNING_STEP 32

/* Where two CPUs of a guest tell each other how far they are, counting pages from 1. */
#define RUNNING_LED   72
#define RUNNING_READY 80

/* Counts of guest g in the file: (g + 1) << RUNNING_TAG_SHIFT, and the count. */
#define RUNNING_TAG_SHIFT 48

#endif
