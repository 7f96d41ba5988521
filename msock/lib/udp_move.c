/* SPDX-License-Identifier: MIT */
#include "lib/udp_move.h"

#include "lib/core.h"
#include "lib/engine.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/sock.h"
#include "lib/sys.h"
#include "lib/udp_names.h"
#include "lib/udp_option.h"
#include "lib/udp_pen.h"
#include "lib/udp_say.h"
#include "lib/udp_way.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/stat.h>

enum { MOVE_BUFFER = 65536, MOVE_UDP_GRO = 104 };

/* A member that is to hold, and to be told of the end. */
struct friend
{
	struct friend *next;
	uint32_t member;
	bool held;
};

static struct friend *friends; /* owned */
static bool holding;
static uint64_t over_m; /* the last move for which others were to hold, and that is over */
static uint64_t hold_end_ns, hold_again_ns, hold_pause_ns;
static uint8_t piece[MOVE_BUFFER];

bool udp_move_holding(void)
{
	return holding;
}

uint64_t udp_move_over(void)
{
	return over_m;
}

static struct friend *friend_find(uint32_t member)
{
	struct friend *f = friends;

	while (f && f->member != member)
		f = f->next;
	return f;
}

/* All that talk with us. */
static void friends_find(void)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);

	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		struct friend *f;

		if (!w->owned || w->ip == core.virtual_ip || !udp_way_recent(w, now) || friend_find(w->member))
			continue;
		f = mem_alloc(sizeof(*f));
		if (!f)
			return; /* it finds out by itself */
		f->member = w->member;
		f->next = friends;
		friends = f;
	}
}

/* It is over: all go on, here (0) or where the sockets have the places from `serial` on. */
static void friends_go(uint64_t serial)
{
	over_m = core.self.m;
	while (friends) {
		struct friend *f = friends;

		friends = f->next;
		udp_say_go(f->member, serial, core.self.m);
		mem_free(f, sizeof(*f));
	}
}

static void aim_all(void)
{
	for (struct udp *u = udp_first(); u; u = u->next)
		udp_pen_aim(u);
}

/* Again and again: what reaches a member between its last look and its freeze is lost with the old process. */
static void hold_say(void)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);

	for (struct friend *f = friends; f; f = f->next)
		if (!f->held)
			udp_say_number(f->member, MS_RL_UDP_HOLD, core.self.m);
	hold_again_ns = now + hold_pause_ns;
	hold_pause_ns *= 2;
}

static void hold(void)
{
	holding = true;
	hold_end_ns = ms_clock_ns(CLOCK_MONOTONIC) + UDP_HOLD_MS * 1000000ull;
	aim_all(); /* at the pen: what they still write waits there */
	friends_find();
	hold_pause_ns = UDP_REPEAT_MS * 1000000ull;
	hold_say();
}

bool udp_move_quiet(void)
{
	if (!udp_first())
		return true;
	if (!holding)
		hold();
	else if (ms_clock_ns(CLOCK_MONOTONIC) >= hold_again_ns)
		hold_say();
	for (struct friend *f = friends; f; f = f->next) {
		if (f->held)
			continue;
		if (ms_clock_ns(CLOCK_MONOTONIC) < hold_end_ns)
			return false;
		ms_log(LOG_INFO, "member %u.%u does not hold back its datagrams", MS_MEMBER_WORLD(f->member),
		       MS_MEMBER_RANK(f->member));
	}
	return true;
}

void udp_move_held(uint32_t from, uint64_t m)
{
	struct friend *f = friend_find(from);

	if (f && holding && m == core.self.m)
		f->held = true;
}

void udp_move_hold(uint32_t from, uint64_t m)
{
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		if (!w->owned || w->member != from || m <= w->hold_m)
			continue;
		w->hold_m = m;
		udp_way_changed(w);
	}
	udp_say_number(from, MS_RL_UDP_HELD, m);
}

void udp_move_go(uint32_t from, uint64_t serial, uint64_t m)
{
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		if (!w->owned || w->member != from || m < w->over_m)
			continue;
		w->over_m = m;
		if (w->serial < serial)
			w->real_port = 0;
		udp_way_changed(w);
		if (!udp_way_open(w) && udp_way_recent(w, ms_clock_ns(CLOCK_MONOTONIC)))
			udp_way_ask(w);
	}
}

