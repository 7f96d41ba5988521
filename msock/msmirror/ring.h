/* SPDX-License-Identifier: MIT */
/*
 * ring.h - a queue of bytes that grows up to a limit and gives memory back when it is empty.
 *
 * All rings share one pool: beyond RING_MIN, which every ring may always have,
 * growth is taken from what the pool has left.  So memory is bounded and no
 * ring can starve another to a stand-still.
 */
#ifndef MSMIRROR_RING_H
#define MSMIRROR_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { RING_MIN = 16 << 10 };

struct ring {
	uint8_t *mem; /* owned; NULL while nothing was ever put */
	size_t size;  /* of mem: a power of two, or 0 */
	size_t head;  /* index of the first byte */
	size_t len;
};

/* Bytes that all rings together may hold beyond RING_MIN each; default 256 MiB. */
void ring_pool_set(size_t bytes);

void ring_free(struct ring *r);

/* Room at the end, for ring_put: fills at most two pieces, grows if it is full and below `limit`. 0: no room. */
int ring_room(struct ring *r, size_t limit, struct iovec piece[2]);
void ring_put(struct ring *r, size_t n);

/* Copy n bytes that begin at `from` bytes behind the first; they must be there. */
void ring_copy(const struct ring *r, size_t from, void *dst, size_t n);
void ring_drop(struct ring *r, size_t n);

#endif
