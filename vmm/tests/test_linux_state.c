// SPDX-License-Identifier: MIT
/*
 * A Linux guest that is brought to rest, saved, put back and copied. The guest has a shell at its serial
 * port, by which it is asked whether it is still what it was. Needs a kernel and an initrd of
 * scripts/linux-guest, in build/linux-guest or $S2VM_LINUX_GUEST, and a host that runs Linux guests.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ept/check.h"
#include "fleet.h"
#include "guest_state.h"
#include "linux_guest.h"
#include "linux_shell.h"
#include "moment.h"

#define SKIPPED	 77
#define CLONES	 3

/* One guest that has booted, and how it was. */
static struct linux_guest guest_files;
static struct guest_state moment;

static void rest_and_save(struct guest *guest, struct guest_state *state)
{
	struct error error;

	assert_true(guest_call_to_rest(guest));
	if (!guest_save(guest, state, &error))
		fail_msg("%s", error.text);
}

/* It is saved and put back where it is, again and again, while it computes. */
static void put_back(struct guest *guest)
{
	struct error error;

	for (unsigned i = 0; i < 40; i++) {
		rest_and_save(guest, &moment);
		if (!guest_restore(guest, &moment, &error))
			fail_msg("%s", error.text);
		guest_release(guest);
		usleep(1000 * (i % 7));
	}
}

static void check_clones(struct guest **clones, struct shell_ear **ears)
{
	for (unsigned i = 0; i < CLONES; i++) {
		char line[64];

		snprintf(line, sizeof(line), "kept=$kept$((%u+1)); echo is $kept\n", i);
		shell_ask(clones[i], ears[i], line, i == 0 ? "is 1231" : i == 1 ? "is 1232" : "is 1233");
		shell_ask(clones[i], ears[i], "sleep 1; echo $((6*7)) is enough\n", "42 is enough");
		shell_ask(clones[i], ears[i], "md5sum </bin/busybox | cut -c 33-; echo $sum\n", "sum-");
	}
}

static void test_a_guest_goes_on_from_what_was_saved(void **state)
{
	struct shell_ear *ear = shell_new_ear();
	struct fleet_computer computer = { .output = { shell_put, ear } };
	struct fleet_config config = {
		.engine = ENGINE_AUTO,
		.guests = 1,
		.file = &guest_files.memory,
		.mode = EPT_SHARED,
		.linux_start = &guest_files.start,
		.computers = &computer,
	};
	struct fleet *fleet = shell_fleet(&config);
	struct guest *guest = shell_launch(fleet);

	(void)state;
	assert_true(shell_says(ear, 0, "guest: done"));
	usleep(1000000);
	shell_ask(guest, ear, "kept=123; sum=sum-$kept; echo $sum\n", "sum-123");
	put_back(guest);
	shell_ask(guest, ear, "echo $kept$((6*7))\n", "12342");
	shell_ask(guest, ear, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo counted $i | tr 0 o\n", "$i");
	put_back(guest);
	assert_true(shell_says(ear, 0, "counted 2oooo"));
	rest_and_save(guest, &moment);
	/* Its memory is to stay as it is. */
	seat_stop(guest->seat, GUEST_STOPPED);
	guest_release(guest);
	fleet_stop(fleet, GUEST_STOPPED);
	fleet_destroy(fleet);
	free(ear);
}

static struct fleet_config config_for_clones(const struct fleet_computer *computers, unsigned count)
{
	return (struct fleet_config){
		.engine = ENGINE_AUTO,
		.guests = count,
		.file = &guest_files.memory,
		.mode = EPT_PRIVATE,
		.sharing = true,
		.state = &moment,
		.computers = computers,
		.snapshots = count,
	};
}

static void end(struct fleet *fleet, struct shell_ear **ears, unsigned count)
{
	fleet_stop(fleet, GUEST_STOPPED);
	shell_check(fleet);
	fleet_destroy(fleet);
	for (unsigned i = 0; i < count; i++)
		free(ears[i]);
}

static void test_clones_go_on_each_for_itself(void **state)
{
	struct fleet_computer computers[CLONES] = { 0 };
	struct fleet_config config = config_for_clones(computers, CLONES);
	struct guest *clones[CLONES];
	struct shell_ear *ears[CLONES];
	struct fleet *fleet;

	(void)state;
	shell_hear(computers, ears, CLONES);
	fleet = shell_fleet(&config);
	for (unsigned i = 0; i < CLONES; i++)
		clones[i] = shell_launch(fleet);
	check_clones(clones, ears);
	end(fleet, ears, CLONES);
}

/* The guest goes on; what is launched goes on from there too, and a reset takes both back to there. */
static void test_B1_B2_a_clone_is_frozen_copied_and_reset(void **state)
{
	struct fleet_computer computers[2] = { 0 };
	struct fleet_config config = config_for_clones(computers, 2);
	struct fleet_moment *frozen;
	struct guest *first, *second;
	struct shell_ear *ears[2];
	struct fleet *fleet;
	struct error error;

	(void)state;
	shell_hear(computers, ears, 2);
	fleet = shell_fleet(&config);
	first = shell_launch(fleet);
	shell_ask(first, ears[0], "echo $((6*7)) >/file; kept=7; echo set-$kept\n", "set-7");
	if (!fleet_freeze(fleet, first, &frozen, &error))
		fail_msg("%s", error.text);
	shell_ask(first, ears[0], "kept=8; echo 43 >/file; echo set-$kept\n", "set-8");
	fleet_launch_moment(fleet, frozen);
	second = shell_launch(fleet);
	shell_ask(second, ears[1], "echo it is $kept $(cat /file)\n", "it is 7 42");
	shell_ask(second, ears[1], "kept=9; echo set-$kept\n", "set-9");
	shell_ask(first, ears[0], "echo it is $kept $(cat /file)\n", "it is 8 43");
	for (unsigned i = 0; i < 5; i++) {
		if (!fleet_go_back(fleet, first, &error) || !fleet_go_back(fleet, second, &error))
			fail_msg("%s", error.text);
		shell_ask(first, ears[0], "echo again $kept $(cat /file); kept=8\n", "again 7 42");
		shell_ask(second, ears[1], "echo again $kept $(cat /file); kept=8\n", "again 7 42");
	}
	fleet_launch_moment(fleet, NULL);
	fleet_release_moment(fleet, frozen);
	end(fleet, ears, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_guest_goes_on_from_what_was_saved),
		cmocka_unit_test(test_clones_go_on_each_for_itself),
		cmocka_unit_test(test_B1_B2_a_clone_is_frozen_copied_and_reset),
	};
	int failed;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!shell_open(&guest_files, "initrd"))
		return SKIPPED;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	linux_guest_close(&guest_files);
	return failed;
}
