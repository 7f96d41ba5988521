/* SPDX-License-Identifier: MIT */
#include "metrics.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "history.h"
#include "host.h"
#include "proto/log.h"
#include "rank.h"

enum { METRICS_QUEUE = 16 };

static void head(struct evbuffer *to, const char *name, const char *type, const char *help)
{
	evbuffer_add_printf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* The names of hosts and jobs are what a user typed. */
static void label(struct evbuffer *to, const char *text)
{
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			evbuffer_add(to, "\\", 1);
		if (*text == '\n')
			evbuffer_add(to, "\\n", 2);
		else
			evbuffer_add(to, text, 1);
	}
}

static void host_line(struct evbuffer *to, const char *name, const struct host *h, double value)
{
	evbuffer_add_printf(to, "%s{host=\"", name);
	label(to, h->name);
	evbuffer_add_printf(to, "\"} %.17g\n", value);
}

/* One figure of all hosts that have told it; negative stands for what is not known. */
static void host_figure(struct evbuffer *to, struct coord *c, const char *name, const char *help,
			double (*of)(const Ms__Figures *))
{
	struct host *h;

	head(to, name, "gauge", help);
	TAILQ_FOREACH(h, &c->hosts, entry)
	{
		Ms__HostState e = MS__HOST_STATE__INIT;

		if (!h->dropped)
			history_fill(h, &e);
		if (e.now && of(e.now) >= 0)
			host_line(to, name, h, of(e.now));
	}
}

static double cores(const Ms__Figures *f)
{
	return f->cores;
}
static double busy(const Ms__Figures *f)
{
	return f->busy;
}
static double runnable(const Ms__Figures *f)
{
	return f->runnable;
}
static double pressure(const Ms__Figures *f)
{
	return f->pressure < 0 ? -1 : f->pressure / 100;
}
static double memory(const Ms__Figures *f)
{
	return (double)f->memory_bytes;
}
static double unused(const Ms__Figures *f)
{
	return (double)f->free_bytes;
}

static void put_hosts(struct evbuffer *to, struct coord *c)
{
	struct host *h;

	head(to, "msock_host_up", "gauge", "Whether the host's daemon is there.");
	TAILQ_FOREACH(h, &c->hosts, entry)
	if (!h->dropped)
		host_line(to, "msock_host_up", h, h->link != NULL);
	host_figure(to, c, "msock_host_cores", "Processors of the host.", cores);
	host_figure(to, c, "msock_host_busy_cores", "Processors in use lately, by anybody.", busy);
	host_figure(to, c, "msock_host_runnable_threads", "Threads that run or could.", runnable);
	host_figure(to, c, "msock_host_cpu_pressure_ratio",
		    "Part of the last 10 s in which some waited for a processor.", pressure);
	host_figure(to, c, "msock_host_memory_bytes", "Memory of the host.", memory);
	host_figure(to, c, "msock_host_free_bytes", "Memory that is free there.", unused);
}

static void rank_line(struct evbuffer *to, const char *name, const struct rank *r, double value)
{
	evbuffer_add_printf(to, "%s{rank=\"%u.%u\",host=\"", name, MS_MEMBER_WORLD(r->id), MS_MEMBER_RANK(r->id));
	label(to, r->host->name);
	evbuffer_add_printf(to, "\"} %.17g\n", value);
}

static void put_ranks(struct evbuffer *to, struct coord *c)
{
	struct rank *r;

	head(to, "msock_rank_busy_cores", "gauge", "Processors that the rank used lately.");
	TAILQ_FOREACH(r, &c->ranks, entry)
	if (!r->ended && r->load >= 0)
		rank_line(to, "msock_rank_busy_cores", r, r->load);
	head(to, "msock_rank_resident_bytes", "gauge", "The rank's memory, by the last sample.");
	TAILQ_FOREACH(r, &c->ranks, entry)
	if (!r->ended)
		rank_line(to, "msock_rank_resident_bytes", r, (double)r->rss_bytes);
	/* Without the host: a counter's labels must stay. */
	head(to, "msock_rank_moves_total", "counter", "Moves of the rank.");
	TAILQ_FOREACH(r, &c->ranks, entry)
	evbuffer_add_printf(to, "msock_rank_moves_total{rank=\"%u.%u\"} %u\n", MS_MEMBER_WORLD(r->id),
			    MS_MEMBER_RANK(r->id), r->moves);
}

