// SPDX-License-Identifier: MIT
/*
 * Doors of seats (seat.c), with threads in place of vCPUs: being in a guest is waiting for the signal that
 * takes a vCPU out of it. Built with ThreadSanitizer this looks for races as well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "fleet.h"

#define CPUS   3
#define ROUNDS 500

/* How long something may take that must happen. */
#define LIMIT_NS UINT64_C(20000000000)

/* A guest of which only doors and roots exist. */
struct hall {
	struct guest guest;
	struct seat seats[CPUS];
	struct kvm_run runs[CPUS];
	pthread_t threads[CPUS];
	atomic_uint dead;  /* roots below this one nobody may have */
	atomic_uint wrong; /* times that somebody in its guest had one */
	atomic_uint entries;
	atomic_uint starts[CPUS];
	pthread_mutex_t space; /* stands for the lock of its space */
	unsigned root;
	unsigned seen; /* of @entries, by who changes the root */
};

/* No more than the address of a space is looked at. */
static const struct ept_space *space_of(const struct hall *hall)
{
	return (const struct ept_space *)(const void *)&hall->space;
}

static struct hall *hall_of(struct seat *seat)
{
	return (struct hall *)(void *)((char *)seat->owner - offsetof(struct hall, guest));
}

/* For 1 ms, or until the seat's vCPU is taken out: the signal is let in nowhere else. */
static void be_in_guest(void)
{
	const struct timespec time = { .tv_nsec = 1000000 };
	sigset_t none;

	sigemptyset(&none);
	ppoll(NULL, 0, &time, &none);
}

static void visit(struct hall *hall, struct seat *seat, unsigned root)
{
	atomic_fetch_add(&hall->entries, 1);
	be_in_guest();
	if (root < atomic_load(&hall->dead))
		atomic_fetch_add(&hall->wrong, 1);
	seat_leave(seat);
}

/* As guest.c's, without a vCPU. */
static void *run(void *argument)
{
	struct seat *seat = argument;
	struct hall *hall = hall_of(seat);
	struct seat_order order = seat_enter(seat);
	struct fpa root = { 0 };
	uint8_t vector;

	while (order.what != SEAT_STOP) {
		if (order.what == SEAT_PASS) {
			root = order.root;
		} else if (order.what == SEAT_RESET) {
			if (seat_wait_for_start(seat, &vector, &root))
				atomic_fetch_add(&hall->starts[vector], 1);
		} else {
			visit(hall, seat, (unsigned)root.v);
		}
		order = seat_enter(seat);
	}
	return NULL;
}

static void open_hall(struct hall *hall)
{
	sigset_t kick;

	memset(hall, 0, sizeof(*hall));
	seat_install_kick();
	sigemptyset(&kick);
	sigaddset(&kick, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &kick, NULL);
	pthread_mutex_init(&hall->space, NULL);
	hall->guest.seat = hall->seats;
	hall->guest.cpus = CPUS;
	for (unsigned cpu = 0; cpu < CPUS; cpu++) {
		struct seat *seat = &hall->seats[cpu];

		pthread_mutex_init(&seat->door.lock, NULL);
		pthread_cond_init(&seat->door.out, NULL);
		pthread_cond_init(&seat->door.told, NULL);
		seat->owner = &hall->guest;
		seat->vcpu.run = &hall->runs[cpu];
		seat->vcpu.cpu = cpu;
		seat_take(seat, space_of(hall), (struct fpa){ 0 });
	}
	for (unsigned cpu = 0; cpu < CPUS; cpu++)
		assert_int_equal(pthread_create(&hall->threads[cpu], NULL, run, &hall->seats[cpu]),
				 0);
}

static void close_hall(struct hall *hall)
{
	for (unsigned cpu = 0; cpu < CPUS; cpu++)
		seat_stop(&hall->seats[cpu], GUEST_STOPPED);
	for (unsigned cpu = 0; cpu < CPUS; cpu++)
		pthread_join(hall->threads[cpu], NULL);
	assert_int_equal(atomic_load(&hall->wrong), 0);
}

static void start_all(struct hall *hall)
{
	for (unsigned cpu = 1; cpu < CPUS; cpu++)
		seat_start(&hall->seats[cpu], (uint8_t)cpu);
}

/*
 * A change, when somebody has been in its guest since the last one: all have the new root from now on,
 * and nobody is in its guest with an older one.
 */
static void change_root(struct hall *hall)
{
	uint64_t deadline = now_ns() + LIMIT_NS;
	unsigned before = hall->seen;
	unsigned root;

	while ((hall->seen = atomic_load(&hall->entries)) == before && now_ns() < deadline)
		sched_yield();
	if (hall->seen == before)
		atomic_fetch_add(&hall->wrong, 1);
	pthread_mutex_lock(&hall->space);
	root = ++hall->root;
	for (unsigned cpu = 0; cpu < CPUS; cpu++)
		seat_recall(&hall->seats[cpu], space_of(hall), (struct fpa){ root });
	atomic_store(&hall->dead, root);
	pthread_mutex_unlock(&hall->space);
}

static void S6_nobody_is_in_its_guest_with_an_old_root(void **state)
{
	static struct hall hall;

	(void)state;
	open_hall(&hall);
	start_all(&hall);
	/* On a busy machine threads may take a while to begin. */
	while (!atomic_load(&hall.entries))
		poll(NULL, 0, 1);
	for (unsigned round = 0; round < ROUNDS; round++)
		change_root(&hall);
	close_hall(&hall);
}

static void *change_roots(void *argument)
{
	for (unsigned round = 0; round < ROUNDS; round++)
		change_root(argument);
	return NULL;
}

/* Waits until CPU @cpu has been started more than @count times. */
static void wait_for_start(struct hall *hall, unsigned cpu, unsigned count)
{
	uint64_t deadline = now_ns() + LIMIT_NS;

	while (atomic_load(&hall->starts[cpu]) <= count && now_ns() < deadline)
		poll(NULL, 0, 1);
	assert_int_equal(atomic_load(&hall->starts[cpu]), count + 1);
}

/* Also while roots change: who starts has the root of that moment. Start-up messages come twice. */
static void S6_cpus_come_and_go_while_roots_change(void **state)
{
	static struct hall hall;
	pthread_t thread;

	(void)state;
	open_hall(&hall);
	assert_int_equal(pthread_create(&thread, NULL, change_roots, &hall), 0);
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned cpu = 1; cpu < CPUS; cpu++)
			seat_reset(&hall.seats[cpu]);
		start_all(&hall);
		start_all(&hall);
		for (unsigned cpu = 1; cpu < CPUS; cpu++)
			wait_for_start(&hall, cpu, round);
	}
	/* They run, and take no notice. */
	start_all(&hall);
	pthread_join(thread, NULL);
	close_hall(&hall);
	for (unsigned cpu = 1; cpu < CPUS; cpu++)
		assert_int_equal(atomic_load(&hall.starts[cpu]), 50);
	assert_int_equal(atomic_load(&hall.starts[0]), 0);
}

/* One that nobody has started ends with its guest. */
static void who_waits_for_a_start_is_stopped(void **state)
{
	static struct hall hall;

	(void)state;
	open_hall(&hall);
	change_root(&hall);
	close_hall(&hall);
	for (unsigned cpu = 0; cpu < CPUS; cpu++)
		assert_int_equal(atomic_load(&hall.starts[cpu]), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(S6_nobody_is_in_its_guest_with_an_old_root),
		cmocka_unit_test(S6_cpus_come_and_go_while_roots_change),
		cmocka_unit_test(who_waits_for_a_start_is_stopped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
