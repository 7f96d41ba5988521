/* SPDX-License-Identifier: MIT */
#include "host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abroad.h"
#include "balancer.h"
#include "master.h"
#include "history.h"
#include "join.h"
#include "journal.h"
#include "move.h"
#include "proto/door.h"
#include "proto/helpers.h"
#include "proto/log.h"
#include "proto/net.h"
#include "rank.h"
#include "recover.h"
#include "tool.h"

enum { HOST_GRACE_S = 3 }; /* as a move waits for the target's daemon */

struct guest { /* has called on TCP and not yet said who it is */
	struct coord *c;
};

struct host *host_add(struct coord *c, const char *name)
{
	struct host *h = host_find(c, name);

	if (h)
		return h;
	h = calloc(1, sizeof(*h));
	if (!h)
		log_die("out of memory");
	h->c = c;
	h->name = strdup(name);
	h->says = strdup("");
	h->shell.stdin_fd = h->shell.err_fd = -1;
	TAILQ_INSERT_TAIL(&c->hosts, h, entry);
	return h;
}

struct host *host_find(struct coord *c, const char *name)
{
	struct host *h;

	TAILQ_FOREACH(h, &c->hosts, entry)
	if (!h->dropped && !strcmp(h->name, name))
		return h;
	return NULL;
}

void host_resolve_all(struct coord *c)
{
	struct host *h, *remote = NULL;

	TAILQ_FOREACH(h, &c->hosts, entry)
	{
		if (!net_resolve(h->name, &h->ip))
			coord_fail(c, "host %s: unknown name", h->name);
		if (!allocation_has(c, h->name, h->ip))
			coord_fail(c, "host %s is not in %s", h->name, allocation_text(c));
		h->local = net_is_own(h->ip);
		if (h->ip >> 24 != 127)
			remote = h;
	}
	c->ip = c->listen_ip = 0x7f000001;
	if (!remote)
		return;
	c->ip = c->iface ? net_interface(c->iface) : net_towards(remote->ip);
	c->listen_ip = 0;
	if (!c->ip)
		coord_fail(c, "no address of this machine can be reached from %s", remote->name);
	/* This machine under a loopback name among others: its outward address, which they can reach. */
	TAILQ_FOREACH(h, &c->hosts, entry)
	if (h->ip >> 24 == 127)
		h->ip = c->ip;
}

void host_lost(struct host *h, const char *why)
{
	if (h->lost || h->c->ending)
		return;
	if (join_failed(h, why))
		return;
	h->lost = true;
	if (!h->c->ready && !h->c->again)
		coord_fail(h->c, "host %s: %s", h->name, why);
	log_say(LOG_INFO, "host %s is lost: %s", h->name, why);
	journal_host_gone(h);
	shell_close(&h->shell);
	move_host_lost(h, why);
	rank_host_lost(h, why);
	tool_host_lost(h);
}

static void start_host(struct coord *c, struct host *h, const char *path)
{
	char *words[] = { shell_word(c, path, !h->local), shell_word(c, h->name, !h->local) };
	char **argv = calloc(SHELL_WORDS(c) + 4, sizeof(*argv));
	size_t n = 0;

	if (!argv)
		log_die("out of memory");
	if (!h->local)
		n = shell_remote(c, argv, h->name);
	argv[n++] = words[0];
	argv[n++] = "--host";
	argv[n++] = words[1];
	if (shell_start(c, &h->shell, argv, h->ip, !h->local))
		host_lost(h, strerror(errno));
	free(argv);
	free(words[0]);
	free(words[1]);
}

void host_start(struct host *h)
{
	char path[4096];

	if (helpers_find("msdaemon", path, sizeof(path)))
		start_host(h->c, h, path);
	else
		host_lost(h, "msdaemon is missing here");
}

void host_drop(struct host *h)
{
	Ms__Shutdown bye = MS__SHUTDOWN__INIT;

	h->lost = h->dropped = true;
	link_send(h->link, LINK_MSG(SHUTDOWN, shutdown, &bye));
	link_flush(h->link, 100);
	if (h->link)
		link_destroy(h->link);
	h->link = NULL;
	shell_close(&h->shell);
	journal_host_gone(h);
	tool_host_lost(h);
}

