/* SPDX-License-Identifier: MIT */
/*
 * The progress engine.  One thread at a time is in it: it holds MPICH's global
 * lock, which it gives up only while it sleeps in msock_wait.  Then
 * MPIDI_CH3I_progress_blocked is TRUE; a thread that comes to wait as well
 * sleeps on a condition until something has completed, and a thread that
 * completes something wakes the sleeper by msock_wakeup.  A thread that spins
 * lets others have the lock after each look that found nothing; each turn of
 * its loop begins with what they may have changed: completions, a sleeper.
 */
#include <errno.h>
#include <msock.h>

#include "connection.h"
#include "handshake.h"
#include "listener.h"
#include "recv.h"
#include "sendq.h"
#include "spin.h"

enum {
	EVENTS_MAX = 32,    /* of one msock_wait */
	HOT_READS_MAX = 16, /* successful reads of the hot connection between two looks at all events */
	HOT_LOOKS_MAX = 4,  /* looks at the hot connection alone, while a wait spins */
};

volatile unsigned int MPIDI_CH3I_progress_completion_count = 0;

#ifdef MPICH_IS_THREADED
volatile int MPIDI_CH3I_progress_blocked = FALSE;
volatile int MPIDI_CH3I_progress_wakeup_signalled = FALSE;
static MPID_Thread_cond_t completion_cond;
#endif

/*
 * The connection from which the last two reads came.  It is likely to be the
 * next one too, so it is read without asking msock_wait first.
 */
static struct ch3m_conn *hot;
static struct ch3m_conn *last_read;
static unsigned hot_reads;
static int handling; /* events are being handled; a handler must not come back here */

static int read_conn(struct ch3m_conn *conn, size_t *bytes)
{
	int mpi_errno = ch3m_recv_read(conn, bytes);

	if (*bytes) {
		hot = last_read == conn ? conn : NULL;
		last_read = conn;
	}
	return mpi_errno;
}

static int handle_open_event(struct ch3m_conn *conn, unsigned events)
{
	int mpi_errno = MPI_SUCCESS;
	size_t bytes;

	if (events & MSOCK_WRITE)
		mpi_errno = ch3m_sendq_flush(conn->vc);
	MPIR_ERR_CHECK(mpi_errno);
	if (events & MSOCK_READ && conn->state == CH3M_CONN_OPEN)
		mpi_errno = read_conn(conn, &bytes);
fn_fail:
	return mpi_errno;
}

static int handle_event(const struct msock_event *event)
{
	struct ch3m_conn *conn = event->user;

	if (event->sd < 0) {
		MPIDI_CH3_Progress_signal_completion();
		return MPI_SUCCESS;
	}
	if (event->user == ch3m_listener_user())
		return ch3m_listener_event();
	switch (conn->state) {
	case CH3M_CONN_OPEN:
	case CH3M_CONN_CLOSING:
		return handle_open_event(conn, event->events);
	case CH3M_CONN_LOST:
	case CH3M_CONN_DEAD: /* since msock_wait returned the event */
		return MPI_SUCCESS;
	default:
		return ch3m_handshake_event(conn, event->events);
	}
}

static int handle_events(const struct msock_event *events, int count)
{
	int mpi_errno = MPI_SUCCESS;

	handling = TRUE;
	for (int i = 0; i < count && mpi_errno == MPI_SUCCESS; i++)
		mpi_errno = handle_event(&events[i]);
	handling = FALSE;
	return mpi_errno;
}

/* No event is at hand and no thread is in msock_wait: what has been closed can go. */
static void reap(void)
{
	if (hot && hot->state != CH3M_CONN_OPEN)
		hot = NULL;
	if (last_read && last_read->state != CH3M_CONN_OPEN)
		last_read = NULL;
	ch3m_conn_reap();
}

static int read_hot(int *found)
{
	size_t bytes;
	int mpi_errno;

	handling = TRUE;
	mpi_errno = read_conn(hot, &bytes);
	handling = FALSE;
	*found = bytes > 0;
	return mpi_errno;
}

/* Look for events without sleeping; only at the hot connection, if there is one, unless thorough. */
static int look(int thorough, int *found)
{
	struct msock_event events[EVENTS_MAX];
	int mpi_errno = MPI_SUCCESS;
	int count;

	*found = FALSE;
	if (hot && hot_reads++ < HOT_READS_MAX) {
		mpi_errno = read_hot(found);
		if (mpi_errno || *found || !thorough)
			return mpi_errno;
	}
	hot_reads = 0;
	count = msock_wait(events, EVENTS_MAX, 0);
	if (count <= 0)
		return MPI_SUCCESS;
	*found = TRUE;
	return handle_events(events, count);
}

/* Before each look and each sleep. */
static int prepare(void)
{
	int mpi_errno;

	reap();
	mpi_errno = ch3m_handshake_decide_parked();
	return mpi_errno ? mpi_errno : ch3m_conn_end_grace();
}

/* Sleep until there is an event, without the lock. */
static int sleep_and_handle(void)
{
	struct msock_event events[EVENTS_MAX];
	int mpi_errno = MPI_SUCCESS;
	int timeout_ms = ch3m_conn_grace_ms();
	int count, error;

#ifdef MPICH_IS_THREADED
	MPIDI_CH3I_progress_blocked = TRUE;
	MPID_THREAD_CS_EXIT(GLOBAL, MPIR_THREAD_GLOBAL_ALLFUNC_MUTEX);
#endif
	count = msock_wait(events, EVENTS_MAX, timeout_ms);
	error = errno;
#ifdef MPICH_IS_THREADED
	MPID_THREAD_CS_ENTER(GLOBAL, MPIR_THREAD_GLOBAL_ALLFUNC_MUTEX);
	MPIDI_CH3I_progress_blocked = FALSE;
	MPIDI_CH3I_progress_wakeup_signalled = FALSE;
#endif
	if (count < 0) {
		if (error != EINTR)
			MPIR_ERR_SET2(mpi_errno, MPI_ERR_OTHER, "**fail", "**fail %s %d", "msock_wait", error);
		return mpi_errno;
	}
	return handle_events(events, count);
}

