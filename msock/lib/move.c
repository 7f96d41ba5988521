/* SPDX-License-Identifier: MIT */
#include "lib/move.h"

#include "lib/agent.h"
#include "lib/conn.h"
#include "lib/control.h"
#include "lib/core.h"
#include "lib/engine.h"
#include "lib/kin.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/mirror.h"
#include "lib/sock.h"
#include "lib/sock_epoll.h"
#include "lib/sys.h"
#include "lib/udp.h"
#include "lib/udp_move.h"
#include "lib/udp_pen.h"

#include <errno.h>

enum {
	MOVE_DRAIN_MS = 50, /* unless D_MOVE says more */
	MOVE_TIMEOUT_MS = 30000,
	MOVE_LOOK_MS = 2,      /* application threads settle streams without an event for the engine */
	MOVE_SHARED_MS = 1000, /* a peer that forks has a stream in two processes for a moment */
	MOVE_HEIR_MS = 2000,   /* for a child's peers to know that it is one */
};

#define MOVE_AGAIN_NS 20000000ull
#define MOVE_FULL_NS 100000000ull /* a program that reads takes less between two reads, when there is so much */

struct move move;

static bool move_holds_lock; /* the mover does, while it looks what can be captured */

/* A D_MOVE that came before the mover had put the last one away. */
static struct {
	uint8_t bytes[1024];
	size_t size; /* 0: none */
	int image_fd;
} next_move;

static int own_fds[MOVE_FDS];
static uint8_t packet[MS_CTL_MAX]; /* the mover's */

bool move_by_mirror(const struct conn *c)
{
	return c->phase == CONN_OPEN && !stream_settled(&c->s);
}

static bool move_is_local(const struct conn *c)
{
	return c->s.self == &core.local;
}

/* For the record of what went wrong. Returns -1. */
static int move_fail(const char *format, const struct conn *c)
{
	log_format(move.why, sizeof(move.why), format, MS_MEMBER_WORLD(c->peer_member), MS_MEMBER_RANK(c->peer_member),
		   c->s.id, stream_state_name(c->s.state));
	return -1;
}

/* Rule 11: why the member must not freeze now, or NULL. */
static const struct conn *move_doubtful(void)
{
	for (struct conn *c = conn_first(); c; c = c->next)
		if (c->phase == CONN_HALF || (c->phase == CONN_OPEN && (stream_in_doubt(&c->s) || c->confirm_left)))
			return c;
	return NULL;
}

static const struct conn *move_undrained(bool local_only)
{
	for (struct conn *c = conn_first(); c; c = c->next)
		if (move_by_mirror(c) && (!local_only || move_is_local(c)))
			return c;
	return NULL;
}

static bool move_is_full(const struct conn *c)
{
	return c->carry.length >= CARRY_LIMIT;
}

/* A stream whose carry is full, and of which the program has not read anything for a while: it cannot be drained. */
static const struct conn *move_overfull(uint64_t now)
{
	const struct conn *c = conn_first();
	uint64_t read;

	while (c && !(move_by_mirror(c) && move_is_full(c)))
		c = c->next;
	read = c ? c->s.taken - c->carry.length : 0;
	if (!c || c->s.id != move.full || read != move.full_read) {
		move.full = c ? c->s.id : 0;
		move.full_read = read;
		move.full_ns = now;
		return NULL;
	}
	return now - move.full_ns > MOVE_FULL_NS ? c : NULL;
}

/* A stream of which the peer says that it cannot be relinked. */
static const struct conn *move_shared(void)
{
	for (struct conn *c = conn_first(); c; c = c->next)
		if (move_by_mirror(c) && c->shared_by[0])
			return c;
	return NULL;
}

/* It said so earlier, and has not answered yet. */
static bool move_shared_waits(void)
{
	for (struct conn *c = conn_first(); c; c = c->next)
		if (move_by_mirror(c) && c->shared_before && c->s.state == STREAM_ASKED && !c->shared_by[0])
			return true;
	return false;
}

static int move_fail_shared(const struct conn *c)
{
	size_t n = log_format(move.why, sizeof(move.why), "stream %lx with rank %u.%u: there process %d ", c->s.id,
			      MS_MEMBER_WORLD(c->peer_member), MS_MEMBER_RANK(c->peer_member), (int)c->shared_by[0]);

	if (c->shared_by[1])
		log_format(move.why + n, sizeof(move.why) - n, "shares it with process %d", (int)c->shared_by[1]);
	else
		log_format(move.why + n, sizeof(move.why) - n, "has it, which is no member");
	return -1;
}

