/* SPDX-License-Identifier: MIT */
/*
 * vsock.h - virtual sockets by number, and what msock_wait is told about them.
 */
#ifndef MSOCK_LIB_VSOCK_H
#define MSOCK_LIB_VSOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "msock.h"

enum { VSOCK_MAX = 65536 }; /* numbers beyond are refused with EMFILE */

enum vsock_kind { VSOCK_LISTENER, VSOCK_CONN, VSOCK_UDP };

/* Embedded in struct listener and struct conn. */
struct vsock {
	enum vsock_kind kind;
	int sd;              /* the number; -1: the application has none (any more) */
	uint32_t generation; /* tells late events of a number's former owner */
	unsigned want;       /* MSOCK_READ and MSOCK_WRITE, from msock_want */
	void *user;
	uint32_t registered; /* epoll events in the application's set; 0: not in it */
	bool ready;          /* in the list of those that have events without the kernel */
	unsigned ready_events;
	struct vsock *ready_next, *ready_prev;
};

/* Make or, at the target, make again epoll set and wake-ups under their old numbers, if there were any. 0 or -errno. */
int vsock_open(bool again);
void vsock_close_all(void);
/* In a forked child, which closes them by itself: it has none of its own. */
void vsock_forked(void);

/* Give the number to v; -EMFILE if it is too large. */
int vsock_bind(struct vsock *v, int sd);
void vsock_unbind(struct vsock *v);
struct vsock *vsock_get(int sd);

/* What the kernel shall watch for the application, and what is there without it. */
void vsock_watch(struct vsock *v, uint32_t epoll_events);
void vsock_ready(struct vsock *v, unsigned events);
void vsock_forget(struct vsock *v); /* the epoll set is a new one */

/* msock_wait without the count of callers: n or -errno. */
int vsock_wait(struct msock_event *events, int max, int timeout_ms);
void vsock_wakeup(void);

/* A thread sits in msock_wait and will see what is ready in the engine. Lock held. */
bool vsock_has_waiter(void);

int vsock_own_fds(int *fds, int max); /* numbers of the library's own descriptors here */

#endif
