/* SPDX-License-Identifier: MIT */
/* Send queues: the packets of a VC that are not written yet, in order. */
#ifndef CH3M_SENDQ_H
#define CH3M_SENDQ_H

#include "mpidi_ch3_impl.h"

/* The queue holds a reference of its own to each request. What is to be written is dev.iov from dev.iov_offset on. */
void ch3m_sendq_push(MPIDI_VC_t *vc, MPIR_Request *req);
void ch3m_sendq_push_front(MPIDI_VC_t *vc, MPIR_Request *req);

/* Write what can be written, if the VC is OPEN or its connection CLOSING. Returns an MPI error code. */
int ch3m_sendq_flush(MPIDI_VC_t *vc);

/* End all that is queued in error. */
void ch3m_sendq_fail(MPIDI_VC_t *vc);

/*
 * Large messages and synchronous ones: their requests are in no queue while the one side has asked and the other has not
 * answered, so they are in their VC's list, and end in error with the VC.  sent: a packet is written or queued; came: a packet
 * is about to be handled.
 */
void ch3m_asked_sent(MPIDI_VC_t *vc, const MPIDI_CH3_Pkt_t *pkt);
void ch3m_asked_came(const MPIDI_CH3_Pkt_t *pkt);
int ch3m_asked_fail(MPIDI_VC_t *vc);

#endif