void udp_move_back(void)
{
	if (!holding)
		return;
	holding = false;
	friends_find(); /* those that came meanwhile */
	friends_go(0);
	for (struct udp *u = udp_first(); u; u = u->next)
		udp_move_forget(u);
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w))
		udp_way_changed(w);
}

/* ---- frozen ---- */

/* A number under which the program has it. */
struct udp_number {
	struct udp_number *next;
	int fd;
	bool cloexec;
};

/* A datagram that was in the kernel's queue. */
struct udp_kept {
	struct udp_kept *next;
	uint32_t ip; /* virtual, of who sent it */
	uint16_t port;
	size_t size;
	uint8_t bytes[];
};

void udp_move_forget(struct udp *u)
{
	while (u->numbers) {
		struct udp_number *n = u->numbers;

		u->numbers = n->next;
		mem_free(n, sizeof(*n));
	}
	while (u->first) {
		struct udp_kept *k = u->first;

		u->first = k->next;
		mem_free(k, sizeof(*k) + k->size);
	}
	u->last = NULL;
	udp_options_free(u->options);
	u->options = NULL;
}

static void note_number(int fd, const struct stat *st, void *arg)
{
	struct udp *u = udp_find_inode(st->st_ino);
	struct udp_number *n = u ? mem_alloc(sizeof(*n)) : NULL;
	int *err = arg;

	if (!u)
		return;
	if (!n) {
		*err = -ENOMEM;
		return;
	}
	n->fd = fd;
	n->cloexec = ms_fcntl(fd, F_GETFD, 0) & FD_CLOEXEC;
	n->next = u->numbers;
	u->numbers = n;
	u->number = fd;
	u->flags = (int)ms_fcntl(fd, F_GETFL, 0);
}

static bool is_peer(const struct udp *u, const struct udp_kept *k)
{
	return k->ip == ntohl(u->peer.sin_addr.s_addr) && k->port == ntohs(u->peer.sin_port);
}

/* Of a stranger: he would have no name where it goes; what is caught of others than the peer is nobody's. */
static int keep(struct udp *u, int fd, size_t size, const void *bytes, const struct sockaddr_in *from)
{
	struct udp_kept *k = mem_alloc(sizeof(*k) + size);

	if (!k)
		return -ENOMEM;
	k->size = size;
	__builtin_memcpy(k->bytes, bytes, size);
	if (!udp_name(u, from, &k->ip, &k->port) || (fd == u->catch_fd && !is_peer(u, k))) {
		mem_free(k, sizeof(*k) + size);
		return 0;
	}
	if (u->last)
		u->last->next = k;
	else
		u->first = k;
	u->last = k;
	return 0;
}

/* With UDP_GRO several that came behind each other are read as one; this is the size of each. */
static size_t piece_size(struct msghdr *msg, size_t n)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		int size;

		if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != MOVE_UDP_GRO)
			continue;
		__builtin_memcpy(&size, CMSG_DATA(c), sizeof(size));
		return size > 0 ? (size_t)size : n;
	}
	return n;
}

/* The next one behind those that were peeked at. Bytes, or -errno. */
static long keep_next(struct udp *u, int fd)
{
	union {
		struct cmsghdr head;
		char space[512];
	} control;
	struct sockaddr_in6 from;
	struct iovec iov = { piece, sizeof(piece) };
	struct msghdr msg = { .msg_name = &from,
			      .msg_namelen = sizeof(from),
			      .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	long n = ms_recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT);
	struct sockaddr_in source;
	size_t each, at = 0;
	int err = 0;

	if (n < 0 || !udp_from_address(&from, msg.msg_namelen, &source))
		return n;
	each = piece_size(&msg, (size_t)n);
	do {
		size_t size = (size_t)n - at < each ? (size_t)n - at : each;

		err = keep(u, fd, size, piece + at, &source);
		at += each;
	} while (!err && at < (size_t)n);
	return err ? err : n;
}

