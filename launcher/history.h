/* SPDX-License-Identifier: MIT */
/* history.h - what the daemons' samples told about hosts and ranks in the last two minutes, and the last moves. */
#ifndef LAUNCHER_HISTORY_H
#define LAUNCHER_HISTORY_H

#include "coord.h"
#include "host.h"

enum { HISTORY_SAMPLES = 60, HISTORY_MOVES = 32 };

void history_sample(struct host *h, const Ms__Sample *s);
/* Fills in now, busy and pressure; they are borrowed until the next sample comes. */
void history_fill(const struct host *h, Ms__HostState *e);

/* A move got its report. */
void history_move(const Ms__MoveReport *r);
/* Fills in moves, the last first; they are borrowed, the list itself is to be freed with free(). */
void history_moves(Ms__PsReply *reply);

struct history_totals {
	uint64_t moved, aborted;
	double freeze_ms, total_ms; /* of those that moved, together */
};
/* Since the job began. */
void history_totals(struct history_totals *t);

#endif
