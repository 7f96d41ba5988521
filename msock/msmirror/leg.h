/* SPDX-License-Identifier: MIT */
/*
 * leg.h - one kernel connection that a member left behind, and what was read from it and is not yet taken.
 *
 * Offsets are of the stream.  base <= sent <= base + bytes.len always; what is
 * below base was acknowledged and is gone.
 */
#ifndef MSMIRROR_LEG_H
#define MSMIRROR_LEG_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "msmirror/ring.h"

enum leg_end {
	LEG_OPEN,  /* the peer may still write */
	LEG_FIN,   /* its end was read */
	LEG_RESET, /* it broke; what was read before it still counts */
};

struct leg {
	uint64_t stream;
	uint32_t number;
	int fd; /* owned */
	bool fin_sent;
	bool torn;     /* LEG_FIN, but behind a reset that a write had had */
	bool listed;   /* the present link asked for it */
	bool end_sent; /* to the present link */
	bool end_told; /* to any link */
	bool queued;   /* in the list of legs that have something to send */
	bool paused;   /* its window is full: not read */
	bool shut;     /* for reading, by the program: it looks readable all the time */
	enum leg_end end;
	struct ring bytes;
	uint64_t base;
	uint64_t sent;
	struct event *readable;  /* owned; NULL before the commit and after the end */
	struct leg_table *table; /* borrowed */
	size_t index;            /* in it */
	TAILQ_ENTRY(leg) queue;
};

TAILQ_HEAD(leg_queue, leg);

struct leg_table {
	struct leg **leg; /* owned; sorted by (stream, number) once leg_table_seal was called */
	size_t count;     /* of all that were ever added; released ones are NULL */
	size_t room;
	size_t left;
	size_t window; /* bytes of one leg that may wait for their acknowledgement */
	uint64_t forwarded;
	struct leg_queue ready;
	void (*wake)(void *arg); /* the ready list is no longer empty */
	void *arg;
};

void leg_table_init(struct leg_table *t, size_t window, void (*wake)(void *arg), void *arg);
void leg_table_free(struct leg_table *t);

/* Takes fd whatever happens. -1: no memory. */
int leg_table_add(struct leg_table *t, uint64_t stream, uint32_t number, int fd, bool fin_sent, bool at_end,
		  uint64_t taken);
/* No more are added. -1: two are the same. */
int leg_table_seal(struct leg_table *t);
struct leg *leg_table_find(struct leg_table *t, uint64_t stream, uint32_t number);

/* The commit is known: read. */
int leg_start(struct leg *leg, struct event_base *base);

/* A link asks for the leg from `taken`. -1: those bytes are not here (any more); the leg then counts as reset. */
int leg_list(struct leg *leg, uint64_t taken);
void leg_unlist(struct leg *leg);

/* The next thing to send of a leg on the ready list; puts the leg back if there is more. */
enum leg_send { LEG_SEND_NOTHING, LEG_SEND_BYTES, LEG_SEND_END };
enum leg_send leg_next(struct leg *leg, void *dst, size_t room, uint64_t *offset, size_t *n);

/* All below offset is taken. -1: it was never sent. */
int leg_ack(struct leg *leg, uint64_t offset);
void leg_halfclose(struct leg *leg);

/* Nothing is left in it, in neither direction (protocol.md, invariant 8). */
bool leg_settled(const struct leg *leg);
void leg_release(struct leg *leg);
/* ... of a stream that has ended with an error: nothing has to be settled. */
void leg_abandon(struct leg *leg);

#endif
