/* SPDX-License-Identifier: MIT */
/*
 * sock_owner.c - who is told by signals what comes on a stream: F_SETOWN, F_SETSIG, O_ASYNC; SIGURG.
 *
 * The kernel tells the owner of the file on which something comes.  As long as a
 * stream is paired that is the program's end of the pair, and its leg has no
 * owner.  When the leg becomes the program's file it gets the owner, and what
 * lies on it already, of which nobody was told, is told by us.  All threads are
 * parked then: if something comes in between, its signal and ours are one.
 */
#include "lib/sock.h"

#include "lib/sys.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>

void sock_owner_note(int fd, struct sock_owner *o)
{
	struct f_owner_ex owner = { 0 };

	ms_fcntl(fd, F_GETOWN_EX, (long)&owner);
	*o = (struct sock_owner){ owner.type, owner.pid, (int)ms_fcntl(fd, F_GETSIG, 0) };
}

void sock_owner_set(int fd, const struct sock_owner *o)
{
	struct f_owner_ex owner = { o->type, o->id };

	if (o->id)
		ms_fcntl(fd, F_SETOWN_EX, (long)&owner);
	ms_fcntl(fd, F_SETSIG, o->signal);
}

void sock_owner_copy(int from, int to)
{
	struct sock_owner o;

	sock_owner_note(from, &o);
	sock_owner_set(to, &o);
}

void sock_owner_clear(int fd)
{
	ms_fcntl(fd, F_SETOWN, 0);
	ms_fcntl(fd, F_SETSIG, 0);
}

/* A signal without a reason of its own (si_code 0) comes as kill sends it, as does one to others than us. */
static void owner_signal(const struct sock_owner *o, const siginfo_t *info)
{
	int own = ms_getpid();

	if (o->type == F_OWNER_TID && info->si_code > 0)
		ms_tgsigqueueinfo(own, o->id, info->si_signo, info);
	else if (o->type == F_OWNER_TID)
		ms_tgkill(own, o->id, info->si_signo);
	else if (o->type == F_OWNER_PID && o->id == own && info->si_code > 0)
		ms_sigqueueinfo(own, info->si_signo, info);
	else
		ms_kill(o->type == F_OWNER_PGRP ? -o->id : o->id, info->si_signo);
}

/* What F_SETSIG names comes with what happened and where. */
static void tell_readable(int fd, const struct sock_owner *o)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	siginfo_t info = { 0 };

	if (!(ms_fcntl(fd, F_GETFL, 0) & O_ASYNC) || ms_poll(&p, 1, 0) <= 0)
		return;
	info.si_signo = o->signal;
	if (info.si_signo) {
		info.si_code = POLL_IN;
		info.si_fd = fd;
		info.si_band = POLLIN | POLLRDNORM;
	} else {
		info.si_signo = SIGIO;
	}
	owner_signal(o, &info);
}

void sock_owner_tell(int fd)
{
	siginfo_t urgent = { .si_signo = SIGURG };
	struct sock_owner o;

	sock_owner_note(fd, &o);
	if (!o.id)
		return;
	if (sock_urgent_waits(fd))
		owner_signal(&o, &urgent);
	tell_readable(fd, &o);
}
