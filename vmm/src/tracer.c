// SPDX-License-Identifier: MIT
#include "tracer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHUNK	    256
#define INTERVAL_NS 10000000
#define LATE_NS	    100000 /* for a writer to fill a slot whose number it has taken */

struct tracer {
	const char *path;
	FILE *file;
	struct ept *ept;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool started;
	bool ending; /* under the lock, as whoever sets it wakes the thread */
	uint64_t next;
	uint64_t written;
	uint64_t waited_for; /* the event that was waited for last, plus 1 */
	int failure;	     /* the first error number of writing */
};

/* ---- the file ---- */

static bool same_file(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

static bool open_file(struct tracer *tracer, const char *const *others, struct error *error)
{
	int fd = open(tracer->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	struct stat stat;

	if (fd < 0)
		return error_set(error, EXIT_INPUT, "cannot open trace file %s: %s", tracer->path,
				 strerror(errno));
	for (; *others; others++)
		if (same_file(fd, *others)) {
			close(fd);
			return error_set(error, EXIT_INPUT,
					 "trace file %s is %s, which guests use; name another file",
					 tracer->path, *others);
		}
	if (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && ftruncate(fd, 0) < 0) {
		close(fd);
		return error_set(error, EXIT_INPUT, "cannot empty trace file %s: %s", tracer->path,
				 strerror(errno));
	}
	tracer->file = fdopen(fd, "w");
	if (tracer->file)
		return true;
	close(fd);
	return error_set(error, EXIT_FAILED, "out of memory");
}

bool tracer_open(struct tracer **out, const char *path, const char *const *others,
		 struct error *error)
{
	struct tracer *tracer = calloc(1, sizeof(*tracer));

	if (!tracer)
		return error_set(error, EXIT_FAILED, "out of memory");
	tracer->path = path;
	if (!open_file(tracer, others, error)) {
		free(tracer);
		return false;
	}
	pthread_mutex_init(&tracer->lock, NULL);
	pthread_cond_init(&tracer->wake, NULL);
	*out = tracer;
	return true;
}

/* ---- events ---- */

static void write_event(struct tracer *tracer, const struct ept_event *event)
{
	char space[16] = "null";

	if (event->space != EPT_NO_SPACE)
		snprintf(space, sizeof(space), "%u", event->space);
	fprintf(tracer->file,
		"{\"number\":%llu,\"event\":\"%s\",\"level\":%u,\"table\":%u,\"space\":%s,\"count\":%u}\n",
		(unsigned long long)event->number, ept_event_name(event->kind), event->level,
		event->table, space, event->count);
	tracer->written++;
}

/*
 * Events are not there at their numbers: lost, or not quite written yet. Goes back to the first of them
 * and waits a little, but once only.
 */
static bool wait_for(struct tracer *tracer, uint64_t number)
{
	const struct timespec pause = { .tv_nsec = LATE_NS };

	if (tracer->waited_for == number + 1)
		return false;
	tracer->waited_for = number + 1;
	tracer->next = number;
	nanosleep(&pause, NULL);
	return true;
}

/* Writes the next events; false if there are none. */
static bool write_some(struct tracer *tracer)
{
	struct ept_event events[CHUNK];
	uint64_t expected = tracer->next;
	size_t count = ept_trace_read(tracer->ept, &tracer->next, events, CHUNK);
	uint64_t end = tracer->next;

	for (size_t at = 0; at < count; at++) {
		if (events[at].number != expected && wait_for(tracer, expected))
			return true;
		write_event(tracer, &events[at]);
		expected = events[at].number + 1;
	}
	return expected != end ? wait_for(tracer, expected) || count : count;
}

static void write_all(struct tracer *tracer)
{
	uint64_t before = tracer->written;

	while (write_some(tracer))
		;
	if (tracer->written != before && fflush(tracer->file) && !tracer->failure)
		tracer->failure = errno;
}

/* ---- the thread ---- */

/* Waits for the next time to write; false if it is the last one. */
static bool wait_interval(struct tracer *tracer)
{
	struct timespec until;
	bool ending;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += INTERVAL_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&tracer->lock);
	if (!tracer->ending)
		pthread_cond_timedwait(&tracer->wake, &tracer->lock, &until);
	ending = tracer->ending;
	pthread_mutex_unlock(&tracer->lock);
	return !ending;
}

static void *thread_main(void *argument)
{
	struct tracer *tracer = argument;

	while (wait_interval(tracer))
		write_all(tracer);
	return NULL;
}

bool tracer_start(struct tracer *tracer, struct ept *ept, struct error *error)
{
	sigset_t all, before;
	int status;

	tracer->ept = ept;
	fprintf(tracer->file, "{\"schema\":\"s2vm-trace-1\",\"pid\":%d,\"capacity\":%u}\n",
		(int)getpid(), TRACER_CAPACITY);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	status = pthread_create(&tracer->thread, NULL, thread_main, tracer);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (status)
		return error_set(error, EXIT_FAILED, "cannot start a thread: %s; raise ulimit -u",
				 strerror(status));
	tracer->started = true;
	return true;
}

static void stop(struct tracer *tracer)
{
	pthread_mutex_lock(&tracer->lock);
	tracer->ending = true;
	pthread_cond_signal(&tracer->wake);
	pthread_mutex_unlock(&tracer->lock);
	pthread_join(tracer->thread, NULL);
	write_all(tracer);
	fprintf(tracer->file, "{\"events\":%llu,\"lost\":%llu}\n",
		(unsigned long long)tracer->next,
		(unsigned long long)(tracer->next - tracer->written));
}

bool tracer_close(struct tracer *tracer, struct error *error)
{
	bool good;

	if (tracer->started)
		stop(tracer);
	if (fclose(tracer->file) && !tracer->failure)
		tracer->failure = errno;
	good = !tracer->failure;
	if (!good)
		error_set(error, EXIT_FAILED, "cannot write all events to trace file %s: %s",
			  tracer->path, strerror(tracer->failure));
	pthread_cond_destroy(&tracer->wake);
	pthread_mutex_destroy(&tracer->lock);
	free(tracer);
	return good;
}
