// SPDX-License-Identifier: MIT
/* The door of a seat, without a vCPU: what its thread is told before it enters its guest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fleet.h"

static struct kvm_run run;
static struct seat seat;

static int begin(void **state)
{
	(void)state;
	run.immediate_exit = 0;
	seat = (struct seat){ .vcpu = { .run = &run } };
	pthread_mutex_init(&seat.door.lock, NULL);
	pthread_cond_init(&seat.door.out, NULL);
	seat_install_kick();
	seat_take(&seat, NULL, (struct fpa){ 0 });
	return 0;
}

static void a_call_before_the_entry_is_work_first(void **state)
{
	(void)state;
	seat_call(&seat);
	assert_int_equal(seat_enter(&seat).what, SEAT_WORK);
	assert_false(seat.door.in_guest);
	assert_int_equal(run.immediate_exit, 0);
	assert_int_equal(seat_enter(&seat).what, SEAT_ENTER);
}

static void a_call_takes_it_out_of_its_guest(void **state)
{
	(void)state;
	assert_int_equal(seat_enter(&seat).what, SEAT_ENTER);
	seat_call(&seat);
	assert_int_equal(run.immediate_exit, 1);
	seat_leave(&seat);
	assert_int_equal(run.immediate_exit, 0);
	assert_int_equal(seat_enter(&seat).what, SEAT_WORK);
	assert_int_equal(seat_enter(&seat).what, SEAT_ENTER);
}

/* While it works somebody may call again: what came then may have been overlooked. */
static void a_call_during_work_is_work_again(void **state)
{
	(void)state;
	seat_call(&seat);
	seat_call(&seat);
	assert_int_equal(seat_enter(&seat).what, SEAT_WORK);
	seat_call(&seat);
	assert_int_equal(seat_enter(&seat).what, SEAT_WORK);
	assert_int_equal(seat_enter(&seat).what, SEAT_ENTER);
}

static void an_end_comes_before_work(void **state)
{
	(void)state;
	seat_call(&seat);
	seat_stop(&seat, GUEST_STOPPED);
	assert_int_equal(seat_enter(&seat).what, SEAT_STOP);
}

static void another_guest_is_not_called(void **state)
{
	(void)state;
	seat_call(&seat);
	seat_take(&seat, NULL, (struct fpa){ 0 });
	assert_int_equal(seat_enter(&seat).what, SEAT_ENTER);
}

/* ---- with a thread that is in its guest: nothing that is called for is left undone ---- */

#define ROUNDS 20000u

static atomic_uint wanted;
static atomic_uint done;

/* Whether the vCPU would come out of its guest now. */
static bool kicked(void)
{
	bool is;

	pthread_mutex_lock(&seat.door.lock);
	is = run.immediate_exit;
	pthread_mutex_unlock(&seat.door.lock);
	return is;
}

/* What KVM does with a vCPU that is halted: it comes out when it is kicked. */
static void stay_in_guest(void)
{
	while (!kicked())
		sched_yield();
}

static void *run_seat(void *argument)
{
	(void)argument;
	for (;;) {
		struct seat_order order = seat_enter(&seat);

		if (order.what == SEAT_STOP)
			return NULL;
		if (order.what == SEAT_WORK)
			atomic_store(&done, atomic_load(&wanted));
		if (order.what != SEAT_ENTER)
			continue;
		stay_in_guest();
		seat_leave(&seat);
	}
}

static void no_call_is_lost(void **state)
{
	pthread_t thread;

	(void)state;
	atomic_store(&wanted, 0);
	atomic_store(&done, 0);
	assert_int_equal(pthread_create(&thread, NULL, run_seat, NULL), 0);
	for (unsigned i = 1; i <= ROUNDS; i++) {
		uint64_t limit = now_ns() + UINT64_C(20000000000);

		atomic_store(&wanted, i);
		seat_call(&seat);
		/* Every other one comes while it is still at work for the one before. */
		while (i % 2 && atomic_load(&done) != i) {
			assert_true(now_ns() < limit);
			sched_yield();
		}
	}
	seat_stop(&seat, GUEST_STOPPED);
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_call_before_the_entry_is_work_first, begin),
		cmocka_unit_test_setup(a_call_takes_it_out_of_its_guest, begin),
		cmocka_unit_test_setup(a_call_during_work_is_work_again, begin),
		cmocka_unit_test_setup(an_end_comes_before_work, begin),
		cmocka_unit_test_setup(another_guest_is_not_called, begin),
		cmocka_unit_test_setup(no_call_is_lost, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
