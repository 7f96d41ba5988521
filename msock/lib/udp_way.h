/* SPDX-License-Identifier: MIT */
/*
 * udp_way.h - where datagrams for a virtual address and port go: asked of its
 * owner, kept, checked every second while it is used.
 *
 * The address server tells the owner and its cookie; the owner, asked by a
 * relay message wherever it is, tells real address and port (UDP_WHERE,
 * UDP_AT of wire.h).  An owner that has moved says UDP_AT by itself to who sent
 * to it within UDP_SENDER_S seconds.  A datagram that finds an old way is lost,
 * as datagrams may be; those sent before any way is known wait for it.
 */
#ifndef MSOCK_LIB_UDP_WAY_H
#define MSOCK_LIB_UDP_WAY_H

#include "lib/udp.h"

enum { UDP_SENDER_S = 60, UDP_CHECK_MS = 1000, UDP_WAITING = 64 /* datagrams a way */ };

/* Send it, or let it wait. Bytes of the datagram or -errno. */
long udp_way_send(struct udp *u, const struct sockaddr_in *to, const struct iovec *iov, int count);
/* The address server's answer; false if it was not asked here. */
bool udp_way_placed(uint32_t request, const struct place *p);
/* A relay message; false if it is none of these. */
bool udp_way_message(uint32_t from, const void *bytes, size_t size);
/* Tell a member where the socket is. */
void udp_way_tell(uint32_t member, const struct udp *u);
/* The socket is closed: nothing waits with its name any more. */
void udp_way_forget(const struct udp *u);

#endif