/*
 * 1: freeze now; 0: wait; -1: it takes too long. Streams that hold each other
 * up with their peers get until the whole move's time is half over.
 */
static int move_look(uint64_t now, uint64_t drain_end, uint64_t end)
{
	const struct conn *doubt = move_doubtful(), *local = move_undrained(true), *wet = move_undrained(false), *full,
			  *shared;

	if (move.aborted)
		return -1;
	if (doubt)
		return now < end ? 0 : move_fail("rank %u.%u does not finish a change of stream %lx (%s)", doubt);
	if (local)
		return now < end ? 0 : move_fail("the stream of %u.%u with itself, %lx, is not drained (%s)", local);
	if (!wet)
		return 1;
	shared = move_shared();
	if ((shared || move_shared_waits()) && now < drain_end + MOVE_SHARED_MS * 1000000ull)
		return 0;
	if (shared)
		return move_fail_shared(shared);
	if (move.via == MS_VIA_MIRROR)
		return 1;
	full = move_overfull(now);
	if (now < drain_end && !full)
		return 0;
	if (move.via == MS_VIA_AUTO)
		return 1;
	if (full)
		return move_fail("the program does not read what rank %u.%u has sent: stream %lx (%s) is not drained, "
				 "its carry is full",
				 full);
	return move_fail("rank %u.%u does not let stream %lx be drained in time (%s)", wet);
}

/* A drain that takes its time: what is written meanwhile must not all be left to the freeze. */
static int move_again(uint64_t *at)
{
	if (ms_clock_ns(CLOCK_MONOTONIC) < *at)
		return 0;
	if (image_send_more(move.why))
		return -1;
	*at = ms_clock_ns(CLOCK_MONOTONIC) + MOVE_AGAIN_NS;
	return 0;
}

/*
 * Tell the streams of the move; later those that were opened since, which are steady and know nothing.  What cannot be
 * drained unless the program reads is not cut for it: it would wait in two pieces, and could not move at all.
 */
static void move_ask_streams(bool all)
{
	for (struct conn *c = conn_first(); c; c = c->next) {
		bool shared = all && c->shared_by[0];

		if (c->phase != CONN_OPEN || (!c->s.self->draining && !shared) || (!all && c->s.state != STREAM_STEADY))
			continue;
		if (move.via == MS_VIA_DRAIN && c->s.state == STREAM_STEADY && move_is_full(c))
			continue;
		if (all)
			c->shared_before = shared;
		if (all)
			c->shared_by[0] = 0;
		stream_handle(&c->s, STREAM_MOVE, NULL);
		conn_sync(c);
	}
}

/* Lock held, but given meanwhile. */
static void move_swap(void)
{
	ms_lock_give(&core.lock);
	sock_swap();
	ms_lock_take(&core.lock);
}

/* The program's streams leave their numbers, so that they can be told. Lock held, but given meanwhile. */
static int move_pair_all(uint64_t end)
{
	struct timespec pause = { 0, 500000 };

	while (!sock_pair_all() && !move.aborted) {
		move_swap();
		if (sock_pair_all())
			break;
		if (kin_refuses(true, move.why, sizeof(move.why)))
			return -1;
		if (ms_clock_ns(CLOCK_MONOTONIC) > end) {
			log_format(move.why, sizeof(move.why), "a thread of the program does not stop");
			return -1;
		}
		ms_lock_give(&core.lock);
		ms_nanosleep(&pause);
		ms_lock_take(&core.lock);
	}
	return 0;
}

/* Run the engine until the streams allow the freeze. The lock is held at the return. */
static int move_drain(void)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);
	uint64_t drain_end = now + move.drain_ms * 1000000ull, end = now + move.timeout_ms * 500000ull;
	uint64_t again = now + MOVE_AGAIN_NS;
	int ready, failed;

	if (end < drain_end)
		end = drain_end;
	ms_lock_take(&core.lock);
	move.phase = MOVE_DRAIN;
	if (move_pair_all(end))
		return -1;
	core.self.draining = move.via != MS_VIA_MIRROR;
	core.local.draining = true;
	move_ask_streams(true);
	for (;;) {
		engine_run();
		if (sock_swap_due())
			move_swap();
		move_ask_streams(false);
		ready = move_look(ms_clock_ns(CLOCK_MONOTONIC), drain_end, end);
		if (ready < 0 || (ready && udp_move_quiet()))
			return ready;
		ms_lock_give(&core.lock);
		engine_await(MOVE_LOOK_MS);
		failed = move_again(&again);
		ms_lock_take(&core.lock);
		if (failed)
			return -1;
	}
}

