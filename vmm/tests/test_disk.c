// SPDX-License-Identifier: MIT
/* Disks: what is refused, locks, and overlays beside a plain copy of what they must show. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk.h"

/*
 * Not whole clusters, and more than one page of the overlay's bitmap would need no more than this.
 */
#define SECTORS 1021u
#define BYTES	(SECTORS * DISK_SECTOR)

static char directory[32];
static char base[64];
static char overlay[64];
static char upper[64];
static unsigned char model[BYTES];
static struct error error;

static int setup(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/s2vm-disk-XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	snprintf(base, sizeof(base), "%s/base", directory);
	snprintf(overlay, sizeof(overlay), "%s/overlay", directory);
	snprintf(upper, sizeof(upper), "%s/upper", directory);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(base);
	unlink(overlay);
	unlink(upper);
	return rmdir(directory);
}

/* A base of bytes that tell where they are, and no overlay. */
static int begin(void **state)
{
	FILE *file;

	(void)state;
	unlink(overlay);
	unlink(upper);
	unlink(base);
	for (unsigned i = 0; i < BYTES; i++)
		model[i] = (unsigned char)(1 + i / DISK_SECTOR % 250);
	file = fopen(base, "w");
	if (!file || fwrite(model, 1, BYTES, file) != BYTES)
		return -1;
	return fclose(file);
}

static void refuse(bool opened, const char *word)
{
	assert_false(opened);
	assert_int_equal(error.exit, EXIT_INPUT);
	assert_non_null(strstr(error.text, word));
	assert_null(strchr(error.text, '\n'));
}

static void check_shows_model(struct disk *disk)
{
	static unsigned char now[BYTES];

	assert_int_equal(disk->bytes, BYTES);
	assert_true(disk_read(disk, 0, now, BYTES));
	assert_memory_equal(now, model, BYTES);
}

static void check_base_is_as_it_was(void)
{
	static unsigned char now[BYTES];
	int fd = open(base, O_RDONLY);

	assert_int_equal(read(fd, now, BYTES), BYTES);
	for (unsigned i = 0; i < BYTES; i++)
		assert_int_equal(now[i], 1 + i / DISK_SECTOR % 250);
	close(fd);
}

static void what_is_no_disk_is_refused(void **state)
{
	struct disk disk;

	(void)state;
	assert_int_equal(truncate(base, BYTES + 1), 0);
	refuse(disk_open(&disk, base, DISK_READ_ONLY, &error), "sector");
	assert_int_equal(truncate(base, 0), 0);
	refuse(disk_open(&disk, base, DISK_READ_ONLY, &error), "sector");
	unlink(base);
	refuse(disk_open(&disk, base, DISK_READ_ONLY, &error), "No such file");
	assert_int_equal(mkdir(base, 0700), 0);
	refuse(disk_open(&disk, base, DISK_READ_ONLY, &error), "neither");
	rmdir(base);
	assert_int_equal(mkfifo(base, 0600), 0);
	refuse(disk_open(&disk, base, DISK_WRITABLE, &error), "neither");
	assert_null(disk.files);
}

static void a_disk_in_use_is_refused(void **state)
{
	struct disk first;
	struct disk second;

	(void)state;
	/* Readers go together, and keep writers out. */
	assert_true(disk_open(&first, base, DISK_READ_ONLY, &error));
	assert_true(disk_open(&second, base, DISK_READ_ONLY, &error));
	disk_close(&second);
	refuse(disk_open(&second, base, DISK_WRITABLE, &error), "in use");
	disk_close(&first);
	/* A writer keeps out all. */
	assert_true(disk_open(&first, base, DISK_WRITABLE, &error));
	refuse(disk_open(&second, base, DISK_WRITABLE, &error), "in use");
	refuse(disk_open(&second, base, DISK_READ_ONLY, &error), "in use");
	refuse(disk_open_overlay(&second, base, overlay, &error), "in use");
	assert_int_equal(access(overlay, F_OK), -1);
	disk_close(&first);
	/* An overlay is one disk's; its base may have many. */
	assert_true(disk_open_overlay(&first, base, overlay, &error));
	refuse(disk_open_overlay(&second, base, overlay, &error), "in use");
	refuse(disk_open(&second, base, DISK_WRITABLE, &error), "in use");
	assert_true(disk_open_overlay(&second, base, NULL, &error));
	disk_close(&second);
	disk_close(&first);
}