void host_start_all(struct coord *c)
{
	char path[4096];
	struct host *h;

	if (!helpers_find("msdaemon", path, sizeof(path)))
		coord_fail(c, "msdaemon is missing: set MSOCK_HELPERDIR to where it lies");
	TAILQ_FOREACH(h, &c->hosts, entry)
	start_host(c, h, path);
}

/* Its daemon lives without its remote shell. */
static void host_pong(struct host *h)
{
	event_del(h->grace);
	log_say(LOG_INFO, "host %s: its remote shell has ended, its daemon goes on", h->name);
}

static void daemon_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct host *h = user;

	switch (msg->body_case) {
	case MS__MSG__BODY_SPAWNED:
	case MS__MSG__BODY_JOINED:
	case MS__MSG__BODY_DATA:
	case MS__MSG__BODY_ACK:
	case MS__MSG__BODY_EXIT:
	case MS__MSG__BODY_SIGNAL:
	case MS__MSG__BODY_FORGET:
		rank_from_daemon(h, msg);
		break;
	case MS__MSG__BODY_BORN:
		rank_born(h, msg->born);
		break;
	case MS__MSG__BODY_WHERE:
		rank_where(h, msg->where);
		break;
	case MS__MSG__BODY_WANT_COMMIT:
		move_want_commit(h, msg->want_commit);
		break;
	case MS__MSG__BODY_WANT_ABORT:
		move_want_abort(h, msg->want_abort);
		break;
	case MS__MSG__BODY_STEP:
		move_step(h->c, msg->step);
		break;
	case MS__MSG__BODY_CHECKED:
		move_checked(h, msg->checked);
		break;
	case MS__MSG__BODY_PROGRESS:
		move_progress(h->c, msg->progress);
		break;
	case MS__MSG__BODY_PING:
		if (h->grace && msg->ping->request == h->ping)
			host_pong(h);
		else
			move_pong(h, msg->ping->request);
		break;
	case MS__MSG__BODY_PRESENT:
		recover_present(h, msg->present);
		break;
	case MS__MSG__BODY_STATS:
		tool_stats(h, msg->stats);
		break;
	case MS__MSG__BODY_LOOKUP_ABROAD:
		abroad_lookup(h, msg->lookup_abroad);
		break;
	case MS__MSG__BODY_RELAY:
		abroad_relay(h->c, msg->relay);
		break;
	case MS__MSG__BODY_SAMPLE:
		history_sample(h, msg->sample);
		break;
	default:
		log_say(LOG_WARN, "unexpected message %d from %s", msg->body_case, h->name);
	}
}

static void daemon_down(struct link *l, const char *why, void *user)
{
	struct host *h = user;

	h->link = NULL;
	link_destroy(l);
	host_lost(h, why);
}

static const struct link_ops daemon_ops = { .on_message = daemon_message, .on_down = daemon_down };

void host_take(struct host *h, struct link *l, const Ms__Hello *hello)
{
	h->link = l;
	h->mesh_port = (uint16_t)hello->port;
	free(h->says);
	h->says = strdup(hello->says);
	link_set_user(l, &daemon_ops, h);
}

static void guest_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct guest *g = user;
	struct coord *c = g->c;
	const Ms__Hello *hello = msg->hello;
	struct host *h = NULL;

	if (msg->body_case != MS__MSG__BODY_HELLO || hello->version != MS_WIRE_VERSION)
		goto refuse;
	if (!strcmp(hello->role, "master")) {
		if (!master_hello(c, l, hello))
			goto refuse;
	} else if (!strcmp(hello->role, "daemon") && (h = host_find(c, hello->host)) && !h->link && !h->lost) {
		host_take(h, l, hello);
		journal_host(h);
	} else {
		goto refuse;
	}
	free(g);
	coord_check_ready(c);
	if (h)
		join_up(h);
	return;
