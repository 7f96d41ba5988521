/* SPDX-License-Identifier: MIT */
/*
 * Signal actions, timers and pending signals.
 *
 * Pending signals can only be read by taking them, and a running timer would
 * add some meanwhile, so timers are stopped.  Stopping a POSIX timer makes newer
 * kernels drop its pending signal: those are taken before and after.  Signals
 * are given back by the threads themselves as they go on, wherever that is; the
 * kernel lets a thread send itself any siginfo.
 */
#include <errno.h>

#include "image/baggage.h"
#include "image/mem.h"
#include "image/proc.h"
#include "image/say.h"

enum { SIGNALS_MAX = 16384, TIMERS_TEXT = 1 << 20, PR_TIMER_RESTORE_IDS = 77 };

static void itimers_stop(struct baggage *c)
{
	const struct itimerval off = { 0 };

	for (int which = ITIMER_REAL; which <= ITIMER_PROF; which++)
		ms_sys3(SYS_setitimer, which, (long)&off, (long)&c->itimer[which]);
}

/* One timer of /proc/self/timers: four lines, "ID: ", "signal: n/value", "notify: how/pid.n", "ClockID: n". */
static bool timer_parse(const char **at, struct baggage_timer *t)
{
	const char *s = *at;
	const char *id = proc_field(s, "ID");
	const char *signal = proc_field(s, "signal");
	const char *notify = proc_field(s, "notify");
	const char *clock = proc_field(s, "ClockID");
	bool negative;

	if (!id || !signal || !notify || !clock)
		return false;
	t->id = (int)proc_number(&id, 10);
	t->signal = (int)proc_number(&signal, 10);
	signal++;
	t->value = proc_number(&signal, 16);
	t->notify = *notify == 'n' ? SIGEV_NONE : *notify == 't' ? SIGEV_THREAD : SIGEV_SIGNAL;
	while (*notify && *notify != '/')
		notify++;
	t->tid = 0;
	if (notify[0] && notify[1] == 't') { /* tid. */
		t->notify |= SIGEV_THREAD_ID;
		notify += 5;
		t->tid = (int)proc_number(&notify, 10);
	}
	negative = *clock == '-';
	clock += negative;
	t->clock = (int)proc_number(&clock, 10);
	if (negative)
		t->clock = -t->clock;
	*at = clock;
	return true;
}

static int timers_list(struct baggage *c, char why[IMAGE_WHY])
{
	size_t mark = c->arena_used;
	char *text = baggage_alloc(c, TIMERS_TEXT);
	const char *at = text;
	struct baggage_timer t = { 0 };
	long n;

	if (!text)
		return image_say(why, "no memory for timers");
	n = proc_read("/proc/self/timers", text, TIMERS_TEXT);
	if (n == -ENOENT || n == 0) {
		c->arena_used = mark;
		return 0;
	}
	if (n < 0)
		return image_say(why, "cannot read /proc/self/timers: %e", (int)n);
	while (timer_parse(&at, &t)) {
		struct baggage_timer *slot = baggage_alloc(c, sizeof(t));

		if (!slot)
			return image_say(why, "too many timers");
		if (!c->timers)
			c->timers = slot;
		*slot = t;
		c->timer_count++;
		ms_sys2(SYS_timer_gettime, t.id, (long)&slot->left);
	}
	return 0;
}

static bool timespec_is_zero(const struct timespec *t)
{
	return !t->tv_sec && !t->tv_nsec;
}

static void timers_stop(struct baggage *c)
{
	const struct itimerspec off = { 0 };

	for (uint32_t i = 0; i < c->timer_count; i++) {
		struct baggage_timer *t = &c->timers[i];
		bool ran = !timespec_is_zero(&t->left.it_value);

		ms_sys4(SYS_timer_settime, t->id, 0, (long)&off, (long)&t->left);
		t->fired = ran && timespec_is_zero(&t->left.it_value);
	}
}

/* A timer that ran out between the first taking and its stop, and whose signal was dropped: soon again. */
static void timers_mend(struct baggage *c)
{
	for (uint32_t i = 0; i < c->timer_count; i++) {
		struct baggage_timer *t = &c->timers[i];

		for (uint32_t k = 0; t->fired && k < c->signal_count; k++)
			if (c->signals[k].info.si_code == SI_TIMER && c->signals[k].info.si_timerid == t->id)
				t->fired = false;
		if (t->fired)
			t->left.it_value.tv_nsec = 1;
	}
}

int baggage_signals(struct baggage *c, char why[IMAGE_WHY])
{
	for (int s = 1; s <= 64; s++)
		ms_sigaction(s, NULL, &c->action[s - 1]);
	c->signals = baggage_alloc(c, SIGNALS_MAX * sizeof(*c->signals));
	if (!c->signals)
		return image_say(why, "no memory for pending signals");
	c->signal_max = SIGNALS_MAX;
	c->timers_stopped_ns = ms_clock_ns(CLOCK_MONOTONIC);
	c->timers_stopped = true;
	itimers_stop(c);
	if (timers_list(c, why))
		return -1;
	baggage_signal_drain(c, 0);
	image_drain_threads(c);
	timers_stop(c);
	if (c->timer_count) {
		baggage_signal_drain(c, 0);
		image_drain_threads(c);
		timers_mend(c);
	}
	if (c->signal_count == c->signal_max)
		return image_say(why, "more than %d pending signals", SIGNALS_MAX);
	return 0;
}

