/* SPDX-License-Identifier: MIT */
#include "lib/mirror.h"

#include "lib/carry.h"
#include "lib/conn.h"
#include "lib/core.h"
#include "lib/engine.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/move.h"
#include "lib/sys.h"
#include "proto/codec.h"

#include <arpa/inet.h>
#include <errno.h>

enum {
	MIRROR_LIST = 200,    /* streams in one ATTACH frame */
	MIRROR_RETRY_MS = 20, /* doubled each time */
	MIRROR_RETRY_MAX_MS = 1000,
	MIRROR_IN = MS_MIRROR_FRAME + 4,
};

#define MIRROR_PATIENCE_NS 10000000000ull /* a mirror that cannot be reached for so long is dead */

/* A leg that the mirror holds or held; kept until the mirror has ended. */
struct mirror_leg {
	uint64_t stream;
	uint32_t leg;
	struct conn *conn; /* borrowed; NULL: released */
	bool failed;       /* released, and its stream has ended with an error */
	struct mirror_leg *next;
};

/*
 *   DOWN ──dial──▶ DIALLING ──connected, list sent──▶ LISTED ──ATTACHED──▶ UP
 *    ▲                │                                 │                   │
 *    └──── lost, refused, or the member came to another host ◀──────────────┘
 */
enum mirror_state { MIRROR_DOWN, MIRROR_DIALLING, MIRROR_LISTED, MIRROR_UP };

struct mirror {
	uint32_t ip;
	uint16_t port;
	uint8_t key[MS_TOKEN];
	enum mirror_state state;
	int fd; /* owned; -1 when DOWN */
	struct watch watch;
	struct timer timer;      /* the next try */
	uint32_t retry_ms;       /* before the last one; 0: none since it was UP */
	uint64_t lost_ns;        /* since when it is not UP */
	struct mirror_leg *legs; /* owned */
	unsigned active;         /* legs that are not released */
	struct carry out;
	uint8_t *in; /* owned, MIRROR_IN bytes */
	size_t in_have;
	struct mirror *next;
};

static struct mirror *mirrors;

unsigned mirror_count(void)
{
	unsigned n = 0;

	for (struct mirror *m = mirrors; m; m = m->next)
		n += m->active > 0;
	return n;
}

static void mirror_put(struct mirror *m, struct ms_codec *c, uint8_t *frame)
{
	size_t n = (size_t)(c->at - frame);
	struct ms_codec head;

	ms_codec_init(&head, frame, 4);
	ms_put_u32(&head, (uint32_t)(n - 4));
	if (!c->bad && carry_put(&m->out, frame, n))
		engine_watch(&m->watch, m->fd, EPOLLIN | EPOLLOUT);
}

static void mirror_begin(struct ms_codec *c, uint8_t *frame, size_t size, uint8_t type)
{
	ms_codec_init(c, frame, size);
	ms_put_u32(c, 0);
	ms_put_u8(c, MS_WIRE_VERSION);
	ms_put_u8(c, type);
}

static void mirror_order(struct mirror *m, uint8_t type, uint64_t stream, uint32_t leg, uint64_t offset)
{
	uint8_t frame[64];
	struct ms_codec c;

	if (m->state != MIRROR_UP)
		return; /* said after ATTACHED */
	mirror_begin(&c, frame, sizeof(frame), type);
	ms_put_u64(&c, stream);
	ms_put_u32(&c, leg);
	if (type == MS_MI_ACK)
		ms_put_u64(&c, offset);
	mirror_put(m, &c, frame);
}

static uint32_t mirror_older_leg(const struct conn *c)
{
	return c->s.state == STREAM_BOTH ? c->s.leg - 1 : c->s.leg;
}

/* What was taken of the older leg; a BOTH end that has it all reads on from the newer one. */
static uint64_t mirror_taken(const struct conn *c)
{
	return c->s.state == STREAM_BOTH && c->s.older_done ? c->s.last_taken : c->s.taken;
}

