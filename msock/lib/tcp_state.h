/* SPDX-License-Identifier: MIT */
/* tcp_state.h - values of tcpi_state; linux/tcp_states.h is the kernel's own. */
#ifndef MSOCK_LIB_TCP_STATE_H
#define MSOCK_LIB_TCP_STATE_H

#include <stdbool.h>

enum {
	STATE_ESTABLISHED = 1,
	STATE_FIN_WAIT1 = 4,
	STATE_FIN_WAIT2 = 5,
	STATE_TIME_WAIT = 6,
	STATE_CLOSE = 7,
	STATE_CLOSE_WAIT = 8,
	STATE_LAST_ACK = 9,
	STATE_CLOSING = 11,
};

static inline bool tcp_state_in(unsigned state, unsigned set)
{
	return set >> state & 1;
}

/* A FIN has come: tcpi_bytes_received counts it with the bytes. */
static inline bool tcp_fin_received(unsigned state)
{
	return tcp_state_in(state, 1u << STATE_TIME_WAIT | 1u << STATE_CLOSE | 1u << STATE_CLOSE_WAIT |
					   1u << STATE_LAST_ACK | 1u << STATE_CLOSING);
}

#endif
