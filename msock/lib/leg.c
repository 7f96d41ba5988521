/* SPDX-License-Identifier: MIT */
#include "lib/leg.h"

#include "lib/log.h"
#include "lib/sys.h"
#include "lib/tcp_state.h"
#include "proto/codec.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

static void leg_put_fields(struct ms_codec *c, const struct leg_frame *f)
{
	ms_put_u64(c, f->stream);
	if (f->type == MS_LEG_CONNECT) {
		ms_put_u32(c, f->from_member);
		ms_put_u64(c, f->m);
		ms_put_u32(c, f->from_ip);
		ms_put_u16(c, f->from_port);
		ms_put_u32(c, f->to_ip);
		ms_put_u16(c, f->to_port);
		ms_put_bytes(c, f->token, MS_TOKEN);
	} else if (f->type != MS_LEG_CONFIRM) {
		ms_put_u32(c, f->leg);
		ms_put_u64(c, f->m);
		if (f->type == MS_LEG_HELLO)
			ms_put_bytes(c, f->token, MS_TOKEN);
		if (f->type == MS_LEG_REFUSE) {
			ms_put_u8(c, f->reason);
		} else {
			ms_put_u64(c, f->cut);
			ms_put_u8(c, f->app_fin);
		}
	}
}

size_t leg_encode(uint8_t buf[LEG_FRAME_MAX], const struct leg_frame *f)
{
	struct ms_codec c;
	size_t n;

	ms_codec_init(&c, buf + LEG_HEAD, LEG_FRAME_MAX - LEG_HEAD);
	leg_put_fields(&c, f);
	n = (size_t)(c.at - buf);
	ms_codec_init(&c, buf, LEG_HEAD);
	ms_put_u32(&c, MS_LEG_MAGIC);
	ms_put_u8(&c, MS_WIRE_VERSION);
	ms_put_u8(&c, f->type);
	ms_put_u16(&c, (uint16_t)(n - LEG_HEAD));
	return n;
}

/* Bytes of the whole frame whose head this is; 0: not one of ours. */
static size_t leg_size(const uint8_t head[LEG_HEAD])
{
	struct ms_codec c;
	size_t n;

	ms_codec_init(&c, (uint8_t *)head, LEG_HEAD);
	if (ms_get_u32(&c) != MS_LEG_MAGIC || ms_get_u8(&c) != MS_WIRE_VERSION)
		return 0;
	ms_get_u8(&c);
	n = LEG_HEAD + ms_get_u16(&c);
	return n <= LEG_FRAME_MAX ? n : 0;
}

bool leg_decode(const uint8_t *buf, size_t n, struct leg_frame *f)
{
	struct ms_codec c;

	if (n < LEG_HEAD || leg_size(buf) != n)
		return false;
	*f = (struct leg_frame){ .type = buf[5] };
	ms_codec_init(&c, (uint8_t *)buf + LEG_HEAD, n - LEG_HEAD);
	f->stream = ms_get_u64(&c);
	if (f->type == MS_LEG_CONNECT) {
		f->from_member = ms_get_u32(&c);
		f->m = ms_get_u64(&c);
		f->from_ip = ms_get_u32(&c);
		f->from_port = ms_get_u16(&c);
		f->to_ip = ms_get_u32(&c);
		f->to_port = ms_get_u16(&c);
		ms_get_bytes(&c, f->token, MS_TOKEN);
	} else if (f->type != MS_LEG_CONFIRM) {
		f->leg = ms_get_u32(&c);
		f->m = ms_get_u64(&c);
		if (f->type == MS_LEG_HELLO)
			ms_get_bytes(&c, f->token, MS_TOKEN);
		if (f->type == MS_LEG_REFUSE) {
			f->reason = ms_get_u8(&c);
		} else {
			f->cut = ms_get_u64(&c);
			f->app_fin = ms_get_u8(&c);
		}
	}
	return !c.bad && c.at == c.end && f->type >= MS_LEG_CONNECT && f->type <= MS_LEG_REFUSE;
}

