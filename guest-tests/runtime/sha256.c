/* SPDX-License-Identifier: MIT */
/* The names of variables and functions are those of FIPS 180-4. */
#include "sha256.h"

_Alignas(16) const uint32_t sha256_constant[SHA256_ROUNDS] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2,
};

/* FIPS 180-4, 5.3.3. */
static const struct sha256 initial = {
	{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
	 0x5be0cd19},
};

static uint32_t rotate(uint32_t word, unsigned int bits)
{
	return word >> bits | word << (32 - bits);
}

static uint32_t read_word(const uint8_t *data)
{
	return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

/* The message schedule (6.2.2 step 1). */
static void expand(uint32_t w[SHA256_ROUNDS], const uint8_t *data)
{
	for (unsigned int t = 0; t < 16; t++)
		w[t] = read_word(data + 4 * t);

	for (unsigned int t = 16; t < SHA256_ROUNDS; t++) {
		uint32_t near = w[t - 2], far = w[t - 15];
		uint32_t sigma0 = rotate(far, 7) ^ rotate(far, 18) ^ far >> 3;
		uint32_t sigma1 = rotate(near, 17) ^ rotate(near, 19) ^ near >> 10;

		w[t] = sigma1 + w[t - 7] + sigma0 + w[t - 16];
	}
}

/* One round (step 3). The working variables a to h move down by one place. */
static void take_round(struct sha256 *v, uint32_t constant_and_word)
{
	uint32_t a = v->word[0], b = v->word[1], c = v->word[2];
	uint32_t e = v->word[4], f = v->word[5], g = v->word[6];
	uint32_t sum1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
	uint32_t sum0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
	uint32_t t1 = v->word[7] + sum1 + ((e & f) ^ (~e & g)) + constant_and_word;
	uint32_t t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));

	*v = (struct sha256){{t1 + t2, a, b, c, v->word[3] + t1, e, f, g}};
}

void sha256_blocks_portable(struct sha256 *hash, const uint8_t *data, uint64_t blocks)
{
	for (; blocks; blocks--, data += SHA256_BLOCK) {
		struct sha256 v = *hash;
		uint32_t w[SHA256_ROUNDS];

		expand(w, data);
		for (unsigned int t = 0; t < SHA256_ROUNDS; t++)
			take_round(&v, sha256_constant[t] + w[t]);
		for (unsigned int i = 0; i < 8; i++)
			hash->word[i] += v.word[i];
	}
}

/*
 * The message's end (5.1.1): what is left of it, a one bit, zeros, and its length in bits, so that
 * all fills one or two blocks. Returns how many.
 */
static uint64_t pad(uint8_t last[2 * SHA256_BLOCK], const uint8_t *rest, uint64_t bytes)
{
	uint64_t left = bytes % SHA256_BLOCK;
	uint64_t blocks = left + 1 + sizeof(uint64_t) <= SHA256_BLOCK ? 1 : 2;
	uint8_t *end = last + blocks * SHA256_BLOCK;

	for (uint64_t i = 0; i < left; i++)
		last[i] = rest[i];
	last[left] = 0x80;
	for (uint8_t *zero = last + left + 1; zero < end; zero++)
		*zero = 0;
	for (unsigned int i = 1; i <= sizeof(uint64_t); i++)
		end[-(int)i] = (uint8_t)(bytes * 8 >> 8 * (i - 1));
	return blocks;
}

struct sha256 sha256_digest(sha256_blocks *take_blocks, const uint8_t *data, uint64_t bytes)
{
	struct sha256 hash = initial;
	uint64_t whole = bytes / SHA256_BLOCK;
	uint8_t last[2 * SHA256_BLOCK];

	take_blocks(&hash, data, whole);
	take_blocks(&hash, last, pad(last, data + whole * SHA256_BLOCK, bytes));
	return hash;
}
