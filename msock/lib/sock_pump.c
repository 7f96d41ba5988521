/* SPDX-License-Identifier: MIT */
/*
 * sock_pump.c - passing bytes on between the program's socket and the stream.
 *
 * To the program: what s->in holds, then what the conn carries, then the leg;
 * each only when the ones before are empty, which keeps the order.  The leg is
 * not read while something is left, so a program that does not read stops its
 * peer as TCP does; unless the leg is being replaced: then it is read to its
 * end, into the carry.
 * From the program: what s->out holds, then the pair.  The pair is read only
 * when s->out is empty and the leg may be written, unless the program is gone.
 */
#include "lib/sock.h"

#include "lib/conn.h"
#include "lib/conn_ops.h"
#include "lib/core.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/sys.h"

#include <errno.h>
#include <sys/ioctl.h>

enum { SOCK_ROUNDS = 8 }; /* of SOCK_BUFFER, before others have their turn */

static uint8_t buffer[SOCK_BUFFER]; /* the lock's holder's */
static struct timer reaper;

static struct sock *sock_of(struct watch *w)
{
	return (struct sock *)((char *)w - offsetof(struct sock, watch));
}

static bool sock_is_open(const struct sock *s)
{
	return s->conn && s->conn->phase == CONN_OPEN;
}

/* One send to the program; bytes that the pair took. */
static size_t sock_say(struct sock *s, const void *bytes, size_t n, int flags)
{
	long sent = s->fd < 0 || s->deaf ? -EPIPE : ms_send(s->fd, bytes, n, flags | MSG_DONTWAIT | MSG_NOSIGNAL);

	if (sent == -EOPNOTSUPP && flags)
		sent = ms_send(s->fd, bytes, n,
			       MSG_DONTWAIT | MSG_NOSIGNAL); /* a kernel whose unix sockets have no urgent byte */

	if (sent >= 0)
		return (size_t)sent;
	if (sent == -EAGAIN || sent == -EINTR || sent == -ENOBUFS || sent == -ENOMEM)
		return 0;
	if (s->fd >= 0 && !s->deaf && sock_number(s) >= 0) {
		s->read_shut = true; /* while it was paired */
		return 0;
	}
	s->deaf = true; /* nobody reads: what comes is dropped, and the peer is told so at the end, as TCP does */
	if (s->conn)
		s->conn->dropped = true;
	return n;
}

static size_t sock_say_urgent(struct sock *s, const void *byte)
{
	size_t went = s->urgent == SOCK_URGENT_READ ? 1 : sock_say(s, byte, 1, MSG_OOB);

	if (!went)
		return 0;
	s->urgent_said = s->urgent_said || s->urgent == SOCK_URGENT_WAITS;
	s->urgent = SOCK_URGENT_NONE;
	return went;
}

/* To the program; how many it has now. */
static size_t sock_give(struct sock *s, const void *bytes, size_t n)
{
	size_t given = 0;

	while (given < n) {
		const uint8_t *at = (const uint8_t *)bytes + given;
		size_t part = sock_until_urgent(s, n - given);
		size_t went = part ? sock_say(s, at, part, 0) : sock_say_urgent(s, at);

		given += went;
		s->given += went;
		if (!went || went < part)
			break;
	}
	return given;
}

static bool sock_give_carry(struct sock *s, struct carry *c)
{
	while (c->length) {
		struct iovec iov = { buffer, sizeof(buffer) };
		size_t n = carry_peek(c, &iov), given = sock_give(s, buffer, n);

		carry_drop(c, given);
		if (given < n)
			return false;
	}
	return true;
}

