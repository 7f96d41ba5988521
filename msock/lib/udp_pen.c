/* SPDX-License-Identifier: MIT */
#include "lib/udp_pen.h"

#include "lib/core.h"
#include "lib/engine.h"
#include "lib/log.h"
#include "lib/sys.h"
#include "lib/udp_catch.h"
#include "lib/udp_move.h"
#include "lib/udp_way.h"

#include <arpa/inet.h>

enum { PEN_BUFFER = 1 << 20, PENS = 64, PEN_TURNS = 8 };

static void pen_ready(struct watch *w, uint32_t events);

/*
 * Who has written is told by the port that it comes from; so sockets that share
 * their port have a pen each, and all others the first.
 */
struct pen {
	struct watch watch;
	int fd;         /* owned */
	uint16_t port;  /* 0: not there yet */
	unsigned users; /* sockets that are connected to it: the engine must run for them */
};

static struct pen pens[PENS];

static bool pen_take(struct pen *p);

static int wall = -1; /* owned */
static uint16_t wall_port;
static uint8_t taken[UDP_DATAGRAM + 1];

/* At this port; 0: at any. */
static int pen_open(uint16_t want, uint16_t *port)
{
	int fd = ms_socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int err = fd < 0 ? fd : udp_bind_kernel(fd, AF_INET, want, port);

	if (err) {
		if (!want)
			ms_log(LOG_ERROR, "cannot have a UDP socket for what has to wait: error %d", -err);
		if (fd >= 0)
			ms_close(fd);
		return -1;
	}
	fd = core_raise_fd(fd);
	core_own_fd(fd, true);
	return fd;
}

static struct pen *pen_of_port(uint16_t port)
{
	for (int i = 0; i < PENS && pens[i].port; i++)
		if (pens[i].port == port)
			return &pens[i];
	return NULL;
}

/* Another socket of the same port has it. */
static bool pen_is_taken(const struct pen *p, const struct udp *u)
{
	for (const struct udp *o = udp_first(); o && p->port; o = o->next)
		if (o != u && o->real_port == u->real_port && o->pen_port == p->port)
			return true;
	return false;
}

static bool pen_start(struct pen *p, uint16_t port)
{
	int size = PEN_BUFFER;

	p->fd = pen_open(port, &p->port);
	if (p->fd < 0) {
		p->port = 0;
		return false;
	}
	p->watch.ready = pen_ready;
	ms_setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	return true;
}

/* The pen that the socket is to be connected to; its port, 0: none can be had. */
static uint16_t pen_have(struct udp *u)
{
	struct pen *p;
	int i = 0;

	if (pen_of_port(u->pen_port))
		return u->pen_port;
	while (i < PENS - 1 && pen_is_taken(&pens[i], u))
		i++;
	p = &pens[i];
	if (!p->port && !pen_start(p, 0))
		return 0;
	u->pen_port = p->port;
	return p->port;
}

static bool pen_is_used(const struct pen *p)
{
	for (const struct udp *u = udp_first(); u; u = u->next)
		if (u->pen_port == p->port)
			return true;
	return p->users > 0;
}

/* Is there a pen at this port, or can it be had? One that nobody uses any more makes room. */
static bool pen_at(uint16_t port)
{
	struct pen *p = NULL;

	if (pen_of_port(port))
		return true;
	for (int i = 0; i < PENS && !p; i++)
		if (!pens[i].port || !pen_is_used(&pens[i]))
			p = &pens[i];
	if (!p)
		return false;
	if (p->port) {
		struct pen fresh = { .fd = -1 };

		if (!pen_start(&fresh, port))
			return false;
		while (pen_take(p))
			;
		core_own_fd(p->fd, false);
		ms_close(p->fd);
		*p = fresh;
		return true;
	}
	return pen_start(p, port);
}

bool udp_pen_is(uint16_t port)
{
	return pen_of_port(port);
}

