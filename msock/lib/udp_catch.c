/* SPDX-License-Identifier: MIT */
#include "lib/udp_catch.h"

#include "lib/core.h"
#include "lib/kick.h"
#include "lib/log.h"
#include "lib/sys.h"
#include "lib/udp_pen.h"
#include "lib/udp_way.h"

#include <arpa/inet.h>

enum { CATCH_BUFFER = 1 << 20 };

static struct udp *catch_of(struct watch *w)
{
	return (struct udp *)((char *)w - offsetof(struct udp, catch));
}

static void catch_ready(struct watch *w, uint32_t events)
{
	udp_pen_settle(catch_of(w));
}

static bool catch_shares(const struct udp *u)
{
	for (const struct udp *o = udp_first(); o; o = o->next)
		if (o != u && o->real_port == u->real_port)
			return true;
	return false;
}

/* Two sockets may have a port while both say so; afterwards nobody else may. */
static int catch_bind(const struct udp *u, int fd, int catch)
{
	int one = 1, zero = 0, err;
	struct sockaddr_in6 at;
	socklen_t size = udp_address(u->domain, core.real_ip, u->real_port, &at);

	ms_setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	ms_setsockopt(catch, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	err = ms_bind(catch, &at, size);
	ms_setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &zero, sizeof(zero));
	ms_setsockopt(catch, SOL_SOCKET, SO_REUSEPORT, &zero, sizeof(zero));
	return err;
}

void udp_catch_open(struct udp *u, int fd)
{
	int reuse = 0, room = CATCH_BUFFER, catch, err;
	socklen_t size = sizeof(reuse);

	if (u->catch_fd >= 0 || !core.member || !u->real_port || catch_shares(u) ||
	    ms_getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &reuse, &size) || reuse)
		return;
	catch = ms_socket(u->domain, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	err = catch < 0 ? catch : catch_bind(u, fd, catch);
	if (err) {
		ms_log(LOG_INFO, "UDP %u: no second socket for its port: error %d", u->port, -err);
		if (catch >= 0)
			ms_close(catch);
		return;
	}
	ms_setsockopt(catch, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	u->catch_fd = core_raise_fd(catch);
	core_own_fd(u->catch_fd, true);
	u->catch.ready = catch_ready;
	kick_attach(u->catch_fd); /* one that comes just when the program's socket is turned may be late */
	udp_catch_watch(u);
}

void udp_catch_close(struct udp *u)
{
	int fd = u->catch_fd;

	u->catch_fd = -1;
	if (fd < 0 || !core.on)
		return; /* a forked child has closed it */
	engine_watch(&u->catch, fd, 0);
	core_own_fd(fd, false);
	ms_close(fd);
}

void udp_catch_lose(struct udp *u)
{
	engine_forget(&u->catch);
	core_own_fd(u->catch_fd, false);
	u->catch_fd = -1;
}

void udp_catch_give_way(uint16_t real_port)
{
	for (struct udp *u = udp_first(); u; u = u->next) {
		if (u->real_port != real_port || u->catch_fd < 0)
			continue;
		udp_pen_settle(u);
		udp_catch_close(u);
	}
}

long udp_catch_next(struct udp *u, void *bytes)
{
	for (;;) {
		struct sockaddr_in6 space;
		struct sockaddr_in from;
		socklen_t size = sizeof(space);
		long n = u->catch_fd < 0 ? -1
					 : ms_recvfrom(u->catch_fd, bytes, UDP_DATAGRAM, MSG_DONTWAIT, &space, &size);
		uint32_t ip;
		uint16_t port;

		if (n < 0)
			return -1;
		/* Out of the pen comes what was on its way to the socket while that was turned to its peer. */
		if (udp_from_address(&space, size, &from) && udp_name(u, &from, &ip, &port) &&
		    ip == ntohl(u->peer.sin_addr.s_addr) && port == ntohs(u->peer.sin_port))
			return n;
	}
}

/* While the program's socket hears its peer itself, little is to be expected: the kick wakes us for that. */
void udp_catch_watch(struct udp *u)
{
	bool lasting = u->aim == UDP_AT_PEER;

	if (u->catch_fd < 0 || (u->catch.events && u->catch.lasting == lasting))
		return;
	engine_watch(&u->catch, u->catch_fd, 0);
	u->catch.lasting = lasting;
	engine_watch(&u->catch, u->catch_fd, EPOLLIN);
}
