/* SPDX-License-Identifier: MIT */
#include "join.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobdir.h"
#include "master.h"
#include "move.h"
#include "proto/log.h"
#include "proto/net.h"
#include "rank.h"

enum { JOIN_LIMIT_S = 30 };

struct waiter {
	struct waiter *next;
	struct link *tool; /* borrowed; NULL: gone */
};

struct join {
	struct waiter *waiters;
	struct event *timer;
};

static void answer(struct link *tool, const char *host, bool unknown, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void answer(struct link *tool, const char *host, bool unknown, const char *format, ...)
{
	Ms__HostAnswer a = MS__HOST_ANSWER__INIT;
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	a.host = (char *)host;
	a.unknown = unknown;
	a.error = text;
	if (tool)
		link_send(tool, LINK_MSG(HOST_ANSWER, host_answer, &a));
}

/* All that wait are told; error "": it is up. */
static void finish(struct host *h, const char *error)
{
	struct join *j = h->join;
	struct waiter *w;

	h->join = NULL;
	while ((w = j->waiters)) {
		j->waiters = w->next;
		answer(w->tool, h->name, false, "%s", error);
		free(w);
	}
	event_free(j->timer);
	free(j);
}

static void wait_for(struct host *h, struct link *tool)
{
	struct waiter *w = malloc(sizeof(*w));

	if (!w)
		log_die("out of memory");
	*w = (struct waiter){ .next = h->join->waiters, .tool = tool };
	h->join->waiters = w;
}

bool join_failed(struct host *h, const char *why)
{
	char text[900];

	if (!h->join)
		return false;
	snprintf(text, sizeof(text), "host %s cannot join: %s", h->name, why);
	host_drop(h);
	finish(h, text);
	return true;
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
	char why[64];

	snprintf(why, sizeof(why), "its daemon has not called in %d s", JOIN_LIMIT_S);
	join_failed(arg, why);
}

void join_up(struct host *h)
{
	if (!h->join)
		return;
	log_say(LOG_INFO, "host %s has joined", h->name);
	host_welcome_all(h->c);
	jobdir_write_job(h->c);
	finish(h, "");
}

void join_tool_gone(struct coord *c, struct link *tool)
{
	struct host *h;

	TAILQ_FOREACH(h, &c->hosts, entry)
	for (struct waiter *w = h->join ? h->join->waiters : NULL; w; w = w->next)
		if (w->tool == tool)
			w->tool = NULL;
}

static bool has_rank(const struct host *h)
{
	struct rank *r;

	TAILQ_FOREACH(r, &h->c->ranks, entry)
	if ((r->host == h && !r->ended) || r->standin == h)
		return true;
	return false;
}

static void drop(struct coord *c, struct link *tool, const char *name)
{
	struct host *h = host_find(c, name);

	if (!h)
		answer(tool, name, true, "host %s is not one of the job's hosts", name);
	else if (h->join)
		answer(tool, name, false, "host %s is joining", name);
	else if (has_rank(h))
		answer(tool, name, false, "host %s still has ranks: move them first (--evacuate)", name);
	else if (move_touches(h))
		answer(tool, name, false, "host %s still has a part in a move", name);
	else if (master_is_on(h))
		answer(tool, name, false, "host %s has an address server of the job", name);
	else {
		host_drop(h);
		jobdir_write_job(c);
		answer(tool, name, false, "%s", "");
	}
}

static void begin(struct coord *c, struct link *tool, const Ms__HostRequest *q)
{
	struct timeval limit = { JOIN_LIMIT_S, 0 };
	struct host *old = host_find(c, q->host), *h;

	if (c->listen_ip && q->ip >> 24 != 127) {
		answer(tool, q->host, false,
		       "host %s cannot join: the job's hosts are all names of this machine, which it cannot reach",
		       q->host);
		return;
	}
	if (!allocation_has(c, q->host, q->ip)) {
		answer(tool, q->host, false, "host %s cannot join: it is not in %s", q->host, allocation_text(c));
		return;
	}
	if (old) /* lost, and nothing of it is left */
		host_drop(old);
	h = host_add(c, q->host);
	h->join = calloc(1, sizeof(*h->join));
	if (!h->join)
		log_die("out of memory");
	h->join->timer = evtimer_new(c->base, timer_cb, h);
	event_add(h->join->timer, &limit);
	wait_for(h, tool);
	h->ip = q->ip;
	h->local = net_is_own(h->ip);
	if (!c->listen_ip && h->ip >> 24 == 127)
		h->ip = c->ip;
	host_start(h);
}

void join_request(struct coord *c, struct link *tool, const Ms__HostRequest *q)
{
	struct host *h = host_find(c, q->host);

	if (q->drop)
		drop(c, tool, q->host);
	else if (h && h->join)
		wait_for(h, tool);
	else if (h && !(h->lost && q->ip && !has_rank(h) && !move_touches(h)))
		answer(tool, q->host, h->lost, "%s", ""); /* if it is lost, a move to it is refused for that */
	else if (!q->ip)
		answer(tool, q->host, true, "host %s is not one of the job's hosts", q->host);
	else if (!*q->host || q->host[strcspn(q->host, " \t\r\n/")] || *q->host == '-')
		answer(tool, q->host, false, "%s is no name of a host", q->host);
	else
		begin(c, tool, q);
}
