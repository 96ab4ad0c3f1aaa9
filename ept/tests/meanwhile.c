// SPDX-License-Identifier: MIT
#include "meanwhile.h"

#include <stddef.h>

int __real_pthread_mutex_lock(pthread_mutex_t *lock);
int __real_pthread_mutex_unlock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_lock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock);

/* Each thread has its own: others that the test starts are not counted. */
static _Thread_local struct {
	enum meanwhile_when when;
	const pthread_mutex_t *lock;
	unsigned left; /* 0: it has been called, or there is nothing to call */
	void (*act)(void *context);
	void *context;
} waiting;

void meanwhile(enum meanwhile_when when, const pthread_mutex_t *lock, unsigned nth,
	       void (*act)(void *context), void *context)
{
	waiting.when = when;
	waiting.lock = lock;
	waiting.left = nth;
	waiting.act = act;
	waiting.context = context;
}

bool meanwhile_happened(void)
{
	bool happened = !waiting.left;

	waiting.left = 0;
	return happened;
}

static void look(enum meanwhile_when when, const pthread_mutex_t *lock)
{
	if (waiting.left && waiting.when == when && waiting.lock == lock && --waiting.left == 0)
		waiting.act(waiting.context);
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *lock)
{
	look(BEFORE_LOCK, lock);
	return __real_pthread_mutex_lock(lock);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock)
{
	int result = __real_pthread_mutex_unlock(lock);

	look(AFTER_UNLOCK, lock);
	return result;
}
