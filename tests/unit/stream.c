/* SPDX-License-Identifier: MIT */
/*
 * stream.c - both ends of one stream in random interleavings: moves by drain,
 * mirror and both, aborts before and after the freeze, lost and late control
 * messages, shutdowns at any time.  The invariants of doc/protocol.md are
 * checked after every step.  MSOCK_TEST_SEED and MSOCK_TEST_RUNS repeat a run.
 */
#include "lib/stream.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { LEGS = 128, BUFFER = 64, MESSAGES = 256, BYTES = 400, MOVES = 6, STEPS = 60000 };

/* One direction of a leg, or a mirror's link: numbered bytes, then perhaps an end. */
struct pipe_of {
	uint64_t first, next; /* bytes [first, next) are in it */
	bool fin, fin_read, used;
};

enum dial_step { DIAL_NOT, DIAL_HELLO, DIAL_ACCEPTED, DIAL_REFUSED };

enum side_phase { SIDE_IDLE, SIDE_LEAVING, SIDE_FROZEN };

/* Mirror of one end. */
struct shadow {
	bool active, halfclosed, end_read;
	uint32_t leg;
	struct pipe_of link;
};

struct side {
	struct stream s;
	struct stream_self self;
	struct stream_msg inbox[MESSAGES];
	unsigned inbox_count;
	enum side_phase phase;
	int via; /* enum ms_via */
	unsigned moves_left;
	enum dial_step dial;
	struct stream_msg hello, answer;
	uint64_t carry; /* taken, not delivered */
	bool eof_seen;
	bool closed; /* by the application */
	bool gone;   /* only its tombstone is left (rule 6) */
	struct shadow shadow;
};

static struct side sides[2];
static struct pipe_of legs[LEGS][2]; /* [leg][writing end] */
static unsigned long long seed, step;
static uint64_t random_state;
static unsigned token_count, cap;
static unsigned long long relinks, mirrors, drains;
static bool quiet, shuts, closes, patient;
static const char *broken;

static unsigned roll(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)(random_state % n);
}

static void fail_run(const char *what)
{
	broken = what;
}

static struct side *side_of(struct stream *s)
{
	return (struct side *)((char *)s - offsetof(struct side, s));
}

static struct side *other(const struct side *me)
{
	return me == &sides[0] ? &sides[1] : &sides[0];
}

/* What the stream asks to be done */

static void ops_send(struct stream *s, struct stream_msg *msg)
{
	struct side *to = other(side_of(s));

	if (!quiet && roll(20) == 0)
		return; /* lost on the way */
	if (to->inbox_count < MESSAGES)
		to->inbox[to->inbox_count++] = *msg;
}

static void ops_shut(struct stream *s)
{
	struct pipe_of *p = &legs[s->leg][s->end];

	if (p->fin)
		fail_run("a leg was shut twice");
	p->fin = true;
}

static void ops_dial(struct stream *s, const struct stream_msg *offer)
{
	struct side *me = side_of(s);

	if (me->dial != DIAL_NOT)
		fail_run("two dials at once");
	me->dial = DIAL_HELLO;
	me->hello = *offer;
	me->hello.cut = s->cut;
	me->hello.app_fin = s->app_fin;
}

static void ops_hangup(struct stream *s)
{
	side_of(s)->dial = DIAL_NOT;
}

static void ops_halfclose(struct stream *s)
{
	struct side *me = side_of(s);

	if (!me->shadow.active)
		fail_run("half-close without a mirror");
	me->shadow.halfclosed = true;
}

static void ops_settled(struct stream *s)
{
	struct side *me = side_of(s);
	uint32_t older = s->leg - 1;
	struct pipe_of *in = &legs[older][1 - s->end], *out = &legs[older][s->end];

	if (in->first != in->next || out->first != out->next || !in->fin_read || !out->fin)
		fail_run("settled, but the leg is not empty");
	if (!s->mirrored)
		return;
	if (!me->shadow.active || me->shadow.link.first != me->shadow.link.next || !me->shadow.link.fin_read)
		fail_run("released, but the mirror's link is not empty");
	me->shadow = (struct shadow){ 0 };
}

