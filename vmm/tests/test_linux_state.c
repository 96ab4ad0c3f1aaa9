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
#include <time.h>
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
static struct linux_guest disk_guest_files; /* of another one, with a disk */
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
	guest_stop(guest, GUEST_STOPPED);
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

#define DISK_BYTES 65536
#define FIRST_DISK "written by the guest" /* by its first process */

/* A base, and disks of two guests over it. */
static void make_disks(char *base, struct disk *disks)
{
	static const char zeros[DISK_BYTES];
	struct error error;
	int fd = mkstemp(base);

	assert_int_equal(write(fd, zeros, sizeof(zeros)), sizeof(zeros));
	close(fd);
	for (unsigned i = 0; i < 2; i++)
		if (!disk_open_overlay(&disks[i], base, NULL, &error))
			fail_msg("%s", error.text);
}

/* What the disk itself has, and not what the guest remembers of it. */
static void disk_has(struct guest *guest, const char *text)
{
	const struct fleet_computer *computer = &guest->fleet->config.computers[guest->id];
	char sector[DISK_SECTOR] = "";

	assert_true(guest_call_to_rest(guest));
	assert_true(disk_read(computer->disks, 0, sector, sizeof(sector)));
	guest_release(guest);
	assert_memory_equal(sector, text, strlen(text));
}

/* The line that makes the guest write @text, and the answer to it. */
static void write_to_disk(struct guest *guest, struct shell_ear *ear, const char *text)
{
	char line[128], answer[64];

	snprintf(line, sizeof(line),
		 "echo %s-of-all | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null; echo put-$((6*7))-%s\n",
		 text, text);
	snprintf(answer, sizeof(answer), "put-42-%s", text);
	shell_ask(guest, ear, line, answer);
}

/* A guest that has booted with a disk. */
static void save_a_guest_with_a_disk(struct fleet_computer *computer, struct shell_ear *ear)
{
	struct fleet_config config = {
		.engine = ENGINE_AUTO,
		.guests = 1,
		.file = &disk_guest_files.memory,
		.mode = EPT_SHARED,
		.linux_start = &disk_guest_files.start,
		.computers = computer,
	};
	struct fleet *fleet = shell_fleet(&config);
	struct guest *guest = shell_launch(fleet);

	assert_true(shell_says(ear, 0, "guest: done"));
	usleep(1000000);
	shell_ask(guest, ear, "echo up-$((6*7))\n", "up-42");
	rest_and_save(guest, &moment);
	guest_stop(guest, GUEST_STOPPED);
	guest_release(guest);
	fleet_stop(fleet, GUEST_STOPPED);
	fleet_destroy(fleet);
}

/* They are frozen with their guest, and go back with it: to where it was frozen, or where it began. */
static void test_disks_go_back_with_their_guest(void **state)
{
	struct fleet_computer computers[2] = { 0 };
	struct fleet_config config = config_for_clones(computers, 2);
	char base[] = "/tmp/s2vm-state-XXXXXX";
	struct fleet_moment *frozen;
	struct guest *first, *second;
	struct disk disks[2];
	struct shell_ear *ears[2];
	struct fleet *fleet;
	struct error error;

	(void)state;
	assert_true(shell_open(&disk_guest_files, "initrd"));
	shell_hear(computers, ears, 2);
	make_disks(base, disks);
	for (unsigned i = 0; i < 2; i++) {
		computers[i].disks = &disks[i];
		computers[i].disk_count = 1;
	}
	save_a_guest_with_a_disk(computers, ears[0]);
	config.file = &disk_guest_files.memory;
	fleet = shell_fleet(&config);
	first = shell_launch(fleet);
	second = shell_launch(fleet);
	write_to_disk(second, ears[1], "other");
	write_to_disk(first, ears[0], "frozen");
	if (!fleet_freeze(fleet, first, &frozen, &error))
		fail_msg("%s", error.text);
	fleet_release_moment(fleet, frozen);
	for (unsigned i = 0; i < 2; i++) {
		write_to_disk(first, ears[0], "later");
		disk_has(first, "later-of-all");
		if (!fleet_go_back(fleet, first, &error))
			fail_msg("%s", error.text);
		disk_has(first, "frozen-of-all");
		shell_ask(first, ears[0], "echo it has $(head -n 1 /dev/vda)\n", "it has frozen-of-all");
	}
	disk_has(second, "other-of-all");
	if (!fleet_go_back(fleet, second, &error))
		fail_msg("%s", error.text);
	disk_has(second, FIRST_DISK);
	shell_ask(second, ears[1], "echo it has $(head -n 1 /dev/vda)\n", "it has " FIRST_DISK);
	end(fleet, ears, 2);
	for (unsigned i = 0; i < 2; i++)
		disk_close(&disks[i]);
	linux_guest_close(&disk_guest_files);
	unlink(base);
}

