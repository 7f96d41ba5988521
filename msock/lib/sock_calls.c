/* SPDX-License-Identifier: MIT */
/* What the preload's wrappers ask about the program's TCP sockets (hooks.h). Never waits. */
#include "lib/hooks.h"

#include "lib/agent.h"
#include "lib/calls.h"
#include "lib/conn.h"
#include "lib/control.h"
#include "lib/kin.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/sock.h"
#include "lib/sock_epoll.h"

#include <errno.h>
#include <sys/ioctl.h>

enum { SOCK_BACKLOG_MAX = 4096, SOCK_TOKENS = 64 };

#define CALLS_DOUBT_NS 2000000000ull
#define CALLS_EXEC_NS 10000000000ull

static bool sockets_on;

/* An IPv4 address, also one that came as IPv6. */
static bool calls_address(const struct sockaddr *addr, socklen_t size, struct sockaddr_in *out)
{
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)addr;

	if (!addr || size < sizeof(sa_family_t))
		return false;
	if (addr->sa_family == AF_INET && size >= sizeof(*out)) {
		*out = *(const struct sockaddr_in *)addr;
		return true;
	}
	if (addr->sa_family != AF_INET6 || size < sizeof(*six))
		return false;
	*out = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = six->sin6_port };
	if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
		__builtin_memcpy(&out->sin_addr, six->sin6_addr.s6_addr + 12, 4);
	else if (!IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr))
		return false;
	return true;
}

bool msock__sockets(bool on)
{
	sockets_on = on && core.on && core.member;
	if (sockets_on)
		sock_epolls_find();
	return sockets_on;
}

int msock__sock_new(int domain, int type, int protocol)
{
	uint64_t mask;
	int fd;

	if (!sockets_on || !core_here())
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	fd = ms_socket(domain, type, protocol);
	if (fd >= 0)
		sock_create(fd, domain, protocol);
	return (int)calls_leave(mask, fd);
}

void msock__sock_duplicated(int fd)
{
	struct sock *s;
	uint64_t mask;

	if (!sockets_on || !core_here())
		return;
	mask = calls_enter();
	s = sock_find(fd);
	if (s)
		s->duplicated = true;
	else
		sock_epoll_duplicated(fd);
	calls_leave(mask, 0);
}

void msock__sock_owned(int fd)
{
	struct sock *s;
	uint64_t mask;

	if (!sock_first() || !core_here())
		return;
	mask = calls_enter();
	s = sock_find(fd);
	if (s)
		s->owned = true;
	calls_leave(mask, 0);
}

void msock__epoll_made(int fd)
{
	uint64_t mask;

	if (!sockets_on || !core_here())
		return;
	mask = calls_enter();
	sock_epoll_made(fd);
	calls_leave(mask, 0);
}

void msock__sock_watched(int fd)
{
	struct sock *s;
	uint64_t mask;

	if (!sock_first() || !core_here())
		return;
	mask = calls_enter();
	s = sock_find(fd);
	if (s)
		s->watched = true;
	calls_leave(mask, 0);
}

static bool sock_is_watched(const struct sock *s)
{
	return s && s->watched;
}

/*
 * Around a change of the file under a number: the program's epoll sets forget
 * the old one, and get the new one when it looks as it is to look.
 */
static int calls_note_watches(struct sock *s)
{
	return s->watched ? sock_epolls_note(sock_is_watched) : 0;
}

static void calls_watch_again(struct sock *s)
{
	if (s->watched)
		sock_epolls_add(); /* those of other sockets are there still */
	sock_epolls_forget();
}

static int sock_bind(struct sock *s, const struct sockaddr_in *at)
{
	uint16_t port = ntohs(at->sin_port);

	if (s->kind != SOCK_IS_IDLE || s->bound)
		return -EINVAL;
	if (at->sin_addr.s_addr != INADDR_ANY && ntohl(at->sin_addr.s_addr) != core.virtual_ip)
		return -EADDRNOTAVAIL;
	if (port)
		sock_free_port(port);
	if (port && (listener_port_taken(port) || sock_port_taken(port, s)))
		return -EADDRINUSE;
	s->bound = true;
	s->wildcard = at->sin_addr.s_addr == INADDR_ANY;
	s->port = port ? port : listener_port_free();
	return 0;
}

