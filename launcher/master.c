/* SPDX-License-Identifier: MIT */
#include "master.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "host.h"
#include "proto/helpers.h"
#include "proto/log.h"
#include "proto/net.h"
#include "rank.h"

enum {
	MASTER_QUICK_MS = 1000, /* one that ends sooner after its start is not started again at once ... */
	MASTER_PAUSE_MS = 20,   /* but after this, doubled each time ... */
	MASTER_PAUSES = 6,      /* so often */
	MASTER_TRIES = 3,       /* on the host that the configuration names */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool serves(const struct master *s, uint32_t ip)
{
	return ((ip ^ s->net) & (uint32_t)(~0ull << (32 - s->bits))) == 0;
}

void master_add(struct coord *c, const struct conf_subnet *subnet)
{
	struct master *s = calloc(1, sizeof(*s));
	char text[NET_IP_TEXT];

	if (!s)
		log_die("out of memory");
	s->c = c;
	s->net = subnet->net;
	s->bits = subnet->bits;
	snprintf(s->where, sizeof(s->where), "%s", subnet->master);
	s->shell.stdin_fd = s->shell.err_fd = -1;
	snprintf(s->name, sizeof(s->name), "%s/%u", net_text(s->net, text), s->bits);
	TAILQ_INSERT_TAIL(&c->masters, s, entry);
}

/* The job's host on which it shall run; NULL: the launch host, also when the other is lost or it does not stay up there. */
static const struct host *host_of(const struct master *s)
{
	const struct host *h = *s->where ? host_find(s->c, s->where) : NULL;

	return h && !h->lost && s->quick < MASTER_TRIES ? h : NULL;
}

bool master_is_on(const struct host *h)
{
	const struct master *s;

	TAILQ_FOREACH(s, &h->c->masters, entry)
	if (host_of(s) == h)
		return true;
	return false;
}

static int start(struct master *s)
{
	const struct host *h = host_of(s);
	bool remote = h && !h->local;
	struct coord *c = s->c;
	char path[4096], **argv, *word;
	size_t n = 0;
	int rc;

	if (!helpers_find("msmaster", path, sizeof(path)))
		coord_fail(c, "msmaster is missing: set MSOCK_HELPERDIR to where it lies");
	argv = calloc(SHELL_WORDS(c) + 3, sizeof(*argv));
	if (!argv)
		log_die("out of memory");
	if (remote)
		n = shell_remote(c, argv, h->name);
	argv[n++] = word = shell_word(c, path, remote);
	argv[n++] = s->name;
	s->ip = h ? h->ip : c->ip;
	s->started_ns = now_ns();
	rc = shell_start(c, &s->shell, argv, h ? h->ip : c->listen_ip, remote);
	free(argv);
	free(word);
	return rc;
}

void master_start_all(struct coord *c)
{
	struct master *s;

	TAILQ_FOREACH(s, &c->masters, entry)
	if (start(s))
		coord_fail(c, "cannot start msmaster: %s", strerror(errno));
}

static void restart(struct master *s);

static void again_cb(evutil_socket_t fd, short what, void *arg)
{
	restart(arg);
}

static void pause_then_restart(struct master *s)
{
	uint32_t ms = MASTER_PAUSE_MS << (s->quick < MASTER_PAUSES ? s->quick : MASTER_PAUSES);
	struct timeval limit = { ms / 1000, ms % 1000 * 1000 };

	s->quick++;
	if (!s->again)
		s->again = evtimer_new(s->c->base, again_cb, s);
	event_add(s->again, &limit);
}

static void restart(struct master *s)
{
	if (s->c->ending)
		return;
	if (!start(s))
		return;
	log_say(LOG_ERROR, "cannot start the address server of %s: %s", s->name, strerror(errno));
	pause_then_restart(s);
}

static void link_gone(struct master *s)
{
	link_destroy(s->link);
	s->link = NULL;
	rank_master_gone(s->c, s->net, s->bits);
}

static void on_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct master *s = user;

	if (msg->body_case == MS__MSG__BODY_LOOKUP)
		rank_lookup(s->c, msg->lookup);
	else if (msg->body_case == MS__MSG__BODY_SERVING)
		rank_serving(s->c, msg->serving);
	else
		log_say(LOG_WARN, "unexpected message %d from the address server of %s", msg->body_case, s->name);
}

