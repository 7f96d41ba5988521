/* SPDX-License-Identifier: MIT */
/*
 * Pairs of unix sockets within the process, as event loops have them.
 *
 * The kernel's socket diagnosis tells the other end of each.  What is queued is
 * read by peeking, so that it stays: SO_PEEK_OFF steps through it.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>

#include "image/mem.h"
#include "image/say.h"
#include "image/special.h"

enum { QUEUE_MAX = 4 << 20, PAIRED_SHUT = 3 };

struct diag_request {
	struct nlmsghdr head;
	struct unix_diag_req unix_req;
};

/* Inode of the other end in *peer, 0 if it is closed, and which directions are shut down. 0, or -errno. */
static int diag_ask(uint64_t ino, uint32_t *peer, uint8_t *shut)
{
	struct diag_request q = {
		.head = { .nlmsg_len = sizeof(q), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST },
		.unix_req = { .sdiag_family = AF_UNIX,
			      .udiag_states = ~0u,
			      .udiag_ino = (uint32_t)ino,
			      .udiag_show = UDIAG_SHOW_PEER,
			      .udiag_cookie = { ~0u, ~0u } },
	};
	union {
		struct nlmsghdr head;
		uint8_t bytes[1024];
	} answer;
	int fd = ms_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	bool told = false;
	long n;

	if (fd < 0)
		return fd;
	n = ms_send(fd, &q, sizeof(q), 0);
	if (n > 0)
		n = ms_recv(fd, &answer, sizeof(answer), 0);
	ms_close(fd);
	if (n < 0)
		return (int)n;
	if (n < (long)NLMSG_LENGTH(sizeof(struct unix_diag_msg)) || answer.head.nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return -ENOENT;
	*shut = 0;
	for (long at = NLMSG_LENGTH(sizeof(struct unix_diag_msg)); at + (long)sizeof(struct rtattr) <= n;) {
		const struct rtattr *a = (const struct rtattr *)(answer.bytes + at);

		if (a->rta_len < sizeof(*a))
			break;
		if (a->rta_type == UNIX_DIAG_PEER) {
			memcpy(peer, RTA_DATA(a), sizeof(*peer));
			told = true;
		} else if (a->rta_type == UNIX_DIAG_SHUTDOWN) {
			memcpy(shut, RTA_DATA(a), 1);
		}
		at += RTA_ALIGN(a->rta_len);
	}
	return told ? 0 : -ENOTCONN;
}

static int option(int fd, int name)
{
	socklen_t size = sizeof(int);
	int value = 0;

	return ms_getsockopt(fd, SOL_SOCKET, name, &value, &size) ? -1 : value;
}

static int refuse(const struct baggage_file *f, const char *what, char why[IMAGE_WHY])
{
	return image_say(why, "descriptor %d: a socket that is not the job's: %s, %s", f->fd, what, f->path);
}

/* What kind of socket it is, in words. */
static const char *kind_of(int fd)
{
	int type = option(fd, SO_TYPE);

	switch (option(fd, SO_DOMAIN)) {
	case AF_UNIX:
		return option(fd, SO_ACCEPTCONN) == 1 ? "a unix socket that listens" : "a unix socket of two processes";
	case AF_INET:
	case AF_INET6:
		return type == SOCK_STREAM ? "TCP" : type == SOCK_DGRAM ? "UDP" : "a raw internet socket";
	case AF_NETLINK:
		return "netlink";
	case AF_PACKET:
		return "a packet socket";
	}
	return "of another family";
}

static struct baggage_file *other_of(struct baggage *c, const struct baggage_file *f)
{
	for (uint32_t i = 0; f->extra && i < c->file_count; i++)
		if (c->files[i].kind == BAGGAGE_SOCKET && c->files[i].same_as == (int)i && c->files[i].ino == f->extra)
			return &c->files[i];
	return NULL;
}

/* Neither end has a name: they were made as a pair. */
static bool is_of_pair(int fd)
{
	struct sockaddr_storage at;
	socklen_t size = sizeof(at);

	if (ms_getsockname(fd, &at, &size) || size > sizeof(sa_family_t))
		return false;
	size = sizeof(at);
	return ms_sys3(SYS_getpeername, fd, (long)&at, (long)&size) == 0 && size <= sizeof(sa_family_t);
}

/* One piece of a stream, or one message, behind those that have been seen. Bytes, or -errno. */
static long peek(int fd, void *to, size_t room, int *flags)
{
	struct iovec iov = { to, room };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	long n = ms_recvmsg(fd, &m, MSG_PEEK | MSG_DONTWAIT);

	*flags = m.msg_flags;
	return n;
}

/* Pieces with their length in front of each. */
static int queue_read(struct baggage *c, struct baggage_file *f, char why[IMAGE_WHY])
{
	uint8_t *to = baggage_alloc(c, QUEUE_MAX);
	size_t used = 0;
	uint32_t size;
	int flags;
	long n;

	if (!to)
		return image_say(why, "no memory for what is in the sockets");
	for (;;) {
		n = peek(f->fd, to + used + sizeof(size), QUEUE_MAX - used - sizeof(size), &flags);
		if (n <= 0)
			break;
		if (flags & MSG_CTRUNC)
			return image_say(why, "descriptor %d: descriptors are on their way through this socket", f->fd);
		size = (uint32_t)n;
		memcpy(to + used, &size, sizeof(size));
		used += sizeof(size) + size;
		if (flags & MSG_TRUNC || used + 2 * sizeof(size) > QUEUE_MAX)
			return image_say(why, "descriptor %d: more is queued in the socket than can be carried", f->fd);
	}
	f->content = to;
	f->content_size = used;
	c->arena_used -= QUEUE_MAX - ((used + 15) & ~15ul);
	return 0;
}

/* Only while nobody else can read it: peeking by an offset is a state of the socket. */
static int queue_collect(struct baggage *c, struct baggage_file *f, char why[IMAGE_WHY])
{
	int before = option(f->fd, SO_PEEK_OFF), zero = 0, e;

	ms_setsockopt(f->fd, SOL_SOCKET, SO_PASSCRED, &zero, sizeof(zero));
	ms_setsockopt(f->fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero));
	e = queue_read(c, f, why);
	ms_setsockopt(f->fd, SOL_SOCKET, SO_PEEK_OFF, &before, sizeof(before));
	if (f->socket->credentials > 0)
		ms_setsockopt(f->fd, SOL_SOCKET, SO_PASSCRED, &f->socket->credentials, sizeof(int));
	return e;
}

