/* SPDX-License-Identifier: MIT */
#include "lib/stream.h"

#include "lib/log.h"

#include <errno.h>
#include <stddef.h>

/* Where a message belongs at this moment. */
enum stream_fit { FIT_NOW, FIT_HOLD, FIT_DROP };

static const char *const state_names[STREAM_STATES] = {
	[STREAM_STEADY] = "STEADY", [STREAM_ASKED] = "ASKED", [STREAM_FLUSHING] = "FLUSHING",
	[STREAM_PARKED] = "PARKED", [STREAM_BOTH] = "BOTH",   [STREAM_OVER] = "OVER",
};

static const char *const event_names[STREAM_EVENTS] = {
	[STREAM_MOVE] = "MOVE",         [STREAM_PREPARE] = "PREPARE", [STREAM_ACK] = "ACK",
	[STREAM_FLUSHED] = "FLUSHED",   [STREAM_OFFER] = "OFFER",     [STREAM_CLOSED] = "CLOSED",
	[STREAM_GONE] = "GONE",         [STREAM_HELLO] = "HELLO",     [STREAM_ACCEPT] = "ACCEPT",
	[STREAM_REFUSED] = "REFUSED",   [STREAM_LEG_END] = "LEG_END", [STREAM_RESET] = "RESET",
	[STREAM_MIRRORED] = "MIRRORED", [STREAM_DRAINED] = "DRAINED", [STREAM_MOVE_OVER] = "MOVE_OVER",
	[STREAM_SHUT] = "SHUT",         [STREAM_ENDED] = "ENDED",
};

#define TO(state) (1u << STREAM_##state)

/* From which state which may follow. */
static const uint8_t legal[STREAM_STATES] = {
	[STREAM_STEADY] = TO(ASKED) | TO(FLUSHING) | TO(PARKED) | TO(OVER),
	[STREAM_ASKED] = TO(FLUSHING) | TO(PARKED) | TO(OVER),
	[STREAM_FLUSHING] = TO(PARKED) | TO(BOTH) | TO(OVER),
	[STREAM_PARKED] = TO(BOTH) | TO(OVER),
	[STREAM_BOTH] = TO(STEADY) | TO(OVER),
	[STREAM_OVER] = 0,
};

const char *stream_state_name(enum stream_state state)
{
	return state_names[state];
}

const char *stream_event_name(enum stream_event event)
{
	return event_names[event];
}

void stream_init(struct stream *s, const struct stream_ops *ops, const struct stream_self *self, uint64_t id,
		 unsigned end)
{
	*s = (struct stream){ .ops = ops, .self = self, .id = id, .end = (uint8_t)end, .state = STREAM_STEADY };
}

/* The only place where a state changes. */
static void stream_set(struct stream *s, enum stream_state state, const char *reason)
{
	enum stream_state old = s->state;

	if (!(legal[old] & 1u << state)) {
		ms_log(LOG_ERROR, "stream %lx leg %u: no way from %s to %s (%s)", s->id, s->leg, state_names[old],
		       state_names[state], reason);
		__builtin_trap();
	}
	ms_log(LOG_DEBUG, "stream %lx leg %u: %s -> %s (%s), written %lu taken %lu", s->id, s->leg, state_names[old],
	       state_names[state], reason, s->written, s->taken);
	s->state = (uint8_t)state;
	s->ops->changed(s, old, reason);
}

static void stream_say(struct stream *s, enum ms_relink_type type, uint32_t leg)
{
	struct stream_msg msg = { .type = (uint8_t)type, .stream = s->id, .leg = leg, .m = s->self->m };

	switch (type) {
	case MS_RL_ACK:
		msg.cut = s->cut;
		msg.app_fin = s->app_fin;
		break;
	case MS_RL_FLUSHED:
		msg.taken = leg == s->leg ? s->taken : s->last_taken;
		break;
	case MS_RL_OFFER:
		msg.m = s->offer_m;
		__builtin_memcpy(msg.token, s->offer_token, MS_TOKEN);
		break;
	default:
		break;
	}
	s->ops->send(s, &msg);
}

/*
 * Rule 8: both figures of the leg that was read, once both are there.  A kernel that resets it, since its process has
 * ended and had not read all, throws away what it had not sent: the stream is broken then.  False: it is.
 */
