/* SPDX-License-Identifier: MIT */
/*
 * msstandin - what a forked child leaves in its place when it moves to another
 * host: its number, so that its parent can signal it and wait for it.  The
 * child becomes this program when the record of its first move is there
 * (lib/move.c).
 *
 *   msstandin CONTROL KICK
 *
 * CONTROL is the child's control socket, of which msdaemon knows whose it is
 * now (msdaemon/standin.h).  All signals are blocked when it starts, so none is
 * lost in between; each goes to msdaemon, but the library's own, KICK.  It ends
 * as msdaemon says, which is as the child has ended.  SIGKILL and SIGSTOP
 * cannot be seen: when it is gone msdaemon has the child killed.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <fcntl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/codec.h"
#include "proto/end.h"
#include "proto/wire.h"

enum { STANDIN_PACKET = 64 };

static void pass_on(int control, int signo)
{
	uint8_t buf[STANDIN_PACKET];
	struct ms_codec c;

	ms_codec_init(&c, buf, sizeof(buf));
	ms_put_u8(&c, MS_WIRE_VERSION);
	ms_put_u8(&c, MS_M_SIGNALLED);
	ms_put_u32(&c, (uint32_t)signo);
	send(control, buf, (size_t)(c.at - buf), MSG_NOSIGNAL);
}

/* What was meant for the child, and queued before the move, is read too. */
static void hear(int control)
{
	static uint8_t buf[MS_CTL_MAX];
	ssize_t n = recv(control, buf, sizeof(buf), 0);
	struct ms_codec c;

	if (n <= 0)
		_exit(end_by(SIGKILL)); /* msdaemon is gone, and the host with it */
	ms_codec_init(&c, buf, (size_t)n);
	if (ms_get_u8(&c) != MS_WIRE_VERSION || ms_get_u8(&c) != MS_D_END)
		return;
	_exit(end_as((int)ms_get_u32(&c)));
}

int main(int argc, char **argv)
{
	int control = argc > 2 ? atoi(argv[1]) : -1, kick = argc > 2 ? atoi(argv[2]) : 0;
	struct signalfd_siginfo s;
	struct pollfd p[2];
	sigset_t all;

	fcntl(control, F_SETFL, 0); /* it is not to kick */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL); /* one that is blocked is kept, whatever its default */
	p[0] = (struct pollfd){ .fd = control, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = signalfd(-1, &all, SFD_CLOEXEC), .events = POLLIN };
	if (control < 0 || p[1].fd < 0)
		return 255;
	for (;;) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents && read(p[1].fd, &s, sizeof(s)) == sizeof(s) && (int)s.ssi_signo != kick)
			pass_on(control, (int)s.ssi_signo);
		if (p[0].revents)
			hear(control);
	}
}
