// SPDX-License-Identifier: MIT
/* Templates: what was put into one is there again, and nothing else is taken for it. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "template_internal.h"

#define PAGE   4096u
#define PAGES  300u
#define MEMORY (PAGES * PAGE - 1000) /* ends within its last page */

static char directory[] = "/tmp/s2vm-template-XXXXXX";
static char store[64];
static char path[192];
static unsigned char memory[PAGES * PAGE];
static struct error error;

static const struct template_key cpu0 = { "cpu", 0, 1 };
static const struct template_key cpu1 = { "cpu", 1, 1 };
static const struct template_key odd = { "odd", 0, 7 };

static const char *in(const char *name, const char *file)
{
	snprintf(path, sizeof(path), "%s/%s/%s", store, name, file);
	return path;
}

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(store, sizeof(store), "%s/deep/er", directory);
	return 0;
}

static void run(const char *format, const char *argument)
{
	char command[256];

	snprintf(command, sizeof(command), format, argument);
	assert_int_equal(system(command), 0);
}

static int teardown(void **state)
{
	(void)state;
	run("rm -r %s", directory);
	return 0;
}

/* Some pages with data, also the last, and many without. */
static int begin(void **state)
{
	(void)state;
	run("rm -rf %s", store);
	memset(memory, 0, sizeof(memory));
	for (unsigned page = 0; page < PAGES; page++)
		if (page % 100 < 3 || page == PAGES - 1)
			memset(memory + page * PAGE, (int)(1 + page % 200), PAGE);
	memset(memory + MEMORY, 0, sizeof(memory) - MEMORY);
	return 0;
}

static void fill(struct template_writer *writer)
{
	assert_true(template_put(writer, cpu0, "first", 5, &error));
	assert_true(template_put(writer, cpu1, "second", 6, &error));
	assert_true(template_put_mapping(writer, memory, MEMORY, &error));
	assert_true(template_put(writer, odd, NULL, 0, &error));
}

static void make(const char *name)
{
	struct template_writer writer;

	assert_true(template_begin(&writer, store, name, &error));
	fill(&writer);
	assert_true(template_finish(&writer, &error));
}

static void refuse(bool done, enum error_exit exit, const char *word)
{
	assert_false(done);
	assert_int_equal(error.exit, exit);
	if (!strstr(error.text, word))
		fail_msg("no \"%s\" in \"%s\"", word, error.text);
	assert_null(strchr(error.text, '\n'));
}

static void refuse_open(const char *name, enum error_exit exit, const char *word)
{
	struct template template;

	refuse(template_open(&template, store, name, &error), exit, word);
	assert_int_equal(template.directory, -1);
	assert_null(template.memory.mapping);
}

static void check_opens(const char *name)
{
	struct template template;

	if (!template_open(&template, store, name, &error))
		fail_msg("%s", error.text);
	template_close(&template);
}

/* How many names are in a directory. */
static unsigned entries(const char *at)
{
	DIR *all = opendir(at);
	unsigned count = 0;

	assert_non_null(all);
	for (const struct dirent *entry = readdir(all); entry; entry = readdir(all))
		count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	closedir(all);
	return count;
}

static unsigned open_files(void)
{
	return entries("/proc/self/fd");
}

/* ---- making and opening ---- */

static void what_was_put_is_there(void **state)
{
	struct template_section section;
	struct template template;
	char bytes[8];

	(void)state;
	make("web-1.2_a");
	assert_int_equal(entries(store), 1);
	assert_true(template_open(&template, store, "web-1.2_a", &error));
	assert_true(template_get(&template, cpu0, bytes, 5, &error));
	assert_memory_equal(bytes, "first", 5);
	assert_true(template_get(&template, cpu1, bytes, 6, &error));
	assert_memory_equal(bytes, "second", 6);
	assert_true(template_find(&template, "odd", 0, &section));
	assert_int_equal(section.version, 7);
	assert_int_equal(section.count, 0);
	assert_int_equal((uintptr_t)section.bytes % 8, 0);

	refuse(template_get(&template, odd, bytes, 1, &error), EXIT_INPUT, "0 bytes instead of 1");
	refuse(template_get(&template, (struct template_key){ "odd", 0, 6 }, bytes, 0, &error),
	       EXIT_INPUT, "version 7, and this s2vm knows 6");
	refuse(template_get(&template, (struct template_key){ "cpu", 2, 1 }, bytes, 5, &error),
	       EXIT_INPUT, "no section cpu 2");

	assert_int_equal(template.memory.bytes, MEMORY);
	assert_false(template.memory.writable);
	assert_memory_equal(template.memory.mapping, memory, MEMORY);
	assert_true(template_created_ns(&template) / 1000000000 - (uint64_t)time(NULL) + 60 < 120);
	template_close(&template);
}

