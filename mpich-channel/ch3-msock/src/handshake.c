/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <msock.h>

#include "address.h"
#include "handshake.h"
#include "sendq.h"

static int pg_added; /* since what is parked was last looked at */

static int call_address(MPIDI_VC_t *vc, const struct ch3m_address *addr, int is_port, uint32_t port_tag)
{
	int mpi_errno = MPI_SUCCESS;
	struct ch3m_conn *conn;
	int sd = msock_connect_job(addr->job, &addr->at);

	if (sd < 0)
		return ch3m_conn_fail_vc(vc);
	conn = ch3m_conn_create(sd, CH3M_CONN_DIALING);
	MPIR_ERR_CHKANDJUMP(!conn, mpi_errno, MPI_ERR_OTHER, "**nomem");
	conn->vc = vc;
	conn->is_port = is_port;
	conn->port_tag = port_tag;
	vc->ch.conn = conn;
	vc->ch.state = CH3M_VC_CONNECTING;
	ch3m_conn_want(conn, MSOCK_WRITE);
fn_fail:
	return mpi_errno;
}

int ch3m_handshake_call(MPIDI_VC_t *vc)
{
	int mpi_errno;
	char card[MPIDI_MAX_KVS_VALUE_LEN];
	struct ch3m_address addr;

	/* Asking for the card may let other threads in, which shall not call as well. */
	vc->ch.state = CH3M_VC_CONNECTING;
	mpi_errno = MPIDI_PG_GetConnString(vc->pg, vc->pg_rank, card, sizeof(card));
	MPIR_ERR_CHECK(mpi_errno);
	if (vc->ch.state != CH3M_VC_CONNECTING || vc->ch.conn)
		goto fn_fail;
	mpi_errno = ch3m_address_read_card(card, &addr);
	MPIR_ERR_CHECK(mpi_errno);
	mpi_errno = call_address(vc, &addr, FALSE, 0);
fn_fail:
	return mpi_errno;
}

int ch3m_handshake_call_port(MPIDI_VC_t *vc, const struct ch3m_address *addr, uint32_t port_tag)
{
	return call_address(vc, addr, TRUE, port_tag);
}

/* What is in hs->out goes out. 1: all of it is written, 0: not yet, -1: the stream is lost. */
static int flush_out(struct ch3m_conn *conn)
{
	struct ch3m_handshake *hs = conn->hs;

	while (hs->out_done < hs->out_bytes) {
		struct iovec iov = { hs->out + hs->out_done, hs->out_bytes - hs->out_done };
		ssize_t n = msock_writev(conn->sd, &iov, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			ch3m_conn_want(conn, MSOCK_READ | MSOCK_WRITE);
			return 0;
		}
		if (n < 0)
			return -1;
		hs->out_done += (size_t)n;
	}
	ch3m_conn_want(conn, MSOCK_READ);
	return 1;
}

static int say(struct ch3m_conn *conn, const struct greeting *g)
{
	conn->hs->out_done = 0;
	conn->hs->out_bytes = greeting_encode(g, conn->hs->out);
	return conn->hs->out_bytes ? flush_out(conn) : -1;
}

