/* SPDX-License-Identifier: MIT */
#include "msmirror/ring.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static size_t pool_left = (size_t)256 << 20;

void ring_pool_set(size_t bytes)
{
	pool_left = bytes;
}

static size_t ring_from_pool(size_t size)
{
	return size > RING_MIN ? size - RING_MIN : 0;
}

void ring_free(struct ring *r)
{
	pool_left += ring_from_pool(r->size);
	free(r->mem);
	memset(r, 0, sizeof(*r));
}

static bool ring_grow(struct ring *r, size_t limit)
{
	size_t size = r->size ? 2 * r->size : RING_MIN;
	uint8_t *mem;

	if (r->size && r->size >= limit)
		return false;
	if (ring_from_pool(size) - ring_from_pool(r->size) > pool_left)
		return false;
	mem = malloc(size);
	if (!mem)
		return false;
	if (r->len)
		ring_copy(r, 0, mem, r->len);
	pool_left -= ring_from_pool(size) - ring_from_pool(r->size);
	free(r->mem);
	r->mem = mem;
	r->size = size;
	r->head = 0;
	return true;
}

int ring_room(struct ring *r, size_t limit, struct iovec piece[2])
{
	size_t tail, room;

	if (r->len >= limit || (r->len == r->size && !ring_grow(r, limit)))
		return 0;
	room = r->size - r->len;
	if (room > limit - r->len)
		room = limit - r->len;
	tail = (r->head + r->len) & (r->size - 1);
	piece[0].iov_base = r->mem + tail;
	piece[0].iov_len = r->size - tail < room ? r->size - tail : room;
	piece[1].iov_base = r->mem;
	piece[1].iov_len = room - piece[0].iov_len;
	return piece[1].iov_len ? 2 : 1;
}

void ring_put(struct ring *r, size_t n)
{
	assert(n <= r->size - r->len);
	r->len += n;
}

void ring_copy(const struct ring *r, size_t from, void *dst, size_t n)
{
	size_t at = (r->head + from) & (r->size - 1);
	size_t first = r->size - at < n ? r->size - at : n;

	assert(from + n <= r->len);
	memcpy(dst, r->mem + at, first);
	memcpy((uint8_t *)dst + first, r->mem, n - first);
}

void ring_drop(struct ring *r, size_t n)
{
	assert(n <= r->len);
	r->len -= n;
	if (r->len == 0 && r->size > RING_MIN)
		ring_free(r);
	else if (r->size)
		r->head = (r->head + n) & (r->size - 1);
}
