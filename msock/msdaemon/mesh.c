/* SPDX-License-Identifier: MIT */
#include "msdaemon/mesh.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "msdaemon/arrival.h"
#include "msdaemon/departure.h"
#include "msdaemon/orphan.h"
#include "msdaemon/relay.h"
#include "proto/door.h"
#include "proto/log.h"
#include "proto/net.h"

struct peer {
	LIST_ENTRY(peer) entry;
	struct daemon *d; /* borrowed */
	struct link *link;
	char *host; /* NULL: it called us */
	/* Which daemon we called: another one of that host's name, dropped before it, may not be at its end yet. */
	uint32_t ip;
	uint32_t port;
};

/* Another daemon, or the coordinator that comes after one that was killed. */
static void hello(struct peer *p, struct link *l, const Ms__Hello *said)
{
	struct daemon *d = p->d;

	if (strcmp(said->role, "coordinator") != 0)
		return;
	LIST_REMOVE(p, entry);
	free(p->host);
	free(p);
	orphan_heir(d, l, said);
}

static void on_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct peer *p = user;

	switch (msg->body_case) {
	case MS__MSG__BODY_HELLO:
		hello(p, l, msg->hello);
		break;
	case MS__MSG__BODY_RELAY:
		relay_take(p->d, l, msg->relay);
		break;
	case MS__MSG__BODY_NOT_HERE:
		relay_not_here(p->d, msg->not_here);
		break;
	case MS__MSG__BODY_MOVE_IN:
		arrival_begin(p->d, l, msg->move_in);
		break;
	case MS__MSG__BODY_PUMP_STATE:
		arrival_pump_state(p->d, msg->pump_state);
		break;
	case MS__MSG__BODY_IMAGE_SENT:
		arrival_image_sent(p->d, msg->image_sent);
		break;
	case MS__MSG__BODY_MOVE_IN_ANSWER:
		departure_answer(p->d, msg->move_in_answer);
		break;
	case MS__MSG__BODY_MOVE_READY:
		departure_ready(p->d, msg->move_ready);
		break;
	default:
		log_say(LOG_WARN, "unexpected message %d from another daemon", msg->body_case);
	}
}

static void on_down(struct link *l, const char *why, void *user)
{
	struct peer *p = user;

	log_say(LOG_DEBUG, "link %s %s is down: %s", p->host ? "to" : "from", p->host ? p->host : "another daemon",
		why);
	LIST_REMOVE(p, entry);
	if (p->host) {
		departure_link_lost(p->d, p->ip, p->port, why);
		relay_link_lost(p->d, p->ip, p->port);
	} else {
		arrival_link_lost(p->d, l);
	}
	link_destroy(l);
	free(p->host);
	free(p);
}

static const struct link_ops mesh_ops = { .on_message = on_message, .on_down = on_down };

static struct peer *peer_create(struct daemon *d, const char *host)
{
	struct peer *p = calloc(1, sizeof(*p));

	if (!p || (host && !(p->host = strdup(host))))
		log_die("out of memory");
	p->d = d;
	LIST_INSERT_HEAD(&d->peers, p, entry);
	return p;
}

static void on_caller(void *user, struct link *l)
{
	struct peer *p = peer_create(user, NULL);

	p->link = l;
	link_set_user(l, &mesh_ops, p);
}

int mesh_listen(struct daemon *d)
{
	return door_open(d->base, d->ip, d->secret, on_caller, d, &d->mesh_port);
}

struct link *mesh_link(struct daemon *d, const Ms__Place *place)
{
	struct sockaddr_in to = net_address(place->ip, (uint16_t)place->port), from = net_address(d->ip, 0);
	Ms__Hello hello = MS__HELLO__INIT;
	struct peer *p;

	LIST_FOREACH(p, &d->peers, entry)
	if (p->host && p->ip == place->ip && p->port == place->port)
		return p->link;
	p = peer_create(d, place->host);
	p->ip = place->ip;
	p->port = place->port;
	p->link = link_dial(d->base, &to, &from, d->secret, &mesh_ops, p);
	hello.role = "peer";
	hello.host = d->host;
	hello.version = MS_WIRE_VERSION;
	link_send(p->link, LINK_MSG(HELLO, hello, &hello));
	return p->link;
}
