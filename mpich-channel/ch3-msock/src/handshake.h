/* SPDX-License-Identifier: MIT */
/* Handshakes: how a connection comes to carry the packets of a VC, also when both sides call at once. */
#ifndef CH3M_HANDSHAKE_H
#define CH3M_HANDSHAKE_H

#include "connection.h"

/*
 * Two ranks may call each other at the same time.  Of such a pair the call of
 * the greater one is used, in the order of process group id, then rank:
 *
 *   the greater, when it reads the lesser's hello, answers CROSSED;
 *   the lesser, when it reads the greater's hello, drops its own call;
 *   the lesser, when it reads CROSSED, waits for the greater's call.
 *
 * A callee holds a connection for made only when it is confirmed: a hello may
 * be a leftover of a call that was dropped.
 */

/* Call the peer of vc, whose state becomes CONNECTING. Returns an MPI error code. */
int ch3m_handshake_call(MPIDI_VC_t *vc);

/* Call the process behind an MPI port for vc, which has no process group. Returns an MPI error code. */
int ch3m_handshake_call_port(MPIDI_VC_t *vc, const struct ch3m_address *addr, uint32_t port_tag);

/* Something can be read or written on a connection that is not yet OPEN. Returns an MPI error code. */
int ch3m_handshake_event(struct ch3m_conn *conn, unsigned events);

/* Answer the hello of a callee's connection, or park it. Returns an MPI error code. */
int ch3m_handshake_decide(struct ch3m_conn *conn);

/* A process group has become known: what is parked may be decided anew. */
void ch3m_handshake_pg_added(void);
int ch3m_handshake_decide_parked(void);

/* The stream of a connection that is not yet OPEN has ended. Returns an MPI error code. */
int ch3m_handshake_lost(struct ch3m_conn *conn);

#endif
