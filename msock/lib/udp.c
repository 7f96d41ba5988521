/* SPDX-License-Identifier: MIT */
#include "lib/udp.h"

#include "lib/core.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/sys.h"
#include "lib/udp_way.h"
#include "proto/codec.h"

#include <arpa/inet.h>
#include <errno.h>

enum { UDP_PORT_FIRST = 32768, UDP_PORT_LAST = 60999, UDP_PIECES = 64 };

static struct udp *sockets;
static uint16_t next_port = UDP_PORT_FIRST;
static uint8_t drained[UDP_DATAGRAM];

struct udp *udp_first(void)
{
	return sockets;
}

struct udp *udp_of_port(uint16_t port)
{
	struct udp *u = sockets;

	while (u && (!port || u->port != port))
		u = u->next;
	return u;
}

/* The kernel's socket on the real address; real_port gets what it has. */
static int udp_kernel(struct udp *u, uint16_t port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(core.real_ip) };
	socklen_t size = sizeof(at);
	int fd = ms_socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int err = fd < 0 ? fd : ms_bind(fd, &at, sizeof(at));

	if (!err)
		err = ms_getsockname(fd, &at, &size);
	if (err && fd >= 0)
		ms_close(fd);
	if (err)
		return err;
	u->real_port = ntohs(at.sin_port);
	return fd;
}

struct udp *udp_open(int *error)
{
	struct udp *u = mem_alloc(sizeof(*u));
	int fd;

	*error = ENOMEM;
	if (!u)
		return NULL;
	u->v.kind = VSOCK_UDP;
	u->v.sd = -1;
	fd = udp_kernel(u, 0);
	*error = fd < 0 ? -fd : -vsock_bind(&u->v, fd);
	if (*error) {
		if (fd >= 0)
			ms_close(fd);
		mem_free(u, sizeof(*u));
		return NULL;
	}
	u->next = sockets;
	sockets = u;
	return u;
}

static int udp_choose_port(uint16_t *port)
{
	for (int i = UDP_PORT_FIRST; i <= UDP_PORT_LAST; i++) {
		*port = next_port;
		next_port = next_port < UDP_PORT_LAST ? next_port + 1 : UDP_PORT_FIRST;
		if (!udp_of_port(*port))
			return 0;
	}
	return -EADDRINUSE;
}

int udp_bind(struct udp *u, const struct sockaddr_in *at)
{
	uint32_t ip = ntohl(at->sin_addr.s_addr);
	uint16_t port = ntohs(at->sin_port);
	int fd;

	if (u->port)
		return -EINVAL;
	if (ip && ip != core.virtual_ip)
		return -EADDRNOTAVAIL;
	if (core.member) {
		int err = port ? (udp_of_port(port) ? -EADDRINUSE : 0) : udp_choose_port(&port);

		if (!err)
			u->port = port;
		return err;
	}
	/* Alone: virtual ports are real ones. */
	fd = udp_kernel(u, port);
	if (fd < 0)
		return fd;
	ms_dup3(fd, u->v.sd, O_CLOEXEC);
	ms_close(fd);
	vsock_forget(&u->v);
	udp_sync(u);
	u->port = u->real_port;
	return 0;
}

static int udp_bind_any(struct udp *u)
{
	const struct sockaddr_in any = { .sin_family = AF_INET };

	return u->port ? 0 : udp_bind(u, &any);
}

int udp_connect(struct udp *u, const struct sockaddr_in *to)
{
	int err = udp_bind_any(u);

	if (!err)
		u->peer = *to;
	return err;
}

void udp_sync(struct udp *u)
{
	vsock_watch(&u->v, (u->v.want & MSOCK_READ ? EPOLLIN : 0u) | (u->v.want & MSOCK_WRITE ? EPOLLOUT : 0u));
	vsock_ready(&u->v, u->first || u->error ? MSOCK_READ : 0);
}

