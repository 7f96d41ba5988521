/* SPDX-License-Identifier: MIT */
/*
 * Sending memory while the process runs: rounds, each of what was written since
 * the last, until the freeze would be short or does not get shorter.
 *
 * What the freeze would find is counted, not guessed: PAGEMAP_SCAN tells the
 * written pages without protecting them again.  How long it would last follows
 * from the rate at which the rounds went.
 */
#include "image/say.h"
#include "image/workspace.h"

#define LIVE_BASE_NS 2000000ull  /* of a freeze that finds nothing to send: threads, baggage, descriptors */
#define LIVE_BOUND_NS 3000000ull /* a freeze this short, as predicted, needs no further round */
#define LIVE_SAY_NS 100000000ull
#define LIVE_NAP_NS 100000000ull /* a limit's waiting is cut into naps */
#define LIVE_TRIAL_NS 100000000ull

enum {
	LIVE_RATE_BYTES = 1 << 20,   /* a round of less says nothing of the rate */
	LIVE_RATE_FIRST = 500 << 20, /* bytes/s, until one has been seen */
	LIVE_TRIES = 3,              /* rounds in a row that do not get shorter before a freeze is called too long */
	LIVE_TRIAL_FRAMES = 16,
	LIVE_TRIAL_PING = 1000,
};

uint64_t live_freeze_ns(const struct workspace *ws, uint64_t bytes)
{
	uint64_t rate = ws->rate ? ws->rate : LIVE_RATE_FIRST;

	return LIVE_BASE_NS + (uint64_t)((double)bytes * 1e9 / (double)rate);
}

static void nap(uint64_t ns)
{
	struct timespec t = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	ms_nanosleep(&t);
}

void live_pace(struct workspace *ws, size_t bytes)
{
	uint64_t limit = ws->src->limit, now = ms_clock_ns(CLOCK_MONOTONIC), since = now;

	if (ws->mode != PAGES_LIVE)
		return;
	if (now - ws->said_ns > LIVE_SAY_NS && ws->expected) {
		ws->said_ns = now;
		capture_step(ws, MS_STEP_SENDING, ws->page_bytes, ws->expected, ws->rounds, 0);
	}
	if (!limit)
		return;
	while (now < ws->pace_ns) {
		nap(ws->pace_ns - now < LIVE_NAP_NS ? ws->pace_ns - now : LIVE_NAP_NS);
		now = ms_clock_ns(CLOCK_MONOTONIC);
	}
	ws->paced_ns += now - since;
	/* What was not used is not saved up. */
	ws->pace_ns = now + (uint64_t)((double)bytes * 1e9 / (double)limit);
}

/* Bytes/s of what has just been sent; TCP knows better when it was held back, for then a buffer took it all at once. */
static void rate_learn(struct workspace *ws, uint64_t bytes, uint64_t ns)
{
	uint64_t link = ws->src->limit ? pack_link_rate(ws) : 0;

	if (link)
		ws->rate = link;
	else if (bytes >= LIVE_RATE_BYTES || !ws->rate)
		ws->rate = bytes && ns ? (uint64_t)((double)bytes * 1e9 / (double)ns) : ws->rate;
}

static void left_count(struct workspace *ws)
{
	ws->mode = PAGES_LOOK;
	ws->left = capture_count(ws);
}

static int round_send(struct workspace *ws)
{
	uint64_t start = ms_clock_ns(CLOCK_MONOTONIC), paced = ws->paced_ns, bytes = ws->page_bytes;
	uint64_t ns;

	ws->mode = PAGES_LIVE;
	if (capture_memory(ws))
		return -1;
	ns = ms_clock_ns(CLOCK_MONOTONIC) - start - (ws->paced_ns - paced);
	bytes = ws->page_bytes - bytes;
	rate_learn(ws, bytes, ns);
	if (ws->rounds++ == 0 && capture_made(ws))
		return -1;
	left_count(ws);
	capture_step(ws, MS_STEP_ROUND, bytes, bytes / IMAGE_PAGE, ns, ws->left);
	return 0;
}

static int too_long(struct workspace *ws, uint64_t ns)
{
	return image_say(
		ws->why,
		"the freeze would last %u ms, longer than the %u ms of --max-freeze: %u KB are left to be sent",
		ns / 1000000, (uint64_t)ws->src->max_freeze_us / 1000, ws->left / 1024);
}

/* 1: freeze now; 0: another round; -1: not at all. `before`: what was left a round ago. */
static int rule(struct workspace *ws, uint64_t before, int *tries)
{
	uint64_t ns = live_freeze_ns(ws, ws->left);
	uint64_t most = ws->src->max_freeze_us * 1000ull;

	if (ns <= LIVE_BOUND_NS && (!most || ns <= most))
		return 1;
	if (ws->left <= before / 8 * 7) {
		*tries = 0;
		return 0;
	}
	if (!most || ns <= most)
		return 1;
	return ++*tries < LIVE_TRIES ? 0 : too_long(ws, ns);
}

