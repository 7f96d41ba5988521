/* SPDX-License-Identifier: MIT */
#include "lib/listener.h"

#include "lib/conn.h"
#include "lib/core.h"
#include "lib/kick.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/sock.h"
#include "lib/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/eventfd.h>

enum {
	LISTENER_PORT_FIRST = 1024,
	LISTENER_BACKLOG = 4096, /* of the kernel listeners */
	LISTENER_BATCH = 32,     /* connections accepted in one go */
	INBOUND_MAX = 128, /* the descriptors are the application's: beyond, the others wait in the kernel's queue */
};

#define INBOUND_PATIENCE_NS 10000000000ull
#define INBOUND_YOUNG_NS 250000000ull /* when others wait, the oldest goes after this time */

/* A connection whose first frame has not come whole. */
struct inbound {
	int fd; /* owned */
	struct watch watch;
	struct timer timer;
	struct leg_reader in;
	struct listener *via; /* borrowed; NULL: the data listener */
	struct inbound *next, *prev;
};

static struct listener *listeners;
static struct inbound *inbounds; /* the youngest first */
static unsigned inbound_count;
static bool inbound_crowded; /* the kernel's listeners are not watched: there is no room */
static struct timer inbound_timer;
static struct watch data_watch;
static int data_fd = -1;
static uint16_t next_port = LISTENER_PORT_FIRST;

struct listener *listener_first(void)
{
	return listeners;
}

static void inbound_listen(bool on)
{
	inbound_crowded = !on;
	if (data_fd >= 0)
		engine_watch(&data_watch, data_fd, on ? EPOLLIN : 0);
	for (struct listener *l = listeners; l; l = l->next)
		if (l->fd >= 0)
			engine_watch(&l->watch, l->fd, on ? EPOLLIN : 0);
}

static void inbound_end(struct inbound *in)
{
	engine_watch(&in->watch, in->fd, 0);
	engine_timer_clear(&in->timer);
	if (in->fd >= 0)
		ms_close(in->fd);
	if (in->prev)
		in->prev->next = in->next;
	else
		inbounds = in->next;
	if (in->next)
		in->next->prev = in->prev;
	inbound_count--;
	mem_free(in, sizeof(*in));
	if (inbound_crowded)
		inbound_listen(true);
}

void inbound_drop_all(void)
{
	while (inbounds)
		inbound_end(inbounds);
}

void inbound_forked(void)
{
	inbound_drop_all();
	engine_forget(&data_watch);
	data_fd = -1;
}

int inbound_fds(int *fds, int max)
{
	int n = 0;

	for (struct inbound *in = inbounds; in && n < max; in = in->next)
		fds[n++] = in->fd;
	return n;
}

static void inbound_late(struct timer *t)
{
	ms_log(LOG_INFO, "a connection to the data listener said nothing");
	inbound_end((struct inbound *)((char *)t - offsetof(struct inbound, timer)));
}

static struct listener *listener_of(const struct inbound *in, const struct leg_frame *f, uint8_t *reason)
{
	struct listener *l = listeners;

	*reason = MS_REFUSE_WRONG_MEMBER;
	if (core.member && f->to_ip != core.virtual_ip)
		return NULL;
	*reason = MS_REFUSE_BAD_COOKIE;
	if (__builtin_memcmp(f->token, core.cookie, MS_TOKEN))
		return NULL;
	*reason = MS_REFUSE_NOBODY_LISTENS;
	while (l && (in->via ? l != in->via : l->port != f->to_port))
		l = l->next;
	if (!l)
		return NULL;
	*reason = MS_REFUSE_BACKLOG;
	return l->held < l->backlog ? l : NULL;
}

static void inbound_connect(struct inbound *in, const struct leg_frame *f)
{
	struct leg_frame refuse = { .type = MS_LEG_REFUSE, .stream = f->stream, .m = core.self.m };
	struct listener *l = listener_of(in, f, &refuse.reason);

	if (!l) {
		ms_log(LOG_DEBUG, "connect from %a to %a port %u refused: %u", f->from_ip, f->to_ip, f->to_port,
		       refuse.reason);
		leg_send(in->fd, &refuse);
		return;
	}
	if (conn_find(f->stream, 1))
		return;
	engine_watch(&in->watch, in->fd, 0);
	if (conn_incoming(in->fd, f, l)) {
		l->held++;
		in->fd = -1;
	}
}

