/* SPDX-License-Identifier: MIT */
#include "proto/link.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proto/log.h"
#include "proto/seal.h"

#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44 /* newer than this distribution's headers */
#endif

/*
 *  caller:  DIALLING -> GREETED -> UP          each state says what is awaited:
 *  other:             GREETED -> PROVING -> UP    the connection, the greeting (and the other's proof), the proof
 */
enum link_state { LINK_DIALLING, LINK_GREETED, LINK_PROVING, LINK_UP, LINK_DOWN };

enum { LINK_READ_SIZE = 256 << 10 };

struct link {
	struct event_base *base; /* borrowed */
	struct bufferevent *bev;
	struct event *down_later; /* on_down never runs inside link_create or link_send */
	struct seal *seal;        /* NULL: in the clear */
	const struct link_ops *ops;
	void *user;
	struct evbuffer *early; /* frames that were sent before the link was up, in the clear */
	enum link_state state;
	bool caller;
	bool busy; /* in a callback: destroy waits */
	bool dead; /* destroyed while busy */
	bool forged;
	struct sockaddr_in peer;
	char why[160];
};

static void link_free(struct link *l)
{
	if (l->down_later)
		event_free(l->down_later);
	if (l->bev)
		bufferevent_free(l->bev);
	if (l->early)
		evbuffer_free(l->early);
	seal_destroy(l->seal);
	free(l);
}

void link_destroy(struct link *l)
{
	if (!l)
		return;
	if (l->busy)
		l->dead = true;
	else
		link_free(l);
}

static void down_cb(evutil_socket_t fd, short what, void *arg)
{
	struct link *l = arg;

	l->busy = true;
	l->ops->on_down(l, l->why, l->user);
	l->busy = false;
	if (l->dead)
		link_free(l);
}

static void link_down(struct link *l, const char *why)
{
	struct timeval now = { 0, 0 };

	if (l->state == LINK_DOWN)
		return;
	l->state = LINK_DOWN;
	snprintf(l->why, sizeof(l->why), "%s", why);
	if (l->bev)
		bufferevent_disable(l->bev, EV_READ | EV_WRITE);
	event_add(l->down_later, &now);
}

/* While a link is cut TCP tries at ever longer intervals: the next one after 6 s comes too late for LINK_SILENCE_MS. */
static void set_tcp(int fd)
{
	int one = 1, idle = 5, every = 3, count = 3, silence = LINK_SILENCE_MS, seldom = LINK_RETRY_MS;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence, sizeof(silence));
	setsockopt(fd, IPPROTO_TCP, TCP_RTO_MAX_MS, &seldom, sizeof(seldom)); /* Linux 6.15 */
}

/* Take n bytes off the input if they are there. */
static bool take(struct link *l, void *dst, size_t n)
{
	struct evbuffer *in = bufferevent_get_input(l->bev);

	if (evbuffer_get_length(in) < n)
		return false;
	evbuffer_remove(in, dst, n);
	return true;
}

static void write_frame(struct link *l, const uint8_t *plain, size_t size)
{
	struct evbuffer *out = bufferevent_get_output(l->bev);
	size_t total = size + (l->seal ? SEAL_EXTRA : 0);
	uint32_t head = htole32((uint32_t)total);
	struct evbuffer_iovec v;

	evbuffer_add(out, &head, sizeof(head));
	if (!l->seal) {
		evbuffer_add(out, plain, size);
		return;
	}
	if (evbuffer_reserve_space(out, (ssize_t)total, &v, 1) != 1)
		log_die("out of memory");
	seal_close(l->seal, plain, size, v.iov_base);
	v.iov_len = total;
	evbuffer_commit_space(out, &v, 1);
}

static void link_up(struct link *l)
{
	uint32_t head;

	l->state = LINK_UP;
	bufferevent_set_timeouts(l->bev, NULL, NULL);
	while (evbuffer_get_length(l->early) >= sizeof(head)) {
		uint8_t *frame;

		evbuffer_remove(l->early, &head, sizeof(head));
		frame = evbuffer_pullup(l->early, (ssize_t)head);
		write_frame(l, frame ? frame : (const uint8_t *)"", head);
		evbuffer_drain(l->early, head);
	}
	if (l->ops->on_up)
		l->ops->on_up(l, l->user);
}

