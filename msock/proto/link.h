/* SPDX-License-Identifier: MIT */
/*
 * link.h - protobuf messages (control.proto) over a stream: TCP, sealed with
 * the job's secret, or a Unix socket in the job directory, in the clear.
 *
 * 1. Messages come in the order in which they were sent, each once.
 * 2. on_message is called only on an authenticated link; msg is borrowed for the call.
 * 3. on_down is called at most once, and never after link_destroy; the link
 *    is still to be destroyed then. link_destroy may be called in any callback of the link.
 * 4. What is sent before the link is up waits; what is sent after it went down is lost.
 */
#ifndef MSOCK_PROTO_LINK_H
#define MSOCK_PROTO_LINK_H

#include <event2/event.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/control.pb-c.h"

enum {
	LINK_FRAME_MAX = 8 << 20, /* bytes of a message */
	LINK_HANDSHAKE_S = 10,    /* seconds */
	LINK_RETRY_MS = 1000,     /* no longer than this between two tries to get through a link that is cut */
	LINK_SILENCE_MS = 15000,  /* an end that answers nothing for so long is gone */
};

struct link;

struct link_ops {
	void (*on_up)(struct link *l, void *user); /* may be NULL */
	void (*on_message)(struct link *l, const Ms__Msg *msg, void *user);
	void (*on_down)(struct link *l, const char *why, void *user);
};

/* fd is the link's from now on, also on failure. secret NULL: in the clear. */
struct link *link_create(struct event_base *base, int fd, const uint8_t *secret, bool caller,
			 const struct link_ops *ops, void *user);
/* Starts connecting; failure comes by on_down. from: local address or NULL. */
struct link *link_dial(struct event_base *base, const struct sockaddr_in *to, const struct sockaddr_in *from,
		       const uint8_t *secret, const struct link_ops *ops, void *user);
void link_destroy(struct link *l);
void link_set_user(struct link *l, const struct link_ops *ops, void *user);
bool link_is_up(const struct link *l);
/* It went down because the other end does not know the secret. */
bool link_was_forged(const struct link *l);
/* Bytes that wait to go out. */
size_t link_backlog(const struct link *l);
struct sockaddr_in link_peer(const struct link *l);
void link_send(struct link *l, const Ms__Msg *msg);
/* As if the wire were cut: both ends see that soon. For fault points. */
void link_break(struct link *l);
/* Throw away what comes until the other end closes it, at most timeout_ms; for the end of a process. */
void link_await_end(struct link *l, int timeout_ms);
/* Send what waits, at most timeout_ms; for the last words of a process. */
void link_flush(struct link *l, int timeout_ms);

/* link_send(l, LINK_MSG(DATA, data, &data)) */
#define LINK_MSG(CASE, field, ptr)                                                                                     \
	(&(Ms__Msg){ .base = PROTOBUF_C_MESSAGE_INIT(&ms__msg__descriptor),                                            \
		     .body_case = MS__MSG__BODY_##CASE,                                                                \
		     .field = (ptr) })

#endif
