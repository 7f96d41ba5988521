/* SPDX-License-Identifier: MIT */
/*
 * sum.h - the sum by which source and target know that they hold the same pages.
 *
 * Each page is hashed with a secret that both got from the job, its address is
 * mixed in, and the results are added: so the order does not matter, and a page
 * that is sent again can be taken out of the sum.
 */
#ifndef MSOCK_IMAGE_SUM_H
#define MSOCK_IMAGE_SUM_H

#include "image/mem.h"

#define XXH_INLINE_ALL
#define XXH_NO_STREAM
#include <xxhash.h>

enum { IMAGE_PAGE = 4096 };

struct image_sum {
	uint64_t key;
	uint64_t value;
	uint8_t secret[XXH3_SECRET_DEFAULT_SIZE];
};

/* Cuts the job's key up into the secret (a multiplicative sequence, never zero). */
static inline void image_sum_init(struct image_sum *s, uint64_t key)
{
	uint64_t x = key ^ 0x9e3779b97f4a7c15ull;

	s->key = key;
	s->value = 0;
	for (size_t i = 0; i < sizeof(s->secret); i += 8) {
		uint64_t z = x += 0x9e3779b97f4a7c15ull;

		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
		z ^= z >> 31;
		for (int b = 0; b < 8; b++)
			s->secret[i + (size_t)b] = (uint8_t)(z >> (8 * b));
	}
}

static inline uint64_t image_sum_page(const struct image_sum *s, const void *page, uint64_t addr)
{
	uint64_t h = XXH3_64bits_withSecret(page, IMAGE_PAGE, s->secret, sizeof(s->secret));

	h ^= (addr ^ s->key) * 0x9fb21c651e98df25ull;
	h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93ull;
	return h ^ (h >> 32);
}

static inline void image_sum_add(struct image_sum *s, const void *pages, uint64_t addr, size_t count)
{
	const uint8_t *p = pages;

	for (size_t i = 0; i < count; i++, p += IMAGE_PAGE)
		s->value += image_sum_page(s, p, addr + i * IMAGE_PAGE);
}

#endif
