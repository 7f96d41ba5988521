/* SPDX-License-Identifier: MIT */
#include "lib/conn.h"

#include "lib/conn_ops.h"
#include "lib/core.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/mirror.h"
#include "lib/sock.h"
#include "lib/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

enum {
	CONN_BUCKETS = 1024,
	CONN_DROP = 65536, /* bytes dropped at once on a closed connection */
};

static struct conn *all;
static struct conn *buckets[CONN_BUCKETS];

struct conn *conn_first(void)
{
	return all;
}

static struct conn **conn_bucket(uint64_t stream)
{
	return &buckets[(stream ^ stream >> 32) % CONN_BUCKETS];
}

struct conn *conn_find(uint64_t stream, unsigned end)
{
	struct conn *c = *conn_bucket(stream);

	while (c && (c->s.id != stream || c->s.end != end))
		c = c->hash_next;
	return c;
}

static void conn_unhash(struct conn *c)
{
	struct conn **at = conn_bucket(c->s.id);

	while (*at && *at != c)
		at = &(*at)->hash_next;
	if (*at)
		*at = c->hash_next;
}

void conn_rename(struct conn *c, uint64_t stream, unsigned end)
{
	struct conn **bucket = conn_bucket(stream);

	conn_unhash(c);
	stream_init(&c->s, &conn_stream_ops, c->peer_member == core.id ? &core.local : &core.self, stream, end);
	c->hash_next = *bucket;
	*bucket = c;
}

struct conn *conn_create(enum conn_phase phase)
{
	struct conn *c = mem_alloc(sizeof(*c));

	if (!c)
		return NULL;
	c->v.kind = VSOCK_CONN;
	c->v.sd = -1;
	c->phase = phase;
	c->fd = -1;
	c->old_fd = -1;
	conn_ops_init(c);
	c->next = all;
	if (all)
		all->prev = c;
	all = c;
	return c;
}

void conn_destroy(struct conn *c)
{
	if (c->sock)
		c->sock->conn = NULL;
	mirror_release(c);
	dial_hangup(&c->dial);
	engine_timer_clear(&c->timer);
	engine_watch(&c->leg, c->fd, 0);
	engine_watch(&c->old_leg, c->old_fd, 0);
	vsock_unbind(&c->v);
	core_own_fd(c->fd, false);
	if (c->fd >= 0)
		ms_close(c->fd);
	if (c->old_fd >= 0)
		ms_close(c->old_fd);
	carry_clear(&c->carry);
	conn_unhash(c);
	if (c->prev)
		c->prev->next = c->next;
	else
		all = c->next;
	if (c->next)
		c->next->prev = c->prev;
	mem_free(c, sizeof(*c));
}

void conn_forked(struct conn *c)
{
	if (c->fd >= 0)
		ms_close(c->fd);
	if (c->old_fd >= 0)
		ms_close(c->old_fd);
	if (c->dial.fd >= 0)
		ms_close(c->dial.fd);
	c->fd = c->old_fd = c->dial.fd = -1;
}

/*
 * An older leg is read to its end whatever the program does: what is in it has been written, and until then the
 * stream is in doubt and keeps the member from moving.
 */
static bool conn_may_carry(const struct conn *c)
{
	return c->carry.length < CARRY_LIMIT || stream_reads(&c->s) == STREAM_FROM_OLDER;
}

/* What the engine reads by itself. */
static uint32_t conn_engine_wants(const struct conn *c, enum stream_from from)
{
	if (c->phase == CONN_HALF)
		return EPOLLIN;
	if (c->phase != CONN_OPEN || !conn_may_carry(c) || stream_reads(&c->s) != from)
		return 0;
	if (from == STREAM_FROM_OLDER)
		return EPOLLIN;
	if (c->s.state == STREAM_FLUSHING || c->closed || (c->sock && sock_wants_leg(c->sock)))
		return EPOLLIN;
	/* By edges: its end would be told of again and again, and is not read yet. */
	return c->sock && !c->sock->direct && sock_is_settling(c->sock) ? EPOLLPRI | EPOLLET : 0;
}

