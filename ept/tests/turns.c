// SPDX-License-Identifier: MIT
#include "turns.h"

#include <sched.h>

/* More turns than this are two threads that wait for each other. */
#define MOST_TURNS 10000

enum who { FIRST, SECOND, NOBODY };

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct turns *turns;
	enum who turn;
	bool ended[2];
	unsigned points; /* that the first thread has come to */
	bool stores;	 /* the last of them was a store */
	unsigned given;	 /* turns */
} play = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static _Thread_local enum who me = NOBODY;

int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __real_pthread_rwlock_wrlock(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock);
int __real_sched_yield(void);
int __wrap_sched_yield(void);

static void wait_for_turn(void)
{
	while (play.turn != me)
		pthread_cond_wait(&play.changed, &play.lock);
}

/* The other thread's turn, if it has not ended, until it gives it back. */
static void give_turn(void)
{
	enum who other = me == FIRST ? SECOND : FIRST;

	__real_pthread_mutex_lock(&play.lock);
	if (++play.given > MOST_TURNS)
		port_fail(play.turns->world, "F11: the %s thread waits for what nobody gives it",
			  me == FIRST ? "first" : "second");
	if (!play.ended[other]) {
		play.turn = other;
		pthread_cond_broadcast(&play.changed);
		wait_for_turn();
	}
	pthread_mutex_unlock(&play.lock);
}

/* The port holds its own lock while the guests stand still, and nobody else can go on then. */
static bool is_point(const pthread_mutex_t *mutex)
{
	const struct turns *turns = play.turns;

	return me == FIRST && mutex != &turns->world->guests_lock &&
	       (!turns->only || turns->only == mutex) && ++play.points == turns->point;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
	if (me == NOBODY)
		return __real_pthread_mutex_lock(mutex);
	if (me == FIRST)
		play.stores = false;
	if (is_point(mutex)) {
		play.turns->reached = true;
		give_turn();
	}
	while (pthread_mutex_trylock(mutex))
		give_turn();
	return 0;
}

/*
 * The port takes it before each store of a change, and nobody keeps it while he gives his turn
 * away. The first of several stores in a row is a point.
 */
int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
	if (me == FIRST && !play.stores) {
		play.stores = true;
		if (is_point(NULL)) {
			play.turns->reached = true;
			give_turn();
		}
	}
	return __real_pthread_rwlock_wrlock(lock);
}

int __wrap_sched_yield(void)
{
	if (me == NOBODY)
		return __real_sched_yield();
	give_turn();
	return 0;
}

/* The thread is done, and the turn is the other's for good. */
static void end(void)
{
	enum who other = me == FIRST ? SECOND : FIRST;

	__real_pthread_mutex_lock(&play.lock);
	play.ended[me] = true;
	play.turn = other;
	pthread_cond_broadcast(&play.changed);
	pthread_mutex_unlock(&play.lock);
	me = NOBODY;
}

static void *second(void *argument)
{
	struct turns *turns = argument;

	me = SECOND;
	__real_pthread_mutex_lock(&play.lock);
	wait_for_turn();
	pthread_mutex_unlock(&play.lock);
	turns->second(turns->arguments[1]);
	turns->ended_within = !play.ended[FIRST];
	end();
	return NULL;
}

void turns_run(struct turns *turns)
{
	unsigned check_every = turns->world->check_every;
	pthread_t thread;

	/* The checker wants to be alone with the engine, and a failure must not leave a thread. */
	turns->world->check_every = 0;
	turns->world->exits = true;
	turns->reached = false;
	play.turns = turns;
	play.turn = FIRST;
	play.ended[FIRST] = false;
	play.ended[SECOND] = false;
	play.points = 0;
	play.stores = false;
	play.given = 0;
	if (pthread_create(&thread, NULL, second, turns))
		port_fail(turns->world, "no thread");
	me = FIRST;
	turns->first(turns->arguments[0]);
	end();
	pthread_join(thread, NULL);
	turns->world->exits = false;
	turns->world->check_every = check_every;
	world_check(turns->world);
}
