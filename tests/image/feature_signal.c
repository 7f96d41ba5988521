/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

#include "feature.h"

static volatile sig_atomic_t seen[65];
static volatile int values[64], value_count;

static void count(int sig)
{
	seen[sig]++;
}

static void queue(int sig, siginfo_t *info, void *uc)
{
	(void)uc;
	seen[sig]++;
	if (value_count < 64)
		values[value_count++] = info->si_value.sival_int;
}

static void catch (int sig, void (*fn)(int), int flags)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	sigaction(sig, &sa, NULL);
}

static void actions(void)
{
	struct sigaction sa;

	catch (SIGUSR1, count, SA_RESTART);
	signal(SIGUSR2, SIG_IGN);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		raise(SIGUSR1);
		raise(SIGUSR2);
		CHECK(seen[SIGUSR1] == k + 1);
		sigaction(SIGUSR1, NULL, &sa);
		CHECK(sa.sa_handler == count && (sa.sa_flags & SA_RESTART));
	}
}

/* Blocked signals wait for their release, in order, with their values, over the moves. */
static void pending(void)
{
	struct sigaction sa = { .sa_sigaction = queue, .sa_flags = SA_SIGINFO };
	int rt = SIGRTMIN + 3;
	sigset_t set, old, now;

	sigaction(rt, &sa, NULL);
	catch (SIGUSR1, count, 0);
	catch (SIGUSR2, count, 0);
	sigemptyset(&set);
	sigaddset(&set, rt);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, &old);
	for (int i = 0; i < 10; i++)
		CHECK(sigqueue(getpid(), rt, (union sigval){ .sival_int = 100 + i }) == 0);
	kill(getpid(), SIGUSR1);
	raise(SIGUSR2); /* to the thread */
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		sigpending(&now);
		CHECK(sigismember(&now, rt) && sigismember(&now, SIGUSR1) && sigismember(&now, SIGUSR2));
		CHECK(seen[rt] == 0 && seen[SIGUSR1] == 0);
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
	CHECK(seen[rt] == 10 && seen[SIGUSR1] == 1 && seen[SIGUSR2] == 1);
	for (int i = 0; i < 10; i++)
		CHECK(values[i] == 100 + i);
}

static void altstack(void)
{
	stack_t want = { .ss_sp = malloc(65536), .ss_size = 65536 }, have;

	CHECK(sigaltstack(&want, NULL) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(sigaltstack(NULL, &have) == 0);
		CHECK(have.ss_sp == want.ss_sp && have.ss_size == want.ss_size && have.ss_flags == 0);
	}
}

static volatile char *handler_sp;

static void move_inside(int sig)
{
	char here;

	handler_sp = &here;
	count(sig);
	CHECK(member_move() == 0);
}

/* Moved while a handler runs on the alternate stack. */
static void in_handler(void)
{
	stack_t want = { .ss_sp = malloc(262144), .ss_size = 262144 };

	CHECK(sigaltstack(&want, NULL) == 0);
	catch (SIGUSR1, move_inside, SA_ONSTACK);
	for (int k = 0; k < MOVES; k++) {
		raise(SIGUSR1);
		CHECK(seen[SIGUSR1] == k + 1);
		CHECK(handler_sp > (char *)want.ss_sp && handler_sp < (char *)want.ss_sp + want.ss_size);
	}
}

static void itimers(void)
{
	struct itimerval every = { { 0, 20000 }, { 0, 20000 } }, now;

	catch (SIGALRM, count, SA_RESTART);
	setitimer(ITIMER_REAL, &every, NULL);
	for (int k = 0; k < MOVES; k++) {
		int before = seen[SIGALRM];
		double until = feature_clock(CLOCK_MONOTONIC) + 2;

		CHECK(member_move() == 0);
		while (seen[SIGALRM] < before + 5)
			CHECK(feature_clock(CLOCK_MONOTONIC) < until);
		getitimer(ITIMER_REAL, &now);
		CHECK(now.it_interval.tv_usec == 20000);
	}
}

static void posix_timers(void)
{
	struct sigaction sa = { .sa_sigaction = queue, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 4, .sigev_value.sival_int = 77 };
	struct itimerspec every = { { 0, 10000000 }, { 0, 10000000 } }, once = { { 0, 0 }, { 1000, 0 } }, now;
	timer_t a, b, c;

	sigaction(SIGRTMIN + 4, &sa, NULL);
	CHECK(timer_create(CLOCK_MONOTONIC, &ev, &c) == 0);
	CHECK(timer_create(CLOCK_MONOTONIC, &ev, &a) == 0);
	CHECK(timer_create(CLOCK_REALTIME, NULL, &b) == 0);
	timer_delete(c); /* so that the numbers have a hole */
	timer_settime(a, 0, &every, NULL);
	timer_settime(b, 0, &once, NULL);
	for (int k = 0; k < MOVES; k++) {
		int before = seen[SIGRTMIN + 4];
		double until = feature_clock(CLOCK_MONOTONIC) + 2;

		CHECK(member_move() == 0);
		while (seen[SIGRTMIN + 4] < before + 5)
			CHECK(feature_clock(CLOCK_MONOTONIC) < until);
		CHECK(values[0] == 77);
		CHECK(timer_gettime(a, &now) == 0 && now.it_interval.tv_nsec == 10000000);
		CHECK(timer_gettime(b, &now) == 0 && now.it_value.tv_sec >= 990 && now.it_value.tv_sec < 1000);
	}
}

static void clocks(void)
{
	static const int clock[] = { CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE };

	for (int k = 0; k < MOVES; k++) {
		double before[3], real = feature_clock(CLOCK_REALTIME);

		for (int i = 0; i < 3; i++)
			before[i] = feature_clock(clock[i]);
		CHECK(member_move() == 0);
		real = feature_clock(CLOCK_REALTIME) - real;
		for (int i = 0; i < 3; i++) {
			double gone = feature_clock(clock[i]) - before[i];

			CHECK(gone > real - 0.02 && gone < real + 0.02);
		}
	}
}

/* Reads the clock all the time: most kicks find the thread in the vdso. */
static void clock_loop(void)
{
	double last = feature_clock(CLOCK_MONOTONIC);
	unsigned from = member_moves;

	for (int k = 0; k < MOVES; k++) {
		CHECK(write(1, "move\n", 5) == 5);
		while (member_moves == from + (unsigned)k) {
			double now = feature_clock(CLOCK_MONOTONIC);

			CHECK(now >= last && now < last + 5);
			last = now;
		}
	}
}

static void ids(void)
{
	pid_t pid = getpid(), sid = getsid(0), pgid = getpgrp();

	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(getpid() == pid && gettid() == pid && getsid(0) == sid && getpgrp() == pgid);
		CHECK(kill(pid, 0) == 0);
	}
}

static void sleeping(void)
{
	struct timespec t = { 2, 0 }; /* long enough for a move to begin and end in it on a busy machine */
	double start = feature_clock(CLOCK_MONOTONIC), end;

	CHECK(write(1, "move\n", 5) == 5);
	while (nanosleep(&t, &t) && errno == EINTR)
		;
	end = feature_clock(CLOCK_MONOTONIC);
	CHECK(end - start >= 2 && end - start < 4 && member_moves);
}

const struct feature signal_features[] = {
	{ "actions", actions },   { "pending", pending },
	{ "altstack", altstack }, { "in-handler", in_handler },
	{ "itimers", itimers },   { "posix-timers", posix_timers },
	{ "clocks", clocks },     { "clock-loop", clock_loop },
	{ "ids", ids },           { "sleeping", sleeping },
	{ NULL, NULL },
};
