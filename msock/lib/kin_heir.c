/* SPDX-License-Identifier: MIT */
/* Whose a stream's end is: what owners, former owners and peers say to each other about it. */
#include "lib/kin.h"

#include "lib/conn.h"
#include "lib/conn_ops.h"
#include "lib/control.h"
#include "lib/core.h"
#include "lib/holders.h"
#include "lib/sock.h"
#include "lib/sys.h"

enum {
	KIN_HEIRS = 1024,
	KIN_HEIR_MS = 20, /* the first repeat; doubled each time */
	KIN_HEIR_MAX_MS = 1000,
	KIN_HEIR_TRIES = 300,  /* a peer that has ended does not answer */
	KIN_ASK_AGAIN_MS = 20, /* a stream that is shared may be so for a moment only */
};

#define KIN_DOUBT_NS 3000000000ull /* for a last word to come; after that it was killed */

/* A stream that was let go, or will be: what its peer still says to us. */
struct heir {
	uint64_t stream, ino;
	unsigned end;
	bool let_go;            /* else we answer ourselves: a child's end is not the stream's */
	uint32_t member;        /* whose it is now; 0: not known */
	bool ended;             /* a child has closed it: */
	struct stream_msg last; /* ... and this is to be said of it */
	uint64_t doubt_ns;      /* since then nobody has it, as far as was seen when somebody asked; 0: not asked */
};

static struct heir heirs[KIN_HEIRS];
static unsigned heirs_made;
static uint32_t ended[KIN_HEIRS]; /* children of whose end we have been told, which may overtake what they have said */
static unsigned ended_count;

static bool heir_has_ended(uint32_t member)
{
	for (unsigned i = 0; i < KIN_HEIRS && i < ended_count; i++)
		if (ended[i] == member)
			return true;
	return false;
}

void kin_heirs_forked(void)
{
	heirs_made = 0;
}

static struct heir *heir_find(uint64_t stream, unsigned end)
{
	for (unsigned i = 0; i < KIN_HEIRS && i < heirs_made; i++)
		if (heirs[i].stream == stream && heirs[i].end == end)
			return &heirs[i];
	return NULL;
}

static struct heir *heir_let_go(uint64_t stream, unsigned end)
{
	struct heir *h = heir_find(stream, end);

	return h && h->let_go ? h : NULL;
}

static struct heir *heir_get(uint64_t stream, unsigned end)
{
	struct heir *h = heir_find(stream, end);

	if (h)
		return h;
	h = &heirs[heirs_made++ % KIN_HEIRS];
	*h = (struct heir){ .stream = stream, .end = end };
	return h;
}

static struct stream_msg heir_word(const struct conn *c)
{
	return (struct stream_msg){ .type = MS_RL_CLOSED,
				    .stream = c->s.id,
				    .leg = c->s.leg,
				    .m = core.self.m,
				    .cut = c->s.written,
				    .taken = c->s.taken,
				    .app_fin = true };
}

/* A child speaks before it closes: one that has spoken may be the one that has it still, but we have written since. */
void kin_note_heir(const struct conn *c, uint64_t ino, uint32_t member, bool in_order)
{
	struct heir *h = heir_get(c->s.id, c->s.end);

	h->ended = h->ended && !h->let_go && in_order;
	h->last = heir_word(c);
	h->let_go = true;
	h->ino = ino;
	h->member = member;
	h->doubt_ns = 0;
}

void kin_last_word(const struct conn *c, bool own)
{
	struct stream_msg msg = heir_word(c);
	uint8_t buf[64 + RELINK_MESSAGE], word[RELINK_MESSAGE];
	struct ms_codec out;

	control_begin(&out, buf, sizeof(buf), MS_M_LAST);
	ms_put_u64(&out, c->s.id);
	ms_put_u8(&out, c->s.end);
	ms_put_u8(&out, own);
	ms_put_u32(&out, c->peer_member);
	ms_put_bytes(&out, word, relink_encode(word, &msg));
	control_send(&out, buf);
}

void kin_on_last(struct ms_codec *in)
{
	uint64_t stream = ms_get_u64(in);
	unsigned end = ms_get_u8(in);
	struct stream_msg msg;
	struct heir *h;

	if (in->bad || !relink_decode(in->at, (size_t)(in->end - in->at), &msg) || msg.type != MS_RL_CLOSED)
		return;
	h = heir_get(stream, end);
	h->last = msg;
	h->ended = true;
}

void kin_set_peer(struct conn *c, uint32_t member)
{
	c->peer_member = member;
	c->s.self = member == core.id ? &core.local : &core.self;
}

void kin_say_heir(struct conn *c)
{
	struct stream_msg msg = {
		.type = MS_RL_HEIR, .stream = c->s.id, .leg = c->s.leg, .app_fin = c->s.end, .pids = { c->heir_of }
	};
	uint64_t ms = KIN_HEIR_MS << (c->heir_tries < 6 ? c->heir_tries : 6);

	if (++c->heir_tries > KIN_HEIR_TRIES) {
		c->heir = false;
		return;
	}
	relink_say(c->peer_member, &msg);
	if (c->heir_of != c->peer_member)
		relink_say(c->heir_of, &msg); /* it may be asked for this end */
	if (c->s.state == STREAM_STEADY || c->s.state == STREAM_OVER)
		engine_timer_set(&c->timer, (ms < KIN_HEIR_MAX_MS ? ms : KIN_HEIR_MAX_MS) * 1000000ull);
}

