/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <msock.h>

#include "connection.h"
#include "sendq.h"

enum { GATHER_MAX = 64 }; /* elements of one writev */

void ch3m_sendq_push(MPIDI_VC_t *vc, MPIR_Request *req)
{
	MPIR_Request_add_ref(req);
	req->next = NULL;
	if (vc->ch.sendq_tail)
		vc->ch.sendq_tail->next = req;
	else
		vc->ch.sendq_head = req;
	vc->ch.sendq_tail = req;
}

void ch3m_sendq_push_front(MPIDI_VC_t *vc, MPIR_Request *req)
{
	MPIR_Request_add_ref(req);
	req->next = vc->ch.sendq_head;
	vc->ch.sendq_head = req;
	if (!vc->ch.sendq_tail)
		vc->ch.sendq_tail = req;
}

static void pop(MPIDI_VC_t *vc)
{
	MPIR_Request *req = vc->ch.sendq_head;

	vc->ch.sendq_head = req->next;
	if (!vc->ch.sendq_head)
		vc->ch.sendq_tail = NULL;
	req->next = NULL;
	MPIR_Request_free(req);
}

/*
 * Collect what the next writev shall write.  A request with a handler is the
 * last one: the handler may have more of the same message.
 */
static int gather(MPIDI_VC_t *vc, struct iovec *iov, size_t *total_bytes)
{
	int count = 0;

	*total_bytes = 0;
	for (MPIR_Request *req = vc->ch.sendq_head; req; req = req->next) {
		if (count + req->dev.iov_count > GATHER_MAX)
			break;
		for (int i = 0; i < req->dev.iov_count; i++) {
			iov[count] = req->dev.iov[req->dev.iov_offset + i];
			*total_bytes += iov[count++].iov_len;
		}
		if (req->dev.OnDataAvail)
			break;
	}
	return count;
}

/* So many bytes of req are written, of those that *bytes counts. Returns TRUE if that was all of it. */
static int consume(MPIR_Request *req, size_t *bytes)
{
	while (req->dev.iov_count > 0) {
		struct iovec *iov = &req->dev.iov[req->dev.iov_offset];

		if (*bytes < iov->iov_len) {
			iov->iov_base = (char *)iov->iov_base + *bytes;
			iov->iov_len -= *bytes;
			*bytes = 0;
			return FALSE;
		}
		*bytes -= iov->iov_len;
		req->dev.iov_offset++;
		req->dev.iov_count--;
	}
	return TRUE;
}

/* The head of the queue is written whole. It stays while its handler runs: what that sends queues behind. */
static int complete_head(MPIDI_VC_t *vc)
{
	MPIR_Request *req = vc->ch.sendq_head;
	int complete = TRUE;
	int mpi_errno;

	if (req->dev.OnDataAvail)
		mpi_errno = req->dev.OnDataAvail(vc, req, &complete);
	else
		mpi_errno = MPID_Request_complete(req);
	MPIR_ERR_CHECK(mpi_errno);
	req->dev.iov_offset = 0;
	if (complete)
		pop(vc);
fn_fail:
	return mpi_errno;
}

static int consume_queue(MPIDI_VC_t *vc, size_t bytes)
{
	int mpi_errno = MPI_SUCCESS;

	while (mpi_errno == MPI_SUCCESS && vc->ch.sendq_head && consume(vc->ch.sendq_head, &bytes))
		mpi_errno = complete_head(vc);
	return mpi_errno;
}

int ch3m_sendq_flush(MPIDI_VC_t *vc)
{
	struct iovec iov[GATHER_MAX];
	int mpi_errno = MPI_SUCCESS;

	if (vc->ch.state != CH3M_VC_OPEN)
		return MPI_SUCCESS;
	while (vc->ch.sendq_head) {
		struct ch3m_conn *conn = vc->ch.conn;
		size_t total_bytes;
		int count = gather(vc, iov, &total_bytes);
		ssize_t n = total_bytes ? msock_writev(conn->sd, iov, count) : 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return ch3m_conn_lost(conn);
		if (n >= 0) {
			mpi_errno = consume_queue(vc, (size_t)n);
			MPIR_ERR_CHECK(mpi_errno);
		}
		if (vc->ch.conn != conn) /* a handler's send has found the peer lost */
			return MPI_SUCCESS;
		if (n < 0 || (size_t)n < total_bytes) {
			ch3m_conn_want(conn, conn->want | MSOCK_WRITE);
			return MPI_SUCCESS;
		}
	}
	ch3m_conn_want(vc->ch.conn, vc->ch.conn->want & ~(unsigned)MSOCK_WRITE);
	if (vc->ch.conn->state == CH3M_CONN_CLOSING)
		mpi_errno = ch3m_conn_end_vc(vc);
fn_fail:
	return mpi_errno;
}