/* Peeked at, so that all is as it was if the move comes to nothing. */
static int keep_queue(struct udp *u, int fd)
{
	int before = -1, start = 0;
	socklen_t size = sizeof(before);
	size_t kept = 0;
	long n;

	ms_getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &before, &size);
	ms_setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &start, sizeof(start));
	while (kept < UDP_KEPT_MAX && ((n = keep_next(u, fd)) >= 0 || n == -ECONNREFUSED))
		kept += n > 0 ? (size_t)n : 1;
	ms_setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &before, sizeof(before));
	return n == -ENOMEM ? -ENOMEM : 0;
}

int udp_freeze(void)
{
	int err = 0;

	if (!udp_first())
		return 0;
	udp_pen_empty();
	for (struct udp *u = udp_first(); u; u = u->next)
		udp_move_forget(u);
	sock_each_number(true, note_number, &err);
	for (struct udp *u = udp_first(); u && !err; u = u->next) {
		if (!u->numbers)
			continue;
		u->options = udp_options_take(u->numbers->fd, u->domain);
		if (u->kind == UDP_VIRTUAL)
			err = keep_queue(u, u->numbers->fd);
		if (!err && u->connected && u->catch_fd >= 0)
			err = keep_queue(u, u->catch_fd);
	}
	return err;
}

/* ---- at the target ---- */

/* What was kept comes again from a socket of ours, which stands for who sent it. */
struct stand_in {
	struct stand_in *next;
	uint32_t ip; /* virtual */
	uint16_t port;
	int fd; /* owned: as long as its port is held, nobody else is taken for it */
};

static struct stand_in *stand_ins; /* owned */

int udp_move_own_fds(int *fds, int max)
{
	int n = 0;

	for (struct stand_in *s = stand_ins; s && n < max; s = s->next)
		fds[n++] = s->fd;
	return n;
}

/* Of an earlier move: they are not here. */
static void stand_ins_lose(void)
{
	while (stand_ins) {
		struct stand_in *s = stand_ins;

		stand_ins = s->next;
		core_own_fd(s->fd, false);
		mem_free(s, sizeof(*s));
	}
}

static struct stand_in *stand_in_get(uint32_t ip, uint16_t port)
{
	struct stand_in *s = stand_ins;
	uint16_t real_port;

	while (s && (s->ip != ip || s->port != port))
		s = s->next;
	if (s)
		return s;
	s = mem_alloc(sizeof(*s));
	if (!s)
		return NULL;
	s->ip = ip;
	s->port = port;
	s->fd = ms_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s->fd < 0 || udp_bind_kernel(s->fd, AF_INET, 0, &real_port)) {
		if (s->fd >= 0)
			ms_close(s->fd);
		mem_free(s, sizeof(*s));
		return NULL;
	}
	s->fd = core_raise_fd(s->fd);
	core_own_fd(s->fd, true);
	udp_names_put(core.real_ip, real_port, ip, port, ms_clock_ns(CLOCK_MONOTONIC));
	s->next = stand_ins;
	stand_ins = s;
	return s;
}

static void give_back(struct udp *u, int fd)
{
	int usual = 0, most = UDP_KEPT_MAX * 2;
	socklen_t size = sizeof(usual), to_size;
	struct sockaddr_in6 to;
	unsigned lost = 0;

	to_size = udp_address(AF_INET, core.real_ip, u->real_port, &to);
	ms_getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &usual, &size);
	ms_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &most, sizeof(most));
	for (struct udp_kept *k = u->first; k; k = k->next) {
		struct stand_in *s = stand_in_get(k->ip, k->port);

		lost += !s || ms_sendto(s->fd, k->bytes, k->size, 0, &to, to_size) != (long)k->size;
	}
	usual /= 2; /* what the kernel says is twice what it is told */
	ms_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &usual, sizeof(usual));
	if (lost)
		ms_log(LOG_ERROR, "UDP port %u: %u datagrams that had arrived are lost", u->port, lost);
}

/* Sockets of one port have one place; those with a later serial than `before` have theirs already. */
static uint16_t place_of_port(uint16_t port, uint64_t before)
{
	for (const struct udp *u = udp_first(); u; u = u->next)
		if (u->kind == UDP_VIRTUAL && u->port == port && u->serial > before)
			return u->real_port;
	return 0;
}