/* An error that the program shall read: its own end of the pair holds it, if ours is closed with something unread. */
static void sock_say_reset(struct sock *s)
{
	int number;

	if (s->reset_said)
		return;
	s->reset_said = true;
	if (!s->error)
		s->error = s->conn && s->conn->s.error ? s->conn->s.error : ECONNRESET;
	number = sock_number(s);
	if (number >= 0 && !s->filler)
		ms_send(number, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	sock_close_own(s);
}

/* The program may have looked at it already (MSG_PEEK, FIONREAD, poll): it must not be gone when it reads. */
void sock_refill(struct sock *s)
{
	if (s->kind == SOCK_IS_STREAM && s->fd >= 0 && !s->filler)
		sock_give_carry(s, &s->in);
}

static void sock_say_end(struct sock *s)
{
	if (s->end_said || s->fd < 0)
		return;
	s->end_said = true;
	ms_shutdown(s->fd, SHUT_WR);
}

/* What waits for the program, and then the end. */
static void sock_feed(struct sock *s)
{
	struct conn *c = s->conn;

	if (s->filler || !sock_give_carry(s, &s->in))
		return;
	if (c && c->carry.length) {
		sock_give_carry(s, &c->carry);
		conn_ops_carry_taken(c);
		if (c->carry.length)
			return;
	}
	if (!c || c->phase != CONN_OPEN || !stream_at_eof(&c->s))
		return;
	if (c->s.error)
		sock_say_reset(s);
	else
		sock_say_end(s);
}

/* From the leg to the program at once, while nothing lies in between. */
static void sock_pass(struct sock *s)
{
	struct conn *c = s->conn;

	for (int i = 0; i < SOCK_ROUNDS && sock_wants_leg(s); i++) {
		struct iovec iov = { buffer, sizeof(buffer) };
		ssize_t n = conn_readv(c, &iov, 1);
		size_t given;

		if (n <= 0)
			break;
		given = sock_give(s, buffer, (size_t)n);
		if (given < (size_t)n && !carry_put(&s->in, buffer + given, (size_t)n - given)) {
			ms_log(LOG_ERROR, "stream %lx: no memory for what the program does not read", c->s.id);
			stream_break(&c->s, ENOMEM, "no memory");
		}
	}
}

static void sock_put_away(struct sock *s)
{
	struct conn *c = s->conn;

	s->reap = false;
	s->conn = NULL;
	if (c) {
		c->sock = NULL;
		conn_close(c);
	}
	if (s->listener) {
		s->listener->sock = NULL;
		listener_close(s->listener);
		s->listener = NULL;
	}
	sock_close_own(s);
}

static void sock_later(struct timer *t)
{
	for (struct sock *s = sock_first(), *next; s; s = next) {
		next = s->next;
		if (s->reap)
			sock_put_away(s);
	}
}

/*
 * A port is free when close has returned, whether the agent has seen that or
 * not.  The caller holds the lock, and uses neither conn nor listener.
 */
void sock_free_port(uint16_t port)
{
	for (struct sock *s = sock_first(), *next; s; s = next) {
		struct pollfd own = { .fd = s->fd };

		next = s->next;
		if (s->port != port || s->kind == SOCK_IS_STREAM)
			continue;
		if (s->kind == SOCK_IS_IDLE && sock_number(s) < 0) {
			sock_destroy(s);
		} else if (s->kind == SOCK_IS_LISTENER && s->fd >= 0 && ms_poll(&own, 1, 0) == 1 &&
			   own.revents & POLLHUP) {
			s->gone = true;
			sock_put_away(s);
		}
	}
}

/* Not at once: whoever calls may still use the conn. */
static void sock_end(struct sock *s)
{
	s->reap = true;
	reaper.fire = sock_later;
	engine_timer_set(&reaper, 0);
}

static void sock_say_fin(struct sock *s)
{
	if (s->fin_said || !s->conn)
		return;
	s->fin_said = true;
	if (s->gone)
		sock_end(s);
	else
		conn_shutdown(s->conn);
}

/* The stream cannot be written any more: the program's next write says EPIPE. */
static void sock_cannot_write(struct sock *s)
{
	carry_clear(&s->out);
	s->out_urgent = 0;
	s->out_end = true;
	s->fin_said = true;
	if (s->fd >= 0) {
		ms_shutdown(s->fd, SHUT_RD);
		while (ms_recv(s->fd, buffer, sizeof(buffer), MSG_DONTWAIT) > 0)
			; /* who waits for room is told by poll only when there is some */
	}
	if (s->gone)
		sock_end(s);
}

/* One write to the leg: bytes it took. */
static size_t sock_write(struct sock *s, const void *bytes, size_t n, bool urgent)
{
	ssize_t sent = conn_send(s->conn, bytes, n, urgent ? MSG_OOB : 0);

	if (sent >= 0)
		return (size_t)sent;
	if (sent == -EAGAIN || sent == -ENOBUFS || sent == -ENOMEM)
		return 0;
	s->failed = true;
	sock_cannot_write(s);
	return n;
}

/* What was kept goes to the leg. True: nothing is kept any more. */
static bool sock_push(struct sock *s)
{
	while (s->out.length && sock_is_open(s)) {
		struct iovec iov = { buffer, sizeof(buffer) };
		size_t n = carry_peek(&s->out, &iov), sent;

		if (s->out_urgent)
			n = s->out_urgent == 1 ? 1 : n < s->out_urgent - 1 ? n : s->out_urgent - 1;
		sent = sock_write(s, buffer, n, s->out_urgent == 1);
		if (!s->out.length)
			break; /* given up */
		carry_drop(&s->out, sent);
		s->out_urgent -= s->out_urgent ? sent : 0;
		if (sent < n)
			return false;
	}
	if (!s->out.length && s->out_end && sock_is_open(s))
		sock_say_fin(s);
	return !s->out.length;
}

/* The pair is at its end or broken. */
static void sock_pulled_all(struct sock *s, long n)
{
	if (n == -ECONNRESET && s->conn)
		s->conn->abort = true; /* the program has closed it without reading all */
	s->out_end = true;
}

/* The peer has closed: as TCP does, the first write is taken, and answered by what the next one says. */
static bool sock_is_void(const struct sock *s)
{
	return stream_is_void(&s->conn->s) && !s->conn->s.app_fin;
}

static bool sock_takes(const struct sock *s)
{
	return sock_is_open(s) && (stream_may_write(&s->conn->s) || sock_is_void(s));
}

/* Bytes of the program: straight to the leg; the rest is kept. */
static void sock_pull(struct sock *s)
{
	s->pull_more = false;
	for (int i = 0; (s->gone || i < SOCK_ROUNDS) && !s->out_end && s->fd >= 0; i++) {
		bool kept = s->out.length > 0 || !sock_takes(s);
		bool urgent;
		size_t written;
		long n;

		if (kept && !s->gone) {
			s->pull_more = true;
			return;
		}
		urgent = sock_at_mark(s->fd);
		n = ms_recv(s->fd, buffer, urgent ? 1 : sizeof(buffer), MSG_DONTWAIT);
		if (n == -EAGAIN)
			return;
		if (n == -EINTR)
			continue;
		if (n <= 0) {
			sock_pulled_all(s, n);
			return;
		}
		written = kept ? 0 : sock_write(s, buffer, (size_t)n, urgent);
		if (urgent && !written)
			s->out_urgent = s->out.length + 1;
		if (written < (size_t)n && !s->out_end && !carry_put(&s->out, buffer + written, (size_t)n - written)) {
			ms_log(LOG_ERROR, "no memory for what the program writes");
			sock_cannot_write(s);
		}
	}
	s->pull_more = !s->out_end;
}

static bool sock_leg_unread(const struct sock *s)
{
	int n = 0;

	return stream_reads(&s->conn->s) == STREAM_FROM_LEG && !ms_ioctl(s->conn->fd, FIONREAD, &n) && n > 0;
}

/* Closed, and TCP would answer that with a reset. */
static bool sock_end_resets(struct sock *s)
{
	if (s->conn->abort || sock_option_resets(s))
		return true;
	return (s->in.length || s->conn->carry.length || sock_leg_unread(s)) && sock_number(s) < 0;
}

/* Nobody has it any more, or it was shut both ways. */
static void sock_hung_up(struct sock *s)
{
	s->gone = true;
	if (s->kind == SOCK_IS_LISTENER || !sock_is_open(s)) {
		sock_end(s);
		return;
	}
	sock_pull(s);
	s->out_end = true;
	s->deaf = true;
	if (sock_end_resets(s)) {
		s->conn->abort = true;
		carry_clear(&s->out); /* what TCP has not sent then, it does not send */
		s->out_urgent = 0;
	}
	carry_clear(&s->in);
	engine_watch(&s->watch, s->fd, 0);
}

/* Nothing more can come either way, and the program may still read what its end of the pair holds. */
static bool sock_is_through(struct sock *s)
{
	return s->end_said && s->fin_said && !s->out.length && sock_number(s) >= 0;
}

void sock_ready(struct watch *w, uint32_t events)
{
	struct sock *s = sock_of(w);

	if (events & EPOLLHUP && !s->gone && sock_is_through(s))
		sock_end(s);
	else if (events & EPOLLHUP && !s->gone && !(s->end_said && s->out_end && sock_number(s) >= 0))
		sock_hung_up(s);
	else if (s->kind == SOCK_IS_STREAM && events & (EPOLLIN | EPOLLRDHUP | EPOLLERR))
		sock_pull(s);
	if (s->kind != SOCK_IS_STREAM)
		return;
	sock_push(s);
	sock_feed(s);
	if (s->conn)
		conn_sync(s->conn);
	else
		sock_sync(s);
}

void sock_leg_ready(struct sock *s, uint32_t events)
{
	struct conn *c = s->conn;

	if (events & EPOLLOUT && sock_push(s))
		sock_pull(s);
	if (events & EPOLLPRI)
		s->urgent_comes = true;
	if (events & ~(uint32_t)EPOLLOUT) {
		if (c->s.state == STREAM_STEADY || c->s.state == STREAM_ASKED)
			sock_pass(s);
		else
			conn_drain(c);
	}
	s->urgent_comes = s->urgent_comes && sock_urgent_comes(c->fd);
	sock_feed(s);
	conn_sync(c);
}

bool sock_wants_leg(const struct sock *s)
{
	return !s->direct && !s->filler && !s->in.length && !s->conn->carry.length && !sock_is_settling(s);
}

bool sock_wants_room(const struct sock *s)
{
	return s->out.length && stream_may_write(&s->conn->s);
}

static uint32_t sock_events(const struct sock *s)
{
	uint32_t events = EPOLLMSG; /* never there: its end only */

	if (s->kind != SOCK_IS_STREAM || s->filler)
		return events;
	if (!s->out_end && !s->out.length && sock_takes(s))
		events |= EPOLLIN;
	if (s->out_end && s->end_said)
		events |= EPOLLET; /* both ways shut: it is hung up from now on */
	if (s->in.length || (s->conn && s->conn->carry.length))
		events |= s->read_shut ? EPOLLOUT | EPOLLET : EPOLLOUT;
	if (sock_is_settling(s))
		events |= EPOLLOUT | EPOLLET; /* each time that the program has read something */
	return events;
}

void sock_fill(struct sock *s, int app)
{
	long n;

	while ((n = ms_send(app, buffer, sizeof(buffer), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
		s->filler += (size_t)n;
}

/* The connect has succeeded: the program's end becomes writable. */
static void sock_unfill(struct sock *s)
{
	while (s->filler) {
		size_t want = s->filler < sizeof(buffer) ? s->filler : sizeof(buffer);
		long n = ms_recv(s->fd, buffer, want, MSG_DONTWAIT);

		if (n <= 0 && n != -EINTR)
			break;
		if (n > 0)
			s->filler -= (size_t)n;
	}
	s->filler = 0;
}

/* Where the stream has changed: show the program what is new, watch what is now to be watched. */
void sock_sync(struct sock *s)
{
	struct conn *c = s->conn;

	if (c && c->phase == CONN_FAILED && !s->reset_said) {
		s->error = c->error;
		sock_say_reset(s);
	}
	if (s->direct)
		return;
	sock_consider(s);
	if (sock_is_open(s) && s->filler && !s->want_swap) {
		s->local = c->local;
		sock_unfill(s);
	}
	if (sock_is_open(s) && !s->in.length && !c->carry.length && stream_at_eof(&c->s)) {
		if (c->s.error)
			sock_say_reset(s);
		else
			sock_say_end(s);
	}
	if (s->read_shut && s->fd >= 0 && !s->filler && !s->in.length && !(c && c->carry.length))
		ms_shutdown(s->fd, SHUT_WR);
	if (sock_is_open(s) && stream_is_void(&c->s) && !s->fin_said && (s->out.length || !sock_is_void(s)))
		sock_cannot_write(s);
	if (sock_is_open(s) && s->out_end && !s->out.length)
		sock_say_fin(s);
	if (s->gone && !s->reap && !sock_is_open(s) && (s->fd >= 0 || c || s->listener))
		sock_end(s);
	if (s->fd >= 0 && !s->gone)
		engine_watch(&s->watch, s->fd, sock_events(s));
	if (s->pull_more && sock_is_settling(s))
		sock_pull_later(); /* no event tells of what is there already */
}

/* Something to read for accept: the program learns how many by calling it. */
void sock_listener_tell(struct sock *s)
{
	if (s->fd >= 0)
		ms_send(s->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

bool sock_unsent(struct sock *s)
{
	int n = 0;

	if (s->kind != SOCK_IS_STREAM || !s->conn || s->conn->phase == CONN_FAILED)
		return false;
	if (s->reap)
		return true;
	if (!s->shared && sock_is_open(s) && (sock_is_unread(s->conn) || sock_leg_unread(s)))
		return false; /* its end is a reset, as TCP has it */
	if (s->out.length)
		return true;
	return !s->out_end && s->fd >= 0 && !s->filler && !ms_ioctl(s->fd, FIONREAD, &n) && n > 0;
}
