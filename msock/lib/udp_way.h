/* SPDX-License-Identifier: MIT */
/*
 * udp_way.h - from one of our UDP sockets to a virtual address: where that is, and whether we are known there.
 *
 * A datagram carries no virtual name.  So a way is open only when the other
 * side is known to have noted where this very socket is (udp_names.h), and,
 * if it is connected to us, to hear us there.  Both come of one exchange, by
 * relay messages, which find a member wherever it is:
 *
 *   WHERE  my socket is here; where is yours of this port?   asked when something waits, and every second in use
 *   AT     here; and I have noted your place                 opens the way of who asked
 *   NOTED  I have noted yours                                opens the way back
 *
 * What is sent before waits in the way.  A place has a serial number; what is
 * told of an older one than is known does not count.
 * doc/protocol.md, "Datagrams", has the rules and what they are for.
 * Lock held.
 */
#ifndef MSOCK_LIB_UDP_WAY_H
#define MSOCK_LIB_UDP_WAY_H

#include "lib/udp.h"

enum {
	UDP_RECENT_S = 60,           /* who talked with a socket within this time is told of its moves */
	UDP_CHECK_MS = 1000,         /* a way in use is asked for this often */
	UDP_AGAIN_MS = 500,          /* one that is waited for */
	UDP_WAITING_BYTES = 1 << 20, /* that wait in a way; then the oldest goes */
	UDP_WAITING = 1024,          /* datagrams, likewise */
	UDP_DATAGRAM = 65507,        /* the most that one can have */
};

struct place;
struct udp_datagram;

struct udp_way {
	struct udp_way *next;
	struct udp *own; /* borrowed */
	uint32_t ip;     /* virtual */
	uint16_t port;
	uint32_t member;  /* whose the address is */
	bool owned;       /* ... which is known */
	uint32_t request; /* to the address server; 0: none is open */
	bool nobody;      /* said so: nobody is bound there */
	uint32_t real_ip;
	uint16_t real_port; /* 0: not known */
	uint64_t serial;    /* of that place */
	uint64_t noted;     /* own->serial as the other side has noted it */
	bool deaf;          /* it is connected to us, and not yet to our place */
	uint64_t hold_m;    /* the last move of its member for which we were to hold */
	uint64_t over_m;    /* the last one that is known to be over: what is still said of it comes late */
	bool watched;       /* it is connected to us: told of every move */
	uint64_t asked_ns, used_ns, heard_ns;
	struct udp_datagram *first, *last; /* owned; wait */
	unsigned waiting;
	size_t waiting_bytes;
	uint64_t burst_ns;   /* the millisecond that began then: */
	unsigned burst_left; /* ... so many more may go in it */
};

struct udp_way *udp_way_find(const struct udp *u, uint32_t ip, uint16_t port);
/* NULL: no memory. */
struct udp_way *udp_way_get(struct udp *u, uint32_t ip, uint16_t port);
/* All of them: NULL begins, and NULL ends. The one given must still be there. */
struct udp_way *udp_way_next(const struct udp_way *w);

/* Its member is about to move. */
static inline bool udp_way_held(const struct udp_way *w)
{
	return w->hold_m > w->over_m;
}

/* May datagrams go? */
bool udp_way_open(const struct udp_way *w);

/*
 * Send, or let it wait.  fd: a number of the socket; msg has no name.  Bytes
 * of the datagram or -errno; EAGAIN only if the kernel says so.
 */
long udp_way_send(struct udp_way *w, int fd, const struct msghdr *msg, int flags);
/* It waits in the way. */
long udp_way_wait(struct udp_way *w, const struct iovec *iov, size_t count);

/* Ask for it if that is due. */
void udp_way_check(struct udp_way *w, uint64_t now_ns);
void udp_way_ask(struct udp_way *w);
/* Something about it has changed: connect anew, send what waits. */
void udp_way_changed(struct udp_way *w);
/* What waits goes, if it may. */
void udp_way_flush(struct udp_way *w);
/* Its other side is to be told of a move. */
bool udp_way_recent(const struct udp_way *w, uint64_t now_ns);
/* A datagram came from there, out of that place: who sends to us has noted us. */
void udp_way_heard(struct udp *u, uint32_t ip, uint16_t port, uint32_t real_ip, uint16_t real_port);

/* A socket got its port; it is no more; its member ended. */
void udp_way_bound(struct udp *u);
void udp_way_end(struct udp *u);
void udp_way_member_ended(uint32_t member);

/* The address server's answer; false if it was not asked here. */
bool udp_way_placed(uint32_t request, const struct place *p);
/* A relay message; false if it is none of these. */
bool udp_way_message(uint32_t from, const void *bytes, size_t size);

/* Datagrams that wait and may still go: of one socket, or (NULL) of all. */
unsigned udp_way_unsent(const struct udp *u);

/* Whoever waits for a change sleeps on this word. */
extern uint32_t udp_way_changes;

#endif
