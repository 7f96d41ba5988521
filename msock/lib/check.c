/* SPDX-License-Identifier: MIT */
#include "lib/check.h"

#include "lib/conn.h"
#include "lib/core.h"
#include "lib/log.h"
#include "lib/sys.h"

#include <errno.h>

static const char *check_legs(const struct conn *c)
{
	const struct stream *s = &c->s;

	if (c->fd < 0)
		return "no descriptor";
	if (c->old_fd >= 0 && s->state != STREAM_BOTH)
		return "an older leg's descriptor, but not BOTH";
	if (s->state == STREAM_BOTH && (c->old_fd < 0) != s->mirrored)
		return "BOTH wants either the older leg's descriptor or a mirror";
	if (c->mirror && !s->mirrored)
		return "a mirror for a leg that is the process's own";
	if (c->dial.fd >= 0 && !s->dialling)
		return "a dial that the stream does not know";
	if (c->leg.events & EPOLLIN && stream_reads(s) != STREAM_FROM_LEG)
		return "the engine reads a leg that is not to be read";
	if (c->old_leg.events && stream_reads(s) != STREAM_FROM_OLDER)
		return "the engine reads an older leg that is not to be read";
	return NULL;
}

static const char *check_application(const struct conn *c)
{
	const struct stream *s = &c->s;

	if (c->closed && (c->v.sd >= 0 || c->v.registered || c->carry.length))
		return "closed, but the application can see it";
	if (c->v.sd >= 0 && c->v.sd != c->fd)
		return "the number is not the leg's";
	if (c->v.sd >= 0 && vsock_get(c->v.sd) != &c->v)
		return "the number belongs to another";
	if (c->v.registered & EPOLLOUT && !stream_may_write(s))
		return "shown as writable, but told or shut";
	if (c->v.registered & EPOLLIN && (c->carry.length || stream_reads(s) != STREAM_FROM_LEG))
		return "read from the kernel past what is carried";
	if (c->carry.length > s->taken)
		return "more is carried than was taken";
	return NULL;
}

void check_all(void)
{
	for (const struct conn *c = conn_first(); c; c = c->next) {
		const char *what;

		if (c->phase != CONN_OPEN)
			continue;
		what = stream_check(&c->s);
		if (!what)
			what = check_legs(c);
		if (!what)
			what = check_application(c);
		if (!what)
			continue;
		ms_log(LOG_ERROR, "FATAL: stream %lx leg %u %s: %s", c->s.id, c->s.leg, stream_state_name(c->s.state),
		       what);
		ms_kill(ms_getpid(), SIGABRT);
		ms_exit_group(134);
	}
}
