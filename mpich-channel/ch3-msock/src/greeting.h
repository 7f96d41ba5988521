/* SPDX-License-Identifier: MIT */
/*
 * Greetings: the messages that two ranks exchange on a new connection before
 * it carries packets.
 *
 *   caller                              callee
 *   HELLO_PEER or HELLO_PORT  ------>
 *                             <------   ANSWER (verdict)
 *   CONFIRM                   ------>   only after a WELCOME
 *
 * On the wire: 4 bytes "MSCH", version, type, body length (2 bytes), body.
 * Numbers are little-endian.
 */
#ifndef CH3M_GREETING_H
#define CH3M_GREETING_H

#include <stddef.h>
#include <stdint.h>

enum {
	GREETING_HEAD_BYTES = 8,
	GREETING_PG_ID_MAX = 1024, /* bytes of a process group's id, NUL included */
	GREETING_MAX_BYTES = GREETING_HEAD_BYTES + 16 + 2 * GREETING_PG_ID_MAX,
};

enum greeting_type {
	GREETING_HELLO_PEER = 1, /* from a rank of a known process group to another */
	GREETING_HELLO_PORT = 2, /* MPI_Comm_connect to a port of the callee */
	GREETING_ANSWER = 3,
	GREETING_CONFIRM = 4,
};

enum greeting_verdict {
	GREETING_WELCOME = 1, /* the connection may be used once it is confirmed */
	GREETING_CROSSED = 2, /* the callee's own connect is to be used instead */
	GREETING_REFUSED = 3, /* the callee has no such rank, or talks no more */
};

struct greeting {
	enum greeting_type type;
	enum greeting_verdict verdict; /* ANSWER */
	uint32_t port_tag;             /* HELLO_PORT */
	uint32_t pkt_bytes;            /* HELLO_*: size of a packet header at the caller */
	uint32_t from_rank, to_rank;   /* HELLO_PEER: ranks in their process groups */
	const char *from_pg, *to_pg;   /* HELLO_PEER: borrowed; after decoding they point into the message */
};

/* Returns the number of bytes written into out (GREETING_MAX_BYTES of room), or 0 if the greeting is too long. */
size_t greeting_encode(const struct greeting *g, unsigned char *out);

/* Bytes that a message has in all, from its first GREETING_HEAD_BYTES; 0 if that is no greeting. */
size_t greeting_total_bytes(const unsigned char *in);

/* Returns 0, or -1 if the message is malformed. */
int greeting_decode(const unsigned char *in, size_t bytes, struct greeting *g);

#endif
