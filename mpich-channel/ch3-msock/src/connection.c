/* SPDX-License-Identifier: MIT */
#include <msock.h>
#include <time.h>

#include "connection.h"
#include "handshake.h"
#include "sendq.h"

/*
 *   caller:  DIALING -> ASKING ------------------+
 *                                                v
 *   callee:  GREETED -> (PARKED ->) ANSWERED -> OPEN -> (CLOSING ->) DEAD
 *               |          |
 *               +----------+-> REFUSING -> DEAD
 *
 * Every state may be followed by DEAD; DIALING, ASKING and OPEN also by LOST.
 */
enum { GRACE_MS = 2000, NS_PER_MS = 1000 * 1000 };

#define TO(state) (1u << CH3M_CONN_##state)

static const struct {
	const char *name;
	unsigned next;
} states[CH3M_CONN_STATES] = {
	[CH3M_CONN_DIALING] = { "DIALING", TO(ASKING) | TO(LOST) | TO(DEAD) },
	[CH3M_CONN_ASKING] = { "ASKING", TO(OPEN) | TO(LOST) | TO(DEAD) },
	[CH3M_CONN_GREETED] = { "GREETED", TO(PARKED) | TO(ANSWERED) | TO(REFUSING) | TO(DEAD) },
	[CH3M_CONN_PARKED] = { "PARKED", TO(ANSWERED) | TO(REFUSING) | TO(DEAD) },
	[CH3M_CONN_ANSWERED] = { "ANSWERED", TO(OPEN) | TO(DEAD) },
	[CH3M_CONN_REFUSING] = { "REFUSING", TO(DEAD) },
	[CH3M_CONN_OPEN] = { "OPEN", TO(CLOSING) | TO(LOST) | TO(DEAD) },
	[CH3M_CONN_CLOSING] = { "CLOSING", TO(DEAD) },
	[CH3M_CONN_LOST] = { "LOST", TO(DEAD) },
	[CH3M_CONN_DEAD] = { "DEAD", 0 },
};

static struct ch3m_conn *conns; /* not DEAD */
static struct ch3m_conn *dead;  /* linked by next */
static unsigned lost_count;     /* connections in state LOST */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct ch3m_conn *ch3m_conn_create(int sd, enum ch3m_conn_state first)
{
	struct ch3m_conn *conn = MPL_calloc(1, sizeof(*conn), MPL_MEM_DYNAMIC);

	if (conn)
		conn->hs = MPL_calloc(1, sizeof(*conn->hs), MPL_MEM_DYNAMIC);
	if (!conn || !conn->hs) {
		MPL_free(conn);
		msock_close(sd);
		return NULL;
	}
	conn->sd = sd;
	conn->state = first;
	conn->next = conns;
	if (conns)
		conns->prev = conn;
	conns = conn;
	return conn;
}

void ch3m_conn_step(struct ch3m_conn *conn, enum ch3m_conn_state to)
{
	MPIR_Assert(states[conn->state].next & 1u << to);
	MPL_DBG_MSG_FMT(MPIDI_CH3_DBG_CONNECT, TYPICAL,
			(MPL_DBG_FDEST, "conn %p vc %p: %s -> %s", (void *)conn, (void *)conn->vc,
			 states[conn->state].name, states[to].name));
	lost_count += to == CH3M_CONN_LOST;
	lost_count -= conn->state == CH3M_CONN_LOST;
	conn->state = to;
	if (to == CH3M_CONN_OPEN || to == CH3M_CONN_DEAD) {
		MPL_free(conn->hs);
		conn->hs = NULL;
	}
}

void ch3m_conn_want(struct ch3m_conn *conn, unsigned events)
{
	if (conn->want == events)
		return;
	conn->want = events;
	msock_want(conn->sd, events, conn);
}

void ch3m_conn_close(struct ch3m_conn *conn)
{
	MPIDI_VC_t *vc = conn->vc;

	if (vc && vc->ch.conn == conn)
		vc->ch.conn = NULL;
	if (vc && vc->ch.parked == conn)
		vc->ch.parked = NULL;
	conn->vc = NULL;
	if (conn->sd >= 0)
		msock_close(conn->sd);
	conn->sd = -1;
	if (conn->prev)
		conn->prev->next = conn->next;
	else
		conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	conn->prev = NULL;
	conn->next = dead;
	dead = conn;
	ch3m_conn_step(conn, CH3M_CONN_DEAD);
}

int ch3m_conn_lost(struct ch3m_conn *conn)
{
	MPIDI_VC_t *vc = conn->vc;

	switch (conn->state) {
	case CH3M_CONN_OPEN:
		return ch3m_conn_mourn(conn);
	case CH3M_CONN_CLOSING:
		ch3m_sendq_fail(vc);
		return ch3m_conn_end_vc(vc);
	case CH3M_CONN_LOST:
	case CH3M_CONN_DEAD:
		return MPI_SUCCESS;
	default:
		return ch3m_handshake_lost(conn);
	}
}

