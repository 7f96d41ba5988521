/* SPDX-License-Identifier: MIT */
/*
 * udp_pen.h - where connected UDP sockets send while their datagrams must wait, or can reach nobody.
 *
 * A program writes to a connected socket by any system call, so it cannot be
 * stopped; but the kernel socket can be connected to the library's own.  The
 * pen is read by the engine, and what was in it waits in the way.  At the
 * wall nobody receives: the kernel answers with ECONNREFUSED.  Lock held.
 */
#ifndef MSOCK_LIB_UDP_PEN_H
#define MSOCK_LIB_UDP_PEN_H

#include "lib/udp.h"

struct udp_way;

/* Connect the kernel socket to where it belongs, by the state of the way to its peer. */
void udp_pen_aim(struct udp *u);
/* Connect it at once to its peer's last place, while no thread runs: it hears, and cannot speak. */
void udp_pen_trust(struct udp *u);
/* It is no more, or not connected. */
void udp_pen_leave(struct udp *u);

/* Everything in the pens goes to the ways. */
void udp_pen_empty(void);
/* Everything that was caught goes to the program's socket. */
void udp_pen_settle(struct udp *u);

bool udp_pen_is(uint16_t port); /* of one of the pens */
uint16_t udp_pen_wall(void);    /* its port; 0: none can be had */

/* Its descriptors, and: at the target they do not exist. */
int udp_pen_own_fds(int *fds, int max);
void udp_pen_lose(void);

#endif
