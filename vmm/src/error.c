// SPDX-License-Identifier: MIT
#include "error.h"

#include <stdarg.h>
#include <stdio.h>

bool error_set(struct error *error, enum error_exit exit, const char *format, ...)
{
	va_list arguments;

	error->exit = exit;
	va_start(arguments, format);
	vsnprintf(error->text, sizeof(error->text), format, arguments);
	va_end(arguments);
	return false;
}

int error_print(const struct error *error)
{
	fprintf(stderr, "s2vm: %s\n", error->text);
	return (int)error->exit;
}