static bool stream_compare(struct stream *s)
{
	if (!s->at_end || !s->peer_cut_known || s->taken == s->peer_cut)
		return true;
	if (s->torn && s->taken < s->peer_cut) {
		ms_log(LOG_INFO, "stream %lx leg %u: reset, %lu bytes of %lu were taken", s->id, s->leg, s->taken,
		       s->peer_cut);
		stream_break(s, ECONNRESET, "reset before the peer's cut");
		return false;
	}
	s->ops->mismatch(s, "taken, against the peer's cut", s->taken, s->peer_cut);
	return true;
}

static bool stream_note_cut(struct stream *s, const struct stream_msg *msg)
{
	s->peer_cut = msg->cut;
	s->peer_cut_known = true;
	s->peer_fin = s->peer_fin || msg->app_fin;
	return stream_compare(s);
}

static void stream_withdraw_offer(struct stream *s)
{
	s->offering = false;
	__builtin_memset(s->offer_token, 0, MS_TOKEN);
}

static void stream_make_cutter(struct stream *s)
{
	if (!s->cutter)
		s->cutter_m = s->self->m;
	s->cutter = true;
}

static void stream_over(struct stream *s, const char *reason)
{
	if (s->dialling) {
		s->dialling = false;
		s->ops->hangup(s);
	}
	stream_withdraw_offer(s);
	s->cutter = false;
	s->held = 0;
	stream_set(s, STREAM_OVER, reason);
}

void stream_break(struct stream *s, int error, const char *reason)
{
	if (s->state == STREAM_OVER)
		return;
	s->error = error;
	stream_over(s, reason);
}

/* No newer leg comes: read this one to its end, then it is over. */
static void stream_read_out(struct stream *s, const char *reason)
{
	if (s->state == STREAM_STEADY || s->state == STREAM_ASKED)
		s->cut = s->written;
	s->last_leg = true;
	s->cutter = false;
	stream_withdraw_offer(s);
	if (s->at_end) {
		s->eof = s->eof || !s->error;
		stream_over(s, reason);
	} else if (s->state != STREAM_FLUSHING) {
		stream_set(s, STREAM_FLUSHING, reason);
	}
}

/* "tell self": writing to this leg is over. `own`: the socket is the process's own, not with a mirror. */
static void stream_told(struct stream *s, bool own, const char *reason)
{
	s->cut = s->written;
	if (own && !s->fin_sent) {
		s->fin_sent = true;
		s->ops->shut(s);
	}
	if (!s->at_end) {
		stream_set(s, STREAM_FLUSHING, reason);
		return;
	}
	stream_set(s, STREAM_PARKED, reason);
	stream_say(s, MS_RL_FLUSHED, s->leg);
}

static void stream_ask(struct stream *s)
{
	if (s->state == STREAM_STEADY)
		stream_set(s, STREAM_ASKED, "own move");
	stream_say(s, MS_RL_PREPARE, s->leg);
}

/* "next leg": the new connection exists for this end; its number is in place. */
static void stream_next_leg(struct stream *s, const struct stream_msg *msg, const char *reason)
{
	s->torn = false; /* who makes a newer leg had no reason to reset this one */
	stream_note_cut(s, msg);
	s->leg++;
	s->fin_sent = false;
	s->cutter = false;
	s->dialling = false;
	stream_withdraw_offer(s);
	s->older_done = s->state == STREAM_PARKED;
	if (s->older_done) {
		s->last_taken = s->taken;
		s->at_end = false;
		s->peer_cut_known = false;
	}
	stream_set(s, STREAM_BOTH, reason);
	if (s->app_fin) {
		s->fin_sent = true;
		s->ops->shut(s);
	}
	if (s->mirrored)
		s->ops->halfclose(s);
}

static void stream_settle(struct stream *s)
{
	s->ops->settled(s);
	s->flushed = false;
	s->older_done = false;
	s->mirrored = false;
	s->heard = false;
	stream_set(s, STREAM_STEADY, "settled");
}

/* Handlers; each runs in the states where the table below has it. */

static void on_move_steady(struct stream *s, const struct stream_msg *msg)
{
	if (s->last_leg)
		stream_read_out(s, "own move, peer has ended");
	else
		stream_ask(s);
}

static void on_move_asked(struct stream *s, const struct stream_msg *msg)
{
	stream_ask(s);
}

static void on_prepare_steady(struct stream *s, const struct stream_msg *msg)
{
	if (s->state == STREAM_ASKED)
		stream_make_cutter(s);
	stream_told(s, true, "PREPARE");
	stream_say(s, MS_RL_ACK, s->leg);
}