static void memory_is_sparse_and_only_read(void **state)
{
	struct stat status;

	(void)state;
	make("web");
	assert_int_equal(stat(in("web", "memory"), &status), 0);
	assert_int_equal(status.st_mode & 07777, 0444);
	assert_int_equal(status.st_size, MEMORY);
	assert_true(status.st_blocks * 512 <= 20 * PAGE);
	assert_int_equal(stat(in("web", "state"), &status), 0);
	assert_int_equal(status.st_mode & 07777, 0444);
	assert_int_equal(stat(in("web", "."), &status), 0);
	assert_int_equal(status.st_mode & 07777, 0700);
}

static void a_name_is_given_once(void **state)
{
	struct template_writer writer;
	struct template_writer other;

	(void)state;
	make("web");
	refuse(template_begin(&writer, store, "web", &error), EXIT_INPUT, "there is a template web");
	/* Who is second finds that out at the end. */
	assert_true(template_begin(&writer, store, "mail", &error));
	assert_true(template_begin(&other, store, "mail", &error));
	fill(&writer);
	fill(&other);
	assert_true(template_finish(&writer, &error));
	refuse(template_finish(&other, &error), EXIT_INPUT, "there is a template mail");
	assert_int_equal(entries(store), 2);
	check_opens("mail");
}

static void names_are_plain(void **state)
{
	static const char *const bad[] = {
		"", ".", "..", ".web", "a/b", "a b", "a\n", "\xc3\xa4",
		"0123456789012345678901234567890123456789012345678901234567890123x",
	};
	static const char longest[] =
		"0123456789012345678901234567890123456789012345678901234567890123";
	struct template_writer writer;
	struct template template;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		refuse(template_begin(&writer, store, bad[i], &error), EXIT_INPUT, "name");
		refuse(template_open(&template, store, bad[i], &error), EXIT_INPUT, "name");
		refuse(template_remove(store, bad[i], &error), EXIT_INPUT, "name");
	}
	make(longest);
	check_opens(longest);
}

