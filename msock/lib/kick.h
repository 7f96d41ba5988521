/* SPDX-License-Identifier: MIT */
/*
 * kick.h - the kick signal: how the kernel, the agent and a freeze reach a thread of the application.
 */
#ifndef MSOCK_LIB_KICK_H
#define MSOCK_LIB_KICK_H

#include <stdbool.h>

#include "lib/hooks.h"

/* Install the handler. 0 or -errno. */
int kick_install(void);

/* The signal comes, with O_ASYNC, for what happens on fd. 0 or -errno. */
int kick_attach(int fd);

/* Was an EINTR since the look the kick's alone? */
struct kick_seen {
	unsigned kicks, app;
};
void kick_look(struct kick_seen *seen);
bool kick_only(const struct kick_seen *seen);

/* A kick came while somebody sat in msock_wait. Lock held. */
bool kick_take_pending(void);

#endif
