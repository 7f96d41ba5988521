/* SPDX-License-Identifier: MIT */
/*
 * The four functions that a compiler may call on its own, hidden, so that no call leaves the library.
 *
 * Most copies are of some ten bytes, where starting `rep movsb` costs more than
 * the copy: up to MEM_STRING it goes by overlapping words, beyond by the string
 * instruction, which modern processors run at full width.
 */
#include "mem.h"

/* Else the compiler may find that a loop below is a memcpy, and call it. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

enum { MEM_STRING = 256 };

/* Loads and stores without alignment or type; each is one instruction. */
struct word2 {
	uint16_t v;
} __attribute__((packed, may_alias));
struct word4 {
	uint32_t v;
} __attribute__((packed, may_alias));
struct word8 {
	uint64_t v;
} __attribute__((packed, may_alias));

/* Up to 16 bytes: all is loaded before anything is stored, so the two may overlap. */
static inline void copy_small(uint8_t *to, const uint8_t *from, size_t n)
{
	if (n >= 8) {
		uint64_t a = ((const struct word8 *)from)->v, b = ((const struct word8 *)(from + n - 8))->v;

		((struct word8 *)to)->v = a;
		((struct word8 *)(to + n - 8))->v = b;
	} else if (n >= 4) {
		uint32_t a = ((const struct word4 *)from)->v, b = ((const struct word4 *)(from + n - 4))->v;

		((struct word4 *)to)->v = a;
		((struct word4 *)(to + n - 4))->v = b;
	} else if (n >= 2) {
		uint16_t a = ((const struct word2 *)from)->v, b = ((const struct word2 *)(from + n - 2))->v;

		((struct word2 *)to)->v = a;
		((struct word2 *)(to + n - 2))->v = b;
	} else if (n) {
		*to = *from;
	}
}

#if defined(__x86_64__)
static inline void copy_string(void *to, const void *from, size_t n)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static inline void fill_string(void *to, int value, size_t n)
{
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
}

/* 17 to MEM_STRING bytes, ascending; the last 16 bytes are taken before anything is stored. */
static inline void copy_middle(uint8_t *to, const uint8_t *from, size_t n)
{
	__m128i last = _mm_loadu_si128((const __m128i_u *)(from + n - 16));

	for (size_t at = 0; at < n - 16; at += 16)
		_mm_storeu_si128((__m128i_u *)(to + at), _mm_loadu_si128((const __m128i_u *)(from + at)));
	_mm_storeu_si128((__m128i_u *)(to + n - 16), last);
}
#else
static inline void copy_string(void *to, const void *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
}

static inline void fill_string(void *to, int value, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((volatile uint8_t *)to)[i] = (uint8_t)value;
}

static inline void copy_middle(uint8_t *to, const uint8_t *from, size_t n)
{
	copy_string(to, from, n);
}
#endif

void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
	if (n <= 16)
		copy_small(dst, src, n);
	else if (n <= MEM_STRING)
		copy_middle(dst, src, n);
	else
		copy_string(dst, src, n);
	return dst;
}

void *memset(void *dst, int value, size_t n)
{
	uint64_t word = (uint8_t)value * 0x0101010101010101ull;
	uint8_t *to = dst;

	if (n >= 8 && n <= MEM_STRING) {
		for (size_t at = 0; at < n - 8; at += 8)
			((struct word8 *)(to + at))->v = word;
		((struct word8 *)(to + n - 8))->v = word;
	} else {
		fill_string(dst, value, n);
	}
	return dst;
}

/* A destination that overlaps the source from above is filled from its end. */
void *memmove(void *dst, const void *src, size_t n)
{
	const uint8_t *from = src;
	uint8_t *to = dst;

	if (n <= 16) {
		copy_small(to, from, n);
		return dst;
	}
	if ((uintptr_t)dst - (uintptr_t)src >= n) {
		/* Below the source or away from it: ascending is right. */
		copy_string(dst, src, n);
		return dst;
	}
	while (n > 8) {
		n -= 8;
		((struct word8 *)(to + n))->v = ((const struct word8 *)(from + n))->v;
	}
	while (n--)
		((volatile uint8_t *)to)[n] = from[n];
	return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *p = a, *q = b;

	while (n >= 8 && ((const struct word8 *)p)->v == ((const struct word8 *)q)->v) {
		p += 8;
		q += 8;
		n -= 8;
	}
	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}
