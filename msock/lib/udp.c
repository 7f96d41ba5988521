/* SPDX-License-Identifier: MIT */
#include "lib/udp.h"

#include "lib/core.h"
#include "lib/engine.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/sock.h"
#include "lib/sys.h"
#include "lib/udp_move.h"
#include "lib/udp_catch.h"
#include "lib/udp_names.h"
#include "lib/udp_pen.h"
#include "lib/udp_way.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/stat.h>

enum { UDP_BUCKETS = 256, UDP_PORT_FIRST = 32768, UDP_PORT_LAST = 60999, UDP_SWEEP = 64, UDP_BORROWED = 200 };

static struct udp *all;
static struct udp *buckets[UDP_BUCKETS];
static unsigned count, sweep_at = UDP_SWEEP;
static uint16_t next_port, next_real;
static uint64_t last_serial;

struct udp *udp_first(void)
{
	return all;
}

struct udp *udp_find_inode(uint64_t ino)
{
	struct udp *u = buckets[ino % UDP_BUCKETS];

	while (u && u->ino != ino)
		u = u->hash_next;
	return u;
}

struct udp *udp_find(int fd)
{
	struct stat st;

	if (!all || ms_fstat(fd, &st) || !S_ISSOCK(st.st_mode))
		return NULL;
	return udp_find_inode(st.st_ino);
}

static void udp_unhash(struct udp *u)
{
	struct udp **at = &buckets[u->ino % UDP_BUCKETS];

	while (*at && *at != u)
		at = &(*at)->hash_next;
	if (*at)
		*at = u->hash_next;
}

void udp_rename(struct udp *u, uint64_t ino)
{
	struct udp **bucket = &buckets[ino % UDP_BUCKETS];

	udp_unhash(u);
	u->ino = ino;
	u->hash_next = *bucket;
	*bucket = u;
}

static void udp_mark(int fd, const struct stat *st, void *arg)
{
	struct udp *u = udp_find_inode(st->st_ino);

	if (u)
		u->number = fd;
}

/* Those that were closed unseen, when there is reason to believe that there are many. */
static void udp_sweep(void)
{
	if (count < sweep_at || !core.on)
		return;
	for (struct udp *u = all; u; u = u->next)
		u->number = -1;
	sock_each_number(false, udp_mark, NULL);
	for (struct udp *u = all, *next; u; u = next) {
		next = u->next;
		if (u->number < 0)
			udp_destroy(u);
	}
	sweep_at = count * 2 > UDP_SWEEP ? count * 2 : UDP_SWEEP;
}

struct udp *udp_create(int fd, int domain)
{
	struct stat st;
	struct udp *u;

	if (ms_fstat(fd, &st) || !S_ISSOCK(st.st_mode))
		return NULL;
	u = udp_find_inode(st.st_ino);
	if (u)
		udp_destroy(u); /* the inode of a socket that was closed unseen */
	udp_sweep();
	u = mem_alloc(sizeof(*u));
	if (!u)
		return NULL;
	u->v.kind = VSOCK_UDP;
	u->v.sd = -1;
	u->catch_fd = -1;
	u->domain = domain;
	u->number = fd;
	u->next = all;
	if (all)
		all->prev = u;
	all = u;
	count++;
	udp_rename(u, st.st_ino);
	return u;
}

void udp_destroy(struct udp *u)
{
	if (u->prev)
		u->prev->next = u->next;
	else
		all = u->next;
	if (u->next)
		u->next->prev = u->prev;
	udp_unhash(u);
	count--;
	udp_pen_leave(u);
	udp_move_forget(u);
	udp_way_end(u); /* last: it may look for another socket of the port */
	mem_free(u, sizeof(*u));
}

int udp_number(struct udp *u)
{
	struct stat st;

	if (u->number >= 0 && !ms_fstat(u->number, &st) && S_ISSOCK(st.st_mode) && st.st_ino == u->ino)
		return u->number;
	u->number = -1;
	sock_each_number(false, udp_mark, NULL);
	return u->number;
}

struct udp_search {
	uint64_t ino;
	int but;
	bool found;
};

static void udp_search(int fd, const struct stat *st, void *arg)
{
	struct udp_search *s = arg;

	s->found = s->found || (st->st_ino == s->ino && fd != s->but);
}

bool udp_has_other_number(const struct udp *u, int fd)
{
	struct udp_search s = { .ino = u->ino, .but = fd };

	sock_each_number(false, udp_search, &s);
	return s.found;
}

int udp_borrow(struct udp *u)
{
	int number = udp_number(u), fd = -1;
	struct stat st;

	if (number >= 0)
		fd = (int)ms_fcntl(number, F_DUPFD_CLOEXEC, UDP_BORROWED);
	if (fd < 0)
		return -1;
	if (!ms_fstat(fd, &st) && st.st_ino == u->ino)
		return fd;
	ms_close(fd);
	return -1;
}

