/* SPDX-License-Identifier: MIT */
/*
 * packets.h - a SEQPACKET socket of the daemon, to a member, a restorer or a
 * mirror: whole packets with descriptors, queued while the other end is slow.
 */
#ifndef MSOCK_MSDAEMON_PACKETS_H
#define MSOCK_MSDAEMON_PACKETS_H

#include <event2/event.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/codec.h"
#include "proto/wire.h"

struct packets;

struct packets_ops {
	/* Descriptors not taken (set to -1) are closed afterwards. packets_destroy may be called. */
	void (*on_packet)(void *user, struct ms_codec *in, unsigned type, int *fds, unsigned count);
	/* The other end closed it, or the socket broke. */
	void (*on_end)(void *user);
};

/* Makes a pair; *other is the far end, blocking and close-on-exec. NULL with errno. */
struct packets *packets_create(struct event_base *base, const struct packets_ops *ops, void *user, int *other);
/* The same with a descriptor that somebody else has made a pair of; takes it. */
struct packets *packets_take(struct event_base *base, const struct packets_ops *ops, void *user, int fd);
void packets_set_user(struct packets *p, const struct packets_ops *ops, void *user);
/* Who sent the last packet, in our namespace; 0: the socket does not tell (SO_PASSCRED). */
pid_t packets_pid(const struct packets *p);
void packets_destroy(struct packets *p);
/* fds are duplicated if the packet must wait; the caller keeps them. */
void packets_send(struct packets *p, const void *bytes, size_t size, const int *fds, unsigned count);
/* Handle what has come already, before the other end's exit is looked at. */
void packets_drain(struct packets *p);

/* Begin a message in buf; end it with packets_put. */
void packets_begin(struct ms_codec *c, uint8_t *buf, size_t size, unsigned type);
void packets_put(struct packets *p, const struct ms_codec *c, const uint8_t *buf, const int *fds, unsigned count);

#endif
