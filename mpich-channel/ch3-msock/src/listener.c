/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <msock.h>

#include "connection.h"
#include "listener.h"

enum { BACKLOG = 1024 };

static int listener_sd = -1;
static struct sockaddr_in listener_addr;

int ch3m_listener_open(void)
{
	int mpi_errno = MPI_SUCCESS;

	listener_sd = msock_listen(BACKLOG, &listener_addr);
	if (listener_sd < 0)
		MPIR_ERR_SETANDJUMP2(mpi_errno, MPI_ERR_OTHER, "**fail", "**fail %s %d", "msock_listen", errno);
	msock_want(listener_sd, MSOCK_READ, &listener_sd);
fn_fail:
	return mpi_errno;
}

void ch3m_listener_close(void)
{
	if (listener_sd >= 0)
		msock_close(listener_sd);
	listener_sd = -1;
}

const struct sockaddr_in *ch3m_listener_address(void)
{
	return &listener_addr;
}

const void *ch3m_listener_user(void)
{
	return &listener_sd;
}

int ch3m_listener_event(void)
{
	int mpi_errno = MPI_SUCCESS;
	int sd;

	while ((sd = msock_accept(listener_sd, NULL)) >= 0) {
		struct ch3m_conn *conn = ch3m_conn_create(sd, CH3M_CONN_GREETED);

		MPIR_ERR_CHKANDJUMP(!conn, mpi_errno, MPI_ERR_OTHER, "**nomem");
		ch3m_conn_want(conn, MSOCK_READ);
	}
	/* A call that ended before it was taken is the caller's business; the rest is this host's. */
	if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		MPIR_ERR_SET2(mpi_errno, MPI_ERR_OTHER, "**fail", "**fail %s %d", "msock_accept", errno);
fn_fail:
	return mpi_errno;
}
