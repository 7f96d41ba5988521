/* SPDX-License-Identifier: MIT */
#include "msdaemon/coordinator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "msdaemon/arrival.h"
#include "msdaemon/control.h"
#include "msdaemon/departure.h"
#include "msdaemon/farewell.h"
#include "msdaemon/kin.h"
#include "msdaemon/names.h"
#include "msdaemon/orphan.h"
#include "msdaemon/relay.h"
#include "msdaemon/sample.h"
#include "msdaemon/spawn.h"
#include "msdaemon/standin.h"
#include "proto/log.h"
#include "proto/net.h"

enum { STATS_WAIT_US = 100000 }; /* for members to tell their figures */

struct stats_wait {
	struct daemon *d;
	uint64_t request;
};

static void welcome(struct daemon *d, const Ms__Welcome *w)
{
	snprintf(d->job, sizeof(d->job), "%s", w->job);
	snprintf(d->card, sizeof(d->card), "%s", w->card);
	d->port_low = (uint16_t)w->port_low;
	d->port_high = (uint16_t)w->port_high;
	d->last = w->last;
	names_welcome(d, w);
	sample_start(d);
	orphan_welcomed(d);
}

/* Fills in peers, to be freed: one block, first the pointers. */
static void put_peers(const struct member *m, Ms__Rank *r)
{
	Ms__Peer *each;

	r->peers = malloc(m->peer_count * (sizeof(*r->peers) + sizeof(*each)) + 1);
	if (!r->peers)
		log_die("out of memory");
	each = (Ms__Peer *)(r->peers + m->peer_count);
	for (size_t i = 0; i < m->peer_count; i++) {
		ms__peer__init(&each[i]);
		each[i].member = m->peers[i].id;
		each[i].sent = m->peers[i].sent;
		each[i].taken = m->peers[i].taken;
		r->peers[i] = &each[i];
	}
	r->n_peers = m->peer_count;
}

static void stats_answer(evutil_socket_t fd, short what, void *arg)
{
	struct stats_wait *wait = arg;
	struct daemon *d = wait->d;
	Ms__Stats s = MS__STATS__INIT;
	Ms__Rank **list = sample_ranks(d);
	struct member *m;

	LIST_FOREACH(m, &d->members, entry)
	{
		Ms__Rank *r = list[s.n_ranks];

		if (m->state == MEMBER_COMING)
			continue;
		r->member = m->id;
		r->pid = m->pid;
		r->streams = m->streams;
		r->mirrors = m->mirrors;
		sample_process(m, r);
		put_peers(m, r);
		s.n_ranks++;
	}
	s.ranks = list;
	s.request = wait->request;
	s.mirrors = mirror_count(d);
	s.relays = d->relays;
	link_send(d->coordinator, LINK_MSG(STATS, stats, &s));
	for (size_t i = 0; i < s.n_ranks; i++)
		free(list[i]->peers);
	free(list);
	free(wait);
}

static void stats(struct daemon *d, const Ms__Stats *ask)
{
	struct timeval limit = { 0, STATS_WAIT_US };
	struct stats_wait *wait = malloc(sizeof(*wait));
	struct member *m;

	if (!wait)
		log_die("out of memory");
	wait->d = d;
	wait->request = ask->request;
	LIST_FOREACH(m, &d->members, entry)
	control_stats(m);
	event_base_once(d->base, -1, EV_TIMEOUT, stats_answer, wait, &limit);
}

static void ended(struct daemon *d, const Ms__Ended *e)
{
	for (size_t i = 0; i < e->n_last; i++)
		member_last_word(d, e->last[i]);
	member_ended_elsewhere(d, e->member, e->status);
	mirror_member_ended(d, e->member);
	if (MS_MEMBER_IS_CHILD(e->member))
		relay_forget(d, e->member);
}

/* Where a member of another job is, asked for a member here. */
static void found_abroad(struct daemon *d, const Ms__Found *f)
{
	struct member *m = member_find(d, (uint32_t)(f->request >> 32));

	if (m)
		control_place(m, f);
}

static void data(struct member *m, const Ms__Data *data)
{
	if (!m->pump)
		return;
	pump_data(m->pump, data);
	if (data->channel == 0 && data->eof)
		standin_input_ended(m->d, m->id);
}

