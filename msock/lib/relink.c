/* SPDX-License-Identifier: MIT */
#include "lib/conn_ops.h"

#include "lib/control.h"
#include "lib/core.h"
#include "lib/kin.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/mirror.h"
#include "lib/move.h"
#include "lib/sock.h"
#include "lib/sys.h"

#include <errno.h>

enum {
	RELINK_REPEAT_MS = 100, /* the first repeat; doubled each time */
	RELINK_REPEAT_MAX_MS = 1000,
	RELINK_ENDED_MS = 3000, /* for the answer to a dial of a member that has ended */
	RELINK_TOMBS = 4096,
};

/* A stream that ended here; its peer may not know yet (rule 6). */
struct tomb {
	uint64_t id, cut, taken;
	uint32_t leg;
	bool app_fin, broken;
};

static struct tomb tombs[RELINK_TOMBS];
static unsigned tombs_made;

struct relink_local {
	struct relink_local *next;
	struct stream_msg msg;
	unsigned end; /* to which */
};

static struct relink_local *local_first, *local_last;
static struct timer local_timer;

static void relink_say_local(const struct stream *s, const struct stream_msg *msg);

static struct conn *relink_conn(struct stream *s)
{
	return (struct conn *)((char *)s - offsetof(struct conn, s));
}

size_t relink_encode(uint8_t buf[RELINK_MESSAGE], const struct stream_msg *msg)
{
	struct ms_codec c;

	ms_codec_init(&c, buf, RELINK_MESSAGE);
	ms_put_u8(&c, MS_WIRE_VERSION);
	ms_put_u8(&c, msg->type);
	ms_put_u64(&c, msg->stream);
	ms_put_u32(&c, msg->leg);
	ms_put_u64(&c, msg->m);
	switch (msg->type) {
	case MS_RL_ACK:
		ms_put_u64(&c, msg->cut);
		ms_put_u8(&c, msg->app_fin);
		break;
	case MS_RL_FLUSHED:
		ms_put_u64(&c, msg->taken);
		break;
	case MS_RL_OFFER:
		ms_put_u32(&c, msg->ip);
		ms_put_u16(&c, msg->port);
		ms_put_bytes(&c, msg->token, MS_TOKEN);
		break;
	case MS_RL_CLOSED:
		ms_put_u64(&c, msg->cut);
		ms_put_u64(&c, msg->taken);
		ms_put_u8(&c, msg->app_fin);
		break;
	case MS_RL_HEIR:
		ms_put_u8(&c, msg->app_fin); /* fall through */
	case MS_RL_HEIR_IS:
	case MS_RL_BOUND:
		ms_put_u32(&c, msg->pids[0]);
		break;
	case MS_RL_SHARED:
		ms_put_u32(&c, msg->pids[0]);
		ms_put_u32(&c, msg->pids[1]);
		break;
	default:
		break;
	}
	return (size_t)(c.at - buf);
}

void relink_say(uint32_t to, const struct stream_msg *msg)
{
	uint8_t buf[RELINK_MESSAGE];

	ms_log(LOG_DATA, "to %u: relink message %u of stream %lx leg %u", to, msg->type, msg->stream, msg->leg);
	control_relay(to, buf, relink_encode(buf, msg));
}

bool relink_decode(const void *bytes, size_t n, struct stream_msg *msg)
{
	struct ms_codec c;

	*msg = (struct stream_msg){ 0 };
	ms_codec_init(&c, (void *)bytes, n);
	if (ms_get_u8(&c) != MS_WIRE_VERSION)
		return false;
	msg->type = ms_get_u8(&c);
	msg->stream = ms_get_u64(&c);
	msg->leg = ms_get_u32(&c);
	msg->m = ms_get_u64(&c);
	switch (msg->type) {
	case MS_RL_ACK:
		msg->cut = ms_get_u64(&c);
		msg->app_fin = ms_get_u8(&c);
		break;
	case MS_RL_FLUSHED:
		msg->taken = ms_get_u64(&c);
		break;
	case MS_RL_OFFER:
		msg->ip = ms_get_u32(&c);
		msg->port = ms_get_u16(&c);
		ms_get_bytes(&c, msg->token, MS_TOKEN);
		break;
	case MS_RL_CLOSED:
		msg->cut = ms_get_u64(&c);
		msg->taken = ms_get_u64(&c);
		msg->app_fin = ms_get_u8(&c);
		break;
	case MS_RL_HEIR:
		msg->app_fin = ms_get_u8(&c); /* fall through */
	case MS_RL_HEIR_IS:
	case MS_RL_BOUND:
		msg->pids[0] = ms_get_u32(&c);
		break;
	case MS_RL_SHARED:
		msg->pids[0] = ms_get_u32(&c);
		msg->pids[1] = ms_get_u32(&c);
		break;
	default:
		break;
	}
	return !c.bad && msg->type >= MS_RL_PREPARE && msg->type <= MS_RL_BOUND_OK;
}

