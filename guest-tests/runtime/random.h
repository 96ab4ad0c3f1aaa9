/* SPDX-License-Identifier: MIT */
/* Numbers that look random and can be computed again from the seed: splitmix64 (Steele, 2014). */
#ifndef RANDOM_H
#define RANDOM_H

#include <stdint.h>

/* Number @index of the sequence that @seed starts. */
static inline uint64_t random_at(uint64_t seed, uint64_t index)
{
	uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

#endif
