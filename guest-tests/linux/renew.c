// SPDX-License-Identifier: MIT
/*
 * What a guest that is a copy of another one must not have in common with it, done by one process because
 * a clone pays for each that it makes:
 *
 *   renew NUMBER SECONDS [MACS [ADDRESS/BITS]]
 *
 * mixes random bytes of the host's into the kernel's and has it begin anew from them, sets the clock if it is
 * off, where SECONDS since 1970 may have six digits behind a point, gives the networks the hardware
 * addresses MACS, which have commas between them, the first of them the IPv4 address that is NUMBER after
 * ADDRESS, and the guest the name clone-NUMBER. An empty word stands for nothing to do.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
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
	struct timespec time;
	bool all;

	if (argc < 3 || argc > 5 || !parse_time(argv[2], &time)) {
		fprintf(stderr, "usage: renew NUMBER SECONDS[.MICROSECONDS] [MACS [ADDRESS/BITS]]\n");
		return 2;
	}
	all = done(reseed(), "random numbers");
	all = done(set_clock(&time), "time") && all;
	all = done(set_networks(number, argc > 3 ? argv[3] : none, argc > 4 ? argv[4] : none),
		   "network") && all;
	all = done(set_name(number), "name") && all;
	return all ? 0 : 1;
}
