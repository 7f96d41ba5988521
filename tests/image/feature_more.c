/* SPDX-License-Identifier: MIT */
/* Kinds of timers, locks, wakings and memory that programs use seldom. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "feature.h"

static volatile sig_atomic_t count_of[65];
static atomic_int last_tid, stop;

static void count(int sig)
{
	count_of[sig]++;
	last_tid = gettid();
}

/* Runs until the signal has come twice more. */
static void await_signal(int sig)
{
	int before = count_of[sig];
	double until = feature_clock(CLOCK_MONOTONIC) + 20;

	while (count_of[sig] < before + 2)
		CHECK(feature_clock(CLOCK_MONOTONIC) < until);
}

/* Those that count the processor's time and not the wall's. */
static void cpu_timers(void)
{
	struct itimerval every = { { 0, 10000 }, { 0, 10000 } }, now;
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 6 };
	struct itimerspec often = { { 0, 10000000 }, { 0, 10000000 } };
	timer_t t;

	signal(SIGPROF, count);
	signal(SIGVTALRM, count);
	signal(SIGRTMIN + 6, count);
	CHECK(setitimer(ITIMER_PROF, &every, NULL) == 0 && setitimer(ITIMER_VIRTUAL, &every, NULL) == 0);
	CHECK(timer_create(CLOCK_PROCESS_CPUTIME_ID, &ev, &t) == 0 && timer_settime(t, 0, &often, NULL) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		await_signal(SIGPROF);
		await_signal(SIGVTALRM);
		await_signal(SIGRTMIN + 6);
		CHECK(getitimer(ITIMER_VIRTUAL, &now) == 0 && now.it_interval.tv_usec == 10000);
	}
}

static void *ticked(void *arg)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 7 };
	struct itimerspec often = { { 0, 10000000 }, { 0, 10000000 } };
	timer_t t;

	ev._sigev_un._tid = gettid();
	CHECK(timer_create(CLOCK_MONOTONIC, &ev, &t) == 0 && timer_settime(t, 0, &often, NULL) == 0);
	*(atomic_int *)arg = gettid();
	while (!stop)
		usleep(1000);
	return (void *)(long)(gettid() == *(atomic_int *)arg);
}

/* A timer whose signal goes to one thread. */
static void thread_timer(void)
{
	atomic_int tid = 0;
	pthread_t t;
	void *r;

	signal(SIGRTMIN + 7, count);
	CHECK(pthread_create(&t, NULL, ticked, &tid) == 0);
	while (!tid)
		usleep(1000);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		last_tid = 0;
		await_signal(SIGRTMIN + 7);
		CHECK(last_tid == tid);
	}
	stop = 1;
	CHECK(pthread_join(t, &r) == 0 && r);
}

/* Asked by an open file description of another process, since our own would be let in. */
static bool ofd_locked(const char *path, off_t at)
{
	struct flock l = { .l_type = F_WRLCK, .l_start = at, .l_len = 1 };
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		int fd = open(path, O_RDWR);

		_exit(fd < 0 || fcntl(fd, F_OFD_GETLK, &l) ? 2 : l.l_type != F_UNLCK);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) < 2);
	return WEXITSTATUS(status) == 1;
}

/* Locks of an open file description, shared ones and exclusive ones, several in a file. */
static void ofd_locks(void)
{
	struct flock w = { .l_type = F_WRLCK, .l_start = 10, .l_len = 5 },
		     r = { .l_type = F_RDLCK, .l_start = 100, .l_len = 1 };
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/ofd", feature_dir());
	fd = open(path, O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0 && fcntl(fd, F_OFD_SETLK, &w) == 0 && fcntl(fd, F_OFD_SETLK, &r) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(ofd_locked(path, 12) && ofd_locked(path, 100) && !ofd_locked(path, 50));
	}
	close(fd);
	CHECK(!ofd_locked(path, 12));
	unlink(path);
}

/* What has been told once is told again after a move at the most, and what is new is told. */
static void edge_triggered(void)
{
	int set = epoll_create1(0), e = eventfd(0, EFD_NONBLOCK);
	struct epoll_event ev = { EPOLLIN | EPOLLET, { .u64 = 5 } }, got;
	uint64_t one = 1;

	CHECK(epoll_ctl(set, EPOLL_CTL_ADD, e, &ev) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(write(e, &one, 8) == 8);
		CHECK(member_move() == 0);
		CHECK(epoll_wait(set, &got, 1, 5000) == 1 && got.data.u64 == 5 && got.events == EPOLLIN);
		CHECK(epoll_wait(set, &got, 1, 0) == 0);
		CHECK(write(e, &one, 8) == 8);
		CHECK(epoll_wait(set, &got, 1, 5000) == 1);
	}
}

/* Signals of the kernel's own making have the same address and code as before. */
static void *volatile fault_at;
static char *volatile closed;

static void open_it(int sig, siginfo_t *info, void *uc)
{
	(void)sig;
	(void)uc;
	fault_at = info->si_code == SEGV_ACCERR ? info->si_addr : NULL;
	mprotect(closed, 4096, PROT_READ | PROT_WRITE);
}

static void guard_pages(void)
{
	struct sigaction sa = { .sa_sigaction = open_it, .sa_flags = SA_SIGINFO };

	closed = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(closed, 7, 3 * 4096);
	sigaction(SIGSEGV, &sa, NULL);
	for (int k = 0; k < MOVES; k++) {
		CHECK(mprotect(closed, 4096, PROT_NONE) == 0);
		CHECK(member_move() == 0);
		fault_at = NULL;
		closed[100] = (char)k;
		CHECK(fault_at == closed + 100 && closed[99] == 7 && closed[4096] == 7);
	}
}

/* Memory that was reserved long before it is used, and a hole that is closed again. */
static void reserved(void)
{
	size_t size = 64ul << 30;
	char *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(p != MAP_FAILED);
	for (int k = 0; k < MOVES; k++) {
		char *at = p + ((size_t)k * 7 + 1) * (1ul << 30);

		CHECK(mprotect(at, 1 << 20, PROT_READ | PROT_WRITE) == 0);
		memset(at, k + 1, 1 << 20);
		CHECK(member_move() == 0);
		for (int i = 0; i < 1 << 20; i += 4096)
			CHECK(at[i] == k + 1);
		CHECK(madvise(at, 1 << 20, MADV_DONTNEED) == 0 && at[0] == 0);
	}
}

const struct feature more_features[] = {
	{ "cpu-timers", cpu_timers },
	{ "thread-timer", thread_timer },
	{ "ofd-locks", ofd_locks },
	{ "edge-triggered", edge_triggered },
	{ "guard-pages", guard_pages },
	{ "reserved", reserved },
	{ NULL, NULL },
};
