/* SPDX-License-Identifier: MIT */
/* The four functions that a compiler may call on its own, hidden, so that no call leaves the library. */
#include "mem.h"

void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
	void *to = dst;

#if defined(__x86_64__)
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(src), "+c"(n) : : "memory");
#else
	for (size_t i = 0; i < n; i++)
		((volatile uint8_t *)to)[i] = ((const uint8_t *)src)[i];
#endif
	return dst;
}

void *memset(void *dst, int value, size_t n)
{
	void *to = dst;

#if defined(__x86_64__)
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
#else
	for (size_t i = 0; i < n; i++)
		((volatile uint8_t *)to)[i] = (uint8_t)value;
#endif
	return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
	volatile uint8_t *to = dst;
	const uint8_t *from = src;

	if ((uintptr_t)dst - (uintptr_t)src >= n)
		return memcpy(dst, src, n);
	while (n--)
		to[n] = from[n];
	return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *p = a, *q = b;

	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}