void mirror_halfclose(struct conn *c)
{
	if (c->mirror)
		mirror_order(c->mirror, MS_MI_HALFCLOSE, c->s.id, mirror_older_leg(c), 0);
}

void mirror_ack(struct conn *c)
{
	if (c->mirror)
		mirror_order(c->mirror, MS_MI_ACK, c->s.id, mirror_older_leg(c), mirror_taken(c));
}

static void mirror_order_release(struct mirror *m, const struct mirror_leg *l)
{
	mirror_order(m, l->failed ? MS_MI_ABANDON : MS_MI_RELEASE, l->stream, l->leg, 0);
}

void mirror_release(struct conn *c)
{
	struct mirror *m = c->mirror;

	if (!m)
		return;
	c->mirror = NULL;
	for (struct mirror_leg *l = m->legs; l; l = l->next) {
		if (l->conn != c)
			continue;
		l->conn = NULL;
		l->failed = c->s.state == STREAM_OVER && c->s.error;
		m->active--;
		mirror_order_release(m, l);
	}
	move_stream_steady();
}

static void mirror_put_list(struct mirror *m)
{
	uint8_t frame[64 + 20 * MIRROR_LIST];
	struct mirror_leg *l = m->legs;
	struct ms_codec c;
	unsigned n = 1;

	for (bool last = false; !last;) {
		struct mirror_leg *first = l;

		for (n = 0; l && n < MIRROR_LIST; l = l->next)
			n += l->conn != NULL;
		last = n == 0;
		mirror_begin(&c, frame, sizeof(frame), MS_MI_ATTACH);
		ms_put_u32(&c, core.id);
		ms_put_u64(&c, core.self.m);
		ms_put_bytes(&c, m->key, MS_TOKEN);
		ms_put_u16(&c, (uint16_t)n);
		for (; first != l; first = first->next) {
			if (!first->conn)
				continue;
			ms_put_u64(&c, first->stream);
			ms_put_u32(&c, first->leg);
			ms_put_u64(&c, mirror_taken(first->conn));
		}
		mirror_put(m, &c, frame);
	}
}

static void mirror_down(struct mirror *m)
{
	if (m->fd >= 0) {
		engine_watch(&m->watch, m->fd, 0);
		core_own_fd(m->fd, false);
		ms_close(m->fd);
	}
	m->fd = -1;
	m->state = MIRROR_DOWN;
	m->in_have = 0;
	carry_clear(&m->out);
}

static void mirror_destroy(struct mirror *m)
{
	struct mirror **at = &mirrors;
	struct mirror_leg *l;

	mirror_down(m);
	engine_timer_clear(&m->timer);
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	while ((l = m->legs) != NULL) {
		m->legs = l->next;
		mem_free(l, sizeof(*l));
	}
	mem_free(m->in, MIRROR_IN);
	mem_free(m, sizeof(*m));
	move_stream_steady();
}

/* What it holds is lost with it. */
static void mirror_give_up(struct mirror *m)
{
	ms_log(LOG_ERROR, "the mirror at %a port %u cannot be reached: %u streams break", m->ip, m->port, m->active);
	for (struct mirror_leg *l = m->legs; l; l = l->next) {
		struct conn *c = l->conn;

		if (!c)
			continue;
		l->conn = NULL;
		m->active--;
		c->mirror = NULL;
		stream_break(&c->s, ECONNRESET, "its mirror is lost");
		conn_sync(c);
	}
}

/*
 * The link broke, and the mirror must be had again.  With no leg left it has
 * ended as it should, unless the last RELEASE was lost with the link: a mirror
 * that still listens has missed one, and is told again.
 */