static void another_process_is_kept_out(void **state)
{
	struct disk disk;
	int status;
	pid_t child;

	(void)state;
	assert_true(disk_open(&disk, base, DISK_WRITABLE, &error));
	child = fork();
	if (child == 0) {
		struct disk second;

		_exit(disk_open(&second, base, DISK_WRITABLE, &error) ? 1 : (int)error.exit);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(WEXITSTATUS(status), EXIT_INPUT);
	disk_close(&disk);
}

static void a_raw_disk_is_the_file(void **state)
{
	struct disk disk;

	(void)state;
	assert_true(disk_open(&disk, base, DISK_WRITABLE, &error));
	memset(model + 700, 'x', 9000);
	assert_true(disk_write(&disk, 700, model + 700, 9000));
	memset(model + 20000, 0, 50000);
	assert_true(disk_zero(&disk, 20000, 50000, DISK_FREE_SPACE));
	memset(model + 100000, 0, 50000);
	assert_true(disk_zero(&disk, 100000, 50000, DISK_KEEP_SPACE));
	memset(model + BYTES - 100, 0, 100);
	assert_true(disk_zero(&disk, BYTES - 100, 100, DISK_KEEP_SPACE));
	assert_true(disk_discard(&disk, 0, 0));
	assert_true(disk_flush(&disk));
	check_shows_model(&disk);
	disk_close(&disk);
	assert_true(disk_open(&disk, base, DISK_READ_ONLY, &error));
	check_shows_model(&disk);
	disk_close(&disk);
}

static void a_file_that_is_cut_off_is_an_error(void **state)
{
	unsigned char sector[DISK_SECTOR];
	struct disk disk;

	(void)state;
	assert_true(disk_open(&disk, base, DISK_READ_ONLY, &error));
	assert_int_equal(truncate(base, BYTES / 2), 0);
	assert_true(disk_read(&disk, 0, sector, sizeof(sector)));
	assert_false(disk_read(&disk, BYTES - sizeof(sector), sector, sizeof(sector)));
	disk_close(&disk);
}

static uint32_t next_random(void)
{
	static uint32_t state = 1;

	state = state * 1664525 + 1013904223;
	return state >> 8;
}

static void operate(struct disk *disk)
{
	uint32_t offset = next_random() % BYTES;
	uint32_t bytes = 1 + next_random() % (next_random() % 4 ? 6000 : 100000);
	unsigned kind = next_random() % 8;
	unsigned char value = (unsigned char)next_random();

	if (bytes > BYTES - offset)
		bytes = BYTES - offset;
	if (kind == 0) {
		assert_true(disk_flush(disk));
	} else if (kind < 3) {
		memset(model + offset, 0, bytes);
		assert_true(disk_zero(disk, offset, bytes,
				      kind == 1 ? DISK_FREE_SPACE : DISK_KEEP_SPACE));
	} else {
		memset(model + offset, value, bytes);
		assert_true(disk_write(disk, offset, model + offset, bytes));
	}
}

/* Every now and then it is closed and opened again. */
static void an_overlay_shows_what_was_written(void **state)
{
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, overlay, &error));
	check_shows_model(&disk);
	for (unsigned i = 0; i < 600; i++) {
		operate(&disk);
		check_shows_model(&disk);
		if (i % 50)
			continue;
		disk_close(&disk);
		assert_true(disk_open_overlay(&disk, base, overlay, &error));
		check_shows_model(&disk);
	}
	disk_close(&disk);
	check_base_is_as_it_was();
}

/* Where the base ends within a cluster. */
static void the_last_cluster_may_be_short(void **state)
{
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, overlay, &error));
	memset(model + BYTES - 1000, 'e', 100);
	assert_true(disk_write(&disk, BYTES - 1000, model + BYTES - 1000, 100));
	check_shows_model(&disk);
	memset(model + BYTES - 10, 'e', 10);
	assert_true(disk_write(&disk, BYTES - 10, model + BYTES - 10, 10));
	check_shows_model(&disk);
	disk_close(&disk);
}

static void an_overlay_may_be_in_memory(void **state)
{
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, NULL, &error));
	for (unsigned i = 0; i < 50; i++)
		operate(&disk);
	check_shows_model(&disk);
	disk_close(&disk);
	check_base_is_as_it_was();
}

