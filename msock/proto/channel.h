/* SPDX-License-Identifier: MIT */
/*
 * channel.h - the two queues by which stub and daemon carry a member's stdin,
 * stdout, stderr and PMI, with offsets, so that nothing is lost or repeated
 * when the daemon at the other end changes.
 *
 * The sender keeps what is not acknowledged; after a move it sends from there
 * again, and the receiver drops what it has and what comes after a gap.
 */
#ifndef MSOCK_PROTO_CHANNEL_H
#define MSOCK_PROTO_CHANNEL_H

#include <event2/buffer.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/link.h"

enum {
	CHANNEL_WINDOW = 256 << 10, /* unacknowledged bytes of a channel and direction */
	CHANNEL_CHUNK = 32 << 10,   /* bytes of a Data message at most */
};

struct channel_out {
	struct evbuffer *bytes; /* not acknowledged */
	uint64_t base;          /* offset of the first of them */
	uint64_t sent;          /* offset of the next to send */
	bool eof;               /* the source is at its end */
	bool eof_sent;
};

struct channel_in {
	struct evbuffer *bytes; /* not yet passed on */
	uint64_t next;          /* offset that is expected */
	bool eof;               /* nothing comes after bytes */
	bool closed;            /* nobody takes them: each Ack says so */
};

void channel_out_init(struct channel_out *c);
void channel_out_clear(struct channel_out *c);
/* Bytes that may be added now. */
size_t channel_out_room(const struct channel_out *c);
/* Send what was not sent. */
void channel_out_send(struct channel_out *c, struct link *l, uint32_t member, unsigned channel);
void channel_out_ack(struct channel_out *c, uint64_t offset);
/* All that is not acknowledged is to be sent again. */
void channel_out_rewind(struct channel_out *c);

void channel_in_init(struct channel_in *c);
void channel_in_clear(struct channel_in *c);
/* False: nothing of it was new. */
bool channel_in_take(struct channel_in *c, const Ms__Data *data);
/* Nobody reads any more: what is there and what comes is thrown away. */
void channel_in_close(struct channel_in *c);
/* Tell the sender what was passed on. */
void channel_in_ack(const struct channel_in *c, struct link *l, uint32_t member, unsigned channel);

#endif