static void mirror_lost(struct mirror *m, int error)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);
	bool late;

	ms_log(LOG_DEBUG, "link to the mirror at %a port %u: error %d, %u legs are left", m->ip, m->port, error,
	       m->active);
	if (m->state == MIRROR_UP || !m->lost_ns)
		m->lost_ns = now;
	mirror_down(m);
	late = now - m->lost_ns > MIRROR_PATIENCE_NS;
	if (m->active && late)
		mirror_give_up(m);
	if (!m->active && (late || error == ECONNREFUSED)) {
		mirror_destroy(m);
		return;
	}
	m->retry_ms = m->retry_ms ? 2 * m->retry_ms : MIRROR_RETRY_MS;
	if (m->retry_ms > MIRROR_RETRY_MAX_MS)
		m->retry_ms = MIRROR_RETRY_MAX_MS;
	engine_timer_set(&m->timer, m->retry_ms * 1000000ull);
}

static void mirror_dial(struct mirror *m)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(m->port), .sin_addr.s_addr = htonl(m->ip) };
	int fd = leg_socket();
	int err;

	engine_timer_clear(&m->timer);
	if (fd < 0) {
		mirror_lost(m, -fd);
		return;
	}
	m->fd = core_raise_fd(fd);
	core_own_fd(m->fd, true);
	m->state = MIRROR_DIALLING;
	err = ms_connect(m->fd, &to, sizeof(to));
	if (err < 0 && err != -EINPROGRESS)
		mirror_lost(m, -err);
	else
		engine_watch(&m->watch, m->fd, EPOLLOUT);
}

static void mirror_timer(struct timer *t)
{
	mirror_dial((struct mirror *)((char *)t - offsetof(struct mirror, timer)));
}

static struct mirror_leg *mirror_find(struct mirror *m, uint64_t stream, uint32_t leg)
{
	struct mirror_leg *l = m->legs;

	while (l && (l->stream != stream || l->leg != leg))
		l = l->next;
	return l;
}

static void mirror_attached(struct mirror *m)
{
	m->state = MIRROR_UP;
	m->lost_ns = 0;
	m->retry_ms = 0;
	ms_log(LOG_DEBUG, "attached to the mirror at %a port %u, %u legs", m->ip, m->port, m->active);
	for (struct mirror_leg *l = m->legs; l; l = l->next) {
		if (!l->conn)
			mirror_order_release(m, l);
		else if (l->conn->s.state == STREAM_BOTH)
			mirror_order(m, MS_MI_HALFCLOSE, l->stream, l->leg, 0);
	}
}

/* One frame without its length. False: it makes no sense. */
static bool mirror_frame(struct mirror *m, uint8_t *frame, size_t n)
{
	struct mirror_leg *l;
	struct ms_codec c;
	uint64_t stream, offset;
	uint32_t leg;
	uint8_t type, how;

	ms_codec_init(&c, frame, n);
	if (ms_get_u8(&c) != MS_WIRE_VERSION)
		return false;
	type = ms_get_u8(&c);
	if (type == MS_MI_ATTACHED) {
		mirror_attached(m);
		return true;
	}
	stream = ms_get_u64(&c);
	leg = ms_get_u32(&c);
	offset = ms_get_u64(&c);
	how = type == MS_MI_END ? ms_get_u8(&c) : 0;
	if (c.bad || (type != MS_MI_BYTES && type != MS_MI_END))
		return false;
	l = mirror_find(m, stream, leg);
	if (!l || !l->conn)
		return true; /* released meanwhile */
	if (type == MS_MI_END) {
		conn_mirror_end(l->conn, offset, how);
		return true;
	}
	if (!conn_mirror_bytes(l->conn, offset, c.at, (size_t)(c.end - c.at)))
		return false;
	if (l->conn && l->conn->carry.length < CARRY_LIMIT)
		mirror_ack(l->conn);
	return true;
}