refuse:
	log_say(LOG_WARN, "a caller of unknown kind or other version was turned away");
	link_destroy(l);
	free(g);
}

static void guest_down(struct link *l, const char *why, void *user)
{
	log_say(LOG_INFO, "a caller left before it said who it is: %s", why);
	link_destroy(l);
	free(user);
}

static const struct link_ops guest_ops = { .on_message = guest_message, .on_down = guest_down };

static void on_caller(void *user, struct link *l)
{
	struct guest *g = calloc(1, sizeof(*g));

	if (!g)
		log_die("out of memory");
	g->c = user;
	link_set_user(l, &guest_ops, g);
}

void host_listen(struct coord *c)
{
	if (door_open(c->base, c->listen_ip, c->secret, on_caller, c, &c->port))
		coord_fail(c, "cannot listen: %s", strerror(errno));
}

bool host_all_up(struct coord *c)
{
	struct host *h;

	TAILQ_FOREACH(h, &c->hosts, entry)
	if (!h->link)
		return false;
	return true;
}

void host_welcome_all(struct coord *c)
{
	Ms__Master *masters, **list;
	struct host *h;
	size_t count;

	masters = master_list(c, &count);
	list = calloc(count + 1, sizeof(*list));
	if (!list)
		log_die("out of memory");
	for (size_t i = 0; i < count; i++)
		list[i] = &masters[i];
	TAILQ_FOREACH(h, &c->hosts, entry)
	{
		Ms__Welcome w = MS__WELCOME__INIT;

		w.job = c->job;
		w.card = c->card;
		w.ip = h->ip;
		w.masters = list;
		w.n_masters = count;
		w.port_low = c->port_low;
		w.port_high = c->port_high;
		w.last = c->last;
		link_send(h->link, LINK_MSG(WELCOME, welcome, &w));
	}
	free(list);
	free(masters);
}

void host_send_all(struct coord *c, const Ms__Msg *msg)
{
	struct host *h;

	TAILQ_FOREACH(h, &c->hosts, entry)
	link_send(h->link, msg);
}

Ms__Place host_place(const struct host *h)
{
	Ms__Place p = MS__PLACE__INIT;

	p.host = h->name;
	p.ip = h->ip;
	p.port = h->mesh_port;
	return p;
}

static void grace_cb(evutil_socket_t fd, short what, void *arg)
{
	struct host *h = arg;

	Ms__Shutdown bye = MS__SHUTDOWN__INIT;

	if (!h->link)
		return;
	link_send(h->link, LINK_MSG(SHUTDOWN, shutdown, &bye)); /* it may hear it later */
	link_flush(h->link, 100);
	link_destroy(h->link);
	h->link = NULL;
	host_lost(h, "its daemon or remote shell has ended");
}

/* The daemon, or its shell, has ended. If it was the shell the daemon may live; of a host that was switched off nothing comes. */
static void await_end(struct host *h)
{
	struct timeval grace = { HOST_GRACE_S, 0 };
	Ms__Ping ping = MS__PING__INIT;

	h->ping = ping.request = ++h->c->requests;
	link_send(h->link, LINK_MSG(PING, ping, &ping));
	h->grace = evtimer_new(h->c->base, grace_cb, h);
	event_add(h->grace, &grace);
}

void host_reaped(struct coord *c, pid_t pid, int status)
{
	struct host *h;

	if (master_reaped(c, pid, status) || balancer_reaped(pid, status))
		return;
	TAILQ_FOREACH(h, &c->hosts, entry)
	{
		char why[SHELL_LINE + 128];
		const char *words;

		if (h->shell.pid != pid)
			continue;
		h->shell.pid = 0;
		if (h->link && !h->c->ending) { /* the link's end tells more, if it comes */
			await_end(h);
			continue;
		}
		words = shell_last_words(&h->shell);
		snprintf(why, sizeof(why), "its %s ended with status %d%s%s", h->local ? "msdaemon" : "remote shell",
			 WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), *words ? ": " : "", words);
		host_lost(h, why);
	}
}