static void on_prepare_told(struct stream *s, const struct stream_msg *msg)
{
	stream_say(s, MS_RL_ACK, s->leg);
}

static void on_ack(struct stream *s, const struct stream_msg *msg)
{
	stream_note_cut(s, msg);
}

static void on_ack_asked(struct stream *s, const struct stream_msg *msg)
{
	if (!stream_note_cut(s, msg))
		return;
	stream_make_cutter(s);
	stream_told(s, true, "ACK");
}

/* The peer waits for FLUSHED of the older leg, which this end said once: it got lost. */
static void on_nudge(struct stream *s, const struct stream_msg *msg)
{
	stream_say(s, MS_RL_FLUSHED, s->leg - 1);
}

static void on_end_steady(struct stream *s, const struct stream_msg *msg)
{
	s->at_end = true;
	s->eof = true;
}

static void on_end_asked(struct stream *s, const struct stream_msg *msg)
{
	s->at_end = true; /* held */
}

static void on_end_flushing(struct stream *s, const struct stream_msg *msg)
{
	s->at_end = true;
	if (!stream_compare(s))
		return;
	if (s->last_leg) {
		s->eof = s->eof || !s->error;
		stream_over(s, "last leg's end");
		return;
	}
	stream_set(s, STREAM_PARKED, "leg's end");
	stream_say(s, MS_RL_FLUSHED, s->leg);
}

static void on_end_both(struct stream *s, const struct stream_msg *msg)
{
	s->at_end = true;
	if (s->older_done) {
		s->eof = true;
		return;
	}
	s->torn = false;
	stream_compare(s);
	s->older_done = true;
	s->last_taken = s->taken;
	s->at_end = false;
	s->peer_cut_known = false;
	stream_say(s, MS_RL_FLUSHED, s->leg - 1);
}

static void on_flushed(struct stream *s, const struct stream_msg *msg)
{
	bool told = s->state == STREAM_FLUSHING || s->state == STREAM_PARKED || s->state == STREAM_BOTH;
	uint64_t cut = told ? s->cut : s->written;

	if (msg->taken != cut)
		s->ops->mismatch(s, "cut, against what the peer took", cut, msg->taken);
	s->flushed = true;
}

/*
 * This end cut the leg for a drain, makes no offer before that is over, and
 * cannot settle the leg without a newer one: the peer's FIN waits with its
 * mirror for that.  The peer's offer is the way on, whatever the ends' numbers.
 */
static bool stream_awaits_peer(const struct stream *s)
{
	return s->self->draining && !s->offering && !stream_settled(s);
}

static void on_offer(struct stream *s, const struct stream_msg *msg)
{
	if (msg->m < s->seen_m || (s->cutter && s->end == 0 && !stream_awaits_peer(s)))
		return; /* overtaken; or the own offer goes first (rule 22) */
	s->seen_m = msg->m;
	if (s->state == STREAM_STEADY || s->state == STREAM_ASKED)
		stream_told(s, true, "OFFER");
	stream_withdraw_offer(s);
	s->dialling = true;
	s->dial_m = msg->m;
	__builtin_memcpy(s->dial_token, msg->token, MS_TOKEN);
	s->ops->dial(s, msg);
}

static void on_hello(struct stream *s, const struct stream_msg *msg)
{
	stream_next_leg(s, msg, "HELLO");
}

static void on_closed(struct stream *s, const struct stream_msg *msg)
{
	if (!stream_note_cut(s, msg))
		return;
	if (s->dialling) {
		s->dialling = false;
		s->ops->hangup(s);
	}
	stream_read_out(s, "CLOSED");
}

static void on_ended_steady(struct stream *s, const struct stream_msg *msg)
{
	s->last_leg = true; /* TCP tells the rest */
}

static void on_ended_both(struct stream *s, const struct stream_msg *msg)
{
	s->flushed = true;
	s->last_leg = true;
}

static void on_gone_told(struct stream *s, const struct stream_msg *msg)
{
	if (s->dialling) {
		s->dialling = false;
		s->ops->hangup(s);
	}
	if (!s->last_leg)
		s->error = ECONNRESET;
	stream_read_out(s, "peer has it no more");
}

/*
 * Rule 29.  Of a peer that has not been told all that it wrote is in this leg,
 * and its kernel ends the leg as it would without us.  One that has been told
 * may have taken bytes from its program that no leg got: only its CLOSED can
 * say that there were none.  The answer to a dial may have come before the end.
 */
