/* SPDX-License-Identifier: MIT */
/*
 * waits.c - sleeps and timed waits that a kick does not end.
 *
 * A relative time becomes an absolute one of the clock it is measured by, once,
 * at the call: so a call that is entered again, also on another host, ends
 * when it would have.
 */
#include <aio.h>
#include <errno.h>
#include <semaphore.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include "preload/preload.h"
#include "preload/real.h"
#include "preload/window.h"

int __nanosleep(const struct timespec *request, struct timespec *left);

/* -errno; *left is set on -EINTR of a relative sleep. */
static long wait_sleep(clockid_t clock, int flags, const struct timespec *request, struct timespec *left)
{
	struct timespec deadline = *request;
	struct window w;
	long result;

	if (!window_time_valid(request))
		return -EINVAL;
	if (!(flags & TIMER_ABSTIME)) {
		/* a relative sleep does not follow when somebody sets the clock */
		if (clock == CLOCK_REALTIME || clock == CLOCK_TAI)
			clock = CLOCK_MONOTONIC;
		deadline = window_deadline(clock, request);
	}
	window_open(&w);
	do
		result = window_wait(&w, SYS_clock_nanosleep, clock, TIMER_ABSTIME, (long)&deadline, 0, 0, 0);
	while (window_again(&w, result));
	if (result == -EINTR && left && !(flags & TIMER_ABSTIME))
		*left = window_left(clock, &deadline);
	return result;
}

PRELOAD_API int clock_nanosleep(clockid_t clock, int flags, const struct timespec *request, struct timespec *left)
{
	if (!preload_active())
		return REAL(clock_nanosleep)(clock, flags, request, left);
	return -wait_sleep(clock, flags, request, left);
}

PRELOAD_API int nanosleep(const struct timespec *request, struct timespec *left)
{
	if (!preload_active())
		return REAL(nanosleep)(request, left);
	return window_result(wait_sleep(CLOCK_REALTIME, 0, request, left));
}

PRELOAD_API int __nanosleep(const struct timespec *request, struct timespec *left)
{
	return nanosleep(request, left);
}

PRELOAD_API int usleep(useconds_t us)
{
	struct timespec request = { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 };

	if (!preload_active())
		return REAL(usleep)(us);
	return nanosleep(&request, NULL);
}

PRELOAD_API unsigned sleep(unsigned s)
{
	struct timespec request = { .tv_sec = s }, left = { 0 };

	if (!preload_active())
		return REAL(sleep)(s);
	return wait_sleep(CLOCK_REALTIME, 0, &request, &left) < 0 ? left.tv_sec : 0;
}

PRELOAD_API int thrd_sleep(const struct timespec *request, struct timespec *left)
{
	long result = wait_sleep(CLOCK_REALTIME, 0, request, left);

	if (!preload_active())
		return REAL(thrd_sleep)(request, left);
	return result == 0 ? 0 : result == -EINTR ? -1 : -2;
}

/* Absolute already. The C library makes the call, so here the window of window.h is open for a few instructions. */
PRELOAD_API int sem_timedwait(sem_t *sem, const struct timespec *deadline)
{
	struct window w;
	int status;

	window_open(&w);
	do
		status = REAL(sem_timedwait)(sem, deadline);
	while (status < 0 && window_again(&w, -errno));
	return status;
}

PRELOAD_API int sem_clockwait(sem_t *sem, clockid_t clock, const struct timespec *deadline)
{
	struct window w;
	int status;

	window_open(&w);
	do
		status = REAL(sem_clockwait)(sem, clock, deadline);
	while (status < 0 && window_again(&w, -errno));
	return status;
}

PRELOAD_API int aio_suspend(const struct aiocb *const list[], int n, const struct timespec *timeout)
{
	struct timespec left, deadline;
	struct window w;
	int status;

	if (timeout) {
		left = *timeout;
		deadline = window_deadline(CLOCK_MONOTONIC, timeout);
	}
	window_open(&w);
	while ((status = REAL(aio_suspend)(list, n, timeout ? &left : NULL)) < 0 && window_again(&w, -errno))
		if (timeout)
			left = window_left(CLOCK_MONOTONIC, &deadline);
	return status;
}

PRELOAD_API int semtimedop(int id, struct sembuf *ops, size_t n, const struct timespec *timeout)
{
	struct timespec left, deadline;
	struct window w;
	long result;

	if (!preload_active())
		return REAL(semtimedop)(id, ops, n, timeout);
	if (timeout) {
		left = *timeout;
		if (window_time_valid(timeout))
			deadline = window_deadline(CLOCK_MONOTONIC, timeout);
	}
	window_open(&w);
	while (window_again(
		&w, result = window_wait(&w, SYS_semtimedop, id, (long)ops, n, timeout ? (long)&left : 0, 0, 0)))
		if (timeout)
			left = window_left(CLOCK_MONOTONIC, &deadline);
	return window_result(result);
}

PRELOAD_API int semop(int id, struct sembuf *ops, size_t n)
{
	if (!preload_active())
		return REAL(semop)(id, ops, n);
	return semtimedop(id, ops, n, NULL);
}

PRELOAD_API ssize_t msgrcv(int id, void *msg, size_t size, long type, int flags)
{
	struct window w;
	long result;

	if (!preload_active())
		return REAL(msgrcv)(id, msg, size, type, flags);
	window_open(&w);
	do
		result = window_wait(&w, SYS_msgrcv, id, (long)msg, size, type, flags, 0);
	while (window_again(&w, result));
	return window_result(result);
}

PRELOAD_API int msgsnd(int id, const void *msg, size_t size, int flags)
{
	struct window w;
	long result;

	if (!preload_active())
		return REAL(msgsnd)(id, msg, size, flags);
	window_open(&w);
	do
		result = window_wait(&w, SYS_msgsnd, id, (long)msg, size, flags, 0, 0);
	while (window_again(&w, result));
	return window_result(result);
}
