/* SPDX-License-Identifier: MIT */
/*
 * carry.h - bytes taken from an old leg that the application has not read yet.
 *
 * A queue of mapped blocks: it lives in the member's memory and so moves with it.
 */
#ifndef MSOCK_LIB_CARRY_H
#define MSOCK_LIB_CARRY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

enum {
	CARRY_BLOCK = 256 * 1024, /* bytes of one block with its head */
	CARRY_LIMIT = 64 << 20,   /* bytes a stream may carry (interposing.md R14); and then what an older leg holds */
};

struct carry_block;

struct carry {
	struct carry_block *first, *last; /* owned */
	size_t length;                    /* bytes in the queue */
};

/* Room behind the last byte, at least one byte; *room is its size. NULL: no memory. */
void *carry_room(struct carry *c, size_t *room);

/* n bytes were put into the room. */
void carry_add(struct carry *c, size_t n);

/* Append a copy; false: no memory, nothing was appended. */
bool carry_put(struct carry *c, const void *bytes, size_t n);

/* Move bytes out, as many as there are and fit. */
size_t carry_take(struct carry *c, const struct iovec *iov, int count);

/* Copy from the front without taking; take without copying. */
size_t carry_peek(const struct carry *c, const struct iovec *iov);
void carry_drop(struct carry *c, size_t n);

/* Put what `front` has ahead of what c has; front is empty then. */
void carry_join(struct carry *c, struct carry *front);

void carry_clear(struct carry *c);

#endif