/* What the stream asks to be done. */

static void ops_send(struct stream *s, struct stream_msg *msg)
{
	if (msg->type == MS_RL_OFFER) {
		msg->ip = core.real_ip;
		msg->port = core.data_port;
	}
	if (relink_conn(s)->peer_member == core.id)
		relink_say_local(s, msg);
	else
		relink_say(relink_conn(s)->peer_member, msg);
}

/* It is too late where the leg was reset before. */
static void ops_shut(struct stream *s)
{
	struct conn *c = relink_conn(s);

	c->late_shut = ms_shutdown(c->fd, SHUT_WR) == -ENOTCONN;
}

static void ops_dial(struct stream *s, const struct stream_msg *offer)
{
	struct conn *c = relink_conn(s);
	struct leg_frame hello = { .type = MS_LEG_HELLO,
				   .stream = s->id,
				   .leg = s->leg + 1,
				   .m = offer->m,
				   .cut = s->cut,
				   .app_fin = s->app_fin };
	int err;

	__builtin_memcpy(hello.token, offer->token, MS_TOKEN);
	err = dial_start(&c->dial, offer->ip, offer->port, &hello);
	if (err < 0) {
		ms_log(LOG_INFO, "stream %lx: cannot dial %a port %u: error %d", s->id, offer->ip, offer->port, -err);
		engine_timer_set(&c->timer, RELINK_REPEAT_MS * 1000000ull); /* finds it broken */
	}
}

static void ops_hangup(struct stream *s)
{
	dial_hangup(&relink_conn(s)->dial);
}

static void ops_halfclose(struct stream *s)
{
	mirror_halfclose(relink_conn(s));
}

static void relink_drop_old(struct conn *c)
{
	if (c->old_fd < 0)
		return;
	engine_watch(&c->old_leg, c->old_fd, 0);
	leg_resets(c->old_fd); /* empty both ways: no TIME_WAIT */
	ms_close(c->old_fd);
	c->old_fd = -1;
}

static void ops_settled(struct stream *s)
{
	struct conn *c = relink_conn(s);

	core.relinks++;
	if (s->mirrored)
		mirror_release(c);
	relink_drop_old(c);
}

static void ops_token(uint8_t token[MS_TOKEN])
{
	if (ms_getrandom(token, MS_TOKEN, 0) != MS_TOKEN)
		__builtin_trap();
}

/* Bytes were lost or doubled: nothing that goes on from here can be right. */
static void ops_mismatch(struct stream *s, const char *what, uint64_t here, uint64_t there)
{
	struct conn *c = relink_conn(s);

	ms_log(LOG_ERROR, "FATAL: stream %lx with member %u.%u, leg %u, %s: counts differ: %s: %lu here, %lu there",
	       s->id, MS_MEMBER_WORLD(c->peer_member), MS_MEMBER_RANK(c->peer_member), s->leg,
	       stream_state_name(s->state), what, here, there);
	ms_kill(ms_getpid(), SIGABRT);
	ms_exit_group(134);
}

/* How long this end could not be written: the stall of a move is the longest of these. */
static void relink_note_stall(struct conn *c)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);

	if (stream_may_write(&c->s) || c->s.app_fin) {
		if (c->told_ns && now - c->told_ns > move.stall_ns)
			move.stall_ns = now - c->told_ns;
		c->told_ns = 0;
	} else if (!c->told_ns) {
		c->told_ns = c->s.mirrored ? now - image_frozen_ns() : now;
	}
}

static void ops_changed(struct stream *s, enum stream_state old, const char *reason)
{
	struct conn *c = relink_conn(s);

	relink_note_stall(c);
	if (s->state == STREAM_STEADY || s->state == STREAM_OVER) {
		engine_timer_clear(&c->timer);
		if (c->closed || c->heir)
			engine_timer_set(&c->timer, 1000000); /* see conn_linger_on */
		if (s->state == STREAM_OVER) {
			if (s->mirrored && !s->error)
				mirror_halfclose(c); /* the peer has closed or ended, it knows (rule 17) */
			if (s->mirrored)
				mirror_release(c);
			relink_drop_old(c);
		}
		move_stream_steady();
		if (c->listener)
			kin_steady(c);
		return;
	}
	c->repeat_ms = RELINK_REPEAT_MS;
	engine_timer_set(&c->timer, RELINK_REPEAT_MS * 1000000ull);
}

