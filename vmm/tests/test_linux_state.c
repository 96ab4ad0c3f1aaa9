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
#include "moment.h"

#define SKIPPED	 77
#define CLONES	 3
#define LIMIT_NS UINT64_C(240000000000)
#define HEARD	 65536

/* What a guest has said. */
struct ear {
	_Atomic size_t used;
	char text[HEARD];
};

/* One guest that has booted, and how it was. */
static struct linux_guest guest_files;
static struct linux_guest disk_guest_files; /* of another one, with a disk */
static struct guest_state moment;

static bool open_files(struct linux_guest *files)
{
	const char *directory = getenv("S2VM_LINUX_GUEST");
	char kernel[256], initrd[256];
	struct linux_request request = {
		.kernel = kernel,
		.initrd = initrd,
		.cmdline = "console=ttyS0 quiet s2vm=shell",
		.memory = LINUX_MEMORY_DEFAULT,
		.cpus = 1,
	};
	struct error error;

	if (!directory)
		directory = "build/linux-guest";
	snprintf(kernel, sizeof(kernel), "%s/vmlinuz", directory);
	snprintf(initrd, sizeof(initrd), "%s/initrd", directory);
	if (linux_guest_open(files, &request, &error))
		return true;
	printf("SKIP linux state: %s; run scripts/linux-guest\n", error.text);
	return false;
}

static void hear(void *context, uint8_t byte)
{
	struct ear *ear = context;
	size_t used = atomic_load(&ear->used);

	if (used == HEARD - 1)
		return;
	ear->text[used] = (char)byte;
	atomic_store(&ear->used, used + 1);
}

/* Whether the guest says @text behind what it had said up to @from, before it takes too long. */
static bool says(struct ear *ear, size_t from, const char *text)
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

/* Types a line that ends before the newline, and expects @answer. */
static void ask(struct guest *guest, struct ear *ear, const char *line, const char *answer)
{
	size_t before = atomic_load(&ear->used);

	assert_int_equal(board_input(guest->board, (const uint8_t *)line, strlen(line)),
			 strlen(line));
	assert_true(says(ear, before, answer));
}

static struct ear *new_ear(void)
{
	struct ear *ear = calloc(1, sizeof(*ear));

	assert_non_null(ear);
	return ear;
}

static struct fleet *make_fleet(const struct fleet_config *config)
{
	struct fleet *fleet;
	struct error error;

	if (!fleet_create(&fleet, config, &error))
		fail_msg("%s", error.text);
	return fleet;
}

static struct guest *launch(struct fleet *fleet)
{
	struct guest *guest;
	struct error error;

	if (!fleet_launch(fleet, 0, &guest, &error))
		fail_msg("%s", error.text);
	return guest;
}

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

static void complain(void *context, const char *text)
{
	(void)context;
	print_error("%s\n", text);
}

static void check_clones(struct guest **clones, struct ear **ears)
{
	for (unsigned i = 0; i < CLONES; i++) {
		char line[64];

		snprintf(line, sizeof(line), "kept=$kept$((%u+1)); echo is $kept\n", i);
		ask(clones[i], ears[i], line, i == 0 ? "is 1231" : i == 1 ? "is 1232" : "is 1233");
		ask(clones[i], ears[i], "sleep 1; echo $((6*7)) is enough\n", "42 is enough");
		ask(clones[i], ears[i], "md5sum </bin/busybox | cut -c 33-; echo $sum\n", "sum-");
	}
}

