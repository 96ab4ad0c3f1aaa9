// SPDX-License-Identifier: MIT
#include "listener.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Taken at a time; the others come with the next look. */
#define EVENTS 16

struct listener {
	int epoll;
	int end; /* an eventfd: the thread is to end */
	pthread_t thread;
};

/* False if the thread is to end. */
static bool tell(const struct epoll_event *events, int count)
{
	for (int i = 0; i < count; i++) {
		const struct listener_source *source = events[i].data.ptr;

		if (!source)
			return false;
		source->arrived(source->context);
	}
	return true;
}

static void *thread_main(void *argument)
{
	const struct listener *listener = argument;
	struct epoll_event events[EVENTS];

	while (tell(events, epoll_wait(listener->epoll, events, EVENTS, -1)))
		;
	return NULL;
}

/* The process's signals are not for this thread. */
static bool start_thread(struct listener *listener)
{
	sigset_t all, before;
	int status;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	status = pthread_create(&listener->thread, NULL, thread_main, listener);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = status;
	return status == 0;
}

static bool begin(struct listener *listener)
{
	struct epoll_event end = { .events = EPOLLIN };

	listener->epoll = epoll_create1(EPOLL_CLOEXEC);
	listener->end = eventfd(0, EFD_CLOEXEC);
	return listener->epoll >= 0 && listener->end >= 0 &&
	       epoll_ctl(listener->epoll, EPOLL_CTL_ADD, listener->end, &end) == 0 &&
	       start_thread(listener);
}

static void end(struct listener *listener)
{
	if (listener->epoll >= 0)
		close(listener->epoll);
	if (listener->end >= 0)
		close(listener->end);
	free(listener);
}

struct listener *listener_open(struct error *error)
{
	struct listener *listener = malloc(sizeof(*listener));

	if (listener && begin(listener))
		return listener;
	error_set(error, EXIT_FAILED, "cannot listen to networks: %s", strerror(errno));
	if (listener)
		end(listener);
	return NULL;
}

void listener_close(struct listener *listener)
{
	uint64_t one = 1;

	if (!listener)
		return;
	if (write(listener->end, &one, sizeof(one)) == sizeof(one))
		pthread_join(listener->thread, NULL);
	end(listener);
}

/* The kernel looks at the file when it is asked, so what came before is seen too. */
bool listener_once(const struct listener_source *source)
{
	struct epoll_event wanted = {
		.events = EPOLLIN | EPOLLONESHOT,
		.data.ptr = (void *)(uintptr_t)source,
	};
	int epoll = source->listener->epoll;

	return epoll_ctl(epoll, EPOLL_CTL_MOD, source->fd, &wanted) == 0 ||
	       (errno == ENOENT && epoll_ctl(epoll, EPOLL_CTL_ADD, source->fd, &wanted) == 0);
}