void baggage_signal_drain(struct baggage *c, int tid)
{
	const uint64_t all = ~MS_SIGBIT(image__state.kick);
	const struct timespec now = { 0 };

	while (c->signal_count < c->signal_max) {
		struct baggage_signal *s = &c->signals[c->signal_count];

		if (ms_sigtimedwait(&all, &s->info, &now) <= 0)
			return;
		s->tid = tid;
		c->signal_count++;
	}
}

void baggage_signals_return(struct baggage *c, int tid)
{
	int pid = ms_getpid();
	int self = ms_gettid();

	for (uint32_t i = 0; i < c->signal_count; i++) {
		const struct baggage_signal *s = &c->signals[i];

		if (s->tid != tid)
			continue;
		if (tid)
			ms_tgsigqueueinfo(pid, self, s->info.si_signo, &s->info);
		else
			ms_sigqueueinfo(pid, s->info.si_signo, &s->info);
	}
}

/* ns of the timer that are left after `gone`; at least 1, so that it still fires. */
static uint64_t time_left(uint64_t left, uint64_t gone)
{
	return left > gone ? left - gone : 1;
}

static void itimers_start(const struct baggage *c, uint64_t gone)
{
	for (int which = ITIMER_REAL; which <= ITIMER_PROF; which++) {
		struct itimerval v = c->itimer[which];
		uint64_t us = (uint64_t)v.it_value.tv_sec * 1000000 + (uint64_t)v.it_value.tv_usec;
		uint64_t every = (uint64_t)v.it_interval.tv_sec * 1000000 + (uint64_t)v.it_interval.tv_usec;

		if (!us && !every)
			continue;
		if (!us) /* its signal was pending; the kernel starts it again when that is taken */
			us = every;
		if (which == ITIMER_REAL)
			us = time_left(us, gone / 1000);
		v.it_value.tv_sec = (time_t)(us / 1000000);
		v.it_value.tv_usec = (suseconds_t)(us % 1000000);
		ms_sys3(SYS_setitimer, which, (long)&v, 0);
	}
}

static bool clock_counts_time(int clock)
{
	return clock != CLOCK_PROCESS_CPUTIME_ID && clock != CLOCK_THREAD_CPUTIME_ID && clock >= 0;
}

void baggage_timers_return(struct baggage *c)
{
	uint64_t gone = ms_clock_ns(CLOCK_MONOTONIC) - c->timers_stopped_ns;

	if (!c->timers_stopped)
		return;
	itimers_start(c, gone);
	for (uint32_t i = 0; i < c->timer_count; i++) {
		struct baggage_timer *t = &c->timers[i];
		struct itimerspec v = t->left;
		uint64_t ns = (uint64_t)v.it_value.tv_sec * 1000000000u + (uint64_t)v.it_value.tv_nsec;

		if (!ns)
			continue;
		if (clock_counts_time(t->clock))
			ns = time_left(ns, gone);
		v.it_value.tv_sec = (time_t)(ns / 1000000000u);
		v.it_value.tv_nsec = (long)(ns % 1000000000u);
		ms_sys4(SYS_timer_settime, t->id, 0, (long)&v, 0);
	}
}

/* A new timer with the number it had: the kernel's own way since 6.16, else by using numbers up. */
static int timer_create_as(const struct baggage_timer *t)
{
	union {
		struct sigevent ev;
		struct {
			uint64_t value;
			int signal, notify, tid;
		} raw;
	} u;
	int id = t->id;
	long e;

	memset(&u, 0, sizeof(u));
	u.raw.value = t->value;
	u.raw.signal = t->signal;
	u.raw.notify = t->notify;
	u.raw.tid = t->tid;
	for (int tries = 0; tries < 1 << 20; tries++) {
		e = ms_sys3(SYS_timer_create, t->clock, (long)&u, (long)&id);
		if (e < 0)
			return (int)e;
		if (id == t->id)
			return 0;
		ms_sys1(SYS_timer_delete, id);
		if (id > t->id)
			return -EEXIST;
	}
	return -EEXIST;
}

int baggage_signals_restore(struct baggage *c, struct image_arrival *a)
{
	for (int s = 1; s <= 64; s++)
		if (s != SIGKILL && s != SIGSTOP)
			ms_sigaction(s, &c->action[s - 1], NULL);
	ms_prctl(PR_TIMER_RESTORE_IDS, 1, 0, 0, 0);
	for (uint32_t i = 0; i < c->timer_count; i++) {
		int e = timer_create_as(&c->timers[i]);

		if (e)
			return image_say(a->why, "cannot make timer %d again: %e", c->timers[i].id, e);
	}
	ms_prctl(PR_TIMER_RESTORE_IDS, 0, 0, 0, 0);
	return 0;
}
