/* SPDX-License-Identifier: MIT */
/*
 * join.h - hosts that come to a running job, or leave it without a rank.
 *
 *   (unknown or lost) --HostRequest with address--> joining --its daemon calls--> up --drop--> dropped
 *                                                      '-- no daemon in time --> dropped, the tool is told why
 *
 * A host that was dropped stays in the list, since ranks that ended there name it, but nobody finds it.
 */
#ifndef LAUNCHER_JOIN_H
#define LAUNCHER_JOIN_H

#include "coord.h"
#include "host.h"

/* A tool's request; it gets exactly one HostAnswer. */
void join_request(struct coord *c, struct link *tool, const Ms__HostRequest *q);
/* The daemon of a host that was joining has called; not yet welcomed. */
void join_up(struct host *h);
/* It is lost before that. False: it was not joining. */
bool join_failed(struct host *h, const char *why);
void join_tool_gone(struct coord *c, struct link *tool);

#endif
