// SPDX-License-Identifier: MIT
/*
 * Seats: vCPUs with their threads, and their doors, by which others take a vCPU out of its guest
 * (docs/locking.md, "A vCPU that runs").
 */
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "fleet.h"

/* What a seat's thread needs beside what it shares; a thousand of them must be affordable. */
#define SEAT_STACK_BYTES (128u * 1024)

/* Kicks a vCPU out of its guest. Its handler does nothing; KVM_RUN returns with EINTR. */
#define KICK_SIGNAL SIGUSR1

static void kick_handler(int signal)
{
	(void)signal;
}

void seat_install_kick(void)
{
	struct sigaction action = { .sa_handler = kick_handler };

	sigaction(KICK_SIGNAL, &action, NULL);
}

/* ---- the door ---- */

static void door_open(struct seat_door *door)
{
	pthread_mutex_init(&door->lock, NULL);
	pthread_cond_init(&door->out, NULL);
	pthread_cond_init(&door->told, NULL);
}

static void door_close(struct seat_door *door)
{
	pthread_cond_destroy(&door->told);
	pthread_cond_destroy(&door->out);
	pthread_mutex_destroy(&door->lock);
}

/* The vCPU comes out now or, if it is not quite in yet, at once. The door is locked. */
static void kick(struct seat *seat)
{
	seat->vcpu.run->immediate_exit = 1;
	pthread_kill(seat->door.runner, KICK_SIGNAL);
}

void seat_take(struct seat *seat, const struct ept_space *space, struct fpa root)
{
	struct seat_door *door = &seat->door;

	pthread_mutex_lock(&door->lock);
	atomic_store(&door->space, space);
	door->must_pass = false;
	door->root = root;
	door->reset = seat->vcpu.cpu;
	door->start = false;
	door->called = false;
	door->stop = GUEST_RUNNING;
	door->occupied = true;
	pthread_mutex_unlock(&door->lock);
}

void seat_clear(struct seat *seat)
{
	struct seat_door *door = &seat->door;

	pthread_mutex_lock(&door->lock);
	door->occupied = false;
	pthread_cond_broadcast(&door->out);
	pthread_mutex_unlock(&door->lock);
}

struct seat_order seat_enter(struct seat *seat)
{
	struct seat_door *door = &seat->door;
	struct seat_order order = { .what = SEAT_ENTER };

	pthread_mutex_lock(&door->lock);
	order.root = door->root;
	if (door->stop != GUEST_RUNNING) {
		order.what = SEAT_STOP;
		order.stop = door->stop;
	} else if (door->rests && !door->start) {
		order.what = SEAT_REST;
	} else if (door->reset) {
		order.what = SEAT_RESET;
	} else if (door->must_pass) {
		order.what = SEAT_PASS;
		door->must_pass = false;
	} else if (door->called) {
		order.what = SEAT_WORK;
		door->called = false;
	} else {
		door->in_guest = true;
		door->runner = pthread_self();
	}
	pthread_mutex_unlock(&door->lock);
	return order;
}

void seat_leave(struct seat *seat)
{
	struct seat_door *door = &seat->door;

	pthread_mutex_lock(&door->lock);
	door->in_guest = false;
	door->exits++;
	seat->vcpu.run->immediate_exit = 0;
	pthread_cond_broadcast(&door->out);
	pthread_mutex_unlock(&door->lock);
}

void seat_stop(struct seat *seat, enum guest_status status)
{
	struct seat_door *door = &seat->door;

	pthread_mutex_lock(&door->lock);
	door->stop = status;
	if (door->in_guest)
		kick(seat);
	pthread_cond_signal(&door->told);
	pthread_mutex_unlock(&door->lock);
}

void seat_call(struct seat *seat)
{
	struct seat_door *door = &seat->door;

	pthread_mutex_lock(&door->lock);
	door->called = true;
	if (door->in_guest)
		kick(seat);
	pthread_mutex_unlock(&door->lock);
}

/* ---- resting ---- */

/* The seat's guest may end before its thread comes to rest: then it is never again at its door. */
bool seat_call_to_rest(struct seat *seat)
{
	struct seat_door *door = &seat->door;
	bool rests;

	pthread_mutex_lock(&door->lock);
	door->rests++;
	if (door->in_guest)
		kick(seat);
	pthread_cond_signal(&door->told);
	while (!door->resting && door->occupied)
		pthread_cond_wait(&door->out, &door->lock);
	rests = door->resting;
	if (!rests)
		door->rests--;
	pthread_mutex_unlock(&door->lock);
	return rests;
}

void seat_release(struct seat *seat)
{
	struct seat_door *door = &seat->door;

	pthread_mutex_lock(&door->lock);
	door->rests--;
	pthread_cond_signal(&door->told);
	pthread_mutex_unlock(&door->lock);
}

void seat_rest(struct seat *seat)
{
	struct seat_door *door = &seat->door;

	pthread_mutex_lock(&door->lock);
	door->resting = true;
	pthread_cond_broadcast(&door->out);
	while (door->rests)
		pthread_cond_wait(&door->told, &door->lock);
	door->resting = false;
	pthread_mutex_unlock(&door->lock);
}

bool seat_waits(struct seat *seat)
{
	return seat->door.reset;
}

void seat_set_waiting(struct seat *seat, bool waits)
{
	seat->door.reset = waits;
	seat->door.start = false;
}

/* ---- starting ---- */

void seat_reset(struct seat *seat)
{
	struct seat_door *door = &seat->door;

	pthread_mutex_lock(&door->lock);
	door->reset = true;
	door->start = false;
	if (door->in_guest)
		kick(seat);
	pthread_mutex_unlock(&door->lock);
}

