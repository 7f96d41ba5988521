/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <msock.h>

#include "recv.h"
#include "sendq.h"

/*
 * One buffer serves all connections: what a read leaves in it is handed on
 * before the next read, down to the beginning of a packet's header, which the
 * connection keeps.  Data of a message whose destination is known is read
 * there, and only what follows it goes into the buffer.
 */
enum {
	BUFFER_BYTES = 16 * 1024, /* more would mean to copy more of long messages */
	READS_MAX = 4,            /* of one connection in a row */
	PKT_ALIGN = 16,
};

static char buffer[sizeof(MPIDI_CH3_Pkt_t) + BUFFER_BYTES] __attribute__((aligned(64)));
static MPIDI_CH3_PktHandler_Fcn *handlers[MPIDI_CH3_PKT_END_CH3 + 1];
static int reading; /* a handler must not come back here: the buffer is in use */

int ch3m_recv_init(void)
{
	return MPIDI_CH3_PktHandler_Init(handlers, MPIDI_CH3_PKT_END_CH3 + 1);
}

/* Move n bytes to where rreq still wants some; src NULL: they are there already. Returns the bytes used. */
static size_t fill(MPIR_Request *rreq, const char *src, size_t n)
{
	size_t used = 0;

	while (rreq->dev.iov_count > 0) {
		struct iovec *iov = &rreq->dev.iov[rreq->dev.iov_offset];
		size_t bytes = MPL_MIN(iov->iov_len, n - used);

		if (src && bytes && !rreq->dev.drop_data)
			memcpy(iov->iov_base, src + used, bytes);
		used += bytes;
		if (bytes < iov->iov_len) {
			iov->iov_base = (char *)iov->iov_base + bytes;
			iov->iov_len -= bytes;
			break;
		}
		rreq->dev.iov_offset++;
		rreq->dev.iov_count--;
	}
	return used;
}

/* All that conn->rreq wanted is there. Its handler may want more. */
static int complete(struct ch3m_conn *conn)
{
	MPIR_Request *rreq = conn->rreq;
	int done = TRUE;
	int mpi_errno;

	if (rreq->dev.OnDataAvail)
		mpi_errno = rreq->dev.OnDataAvail(conn->vc, rreq, &done);
	else
		mpi_errno = MPID_Request_complete(rreq);
	MPIR_ERR_CHECK(mpi_errno);
	if (done)
		conn->rreq = NULL;
	else
		rreq->dev.iov_offset = 0;
fn_fail:
	return mpi_errno;
}

/* Bytes of data behind a packet's header, of those packets whose handlers do not say for sure how much they have taken. */
static size_t data_behind(const MPIDI_CH3_Pkt_t *pkt)
{
	switch (pkt->type) {
	case MPIDI_CH3_PKT_REVOKE:
	case MPIDI_CH3_PKT_EAGERSHORT_SEND:
	case MPIDI_CH3_PKT_RNDV_REQ_TO_SEND:
		return 0;
	case MPIDI_CH3_PKT_EAGER_SEND:
		return (size_t)pkt->eager_send.data_sz;
	case MPIDI_CH3_PKT_READY_SEND:
		return (size_t)pkt->ready_send.data_sz;
	case MPIDI_CH3_PKT_EAGER_SYNC_SEND:
		return (size_t)pkt->eager_sync_send.data_sz;
	default:
		return SIZE_MAX;
	}
}

/* Nobody wants the next so many bytes: their communicator has been revoked. */
static int drop(struct ch3m_conn *conn, size_t bytes)
{
	MPIR_Request *rreq = MPIR_Request_create(MPIR_REQUEST_KIND__RECV);
	int mpi_errno = MPI_SUCCESS;

	MPIR_ERR_CHKANDJUMP(!rreq, mpi_errno, MPI_ERR_OTHER, "**nomem");
	rreq->dev.OnDataAvail = NULL;
	rreq->dev.drop_data = TRUE;
	rreq->dev.iov[0].iov_base = buffer;
	rreq->dev.iov[0].iov_len = bytes;
	rreq->dev.iov_count = 1;
	conn->rreq = rreq;
fn_fail:
	return mpi_errno;
}

/*
 * The handler of a REVOKE, and that of any message for a communicator that has been revoked, leaves `used` as it was.
 * So it is given no more than is its own; and what it has not taken, and no request wants, is dropped.
 */
