/* SPDX-License-Identifier: MIT */
/*
 * stream.h - one end of a stream: which leg it writes, which it reads, and how it changes them.
 *
 * Pure: no system call, no descriptor.  What must be done outside goes through
 * stream_ops.  States, rules and names are those of doc/protocol.md.
 */
#ifndef MSOCK_LIB_STREAM_H
#define MSOCK_LIB_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"

enum stream_state {
	STREAM_STEADY,   /* one leg, read and written */
	STREAM_ASKED,    /* PREPARE sent, no answer: reads and writes go on, an end of file is held */
	STREAM_FLUSHING, /* told; the leg is read to its end; writers wait */
	STREAM_PARKED,   /* told; the leg is at its end; writers wait, readers get what is carried */
	STREAM_BOTH,     /* the newer leg is written; the older is not settled */
	STREAM_OVER,     /* no leg will come any more: what is taken may be read, then end of file or the error */
	STREAM_STATES
};

enum stream_event {
	STREAM_MOVE,    /* own move begins, by drain or auto */
	STREAM_PREPARE, /* messages of the peer, over control */
	STREAM_ACK,
	STREAM_FLUSHED,
	STREAM_OFFER,
	STREAM_CLOSED,
	STREAM_GONE,
	STREAM_HELLO,     /* on a new connection; it matched stream_offers, ACCEPT was sent, the leg is in place */
	STREAM_ACCEPT,    /* the answer to the own dial; the leg is in place */
	STREAM_REFUSED,   /* the own dial was refused or broke */
	STREAM_LEG_END,   /* the leg that is read is at its end */
	STREAM_RESET,     /* the leg that is read was reset */
	STREAM_MIRRORED,  /* frozen and committed, its socket is with a mirror */
	STREAM_DRAINED,   /* frozen and committed, its leg was settled */
	STREAM_MOVE_OVER, /* committed or aborted, self says so: offer what is to be offered */
	STREAM_SHUT,      /* the application shuts writing */
	STREAM_ENDED,     /* the peer's member has ended */
	STREAM_EVENTS
};

/* A relink message, a HELLO or an ACCEPT, decoded. */
struct stream_msg {
	uint64_t stream, m, cut, taken;
	uint32_t leg, ip;
	uint32_t pids[2]; /* of SHARED; the first: of BOUND, the member of HEIR and HEIR_IS */
	uint16_t port;
	uint8_t type; /* enum ms_relink_type; not used for HELLO and ACCEPT */
	uint8_t app_fin;
	uint8_t token[MS_TOKEN];
};

/* What all streams of the process share. */
struct stream_self {
	uint64_t m;    /* last move number */
	bool moving;   /* from the wish to move until its outcome is known: nothing is offered */
	bool draining; /* streams that are STEADY ask at once */
};

struct stream;

struct stream_ops {
	void (*send)(struct stream *s, struct stream_msg *msg); /* to the peer; fills in the place of an OFFER */
	void (*shut)(struct stream *s);                         /* shutdown(SHUT_WR) of the newest leg */
	void (*dial)(struct stream *s, const struct stream_msg *offer);
	void (*hangup)(struct stream *s);    /* give up the dial */
	void (*halfclose)(struct stream *s); /* tell the mirror that the peer is told */
	void (*settled)(struct stream *s);   /* the older leg may go, or the mirror's */
	void (*token)(uint8_t token[MS_TOKEN]);
	void (*mismatch)(struct stream *s, const char *what, uint64_t here,
			 uint64_t there); /* does not return in earnest */
	void (*changed)(struct stream *s, enum stream_state old, const char *reason);
};

enum { STREAM_HELD = 4 }; /* PREPARE, FLUSHED, OFFER, CLOSED: one of each may wait */

struct stream {
	const struct stream_ops *ops;   /* borrowed */
	const struct stream_self *self; /* borrowed */
	uint64_t id;
	uint32_t leg; /* the newest leg, the epoch */
	uint8_t end;  /* 0: opened the stream, 1: accepted it */
	uint8_t state;
	uint64_t written, taken; /* since the stream's first byte */
	uint64_t cut;            /* written when writing to the leg being replaced stopped */
	uint64_t peer_cut;       /* the peer's, for the leg that is read, if peer_cut_known */
	uint64_t last_taken;     /* `taken` at the end of leg - 1 */
	bool peer_cut_known;
	bool cutter, offering, dialling;
	bool app_fin, peer_fin;
	bool eof;          /* the peer's end of stream was read in order */
	bool fin_sent;     /* on the newest leg */
	bool at_end;       /* the leg that is read is at its end */
	bool torn;         /* ... which was a reset: it looked like an end of file, since a write had had the error */
	bool older_done;   /* BOTH: the older leg is at its end, the newer is read */
	bool flushed;      /* peer's FLUSHED for the leg being replaced */
	bool mirrored;     /* the leg being replaced is read from a mirror link */
	bool last_leg;     /* no newer leg will come: the peer closed or ended */
	bool heard;        /* the peer has spoken of this leg's end: it is told, or will be */
	bool ended;        /* the peer's member has ended while this end dialled */
	int error;         /* errno value that ends the stream once its bytes are read; 0: end of file */
	uint64_t seen_m;   /* of the last OFFER that counted */
	uint64_t cutter_m; /* move number under which it became a cutter */
	uint64_t offer_m, dial_m;
	uint8_t offer_token[MS_TOKEN], dial_token[MS_TOKEN];
	uint8_t held; /* bit set over `waiting` */
	struct stream_msg waiting[STREAM_HELD];
};

enum stream_from { STREAM_FROM_NONE, STREAM_FROM_LEG, STREAM_FROM_OLDER, STREAM_FROM_MIRROR };

void stream_init(struct stream *s, const struct stream_ops *ops, const struct stream_self *self, uint64_t id,
		 unsigned end);

/* The one entry for everything that happens; msg is for the peer's messages, HELLO and ACCEPT, else NULL. */
void stream_handle(struct stream *s, enum stream_event event, const struct stream_msg *msg);

/* Does this HELLO fit the offer that the end is making? */
bool stream_offers(const struct stream *s, const struct stream_msg *hello);

/* Say again what has not been answered. Returns false when there is nothing to repeat. */
bool stream_repeat(struct stream *s);

/* What the process may do now. */
bool stream_may_write(const struct stream *s);
bool stream_is_void(const struct stream *s); /* nobody will ever read what is written */
enum stream_from stream_reads(const struct stream *s);
bool stream_at_eof(const struct stream *s);   /* once nothing is carried, readers get 0 or the error */
bool stream_settled(const struct stream *s);  /* PARKED, and the peer has all: nothing is in any kernel */
bool stream_in_doubt(const struct stream *s); /* rule 11: must not freeze now */

void stream_wrote(struct stream *s, uint64_t n);
void stream_took(struct stream *s, uint64_t n);

/* The LEG_END that comes now is a reset's. */
void stream_torn(struct stream *s);

/* Break the stream for good, with this errno value. */
void stream_break(struct stream *s, int error, const char *reason);

const char *stream_state_name(enum stream_state state);
const char *stream_event_name(enum stream_event event);

/* The invariants of doc/protocol.md that one end can see: NULL or what is wrong. */
const char *stream_check(const struct stream *s);

#endif
