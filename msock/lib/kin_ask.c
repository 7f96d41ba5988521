/* SPDX-License-Identifier: MIT */
/* What a forked child asks of its family's root: listeners are there, whoever made them. */
#include "lib/kin.h"

#include "lib/conn.h"
#include "lib/conn_ops.h"
#include "lib/control.h"
#include "lib/core.h"
#include "lib/listener.h"
#include "lib/sock.h"
#include "lib/sys.h"

#include <arpa/inet.h>
#include <errno.h>

enum {
	KIN_PACKET = 256,
	KIN_CARRY = 32768, /* bytes that may be carried by a connection which a child accepts */
};

/* To the root. The descriptor of the answer, -1: none; the errno value is its first field. */
static int kin_ask(struct ms_codec *out, const void *buf, uint32_t request, int fd, struct ms_codec *in, int *with)
{
	int err = control_call(out, buf, fd, MS_D_ANSWER, in, with);

	if (!err && ms_get_u32(in) != request)
		err = -EPROTO;
	if (!err)
		err = -(int)ms_get_u32(in);
	if (!err && in->bad)
		err = -EPROTO;
	if (err && *with >= 0) {
		ms_close(*with);
		*with = -1;
	}
	return err;
}

static uint32_t kin_ask_begin(struct ms_codec *c, uint8_t *buf, enum ms_kin_ask what)
{
	uint32_t request = control_request();

	control_begin(c, buf, KIN_PACKET, MS_M_ASK);
	ms_put_u32(c, request);
	ms_put_u8(c, (uint8_t)what);
	return request;
}

/* The pair's library end goes to the root; what is to be seen of it here is the number. */
static int kin_listen_at_root(struct sock *s, unsigned backlog)
{
	uint8_t buf[KIN_PACKET];
	struct ms_codec out, in;
	uint32_t request = kin_ask_begin(&out, buf, MS_KIN_LISTEN);
	int with = -1, err;

	ms_put_u16(&out, s->port);
	ms_put_u32(&out, backlog);
	ms_put_u64(&out, s->ino);
	err = kin_ask(&out, buf, request, s->fd, &in, &with);
	if (!err)
		s->port = ms_get_u16(&in);
	if (with >= 0)
		ms_close(with);
	return err;
}

int kin_listen(struct sock *s, int fd, unsigned backlog)
{
	int flags = (int)ms_fcntl(fd, F_GETFL, 0), app, err = kin_join();
	uint64_t ino = s->ino;

	if (!err)
		err = sock_pair_open(s, &app);
	if (err)
		return err;
	err = kin_listen_at_root(s, backlog);
	sock_close_own(s);
	if (err) {
		sock_rename(s, ino);
	} else {
		ms_fcntl(app, F_SETFL, flags & (O_NONBLOCK | O_ASYNC));
		sock_options_apply(s, app, true);
		sock_replace_file(s, ino, fd, app);
		s->number = fd;
		s->kind = SOCK_IS_LISTENER;
	}
	ms_close(app);
	return err;
}

static void kin_put_address(struct ms_codec *c, const struct sockaddr_in *a)
{
	ms_put_u32(c, ntohl(a->sin_addr.s_addr));
	ms_put_u16(c, ntohs(a->sin_port));
}

static struct sockaddr_in kin_get_address(struct ms_codec *c)
{
	struct sockaddr_in a = { .sin_family = AF_INET };

	a.sin_addr.s_addr = htonl(ms_get_u32(c));
	a.sin_port = htons(ms_get_u16(c));
	return a;
}

static struct conn *kin_get_conn(struct ms_codec *in, int leg)
{
	struct conn *c = conn_create(CONN_OPEN);
	uint64_t stream = ms_get_u64(in);
	unsigned end = ms_get_u8(in);

	if (!c)
		return NULL;
	c->heir_of = ms_get_u32(in);
	c->peer_member = ms_get_u32(in);
	conn_rename(c, stream, end);
	c->s.leg = ms_get_u32(in);
	c->s.written = ms_get_u64(in);
	c->s.taken = ms_get_u64(in);
	c->local = kin_get_address(in);
	c->peer = kin_get_address(in);
	c->fd = leg;
	c->heir = true;
	if (!in->bad && (in->at == in->end || carry_put(&c->carry, in->at, (size_t)(in->end - in->at))))
		return c;
	conn_destroy(c);
	return NULL;
}

struct conn *kin_accept(int fd, int *err)
{
	uint8_t buf[KIN_PACKET];
	struct ms_codec out, in;
	uint32_t request;
	struct conn *c;
	int with = -1;

	*err = kin_join();
	if (*err)
		return NULL;
	request = kin_ask_begin(&out, buf, MS_KIN_ACCEPT);
	*err = kin_ask(&out, buf, request, fd, &in, &with);
	if (*err || with < 0)
		return NULL;
	c = kin_get_conn(&in, with);
	if (c)
		kin_say_heir(c);
	else
		*err = -ENOMEM;
	return c;
}

