// SPDX-License-Identifier: MIT
#include "linux_shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "board.h"
#include "ept/check.h"

/* In an emulated host a guest may be as slow as this. */
#define LIMIT_NS UINT64_C(240000000000)

void shell_put(void *context, uint8_t byte)
{
	struct shell_ear *ear = context;
	size_t used = atomic_load(&ear->used);

	if (used == SHELL_HEARD - 1)
		return;
	ear->text[used] = (char)byte;
	atomic_store(&ear->used, used + 1);
}

bool shell_says(struct shell_ear *ear, size_t from, const char *text)
{
	uint64_t limit = now_ns() + LIMIT_NS;

	while (now_ns() < limit) {
		ear->text[atomic_load(&ear->used)] = 0;
		if (strstr(ear->text + from, text))
			return true;
		usleep(20000);
	}
	print_error("not \"%s\" but: %s\n", text, ear->text + from);
	return false;
}

void shell_type(struct guest *guest, const char *line)
{
	assert_int_equal(board_input(guest->board, (const uint8_t *)line, strlen(line)),
			 strlen(line));
}

void shell_ask(struct guest *guest, struct shell_ear *ear, const char *line, const char *answer)
{
	size_t before = atomic_load(&ear->used);

	shell_type(guest, line);
	assert_true(shell_says(ear, before, answer));
}

struct shell_ear *shell_new_ear(void)
{
	struct shell_ear *ear = calloc(1, sizeof(*ear));

	assert_non_null(ear);
	return ear;
}

struct fleet *shell_fleet(const struct fleet_config *config)
{
	struct fleet *fleet;
	struct error error;

	if (!fleet_create(&fleet, config, &error))
		fail_msg("%s", error.text);
	return fleet;
}

struct guest *shell_launch(struct fleet *fleet)
{
	struct guest *guest;
	struct error error;

	if (!fleet_launch(fleet, 0, &guest, &error))
		fail_msg("%s", error.text);
	return guest;
}

static void complain(void *context, const char *text)
{
	(void)context;
	print_error("%s\n", text);
}

void shell_check(struct fleet *fleet)
{
	assert_int_equal(ept_check(fleet->ept, complain, NULL), 0);
}

void shell_hear(struct fleet_computer *computers, struct shell_ear **ears, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		ears[i] = shell_new_ear();
		computers[i].output = (struct serial_output){ shell_put, ears[i] };
	}
}

bool shell_open(struct linux_guest *guest, const char *initrd)
{
	const char *directory = getenv("S2VM_LINUX_GUEST");
	char kernel[256], disk[256];
	struct linux_request request = {
		.kernel = kernel,
		.initrd = disk,
		.cmdline = "console=ttyS0 quiet s2vm=shell",
		.memory = LINUX_MEMORY_DEFAULT,
		.cpus = 1,
	};
	struct error error;

	if (!directory)
		directory = "build/linux-guest";
	snprintf(kernel, sizeof(kernel), "%s/vmlinuz", directory);
	snprintf(disk, sizeof(disk), "%s/%s", directory, initrd);
	if (linux_guest_open(guest, &request, &error))
		return true;
	printf("SKIP %s; run scripts/linux-guest\n", error.text);
	return false;
}
