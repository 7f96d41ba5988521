/* SPDX-License-Identifier: MIT */
#include "image/baggage.h"

#include "image/mem.h"

enum { ARENA_SIZE = 64 << 20 }; /* address space only: pages come when used */

struct baggage *baggage_create(void)
{
	struct baggage *c =
		ms_mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (ms_is_error(c))
		return NULL;
	c->arena_size = ARENA_SIZE;
	c->arena_used = (sizeof(*c) + 63) & ~63ull;
	return c;
}

void baggage_destroy(struct baggage *c)
{
	if (!c)
		return;
	for (uint32_t i = 0; i < c->blob_count; i++)
		ms_munmap(c->blob[i].at, c->blob[i].size);
	ms_munmap(c, ARENA_SIZE);
}

void *baggage_alloc(struct baggage *c, size_t n)
{
	void *p = (char *)c + c->arena_used;

	n = (n + 15) & ~(size_t)15;
	if (n > c->arena_size - c->arena_used)
		return NULL;
	c->arena_used += n;
	return p;
}

const char *baggage_string(struct baggage *c, const char *s, size_t n)
{
	char *p = baggage_alloc(c, n + 1);

	if (p)
		memcpy(p, s, n);
	return p;
}