int sockets_collect(struct baggage *c, struct baggage_file *f, char why[IMAGE_WHY])
{
	struct baggage_socket *s = baggage_alloc(c, sizeof(*s));
	socklen_t size = sizeof(s->send_limit);
	uint32_t peer = 0;

	if (!s)
		return image_say(why, "no memory for the sockets");
	if (option(f->fd, SO_DOMAIN) != AF_UNIX || !is_of_pair(f->fd) || diag_ask(f->ino, &peer, &s->shut))
		return refuse(f, kind_of(f->fd), why);
	f->socket = s;
	f->extra = peer;
	if (peer && !other_of(c, f))
		return refuse(f, kind_of(f->fd), why);
	s->type = option(f->fd, SO_TYPE);
	s->send_buffer = option(f->fd, SO_SNDBUF) / 2; /* the kernel doubles what is set */
	s->receive_buffer = option(f->fd, SO_RCVBUF) / 2;
	s->credentials = option(f->fd, SO_PASSCRED);
	ms_getsockopt(f->fd, SOL_SOCKET, SO_SNDTIMEO, &s->send_limit, &size);
	size = sizeof(s->receive_limit);
	ms_getsockopt(f->fd, SOL_SOCKET, SO_RCVTIMEO, &s->receive_limit, &size);
	return c == image__state.baggage ? queue_collect(c, f, why) : 0;
}

static void options_set(const struct baggage_file *f, int fd)
{
	const struct baggage_socket *s = f->socket;

	if (option(fd, SO_SNDBUF) / 2 != s->send_buffer)
		ms_setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &s->send_buffer, sizeof(int));
	if (option(fd, SO_RCVBUF) / 2 != s->receive_buffer)
		ms_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &s->receive_buffer, sizeof(int));
	if (s->credentials > 0)
		ms_setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &s->credentials, sizeof(int));
	ms_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &s->send_limit, sizeof(s->send_limit));
	ms_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &s->receive_limit, sizeof(s->receive_limit));
}

/* What was queued at f, written into its other end. */
static int queue_write(const struct baggage_file *f, int other)
{
	const uint8_t *at = f->content;
	uint32_t size;

	for (size_t done = 0; done < f->content_size; done += sizeof(size) + size) {
		memcpy(&size, at + done, sizeof(size));
		if (ms_send(other, at + done + sizeof(size), size, MSG_DONTWAIT | MSG_NOSIGNAL) != (long)size)
			return -EAGAIN;
	}
	return 0;
}

static void shut(const struct baggage_file *f, int fd)
{
	static const int how[] = { -1, SHUT_RD, SHUT_WR, SHUT_RDWR };
	int which = how[f->socket->shut & PAIRED_SHUT];

	if (which >= 0)
		ms_sys2(SYS_shutdown, fd, which);
}

/* Both ends, above all numbers of the member, as they were. */
static int pair_make(struct baggage *c, struct baggage_file *f)
{
	struct baggage_file *g = other_of(c, f);
	int low[2], made[2], e;

	e = (int)ms_sys4(SYS_socketpair, AF_UNIX, f->socket->type | SOCK_CLOEXEC, 0, (long)low);
	if (e)
		return e;
	for (int i = 0; i < 2; i++) {
		made[i] = (int)ms_fcntl(low[i], F_DUPFD_CLOEXEC, c->file_max + 1);
		ms_close(low[i]);
	}
	f->made[0] = made[0];
	options_set(f, made[0]);
	if (g) {
		g->made[0] = made[1];
		options_set(g, made[1]);
		e = queue_write(g, made[0]);
	}
	if (!e)
		e = queue_write(f, made[1]);
	if (g) {
		shut(f, made[0]);
		shut(g, made[1]);
	} else {
		ms_close(made[1]);
	}
	return e;
}

int sockets_open(struct baggage *c, struct baggage_file *f)
{
	int e = f->made[0] > 0 ? 0 : pair_make(c, f);
	int fd = e ? e : ms_dup(f->made[0]);

	if (fd >= 0)
		ms_fcntl(fd, F_SETFL, f->flags & ~O_ACCMODE);
	return fd;
}