static void on_ended_told(struct stream *s, const struct stream_msg *msg)
{
	if (s->dialling) {
		s->ended = true;
		return;
	}
	if (!s->last_leg && s->heard)
		s->error = ECONNRESET;
	stream_read_out(s, "peer has ended");
}

static void on_accept(struct stream *s, const struct stream_msg *msg)
{
	stream_next_leg(s, msg, "ACCEPT");
	if (s->ended)
		on_ended_both(s, NULL);
}

static void on_refused(struct stream *s, const struct stream_msg *msg)
{
	s->dialling = false; /* a cutter offers again; others wait for the offer to be repeated */
	if (s->ended)
		on_ended_told(s, NULL);
}

static void on_reset(struct stream *s, const struct stream_msg *msg)
{
	stream_break(s, ECONNRESET, "reset");
}

static void on_reset_told(struct stream *s, const struct stream_msg *msg)
{
	if (s->last_leg && s->error) {
		stream_over(s, "reset, peer has ended");
		return;
	}
	if (s->last_leg && s->peer_cut_known && s->taken == s->peer_cut) {
		s->at_end = true;
		s->eof = true;
		stream_over(s, "reset after the last byte");
		return;
	}
	if (!s->last_leg)
		ms_log(LOG_ERROR, "stream %lx leg %u: reset while being relinked, %lu bytes were taken", s->id, s->leg,
		       s->taken);
	stream_break(s, ECONNRESET, "reset");
}

static void on_mirrored_steady(struct stream *s, const struct stream_msg *msg)
{
	s->mirrored = true;
	if (s->last_leg) {
		stream_read_out(s, "mirrored, peer has ended");
		return;
	}
	stream_make_cutter(s);
	stream_told(s, false, "mirrored");
}

static void on_mirrored_told(struct stream *s, const struct stream_msg *msg)
{
	stream_withdraw_offer(s);
	s->mirrored = true;
	if (!s->last_leg)
		stream_make_cutter(s);
}

static void on_drained(struct stream *s, const struct stream_msg *msg)
{
	stream_withdraw_offer(s);
	stream_make_cutter(s);
}

/* What was offered under the old move number is offered anew (rule 14). */
static void on_over_told(struct stream *s, const struct stream_msg *msg)
{
	stream_withdraw_offer(s);
}

static void on_shut(struct stream *s, const struct stream_msg *msg)
{
	s->app_fin = true;
	if (s->fin_sent)
		return;
	s->fin_sent = true;
	s->ops->shut(s);
}

static void on_shut_told(struct stream *s, const struct stream_msg *msg)
{
	s->app_fin = true;
}

static void on_nothing(struct stream *s, const struct stream_msg *msg)
{
}

/*
 *                own move
 *        STEADY ─────────▶ ASKED
 *      ▲   │                 │  ACK, PREPARE, OFFER; committed by mirror
 *      │   │ PREPARE, OFFER; │
 *      │   │ mirror          ▼
 *      │   └─────────▶ FLUSHING ──leg's end──▶ PARKED
 *      │ older leg at    │                       │  HELLO taken, ACCEPT read
 *      │ its end and     ▼                       ▼
 *      └─FLUSHED came── BOTH ◀───────────────────┘
 *
 *  any ── reset, CLOSED or peer ended, and the last leg read ──▶ OVER
 */
typedef void stream_handler(struct stream *s, const struct stream_msg *msg);