static void for_member(struct daemon *d, const Ms__Msg *msg)
{
	struct member *m;

	if (msg->body_case == MS__MSG__BODY_DATA && standin_data(d, msg->data))
		return;
	if (msg->body_case == MS__MSG__BODY_DATA && (m = member_find(d, msg->data->member)))
		data(m, msg->data);
	else if (msg->body_case == MS__MSG__BODY_ACK && (m = member_find(d, msg->ack->member)) && m->pump)
		pump_ack(m->pump, msg->ack);
	else if (msg->body_case == MS__MSG__BODY_ACK)
		farewell_ack(d, msg->ack);
	else if (msg->body_case == MS__MSG__BODY_SIGNAL && (m = member_find(d, msg->signal->member)))
		member_signal(m, msg->signal->signo);
}

/* The stub may have missed what went through the coordinator that is gone. */
static void resend(struct daemon *d, uint32_t member)
{
	struct member *m = member_find(d, member);

	if (m && m->state != MEMBER_COMING && m->pump)
		pump_again(m->pump);
	else if (!m)
		farewell_again(d, member);
}

static void on_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct daemon *d = user;

	switch (msg->body_case) {
	case MS__MSG__BODY_WELCOME:
		welcome(d, msg->welcome);
		break;
	case MS__MSG__BODY_SPAWN:
		spawn_member(d, msg->spawn);
		break;
	case MS__MSG__BODY_DATA:
	case MS__MSG__BODY_ACK:
	case MS__MSG__BODY_SIGNAL:
		for_member(d, msg);
		break;
	case MS__MSG__BODY_RESEND:
		resend(d, msg->resend->member);
		break;
	case MS__MSG__BODY_EXIT:
		standin_exit(d, msg->exit);
		break;
	case MS__MSG__BODY_MOVED:
		standin_moved(d, msg->moved);
		break;
	case MS__MSG__BODY_FORGET:
		farewell_forget(d, msg->forget->member);
		break;
	case MS__MSG__BODY_NAMED:
		kin_named(d, msg->named);
		break;
	case MS__MSG__BODY_FOUND:
		found_abroad(d, msg->found);
		break;
	case MS__MSG__BODY_RELAY: /* from a member of another job */
		relay_send(d, msg->relay->to, msg->relay->from, msg->relay->bytes.data, msg->relay->bytes.len);
		break;
	case MS__MSG__BODY_WHERE_IS:
		relay_where_is(d, msg->where_is);
		break;
	case MS__MSG__BODY_ENDED:
		ended(d, msg->ended);
		break;
	case MS__MSG__BODY_MOVE_BEGIN:
		departure_begin(d, msg->move_begin);
		break;
	case MS__MSG__BODY_OUTCOME:
		if (!departure_outcome(d, msg->outcome) && !arrival_outcome(d, msg->outcome))
			log_say(LOG_DEBUG, "the record of a move that is not ours");
		break;
	case MS__MSG__BODY_STATS:
		stats(d, msg->stats);
		break;
	case MS__MSG__BODY_PING:
		link_send(l, msg);
		break;
	case MS__MSG__BODY_SHUTDOWN:
		daemon_end(d, 0);
	default:
		log_say(LOG_WARN, "unexpected message %d from the coordinator", msg->body_case);
	}
}

static void on_down(struct link *l, const char *why, void *user)
{
	struct daemon *d = user;

	link_destroy(l);
	d->coordinator = NULL;
	if (orphan_begin(d)) {
		log_say(LOG_INFO, "%s: the link to the coordinator is lost: %s", d->host, why);
		return;
	}
	log_say(LOG_ERROR, "%s: the link to the coordinator is lost: %s", d->host, why);
	daemon_end(d, 1);
}

static const struct link_ops coordinator_ops = { .on_message = on_message, .on_down = on_down };

static void say_hello(struct daemon *d)
{
	Ms__Hello hello = MS__HELLO__INIT;

	hello.role = "daemon";
	hello.host = d->host;
	hello.port = d->mesh_port;
	hello.version = MS_WIRE_VERSION;
	link_send(d->coordinator, LINK_MSG(HELLO, hello, &hello));
}

void coordinator_dial(struct daemon *d, uint32_t ip, uint16_t port)
{
	struct sockaddr_in to = net_address(ip, port), from = net_address(d->ip, 0);

	d->coordinator = link_dial(d->base, &to, &from, d->secret, &coordinator_ops, d);
	say_hello(d);
}

void coordinator_take(struct daemon *d, struct link *l)
{
	d->coordinator = l;
	link_set_user(l, &coordinator_ops, d);
	say_hello(d);
}