static void inbound_hello(struct inbound *in, const struct leg_frame *f)
{
	struct leg_frame refuse = {
		.type = MS_LEG_REFUSE, .stream = f->stream, .leg = f->leg, .m = f->m, .reason = MS_REFUSE_NOT_OFFERED
	};
	struct conn *c = conn_find(f->stream, 0);
	int fd = in->fd;

	if (!c || !conn_offers(c, f))
		c = conn_find(f->stream, 1);
	if (!c) {
		leg_send(in->fd, &refuse);
		return;
	}
	engine_watch(&in->watch, in->fd, 0);
	in->fd = -1;
	conn_hello(c, fd, f);
}

static void inbound_ready(struct watch *w, uint32_t events)
{
	struct inbound *in = (struct inbound *)((char *)w - offsetof(struct inbound, watch));
	struct leg_frame f;
	int got = leg_read(in->fd, &in->in, &f);

	if (got == 0)
		return;
	if (got == 1 && f.type == MS_LEG_CONNECT)
		inbound_connect(in, &f);
	else if (got == 1 && f.type == MS_LEG_HELLO)
		inbound_hello(in, &f);
	else
		ms_log(LOG_DEBUG, "a connection to the data listener ended without a frame: %d", got);
	inbound_end(in);
}

static void inbound_look_again(struct timer *t)
{
	inbound_listen(true);
}

/* May one more come in? Those of a peer that dials many at once are silent for a moment, strangers for longer. */
static bool inbound_has_room(void)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC), old_at;
	struct inbound *in = inbounds;

	if (inbound_count < INBOUND_MAX)
		return true;
	while (in->next)
		in = in->next;
	old_at = in->timer.at_ns - INBOUND_PATIENCE_NS + INBOUND_YOUNG_NS;
	if (now < old_at) {
		inbound_timer.fire = inbound_look_again;
		engine_timer_set(&inbound_timer, old_at - now);
		inbound_listen(false);
		return false;
	}
	ms_log(LOG_INFO, "more than %d connections that said nothing: one is closed", INBOUND_MAX);
	inbound_end(in);
	return true;
}

static void inbound_begin(int fd, struct listener *via)
{
	struct inbound *in = mem_alloc(sizeof(*in));

	if (!in) {
		ms_close(fd);
		return;
	}
	leg_prepare(fd);
	in->fd = fd;
	in->via = via;
	in->watch.ready = inbound_ready;
	in->timer.fire = inbound_late;
	inbound_count++;
	in->next = inbounds;
	if (inbounds)
		inbounds->prev = in;
	inbounds = in;
	engine_timer_set(&in->timer, INBOUND_PATIENCE_NS);
	engine_watch(&in->watch, fd, EPOLLIN);
}

static void listener_take(int listener, struct listener *via)
{
	for (int i = 0; i < LISTENER_BATCH && inbound_has_room(); i++) {
		int fd = ms_accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0)
			inbound_begin(fd, via);
		else if (fd == -EAGAIN)
			return;
		else if (fd != -ECONNABORTED && fd != -EINTR) {
			ms_log(LOG_WARN, "accept: error %d", -fd);
			return;
		}
	}
}

static void data_ready(struct watch *w, uint32_t events)
{
	listener_take(data_fd, NULL);
}

static void listener_ready(struct watch *w, uint32_t events)
{
	struct listener *l = (struct listener *)((char *)w - offsetof(struct listener, watch));

	listener_take(l->fd, l);
}

/* A kernel listener on the real address; *port is what it got. */
static int listener_kernel(uint16_t low, uint16_t high, uint16_t *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(core.real_ip) };
	socklen_t size = sizeof(at);
	int fd = ms_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int err = -EADDRINUSE;

	if (fd < 0)
		return fd;
	for (unsigned p = low; p <= high && err == -EADDRINUSE; p++) {
		at.sin_port = htons((uint16_t)p);
		err = ms_bind(fd, &at, sizeof(at));
	}
	if (!err)
		err = ms_listen(fd, LISTENER_BACKLOG);
	if (!err)
		err = ms_getsockname(fd, &at, &size);
	if (err) {
		ms_log(LOG_ERROR, "cannot listen on %a, ports %u to %u: error %d", core.real_ip, low, high, -err);
		ms_close(fd);
		return err;
	}
	*port = ntohs(at.sin_port);
	return core_raise_fd(fd);
}

int data_listener_fd(void)
{
	return data_fd;
}

void data_listener_adopt(int fd)
{
	data_fd = fd;
	core_own_fd(fd, true);
	data_watch.lasting = true;
	data_watch.ready = data_ready;
	kick_attach(fd);
	engine_forget(&data_watch);
	engine_watch(&data_watch, fd, EPOLLIN);
}

int data_listen(void)
{
	int fd = listener_kernel(core.port_low, core.port_high, &core.data_port);

	if (fd >= 0)
		data_listener_adopt(fd);
	return fd;
}

