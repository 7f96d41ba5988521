/* SPDX-License-Identifier: MIT */
#include "lib/engine.h"

#include "lib/core.h"
#include "lib/log.h"
#include "lib/sys.h"

#include <sys/eventfd.h>

enum { ENGINE_BUDGET = 64 }; /* events handled before others get the lock */

static int engine_ep = -1;
static unsigned engine_busy;        /* watches that are not lasting */
static struct timer *engine_timers; /* the earliest: the root of a pairing heap */
static bool engine_is_paused;
static unsigned engine_sleepers; /* threads that computed their time of waiting from the earliest timer */

static void engine_poked(struct watch *w, uint32_t events)
{
	uint64_t count;

	ms_read(w->fd, &count, sizeof(count));
}

static struct watch engine_poke_watch = { .fd = -1, .lasting = true, .ready = engine_poked };

/* Put fd under the number, unless that is -1. */
static int engine_place(int fd, int number)
{
	int err;

	if (fd < 0 || number < 0)
		return fd < 0 ? fd : core_raise_fd(fd);
	if (fd == number)
		return fd;
	err = ms_dup3(fd, number, O_CLOEXEC);
	ms_close(fd);
	return err < 0 ? err : number;
}

int engine_open(bool again)
{
	int fd = engine_place(ms_epoll_create(EPOLL_CLOEXEC), again ? engine_ep : -1);
	int poke;

	if (fd < 0)
		return fd;
	engine_ep = fd;
	poke = engine_place(ms_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), again ? engine_poke_watch.fd : -1);
	if (poke < 0)
		return poke;
	engine_forget(&engine_poke_watch);
	engine_watch(&engine_poke_watch, poke, EPOLLIN);
	core_own_fd(fd, true);
	core_own_fd(poke, true);
	return 0;
}

/* Its descriptors are the parent's, or closed by now. */
void engine_forked(void)
{
	while (engine_timers)
		engine_timer_clear(engine_timers);
	engine_ep = -1;
	engine_poke_watch.fd = -1;
	engine_poke_watch.events = 0;
	engine_busy = engine_sleepers = 0;
	engine_is_paused = false;
}

void engine_poke(void)
{
	uint64_t one = 1;

	ms_write(engine_poke_watch.fd, &one, sizeof(one));
}

int engine_poke_fd(void)
{
	return engine_poke_watch.fd;
}

int engine_fd(void)
{
	return engine_ep;
}

void engine_watch(struct watch *w, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };
	int err = 0;

	if (w->events == events && (!events || w->fd == fd))
		return;
	if (w->events && (!events || w->fd != fd)) {
		ms_epoll_ctl(engine_ep, EPOLL_CTL_DEL, w->fd, NULL);
		w->events = 0;
		engine_busy -= !w->lasting;
	}
	if (!events)
		return;
	err = ms_epoll_ctl(engine_ep, w->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev);
	if (err < 0) {
		ms_log(LOG_ERROR, "epoll_ctl of descriptor %d: error %d", fd, -err);
		return;
	}
	engine_busy += !w->events && !w->lasting;
	w->fd = fd;
	w->events = events;
}

void engine_forget(struct watch *w)
{
	if (!w->events)
		return;
	w->events = 0;
	engine_busy -= !w->lasting;
}

/*
 * A pairing heap: each timer has its later ones below it, the first by child,
 * the others by next; prev is the one before, or above.  Setting is constant
 * time, clearing logarithmic in the long run.
 */
static struct timer *heap_join(struct timer *a, struct timer *b)
{
	struct timer *first = !b || (a && a->at_ns <= b->at_ns) ? a : b, *later = first == a ? b : a;

	if (!later)
		return first;
	later->prev = first;
	later->next = first->child;
	if (later->next)
		later->next->prev = later;
	first->child = later;
	return first;
}

static struct timer *heap_alone(struct timer *t)
{
	if (t)
		t->next = t->prev = NULL;
	return t;
}

/* One heap of siblings: two by two, then those from the last to the first. */
static struct timer *heap_gather(struct timer *siblings)
{
	struct timer *pairs = NULL, *all = NULL;

	while (siblings) {
		struct timer *a = siblings, *b = a->next;

		siblings = b ? b->next : NULL;
		a = heap_join(heap_alone(a), heap_alone(b));
		a->next = pairs;
		pairs = a;
	}
	while (pairs) {
		struct timer *next = pairs->next;

		all = heap_join(all, heap_alone(pairs));
		pairs = next;
	}
	return all;
}

void engine_timer_clear(struct timer *t)
{
	struct timer *below;

	if (!t->set)
		return;
	t->set = false;
	below = heap_gather(t->child);
	t->child = NULL;
	if (t == engine_timers) {
		engine_timers = below;
		return;
	}
	if (t->prev->child == t)
		t->prev->child = t->next;
	else
		t->prev->next = t->next;
	if (t->next)
		t->next->prev = t->prev;
	engine_timers = heap_join(engine_timers, below);
}

void engine_timer_set(struct timer *t, uint64_t in_ns)
{
	engine_timer_clear(t);
	t->at_ns = ms_clock_ns(CLOCK_MONOTONIC) + in_ns;
	t->child = NULL;
	t->set = true;
	engine_timers = heap_join(engine_timers, heap_alone(t));
	if (engine_timers == t && engine_sleepers)
		engine_poke();
}

static void engine_run_timers(void)
{
	uint64_t now;
	struct timer *t;

	if (!engine_timers)
		return;
	now = ms_clock_ns(CLOCK_MONOTONIC);
	while ((t = engine_timers) != NULL && t->at_ns <= now) {
		engine_timer_clear(t);
		t->fire(t);
	}
}

bool engine_run(void)
{
	struct epoll_event ev;

	/* One event at a time: its handler may end what a second one would point to. */
	for (int i = 0; i < ENGINE_BUDGET && !engine_is_paused; i++) {
		struct watch *w;

		engine_run_timers();
		if (engine_is_paused || ms_epoll_wait(engine_ep, &ev, 1, 0) <= 0)
			return false;
		w = ev.data.ptr;
		w->ready(w, ev.events);
	}
	return !engine_is_paused;
}

bool engine_has_work(void)
{
	return !engine_is_paused && (engine_busy || engine_timers);
}

bool engine_is_due(void)
{
	return engine_timers && ms_clock_ns(CLOCK_MONOTONIC) >= engine_timers->at_ns;
}

void engine_slept(void)
{
	engine_sleepers--;
}

int engine_sleep(int limit)
{
	uint64_t now, ms;

	engine_sleepers++;
	if (!engine_timers)
		return limit;
	now = ms_clock_ns(CLOCK_MONOTONIC);
	ms = engine_timers->at_ns > now ? (engine_timers->at_ns - now + 999999) / 1000000 : 0;
	return limit >= 0 && (uint64_t)limit < ms ? limit : ms > 3600000 ? 3600000 : (int)ms;
}

void engine_await(int timeout_ms)
{
	struct pollfd ready = { .fd = engine_ep, .events = POLLIN };

	ms_poll(&ready, 1, timeout_ms);
}

void engine_pause(bool pause)
{
	engine_is_paused = pause;
}

bool engine_paused(void)
{
	return engine_is_paused;
}
