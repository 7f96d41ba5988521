/* SPDX-License-Identifier: MIT */
/*
 * sock_urgent.c - the urgent byte keeps its place in the stream and its urgency.
 *
 * Legs, and the library's ends of pairs, have SO_OOBINLINE: bytes can then be
 * taken and counted in order, and a read stops ahead of the byte, where
 * SIOCATMARK tells.  Its place is remembered as a place in the stream, so it
 * may wait in a carry and move with the member.  The program's own end of a
 * pair gets it with MSG_OOB, which unix sockets know since Linux 5.15; on an
 * older kernel it comes in order, and is not urgent.
 *
 * TCP has one urgent byte at a time, the last one; so have we.  A byte that
 * becomes urgent on a leg that a mirror reads comes in order, not urgent.
 */
#include "lib/sock.h"

#include "lib/conn.h"
#include "lib/leg_counts.h"
#include "lib/sys.h"
#include "lib/tcp_state.h"

#include <errno.h>
#include <linux/tcp.h>
#include <sys/ioctl.h>

#ifndef SIOCATMARK
#define SIOCATMARK 0x8905
#endif

enum { URGENT_TRIES = 1000, UNREAD_MAX = 1 << 30 };

bool sock_at_mark(int fd)
{
	int mark = 0;

	return !ms_ioctl(fd, SIOCATMARK, &mark) && mark;
}

void sock_inline(int fd, int on)
{
	ms_setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
}

bool sock_is_inline(int fd)
{
	int on = 0;
	socklen_t size = sizeof(on);

	ms_getsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, &size);
	return on;
}

/* Before a read of the leg, whose next byte is that at s->conn->s.taken. */
void sock_note_mark(struct sock *s, int leg)
{
	uint64_t at = s->conn->s.taken;

	if ((s->urgent && s->urgent_at == at) || !sock_at_mark(leg))
		return;
	s->urgent = SOCK_URGENT_WAITS;
	s->urgent_at = at;
}

static uint64_t leg_received(int leg)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);

	ms_getsockopt(leg, IPPROTO_TCP, TCP_INFO, &info, &size);
	return info.tcpi_bytes_received - tcp_fin_received(info.tcpi_state);
}

/* Is there an urgent byte that was not read, or the word of one?  fd has no SO_OOBINLINE. */
static bool urgent_is_there(int fd)
{
	char byte;
	long n = ms_recv(fd, &byte, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT);

	return n == 1 || n == -EAGAIN;
}

/* What a leg without SO_OOBINLINE told. */
struct glance {
	uint64_t received;
	bool waits, at_head; /* at_head: the urgent byte is the next one, read or not */
	int ahead;
	uint64_t behind; /* at_head: bytes behind it */
};

/* False: something came meanwhile. */
static bool look_once(int leg, struct glance *g)
{
	long behind = 0;

	*g = (struct glance){ .received = leg_received(leg), .waits = urgent_is_there(leg) };
	ms_ioctl(leg, FIONREAD, &g->ahead);
	g->at_head = sock_at_mark(leg);
	if (g->at_head)
		behind = ms_recv(leg, NULL, UNREAD_MAX, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
	g->behind = behind > 0 ? (uint64_t)behind : 0;
	return urgent_is_there(leg) == g->waits && /* the word of one may come ahead of it */
	       leg_received(leg) == g->received;
}

/*
 * Sets SO_OOBINLINE and tells what lies ahead of the urgent byte and whether the
 * program has had that.  What comes after that, sock_note_mark sees: nobody
 * reads now.
 *
 * When another byte becomes urgent the kernel passes the old one by if it is the
 * next, until SO_OOBINLINE is set; after that it is read as others are, also if
 * the program has had it.  Which of the two it was is told by the place up to
 * which the leg has been read; one that the program has had is passed by here if
 * the kernel has not done it.
 *
 * Behind others, there is one if less can be read up to it than had come in all.
 * If no less, and one waits, only the word of it has come, as when the window is
 * full: where it will lie the kernel does not tell.
 *
 * Where the program has set SO_OOBINLINE it stays: a byte would be passed by that
 * the program has not had, and cannot have had.  sock_note_mark sees it.
 */
void sock_urgent_look(int leg, struct sock_urgent *u)
{
	*u = (struct sock_urgent){ 0 };
	if (sock_is_inline(leg))
		return;
	for (int i = 0; i < URGENT_TRIES; i++) {
		struct leg_counts n;
		struct glance g;
		char byte;

		sock_inline(leg, 0);
		if (!look_once(leg, &g))
			continue;
		sock_inline(leg, 1);
		if (!leg_count(leg, &n))
			return;
		if (g.at_head) {
			bool passed = n.taken != g.received - 1 - g.behind;

			u->marked = u->waits = g.waits && !passed;
			if (!g.waits && !passed)
				ms_recv(leg, &byte, 1, MSG_DONTWAIT);
			return;
		}
		u->ahead = g.ahead;
		u->marked = (uint64_t)g.ahead < g.received - n.taken;
		u->waits = u->marked && g.waits;
		return;
	}
	sock_inline(leg, 1);
}

/* Is one there that was not read? */
bool sock_urgent_comes(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLPRI };

	return ms_poll(&p, 1, 0) == 1 && p.revents & POLLPRI;
}

/*
 * Is there an urgent byte that the program has not had, or the word of one?
 * SO_OOBINLINE, without which the kernel does not tell of a word, is off only
 * when no byte is there, which another could have passed by.
 */
bool sock_urgent_waits(int fd)
{
	bool in_line, there;

	if (sock_urgent_comes(fd))
		return true;
	in_line = sock_is_inline(fd);
	if (in_line)
		sock_inline(fd, 0);
	there = urgent_is_there(fd);
	if (in_line)
		sock_inline(fd, 1);
	return there;
}

/* s->conn->s.taken is right again. */
void sock_urgent_keep(struct sock *s, const struct sock_urgent *u)
{
	s->urgent = !u->marked ? SOCK_URGENT_NONE : u->waits ? SOCK_URGENT_WAITS : SOCK_URGENT_READ;
	s->urgent_at = s->conn->s.taken + (uint32_t)u->ahead;
}

/* Of the next n bytes for the program, how many lie ahead of the urgent one. */
size_t sock_until_urgent(const struct sock *s, size_t n)
{
	if (!s->urgent || s->urgent_at < s->given || s->urgent_at >= s->given + n)
		return n;
	return (size_t)(s->urgent_at - s->given);
}
