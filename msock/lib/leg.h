/* SPDX-License-Identifier: MIT */
/*
 * leg.h - the frames that open a leg, and connections on which they are not through yet.
 */
#ifndef MSOCK_LIB_LEG_H
#define MSOCK_LIB_LEG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/engine.h"
#include "proto/wire.h"

enum {
	LEG_HEAD = 8,       /* bytes before a frame's fields */
	LEG_FRAME_MAX = 96, /* bytes of the longest frame we accept */
	LEG_CONFIRM_SIZE = LEG_HEAD + 8,
};

/* Any frame; which fields count is said in wire.h. Addresses and ports in host order. */
struct leg_frame {
	uint8_t type; /* enum ms_leg_type */
	uint8_t app_fin, reason;
	uint16_t from_port, to_port;
	uint32_t leg, from_member, from_ip, to_ip;
	uint64_t stream, m, cut;
	uint8_t token[MS_TOKEN]; /* of HELLO; the cookie of CONNECT */
};

/* Bytes of a frame as they come in; never reads beyond its end. */
struct leg_reader {
	uint8_t buf[LEG_FRAME_MAX];
	unsigned have;
};

size_t leg_encode(uint8_t buf[LEG_FRAME_MAX], const struct leg_frame *frame);
bool leg_decode(const uint8_t *buf, size_t n, struct leg_frame *frame);

/* 1: *frame is complete; 0: more must come; -errno: end (-ECONNRESET), garbage (-EPROTO), ... */
int leg_read(int fd, struct leg_reader *r, struct leg_frame *frame);

/* A frame fits into the buffer of a fresh connection, always: 0 or -errno. */
int leg_send(int fd, const struct leg_frame *frame);

/* A non-blocking TCP socket, close on exec, TCP_NODELAY; or -errno. */
int leg_socket(void);
void leg_prepare(int fd);

/* Nothing goes out of it any more, whatever is queued: the connection was reset, or is closed both ways. */
bool leg_is_dead(int fd);

/* The peer has not ended it: a read that says 0 does so since it was shut for reading here. */
bool leg_is_shut(int fd);

/* From now on its close is a reset: what is queued is thrown away, and nothing stays in TIME_WAIT. */
void leg_resets(int fd);

/* Acknowledge what was read at once: the peer's Nagle would hold its next bytes back for it. */
void leg_ack(int fd);

/*
 * A leg being opened from here: TCP connect, `frame` sent, one frame read.
 * done() is called once, with the answer or -errno; the descriptor is the
 * caller's from then on (-1 when there is none).  dial_hangup instead: no call.
 */
struct dial {
	struct watch watch;
	int fd; /* owned while the dial runs; -1: it does not */
	bool sent;
	struct leg_frame frame;
	struct leg_reader in;
	void (*done)(struct dial *d, int fd, int error, const struct leg_frame *answer);
};

void dial_init(struct dial *d, void (*done)(struct dial *, int, int, const struct leg_frame *));
int dial_start(struct dial *d, uint32_t ip, uint16_t port, const struct leg_frame *frame);
void dial_hangup(struct dial *d);

#endif
