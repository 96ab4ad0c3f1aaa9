/* SPDX-License-Identifier: MIT */
/*
 * Reads every byte of the memory file. Its result is the file's SHA-256, as sha256sum prints it.
 *
 * Argument: DIGEST_PORTABLE not to use the CPU's SHA extensions.
 */
#include "cpuid.h"
#include "guest.h"
#include "sha256.h"

/*
 * A program at CPL 3 cannot see whether SSE has been set up (CR4.OSFXSR), so on a machine that
 * leaves it off it must be told.
 */
#define DIGEST_PORTABLE 1U

static sha256_blocks *choose_blocks(uint64_t arg)
{
	const uint32_t sse = CPUID_1_ECX_SSSE3 | CPUID_1_ECX_SSE4_1;

	if (arg & DIGEST_PORTABLE)
		return sha256_blocks_portable;
	if ((cpuid_read(1).ecx & sse) != sse || !(cpuid_read(7).ebx & CPUID_7_EBX_SHA))
		return sha256_blocks_portable;
	return sha256_blocks_extended;
}

static uint64_t word_pair(const struct sha256 *hash, unsigned int pair)
{
	return (uint64_t)hash->word[2 * pair] << 32 | hash->word[2 * pair + 1];
}

_Noreturn void guest_main(uint64_t id, uint8_t *memory, uint64_t bytes, uint64_t arg, uint64_t seed)
{
	struct sha256 hash = sha256_digest(choose_blocks(arg), memory, bytes);

	(void)id, (void)seed;

	guest_result(word_pair(&hash, 0), word_pair(&hash, 1), word_pair(&hash, 2),
		     word_pair(&hash, 3));
	guest_exit(GUEST_OK);
}