int msock__sock_bind(int fd, const struct sockaddr *addr, socklen_t size)
{
	struct sockaddr_in at;
	struct sock *s;
	uint64_t mask;
	int result = MSOCK__NOT_OURS;

	if (!sock_first() || !core_here() || !calls_address(addr, size, &at))
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	s = sock_find(fd);
	if (s && (s->domain == AF_INET6 || addr->sa_family == AF_INET) &&
	    (at.sin_addr.s_addr == INADDR_ANY || calls_is_virtual(&at)))
		result = sock_bind(s, &at);
	else if (s && s->kind == SOCK_IS_IDLE)
		sock_destroy(s); /* an address of this host: the kernel's, and it cannot move */
	return (int)calls_leave(mask, result);
}

/* A forked child's: see kin.h. */
static int sock_listen_kin(struct sock *s, int fd, unsigned backlog)
{
	int err = calls_note_watches(s);

	if (!err)
		err = kin_listen(s, fd, backlog);
	if (err) {
		sock_epolls_forget();
		return err;
	}
	s->foreign = true;
	s->wildcard = s->wildcard || !s->bound;
	calls_watch_again(s);
	return 0;
}

static int sock_listen(struct sock *s, int fd, unsigned backlog)
{
	int err = 0;

	if (s->kind == SOCK_IS_STREAM)
		return -EINVAL;
	if (s->kind == SOCK_IS_LISTENER) {
		if (s->listener)
			s->listener->backlog = backlog;
		return 0;
	}
	if (core.kin)
		return sock_listen_kin(s, fd, backlog);
	s->listener = listener_open_for(s, s->port, backlog, &err);
	if (!s->listener)
		return -err;
	err = calls_note_watches(s);
	if (!err)
		err = sock_make_pair(s, fd);
	if (err) {
		sock_epolls_forget();
		s->listener->sock = NULL;
		listener_close(s->listener);
		s->listener = NULL;
		return err;
	}
	s->wildcard = s->wildcard || !s->bound;
	s->port = s->listener->port;
	s->kind = SOCK_IS_LISTENER;
	calls_watch_again(s);
	sock_sync(s);
	return 0;
}

int msock__sock_listen(int fd, int backlog)
{
	int result = MSOCK__NOT_OURS;
	struct sock *s;
	uint64_t mask;

	if (!sock_first() || !core_here())
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	s = sock_find(fd);
	if (s)
		result = sock_listen(
			s, fd, backlog < 0 || backlog >= SOCK_BACKLOG_MAX ? SOCK_BACKLOG_MAX : (unsigned)backlog + 1);
	return (int)calls_leave(mask, result);
}

/* To a member: the number gets a pair that is not writable until the stream is there. */
static int sock_connect(struct sock *s, int fd, const struct sockaddr_in *to)
{
	struct conn *c;
	int err = core.kin ? kin_join() : 0;

	if (err)
		return err;
	if (s->conn) { /* of an attempt that failed */
		c = s->conn;
		c->sock = NULL;
		s->conn = NULL;
		conn_close(c);
		s->error = 0;
		s->reset_said = s->out_end = s->fin_said = s->gone = s->deaf = s->failed = false;
		s->filler = 0;
	}
	c = conn_connect_from(s->port, to, &err);
	if (!c)
		return -err;
	err = calls_note_watches(s);
	if (!err)
		err = sock_make_pair(s, fd);
	if (err) {
		sock_epolls_forget();
		conn_close(c);
		return err;
	}
	sock_fill(s, fd);
	calls_watch_again(s);
	s->kind = SOCK_IS_STREAM;
	s->conn = c;
	c->sock = s;
	s->local = c->local;
	s->peer = *to;
	conn_sync(c);
	return -EINPROGRESS;
}

/* Not to a member: from here on the kernel's alone. */
static int sock_leave(struct sock *s, int fd)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(s->port) };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(s->port) };
	bool bound = s->bound;
	int err = 0;

	if (bound && !s->wildcard)
		return -ENETUNREACH; /* there is no way from a virtual address to the world */
	if (bound)
		err = s->domain == AF_INET6 ? ms_bind(fd, &six, sizeof(six)) : ms_bind(fd, &any, sizeof(any));
	if (err)
		return err;
	sock_destroy(s);
	return MSOCK__NOT_OURS;
}

