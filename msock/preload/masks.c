/* SPDX-License-Identifier: MIT */
/*
 * masks.c - no set of signals that the application gives holds the kick; what it reads back does, if it put it in.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "preload/preload.h"
#include "preload/real.h"
#include "preload/window.h"

int __sigpause(int sig_or_mask, int is_sig);
int __xpg_sigpause(int signal);
int mask_sigpause_bsd(int mask) __asm__("sigpause"); /* the header gives that name to the other one */
int __sigsuspend(const sigset_t *set);
int sigblock(int mask);
int sigsetmask(int mask);
int siggetmask(void);

/* 0 or an error number */
static int mask_change(int how, const sigset_t *set, sigset_t *old)
{
	bool was = preload_kick_masked(), has;
	sigset_t without;
	int status;

	if (!set) {
		status = REAL(pthread_sigmask)(how, NULL, old);
	} else {
		has = preload_set_has_kick(set);
		without = preload_set_without_kick(set);
		status = REAL(pthread_sigmask)(how, &without, old);
		if (status == 0 && preload_own_memory())
			preload_kick_mask(how == SIG_SETMASK ? has : has ? how == SIG_BLOCK : was);
	}
	if (status == 0 && old)
		preload_set_put_kick(old, was);
	return status;
}

PRELOAD_API int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return preload_active() ? mask_change(how, set, old) : REAL(pthread_sigmask)(how, set, old);
}

PRELOAD_API int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	int status = pthread_sigmask(how, set, old);

	if (status == 0)
		return 0;
	errno = status;
	return -1;
}

/* The BSD calls know the first 32 signals only. */
static int mask_bsd(int how, unsigned mask)
{
	sigset_t set, old;

	sigemptyset(&set);
	set.__val[0] = mask;
	if (sigprocmask(how, &set, &old) < 0)
		return -1;
	return (int)old.__val[0];
}

PRELOAD_API int sigblock(int mask)
{
	return mask_bsd(SIG_BLOCK, mask);
}

PRELOAD_API int sigsetmask(int mask)
{
	return mask_bsd(SIG_SETMASK, mask);
}

PRELOAD_API int siggetmask(void)
{
	return mask_bsd(SIG_BLOCK, 0);
}

static int mask_one(int how, int signal)
{
	sigset_t set;

	sigemptyset(&set);
	return sigaddset(&set, signal) < 0 ? -1 : sigprocmask(how, &set, NULL);
}

PRELOAD_API int sighold(int signal)
{
	return mask_one(SIG_BLOCK, signal);
}

PRELOAD_API int sigrelse(int signal)
{
	return mask_one(SIG_UNBLOCK, signal);
}

PRELOAD_API int sigpending(sigset_t *set)
{
	int status = REAL(sigpending)(set);

	if (status == 0 && preload_active())
		preload_set_put_kick(set, false);
	return status;
}

PRELOAD_API int sigsuspend(const sigset_t *set)
{
	sigset_t without = preload_set_without_kick(set);
	struct window w;
	long result;

	if (!preload_active())
		return REAL(sigsuspend)(set);
	window_open(&w);
	do
		result = window_wait(&w, SYS_rt_sigsuspend, (long)&without, sizeof(uint64_t), 0, 0, 0, 0);
	while (window_again(&w, result));
	return window_result(result);
}

PRELOAD_API int __sigsuspend(const sigset_t *set)
{
	return sigsuspend(set);
}

PRELOAD_API int __sigpause(int sig_or_mask, int is_sig)
{
	sigset_t set;

	if (!is_sig) {
		sigemptyset(&set);
		set.__val[0] = (unsigned)sig_or_mask;
		return sigsuspend(&set);
	}
	if (sigprocmask(SIG_BLOCK, NULL, &set) < 0 || sigdelset(&set, sig_or_mask) < 0)
		return -1;
	return sigsuspend(&set);
}

PRELOAD_API int mask_sigpause_bsd(int mask)
{
	return __sigpause(mask, 0);
}

