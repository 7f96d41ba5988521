/* SPDX-License-Identifier: MIT */
/*
 * move.h - a move of a rank as the coordinator drives it, from the request to
 * the report; the coordinator is the one that commits (protocol.md 36 to 38).
 */
#ifndef LAUNCHER_MOVE_H
#define LAUNCHER_MOVE_H

#include "coord.h"
#include "host.h"
#include "rank.h"

/* A tool's request. It gets exactly one MoveReport. */
void move_request(struct coord *c, struct link *tool, const Ms__MoveRequest *q);
/* The tool has gone: the move goes on, nobody is told. */
void move_tool_gone(struct coord *c, struct link *tool);

/* Does a move that is not over come from the host or go there? */
bool move_touches(const struct host *h);

void move_pong(struct host *h, uint64_t request);
void move_want_commit(struct host *h, const Ms__WantCommit *w);
void move_want_abort(struct host *h, const Ms__WantAbort *w);
void move_progress(struct coord *c, const Ms__Progress *p);
/* Another's step: into the records, and to the tool if it wants to know. */
void move_step(struct coord *c, const Ms__Step *s);
void move_checked(struct host *h, const Ms__Checked *k);
void move_host_lost(struct host *h, const char *why);
void move_rank_ended(struct rank *r);

#endif
