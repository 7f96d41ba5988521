/* SPDX-License-Identifier: MIT */
/*
 * The four ways in which the device sends a packet.  Each tries to write at
 * once, in the caller's context, and queues what is left.  A packet's header
 * has one size on the wire, that of the greatest; the device's headers always
 * lie in a MPIDI_CH3_Pkt_t, so there is that much to read.
 */
#include <errno.h>
#include <msock.h>

#include "connection.h"
#include "handshake.h"
#include "sendq.h"

/* Bytes written, of a message that may overtake nothing; 0 if it must queue; -1 if the VC has failed. */
static ssize_t write_now(MPIDI_VC_t *vc, const struct iovec *iov, int count)
{
	int is_own = vc->pg == MPIDI_Process.my_pg; /* then its loss is not told yet */
	ssize_t n;

	if (vc->ch.state != CH3M_VC_OPEN)
		return vc->ch.state == CH3M_VC_FAILED ? -1 : 0;
	if (vc->ch.sendq_head)
		return 0;
	do {
		n = msock_writev(vc->ch.conn->sd, iov, count);
	} while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == EAGAIN)
		return 0;
	ch3m_conn_lost(vc->ch.conn);
	return is_own ? 0 : -1;
}

static size_t total_bytes(const struct iovec *iov, int count)
{
	size_t bytes = 0;

	for (int i = 0; i < count; i++)
		bytes += iov[i].iov_len;
	return bytes;
}

/* Let req describe the message from its byte `done` on, with a copy of the header. */
static void load(MPIR_Request *req, const struct iovec *iov, int count, size_t done)
{
	int n = 0;

	for (int i = 0; i < count; i++) {
		struct iovec rest = iov[i];

		if (done >= rest.iov_len) {
			done -= rest.iov_len;
			continue;
		}
		if (i == 0) {
			memcpy(&req->dev.pending_pkt, rest.iov_base, rest.iov_len);
			rest.iov_base = &req->dev.pending_pkt;
		}
		req->dev.iov[n].iov_base = (char *)rest.iov_base + done;
		req->dev.iov[n++].iov_len = rest.iov_len - done;
		done = 0;
	}
	req->dev.iov_offset = 0;
	req->dev.iov_count = n;
}

/* The rest of a message waits in the queue; see to it that it will be written. */
static int queue_rest(MPIDI_VC_t *vc, MPIR_Request *req)
{
	ch3m_sendq_push(vc, req);
	if (vc->ch.state == CH3M_VC_IDLE)
		return ch3m_handshake_call(vc);
	if (vc->ch.state == CH3M_VC_OPEN)
		ch3m_conn_want(vc->ch.conn, vc->ch.conn->want | MSOCK_WRITE);
	return MPI_SUCCESS;
}

/* The iov of a request that the device has made is written: its handler may have more. */
static int complete(MPIDI_VC_t *vc, MPIR_Request *req)
{
	int done = TRUE;
	int mpi_errno;

	if (!req->dev.OnDataAvail)
		return MPID_Request_complete(req);
	mpi_errno = req->dev.OnDataAvail(vc, req, &done);
	MPIR_ERR_CHECK(mpi_errno);
	if (!done) {
		req->dev.iov_offset = 0;
		ch3m_sendq_push_front(vc, req);
		mpi_errno = ch3m_sendq_flush(vc);
	}
fn_fail:
	return mpi_errno;
}

static int start(MPIDI_VC_t *vc, struct iovec *iov, int count, MPIR_Request **req_ptr)
{
	int mpi_errno = MPI_SUCCESS;
	MPIR_Request *req;
	int rank = vc->pg_rank; /* when the write fails vc may be gone */
	ssize_t n = write_now(vc, iov, count);

	*req_ptr = NULL;
	if (n < 0)
		return ch3m_conn_error(rank);
	ch3m_asked_sent(vc, iov[0].iov_base);
	if ((size_t)n == total_bytes(iov, count))
		return MPI_SUCCESS;
	req = MPIR_Request_create(MPIR_REQUEST_KIND__SEND);
	MPIR_ERR_CHKANDJUMP(!req, mpi_errno, MPI_ERR_OTHER, "**nomem");
	MPIR_Object_set_ref(req, 2);
	req->dev.OnDataAvail = NULL;
	load(req, iov, count, (size_t)n);
	*req_ptr = req;
	mpi_errno = queue_rest(vc, req);
fn_fail:
	return mpi_errno;
}

static int send_req(MPIDI_VC_t *vc, MPIR_Request *req, struct iovec *iov, int count)
{
	int rank = vc->pg_rank; /* when the write fails vc may be gone */
	ssize_t n = write_now(vc, iov, count);

	if (n < 0) {
		req->status.MPI_ERROR = ch3m_conn_error(rank);
		MPID_Request_complete(req);
		return ch3m_conn_error(rank);
	}
	ch3m_asked_sent(vc, iov[0].iov_base);
	if ((size_t)n == total_bytes(iov, count))
		return complete(vc, req);
	load(req, iov, count, (size_t)n);
	return queue_rest(vc, req);
}

int MPIDI_CH3_iStartMsg(MPIDI_VC_t *vc, void *pkt, intptr_t pkt_bytes, MPIR_Request **sreq_ptr)
{
	struct iovec iov = { pkt, sizeof(MPIDI_CH3_Pkt_t) };

	MPIR_Assert(pkt_bytes <= (intptr_t)sizeof(MPIDI_CH3_Pkt_t));
	return start(vc, &iov, 1, sreq_ptr);
}

int MPIDI_CH3_iStartMsgv(MPIDI_VC_t *vc, struct iovec *iov, int count, MPIR_Request **sreq_ptr)
{
	MPIR_Assert(count <= MPL_IOV_LIMIT && iov[0].iov_len <= sizeof(MPIDI_CH3_Pkt_t));
	iov[0].iov_len = sizeof(MPIDI_CH3_Pkt_t);
	return start(vc, iov, count, sreq_ptr);
}

int MPIDI_CH3_iSend(MPIDI_VC_t *vc, MPIR_Request *sreq, void *pkt, intptr_t pkt_bytes)
{
	struct iovec iov = { pkt, sizeof(MPIDI_CH3_Pkt_t) };

	MPIR_Assert(pkt_bytes <= (intptr_t)sizeof(MPIDI_CH3_Pkt_t));
	return send_req(vc, sreq, &iov, 1);
}

int MPIDI_CH3_iSendv(MPIDI_VC_t *vc, MPIR_Request *sreq, struct iovec *iov, int count)
{
	MPIR_Assert(count <= MPL_IOV_LIMIT && iov[0].iov_len <= sizeof(MPIDI_CH3_Pkt_t));
	iov[0].iov_len = sizeof(MPIDI_CH3_Pkt_t);
	return send_req(vc, sreq, iov, count);
}
