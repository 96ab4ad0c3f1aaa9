/* SPDX-License-Identifier: MIT */
/*
 * Reads the memory file, whose fold is its result as it is scan's, then misbehaves as its argument
 * says. Almost every case must end this guest, and none may harm another one; a guest that survives
 * what should have ended it says so and exits with WILD_SURVIVED.
 *
 * Argument: a case's number. With WILD_ONLY_FIRST added, only guest 0 misbehaves; the others go on
 * reading the memory file, which must stay the same.
 */
#include "guest.h"
#include "line.h"
#include "scan.h"

#define WILD_ONLY_FIRST	   0x100U
#define WILD_HEALTHY_SCANS 2000

/* More than the statuses of guest.h. */
#define WILD_SURVIVED 9U

/* Where nothing is, for all that the ABI says. */
#define NULL_PAGE	0x10ULL
#define FAR_OUTSIDE	0x7f0000001000ULL
#define NON_CANONICAL	0x800000000000ULL
#define GATE_WINDOW	0x7f8000000000ULL
#define FORBIDDEN_OUT	0xf0
#define FORBIDDEN_IN	0x60
#define UNKNOWN_CALL	0x7fff
#define REGION_DISTANCE (1ULL << 30)

/* RFLAGS (Intel SDM volume 1, 3.4.3): trap, nested task, alignment check. */
#define FLAG_TF 0x100
#define FLAG_NT 0x4000
#define FLAG_AC 0x40000

#define MSR_EFER 0xc0000080U

struct region {
	uint8_t *start;
	uint64_t bytes;
};

/* A function that may be called, were it not in memory that must not be executed: a ret. */
static volatile uint8_t code_in_data[] = {0xc3};

/* In assembly, since a compiler may drop or refuse what it can see to be wrong. */
static uint64_t read_at(uint64_t address)
{
	uint64_t word;

	asm volatile("mov (%1), %0" : "=r"(word) : "r"(address) : "memory");
	return word;
}

static void write_at(uint64_t address, uint64_t word)
{
	asm volatile("mov %1, (%0)" : : "r"(address), "r"(word) : "memory");
}

static void jump_to(uint64_t address)
{
	asm volatile("jmp *%0" : : "r"(address) : "memory");
}

static uint64_t read_unmapped(const struct region *region)
{
	(void)region;
	read_at(NULL_PAGE);
	return WILD_SURVIVED;
}

static uint64_t write_text(const struct region *region)
{
	(void)region;
	write_at((uint64_t)guest_main, 0);
	return WILD_SURVIVED;
}

static uint64_t execute_data(const struct region *region)
{
	(void)region;
	asm volatile("call *%0" : : "r"(code_in_data) : "memory");
	return WILD_SURVIVED;
}

static uint64_t jump_non_canonical(const struct region *region)
{
	(void)region;
	jump_to(NON_CANONICAL);
	return WILD_SURVIVED;
}

static uint64_t write_far_outside(const struct region *region)
{
	(void)region;
	write_at(FAR_OUTSIDE, 0);
	return WILD_SURVIVED;
}

static uint64_t undefined_instruction(const struct region *region)
{
	(void)region;
	asm volatile("ud2");
	return WILD_SURVIVED;
}

static uint64_t halt(const struct region *region)
{
	(void)region;
	asm volatile("hlt");
	return WILD_SURVIVED;
}

static uint64_t out_forbidden(const struct region *region)
{
	(void)region;
	asm volatile("outb %%al, %0" : : "N"(FORBIDDEN_OUT), "a"(0));
	return WILD_SURVIVED;
}

static uint64_t in_forbidden(const struct region *region)
{
	uint8_t byte;

	(void)region;
	asm volatile("inb %1, %0" : "=a"(byte) : "N"(FORBIDDEN_IN));
	return WILD_SURVIVED;
}

static uint64_t divide_by_zero(const struct region *region)
{
	uint32_t quotient = 1, remainder = 0;

	(void)region;
	asm volatile("divl %2" : "+a"(quotient), "+d"(remainder) : "r"(0U));
	return WILD_SURVIVED;
}

static uint64_t system_call(const struct region *region)
{
	uint64_t number = 0;

	(void)region;
	asm volatile("syscall" : "+a"(number) : : "rcx", "r11", "memory");
	return WILD_SURVIVED;
}

