/* SPDX-License-Identifier: MIT */
#include "msdaemon/orphan.h"

#include <stdlib.h>
#include <string.h>

#include "msdaemon/arrival.h"
#include "msdaemon/coordinator.h"
#include "msdaemon/departure.h"
#include "msdaemon/farewell.h"
#include "msdaemon/kin.h"
#include "msdaemon/member.h"
#include "msdaemon/mirror.h"
#include "msdaemon/relay.h"
#include "msdaemon/standin.h"
#include "proto/log.h"

enum { ORPHAN_S = 15 };

struct orphan {
	struct event *timer;
	struct link *heir; /* called while the old link was not yet at its end; owned */
	bool unwelcome;    /* attached to a new coordinator that has not said Welcome yet */
};

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;

	log_say(LOG_ERROR, "%s: the coordinator is gone, and no other has called in %d s", d->host, ORPHAN_S);
	daemon_end(d, 1);
}

static struct orphan *orphan_of(struct daemon *d)
{
	if (!d->orphan) {
		d->orphan = calloc(1, sizeof(*d->orphan));
		if (!d->orphan)
			log_die("out of memory");
		d->orphan->timer = evtimer_new(d->base, timer_cb, d);
	}
	return d->orphan;
}

static void wait_begin(struct daemon *d)
{
	struct timeval limit = { ORPHAN_S, 0 };
	struct orphan *o = orphan_of(d);

	if (!event_pending(o->timer, EV_TIMEOUT, NULL))
		event_add(o->timer, &limit);
}

static void fill(const struct member *m, Ms__Here *h, Ms__Serving *s)
{
	static const Ms__Here__State states[] = {
		[MEMBER_RUNNING] = MS__HERE__STATE__RUNNING,
		[MEMBER_JOINED] = MS__HERE__STATE__JOINED,
		[MEMBER_LEAVING] = MS__HERE__STATE__LEAVING,
		[MEMBER_COMING] = MS__HERE__STATE__COMING,
	};

	ms__here__init(h);
	ms__serving__init(s);
	h->member = s->member = m->id;
	h->state = states[m->state];
	h->m = s->m = m->m;
	h->pid = m->pid;
	s->virtual_ip = m->virtual_ip;
	s->ip = m->d->ip;
	s->port = m->data_port;
	s->cookie = (ProtobufCBinaryData){ sizeof(m->cookie), (uint8_t *)m->cookie };
	h->serving = s;
	h->child = kin_child_of(m, &h->parent);
}

static void *list_new(size_t count, size_t size)
{
	void *list = calloc(count + 1, size);

	if (!list)
		log_die("out of memory");
	return list;
}

static void say_present(struct daemon *d)
{
	size_t ended = farewell_count(d), gone = ended + standin_count(d), mirrors = mirror_count(d), count = gone,
	       n = 0;
	Ms__Present p = MS__PRESENT__INIT;
	struct member *m;
	Ms__Serving *serving;
	Ms__Here *here, **list;

	LIST_FOREACH(m, &d->members, entry)
	count++;
	serving = list_new(count, sizeof(*serving));
	here = list_new(count + mirrors, sizeof(*here));
	list = list_new(count + mirrors, sizeof(*list));
	farewell_present(d, here);
	standin_present(d, here + ended);
	LIST_FOREACH(m, &d->members, entry)
	{
		fill(m, &here[gone + n], &serving[n]);
		n++;
	}
	mirror_present(d, here + count);
	for (size_t i = 0; i < count + mirrors; i++)
		list[i] = &here[i];
	p.n_members = count;
	p.members = list;
	p.n_mirrors = mirrors;
	p.mirrors = list + count;
	link_send(d->coordinator, LINK_MSG(PRESENT, present, &p));
	free(serving);
	free(here);
	free(list);
}

static void attach(struct daemon *d, struct link *l)
{
	log_say(LOG_INFO, "%s: another coordinator has called", d->host);
	event_del(orphan_of(d)->timer);
	d->orphan->unwelcome = true;
	d->last = true; /* until it says otherwise */
	coordinator_take(d, l);
	say_present(d);
}

bool orphan_begin(struct daemon *d)
{
	struct link *heir = d->orphan ? d->orphan->heir : NULL;

	if (!*d->job || d->last || d->ending)
		return false;
	wait_begin(d);
	if (heir) {
		d->orphan->heir = NULL;
		attach(d, heir);
	}
	return true;
}

void orphan_stdin_ended(struct daemon *d)
{
	if (!*d->job)
		daemon_end(d, 1);
	if (!d->coordinator) /* else it was our remote shell that ended: the link tells if the coordinator does */
		wait_begin(d);
}

static void heir_message(struct link *l, const Ms__Msg *msg, void *user)
{
	log_say(LOG_WARN, "unexpected message %d from a coordinator", msg->body_case);
}

static void heir_down(struct link *l, const char *why, void *user)
{
	struct daemon *d = user;

	d->orphan->heir = NULL;
	link_destroy(l);
}

static const struct link_ops heir_ops = { .on_message = heir_message, .on_down = heir_down };

void orphan_heir(struct daemon *d, struct link *l, const Ms__Hello *hello)
{
	if (d->last || hello->version != MS_WIRE_VERSION || orphan_of(d)->heir) {
		log_say(LOG_WARN, "%s: a coordinator called that is not expected", d->host);
		link_destroy(l);
		return;
	}
	if (d->coordinator) {
		d->orphan->heir = l;
		link_set_user(l, &heir_ops, d);
	} else {
		attach(d, l);
	}
}

void orphan_welcomed(struct daemon *d)
{
	struct member *m;

	if (!d->orphan || !d->orphan->unwelcome)
		return;
	d->orphan->unwelcome = false;
	LIST_FOREACH(m, &d->members, entry)
	{
		departure_again(m);
		arrival_again(m);
	}
	relay_again(d);
	kin_again(d);
	standin_again(d);
}
