/* SPDX-License-Identifier: MIT */
#include "abroad.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/card.h"
#include "proto/door.h"
#include "proto/log.h"
#include "proto/net.h"
#include "rank.h"

enum { GUESTS_MAX = 0x3fffff }; /* a rank's bits in a member's id */

struct abroad_question { /* of a member of ours */
	struct abroad_question *next;
	struct host *host; /* borrowed: whose daemon asked */
	uint64_t request;
	uint32_t member, virtual_ip;
};

struct abroad { /* another job; the card tells it from others */
	LIST_ENTRY(abroad) entry;
	struct coord *c; /* borrowed */
	char card[MS_CARD_MAX];
	char job[80];
	struct link *out, *in; /* what we dialled, what it dialled; one is enough; NULL: none */
	struct abroad_question *questions;
};

struct guest {             /* a member of another job; its place in the list is its rank in MS_WORLD_ABROAD */
	struct abroad *of; /* NULL: it has ended */
	uint32_t member;   /* as its own job calls it */
};

struct caller { /* has proved that it knows our key, and not yet said which job it is */
	struct coord *c;
};

static const struct link_ops abroad_ops;

/* 0: there is none, and with create: no name is left. */
static uint32_t guest_name(struct abroad *a, uint32_t member, bool create)
{
	struct coord *c = a->c;
	struct guest *list;

	for (size_t i = 0; i < c->guest_count; i++)
		if (c->guests[i].of == a && c->guests[i].member == member)
			return MS_MEMBER(MS_WORLD_ABROAD, i);
	/* A coordinator that was started again does not know which names the one before it gave. */
	if (!create || c->again || c->guest_count == GUESTS_MAX)
		return 0;
	list = realloc(c->guests, (c->guest_count + 1) * sizeof(*list));
	if (!list)
		log_die("out of memory");
	c->guests = list;
	list[c->guest_count] = (struct guest){ .of = a, .member = member };
	return MS_MEMBER(MS_WORLD_ABROAD, c->guest_count++);
}

static void guest_end(struct coord *c, size_t i, int32_t status)
{
	Ms__Ended e = MS__ENDED__INIT;

	c->guests[i].of = NULL;
	e.member = MS_MEMBER(MS_WORLD_ABROAD, i);
	e.status = status;
	host_send_all(c, LINK_MSG(ENDED, ended, &e));
}

static struct abroad *abroad_find(struct coord *c, const char *card)
{
	struct abroad *a;

	LIST_FOREACH(a, &c->abroads, entry)
	if (!strcmp(a->card, card))
		return a;
	return NULL;
}

static struct abroad *abroad_create(struct coord *c, const char *text, const struct card *card)
{
	struct abroad *a = calloc(1, sizeof(*a));

	if (!a)
		log_die("out of memory");
	a->c = c;
	snprintf(a->card, sizeof(a->card), "%s", text);
	snprintf(a->job, sizeof(a->job), "%s", card->job);
	LIST_INSERT_HEAD(&c->abroads, a, entry);
	log_say(LOG_INFO, "job %s is joined with job %s", c->job, a->job);
	return a;
}

static void nobody(struct host *h, uint64_t request)
{
	Ms__Found none = MS__FOUND__INIT;

	none.request = request;
	none.status = MS_PLACE_NOBODY;
	link_send(h->link, LINK_MSG(FOUND, found, &none));
}

/* The other job has ended, or cannot be reached: nobody is found there, and who was has ended. */
static void abroad_lost(struct abroad *a)
{
	struct abroad_question *q;

	for (size_t i = 0; i < a->c->guest_count; i++)
		if (a->c->guests[i].of == a)
			guest_end(a->c, i, 0);
	while ((q = a->questions)) {
		a->questions = q->next;
		nobody(q->host, q->request);
		free(q);
	}
	LIST_REMOVE(a, entry);
	free(a);
}

