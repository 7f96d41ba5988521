/* SPDX-License-Identifier: MIT */
/*
 * msmaster - the job's address server: tells daemons where a virtual address
 * is to be had.  Its table is a cache of the coordinator's: what is unknown, or
 * older than the asker has seen refused, is asked there.
 *
 *   msmaster NET/BITS, with stdin as msdaemon has it; the word is its name to the coordinator
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "msmaster/table.h"
#include "proto/door.h"
#include "proto/log.h"
#include "proto/net.h"
#include "proto/seal.h"

enum { MASTER_CLEAN_S = 60, MASTER_KEEP_S = 600 }; /* how often the cleaner looks; how long ended members are known */

struct caller { /* a daemon */
	LIST_ENTRY(caller) entry;
	struct master *master; /* borrowed */
	struct link *link;
};

struct question { /* that the coordinator has been asked */
	LIST_ENTRY(question) entry;
	struct caller *caller; /* borrowed; NULL: gone */
	uint64_t number, request;
	uint32_t virtual_ip;
};

struct master {
	struct event_base *base;
	uint8_t secret[SEAL_SECRET];
	uint32_t ip, coordinator_ip;
	uint16_t port, coordinator_port;
	const char *subnet; /* borrowed */
	struct link *coordinator;
	struct table *table;
	uint64_t asked;
	LIST_HEAD(, caller) callers;
	LIST_HEAD(, question) questions;
};

static void reply(struct caller *c, uint64_t request, const struct entry *e, unsigned status)
{
	Ms__Found f = MS__FOUND__INIT;
	Ms__Serving s = MS__SERVING__INIT;

	f.request = request;
	f.status = status;
	if (e) {
		s.member = e->member;
		s.virtual_ip = e->virtual_ip;
		s.ip = e->ip;
		s.port = e->port;
		s.m = e->m;
		s.cookie = (ProtobufCBinaryData){ sizeof(e->cookie), (uint8_t *)e->cookie };
		f.entry = &s;
	}
	link_send(c->link, LINK_MSG(FOUND, found, &f));
}

static void ask(struct caller *c, const Ms__Lookup *l)
{
	struct master *ms = c->master;
	struct question *q = calloc(1, sizeof(*q));
	Ms__Lookup ask = MS__LOOKUP__INIT;

	if (!q)
		log_die("out of memory");
	q->caller = c;
	q->number = ++ms->asked;
	q->request = l->request;
	q->virtual_ip = l->virtual_ip;
	LIST_INSERT_HEAD(&ms->questions, q, entry);
	ask.request = q->number;
	ask.virtual_ip = l->virtual_ip;
	ask.newer = l->newer;
	link_send(ms->coordinator, LINK_MSG(LOOKUP, lookup, &ask));
}

static void lookup(struct caller *c, const Ms__Lookup *l)
{
	struct entry *e = table_find(c->master->table, l->virtual_ip);

	if (e && e->ended)
		reply(c, l->request, e, MS_PLACE_ENDED);
	else if (e && e->m >= l->newer)
		reply(c, l->request, e, MS_PLACE_OK);
	else
		ask(c, l);
}

/* The coordinator's word: it goes into the table and to whoever asked. */
static void found(struct master *ms, const Ms__Found *f)
{
	struct question *q;

	if (f->entry && f->status == MS_PLACE_OK)
		table_put(ms->table, f->entry);
	LIST_FOREACH(q, &ms->questions, entry)
	if (q->number == f->request)
		break;
	if (!q)
		return;
	if (q->caller)
		reply(q->caller, q->request, table_find(ms->table, q->virtual_ip), f->status);
	LIST_REMOVE(q, entry);
	free(q);
}

static void daemon_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct caller *c = user;
	Ms__ServingOk ok = MS__SERVING_OK__INIT;

	switch (msg->body_case) {
	case MS__MSG__BODY_HELLO:
		break;
	case MS__MSG__BODY_SERVING:
		table_put(c->master->table, msg->serving);
		link_send(c->master->coordinator,
			  msg); /* it knows every place and port: this table can be had again from it */
		ok.member = msg->serving->member;
		link_send(l, LINK_MSG(SERVING_OK, serving_ok, &ok));
		break;
	case MS__MSG__BODY_LOOKUP:
		lookup(c, msg->lookup);
		break;
	default:
		log_say(LOG_WARN, "unexpected message %d from a daemon", msg->body_case);
	}
}

static void daemon_down(struct link *l, const char *why, void *user)
{
	struct caller *c = user;
	struct question *q;

	LIST_FOREACH(q, &c->master->questions, entry)
	if (q->caller == c)
		q->caller = NULL;
	LIST_REMOVE(c, entry);
	link_destroy(l);
	free(c);
}

