/* SPDX-License-Identifier: MIT */
/*
 * What every guest program uses: its entry and the calls to s2vm.
 *
 * The calls are inline because some programs must not touch their stack: the first push would make
 * the guest own a page and the tables above it.
 */
#ifndef GUEST_H
#define GUEST_H

#include <s2vm/guest_abi.h>
#include <stdint.h>

#define GUEST_PAGE 4096ULL

/* Without a doubt: clang makes a function of a call that occurs twice. */
#define GUEST_INLINE inline __attribute__((always_inline))

/* How the programs exit when something is not as it should be; what went wrong is in the log. */
enum guest_status {
	GUEST_OK = 0,
	GUEST_WRONG = 1,   /* What was read is not what should be there. */
	GUEST_REFUSED = 3, /* The argument or the memory's size makes no sense for this program. */
};

/* The program itself. start.S jumps here, so there is nobody to return to. */
_Noreturn void guest_main(uint64_t id, uint8_t *memory, uint64_t bytes, uint64_t arg,
			  uint64_t seed);

/* Pages that @bytes need; the rest of the last one reads as zero. */
static inline uint64_t guest_pages(uint64_t bytes)
{
	return bytes / GUEST_PAGE + (bytes % GUEST_PAGE != 0);
}

/*
 * Each call tells the compiler that memory changes, so that no read of the memory file moves over a
 * mark or a result.
 */
static GUEST_INLINE uint64_t guest_call(uint64_t number, uint64_t argument)
{
	asm volatile("outb %%al, %1"
		     : "+a"(number)
		     : "N"(S2VM_CALL_PORT), "D"(argument)
		     : "memory");
	return number;
}

static GUEST_INLINE uint64_t guest_call_4(uint64_t number, uint64_t first, uint64_t second,
					  uint64_t third, uint64_t fourth)
{
	register uint64_t r10 asm("r10") = fourth;

	asm volatile("outb %%al, %1"
		     : "+a"(number)
		     : "N"(S2VM_CALL_PORT), "D"(first), "S"(second), "d"(third), "r"(r10)
		     : "memory");
	return number;
}

static GUEST_INLINE _Noreturn void guest_exit(uint64_t status)
{
	guest_call(S2VM_CALL_EXIT, status);
	/* If it comes back after all, end as a fault and not by running into the next function. */
	__builtin_trap();
}

static GUEST_INLINE void guest_result(uint64_t first, uint64_t second, uint64_t third,
				      uint64_t fourth)
{
	guest_call_4(S2VM_CALL_RESULT, first, second, third, fourth);
}

static GUEST_INLINE uint64_t guest_write(const char *text, uint64_t bytes)
{
	return guest_call_4(S2VM_CALL_WRITE, (uint64_t)text, bytes, 0, 0);
}

static GUEST_INLINE void guest_mark(uint64_t number)
{
	guest_call(S2VM_CALL_MARK, number);
}

#endif
