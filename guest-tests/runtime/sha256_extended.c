/* SPDX-License-Identifier: MIT */
/*
 * SHA-256 with the CPU's SHA extensions (Intel SDM volume 2, SHA256RNDS2, SHA256MSG1, SHA256MSG2).
 * The only file that is compiled for vector registers; see digest.c for when it is used.
 *
 * The instructions want the working variables a to h in two registers, as "abef" and "cdgh" with
 * the first letter in the highest place, and do two rounds at a time.
 */
#include "sha256.h"
#include <immintrin.h>

struct halves {
	__m128i abef, cdgh;
};

static struct halves split(const struct sha256 *hash)
{
	__m128i dcba = _mm_loadu_si128((const __m128i *)&hash->word[0]);
	__m128i hgfe = _mm_loadu_si128((const __m128i *)&hash->word[4]);
	__m128i cdab = _mm_shuffle_epi32(dcba, 0xb1);
	__m128i efgh = _mm_shuffle_epi32(hgfe, 0x1b);

	return (struct halves){
		.abef = _mm_alignr_epi8(cdab, efgh, 8),
		.cdgh = _mm_blend_epi16(efgh, cdab, 0xf0),
	};
}

static void join(struct sha256 *hash, struct halves v)
{
	__m128i feba = _mm_shuffle_epi32(v.abef, 0x1b);
	__m128i dchg = _mm_shuffle_epi32(v.cdgh, 0xb1);

	_mm_storeu_si128((__m128i *)&hash->word[0], _mm_blend_epi16(feba, dchg, 0xf0));
	_mm_storeu_si128((__m128i *)&hash->word[4], _mm_alignr_epi8(dchg, feba, 8));
}

/* Four words of the message, which is big-endian. */
static __m128i load_words(const uint8_t *data)
{
	const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);

	return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data), swap);
}

/* The four words of the schedule that follow these sixteen. */
static __m128i next_words(__m128i w0, __m128i w4, __m128i w8, __m128i w12)
{
	__m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w4), _mm_alignr_epi8(w12, w8, 4));

	return _mm_sha256msg2_epu32(sum, w12);
}

static struct halves four_rounds(struct halves v, __m128i words, const uint32_t *constants)
{
	__m128i sum = _mm_add_epi32(words, _mm_load_si128((const __m128i *)constants));

	v.cdgh = _mm_sha256rnds2_epu32(v.cdgh, v.abef, sum);
	v.abef = _mm_sha256rnds2_epu32(v.abef, v.cdgh, _mm_shuffle_epi32(sum, 0x0e));
	return v;
}

static struct halves take_block(struct halves v, const uint8_t *data)
{
	__m128i w0 = load_words(data), w4 = load_words(data + 16);
	__m128i w8 = load_words(data + 32), w12 = load_words(data + 48);

	for (const uint32_t *k = sha256_constant;; k += 16) {
		v = four_rounds(v, w0, k);
		v = four_rounds(v, w4, k + 4);
		v = four_rounds(v, w8, k + 8);
		v = four_rounds(v, w12, k + 12);
		if (k + 16 == sha256_constant + SHA256_ROUNDS)
			return v;
		w0 = next_words(w0, w4, w8, w12);
		w4 = next_words(w4, w8, w12, w0);
		w8 = next_words(w8, w12, w0, w4);
		w12 = next_words(w12, w0, w4, w8);
	}
}

void sha256_blocks_extended(struct sha256 *hash, const uint8_t *data, uint64_t blocks)
{
	struct halves sum = split(hash);

	for (; blocks; blocks--, data += SHA256_BLOCK) {
		struct halves v = take_block(sum, data);

		sum.abef = _mm_add_epi32(sum.abef, v.abef);
		sum.cdgh = _mm_add_epi32(sum.cdgh, v.cdgh);
	}
	join(hash, sum);
}
