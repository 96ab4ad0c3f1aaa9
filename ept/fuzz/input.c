// SPDX-License-Identifier: MIT
#include "input.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static bool saying;

uint8_t input_byte(struct input *input)
{
	if (!input->left)
		return 0;
	input->left--;
	return *input->bytes++;
}

unsigned input_below(struct input *input, unsigned limit)
{
	return input_byte(input) % limit;
}

uint64_t input_word(struct input *input)
{
	uint64_t word = 0;

	for (unsigned byte = 0; byte < sizeof(word); byte++)
		word = word << 8 | input_byte(input);
	return word;
}

uint64_t input_address(struct input *input)
{
	static const unsigned shifts[] = {0, 12, 21, 30, 39, 48, 52, 63};
	unsigned kind = input_below(input, 10);
	uint64_t number;

	if (kind == 9)
		return input_word(input);
	if (kind == 8)
		return (uint64_t)0 - input_byte(input) * UINT64_C(4096);
	number = (uint64_t)input_byte(input) << shifts[kind];
	return number + (uint64_t)(int8_t)input_byte(input) * UINT64_C(4096);
}

void input_say(const char *text, ...)
{
	va_list args;

	if (!saying)
		return;
	va_start(args, text);
	vprintf(text, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

/* Only files are named to run an input once more; a corpus is a directory. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct stat is;

	for (int at = 1; at < *argc; at++)
		if ((*argv)[at][0] != '-' && stat((*argv)[at], &is) == 0 && S_ISREG(is.st_mode))
			saying = true;
	/* What the port finds wrong is to end the program: there is no test of cmocka to fail. */
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	return 0;
}