/* Frames of no meaning, then a ping that waits for them: sets the rate. */
static int trial(struct workspace *ws)
{
	uint64_t start = ms_clock_ns(CLOCK_MONOTONIC), now = start, rtt = 0; /* no news for the clocks' offset */
	uint64_t bytes = 0;

	for (int i = 0; i < LIVE_TRIAL_FRAMES && now - start < LIVE_TRIAL_NS; i++) {
		struct ms_codec head;
		struct iovec iov[2] = { { ws->frame, IMAGE_FRAME_HEAD }, { ws->bounce, sizeof(ws->bounce) } };

		ms_codec_init(&head, ws->frame, IMAGE_FRAME_HEAD);
		image_frame_put(&head, IMAGE_TRIAL, sizeof(ws->bounce));
		if (frame_write(ws, iov, 2, IMAGE_FRAME_HEAD + sizeof(ws->bounce)))
			return -1;
		bytes += sizeof(ws->bounce);
		now = ms_clock_ns(CLOCK_MONOTONIC);
	}
	if (capture_ping(ws, LIVE_TRIAL_PING, &rtt))
		return -1;
	now = ms_clock_ns(CLOCK_MONOTONIC);
	ws->rate = (uint64_t)((double)bytes * 1e9 / (double)(now - start));
	return 0;
}

/* Nothing can go early: all is left. Whether that is too much only a trial can tell. */
static int nothing_early(struct workspace *ws)
{
	uint64_t ns;

	if (!ws->src->max_freeze_us)
		return 0;
	left_count(ws);
	if (trial(ws))
		return -1;
	ns = live_freeze_ns(ws, ws->left);
	return ns > ws->src->max_freeze_us * 1000ull ? too_long(ws, ns) : 0;
}

int live_send(struct workspace *ws)
{
	uint64_t before = UINT64_MAX;
	int tries = 0, ready;

	if (!ws->tracking)
		return capture_made(ws) || nothing_early(ws) ? -1 : 0;
	left_count(ws);
	ws->expected = ws->left;
	do {
		if (round_send(ws))
			return -1;
		ready = rule(ws, before, &tries);
		before = ws->left;
	} while (ready == 0);
	return ready > 0 ? 0 : -1;
}

int live_send_more(struct workspace *ws)
{
	if (!ws->tracking)
		return 0;
	left_count(ws);
	return live_freeze_ns(ws, ws->left) > LIVE_BOUND_NS ? round_send(ws) : 0;
}

/* Bytes/s that are written to, from a tenth of a second; UINT64_MAX if that cannot be seen. */
static uint64_t dirty_rate(struct workspace *ws)
{
	uint64_t start, ns;

	tracking_begin(ws);
	if (!ws->tracking)
		return UINT64_MAX;
	ws->mode = PAGES_LIVE;
	capture_count(ws); /* protects what it counts */
	start = ms_clock_ns(CLOCK_MONOTONIC);
	nap(LIVE_NAP_NS);
	left_count(ws);
	ns = ms_clock_ns(CLOCK_MONOTONIC) - start;
	return (uint64_t)((double)ws->left * 1e9 / (double)ns);
}

int live_forecast(struct workspace *ws, struct image_forecast *f)
{
	double rate, dirty, left;
	uint64_t start = ms_clock_ns(CLOCK_MONOTONIC);

	left_count(ws);
	f->bytes = ws->left;
	if (trial(ws))
		return -1;
	f->rate = ws->rate;
	if (ws->src->limit && f->rate > ws->src->limit)
		f->rate = ws->src->limit;
	f->dirty_rate = dirty_rate(ws);
	rate = (double)f->rate;
	dirty = (double)f->dirty_rate;
	f->total_ns = ms_clock_ns(CLOCK_MONOTONIC) - start;
	if (f->dirty_rate == UINT64_MAX) {
		f->freeze_ns = live_freeze_ns(ws, f->bytes);
		f->total_ns = f->freeze_ns;
		return 0;
	}
	/* A round leaves what is written while it lasts, at most all; the rounds shrink by dirty/rate. */
	left = (double)f->bytes * dirty / rate;
	f->total_ns = (uint64_t)((double)f->bytes * 1e9 / rate);
	if (dirty < rate / 8 * 7) {
		f->freeze_ns = left * 1e9 / rate < 1e6 ? live_freeze_ns(ws, (uint64_t)left) : LIVE_BOUND_NS;
		f->total_ns = (uint64_t)((double)f->total_ns / (1 - dirty / rate));
	} else {
		f->freeze_ns = live_freeze_ns(ws, left < (double)f->bytes ? (uint64_t)left : f->bytes);
	}
	f->total_ns += f->freeze_ns;
	return 0;
}
