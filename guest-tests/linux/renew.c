// SPDX-License-Identifier: MIT
/*
 * What a guest that is a copy of another one must not have in common with it: "renew SECONDS" mixes
 * random bytes of the host's into the kernel's, has it begin anew from them, and sets the clock if it
 * is off. SECONDS since 1970 may have six digits behind a point.
 */
#include <fcntl.h>
#include <linux/random.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define SEED_BYTES 32

/* What it took for the time to come here is no reason to set a clock. */
#define OFF_NS 500000000

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

static bool parse_time(const char *text, struct timespec *time)
{
	unsigned long microseconds = 0;
	char *end;

	time->tv_sec = strtoll(text, &end, 10);
	if (*end == '.')
		microseconds = strtoul(end + 1, &end, 10);
	time->tv_nsec = (long)microseconds * 1000;
	return end != text && !*end && microseconds < 1000000;
}

static long long difference_ns(const struct timespec *a, const struct timespec *b)
{
	return (a->tv_sec - b->tv_sec) * 1000000000LL + (a->tv_nsec - b->tv_nsec);
}

static bool set_clock(const struct timespec *time)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return llabs(difference_ns(time, &now)) < OFF_NS || clock_settime(CLOCK_REALTIME, time) == 0;
}

int main(int argc, char **argv)
{
	struct timespec time;

	if (argc != 2 || !parse_time(argv[1], &time)) {
		fprintf(stderr, "renew: what time is it? renew SECONDS[.MICROSECONDS]\n");
		return 2;
	}
	if (reseed() && set_clock(&time))
		return 0;
	perror("renew");
	return 1;
}