static void put_moves(struct evbuffer *to)
{
	struct history_totals t;

	history_totals(&t);
	head(to, "msock_moves_total", "counter", "Moves that were begun, by what became of them.");
	evbuffer_add_printf(to,
			    "msock_moves_total{outcome=\"moved\"} %llu\nmsock_moves_total{outcome=\"aborted\"} %llu\n",
			    (unsigned long long)t.moved, (unsigned long long)t.aborted);
	head(to, "msock_move_freeze_seconds", "summary", "How long ranks stood still while they moved.");
	evbuffer_add_printf(to, "msock_move_freeze_seconds_sum %.17g\nmsock_move_freeze_seconds_count %llu\n",
			    t.freeze_ms / 1e3, (unsigned long long)t.moved);
	head(to, "msock_move_seconds", "summary", "How long moves took.");
	evbuffer_add_printf(to, "msock_move_seconds_sum %.17g\nmsock_move_seconds_count %llu\n", t.total_ms / 1e3,
			    (unsigned long long)t.moved);
}

static void answer(struct evhttp_request *request, void *arg)
{
	struct coord *c = arg;
	struct evbuffer *to = evbuffer_new();

	head(to, "msock_job_info", "gauge", "The job; always 1.");
	evbuffer_add_printf(to, "msock_job_info{job=\"");
	label(to, c->job);
	evbuffer_add_printf(to, "\"} 1\n");
	put_hosts(to, c);
	put_ranks(to, c);
	put_moves(to);
	evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type",
			  "text/plain; version=0.0.4; charset=utf-8");
	evhttp_send_reply(request, 200, "OK", to);
	evbuffer_free(to);
}

static int listen_unix(struct coord *c)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if ((size_t)snprintf(at.sun_path, sizeof(at.sun_path), "%s/metrics.sock", c->dir) >= sizeof(at.sun_path))
		coord_fail(c, "the job directory's name is too long for a socket: %s; set MSOCK_RUNDIR", c->dir);
	unlink(at.sun_path); /* of the coordinator before this one */
	return fd >= 0 && !bind(fd, (struct sockaddr *)&at, sizeof(at)) ? fd : -1;
}

static int listen_port(struct coord *c, const char *text)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd, on = 1;
	char *end;
	long port = strtol(text, &end, 10);

	if (*end || port < 1 || port > 65535)
		coord_fail(c, "MSOCK_METRICS is `unix` or a port, not %s", text);
	at.sin_port = htons((uint16_t)port);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return fd >= 0 && !bind(fd, (struct sockaddr *)&at, sizeof(at)) ? fd : -1;
}

void metrics_listen(struct coord *c)
{
	const char *where = getenv("MSOCK_METRICS");
	struct evhttp *server;
	int fd;

	if (!where || !*where)
		return;
	fd = strcmp(where, "unix") ? listen_port(c, where) : listen_unix(c);
	server = evhttp_new(c->base);
	if (fd < 0 || !server || listen(fd, METRICS_QUEUE) || evhttp_accept_socket(server, fd)) {
		if (!c->again)
			coord_fail(c, "no metrics can be offered at %s: %s", where, strerror(errno));
		log_say(LOG_ERROR, "no metrics can be offered at %s any more: %s", where, strerror(errno));
		return;
	}
	evhttp_set_allowed_methods(server, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
	evhttp_set_cb(server, "/metrics", answer, c);
}