static void kin_answer(uint32_t to, const struct stream_msg *msg, enum ms_relink_type type, uint32_t a, uint32_t b)
{
	struct stream_msg answer = { .type = (uint8_t)type, .stream = msg->stream, .leg = msg->leg, .pids = { a, b } };

	relink_say(to, &answer);
}

void kin_heir(uint32_t from, const struct stream_msg *msg)
{
	unsigned end = msg->app_fin & 1;
	struct heir *ours = heir_let_go(msg->stream, end), *theirs = heir_let_go(msg->stream, 1 - end);
	struct conn *c = conn_find(msg->stream, 1 - end);

	if (!MS_MEMBER_IS_CHILD(from) && !(c && c->bound_by && c->peer_member == from))
		return;
	if (ours && msg->pids[0] == core.id) {
		ours->member = from;
		ours->ended = false; /* another one had closed it before */
	}
	if (c && c->sock && c->sock->inherited)
		return; /* its owner will answer */
	if (c) {
		kin_set_peer(c, from);
		c->shared_by[0] = 0;
		c->bound_by = 0;
		if (c->s.state == STREAM_STEADY)
			c->s.last_leg = false; /* that its former owner has ended does not matter */
	} else if (theirs && theirs->member) {
		kin_answer(from, msg, MS_RL_HEIR_IS, theirs->member, 0);
		return;
	} else if (theirs || (ours && msg->pids[0] == core.id)) {
		return;
	}
	if (c && heir_has_ended(from))
		conn_member_ended(from);
	else
		kin_answer(from, msg, MS_RL_HEIR_OK, 0, 0);
}

/* Not while we move: the sender takes part in that, and says it again. */
static void kin_bind(struct conn *c, const struct stream_msg *msg)
{
	if (c->phase != CONN_OPEN || c->s.state != STREAM_STEADY || c->s.self->moving)
		return;
	c->bound_by = msg->pids[0];
	kin_answer(c->peer_member, msg, MS_RL_BOUND_OK, 0, 0);
}

bool kin_bound_dead(uint32_t from, const struct stream_msg *msg)
{
	if (msg->type == MS_RL_BOUND)
		kin_answer(from, msg, MS_RL_BOUND_OK, 0, 0);
	return msg->type == MS_RL_BOUND || msg->type == MS_RL_BOUND_OK;
}

bool kin_message(struct conn *c, uint32_t from, const struct stream_msg *msg)
{
	bool ours = msg->type >= MS_RL_HEIR_OK;

	if (c->peer_member != from)
		return ours;
	c->shared_by[0] = 0;
	if (msg->type == MS_RL_BOUND) {
		kin_bind(c, msg);
		return true;
	}
	c->bound = c->bound || msg->type == MS_RL_BOUND_OK;
	if (msg->type == MS_RL_HEIR_OK) {
		c->heir = false;
	} else if (msg->type == MS_RL_HEIR_IS) {
		kin_set_peer(c, msg->pids[0]);
	} else if (msg->type == MS_RL_SHARED) {
		c->shared_by[0] = msg->pids[0];
		c->shared_by[1] = msg->pids[1];
	}
	if ((msg->type == MS_RL_HEIR_IS || msg->type == MS_RL_SHARED) && c->phase == CONN_OPEN &&
	    c->s.state != STREAM_STEADY && c->s.state != STREAM_OVER && core.self.moving)
		engine_timer_set(&c->timer, KIN_ASK_AGAIN_MS * 1000000ull);
	return ours;
}

void kin_say_shared(uint32_t to, const struct stream_msg *msg, int pid)
{
	kin_answer(to, msg, MS_RL_SHARED, (uint32_t)holders_self(), (uint32_t)pid);
}

/* Who has it will answer, or has done; when nobody has, its last word, which may be on its way yet. */
bool kin_answers(uint32_t from, const struct stream_msg *msg)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);
	struct heir *h = NULL;
	int pid;

	for (unsigned i = 0; i < KIN_HEIRS && i < heirs_made && !h; i++)
		if (heirs[i].stream == msg->stream && heirs[i].let_go && heirs[i].member != from)
			h = &heirs[i];
	if (!h)
		return false;
	pid = h->ino ? holders_below(h->ino, -1) : 0;
	if (pid && !h->member)
		kin_answer(from, msg, MS_RL_SHARED, (uint32_t)pid, 0);
	else if (h->ended)
		relink_say(from, &h->last);
	else if (h->member)
		kin_answer(from, msg, MS_RL_HEIR_IS, h->member, 0);
	else if (!h->doubt_ns)
		h->doubt_ns = now;
	else if (now - h->doubt_ns > KIN_DOUBT_NS)
		return false;
	return true;
}

void kin_member_ended(uint32_t member)
{
	if (MS_MEMBER_IS_CHILD(member) && !heir_has_ended(member))
		ended[ended_count++ % KIN_HEIRS] = member;
	for (unsigned i = 0; i < KIN_HEIRS && i < heirs_made; i++)
		if (heirs[i].member == member)
			heirs[i].member = 0; /* it has said what there was to say */
}
