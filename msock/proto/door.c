/* SPDX-License-Identifier: MIT */
#include "proto/door.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/log.h"
#include "proto/net.h"

enum {
	DOOR_STRANGERS = 1024, /* at most, and a quarter of the descriptors that the process may have */
	DOOR_BATCH = 32,       /* taken in at once, then others have their turn */
	DOOR_PAUSE_MS = 50,    /* when there is no descriptor to be had */
};

struct stranger {
	TAILQ_ENTRY(stranger) entry;
	struct door *door; /* borrowed */
	struct link *link; /* owned */
};

struct door {
	struct event_base *base; /* borrowed */
	const uint8_t *secret;   /* borrowed */
	void (*on_link)(void *user, struct link *l);
	void *user;
	struct event *readable, *again;
	TAILQ_HEAD(, stranger) strangers; /* by order of arrival */
	unsigned count, most;
	struct log_gate gate;
};

static void stranger_forget(struct stranger *s)
{
	TAILQ_REMOVE(&s->door->strangers, s, entry);
	s->door->count--;
	free(s);
}

static void on_up(struct link *l, void *user)
{
	struct stranger *s = user;
	struct door *d = s->door;

	stranger_forget(s);
	d->on_link(d->user, l);
}

static void on_down(struct link *l, const char *why, void *user)
{
	struct stranger *s = user;
	struct sockaddr_in from = link_peer(l);
	char ip[NET_IP_TEXT];

	log_rarely(&s->door->gate, link_was_forged(l) ? LOG_WARN : LOG_INFO, "a caller from %s was turned away: %s",
		   net_text(ntohl(from.sin_addr.s_addr), ip), why);
	link_destroy(l);
	stranger_forget(s);
}

static const struct link_ops stranger_ops = { .on_up = on_up, .on_down = on_down };

static void let_in(struct door *d, int sock)
{
	struct stranger *s = TAILQ_FIRST(&d->strangers);

	if (d->count >= d->most) {
		log_rarely(&d->gate, LOG_INFO, "too many callers that have proved nothing: the first one goes");
		link_destroy(s->link);
		stranger_forget(s);
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		log_die("out of memory");
	s->door = d;
	TAILQ_INSERT_TAIL(&d->strangers, s, entry);
	d->count++;
	s->link = link_create(d->base, sock, d->secret, false, &stranger_ops, s);
}

static void accept_cb(evutil_socket_t fd, short what, void *arg)
{
	struct timeval pause = { 0, DOOR_PAUSE_MS * 1000 };
	struct door *d = arg;

	for (int i = 0; i < DOOR_BATCH; i++) {
		int sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (sock >= 0) {
			let_in(d, sock);
		} else if (errno != EINTR && errno != ECONNABORTED) {
			if (errno == EAGAIN)
				return;
			event_del(d->readable); /* it stays readable: do not spin */
			event_add(d->again, &pause);
			return;
		}
	}
}

static void again_cb(evutil_socket_t fd, short what, void *arg)
{
	struct door *d = arg;

	event_add(d->readable, NULL);
}

int door_open(struct event_base *base, uint32_t ip, const uint8_t *secret, void (*on_link)(void *user, struct link *l),
	      void *user, uint16_t *port)
{
	int fd = net_listen(ip, 0, 0, port);
	struct rlimit files;
	struct door *d;

	if (fd < 0)
		return -1;
	d = calloc(1, sizeof(*d));
	if (!d)
		log_die("out of memory");
	d->base = base;
	d->secret = secret;
	d->on_link = on_link;
	d->user = user;
	d->most = DOOR_STRANGERS;
	if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur / 4 < d->most)
		d->most = (unsigned)(files.rlim_cur / 4) + 1;
	TAILQ_INIT(&d->strangers);
	d->readable = event_new(base, fd, EV_READ | EV_PERSIST, accept_cb, d);
	d->again = evtimer_new(base, again_cb, d);
	event_add(d->readable, NULL);
	return 0;
}
