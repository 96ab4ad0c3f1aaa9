// SPDX-License-Identifier: MIT
#include "failing_alloc.h"

#include <stddef.h>

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

/* One thread arms it and allocates: tests of failing memory have no others. */
static bool armed;
static bool failed;
static unsigned left;

void failing_alloc_arm(unsigned k)
{
	armed = true;
	failed = false;
	left = k;
}

bool failing_alloc_disarm(void)
{
	armed = false;
	return failed;
}

void failing_alloc_pause(void)
{
	armed = false;
}

void failing_alloc_resume(void)
{
	armed = true;
}

static bool fails_now(void)
{
	if (!armed)
		return false;
	if (left > 1) {
		left--;
		return false;
	}
	failed = true;
	return true;
}

void *__wrap_malloc(size_t bytes)
{
	return fails_now() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return fails_now() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
	return fails_now() ? NULL : __real_realloc(old, bytes);
}
