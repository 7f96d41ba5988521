/* SPDX-License-Identifier: MIT */
/*
 * listener.h - virtual listeners, and the kernel listener through which connections and legs come in.
 */
#ifndef MSOCK_LIB_LISTENER_H
#define MSOCK_LIB_LISTENER_H

#include <netinet/in.h>

#include "lib/engine.h"
#include "lib/vsock.h"

struct conn;
struct sock;

/* Its number is an eventfd that counts the connections in its queue. */
struct listener {
	struct vsock v;
	uint16_t port; /* virtual */
	unsigned backlog;
	unsigned held;             /* in the queue or half open */
	struct conn *first, *last; /* confirmed, oldest first */
	struct sock *sock;         /* borrowed; the program's socket: there is no eventfd then */
	int fd;                    /* alone: its own kernel listener; else -1 */
	struct watch watch;
	struct listener *next;
};

struct listener *listener_open(int backlog, int *error);

/* On this virtual port (0: any), for the program's own socket. */
struct listener *listener_open_for(struct sock *s, uint16_t port, unsigned backlog, int *error);
bool listener_port_taken(uint16_t port);
uint16_t listener_port_free(void);
void listener_close(struct listener *l);
struct conn *listener_accept(struct listener *l);
struct listener *listener_first(void);

/* The connection is confirmed: show it. */
void listener_show(struct listener *l, struct conn *c);

/* A half-open connection is gone. */
void listener_drop(struct listener *l, struct conn *c);

/* The member's one data listener. data_listen returns the descriptor or -errno and fills in core.data_port. */
int data_listen(void);
int data_listener_fd(void);
void data_listener_adopt(int fd); /* at the target: the restorer made one under the same number */
void data_listener_close(void);

int inbound_fds(int *fds, int max);

/* At a freeze: connections whose first frame is not complete are nobody's. */
void inbound_drop_all(void);
void inbound_forked(void); /* in a child: they are the parent's */

/* At the target: make the eventfd under its number again. */
void listener_remake(struct listener *l);

#endif