const struct stream_ops conn_stream_ops = {
	.send = ops_send,
	.shut = ops_shut,
	.dial = ops_dial,
	.hangup = ops_hangup,
	.halfclose = ops_halfclose,
	.settled = ops_settled,
	.token = ops_token,
	.mismatch = ops_mismatch,
	.changed = ops_changed,
};

/* The kernel of a process that has ended answers at once; where its host is lost nothing does. */
static bool relink_waited(struct conn *c)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);

	if (!c->ended_ns)
		c->ended_ns = now;
	return now - c->ended_ns > RELINK_ENDED_MS * 1000000ull;
}

static void relink_timer(struct timer *t)
{
	struct conn *c = (struct conn *)((char *)t - offsetof(struct conn, timer));

	if (c->phase == CONN_PLACE) {
		conn_connect_again(c);
		return;
	}
	if (c->phase != CONN_OPEN)
		return;
	if (c->heir)
		kin_say_heir(c);
	if (c->s.state == STREAM_STEADY || c->s.state == STREAM_OVER) {
		if (c->closed)
			conn_linger_on(c);
		return;
	}
	c->repeat_ms = c->repeat_ms * 2 < RELINK_REPEAT_MAX_MS ? c->repeat_ms * 2 : RELINK_REPEAT_MAX_MS;
	engine_timer_set(&c->timer, c->repeat_ms * 1000000ull);
	if (c->s.dialling && c->s.ended && relink_waited(c))
		dial_hangup(&c->dial);
	if (c->s.dialling && c->dial.fd < 0) {
		stream_handle(&c->s, STREAM_REFUSED, NULL);
		conn_sync(c);
		return;
	}
	stream_repeat(&c->s);
}

/* The new leg goes under the stream's number; the one that was there is kept until it is settled. */
static int relink_put_leg(struct conn *c, int fd)
{
	int err;

	vsock_watch(&c->v, 0);
	engine_watch(&c->leg, c->fd, 0);
	if (!c->s.mirrored) {
		int old = (int)ms_fcntl(c->fd, F_DUPFD_CLOEXEC, 3);

		if (old < 0)
			return old;
		c->old_fd = core_raise_fd(old);
	}
	c->leg_shut = false;
	err = ms_dup3(fd, c->fd, O_CLOEXEC);
	ms_close(fd);
	return err < 0 ? err : 0;
}

static void relink_dialled(struct dial *d, int fd, int error, const struct leg_frame *answer)
{
	struct conn *c = (struct conn *)((char *)d - offsetof(struct conn, dial));
	struct stream_msg msg = { 0 };

	if (c->phase == CONN_DIAL) {
		conn_connected(c, fd, error, answer);
		return;
	}
	if (error || answer->type != MS_LEG_ACCEPT || answer->stream != c->s.id || answer->leg != c->s.leg + 1) {
		ms_log(LOG_DEBUG, "stream %lx leg %u: the dial came to nothing: %d", c->s.id, c->s.leg, error);
		if (fd >= 0)
			ms_close(fd);
		stream_handle(&c->s, STREAM_REFUSED, NULL);
		conn_sync(c);
		return;
	}
	if (relink_put_leg(c, fd)) {
		stream_break(&c->s, EMFILE, "no descriptor for the new leg");
		conn_sync(c);
		return;
	}
	leg_ack(c->fd);
	msg.cut = answer->cut;
	msg.app_fin = answer->app_fin;
	stream_handle(&c->s, STREAM_ACCEPT, &msg);
	conn_sync(c);
}

static struct stream_msg relink_hello(const struct leg_frame *f)
{
	struct stream_msg msg = { .stream = f->stream, .leg = f->leg, .m = f->m, .cut = f->cut, .app_fin = f->app_fin };

	__builtin_memcpy(msg.token, f->token, MS_TOKEN);
	return msg;
}

bool conn_offers(const struct conn *c, const struct leg_frame *f)
{
	struct stream_msg msg = relink_hello(f);

	return c->phase == CONN_OPEN && stream_offers(&c->s, &msg);
}

void conn_hello(struct conn *c, int fd, const struct leg_frame *f)
{
	struct stream_msg msg = relink_hello(f);
	struct leg_frame answer = { .type = MS_LEG_ACCEPT,
				    .stream = f->stream,
				    .leg = f->leg,
				    .m = f->m,
				    .cut = c->s.cut,
				    .app_fin = c->s.app_fin };

	if (!conn_offers(c, f)) {
		answer.type = MS_LEG_REFUSE;
		answer.reason = MS_REFUSE_NOT_OFFERED;
		leg_send(fd, &answer);
		ms_close(fd);
		return;
	}
	if (leg_send(fd, &answer)) {
		ms_close(fd);
		return;
	}
	if (relink_put_leg(c, fd))
		stream_break(&c->s, EMFILE, "no descriptor for the new leg");
	else
		stream_handle(&c->s, STREAM_HELLO, &msg);
	conn_sync(c);
}

