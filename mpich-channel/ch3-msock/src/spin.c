/* SPDX-License-Identifier: MIT */
#include <time.h>

#include "mpidi_ch3_impl.h"

#include "spin.h"

/*
 * Spinning pays when what is awaited comes within about the time that going to
 * sleep and being woken costs, and when no other process needs the core
 * meanwhile: a peer on the same core cannot send what is awaited while we look
 * for it.  Neither the lengths of the waits tell that (one that sleeps is
 * short just because it does not spin) nor the number of ranks on a host (ranks
 * move), but success does.  So each way of looking has a gate: a failure shuts
 * it for some waits, twice as many after each failure in a row.
 */
enum {
	SPIN_DEFAULT_US = 40,
	SPIN_REST_MAX = 1024, /* waits */
	LOOK_REST_MAX = 64,
	CLOCK_EVERY = 8,      /* looks between two readings of the clock; a look takes about half a microsecond */
	GAP_NS = 200 * 1000,  /* between two readings: this thread was taken off its core */
};

struct gate {
	unsigned rest; /* waits for which it is still shut */
	unsigned next; /* and after the next failure */
};

static struct gate spin_gate, look_gate;
static uint64_t max_ns;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int gate_pass(struct gate *gate)
{
	if (!gate->rest)
		return TRUE;
	gate->rest--;
	return FALSE;
}

static void gate_success(struct gate *gate)
{
	gate->next = MPL_MAX(gate->next / 2, 1);
}

static void gate_failure(struct gate *gate, unsigned rest_max)
{
	gate->rest = gate->next;
	gate->next = MPL_MIN(2 * gate->next, rest_max);
}

void ch3m_spin_init(void)
{
	int us = SPIN_DEFAULT_US;

	MPL_env2int("MPIR_CVAR_CH3_MSOCK_SPIN_USEC", &us);
	max_ns = us > 0 ? (uint64_t)us * 1000 : 0;
	spin_gate = look_gate = (struct gate){ .next = 1 };
}

void ch3m_spin_begin(struct ch3m_spin *spin, int has_hot)
{
	spin->looks = 0;
	spin->plan = CH3M_SPIN_NOT;
	if (max_ns && gate_pass(&spin_gate))
		spin->plan = CH3M_SPIN_LONG;
	else if (has_hot && gate_pass(&look_gate))
		spin->plan = CH3M_SPIN_ONCE;
}

/* Has the spinning come to its end? */
static int is_over(struct ch3m_spin *spin)
{
	uint64_t now = now_ns();
	int over;

	if (spin->looks == CLOCK_EVERY)
		spin->begin_ns = spin->last_ns = now;
	over = now - spin->begin_ns >= max_ns || now - spin->last_ns > GAP_NS;
	spin->last_ns = now;
	return over;
}

int ch3m_spin_again(struct ch3m_spin *spin)
{
	switch (spin->plan) {
	case CH3M_SPIN_ONCE:
		if (!spin->looks++)
			return TRUE;
		gate_failure(&look_gate, LOOK_REST_MAX);
		return FALSE;
	case CH3M_SPIN_LONG:
		if (spin->looks && spin->looks % CLOCK_EVERY == 0 && is_over(spin)) {
			gate_failure(&spin_gate, SPIN_REST_MAX);
			return FALSE;
		}
		spin->looks++;
		return TRUE;
	default:
		return FALSE;
	}
}

void ch3m_spin_found(struct ch3m_spin *spin)
{
	if (spin->looks == 1)
		gate_success(&look_gate);
	else
		gate_success(&spin_gate);
}
