/* SPDX-License-Identifier: MIT */
#include "lib/carry.h"

#include "lib/mem.h"

struct carry_block {
	struct carry_block *next;
	size_t from, to; /* bytes [from, to) are waiting */
	unsigned char bytes[];
};

enum { CARRY_BYTES = CARRY_BLOCK - (int)sizeof(struct carry_block) };

void *carry_room(struct carry *c, size_t *room)
{
	struct carry_block *b = c->last;

	if (!b || b->to == CARRY_BYTES) {
		b = mem_alloc(CARRY_BLOCK);
		if (!b)
			return NULL;
		if (c->last)
			c->last->next = b;
		else
			c->first = b;
		c->last = b;
	}
	*room = CARRY_BYTES - b->to;
	return b->bytes + b->to;
}

void carry_add(struct carry *c, size_t n)
{
	c->last->to += n;
	c->length += n;
}

bool carry_put(struct carry *c, const void *bytes, size_t n)
{
	const unsigned char *from = bytes;

	while (n) {
		size_t room;
		void *to = carry_room(c, &room);

		if (!to)
			return false;
		if (room > n)
			room = n;
		__builtin_memcpy(to, from, room);
		carry_add(c, room);
		from += room;
		n -= room;
	}
	return true;
}

static void carry_drop_first(struct carry *c)
{
	struct carry_block *b = c->first;

	c->first = b->next;
	if (!c->first)
		c->last = NULL;
	mem_free(b, CARRY_BLOCK);
}

size_t carry_take(struct carry *c, const struct iovec *iov, int count)
{
	size_t total = 0;

	for (int i = 0; i < count; i++) {
		unsigned char *to = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		while (left && c->length) {
			struct carry_block *b = c->first;
			size_t n = b->to - b->from;

			if (n > left)
				n = left;
			__builtin_memcpy(to, b->bytes + b->from, n);
			b->from += n;
			c->length -= n;
			to += n;
			left -= n;
			total += n;
			if (b->from == b->to)
				carry_drop_first(c);
		}
	}
	return total;
}

size_t carry_peek(const struct carry *c, const struct iovec *iov)
{
	const struct carry_block *b = c->first;
	size_t n;

	if (!b)
		return 0;
	n = b->to - b->from < iov->iov_len ? b->to - b->from : iov->iov_len;
	__builtin_memcpy(iov->iov_base, b->bytes + b->from, n);
	return n;
}

void carry_drop(struct carry *c, size_t n)
{
	while (n) {
		struct carry_block *b = c->first;
		size_t part = b->to - b->from < n ? b->to - b->from : n;

		b->from += part;
		c->length -= part;
		n -= part;
		if (b->from == b->to)
			carry_drop_first(c);
	}
}

void carry_join(struct carry *c, struct carry *front)
{
	if (!front->first)
		return;
	front->last->next = c->first;
	c->first = front->first;
	if (!c->last)
		c->last = front->last;
	c->length += front->length;
	*front = (struct carry){ 0 };
}

void carry_clear(struct carry *c)
{
	while (c->first)
		carry_drop_first(c);
	c->length = 0;
}