struct udp *udp_pick(uint16_t port, uint32_t from_ip, uint16_t from_port)
{
	struct udp *open = NULL;

	for (struct udp *u = all; u; u = u->next) {
		if (u->kind != UDP_VIRTUAL || u->port != port)
			continue;
		if (!u->connected || !from_port)
			open = open ? open : u;
		else if (ntohl(u->peer.sin_addr.s_addr) == from_ip && ntohs(u->peer.sin_port) == from_port)
			return u;
	}
	return open;
}

struct udp *udp_of_port(uint16_t port, uint32_t from_ip, uint16_t from_port)
{
	for (;;) {
		struct udp *u = udp_pick(port, from_ip, from_port);

		if (!u || udp_number(u) >= 0)
			return u;
		udp_destroy(u);
	}
}

socklen_t udp_address(int domain, uint32_t ip, uint16_t port, struct sockaddr_in6 *space)
{
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(ip) };

	if (domain == AF_INET) {
		__builtin_memcpy(space, &four, sizeof(four));
		return sizeof(four);
	}
	*space = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = four.sin_port };
	space->sin6_addr.s6_addr[10] = space->sin6_addr.s6_addr[11] = 0xff;
	__builtin_memcpy(space->sin6_addr.s6_addr + 12, &four.sin_addr, 4);
	return sizeof(*space);
}

bool udp_from_address(const void *addr, socklen_t size, struct sockaddr_in *out)
{
	const struct sockaddr_in6 *six = addr;

	if (!addr || size < sizeof(sa_family_t))
		return false;
	if (six->sin6_family == AF_INET && size >= sizeof(*out)) {
		__builtin_memcpy(out, addr, sizeof(*out));
		return true;
	}
	if (six->sin6_family != AF_INET6 || size < sizeof(*six))
		return false;
	*out = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = six->sin6_port };
	if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
		__builtin_memcpy(&out->sin_addr, six->sin6_addr.s6_addr + 12, 4);
	else if (!IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr))
		return false;
	return true;
}

/* One try, at a port or at any. */
static int udp_bind_try(int fd, int domain, uint16_t port)
{
	struct sockaddr_in6 at;
	socklen_t size = udp_address(domain, core.real_ip, port, &at);

	return ms_bind(fd, &at, size);
}

/* Where only some ports are let through, one of those. */
static int udp_bind_range(int fd, int domain)
{
	int err = -EADDRINUSE;

	if (!core.port_low)
		return udp_bind_try(fd, domain, 0);
	for (unsigned i = core.port_low; i <= core.port_high && err == -EADDRINUSE; i++) {
		if (next_real < core.port_low || next_real >= core.port_high)
			next_real = core.port_low;
		else
			next_real++;
		err = udp_bind_try(fd, domain, next_real);
	}
	return err;
}

int udp_bind_kernel(int fd, int domain, uint16_t port, uint16_t *real_port)
{
	struct sockaddr_in6 got;
	struct sockaddr_in at;
	socklen_t size = sizeof(got);
	int err = port ? udp_bind_try(fd, domain, port) : udp_bind_range(fd, domain);

	if (!err)
		err = ms_getsockname(fd, &got, &size);
	if (!err && !udp_from_address(&got, size, &at))
		err = -EAFNOSUPPORT;
	if (!err)
		*real_port = ntohs(at.sin_port);
	return err;
}

void udp_placed(struct udp *u)
{
	uint64_t now = ms_clock_ns(CLOCK_REALTIME);

	last_serial = last_serial < now ? now : last_serial + 1; /* a later process of this name goes on above */
	u->serial = last_serial;
	udp_names_put(core.real_ip, u->real_port, core.virtual_ip, u->port, ms_clock_ns(CLOCK_MONOTONIC));
}

static int udp_choose_port(uint16_t *port)
{
	if (!next_port) {
		ms_getrandom(&next_port, sizeof(next_port), 0);
		next_port = (uint16_t)(UDP_PORT_FIRST + next_port % (UDP_PORT_LAST - UDP_PORT_FIRST));
	}
	for (int i = UDP_PORT_FIRST; i <= UDP_PORT_LAST; i++) {
		*port = next_port;
		next_port = next_port < UDP_PORT_LAST ? next_port + 1 : UDP_PORT_FIRST;
		if (!udp_of_port(*port, 0, 0))
			return 0;
	}
	return -EADDRINUSE;
}

/*
 * Sockets that share a virtual port share the real one, so whether they may,
 * and who gets what, is decided by the kernel.
 */