/* Connected to itself, it is bound to nothing for all others. */
uint16_t udp_pen_wall(void)
{
	struct sockaddr_in6 at;
	socklen_t size;

	if (wall < 0) {
		wall = pen_open(0, &wall_port);
		size = udp_address(AF_INET, core.real_ip, wall_port, &at);
		if (wall >= 0)
			ms_connect(wall, &at, size);
	}
	return wall < 0 ? 0 : wall_port;
}

/* Also one that has been connected anew since; one that shares its port is known by its pen. */
static struct udp *pen_writer(const struct pen *p, const struct sockaddr_in *from)
{
	struct udp *u = ntohl(from->sin_addr.s_addr) == core.real_ip ? udp_first() : NULL;

	while (u &&
	       (u->real_port != ntohs(from->sin_port) || (u->pen_port != p->port && u->catch_fd < 0) || !u->connected))
		u = u->next;
	return u;
}

/* One datagram; false: there is none. */
static bool pen_take(struct pen *p)
{
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	long n = ms_recvfrom(p->fd, taken, sizeof(taken), MSG_DONTWAIT, &from, &size);
	struct iovec iov = { taken, n > 0 ? (size_t)n : 0 };
	struct udp *u = n < 0 ? NULL : pen_writer(p, &from);
	struct udp_way *w = u ? udp_way_get(u, ntohl(u->peer.sin_addr.s_addr), ntohs(u->peer.sin_port)) : NULL;

	if (w) {
		udp_way_wait(w, &iov, 1);
		udp_way_flush(w);
	}
	return n >= 0;
}

void udp_pen_empty(void)
{
	for (int i = 0; i < PENS && pens[i].port; i++)
		while (pen_take(&pens[i]))
			;
}

static void pen_ready(struct watch *w, uint32_t events)
{
	udp_pen_empty();
}

static void pen_count(uint16_t port, int more)
{
	struct pen *p = pen_of_port(port);

	if (!p)
		return;
	p->users += (unsigned)more;
	engine_watch(&p->watch, p->fd, p->users ? EPOLLIN : 0);
}

static void pen_set_aim(struct udp *u, enum udp_aim aim, uint32_t ip, uint16_t port)
{
	if (u->aim == UDP_AT_PEN)
		pen_count(u->aim_port, -1);
	u->aim = aim;
	u->aim_ip = ip;
	u->aim_port = port;
	if (u->aim == UDP_AT_PEN)
		pen_count(u->aim_port, 1);
	udp_catch_watch(u);
}

static int pen_point(const struct udp *u, int fd, uint32_t ip, uint16_t port)
{
	struct sockaddr_in6 at;
	socklen_t size = udp_address(u->domain, ip, port, &at);

	return ms_connect(fd, &at, size);
}

/* What was caught goes to the socket fd, which is connected to the pen for that. True: it is now. */
static bool pen_forward(struct udp *u, int fd, bool at_pen)
{
	const struct pen *p = pen_of_port(u->pen_port);
	struct sockaddr_in6 to;
	socklen_t size = udp_address(AF_INET, core.real_ip, u->real_port, &to);
	long n;

	while (p && (n = udp_catch_next(u, taken)) >= 0) {
		at_pen = at_pen || !pen_point(u, fd, core.real_ip, u->pen_port);
		ms_sendto(p->fd, taken, (size_t)n, MSG_DONTWAIT, &to, size);
	}
	return at_pen;
}

/* To its aim; what the peer has sent until then is not lost: what is caught behind the change leads back to the pen. */
static int pen_turn(struct udp *u, int fd, bool at_pen, uint32_t ip, uint16_t port)
{
	bool turn = true;
	int err = 0;

	for (int i = 0; i < PEN_TURNS && !err; i++) {
		turn = pen_forward(u, fd, at_pen) || turn;
		if (!turn)
			break;
		err = pen_point(u, fd, ip, port);
		turn = at_pen = false;
	}
	return err;
}

/*
 * The kernel reads address and port of a connected socket one after the
 * other, without a lock: what a thread writes just when both change may go to
 * the new address and the old port.  So one of them changes at a time: the
 * pen has the port of the peer's place, if that can be had here.
 */