static uint32_t conn_kernel_events(const struct conn *c)
{
	uint32_t events = 0;

	if (c->phase != CONN_OPEN || c->v.sd < 0)
		return 0;
	if (c->v.want & MSOCK_READ && !c->carry.length && stream_reads(&c->s) == STREAM_FROM_LEG &&
	    c->s.state != STREAM_FLUSHING)
		events |= EPOLLIN;
	if (c->v.want & MSOCK_WRITE && stream_may_write(&c->s))
		events |= EPOLLOUT;
	return events;
}

static unsigned conn_own_events(const struct conn *c)
{
	unsigned events = 0;

	if (c->phase == CONN_FAILED || c->s.state == STREAM_OVER)
		return c->v.want;
	if (c->phase != CONN_OPEN)
		return 0;
	if (c->carry.length || stream_at_eof(&c->s))
		events |= MSOCK_READ;
	if (c->s.app_fin)
		events |= MSOCK_WRITE; /* that is, EPIPE */
	return events & c->v.want;
}

void conn_sync(struct conn *c)
{
	uint32_t leg;

	if (c->sock && c->sock->direct)
		return;
	if (c->sock)
		sock_sync(c->sock);
	leg = conn_engine_wants(c, STREAM_FROM_LEG);
	if (c->sock && c->phase == CONN_OPEN && sock_wants_room(c->sock))
		leg |= EPOLLOUT;
	if (c->v.sd >= 0) {
		vsock_watch(&c->v, conn_kernel_events(c));
		vsock_ready(&c->v, conn_own_events(c));
	}
	if (leg && c->leg_shut)
		leg |= EPOLLET;
	if (c->leg.events != leg || (c->leg_shut && c->leg_more)) {
		engine_watch(&c->leg, c->fd, 0);
		c->leg.lasting = c->closed && c->s.state == STREAM_STEADY;
		engine_watch(&c->leg, c->fd, leg);
	}
	if (c->old_fd >= 0)
		engine_watch(&c->old_leg, c->old_fd, conn_engine_wants(c, STREAM_FROM_OLDER));
}

/* The rest of a CONFIRM that was overtaken by a relink message lies ahead of the stream's bytes. */
static int conn_skip_confirm(struct conn *c, int fd)
{
	uint8_t drop[LEG_CONFIRM_SIZE];

	while (c->confirm_left) {
		long n = ms_read(fd, drop, c->confirm_left);

		if (n <= 0)
			return n ? (int)n : -ECONNRESET;
		c->confirm_left -= (unsigned)n;
	}
	return 0;
}

/* A leg that the program has shut for reading says 0 whenever it is empty; it is at its end when the peer's FIN is here. */
static ssize_t conn_leg_empty(struct conn *c, int fd)
{
	if (!leg_is_shut(fd))
		return 0;
	c->leg_shut = c->leg_shut || fd == c->fd;
	return -EAGAIN;
}

/* One read from the leg that is due. >0, 0: the leg's end, -errno. */
static ssize_t conn_read_leg(struct conn *c, const struct iovec *iov, int count)
{
	int fd = stream_reads(&c->s) == STREAM_FROM_OLDER ? c->old_fd : c->fd;
	ssize_t n;

	if (c->confirm_left) {
		int err = conn_skip_confirm(c, fd);

		if (err)
			return err;
	}
	if (c->sock)
		sock_note_mark(c->sock, fd);
	n = count == 1 ? ms_read(fd, iov->iov_base, iov->iov_len) : ms_readv(fd, iov, count);
	c->leg_more = n > 0;
	if (n > 0)
		stream_took(&c->s, (uint64_t)n);
	return n || !iov->iov_len ? n : conn_leg_empty(c, fd);
}

