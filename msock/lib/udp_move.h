/* SPDX-License-Identifier: MIT */
/*
 * udp_move.h - UDP sockets at a move of their member.
 *
 * Before the freeze those that it talks with are asked to hold (HOLD, HELD),
 * and it holds itself; so what was sent has arrived, and what a kernel queue
 * has is all there is.  That is copied, not taken: after an abort nothing is
 * to be undone.  GO ends it in both cases.  Lock held, or frozen.
 */
#ifndef MSOCK_LIB_UDP_MOVE_H
#define MSOCK_LIB_UDP_MOVE_H

#include "lib/udp.h"

enum {
	UDP_KEPT_MAX = 1 << 20, /* bytes of one socket that are taken along; a kernel holds no more by default */
	UDP_HOLD_MS = 3000,     /* a peer that does not answer for so long is not waited for */
	UDP_REPEAT_MS = 10,     /* it is asked again, then each time after twice as long */
	UDP_SETTLE_MS = 50,     /* the same at the target, before the first thread goes on */
};

/* Nothing is sent by this member now. */
bool udp_move_holding(void);
/* The number of the last move that others were told of, and that is over. */
uint64_t udp_move_over(void);

/* Called again and again before the freeze: true when everybody holds, or was waited for long enough. */
bool udp_move_quiet(void);
/* All threads are parked. 0 or -errno. */
int udp_freeze(void);
/* It goes on where it was. */
void udp_move_back(void);
/* At the target: kernel sockets under the old numbers; then, when the control socket is read: say so to all. */
void udp_resume(void);
void udp_moved(void);

/* HOLD, HELD, GO from a member. */
void udp_move_hold(uint32_t from, uint64_t m);
void udp_move_held(uint32_t from, uint64_t m);
void udp_move_go(uint32_t from, uint64_t serial, uint64_t m);

int udp_move_own_fds(int *fds, int max);
void udp_move_forget(struct udp *u);

#endif
