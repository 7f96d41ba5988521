/* SPDX-License-Identifier: MIT */
/*
 * polls.c - poll, select and epoll_wait, which a kick does not end; their masks do not hold the kick.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "preload/preload.h"
#include "preload/real.h"
#include "preload/window.h"

int __poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t room);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *set, size_t room);
void __chk_fail(void) __attribute__((noreturn));
int __select(int n, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout);

/* A wait with a time: NULL timeout for ever. What the kernel writes into its own copy is not used. */
struct poll_time {
	struct timespec left, deadline;
	struct timespec *arg; /* of the system call */
};

static void poll_time_start(struct poll_time *t, const struct timespec *timeout)
{
	t->arg = NULL;
	if (!timeout)
		return;
	t->left = *timeout;
	t->arg = &t->left;
	/* one that is wrong is for the kernel to refuse */
	if (window_time_valid(timeout) && (timeout->tv_sec || timeout->tv_nsec))
		t->deadline = window_deadline(CLOCK_MONOTONIC, timeout);
	else
		t->deadline = (struct timespec){ 0 };
}

static void poll_time_again(struct poll_time *t)
{
	if (t->arg)
		t->left = window_left(CLOCK_MONOTONIC, &t->deadline);
}

static const sigset_t *poll_mask(const sigset_t *set, sigset_t *without)
{
	if (!set)
		return set;
	*without = preload_set_without_kick(set);
	return without;
}

static struct timespec poll_from_ms(int ms)
{
	return (struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
}

PRELOAD_API int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *set)
{
	struct poll_time t;
	struct window w;
	sigset_t without;
	long result;

	if (!preload_active())
		return REAL(ppoll)(fds, n, timeout, set);
	set = poll_mask(set, &without);
	poll_time_start(&t, timeout);
	window_open(&w);
	while (window_again(
		&w, result = window_wait(&w, SYS_ppoll, (long)fds, n, (long)t.arg, (long)set, sizeof(uint64_t), 0)))
		poll_time_again(&t);
	return window_result(result);
}

PRELOAD_API int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	struct timespec timeout = poll_from_ms(timeout_ms);

	if (!preload_active())
		return REAL(poll)(fds, n, timeout_ms);
	return ppoll(fds, n, timeout_ms < 0 ? NULL : &timeout, NULL);
}

PRELOAD_API int __poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	return poll(fds, n, timeout_ms);
}

/* As compiled with _FORTIFY_SOURCE. */
PRELOAD_API int __poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t room)
{
	if (room / sizeof(*fds) < n)
		__chk_fail();
	return poll(fds, n, timeout_ms);
}

PRELOAD_API int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *set,
			    size_t room)
{
	if (room / sizeof(*fds) < n)
		__chk_fail();
	return ppoll(fds, n, timeout, set);
}

/* The kernel's way to give pselect6 a set and its size in one argument. */
struct poll_pselect_set {
	const sigset_t *set;
	size_t size;
};

static long poll_select(int n, fd_set *in, fd_set *out, fd_set *except, struct poll_time *t, const sigset_t *set)
{
	struct poll_pselect_set given = { set, sizeof(uint64_t) };
	struct window w;
	long result;

	window_open(&w);
	while (window_again(&w, result = window_wait(&w, SYS_pselect6, n, (long)in, (long)out, (long)except,
						     (long)t->arg, (long)&given)))
		poll_time_again(t);
	return result;
}

PRELOAD_API int pselect(int n, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout,
			const sigset_t *set)
{
	struct poll_time t;
	sigset_t without;

	if (!preload_active())
		return REAL(pselect)(n, in, out, except, timeout, set);
	poll_time_start(&t, timeout);
	return window_result(poll_select(n, in, out, except, &t, poll_mask(set, &without)));
}

/* The time that is left goes to *timeout, as Linux has it. */
PRELOAD_API int select(int n, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout)
{
	struct timespec given;
	struct poll_time t;
	long result;

	if (!preload_active())
		return REAL(select)(n, in, out, except, timeout);
	if (timeout) {
		if (timeout->tv_sec < 0 || timeout->tv_usec < 0)
			return window_result(-EINVAL);
		given.tv_sec = timeout->tv_sec + timeout->tv_usec / 1000000;
		given.tv_nsec = timeout->tv_usec % 1000000 * 1000;
	}
	poll_time_start(&t, timeout ? &given : NULL);
	result = poll_select(n, in, out, except, &t, NULL);
	if (timeout) {
		poll_time_again(&t);
		timeout->tv_sec = t.left.tv_sec;
		timeout->tv_usec = t.left.tv_nsec / 1000;
	}
	return window_result(result);
}

PRELOAD_API int __select(int n, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout)
{
	return select(n, in, out, except, timeout);
}

PRELOAD_API int epoll_pwait2(int epoll, struct epoll_event *events, int max, const struct timespec *timeout,
			     const sigset_t *set)
{
	struct poll_time t;
	struct window w;
	sigset_t without;
	long result;

	if (!preload_active())
		return REAL(epoll_pwait2)(epoll, events, max, timeout, set);
	set = poll_mask(set, &without);
	poll_time_start(&t, timeout);
	window_open(&w);
	while (window_again(&w, result = window_wait(&w, SYS_epoll_pwait2, epoll, (long)events, max, (long)t.arg,
						     (long)set, sizeof(uint64_t))))
		poll_time_again(&t);
	return window_result(result);
}

/* Not by epoll_pwait2, which kernels before 5.11 lack. */
PRELOAD_API int epoll_pwait(int epoll, struct epoll_event *events, int max, int timeout_ms, const sigset_t *set)
{
	struct timespec timeout = poll_from_ms(timeout_ms);
	struct poll_time t;
	struct window w;
	sigset_t without;
	long result;

	if (!preload_active())
		return REAL(epoll_pwait)(epoll, events, max, timeout_ms, set);
	set = poll_mask(set, &without);
	poll_time_start(&t, timeout_ms < 0 ? NULL : &timeout);
	window_open(&w);
	while (window_again(&w, result = window_wait(&w, SYS_epoll_pwait, epoll, (long)events, max, timeout_ms,
						     (long)set, sizeof(uint64_t)))) {
		poll_time_again(&t);
		if (timeout_ms > 0) /* never too early */
			timeout_ms = t.left.tv_sec * 1000 + (t.left.tv_nsec + 999999) / 1000000;
	}
	return window_result(result);
}

PRELOAD_API int epoll_wait(int epoll, struct epoll_event *events, int max, int timeout_ms)
{
	if (!preload_active())
		return REAL(epoll_wait)(epoll, events, max, timeout_ms);
	return epoll_pwait(epoll, events, max, timeout_ms, NULL);
}
