/* SPDX-License-Identifier: MIT */
#include "msdaemon/names.h"

#include <stdlib.h>
#include <string.h>

#include "msdaemon/control.h"
#include "proto/log.h"
#include "proto/net.h"

enum { NAMES_AGAIN_MS = 100, NAMES_QUESTIONS = 65536 };

struct names_master { /* the address server of a subnet */
	LIST_ENTRY(names_master) entry;
	struct daemon *d; /* borrowed */
	uint32_t net, bits;
	uint32_t ip;
	uint16_t port;       /* 0: it is down, the coordinator starts it again */
	struct link *link;   /* NULL: none now */
	struct event *again; /* the pause before the next dial */
};

struct names_question {
	TAILQ_ENTRY(names_question) entry;
	uint64_t request; /* member's id and its number */
	uint32_t virtual_ip;
	uint64_t newer;
};

static struct names_master *master_of(struct daemon *d, uint32_t ip)
{
	struct names_master *s;

	LIST_FOREACH(s, &d->masters, entry)
	if (!((ip ^ s->net) & (uint32_t)(~0ull << (32 - s->bits))))
		return s;
	return NULL;
}

static void say_serving(struct names_master *s, struct member *m)
{
	Ms__Serving v = MS__SERVING__INIT;

	v.member = m->id;
	v.virtual_ip = m->virtual_ip;
	v.ip = m->d->ip;
	v.port = m->data_port;
	/*
	 * The last number with a record.  While LEAVING, m->m has none yet: said with it, this place would stand
	 * against the one of the record, which may reach the address server earlier.  One number at a time is
	 * undecided, so the one below it is decided.
	 */
	v.m = m->state == MEMBER_LEAVING ? m->m - 1 : m->m;
	v.cookie = (ProtobufCBinaryData){ sizeof(m->cookie), m->cookie };
	link_send(s->link, LINK_MSG(SERVING, serving, &v));
}

static void say_question(struct names_master *s, const struct names_question *q)
{
	Ms__Lookup l = MS__LOOKUP__INIT;

	l.request = q->request;
	l.virtual_ip = q->virtual_ip;
	l.newer = q->newer;
	link_send(s->link, LINK_MSG(LOOKUP, lookup, &l));
}

/* One that is coming is the source's affair until its record is known. A forked child's address is its family's. */
static bool is_ours(const struct member *m)
{
	return !MS_MEMBER_IS_CHILD(m->id) && m->data_port && (m->state == MEMBER_JOINED || m->state == MEMBER_LEAVING);
}

static void say_all(struct names_master *s)
{
	struct daemon *d = s->d;
	struct names_question *q;
	struct member *m;

	LIST_FOREACH(m, &d->members, entry)
	if (is_ours(m) && master_of(d, m->virtual_ip) == s)
		say_serving(s, m);
	TAILQ_FOREACH(q, &d->questions, entry)
	if (master_of(d, q->virtual_ip) == s)
		say_question(s, q);
}

static struct names_question *question_find(struct daemon *d, uint64_t request)
{
	struct names_question *q;

	TAILQ_FOREACH(q, &d->questions, entry)
	if (q->request == request)
		return q;
	return NULL;
}

static void question_end(struct daemon *d, struct names_question *q)
{
	TAILQ_REMOVE(&d->questions, q, entry);
	d->question_count--;
	free(q);
}

static void serving_ok(struct daemon *d, uint32_t id)
{
	struct member *m = member_find(d, id);

	if (!m || !m->serving_asked)
		return;
	m->serving_asked = false;
	control_serving_ok(m);
}

static void found(struct daemon *d, const Ms__Found *f)
{
	struct names_question *q = question_find(d, f->request);
	struct member *m = member_find(d, (uint32_t)(f->request >> 32));

	if (!q)
		return; /* asked of two address servers in a row, and both have answered */
	question_end(d, q);
	if (m)
		control_place(m, f);
}

static void on_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct names_master *s = user;

	if (msg->body_case == MS__MSG__BODY_FOUND)
		found(s->d, msg->found);
	else if (msg->body_case == MS__MSG__BODY_SERVING_OK)
		serving_ok(s->d, msg->serving_ok->member);
}