/* May go to another process: it is one leg, and little else. */
static bool kin_may_give(const struct conn *c)
{
	return c->phase == CONN_OPEN && c->s.state == STREAM_STEADY && !c->s.self->moving && !c->confirm_left &&
	       c->carry.length <= KIN_CARRY && !c->s.at_end && !c->s.last_leg && !c->s.held;
}

/* The oldest that may go; *left: others may. */
static struct conn *kin_pop(struct listener *l, bool *left)
{
	struct conn *c = l->first, *before = NULL;

	while (c && !kin_may_give(c)) {
		before = c;
		c = c->queue_next;
	}
	*left = false;
	if (!c)
		return NULL;
	for (struct conn *n = c->queue_next; n; n = n->queue_next)
		*left = *left || kin_may_give(n);
	if (before)
		before->queue_next = c->queue_next;
	else
		l->first = c->queue_next;
	if (l->last == c)
		l->last = before;
	l->held--;
	c->listener = NULL;
	return c;
}

/* Nobody is to try before there is something to be had: see kin_steady. */
static void kin_take_tokens(int fd)
{
	char tokens[64];

	while (ms_recv(fd, tokens, sizeof(tokens), MSG_DONTWAIT) > 0)
		;
}

void kin_steady(struct conn *c)
{
	if (c->listener && c->listener->sock && kin_may_give(c))
		sock_listener_tell(c->listener->sock);
}

/* What is carried ends the packet. */
static void kin_put_carry(struct ms_codec *out, struct carry *carry)
{
	struct iovec iov = { out->at, (size_t)(out->end - out->at) };

	out->at += carry_take(carry, &iov, 1);
}

static uint32_t kin_give(struct ms_codec *out, uint32_t to, int number, int *leg, struct conn **given)
{
	struct sock *s = sock_find(number);
	struct conn *c;
	bool left;

	if (!s || s->kind != SOCK_IS_LISTENER || !s->listener)
		return EINVAL;
	c = kin_pop(s->listener, &left);
	if (!left)
		kin_take_tokens(number);
	if (!c)
		return EAGAIN;
	ms_put_u32(out, 0);
	ms_put_u64(out, c->s.id);
	ms_put_u8(out, c->s.end);
	ms_put_u32(out, core.id);
	ms_put_u32(out, c->peer_member);
	ms_put_u32(out, c->s.leg);
	ms_put_u64(out, c->s.written);
	ms_put_u64(out, c->s.taken);
	kin_put_address(out, &c->local);
	kin_put_address(out, &c->peer);
	kin_put_carry(out, &c->carry);
	kin_note_heir(c, 0, to, false);
	*leg = c->fd;
	*given = c;
	return 0;
}

static uint32_t kin_serve(struct ms_codec *out, struct ms_codec *in, int own)
{
	uint16_t port = ms_get_u16(in);
	uint32_t backlog = ms_get_u32(in);
	uint64_t ino = ms_get_u64(in);
	int error = 0;
	struct sock *s;

	if (in->bad || own < 0)
		return EPROTO;
	if (port)
		sock_free_port(port);
	if (port && listener_port_taken(port))
		return EADDRINUSE;
	s = sock_create(own, AF_INET, 0);
	if (!s)
		return ENOMEM;
	s->listener = listener_open_for(s, port, backlog, &error);
	if (!s->listener) {
		sock_destroy(s);
		return (uint32_t)error;
	}
	s->port = s->listener->port;
	s->kind = SOCK_IS_LISTENER;
	s->number = -1;
	sock_rename(s, ino);
	sock_adopt_own(s, own);
	sock_sync(s);
	ms_put_u32(out, 0);
	ms_put_u16(out, s->port);
	return 0;
}

void kin_asked(struct ms_codec *in, int with)
{
	uint32_t from = ms_get_u32(in), request = ms_get_u32(in), error;
	unsigned what = ms_get_u8(in);
	static uint8_t buf[KIN_PACKET + KIN_CARRY];
	struct conn *given = NULL;
	struct ms_codec out;
	int leg = -1;

	control_begin(&out, buf, sizeof(buf), MS_M_ANSWER);
	ms_put_u32(&out, from);
	ms_put_u32(&out, request);
	if (what == MS_KIN_ACCEPT && with >= 0) {
		error = kin_give(&out, from, with, &leg, &given);
	} else if (what == MS_KIN_LISTEN) {
		error = kin_serve(&out, in, with);
		with = error ? with : -1;
	} else {
		error = EPROTO;
	}
	if (error)
		ms_put_u32(&out, error);
	control_send_now(&out, buf, &leg, leg >= 0);
	if (given)
		conn_destroy(given);
	if (with >= 0)
		ms_close(with);
}