static void test_a_guest_goes_on_from_what_was_saved(void **state)
{
	struct ear *ear = new_ear();
	struct fleet_computer computer = { .output = { hear, ear } };
	struct fleet_config config = {
		.engine = ENGINE_AUTO,
		.guests = 1,
		.file = &guest_files.memory,
		.mode = EPT_SHARED,
		.linux_start = &guest_files.start,
		.computers = &computer,
	};
	struct fleet *fleet = make_fleet(&config);
	struct guest *guest = launch(fleet);

	(void)state;
	assert_true(says(ear, 0, "guest: done"));
	usleep(1000000);
	ask(guest, ear, "kept=123; sum=sum-$kept; echo $sum\n", "sum-123");
	put_back(guest);
	ask(guest, ear, "echo $kept$((6*7))\n", "12342");
	ask(guest, ear, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo counted $i | tr 0 o\n", "$i");
	put_back(guest);
	assert_true(says(ear, 0, "counted 2oooo"));
	rest_and_save(guest, &moment);
	/* Its memory is to stay as it is. */
	seat_stop(guest->seat, GUEST_STOPPED);
	guest_release(guest);
	fleet_stop(fleet, GUEST_STOPPED);
	fleet_destroy(fleet);
	free(ear);
}

static void make_clones(struct fleet_computer *computers, struct ear **ears, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		ears[i] = new_ear();
		computers[i].output = (struct serial_output){ hear, ears[i] };
	}
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

static void end(struct fleet *fleet, struct ear **ears, unsigned count)
{
	fleet_stop(fleet, GUEST_STOPPED);
	assert_int_equal(ept_check(fleet->ept, complain, NULL), 0);
	fleet_destroy(fleet);
	for (unsigned i = 0; i < count; i++)
		free(ears[i]);
}

static void test_clones_go_on_each_for_itself(void **state)
{
	struct fleet_computer computers[CLONES] = { 0 };
	struct fleet_config config = config_for_clones(computers, CLONES);
	struct guest *clones[CLONES];
	struct ear *ears[CLONES];
	struct fleet *fleet;

	(void)state;
	make_clones(computers, ears, CLONES);
	fleet = make_fleet(&config);
	for (unsigned i = 0; i < CLONES; i++)
		clones[i] = launch(fleet);
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
	struct ear *ears[2];
	struct fleet *fleet;
	struct error error;

	(void)state;
	make_clones(computers, ears, 2);
	fleet = make_fleet(&config);
	first = launch(fleet);
	ask(first, ears[0], "echo $((6*7)) >/file; kept=7; echo set-$kept\n", "set-7");
	if (!fleet_freeze(fleet, first, &frozen, &error))
		fail_msg("%s", error.text);
	ask(first, ears[0], "kept=8; echo 43 >/file; echo set-$kept\n", "set-8");
	fleet_launch_moment(fleet, frozen);
	second = launch(fleet);
	ask(second, ears[1], "echo it is $kept $(cat /file)\n", "it is 7 42");
	ask(second, ears[1], "kept=9; echo set-$kept\n", "set-9");
	ask(first, ears[0], "echo it is $kept $(cat /file)\n", "it is 8 43");
	for (unsigned i = 0; i < 5; i++) {
		if (!fleet_go_back(fleet, first, &error) || !fleet_go_back(fleet, second, &error))
			fail_msg("%s", error.text);
		ask(first, ears[0], "echo again $kept $(cat /file); kept=8\n", "again 7 42");
		ask(second, ears[1], "echo again $kept $(cat /file); kept=8\n", "again 7 42");
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
static void write_to_disk(struct guest *guest, struct ear *ear, const char *text)
{
	char line[128], answer[64];

	snprintf(line, sizeof(line),
		 "echo %s-of-all | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null; echo put-$((6*7))-%s\n",
		 text, text);
	snprintf(answer, sizeof(answer), "put-42-%s", text);
	ask(guest, ear, line, answer);
}

/* A guest that has booted with a disk. */
static void save_a_guest_with_a_disk(struct fleet_computer *computer, struct ear *ear)
{
	struct fleet_config config = {
		.engine = ENGINE_AUTO,
		.guests = 1,
		.file = &disk_guest_files.memory,
		.mode = EPT_SHARED,
		.linux_start = &disk_guest_files.start,
		.computers = computer,
	};
	struct fleet *fleet = make_fleet(&config);
	struct guest *guest = launch(fleet);

	assert_true(says(ear, 0, "guest: done"));
	usleep(1000000);
	ask(guest, ear, "echo up-$((6*7))\n", "up-42");
	rest_and_save(guest, &moment);
	seat_stop(guest->seat, GUEST_STOPPED);
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
	struct ear *ears[2];
	struct fleet *fleet;
	struct error error;

	(void)state;
	assert_true(open_files(&disk_guest_files));
	make_clones(computers, ears, 2);
	make_disks(base, disks);
	for (unsigned i = 0; i < 2; i++) {
		computers[i].disks = &disks[i];
		computers[i].disk_count = 1;
	}
	save_a_guest_with_a_disk(computers, ears[0]);
	config.file = &disk_guest_files.memory;
	fleet = make_fleet(&config);
	first = launch(fleet);
	second = launch(fleet);
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
		ask(first, ears[0], "echo it has $(head -n 1 /dev/vda)\n", "it has frozen-of-all");
	}
	disk_has(second, "other-of-all");
	if (!fleet_go_back(fleet, second, &error))
		fail_msg("%s", error.text);
	disk_has(second, FIRST_DISK);
	ask(second, ears[1], "echo it has $(head -n 1 /dev/vda)\n", "it has " FIRST_DISK);
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
	struct ear *ears[1];
	struct fleet *fleet;
	struct error error;
	size_t before;

	(void)state;
	make_clones(computers, ears, 1);
	fleet = make_fleet(&config);
	guest = launch(fleet);
	assert_true(says(ears[0], 0, "clone 0 ready"));
	before = atomic_load(&ears[0]->used);
	if (!fleet_go_back(fleet, guest, &error))
		fail_msg("%s", error.text);
	assert_true(says(ears[0], before, "clone 0 ready"));
	end(fleet, ears, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_guest_goes_on_from_what_was_saved),
		cmocka_unit_test(test_clones_go_on_each_for_itself),
		cmocka_unit_test(test_B1_B2_a_clone_is_frozen_copied_and_reset),
		cmocka_unit_test(test_a_clone_is_told_who_it_is),
		/* It boots another guest, of which the moment is then. */
		cmocka_unit_test(test_disks_go_back_with_their_guest),
	};
	int failed;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!open_files(&guest_files))
		return SKIPPED;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	linux_guest_close(&guest_files);
	return failed;
}
