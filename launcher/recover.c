/* SPDX-License-Identifier: MIT */
#include "recover.h"

#include <stdlib.h>
#include <string.h>

#include "jobdir.h"
#include "journal.h"
#include "move.h"
#include "proto/log.h"
#include "proto/net.h"
#include "proto/wire.h"
#include "rank.h"

enum { RECOVER_S = 8, RECOVER_STUBS_S = 15, RECOVER_LOST = 255 }; /* daemons wait for 15 s, stubs for 20 s */

struct told { /* an undecided move that a daemon has told of, or a mirror that lives */
	LIST_ENTRY(told) entry;
	struct host *host; /* borrowed */
	uint32_t member;
	uint64_t m;
	bool leaving, mirror; /* neither: coming, or */
	bool standin;         /* ... it is kept */
};

static LIST_HEAD(, told) tellings = LIST_HEAD_INITIALIZER(tellings);
static struct journal_moves moves = LIST_HEAD_INITIALIZER(moves);

void recover_read(struct coord *c)
{
	char why[1024];

	if (jobdir_open(c, why, sizeof(why)) || journal_read(c, &moves, why, sizeof(why)))
		coord_fail(c, "it cannot go on after its death: %s", why);
}

static void attach_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct host *h = user;

	if (msg->body_case == MS__MSG__BODY_HELLO && !strcmp(msg->hello->host, h->name) && !h->lost)
		host_take(h, l, msg->hello);
	else
		link_break(l); /* too late, or not what we look for; on_down says so */
}

static void attach_down(struct link *l, const char *why, void *user)
{
	struct host *h = user;

	link_destroy(l);
	host_lost(h, why);
	coord_check_ready(h->c);
}

static const struct link_ops attach_ops = { .on_message = attach_message, .on_down = attach_down };

static void late_cb(evutil_socket_t fd, short what, void *arg)
{
	struct coord *c = arg;
	struct host *h;

	if (c->ready)
		return;
	TAILQ_FOREACH(h, &c->hosts, entry)
	{
		if (h->present)
			continue;
		link_break(h->link);
		host_lost(h, "its daemon does not answer the coordinator that was started again");
	}
	coord_check_ready(c);
}

void recover_attach(struct coord *c)
{
	struct timeval limit = { RECOVER_S, 0 };
	Ms__Hello hello = MS__HELLO__INIT;
	struct host *h;

	hello.role = "coordinator";
	hello.host = c->job;
	hello.version = MS_WIRE_VERSION;
	TAILQ_FOREACH(h, &c->hosts, entry)
	{
		struct sockaddr_in to = net_address(h->ip, h->mesh_port);
		struct link *l;

		if (h->lost)
			continue;
		l = link_dial(c->base, &to, NULL, c->secret, &attach_ops, h);
		link_send(l, LINK_MSG(HELLO, hello, &hello));
	}
	event_base_once(c->base, -1, EV_TIMEOUT, late_cb, c, &limit);
}

static struct told *note(struct host *h, uint32_t member, uint64_t m, bool leaving, bool mirror)
{
	struct told *t = calloc(1, sizeof(*t));

	if (!t)
		log_die("out of memory");
	*t = (struct told){ .host = h, .member = member, .m = m, .leaving = leaving, .mirror = mirror };
	LIST_INSERT_HEAD(&tellings, t, entry);
	return t;
}

static void take_here(struct host *h, const Ms__Here *e)
{
	bool standin = e->state == MS__HERE__STATE__STAND_IN;
	bool leaving = e->state == MS__HERE__STATE__LEAVING, coming = e->state == MS__HERE__STATE__COMING;
	struct rank *r = rank_find(h->c, e->member);

	if (leaving || coming || standin)
		note(h, e->member, e->m, leaving, false)->standin = standin;
	if (standin)
		return;
	if (!r && MS_MEMBER_IS_CHILD(e->member))
		r = rank_create_child(h, e->member, e->parent, e->pid); /* they are not in the journal */
	if (!r || r->host != h)
		return;
	r->here = true;
	if (e->state == MS__HERE__STATE__ENDED) {
		if (!r->ended)
			rank_end(r, e->status, NULL);
		return;
	}
	r->pid = e->pid;
	r->joined = e->state != MS__HERE__STATE__RUNNING;
	if (e->serving) {
		r->ip = e->serving->ip;
		r->port = (uint16_t)e->serving->port;
		if (e->serving->cookie.len == sizeof(r->cookie))
			memcpy(r->cookie, e->serving->cookie.data, sizeof(r->cookie));
	}
}

