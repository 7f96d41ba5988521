/* SPDX-License-Identifier: MIT */
/*
 * udp_catch.h - what the peer of a connected UDP socket sends while the kernel socket is not connected to it.
 *
 * A kernel socket that is connected hears one address only: connected to the
 * pen, it would not hear its peer.  So a second socket of the library is
 * bound to the same port.  The kernel prefers a socket that is connected to
 * where a datagram comes from; the second one gets all others, and those of
 * the peer go on to the first, out of the pen, which it hears then.  Their
 * sender is told by the program's socket (udp_name).
 * There is none for sockets that share their port: then who is at the pen is deaf.  Lock held.
 */
#ifndef MSOCK_LIB_UDP_CATCH_H
#define MSOCK_LIB_UDP_CATCH_H

#include "lib/udp.h"

/* Have one, if it can be had; fd: the program's socket. */
void udp_catch_open(struct udp *u, int fd);
void udp_catch_close(struct udp *u);
/* At the target. */
void udp_catch_lose(struct udp *u);

/* Another socket is about to be bound to this port. */
void udp_catch_give_way(uint16_t real_port);

/* The next datagram of the peer: bytes into a buffer of UDP_DATAGRAM; -1: there is none. */
long udp_catch_next(struct udp *u, void *bytes);

/* Watch it as u->aim demands. */
void udp_catch_watch(struct udp *u);

#endif
