/* SPDX-License-Identifier: MIT */
#include "msdaemon/relay.h"

#include <stdlib.h>
#include <string.h>

#include "msdaemon/member.h"
#include "msdaemon/mesh.h"
#include "proto/log.h"

enum { RELAY_WAITING = 4096 }; /* messages of one route; they are repeated, so more may be dropped */

struct route { /* to a member that is not here */
	LIST_ENTRY(route) entry;
	uint32_t member;
	bool known, asked;
	Ms__Place place; /* host is owned */
	uint64_t m;
	struct held_list waiting;
	unsigned waiting_count;
};

static struct route *route_find(struct daemon *d, uint32_t member, bool create)
{
	struct route *r;

	LIST_FOREACH(r, &d->routes, entry)
	if (r->member == member)
		return r;
	if (!create)
		return NULL;
	r = calloc(1, sizeof(*r));
	if (!r)
		log_die("out of memory");
	r->member = member;
	ms__place__init(&r->place);
	r->place.host = NULL;
	STAILQ_INIT(&r->waiting);
	LIST_INSERT_HEAD(&d->routes, r, entry);
	return r;
}

static void route_set(struct route *r, const Ms__Place *place, uint64_t m)
{
	free(r->place.host);
	ms__place__init(&r->place);
	r->place.host = strdup(place->host);
	if (!r->place.host)
		log_die("out of memory");
	r->place.ip = place->ip;
	r->place.port = place->port;
	r->m = m;
	r->known = true;
}

static void send_to(struct daemon *d, struct route *r, uint32_t from, const void *bytes, size_t size)
{
	Ms__Relay relay = MS__RELAY__INIT;

	relay.to = r->member;
	relay.from = from;
	relay.bytes = (ProtobufCBinaryData){ size, (uint8_t *)bytes };
	link_send(mesh_link(d, &r->place), LINK_MSG(RELAY, relay, &relay));
}

static void ask(struct daemon *d, struct route *r)
{
	Ms__Where where = MS__WHERE__INIT;

	if (r->asked)
		return;
	r->asked = true;
	where.member = r->member;
	link_send(d->coordinator, LINK_MSG(WHERE, where, &where));
}

static void wait_for_route(struct daemon *d, struct route *r, uint32_t from, const void *bytes, size_t size)
{
	struct held *h = r->waiting_count < RELAY_WAITING ? malloc(sizeof(*h) + size) : NULL;

	if (h) {
		h->from = from;
		h->size = size;
		memcpy(h->bytes, bytes, size);
		STAILQ_INSERT_TAIL(&r->waiting, h, next);
		r->waiting_count++;
	}
	ask(d, r);
}

/*
 * The member with this id, if what is meant for it can be left here.  One that is coming is not here until its
 * record is known: till then its source must get what is said to it, or a drain waits for itself.  A sender that
 * knows of the commit earlier than we do is told NOT_HERE, asks, and comes again.
 */
static struct member *member_here(struct daemon *d, uint32_t id)
{
	struct member *m = member_find(d, id);

	return m && m->state != MEMBER_COMING && m->state != MEMBER_LEFT ? m : NULL;
}

/* To a member of another job: only the coordinator knows more of it than our name for it. */
static void send_abroad(struct daemon *d, uint32_t to, uint32_t from, const void *bytes, size_t size)
{
	Ms__Relay relay = MS__RELAY__INIT;

	relay.to = to;
	relay.from = from;
	relay.bytes = (ProtobufCBinaryData){ size, (uint8_t *)bytes };
	link_send(d->coordinator, LINK_MSG(RELAY, relay, &relay));
}

void relay_send(struct daemon *d, uint32_t to, uint32_t from, const void *bytes, size_t size)
{
	struct member *m = member_here(d, to);
	struct route *r;

	d->relays++;
	if (MS_MEMBER_IS_ABROAD(to)) {
		send_abroad(d, to, from, bytes, size);
		return;
	}
	if (m) {
		member_relay(m, from, bytes, size);
		return;
	}
	r = route_find(d, to, true);
	if (r->known)
		send_to(d, r, from, bytes, size);
	else
		wait_for_route(d, r, from, bytes, size);
}

void relay_take(struct daemon *d, struct link *l, const Ms__Relay *relay)
{
	struct member *m = member_here(d, relay->to);
	Ms__NotHere n = MS__NOT_HERE__INIT;
	struct route *r;

	if (m) {
		member_relay(m, relay->from, relay->bytes.data, relay->bytes.len);
		return;
	}
	r = route_find(d, relay->to, false);
	n.m = r ? r->m : 0;
	n.relay = (Ms__Relay *)relay;
	link_send(l, LINK_MSG(NOT_HERE, not_here, &n));
}

void relay_not_here(struct daemon *d, const Ms__NotHere *n)
{
	const Ms__Relay *relay = n->relay;
	struct route *r;

	if (!relay || member_here(d, relay->to)) {
		if (relay)
			relay_send(d, relay->to, relay->from, relay->bytes.data, relay->bytes.len);
		return;
	}
	r = route_find(d, relay->to, true);
	r->known = false;
	wait_for_route(d, r, relay->from, relay->bytes.data, relay->bytes.len);
}

/* Send what waits, or throw it away where nobody is to be found. */
static void route_release(struct daemon *d, struct route *r)
{
	struct held *h;

	while ((h = STAILQ_FIRST(&r->waiting))) {
		STAILQ_REMOVE_HEAD(&r->waiting, next);
		r->waiting_count--;
		if (r->known)
			send_to(d, r, h->from, h->bytes, h->size);
		free(h);
	}
}

void relay_where_is(struct daemon *d, const Ms__WhereIs *w)
{
	struct route *r = route_find(d, w->member, true);
	struct member *m = member_here(d, w->member);
	struct held *h;

	r->asked = false;
	if (m) { /* it came here meanwhile */
		while ((h = STAILQ_FIRST(&r->waiting))) {
			STAILQ_REMOVE_HEAD(&r->waiting, next);
			r->waiting_count--;
			member_relay(m, h->from, h->bytes, h->size);
			free(h);
		}
		return;
	}
	if (w->status == MS_PLACE_OK && w->place && strcmp(w->place->host, d->host))
		route_set(r, w->place, w->m);
	else
		r->known = false;
	route_release(d, r);
}

void relay_learn(struct daemon *d, uint32_t member, const Ms__Place *place, uint64_t m)
{
	struct route *r = route_find(d, member, true);

	route_set(r, place, m);
	route_release(d, r);
}

void relay_forget(struct daemon *d, uint32_t member)
{
	struct route *r = route_find(d, member, false);

	if (!r)
		return;
	r->known = false;
	route_release(d, r);
	LIST_REMOVE(r, entry);
	free(r->place.host);
	free(r);
}

void relay_link_lost(struct daemon *d, uint32_t ip, uint32_t port)
{
	struct route *r;

	LIST_FOREACH(r, &d->routes, entry)
	if (r->known && r->place.ip == ip && r->place.port == port)
		r->known = false;
}

void relay_again(struct daemon *d)
{
	struct route *r;

	LIST_FOREACH(r, &d->routes, entry)
	{
		if (!r->asked)
			continue;
		r->asked = false;
		ask(d, r);
	}
}
