/* SPDX-License-Identifier: MIT */
/*
 * window.h - waiting system calls that a kick may interrupt unseen, and an application's signal may not.
 *
 * The calls that end with EINTR whatever SA_RESTART says (poll, nanosleep ...)
 * are made by window_wait.  Every handler of the application is entered
 * through a trampoline (actions.c) that counts; so an EINTR with the thread's
 * count unchanged is not the application's, and the caller enters again with the
 * time left to an absolute deadline.  Whether a kick has been counted does not
 * matter: a kick of the process wakes one thread, and another one that happens to
 * pass through the kernel may take it, and count it only later.
 *
 * Between reading the count and the kernel's going to sleep an application's
 * handler may run; sleeping then would swallow its EINTR.  So the count is
 * compared in a few instructions before the system call, the window, and the
 * trampoline sets a program counter that it finds there back to the
 * comparison.  (The C library has no such window: it loses that race; here it
 * would be lost more often, since each kick opens it again.)
 */
#ifndef PRELOAD_WINDOW_H
#define PRELOAD_WINDOW_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <ucontext.h>

/* One call of the application; the counter is of its thread. */
struct window {
	volatile unsigned *app_signals;
	unsigned app_signals_at;
};

void window_open(struct window *w);

/* The system call, a cancellation point. The kernel's result, -errno. */
long window_wait(struct window *w, long number, long a, long b, long c, long d, long e, long f);

/* After -EINTR: it was no handler of the application; enter again. */
bool window_again(struct window *w, long result);

/* -errno to errno and -1. */
long window_result(long result);

/* For the trampoline: see above. */
void window_rewind(ucontext_t *uc);

/* Absolute times; far ones saturate. */
struct timespec window_deadline(clockid_t clock, const struct timespec *in);
struct timespec window_left(clockid_t clock, const struct timespec *deadline);
static inline bool window_time_valid(const struct timespec *t)
{
	return t->tv_sec >= 0 && t->tv_nsec >= 0 && t->tv_nsec < 1000000000;
}

#endif
