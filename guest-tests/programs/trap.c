// SPDX-License-Identifier: MIT
/*
 * trap: an exception whose delivery itself needs a page that the guest does not own yet. It is a
 * single step's, a trap, which no instruction repeats: it must come once, and where it belongs, after
 * the page has been copied.
 *
 * For machines only: under the direct engine a guest has no descriptor tables.
 */
#include "guest.h"
#include "line.h"

#define VECTOR_DEBUG 1

/* Intel SDM volume 3A, 3.4.5 and 6.14.1: segments with the selectors that a machine starts with, and a gate. */
#define CODE	      0x00af9b000000ffffULL
#define DATA	      0x00cf93000000ffffULL
#define CODE_SELECTOR 8ULL
#define GATE_PRESENT  (0x8eULL << 40)

struct table {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

static const uint64_t gdt[] = { 0, CODE, DATA };
static uint64_t idt[2 * (VECTOR_DEBUG + 1)];

/* Nobody writes here before the trap does. */
static uint8_t stack[GUEST_PAGE] __attribute__((aligned(4096)));

/* Traps behind its second instruction. What the handler has seen comes back: how often, and where. */
extern const uint8_t trap_handler[], trap_behind[];
uint64_t trap_take(uint64_t *where, uint8_t *stack_end);

asm(".pushsection .text\n"
    "	.type	trap_take, @function\n"
    "trap_take:\n"
    "	xor	%eax, %eax\n"
    "	xor	%ecx, %ecx\n"
    "	mov	%rsp, %rdx\n"
    "	pushfq\n"
    "	orq	$0x100, (%rsp)\n"
    "	popfq\n"
    "	mov	%rsi, %rsp\n"
    "trap_behind:\n"
    "	nop\n"
    "	mov	%rdx, %rsp\n"
    "	mov	%rcx, (%rdi)\n"
    "	ret\n"
    "	.size	trap_take, . - trap_take\n"
    "trap_handler:\n"
    "	inc	%eax\n"
    "	mov	(%rsp), %rcx\n"
    "	andq	$~0x100, 16(%rsp)\n"
    "	iretq\n"
    ".popsection");

static void load_tables(void)
{
	struct table gdtr = { sizeof(gdt) - 1, (uint64_t)gdt };
	struct table idtr = { sizeof(idt) - 1, (uint64_t)idt };
	uint64_t handler = (uint64_t)trap_handler;

	idt[2 * VECTOR_DEBUG] = (handler & 0xffff) | CODE_SELECTOR << 16 | GATE_PRESENT |
				(handler >> 16 & 0xffff) << 48;
	idt[2 * VECTOR_DEBUG + 1] = handler >> 32;
	asm volatile("lgdt %0; lidt %1" : : "m"(gdtr), "m"(idtr) : "memory");
}

_Noreturn void guest_main(uint64_t id, uint8_t *memory, uint64_t bytes, uint64_t arg,
			  uint64_t seed)
{
	uint64_t where = 0;
	uint64_t count;
	struct line line;

	(void)id;
	(void)memory;
	(void)bytes;
	(void)arg;
	(void)seed;
	load_tables();
	count = trap_take(&where, stack + sizeof(stack));
	if (count == 1 && where == (uint64_t)trap_behind) {
		guest_result(0, 0, 0, 0);
		guest_exit(GUEST_OK);
	}
	line_start(&line);
	line_add_text(&line, "trap: traps: ");
	line_add_decimal(&line, count);
	line_add_text(&line, ", the last one at ");
	line_add_hex(&line, where);
	line_write(&line);
	guest_exit(GUEST_WRONG);
}