static long blocks_of(const char *path)
{
	struct stat status;

	assert_int_equal(stat(path, &status), 0);
	return status.st_blocks;
}

static void an_overlay_has_what_was_written_only(void **state)
{
	static unsigned char cluster[DISK_CLUSTER];
	struct disk disk;
	long blocks;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, overlay, &error));
	assert_true(disk_write(&disk, 10 * DISK_CLUSTER, cluster, sizeof(cluster)));
	assert_true(disk_flush(&disk));
	blocks = blocks_of(overlay);
	assert_true(blocks <= 4 * DISK_CLUSTER / 512);
	/* Its space can be had again. Of what is the base's nothing changes. */
	assert_true(disk_discard(&disk, 0, BYTES));
	assert_true(blocks_of(overlay) < blocks);
	memset(model + 10 * DISK_CLUSTER, 0, DISK_CLUSTER);
	check_shows_model(&disk);
	disk_close(&disk);
}

/* A process that ends at once leaves what it flushed. */
static void what_was_flushed_is_there_after_a_crash(void **state)
{
	struct disk disk;
	int status;
	pid_t child;

	(void)state;
	memset(model + 5000, 'f', 30000);
	child = fork();
	if (child == 0) {
		bool good = disk_open_overlay(&disk, base, overlay, &error) &&
			    disk_write(&disk, 5000, model + 5000, 30000) && disk_flush(&disk) &&
			    disk_write(&disk, 200000, model, 30000);

		_exit(good ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_true(disk_open_overlay(&disk, base, overlay, &error));
	check_shows_model(&disk);
	disk_close(&disk);
}

static void what_is_no_overlay_is_refused(void **state)
{
	struct disk disk;
	char elsewhere[96];
	uint32_t version = 9;
	int fd;

	(void)state;
	/* Something else, and something short; they stay as they are. */
	fd = open(overlay, O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(fd, "text\n", 5), 5);
	refuse(disk_open_overlay(&disk, base, overlay, &error), "no overlay");
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	refuse(disk_open_overlay(&disk, base, overlay, &error), "no overlay");
	assert_int_equal(lseek(fd, 0, SEEK_END), 1 << 20);
	/* An empty file becomes one. */
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_true(disk_open_overlay(&disk, base, overlay, &error));
	disk_close(&disk);
	/* It has become shorter, or is of another version. */
	assert_int_equal(ftruncate(fd, BYTES / 2), 0);
	refuse(disk_open_overlay(&disk, base, overlay, &error), "cut off");
	assert_int_equal(pwrite(fd, &version, sizeof(version), 8), sizeof(version));
	refuse(disk_open_overlay(&disk, base, overlay, &error), "version 9");
	close(fd);
	/* There is no place for it. */
	snprintf(elsewhere, sizeof(elsewhere), "%s/no/overlay", directory);
	refuse(disk_open_overlay(&disk, base, elsewhere, &error), "cannot make");
}

/* A disk that was written to for a while, under two that go on from there. */
static void overlays_may_lie_on_overlays(void **state)
{
	static unsigned char frozen[BYTES];
	const struct timespec long_ago[] = { { 1, 0 }, { 1, 0 } };
	const char *const layers[] = { base, overlay };
	struct disk first;
	struct disk second;
	struct disk disk;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, overlay, &error));
	for (unsigned i = 0; i < 20; i++)
		operate(&disk);
	disk_close(&disk);
	/* Clocks of file systems are coarse. */
	assert_int_equal(utimensat(AT_FDCWD, overlay, long_ago, 0), 0);
	memcpy(frozen, model, BYTES);
	assert_true(disk_open_overlays(&first, layers, 2, upper, &error));
	assert_true(disk_open_overlays(&second, layers, 2, NULL, &error));
	for (unsigned i = 0; i < 100; i++) {
		operate(&first);
		check_shows_model(&first);
	}
	disk_close(&first);
	/* Those under it may not be written meanwhile. */
	refuse(disk_open_overlay(&disk, base, overlay, &error), "in use");
	assert_true(disk_open_overlays(&first, layers, 2, upper, &error));
	check_shows_model(&first);
	disk_close(&first);
	memcpy(model, frozen, BYTES);
	check_shows_model(&second);
	disk_close(&second);
	check_base_is_as_it_was();
	/* Nor be written at all, as long as somebody goes on from there. */
	assert_true(disk_open_overlay(&disk, base, overlay, &error));
	memset(model, 'z', 10);
	assert_true(disk_write(&disk, 0, model, 10));
	disk_close(&disk);
	refuse(disk_open_overlays(&first, layers, 2, upper, &error), "written to");
	/* The other way round, they are none. */
	refuse(disk_open_overlays(&first, (const char *const[]){ base, base }, 2, upper, &error),
	       "no overlay");
}

