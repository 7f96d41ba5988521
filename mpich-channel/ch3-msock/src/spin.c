/* SPDX-License-Identifier: MIT */
#include <time.h>

#include "mpidi_ch3_impl.h"

#include "spin.h"

/*
 * Spinning pays when what is awaited comes soon and when no other process
 * needs the core meanwhile.  Of the first, the lengths of the waits tell; of
 * the second, a gap between two looks that are a system call apart: then this
 * thread was taken off its core.  The number of ranks on a host would tell
 * less, because ranks move.
 */
enum {
	SPIN_DEFAULT_US = 20,
	GAP_NS = 500 * 1000, /* a look takes about 1 us */
	REST_MIN = 64,       /* waits without spinning after a gap; doubled by every gap that follows soon */
	REST_MAX = 16 * 1024,
	LOOKS_PER_CLOCK = 4, /* the clock is read after so many looks */
	PROBE_EVERY = 64,    /* a wait that spins although the ones before were long */
};

static uint64_t max_ns;
static uint64_t usual_ns; /* moving average of the waits' lengths, each counted as 4 * max_ns at most */
static unsigned rest;     /* waits that still do not spin */
static unsigned rest_next;
static unsigned waits;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void ch3m_spin_init(void)
{
	int us = SPIN_DEFAULT_US;

	MPL_env2int("MPIR_CVAR_CH3_MSOCK_SPIN_USEC", &us);
	max_ns = us > 0 ? (uint64_t)us * 1000 : 0;
	usual_ns = 0;
	rest = 0;
	rest_next = REST_MIN;
}

void ch3m_spin_begin(struct ch3m_spin *spin)
{
	spin->looks = 0;
	spin->limit_ns = 0;
	waits++;
	if (rest) {
		rest--;
		return;
	}
	if (usual_ns <= max_ns || waits % PROBE_EVERY == 0)
		spin->limit_ns = max_ns;
	if (rest_next > REST_MIN && waits % REST_MAX == 0)
		rest_next /= 2;
}

int ch3m_spin_again(struct ch3m_spin *spin)
{
	uint64_t now;

	if (!spin->limit_ns) {
		if (!spin->looks++)
			spin->begin_ns = now_ns();
		return FALSE;
	}
	if (spin->looks++ % LOOKS_PER_CLOCK)
		return TRUE;
	now = now_ns();
	if (spin->looks == 1) {
		spin->begin_ns = now;
	} else if (now - spin->last_ns > GAP_NS) {
		rest = rest_next;
		rest_next = MPL_MIN(2 * rest_next, (unsigned)REST_MAX);
		return FALSE;
	}
	spin->last_ns = now;
	return now - spin->begin_ns < spin->limit_ns;
}

void ch3m_spin_end(struct ch3m_spin *spin)
{
	uint64_t length = 0;

	if (!max_ns)
		return;
	if (spin->looks > LOOKS_PER_CLOCK || !spin->limit_ns)
		length = spin->looks ? now_ns() - spin->begin_ns : 0;
	length = MPL_MIN(length, 4 * max_ns);
	usual_ns += ((int64_t)length - (int64_t)usual_ns) / 8;
}