static bool mirror_frames(struct mirror *m)
{
	size_t at = 0;

	while (m->in_have - at >= 4) {
		struct ms_codec c;
		uint32_t n;

		ms_codec_init(&c, m->in + at, 4);
		n = ms_get_u32(&c);
		if (n < 2 || n > MS_MIRROR_FRAME)
			return false;
		if (m->in_have - at - 4 < n)
			break;
		if (!mirror_frame(m, m->in + at + 4, n))
			return false;
		at += 4 + n;
	}
	m->in_have -= at;
	__builtin_memmove(m->in, m->in + at, m->in_have);
	return true;
}

static int mirror_write(struct mirror *m)
{
	uint8_t piece[4096];
	struct iovec iov = { piece, sizeof(piece) };

	while (m->out.length) {
		size_t n = carry_peek(&m->out, &iov);
		long sent = ms_send(m->fd, piece, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent == -EAGAIN)
			return 0;
		if (sent < 0)
			return (int)sent;
		carry_drop(&m->out, (size_t)sent);
	}
	engine_watch(&m->watch, m->fd, EPOLLIN);
	return 0;
}

static int mirror_connected(struct mirror *m)
{
	socklen_t size = sizeof(int);
	int error = 0;

	ms_getsockopt(m->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error)
		return -error;
	m->state = MIRROR_LISTED;
	mirror_put_list(m);
	return 0;
}

static void mirror_ready(struct watch *w, uint32_t events)
{
	struct mirror *m = (struct mirror *)((char *)w - offsetof(struct mirror, watch));
	long n = m->state == MIRROR_DIALLING ? mirror_connected(m) : 0;

	if (!n)
		n = mirror_write(m);
	if (!n && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = ms_read(m->fd, m->in + m->in_have, MIRROR_IN - m->in_have);
		if (n > 0) {
			m->in_have += (size_t)n;
			n = mirror_frames(m) ? 0 : -EPROTO;
		} else if (n == 0) {
			n = -ECONNRESET;
		}
	}
	if (n < 0 && n != -EAGAIN && n != -EINTR)
		mirror_lost(m, (int)-n);
}

struct mirror *mirror_create(uint32_t ip, uint16_t port, const uint8_t key[MS_TOKEN])
{
	struct mirror *m = mem_alloc(sizeof(*m));

	if (!m)
		return NULL;
	m->in = mem_alloc(MIRROR_IN);
	if (!m->in) {
		mem_free(m, sizeof(*m));
		return NULL;
	}
	m->ip = ip;
	m->port = port;
	__builtin_memcpy(m->key, key, MS_TOKEN);
	m->fd = -1;
	m->watch.ready = mirror_ready;
	m->timer.fire = mirror_timer;
	m->next = mirrors;
	mirrors = m;
	return m;
}

bool mirror_add(struct mirror *m, struct conn *c)
{
	struct mirror_leg *l = mem_alloc(sizeof(*l));

	if (!l)
		return false;
	*l = (struct mirror_leg){ .stream = c->s.id, .leg = c->s.leg, .conn = c, .next = m->legs };
	m->legs = l;
	m->active++;
	c->mirror = m;
	return true;
}

/* Their descriptors stayed at the former place, and the numbers may be others' by now: nothing is said before ATTACHED. */
void mirror_detach_all(void)
{
	for (struct mirror *m = mirrors; m; m = m->next) {
		engine_forget(&m->watch);
		core_own_fd(m->fd, false);
		m->fd = -1;
		mirror_down(m);
	}
}

void mirror_forked(void)
{
	while (mirrors) {
		engine_forget(&mirrors->watch);
		core_own_fd(mirrors->fd, false);
		mirrors->fd = -1;
		mirror_destroy(mirrors);
	}
}

void mirror_attach_all(void)
{
	for (struct mirror *m = mirrors, *next; m; m = next) {
		next = m->next;
		m->lost_ns = 0;
		m->retry_ms = 0;
		mirror_dial(m);
	}
}

int mirror_own_fds(int *fds, int max)
{
	int n = 0;

	for (struct mirror *m = mirrors; m; m = m->next)
		if (m->fd >= 0 && n < max)
			fds[n++] = m->fd;
	return n;
}
