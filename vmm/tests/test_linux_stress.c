// SPDX-License-Identifier: MIT
/*
 * Four clones of a Linux guest test their memory, all the time, while a fifth is frozen, cloned and reset
 * again and again. Needs what test_linux_state.c needs; takes a while.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guest_state.h"
#include "linux_shell.h"
#include "moment.h"

#define SKIPPED 77
#define TESTERS 4
#define TURNS	20
#define GUESTS	(TESTERS + 1 + TURNS)

static struct linux_guest files;
static struct guest_state state_at_prompt;
static struct fleet_computer computers[GUESTS];
static struct shell_ear *ears[GUESTS];

/* Boots a guest up to its shell, and keeps it as it is there. */
static void boot(void)
{
	struct shell_ear *ear = shell_new_ear();
	const struct fleet_computer computer = { .output = { shell_put, ear } };
	const struct fleet_config config = {
		.engine = ENGINE_AUTO,
		.guests = 1,
		.file = &files.memory,
		.mode = EPT_SHARED,
		.linux_start = &files.start,
		.computers = &computer,
	};
	struct fleet *fleet = shell_fleet(&config);
	struct guest *guest = shell_launch(fleet);
	struct error error;

	assert_true(shell_says(ear, 0, "guest: done"));
	assert_true(guest_call_to_rest(guest));
	if (!guest_save(guest, &state_at_prompt, &error))
		fail_msg("%s", error.text);
	guest_stop(guest, GUEST_STOPPED);
	guest_release(guest);
	fleet_destroy(fleet);
	free(ear);
}

/* The guest is frozen; what is launched from there knows what it knew; it goes back itself. */
static void turn(struct fleet *fleet, struct guest *guest, struct shell_ear *ear, unsigned number)
{
	struct fleet_moment *moment;
	struct guest *clone;
	struct error error;
	char line[64], answer[32];

	snprintf(line, sizeof(line), "kept=%u; echo $kept >/kept; echo set=$kept\n", number);
	snprintf(answer, sizeof(answer), "set=%u", number);
	shell_ask(guest, ear, line, answer);
	if (!fleet_freeze(fleet, guest, &moment, &error))
		fail_msg("%s", error.text);
	shell_ask(guest, ear, "kept=lost; echo lost >/kept; echo set=$kept\n", "set=lost");
	fleet_launch_moment(fleet, moment);
	clone = shell_launch(fleet);
	snprintf(answer, sizeof(answer), "is %u %u", number, number);
	shell_ask(clone, ears[clone->id], "echo is $kept $(cat /kept)\n", answer);
	guest_stop(clone, GUEST_STOPPED);
	if (!fleet_go_back(fleet, guest, &error))
		fail_msg("%s", error.text);
	shell_ask(guest, ear, "echo is $kept $(cat /kept)\n", answer);
	fleet_launch_moment(fleet, NULL);
	fleet_release_moment(fleet, moment);
}

static void memory_stays_what_it_is(void **state)
{
	const struct fleet_config config = {
		.engine = ENGINE_AUTO,
		.guests = GUESTS,
		.file = &files.memory,
		.mode = EPT_PRIVATE,
		.sharing = true,
		.state = &state_at_prompt,
		.computers = computers,
		.snapshots = TURNS,
	};
	struct fleet *fleet;
	struct guest *fifth;

	(void)state;
	boot();
	shell_hear(computers, ears, GUESTS);
	fleet = shell_fleet(&config);
	for (unsigned i = 0; i < TESTERS; i++)
		shell_type(shell_launch(fleet), "sh /service memtest '' 1M\n");
	fifth = shell_launch(fleet);
	for (unsigned i = 0; i < TURNS; i++)
		turn(fleet, fifth, ears[fifth->id], i);
	for (unsigned i = 0; i < TESTERS; i++) {
		assert_true(shell_says(ears[i], 0, "memtester passed 2"));
		assert_null(strstr(ears[i]->text, "memtester failed"));
	}
	fleet_stop(fleet, GUEST_STOPPED);
	shell_check(fleet);
	fleet_destroy(fleet);
	for (unsigned i = 0; i < GUESTS; i++)
		free(ears[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(memory_stays_what_it_is) };
	int failed;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!shell_open(&files, "initrd-service"))
		return SKIPPED;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	linux_guest_close(&files);
	return failed;
}