static uint64_t breakpoint(const struct region *region)
{
	(void)region;
	asm volatile("int3");
	return WILD_SURVIVED;
}

static uint64_t software_interrupt(const struct region *region)
{
	uint64_t number = 0;

	(void)region;
	asm volatile("int $0x80" : "+a"(number) : : "memory");
	return WILD_SURVIVED;
}

static uint64_t load_cr3(const struct region *region)
{
	(void)region;
	asm volatile("mov %0, %%cr3" : : "r"(0ULL) : "memory");
	return WILD_SURVIVED;
}

/* There is no way back from this loop, so no way to survive it. */
static uint64_t overflow_stack(const struct region *region)
{
	(void)region;
	asm volatile("1: push %%rax\n"
		     "   jmp 1b"
		     :
		     :
		     : "memory");
	__builtin_unreachable();
}

static uint64_t read_behind_region(const struct region *region)
{
	read_at((uint64_t)region->start + guest_pages(region->bytes) * GUEST_PAGE +
		REGION_DISTANCE);
	return WILD_SURVIVED;
}

/*
 * To s2vm this may look like sixteen calls, with whatever is in rax as the number. To refuse all of
 * them is as good as to end this guest.
 */
static uint64_t string_out(const struct region *region)
{
	const uint8_t *from = region->start;
	uint64_t number = UNKNOWN_CALL, count = 16;

	asm volatile("rep outsb"
		     : "+a"(number), "+S"(from), "+c"(count)
		     : "d"(S2VM_CALL_PORT)
		     : "memory");
	return number == S2VM_ERROR ? GUEST_OK : WILD_SURVIVED;
}

static uint64_t call_unknown(const struct region *region)
{
	(void)region;
	return guest_call(UNKNOWN_CALL, 0) == S2VM_ERROR ? GUEST_OK : WILD_SURVIVED;
}

/* What a guest cannot read itself, s2vm must not read for it. */
static uint64_t write_call_bad_address(const struct region *region)
{
	static const uint64_t bad[] = {
		NULL_PAGE, FAR_OUTSIDE, GATE_WINDOW, NON_CANONICAL, UINT64_MAX - 7,
	};

	(void)region;
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (guest_write((const char *)bad[i], 16) != S2VM_ERROR)
			return WILD_SURVIVED;
	return GUEST_OK;
}

/*
 * KVM answers a hypercall that does not come from CPL 0 with an error (KVM_EPERM), before s2vm sees
 * it. That is a refusal, and as good as the end of this guest.
 */
static uint64_t hypercall(const struct region *region)
{
	int64_t number = 1;

	(void)region;
	asm volatile("vmmcall" : "+a"(number) : "b"(0), "c"(0), "d"(0), "S"(0) : "memory");
	return number < 0 ? GUEST_OK : WILD_SURVIVED;
}

static uint64_t load_gdt(const struct region *region)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) empty;

	(void)region;
	asm volatile("lgdt %0" : : "m"(empty));
	return WILD_SURVIVED;
}

static uint64_t single_step(const struct region *region)
{
	(void)region;
	asm volatile("pushfq\n"
		     "orq %0, (%%rsp)\n"
		     "popfq\n"
		     "nop\n"
		     "nop\n"
		     "pushfq\n"
		     "andq %1, (%%rsp)\n"
		     "popfq"
		     :
		     : "i"(FLAG_TF), "i"(~FLAG_TF)
		     : "memory", "cc");
	return WILD_SURVIVED;
}

/* The gate's handler starts, and returns, with flags that no well-behaved guest has. */
static uint64_t fault_with_odd_flags(const struct region *region)
{
	(void)region;
	asm volatile("pushfq\n"
		     "orq %0, (%%rsp)\n"
		     "popfq\n"
		     "mov (%1), %%rax\n"
		     "pushfq\n"
		     "andq %2, (%%rsp)\n"
		     "popfq"
		     :
		     : "i"(FLAG_NT | FLAG_AC), "r"(NULL_PAGE), "i"(~(FLAG_NT | FLAG_AC))
		     : "rax", "memory", "cc");
	return WILD_SURVIVED;
}