static int sock_connect_state(const struct sock *s)
{
	if (!s->conn)
		return s->error ? -s->error : 0;
	if (s->conn->phase == CONN_FAILED)
		return -s->conn->error;
	return s->conn->phase == CONN_OPEN ? 0 : -EINPROGRESS;
}

int msock__sock_connect(int fd, const struct sockaddr *addr, socklen_t size)
{
	struct sockaddr_in to;
	struct sock *s;
	uint64_t mask;
	int result = MSOCK__NOT_OURS;

	if (!sock_first() || !calls_address(addr, size, &to))
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	s = sock_find(fd);
	if (!s)
		result = MSOCK__NOT_OURS;
	else if (s->kind == SOCK_IS_LISTENER)
		result = -EISCONN;
	else if (s->kind == SOCK_IS_STREAM && sock_connect_state(s) == -EINPROGRESS)
		result = -EALREADY;
	else if (s->kind == SOCK_IS_STREAM && (!s->conn || s->conn->phase != CONN_FAILED))
		result = -EISCONN;
	else if (calls_is_virtual(&to))
		result = sock_connect(s, fd, &to);
	else if (s->kind == SOCK_IS_IDLE)
		result = sock_leave(s, fd);
	else
		result = -ENETUNREACH;
	return (int)calls_leave(mask, result);
}

int msock__sock_connected(int fd)
{
	uint64_t mask = calls_enter();
	struct sock *s = sock_find(fd);
	int state = s ? sock_connect_state(s) : -EBADF;

	if (s && state != -EINPROGRESS)
		s->error = 0; /* it is told now */
	return (int)calls_leave(mask, state);
}

static void calls_name(const struct sock *s, const struct sockaddr_in *name, void *addr, socklen_t *size)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = name->sin_port };
	const void *from = name;
	socklen_t have = sizeof(*name);

	if (s->domain == AF_INET6) {
		if (name->sin_addr.s_addr != INADDR_ANY) {
			six.sin6_addr.s6_addr[10] = six.sin6_addr.s6_addr[11] = 0xff;
			__builtin_memcpy(six.sin6_addr.s6_addr + 12, &name->sin_addr, 4);
		}
		from = &six;
		have = sizeof(six);
	}
	__builtin_memcpy(addr, from, *size < have ? *size : have);
	*size = have;
}

/* Make the accepted connection a socket of the program; its number or -errno. */
static int sock_accepted(struct sock *l, struct conn *c, int flags)
{
	struct sock *s;
	int app, err;

	app = ms_socket(l->domain, SOCK_STREAM | SOCK_CLOEXEC,
			l->protocol); /* the lowest number, and a file to name it by */
	if (app < 0)
		return app;
	s = sock_create(app, l->domain, l->protocol);
	if (!s || !sock_options_copy(s, l)) {
		if (s)
			sock_destroy(s);
		ms_close(app);
		return -ENOMEM;
	}
	ms_fcntl(app, F_SETFL, flags & SOCK_NONBLOCK ? O_NONBLOCK : 0);
	ms_fcntl(app, F_SETFD, flags & SOCK_CLOEXEC ? FD_CLOEXEC : 0);
	s->kind = SOCK_IS_STREAM;
	s->local = c->local;
	s->peer = c->peer;
	s->conn = c;
	c->sock = s;
	if (sock_accept_direct(s, app))
		return app;
	err = sock_make_pair(s, app);
	if (err) {
		c->sock = NULL;
		s->conn = NULL;
		sock_destroy(s);
		ms_close(app);
		return err;
	}
	engine_watch(&c->leg, c->fd, 0);
	c->fd = core_raise_fd(c->fd);
	core_own_fd(c->fd, true);
	conn_sync(c);
	return app;
}

static struct conn *sock_accept_own(struct sock *l, int fd)
{
	struct conn *c = listener_accept(l->listener);
	char tokens[SOCK_TOKENS];

	if (!l->listener->first)
		while (ms_recv(fd, tokens, sizeof(tokens), MSG_DONTWAIT) > 0)
			;
	return c;
}

/* The root is asked only if somebody seems to be there. */
static struct conn *sock_accept_kin(int fd, int *err)
{
	char token;
	long n = ms_recv(fd, &token, 1, MSG_PEEK | MSG_DONTWAIT);

