/* SPDX-License-Identifier: MIT */
/* Connections: one msock stream each, that belongs to a virtual connection (VC) of ch3 or is being made. */
#ifndef CH3M_CONNECTION_H
#define CH3M_CONNECTION_H

#include "mpidi_ch3_impl.h"

#include "greeting.h"

enum ch3m_conn_state {
	CH3M_CONN_DIALING,  /* caller: msock_connect is under way */
	CH3M_CONN_ASKING,   /* caller: the hello is written, the answer awaited */
	CH3M_CONN_GREETED,  /* callee: taken from the listener, the hello is awaited */
	CH3M_CONN_PARKED,   /* callee: the hello cannot be answered yet */
	CH3M_CONN_ANSWERED, /* callee: WELCOME is written, the caller's CONFIRM awaited */
	CH3M_CONN_REFUSING, /* callee: another answer is being written, then the end */
	CH3M_CONN_OPEN,     /* carries packets */
	CH3M_CONN_CLOSING,  /* ch3 is done with the VC; what is queued is still written, nothing is read */
	CH3M_CONN_LOST,     /* the stream has broken; ch3 is told after a time of grace, see below */
	CH3M_CONN_DEAD,     /* closed; the memory lives until no event can name it any more */
	CH3M_CONN_STATES
};

/* Bytes of a greeting that is being read or written; only while the connection is not OPEN. */
struct ch3m_handshake {
	size_t in_have, out_bytes, out_done;
	int welcome;           /* caller: the answer was WELCOME, the CONFIRM is going out */
	struct greeting hello; /* callee: points into in */
	unsigned char in[GREETING_MAX_BYTES];
	unsigned char out[GREETING_MAX_BYTES];
};

struct ch3m_conn {
	enum ch3m_conn_state state;
	int sd;
	unsigned want; /* events that msock_want was given */
	int is_port;   /* made for MPI_Comm_connect; the VC has no process group */
	uint32_t port_tag;
	unsigned pass;             /* of the look at what is parked that saw it last */
	MPIDI_VC_t *vc;            /* borrowed; NULL while the callee does not know it */
	MPIR_Request *rreq;        /* borrowed; receives the data that comes next */
	struct ch3m_handshake *hs; /* owned */
	uint64_t lost_ns;          /* LOST: since when */
	size_t part_bytes;         /* how much of a packet's header is in part */
	char part[sizeof(MPIDI_CH3_Pkt_t)];
	struct ch3m_conn *prev, *next; /* all connections that are not DEAD */
};

/* Make a connection of socket sd in its first state, DIALING or GREETED. NULL: no memory; sd is closed then. */
struct ch3m_conn *ch3m_conn_create(int sd, enum ch3m_conn_state first);

/* The only function that changes the state of a connection. */
void ch3m_conn_step(struct ch3m_conn *conn, enum ch3m_conn_state to);

/* Ask for these events and no others. */
void ch3m_conn_want(struct ch3m_conn *conn, unsigned events);

/* Close the stream and leave the VC, if it is still its connection. The VC's state is the caller's to change. */
void ch3m_conn_close(struct ch3m_conn *conn);

/* The stream has ended or broken without the close protocol. Returns an MPI error code. */
int ch3m_conn_lost(struct ch3m_conn *conn);

/*
 * A peer of the own job that is lost has most likely died.  Then the process
 * manager ends the job, with an exit status that tells what that peer died of.
 * So that our own end in error does not come first, ch3 is told only when a
 * time of grace is over; until then the connection is LOST and sends queue.
 */
int ch3m_conn_mourn(struct ch3m_conn *conn);

/* Until the next grace ends: milliseconds, -1 if there is none. And: fail the VCs whose grace is over. */
int ch3m_conn_grace_ms(void);
int ch3m_conn_end_grace(void);

/* The peer of vc is lost: all that is pending ends in error, ch3 is told. Returns an MPI error code. */
int ch3m_conn_fail_vc(MPIDI_VC_t *vc);

/* ch3 is done with vc, nothing is queued: close it. vc may be gone afterwards. Returns an MPI error code. */
int ch3m_conn_end_vc(MPIDI_VC_t *vc);

/* Any connection that is not DEAD, or NULL; and those in state PARKED. */
struct ch3m_conn *ch3m_conn_first(void);
struct ch3m_conn *ch3m_conn_next_parked(struct ch3m_conn *after);

/* Free what is DEAD. Only when no event is being looked at and no thread is in msock_wait. */
void ch3m_conn_reap(void);

/* An MPI error code that says that the peer with this rank in its process group is lost. */
int ch3m_conn_error(int rank);

#endif
