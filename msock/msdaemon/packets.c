/* SPDX-License-Identifier: MIT */
#include "msdaemon/packets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/log.h"

enum { PACKETS_QUEUE = 4096 }; /* a member that takes nothing for so long is not served further */

struct packet {
	STAILQ_ENTRY(packet) next;
	size_t size;
	unsigned count;
	int fds[MS_FDS_MAX];
	uint8_t bytes[];
};

struct packets {
	int fd;
	const struct packets_ops *ops;
	void *user;
	struct event *readable, *writable;
	STAILQ_HEAD(, packet) queue;
	unsigned queued;
	bool busy, dead;
	pid_t pid;
};

static ssize_t send_now(int fd, const void *bytes, size_t size, const int *fds, unsigned count)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * MS_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec v = { (void *)bytes, size };
	struct msghdr msg = { .msg_iov = &v, .msg_iovlen = 1 };

	if (count > 0) {
		struct cmsghdr *c;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * count);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
	}
	return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void packet_free(struct packet *k)
{
	for (unsigned i = 0; i < k->count; i++)
		close(k->fds[i]);
	free(k);
}

static void packets_free(struct packets *p)
{
	struct packet *k;

	while ((k = STAILQ_FIRST(&p->queue))) {
		STAILQ_REMOVE_HEAD(&p->queue, next);
		packet_free(k);
	}
	event_free(p->readable);
	event_free(p->writable);
	close(p->fd);
	free(p);
}

void packets_destroy(struct packets *p)
{
	if (!p)
		return;
	if (p->busy)
		p->dead = true;
	else
		packets_free(p);
}

static void write_cb(evutil_socket_t fd, short what, void *arg)
{
	struct packets *p = arg;
	struct packet *k;

	while ((k = STAILQ_FIRST(&p->queue))) {
		if (send_now(p->fd, k->bytes, k->size, k->fds, k->count) < 0 &&
		    (errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS))
			return;
		STAILQ_REMOVE_HEAD(&p->queue, next);
		p->queued--;
		packet_free(k);
	}
	event_del(p->writable);
}

void packets_send(struct packets *p, const void *bytes, size_t size, const int *fds, unsigned count)
{
	struct packet *k;

	if (!p || p->dead)
		return;
	if (STAILQ_EMPTY(&p->queue)) {
		if (send_now(p->fd, bytes, size, fds, count) >= 0)
			return;
		if (errno != EAGAIN && errno != ENOBUFS && errno != ETOOMANYREFS)
			return; /* on_end tells */
	}
	if (p->queued >= PACKETS_QUEUE) {
		log_say(LOG_WARN, "a member does not take its messages: one is dropped");
		return;
	}
	k = malloc(sizeof(*k) + size);
	if (!k)
		log_die("out of memory");
	memcpy(k->bytes, bytes, size);
	k->size = size;
	k->count = count;
	for (unsigned i = 0; i < count; i++)
		k->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
	STAILQ_INSERT_TAIL(&p->queue, k, next);
	p->queued++;
	event_add(p->writable, NULL);
}

static pid_t take_pid(struct msghdr *msg)
{
	struct ucred from;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
			continue;
		memcpy(&from, CMSG_DATA(c), sizeof(from));
		return from.pid;
	}
	return 0;
}

static unsigned take_fds(struct msghdr *msg, int fds[MS_FDS_MAX])
{
	unsigned count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n && count < MS_FDS_MAX; i++)
			memcpy(&fds[count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}
	return count;
}

/* One packet; false: there is none, or the end. */
static bool read_one(struct packets *p)
{
	static uint8_t buf[MS_CTL_MAX];
	union {
		char bytes[CMSG_SPACE(sizeof(int) * MS_FDS_MAX) + CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	struct iovec v = { buf, sizeof(buf) };
	struct msghdr msg = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	int fds[MS_FDS_MAX];
	ssize_t n = recvmsg(p->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	unsigned count, version, type;
	struct ms_codec c;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0 && errno == ECONNRESET)
		return true; /* said once: it ended without reading all of ours; what it had sent is there yet */
	if (n <= 0) {
		event_del(p->readable);
		p->ops->on_end(p->user);
		return false;
	}
	count = take_fds(&msg, fds);
	p->pid = take_pid(&msg);
	ms_codec_init(&c, buf, (size_t)n);
	version = ms_get_u8(&c);
	type = ms_get_u8(&c);
	if (c.bad || version != MS_WIRE_VERSION || msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		log_say(LOG_WARN,
			"a control packet of %zd bytes that cannot be read (version %u, type %u, flags %x): dropped", n,
			version, type, msg.msg_flags);
	else
		p->ops->on_packet(p->user, &c, type, fds, count);
	for (unsigned i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return !p->dead;
}

static void read_many(struct packets *p, int most)
{
	p->busy = true;
	for (int i = 0; i < most && read_one(p); i++)
		;
	p->busy = false;
	if (p->dead)
		packets_free(p);
}

static void read_cb(evutil_socket_t fd, short what, void *arg)
{
	read_many(arg, 64);
}

void packets_drain(struct packets *p)
{
	if (!p->busy)
		read_many(p, 4096);
}

void packets_set_user(struct packets *p, const struct packets_ops *ops, void *user)
{
	p->ops = ops;
	p->user = user;
}

pid_t packets_pid(const struct packets *p)
{
	return p->pid;
}

struct packets *packets_create(struct event_base *base, const struct packets_ops *ops, void *user, int *other)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return NULL;
	*other = pair[1];
	return packets_take(base, ops, user, pair[0]);
}

struct packets *packets_take(struct event_base *base, const struct packets_ops *ops, void *user, int fd)
{
	struct packets *p = calloc(1, sizeof(*p));

	if (!p)
		log_die("out of memory");
	p->fd = fd;
	p->ops = ops;
	p->user = user;
	STAILQ_INIT(&p->queue);
	p->readable = event_new(base, p->fd, EV_READ | EV_PERSIST, read_cb, p);
	p->writable = event_new(base, p->fd, EV_WRITE | EV_PERSIST, write_cb, p);
	event_add(p->readable, NULL);
	return p;
}

void packets_begin(struct ms_codec *c, uint8_t *buf, size_t size, unsigned type)
{
	ms_codec_init(c, buf, size);
	ms_put_u8(c, MS_WIRE_VERSION);
	ms_put_u8(c, (uint8_t)type);
}

void packets_put(struct packets *p, const struct ms_codec *c, const uint8_t *buf, const int *fds, unsigned count)
{
	if (c->bad)
		log_say(LOG_ERROR, "a control message does not fit: type %u", buf[1]);
	else
		packets_send(p, buf, (size_t)(c->at - buf), fds, count);
}