	*err = n == 0 ? -EINVAL : (int)n;
	return n > 0 ? kin_accept(fd, err) : NULL;
}

static int sock_accept(struct sock *l, int fd, int flags, struct sockaddr *addr, socklen_t *size)
{
	struct sockaddr_in peer;
	int app, err = -EAGAIN;
	struct conn *c;

	if (l->kind == SOCK_IS_LISTENER && l->foreign)
		c = sock_accept_kin(fd, &err);
	else if (l->kind != SOCK_IS_LISTENER || !l->listener)
		return -EINVAL;
	else
		c = sock_accept_own(l, fd);
	if (!c)
		return err;
	peer = c->peer;
	app = sock_accepted(l, c, flags);
	if (app < 0)
		conn_close(c);
	else if (addr && size)
		calls_name(l, &peer, addr, size);
	return app;
}

int msock__sock_accept(int fd, int flags, struct sockaddr *addr, socklen_t *size)
{
	uint64_t mask;
	struct sock *s;
	int result = MSOCK__NOT_OURS;

	if (!sock_first())
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	s = sock_find(fd);
	if (s)
		result = sock_accept(s, fd, flags, addr, size);
	return (int)calls_leave(mask, result);
}

static int sock_name(const struct sock *s, bool peer, struct sockaddr *addr, socklen_t *size)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(s->port) };

	if (s->kind == SOCK_IS_STREAM) {
		if (peer && sock_connect_state(s))
			return -ENOTCONN;
		at = peer ? s->peer : s->local;
	} else if (peer) {
		return -ENOTCONN;
	} else if (!s->wildcard && s->bound) {
		at.sin_addr.s_addr = htonl(core.virtual_ip);
	}
	calls_name(s, &at, addr, size);
	return 0;
}

int msock__sock_name(int fd, bool peer, struct sockaddr *addr, socklen_t *size)
{
	int result = MSOCK__NOT_OURS;
	struct sock *s;
	uint64_t mask;

	if (!sock_first())
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	s = sock_find(fd);
	if (s && (s->kind != SOCK_IS_IDLE || s->bound))
		result = sock_name(s, peer, addr, size);
	return (int)calls_leave(mask, result);
}

int msock__sock_setopt(int fd, int level, int name, const void *value, socklen_t size)
{
	int result = MSOCK__NOT_OURS;
	struct sock *s;
	uint64_t mask;

	if (!sock_first())
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	s = sock_find(fd);
	if (s)
		result = sock_option_set(s, fd, level, name, value, size);
	return (int)calls_leave(mask, result);
}

int msock__sock_getopt(int fd, int level, int name, void *value, socklen_t *size)
{
	int result = MSOCK__NOT_OURS;
	struct sock *s;
	uint64_t mask;

	if (!sock_first())
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	s = sock_find(fd);
	if (s && s->kind != SOCK_IS_IDLE)
		result = sock_option_get(s, fd, level, name, value, size);
	return (int)calls_leave(mask, result);
}

void msock__sock_closing(int fd)
{
	struct sock *s;
	uint64_t mask;

	if (!sock_first() || !core_here())
		return;
	mask = calls_enter();
	s = sock_find(fd);
	if (s)
		sock_closing(s, fd);
	calls_leave(mask, 0);
}

int msock__sock_close(int fd)
{
	int result = MSOCK__NOT_OURS;
	struct sock *s;
	uint64_t mask;

	if (!sock_first() || !core_here())
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	s = sock_find(fd);
	if (s && !sock_option_lingers(s)) {
		sock_closing(s, fd);
		result = ms_close(fd);
	}
	return (int)calls_leave(mask, result);
}

void msock__sock_closing_range(unsigned first, unsigned last)
{
	uint64_t mask;

	if (!sock_first() || !core_here())
		return;
	mask = calls_enter();
	sock_closing_range(first, last);
	calls_leave(mask, 0);
}

/* Nothing of the library changes while the process is doubled. */
static uint64_t fork_mask; /* of the thread that forks; guarded by the lock, which it has */

void msock__before_fork(void)
{
	uint64_t mask;

	if (!sockets_on || !core_here())
		return;
	mask = calls_enter();
	fork_mask = mask;
	kin_fork_begin();
}