/* Files may not become as long as it has to be. */
static void an_overlay_that_cannot_be_made_is_not_left(void **state)
{
	struct rlimit before;
	struct rlimit limit;
	struct disk disk;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = (struct rlimit){ BYTES / 2, before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_false(disk_open_overlay(&disk, base, overlay, &error));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(error.exit, EXIT_FAILED);
	assert_non_null(strstr(error.text, "cannot make the overlay"));
	assert_int_equal(access(overlay, F_OK), -1);
}

static void an_overlay_of_another_base_is_refused(void **state)
{
	struct disk disk;
	int fd;

	(void)state;
	assert_true(disk_open_overlay(&disk, base, overlay, &error));
	disk_close(&disk);
	fd = open(base, O_RDWR);
	assert_int_equal(futimens(fd, (struct timespec[]){ { 1, 0 }, { 1, 0 } }), 0);
	refuse(disk_open_overlay(&disk, base, overlay, &error), "written to");
	close(fd);
}

/* ---- transfers ---- */

/* Each test runs with both ways of doing them. */
static int set_plain(void **state)
{
	disk_io_default = &disk_io_plain;
	return setup(state);
}

static int set_uring(void **state)
{
	disk_io_default = &disk_io_uring;
	return setup(state);
}

#define TRANSFERS 100u /* more than are under way at once */
#define PIECE	  (BYTES / TRANSFERS)

/* Transfers that divide what is at @at into pieces, of which one is twice as large. */
static unsigned divide(struct disk_transfer *transfers, int fd, bool write, unsigned char *at)
{
	unsigned count = 0;

	for (uint64_t offset = 0; offset < TRANSFERS * PIECE; count++) {
		size_t bytes = count == 7 ? 2 * PIECE : PIECE;

		transfers[count] = (struct disk_transfer){ fd, write, offset, at + offset, bytes };
		offset += bytes;
	}
	return count;
}

static void many_transfers_are_done_at_once(void **state)
{
	static unsigned char now[BYTES];
	struct disk_transfer transfers[TRANSFERS];
	int fd = open(base, O_RDWR);

	(void)state;
	memset(now, 0, sizeof(now));
	assert_true(disk_io_default->run(transfers, divide(transfers, fd, false, now)));
	assert_memory_equal(now, model, TRANSFERS * PIECE);
	for (unsigned i = 0; i < BYTES; i++)
		now[i] = (unsigned char)next_random();
	assert_true(disk_io_default->run(transfers, divide(transfers, fd, true, now)));
	assert_int_equal(pread(fd, model, TRANSFERS * PIECE, 0), TRANSFERS * PIECE);
	assert_memory_equal(now, model, TRANSFERS * PIECE);
	assert_true(disk_io_default->run(transfers, 0));
	close(fd);
}

/* The others do no harm, and what comes next is done as if nothing had been. */
static void one_transfer_that_fails_is_a_failure(void **state)
{
	static unsigned char now[BYTES];
	struct disk_transfer transfers[TRANSFERS];
	int fd = open(base, O_RDWR);
	unsigned count = divide(transfers, fd, false, now);

	(void)state;
	transfers[50].offset = BYTES - 1;
	errno = 0;
	assert_false(disk_io_default->run(transfers, count));
	assert_int_equal(errno, EIO);
	transfers[50].fd = -1;
	assert_false(disk_io_default->run(transfers, count));
	assert_int_equal(errno, EBADF);
	transfers[50].fd = fd;
	assert_false(disk_io_default->run(transfers, count));
	assert_true(disk_io_default->run(transfers, divide(transfers, fd, false, now)));
	assert_memory_equal(now, model, TRANSFERS * PIECE);
	close(fd);
}

/* Whether some descriptor of this process is a ring. */
static bool has_ring(void)
{
	char path[64], target[64];

	for (int fd = 0; fd < 100; fd++) {
		ssize_t length;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		length = readlink(path, target, sizeof(target) - 1);
		if (length > 0 && memmem(target, (size_t)length, "[io_uring]", 10))
			return true;
	}
	return false;
}

static void *read_in_a_thread(void *argument)
{
	unsigned char *now = malloc(BYTES);
	struct disk_transfer transfers[TRANSFERS];
	int fd = open(base, O_RDONLY);
	bool *good = argument;

	*good = true;
	for (unsigned round = 0; round < 50; round++) {
		memset(now, 0, BYTES);
		*good &= disk_io_uring.run(transfers, divide(transfers, fd, false, now));
		*good &= memcmp(now, model, TRANSFERS * PIECE) == 0;
	}
	close(fd);
	free(now);
	return NULL;
}

static void threads_have_rings_of_their_own(void **state)
{
	pthread_t threads[4];
	bool good[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_in_a_thread, &good[i]), 0);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_true(good[i]);
	}
}