void ch3m_sendq_fail(MPIDI_VC_t *vc)
{
	while (vc->ch.sendq_head) {
		MPIR_Request *req = vc->ch.sendq_head;

		req->status.MPI_ERROR = ch3m_conn_error(vc->pg_rank);
		MPID_Request_complete(req);
		pop(vc);
	}
}

/*
 * What waits for a peer's answer: large messages, sends that wait for leave and receives that have given it, and small
 * synchronous sends. Such a request is in no queue, and only the answer would complete it. Each is in its VC's list, from the
 * packet that names it to the answer; the request holds the links, so a message costs the same however many are under way.
 */
static void asked_add(MPIDI_VC_t *vc, MPI_Request request)
{
	MPIR_Request *req;

	MPIR_Request_get_ptr(request, req);
	MPIR_Assert(!req->ch.asked_link);
	req->ch.asked_next = vc->ch.asked;
	if (vc->ch.asked)
		vc->ch.asked->ch.asked_link = &req->ch.asked_next;
	vc->ch.asked = req;
	req->ch.asked_link = &vc->ch.asked;
}

static void asked_unlink(MPIR_Request *req)
{
	*req->ch.asked_link = req->ch.asked_next;
	if (req->ch.asked_next)
		req->ch.asked_next->ch.asked_link = req->ch.asked_link;
	req->ch.asked_link = NULL;
}

static void asked_remove(MPI_Request request)
{
	MPIR_Request *req;

	MPIR_Request_get_ptr(request, req);
	if (req->ch.asked_link)
		asked_unlink(req);
}

void ch3m_asked_sent(MPIDI_VC_t *vc, const MPIDI_CH3_Pkt_t *pkt)
{
	if (pkt->type == MPIDI_CH3_PKT_RNDV_REQ_TO_SEND)
		asked_add(vc, pkt->rndv_req_to_send.sender_req_id);
	else if (pkt->type == MPIDI_CH3_PKT_RNDV_CLR_TO_SEND)
		asked_add(vc, pkt->rndv_clr_to_send.receiver_req_id);
	else if (pkt->type == MPIDI_CH3_PKT_EAGER_SYNC_SEND)
		asked_add(vc, pkt->eager_sync_send.sender_req_id);
}

void ch3m_asked_came(const MPIDI_CH3_Pkt_t *pkt)
{
	if (pkt->type == MPIDI_CH3_PKT_RNDV_CLR_TO_SEND)
		asked_remove(pkt->rndv_clr_to_send.sender_req_id);
	else if (pkt->type == MPIDI_CH3_PKT_RNDV_SEND)
		asked_remove(pkt->rndv_send.receiver_req_id);
	else if (pkt->type == MPIDI_CH3_PKT_EAGER_SYNC_ACK)
		asked_remove(pkt->eager_sync_ack.sender_req_id);
	else if (pkt->type == MPIDI_CH3_PKT_CANCEL_SEND_RESP && pkt->cancel_send_resp.ack)
		asked_remove(pkt->cancel_send_resp.sender_req_id);
}

int ch3m_asked_fail(MPIDI_VC_t *vc)
{
	int mpi_errno = MPI_SUCCESS;

	while (vc->ch.asked && mpi_errno == MPI_SUCCESS) {
		MPIR_Request *req = vc->ch.asked;

		asked_unlink(req);
		req->status.MPI_ERROR = ch3m_conn_error(vc->pg_rank);
		mpi_errno = MPID_Request_complete(req);
	}
	return mpi_errno;
}