void conn_ops_init(struct conn *c)
{
	c->leg.ready = conn_leg_ready;
	c->old_leg.ready = conn_old_leg_ready;
	c->timer.fire = relink_timer;
	dial_init(&c->dial, relink_dialled);
}

void conn_ops_bury(struct conn *c)
{
	struct tomb *t = &tombs[tombs_made++ % RELINK_TOMBS];

	if (!core.member || c->s.last_leg)
		return;
	if (core.kin && !c->s.error)
		kin_last_word(c, true);
	*t = (struct tomb){ .id = c->s.id,
			    .cut = c->s.written,
			    .taken = c->s.taken,
			    .leg = c->s.leg,
			    .app_fin = c->s.app_fin,
			    .broken = c->s.error != 0 };
}

/* What to say to PREPARE, OFFER or a nudge (stream.c) for a stream that has ended here; false: nothing. */
static bool relink_dead(const struct stream_msg *msg, const struct tomb *t, struct stream_msg *answer)
{
	if (msg->type != MS_RL_PREPARE && msg->type != MS_RL_OFFER && msg->type != MS_RL_ACK)
		return false;
	*answer = (struct stream_msg){ .type = MS_RL_GONE, .stream = msg->stream, .m = core.self.m };
	answer->leg = msg->type == MS_RL_OFFER ? msg->leg - 1 : msg->leg;
	if (t && !t->broken) {
		answer->type = MS_RL_CLOSED;
		answer->leg = t->leg;
		answer->cut = t->cut;
		answer->taken = t->taken;
		answer->app_fin = t->app_fin;
	}
	return true;
}

static void relink_answer_dead(uint32_t to, const struct stream_msg *msg, const struct tomb *t)
{
	struct stream_msg answer;

	if (relink_dead(msg, t, &answer))
		relink_say(to, &answer);
}

static const struct tomb *relink_tomb(uint64_t id)
{
	for (unsigned i = 0; i < RELINK_TOMBS && i < tombs_made; i++)
		if (tombs[(tombs_made - 1 - i) % RELINK_TOMBS].id == id)
			return &tombs[(tombs_made - 1 - i) % RELINK_TOMBS];
	return NULL;
}

/* A relink message proves that the connector saw ACCEPT (rule 32). */
static bool relink_confirm(struct conn *c, const struct stream_msg *msg)
{
	if (msg->type == MS_RL_GONE) {
		listener_drop(c->listener, c);
		conn_destroy(c);
		return false;
	}
	c->phase = CONN_OPEN;
	c->confirm_left = LEG_CONFIRM_SIZE - c->confirm.have;
	listener_show(c->listener, c);
	return true;
}

static void relink_message(struct conn *c, uint32_t from, const struct stream_msg *msg)
{
	static const uint8_t events[] = {
		[MS_RL_PREPARE] = STREAM_PREPARE, [MS_RL_ACK] = STREAM_ACK,   [MS_RL_FLUSHED] = STREAM_FLUSHED,
		[MS_RL_OFFER] = STREAM_OFFER,     [MS_RL_GONE] = STREAM_GONE, [MS_RL_CLOSED] = STREAM_CLOSED,
	};

	if (kin_message(c, from, msg))
		return;
	if (msg->type == MS_RL_CLOSED && c->s.state == STREAM_STEADY) {
		/* A last word: the leg ends by itself, and what its sender had said before comes too late. */
		if (c->peer_member == from && c->phase == CONN_OPEN)
			stream_handle(&c->s, STREAM_GONE, msg);
		return;
	}
	if (msg->type == MS_RL_CLOSED && MS_MEMBER_IS_CHILD(from))
		kin_set_peer(c, from); /* it may have overtaken that it is the heir */
	if (c->peer_member != from) {
		ms_log(LOG_WARN, "stream %lx: a relink message from member %u, who is not its peer", msg->stream, from);
		return;
	}
	if (c->phase == CONN_DIAL) {
		relink_answer_dead(from, msg, NULL);
		dial_hangup(&c->dial);
		conn_connected(c, -1, -ECONNRESET, NULL);
		return;
	}
	if (c->phase == CONN_HALF && !relink_confirm(c, msg))
		return;
	if (c->s.state == STREAM_OVER) {
		struct tomb t = { .leg = c->s.leg,
				  .cut = c->s.written,
				  .taken = c->s.taken,
				  .app_fin = true,
				  .broken = c->s.error != 0 };

		relink_answer_dead(from, msg, &t);
		return;
	}
	if (c->phase != CONN_OPEN || sock_hold(c, from, msg))
		return;
	stream_handle(&c->s, events[msg->type], msg);
	conn_sync(c);
}

