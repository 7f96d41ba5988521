/* SPDX-License-Identifier: MIT */
#include "move.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "history.h"
#include "jobdir.h"
#include "journal.h"
#include "plain.h"
#include "proto/log.h"
#include "recover.h"
#include "step.h"

enum { MOVE_FLUSH_MS = 1000, MOVE_PING_S = 3, MOVE_TIMEOUT_MS = 60000, MOVE_DRAIN_MS = 50 };

/*
 *  PINGED -> BEGUN -> COMMITTED -> RESUMED -> (report: relinked, no mirror left)
 *     |        '----> ABORTED --------------> (report)
 *     '-> (report: host cannot be reached)
 */
enum move_state {
	MOVE_PINGED,    /* does the target's daemon answer? */
	MOVE_BEGUN,     /* the source's daemon works at it; no record yet */
	MOVE_COMMITTED, /* the rank is at the target; its threads were told to go on */
	MOVE_RESUMED,   /* they go on; another move may begin */
	MOVE_ABORTED,
};

static const char *const state_names[] = { "PINGED", "BEGUN", "COMMITTED", "RESUMED", "ABORTED" };

struct move {
	LIST_ENTRY(move) entry;
	struct coord *c;        /* borrowed */
	struct rank *rank;      /* borrowed */
	struct host *from, *to; /* borrowed */
	struct link *tool;      /* borrowed; NULL: gone or told */
	enum move_state state;
	uint64_t m, ping;
	Ms__MoveRequest request; /* strings not used after BEGUN but fault */
	char *fault;
	Ms__MoveOptions options;
	bool events; /* the tool wants to hear of each step */
	struct timespec began;
	struct event *timer;
	Ms__MoveReport report; /* strings are set when it is sent */
	char tracking[16];
	Ms__Checked checked; /* of a check */
	struct journal_move *
		origin; /* borrowed; the coordinator before us accepted it: how it ended is noted there. NULL: we did */
	bool relinked, mirror, mirror_done;
};

static double ms_since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - then->tv_sec) * 1e3 + (double)(now.tv_nsec - then->tv_nsec) / 1e6;
}

static void set_state(struct move *v, enum move_state state)
{
	log_say(LOG_DEBUG, "move %llu of rank %u.%u: %s -> %s", (unsigned long long)v->m, MS_MEMBER_WORLD(v->rank->id),
		MS_MEMBER_RANK(v->rank->id), state_names[v->state], state_names[state]);
	v->state = state;
}