static int handle_packet(struct ch3m_conn *conn, char *header, char *data, size_t *data_bytes)
{
	MPIDI_CH3_Pkt_t copy __attribute__((aligned(PKT_ALIGN)));
	MPIDI_CH3_Pkt_t *pkt = (MPIDI_CH3_Pkt_t *)header;
	size_t own;
	intptr_t used;
	int mpi_errno = MPI_SUCCESS;

	if ((uintptr_t)header % PKT_ALIGN)
		pkt = memcpy(&copy, header, sizeof(copy));
	MPIR_ERR_CHKANDJUMP((int)pkt->type < 0 || pkt->type >= MPIDI_CH3_PKT_END_CH3, mpi_errno, MPI_ERR_INTERN,
			    "**fail");
	ch3m_asked_came(pkt);
	own = data_behind(pkt);
	used = (intptr_t)MPL_MIN(own, *data_bytes);
	mpi_errno = handlers[pkt->type](conn->vc, pkt, data, &used, &conn->rreq);
	MPIR_ERR_CHECK(mpi_errno);
	*data_bytes = (size_t)used;
	if (conn->state == CH3M_CONN_OPEN && !conn->rreq && own != SIZE_MAX && (size_t)used < own)
		mpi_errno = drop(conn, own - (size_t)used);
	MPIR_ERR_CHECK(mpi_errno);
	if (conn->rreq)
		conn->rreq->dev.iov_offset = 0;
fn_fail:
	return mpi_errno;
}

/* Hand on what a read has left in the buffer. A handler may close the connection. */
static int parse(struct ch3m_conn *conn, char *p, size_t left)
{
	int mpi_errno = MPI_SUCCESS;

	while (conn->state == CH3M_CONN_OPEN) {
		if (conn->rreq) {
			size_t used = fill(conn->rreq, p, left);

			p += used;
			left -= used;
			if (conn->rreq->dev.iov_count > 0)
				return MPI_SUCCESS;
			mpi_errno = complete(conn);
			MPIR_ERR_CHECK(mpi_errno);
		} else if (left >= sizeof(MPIDI_CH3_Pkt_t)) {
			size_t used = left - sizeof(MPIDI_CH3_Pkt_t);
			char *data = p + sizeof(MPIDI_CH3_Pkt_t);

			mpi_errno = handle_packet(conn, p, data, &used);
			MPIR_ERR_CHECK(mpi_errno);
			p = data + used;
			left -= sizeof(MPIDI_CH3_Pkt_t) + used;
		} else {
			memcpy(conn->part, p, left);
			conn->part_bytes = left;
			break;
		}
	}
fn_fail:
	return mpi_errno;
}

/* One read: first into the request's memory, if there is one and it wants the data, then into the buffer. */
static int read_once(struct ch3m_conn *conn, size_t *bytes, int *is_full)
{
	struct iovec iov[MPL_IOV_LIMIT + 1];
	MPIR_Request *rreq = conn->rreq;
	size_t have = conn->part_bytes, direct = 0, room = sizeof(buffer) - have;
	int count = 0;
	ssize_t n;

	*bytes = 0;
	*is_full = FALSE;
	if (rreq && !rreq->dev.drop_data) {
		for (; count < rreq->dev.iov_count; count++) {
			iov[count] = rreq->dev.iov[rreq->dev.iov_offset + (size_t)count];
			direct += iov[count].iov_len;
		}
	}
	memcpy(buffer, conn->part, have);
	iov[count].iov_base = buffer + have;
	iov[count++].iov_len = room;
	do {
		n = msock_readv(conn->sd, iov, count);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return MPI_SUCCESS;
	if (n <= 0)
		return ch3m_conn_lost(conn);
	*bytes = (size_t)n;
	*is_full = (size_t)n == direct + room;
	conn->part_bytes = 0;
	if (direct) {
		size_t used = fill(rreq, NULL, MPL_MIN((size_t)n, direct));

		if (rreq->dev.iov_count > 0)
			return MPI_SUCCESS;
		n -= (ssize_t)used;
	}
	return parse(conn, buffer, have + (size_t)n);
}

int ch3m_recv_read(struct ch3m_conn *conn, size_t *bytes)
{
	int mpi_errno = MPI_SUCCESS;
	int is_full = TRUE;

	*bytes = 0;
	if (reading)
		return MPI_SUCCESS;
	reading = TRUE;
	for (int i = 0; i < READS_MAX && is_full && conn->state == CH3M_CONN_OPEN && mpi_errno == MPI_SUCCESS; i++) {
		size_t n;

		mpi_errno = read_once(conn, &n, &is_full);
		*bytes += n;
	}
	reading = FALSE;
	return mpi_errno;
}
