/* SPDX-License-Identifier: MIT */
/*
 * Looks for what others left in the registers. Its result is four words, each the OR of all
 * registers of one kind, so all of them are zero if nothing was left:
 *
 *   general registers that the ABI says are zero; xmm0 to xmm15; what the wider vector registers
 *   have beyond these (ymm, zmm, opmask), if they are switched on; the x87 registers
 *
 * It exits with GUEST_WRONG if something was left, after a line for the log.
 *
 * Argument: PEEK_FILL to fill all of these registers, for the next guest to find, and exit. The
 * result is then four times the pattern.
 */
#include "cpuid.h"
#include "guest.h"
#include "line.h"
#include "random.h"

#define PEEK_FILL 1

/*
 * The area that XSAVE and FXSAVE write (Intel SDM volume 1, 13.4 and 10.5.1). Only the components
 * up to AVX-512 are asked for; they fit. Where the later ones lie differs from CPU to CPU, but all
 * of them lie behind the header, and what is not saved stays zero.
 */
#define AREA_BYTES    4096
#define AREA_X87      32
#define AREA_XMM      160
#define AREA_XMM_END  416
#define AREA_HEADER   512
#define AREA_WIDER    576
#define COMPONENTS    0xe7ULL
#define COMPONENT_SSE 2ULL
#define COMPONENT_X87 1ULL

static _Alignas(64) uint64_t area[AREA_BYTES / sizeof(uint64_t)];

_Noreturn void peek_main(uint64_t id, uint8_t *memory, uint64_t bytes, uint64_t arg, uint64_t seed,
			 uint64_t left);

/* In assembly, since C would use the registers first. The OR becomes a sixth argument, in r9. */
asm(".pushsection .text\n"
    "	.globl	guest_main\n"
    "	.type	guest_main, @function\n"
    "guest_main:\n"
    "	or	%rax, %r9\n"
    "	or	%rbx, %r9\n"
    "	or	%rbp, %r9\n"
    "	or	%r10, %r9\n"
    "	or	%r11, %r9\n"
    "	or	%r12, %r9\n"
    "	or	%r13, %r9\n"
    "	or	%r14, %r9\n"
    "	or	%r15, %r9\n"
    "	jmp	peek_main\n"
    "	.size	guest_main, . - guest_main\n"
    ".popsection");

/* The components that XSAVE can save here, 0 if XSAVE is not switched on. */
static uint64_t find_components(void)
{
	uint32_t low, high;

	if (!(cpuid_read(1).ecx & CPUID_1_ECX_OSXSAVE))
		return 0;
	asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return ((uint64_t)high << 32 | low) & COMPONENTS;
}

static void save_area(uint64_t components)
{
	if (components)
		asm volatile("xsave64 %0" : "+m"(area) : "a"(components), "d"(0));
	else
		asm volatile("fxsave64 %0" : "+m"(area));
}

static void restore_area(uint64_t components)
{
	if (components)
		asm volatile("xrstor64 %0" : : "m"(area), "a"(components), "d"(0));
	else
		asm volatile("fxrstor64 %0" : : "m"(area));
}

static uint64_t or_of_area(uint64_t from, uint64_t to)
{
	uint64_t left = 0;

	for (uint64_t i = from / sizeof(*area); i < to / sizeof(*area); i++)
		left |= area[i];
	return left;
}

static void fill_area(uint64_t from, uint64_t to, uint64_t pattern)
{
	for (uint64_t i = from / sizeof(*area); i < to / sizeof(*area); i++)
		area[i] = pattern;
}

/* The control words are kept as they were saved: not every value of them is allowed. */
static void fill_vector_registers(uint64_t pattern)
{
	uint64_t components = find_components();

	save_area(components);
	fill_area(AREA_X87, AREA_XMM_END, pattern);
	fill_area(AREA_WIDER, AREA_BYTES, pattern);
	area[AREA_HEADER / sizeof(*area)] = components;
	restore_area(components);
}

/* From here on there is no stack: its pointer is filled as well. */
static _Noreturn void fill_general_registers_and_exit(uint64_t pattern)
{
	asm volatile("mov	%%rdi, %%rsi\n"
		     "mov	%%rdi, %%rdx\n"
		     "mov	%%rdi, %%rcx\n"
		     "mov	%%rdi, %%rbx\n"
		     "mov	%%rdi, %%rbp\n"
		     "mov	%%rdi, %%rsp\n"
		     "mov	%%rdi, %%r8\n"
		     "mov	%%rdi, %%r9\n"
		     "mov	%%rdi, %%r10\n"
		     "mov	%%rdi, %%r11\n"
		     "mov	%%rdi, %%r12\n"
		     "mov	%%rdi, %%r13\n"
		     "mov	%%rdi, %%r14\n"
		     "mov	%%rdi, %%r15\n"
		     "mov	%[result], %%eax\n"
		     "outb	%%al, %[port]\n"
		     "mov	%[exit], %%eax\n"
		     "mov	%[ok], %%edi\n"
		     "outb	%%al, %[port]\n"
		     "ud2"
		     :
		     : "D"(pattern), [port] "N"(S2VM_CALL_PORT), [result] "i"(S2VM_CALL_RESULT),
		       [exit] "i"(S2VM_CALL_EXIT), [ok] "i"(GUEST_OK));
	__builtin_unreachable();
}

static void report(uint64_t id, const char *what, uint64_t value)
{
	struct line line;

	line_start(&line);
	line_add_text(&line, "peek: guest ");
	line_add_decimal(&line, id);
	line_add_text(&line, what);
	line_add_hex(&line, value);
	line_write(&line);
}

_Noreturn void peek_main(uint64_t id, uint8_t *memory, uint64_t bytes, uint64_t arg, uint64_t seed,
			 uint64_t left)
{
	uint64_t components, xmm, wider, x87;

	(void)memory, (void)bytes;

	if (arg == PEEK_FILL) {
		/* Never zero, whatever the seed. */
		uint64_t pattern = random_at(seed, id) | 1;

		fill_vector_registers(pattern);
		fill_general_registers_and_exit(pattern);
	}

	components = find_components();
	save_area(components);
	x87 = or_of_area(AREA_X87, AREA_XMM);
	xmm = or_of_area(AREA_XMM, AREA_XMM_END);
	wider = or_of_area(AREA_WIDER, AREA_BYTES);

	report(id, " looked at the register components ",
	       components | COMPONENT_X87 | COMPONENT_SSE);
	guest_result(left, xmm, wider, x87);
	if (left | xmm | wider | x87) {
		report(id, " found left over ", left | xmm | wider | x87);
		guest_exit(GUEST_WRONG);
	}
	guest_exit(GUEST_OK);
}
