// SPDX-License-Identifier: MIT
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEVICE	    "/dev/net/tun"
#define MTU_DEFAULT 1500 /* of Ethernet */

static bool open_device(struct tap *tap, struct error *error)
{
	tap->fd = open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tap->fd >= 0)
		return true;
	if (errno == ENOENT || errno == ENODEV)
		return error_set(error, EXIT_HOST,
				 "there is no " DEVICE ": load its module with modprobe tun");
	return error_set(error, EXIT_HOST, "cannot open " DEVICE ": %s", strerror(errno));
}

static bool refused(const char *name, struct error *error)
{
	switch (errno) {
	case EBUSY:
		return error_set(error, EXIT_INPUT, "TAP %s is in use: another process has it",
				 name);
	case EPERM:
		return error_set(
			error, EXIT_INPUT,
			"no permission for TAP %s: make it with ip tuntap add %s mode tap user USER",
			name, name);
	case EINVAL:
		return error_set(error, EXIT_INPUT,
				 "%s is no TAP, or has several queues: make one with ip tuntap add "
				 "NAME mode tap",
				 name);
	default:
		return error_set(error, EXIT_INPUT, "cannot use TAP %s: %s", name, strerror(errno));
	}
}

/*
 * One that does not exist would be made by this, if s2vm may, and be gone at its end. Whoever had it
 * before may have taken checksums and segmentation upon himself: frames are to be whole again.
 */
static bool attach(struct tap *tap, const char *name, struct error *error)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI };

	if (!if_nametoindex(name))
		return error_set(error, EXIT_INPUT,
				 "there is no TAP %s: make one with ip tuntap add %s mode tap", name,
				 name);
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	return (ioctl(tap->fd, TUNSETIFF, &request) == 0 &&
		ioctl(tap->fd, TUNSETOFFLOAD, 0) == 0) ||
	       refused(name, error);
}

static uint16_t mtu_of(const char *name)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint16_t mtu = MTU_DEFAULT;

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (fd >= 0 && ioctl(fd, SIOCGIFMTU, &request) == 0 && request.ifr_mtu <= UINT16_MAX)
		mtu = (uint16_t)request.ifr_mtu;
	if (fd >= 0)
		close(fd);
	return mtu;
}

bool tap_open(struct tap *tap, const char *name, struct error *error)
{
	if (!open_device(tap, error))
		return false;
	if (attach(tap, name, error)) {
		tap->mtu = mtu_of(name);
		return true;
	}
	tap_close(tap);
	return false;
}

void tap_close(struct tap *tap)
{
	close(tap->fd);
	tap->fd = -1;
}

enum tap_result tap_read(const struct tap *tap, void *to, size_t room, size_t *bytes)
{
	ssize_t got;

	do
		got = read(tap->fd, to, room);
	while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN)
		return TAP_NONE;
	if (got <= 0)
		return TAP_GONE;
	*bytes = (size_t)got;
	return TAP_FRAME;
}

void tap_write(const struct tap *tap, const void *from, size_t bytes)
{
	ssize_t sent;

	do
		sent = write(tap->fd, from, bytes);
	while (sent < 0 && errno == EINTR);
}
