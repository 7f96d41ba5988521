/* SPDX-License-Identifier: MIT */
#include "history.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/log.h"
#include "rank.h"

struct history { /* of one host */
	Ms__Figures now;
	char *machine; /* owned; now.machine is the same */
	/* The oldest first, without a gap; doubles are told as they are. */
	double busy[HISTORY_SAMPLES], pressure[HISTORY_SAMPLES];
	size_t count;
};

static struct made {       /* a move that has its report */
	Ms__MoveMade told; /* strings are owned */
	time_t at;
} made[HISTORY_MOVES]; /* the last first */
static size_t made_count;
static struct history_totals totals;

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void push(double *list, size_t count, double value)
{
	if (count == HISTORY_SAMPLES)
		memmove(list, list + 1, (HISTORY_SAMPLES - 1) * sizeof(*list));
	list[count == HISTORY_SAMPLES ? count - 1 : count] = value;
}

static void note_ranks(struct host *h, const Ms__Sample *s)
{
	for (size_t i = 0; i < s->n_ranks; i++) {
		struct rank *r = rank_find(h->c, s->ranks[i]->member);

		/* After a commit the old host may still tell of what is no longer there. */
		if (!r || r->host != h)
			continue;
		r->load = s->ranks[i]->load;
		r->rss_bytes = s->ranks[i]->rss_bytes;
	}
}

void history_sample(struct host *h, const Ms__Sample *s)
{
	struct history *y = h->history;

	if (!s->host)
		return;
	if (!y && !(y = h->history = calloc(1, sizeof(*y))))
		log_die("out of memory");
	free(y->machine);
	y->machine = strdup(s->host->machine);
	y->now = *s->host;
	y->now.machine = y->machine;
	push(y->busy, y->count, s->host->busy);
	push(y->pressure, y->count, s->host->pressure);
	y->count += y->count < HISTORY_SAMPLES;
	note_ranks(h, s);
}

void history_fill(const struct host *h, Ms__HostState *e)
{
	struct history *y = h->history;

	if (!y || !h->link)
		return;
	e->now = &y->now;
	e->busy = y->busy;
	e->n_busy = y->count;
	e->pressure = y->pressure;
	e->n_pressure = y->count;
}

void history_move(const Ms__MoveReport *r)
{
	struct made *m = &made[HISTORY_MOVES - 1];

	if (r->committed) {
		totals.moved++;
		totals.freeze_ms += r->freeze_ms;
		totals.total_ms += r->total_ms;
	} else {
		totals.aborted++;
	}
	if (made_count == HISTORY_MOVES) {
		free(m->told.from);
		free(m->told.to);
		free(m->told.error);
	} else {
		made_count++;
	}
	memmove(made + 1, made, (HISTORY_MOVES - 1) * sizeof(*made));
	m = made;
	ms__move_made__init(&m->told);
	m->told.member = MS_MEMBER(r->world, r->rank);
	m->told.from = strdup(r->from);
	m->told.to = strdup(r->to);
	m->told.state = (char *)(r->committed ? "moved" : "refused");
	m->told.total_ms = r->total_ms;
	m->told.freeze_ms = r->freeze_ms;
	m->told.image_bytes = r->image_bytes;
	m->told.error = strdup(r->error);
	m->at = now_s();
}

void history_totals(struct history_totals *t)
{
	*t = totals;
}

void history_moves(Ms__PsReply *reply)
{
	time_t now = now_s();

	reply->moves = calloc(made_count + 1, sizeof(*reply->moves));
	if (!reply->moves)
		log_die("out of memory");
	reply->n_moves = made_count;
	for (size_t i = 0; i < made_count; i++) {
		made[i].told.ago_s = (double)(now - made[i].at);
		reply->moves[i] = &made[i].told;
	}
}