static void move_add_fd(int fd)
{
	if (fd >= 0 && move.source.own_count < MOVE_FDS)
		own_fds[move.source.own_count++] = fd;
}

/* What must not go into the image: the library makes it again at the target. */
static void move_collect_fds(void)
{
	struct image_source *src = &move.source;

	src->own_fds = own_fds;
	src->own_count = (size_t)vsock_own_fds(own_fds, MOVE_FDS);
	move_add_fd(engine_fd());
	move_add_fd(engine_poke_fd());
	src->own_count += (size_t)mirror_own_fds(own_fds + src->own_count, MOVE_FDS - (int)src->own_count);
	src->own_count += (size_t)inbound_fds(own_fds + src->own_count, MOVE_FDS - (int)src->own_count);
	for (struct listener *l = listener_first(); l; l = l->next)
		move_add_fd(l->v.sd);
	src->own_count += (size_t)udp_pen_own_fds(own_fds + src->own_count, MOVE_FDS - (int)src->own_count);
	src->own_count += (size_t)udp_move_own_fds(own_fds + src->own_count, MOVE_FDS - (int)src->own_count);
	for (struct conn *c = conn_first(); c; c = c->next) {
		move_add_fd(c->fd);
		move_add_fd(c->old_fd);
		move_add_fd(c->dial.fd);
	}
	src->own_count += (size_t)sock_own_fds(own_fds + src->own_count, MOVE_FDS - (int)src->own_count);
	move_add_fd(move.image_fd);
}

/* For image_check, which runs with the lock or without. */
static bool move_owns(int fd)
{
	bool owns;

	if (!sock_first() && !udp_first())
		return false;
	if (!move_holds_lock)
		ms_lock_take(&core.lock);
	owns = sock_find(fd) || udp_find(fd);
	if (!move_holds_lock)
		ms_lock_give(&core.lock);
	return owns;
}

static void move_prepare_source(void)
{
	struct image_source *src = &move.source;

	src->sock = move.image_fd;
	src->m = move.m;
	src->control_fd = control_fd();
	src->listener_fd = data_listener_fd();
	src->resume = move_resume;
	src->owns = move_owns;
	src->watched = sock_epoll_watched;
	src->pairs = sock_pairs();
	src->step = move_step;
	src->fault = move.fault;
	move_collect_fds();
}

/* Stop all threads; then see to it that nothing is half done. */
static int move_freeze(void)
{
	const struct conn *c;

	engine_pause(true); /* from here on no stream changes its leg */
	ms_lock_give(&core.lock);
	engine_poke();
	agent_wait_gone();
	if (image_freeze(core.kick_signal, agent_mover_tid(), move.timeout_ms * 1000000ull, move.why))
		return -1;
	c = move_doubtful();
	if (c)
		return move_fail("rank %u.%u does not finish a change of stream %lx (%s)", c);
	inbound_drop_all();
	for (struct conn *n = conn_first(); n; n = n->next)
		conn_connect_pause(n); /* closes its dial: sock_freeze lists what there is */
	if (udp_freeze() || sock_freeze()) {
		log_format(move.why, sizeof(move.why), "no memory for what lies in the program's sockets");
		return -1;
	}
	move.drained = move.mirrored = 0;
	for (struct conn *n = conn_first(); n; n = n->next) {
		if (n->phase != CONN_OPEN || n->s.state == STREAM_OVER)
			continue;
		if (move_by_mirror(n) && (move.via == MS_VIA_DRAIN || move_is_local(n)))
			return move_fail("stream with rank %u.%u is not drained any more: %lx (%s)", n);
		move.mirrored += move_by_mirror(n);
		move.drained += !move_by_mirror(n);
	}
	move_collect_fds();
	move.source.fds = sock_all_fds(&move.source.fd_count);
	return 0;
}

/* An older mirror keeps what it has. */
static bool move_hands_over(const struct conn *c)
{
	return move_by_mirror(c) && !c->s.mirrored;
}