static stream_handler *const transitions[STREAM_EVENTS][STREAM_STATES] = {
	[STREAM_MOVE] = { [STREAM_STEADY] = on_move_steady,
			  [STREAM_ASKED] = on_move_asked,
			  [STREAM_FLUSHING] = on_nothing,
			  [STREAM_PARKED] = on_nothing,
			  [STREAM_BOTH] = on_nothing,
			  [STREAM_OVER] = on_nothing },
	[STREAM_PREPARE] = { [STREAM_STEADY] = on_prepare_steady,
			     [STREAM_ASKED] = on_prepare_steady,
			     [STREAM_FLUSHING] = on_prepare_told,
			     [STREAM_PARKED] = on_prepare_told },
	[STREAM_ACK] = { [STREAM_STEADY] = on_ack,
			 [STREAM_ASKED] = on_ack_asked,
			 [STREAM_FLUSHING] = on_ack,
			 [STREAM_PARKED] = on_ack },
	[STREAM_FLUSHED] = { [STREAM_STEADY] = on_flushed,
			     [STREAM_ASKED] = on_flushed,
			     [STREAM_FLUSHING] = on_flushed,
			     [STREAM_PARKED] = on_flushed,
			     [STREAM_BOTH] = on_flushed },
	[STREAM_OFFER] = { [STREAM_STEADY] = on_offer,
			   [STREAM_ASKED] = on_offer,
			   [STREAM_FLUSHING] = on_offer,
			   [STREAM_PARKED] = on_offer },
	[STREAM_CLOSED] = { [STREAM_STEADY] = on_closed,
			    [STREAM_ASKED] = on_closed,
			    [STREAM_FLUSHING] = on_closed,
			    [STREAM_PARKED] = on_closed,
			    [STREAM_OVER] = on_nothing },
	[STREAM_GONE] = { [STREAM_STEADY] = on_ended_steady,
			  [STREAM_ASKED] = on_gone_told,
			  [STREAM_FLUSHING] = on_gone_told,
			  [STREAM_PARKED] = on_gone_told,
			  [STREAM_BOTH] = on_ended_both,
			  [STREAM_OVER] = on_nothing },
	[STREAM_HELLO] = { [STREAM_FLUSHING] = on_hello, [STREAM_PARKED] = on_hello },
	[STREAM_ACCEPT] = { [STREAM_FLUSHING] = on_accept, [STREAM_PARKED] = on_accept },
	[STREAM_REFUSED] = { [STREAM_FLUSHING] = on_refused, [STREAM_PARKED] = on_refused },
	[STREAM_LEG_END] = { [STREAM_STEADY] = on_end_steady,
			     [STREAM_ASKED] = on_end_asked,
			     [STREAM_FLUSHING] = on_end_flushing,
			     [STREAM_BOTH] = on_end_both },
	[STREAM_RESET] = { [STREAM_STEADY] = on_reset,
			   [STREAM_ASKED] = on_reset,
			   [STREAM_FLUSHING] = on_reset_told,
			   [STREAM_PARKED] = on_nothing,
			   [STREAM_BOTH] = on_reset,
			   [STREAM_OVER] = on_nothing },
	[STREAM_MIRRORED] = { [STREAM_STEADY] = on_mirrored_steady,
			      [STREAM_ASKED] = on_mirrored_steady,
			      [STREAM_FLUSHING] = on_mirrored_told,
			      [STREAM_PARKED] = on_mirrored_told,
			      [STREAM_OVER] = on_nothing },
	[STREAM_DRAINED] = { [STREAM_PARKED] = on_drained, [STREAM_OVER] = on_nothing },
	[STREAM_MOVE_OVER] = { [STREAM_STEADY] = on_nothing,
			       [STREAM_ASKED] = on_nothing,
			       [STREAM_FLUSHING] = on_over_told,
			       [STREAM_PARKED] = on_over_told,
			       [STREAM_BOTH] = on_nothing,
			       [STREAM_OVER] = on_nothing },
	[STREAM_SHUT] = { [STREAM_STEADY] = on_shut,
			  [STREAM_ASKED] = on_shut,
			  [STREAM_FLUSHING] = on_shut_told,
			  [STREAM_PARKED] = on_shut_told,
			  [STREAM_BOTH] = on_shut,
			  [STREAM_OVER] = on_shut_told },
	[STREAM_ENDED] = { [STREAM_STEADY] = on_ended_steady,
			   [STREAM_ASKED] = on_ended_told,
			   [STREAM_FLUSHING] = on_ended_told,
			   [STREAM_PARKED] = on_ended_told,
			   [STREAM_BOTH] = on_ended_both,
			   [STREAM_OVER] = on_nothing },
};

static void stream_dispatch(struct stream *s, enum stream_event event, const struct stream_msg *msg)
{
	stream_handler *handler = transitions[event][s->state];

	if (event >= STREAM_PREPARE && event <= STREAM_OFFER && s->state != STREAM_BOTH)
		s->heard = true;
	if (handler)
		handler(s, msg);
	else
		ms_log(LOG_DEBUG, "stream %lx leg %u: %s has no effect in %s", s->id, s->leg, event_names[event],
		       state_names[s->state]);
}