/* Read no more than one greeting. 1: it is whole, 0: not yet, -1: the stream is lost or talks nonsense. */
static int read_greeting(struct ch3m_conn *conn, struct greeting *g)
{
	struct ch3m_handshake *hs = conn->hs;

	for (;;) {
		size_t need = GREETING_HEAD_BYTES;
		struct iovec iov;
		ssize_t n;

		if (hs->in_have >= GREETING_HEAD_BYTES) {
			need = greeting_total_bytes(hs->in);
			if (!need)
				return -1;
			if (hs->in_have == need) {
				hs->in_have = 0;
				return greeting_decode(hs->in, need, g) ? -1 : 1;
			}
		}
		iov.iov_base = hs->in + hs->in_have;
		iov.iov_len = need - hs->in_have;
		n = msock_readv(conn->sd, &iov, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return -1;
		hs->in_have += (size_t)n;
	}
}

static int open_conn(struct ch3m_conn *conn)
{
	int mpi_errno = MPI_SUCCESS;
	int is_callee = conn->state == CH3M_CONN_ANSWERED;
	MPIDI_VC_t *vc = conn->vc;

	ch3m_conn_step(conn, CH3M_CONN_OPEN);
	ch3m_conn_want(conn, MSOCK_READ);
	vc->ch.state = CH3M_VC_OPEN;
	if (vc->pg && vc->state == MPIDI_VC_STATE_INACTIVE)
		MPIDI_CHANGE_VC_STATE(vc, ACTIVE);
	mpi_errno = ch3m_sendq_flush(vc);
	MPIR_ERR_CHECK(mpi_errno);
	if (is_callee && conn->is_port)
		mpi_errno = MPIDI_CH3I_Acceptq_enqueue(vc, (int)conn->port_tag);
fn_fail:
	return mpi_errno;
}

static int say_hello(struct ch3m_conn *conn)
{
	struct greeting g = { .pkt_bytes = sizeof(MPIDI_CH3_Pkt_t) };

	if (msock_error(conn->sd))
		return ch3m_conn_lost(conn);
	if (conn->is_port) {
		g.type = GREETING_HELLO_PORT;
		g.port_tag = conn->port_tag;
	} else {
		g.type = GREETING_HELLO_PEER;
		g.from_rank = (uint32_t)MPIDI_Process.my_pg_rank;
		g.from_pg = MPIDI_Process.my_pg->id;
		g.to_rank = (uint32_t)conn->vc->pg_rank;
		g.to_pg = conn->vc->pg->id;
	}
	ch3m_conn_step(conn, CH3M_CONN_ASKING);
	return say(conn, &g) < 0 ? ch3m_conn_lost(conn) : MPI_SUCCESS;
}

static int hear_answer(struct ch3m_conn *conn)
{
	static const struct greeting confirm = { .type = GREETING_CONFIRM };
	struct greeting g;
	int done = read_greeting(conn, &g);

	if (!done)
		return MPI_SUCCESS;
	if (done < 0 || g.type != GREETING_ANSWER || g.verdict == GREETING_REFUSED)
		return ch3m_conn_lost(conn);
	if (g.verdict == GREETING_CROSSED) {
		ch3m_conn_close(conn); /* the VC stays CONNECTING until the peer's call is here */
		return MPI_SUCCESS;
	}
	conn->hs->welcome = 1;
	done = say(conn, &confirm);
	if (done < 0)
		return ch3m_conn_lost(conn);
	return done ? open_conn(conn) : MPI_SUCCESS;
}

static int hear_hello(struct ch3m_conn *conn)
{
	struct greeting *g = &conn->hs->hello;
	int done = read_greeting(conn, g);

	if (!done)
		return MPI_SUCCESS;
	if (done < 0 || (g->type != GREETING_HELLO_PEER && g->type != GREETING_HELLO_PORT))
		return ch3m_conn_lost(conn);
	return ch3m_handshake_decide(conn);
}

static int hear_confirm(struct ch3m_conn *conn)
{
	struct greeting g;
	int done = read_greeting(conn, &g);

	if (!done)
		return MPI_SUCCESS;
	if (done < 0 || g.type != GREETING_CONFIRM)
		return ch3m_conn_lost(conn);
	return open_conn(conn);
}

/* The caller has nothing to say now: a byte or an end is its loss. An event is not, for while this process moves some tell of nothing. */
static int parked_event(struct ch3m_conn *conn)
{
	char byte;
	struct iovec iov = { &byte, 1 };
	ssize_t n = msock_readv(conn->sd, &iov, 1);

	return n < 0 && (errno == EAGAIN || errno == EINTR) ? MPI_SUCCESS : ch3m_conn_lost(conn);
}

int ch3m_handshake_event(struct ch3m_conn *conn, unsigned events)
{
	int done;

	if (conn->state == CH3M_CONN_DIALING)
		return say_hello(conn);
	if (conn->state == CH3M_CONN_PARKED)
		return parked_event(conn);
	done = flush_out(conn);
	if (done < 0)
		return ch3m_conn_lost(conn);
	switch (conn->state) {
	case CH3M_CONN_REFUSING:
		if (done)
			ch3m_conn_close(conn);
		return MPI_SUCCESS;
	case CH3M_CONN_ASKING:
		if (conn->hs->welcome)
			return done ? open_conn(conn) : MPI_SUCCESS;
		return events & MSOCK_READ ? hear_answer(conn) : MPI_SUCCESS;
	case CH3M_CONN_GREETED:
		return events & MSOCK_READ ? hear_hello(conn) : MPI_SUCCESS;
	case CH3M_CONN_ANSWERED:
		return events & MSOCK_READ ? hear_confirm(conn) : MPI_SUCCESS;
	default:
		return MPI_SUCCESS;
	}
}

static int answer(struct ch3m_conn *conn, enum greeting_verdict verdict)
{
	struct greeting g = { .type = GREETING_ANSWER, .verdict = verdict };
	int done;

	ch3m_conn_step(conn, verdict == GREETING_WELCOME ? CH3M_CONN_ANSWERED : CH3M_CONN_REFUSING);
	done = say(conn, &g);
	if (done < 0)
		return ch3m_conn_lost(conn);
	if (done && conn->state == CH3M_CONN_REFUSING)
		ch3m_conn_close(conn);
	return MPI_SUCCESS;
}

static int welcome(struct ch3m_conn *conn, MPIDI_VC_t *vc)
{
	conn->vc = vc;
	if (vc->ch.parked == conn)
		vc->ch.parked = NULL;
	vc->ch.conn = conn;
	vc->ch.state = CH3M_VC_CONNECTING;
	return answer(conn, GREETING_WELCOME);
}

static int decide_port(struct ch3m_conn *conn)
{
	MPIDI_VC_t *vc = MPL_malloc(sizeof(*vc), MPL_MEM_ADDRESS);

	if (!vc)
		return answer(conn, GREETING_REFUSED);
	MPIDI_VC_Init(vc, NULL, 0);
	conn->is_port = TRUE;
	conn->port_tag = conn->hs->hello.port_tag;
	return welcome(conn, vc);
}

/* The VC may be known (NULL if not) or not; its connection's end or a new process group decides. */
static void park(struct ch3m_conn *conn, MPIDI_VC_t *vc)
{
	if (vc && vc->ch.parked && vc->ch.parked != conn)
		ch3m_conn_close(vc->ch.parked);
	if (conn->state != CH3M_CONN_PARKED)
		ch3m_conn_step(conn, CH3M_CONN_PARKED);
	conn->vc = vc;
	if (vc)
		vc->ch.parked = conn;
}

static int peer_is_greater(const MPIDI_PG_t *pg, int rank)
{
	if (pg == MPIDI_Process.my_pg)
		return rank > MPIDI_Process.my_pg_rank;
	return strcmp(pg->id, MPIDI_Process.my_pg->id) > 0;
}

static int talks_no_more(const MPIDI_VC_t *vc)
{
	if (vc->state == MPIDI_VC_STATE_INACTIVE_CLOSED || vc->state == MPIDI_VC_STATE_MORIBUND)
		return TRUE;
	if (vc->ch.state == CH3M_VC_FAILED)
		return TRUE;
	return vc->pg->finalize && vc->state == MPIDI_VC_STATE_INACTIVE && vc->ch.state == CH3M_VC_IDLE;
}

static int decide_peer(struct ch3m_conn *conn)
{
	const struct greeting *g = &conn->hs->hello;
	MPIDI_PG_t *pg = NULL;
	MPIDI_VC_t *vc;
	struct ch3m_conn *old;

	if (strcmp(g->to_pg, MPIDI_Process.my_pg->id) || g->to_rank != (uint32_t)MPIDI_Process.my_pg_rank)
		return answer(conn, GREETING_REFUSED);
	MPIDI_PG_Find((void *)g->from_pg, &pg);
	if (!pg) {
		park(conn, NULL);
		return MPI_SUCCESS;
	}
	if (g->from_rank >= (uint32_t)pg->size)
		return answer(conn, GREETING_REFUSED);
	vc = &pg->vct[g->from_rank];
	if (talks_no_more(vc))
		return answer(conn, GREETING_REFUSED);
	old = vc->ch.conn;
	if (!old)
		return welcome(conn, vc);
	switch (old->state) {
	case CH3M_CONN_DIALING:
	case CH3M_CONN_ASKING:
		if (!peer_is_greater(pg, vc->pg_rank))
			return answer(conn, GREETING_CROSSED);
		ch3m_conn_close(old);
		return welcome(conn, vc);
	case CH3M_CONN_ANSWERED: /* a call that the peer has dropped */
		ch3m_conn_close(old);
		return welcome(conn, vc);
	default: /* the peer has ended it and calls again, but its last packets are not read yet */
		park(conn, vc);
		return MPI_SUCCESS;
	}
}

int ch3m_handshake_decide(struct ch3m_conn *conn)
{
	const struct greeting *g = &conn->hs->hello;

	if (g->pkt_bytes != sizeof(MPIDI_CH3_Pkt_t))
		return answer(conn, GREETING_REFUSED);
	return g->type == GREETING_HELLO_PORT ? decide_port(conn) : decide_peer(conn);
}

void ch3m_handshake_pg_added(void)
{
	pg_added = 1;
	MPIDI_CH3_Progress_signal_completion(); /* a thread that sleeps must look at it */
}

int ch3m_handshake_decide_parked(void)
{
	int mpi_errno = MPI_SUCCESS;
	static unsigned pass;
	struct ch3m_conn *conn;

	if (!pg_added)
		return MPI_SUCCESS;
	pg_added = 0;
	pass++;
	conn = ch3m_conn_next_parked(NULL);
	while (conn && mpi_errno == MPI_SUCCESS) {
		if (conn->pass == pass) {
			conn = ch3m_conn_next_parked(conn);
			continue;
		}
		conn->pass = pass;
		if (!conn->vc)
			mpi_errno = ch3m_handshake_decide(conn);
		conn = ch3m_conn_next_parked(NULL); /* a decision may close any other connection */
	}
	return mpi_errno;
}

static int lost_call(struct ch3m_conn *conn)
{
	int mpi_errno;

	if (!conn->is_port)
		return ch3m_conn_mourn(conn);
	mpi_errno = ch3m_conn_fail_vc(conn->vc);
	MPIR_ERR_CHECK(mpi_errno);
	/* MPI_Comm_connect looks at no request: it learns of the failure from the progress engine. */
	MPIR_ERR_SETANDJUMP(mpi_errno, MPI_ERR_PORT, "**ch3|portclose");
fn_fail:
	return mpi_errno;
}

static int lost_answered(struct ch3m_conn *conn)
{
	MPIDI_VC_t *vc = conn->vc;
	int is_port = conn->is_port;

	ch3m_conn_close(conn);
	if (is_port) { /* nobody knows this VC yet */
		MPIDI_CH3_VC_Destroy(vc);
		MPL_free(vc);
		return MPI_SUCCESS;
	}
	vc->ch.state = CH3M_VC_IDLE;
	return vc->ch.sendq_head ? ch3m_handshake_call(vc) : MPI_SUCCESS;
}

int ch3m_handshake_lost(struct ch3m_conn *conn)
{
	switch (conn->state) {
	case CH3M_CONN_DIALING:
	case CH3M_CONN_ASKING:
		return lost_call(conn);
	case CH3M_CONN_ANSWERED:
		return lost_answered(conn);
	default:
		ch3m_conn_close(conn);
		return MPI_SUCCESS;
	}
}
