/* SPDX-License-Identifier: MIT */
#include "rank.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abroad.h"
#include "journal.h"
#include "master.h"
#include "move.h"
#include "proto/log.h"

enum { RANK_LOST = 255, RANK_CHILDREN = 1024 };

struct question {
	struct question *next;
	uint64_t request;
	struct link *abroad; /* another job's coordinator, borrowed; NULL: the address server asks */
	uint32_t asker;      /* whom it asks for, as we call that member */
};

struct stub { /* a caller that has not sent its Spawn yet, then the rank's */
	struct coord *c;
	struct rank *rank;
};

struct rank *rank_find(struct coord *c, uint32_t id)
{
	struct rank *r;

	TAILQ_FOREACH(r, &c->ranks, entry)
	if (r->id == id)
		return r;
	return NULL;
}

static void to_daemon(struct rank *r, const Ms__Msg *msg)
{
	if (!r->ended)
		link_send(r->host->link, msg);
}

static void send_signal(struct rank *r, int signo)
{
	Ms__Signal s = MS__SIGNAL__INIT;

	s.member = r->id;
	s.signo = signo;
	to_daemon(r, LINK_MSG(SIGNAL, signal, &s));
}

void rank_kill(struct rank *r)
{
	r->doomed = true;
	send_signal(r, SIGKILL);
}

static void stub_exit(struct link *stub, uint32_t id, const char *error, bool said)
{
	Ms__Exit e = MS__EXIT__INIT;

	e.member = id;
	e.error = (char *)error;
	e.code = RANK_LOST;
	e.said = said;
	link_send(stub, LINK_MSG(EXIT, exit, &e));
}

struct rank *rank_create(struct coord *c, uint32_t id, uint32_t virtual_ip, struct host *host, struct link *stub)
{
	struct rank *r = calloc(1, sizeof(*r));

	if (!r)
		log_die("out of memory");
	r->c = c;
	r->id = id;
	r->host = host;
	r->stub = stub;
	r->load = -1;
	r->virtual_ip = virtual_ip;
	TAILQ_INSERT_TAIL(&c->ranks, r, entry);
	return r;
}

struct rank *rank_create_child(struct host *h, uint32_t id, uint32_t parent, int32_t pid)
{
	struct rank *r = rank_create(h->c, id, 0, h, NULL);

	r->child = r->joined = r->here = true;
	r->parent = parent;
	r->pid = pid;
	return r;
}

/* No number is given twice, also by the coordinator after us. There may be very many, each for a short time. */
static uint32_t child_number(struct coord *c)
{
	if (c->children >= c->children_kept) {
		c->children_kept = c->children + RANK_CHILDREN;
		journal_children(c);
	}
	return c->children++ & 0x3fffff;
}

void rank_born(struct host *h, const Ms__Born *b)
{
	struct rank *r = rank_create_child(h, MS_MEMBER(MS_WORLD_CHILDREN, child_number(h->c)), b->parent, b->pid);
	Ms__Named n = MS__NAMED__INIT;

	n.request = b->request;
	n.member = r->id;
	r->m = b->m;
	link_send(h->link, LINK_MSG(NAMED, named, &n));
}

/* The daemon need not keep what its stub has got, or will never get. */
static void forget(const struct rank *r)
{
	Ms__Forget f = MS__FORGET__INIT;

	f.member = r->id;
	link_send(r->host->link, LINK_MSG(FORGET, forget, &f));
}

static void say_attached(const struct rank *r)
{
	Ms__Attached a = MS__ATTACHED__INIT;

	a.member = r->id;
	a.last = r->c->last;
	link_send(r->stub, LINK_MSG(ATTACHED, attached, &a));
}

static void say_spawn(struct rank *r, Ms__Spawn *spawn)
{
	r->here = true;
	spawn->virtual_ip = r->virtual_ip;
	link_send(r->host->link, LINK_MSG(SPAWN, spawn, spawn));
}

