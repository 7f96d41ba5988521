/* SPDX-License-Identifier: MIT */
#include "msdaemon/image_door.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/log.h"
#include "proto/net.h"

enum { IMAGE_DOOR_CALLERS = 64, IMAGE_DOOR_TOKEN_S = 2 };

struct caller {
	TAILQ_ENTRY(caller) entry;
	struct image_door *door; /* borrowed */
	struct event *readable;  /* its descriptor is ours */
	size_t have;
	uint8_t token[MS_TOKEN];
};

struct image_door {
	struct event_base *base; /* borrowed */
	const struct image_door_ops *ops;
	void *user;
	uint8_t token[MS_TOKEN];
	struct event *listener, *late;
	TAILQ_HEAD(, caller) callers; /* by order of arrival */
	unsigned count;
	struct log_gate gate;
};

/* Returns its descriptor, which is the caller's (of this function) from then on. */
static int caller_take(struct caller *c)
{
	int sock = event_get_fd(c->readable);

	event_free(c->readable);
	TAILQ_REMOVE(&c->door->callers, c, entry);
	c->door->count--;
	free(c);
	return sock;
}

static void turn_away(struct caller *c, const char *why)
{
	log_rarely(&c->door->gate, LOG_WARN, "somebody called for an image and was turned away: %s", why);
	close(caller_take(c));
}

static void read_cb(evutil_socket_t fd, short what, void *arg)
{
	struct caller *c = arg;
	struct image_door *x = c->door;
	ssize_t n;

	if (what & EV_TIMEOUT) {
		turn_away(c, "no token");
		return;
	}
	n = recv(fd, c->token + c->have, sizeof(c->token) - c->have, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	c->have += n > 0 ? (size_t)n : 0;
	if (n == 0 && !c->have) { /* its member has ended, or its move: no stranger */
		log_say(LOG_DEBUG, "who called for an image has gone again");
		close(caller_take(c));
	} else if (n <= 0) {
		turn_away(c, "no token");
	} else if (c->have == sizeof(c->token)) {
		if (sodium_memcmp(c->token, x->token, sizeof(c->token))) {
			turn_away(c, "another token");
			return;
		}
		fd = caller_take(c);
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
		x->ops->on_caller(x->user, fd);
	}
}

static void accept_cb(evutil_socket_t fd, short what, void *arg)
{
	struct timeval limit = { IMAGE_DOOR_TOKEN_S, 0 };
	struct image_door *x = arg;
	int sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct caller *c;

	if (sock < 0)
		return;
	if (x->count == IMAGE_DOOR_CALLERS)
		turn_away(TAILQ_FIRST(&x->callers), "too many callers");
	c = calloc(1, sizeof(*c));
	if (!c)
		log_die("out of memory");
	c->door = x;
	c->readable = event_new(x->base, sock, EV_READ | EV_PERSIST, read_cb, c);
	TAILQ_INSERT_TAIL(&x->callers, c, entry);
	x->count++;
	event_add(c->readable, &limit);
}

static void late_cb(evutil_socket_t fd, short what, void *arg)
{
	struct image_door *x = arg;

	x->ops->on_late(x->user);
}

struct image_door *image_door_open(struct daemon *d, const uint8_t token[MS_TOKEN], unsigned patience_s,
				   const struct image_door_ops *ops, void *user, uint16_t *port)
{
	int fd = net_listen(d->ip, d->port_low, d->port_high, port);
	struct timeval patience = { patience_s, 0 };
	struct image_door *x;

	if (fd < 0)
		return NULL;
	x = calloc(1, sizeof(*x));
	if (!x)
		log_die("out of memory");
	x->base = d->base;
	x->ops = ops;
	x->user = user;
	memcpy(x->token, token, sizeof(x->token));
	TAILQ_INIT(&x->callers);
	x->listener = event_new(d->base, fd, EV_READ | EV_PERSIST, accept_cb, x);
	x->late = evtimer_new(d->base, late_cb, x);
	event_add(x->listener, NULL);
	event_add(x->late, &patience);
	return x;
}

void image_door_close(struct image_door *x)
{
	int fd;

	if (!x)
		return;
	while (!TAILQ_EMPTY(&x->callers))
		close(caller_take(TAILQ_FIRST(&x->callers)));
	fd = event_get_fd(x->listener);
	event_free(x->listener);
	close(fd);
	event_free(x->late);
	free(x);
}
