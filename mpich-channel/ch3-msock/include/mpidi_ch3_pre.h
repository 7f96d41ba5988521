/* SPDX-License-Identifier: MIT */
/* What the ch3 device must know of the msock channel before it defines its own types. */
#ifndef MPIDI_CH3_PRE_H_INCLUDED
#define MPIDI_CH3_PRE_H_INCLUDED

/* Process groups travel as strings between connected jobs; the device has the code for it. */
#define MPIDI_DEV_IMPLEMENTS_KVS

/* The host's name is asked anew by each MPI_Get_processor_name: the process may have moved. */
#define MPIDI_CH3_HAS_PROCESSOR_NAME
int MPIDI_CH3_Get_processor_name(char *name, int size, int *length);

typedef struct {
	int unused; /* the channel keeps nothing per communicator */
} MPIDI_CH3I_CH_comm_t;

struct MPIR_Request;
struct ch3m_conn;

enum ch3m_vc_state {
	CH3M_VC_IDLE,       /* no connection, none wanted */
	CH3M_VC_CONNECTING, /* one is being made by this side or is awaited from the peer; packets queue */
	CH3M_VC_OPEN,       /* conn carries packets */
	CH3M_VC_FAILED,     /* the peer is lost; every send ends in error */
};

struct ch3m_vc {
	enum ch3m_vc_state state;
	struct ch3m_conn *conn;   /* borrowed; NULL when IDLE, FAILED, or when only the peer's connect is awaited */
	struct ch3m_conn *parked; /* borrowed; the peer's next connection, decided when conn has ended */
	struct MPIR_Request *sendq_head;
	struct MPIR_Request *sendq_tail;
	struct MPIR_Request *asked; /* first of what waits for the peer's answer (sendq.c) */
};

#define MPIDI_CH3_VC_DECL struct ch3m_vc ch;

struct ch3m_request {
	struct MPIR_Request *asked_next;
	struct MPIR_Request **asked_link; /* what points to this request; NULL: it is in no list */
};

#define MPIDI_CH3_REQUEST_DECL struct ch3m_request ch;
#define MPIDI_CH3_REQUEST_INIT(req_) (req_)->ch.asked_link = NULL

typedef struct {
	unsigned completion_count;
} MPIDI_CH3I_Progress_state;

#define MPIDI_CH3_PROGRESS_STATE_DECL MPIDI_CH3I_Progress_state ch;

extern volatile unsigned int MPIDI_CH3I_progress_completion_count;

#if defined(MPICH_IS_THREADED)
/* A completion that another thread causes ends the wait of the one that sleeps in msock_wait. */
#define MPIDI_CH3I_PROGRESS_WAKEUP                                                                                     \
	do {                                                                                                           \
		if (MPIDI_CH3I_progress_blocked && !MPIDI_CH3I_progress_wakeup_signalled) {                            \
			MPIDI_CH3I_progress_wakeup_signalled = TRUE;                                                   \
			MPIDI_CH3I_Progress_wakeup();                                                                  \
		}                                                                                                      \
	} while (0)
#endif

#endif