static int progress_test(void)
{
	int mpi_errno;
	int done = FALSE;

	mpi_errno = MPIR_Progress_hook_exec_all(&done);
	MPIR_ERR_CHECK(mpi_errno);
	if (done || handling)
		goto fn_fail;
#ifdef MPICH_IS_THREADED
	if (MPIDI_CH3I_progress_blocked) /* the sleeper sees to it */
		goto fn_fail;
#endif
	mpi_errno = prepare();
	MPIR_ERR_CHECK(mpi_errno);
	mpi_errno = look(TRUE, &done);
fn_fail:
	return mpi_errno;
}

#ifdef MPICH_IS_THREADED
/* Another thread sleeps in msock_wait: leave the events to it. */
static void wait_for_other(void)
{
	unsigned count = MPIDI_CH3I_progress_completion_count;
	int err;

	while (count == MPIDI_CH3I_progress_completion_count && MPIDI_CH3I_progress_blocked)
		MPID_Thread_cond_wait(&completion_cond, &MPIR_THREAD_GLOBAL_ALLFUNC_MUTEX, &err);
}

static void wake_others(void)
{
	int err;

	if (MPIR_IS_THREADED)
		MPID_Thread_cond_broadcast(&completion_cond, &err);
}
#else
#define wake_others()
#endif

static int progress_wait(MPID_Progress_state *state)
{
	struct ch3m_spin spin;
	int mpi_errno = MPI_SUCCESS;
	int found = TRUE; /* something happened since the last look: what is waited for is a new event */

	do {
		int hooked = FALSE;

		mpi_errno = MPIR_Progress_hook_exec_all(&hooked);
		MPIR_ERR_CHECK(mpi_errno);
		if (hooked) {
			MPIDI_CH3_Progress_signal_completion();
			break;
		}
#ifdef MPICH_IS_THREADED
		if (MPIR_IS_THREADED && MPIDI_CH3I_progress_blocked) {
			wait_for_other();
			goto fn_exit;
		}
#endif
		mpi_errno = prepare();
		MPIR_ERR_CHECK(mpi_errno);
		if (state->ch.completion_count != MPIDI_CH3I_progress_completion_count)
			break;
		if (found)
			ch3m_spin_begin(&spin, hot != NULL);
		if (ch3m_spin_again(&spin)) {
			mpi_errno = look(spin.plan == CH3M_SPIN_LONG && spin.looks % HOT_LOOKS_MAX == 0, &found);
			if (found)
				ch3m_spin_found(&spin);
			else
				MPID_THREAD_CS_YIELD(GLOBAL, MPIR_THREAD_GLOBAL_ALLFUNC_MUTEX);
		} else {
			mpi_errno = sleep_and_handle();
			found = TRUE;
		}
		MPIR_ERR_CHECK(mpi_errno);
	} while (state->ch.completion_count == MPIDI_CH3I_progress_completion_count);
fn_exit:
	wake_others();
	state->ch.completion_count = MPIDI_CH3I_progress_completion_count;
	return mpi_errno;
fn_fail:
	goto fn_exit;
}

int MPIDI_CH3I_Progress(int blocking, MPID_Progress_state *state)
{
	return blocking ? progress_wait(state) : progress_test();
}

#ifdef MPICH_IS_THREADED
void MPIDI_CH3I_Progress_wakeup(void)
{
	msock_wakeup();
}
#endif

int MPIDI_CH3_Connection_terminate(MPIDI_VC_t *vc)
{
	if (vc->state != MPIDI_VC_STATE_CLOSED) /* the process manager says that the peer has failed */
		return ch3m_conn_fail_vc(vc);
	if (vc->ch.state != CH3M_VC_OPEN) /* the peer has died after its word that it closes too: nobody is there to hear ours */
		ch3m_sendq_fail(vc);
	if (!vc->ch.sendq_head)
		return ch3m_conn_end_vc(vc);
	ch3m_conn_step(vc->ch.conn, CH3M_CONN_CLOSING);
	ch3m_conn_want(vc->ch.conn, MSOCK_WRITE);
	return MPI_SUCCESS;
}

int MPIDI_CH3I_Progress_init(void)
{
	int mpi_errno = MPI_SUCCESS;

#ifdef MPICH_IS_THREADED
	int err;

	MPID_Thread_cond_create(&completion_cond, &err);
	MPIR_ERR_CHKANDJUMP(err, mpi_errno, MPI_ERR_OTHER, "**nomem");
#endif
	if (msock_init() < 0)
		MPIR_ERR_SETANDJUMP2(mpi_errno, MPI_ERR_OTHER, "**fail", "**fail %s %d", "msock_init", errno);
	ch3m_spin_init();
	mpi_errno = ch3m_listener_open();
	MPIR_ERR_CHECK(mpi_errno);
	mpi_errno = ch3m_recv_init();
fn_fail:
	return mpi_errno;
}

int MPIDI_CH3I_Progress_finalize(void)
{
	struct ch3m_conn *conn;

	ch3m_listener_close();
	while ((conn = ch3m_conn_first())) {
		if (conn->vc)
			conn->vc->ch.state = CH3M_VC_IDLE;
		ch3m_conn_close(conn);
	}
	reap();
	msock_finalize();
#ifdef MPICH_IS_THREADED
	int err;

	MPID_Thread_cond_destroy(&completion_cond, &err);
#endif
	return MPI_SUCCESS;
}
