// SPDX-License-Identifier: MIT
/*
 * ask_guests ADDRESS COUNT SECONDS COMMAND ANSWER: asks COUNT guests from ADDRESS on, one after the other,
 * each when stdin, which is what s2vm run says of them, has a line "guest N: clone N ready". Sends a line
 * COMMAND to port 6379, until each has answered with ANSWER. Prints for each
 *   NUMBER NS-WHEN-ANSWERED NS-OF-THE-REQUEST
 * by the monotonic clock. Exits with 1 if a guest has not answered by the time limit, or otherwise. For
 * guest-tests/linux-fleet.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT	 6379
#define TRY_MS	 20000 /* of one attempt */
#define PAUSE_US 5000  /* between two of them */

struct request {
	const char *command;
	const char *wanted;
	uint64_t deadline_ns;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int left_ms(uint64_t begin_ns)
{
	uint64_t ms = (now_ns() - begin_ns) / 1000000;

	return ms < TRY_MS ? TRY_MS - (int)ms : 0;
}

static bool await(int fd, short events, uint64_t begin_ns)
{
	struct pollfd poll_fd = { .fd = fd, .events = events };

	return poll(&poll_fd, 1, left_ms(begin_ns)) == 1;
}

static bool connected(int fd, uint64_t begin_ns)
{
	socklen_t size = sizeof(int);
	int error = 0;

	return await(fd, POLLOUT, begin_ns) &&
	       getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && !error;
}

/* Reads up to and without the end of a line; false if none comes. */
static bool read_line(int fd, uint64_t begin_ns, char *line, size_t room)
{
	size_t used = 0;

	while (used < room - 1 && await(fd, POLLIN, begin_ns)) {
		ssize_t got = read(fd, line + used, room - 1 - used);

		if (got <= 0)
			return false;
		used += (size_t)got;
		line[used] = 0;
		if (strchr(line, '\r')) {
			*strchr(line, '\r') = 0;
			return true;
		}
	}
	return false;
}

/* One attempt; false if there was no answer. */
static bool ask_once(struct in_addr address, const char *command, char *line, size_t room)
{
	const struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(PORT),
					.sin_addr = address };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	uint64_t begin_ns = now_ns();
	bool answered;

	if (fd < 0)
		return false;
	answered = (connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0 ||
		    errno == EINPROGRESS) &&
		   connected(fd, begin_ns) && dprintf(fd, "%s\r\n", command) > 0 &&
		   read_line(fd, begin_ns, line, room);
	close(fd);
	return answered;
}

static bool ask(unsigned number, struct in_addr address, const struct request *request)
{
	char line[256];

	while (now_ns() < request->deadline_ns) {
		uint64_t begin_ns = now_ns();

		if (ask_once(address, request->command, line, sizeof(line))) {
			printf("%u %llu %llu\n", number, (unsigned long long)now_ns(),
			       (unsigned long long)(now_ns() - begin_ns));
			fflush(stdout);
			if (strcmp(line, request->wanted) == 0)
				return true;
			fprintf(stderr, "ask_guests: guest %u answers %s instead of %s\n", number,
				line, request->wanted);
			return false;
		}
		usleep(PAUSE_US);
	}
	fprintf(stderr, "ask_guests: guest %u does not answer\n", number);
	return false;
}

/* Reads what is said until guest @number is ready; others may be before it. */
static bool wait_until_ready(unsigned number, bool *ready, unsigned count)
{
	char line[1024];
	unsigned said;

	while (!ready[number] && fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "guest %u: clone %*u ready", &said) == 1 && said < count &&
		    strstr(line, " ready"))
			ready[said] = true;
		else
			fprintf(stderr, "%s", line);
	}
	return ready[number];
}

#define COUNT_MAX 1000

int main(int argc, char **argv)
{
	struct request request = { 0 };
	unsigned count = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
	bool ready[COUNT_MAX] = { false };
	struct in_addr address;
	bool answered = true;

	if (argc != 6 || count > COUNT_MAX || inet_pton(AF_INET, argv[1], &address) != 1) {
		fprintf(stderr, "usage: ask_guests ADDRESS COUNT SECONDS COMMAND ANSWER\n");
		return 2;
	}
	request.command = argv[4];
	request.wanted = argv[5];
	request.deadline_ns = now_ns() + strtoul(argv[3], NULL, 10) * 1000000000u;
	/* Nobody may say anything any more. */
	alarm((unsigned)strtoul(argv[3], NULL, 10) + 5);
	for (unsigned i = 0; i < count && answered; i++) {
		struct in_addr next = { htonl(ntohl(address.s_addr) + i) };

		answered = wait_until_ready(i, ready, count) && ask(i, next, &request);
	}
	return answered ? 0 : 1;
}
