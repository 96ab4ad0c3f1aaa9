/* SPDX-License-Identifier: MIT */
/* SHA-256 (FIPS 180-4) of a range of memory. */
#ifndef SHA256_H
#define SHA256_H

#include <stdint.h>

#define SHA256_BLOCK  64
#define SHA256_ROUNDS 64

/* The digest as eight words; its first byte is the most significant one of word[0]. */
struct sha256 {
	uint32_t word[8];
};

/* Take @blocks whole blocks into @hash. There are two of these, which give the same hash. */
typedef void sha256_blocks(struct sha256 *hash, const uint8_t *data, uint64_t blocks);

/* In plain C: for every CPU. */
sha256_blocks sha256_blocks_portable;

/* With the CPU's SHA extensions: needs SHA, SSSE3, SSE4.1, and SSE set up by whoever started us. */
sha256_blocks sha256_blocks_extended;

/* The digest of @bytes bytes, of which there may be none. */
struct sha256 sha256_digest(sha256_blocks *take_blocks, const uint8_t *data, uint64_t bytes);

/* The constant of each round (FIPS 180-4, 4.2.2), aligned for loads of four. */
extern const uint32_t sha256_constant[SHA256_ROUNDS];

#endif
