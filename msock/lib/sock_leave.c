/* SPDX-License-Identifier: MIT */
/*
 * sock_leave.c - the program closes a direct socket, or ends: the kernel closes the connection, and the peer is told
 * before what has to be known of it later.
 */
#include "lib/conn.h"
#include "lib/control.h"
#include "lib/core.h"
#include "lib/kin.h"
#include "lib/sock_direct.h"
#include "lib/sys.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

struct others {
	uint64_t ino;
	unsigned count;
};

static void sock_count_number(int fd, const struct stat *st, void *arg)
{
	struct others *o = arg;

	o->count += st->st_ino == o->ino;
}

/* The kernel resets the peer: unread bytes, or the program wants it so. */
static bool sock_close_resets(const struct sock *s, const struct leg_counts *n)
{
	return n->unread > 0 || sock_option_resets(s);
}

/* The options may be another process's, who has set others since the fork. */
bool sock_ends_in_order(struct sock *s, int fd)
{
	bool in_line = sock_is_inline(fd), is;
	struct leg_counts n;

	sock_inline(fd, 1); /* or what lies behind an urgent byte is not counted */
	is = leg_count(fd, &n) && !sock_close_resets(s, &n);
	if (is)
		sock_counts_end(s, &n);
	sock_inline(fd, in_line);
	return is;
}

/* A child's, of a stream that is its parent's; if the parent has let go of it, this may have been the last one. */
static void sock_close_inherited(struct sock *s, int fd)
{
	if (sock_ends_in_order(s, fd))
		kin_last_word(s->conn, false);
	sock_abandon(s);
	sock_destroy(s);
}

static void sock_close_last(struct sock *s, int fd)
{
	struct conn *c = s->conn;
	struct leg_counts n;
	int leg = -1;

	if (s->inherited) {
		sock_close_inherited(s, fd);
		return;
	}
	if (kin_lets_go(s, fd)) {
		sock_abandon(s);
		sock_destroy(s);
		return;
	}
	sock_inline(fd, 1);
	if (!leg_count(fd, &n) || sock_close_resets(s, &n)) {
		sock_direct_lost(s);
		sock_destroy(s);
		return;
	}
	sock_counts_end(s, &n);
	if (n.unsent > n.fin_sent && !sock_option_lingers(s))
		leg = leg_dup(fd); /* rule 6: it is still a leg until the peer has all */
	if (leg >= 0) {
		sock_ends_direct(s);
		leg_take(leg);
		c->fd = leg;
		core_own_fd(leg, true);
	} else {
		c->s.app_fin = true;
		c->s.error = 0;
		sock_bury(s);
	}
	sock_destroy(s);
}

void sock_closing(struct sock *s, int fd)
{
	struct others others = { .ino = s->ino };

	if (!s->direct)
		return;
	if (s->duplicated)
		sock_each_number(false, sock_count_number, &others);
	if (others.count > 1)
		return;
	sock_close_last(s, fd);
}

static void sock_note_range(int fd, const struct stat *st, void *arg)
{
	const unsigned *range = arg;
	struct sock *s = sock_find_inode(st->st_ino);

	if (!s || !s->direct)
		return;
	if ((unsigned)fd >= range[0] && (unsigned)fd <= range[1])
		s->closing = fd;
	else
		s->number = fd;
}

/* One look at all numbers: several of one socket may be in the range, and others outside. */
void sock_closing_range(unsigned first, unsigned last)
{
	unsigned range[] = { first, last };
	bool any = false;

	for (struct sock *s = sock_first(); s; s = s->next) {
		if (s->direct)
			s->number = s->closing = -1;
		any = any || s->direct;
	}
	if (any)
		sock_each_number(false, sock_note_range, range);
	for (struct sock *s = sock_first(), *next; s; s = next) {
		next = s->next;
		if (s->direct && s->number < 0 && s->closing >= 0)
			sock_close_last(s, s->closing);
	}
}

bool sock_is_unread(const struct conn *c)
{
	int unread = 0;

	if (c->carry.length || (c->sock && c->sock->in.length) || (c->dropped && !c->s.eof))
		return true;
	return c->sock && c->sock->fd >= 0 && !ms_ioctl(c->sock->fd, SIOCOUTQ, &unread) && unread > 0;
}

/*
 * What lies unread here and not in the leg: the leg's own end would be in order.
 * Where the peer knows of a relink it sees a reset by itself (rule 29).
 */
static void sock_leave_unread(const struct conn *c)
{
	bool told = c->s.state == STREAM_FLUSHING || c->s.state == STREAM_PARKED || c->s.state == STREAM_OVER;

	if (c->phase == CONN_OPEN && !told && !(c->sock && c->sock->shared) && sock_is_unread(c))
		leg_resets(c->fd);
}

/* Rule 29: a child's parents may be asked for it; else only who is told has to say how its end ends. */
static bool sock_owes_word(const struct conn *c)
{
	if (c->phase != CONN_OPEN || c->s.state == STREAM_OVER || c->s.error || sock_is_unread(c))
		return false;
	return core.kin || c->s.state != STREAM_STEADY;
}

/* The process ends, and has these numbers still. */
void sock_leave_all(void)
{
	for (struct sock *s = sock_first(), *next; s && core.kin; s = next) {
		int number = s->direct ? sock_number(s) : -1;

		next = s->next;
		if (number >= 0)
			sock_close_last(s, number);
	}
	/* What has been written is with a kernel, which sends it, or dies with what is unread (sock_unsent). */
	for (struct conn *c = conn_first(); c; c = c->next) {
		if (sock_owes_word(c))
			kin_last_word(c, true);
		sock_leave_unread(c);
	}
	control_flush_now();
	engine_pause(true); /* and so it stays */
}