PRELOAD_API int __xpg_sigpause(int signal)
{
	return __sigpause(signal, 1);
}

PRELOAD_API int pause(void)
{
	struct window w;
	long result;

	if (!preload_active())
		return REAL(pause)();
	window_open(&w);
	do /* what pause is on processors that have none */
		result = window_wait(&w, SYS_ppoll, 0, 0, 0, 0, 0, 0);
	while (window_again(&w, result));
	return window_result(result);
}

PRELOAD_API int sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *timeout)
{
	sigset_t without = preload_set_without_kick(set);
	struct timespec left, deadline;
	siginfo_t got;
	struct window w;
	long result;

	if (!preload_active())
		return REAL(sigtimedwait)(set, info, timeout);
	if (timeout) {
		left = *timeout;
		if (window_time_valid(timeout))
			deadline = window_deadline(CLOCK_MONOTONIC, timeout);
	}
	window_open(&w);
	while (window_again(&w, result = window_wait(&w, SYS_rt_sigtimedwait, (long)&without, (long)&got,
						     timeout ? (long)&left : 0, sizeof(uint64_t), 0, 0)))
		if (timeout)
			left = window_left(CLOCK_MONOTONIC, &deadline);
	if (result > 0 && got.si_code == SI_TKILL)
		got.si_code = SI_USER; /* as the C library says it */
	if (result > 0 && info)
		*info = got;
	return window_result(result);
}

PRELOAD_API int sigwaitinfo(const sigset_t *set, siginfo_t *info)
{
	return sigtimedwait(set, info, NULL);
}

PRELOAD_API int sigwait(const sigset_t *set, int *signal)
{
	sigset_t without = preload_set_without_kick(set);

	if (!preload_active())
		return REAL(sigwait)(set, signal);
	return REAL(sigwait)(&without, signal);
}

PRELOAD_API int signalfd(int fd, const sigset_t *set, int flags)
{
	sigset_t without;

	if (!preload_active())
		return REAL(signalfd)(fd, set, flags);
	without = preload_set_without_kick(set);
	return REAL(signalfd)(fd, &without, flags);
}

PRELOAD_API int pthread_attr_setsigmask_np(pthread_attr_t *attr, const sigset_t *set)
{
	sigset_t without;

	if (!preload_active() || !set)
		return REAL(pthread_attr_setsigmask_np)(attr, set);
	without = preload_set_without_kick(set);
	return REAL(pthread_attr_setsigmask_np)(attr, &without);
}

/* Contexts that the application filled by hand: the set is changed in place, it is installed from there. */
PRELOAD_API int setcontext(const ucontext_t *uc)
{
	if (preload_active() && preload_set_has_kick(&uc->uc_sigmask))
		preload_set_put_kick(&((ucontext_t *)uc)->uc_sigmask, false);
	return REAL(setcontext)(uc);
}

PRELOAD_API int swapcontext(ucontext_t *save, const ucontext_t *uc)
{
	if (preload_active() && preload_set_has_kick(&uc->uc_sigmask))
		preload_set_put_kick(&((ucontext_t *)uc)->uc_sigmask, false);
	return REAL(swapcontext)(save, uc);
}

/* A thread that is made while its maker believes to block the kick believes so too. */
struct mask_start {
	void *(*start)(void *arg);
	void *arg;
};

static void *mask_thread(void *given)
{
	struct mask_start start = *(struct mask_start *)given;

	free(given);
	preload_kick_mask(true);
	return start.start(start.arg);
}

PRELOAD_API int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *arg), void *arg)
{
	struct mask_start *given = NULL;
	int status;

	if (!preload_active() || !preload_kick_masked())
		return REAL(pthread_create)(thread, attr, start, arg);
	given = malloc(sizeof(*given));
	if (!given)
		return EAGAIN;
	*given = (struct mask_start){ start, arg };
	status = REAL(pthread_create)(thread, attr, mask_thread, given);
	if (status != 0)
		free(given);
	return status;
}