/* Rules 26 and 27: is it time for a message of this leg? */
static enum stream_fit stream_fit(struct stream *s, enum stream_event event, const struct stream_msg *msg)
{
	uint32_t leg = event == STREAM_OFFER ? msg->leg - 1 : msg->leg;

	if (s->state == STREAM_OVER || (event == STREAM_OFFER && msg->leg == 0))
		return FIT_DROP;
	if (s->last_leg && (event == STREAM_PREPARE || event == STREAM_OFFER))
		return FIT_DROP; /* its end has overtaken it: nobody would go on with a newer leg */
	if (leg + 1 == s->leg && event == STREAM_FLUSHED && s->state == STREAM_BOTH)
		return s->flushed ? FIT_DROP : FIT_NOW;
	if (leg < s->leg)
		return FIT_DROP;
	if (leg > s->leg)
		return FIT_HOLD;
	if (s->state == STREAM_BOTH && event != STREAM_ACK) {
		s->flushed = true; /* who speaks of the newer leg has settled the older */
		return FIT_HOLD;
	}
	if (event == STREAM_OFFER && s->dialling)
		return msg->m == s->dial_m && !__builtin_memcmp(msg->token, s->dial_token, MS_TOKEN) ? FIT_DROP
												     : FIT_HOLD;
	return FIT_NOW;
}

static int stream_slot(enum stream_event event)
{
	switch (event) {
	case STREAM_PREPARE:
		return 0;
	case STREAM_FLUSHED:
		return 1;
	case STREAM_OFFER:
		return 2;
	case STREAM_CLOSED:
		return 3;
	default:
		return -1;
	}
}

static bool stream_replay(struct stream *s)
{
	static const enum stream_event events[STREAM_HELD] = { STREAM_PREPARE, STREAM_FLUSHED, STREAM_OFFER,
							       STREAM_CLOSED };

	for (int i = 0; i < STREAM_HELD; i++) {
		struct stream_msg msg = s->waiting[i];
		enum stream_fit fit;

		if (!(s->held & 1u << i))
			continue;
		fit = stream_fit(s, events[i], &msg);
		if (fit == FIT_HOLD)
			continue;
		s->held &= (uint8_t) ~(1u << i);
		if (fit == FIT_NOW)
			stream_dispatch(s, events[i], &msg);
		return true;
	}
	return false;
}

static void stream_make_offer(struct stream *s)
{
	s->offering = true;
	s->offer_m = s->self->m;
	s->ops->token(s->offer_token);
	stream_say(s, MS_RL_OFFER, s->leg + 1);
}

/*
 * Rule 21.  What an earlier move cut must be whole again before it can be
 * drained in this one, so it is offered while this one drains.
 */
static bool stream_should_offer(const struct stream *s)
{
	if (!s->cutter || s->offering || s->dialling || s->last_leg)
		return false;
	if (s->state != STREAM_FLUSHING && s->state != STREAM_PARKED)
		return false;
	return !s->self->moving || (s->self->draining && s->cutter_m < s->self->m && !stream_settled(s));
}

/* What follows by itself from the state that was reached. */
static void stream_go_on(struct stream *s)
{
	for (;;) {
		if (s->held && stream_replay(s))
			continue;
		if (s->state == STREAM_BOTH && s->older_done && s->flushed)
			stream_settle(s);
		else if (s->state == STREAM_STEADY && s->self->draining)
			on_move_steady(s, NULL);
		else
			break;
	}
	if (stream_should_offer(s))
		stream_make_offer(s);
}

static bool stream_is_message(enum stream_event event)
{
	return event >= STREAM_PREPARE && event <= STREAM_CLOSED;
}

void stream_handle(struct stream *s, enum stream_event event, const struct stream_msg *msg)
{
	enum stream_fit fit = stream_is_message(event) ? stream_fit(s, event, msg) : FIT_NOW;
	int slot = stream_slot(event);

	if (fit == FIT_NOW) {
		stream_dispatch(s, event, msg);
	} else if (fit == FIT_HOLD && slot >= 0) {
		s->waiting[slot] = *msg;
		s->held |= (uint8_t)(1u << slot);
	} else if (event == STREAM_ACK && msg->leg + 1 == s->leg && (s->state != STREAM_BOTH || s->older_done)) {
		on_nudge(s, msg);
	} else {
		ms_log(LOG_DEBUG, "stream %lx leg %u: %s for leg %u dropped in %s", s->id, s->leg, event_names[event],
		       msg->leg, state_names[s->state]);
	}
	stream_go_on(s);
}