void data_listener_close(void)
{
	if (data_fd < 0)
		return;
	engine_watch(&data_watch, data_fd, 0);
	core_own_fd(data_fd, false);
	ms_close(data_fd);
	data_fd = -1;
}

bool listener_port_taken(uint16_t port)
{
	for (struct listener *l = listeners; l; l = l->next)
		if (l->port == port)
			return true;
	return false;
}

uint16_t listener_port_free(void)
{
	do
		next_port = next_port < 30000 ? next_port + 1 : LISTENER_PORT_FIRST;
	while (listener_port_taken(next_port) || sock_port_taken(next_port, NULL));
	return next_port;
}

static int listener_begin(struct listener *l)
{
	int sd = ms_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE);
	int err = sd < 0 ? sd : vsock_bind(&l->v, sd);

	if (err < 0) {
		if (sd >= 0)
			ms_close(sd);
		return err;
	}
	if (core.member) {
		l->port = listener_port_free();
		return 0;
	}
	l->fd = listener_kernel(0, 0, &l->port);
	if (l->fd < 0) {
		vsock_unbind(&l->v);
		ms_close(sd);
		return l->fd;
	}
	l->watch.lasting = true;
	l->watch.ready = listener_ready;
	engine_watch(&l->watch, l->fd, EPOLLIN);
	return 0;
}

struct listener *listener_open(int backlog, int *error)
{
	struct listener *l = mem_alloc(sizeof(*l));
	int err;

	*error = ENOMEM;
	if (!l)
		return NULL;
	l->v.kind = VSOCK_LISTENER;
	l->v.sd = -1;
	l->fd = -1;
	l->backlog = backlog > 0 ? (unsigned)backlog : 128;
	err = listener_begin(l);
	if (err < 0) {
		*error = -err;
		mem_free(l, sizeof(*l));
		return NULL;
	}
	l->next = listeners;
	listeners = l;
	return l;
}

struct listener *listener_open_for(struct sock *s, uint16_t port, unsigned backlog, int *error)
{
	struct listener *l = NULL;

	*error = EADDRINUSE;
	if (!port || !listener_port_taken(port)) {
		*error = ENOMEM;
		l = mem_alloc(sizeof(*l));
	}
	if (!l)
		return NULL;
	l->v.kind = VSOCK_LISTENER;
	l->v.sd = -1;
	l->fd = -1;
	l->backlog = backlog;
	l->sock = s;
	l->port = port ? port : listener_port_free();
	l->next = listeners;
	listeners = l;
	return l;
}

void listener_remake(struct listener *l)
{
	unsigned waiting = 0;
	int fd;

	if (l->sock)
		return;
	for (struct conn *c = l->first; c; c = c->queue_next)
		waiting++;
	fd = ms_eventfd(waiting, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE);
	if (fd >= 0 && fd != l->v.sd) {
		ms_dup3(fd, l->v.sd, O_CLOEXEC);
		ms_close(fd);
	}
}

void listener_close(struct listener *l)
{
	struct listener **at = &listeners;
	int sd = l->v.sd;
	struct conn *c, *next;

	for (struct inbound *in = inbounds, *after; in; in = after) {
		after = in->next;
		if (in->via == l)
			inbound_end(in);
	}
	for (c = conn_first(); c; c = next) {
		next = c->next;
		if (c->listener != l)
			continue;
		c->listener = NULL;
		conn_close(c);
	}
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	if (l->fd >= 0) {
		engine_watch(&l->watch, l->fd, 0);
		ms_close(l->fd);
	}
	vsock_unbind(&l->v);
	if (sd >= 0)
		ms_close(sd);
	mem_free(l, sizeof(*l));
}

void listener_show(struct listener *l, struct conn *c)
{
	uint64_t one = 1;

	c->queue_next = NULL;
	if (l->last)
		l->last->queue_next = c;
	else
		l->first = c;
	l->last = c;
	if (l->sock)
		sock_listener_tell(l->sock);
	else
		ms_write(l->v.sd, &one, sizeof(one));
}

void listener_drop(struct listener *l, struct conn *c)
{
	if (l)
		l->held--;
	c->listener = NULL;
}

struct conn *listener_accept(struct listener *l)
{
	struct conn *c = l->first;
	uint64_t one;

	if (!c)
		return NULL;
	l->first = c->queue_next;
	if (!l->first)
		l->last = NULL;
	l->held--;
	c->listener = NULL;
	if (!l->sock)
		ms_read(l->v.sd, &one, sizeof(one));
	return c;
}