static bool conn_has_leg(const struct conn *c)
{
	enum stream_from from = stream_reads(&c->s);

	return from == STREAM_FROM_LEG || from == STREAM_FROM_OLDER;
}

/*
 * n: what a read said, 0 or -errno.  A reset is told once, to a read or a write; a read behind that says 0.  The kernel's
 * state tells it from the peer's FIN, unless our own is out as well: what comes behind that no write has had.
 */
static void conn_leg_ended(struct conn *c, ssize_t n)
{
	if (!n && stream_reads(&c->s) == STREAM_FROM_LEG && (c->s.fin_sent ? c->late_shut : leg_is_dead(c->fd)))
		stream_torn(&c->s);
	stream_handle(&c->s, n ? STREAM_RESET : STREAM_LEG_END, NULL);
}

static void conn_leg_over(struct conn *c, ssize_t n)
{
	conn_leg_ended(c, n);
	conn_sync(c);
}

ssize_t conn_readv(struct conn *c, const struct iovec *iov, int count)
{
	if (c->phase == CONN_FAILED)
		return -c->error;
	if (c->phase != CONN_OPEN)
		return -EAGAIN;
	if (c->carry.length) {
		bool full = c->carry.length >= CARRY_LIMIT;
		size_t n = carry_take(&c->carry, iov, count);

		if (full || !c->carry.length)
			conn_sync(c);
		conn_ops_carry_taken(c);
		return (ssize_t)n;
	}
	while (conn_has_leg(c)) {
		ssize_t n = conn_read_leg(c, iov, count);

		if (n > 0 || n == -EAGAIN || n == -EFAULT || n == -EINVAL)
			return n;
		if (n == 0 && !iov[0].iov_len && count == 1)
			return 0;
		if (n != -EINTR)
			conn_leg_over(c, n);
	}
	if (!stream_at_eof(&c->s))
		return -EAGAIN;
	return c->s.error ? -c->s.error : 0;
}

/* May the leg be written now? 0 or -errno. */
static int conn_writable(const struct conn *c)
{
	if (c->phase == CONN_FAILED)
		return -c->error;
	if (c->phase != CONN_OPEN)
		return -EAGAIN;
	if (!stream_may_write(&c->s)) {
		if (c->s.state == STREAM_OVER && c->s.error)
			return -c->s.error;
		return c->s.app_fin || stream_is_void(&c->s) ? -EPIPE : -EAGAIN;
	}
	return 0;
}

static ssize_t conn_wrote(struct conn *c, ssize_t n)
{
	if (n > 0)
		stream_wrote(&c->s, (uint64_t)n);
	return n == -EINTR ? -EAGAIN : n;
}

ssize_t conn_send(struct conn *c, const void *bytes, size_t n, int flags)
{
	int err = conn_writable(c);

	return err ? err : conn_wrote(c, ms_send(c->fd, bytes, n, flags | MSG_NOSIGNAL | MSG_DONTWAIT));
}

ssize_t conn_writev(struct conn *c, const struct iovec *iov, int count)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count };
	int err;

	if (count == 1)
		return conn_send(c, iov->iov_base, iov->iov_len, 0);
	err = conn_writable(c);
	return err ? err : conn_wrote(c, ms_sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT));
}

int conn_shutdown(struct conn *c)
{
	if (c->phase != CONN_OPEN)
		return -ENOTCONN;
	stream_handle(&c->s, STREAM_SHUT, NULL);
	conn_sync(c);
	return 0;
}

/* Take what the leg has into the carry, so that it can be given up. */
void conn_drain(struct conn *c)
{
	for (int i = 0; i < 8 && conn_has_leg(c) && conn_may_carry(c); i++) {
		struct iovec iov;
		ssize_t n;

		iov.iov_base = carry_room(&c->carry, &iov.iov_len);
		if (!iov.iov_base) {
			ms_log(LOG_ERROR, "stream %lx: no memory for what its old leg brings", c->s.id);
			return;
		}
		n = conn_read_leg(c, &iov, 1);
		if (n > 0) {
			carry_add(&c->carry, (size_t)n);
			core.carried += (uint64_t)n;
		} else if (n == -EAGAIN) {
			break;
		} else if (n != -EINTR) {
			conn_leg_ended(c, n);
		}
	}
	conn_sync(c);
}

