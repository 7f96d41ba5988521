/* SPDX-License-Identifier: MIT */
/*
 * calls.h - what the preload's questions about the program's sockets share (sock_calls.c, udp_calls.c).
 */
#ifndef MSOCK_LIB_CALLS_H
#define MSOCK_LIB_CALLS_H

#include <arpa/inet.h>
#include <stdbool.h>

#include "lib/core.h"
#include "lib/subnet.h"
#include "lib/sys.h"

/* An application's handler may call the library too: none runs while the lock is held. */
static inline uint64_t calls_enter(void)
{
	uint64_t all = ~0ull, mask;

	ms_sigprocmask(SIG_SETMASK, &all, &mask);
	core_enter();
	return mask;
}

/* Gives the result, so that a call can end with this. */
static inline long calls_leave(uint64_t mask, long result)
{
	core_leave();
	ms_sigprocmask(SIG_SETMASK, &mask, NULL);
	return result;
}

static inline bool calls_is_virtual(const struct sockaddr_in *at)
{
	return subnet_is_virtual(ntohl(at->sin_addr.s_addr));
}

#endif