static int udp_bind_port(struct udp *u, int fd, uint16_t port)
{
	struct udp *other;
	int err = 0;

	if (!core.member) { /* alone: virtual ports are real ones */
		err = udp_bind_kernel(fd, u->domain, port, &u->real_port);
		u->port = u->real_port;
		u->kind = err ? UDP_IDLE : UDP_VIRTUAL;
		return err;
	}
	other = port ? udp_of_port(port, 0, 0) : NULL;
	if (!port)
		err = udp_choose_port(&port);
	if (!err && u->real_port && other)
		return -EADDRINUSE;
	if (!err && other)
		udp_catch_give_way(other->real_port);
	if (!err && !u->real_port)
		err = udp_bind_kernel(fd, u->domain, other ? other->real_port : 0, &u->real_port);
	if (err)
		return err;
	u->port = port;
	u->kind = UDP_VIRTUAL;
	udp_placed(u);
	udp_way_bound(u);
	return 0;
}

int udp_bind(struct udp *u, int fd, const struct sockaddr_in *at)
{
	uint32_t ip = ntohl(at->sin_addr.s_addr);
	int err;

	if (u->kind != UDP_IDLE)
		return -EINVAL;
	if (ip && ip != core.virtual_ip)
		return -EADDRNOTAVAIL;
	err = udp_bind_port(u, fd, ntohs(at->sin_port));
	if (err)
		return err;
	u->wildcard = !ip;
	u->given = false;
	return 0;
}

int udp_bind_any(struct udp *u, int fd)
{
	int err;

	if (u->kind == UDP_PLAIN)
		return -ENETUNREACH; /* there is no way from an address of the host to a virtual one */
	if (u->kind == UDP_VIRTUAL)
		return 0;
	err = udp_bind_port(u, fd, 0);
	u->wildcard = u->given = !err;
	return err;
}

int udp_connect(struct udp *u, int fd, const struct sockaddr_in *to)
{
	int err = udp_bind_any(u, fd);
	struct udp_way *w;

	if (!core.member)
		return err ? err : ms_connect(fd, to, sizeof(*to));
	w = err ? NULL : udp_way_get(u, ntohl(to->sin_addr.s_addr), ntohs(to->sin_port));
	if (!w)
		return err ? err : -ENOMEM;
	u->peer = *to;
	u->connected = true;
	if (w->ip == core.virtual_ip)
		udp_way_ask(w);
	udp_way_changed(w); /* first: whether it hears the other side is in what it says */
	udp_way_ask(w);     /* ... and that it is connected */
	return 0;
}

/* The kernel takes a port that it has chosen away again; another process may have it by now. */
static int udp_bind_again(struct udp *u, int fd)
{
	if (!udp_bind_kernel(fd, u->domain, u->real_port, &u->real_port))
		return 0;
	return udp_bind_kernel(fd, u->domain, 0, &u->real_port);
}

int udp_disconnect(struct udp *u, int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	uint16_t before = u->real_port;
	int err;

	udp_pen_settle(u);
	err = ms_connect(fd, &none, sizeof(none));
	udp_pen_leave(u);
	u->connected = false;
	if (!err)
		err = udp_bind_again(u, fd);
	if (u->given) {
		udp_way_end(u);
		u->kind = UDP_IDLE;
		u->port = 0;
		u->given = u->wildcard = false;
	} else if (!err && u->real_port != before) {
		udp_placed(u);
	}
	return err == -EINVAL ? 0 : err; /* bound still: the port was not of the kernel's choice */
}

bool udp_name(const struct udp *u, const struct sockaddr_in *from, uint32_t *ip, uint16_t *port)
{
	uint32_t real_ip = ntohl(from->sin_addr.s_addr);
	uint16_t real_port = ntohs(from->sin_port);

	if (!u->pen_port || real_ip != core.real_ip || !udp_pen_is(real_port))
		return udp_names_get(real_ip, real_port, ip, port);
	*ip = ntohl(u->peer.sin_addr.s_addr); /* see udp_catch.h */
	*port = ntohs(u->peer.sin_port);
	return true;
}

bool udp_translate(struct udp *u, struct msghdr *msg, bool here)
{
	struct sockaddr_in from;
	struct sockaddr_in6 space;
	uint32_t ip;
	uint16_t port;

	if (!msg->msg_name || !udp_from_address(msg->msg_name, msg->msg_namelen, &from))
		return true;
	if (!udp_name(u, &from, &ip, &port))
		return false;
	if (here && !(msg->msg_flags & MSG_ERRQUEUE))
		udp_way_heard(u, ip, port, ntohl(from.sin_addr.s_addr), ntohs(from.sin_port));
	msg->msg_namelen = udp_address(u->domain, ip, port, &space);
	__builtin_memcpy(msg->msg_name, &space, msg->msg_namelen);
	return true;
}

const char *udp_stays(int *number)
{
	for (struct udp *u = all, *next; u; u = next) {
		next = u->next;
		if (!u->stays)
			continue;
		*number = udp_number(u);
		if (*number >= 0)
			return u->stays;
		udp_destroy(u);
	}
	return NULL;
}