/* The stub of a rank that the coordinator before us knew. Both ends send again what the other has not acknowledged. */
static void stub_again(struct stub *s, struct link *l, struct rank *r, Ms__Spawn *spawn)
{
	Ms__Resend again = MS__RESEND__INIT;

	s->rank = r;
	r->stub = l;
	if (r->lost) {
		stub_exit(l, r->id, r->lost, true);
		return;
	}
	say_attached(r);
	again.member = r->id;
	if (r->here || r->ended)
		link_send(r->host->link, LINK_MSG(RESEND, resend, &again));
	else
		say_spawn(r, spawn);
}

/*
 * A number is a member's for as long as the job lasts.  It is in the names of its streams, in its peers' tombstones and
 * in the records of its moves, and a daemon may hear from a peer's daemon before it hears from us that the member has
 * ended: a second one of that number could not be told from the first.
 */
static void stub_spawn(struct stub *s, struct link *l, Ms__Spawn *spawn)
{
	struct coord *c = s->c;
	struct host *h = *spawn->host ? host_find(c, spawn->host) : TAILQ_FIRST(&c->hosts);
	struct rank *old = rank_find(c, spawn->member);
	uint32_t virtual_ip;
	char text[512];

	if (spawn->again && !c->again) { /* of a job that was killed, whose name we have now */
		stub_exit(l, spawn->member, "its job has ended", false);
		return;
	}
	if (spawn->again && old && !old->stub && !s->rank) {
		stub_again(s, l, old, spawn);
		return;
	}
	if (s->rank || old) {
		bool runs = s->rank || !old->ended;

		snprintf(text, sizeof(text), "rank %u.%u %s", MS_MEMBER_WORLD(spawn->member),
			 MS_MEMBER_RANK(spawn->member),
			 runs ? "runs already" : "has ended, and its number is not used again: take another one");
		stub_exit(l, spawn->member, text, false);
		return;
	}
	if (!h || !h->link) {
		snprintf(text, sizeof(text), "host %.300s %s", spawn->host,
			 h ? "is lost" : "is not one of the job's hosts");
		stub_exit(l, spawn->member, text, false);
		return;
	}
	virtual_ip = master_address(c);
	if (!virtual_ip) {
		stub_exit(l, spawn->member, "no virtual address is left: msock.conf names too small subnets", false);
		return;
	}
	s->rank = rank_create(c, spawn->member, virtual_ip, h, l);
	journal_member(s->rank);
	if (c->last)
		say_attached(s->rank);
	say_spawn(s->rank, spawn);
}

static void stub_signal(struct rank *r, int signo)
{
	if (signo < 1 || signo > 64)
		return;
	if (r->move && signo != SIGKILL)
		r->signals |= 1ull << (signo - 1);
	else
		send_signal(r, signo);
}

static void stub_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct stub *s = user;

	if (msg->body_case == MS__MSG__BODY_SPAWN) {
		stub_spawn(s, l, msg->spawn);
		return;
	}
	if (!s->rank)
		return;
	if (msg->body_case == MS__MSG__BODY_SIGNAL)
		stub_signal(s->rank, msg->signal->signo);
	else if ((msg->body_case == MS__MSG__BODY_DATA && msg->data->member == s->rank->id) ||
		 (msg->body_case == MS__MSG__BODY_ACK && msg->ack->member == s->rank->id))
		to_daemon(s->rank, msg);
}

static void stub_down(struct link *l, const char *why, void *user)
{
	struct stub *s = user;

	if (s->rank) {
		s->rank->stub = NULL;
		if (!s->rank->ended) {
			rank_kill(s->rank);
		} else {
			forget(s->rank);
		}
	}
	link_destroy(l);
	free(s);
}

static const struct link_ops stub_ops = { .on_message = stub_message, .on_down = stub_down };

void rank_stub_hello(struct coord *c, struct link *l)
{
	struct stub *s = calloc(1, sizeof(*s));

	if (!s)
		log_die("out of memory");
	s->c = c;
	link_set_user(l, &stub_ops, s);
}

static unsigned rank_status(const struct rank *r)
{
	return r->ended ? MS_PLACE_ENDED : MS_PLACE_OK;
}