/* What a clone is told when it begins, and when it goes back: another generation each time. */
static void test_a_clone_is_told_who_it_is(void **state)
{
	struct fleet_computer computers[1] = { 0 };
	struct fleet_config config = config_for_clones(computers, 1);
	struct guest *guest;
	struct shell_ear *ears[1];
	struct fleet *fleet;
	struct error error;
	size_t before;

	(void)state;
	shell_hear(computers, ears, 1);
	fleet = shell_fleet(&config);
	guest = shell_launch(fleet);
	assert_true(shell_says(ears[0], 0, "clone 0 ready"));
	before = atomic_load(&ears[0]->used);
	if (!fleet_go_back(fleet, guest, &error))
		fail_msg("%s", error.text);
	assert_true(shell_says(ears[0], before, "clone 0 ready"));
	end(fleet, ears, 1);
}

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/*
 * What the guest's clock shows lies between our own before it was asked and after it has answered, within
 * 100 ms. How long its answer takes is also how long it may have taken it to hear what time it is.
 */
static void clock_is_right(struct guest *guest, struct shell_ear *ear)
{
	static const char answer[] = "probe: time ";
	size_t before = atomic_load(&ear->used);
	int64_t asked = now_us();
	int64_t shown, answered;

	shell_ask(guest, ear, "probe time | cat; echo $((6*7)) told\n", "42 told");
	answered = now_us();
	shown = strtoll(strstr(ear->text + before, answer) + strlen(answer), NULL, 10);
	print_message("asked at 0 ms, it was %lld ms, answered at %lld ms\n",
		      (long long)(shown - asked) / 1000, (long long)(answered - asked) / 1000);
	assert_true(shown >= asked - 100000 - (answered - asked));
	assert_true(shown <= answered + 100000);
}

/* Time goes on while a guest is only a state. */
static void test_clocks_of_clones_are_right(void **state)
{
	struct fleet_computer computers[2] = { 0 };
	struct fleet_config config = config_for_clones(computers, 2);
	struct shell_ear *ears[2];
	struct fleet *fleet;
	struct error error;
	size_t before;

	(void)state;
	shell_hear(computers, ears, 2);
	fleet = shell_fleet(&config);
	for (unsigned i = 0; i < 2; i++) {
		struct guest *guest = shell_launch(fleet);

		assert_true(shell_says(ears[i], 0, "ready"));
		clock_is_right(guest, ears[i]);
		before = atomic_load(&ears[i]->used);
		if (!fleet_go_back(fleet, guest, &error))
			fail_msg("%s", error.text);
		assert_true(shell_says(ears[i], before, "ready"));
		clock_is_right(guest, ears[i]);
	}
	end(fleet, ears, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_guest_goes_on_from_what_was_saved),
		cmocka_unit_test(test_clones_go_on_each_for_itself),
		cmocka_unit_test(test_B1_B2_a_clone_is_frozen_copied_and_reset),
		cmocka_unit_test(test_a_clone_is_told_who_it_is),
		cmocka_unit_test(test_clocks_of_clones_are_right),
		/* It boots another guest, of which the moment is then. */
		cmocka_unit_test(test_disks_go_back_with_their_guest),
	};
	int failed;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!shell_open(&guest_files, "initrd"))
		return SKIPPED;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	linux_guest_close(&guest_files);
	return failed;
}