bool stream_offers(const struct stream *s, const struct stream_msg *hello)
{
	return s->offering && (s->state == STREAM_FLUSHING || s->state == STREAM_PARKED) && hello->leg == s->leg + 1 &&
	       hello->m == s->offer_m && !__builtin_memcmp(hello->token, s->offer_token, MS_TOKEN);
}

bool stream_repeat(struct stream *s)
{
	switch (s->state) {
	case STREAM_ASKED:
		stream_say(s, MS_RL_PREPARE, s->leg);
		return true;
	case STREAM_FLUSHING:
		if (s->offering)
			stream_say(s, MS_RL_OFFER, s->leg + 1);
		return s->offering;
	case STREAM_PARKED:
		stream_say(s, MS_RL_FLUSHED, s->leg);
		if (s->offering)
			stream_say(s, MS_RL_OFFER, s->leg + 1);
		return true;
	case STREAM_BOTH:
		if (!s->flushed)
			stream_say(s, MS_RL_ACK, s->leg - 1); /* see on_nudge */
		return true;
	default:
		return false;
	}
}

bool stream_may_write(const struct stream *s)
{
	return (s->state == STREAM_STEADY || s->state == STREAM_ASKED || s->state == STREAM_BOTH) && !s->app_fin;
}

bool stream_is_void(const struct stream *s)
{
	return s->state == STREAM_OVER || (s->last_leg && (s->state == STREAM_FLUSHING || s->state == STREAM_PARKED));
}

void stream_torn(struct stream *s)
{
	s->torn = true;
}

enum stream_from stream_reads(const struct stream *s)
{
	switch (s->state) {
	case STREAM_STEADY:
	case STREAM_ASKED:
		return s->at_end ? STREAM_FROM_NONE : STREAM_FROM_LEG;
	case STREAM_FLUSHING:
		return s->mirrored ? STREAM_FROM_MIRROR : STREAM_FROM_LEG;
	case STREAM_BOTH:
		if (!s->older_done)
			return s->mirrored ? STREAM_FROM_MIRROR : STREAM_FROM_OLDER;
		return s->at_end ? STREAM_FROM_NONE : STREAM_FROM_LEG;
	default:
		return STREAM_FROM_NONE;
	}
}

bool stream_at_eof(const struct stream *s)
{
	return s->eof || s->state == STREAM_OVER;
}

bool stream_settled(const struct stream *s)
{
	return s->state == STREAM_OVER || (s->state == STREAM_PARKED && s->flushed);
}

bool stream_in_doubt(const struct stream *s)
{
	return s->state == STREAM_BOTH || s->dialling;
}

void stream_wrote(struct stream *s, uint64_t n)
{
	s->written += n;
}

void stream_took(struct stream *s, uint64_t n)
{
	s->taken += n;
	if (s->peer_cut_known && s->taken > s->peer_cut)
		s->ops->mismatch(s, "taken, beyond the peer's cut", s->taken, s->peer_cut);
}

const char *stream_check(const struct stream *s)
{
	bool told = s->state == STREAM_FLUSHING || s->state == STREAM_PARKED;

	if (s->dialling && s->offering)
		return "dialling and offering";
	if ((s->dialling || s->offering) && !told)
		return "dialling or offering, but not told";
	if (told && s->cut != s->written)
		return "written after the cut";
	if (s->state == STREAM_PARKED && !s->at_end)
		return "PARKED, but the leg is not at its end";
	if (s->state == STREAM_FLUSHING && s->at_end)
		return "FLUSHING, but the leg is at its end";
	if (s->cutter && !told)
		return "cutter, but not told";
	if (s->mirrored && !told && s->state != STREAM_BOTH && s->state != STREAM_OVER)
		return "mirrored, but the leg is not being replaced";
	if (s->app_fin && !s->fin_sent &&
	    (s->state == STREAM_STEADY || s->state == STREAM_ASKED || s->state == STREAM_BOTH))
		return "shut by the application, but not the leg";
	if (s->older_done && s->state != STREAM_BOTH && s->state != STREAM_OVER)
		return "an older leg without BOTH";
	if (s->state == STREAM_STEADY && s->held)
		for (int i = 0; i < STREAM_HELD; i++)
			if (s->held & 1u << i && s->waiting[i].leg <= s->leg)
				return "a held message was forgotten";
	return NULL;
}
