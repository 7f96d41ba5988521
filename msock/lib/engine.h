/* SPDX-License-Identifier: MIT */
/*
 * engine.h - the library's event loop: descriptors it watches for itself, timers, and who runs it.
 *
 * There is no loop of its own: whoever has time (msock_wait, the agent, the
 * mover) calls engine_run under the lock.
 */
#ifndef MSOCK_LIB_ENGINE_H
#define MSOCK_LIB_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

struct watch {
	int fd;          /* borrowed; meaningless while events is 0 */
	uint32_t events; /* registered, EPOLLIN and EPOLLOUT; 0: not registered */
	bool lasting;    /* its events may wait until somebody runs the engine anyway */
	void (*ready)(struct watch *w, uint32_t events);
};

struct timer {
	struct timer *child, *next, *prev; /* in the heap, see engine.c */
	uint64_t at_ns;                    /* CLOCK_MONOTONIC */
	bool set;
	void (*fire)(struct timer *t);
};

/* Make the engine's epoll set; again: at the target, under its old number. 0 or -errno. */
int engine_open(bool again);
int engine_fd(void);

/* In a forked child: there is none, no timer is set; its watches are to be forgotten one by one. */
void engine_forked(void);

/* Make whoever waits for the engine's events look again. */
void engine_poke(void);
int engine_poke_fd(void);

/* Register, change or (events 0) remove. A descriptor must be removed before it is closed or replaced. */
void engine_watch(struct watch *w, int fd, uint32_t events);

/* At the target every registration is gone: forget this one. */
void engine_forget(struct watch *w);

void engine_timer_set(struct timer *t, uint64_t in_ns);
void engine_timer_clear(struct timer *t);

/* Handle what is ready and due. True: it stopped before all was handled. Lock held. */
bool engine_run(void);

/* Is there anything that must not wait until an application thread comes by? Lock held. */
bool engine_has_work(void);

/* A timer is due. Lock held. */
bool engine_is_due(void);

/*
 * Before sleeping for the engine's events: milliseconds until the next timer,
 * at most `limit` (-1: no limit); a timer that is set meanwhile for an earlier
 * time wakes the sleeper. engine_slept after it. Lock held in both.
 */
int engine_sleep(int limit);
void engine_slept(void);

/* Sleep for them, no lock held. Takes none: an edge is seen once only, by engine_run. */
void engine_await(int timeout_ms);

/* While paused engine_run does nothing: a freeze is under way. Lock held. */
void engine_pause(bool pause);
bool engine_paused(void);

#endif
