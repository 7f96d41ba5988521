/* SPDX-License-Identifier: MIT */
#include "lib/control.h"

#include "lib/conn.h"
#include "lib/core.h"
#include "lib/kick.h"
#include "lib/kin.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/mirror.h"
#include "lib/move.h"
#include "lib/place.h"
#include "lib/sock.h"
#include "lib/subnet.h"
#include "lib/sys.h"
#include "lib/udp_way.h"

#include <errno.h>

enum { CONTROL_SMALL = 512, CONTROL_STATS = 16384, CONTROL_PATIENCE_MS = 60000 };

/* A packet that waits: to be sent, or to be handled. */
struct control_packet {
	struct control_packet *next;
	size_t size;
	int with; /* owned: the descriptor that came with it, or -1 */
	uint8_t bytes[];
};

struct control_queue {
	struct control_packet *first, *last; /* owned */
};

static int fd = -1;
static uint32_t requests;
static struct watch watch;
static struct timer replay_timer;
static struct control_queue unsent, kept;
static uint8_t incoming[MS_CTL_MAX];

static void control_replay_kept(struct timer *t);

int control_fd(void)
{
	return fd;
}

uint32_t control_request(void)
{
	return ++requests ? requests : ++requests;
}

/* Takes `with`. */
static bool queue_put(struct control_queue *q, const void *bytes, size_t n, int with)
{
	struct control_packet *p = mem_alloc(sizeof(*p) + n);

	if (!p) {
		if (with >= 0)
			ms_close(with);
		return false;
	}
	__builtin_memcpy(p->bytes, bytes, n);
	p->size = n;
	p->with = with;
	if (q->last)
		q->last->next = p;
	else
		q->first = p;
	q->last = p;
	return true;
}

static void queue_drop_first(struct control_queue *q)
{
	struct control_packet *p = q->first;

	q->first = p->next;
	if (!q->first)
		q->last = NULL;
	if (p->with >= 0)
		ms_close(p->with);
	mem_free(p, sizeof(*p) + p->size);
}

void control_begin(struct ms_codec *c, void *buf, size_t size, uint8_t type)
{
	ms_codec_init(c, buf, size);
	ms_put_u8(c, MS_WIRE_VERSION);
	ms_put_u8(c, type);
}

static long control_send_packet(const void *bytes, size_t n, const int *fds, unsigned count, int flags)
{
	char space[CMSG_SPACE(sizeof(int) * MS_FDS_MAX)];
	struct iovec iov = { (void *)bytes, n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count) {
		struct cmsghdr *head = (struct cmsghdr *)space;

		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int) * count);
		__builtin_memcpy(CMSG_DATA(head), fds, sizeof(int) * count);
		msg.msg_control = space;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * count);
	}
	return ms_sendmsg(fd, &msg, MSG_NOSIGNAL | flags);
}

void control_send(struct ms_codec *c, const void *buf)
{
	size_t n = (size_t)(c->at - (const uint8_t *)buf);
	long sent = -EAGAIN;

	if (c->bad || fd < 0)
		return;
	if (!unsent.first)
		sent = control_send_packet(buf, n, NULL, 0, MSG_DONTWAIT);
	if (sent == -EAGAIN && queue_put(&unsent, buf, n, -1))
		engine_watch(&watch, fd, EPOLLIN | EPOLLOUT);
	else if (sent < 0)
		ms_log(LOG_ERROR, "control socket: error %d", (int)-sent);
}

int control_send_quick(struct ms_codec *c, const void *buf)
{
	long sent = c->bad ? -EMSGSIZE
			   : control_send_packet(buf, (size_t)(c->at - (const uint8_t *)buf), NULL, 0, MSG_DONTWAIT);

	return sent < 0 ? (int)sent : 0;
}

int control_send_fd(struct ms_codec *c, const void *buf, int with)
{
	long sent = -EAGAIN;

	if (!unsent.first && !c->bad)
		sent = control_send_packet(buf, (size_t)(c->at - (const uint8_t *)buf), &with, 1, MSG_DONTWAIT);
	return sent < 0 ? (int)sent : 0;
}

int control_send_now(struct ms_codec *c, const void *buf, const int *fds, unsigned count)
{
	size_t n = (size_t)(c->at - (const uint8_t *)buf);
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	if (c->bad)
		return -EMSGSIZE;
	for (;;) {
		struct control_packet *first = unsent.first;
		long sent = first ? control_send_packet(first->bytes, first->size, NULL, 0, MSG_DONTWAIT)
				  : control_send_packet(buf, n, fds, count, MSG_DONTWAIT);

		if (sent == -EAGAIN)
			ms_poll(&p, 1, 1000);
		else if (sent < 0 && sent != -EINTR)
			return (int)sent;
		else if (sent >= 0 && first)
			queue_drop_first(&unsent);
		else if (sent >= 0)
			return 0;
	}
}