static int conn_unsent(int fd)
{
	int n = 0;

	return ms_ioctl(fd, SIOCOUTQ, &n) < 0 || leg_is_dead(fd) ? 0 : n;
}

/* The application has closed it: does anything of it have to stay? */
static bool conn_linger(struct conn *c)
{
	uint8_t drop[CONN_DROP];
	struct iovec iov = { drop, sizeof(drop) };

	carry_clear(&c->carry);
	for (int i = 0; i < 8 && conn_has_leg(c); i++) {
		ssize_t n = conn_read_leg(c, &iov, 1);

		if (n > 0)
			c->dropped = true;
		else if (n == -EAGAIN)
			break;
		else if (n != -EINTR)
			conn_leg_ended(c, n);
	}
	if (c->s.state == STREAM_OVER)
		return false;
	if (c->s.state != STREAM_STEADY || (!c->s.eof && !c->dropped && !c->brief))
		return true;
	if (core.member && !c->abort && conn_unsent(c->fd)) {
		c->repeat_ms = c->repeat_ms ? c->repeat_ms * 2 : 1;
		if (c->repeat_ms > 1000)
			c->repeat_ms = 1000;
		engine_timer_set(&c->timer, c->repeat_ms * 1000000ull);
		return true;
	}
	if (c->dropped && !c->s.eof)
		leg_resets(c->fd); /* as TCP does with unread bytes */
	return false;
}

void conn_linger_on(struct conn *c)
{
	if (conn_linger(c)) {
		conn_sync(c);
		return;
	}
	conn_ops_bury(c);
	conn_destroy(c);
}

/* No FIN: the peer's end of file would hide the reset. */
static void conn_reset(struct conn *c)
{
	leg_resets(c->fd);
	c->s.error = ECONNRESET;
	conn_ops_bury(c);
	conn_destroy(c);
}

void conn_close(struct conn *c)
{
	int fd;

	if (c->phase != CONN_OPEN) {
		conn_destroy(c);
		return;
	}
	c->brief = c->v.sd < 0;
	/* The number is the application's again; the leg goes on under another. */
	engine_watch(&c->leg, c->fd, 0);
	fd = c->v.sd < 0 ? c->fd : (int)ms_fcntl(c->fd, F_DUPFD_CLOEXEC, 3);
	vsock_unbind(&c->v);
	if (fd == c->fd)
		; /* the leg has a number of its own */
	else if (fd < 0)
		ms_log(LOG_ERROR, "stream %lx: no descriptor to close it in order: error %d", c->s.id, -fd);
	else
		ms_close(c->fd), c->fd = core_raise_fd(fd);
	c->closed = true;
	c->dropped = c->dropped || c->abort || c->carry.length > 0;
	if (c->abort && c->s.state == STREAM_STEADY) {
		conn_reset(c);
		return;
	}
	stream_handle(&c->s, STREAM_SHUT, NULL);
	conn_linger_on(c);
}

void conn_leg_ready(struct watch *w, uint32_t events)
{
	struct conn *c = (struct conn *)((char *)w - offsetof(struct conn, leg));

	if (c->phase == CONN_HALF)
		conn_half_ready(c);
	else if (c->closed)
		conn_linger_on(c);
	else if (c->sock)
		sock_leg_ready(c->sock, events);
	else
		conn_drain(c);
}

void conn_old_leg_ready(struct watch *w, uint32_t events)
{
	struct conn *c = (struct conn *)((char *)w - offsetof(struct conn, old_leg));

	if (c->closed)
		conn_linger_on(c);
	else
		conn_drain(c);
}