static struct link *way_to(const struct abroad *a)
{
	return a->out ? a->out : a->in;
}

static void say_question(struct abroad *a, const struct abroad_question *q)
{
	Ms__LookupAbroad l = MS__LOOKUP_ABROAD__INIT;

	l.request = q->request;
	l.member = q->member;
	l.virtual_ip = q->virtual_ip;
	link_send(way_to(a), LINK_MSG(LOOKUP_ABROAD, lookup_abroad, &l));
}

/* Of two links the other goes on, with the questions that the first one took along. */
static void on_down(struct link *l, const char *why, void *user)
{
	struct abroad *a = user;

	log_say(LOG_INFO, "a link to job %s is lost: %s", a->job, why);
	rank_asker_gone(a->c, l);
	if (a->out == l)
		a->out = NULL;
	else
		a->in = NULL;
	link_destroy(l);
	if (!way_to(a)) {
		abroad_lost(a);
		return;
	}
	for (const struct abroad_question *q = a->questions; q; q = q->next)
		say_question(a, q);
}

/* What was asked there is known: with the other's member called as we call it, it goes to the daemon that asked. */
static void found(struct abroad *a, const Ms__Found *f)
{
	struct abroad_question **at = &a->questions, *q;
	Ms__Found told = *f;

	while (*at && (*at)->request != f->request)
		at = &(*at)->next;
	q = *at;
	if (!q)
		return; /* asked over two links, and both have answered */
	*at = q->next;
	if (f->entry && f->status == MS_PLACE_OK)
		f->entry->member = guest_name(a, f->entry->member, true);
	if (f->status == MS_PLACE_OK && (!f->entry || !f->entry->member || !MS_MEMBER_IS_ABROAD(f->called)))
		told.status = MS_PLACE_NOBODY;
	link_send(q->host->link, LINK_MSG(FOUND, found, &told));
	free(q);
}

void abroad_answer(struct link *to, uint32_t asker, Ms__Found *f)
{
	f->called = asker;
	link_send(to, LINK_MSG(FOUND, found, f));
}

/* A relink message for a member of ours: its daemon has it, or knows where it is now. */
static void relay_in(struct abroad *a, const Ms__Relay *relay)
{
	struct rank *r = rank_find(a->c, relay->to);
	uint32_t from = guest_name(a, relay->from, false);
	Ms__Relay told = *relay;

	if (!r || r->ended || !from) {
		log_say(LOG_DEBUG, "a relink message of job %s is for nobody, or of nobody", a->job);
		return;
	}
	told.from = from;
	link_send(r->host->link, LINK_MSG(RELAY, relay, &told));
}

static void ended(struct abroad *a, const Ms__Ended *e)
{
	uint32_t id = guest_name(a, e->member, false);

	if (id)
		guest_end(a->c, MS_MEMBER_RANK(id), e->status);
}

static void on_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct abroad *a = user;

	switch (msg->body_case) {
	case MS__MSG__BODY_LOOKUP_ABROAD:
		rank_lookup_abroad(a->c, msg->lookup_abroad, l, guest_name(a, msg->lookup_abroad->member, true));
		break;
	case MS__MSG__BODY_FOUND:
		found(a, msg->found);
		break;
	case MS__MSG__BODY_RELAY:
		relay_in(a, msg->relay);
		break;
	case MS__MSG__BODY_ENDED:
		ended(a, msg->ended);
		break;
	default:
		log_say(LOG_WARN, "unexpected message %d from job %s", msg->body_case, a->job);
	}
}

static const struct link_ops abroad_ops = { .on_message = on_message, .on_down = on_down };

static void dial(struct abroad *a, const struct card *card)
{
	struct sockaddr_in to = net_address(card->ip, card->port);
	Ms__Hello hello = MS__HELLO__INIT;

	a->out = link_dial(a->c->base, &to, NULL, card->key, &abroad_ops, a);
	hello.role = (char *)"job";
	hello.host = a->c->job;
	hello.says = a->c->card;
	hello.version = MS_WIRE_VERSION;
	link_send(a->out, LINK_MSG(HELLO, hello, &hello));
}