int leg_read(int fd, struct leg_reader *r, struct leg_frame *frame)
{
	size_t want = LEG_HEAD;

	for (;;) {
		long n;

		if (r->have >= LEG_HEAD) {
			want = leg_size(r->buf);
			if (!want)
				return -EPROTO;
			if (r->have == want)
				break;
		}
		n = ms_read(fd, r->buf + r->have, want - r->have);
		if (n == -EAGAIN)
			return 0;
		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n ? (int)n : -ECONNRESET;
		r->have += (unsigned)n;
	}
	r->have = 0;
	return leg_decode(r->buf, want, frame) ? 1 : -EPROTO;
}

int leg_send(int fd, const struct leg_frame *frame)
{
	uint8_t buf[LEG_FRAME_MAX];
	size_t n = leg_encode(buf, frame);
	long sent = ms_send(fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);

	return sent == (long)n ? 0 : sent < 0 ? (int)sent : -EIO;
}

void leg_prepare(int fd)
{
	int one = 1;

	ms_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	ms_setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &one,
		      sizeof(one)); /* else the urgent byte is counted and never read */
}

/* Of TCP; 0: it is none. */
static uint8_t leg_state(int fd)
{
	uint8_t state = 0; /* the first field of struct tcp_info */
	socklen_t size = sizeof(state);

	return ms_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &size) ? 0 : state;
}

bool leg_is_dead(int fd)
{
	return leg_state(fd) == TCP_CLOSE;
}

bool leg_is_shut(int fd)
{
	uint8_t state = leg_state(fd);

	return state && !tcp_fin_received(state);
}

void leg_resets(int fd)
{
	struct linger hard = { .l_onoff = 1 };

	ms_setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
}

void leg_ack(int fd)
{
	int one = 1;

	ms_setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
}

int leg_socket(void)
{
	int fd = ms_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd >= 0)
		leg_prepare(fd);
	return fd;
}

static void dial_finish(struct dial *d, int error, const struct leg_frame *answer)
{
	int fd = d->fd;

	engine_watch(&d->watch, fd, 0);
	d->fd = -1;
	if (error && fd >= 0) {
		ms_close(fd);
		fd = -1;
	}
	d->done(d, fd, error, answer);
}

static int dial_connected(struct dial *d)
{
	socklen_t size = sizeof(int);
	int error = 0;

	ms_getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error)
		return -error;
	error = leg_send(d->fd, &d->frame);
	if (!error) {
		d->sent = true;
		engine_watch(&d->watch, d->fd, EPOLLIN);
	}
	return error;
}

static void dial_ready(struct watch *w, uint32_t events)
{
	struct dial *d = (struct dial *)((char *)w - offsetof(struct dial, watch));
	struct leg_frame answer;
	int got;

	if (!d->sent) {
		int error = dial_connected(d);

		if (error)
			dial_finish(d, error, NULL);
		return;
	}
	got = leg_read(d->fd, &d->in, &answer);
	if (got == 1 && answer.type != MS_LEG_ACCEPT && answer.type != MS_LEG_REFUSE)
		got = -EPROTO;
	if (got == 1)
		dial_finish(d, 0, &answer);
	else if (got < 0)
		dial_finish(d, got, NULL);
}

void dial_init(struct dial *d, void (*done)(struct dial *, int, int, const struct leg_frame *))
{
	*d = (struct dial){ .fd = -1, .watch.ready = dial_ready, .done = done };
}

int dial_start(struct dial *d, uint32_t ip, uint16_t port, const struct leg_frame *frame)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(ip) };
	int err;

	d->fd = leg_socket();
	if (d->fd < 0)
		return d->fd;
	d->sent = false;
	d->in.have = 0;
	d->frame = *frame;
	err = ms_connect(d->fd, &to, sizeof(to));
	if (err < 0 && err != -EINPROGRESS && err != -EINTR) {
		ms_close(d->fd);
		d->fd = -1;
		return err;
	}
	engine_watch(&d->watch, d->fd, EPOLLOUT);
	return 0;
}

void dial_hangup(struct dial *d)
{
	if (d->fd < 0)
		return;
	engine_watch(&d->watch, d->fd, 0);
	ms_close(d->fd);
	d->fd = -1;
}
