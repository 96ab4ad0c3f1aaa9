// SPDX-License-Identifier: MIT
/*
 * What run-matrix cannot work out itself, and no interpreter is there for in an emulated host, where
 * each instruction counts:
 *
 *   make FILE SIZE   makes a memory file: random, but the same for the same size each time
 *   made FILE SIZE   exits with 0 if FILE is still what make has made, 3 if not
 *   sha256 FILE      prints the result that the guest program digest must have for FILE
 *   fold FILE        prints that of the program scan
 *   report FILE      turns the JSON of a run into lines: the engine, then for each guest its id, its
 *                    result and how it ended in the words of the matrix's key "expect"
 *
 * Exits with 1 if it cannot, and says why.
 */
#include "fold.h"
#include "random.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES   4096u
#define PAGE_WORDS   (PAGE_BYTES / sizeof(uint64_t))
#define EXIT_CHANGED 3

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "matrix_oracle: %s: %s\n", what, why);
	exit(1);
}

static _Noreturn void die_of_errno(const char *what)
{
	perror(what);
	exit(1);
}

/* A file, mapped; what its last page has beyond its end reads as zeros. */
struct file {
	const uint8_t *memory;
	size_t bytes;
};

static struct file open_file(const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat status;
	void *memory;

	if (fd < 0 || fstat(fd, &status) < 0)
		die_of_errno(path);
	memory = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (memory == MAP_FAILED)
		die_of_errno(path);
	close(fd);
	return (struct file){ memory, (size_t)status.st_size };
}

static size_t parse_size(const char *text)
{
	static const char suffixes[] = "KMG";
	const char *suffix;
	char *end;
	size_t size = strtoull(text, &end, 10);

	if (*end) {
		suffix = strchr(suffixes, *end);
		if (!suffix || end[1])
			die(text, "this is no size such as 5000, 4097K, 64M or 1G");
		size <<= 10 * (suffix - suffixes + 1);
	}
	if (size == 0)
		die(text, "this is no size of a memory file");
	return size;
}

/* Page number @page of a memory file of @bytes. */
static void make_page(uint64_t *words, size_t bytes, uint64_t page)
{
	for (size_t i = 0; i < PAGE_WORDS; i++)
		words[i] = random_at(bytes, page * PAGE_WORDS + i);
}

static size_t page_bytes(size_t bytes, size_t offset)
{
	return bytes - offset < PAGE_BYTES ? bytes - offset : PAGE_BYTES;
}

static void make(const char *path, size_t bytes)
{
	uint64_t page[PAGE_WORDS];
	FILE *file = fopen(path, "we");

	if (!file)
		die_of_errno(path);
	for (size_t offset = 0; offset < bytes; offset += PAGE_BYTES) {
		make_page(page, bytes, offset / PAGE_BYTES);
		fwrite(page, 1, page_bytes(bytes, offset), file);
	}
	if (ferror(file) || fclose(file) != 0)
		die_of_errno(path);
}

static bool is_made(const char *path, size_t bytes)
{
	struct file file = open_file(path);
	uint64_t page[PAGE_WORDS];

	if (file.bytes != bytes)
		return false;
	for (size_t offset = 0; offset < bytes; offset += PAGE_BYTES) {
		make_page(page, bytes, offset / PAGE_BYTES);
		if (memcmp(page, file.memory + offset, page_bytes(bytes, offset)) != 0)
			return false;
	}
	return true;
}

static void print_sha256(const char *path)
{
	struct file file = open_file(path);
	uint8_t digest[SHA256_DIGEST_LENGTH];

	SHA256(file.memory, file.bytes, digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		printf("%02x", digest[i]);
	printf("\n");
}

/* As runtime/scan.h does it. */
static void print_fold(const char *path)
{
	struct file file = open_file(path);
	uint64_t word, h = 0;

	for (size_t offset = 0; offset < file.bytes; offset += PAGE_BYTES) {
		memcpy(&word, file.memory + offset + fold_offset(offset / PAGE_BYTES), sizeof(word));
		h = fold(h, word);
	}
	printf("%016" PRIx64 "%048d\n", h, 0);
}

static void print_guest(const char *path, const json_t *guest)
{
	const char *ended = json_string_value(json_object_get(guest, "status"));
	const char *result = json_string_value(json_object_get(guest, "result"));
	const json_t *id = json_object_get(guest, "id"), *exited = json_object_get(guest, "exit");
	json_int_t status = json_integer_value(exited);

	if (!ended || !result || !json_is_integer(id) || !json_is_integer(exited))
		die(path, "a guest lacks a member");
	printf("%" JSON_INTEGER_FORMAT " %s ", json_integer_value(id), *result ? result : "none");
	if (strcmp(ended, "failed") == 0)
		printf("status %" JSON_INTEGER_FORMAT "\n", status);
	else if (strcmp(ended, "ok") == 0 && status != 0)
		printf("ok, but with exit status %" JSON_INTEGER_FORMAT "\n", status);
	else
		printf("%s\n", ended);
}

static void print_report(const char *path)
{
	json_error_t error;
	json_t *report = json_load_file(path, 0, &error), *guests, *guest;
	const char *schema, *engine;
	size_t i;

	if (!report)
		die(path, error.text);
	schema = json_string_value(json_object_get(report, "schema"));
	engine = json_string_value(json_object_get(report, "engine"));
	guests = json_object_get(report, "guests");
	if (!schema || strcmp(schema, "s2vm-run-1") != 0 || !engine || !json_is_array(guests))
		die(path, "this is no report of a run that this program knows");
	printf("%s\n", engine);
	json_array_foreach(guests, i, guest)
		print_guest(path, guest);
	json_decref(report);
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";

	if (argc == 4 && strcmp(command, "make") == 0)
		make(argv[2], parse_size(argv[3]));
	else if (argc == 4 && strcmp(command, "made") == 0)
		return is_made(argv[2], parse_size(argv[3])) ? 0 : EXIT_CHANGED;
	else if (argc == 3 && strcmp(command, "sha256") == 0)
		print_sha256(argv[2]);
	else if (argc == 3 && strcmp(command, "fold") == 0)
		print_fold(argv[2]);
	else if (argc == 3 && strcmp(command, "report") == 0)
		print_report(argv[2]);
	else
		die(command, "what is this? See oracle.c");
	return 0;
}
