/* SPDX-License-Identifier: MIT */
/*
 * The bytes that a fuzzer makes, taken one after another as numbers. When they are used up all numbers
 * are 0. Given files to run instead of a corpus, a target also prints what it does with them.
 */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct input {
	const uint8_t *bytes;
	size_t left;
};

uint8_t input_byte(struct input *input);
/* A number below @limit, at most 256. */
unsigned input_below(struct input *input, unsigned limit);
uint64_t input_word(struct input *input);
/* An address or a size such as those at which something changes, and those beside it; or any word. */
uint64_t input_address(struct input *input);

/* Prints a line, if what is done is to be printed. */
void input_say(const char *text, ...) __attribute__((format(printf, 1, 2)));

/* libFuzzer's two entry points; the first is in input.c. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#endif