static void answer(struct rank *r, const struct question *q)
{
	Ms__Serving s = MS__SERVING__INIT;
	Ms__Found f = MS__FOUND__INIT;
	unsigned status = rank_status(r);

	f.request = q->request;
	f.status = status == MS_PLACE_OK && !r->port ? MS_PLACE_NOBODY : status;
	s.member = r->id;
	s.virtual_ip = r->virtual_ip;
	s.ip = r->ip;
	s.port = r->port;
	s.m = r->decided;
	s.cookie = (ProtobufCBinaryData){ sizeof(r->cookie), r->cookie };
	f.entry = &s;
	if (q->abroad)
		abroad_answer(q->abroad, q->asker, &f);
	else
		master_send(r->c, r->virtual_ip, LINK_MSG(FOUND, found, &f));
}

static void answer_all(struct rank *r)
{
	struct question *q;

	while ((q = r->questions)) {
		r->questions = q->next;
		answer(r, q);
		free(q);
	}
}

/* A question waits for the end of a move. */
static void ask(struct rank *r, const struct question *asked)
{
	struct question *q = malloc(sizeof(*q));

	if (!q)
		log_die("out of memory");
	*q = *asked;
	q->next = r->questions;
	r->questions = q;
	if (!r->move || r->decided == r->m)
		answer_all(r);
}

void rank_where(struct host *h, const Ms__Where *w)
{
	struct rank *r = rank_find(h->c, w->member);
	Ms__WhereIs is = MS__WHERE_IS__INIT;
	Ms__Place place = MS__PLACE__INIT;

	/*
	 * At once, also while it moves: until the record is written its place is the source, whose daemon keeps
	 * what must wait (a drain needs the peers' answers); the record is written before that daemon says NOT_HERE.
	 */
	is.member = w->member;
	is.status = MS_PLACE_NOBODY;
	if (r) {
		place = host_place(r->host);
		is.status = rank_status(r);
		is.place = &place;
		is.m = r->decided;
	}
	link_send(h->link, LINK_MSG(WHERE_IS, where_is, &is));
}

/* abroad NULL: those of the address server. */
static void drop_questions(struct rank *r, const struct link *abroad)
{
	struct question **at = &r->questions, *q;

	while ((q = *at)) {
		if (q->abroad != abroad) {
			at = &q->next;
			continue;
		}
		*at = q->next;
		free(q);
	}
}

void rank_master_gone(struct coord *c, uint32_t net, unsigned bits)
{
	struct rank *r;

	TAILQ_FOREACH(r, &c->ranks, entry)
	if (!((r->virtual_ip ^ net) & (uint32_t)(~0ull << (32 - bits))))
		drop_questions(r, NULL);
}

void rank_asker_gone(struct coord *c, const struct link *asker)
{
	struct rank *r;

	TAILQ_FOREACH(r, &c->ranks, entry)
	drop_questions(r, asker);
}

static struct rank *rank_of_address(struct coord *c, uint32_t virtual_ip)
{
	struct rank *r;

	TAILQ_FOREACH(r, &c->ranks, entry)
	if (r->virtual_ip == virtual_ip)
		return r;
	return NULL;
}

void rank_lookup(struct coord *c, const Ms__Lookup *l)
{
	struct rank *r = rank_of_address(c, l->virtual_ip);
	Ms__Found none = MS__FOUND__INIT;

	if (r) {
		ask(r, &(struct question){ .request = l->request });
		return;
	}
	none.request = l->request;
	none.status = MS_PLACE_NOBODY;
	master_send(c, l->virtual_ip, LINK_MSG(FOUND, found, &none));
}

void rank_lookup_abroad(struct coord *c, const Ms__LookupAbroad *l, struct link *from, uint32_t asker)
{
	struct rank *r = asker ? rank_of_address(c, l->virtual_ip) : NULL;
	Ms__Found none = MS__FOUND__INIT;

	if (r) {
		ask(r, &(struct question){ .request = l->request, .abroad = from, .asker = asker });
		return;
	}
	none.request = l->request;
	none.status = MS_PLACE_NOBODY;
	link_send(from, LINK_MSG(FOUND, found, &none));
}

void rank_serving(struct coord *c, const Ms__Serving *s)
{
	struct rank *r = rank_find(c, s->member);

	if (!r || r->decided > s->m)
		return;
	r->ip = s->ip;
	r->port = (uint16_t)s->port;
	if (s->cookie.len == sizeof(r->cookie))
		memcpy(r->cookie, s->cookie.data, sizeof(r->cookie));
}