void conn_message_to(unsigned end, uint32_t from, const struct stream_msg *msg)
{
	struct conn *c = conn_find(msg->stream, end);

	if (c)
		relink_message(c, from, msg);
	else if (from != core.id)
		conn_message(from, msg);
}

/* A member's streams with itself: what one end says waits here for the other. */
static void relink_deliver_local(struct timer *t)
{
	while (local_first) {
		struct relink_local *l = local_first;
		struct conn *c = conn_find(l->msg.stream, l->end);
		struct stream_msg answer;

		local_first = l->next;
		if (!local_first)
			local_last = NULL;
		if (c) {
			relink_message(c, core.id, &l->msg);
		} else if (relink_dead(&l->msg, relink_tomb(l->msg.stream), &answer)) {
			c = conn_find(l->msg.stream, 1 - l->end);
			if (c)
				relink_message(c, core.id, &answer);
		}
		mem_free(l, sizeof(*l));
	}
}

static void relink_say_local(const struct stream *s, const struct stream_msg *msg)
{
	struct relink_local *l = mem_alloc(sizeof(*l));

	if (!l)
		return; /* it will be repeated */
	l->msg = *msg;
	l->end = 1 - s->end;
	if (local_last)
		local_last->next = l;
	else
		local_first = l;
	local_last = l;
	local_timer.fire = relink_deliver_local;
	engine_timer_set(&local_timer, 1000);
}

void conn_message(uint32_t from, const struct stream_msg *msg)
{
	struct conn *c = conn_find(msg->stream, 0);

	if (!c)
		c = conn_find(msg->stream, 1);
	if (msg->type == MS_RL_HEIR)
		kin_heir(from, msg);
	else if (c)
		relink_message(c, from, msg);
	else if (!kin_answers(from, msg) && !kin_bound_dead(from, msg))
		relink_answer_dead(from, msg, relink_tomb(msg->stream));
}

void relink_forked(void)
{
	local_first = local_last = NULL;
}

/* D_ENDED */
void conn_member_ended(uint32_t member)
{
	kin_member_ended(member);
	for (struct conn *c = conn_first(), *next; c; c = next) {
		next = c->next;
		if (c->peer_member != member)
			continue;
		if (c->phase == CONN_HALF) {
			listener_drop(c->listener, c);
			conn_destroy(c);
		} else if (c->phase == CONN_OPEN) {
			stream_handle(&c->s, STREAM_ENDED, NULL);
			conn_sync(c);
		}
	}
}

bool conn_mirror_bytes(struct conn *c, uint64_t offset, const void *bytes, size_t n)
{
	if (stream_reads(&c->s) != STREAM_FROM_MIRROR || offset != c->s.taken) {
		ms_log(LOG_WARN, "stream %lx: mirror sent bytes at %lu, wanted are those at %lu", c->s.id, offset,
		       c->s.taken);
		return false;
	}
	if (!c->closed && !carry_put(&c->carry, bytes, n)) {
		ms_log(LOG_ERROR, "stream %lx: no memory for what the mirror brings", c->s.id);
		return false;
	}
	c->dropped = c->dropped || c->closed;
	core.carried += n;
	stream_took(&c->s, n);
	conn_sync(c);
	return true;
}

void conn_mirror_end(struct conn *c, uint64_t total, enum ms_mirror_end how)
{
	if (stream_reads(&c->s) != STREAM_FROM_MIRROR)
		return;
	if (total != c->s.taken)
		ops_mismatch(&c->s, "taken, against the mirror's total", c->s.taken, total);
	if (how == MS_MIRROR_TORN || (how == MS_MIRROR_FIN && c->s.fin_sent && c->late_shut))
		stream_torn(&c->s);
	stream_handle(&c->s, how == MS_MIRROR_RESET ? STREAM_RESET : STREAM_LEG_END, NULL);
	conn_sync(c);
}

/* The application read from the carry: the mirror may send more. What the newer leg brought is not its business. */
void conn_ops_carry_taken(struct conn *c)
{
	if (c->s.mirrored && !c->s.older_done && c->carry.length < CARRY_LIMIT)
		mirror_ack(c);
}
