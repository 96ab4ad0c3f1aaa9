// SPDX-License-Identifier: MIT
/*
 * What a guest that is a copy of another one must not have in common with it: "renew CONSOLE" asks s2vm
 * at the control console what time it is and sets the clock if it is off, mixes random bytes of the
 * host's into the kernel's, and has it begin anew from them.
 */
#include <fcntl.h>
#include <linux/random.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define SEED_BYTES 32

/* What a clock may be off by. */
#define OFF_NS INT64_C(20000000)
/* The host is asked as often as this for an answer that is as quick as that, or the quickest. */
#define ASKED	 10
#define QUICK_NS INT64_C(20000000)
#define WAIT_MS	 5000

/* From the host, by virtio-rng. */
static bool read_seed(void *seed)
{
	int fd = open("/dev/hwrng", O_RDONLY);
	bool whole = fd >= 0 && read(fd, seed, SEED_BYTES) == SEED_BYTES;

	if (fd >= 0)
		close(fd);
	return whole;
}

/* Credited, for the host's numbers are as good as they come. */
static bool reseed(void)
{
	struct {
		struct rand_pool_info info;
		unsigned char seed[SEED_BYTES];
	} pool = { .info = { .entropy_count = 8 * SEED_BYTES, .buf_size = SEED_BYTES } };
	int fd = open("/dev/urandom", O_WRONLY);
	bool done = fd >= 0 && read_seed(pool.seed) && ioctl(fd, RNDADDENTROPY, &pool) == 0 &&
		    ioctl(fd, RNDRESEEDCRNG) == 0;

	memset(&pool, 0, sizeof(pool));
	if (fd >= 0)
		close(fd);
	return done;
}

static int64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Reads a line that begins with "time"; others are not for us. */
static bool read_time(int console, int64_t *real)
{
	struct pollfd ready = { .fd = console, .events = POLLIN };
	long long seconds, microseconds;
	char line[128];
	size_t used = 0;

	while (poll(&ready, 1, WAIT_MS) > 0 && read(console, &line[used], 1) == 1) {
		if (line[used] != '\n' && used < sizeof(line) - 1) {
			used++;
			continue;
		}
		line[used] = 0;
		used = 0;
		if (sscanf(line, "time %lld.%6lld", &seconds, &microseconds) == 2) {
			*real = seconds * 1000000000 + microseconds * 1000;
			return true;
		}
	}
	return false;
}

/* How far the host's clock is ahead of ours, and within what time that was found out. */
static bool ask(int console, int64_t *ahead, int64_t *took)
{
	static const char question[] = "time?\n";
	int64_t begin = clock_ns(CLOCK_REALTIME);
	int64_t real, end;

	if (write(console, question, sizeof(question) - 1) != (ssize_t)sizeof(question) - 1 ||
	    !read_time(console, &real))
		return false;
	end = clock_ns(CLOCK_REALTIME);
	*took = end - begin;
	*ahead = real - (begin + *took / 2);
	return true;
}

static bool move_clock(int64_t by)
{
	int64_t now = clock_ns(CLOCK_REALTIME) + by;
	const struct timespec time = { .tv_sec = now / 1000000000, .tv_nsec = now % 1000000000 };

	return clock_settime(CLOCK_REALTIME, &time) == 0;
}

/* By the answer that came the quickest. */
static bool set_clock(const char *path)
{
	int console = open(path, O_RDWR);
	int64_t best_took = INT64_MAX, best = 0, ahead, took;
	bool answered = console >= 0;

	for (unsigned i = 0; answered && i < ASKED && best_took > QUICK_NS; i++) {
		answered = ask(console, &ahead, &took);
		if (answered && took < best_took) {
			best_took = took;
			best = ahead;
		}
	}
	if (console >= 0)
		close(console);
	if (best_took == INT64_MAX)
		return false;
	return llabs(best) < OFF_NS || move_clock(best);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "renew: at what console is s2vm? renew FILE\n");
		return 2;
	}
	if (set_clock(argv[1]) && reseed())
		return 0;
	perror("renew");
	return 1;
}