void msock__after_fork_parent(void)
{
	if (!sockets_on || !core_here())
		return;
	kin_fork_parent();
	calls_leave(fork_mask, 0);
}

bool sock_calls_forked(void)
{
	if (!sockets_on)
		return false;
	if (kin_fork_child())
		agent_ensure();
	calls_leave(fork_mask, 0);
	return true;
}

/* The program must read it first, and will not any more. */
static int calls_exec_refused(const struct conn *c)
{
	ms_log(LOG_ERROR,
	       "exec: stream %lx with rank %u.%u has bytes that the program has not read, and would lose them", c->s.id,
	       MS_MEMBER_WORLD(c->peer_member), MS_MEMBER_RANK(c->peer_member));
	return -EAGAIN;
}

int msock__before_exec(void)
{
	uint64_t mask, until = ms_clock_ns(CLOCK_MONOTONIC) + CALLS_EXEC_NS;
	struct timespec pause = { .tv_nsec = 1000000 };
	const struct conn *waits;
	bool late, direct;

	if (!sockets_on || !core_here())
		return 0;
	for (;;) {
		mask = calls_enter();
		waits = kin_exec_waits();
		late = ms_clock_ns(CLOCK_MONOTONIC) > until;
		direct = waits && waits->sock && waits->sock->direct;
		if (!waits || (late && direct))
			control_quiet(true);
		if (waits)
			agent_ensure();
		calls_leave(mask, 0);
		if (!waits || (late && direct))
			return 0; /* a peer that does not answer so long is stopped, or gone */
		if (late)
			return calls_exec_refused(waits);
		ms_nanosleep(&pause);
	}
}

void msock__exec_failed(void)
{
	uint64_t mask;

	if (!sockets_on || !core_here())
		return;
	mask = calls_enter();
	kin_exec_failed();
	control_quiet(false);
	if (control_has_come())
		agent_ensure();
	calls_leave(mask, 0);
}

static bool sock_test(int fd, bool direct)
{
	struct sock *s;
	uint64_t mask;
	bool is;

	if (!sock_first())
		return false;
	mask = calls_enter();
	s = sock_find(fd);
	is = s && s->kind == SOCK_IS_STREAM && (direct || !s->direct);
	calls_leave(mask, 0);
	return is;
}

bool msock__sock_is_stream(int fd)
{
	return sock_test(fd, true);
}

bool msock__sock_is_paired(int fd)
{
	return sock_test(fd, false);
}

/* What waits beyond the number. */
size_t msock__sock_carried(int fd)
{
	struct sock *s;
	uint64_t mask;
	size_t n = 0;
	int leg = 0;

	if (!sock_first())
		return 0;
	mask = calls_enter();
	s = sock_find(fd);
	if (s && s->kind == SOCK_IS_STREAM && !s->direct) {
		n = s->in.length + (s->conn ? s->conn->carry.length : 0);
		if (s->conn && stream_reads(&s->conn->s) == STREAM_FROM_LEG && s->conn->phase == CONN_OPEN &&
		    !ms_ioctl(s->conn->fd, FIONREAD, &leg))
			n += (size_t)leg;
	}
	calls_leave(mask, 0);
	return n;
}

/* The process ends while a peer may have a new leg already, of which we do not know: what it says of its end would be of the old one. */
static int calls_in_doubt(void)
{
	static uint64_t until_ns;
	int n = 0;

	for (struct conn *c = conn_first(); c; c = c->next)
		n += c->phase == CONN_OPEN && stream_in_doubt(&c->s);
	if (n && !until_ns)
		until_ns = ms_clock_ns(CLOCK_MONOTONIC) + CALLS_DOUBT_NS;
	return ms_clock_ns(CLOCK_MONOTONIC) < until_ns ? n : 0;
}

/* In one go with the look: a stream whose word is said changes no more. */
int msock__sock_leaving(void)
{
	int left = 0;
	uint64_t mask;

	if (!conn_first() || !core_here())
		return 0;
	mask = calls_enter();
	for (struct sock *s = sock_first(); s; s = s->next)
		left += sock_unsent(s);
	left += calls_in_doubt();
	if (!left)
		sock_leave_all();
	return (int)calls_leave(mask, left);
}
