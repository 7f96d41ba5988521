/* SPDX-License-Identifier: MIT */
/* Receiving: packets of an OPEN connection are read and handed to the device. */
#ifndef CH3M_RECV_H
#define CH3M_RECV_H

#include "connection.h"

/* Make the table of packet handlers. Returns an MPI error code. */
int ch3m_recv_init(void);

/* Read what is there and handle it. *bytes says how much that was. Returns an MPI error code. */
int ch3m_recv_read(struct ch3m_conn *conn, size_t *bytes);

#endif