static void ops_token(uint8_t token[MS_TOKEN])
{
	memset(token, 0, MS_TOKEN);
	token_count++;
	memcpy(token, &token_count, sizeof(token_count));
}

static void ops_mismatch(struct stream *s, const char *what, uint64_t here, uint64_t there)
{
	fail_run(what);
}

static void ops_changed(struct stream *s, enum stream_state old, const char *reason)
{
	if (s->state == STREAM_OVER)
		side_of(s)->shadow = (struct shadow){ 0 };
}

static const struct stream_ops ops = {
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

/* Steps; each returns whether it did anything. */

static bool step_write(struct side *me)
{
	struct pipe_of *p = &legs[me->s.leg][me->s.end];
	unsigned n = 1 + roll(8);

	if (me->phase == SIDE_FROZEN || me->gone || me->s.written >= BYTES || !stream_may_write(&me->s) ||
	    p->next - p->first >= cap)
		return false;
	if (p->fin)
		fail_run("written to a leg that was shut");
	if (n > cap - (p->next - p->first))
		n = cap - (unsigned)(p->next - p->first);
	if (n > BYTES - me->s.written)
		n = (unsigned)(BYTES - me->s.written);
	if (!p->used) {
		p->used = true;
		p->first = p->next = me->s.written;
	}
	if (p->next != me->s.written)
		fail_run("written out of order");
	p->next += n;
	stream_wrote(&me->s, n);
	return true;
}

static bool step_shut(struct side *me)
{
	if (me->phase == SIDE_FROZEN || me->gone || me->s.app_fin || (me->s.written < BYTES && roll(400)) || !shuts)
		return false;
	stream_handle(&me->s, STREAM_SHUT, NULL);
	return true;
}

static bool take_from(struct side *me, struct pipe_of *p)
{
	uint64_t n = p->next - p->first;

	if (n) {
		n = 1 + roll((unsigned)n);
		if (p->first != me->s.taken)
			fail_run("bytes lost, doubled or out of order");
		p->first += n;
		me->carry += n;
		stream_took(&me->s, n);
		return true;
	}
	if (!p->fin || p->fin_read)
		return false;
	p->fin_read = true;
	stream_handle(&me->s, STREAM_LEG_END, NULL);
	return true;
}

static bool step_read(struct side *me)
{
	unsigned in = 1 - me->s.end;

	if (me->phase == SIDE_FROZEN || me->gone)
		return false;
	switch (stream_reads(&me->s)) {
	case STREAM_FROM_LEG:
		return take_from(me, &legs[me->s.leg][in]);
	case STREAM_FROM_OLDER:
		return take_from(me, &legs[me->s.leg - 1][in]);
	case STREAM_FROM_MIRROR:
		return take_from(me, &me->shadow.link);
	default:
		return false;
	}
}

static bool step_deliver(struct side *me)
{
	uint64_t n = me->carry;

	if (me->phase == SIDE_FROZEN || me->gone)
		return false;
	if (n) {
		me->carry -= 1 + roll((unsigned)n);
		return true;
	}
	if (me->eof_seen || !stream_at_eof(&me->s))
		return false;
	if (!other(me)->s.app_fin || me->s.taken != other(me)->s.written || me->s.error)
		fail_run("an end of file that nobody sent");
	me->eof_seen = true;
	return true;
}

/* What conn.c and relink.c do: a stream that the application has closed stays until it may go, then its tombstone answers. */
static bool step_close(struct side *me)
{
	if (!closes || me->phase == SIDE_FROZEN || me->gone)
		return false;
	if (!me->closed) {
		me->closed = me->eof_seen && me->s.app_fin && !roll(10);
		return me->closed;
	}
	me->gone = (me->s.state == STREAM_STEADY && me->s.eof) || me->s.state == STREAM_OVER;
	return me->gone;
}

static void answer_for_dead(struct side *me, const struct stream_msg *msg)
{
	struct stream_msg answer = { .type = MS_RL_CLOSED,
				     .stream = msg->stream,
				     .leg = me->s.leg,
				     .cut = me->s.written,
				     .taken = me->s.taken,
				     .app_fin = me->s.app_fin };

	if (msg->type != MS_RL_PREPARE && msg->type != MS_RL_OFFER && msg->type != MS_RL_ACK)
		return;
	ops_send(&me->s, &answer);
}

static const enum stream_event message_event[] = {
	[MS_RL_PREPARE] = STREAM_PREPARE, [MS_RL_ACK] = STREAM_ACK,   [MS_RL_FLUSHED] = STREAM_FLUSHED,
	[MS_RL_OFFER] = STREAM_OFFER,     [MS_RL_GONE] = STREAM_GONE, [MS_RL_CLOSED] = STREAM_CLOSED,
};

static bool step_message(struct side *me)
{
	struct stream_msg msg;
	unsigned i;

	if (me->phase == SIDE_FROZEN || !me->inbox_count)
		return false;
	i = roll(me->inbox_count);
	msg = me->inbox[i];
	me->inbox[i] = me->inbox[--me->inbox_count];
	if (me->gone || me->s.state == STREAM_OVER)
		answer_for_dead(me, &msg);
	else
		stream_handle(&me->s, message_event[msg.type], &msg);
	return true;
}

static bool step_hello(struct side *me)
{
	struct side *to = other(me);
	uint32_t leg = me->hello.leg;

	if (me->dial != DIAL_HELLO || to->phase == SIDE_FROZEN)
		return false;
	if (to->gone || !stream_offers(&to->s, &me->hello) || roll(30) == 0) {
		me->dial = DIAL_REFUSED;
		return true;
	}
	if (leg >= LEGS) {
		fail_run("more legs than the test has");
		return true;
	}
	me->answer = (struct stream_msg){ .cut = to->s.cut, .app_fin = to->s.app_fin };
	me->dial = DIAL_ACCEPTED;
	stream_handle(&to->s, STREAM_HELLO, &me->hello);
	return true;
}

static bool step_answer(struct side *me)
{
	enum dial_step dial = me->dial;

	if (me->phase == SIDE_FROZEN || me->gone || (dial != DIAL_ACCEPTED && dial != DIAL_REFUSED))
		return false;
	me->dial = DIAL_NOT;
	stream_handle(&me->s, dial == DIAL_ACCEPTED ? STREAM_ACCEPT : STREAM_REFUSED, &me->answer);
	return true;
}

static bool step_repeat(struct side *me)
{
	if (me->phase == SIDE_FROZEN || me->gone || me->inbox_count > MESSAGES / 2 ||
	    other(me)->inbox_count > MESSAGES / 2)
		return false;
	stream_repeat(&me->s);
	return false; /* saying it again is no progress */
}

/* The mirror of one end */

static bool step_mirror(struct side *me)
{
	struct shadow *m = &me->shadow;
	struct pipe_of *in, *out;

	if (!m->active)
		return false;
	in = &legs[m->leg][1 - me->s.end];
	out = &legs[m->leg][me->s.end];
	if (m->halfclosed && !out->fin && roll(2)) {
		out->fin = true;
		return true;
	}
	if (in->next > in->first && m->link.next - m->link.first < cap) {
		if (!m->link.used)
			m->link.first = m->link.next = in->first;
		m->link.used = true;
		in->first++;
		m->link.next++;
		return true;
	}
	if (in->fin && !in->fin_read && in->first == in->next) {
		in->fin_read = true;
		m->link.fin = true;
		return true;
	}
	return false;
}

/* Moves */

static bool step_move_begin(struct side *me)
{
	if (me->phase != SIDE_IDLE || !me->moves_left || roll(50))
		return false;
	me->moves_left--;
	if (me->gone)
		return true;
	me->self.m++;
	me->self.moving = true;
	me->via = (int)roll(3); /* of enum ms_via */
	me->self.draining = me->via != MS_VIA_MIRROR;
	me->phase = SIDE_LEAVING;
	if (me->self.draining)
		stream_handle(&me->s, STREAM_MOVE, NULL);
	return true;
}

static bool step_freeze(struct side *me)
{
	struct side *peer = other(me);

	if (me->phase != SIDE_LEAVING || (!me->gone && stream_in_doubt(&me->s)))
		return false;
	if (!me->gone && !stream_settled(&me->s) && (me->via == MS_VIA_DRAIN || roll(20)))
		return false;
	me->phase = SIDE_FROZEN;
	if (peer->dial == DIAL_HELLO)
		peer->dial = DIAL_REFUSED; /* the connection lay unread in the frozen member's kernel */
	return true;
}

static void move_is_over(struct side *me)
{
	me->phase = SIDE_IDLE;
	me->self.moving = me->self.draining = false;
	if (!me->gone)
		stream_handle(&me->s, STREAM_MOVE_OVER, NULL);
}

static bool step_abort(struct side *me)
{
	if (me->phase == SIDE_IDLE || roll(me->phase == SIDE_FROZEN ? 10 : 200) ||
	    (patient && me->phase == SIDE_LEAVING))
		return false;
	move_is_over(me);
	return true;
}

static bool step_commit(struct side *me)
{
	struct stream *s = &me->s;

	if (me->phase != SIDE_FROZEN || roll(5))
		return false;
	if (me->gone || s->state == STREAM_OVER) {
		drains++;
	} else if (stream_settled(s)) {
		struct pipe_of *in = &legs[s->leg][1 - s->end], *out = &legs[s->leg][s->end];

		if (in->first != in->next || out->first != out->next)
			fail_run("drained, but the leg is not empty");
		drains++;
		stream_handle(s, STREAM_DRAINED, NULL);
	} else {
		if (!s->mirrored) {
			if (me->shadow.active)
				fail_run("a second mirror for an end");
			me->shadow = (struct shadow){ .active = true, .leg = s->leg, .end_read = s->at_end };
			me->shadow.link.fin = me->shadow.link.fin_read = s->at_end;
		}
		mirrors++;
		stream_handle(s, STREAM_MIRRORED, NULL);
	}
	move_is_over(me);
	return true;
}

static void check(void)
{
	for (int i = 0; i < 2; i++) {
		const char *what = sides[i].gone ? NULL : stream_check(&sides[i].s);

		if (what)
			fail_run(what);
		if (sides[i].s.taken > sides[1 - i].s.written)
			fail_run("taken more than was written");
		if (sides[i].phase == SIDE_FROZEN && stream_in_doubt(&sides[i].s))
			fail_run("frozen in doubt");
		if (sides[i].shadow.active != sides[i].s.mirrored && sides[i].s.state != STREAM_OVER)
			fail_run("a mirror without a mirrored leg, or none with one");
	}
	for (int i = 0; i < 2; i++)
		if (sides[i].s.error)
			fail_run("the stream broke");
	if (sides[0].s.leg + 1 < sides[1].s.leg || sides[1].s.leg + 1 < sides[0].s.leg)
		fail_run("legs differ by more than one");
	if (sides[0].s.state == STREAM_STEADY && sides[1].s.state == STREAM_STEADY && sides[0].s.leg != sides[1].s.leg)
		fail_run("both steady on different legs");
}

static bool side_is_done(const struct side *me)
{
	return me->s.state == STREAM_STEADY && me->phase == SIDE_IDLE && !me->moves_left && me->s.written == BYTES &&
	       me->s.taken == other(me)->s.written && !me->carry && !me->shadow.active && me->dial == DIAL_NOT &&
	       (!shuts || (me->s.app_fin && me->eof_seen)) && !me->s.held;
}

static bool side_is_over_early(const struct side *me)
{
	return me->s.app_fin || me->s.written == BYTES;
}

static bool all_done(void)
{
	if (closes)
		return sides[0].gone && sides[1].gone && sides[0].phase == SIDE_IDLE && sides[1].phase == SIDE_IDLE;
	for (int i = 0; i < 2; i++) {
		struct side *me = &sides[i];
		uint64_t want = me->s.app_fin ? me->s.written : BYTES;

		if (!side_is_over_early(me) || me->s.written != want)
			return false;
		if (!(side_is_done(me) || (me->s.state == STREAM_STEADY && me->phase == SIDE_IDLE && !me->moves_left &&
					   me->s.taken == other(me)->s.written && !me->carry && !me->shadow.active &&
					   (!other(me)->s.app_fin || me->eof_seen))))
			return false;
	}
	return sides[0].s.leg == sides[1].s.leg;
}

typedef bool step_fn(struct side *me);

static bool one_step(void)
{
	static step_fn *const steps[] = {
		step_write,      step_write,  step_read,   step_read,   step_deliver, step_message,
		step_message,    step_hello,  step_answer, step_repeat, step_mirror,  step_mirror,
		step_move_begin, step_freeze, step_abort,  step_commit, step_shut,    step_close,
	};

	return steps[roll(sizeof(steps) / sizeof(steps[0]))](&sides[roll(2)]);
}

static void run(unsigned long long n)
{
	seed = n;
	random_state = n * 0x9e3779b97f4a7c15ull + 1;
	memset(sides, 0, sizeof(sides));
	memset(legs, 0, sizeof(legs));
	broken = NULL;
	token_count = 0;
	cap = 1 + roll(BUFFER);
	shuts = roll(2);
	closes = shuts && roll(2);
	patient = roll(2); /* then no drain may depend on being given up */
	quiet = roll(4) == 0;
	for (unsigned i = 0; i < 2; i++) {
		stream_init(&sides[i].s, &ops, &sides[i].self, 77, i);
		sides[i].moves_left = roll(MOVES);
	}
	for (step = 0; step < STEPS && !broken && !all_done(); step++) {
		one_step();
		check();
	}
	if (!broken && !all_done())
		fail_run("it never came to rest");
	relinks += sides[0].s.leg;
	if (!broken)
		return;
	print_error("seed %llu, step %llu: %s\n", seed, step, broken);
	for (int i = 0; i < 2; i++) {
		const struct stream *s = &sides[i].s;

		print_error("end %d: %s leg %u written %llu taken %llu cut %llu peer_cut %llu%s%s%s%s%s%s%s%s%s%s "
			    "phase %d dial %d held %x moves %u inbox %u\n",
			    i, stream_state_name(s->state), s->leg, (unsigned long long)s->written,
			    (unsigned long long)s->taken, (unsigned long long)s->cut, (unsigned long long)s->peer_cut,
			    s->cutter ? " cutter" : "", s->offering ? " offering" : "", s->dialling ? " dialling" : "",
			    s->app_fin ? " app_fin" : "", s->at_end ? " at_end" : "", s->flushed ? " flushed" : "",
			    s->mirrored ? " mirrored" : "", s->older_done ? " older_done" : "", s->eof ? " eof" : "",
			    sides[i].gone ? " gone" : "", sides[i].phase, sides[i].dial, s->held, sides[i].moves_left,
			    sides[i].inbox_count);
	}
	fail_msg("seed %llu", seed);
}

static void test_random(void **state)
{
	const char *given = getenv("MSOCK_TEST_SEED"), *runs = getenv("MSOCK_TEST_RUNS");
	unsigned long long first = given ? strtoull(given, NULL, 10) : (unsigned long long)time(NULL) * 1000;
	unsigned long long count = runs ? strtoull(runs, NULL, 10) : given ? 1 : 5000;

	print_message("# seeds %llu to %llu\n", first, first + count - 1);
	for (unsigned long long i = 0; i < count; i++)
		run(first + i);
	print_message("# %llu relinks, %llu commits drained, %llu by mirror\n", relinks, drains, mirrors);
}

/* One end alone: what the peer's end, the peer's member's end and resets do in each state. */
static struct stream *alone(void)
{
	memset(sides, 0, sizeof(sides));
	memset(legs, 0, sizeof(legs));
	broken = NULL;
	quiet = true;
	stream_init(&sides[0].s, &ops, &sides[0].self, 5, 0);
	return &sides[0].s;
}

static void say(struct stream *s, enum stream_event event, uint32_t leg, uint64_t cut, uint64_t m)
{
	struct stream_msg msg = { .stream = s->id, .leg = leg, .cut = cut, .taken = cut, .m = m };

	stream_handle(s, event, &msg);
	if (stream_check(s))
		fail_msg("%s", stream_check(s));
}

static void test_closed_peer(void **state)
{
	struct stream *s = alone();

	stream_wrote(s, 10);
	say(s, STREAM_CLOSED, 0, 7, 0);
	assert_int_equal(s->state, STREAM_FLUSHING);
	assert_false(stream_may_write(s));
	stream_took(s, 7);
	stream_handle(s, STREAM_LEG_END, NULL);
	assert_int_equal(s->state, STREAM_OVER);
	assert_true(stream_at_eof(s));
	assert_int_equal(s->error, 0);
	assert_null(broken);

	s = alone(); /* the answer to the own PREPARE, everything was read before */
	stream_took(s, 7);
	sides[0].self.moving = sides[0].self.draining = true;
	stream_handle(s, STREAM_MOVE, NULL);
	stream_handle(s, STREAM_LEG_END, NULL);
	assert_false(stream_at_eof(s));
	say(s, STREAM_CLOSED, 0, 7, 0);
	assert_int_equal(s->state, STREAM_OVER);
	assert_true(stream_settled(s));
	assert_null(broken);
}

static void test_closed_with_wrong_count(void **state)
{
	struct stream *s = alone();

	stream_took(s, 6);
	say(s, STREAM_CLOSED, 0, 7, 0);
	stream_handle(s, STREAM_LEG_END, NULL);
	assert_non_null(broken);
}

static void test_ended_member(void **state)
{
	struct stream *s = alone();

	stream_handle(s, STREAM_ENDED, NULL);
	assert_int_equal(s->state, STREAM_STEADY);
	stream_handle(s, STREAM_LEG_END, NULL);
	assert_true(stream_at_eof(s));

	s = alone();
	say(s, STREAM_PREPARE, 0, 0, 1);
	assert_int_equal(s->state, STREAM_FLUSHING);
	stream_handle(s, STREAM_ENDED, NULL);
	assert_int_equal(s->state, STREAM_FLUSHING);
	stream_took(s, 3);
	stream_handle(s, STREAM_LEG_END, NULL);
	assert_int_equal(s->state, STREAM_OVER);
	assert_int_equal(s->error, ECONNRESET);

	s = alone(); /* by mirror; the peer has not heard of it, and its kernel ends the leg */
	stream_handle(s, STREAM_MIRRORED, NULL);
	stream_handle(s, STREAM_ENDED, NULL);
	stream_took(s, 3);
	stream_handle(s, STREAM_LEG_END, NULL);
	assert_int_equal(s->state, STREAM_OVER);
	assert_int_equal(s->error, 0);

	s = alone(); /* by mirror when that is known already: nobody is there to relink with */
	stream_handle(s, STREAM_LEG_END, NULL);
	stream_handle(s, STREAM_ENDED, NULL);
	stream_handle(s, STREAM_MIRRORED, NULL);
	assert_int_equal(s->state, STREAM_OVER);
	assert_int_equal(s->error, 0);

	s = alone(); /* what it had said before comes behind the word of its end */
	stream_handle(s, STREAM_ENDED, NULL);
	say(s, STREAM_PREPARE, 0, 0, 1);
	say(s, STREAM_OFFER, 1, 0, 1);
	assert_int_equal(s->state, STREAM_STEADY);

	s = alone(); /* so does a drain of which it has not heard */
	stream_handle(s, STREAM_MOVE, NULL);
	stream_handle(s, STREAM_ENDED, NULL);
	stream_handle(s, STREAM_RESET, NULL);
	assert_int_equal(s->error, ECONNRESET);

	s = alone(); /* it was told, and has said how its end ends */
	stream_handle(s, STREAM_MOVE, NULL);
	say(s, STREAM_ACK, 0, 3, 1);
	say(s, STREAM_CLOSED, 0, 3, 1);
	stream_handle(s, STREAM_ENDED, NULL);
	stream_took(s, 3);
	stream_handle(s, STREAM_LEG_END, NULL);
	assert_int_equal(s->state, STREAM_OVER);
	assert_int_equal(s->error, 0);
	assert_null(broken);
}

/* Its kernel has reset the leg, and a write had the error: bytes that it said it wrote may be missing, and that is no fault of ours. */
static void test_torn(void **state)
{
	struct stream *s;

	for (unsigned long taken = 5; taken <= 7; taken += 2) {
		s = alone();
		say(s, STREAM_CLOSED, 0, 7, 0);
		stream_took(s, taken);
		stream_torn(s);
		stream_handle(s, STREAM_LEG_END, NULL);
		assert_int_equal(s->state, STREAM_OVER);
		assert_int_equal(s->error, taken < 7 ? ECONNRESET : 0);

		s = alone(); /* the leg's end first */
		stream_handle(s, STREAM_MOVE, NULL);
		stream_took(s, taken);
		stream_torn(s);
		stream_handle(s, STREAM_LEG_END, NULL);
		say(s, STREAM_ACK, 0, 7, 1);
		assert_int_equal(s->state, taken < 7 ? STREAM_OVER : STREAM_PARKED);
		assert_int_equal(s->error, taken < 7 ? ECONNRESET : 0);
		assert_null(broken);
	}
	s = alone(); /* the peer lives, and makes a newer leg: nothing may be missing */
	say(s, STREAM_OFFER, 1, 0, 1);
	stream_took(s, 5);
	stream_torn(s);
	stream_handle(s, STREAM_LEG_END, NULL);
	say(s, STREAM_ACCEPT, 1, 7, 1);
	assert_non_null(broken);
}

/* A peer that has ended reads nothing any more, whether the leg has been read to its end or not. */
static void test_void(void **state)
{
	struct stream *s = alone();

	say(s, STREAM_PREPARE, 0, 0, 1);
	assert_false(stream_is_void(s));
	stream_handle(s, STREAM_ENDED, NULL);
	assert_int_equal(s->state, STREAM_FLUSHING);
	assert_true(stream_is_void(s));
	s = alone();
	stream_handle(s, STREAM_ENDED, NULL);
	assert_false(stream_is_void(s)); /* TCP tells */
}

/* The peer has ended; it may have accepted the dial before, and have written to the new leg. */
static void test_ended_while_dialling(void **state)
{
	struct stream *s = alone();

	say(s, STREAM_OFFER, 1, 0, 1);
	stream_handle(s, STREAM_ENDED, NULL);
	assert_true(s->dialling);
	stream_handle(s, STREAM_REFUSED, NULL);
	assert_int_equal(s->state, STREAM_FLUSHING);
	stream_handle(s, STREAM_LEG_END, NULL);
	assert_int_equal(s->state, STREAM_OVER);
	assert_int_equal(s->error, ECONNRESET);

	s = alone();
	say(s, STREAM_OFFER, 1, 0, 1);
	stream_took(s, 3);
	legs[0][1].fin_read = true;
	stream_handle(s, STREAM_LEG_END, NULL);
	stream_handle(s, STREAM_ENDED, NULL);
	say(s, STREAM_ACCEPT, 1, 3, 1);
	assert_int_equal(s->state, STREAM_STEADY);
	stream_took(s, 4);
	stream_handle(s, STREAM_LEG_END, NULL);
	assert_true(stream_at_eof(s));
	assert_int_equal(s->error, 0);
	assert_null(broken);
}

static void test_reset(void **state)
{
	struct stream *s = alone();

	stream_handle(s, STREAM_RESET, NULL);
	assert_int_equal(s->state, STREAM_OVER);
	assert_int_equal(s->error, ECONNRESET);

	s = alone(); /* parked: the leg was read to its end, a reset of it means nothing */
	stream_handle(s, STREAM_LEG_END, NULL);
	say(s, STREAM_PREPARE, 0, 0, 1);
	assert_int_equal(s->state, STREAM_PARKED);
	stream_handle(s, STREAM_RESET, NULL);
	assert_int_equal(s->state, STREAM_PARKED);
}

/* End 0 waits in its drain for what the peer's mirror shuts only once there is a newer leg: it takes the peer's offer. */
static void test_offer_to_a_drain(void **state)
{
	struct stream *s = alone();

	sides[0].self = (struct stream_self){ .m = 1, .moving = true, .draining = true };
	stream_handle(s, STREAM_MOVE, NULL);
	say(s, STREAM_ACK, 0, 5, 1);
	assert_int_equal(s->state, STREAM_FLUSHING);
	assert_true(s->cutter);
	say(s, STREAM_OFFER, 1, 0, 1);
	assert_true(s->dialling);
	assert_false(s->offering);

	s = alone(); /* settled: it may freeze as it is, and offers by itself afterwards */
	sides[0].self = (struct stream_self){ .m = 1, .moving = true, .draining = true };
	stream_handle(s, STREAM_MOVE, NULL);
	say(s, STREAM_ACK, 0, 0, 1);
	stream_handle(s, STREAM_LEG_END, NULL);
	say(s, STREAM_FLUSHED, 0, 0, 1);
	assert_true(stream_settled(s));
	say(s, STREAM_OFFER, 1, 0, 1);
	assert_false(s->dialling);
	stream_handle(s, STREAM_MOVE_OVER, NULL);
	assert_false(s->offering); /* self is still moving */
	sides[0].self.moving = sides[0].self.draining = false;
	stream_handle(s, STREAM_MOVE_OVER, NULL);
	assert_true(s->offering); /* now the own one goes first */
	say(s, STREAM_OFFER, 1, 0, 2);
	assert_false(s->dialling);
}

static void test_lower_and_later_messages(void **state)
{
	struct stream *s = alone();

	say(s, STREAM_PREPARE, 1, 0, 1); /* of a leg that this end does not have yet: held */
	assert_int_equal(s->state, STREAM_STEADY);
	say(s, STREAM_OFFER, 0, 0, 1);
	assert_int_equal(s->state, STREAM_STEADY);
	say(s, STREAM_OFFER, 1, 0, 1);
	stream_handle(s, STREAM_LEG_END, NULL);
	assert_int_equal(s->state, STREAM_PARKED);
	say(s, STREAM_ACCEPT, 1, 0, 1);
	/* The held PREPARE says that the peer has settled the older leg, and is answered now. */
	assert_int_equal(s->leg, 1);
	assert_int_equal(s->state, STREAM_FLUSHING);
	assert_int_equal(s->held, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_closed_peer),
		cmocka_unit_test(test_closed_with_wrong_count),
		cmocka_unit_test(test_ended_member),
		cmocka_unit_test(test_torn),
		cmocka_unit_test(test_void),
		cmocka_unit_test(test_ended_while_dialling),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_offer_to_a_drain),
		cmocka_unit_test(test_lower_and_later_messages),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