/* One that runs ignores it: Intel SDM Vol. 3A, "MP Initialization Protocol". */
void seat_start(struct seat *seat, uint8_t vector)
{
	struct seat_door *door = &seat->door;

	pthread_mutex_lock(&door->lock);
	if (door->reset && !door->start) {
		door->start = true;
		door->vector = vector;
		pthread_cond_signal(&door->told);
	}
	pthread_mutex_unlock(&door->lock);
}

/* Whether a CPU that waits is to do something else. */
static bool is_told(const struct seat_door *door)
{
	return door->start || door->rests || door->stop != GUEST_RUNNING;
}

bool seat_wait_for_start(struct seat *seat, uint8_t *vector, struct fpa *root)
{
	struct seat_door *door = &seat->door;
	bool starts;

	pthread_mutex_lock(&door->lock);
	door->waiting = true;
	while (!is_told(door))
		pthread_cond_wait(&door->told, &door->lock);
	door->waiting = false;
	starts = door->start && door->stop == GUEST_RUNNING;
	if (starts)
		door->reset = door->start = false;
	*vector = door->vector;
	*root = door->root;
	pthread_mutex_unlock(&door->lock);
	return starts;
}

bool seat_stops(struct seat *seat)
{
	struct seat_door *door = &seat->door;
	bool stops;

	pthread_mutex_lock(&door->lock);
	stops = door->stop != GUEST_RUNNING;
	pthread_mutex_unlock(&door->lock);
	return stops;
}

void seat_recall(struct seat *seat, const struct ept_space *space, struct fpa root)
{
	struct seat_door *door = &seat->door;
	uint64_t exits;

	/* The doors of other spaces may be held for as long as the fleet is paused. */
	if (atomic_load(&door->space) != space)
		return;
	pthread_mutex_lock(&door->lock);
	door->must_pass = true;
	door->root = root;
	exits = door->exits;
	if (door->in_guest)
		kick(seat);
	/* It may be in again already, but then it has passed its gate. */
	while (door->in_guest && door->exits == exits)
		pthread_cond_wait(&door->out, &door->lock);
	pthread_mutex_unlock(&door->lock);
}

bool seat_must_pass(struct seat *seat)
{
	struct seat_door *door = &seat->door;
	bool must_pass;

	pthread_mutex_lock(&door->lock);
	must_pass = door->must_pass;
	pthread_mutex_unlock(&door->lock);
	return must_pass;
}

void seat_passes(struct seat *seat, struct fpa root)
{
	struct seat_door *door = &seat->door;

	pthread_mutex_lock(&door->lock);
	door->must_pass = false;
	door->root = root;
	pthread_mutex_unlock(&door->lock);
}

/* ---- the thread ---- */

/* A guest has ended when the last of its CPUs has. */
static void guest_ended(struct fleet *fleet, struct seat *seat)
{
	pthread_mutex_lock(&fleet->lock);
	if (--seat->guest->cpus_running == 0) {
		fleet->running--;
		pthread_cond_broadcast(&fleet->ended);
	}
	seat->guest = NULL;
	pthread_mutex_unlock(&fleet->lock);
}

/* Waits for a guest; NULL when the fleet ends. */
static struct guest *wait_for_guest(struct fleet *fleet, struct seat *seat)
{
	struct guest *guest;

	pthread_mutex_lock(&fleet->lock);
	while (!seat->guest && !seat->ending)
		pthread_cond_wait(&seat->wake, &fleet->lock);
	guest = seat->guest;
	pthread_mutex_unlock(&fleet->lock);
	return guest;
}

static void *thread_main(void *argument)
{
	struct seat *seat = argument;

	while (wait_for_guest(seat->fleet, seat)) {
		guest_run(seat);
		seat_clear(seat);
		guest_ended(seat->fleet, seat);
	}
	return NULL;
}

static bool start_thread(struct seat *seat, struct error *error)
{
	pthread_attr_t attributes;
	int status;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, SEAT_STACK_BYTES);
	status = pthread_create(&seat->thread, &attributes, thread_main, seat);
	pthread_attr_destroy(&attributes);
	if (status)
		return error_set(error, EXIT_FAILED, "cannot start a thread: %s; raise ulimit -u",
				 strerror(status));
	return true;
}

bool seat_create(struct fleet *fleet, unsigned index, struct error *error)
{
	struct seat *seat = &fleet->seats[index];

	*seat = (struct seat){ .fleet = fleet };
	if (!gate_vcpu_create(&fleet->gate, &seat->vcpu, fleet->vm, index, error))
		return false;
	seat->stats_fd = host_stats_open(seat->vcpu.fd);
	seat->faults = fleet->seats[0].faults;
	if (index == 0)
		seat->faults = host_counter_find(seat->stats_fd, "pf_taken");
	seat->faults.fd = seat->stats_fd;
	pthread_cond_init(&seat->wake, NULL);
	door_open(&seat->door);
	if (!start_thread(seat, error)) {
		gate_vcpu_destroy(&seat->vcpu);
		return false;
	}
	fleet->seat_count++;
	return true;
}

void seat_destroy(struct seat *seat)
{
	struct fleet *fleet = seat->fleet;

	pthread_mutex_lock(&fleet->lock);
	seat->ending = true;
	pthread_cond_signal(&seat->wake);
	pthread_mutex_unlock(&fleet->lock);
	pthread_join(seat->thread, NULL);
	door_close(&seat->door);
	pthread_cond_destroy(&seat->wake);
	gate_vcpu_destroy(&seat->vcpu);
	if (seat->stats_fd >= 0)
		close(seat->stats_fd);
	ept_change_free(&seat->change);
}