static bool undecided(const struct move *v)
{
	return v->state == MOVE_PINGED || v->state == MOVE_BEGUN;
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A fault at a step of ours: we die, or the target's host is cut off. What was sent before is on its way. */
static void take_fault(struct move *v, enum ms_fault act)
{
	if (act != MS_FAULT_DIE && act != MS_FAULT_CUT)
		return;
	link_flush(v->to->link, MOVE_FLUSH_MS);
	link_flush(v->from->link, MOVE_FLUSH_MS);
	log_say(LOG_WARN, "fault %s", v->fault);
	if (act == MS_FAULT_DIE)
		kill(getpid(), SIGKILL);
	link_break(v->to->link);
}

static void tell_step(struct coord *c, struct move *v, const Ms__Step *s)
{
	json_t *line = step_json(s);

	if (v && ms_fault_at(v->fault, s->step) == MS_FAULT_FULL)
		jobdir_fill(c);
	if (line && s->step != MS_STEP_SENDING) {
		json_object_set_new(line, "job", json_string(c->job));
		jobdir_record(c, line);
	} else {
		json_decref(line);
	}
	if (v && v->tool && v->events)
		link_send(v->tool, LINK_MSG(STEP, step, (Ms__Step *)s));
}

/* A step of ours is done. */
static void step(struct move *v, enum ms_step which, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t figures[MS_STEP_FIGURES] = { a, b, c };
	Ms__Step s = MS__STEP__INIT;

	s.member = v->rank->id;
	s.m = v->m;
	s.step = which;
	s.host = (char *)"";
	s.mono_ns = now_ns(CLOCK_MONOTONIC);
	s.wall_ns = now_ns(CLOCK_REALTIME);
	s.n_figures = MS_STEP_FIGURES;
	s.figures = figures;
	tell_step(v->c, v, &s);
	take_fault(v, ms_fault_at(v->fault, which));
}

static void report(struct move *v, const char *error)
{
	Ms__MoveReport *r = &v->report;

	r->world = MS_MEMBER_WORLD(v->rank->id);
	r->rank = MS_MEMBER_RANK(v->rank->id);
	r->from = v->from->name;
	r->to = v->to->name;
	r->m = v->m;
	r->committed = v->state == MOVE_COMMITTED || v->state == MOVE_RESUMED;
	r->error = (char *)(error ? error : "");
	r->tracking = v->tracking;
	r->done_ms = ms_since(&v->began);
	if (!v->request.check)
		history_move(r);
	step(v, MS_STEP_REPORTED, r->committed, 0, 0);
	if (v->tool)
		link_send(v->tool, LINK_MSG(MOVE_REPORT, move_report, r));
	v->tool = NULL;
}

static void move_destroy(struct move *v)
{
	if (v->rank->move == v)
		v->rank->move = NULL;
	LIST_REMOVE(v, entry);
	if (v->timer)
		event_free(v->timer);
	free(v->fault);
	free(v);
}

/* The last word, when nothing of the move is left on the old host. */
static void check_done(struct move *v)
{
	if (v->state != MOVE_RESUMED || !v->relinked || (v->mirror && !v->mirror_done))
		return;
	report(v, NULL);
	move_destroy(v);
}

static struct move *find(struct coord *c, uint32_t member, uint64_t m)
{
	struct move *v;

	LIST_FOREACH(v, &c->moves, entry)
	if (v->rank->id == member && v->m == m)
		return v;
	return NULL;
}

static json_t *make_record(const struct move *v, const Ms__WantCommit *w, const char *reason)
{
	char member[32];
	json_t *record, *streams;

	snprintf(member, sizeof(member), "%u.%u", MS_MEMBER_WORLD(v->rank->id), MS_MEMBER_RANK(v->rank->id));
	record = json_pack("{s:s, s:s, s:I, s:s, s:s, s:s}", "job", v->c->job, "member", member, "m", (json_int_t)v->m,
			   "outcome", w ? "COMMITTED" : "ABORTED", "from", v->from->name, "to", v->to->name);
	if (record && !w)
		json_object_set_new(record, "reason", json_string(reason));
	if (!w || !record)
		return record;
	streams = json_array();
	for (size_t i = 0; i < w->image->n_legs; i++) {
		const Ms__Leg *leg = w->image->legs[i];

		json_array_append_new(streams, json_pack("[I, i, s]", (json_int_t)leg->stream, (int)leg->leg,
							 leg->mirrored ? "mirrored" : "drained"));
	}
	json_object_set_new(record, "image_bytes", json_integer((json_int_t)w->image->image_bytes));
	json_object_set_new(record, "rounds", json_integer(w->image->rounds));
	json_object_set_new(record, "image_sum", json_integer((json_int_t)w->image->sum));
	json_object_set_new(record, "virtual_ip", json_integer(v->rank->virtual_ip));
	json_object_set_new(record, "ip", json_integer(w->serving->ip));
	json_object_set_new(record, "port", json_integer(w->serving->port));
	json_object_set_new(record, "streams", streams);
	json_object_set_new(record, "mirror_port", json_integer(w->image->mirror_port));
	return record;
}

static void send_outcome(struct host *h, uint32_t member, uint64_t m, bool committed, const char *reason)
{
	Ms__Outcome o = MS__OUTCOME__INIT;

	o.member = member;
	o.m = m;
	o.committed = committed;
	o.reason = (char *)reason;
	link_send(h->link, LINK_MSG(OUTCOME, outcome, &o));
}

/* The reason may hold names of files, which may be anything. */
static void abort_move(struct move *v, const char *said)
{
	struct rank *r = v->rank;
	bool begun = v->state == MOVE_BEGUN;
	char *reason = strdup(said);

	if (!reason)
		log_die("out of memory");
	plain_text(reason);
	set_state(v, MOVE_ABORTED);
	if (v->origin)
		v->origin->reason = strdup(reason);
	if (begun) {
		jobdir_record(v->c, make_record(v, NULL, reason));
		step(v, MS_STEP_RECORDED, false, 0, 0);
		send_outcome(v->from, r->id, v->m, false, reason);
		step(v, MS_STEP_TOLD_ONE, false, 0, 0);
		send_outcome(v->to, r->id, v->m, false, reason);
		step(v, MS_STEP_TOLD, false, 0, 0);
	}
	r->move = NULL;
	rank_decided(r, v->m, NULL, NULL);
	report(v, v->report.checked ? NULL : reason);
	move_destroy(v);
	free(reason);
}

static void commit_move(struct move *v, const Ms__WantCommit *w)
{
	struct rank *r = v->rank;

	step(v, MS_STEP_WANTED, 0, 0, 0);
	if (jobdir_record(v->c, make_record(v, w, NULL))) {
		abort_move(v, "the coordinator cannot write its record");
		return;
	}
	set_state(v, MOVE_COMMITTED);
	step(v, MS_STEP_RECORDED, true, 0, 0);
	send_outcome(v->to, r->id, v->m, true, "");
	step(v, MS_STEP_TOLD_ONE, true, 0, 0);
	send_outcome(v->from, r->id, v->m, true, "");
	step(v, MS_STEP_TOLD, true, 0, 0);
	if (v->origin) {
		v->origin->committed = true;
		v->origin->image_bytes = w->image->image_bytes;
		v->origin->rounds = w->image->rounds;
	}
	v->report.image_bytes = w->image->image_bytes;
	v->report.rounds = w->image->rounds;
	v->report.drained = w->image->drained;
	v->report.mirrored = w->image->mirrored;
	v->report.pages = w->image->pages;
	v->report.zero_pages = w->image->zero_pages;
	v->report.backed_pages = w->image->backed_pages;
	v->report.packed_bytes = w->image->packed_bytes;
	v->report.saved_bytes = w->image->saved_bytes;
	snprintf(v->tracking, sizeof(v->tracking), "%s", w->tracking);
	v->mirror = w->image->mirror_port != 0;
	rank_decided(r, v->m, v->to, w);
}

void move_repeat_outcome(struct host *h, uint32_t member, uint64_t m)
{
	struct rank *r = rank_find(h->c, member);

	if (r && m > 0 && m <= r->decided)
		send_outcome(h, member, m, r->outcomes[m], "");
}

void move_want_commit(struct host *h, const Ms__WantCommit *w)
{
	struct move *v = w->image && w->serving ? find(h->c, w->image->member, w->image->m) : NULL;

	if (v && v->state == MOVE_BEGUN && v->to == h)
		commit_move(v, w);
	else if (w->image)
		move_repeat_outcome(h, w->image->member, w->image->m);
}

void move_want_abort(struct host *h, const Ms__WantAbort *w)
{
	struct move *v = find(h->c, w->member, w->m);

	if (v && v->state == MOVE_BEGUN)
		abort_move(v, w->reason);
	else
		move_repeat_outcome(h, w->member, w->m);
}

static void begin(struct move *v)
{
	Ms__MoveBegin b = MS__MOVE_BEGIN__INIT;
	Ms__Place to = host_place(v->to);

	set_state(v, MOVE_BEGUN);
	b.member = v->rank->id;
	b.m = v->m;
	b.to = &to;
	b.via = v->request.via;
	b.timeout_ms = v->request.timeout_ms;
	b.drain_ms = v->request.drain_ms;
	b.no_precopy = v->request.no_precopy;
	b.fault = v->fault;
	b.options = &v->options;
	link_send(v->from->link, LINK_MSG(MOVE_BEGIN, move_begin, &b));
	step(v, MS_STEP_BEGUN, 0, 0, 0);
}

static void set_timer(struct move *v, uint32_t ms)
{
	struct timeval limit = { ms / 1000, (ms % 1000) * 1000 };

	event_add(v->timer, &limit);
}

void move_pong(struct host *h, uint64_t request)
{
	struct move *v;

	LIST_FOREACH(v, &h->c->moves, entry)
	if (v->ping == request && v->to == h && v->state == MOVE_PINGED)
		break;
	if (!v)
		return;
	set_timer(v, v->request.timeout_ms);
	begin(v);
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
	struct move *v = arg;
	char text[512];

	if (v->state == MOVE_PINGED) {
		snprintf(text, sizeof(text), "host %s cannot be reached: no answer in %d s", v->to->name, MOVE_PING_S);
		abort_move(v, text);
	} else if (v->state == MOVE_BEGUN) {
		snprintf(text, sizeof(text), "not done in %.1f s: given up, the rank stays on %s",
			 v->request.timeout_ms / 1e3, v->from->name);
		abort_move(v, text);
	} else { /* the rank is over there; the tool need not wait */
		v->report.timed_out = true;
		report(v, NULL);
	}
}

static void refuse(struct link *tool, const Ms__MoveRequest *q, const char *from, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void refuse(struct link *tool, const Ms__MoveRequest *q, const char *from, const char *format, ...)
{
	Ms__MoveReport r = MS__MOVE_REPORT__INIT;
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	plain_text(text);
	r.world = q->world;
	r.rank = q->rank;
	r.from = (char *)from;
	r.to = q->host;
	r.error = text;
	r.tracking = (char *)"none";
	link_send(tool, LINK_MSG(MOVE_REPORT, move_report, &r));
}

/* All that can be known here is checked before anything is touched. */
static bool acceptable(struct coord *c, struct link *tool, const Ms__MoveRequest *q, struct rank *r, struct host *to)
{
	const struct rank *child;

	if (!r)
		refuse(tool, q, "", "no rank %u.%u in job %s", q->world, q->rank, c->job);
	else if (r->ended)
		refuse(tool, q, r->host->name, "rank %u.%u has ended", q->world, q->rank);
	else if ((child = rank_child_elsewhere(r)))
		refuse(tool, q, r->host->name, "rank %u.%u has a child process, %u.%u, which lives on host %s",
		       q->world, q->rank, MS_MEMBER_WORLD(child->id), MS_MEMBER_RANK(child->id), child->host->name);
	else if (!to)
		refuse(tool, q, r->host->name, "host %s is not one of the job's hosts", q->host);
	else if (r->move)
		refuse(tool, q, r->host->name, "rank %u.%u is moving already", q->world, q->rank);
	else if (r->host == to)
		refuse(tool, q, r->host->name, "rank %u.%u is on %s already", q->world, q->rank, q->host);
	else if (!to->link)
		refuse(tool, q, r->host->name, "host %s cannot be reached: its daemon is gone", q->host);
	else if (!r->joined)
		refuse(tool, q, r->host->name, "rank %u.%u has not called MPI_Init yet", q->world, q->rank);
	else
		return true;
	return false;
}

/* It was asked for already, by this tool, of us or the coordinator before us. */
static bool take_tool_again(struct coord *c, struct link *tool, const Ms__MoveRequest *q)
{
	struct move *v;

	LIST_FOREACH(v, &c->moves, entry)
	if (q->id && v->request.id == q->id)
		break;
	if (!v)
		return false;
	v->tool = tool;
	v->events = q->events;
	return true;
}

static struct move *move_create(struct rank *r, uint64_t m, struct host *from, struct host *to, const char *fault)
{
	struct move *v = calloc(1, sizeof(*v));

	if (!v || !(v->fault = strdup(fault)))
		log_die("out of memory");
	clock_gettime(CLOCK_MONOTONIC, &v->began);
	v->c = r->c;
	v->rank = r;
	v->m = m;
	v->from = from;
	v->to = to;
	ms__move_request__init(&v->request);
	ms__move_options__init(&v->options);
	ms__move_report__init(&v->report);
	strcpy(v->tracking, "none");
	v->timer = evtimer_new(r->c->base, timer_cb, v);
	r->move = v;
	LIST_INSERT_HEAD(&r->c->moves, v, entry);
	return v;
}

void move_request(struct coord *c, struct link *tool, const Ms__MoveRequest *q)
{
	struct rank *r = rank_find(c, MS_MEMBER(q->world, q->rank));
	struct host *to = host_find(c, q->host);
	Ms__Ping ping = MS__PING__INIT;
	struct move *v;

	if (take_tool_again(c, tool, q) || recover_report(c, tool, q) || !acceptable(c, tool, q, r, to))
		return;
	v = move_create(r, ++r->m, r->host, to, *q->fault ? q->fault : c->fault);
	v->tool = tool;
	v->ping = ++c->requests;
	v->request = *q;
	if (!v->request.timeout_ms)
		v->request.timeout_ms = MOVE_TIMEOUT_MS;
	if (!v->request.drain_ms) /* without a mirror there is nothing else to do than to wait */
		v->request.drain_ms = q->via == MS_VIA_DRAIN ? v->request.timeout_ms / 2 : MOVE_DRAIN_MS;
	if (r->child && !r->journaled)
		journal_child(r);
	journal_move(r, to, v->m, q->id, v->request.timeout_ms);
	if (q->options) {
		v->options.flags = q->options->flags;
		v->options.max_freeze_us = q->options->max_freeze_us;
		v->options.limit = q->options->limit;
	}
	v->options.flags |= q->check ? MS_MOVE_CHECK : 0;
	v->events = q->events;
	set_timer(v, v->request.timeout_ms < MOVE_PING_S * 1000 ? v->request.timeout_ms : MOVE_PING_S * 1000);
	ping.request = v->ping;
	link_send(to->link, LINK_MSG(PING, ping, &ping));
	step(v, MS_STEP_ACCEPTED, 0, 0, 0);
}

void move_restore(struct journal_move *j, bool begun)
{
	struct move *v = move_create(j->rank, j->m, j->from, j->to, "");

	v->request.timeout_ms = j->timeout_ms;
	v->request.id = j->id;
	v->origin = j;
	v->state = MOVE_BEGUN; /* before `begun` is known the daemons may have heard of it: there is to be a record */
	if (begun)
		set_timer(v, j->timeout_ms);
	else
		abort_move(v, "the coordinator was killed before it began");
}

void move_restore_committed(struct journal_move *j, bool mirror)
{
	struct move *v = move_create(j->rank, j->m, j->from, j->to, "");

	v->state = MOVE_COMMITTED;
	v->request.timeout_ms = j->timeout_ms;
	v->request.id = j->id;
	v->report.image_bytes = j->image_bytes;
	v->report.rounds = j->rounds;
	v->mirror = mirror;
	set_timer(v, j->timeout_ms);
}

void move_tool_gone(struct coord *c, struct link *tool)
{
	struct move *v;

	LIST_FOREACH(v, &c->moves, entry)
	if (v->tool == tool)
		v->tool = NULL;
}

bool move_touches(const struct host *h)
{
	struct move *v;

	LIST_FOREACH(v, &h->c->moves, entry)
	if (v->from == h || v->to == h)
		return true;
	return false;
}

void move_progress(struct coord *c, const Ms__Progress *p)
{
	struct move *v = find(c, p->member, p->m);

	if (!v || undecided(v))
		return;
	switch (p->step) {
	case MS__PROGRESS__STEP__RESUMED:
		v->report.freeze_ms = (double)p->ns / 1e6;
		v->report.total_ms = ms_since(&v->began);
		v->rank->pid = p->pid;
		v->rank->move = NULL;
		set_state(v, MOVE_RESUMED);
		step(v, MS_STEP_RESUMED, p->ns, 0, 0);
		break;
	case MS__PROGRESS__STEP__RELINKED:
		v->report.stall_ms = (double)p->ns / 1e6;
		v->report.drained = p->drained;
		v->report.mirrored = p->mirrored;
		v->relinked = true;
		step(v, MS_STEP_RELINKED, p->ns, p->drained, p->mirrored);
		break;
	case MS__PROGRESS__STEP__MIRROR_DONE:
		v->report.mirror_ms = (double)p->ns / 1e6;
		v->mirror_done = true;
		step(v, MS_STEP_UNMIRRORED, p->ns, 0, 0);
		if (*p->error && !v->rank->ended)
			log_say(LOG_ERROR, "mirror of rank %u.%u on %s: %s", MS_MEMBER_WORLD(v->rank->id),
				MS_MEMBER_RANK(v->rank->id), v->from->name, p->error);
		break;
	default:
		break;
	}
	check_done(v);
}

void move_step(struct coord *c, const Ms__Step *s)
{
	tell_step(c, find(c, s->member, s->m), s);
}

void move_checked(struct host *h, const Ms__Checked *k)
{
	struct move *v = find(h->c, k->member, k->m);

	if (!v || v->state != MOVE_BEGUN || v->from != h || !v->request.check)
		return;
	ms__checked__init(&v->checked);
	v->checked.bytes = k->bytes;
	v->checked.rate = k->rate;
	v->checked.dirty_rate = k->dirty_rate;
	v->checked.freeze_ns = k->freeze_ns;
	v->checked.total_ns = k->total_ns;
	v->report.checked = &v->checked;
	abort_move(v, "it was only asked for");
}

void move_host_lost(struct host *h, const char *why)
{
	struct move *v, *next;
	char text[512];

	for (v = LIST_FIRST(&h->c->moves); v; v = next) {
		next = LIST_NEXT(v, entry);
		if (undecided(v) && (v->from == h || v->to == h)) {
			snprintf(text, sizeof(text), "host %s is lost: %s", h->name, why);
			abort_move(v, text);
		} else if (v->from == h) {
			v->mirror_done = true;
			check_done(v);
		}
	}
}

/* What it has not told it will not tell any more. */
void move_rank_ended(struct rank *r)
{
	struct move *v, *next;

	for (v = LIST_FIRST(&r->c->moves); v; v = next) {
		next = LIST_NEXT(v, entry);
		if (v->rank != r)
			continue;
		if (undecided(v)) {
			abort_move(v, "it ended while it was moving");
			continue;
		}
		if (v->state == MOVE_COMMITTED)
			set_state(v, MOVE_RESUMED);
		r->move = NULL;
		v->relinked = true;
		check_done(v);
	}
}

void move_rank_forgotten(struct rank *r)
{
	struct move *v, *next;

	for (v = LIST_FIRST(&r->c->moves); v; v = next) {
		next = LIST_NEXT(v, entry);
		if (v->rank != r)
			continue;
		v->mirror_done = true; /* nobody is left for whom it could forward */
		check_done(v);
	}
}