/* A child's stand-in is to end as it has ended. */
static void tell_standin(const struct rank *r)
{
	Ms__Exit e = MS__EXIT__INIT;

	e.member = r->id;
	e.status = r->status;
	if (r->standin)
		link_send(r->standin->link, LINK_MSG(EXIT, exit, &e));
}

void rank_end(struct rank *r, int32_t status, const char *lost)
{
	Ms__Ended e = MS__ENDED__INIT;

	r->ended = true;
	r->status = status;
	r->lost = lost ? strdup(lost) : NULL;
	if (!r->child || r->journaled)
		journal_ended(r);
	e.member = r->id;
	e.status = status;
	e.last = r->last;
	e.n_last = r->last_count;
	host_send_all(r->c, LINK_MSG(ENDED, ended, &e));
	master_send(r->c, r->virtual_ip, LINK_MSG(ENDED, ended, &e));
	abroad_rank_ended(r->c, r->id, status);
	answer_all(r);
	move_rank_ended(r);
}

void rank_child_over(struct rank *r)
{
	move_rank_forgotten(r);
	forget(r);
	TAILQ_REMOVE(&r->c->ranks, r, entry);
	free(r->lost);
	free(r->outcomes);
	free(r);
}

struct rank *rank_child_elsewhere(const struct rank *r)
{
	struct rank *child;

	TAILQ_FOREACH(child, &r->c->ranks, entry)
	if (child->standin && child->parent == r->id)
		return child;
	return NULL;
}

static void standin_gone(struct rank *r)
{
	r->standin = NULL;
	if (r->ended)
		rank_child_over(r);
	else
		rank_kill(r);
}

/* The child, as the stand-in's host has to know it again. */
static void standin_resume(struct rank *r)
{
	Ms__Moved moved = MS__MOVED__INIT;
	Ms__Resend again = MS__RESEND__INIT;

	moved.member = again.member = r->id;
	moved.m = r->decided;
	moved.host = r->host->name;
	link_send(r->standin->link, LINK_MSG(MOVED, moved, &moved));
	link_send(r->host->link, LINK_MSG(RESEND, resend, &again));
}

void rank_standin_found(struct host *h, uint32_t member)
{
	struct rank *r = rank_find(h->c, member);
	Ms__Exit e = MS__EXIT__INIT;

	e.member = member;
	e.status = RANK_LOST << 8;
	if (!r) {
		link_send(h->link, LINK_MSG(EXIT, exit, &e));
		return;
	}
	r->standin = h;
	if (r->ended && !r->here)
		tell_standin(r);
	else
		standin_resume(r);
}

/* From the daemon where its stand-in is, about that. False: about itself. */
static bool from_standin(struct rank *r, const Ms__Msg *msg)
{
	switch (msg->body_case) {
	case MS__MSG__BODY_SIGNAL:
		stub_signal(r, msg->signal->signo);
		return true;
	case MS__MSG__BODY_FORGET:
		standin_gone(r);
		return true;
	case MS__MSG__BODY_DATA: /* the standard input's end */
		if (msg->data->channel != 0)
			return false;
		to_daemon(r, msg);
		return true;
	case MS__MSG__BODY_ACK:
		if (msg->ack->channel == 0)
			return false;
		to_daemon(r, msg);
		return true;
	default:
		return false;
	}
}

/* Who stands for it at home. */
static struct link *reader(const struct rank *r)
{
	return r->standin ? r->standin->link : r->stub;
}

