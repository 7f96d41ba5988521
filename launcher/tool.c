/* SPDX-License-Identifier: MIT */
#include "tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "history.h"
#include "join.h"
#include "move.h"
#include "proto/log.h"
#include "rank.h"

enum { TOOL_CENSUS_MS = 3000 }; /* as long as a move waits for the target's daemon */

struct census { /* a msrank-ps that waits for the daemons' figures */
	LIST_ENTRY(census) entry;
	struct coord *c;   /* borrowed */
	struct link *tool; /* borrowed; NULL: gone */
	uint64_t request;
	struct event *timer;
	Ms__Rank *ranks; /* one for each rank of the job, in their order */
	size_t count;
	Ms__HostState *hosts; /* silent: it is awaited */
	size_t host_count;
};

static void census_finish(struct census *s)
{
	Ms__PsReply reply = MS__PS_REPLY__INIT;
	Ms__Rank **ranks = calloc(s->count + 1, sizeof(*ranks));
	Ms__HostState **hosts = calloc(s->host_count + 1, sizeof(*hosts));

	if (!ranks || !hosts)
		log_die("out of memory");
	for (size_t i = 0; i < s->count; i++)
		ranks[i] = &s->ranks[i];
	for (size_t i = 0; i < s->host_count; i++)
		hosts[i] = &s->hosts[i];
	reply.job = s->c->job;
	reply.n_ranks = s->count;
	reply.ranks = ranks;
	reply.n_hosts = s->host_count;
	reply.hosts = hosts;
	history_moves(&reply);
	if (s->tool)
		link_send(s->tool, LINK_MSG(PS_REPLY, ps_reply, &reply));
	for (size_t i = 0; i < s->count; i++)
		free(s->ranks[i].peers);
	free(reply.moves);
	free(ranks);
	free(hosts);
	LIST_REMOVE(s, entry);
	event_free(s->timer);
	free(s->ranks);
	free(s->hosts);
	free(s);
}

static void census_timeout(evutil_socket_t fd, short what, void *arg)
{
	census_finish(arg);
}

/* The host's entry while its answer is awaited, else NULL. */
static Ms__HostState *census_host(struct census *s, const struct host *h)
{
	for (size_t i = 0; i < s->host_count; i++)
		if (s->hosts[i].name == h->name && s->hosts[i].silent)
			return &s->hosts[i];
	return NULL;
}

static void census_check(struct census *s)
{
	for (size_t i = 0; i < s->host_count; i++)
		if (s->hosts[i].silent)
			return;
	census_finish(s);
}

/* What the coordinator knows by itself; names are borrowed, hosts and ranks stay as long as the job. */
static void census_fill(struct census *s)
{
	struct rank *r;
	struct host *h;

	TAILQ_FOREACH(r, &s->c->ranks, entry)
	s->count++;
	TAILQ_FOREACH(h, &s->c->hosts, entry)
	s->host_count += !h->dropped;
	s->ranks = calloc(s->count + 1, sizeof(*s->ranks));
	s->hosts = calloc(s->host_count + 1, sizeof(*s->hosts));
	if (!s->ranks || !s->hosts)
		log_die("out of memory");
	s->count = s->host_count = 0;
	TAILQ_FOREACH(r, &s->c->ranks, entry)
	{
		Ms__Rank *e = &s->ranks[s->count++];

		ms__rank__init(e);
		e->member = r->id;
		e->host = r->host->name;
		e->pid = r->pid;
		e->state = (char *)(r->ended ? "ended" : r->move ? "moving" : "running");
		e->cpu_s = r->ended ? 0 : -1;
		e->moves = r->moves;
		e->load = r->load;
		e->rss_bytes = r->rss_bytes;
		e->movable = r->joined && !r->ended && !r->move && !rank_child_elsewhere(r);
		e->child = r->child;
		e->parent = r->parent;
	}
	TAILQ_FOREACH(h, &s->c->hosts, entry)
	{
		Ms__HostState *e;

		if (h->dropped)
			continue;
		e = &s->hosts[s->host_count++];
		ms__host_state__init(e);
		e->name = h->name;
		e->up = e->silent = h->link != NULL;
		e->starting = !h->link && !h->lost;
		e->says = h->says;
		history_fill(h, e);
	}
}

/* The daemon's message goes with the callback; one block holds pointers and entries. */
static void copy_peers(Ms__Rank *to, const Ms__Rank *from)
{
	Ms__Peer *each;

	free(to->peers);
	to->n_peers = from->n_peers;
	to->peers = malloc(from->n_peers * (sizeof(*to->peers) + sizeof(*each)) + 1);
	if (!to->peers)
		log_die("out of memory");
	each = (Ms__Peer *)(to->peers + from->n_peers);
	for (size_t i = 0; i < from->n_peers; i++) {
		each[i] = *from->peers[i];
		to->peers[i] = &each[i];
	}
}