/* Its process has ended, or is to: one without a link serves nobody. Its end brings the next. */
static void on_down(struct link *l, const char *why, void *user)
{
	struct master *s = user;

	link_gone(s);
	log_say(LOG_INFO, "the link to the address server of %s is lost: %s", s->name, why);
	if (s->shell.pid > 0)
		kill(s->shell.pid, SIGKILL);
}

static const struct link_ops master_ops = { .on_message = on_message, .on_down = on_down };

bool master_hello(struct coord *c, struct link *l, const Ms__Hello *hello)
{
	struct master *s;

	TAILQ_FOREACH(s, &c->masters, entry)
	if (!strcmp(s->name, hello->host))
		break;
	if (!s)
		return false;
	if (s->link) /* of the one before; we have not heard of its end yet */
		link_gone(s);
	s->link = l;
	s->port = (uint16_t)hello->port;
	link_set_user(l, &master_ops, s);
	if (c->ready)
		host_welcome_all(c);
	return true;
}

bool master_all_up(const struct coord *c)
{
	struct master *s;

	TAILQ_FOREACH(s, &c->masters, entry)
	if (!s->link)
		return false;
	return true;
}

void master_send(struct coord *c, uint32_t virtual_ip, const Ms__Msg *msg)
{
	struct master *s;

	TAILQ_FOREACH(s, &c->masters, entry)
	if (serves(s, virtual_ip))
		link_send(s->link, msg);
}

uint32_t master_address(struct coord *c)
{
	struct master *s, *best = NULL;

	TAILQ_FOREACH(s, &c->masters, entry)
	{
		uint64_t size = 1ull << (32 - s->bits); /* without the first and the last: network and broadcast */

		if (s->given + 2 < size && (!best || s->given < best->given))
			best = s;
	}
	return best ? best->net + ++best->given : 0;
}

void master_taken(struct coord *c, uint32_t virtual_ip)
{
	struct master *s;

	TAILQ_FOREACH(s, &c->masters, entry)
	if (serves(s, virtual_ip) && virtual_ip - s->net > s->given)
		s->given = virtual_ip - s->net;
}

bool master_reaped(struct coord *c, pid_t pid, int status)
{
	struct master *s;

	TAILQ_FOREACH(s, &c->masters, entry)
	if (s->shell.pid == pid)
		break;
	if (!s)
		return false;
	shell_end(&s->shell);
	if (c->ending)
		return true;
	if (!c->ready && WIFEXITED(status)) /* by itself: it would again */
		coord_fail(c, "msmaster ended with status %d", WEXITSTATUS(status));
	log_say(LOG_INFO, "the address server of %s ended with status %#x: started again", s->name, (unsigned)status);
	if (now_ns() - s->started_ns < MASTER_QUICK_MS * 1000000ull) {
		pause_then_restart(s);
		return true;
	}
	s->quick = 0;
	restart(s);
	return true;
}

void master_end_all(struct coord *c)
{
	Ms__Shutdown bye = MS__SHUTDOWN__INIT;
	struct master *s;

	TAILQ_FOREACH(s, &c->masters, entry)
	{
		link_send(s->link, LINK_MSG(SHUTDOWN, shutdown, &bye));
		link_flush(s->link, 100);
		shell_close(&s->shell);
	}
}

void master_kill_all(struct coord *c)
{
	struct master *s;

	TAILQ_FOREACH(s, &c->masters, entry)
	if (s->shell.pid > 0)
		kill(s->shell.pid, SIGKILL);
}

Ms__Master *master_list(struct coord *c, size_t *count)
{
	struct master *s;
	Ms__Master *list;

	*count = 0;
	TAILQ_FOREACH(s, &c->masters, entry)
	++*count;
	list = calloc(*count + 1, sizeof(*list));
	if (!list)
		log_die("out of memory");
	*count = 0;
	TAILQ_FOREACH(s, &c->masters, entry)
	{
		Ms__Master *m = &list[(*count)++];

		ms__master__init(m);
		m->net = s->net;
		m->bits = s->bits;
		m->ip = s->ip;
		m->port = s->link ? s->port : 0;
	}
	return list;
}
