/* SPDX-License-Identifier: MIT */
/*
 * A process that becomes another program.  What stands under a number then is
 * all that the program gets, so each stream must be direct; and nobody will
 * answer a relink, so its peer must not begin one.  The peer is told (BOUND),
 * and says yes when it is not moving; until then we are here to take part.
 */
#include "lib/kin.h"

#include "lib/conn.h"
#include "lib/conn_ops.h"
#include "lib/core.h"
#include "lib/holders.h"
#include "lib/sock.h"
#include "lib/sys.h"

#include <sys/stat.h>

#define KIN_BIND_NS 20000000ull /* between repeats */

struct kept {
	uint64_t ino;
	bool is;
};

static void kept_look(int fd, const struct stat *st, void *arg)
{
	struct kept *kept = arg;

	kept->is = kept->is || (st->st_ino == kept->ino && !(ms_fcntl(fd, F_GETFD, 0) & FD_CLOEXEC));
}

/* The new program will have it, and what becomes of it is ours to settle. */
static bool kin_is_kept(struct sock *s)
{
	const struct conn *c = s->conn;
	struct kept kept = { .ino = s->ino };

	if (s->kind != SOCK_IS_STREAM || s->inherited || !c || c->phase != CONN_OPEN || c->s.state == STREAM_OVER ||
	    c->peer_member == core.id)
		return false;
	sock_each_number(false, kept_look, &kept);
	return kept.is && !(s->direct && kin_holder(s));
}

static void kin_say_bound(struct conn *c)
{
	struct stream_msg msg = { .type = MS_RL_BOUND, .stream = c->s.id, .leg = c->s.leg };
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);

	if (now < c->bound_ns)
		return;
	c->bound_ns = now + KIN_BIND_NS;
	msg.pids[0] = (uint32_t)holders_self();
	relink_say(c->peer_member, &msg);
}

struct conn *kin_exec_waits(void)
{
	struct conn *first = NULL;

	if (!core.member)
		return NULL;
	for (struct sock *s = sock_first(); s; s = s->next) {
		struct conn *c = s->conn;
		bool settled;

		if (!kin_is_kept(s))
			continue;
		settled = s->direct && c->s.state == STREAM_STEADY && !c->heir;
		if (settled && (c->bound || c->s.last_leg))
			continue;
		first = first ? first : c;
		if (settled)
			kin_say_bound(c);
	}
	return first;
}

void kin_exec_failed(void)
{
	for (struct conn *c = conn_first(); c; c = c->next) {
		if (!c->bound_ns)
			continue;
		c->bound = false;
		c->bound_ns = 0;
		c->heir = true;
		c->heir_of = core.id;
		c->heir_tries = 0;
		kin_say_heir(c);
	}
}
