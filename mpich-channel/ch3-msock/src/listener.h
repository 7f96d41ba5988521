/* SPDX-License-Identifier: MIT */
/* The listener: the one socket on which other ranks call this one. */
#ifndef CH3M_LISTENER_H
#define CH3M_LISTENER_H

#include <netinet/in.h>

/* Returns an MPI error code. */
int ch3m_listener_open(void);
void ch3m_listener_close(void);

const struct sockaddr_in *ch3m_listener_address(void);

/* What msock_event.user is for the listener. */
const void *ch3m_listener_user(void);

/* Take the calls that are there. Returns an MPI error code. */
int ch3m_listener_event(void);

#endif