/* Allowed: the file, if it must not change, is checked from outside. */
static uint64_t write_file(const struct region *region)
{
	const uint64_t word = 0x5752495454454e21;

	write_at((uint64_t)region->start, word);
	return read_at((uint64_t)region->start) == word ? GUEST_OK : GUEST_WRONG;
}

static uint64_t write_msr(const struct region *region)
{
	(void)region;
	asm volatile("wrmsr" : : "c"(MSR_EFER), "a"(0), "d"(0) : "memory");
	return WILD_SURVIVED;
}

static uint64_t read_gate(const struct region *region)
{
	(void)region;
	read_at(GATE_WINDOW);
	return WILD_SURVIVED;
}

static uint64_t write_gate(const struct region *region)
{
	(void)region;
	write_at(GATE_WINDOW, 0);
	return WILD_SURVIVED;
}

static uint64_t jump_to_gate(const struct region *region)
{
	(void)region;
	jump_to(GATE_WINDOW);
	return WILD_SURVIVED;
}

static uint64_t in_call_port(const struct region *region)
{
	uint8_t byte;

	(void)region;
	asm volatile("inb %1, %0" : "=a"(byte) : "N"(S2VM_CALL_PORT));
	return WILD_SURVIVED;
}

/* Each returns the status to exit with, if it returns. matrix.cfg refers to the numbers. */
static const struct wild_case {
	const char *name;
	uint64_t (*misbehave)(const struct region *region);
} cases[] = {
	[1] = {"read at an unmapped address", read_unmapped},
	[2] = {"write to its text", write_text},
	[3] = {"execute its data", execute_data},
	[4] = {"jump to a non-canonical address", jump_non_canonical},
	[5] = {"write far outside", write_far_outside},
	[6] = {"undefined instruction", undefined_instruction},
	[7] = {"hlt", halt},
	[8] = {"out to a forbidden port", out_forbidden},
	[9] = {"in from a forbidden port", in_forbidden},
	[10] = {"divide by zero", divide_by_zero},
	[11] = {"syscall", system_call},
	[12] = {"int3", breakpoint},
	[13] = {"int $0x80", software_interrupt},
	[14] = {"load CR3", load_cr3},
	[15] = {"stack overflow", overflow_stack},
	[16] = {"read behind the memory file", read_behind_region},
	[17] = {"string output to the call port", string_out},
	[18] = {"unknown call", call_unknown},
	[19] = {"write call with a bad address", write_call_bad_address},
	[20] = {"vmmcall", hypercall},
	[21] = {"lgdt", load_gdt},
	[22] = {"single step", single_step},
	[23] = {"fault with odd flags", fault_with_odd_flags},
	[24] = {"write to the memory file", write_file},
	[25] = {"wrmsr", write_msr},
	[26] = {"read the gate", read_gate},
	[27] = {"write the gate", write_gate},
	[28] = {"jump to the gate", jump_to_gate},
	[29] = {"in from the call port", in_call_port},
};

#define CASES (sizeof(cases) / sizeof(cases[0]))

static _Noreturn void stay_healthy(const struct region *region, uint64_t h)
{
	for (unsigned int i = 0; i < WILD_HEALTHY_SCANS; i++)
		if (scan_memory(region->start, region->bytes) != h)
			guest_exit(GUEST_WRONG);
	guest_exit(GUEST_OK);
}

static void complain(const char *what, const char *name)
{
	struct line line;

	line_start(&line);
	line_add_text(&line, "wild: ");
	line_add_text(&line, what);
	line_add_text(&line, name);
	line_write(&line);
}

_Noreturn void guest_main(uint64_t id, uint8_t *memory, uint64_t bytes, uint64_t arg, uint64_t seed)
{
	struct region region = {memory, bytes};
	uint64_t number = arg & ~(uint64_t)WILD_ONLY_FIRST;
	uint64_t h, status;

	(void)seed;

	if (number >= CASES || !cases[number].misbehave) {
		complain("unknown case", "");
		guest_exit(GUEST_REFUSED);
	}

	h = scan_memory(memory, bytes);
	guest_result(h, 0, 0, 0);
	if (arg & WILD_ONLY_FIRST && id != 0)
		stay_healthy(&region, h);

	status = cases[number].misbehave(&region);
	if (status != GUEST_OK)
		complain("survived: ", cases[number].name);
	guest_exit(status);
}