/* In a process whose system call @number fails with @error: what it says about its reads. */
static int read_without(unsigned number, unsigned error_number)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error_number),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, filter };
	bool good;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		return 77;
	read_in_a_thread(&good);
	return good ? has_ring() : 2;
}

/* A child has no ring before; 0: its reads are right, and it has none now. */
static void without_rings_transfers_are_done_all_the_same(void **state)
{
	static const struct {
		unsigned number, error;
	} cases[] = {
		{ __NR_io_uring_setup, ENOSYS },
		{ __NR_io_uring_setup, EPERM },
		{ __NR_io_uring_register, EPERM },
		{ __NR_io_uring_enter, EPERM },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int status;
		pid_t child = fork();

		if (child == 0)
			_exit(read_without(cases[i].number, cases[i].error));
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFEXITED(status));
		if (WEXITSTATUS(status) == 77)
			skip();
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

/* Otherwise the tests above say nothing about rings. */
static void rings_are_used(void **state)
{
	struct io_uring uring;
	bool good;

	(void)state;
	if (io_uring_queue_init(2, &uring, 0) < 0)
		skip();
	io_uring_queue_exit(&uring);
	read_in_a_thread(&good);
	assert_true(good);
	assert_true(has_ring());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_is_no_disk_is_refused, begin),
		cmocka_unit_test_setup(a_disk_in_use_is_refused, begin),
		cmocka_unit_test_setup(another_process_is_kept_out, begin),
		cmocka_unit_test_setup(a_raw_disk_is_the_file, begin),
		cmocka_unit_test_setup(a_file_that_is_cut_off_is_an_error, begin),
		cmocka_unit_test_setup(an_overlay_shows_what_was_written, begin),
		cmocka_unit_test_setup(the_last_cluster_may_be_short, begin),
		cmocka_unit_test_setup(an_overlay_may_be_in_memory, begin),
		cmocka_unit_test_setup(an_overlay_has_what_was_written_only, begin),
		cmocka_unit_test_setup(what_was_flushed_is_there_after_a_crash, begin),
		cmocka_unit_test_setup(what_is_no_overlay_is_refused, begin),
		cmocka_unit_test_setup(overlays_may_lie_on_overlays, begin),
		cmocka_unit_test_setup(an_overlay_that_cannot_be_made_is_not_left, begin),
		cmocka_unit_test_setup(an_overlay_of_another_base_is_refused, begin),
		cmocka_unit_test_setup(many_transfers_are_done_at_once, begin),
		cmocka_unit_test_setup(one_transfer_that_fails_is_a_failure, begin),
	};
	const struct CMUnitTest uring_tests[] = {
		cmocka_unit_test_setup(without_rings_transfers_are_done_all_the_same, begin),
		cmocka_unit_test_setup(threads_have_rings_of_their_own, begin),
		cmocka_unit_test_setup(rings_are_used, begin),
	};
	int failed;

	failed = cmocka_run_group_tests_name("io_uring itself", uring_tests, set_uring, teardown);
	failed += cmocka_run_group_tests_name("plain", tests, set_plain, teardown);
	failed += cmocka_run_group_tests_name("io_uring", tests, set_uring, teardown);
	return failed;
}
