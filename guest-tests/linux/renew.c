// SPDX-License-Identifier: MIT
/*
 * What a guest that is a copy of another one must not have in common with it, done by one process because
 * a clone pays for each that it makes:
 *
 *   renew NUMBER CONSOLE [MACS [ADDRESS/BITS]]
 *
 * mixes random bytes of the host's into the kernel's and has it begin anew from them, asks s2vm at the control
 * console what time it is and sets the clock if it is off, gives the networks the hardware addresses MACS,
 * which have commas between them, the first of them the IPv4 address that is NUMBER after ADDRESS, and the
 * guest the name clone-NUMBER. An empty word stands for nothing to do.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SEED_BYTES 32

/* What a clock may be off by. */
#define OFF_NS INT64_C(20000000)
/* The host is asked as often as this for an answer that is as quick as that, or the quickest. */
#define ASKED	 3
#define QUICK_NS INT64_C(50000000)
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

/* Of interface eth@number; false if there is none, which is no error, or it is not a MAC. */
static bool set_mac(int fd, unsigned number, const char *text)
{
	struct ifreq request = { .ifr_hwaddr.sa_family = ARPHRD_ETHER };
	unsigned byte[6];

	snprintf(request.ifr_name, sizeof(request.ifr_name), "eth%u", number);
	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x", &byte[0], &byte[1], &byte[2], &byte[3],
		   &byte[4], &byte[5]) != 6) {
		errno = EINVAL;
		return false;
	}
	for (unsigned i = 0; i < 6; i++)
		request.ifr_hwaddr.sa_data[i] = (char)byte[i];
	return ioctl(fd, SIOCSIFHWADDR, &request) == 0 || errno == ENODEV;
}

static bool set_macs(int fd, char *list)
{
	unsigned number = 0;
	char *mac;

	while ((mac = strsep(&list, ",")))
		if (*mac && !set_mac(fd, number++, mac))
			return false;
	return true;
}

static bool set_address_as(int fd, unsigned long what, uint32_t address)
{
	struct ifreq request = { .ifr_name = "eth0" };
	struct sockaddr_in *to = (struct sockaddr_in *)&request.ifr_addr;

	to->sin_family = AF_INET;
	to->sin_addr.s_addr = htonl(address);
	return ioctl(fd, what, &request) == 0;
}

static bool set_up(int fd)
{
	struct ifreq request = { .ifr_name = "eth0" };

	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return false;
	request.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &request) == 0;
}

/* The one that is @number after that of @text. Without a network there is none to be set. */
static bool set_address(int fd, const char *text, unsigned number)
{
	char address[16];
	struct in_addr first;
	unsigned bits;

	if (if_nametoindex("eth0") == 0)
		return true;
	if (sscanf(text, "%15[0-9.]/%u", address, &bits) != 2 || bits < 1 || bits > 32 ||
	    inet_pton(AF_INET, address, &first) != 1) {
		errno = EINVAL;
		return false;
	}
	return set_address_as(fd, SIOCSIFADDR, ntohl(first.s_addr) + number) &&
	       set_address_as(fd, SIOCSIFNETMASK, UINT32_MAX << (32 - bits)) && set_up(fd);
}

static bool set_networks(unsigned number, char *macs, const char *address)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	bool done = fd >= 0 && set_macs(fd, macs) && (!*address || set_address(fd, address, number));

	if (fd >= 0)
		close(fd);
	return done;
}

static bool set_name(unsigned number)
{
	char name[32];

	return sethostname(name, (size_t)snprintf(name, sizeof(name), "clone-%u", number)) == 0;
}

/* Says what could not be done, and goes on: a guest without a name is better than none. */
static bool done(bool done, const char *what)
{
	if (!done)
		fprintf(stderr, "renew: no %s: %s\n", what, strerror(errno));
	return done;
}

int main(int argc, char **argv)
{
	unsigned number = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
	char none[] = "";
	bool all;

	if (argc < 3 || argc > 5) {
		fprintf(stderr, "usage: renew NUMBER CONSOLE [MACS [ADDRESS/BITS]]\n");
		return 2;
	}
	all = done(reseed(), "random numbers");
	all = done(set_clock(argv[2]), "time") && all;
	all = done(set_networks(number, argc > 3 ? argv[3] : none, argc > 4 ? argv[4] : none),
		   "network") && all;
	all = done(set_name(number), "name") && all;
	return all ? 0 : 1;
}
