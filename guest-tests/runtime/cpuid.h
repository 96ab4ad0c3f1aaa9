/* SPDX-License-Identifier: MIT */
/* What the CPU can do, as far as a program may ask. */
#ifndef GUEST_CPUID_H
#define GUEST_CPUID_H

#include <stdint.h>

/* Intel SDM volume 2A and AMD APM volume 3, CPUID: leaf 1 ECX, leaf 7 EBX. */
#define CPUID_1_ECX_SSSE3   (1U << 9)
#define CPUID_1_ECX_SSE4_1  (1U << 19)
#define CPUID_1_ECX_OSXSAVE (1U << 27)
#define CPUID_7_EBX_SHA	    (1U << 29)

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid_instruction(uint32_t leaf)
{
	struct cpuid id;

	asm volatile("cpuid"
		     : "=a"(id.eax), "=b"(id.ebx), "=c"(id.ecx), "=d"(id.edx)
		     : "a"(leaf), "c"(0));
	return id;
}

/* Subleaf 0 of @leaf, all zero if the CPU has no such leaf (Intel would answer with its last). */
static inline struct cpuid cpuid_read(uint32_t leaf)
{
	if (leaf > cpuid_instruction(0).eax)
		return (struct cpuid){0};
	return cpuid_instruction(leaf);
}

#endif