void recover_present(struct host *h, const Ms__Present *p)
{
	if (h->present)
		return;
	h->present = true;
	for (size_t i = 0; i < p->n_members; i++)
		take_here(h, p->members[i]);
	for (size_t i = 0; i < p->n_mirrors; i++)
		note(h, p->mirrors[i]->member, p->mirrors[i]->m, false, true);
	coord_check_ready(h->c);
}

bool recover_all_known(const struct coord *c)
{
	const struct host *h;

	TAILQ_FOREACH(h, &c->hosts, entry)
	if (!h->lost && !h->present)
		return false;
	return true;
}

static bool is_told(const struct host *h, const struct journal_move *v, bool leaving, bool mirror)
{
	const struct told *t;

	LIST_FOREACH(t, &tellings, entry)
	if (!t->standin && t->host == h && t->member == v->rank->id && t->m == v->m && t->leaving == leaving &&
	    t->mirror == mirror)
		return true;
	return false;
}

/* The moves whose end somebody may not know: the last one of each rank. */
static void decide(struct journal_move *v)
{
	struct rank *r = v->rank;

	if (v->m != r->m)
		return;
	if (v->m > r->decided)
		move_restore(v, !r->ended && is_told(v->from, v, true, false));
	else if (v->committed && !r->ended && r->host == v->to)
		move_restore_committed(v, v->mirror && is_told(v->from, v, false, true));
}

/* Those who wait for a record that is there. */
static void repeat_outcomes(struct coord *c)
{
	struct told *t;

	LIST_FOREACH(t, &tellings, entry)
	if (!t->mirror && !t->standin)
		move_repeat_outcome(t->host, t->member, t->m);
}

/* It has not heard of the record yet, by which its process becomes one. */
static bool becomes_standin(struct coord *c, const struct told *t)
{
	const struct rank *r = rank_find(c, t->member);

	return t->leaving && r && r->child && r->moves == 1 && t->m <= r->decided && r->outcomes[t->m];
}

/* A child that nobody has is over; whatever is left of it hears that. */
static void find_standins(struct coord *c)
{
	struct rank *r, *next;
	struct told *t;

	TAILQ_FOREACH(r, &c->ranks, entry)
	if (r->child && !r->here && !r->ended)
		rank_end(r, RECOVER_LOST << 8, NULL);
	LIST_FOREACH(t, &tellings, entry)
	if (t->standin || becomes_standin(c, t))
		rank_standin_found(t->host, t->member);
	for (r = TAILQ_FIRST(&c->ranks); r; r = next) {
		next = TAILQ_NEXT(r, entry);
		if (r->child && r->ended && !r->standin)
			rank_child_over(r);
		else if (r->child && !r->ended && r->moves && !r->standin)
			rank_kill(r);
	}
}

static void lonely_cb(evutil_socket_t fd, short what, void *arg)
{
	struct coord *c = arg;
	struct rank *r;

	TAILQ_FOREACH(r, &c->ranks, entry)
	if (!r->ended && !r->stub && !r->child)
		rank_kill(r);
}

void recover_decide(struct coord *c)
{
	struct timeval limit = { RECOVER_STUBS_S, 0 };
	struct journal_move *v;
	struct host *h;
	struct rank *r;

	repeat_outcomes(c);
	LIST_FOREACH(v, &moves, entry)
	decide(v);
	TAILQ_FOREACH(h, &c->hosts, entry)
	{
		if (!h->lost)
			continue;
		move_host_lost(h, "it was gone when the coordinator was started again");
		rank_host_lost(h, "it was gone when the coordinator was started again");
	}
	TAILQ_FOREACH(r, &c->ranks, entry)
	{
		Ms__Ended e = MS__ENDED__INIT;

		e.member = r->id;
		e.status = r->status;
		if (r->ended)
			host_send_all(c, LINK_MSG(ENDED, ended, &e));
	}
	find_standins(c);
	event_base_once(c->base, -1, EV_TIMEOUT, lonely_cb, c, &limit);
}

bool recover_report(struct coord *c, struct link *tool, const Ms__MoveRequest *q)
{
	Ms__MoveReport r = MS__MOVE_REPORT__INIT;
	struct journal_move *v;

	LIST_FOREACH(v, &moves, entry)
	if (v->id == q->id)
		break;
	if (!v || !q->id)
		return false;
	r.world = q->world;
	r.rank = q->rank;
	r.from = v->from->name;
	r.to = v->to->name;
	r.m = v->m;
	r.committed = v->committed;
	r.image_bytes = v->image_bytes;
	r.rounds = v->rounds;
	r.tracking = (char *)"none";
	if (!v->committed)
		r.error = v->reason ? v->reason : (char *)"";
	link_send(tool, LINK_MSG(MOVE_REPORT, move_report, &r));
	return true;
}