/* Dial again after a while: if it is dead the coordinator will name another before. */
static void on_down(struct link *l, const char *why, void *user)
{
	struct timeval pause = { 0, NAMES_AGAIN_MS * 1000 };
	struct names_master *s = user;

	log_say(LOG_INFO, "%s: the link to the address server is lost: %s", s->d->host, why);
	link_destroy(l);
	s->link = NULL;
	event_add(s->again, &pause);
}

static const struct link_ops master_ops = { .on_message = on_message, .on_down = on_down };

static void dial(struct names_master *s)
{
	struct sockaddr_in to = net_address(s->ip, s->port);
	Ms__Hello hello = MS__HELLO__INIT;

	s->link = link_dial(s->d->base, &to, NULL, s->d->secret, &master_ops, s);
	hello.role = "daemon";
	hello.host = s->d->host;
	hello.version = MS_WIRE_VERSION;
	link_send(s->link, LINK_MSG(HELLO, hello, &hello));
	say_all(s);
}

static void again_cb(evutil_socket_t fd, short what, void *arg)
{
	struct names_master *s = arg;

	if (!s->link && s->port)
		dial(s);
}

static struct names_master *master_create(struct daemon *d, uint32_t net, uint32_t bits)
{
	struct names_master *s = calloc(1, sizeof(*s));

	if (!s)
		log_die("out of memory");
	s->d = d;
	s->net = net;
	s->bits = bits;
	s->again = evtimer_new(d->base, again_cb, s);
	LIST_INSERT_HEAD(&d->masters, s, entry);
	return s;
}

void names_welcome(struct daemon *d, const Ms__Welcome *w)
{
	for (size_t i = 0; i < w->n_masters; i++) {
		const Ms__Master *told = w->masters[i];
		struct names_master *s = master_of(d, told->net);

		if (!s)
			s = master_create(d, told->net, told->bits);
		if (s->ip == told->ip && s->port == told->port)
			continue;
		s->ip = told->ip;
		s->port = (uint16_t)told->port;
		link_destroy(s->link);
		s->link = NULL;
		event_del(s->again);
		if (s->port)
			dial(s);
	}
}

void names_serving(struct member *m)
{
	struct names_master *s = master_of(m->d, m->virtual_ip);

	m->serving_asked = true;
	if (s && s->link)
		say_serving(s, m);
}

void names_lookup(struct member *m, uint32_t request, uint32_t virtual_ip, uint64_t newer)
{
	struct daemon *d = m->d;
	struct names_master *s = master_of(d, virtual_ip);
	uint64_t number = (uint64_t)m->id << 32 | request;
	struct names_question *q = question_find(d, number);

	if (!s) {
		Ms__Found nobody = MS__FOUND__INIT;

		nobody.request = number;
		nobody.status = MS_PLACE_NOBODY;
		control_place(m, &nobody);
		return;
	}
	if (!q) {
		q = d->question_count < NAMES_QUESTIONS ? calloc(1, sizeof(*q)) : NULL;
		if (!q)
			return; /* it asks again */
		q->request = number;
		TAILQ_INSERT_TAIL(&d->questions, q, entry);
		d->question_count++;
	}
	if (q->virtual_ip == virtual_ip && q->newer == newer)
		return; /* asked already; a link that breaks asks again */
	q->virtual_ip = virtual_ip;
	q->newer = newer;
	if (s->link)
		say_question(s, q);
}

void names_member_gone(struct member *m)
{
	struct names_question *q, *next;

	for (q = TAILQ_FIRST(&m->d->questions); q; q = next) {
		next = TAILQ_NEXT(q, entry);
		if (q->request >> 32 == m->id)
			question_end(m->d, q);
	}
}

void names_put_subnets(struct daemon *d, struct ms_codec *c)
{
	struct names_master *s;
	uint8_t n = 0;

	LIST_FOREACH(s, &d->masters, entry)
	n++;
	ms_put_u8(c, n);
	LIST_FOREACH(s, &d->masters, entry)
	{
		ms_put_u32(c, s->net);
		ms_put_u8(c, (uint8_t)s->bits);
	}
}