static void nothing_is_left_of_one_that_was_not_made(void **state)
{
	unsigned open_before = open_files();
	struct template_writer writer;
	struct rlimit limit, none;

	(void)state;
	assert_true(template_begin(&writer, store, "web", &error));
	fill(&writer);
	template_abort(&writer);
	assert_int_equal(entries(store), 0);

	/* A guest without memory. */
	assert_true(template_begin(&writer, store, "web", &error));
	refuse(template_finish(&writer, &error), EXIT_FAILED, "memory");
	assert_int_equal(entries(store), 0);

	/* As on a disk that is full. */
	assert_true(template_begin(&writer, store, "web", &error));
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	none = (struct rlimit){ 64 * PAGE, limit.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	refuse(template_put_mapping(&writer, memory, MEMORY, &error), EXIT_FAILED, "too large");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	template_abort(&writer);
	assert_int_equal(entries(store), 0);
	assert_int_equal(open_files(), open_before);
}

/* Writers that live are left alone. */
static void what_a_killed_writer_left_goes(void **state)
{
	struct template_writer writer;
	struct template_writer living;
	int status;
	pid_t child;

	(void)state;
	assert_true(template_begin(&living, store, "living", &error));
	fill(&living);
	child = fork();
	if (child == 0) {
		if (template_begin(&writer, store, "web", &error) &&
		    template_put_mapping(&writer, memory, MEMORY, &error))
			_exit(0);
		_exit(1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(entries(store), 2);
	assert_true(template_begin(&writer, store, "web", &error));
	assert_int_equal(entries(store), 2);
	template_abort(&writer);
	assert_true(template_finish(&living, &error));
	assert_int_equal(entries(store), 1);
	check_opens("living");
}

static bool read_until(void *context, uint64_t page, void *to)
{
	const uint64_t *end = context;

	memset(to, 1, PAGE);
	return page < *end;
}

static void memory_that_cannot_be_read_is_no_memory(void **state)
{
	uint64_t end = 99;
	struct template_memory cut = { 100 * PAGE, read_until, &end };
	struct template_writer writer;

	(void)state;
	assert_true(template_begin(&writer, store, "web", &error));
	refuse(template_put_memory(&writer, &cut, &error), EXIT_FAILED, "its memory");
	template_abort(&writer);
	end = 100;
	assert_true(template_begin(&writer, store, "web", &error));
	assert_true(template_put_memory(&writer, &cut, &error));
	assert_true(template_finish(&writer, &error));
	check_opens("web");
}

static void sections_are_there_once(void **state)
{
	static char large[TEMPLATE_STATE_MAX];
	struct template_writer writer;

	(void)state;
	assert_true(template_begin(&writer, store, "web", &error));
	assert_true(template_put(&writer, cpu0, "first", 5, &error));
	refuse(template_put(&writer, cpu0, "first", 5, &error), EXIT_FAILED, "twice");
	refuse(template_put(&writer, (struct template_key){ "", 0, 1 }, "", 0, &error), EXIT_FAILED,
	       "no name");
	refuse(template_put(&writer, (struct template_key){ "0123456789abcdef", 0, 1 }, "", 0,
			    &error),
	       EXIT_FAILED, "no name");
	refuse(template_put(&writer, cpu1, large, sizeof(large), &error), EXIT_FAILED, "no room");
	for (uint32_t number = 1; number < TEMPLATE_SECTIONS; number++)
		assert_true(template_put(&writer, (struct template_key){ "cpu", number, 1 }, "", 0,
					 &error));
	refuse(template_put(&writer, odd, "", 0, &error), EXIT_FAILED, "no room");
	template_abort(&writer);
}

/* ---- damage ---- */

/* The state of template "web", which is as large as a test wants. */
static size_t read_state_file(uint8_t *bytes, size_t size)
{
	int fd = open(in("web", "state"), O_RDONLY);
	ssize_t got = read(fd, bytes, size);

	assert_true(fd >= 0 && got > 0);
	close(fd);
	return (size_t)got;
}

static void write_state_file(const uint8_t *bytes, size_t count)
{
	int fd;

	unlink(in("web", "state"));
	fd = open(in("web", "state"), O_WRONLY | O_CREAT, 0444);
	assert_int_equal(write(fd, bytes, count), count);
	close(fd);
}

static void each_byte_of_the_state_counts(void **state)
{
	static uint8_t bytes[8192];
	size_t count;

	(void)state;
	make("web");
	count = read_state_file(bytes, sizeof(bytes));
	for (size_t at = 0; at < count; at++) {
		const char *word = "altered";
		uint64_t length;

		bytes[at] ^= 0x40;
		memcpy(&length, bytes + offsetof(struct template_header, bytes), sizeof(length));
		if (at < 8)
			word = "no state of a template";
		else if (at < 12)
			word = "format";
		else if (length != count)
			word = length < count ? "too long" : "cut off";
		write_state_file(bytes, count);
		refuse_open("web", EXIT_INPUT, word);
		bytes[at] ^= 0x40;
	}
	write_state_file(bytes, count);
	check_opens("web");
}

static void no_byte_of_the_state_may_be_missing(void **state)
{
	static uint8_t bytes[8192];
	size_t count;

	(void)state;
	make("web");
	count = read_state_file(bytes, sizeof(bytes) - 1);
	for (size_t left = 0; left < count; left++) {
		write_state_file(bytes, left);
		refuse_open("web", EXIT_INPUT, "cut off");
	}
	write_state_file(bytes, count + 1);
	refuse_open("web", EXIT_INPUT, "too long");
}

/* Whoever can write the state can make its checksum right. */
static void what_is_no_section_is_refused(void **state)
{
	const size_t first = sizeof(struct template_header);
	static uint8_t good[8192], bad[8192];
	struct template_section_header section;
	size_t count;

	(void)state;
	make("web");
	count = read_state_file(good, sizeof(good));
#define REFUSE(field, value)                                                                       \
	do {                                                                                       \
		memcpy(bad, good, count);                                                          \
		memcpy(&section, bad + first, sizeof(section));                                    \
		section.field = (value);                                                           \
		memcpy(bad + first, &section, sizeof(section));                                    \
		assert_true(template_state_seal(bad, count));                                      \
		write_state_file(bad, count);                                                      \
		refuse_open("web", EXIT_INPUT, "damaged");                                         \
	} while (0)
	REFUSE(tag[0], 0);
	REFUSE(tag[0], '\n');
	REFUSE(tag[5], 'x');
	REFUSE(tag[15], 'x');
	REFUSE(number, 1); /* is there twice now */
	REFUSE(bytes, 4);  /* and one that is no zero behind it */
	REFUSE(bytes, UINT64_MAX);
	REFUSE(bytes, count);
	REFUSE(bytes, count - first - sizeof(section) + 1);
#undef REFUSE
	/* A part of a section at the end; nothing but a header. */
	memcpy(bad, good, count);
	assert_true(template_state_seal(bad, count - 8));
	write_state_file(bad, count - 8);
	refuse_open("web", EXIT_INPUT, "damaged");
	assert_true(template_state_seal(bad, first));
	write_state_file(bad, first);
	refuse_open("web", EXIT_INPUT, "damaged");
	write_state_file(good, count);
	check_opens("web");
}

static void what_is_no_file_is_refused(void **state)
{
	static uint8_t good[8192], bad[8192];
	struct template_section section;
	struct template_file file;
	size_t count, at;

	(void)state;
	make("web");
	count = read_state_file(good, sizeof(good));
	assert_true(template_state_find(good, count, "file", 0, &section));
	at = (size_t)((const uint8_t *)section.bytes - good);
#define REFUSE(change)                                                                             \
	do {                                                                                       \
		memcpy(bad, good, count);                                                          \
		memcpy(&file, bad + at, sizeof(file));                                             \
		change;                                                                            \
		memcpy(bad + at, &file, sizeof(file));                                             \
		assert_true(template_state_seal(bad, count));                                      \
		write_state_file(bad, count);                                                      \
		refuse_open("web", EXIT_INPUT, "damaged");                                         \
	} while (0)
	REFUSE(strcpy(file.name, "../../etc/passwd"));
	REFUSE(strcpy(file.name, "state"));
	REFUSE(strcpy(file.name, "disk0"));
	REFUSE(memset(file.name, 'x', sizeof(file.name)));
	REFUSE(file.name[20] = 'x');
	REFUSE(file.bytes = 0);
#undef REFUSE
}

static void write_byte(const char *at, off_t offset, char byte)
{
	int fd;

	assert_int_equal(chmod(at, 0644), 0);
	fd = open(at, O_WRONLY);
	assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
	close(fd);
	assert_int_equal(chmod(at, 0444), 0);
}

static void set_times(const char *at, const struct stat *status)
{
	struct timespec times[] = { status->st_atim, status->st_mtim };

	assert_int_equal(utimensat(AT_FDCWD, at, times, 0), 0);
}

static void other_memory_is_refused(void **state)
{
	(void)state;
	make("web");
	write_byte(in("web", "memory"), 50 * PAGE, 1); /* in a hole */
	refuse_open("web", EXIT_INPUT, "memory has been changed");
	write_byte(in("web", "memory"), 50 * PAGE, 0);
	check_opens("web");
	write_byte(in("web", "memory"), MEMORY - 1, 0);
	refuse_open("web", EXIT_INPUT, "memory has been changed");
	assert_int_equal(truncate(in("web", "memory"), MEMORY - 1), 0);
	refuse_open("web", EXIT_INPUT, "bytes instead of");
	assert_int_equal(truncate(in("web", "memory"), PAGES * PAGE), 0);
	refuse_open("web", EXIT_INPUT, "bytes instead of");
	assert_int_equal(truncate(in("web", "memory"), 0), 0);
	refuse_open("web", EXIT_INPUT, "empty");
	unlink(in("web", "memory"));
	refuse_open("web", EXIT_INPUT, "memory is missing");
	assert_int_equal(symlink("/etc/passwd", in("web", "memory")), 0);
	refuse_open("web", EXIT_INPUT, "symbolic links");
	unlink(in("web", "memory"));
	assert_int_equal(mkfifo(in("web", "memory"), 0600), 0);
	refuse_open("web", EXIT_INPUT, "not a regular file");
	unlink(in("web", "memory"));
	unlink(in("web", "state"));
	refuse_open("web", EXIT_INPUT, "state is missing");
	refuse_open("mail", EXIT_NO_SUCH, "no template mail");
}

static void what_may_not_be_read_is_refused(void **state)
{
	(void)state;
	make("web");
	if (geteuid() != 0)
		skip();
	assert_int_equal(seteuid(65534), 0);
	refuse_open("web", EXIT_INPUT, "Permission denied");
	assert_int_equal(seteuid(0), 0);
	check_opens("web");
}

/* Pages that changed their places are not as they were. */
static void the_order_of_pages_counts(void **state)
{
	(void)state;
	memset(memory, 0, sizeof(memory));
	memory[10 * PAGE] = 1;
	make("web");
	write_byte(in("web", "memory"), 10 * PAGE, 0);
	write_byte(in("web", "memory"), 11 * PAGE, 1);
	refuse_open("web", EXIT_INPUT, "memory has been changed");
}

/*
 * What has its time of change is believed, which is why it is opened quickly; only verifying
 * notices. A copy has another, until it is verified.
 */
static void a_copy_is_opened_by_its_checksum(void **state)
{
	struct template template;
	struct stat status;

	(void)state;
	make("web");
	assert_int_equal(stat(in("web", "memory"), &status), 0);
	write_byte(in("web", "memory"), 50 * PAGE, 1);
	set_times(in("web", "memory"), &status);
	check_opens("web");
	assert_true(template_open(&template, store, "web", &error));
	refuse(template_verify(&template, &error), EXIT_INPUT, "memory has been changed");
	template_close(&template);
	assert_true(template_remove(store, "web", &error));

	make("web");
	run("cd %s && cp -r --sparse=never web copy && chmod -R u+w copy", store);
	assert_true(template_open(&template, store, "copy", &error));
	assert_true(template_verify(&template, &error));
	template_close(&template);
	/* Its time is right now, so that this is believed again. */
	assert_int_equal(stat(in("copy", "memory"), &status), 0);
	write_byte(in("copy", "memory"), 50 * PAGE, 1);
	refuse_open("copy", EXIT_INPUT, "memory has been changed");
	set_times(in("copy", "memory"), &status);
	check_opens("copy");
}

static void other_files_are_checked_too(void **state)
{
	struct template_writer writer;
	char disk[256];
	FILE *file;

	(void)state;
	assert_true(template_begin(&writer, store, "web", &error));
	fill(&writer);
	snprintf(disk, sizeof(disk), "%s/disk0", template_path(&writer));
	file = fopen(disk, "w");
	assert_int_equal(fwrite(memory, 1, 5000, file), 5000);
	fclose(file);
	assert_true(template_finish(&writer, &error));
	check_opens("web");
	write_byte(in("web", "disk0"), 4999, 0);
	refuse_open("web", EXIT_INPUT, "disk0 has been changed");
	unlink(in("web", "disk0"));
	refuse_open("web", EXIT_INPUT, "disk0 is missing");
	/* What nobody has mentioned is left alone. */
	assert_true(template_remove(store, "web", &error));
	assert_int_equal(entries(store), 0);

	/* What cannot be checked is not taken. */
	assert_true(template_begin(&writer, store, "web", &error));
	fill(&writer);
	snprintf(disk, sizeof(disk), "%s/.hidden", template_path(&writer));
	fclose(fopen(disk, "w"));
	refuse(template_finish(&writer, &error), EXIT_FAILED, ".hidden");
	assert_int_equal(entries(store), 0);
}

/* ---- all of them ---- */

static void one_in_use_is_not_removed(void **state)
{
	struct template template;
	struct template other;

	(void)state;
	make("web");
	assert_true(template_open(&template, store, "web", &error));
	assert_true(template_open(&other, store, "web", &error));
	refuse(template_remove(store, "web", &error), EXIT_FAILED, "in use");
	template_close(&other);
	refuse(template_remove(store, "web", &error), EXIT_FAILED, "in use");
	template_close(&template);
	assert_int_equal(entries(store), 1);
	assert_true(template_remove(store, "web", &error));
	assert_int_equal(entries(store), 0);
	refuse(template_remove(store, "web", &error), EXIT_NO_SUCH, "no template web");
	make("web");
	check_opens("web");
}

static void what_is_no_template_is_not_removed(void **state)
{
	(void)state;
	make("web");
	assert_int_equal(mkdir(in("web", "more"), 0700), 0);
	refuse(template_remove(store, "web", &error), EXIT_INPUT, "is no template");
	assert_int_equal(rmdir(in("web", "more")), 0);
	write_state_file((const uint8_t *)"damaged", 7);
	assert_true(template_remove(store, "web", &error));
	assert_int_equal(mkdir(in("web", ""), 0700), 0);
	refuse(template_remove(store, "web", &error), EXIT_INPUT, "is no template");
	assert_int_equal(rmdir(in("web", "")), 0);
	/* A link to one is none, wherever it leads. */
	make("mail");
	snprintf(path, sizeof(path), "%s/web", store);
	assert_int_equal(symlink("mail", path), 0);
	refuse(template_remove(store, "web", &error), EXIT_INPUT, "cannot open");
	refuse_open("web", EXIT_INPUT, "cannot open");
	check_opens("mail");
}

static void templates_are_listed_by_name(void **state)
{
	struct template_info *infos;
	struct template_writer writer;
	size_t count;

	(void)state;
	assert_true(template_list(store, &infos, &count, &error));
	assert_int_equal(count, 0);
	free(infos);
	make("web");
	make("mail");
	make("db");
	assert_int_equal(truncate(in("db", "memory"), 1), 0);
	assert_true(template_begin(&writer, store, "new", &error));
	assert_true(template_list(store, &infos, &count, &error));
	assert_int_equal(count, 3);
	assert_string_equal(infos[0].name, "db");
	assert_non_null(strstr(infos[0].problem, "bytes instead of"));
	assert_string_equal(infos[1].name, "mail");
	assert_string_equal(infos[2].name, "web");
	assert_string_equal(infos[2].problem, "");
	assert_int_equal(infos[2].memory_bytes, MEMORY);
	assert_true(infos[2].disk_bytes && infos[2].disk_bytes <= 20 * PAGE);
	free(infos);
	template_abort(&writer);
	/* Listing leaves nothing locked. */
	assert_true(template_remove(store, "web", &error));
}

static void where_they_are(void **state)
{
	(void)state;
	unsetenv(TEMPLATE_ENVIRONMENT);
	assert_string_equal(template_directory(NULL), TEMPLATE_DIRECTORY);
	setenv(TEMPLATE_ENVIRONMENT, "/elsewhere", 1);
	assert_string_equal(template_directory(NULL), "/elsewhere");
	assert_string_equal(template_directory("/here"), "/here");
	unsetenv(TEMPLATE_ENVIRONMENT);
}

/* With arguments, it makes a template, for vmm/tests/template-commands. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_was_put_is_there, begin),
		cmocka_unit_test_setup(memory_is_sparse_and_only_read, begin),
		cmocka_unit_test_setup(a_name_is_given_once, begin),
		cmocka_unit_test_setup(names_are_plain, begin),
		cmocka_unit_test_setup(nothing_is_left_of_one_that_was_not_made, begin),
		cmocka_unit_test_setup(what_a_killed_writer_left_goes, begin),
		cmocka_unit_test_setup(memory_that_cannot_be_read_is_no_memory, begin),
		cmocka_unit_test_setup(sections_are_there_once, begin),
		cmocka_unit_test_setup(each_byte_of_the_state_counts, begin),
		cmocka_unit_test_setup(no_byte_of_the_state_may_be_missing, begin),
		cmocka_unit_test_setup(what_is_no_section_is_refused, begin),
		cmocka_unit_test_setup(what_is_no_file_is_refused, begin),
		cmocka_unit_test_setup(other_memory_is_refused, begin),
		cmocka_unit_test_setup(what_may_not_be_read_is_refused, begin),
		cmocka_unit_test_setup(the_order_of_pages_counts, begin),
		cmocka_unit_test_setup(a_copy_is_opened_by_its_checksum, begin),
		cmocka_unit_test_setup(other_files_are_checked_too, begin),
		cmocka_unit_test_setup(one_in_use_is_not_removed, begin),
		cmocka_unit_test_setup(what_is_no_template_is_not_removed, begin),
		cmocka_unit_test_setup(templates_are_listed_by_name, begin),
		cmocka_unit_test_setup(where_they_are, begin),
	};

	if (argc == 3) {
		snprintf(store, sizeof(store), "%s", argv[1]);
		begin(NULL);
		make(argv[2]);
		return 0;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
