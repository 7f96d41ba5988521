/* SPDX-License-Identifier: MIT */
#include "lib/mem.h"

#include "lib/sys.h"

enum {
	MEM_SMALLEST = 6, /* log2 of the smallest piece */
	MEM_LARGEST = 12, /* log2 of the largest piece that is cut from a slab */
	MEM_SLAB = 65536,
};

struct mem_piece {
	struct mem_piece *next;
};

static struct mem_piece *mem_spare[MEM_LARGEST + 1];

static unsigned mem_class(size_t size)
{
	unsigned c = MEM_SMALLEST;

	while (c <= MEM_LARGEST && ((size_t)1 << c) < size)
		c++;
	return c;
}

static size_t mem_pages(size_t size)
{
	return (size + 4095) & ~(size_t)4095;
}

static void *mem_map(size_t size)
{
	void *p = ms_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return ms_is_error(p) ? NULL : p;
}

static void mem_refill(unsigned c)
{
	char *slab = mem_map(MEM_SLAB);

	for (size_t at = 0; slab && at < MEM_SLAB; at += (size_t)1 << c) {
		struct mem_piece *p = (struct mem_piece *)(slab + at);

		p->next = mem_spare[c];
		mem_spare[c] = p;
	}
}

void *mem_alloc(size_t size)
{
	unsigned c = mem_class(size);
	struct mem_piece *p;

	if (c > MEM_LARGEST)
		return mem_map(mem_pages(size));
	if (!mem_spare[c])
		mem_refill(c);
	p = mem_spare[c];
	if (!p)
		return NULL;
	mem_spare[c] = p->next;
	__builtin_memset(p, 0, size);
	return p;
}

void mem_free(void *mem, size_t size)
{
	unsigned c = mem_class(size);
	struct mem_piece *p = mem;

	if (!p)
		return;
	if (c > MEM_LARGEST) {
		ms_munmap(mem, mem_pages(size));
		return;
	}
	p->next = mem_spare[c];
	mem_spare[c] = p;
}