static void census_begin(struct coord *c, struct link *tool)
{
	struct timeval limit = { TOOL_CENSUS_MS / 1000, TOOL_CENSUS_MS % 1000 * 1000 };
	struct census *s = calloc(1, sizeof(*s));
	Ms__Stats ask = MS__STATS__INIT;
	struct host *h;

	if (!s)
		log_die("out of memory");
	s->c = c;
	s->tool = tool;
	s->request = ask.request = ++c->requests;
	s->timer = evtimer_new(c->base, census_timeout, s);
	LIST_INSERT_HEAD(&c->censuses, s, entry);
	census_fill(s);
	event_add(s->timer, &limit);
	TAILQ_FOREACH(h, &c->hosts, entry)
	link_send(h->link, LINK_MSG(STATS, stats, &ask));
	census_check(s);
}

void tool_stats(struct host *h, const Ms__Stats *told)
{
	Ms__HostState *e;
	struct census *s;

	LIST_FOREACH(s, &h->c->censuses, entry)
	if (s->request == told->request)
		break;
	e = s ? census_host(s, h) : NULL;
	if (!e)
		return;
	for (size_t i = 0; i < told->n_ranks; i++) {
		for (size_t k = 0; k < s->count; k++) {
			Ms__Rank *r = &s->ranks[k];

			if (r->member != told->ranks[i]->member)
				continue;
			r->cpu_s = told->ranks[i]->cpu_s;
			r->rss_bytes = told->ranks[i]->rss_bytes;
			r->streams = told->ranks[i]->streams;
			r->mirrors = told->ranks[i]->mirrors;
			copy_peers(r, told->ranks[i]);
		}
	}
	e->silent = false;
	e->mirrors = told->mirrors;
	e->relays = told->relays;
	census_check(s);
}

void tool_host_lost(struct host *h)
{
	struct census *s = LIST_FIRST(&h->c->censuses), *next;

	for (; s; s = next) {
		Ms__HostState *e = census_host(s, h);

		next = LIST_NEXT(s, entry);
		if (!e)
			continue;
		e->up = e->silent = false;
		census_check(s);
	}
}

static void tool_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct coord *c = user;

	switch (msg->body_case) {
	case MS__MSG__BODY_HELLO:
		if (!strcmp(msg->hello->role, "stub"))
			rank_stub_hello(c, l);
		break;
	case MS__MSG__BODY_MOVE_REQUEST:
		move_request(c, l, msg->move_request);
		break;
	case MS__MSG__BODY_HOST_REQUEST:
		join_request(c, l, msg->host_request);
		break;
	case MS__MSG__BODY_PS_REQUEST:
		census_begin(c, l);
		break;
	default:
		log_say(LOG_WARN, "unexpected message %d from a tool", msg->body_case);
	}
}

static void tool_down(struct link *l, const char *why, void *user)
{
	struct coord *c = user;
	struct census *s;

	move_tool_gone(c, l);
	join_tool_gone(c, l);
	LIST_FOREACH(s, &c->censuses, entry)
	if (s->tool == l)
		s->tool = NULL;
	link_destroy(l);
}

static const struct link_ops tool_ops = { .on_message = tool_message, .on_down = tool_down };

static void accept_cb(evutil_socket_t fd, short what, void *arg)
{
	struct coord *c = arg;
	int sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (sock >= 0)
		link_create(c->base, sock, NULL, false, &tool_ops, c);
}

void tool_listen(struct coord *c)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char path[sizeof(c->dir) + 16];

	if ((size_t)snprintf(at.sun_path, sizeof(at.sun_path), "%s/coord.next", c->dir) >= sizeof(at.sun_path))
		coord_fail(c, "the job directory's name is too long for a socket: %s; set MSOCK_RUNDIR", c->dir);
	snprintf(path, sizeof(path), "%s/coord.sock", c->dir);
	/* The name is never missing: callers know by that that the job is over. */
	if (fd < 0 || (unlink(at.sun_path) && errno != ENOENT) || bind(fd, (struct sockaddr *)&at, sizeof(at)) ||
	    listen(fd, 256) || rename(at.sun_path, path))
		coord_fail(c, "cannot listen on %s: %s", path, strerror(errno));
	event_add(event_new(c->base, fd, EV_READ | EV_PERSIST, accept_cb, c), NULL);
}