/* One step of the handshake; false: more bytes are wanted or the link went down. */
static bool shake_hands(struct link *l)
{
	uint8_t in[SEAL_GREETING + SEAL_PROOF], out[SEAL_GREETING + SEAL_PROOF];
	size_t size = l->state == LINK_PROVING ? SEAL_PROOF : l->caller ? SEAL_GREETING + SEAL_PROOF : SEAL_GREETING;
	bool good;

	if (!take(l, in, size))
		return false;
	if (l->state == LINK_PROVING) {
		good = !seal_take_proof(l->seal, in);
	} else if (l->caller) {
		good = !seal_take_greeting(l->seal, in) && !seal_take_proof(l->seal, in + SEAL_GREETING);
		if (good) {
			seal_proof(l->seal, out);
			bufferevent_write(l->bev, out, SEAL_PROOF);
		}
	} else {
		good = !seal_take_greeting(l->seal, in);
		if (good) {
			seal_greeting(l->seal, out);
			seal_proof(l->seal, out + SEAL_GREETING);
			bufferevent_write(l->bev, out, SEAL_GREETING + SEAL_PROOF);
			l->state = LINK_PROVING;
			return true;
		}
	}
	if (!good) {
		l->forged = true;
		link_down(l, "the other end does not know the job's secret");
		return false;
	}
	link_up(l);
	return !l->dead;
}

/* One message; false: not yet whole, or the link went down. */
static bool read_frame(struct link *l)
{
	struct evbuffer *in = bufferevent_get_input(l->bev);
	size_t extra = l->seal ? SEAL_EXTRA : 0, size;
	uint8_t *frame, *plain;
	Ms__Msg *msg;
	uint32_t head;

	if (evbuffer_copyout(in, &head, sizeof(head)) != sizeof(head))
		return false;
	size = le32toh(head);
	if (size > LINK_FRAME_MAX + extra || size <= extra) { /* no message is empty */
		link_down(l, "a frame of impossible size");
		return false;
	}
	if (evbuffer_get_length(in) < sizeof(head) + size)
		return false;
	evbuffer_drain(in, sizeof(head));
	frame = evbuffer_pullup(in, (ssize_t)size);
	plain = frame + (l->seal ? SEAL_SHIFT : 0);
	if (l->seal && seal_open(l->seal, frame, size, plain)) {
		link_down(l, "a frame whose seal is broken");
		return false;
	}
	msg = ms__msg__unpack(NULL, size - extra, plain);
	evbuffer_drain(in, size);
	if (!msg || msg->body_case == MS__MSG__BODY__NOT_SET) {
		if (msg)
			ms__msg__free_unpacked(msg, NULL);
		link_down(l, "a message that cannot be read");
		return false;
	}
	l->ops->on_message(l, msg, l->user);
	ms__msg__free_unpacked(msg, NULL);
	return !l->dead && l->state == LINK_UP;
}

static void read_cb(struct bufferevent *bev, void *arg)
{
	struct link *l = arg;
	bool more = true;

	l->busy = true;
	while (more && l->state != LINK_DOWN)
		more = l->state == LINK_UP ? read_frame(l) : shake_hands(l);
	l->busy = false;
	if (l->dead)
		link_free(l);
}

static void greet(struct link *l)
{
	uint8_t out[SEAL_GREETING];
	struct timeval limit = { LINK_HANDSHAKE_S, 0 };

	l->state = LINK_GREETED;
	bufferevent_set_timeouts(l->bev, &limit, NULL);
	if (l->caller) {
		seal_greeting(l->seal, out);
		bufferevent_write(l->bev, out, sizeof(out));
	}
}

static void event_cb(struct bufferevent *bev, short what, void *arg)
{
	struct link *l = arg;

	if (what & BEV_EVENT_CONNECTED) {
		set_tcp(bufferevent_getfd(bev));
		greet(l);
	} else if (what & BEV_EVENT_TIMEOUT) {
		link_down(l, "no answer");
	} else if (what & BEV_EVENT_EOF) {
		link_down(l, "closed by the other end");
	} else {
		int err = EVUTIL_SOCKET_ERROR();

		link_down(l, err ? strerror(err) : "connection broken");
	}
}

static struct link *link_new(struct event_base *base, int fd, const uint8_t *secret, bool caller,
			     const struct link_ops *ops, void *user)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l)
		log_die("out of memory");
	l->base = base;
	l->ops = ops;
	l->user = user;
	l->caller = caller;
	l->early = evbuffer_new();
	l->seal = secret ? seal_create(secret, caller) : NULL;
	l->down_later = event_new(base, -1, 0, down_cb, l);
	l->bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!l->early || (secret && !l->seal) || !l->down_later || !l->bev)
		log_die("out of memory");
	bufferevent_set_max_single_read(l->bev, LINK_READ_SIZE);
	bufferevent_setcb(l->bev, read_cb, NULL, event_cb, l);
	return l;
}