static const struct link_ops daemon_ops = { .on_message = daemon_message, .on_down = daemon_down };

static void on_caller(void *user, struct link *l)
{
	struct caller *c = calloc(1, sizeof(*c));

	if (!c)
		log_die("out of memory");
	c->master = user;
	c->link = l;
	LIST_INSERT_HEAD(&c->master->callers, c, entry);
	link_set_user(l, &daemon_ops, c);
}

static void coordinator_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct master *ms = user;

	switch (msg->body_case) {
	case MS__MSG__BODY_WELCOME:
		break;
	case MS__MSG__BODY_SERVING:
		table_put(ms->table, msg->serving);
		break;
	case MS__MSG__BODY_FOUND:
		found(ms, msg->found);
		break;
	case MS__MSG__BODY_ENDED:
		table_member_ended(ms->table, msg->ended->member);
		break;
	case MS__MSG__BODY_SHUTDOWN:
		exit(0);
	default:
		log_say(LOG_WARN, "unexpected message %d from the coordinator", msg->body_case);
	}
}

static void coordinator_down(struct link *l, const char *why, void *user)
{
	log_say(LOG_INFO, "the link to the coordinator is lost: %s", why);
	exit(1);
}

static const struct link_ops coordinator_ops = { .on_message = coordinator_message, .on_down = coordinator_down };

static void clean_cb(evutil_socket_t fd, short what, void *arg)
{
	table_clean(((struct master *)arg)->table, MASTER_KEEP_S);
}

static void stdin_cb(evutil_socket_t fd, short what, void *arg)
{
	char buf[256];

	if (read(fd, buf, sizeof(buf)) == 0)
		exit(1);
}

static void read_start(struct master *ms)
{
	char line[4096], ip[64];
	bool secret = false;
	unsigned port;
	size_t bytes;

	setvbuf(stdin, NULL, _IONBF, 0); /* what comes after `end` is left to stdin_cb */
	while (fgets(line, sizeof(line), stdin) && strcmp(line, "end\n")) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "secret ", 7))
			secret = !sodium_hex2bin(ms->secret, sizeof(ms->secret), line + 7, strlen(line + 7), NULL,
						 &bytes, NULL) &&
				 bytes == sizeof(ms->secret);
		else if (sscanf(line, "coordinator %63s %u", ip, &port) == 2)
			ms->coordinator_ip = ntohl(inet_addr(ip)), ms->coordinator_port = (uint16_t)port;
		else if (sscanf(line, "ip %63s", ip) == 1)
			ms->ip = ntohl(inet_addr(ip));
	}
	if (!secret || !ms->coordinator_port)
		log_die("what was to come on stdin did not come");
}

static void say_hello(struct master *ms)
{
	struct sockaddr_in to = net_address(ms->coordinator_ip, ms->coordinator_port);
	Ms__Hello hello = MS__HELLO__INIT;

	ms->coordinator = link_dial(ms->base, &to, NULL, ms->secret, &coordinator_ops, ms);
	hello.role = "master";
	hello.host = (char *)ms->subnet;
	hello.port = ms->port;
	hello.version = MS_WIRE_VERSION;
	link_send(ms->coordinator, LINK_MSG(HELLO, hello, &hello));
}

int main(int argc, char **argv)
{
	static const int ignored[] = { SIGPIPE, SIGINT, SIGQUIT, SIGTSTP, SIGHUP };
	static struct master ms;
	struct timeval every = { MASTER_CLEAN_S, 0 };
	struct rlimit files;

	log_open("msmaster");
	if (argc != 2 || sodium_init() < 0)
		return 2;
	ms.subnet = argv[1];
	setsid();
	for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		signal(ignored[i], SIG_IGN);
	if (!getrlimit(RLIMIT_NOFILE, &files)) { /* one descriptor for each daemon, and some */
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	read_start(&ms);
	LIST_INIT(&ms.callers);
	LIST_INIT(&ms.questions);
	ms.table = table_create();
	ms.base = event_base_new();
	if (!ms.base || door_open(ms.base, ms.ip, ms.secret, on_caller, &ms, &ms.port))
		log_die("cannot listen: %s", strerror(errno));
	event_add(event_new(ms.base, STDIN_FILENO, EV_READ | EV_PERSIST, stdin_cb, &ms), NULL);
	event_add(event_new(ms.base, -1, EV_PERSIST, clean_cb, &ms), &every);
	say_hello(&ms);
	event_base_dispatch(ms.base);
	return 1;
}