void rank_from_daemon(struct host *h, const Ms__Msg *msg)
{
	uint32_t id = 0;
	struct rank *r;

	switch (msg->body_case) {
	case MS__MSG__BODY_SPAWNED:
		id = msg->spawned->member;
		break;
	case MS__MSG__BODY_JOINED:
		id = msg->joined->member;
		break;
	case MS__MSG__BODY_DATA:
		id = msg->data->member;
		break;
	case MS__MSG__BODY_ACK:
		id = msg->ack->member;
		break;
	case MS__MSG__BODY_EXIT:
		id = msg->exit->member;
		break;
	case MS__MSG__BODY_SIGNAL:
		id = msg->signal->member;
		break;
	case MS__MSG__BODY_FORGET:
		id = msg->forget->member;
		break;
	default:
		break;
	}
	r = rank_find(h->c, id);
	if (!r || (r->standin == h && from_standin(r, msg)))
		return;
	if (msg->body_case == MS__MSG__BODY_SIGNAL || msg->body_case == MS__MSG__BODY_FORGET)
		return; /* of a stand-in that we had given up */
	if (r->ended) { /* the coordinator before us had told it, but perhaps not the stub */
		link_send(reader(r), msg);
		return;
	}
	if (msg->body_case == MS__MSG__BODY_SPAWNED) {
		r->pid = msg->spawned->pid;
		if (r->doomed)
			send_signal(r, SIGKILL);
	} else if (msg->body_case == MS__MSG__BODY_JOINED) {
		r->joined = true;
	} else {
		link_send(reader(r), msg);
	}
	if (msg->body_case != MS__MSG__BODY_EXIT)
		return;
	r->last = msg->exit->last;
	r->last_count = msg->exit->n_last;
	rank_end(r, msg->exit->status, NULL);
	if (r->child && !r->standin)
		rank_child_over(r);
	else if (!r->child && !r->stub)
		forget(r);
}

void rank_note_outcome(struct rank *r, uint64_t m, struct host *to)
{
	bool *list = realloc(r->outcomes, (size_t)(m + 1) * sizeof(*list));

	if (!list)
		log_die("out of memory");
	for (uint64_t i = r->decided + 1; i < m; i++)
		list[i] = false;
	list[m] = to != NULL;
	r->outcomes = list;
	r->decided = m;
	if (!to)
		return;
	r->host = to;
	r->moves++;
}

static void release_signals(struct rank *r)
{
	for (int i = 1; i <= 64; i++)
		if (r->signals >> (i - 1) & 1)
			send_signal(r, i);
	r->signals = 0;
	if (r->doomed)
		send_signal(r, SIGKILL);
}

void rank_decided(struct rank *r, uint64_t m, struct host *to, const Ms__WantCommit *w)
{
	Ms__Moved moved = MS__MOVED__INIT;

	if (to && r->child && !r->moves)
		r->standin = r->host;
	rank_note_outcome(r, m, to);
	if (to) {
		r->ip = w->serving->ip;
		r->port = (uint16_t)w->serving->port;
		if (!r->child)
			master_send(r->c, r->virtual_ip, LINK_MSG(SERVING, serving, w->serving));
		moved.member = r->id;
		moved.m = m;
		moved.host = to->name;
		link_send(reader(r), LINK_MSG(MOVED, moved, &moved));
	}
	answer_all(r);
	release_signals(r);
}

static void rank_lost(struct rank *r, const char *why)
{
	char text[512], id[24];

	snprintf(id, sizeof(id), "%u.%u", MS_MEMBER_WORLD(r->id), MS_MEMBER_RANK(r->id));
	snprintf(text, sizeof(text), "rank %s is lost with its host %.200s: %.100s", id, r->host->name, why);
	log_say(LOG_ERROR, "%s", text); /* by us: the ranks that are left may end the job before its stub can say it */
	if (!r->child)
		stub_exit(r->stub, r->id, text, true);
	rank_end(r, RANK_LOST << 8, text);
	tell_standin(r);
}

void rank_host_lost(struct host *h, const char *why)
{
	struct rank *r, *next;

	for (r = TAILQ_FIRST(&h->c->ranks); r; r = next) {
		bool alone = r->standin == h; /* its number is gone, and its parent */

		next = TAILQ_NEXT(r, entry);
		if (alone)
			r->standin = NULL;
		if (r->host == h && !r->ended && r->child && !r->standin)
			rank_end(r, RANK_LOST << 8, NULL); /* with its family, of which that is said */
		else if (r->host == h && !r->ended)
			rank_lost(r, why);
		else if (alone && r->ended)
			rank_child_over(r);
		else if (alone)
			rank_kill(r);
	}
}