void udp_refused(uint32_t ip, uint16_t port)
{
	for (struct udp *u = sockets; u; u = u->next) {
		if (ntohl(u->peer.sin_addr.s_addr) != ip || ntohs(u->peer.sin_port) != port)
			continue;
		u->error = ECONNREFUSED;
		udp_sync(u);
	}
}

static int udp_take_error(struct udp *u)
{
	int error = u->error;

	u->error = 0;
	if (error)
		udp_sync(u);
	return -error;
}

long udp_put(struct udp *u, uint32_t ip, uint16_t port, const uint8_t *head, const struct iovec *iov, int count)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(ip) };
	struct iovec all[1 + UDP_PIECES] = { { (void *)head, UDP_HEAD } };
	struct msghdr msg = { .msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = all, .msg_iovlen = (size_t)count + 1 };
	long n;

	if (count < 0 || count > UDP_PIECES)
		return -EMSGSIZE;
	for (int i = 0; i < count; i++)
		all[i + 1] = iov[i];
	n = ms_sendmsg(u->v.sd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n < UDP_HEAD ? (n < 0 ? n : -EIO) : n - UDP_HEAD;
}

long udp_send(struct udp *u, const struct iovec *iov, int count, const struct sockaddr_in *to)
{
	int err = udp_take_error(u);

	if (!err)
		err = udp_bind_any(u);
	if (err)
		return err;
	if (!to)
		to = &u->peer;
	if (!to->sin_port)
		return -EDESTADDRREQ;
	return udp_way_send(u, to, iov, count);
}

static void udp_note_sender(struct udp *u, uint32_t member)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);
	struct udp_sender *s = u->senders;

	while (s && s->member != member && now - s->seen_ns < UDP_SENDER_S * 1000000000ull)
		s = s->next;
	if (!s) {
		s = mem_alloc(sizeof(*s));
		if (!s)
			return; /* it finds out by itself */
		s->next = u->senders;
		u->senders = s;
	}
	s->member = member;
	s->seen_ns = now;
}

/* Is it a datagram for this socket? The sender's cookie says that the address server has told it of us. */
static bool udp_head(struct udp *u, const uint8_t head[UDP_HEAD], long n, struct sockaddr_in *from)
{
	uint8_t cookie[MS_TOKEN], differs = 0;
	uint32_t member, from_ip, to_ip;
	uint16_t from_port, to_port;
	struct ms_codec c;

	ms_codec_init(&c, (void *)head, n < UDP_HEAD ? 0 : UDP_HEAD);
	if (ms_get_u32(&c) != MS_UDP_MAGIC || ms_get_u8(&c) != MS_WIRE_VERSION)
		return false;
	ms_get_u8(&c);
	member = ms_get_u32(&c);
	from_ip = ms_get_u32(&c);
	from_port = ms_get_u16(&c);
	to_ip = ms_get_u32(&c);
	to_port = ms_get_u16(&c);
	ms_get_bytes(&c, cookie, sizeof(cookie));
	for (int i = 0; i < MS_TOKEN; i++)
		differs |= cookie[i] ^ core.cookie[i];
	if (c.bad || differs || to_ip != core.virtual_ip || to_port != u->port)
		return false;
	*from = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(from_port), .sin_addr.s_addr = htonl(from_ip) };
	if (u->peer.sin_port && (u->peer.sin_port != from->sin_port || u->peer.sin_addr.s_addr != from->sin_addr.s_addr))
		return false;
	if (core.member)
		udp_note_sender(u, member);
	return true;
}

/* The oldest that a freeze has kept; what does not fit is cut off, as the kernel does. */
static long udp_take_kept(struct udp *u, const struct iovec *iov, int count, struct sockaddr_in *from)
{
	struct udp_kept *k = u->first;
	size_t done = 0;

	for (int i = 0; i < count && done < k->size; i++) {
		size_t n = iov[i].iov_len < k->size - done ? iov[i].iov_len : k->size - done;

		__builtin_memcpy(iov[i].iov_base, k->bytes + done, n);
		done += n;
	}
	*from = k->from;
	u->first = k->next;
	if (!u->first)
		u->last = NULL;
	u->kept -= k->size;
	mem_free(k, sizeof(*k) + k->size);
	udp_sync(u);
	return (long)done;
}