struct link *link_create(struct event_base *base, int fd, const uint8_t *secret, bool caller,
			 const struct link_ops *ops, void *user)
{
	socklen_t size = sizeof(struct sockaddr_in);
	struct link *l;

	evutil_make_socket_nonblocking(fd);
	evutil_make_socket_closeonexec(fd);
	l = link_new(base, fd, secret, caller, ops, user);
	if (secret) {
		set_tcp(fd);
		getpeername(fd, (struct sockaddr *)&l->peer, &size);
		greet(l);
	} else {
		l->state = LINK_UP;
	}
	bufferevent_enable(l->bev, EV_READ | EV_WRITE);
	return l;
}

struct link *link_dial(struct event_base *base, const struct sockaddr_in *to, const struct sockaddr_in *from,
		       const uint8_t *secret, const struct link_ops *ops, void *user)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct timeval limit = { LINK_HANDSHAKE_S, 0 };
	struct link *l;

	l = link_new(base, fd, secret, true, ops, user);
	l->peer = *to;
	l->state = LINK_DIALLING;
	bufferevent_set_timeouts(l->bev, &limit, &limit);
	bufferevent_enable(l->bev, EV_READ | EV_WRITE);
	if (fd >= 0 && from && bind(fd, (const struct sockaddr *)from, sizeof(*from)))
		log_say(LOG_DEBUG, "bind of a link: %s", strerror(errno));
	if (fd < 0 || bufferevent_socket_connect(l->bev, (const struct sockaddr *)to, sizeof(*to)))
		link_down(l, strerror(errno));
	return l;
}

void link_set_user(struct link *l, const struct link_ops *ops, void *user)
{
	l->ops = ops;
	l->user = user;
}

bool link_is_up(const struct link *l)
{
	return l && l->state == LINK_UP;
}

bool link_was_forged(const struct link *l)
{
	return l->forged;
}

size_t link_backlog(const struct link *l)
{
	return evbuffer_get_length(bufferevent_get_output(l->bev));
}

struct sockaddr_in link_peer(const struct link *l)
{
	return l->peer;
}

void link_send(struct link *l, const Ms__Msg *msg)
{
	size_t size;
	uint8_t *frame;

	if (!l || l->state == LINK_DOWN || l->dead)
		return;
	size = ms__msg__get_packed_size(msg);
	frame = malloc(size ? size : 1);
	if (!frame)
		log_die("out of memory");
	ms__msg__pack(msg, frame);
	if (size > LINK_FRAME_MAX) {
		link_down(l, "a message that is too long to send");
	} else if (l->state == LINK_UP) {
		write_frame(l, frame, size);
	} else {
		uint32_t head = (uint32_t)size;

		evbuffer_add(l->early, &head, sizeof(head));
		evbuffer_add(l->early, frame, size);
	}
	free(frame);
}

void link_break(struct link *l)
{
	if (l && bufferevent_getfd(l->bev) >= 0)
		shutdown(bufferevent_getfd(l->bev), SHUT_RDWR);
}

void link_flush(struct link *l, int timeout_ms)
{
	struct evbuffer *out = l ? bufferevent_get_output(l->bev) : NULL;
	struct pollfd p = { .events = POLLOUT };

	if (!l || l->state != LINK_UP)
		return;
	p.fd = bufferevent_getfd(l->bev);
	evbuffer_unfreeze(out, 1);
	while (evbuffer_get_length(out) > 0) {
		if (evbuffer_write(out, p.fd) < 0 && errno != EAGAIN && errno != EINTR)
			break;
		if (evbuffer_get_length(out) > 0 && poll(&p, 1, timeout_ms) <= 0)
			break;
	}
}

void link_await_end(struct link *l, int timeout_ms)
{
	struct pollfd p = { .events = POLLIN };
	struct timespec now;
	long long end;
	char junk[4096];

	if (!l || l->state != LINK_UP)
		return;
	p.fd = bufferevent_getfd(l->bev);
	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now.tv_sec * 1000LL + now.tv_nsec / 1000000 + timeout_ms;
	for (;;) {
		long long left = end - (now.tv_sec * 1000LL + now.tv_nsec / 1000000);
		ssize_t n = left > 0 && poll(&p, 1, (int)left) > 0 ? read(p.fd, junk, sizeof(junk)) : -1;

		if (n == 0 || (n < 0 && (left <= 0 || (errno != EINTR && errno != EAGAIN))))
			return;
		clock_gettime(CLOCK_MONOTONIC, &now);
	}
}