/* One packet of legs from `*at` on; returns how many, -errno. */
static int move_hand_over(struct conn **at)
{
	int fds[MS_FDS_MAX];
	uint8_t *count;
	struct ms_codec c, n;
	int sent = 0, err;

	control_begin(&c, packet, sizeof(packet), MS_M_MIRROR);
	ms_put_u64(&c, move.m);
	count = ms_codec_skip(&c, 2);
	for (; *at && sent < MS_FDS_MAX; *at = (*at)->next) {
		struct stream *s = &(*at)->s;

		if (!move_hands_over(*at))
			continue;
		ms_put_u64(&c, s->id);
		ms_put_u32(&c, s->leg);
		ms_put_u8(&c, s->fin_sent);
		ms_put_u8(&c, s->at_end);
		ms_put_u64(&c, s->taken);
		fds[sent++] = (*at)->fd;
	}
	ms_codec_init(&n, count, 2);
	ms_put_u16(&n, (uint16_t)sent);
	err = control_send_now(&c, packet, fds, (unsigned)sent);
	return err ? err : sent;
}

/* Wait for a packet of this type; others are kept. -1: failed. */
static int move_await(uint8_t type, struct ms_codec *in, int timeout_ms)
{
	uint64_t end = ms_clock_ns(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * 1000000u;

	for (;;) {
		long n = control_receive(packet, sizeof(packet), 100);

		if (n < 0) {
			log_format(move.why, sizeof(move.why), "msdaemon is gone: error %d", (int)-n);
			return -1;
		}
		if (n >= 10 && packet[0] == MS_WIRE_VERSION && (packet[1] == type || packet[1] == MS_D_OUTCOME)) {
			ms_codec_init(in, packet + 2, (size_t)n - 2);
			if (ms_get_u64(in) != move.m)
				continue;
			if (packet[1] == type)
				return 0;
			move.aborted = true;
			return -1;
		} else if (n > 0) {
			control_keep(packet, (size_t)n);
		}
		if (timeout_ms >= 0 && ms_clock_ns(CLOCK_MONOTONIC) > end) {
			log_format(move.why, sizeof(move.why), "msdaemon does not answer");
			return -1;
		}
	}
}

static int move_give_to_mirror(void)
{
	struct conn *at = conn_first();
	struct ms_codec in;
	int n;

	while (at && !move_hands_over(at))
		at = at->next;
	if (!at)
		return 0; /* an empty list needs no mirror */
	do
		n = move_hand_over(&at);
	while (n > 0);
	if (n < 0) {
		log_format(move.why, sizeof(move.why), "cannot hand descriptors to the mirror: error %d", -n);
		return -1;
	}
	if (move_await(MS_D_MIRROR_AT, &in, (int)move.timeout_ms))
		return -1;
	ms_get_u32(&in);
	if (ms_get_u16(&in) == 0) {
		log_format(move.why, sizeof(move.why), "no mirror could be had");
		return -1;
	}
	return 0;
}

/* A UDP socket that has to do with the host's addresses. */
static int move_check_udp(void)
{
	const char *why;
	int number = -1;

	ms_lock_take(&core.lock);
	why = udp_stays(&number);
	if (why)
		log_format(move.why, sizeof(move.why), "descriptor %d: a UDP socket that is %s", number, why);
	ms_lock_give(&core.lock);
	return why ? -1 : 0;
}

/* A stream that a forked child has too; of a child, what it shares with its family. */
static int move_check_kin(void)
{
	uint64_t end = ms_clock_ns(CLOCK_MONOTONIC) + MOVE_HEIR_MS * 1000000ull;
	struct timespec pause = { 0, 1000000 };
	bool late = false;
	int refused;

	for (;;) {
		ms_lock_take(&core.lock);
		refused = kin_refuses(late, move.why, sizeof(move.why));
		if (!refused)
			refused = kin_shares(&move.source, move.why, sizeof(move.why));
		ms_lock_give(&core.lock);
		if (refused <= 0)
			return refused;
		ms_nanosleep(&pause);
		late = ms_clock_ns(CLOCK_MONOTONIC) > end;
	}
}

/*
 * The program goes on while it looks: files, pipes and sockets come and go, and what it finds may be half of a change.
 * So a refusal is looked at again while the program's threads stand still, and the library's own descriptors too, which
 * are all made and closed under the lock.  If a thread does not stop in time, what is found then holds all the same.
 */
static int move_check(void)
{
	int err;

	ms_lock_take(&core.lock);
	move_collect_fds();
	ms_lock_give(&core.lock);
	if (!image_check(&move.source, move.why))
		return 0;
	sock_stand_still();
	move_holds_lock = true;
	move_collect_fds();
	err = image_check(&move.source, move.why);
	move_holds_lock = false;
	sock_go_on();
	return err ? -1 : 0;
}

/* Only asked: the record says ABORTED whatever comes out. */
static int move_ask(void)
{
	struct image_forecast f = { 0 };

	if (image_forecast(&move.source, &f, move.why))
		return -1;
	ms_lock_take(&core.lock);
	move_say_checked(&f);
	ms_lock_give(&core.lock);
	return 0;
}

/* Everything from D_MOVE to the last byte of the image. Frozen from MOVE_FROZEN on. -1: failed, move.why says it. */
static int move_try(void)
{
	int ready;

	if (move_check_kin() || move_check_udp() || move_check())
		return -1;
	move.source.checked = true;
	if (move.check)
		return move_ask();
	if (image_send_early(&move.source, move.why))
		return -1;
	ready = move_drain();
	if (ready < 0) {
		ms_lock_give(&core.lock);
		return -1;
	}
	move_step_done(MS_STEP_DRAINED, 0, 0, 0);
	move.phase = MOVE_FROZEN;
	if (move_freeze())
		return -1;
	move_step_done(MS_STEP_PARKED, 0, move.drained, move.mirrored);
	ms_log(LOG_DEBUG, "move %lu: frozen, %u streams drained, %u by mirror", move.m, move.drained, move.mirrored);
	if (move_say_frozen() || move_give_to_mirror())
		return -1;
	move_step_done(MS_STEP_HANDED, 0, 0, 0);
	if (image_send(&move.source, &move.stats, move.why))
		return -1;
	return move_say_sent();
}

/* The move is over and the member is where it was. Lock held. */
static void move_back(void)
{
	move.phase = MOVE_NONE;
	core.self.moving = core.self.draining = false;
	core.local.moving = core.local.draining = false;
	engine_pause(false);
	for (struct conn *c = conn_first(); c; c = c->next) {
		if (c->phase == CONN_OPEN) {
			stream_handle(&c->s, STREAM_MOVE_OVER, NULL);
			conn_sync(c);
		}
	}
	sock_settle();
	udp_move_back();
	control_replay();
	engine_poke();
	agent_ensure(); /* kicks that came meanwhile were not heeded */
}

/* For exec; as decimal. */
static char *move_number(char text[16], int n)
{
	log_format(text, 16, "%d", n);
	return text;
}

/*
 * We are elsewhere. A forked child leaves its number to a program that stands in for it, with all signals blocked: those
 * that come from now on are for that, those that had come are in the image.
 */
__attribute__((noreturn)) static void move_leave(struct ms_codec *in)
{
	static char path[4096], control[16], kick[16];
	char *argv[] = { path, move_number(control, control_fd()), move_number(kick, core.kick_signal), NULL };
	char *env[] = { NULL };
	unsigned fd = (unsigned)control_fd();
	uint64_t all = ~0ull;
	long err;

	path[0] = 0;
	if (in->at < in->end)
		ms_get_str(in, path, sizeof(path));
	if (!path[0])
		ms_exit_group(0);
	ms_sigprocmask(SIG_SETMASK, &all, NULL);
	if (fd > 0)
		ms_close_range(0, fd - 1, 0);
	ms_close_range(fd + 1, ~0u, 0);
	ms_fcntl((int)fd, F_SETFD, 0);
	err = ms_sys3(SYS_execve, (long)path, (long)argv, (long)env);
	ms_log(LOG_ERROR, "cannot run %s: error %d", path, (int)-err);
	ms_exit_group(255);
}

static void move_run_once(void)
{
	struct ms_codec in;

	if (move_try() && !move.aborted) {
		bool frozen = move.phase == MOVE_FROZEN;

		if (!frozen)
			ms_lock_take(&core.lock);
		move_say_failed();
		if (!frozen)
			ms_lock_give(&core.lock);
	}
	if (move.phase == MOVE_FROZEN) {
		/* Rule 37: only the record ends this. A daemon that is gone takes its members with it. */
		if (!move.aborted && move_await(MS_D_OUTCOME, &in, -1))
			ms_exit_group(1);
		if (!move.aborted && ms_get_u8(&in))
			move_leave(&in);
		ms_lock_take(&core.lock); /* some threads may run, if not all could be stopped */
		sock_thaw();
		ms_lock_give(&core.lock);
		image_thaw();
	}
	image_cancel();
	ms_log(LOG_INFO, "move %lu is over: still on host %s", move.m, core.host);
	ms_close(move.image_fd);
	core_own_fd(move.image_fd, false);
}

void move_outcome(uint64_t m, bool committed)
{
	struct ms_codec next;

	ms_codec_init(&next, next_move.bytes, next_move.size);
	if (next_move.size && ms_get_u64(&next) == m) {
		next_move.size = 0;
		ms_close(next_move.image_fd);
	}
	if (move.phase != MOVE_NONE && move.m == m && !committed)
		move.aborted = true;
}

static void move_set_out(struct ms_codec *in, int image_fd)
{
	bool relinking = move.relinking;
	uint8_t flags;

	__builtin_memset(&move, 0, sizeof(move));
	move.relinking = relinking;
	move.m = ms_get_u64(in);
	move.via = ms_get_u8(in);
	move.drain_ms = ms_get_u32(in);
	move.timeout_ms = ms_get_u32(in);
	move.source.hash_key = ms_get_u64(in);
	ms_get_str(in, move.fault, sizeof(move.fault));
	flags = ms_get_u8(in);
	move.check = flags & MS_MOVE_CHECK;
	move.source.stop_and_copy = flags & MS_MOVE_STOP_AND_COPY;
	move.source.pack_never = flags & MS_MOVE_PACK_NEVER;
	move.source.pack_always = flags & MS_MOVE_PACK_ALWAYS;
	move.source.compare = flags & MS_MOVE_COMPARE;
	move.source.max_freeze_us = ms_get_u32(in);
	move.source.limit = ms_get_u64(in);
	for (int i = 0; i < MS_CHANNELS; i++) {
		move.source.channel[i].dev = ms_get_u64(in);
		move.source.channel[i].ino = ms_get_u64(in);
	}
	for (int i = 0; i < IMAGE_CPU_WORDS; i++)
		move.source.home[i] = ms_get_u64(in);
	move.drain_ms = move.drain_ms ? move.drain_ms : MOVE_DRAIN_MS;
	move.timeout_ms = move.timeout_ms ? move.timeout_ms : MOVE_TIMEOUT_MS;
	move.image_fd = core_raise_fd(image_fd);
	core_own_fd(move.image_fd, true);
	move.phase = MOVE_EARLY;
	core.self.m = core.local.m = move.m;
	core.self.moving = core.local.moving = true;
	kin_serve_legs();
	move_prepare_source();
}

/* The mover: one move, and those that were asked for before it was put away. */
static void move_run(void *arg)
{
	bool more = true;

	while (more) {
		struct ms_codec in;

		move_run_once();
		ms_lock_take(&core.lock);
		move_back();
		more = next_move.size > 0;
		if (more) {
			ms_codec_init(&in, next_move.bytes, next_move.size);
			next_move.size = 0;
			move_set_out(&in, next_move.image_fd);
		}
		ms_lock_give(&core.lock);
	}
}

/* The kernel gives no descriptor with a packet when the process may open no more. */
static void move_refuse(struct ms_codec *in, int image_fd)
{
	if (image_fd >= 0)
		ms_close(image_fd);
	if (move.phase != MOVE_NONE) {
		ms_log(LOG_ERROR, "a move is asked for without a connection for the image");
		return;
	}
	move.m = ms_get_u64(in);
	log_format(move.why, sizeof(move.why), "the process has no descriptor left for the image's connection");
	move_say_failed();
}

void move_begin(struct ms_codec *in, int image_fd)
{
	size_t n = (size_t)(in->end - in->at);
	int err;

	if (image_fd < 0 || n > sizeof(next_move.bytes)) {
		move_refuse(in, image_fd);
		return;
	}
	if (move.phase != MOVE_NONE) {
		if (next_move.size)
			ms_close(next_move.image_fd);
		__builtin_memcpy(next_move.bytes, in->at, n);
		next_move.size = n;
		next_move.image_fd = image_fd;
		return;
	}
	move_set_out(in, image_fd);
	err = agent_start_mover(move_run, NULL);
	if (!err)
		return;
	log_format(move.why, sizeof(move.why), "cannot make a thread: error %d", -err);
	move_say_failed();
	ms_close(move.image_fd);
	core_own_fd(move.image_fd, false);
	move_back();
}