long udp_receive(struct udp *u, const struct iovec *iov, int count, struct sockaddr_in *from)
{
	uint8_t head[UDP_HEAD];
	struct iovec all[1 + UDP_PIECES] = { { head, UDP_HEAD } };
	int err = udp_take_error(u);

	if (err)
		return err;
	if (u->first)
		return udp_take_kept(u, iov, count, from);
	if (count < 0 || count > UDP_PIECES)
		return -EMSGSIZE;
	for (int i = 0; i < count; i++)
		all[i + 1] = iov[i];
	for (;;) {
		struct msghdr msg = { .msg_iov = all, .msg_iovlen = (size_t)count + 1 };
		long n = ms_recvmsg(u->v.sd, &msg, MSG_DONTWAIT);

		if (n < 0)
			return n;
		if (udp_head(u, head, n, from))
			return n - UDP_HEAD;
	}
}

static void udp_free(struct udp *u)
{
	while (u->first) {
		struct udp_kept *k = u->first;

		u->first = k->next;
		mem_free(k, sizeof(*k) + k->size);
	}
	while (u->senders) {
		struct udp_sender *s = u->senders;

		u->senders = s->next;
		mem_free(s, sizeof(*s));
	}
	mem_free(u, sizeof(*u));
}

void udp_close(struct udp *u)
{
	struct udp **at = &sockets;
	int sd = u->v.sd;

	while (*at != u)
		at = &(*at)->next;
	*at = u->next;
	udp_way_forget(u);
	vsock_unbind(&u->v);
	ms_close(sd);
	udp_free(u);
}

static int udp_keep(struct udp *u, long n)
{
	struct udp_kept *k;
	struct sockaddr_in from;
	size_t size;

	if (!udp_head(u, drained, n, &from))
		return 0;
	size = (size_t)n - UDP_HEAD;
	if (u->kept + size > UDP_KEPT_MAX)
		return 0; /* as if the queue had been full */
	k = mem_alloc(sizeof(*k) + size);
	if (!k)
		return -ENOMEM;
	k->from = from;
	k->size = size;
	__builtin_memcpy(k->bytes, drained + UDP_HEAD, size);
	if (u->last)
		u->last->next = k;
	else
		u->first = k;
	u->last = k;
	u->kept += size;
	return 0;
}

int udp_freeze(void)
{
	for (struct udp *u = sockets; u; u = u->next) {
		struct iovec all = { drained, sizeof(drained) };
		struct msghdr msg = { .msg_iov = &all, .msg_iovlen = 1 };
		long n;

		while ((n = ms_recvmsg(u->v.sd, &msg, MSG_DONTWAIT)) >= 0 || n == -EINTR)
			if (n >= 0 && udp_keep(u, n))
				return -ENOMEM;
		vsock_ready(&u->v, u->first || u->error ? MSOCK_READ : 0);
	}
	return 0;
}

void udp_resume(void)
{
	for (struct udp *u = sockets; u; u = u->next) {
		int fd = udp_kernel(u, 0);

		vsock_forget(&u->v);
		if (fd < 0) {
			ms_log(LOG_ERROR, "UDP socket %d cannot be made again: error %d", u->v.sd, -fd);
			continue;
		}
		if (fd != u->v.sd) {
			ms_dup3(fd, u->v.sd, O_CLOEXEC);
			ms_close(fd);
		}
	}
}

void udp_tell(void)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);

	for (struct udp *u = sockets; u; u = u->next) {
		for (struct udp_sender *s = u->senders; s; s = s->next)
			if (now - s->seen_ns < UDP_SENDER_S * 1000000000ull)
				udp_way_tell(s->member, u);
		udp_sync(u);
	}
}