void control_flush_now(void)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	while (fd >= 0 && unsent.first) {
		long sent = control_send_packet(unsent.first->bytes, unsent.first->size, NULL, 0, MSG_DONTWAIT);

		if (sent == -EAGAIN)
			ms_poll(&p, 1, 1000);
		else if (sent != -EINTR)
			queue_drop_first(&unsent);
	}
}

static void control_flush(void)
{
	while (unsent.first) {
		long sent = control_send_packet(unsent.first->bytes, unsent.first->size, NULL, 0, MSG_DONTWAIT);

		if (sent == -EAGAIN)
			return;
		queue_drop_first(&unsent);
	}
	engine_watch(&watch, fd, EPOLLIN);
}

/* One packet and at most one descriptor with it. */
static long control_take(void *buf, size_t size, int *with)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int) * 8)];
	} anc;
	struct iovec iov = { buf, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &anc, .msg_controllen = sizeof(anc) };
	long n = ms_recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	*with = -1;
	if (n <= 0)
		return n ? n : -EPIPE;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		int *fds = (int *)CMSG_DATA(c);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (unsigned i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			if (*with < 0)
				*with = fds[i];
			else
				ms_close(fds[i]);
		}
	}
	return n;
}

static long control_receive_with(void *buf, size_t size, int timeout_ms, int *with)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	long n = ms_poll(&p, 1, timeout_ms);

	*with = -1;
	if (n <= 0)
		return n == -EINTR ? 0 : n;
	n = control_take(buf, size, with);
	return n == -EAGAIN || n == -EINTR ? 0 : n;
}

long control_receive(void *buf, size_t size, int timeout_ms)
{
	int with;
	long n = control_receive_with(buf, size, timeout_ms, &with);

	if (with >= 0)
		ms_close(with);
	return n;
}

static void control_on_place(struct ms_codec *c)
{
	struct place p = { 0 };
	uint32_t request = ms_get_u32(c);

	p.status = ms_get_u8(c);
	p.member = ms_get_u32(c);
	p.real_ip = ms_get_u32(c);
	p.port = ms_get_u16(c);
	p.m = ms_get_u64(c);
	ms_get_bytes(c, p.cookie, MS_TOKEN);
	p.called = c->at < c->end ? ms_get_u32(c) : 0;
	if (!c->bad && !udp_way_placed(request, &p))
		conn_placed(request, &p);
}

static void control_on_relay(struct ms_codec *c)
{
	uint32_t from = ms_get_u32(c);
	struct stream_msg msg;

	if (!c->bad && udp_way_message(from, c->at, (size_t)(c->end - c->at)))
		return;
	if (!c->bad && relink_decode(c->at, (size_t)(c->end - c->at), &msg))
		conn_message(from, &msg);
	else
		ms_log(LOG_WARN, "a relink message from member %u cannot be read", from);
}

static bool control_stream_counts(const struct conn *n)
{
	return !(n->sock && n->sock->inherited) && n->phase == CONN_OPEN && n->s.state != STREAM_OVER;
}

static void control_on_stats(void)
{
	enum { STREAM_ENTRY = 20, STREAMS_TOLD = (CONTROL_STATS - 64) / STREAM_ENTRY };
	static uint8_t buf[CONTROL_STATS]; /* too much for a small stack; the lock is held */
	uint32_t streams = 0, told = 0;
	struct ms_codec c;

	for (struct conn *n = conn_first(); n; n = n->next)
		streams += control_stream_counts(n);
	control_begin(&c, buf, sizeof(buf), MS_M_STATS);
	ms_put_u32(&c, streams);
	ms_put_u32(&c, mirror_count());
	ms_put_u64(&c, core.relinks);
	ms_put_u64(&c, core.carried);
	ms_put_u32(&c, streams < STREAMS_TOLD ? streams : STREAMS_TOLD);
	for (struct conn *n = conn_first(); n && told < STREAMS_TOLD; n = n->next) {
		if (!control_stream_counts(n))
			continue;
		ms_put_u32(&c, n->peer_member);
		ms_put_u64(&c, n->s.written);
		ms_put_u64(&c, n->s.taken);
		told++;
	}
	control_send(&c, buf);
}

