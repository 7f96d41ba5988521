/* SPDX-License-Identifier: MIT */
#include "lib/hooks.h"

#include "lib/agent.h"
#include "lib/conn.h"
#include "lib/core.h"
#include "lib/engine.h"
#include "lib/sock.h"
#include "lib/sys.h"
#include "lib/udp.h"

int msock__next_own_fd(int from)
{
	return core_next_own_fd(from);
}

bool msock__owns_fd(int fd)
{
	return fd >= 0 && core_next_own_fd(fd) == fd;
}

/* The child's copies of the member's descriptors would keep legs open that the member closes. */
void msock__after_fork_child(void)
{
	if (!core_here())
		return;
	for (struct udp *u = core.on ? udp_first() : NULL; u; u = u->next)
		ms_close(u->v.sd);
	if (sock_calls_forked())
		return;
	core.on = false;
	core.member = false;
	core.check = false; /* what the streams are to be like is the member's affair */
	core.lock.word = 0;
	engine_pause(true);
	agent_reset();
	for (struct conn *c = conn_first(); c; c = c->next)
		conn_forked(c);
	for (int fd = core_next_own_fd(0); fd >= 0; fd = core_next_own_fd(fd + 1)) {
		ms_close(fd);
		core_own_fd(fd, false);
	}
}
