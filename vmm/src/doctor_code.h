/* SPDX-License-Identifier: MIT */
/* What the doctor and its guests agree on; read by the assembler too. */
#ifndef VMM_DOCTOR_CODE_H
#define VMM_DOCTOR_CODE_H

/* What a guest does, in the low byte of its argument. */
#define DOCTOR_READ	  0 /* report the first word of each part, again and again */
#define DOCTOR_OWN_ROOT	  1 /* the same, after having used its stack */
#define DOCTOR_WRITE	  2 /* the same, and write to the next part's first word after each report */
#define DOCTOR_SPIN_READ  3 /* show the file's first word in its mirror, without end */
#define DOCTOR_SPIN_WRITE 4 /* count up the file's first word, without end */
#define DOCTOR_SPIN_OWN	  5 /* write the first word, then as DOCTOR_SPIN_READ */
#define DOCTOR_TENANT	  6 /* write parts' first words and report the last one's of two pages on */

/* In the second and third byte: the first part that DOCTOR_TENANT uses, and the first that it does not. */
#define DOCTOR_FIRST_SHIFT 8
#define DOCTOR_END_SHIFT   16

/* The file's parts, one leaf table each. */
#define DOCTOR_PARTS	  4
#define DOCTOR_PART_BYTES 0x200000

#define DOCTOR_WRITTEN 99 /* what guests write */

/* Where a mirror is, below the stack's end: the word read, and how often it was. */
#define DOCTOR_MIRROR 64

#endif
