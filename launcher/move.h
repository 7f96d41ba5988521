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

struct journal_move;
/*
 * A coordinator that was started again, and a move that the one before had accepted: without a record (it goes on if the source's
 * daemon has begun it, else it is ABORTED), or with COMMITTED.
 */
void move_restore(struct journal_move *j, bool begun);
void move_restore_committed(struct journal_move *j, bool mirror);
/* To a daemon that asks, or may not know: the record of move m, if there is one. */
void move_repeat_outcome(struct host *h, uint32_t member, uint64_t m);

void move_pong(struct host *h, uint64_t request);
void move_want_commit(struct host *h, const Ms__WantCommit *w);
void move_want_abort(struct host *h, const Ms__WantAbort *w);
void move_progress(struct coord *c, const Ms__Progress *p);
/* Another's step: into the records, and to the tool if it wants to know. */
void move_step(struct coord *c, const Ms__Step *s);
void move_checked(struct host *h, const Ms__Checked *k);
void move_host_lost(struct host *h, const char *why);
void move_rank_ended(struct rank *r);
/* It is about to be forgotten, and its moves with it. */
void move_rank_forgotten(struct rank *r);

#endif