/* Under all the numbers; the one that it happens to have may be one of them. */
static void put_numbers(struct udp *u, int fd)
{
	bool stays = false;

	for (struct udp_number *n = u->numbers; n; n = n->next) {
		if (n->fd == fd) {
			ms_fcntl(fd, F_SETFD, n->cloexec ? FD_CLOEXEC : 0);
			stays = true;
		} else {
			ms_dup3(fd, n->fd, n->cloexec ? O_CLOEXEC : 0);
		}
		u->number = n->fd;
	}
	if (!stays)
		ms_close(fd);
}

static int remake(struct udp *u, uint64_t before)
{
	int fd = ms_socket(u->domain, SOCK_DGRAM | SOCK_CLOEXEC, 0), err;
	struct stat st;

	if (fd < 0)
		return fd;
	udp_options_give(u->options, fd);
	u->real_port = 0;
	err = u->kind == UDP_VIRTUAL ? udp_bind_kernel(fd, u->domain, place_of_port(u->port, before), &u->real_port)
				     : 0;
	if (err) {
		ms_close(fd);
		return err;
	}
	ms_fstat(fd, &st);
	udp_rename(u, st.st_ino);
	ms_fcntl(fd, F_SETFL, u->flags & (O_NONBLOCK | O_ASYNC));
	if (u->kind == UDP_VIRTUAL) {
		udp_placed(u);
		give_back(u, fd);
	}
	put_numbers(u, fd);
	if (u->shut)
		ms_shutdown(u->number, u->shut == 3 ? SHUT_RDWR : u->shut == 2 ? SHUT_WR : SHUT_RD);
	return 0;
}

static void remake_all(void)
{
	uint64_t before = 0;

	for (struct udp *u = udp_first(); u; u = u->next)
		if (u->serial > before)
			before = u->serial;
	for (struct udp *u = udp_first(); u; u = u->next) {
		int err = u->numbers ? remake(u, before) : 0;

		if (err)
			ms_log(LOG_ERROR, "descriptor %d: its UDP socket cannot be made again: error %d", u->number,
			       -err);
		udp_move_forget(u);
	}
}

void udp_resume(void)
{
	holding = false;
	udp_pen_lose(); /* also where no socket is left: the numbers are others' here */
	stand_ins_lose();
	for (struct udp *u = udp_first(), *next; u; u = next) {
		next = u->next;
		vsock_forget(&u->v);
		if (!u->numbers)
			udp_destroy(u); /* closed before the move */
	}
	remake_all();
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w))
		if (w->ip == core.virtual_ip)
			udp_way_ask(w);
	for (struct udp *u = udp_first(); u; u = u->next)
		if (u->connected)
			udp_pen_trust(u);
}

static bool unsettled(void)
{
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		const struct udp *u = w->own;

		if (u->connected && u->aim == UDP_AT_PEER && w->real_port == u->aim_port && w->real_ip == u->aim_ip &&
		    !udp_way_open(w))
			return true;
	}
	return false;
}

/*
 * Connected sockets hear their peers already; what the program would write to
 * them must not go before they know us.  No thread of it runs yet, so that is
 * waited for here; those that do not answer in time are put to the pen.
 */
static void settle(void)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC), end = now + UDP_SETTLE_MS * 1000000ull;

	while (unsettled() && now < end) {
		engine_await((int)((end - now) / 1000000) + 1);
		ms_lock_take(&core.lock);
		engine_run();
		ms_lock_give(&core.lock);
		now = ms_clock_ns(CLOCK_MONOTONIC);
	}
	aim_all();
}

void udp_moved(void)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC), first = UINT64_MAX;

	if (!udp_first())
		return;
	for (struct udp *u = udp_first(); u; u = u->next) {
		if (u->kind == UDP_VIRTUAL && u->serial < first)
			first = u->serial;
		if (u->v.sd >= 0)
			udp_sync(u);
	}
	friends_find();
	friends_go(first == UINT64_MAX ? 0 : first);
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		if (!udp_way_recent(w, now))
			continue;
		udp_way_ask(w);
		udp_way_flush(w);
	}
	settle();
}