static void control_on_ended(uint32_t member)
{
	conn_member_ended(member);
	udp_way_member_ended(member);
}

static void control_on_outcome(struct ms_codec *c)
{
	uint64_t m = ms_get_u64(c);

	move_outcome(m, ms_get_u8(c));
}

static void control_on_let_go(struct ms_codec *c)
{
	uint64_t stream = ms_get_u64(c);
	uint32_t owner = ms_get_u32(c), others = ms_get_u32(c);

	if (!c->bad)
		kin_let_go(stream, owner, others);
}

/* Takes `with`. */
static void control_handle(uint8_t *packet, size_t n, int with)
{
	struct ms_codec c;
	uint8_t version, type;

	ms_codec_init(&c, packet, n);
	version = ms_get_u8(&c);
	type = ms_get_u8(&c);
	if (c.bad || version != MS_WIRE_VERSION) {
		ms_log(LOG_ERROR, "control socket: a packet of version %u", version);
		type = 0;
	}
	switch (type) {
	case MS_D_PLACE:
		control_on_place(&c);
		break;
	case MS_D_RELAY:
		control_on_relay(&c);
		break;
	case MS_D_ENDED:
		control_on_ended(ms_get_u32(&c));
		break;
	case MS_D_STATS:
		control_on_stats();
		break;
	case MS_D_MOVE:
		move_begin(&c, with);
		with = -1;
		break;
	case MS_D_OUTCOME:
		control_on_outcome(&c);
		break;
	case MS_D_LET_GO:
		control_on_let_go(&c);
		break;
	case MS_D_LAST:
		kin_on_last(&c);
		break;
	case MS_D_ASKED:
		kin_asked(&c, with);
		with = -1;
		break;
	case MS_D_KICK:
	case MS_D_SERVING_OK:
		break;
	default:
		ms_log(LOG_DEBUG, "control socket: packet of type %u", type);
	}
	if (with >= 0)
		ms_close(with);
}

static void control_ready(struct watch *w, uint32_t events)
{
	if (events & EPOLLOUT)
		control_flush();
	for (int i = 0; i < 16 && !engine_paused() && fd >= 0; i++) {
		int with;
		long n = control_take(incoming, sizeof(incoming), &with);

		if (n == -EAGAIN || n == -EINTR)
			return;
		if (n < 0) {
			/* The daemon is gone: it ends its members itself; streams go on until then. */
			ms_log(LOG_INFO, "control socket: closed by msdaemon (%d)", (int)-n);
			control_close();
			return;
		}
		control_handle(incoming, (size_t)n, with);
	}
}

void control_quiet(bool quiet)
{
	if (fd >= 0 && quiet)
		ms_fcntl(fd, F_SETFL, O_NONBLOCK);
	else if (fd >= 0)
		kick_attach(fd);
}

bool control_has_come(void)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return fd >= 0 && ms_poll(&p, 1, 0) == 1;
}

void control_look(void)
{
	if (fd >= 0)
		control_ready(&watch, EPOLLIN);
}

void control_catch_up(void)
{
	control_replay();
	while (control_has_come() && !engine_paused())
		control_look();
}

void control_keep(const void *packet, size_t n)
{
	queue_put(&kept, packet, n, -1);
}

static void control_replay_kept(struct timer *t)
{
	control_replay();
}

void control_replay(void)
{
	while (kept.first) {
		size_t n = kept.first->size;
		int with = kept.first->with;

		__builtin_memcpy(incoming, kept.first->bytes, n);
		kept.first->with = -1;
		queue_drop_first(&kept);
		control_handle(incoming, n, with);
	}
}

void control_lookup(uint32_t request, uint32_t virtual_ip, uint64_t newer)
{
	uint8_t buf[CONTROL_SMALL];
	struct ms_codec c;

	control_begin(&c, buf, sizeof(buf), MS_M_LOOKUP);
	ms_put_u32(&c, request);
	ms_put_u32(&c, virtual_ip);
	ms_put_u64(&c, newer);
	control_send(&c, buf);
}

void control_lookup_abroad(uint32_t request, uint32_t virtual_ip, const char *card)
{
	uint8_t buf[CONTROL_SMALL];
	struct ms_codec c;

	control_begin(&c, buf, sizeof(buf), MS_M_LOOKUP_ABROAD);
	ms_put_u32(&c, request);
	ms_put_u32(&c, virtual_ip);
	ms_put_str(&c, card);
	control_send(&c, buf);
}