static void pen_approach(struct udp *u, int fd, uint32_t ip, uint16_t port)
{
	if (u->catch_fd < 0 || ip == core.real_ip || port == u->pen_port || !pen_at(port))
		return;
	if (u->aim == UDP_AT_PEER && !pen_point(u, fd, core.real_ip, u->pen_port))
		pen_set_aim(u, UDP_AT_PEN, core.real_ip, u->pen_port);
	if (u->aim != UDP_AT_NOBODY && !pen_point(u, fd, core.real_ip, port))
		pen_set_aim(u, UDP_AT_PEN, core.real_ip, port);
	u->pen_port = port;
}

static void pen_connect(struct udp *u, enum udp_aim aim, uint32_t ip, uint16_t port)
{
	int fd, err;

	if (u->aim == aim && u->aim_ip == ip && u->aim_port == port)
		return;
	fd = udp_borrow(u);
	if (fd < 0)
		return;
	if (pen_have(u))
		udp_catch_open(u, fd);
	if (aim == UDP_AT_PEER)
		pen_approach(u, fd, ip, port);
	err = aim == UDP_AT_PEN ? pen_point(u, fd, ip, port) : pen_turn(u, fd, u->aim == UDP_AT_PEN, ip, port);
	if (!err)
		pen_set_aim(u, aim, ip, port);
	ms_close(fd);
}

void udp_pen_settle(struct udp *u)
{
	int fd = u->catch_fd < 0 || u->aim == UDP_AT_NOBODY ? -1 : udp_borrow(u);

	if (fd < 0)
		return;
	if (u->aim == UDP_AT_PEN)
		pen_forward(u, fd, true);
	else if (pen_forward(u, fd, false))
		pen_turn(u, fd, true, u->aim_ip, u->aim_port);
	ms_close(fd);
}

void udp_pen_aim(struct udp *u)
{
	struct udp_way *w;

	if (!u->connected || !core.on)
		return;
	w = udp_way_get(u, ntohl(u->peer.sin_addr.s_addr), ntohs(u->peer.sin_port));
	if (!w)
		return;
	/* Two that are connected to each other, and both deaf: somebody has to be the first to hear. */
	if (udp_way_open(w) ||
	    (w->deaf && w->real_port && w->noted == u->serial && !udp_way_held(w) && !udp_move_holding()))
		pen_connect(u, UDP_AT_PEER, w->real_ip, w->real_port);
	else if (w->nobody && !udp_move_holding())
		pen_connect(u, UDP_AT_WALL, core.real_ip, udp_pen_wall());
	else
		pen_connect(u, UDP_AT_PEN, core.real_ip, pen_have(u));
}

void udp_pen_trust(struct udp *u)
{
	struct udp_way *w = udp_way_find(u, ntohl(u->peer.sin_addr.s_addr), ntohs(u->peer.sin_port));

	if (w && w->real_port && !w->nobody)
		pen_connect(u, UDP_AT_PEER, w->real_ip, w->real_port);
	else
		udp_pen_aim(u);
}

void udp_pen_leave(struct udp *u)
{
	udp_catch_close(u);
	pen_set_aim(u, UDP_AT_NOBODY, 0, 0);
}

int udp_pen_own_fds(int *fds, int max)
{
	int n = 0;

	for (int i = 0; i < PENS && pens[i].port && n < max; i++)
		fds[n++] = pens[i].fd;
	if (wall >= 0 && n < max)
		fds[n++] = wall;
	for (struct udp *u = udp_first(); u && n < max; u = u->next)
		if (u->catch_fd >= 0)
			fds[n++] = u->catch_fd;
	return n;
}

void udp_pen_lose(void)
{
	for (int i = 0; i < PENS && pens[i].port; i++) {
		engine_forget(&pens[i].watch);
		core_own_fd(pens[i].fd, false);
		pens[i] = (struct pen){ 0 };
	}
	core_own_fd(wall, false);
	wall = -1;
	for (struct udp *u = udp_first(); u; u = u->next) {
		udp_catch_lose(u);
		u->aim = UDP_AT_NOBODY;
		u->aim_port = u->pen_port = 0;
	}
}
