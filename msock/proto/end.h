/* SPDX-License-Identifier: MIT */
/* end.h - to end as another process has ended, of which the status from wait(2) tells. */
#ifndef MSOCK_PROTO_END_H
#define MSOCK_PROTO_END_H

/* Ends by this signal, without a core: that process has left it. Returns the exit status to end with if it is one that ends nobody. */
int end_by(int signo);

/* Ends by a signal, or returns the exit status to end with. */
int end_as(int status);

#endif
