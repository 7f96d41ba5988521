/* SPDX-License-Identifier: MIT */
/*
 * recover.h - a coordinator that is started again, because the one before it was killed.
 *
 *   journal and records are read --> every daemon that is not known as lost is called --> what they have (Present)
 *   --> all have answered, or RECOVER_S is over --> moves are decided or go on --> Welcome --> stubs and tools may call
 *
 * 1. The records alone say where a rank lives and how a move ended; the daemons say only what they have of it.
 * 2. A move without a record goes on if the daemon of its source has begun it; else it is ABORTED now.  Nobody can have
 *    been told otherwise: a record is in the file before its outcome is sent.
 * 3. What a daemon had asked for (WANT_COMMIT, WANT_ABORT, WHERE) is asked again after Welcome, so after 2.
 */
#ifndef LAUNCHER_RECOVER_H
#define LAUNCHER_RECOVER_H

#include "coord.h"
#include "host.h"

/* Reads what the job's directory has. Does not return if that is not enough. */
void recover_read(struct coord *c);
/* Calls the daemons. */
void recover_attach(struct coord *c);
void recover_present(struct host *h, const Ms__Present *p);
/* Has each of them answered, or is lost? */
bool recover_all_known(const struct coord *c);
/* They have: decide. Welcome is to be said next. */
void recover_decide(struct coord *c);
/* A tool asks again for a move that the coordinator before us had accepted, and which is over: it is answered. False: it had not. */
bool recover_report(struct coord *c, struct link *tool, const Ms__MoveRequest *q);

#endif