int ch3m_conn_mourn(struct ch3m_conn *conn)
{
	MPIDI_VC_t *vc = conn->vc;

	if (vc->pg != MPIDI_Process.my_pg)
		return ch3m_conn_fail_vc(vc);
	ch3m_conn_step(conn, CH3M_CONN_LOST);
	msock_close(conn->sd);
	conn->sd = -1;
	conn->lost_ns = now_ns();
	vc->ch.state = CH3M_VC_CONNECTING;
	MPIDI_CH3_Progress_signal_completion(); /* a thread that sleeps for ever must sleep anew */
	return MPI_SUCCESS;
}

/* The connection whose grace ends first, or NULL. */
static struct ch3m_conn *first_lost(void)
{
	struct ch3m_conn *first = NULL;

	for (struct ch3m_conn *conn = lost_count ? conns : NULL; conn; conn = conn->next)
		if (conn->state == CH3M_CONN_LOST && (!first || conn->lost_ns < first->lost_ns))
			first = conn;
	return first;
}

int ch3m_conn_grace_ms(void)
{
	const struct ch3m_conn *conn = first_lost();
	uint64_t passed_ms;

	if (!conn)
		return -1;
	passed_ms = (now_ns() - conn->lost_ns) / NS_PER_MS;
	return passed_ms < GRACE_MS ? GRACE_MS - (int)passed_ms : 0;
}

int ch3m_conn_end_grace(void)
{
	int mpi_errno = MPI_SUCCESS;

	while (mpi_errno == MPI_SUCCESS && lost_count && ch3m_conn_grace_ms() == 0)
		mpi_errno = ch3m_conn_fail_vc(first_lost()->vc);
	return mpi_errno;
}

int ch3m_conn_error(int rank)
{
	int mpi_errno = MPI_SUCCESS;

	MPIR_ERR_SET1(mpi_errno, MPIX_ERR_PROC_FAILED, "**comm_fail", "**comm_fail %d", rank);
	return mpi_errno;
}

int ch3m_conn_fail_vc(MPIDI_VC_t *vc)
{
	struct ch3m_conn *conn = vc->ch.conn;
	MPIR_Request *rreq = NULL;
	int mpi_errno = MPI_SUCCESS;

	vc->ch.state = CH3M_VC_FAILED;
	if (conn) {
		rreq = conn->rreq;
		conn->rreq = NULL;
		ch3m_conn_close(conn);
	}
	if (vc->ch.parked)
		ch3m_conn_close(vc->ch.parked);
	if (rreq) {
		rreq->status.MPI_ERROR = ch3m_conn_error(vc->pg_rank);
		/* Unexpected, and here in part: the receive that will match it expects only its own part to be pending. */
		if (rreq->dev.OnDataAvail == MPIDI_CH3_ReqHandler_UnpackUEBufComplete)
			MPIDI_Request_decr_pending(rreq);
		mpi_errno = MPID_Request_complete(rreq);
		MPIR_ERR_CHECK(mpi_errno);
	}
	ch3m_sendq_fail(vc);
	mpi_errno = ch3m_asked_fail(vc);
	MPIR_ERR_CHECK(mpi_errno);
	if (vc->state != MPIDI_VC_STATE_MORIBUND && vc->state != MPIDI_VC_STATE_INACTIVE_CLOSED) {
		mpi_errno = MPIDI_CH3U_Handle_connection(vc, MPIDI_VC_EVENT_TERMINATED);
		MPIR_ERR_CHECK(mpi_errno);
	}
	MPIDI_CH3_Progress_signal_completion();
fn_fail:
	return mpi_errno;
}

int ch3m_conn_end_vc(MPIDI_VC_t *vc)
{
	struct ch3m_conn *parked = vc->ch.parked;
	int mpi_errno;

	if (vc->ch.conn)
		ch3m_conn_close(vc->ch.conn);
	vc->ch.state = CH3M_VC_IDLE;
	mpi_errno = MPIDI_CH3U_Handle_connection(vc, MPIDI_VC_EVENT_TERMINATED);
	MPIR_ERR_CHECK(mpi_errno);
	/* The device signals only the end of the last of several; MPI_Comm_accept and _connect wait for that of one. */
	MPIDI_CH3_Progress_signal_completion();
	/* If that was the end of the process group, then VC_Destroy has closed what was parked. */
	if (parked && parked->state == CH3M_CONN_PARKED)
		mpi_errno = ch3m_handshake_decide(parked);
fn_fail:
	return mpi_errno;
}

struct ch3m_conn *ch3m_conn_first(void)
{
	return conns;
}

struct ch3m_conn *ch3m_conn_next_parked(struct ch3m_conn *after)
{
	struct ch3m_conn *conn = after ? after->next : conns;

	while (conn && conn->state != CH3M_CONN_PARKED)
		conn = conn->next;
	return conn;
}

void ch3m_conn_reap(void)
{
	while (dead) {
		struct ch3m_conn *conn = dead;

		dead = conn->next;
		MPL_free(conn);
	}
}