void abroad_lookup(struct host *h, const Ms__LookupAbroad *l)
{
	struct abroad *a = abroad_find(h->c, l->card);
	struct abroad_question *q;
	struct card card;

	if (!a && (!card_read(l->card, &card) || !strcmp(l->card, h->c->card))) {
		nobody(h, l->request);
		return;
	}
	if (!a) {
		a = abroad_create(h->c, l->card, &card);
		dial(a, &card);
	}
	for (q = a->questions; q; q = q->next)
		if (q->request == l->request)
			return;
	q = malloc(sizeof(*q));
	if (!q)
		log_die("out of memory");
	*q = (struct abroad_question){
		.next = a->questions, .host = h, .request = l->request, .member = l->member, .virtual_ip = l->virtual_ip
	};
	a->questions = q;
	say_question(a, q);
}

void abroad_relay(struct coord *c, const Ms__Relay *relay)
{
	size_t i = MS_MEMBER_RANK(relay->to);
	struct guest *g = MS_MEMBER_IS_ABROAD(relay->to) && i < c->guest_count ? &c->guests[i] : NULL;
	Ms__Relay told = *relay;

	if (!g || !g->of)
		return; /* it has ended, which the sender is about to hear */
	told.to = g->member;
	link_send(way_to(g->of), LINK_MSG(RELAY, relay, &told));
}

void abroad_rank_ended(struct coord *c, uint32_t member, int32_t status)
{
	Ms__Ended e = MS__ENDED__INIT;
	struct abroad *a;

	e.member = member;
	e.status = status;
	LIST_FOREACH(a, &c->abroads, entry)
	link_send(way_to(a), LINK_MSG(ENDED, ended, &e));
}

static void caller_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct caller *caller = user;
	struct coord *c = caller->c;
	const Ms__Hello *hello = msg->hello;
	struct abroad *a;
	struct card card;

	free(caller);
	if (msg->body_case != MS__MSG__BODY_HELLO || hello->version != MS_WIRE_VERSION ||
	    strcmp(hello->role, "job") != 0 || !card_read(hello->says, &card) || !strcmp(hello->says, c->card)) {
		log_say(LOG_WARN, "another job of unknown kind or other version was turned away");
		link_destroy(l);
		return;
	}
	a = abroad_find(c, hello->says);
	if (!a)
		a = abroad_create(c, hello->says, &card);
	if (a->in) { /* it has lost that one; we have not heard of it yet */
		rank_asker_gone(c, a->in);
		link_destroy(a->in);
	}
	a->in = l;
	link_set_user(l, &abroad_ops, a);
}

static void caller_down(struct link *l, const char *why, void *user)
{
	log_say(LOG_INFO, "another job left before it said which it is: %s", why);
	link_destroy(l);
	free(user);
}

static const struct link_ops caller_ops = { .on_message = caller_message, .on_down = caller_down };

static void on_caller(void *user, struct link *l)
{
	struct caller *caller = calloc(1, sizeof(*caller));

	if (!caller)
		log_die("out of memory");
	caller->c = user;
	link_set_user(l, &caller_ops, caller);
}

void abroad_listen(struct coord *c)
{
	struct card card = { .ip = c->ip };

	LIST_INIT(&c->abroads);
	snprintf(card.job, sizeof(card.job), "%s", c->job);
	randombytes_buf(c->abroad_key, sizeof(c->abroad_key));
	memcpy(card.key, c->abroad_key, sizeof(card.key));
	if (door_open(c->base, c->listen_ip, c->abroad_key, on_caller, c, &card.port))
		coord_fail(c, "cannot listen for other jobs: %s", strerror(errno));
	card_write(&card, c->card);
}