void control_relay(uint32_t to, const void *bytes, size_t n)
{
	uint8_t buf[CONTROL_SMALL];
	struct ms_codec c;

	control_begin(&c, buf, sizeof(buf), MS_M_RELAY);
	ms_put_u32(&c, to);
	ms_put_bytes(&c, bytes, n);
	control_send(&c, buf);
}

int control_call(struct ms_codec *out, const void *buf, int passed, uint8_t answer, struct ms_codec *in, int *with)
{
	int err = control_send_now(out, buf, &passed, passed >= 0);
	uint64_t until = ms_clock_ns(CLOCK_MONOTONIC) + CONTROL_PATIENCE_MS * 1000000ull;

	*with = -1;
	while (!err) {
		long n = control_receive_with(incoming, sizeof(incoming), 1000, with);

		if (n < 0)
			return (int)n;
		if (n >= 2 && incoming[0] == MS_WIRE_VERSION && incoming[1] == answer) {
			ms_codec_init(in, incoming + 2, (size_t)n - 2);
			return 0;
		}
		/* It may be the order to move: a member can be moved from its HELLO on. */
		if (n > 0)
			queue_put(&kept, incoming, (size_t)n, *with);
		*with = -1;
		if (n > 0 && engine_fd() >= 0) {
			replay_timer.fire = control_replay_kept;
			engine_timer_set(&replay_timer, 0);
		}
		if (ms_clock_ns(CLOCK_MONOTONIC) > until)
			return -ETIMEDOUT;
	}
	return err;
}

static int control_exchange(struct ms_codec *out, const void *buf, uint8_t answer, struct ms_codec *in)
{
	int with, err = control_call(out, buf, -1, answer, in, &with);

	if (with >= 0)
		ms_close(with);
	return err;
}

/* The job's virtual subnets; a daemon that names none has the usual one. */
static void control_take_subnets(struct ms_codec *in)
{
	unsigned n = in->at < in->end ? ms_get_u8(in) : 0;

	if (n == 0 && !core.kin)
		subnet_add(SUBNET_DEFAULT_NET, SUBNET_DEFAULT_BITS);
	for (unsigned i = 0; i < n && !in->bad; i++) {
		uint32_t net = ms_get_u32(in);
		unsigned bits = ms_get_u8(in);

		if (!core.kin) /* which knows them by its parent */
			subnet_add(net, bits);
	}
}

int control_attach(int control)
{
	uint8_t buf[CONTROL_SMALL];
	struct ms_codec out, in;
	int err;

	fd = control;
	core_own_fd(fd, true);
	ms_fcntl(fd, F_SETFD, FD_CLOEXEC);
	control_begin(&out, buf, sizeof(buf), MS_M_HELLO);
	ms_put_u32(&out, (uint32_t)ms_getpid());
	err = control_exchange(&out, buf, MS_D_WELCOME, &in);
	if (err)
		return err;
	core.id = ms_get_u32(&in);
	ms_get_str(&in, core.job, sizeof(core.job));
	ms_get_str(&in, core.host, sizeof(core.host));
	core.real_ip = ms_get_u32(&in);
	core.virtual_ip = ms_get_u32(&in);
	core.self.m = ms_get_u64(&in);
	core.port_low = ms_get_u16(&in);
	core.port_high = ms_get_u16(&in);
	control_take_subnets(&in);
	if (in.at < in.end)
		ms_get_str(&in, core.card, sizeof(core.card));
	return in.bad ? -EPROTO : 0;
}

int control_serve(void)
{
	uint8_t buf[CONTROL_SMALL];
	struct ms_codec out, in;

	control_begin(&out, buf, sizeof(buf), MS_M_SERVING);
	ms_put_u16(&out, core.data_port);
	ms_put_bytes(&out, core.cookie, MS_TOKEN);
	return control_exchange(&out, buf, MS_D_SERVING_OK, &in);
}

void control_watch(void)
{
	watch.lasting = true;
	watch.ready = control_ready;
	kick_attach(fd);
	engine_forget(&watch);
	engine_watch(&watch, fd, unsent.first ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void control_forked(int child_fd)
{
	engine_forget(&watch);
	while (unsent.first)
		queue_drop_first(&unsent);
	while (kept.first)
		queue_drop_first(&kept);
	fd = child_fd;
	if (fd < 0)
		return;
	core_own_fd(fd, true);
	kick_attach(fd);
}

void control_close(void)
{
	if (fd < 0)
		return;
	engine_watch(&watch, fd, 0);
	core_own_fd(fd, false);
	ms_close(fd);
	fd = -1;
	while (unsent.first)
		queue_drop_first(&unsent);
}
