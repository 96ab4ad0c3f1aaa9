/* SPDX-License-Identifier: MIT */
/*
 * Writes a pattern of its own over random pages of the memory file, then checks that these pages
 * hold the pattern and that all others are what they were. Its result is the fold of what it wrote.
 *
 * The pattern depends on the seed, which no two guests have in common, so one guest's page in
 * another one's memory is found. In a shared memory file only one guest at a time can do this.
 *
 * Argument: how many times to write a page, DEFAULT_WRITES if 0. A page may be chosen repeatedly.
 */
#include "fold.h"
#include "guest.h"
#include "line.h"
#include "random.h"

#define DEFAULT_WRITES 64
#define PAGE_WORDS     (GUEST_PAGE / sizeof(uint64_t))
#define MOST_PAGES     ((4ULL << 30) / GUEST_PAGE)

/* Larger memory files are not read word by word, but a few words of every page. */
#define SAMPLE_ABOVE_PAGES ((64ULL << 20) / GUEST_PAGE)
#define SAMPLE_STRIDE	   64

struct memory {
	volatile uint64_t *words;
	uint64_t pages;
	uint64_t seed;
};

/* One bit for each page: whether it is one that is written. */
static uint64_t chosen[MOST_PAGES / 64];

static int is_chosen(uint64_t page)
{
	return (chosen[page / 64] >> page % 64 & 1) != 0;
}

/* The page of write number @write, never asked if there are no pages. */
static uint64_t choose_page(const struct memory *memory, uint64_t write)
{
	return random_at(memory->seed, write) % memory->pages;
}

/* What word number @word of the memory file is after the writes. */
static uint64_t pattern(const struct memory *memory, uint64_t word)
{
	return random_at(~memory->seed, word);
}

static void choose_pages(const struct memory *memory, uint64_t writes)
{
	for (uint64_t write = 0; write < writes; write++) {
		uint64_t page = choose_page(memory, write);

		chosen[page / 64] |= 1ULL << page % 64;
	}
}

static uint64_t fold_other_pages(const struct memory *memory)
{
	uint64_t stride = memory->pages > SAMPLE_ABOVE_PAGES ? SAMPLE_STRIDE : 1;
	uint64_t h = 0;

	for (uint64_t page = 0; page < memory->pages; page++) {
		if (is_chosen(page))
			continue;
		for (uint64_t i = 0; i < PAGE_WORDS; i += stride)
			h = fold(h, memory->words[page * PAGE_WORDS + i]);
	}
	return h;
}

/*
 * Every other page is read before it is written, so that a write finds its page mapped read-only,
 * or not mapped at all.
 */
static void write_pages(const struct memory *memory, uint64_t writes)
{
	for (uint64_t write = 0; write < writes; write++) {
		uint64_t first = choose_page(memory, write) * PAGE_WORDS;

		if (write % 2)
			(void)memory->words[first];
		for (uint64_t i = 0; i < PAGE_WORDS; i++)
			memory->words[first + i] = pattern(memory, first + i);
	}
}

/* The fold of the words of all written pages: as they are, and as they should be. */
static void fold_written_pages(const struct memory *memory, uint64_t *found, uint64_t *expected)
{
	*found = 0;
	*expected = 0;

	for (uint64_t page = 0; page < memory->pages; page++) {
		uint64_t first = page * PAGE_WORDS;

		if (!is_chosen(page))
			continue;
		for (uint64_t i = 0; i < PAGE_WORDS; i++) {
			*found = fold(*found, memory->words[first + i]);
			*expected = fold(*expected, pattern(memory, first + i));
		}
	}
}

static void complain(uint64_t id, const char *what)
{
	struct line line;

	line_start(&line);
	line_add_text(&line, "scribble: guest ");
	line_add_decimal(&line, id);
	line_add_text(&line, ": ");
	line_add_text(&line, what);
	line_write(&line);
}

_Noreturn void guest_main(uint64_t id, uint8_t *start, uint64_t bytes, uint64_t arg, uint64_t seed)
{
	struct memory memory = {(volatile uint64_t *)start, guest_pages(bytes), seed};
	uint64_t writes = arg ? arg : DEFAULT_WRITES;
	uint64_t status = GUEST_OK;
	uint64_t before, found, expected;

	if (memory.pages == 0 || memory.pages > MOST_PAGES) {
		complain(id, "the memory file is empty or larger than 4 GiB");
		guest_exit(GUEST_REFUSED);
	}

	choose_pages(&memory, writes);
	before = fold_other_pages(&memory);
	write_pages(&memory, writes);

	fold_written_pages(&memory, &found, &expected);
	if (found != expected) {
		complain(id, "a page that it wrote holds something else");
		status = GUEST_WRONG;
	}
	if (fold_other_pages(&memory) != before) {
		complain(id, "a page that it did not write has changed");
		status = GUEST_WRONG;
	}

	guest_result(found, 0, 0, 0);
	guest_exit(status);
}
