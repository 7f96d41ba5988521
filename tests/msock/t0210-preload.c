/* SPDX-License-Identifier: MIT */
/*
 * t0210-preload - libmsock-preload.so under a storm of kicks.
 *
 * This program plays libmsock: it brings the hooks (lib/hooks.h) and the kick's
 * handler, starts itself again as a member with the preload, and has a thread
 * that kicks the one under test all the time.  MSOCK_TEST_SEED repeats a run,
 * MSOCK_TEST_ONLY=test_blocked_read makes that one alone (* and ? match).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/hooks.h"

#pragma weak msock__kick_returns /* the preload's */

enum { KICK = 63, DEADLINE_S = 120, ROUNDS = 60 };

static __thread volatile unsigned kicks, app_signals;
static volatile unsigned kicks_in_all;
static int own_fd = -1;
static unsigned forked;
static uint64_t random_state;

/* libmsock's part */

int msock__kick_signal(void)
{
	return KICK;
}
volatile unsigned *msock__app_signals(void)
{
	return &app_signals;
}
int msock__next_own_fd(int from)
{
	return own_fd >= from ? own_fd : -1;
}
bool msock__owns_fd(int fd)
{
	return fd >= 0 && fd == own_fd;
}

void msock__after_fork_child(void)
{
	forked++;
	own_fd = -1;
}

/*
 * Signals that are pending together with another kick when this one returns to
 * a read that it had restarted (test_signals_together).
 */
static volatile int together[3];               /* the signals; 0: none, or sent */
static volatile unsigned together_kicks = 101; /* since then */
static int blocked_pipe[2];

static void signals_together(const ucontext_t *uc)
{
	const greg_t *regs = uc->uc_mcontext.gregs;

	if (!together[0]) {
		/* a read that goes on all the same is ended */
		if (++together_kicks == 100 && write(blocked_pipe[1], "x", 1) != 1)
			abort();
		return;
	}
	if (regs[REG_RAX] != SYS_read || *(const uint8_t *)regs[REG_RIP] != 0x0f)
		return;
	for (int i = 0; i < 3 && together[i]; i++)
		syscall(SYS_tgkill, getpid(), gettid(), together[i]);
	syscall(SYS_tgkill, getpid(), gettid(), KICK);
	together[0] = 0;
	together_kicks = 0;
}

static void kick_handler(int signal, siginfo_t *info, void *context)
{
	kicks++;
	kicks_in_all++;
	/* time for something else to come meanwhile, as when the process is frozen here */
	for (volatile unsigned i = 0; i < 20000; i++)
		;
	signals_together(context);
	msock__kick_returns(context);
}

struct kernel_sigaction {
	void (*handler)(int signal, siginfo_t *info, void *uc);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

extern void kick_restorer(void) __attribute__((visibility("hidden")));
__asm__(".pushsection .text\n.type kick_restorer, @function\nkick_restorer: mov $15, %eax\nsyscall\n.popsection\n");

static void kick_install(void)
{
	struct kernel_sigaction act = { kick_handler, SA_SIGINFO | SA_RESTART | SA_ONSTACK | 0x04000000, kick_restorer,
					~(uint64_t)0 };

	assert_int_equal(syscall(SYS_rt_sigaction, KICK, &act, NULL, sizeof(act.mask)), 0);
}

/* The storm */

static pthread_t kicker;
static volatile bool kicking;
static pid_t kicked;

static uint32_t random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 32) % n;
}

static void *kicker_run(void *arg)
{
	struct timespec pause = { .tv_nsec = 300000 };

	while (kicking) {
		unsigned before = kicks_in_all;

		syscall(SYS_tgkill, getpid(), kicked, KICK);
		/* on a busy machine too, the one under test must come to its call in between */
		do
			clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		while (kicking && kicks_in_all == before);
	}
	return NULL;
}

static int storm_begin(void **state)
{
	sigset_t all, was;

	kicked = gettid();
	kicking = true;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	pthread_create(&kicker, NULL, kicker_run, NULL);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	return 0;
}

static int storm_end(void **state)
{
	kicking = false;
	pthread_join(kicker, NULL);
	return 0;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Every waiting call, as one that would end after s seconds. 0, or the error number. */

static struct timespec seconds(double s)
{
	return (struct timespec){ .tv_sec = (time_t)s, .tv_nsec = (s - (time_t)s) * 1e9 };
}

static struct timespec at_in(clockid_t clock, double s)
{
	struct timespec t;

	clock_gettime(clock, &t);
	s += t.tv_nsec / 1e9;
	t.tv_sec += (time_t)s;
	t.tv_nsec = (s - (time_t)s) * 1e9;
	return t;
}

static int wait_nanosleep(double s)
{
	struct timespec t = seconds(s);

	return nanosleep(&t, &t) < 0 ? errno : 0;
}

static int wait_clock_relative(double s)
{
	struct timespec t = seconds(s);

	return clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

static int wait_clock_absolute(double s)
{
	struct timespec t = at_in(CLOCK_REALTIME, s);

	return clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, NULL);
}

static int wait_usleep(double s)
{
	return usleep(s * 1e6) < 0 ? errno : 0;
}

static int wait_thrd_sleep(double s)
{
	struct timespec t = seconds(s);
	int status = thrd_sleep(&t, NULL);

	return status == -1 ? EINTR : status ? EINVAL : 0;
}

static int wait_poll(double s)
{
	return poll(NULL, 0, s * 1e3) < 0 ? errno : 0;
}

static int wait_ppoll(double s)
{
	struct timespec t = seconds(s);
	sigset_t full;

	sigfillset(&full);
	sigdelset(&full, SIGALRM);
	return ppoll(NULL, 0, &t, &full) < 0 ? errno : 0;
}

static int wait_select(double s)
{
	struct timeval t = { .tv_sec = (time_t)s, .tv_usec = (s - (time_t)s) * 1e6 };
	int status = select(0, NULL, NULL, NULL, &t);

	if (status == 0)
		assert_true(t.tv_sec == 0 && t.tv_usec == 0);
	return status < 0 ? errno : 0;
}

static int wait_pselect(double s)
{
	struct timespec t = seconds(s);

	return pselect(0, NULL, NULL, NULL, &t, NULL) < 0 ? errno : 0;
}

static int epoll;

static int wait_epoll(double s)
{
	struct epoll_event event;

	return epoll_wait(epoll, &event, 1, s * 1e3) < 0 ? errno : 0;
}

static int wait_epoll_pwait(double s)
{
	struct epoll_event event;
	sigset_t empty;

	sigemptyset(&empty);
	return epoll_pwait(epoll, &event, 1, s * 1e3, &empty) < 0 ? errno : 0;
}

static int wait_epoll_pwait2(double s)
{
	struct timespec t = seconds(s);
	struct epoll_event event;

	return epoll_pwait2(epoll, &event, 1, &t, NULL) < 0 ? errno : 0;
}

static int wait_sem(double s)
{
	struct timespec t = at_in(CLOCK_REALTIME, s);
	sem_t sem;

	sem_init(&sem, 0, 0);
	return sem_timedwait(&sem, &t) < 0 && errno != ETIMEDOUT ? errno : 0;
}

static int wait_sem_clock(double s)
{
	struct timespec t = at_in(CLOCK_MONOTONIC, s);
	sem_t sem;

	sem_init(&sem, 0, 0);
	return sem_clockwait(&sem, CLOCK_MONOTONIC, &t) < 0 && errno != ETIMEDOUT ? errno : 0;
}

static int wait_sigtimedwait(double s)
{
	struct timespec t = seconds(s);
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, KICK);
	return sigtimedwait(&set, NULL, &t) < 0 && errno != EAGAIN ? errno : 0;
}

static int wait_semtimedop(double s)
{
	struct timespec t = seconds(s);
	struct sembuf op = { .sem_op = -1 };
	int id = semget(IPC_PRIVATE, 1, 0600), status = semtimedop(id, &op, 1, &t), error = errno;

	semctl(id, 0, IPC_RMID);
	return status < 0 && error != EAGAIN ? error : 0;
}

struct wait {
	const char *name;
	int (*call)(double s);
	bool exact; /* no race is left for an application's signal */
};

static const struct wait waits[] = {
	{ "nanosleep", wait_nanosleep, true },
	{ "clock_nanosleep", wait_clock_relative, true },
	{ "clock_nanosleep absolute", wait_clock_absolute, true },
	{ "usleep", wait_usleep, true },
	{ "thrd_sleep", wait_thrd_sleep, true },
	{ "poll", wait_poll, true },
	{ "ppoll", wait_ppoll, true },
	{ "select", wait_select, true },
	{ "pselect", wait_pselect, true },
	{ "epoll_wait", wait_epoll, true },
	{ "epoll_pwait", wait_epoll_pwait, true },
	{ "epoll_pwait2", wait_epoll_pwait2, true },
	{ "sem_timedwait", wait_sem, false },
	{ "sem_clockwait", wait_sem_clock, false },
	{ "sigtimedwait", wait_sigtimedwait, true },
	{ "semtimedop", wait_semtimedop, true },
};
enum { WAITS = sizeof(waits) / sizeof(waits[0]) };

static void test_kicks_are_hidden(void **state)
{
	for (unsigned i = 0; i < WAITS; i++) {
		unsigned before = kicks;

		/* on a busy machine the kicker may not come to its turn during one call */
		do {
			double start = now(), took;

			assert_int_equal(waits[i].call(0.1), 0);
			took = now() - start;
			if (took < 0.1 || took > 60)
				fail_msg("%s: 0.1 s took %f, %u kicks", waits[i].name, took, kicks - before);
		} while (kicks == before);
	}
	assert_int_equal(sleep(1), 0);
}

/*
 * The application's signal: another thread sends it at a random time after it
 * saw the one under test blocked in a system call, which kicks do not end.  So
 * however the machine is loaded, a call that goes on has swallowed its EINTR.
 */

static volatile unsigned alarms;
static volatile bool armed;
static volatile bool interrupting;
static pthread_t interrupter;

static void on_alarm(int signal)
{
	alarms++;
}

static bool is_waiting_call(int number)
{
	switch (number) {
	case SYS_clock_nanosleep:
	case SYS_ppoll:
	case SYS_pselect6:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_futex:
	case SYS_rt_sigtimedwait:
	case SYS_semtimedop:
	case SYS_read:
	case SYS_rt_sigsuspend:
		return true;
	}
	return false;
}

static bool is_blocked(void)
{
	char path[64], text[64] = "";
	int fd, number;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", kicked);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	return sscanf(text, "%d", &number) == 1 && is_waiting_call(number);
}

static void *interrupter_run(void *arg)
{
	while (interrupting) {
		struct timespec later = { .tv_nsec = random_below(400000) };
		unsigned before = alarms;
		double sent;

		if (!armed || !is_blocked())
			continue;
		clock_nanosleep(CLOCK_MONOTONIC, 0, &later, NULL);
		armed = false;
		sent = now();
		syscall(SYS_tgkill, getpid(), kicked, SIGALRM);
		while (alarms == before && now() - sent < 2)
			sched_yield();
		/* a read that does not end is ended */
		for (bool ended = false; !armed && interrupting && !ended; sched_yield())
			ended = now() - sent > 5 && write(blocked_pipe[1], "x", 1) == 1;
	}
	return NULL;
}

static void alarm_setup(int flags)
{
	struct sigaction act = { .sa_handler = on_alarm, .sa_flags = flags };

	alarms = 0;
	assert_int_equal(sigaction(SIGALRM, &act, NULL), 0);
}

static int interrupter_begin(void **state)
{
	sigset_t all, was;

	storm_begin(state);
	interrupting = true;
	armed = false;
	assert_int_equal(pipe(blocked_pipe), 0);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	pthread_create(&interrupter, NULL, interrupter_run, NULL);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	return 0;
}

static int interrupter_end(void **state)
{
	interrupting = false;
	pthread_join(interrupter, NULL);
	close(blocked_pipe[0]);
	close(blocked_pipe[1]);
	return storm_end(state);
}

static void test_signals_are_not(void **state)
{
	for (unsigned i = 0; i < WAITS; i++) {
		unsigned lost = 0;

		alarm_setup(i & 1 ? SA_RESTART : 0);
		for (unsigned round = 0; round < ROUNDS; round++) {
			unsigned before = alarms;
			int error;

			armed = true;
			error = waits[i].call(20);
			if (alarms == before)
				fail_msg("%s ended with %d before the signal", waits[i].name, error);
			lost += error != EINTR;
		}
		if (lost > (waits[i].exact ? 0 : 2))
			fail_msg("%s: %u of %u signals did not interrupt", waits[i].name, lost, ROUNDS);
	}
}

static void test_suspend(void **state)
{
	sigset_t block, empty, was;

	alarm_setup(0);
	sigemptyset(&block);
	sigaddset(&block, SIGALRM);
	sigprocmask(SIG_BLOCK, &block, &was);
	for (unsigned round = 0; round < 300; round++) {
		armed = true;
		sigfillset(&empty);
		sigdelset(&empty, SIGALRM);
		assert_int_equal(sigsuspend(&empty), -1);
		assert_int_equal(errno, EINTR);
		assert_int_equal(alarms, round + 1);
	}
	sigprocmask(SIG_SETMASK, &was, NULL);
	for (unsigned round = 0; round < 100; round++) {
		armed = true;
		assert_int_equal(pause(), -1);
		assert_int_equal(errno, EINTR);
		assert_int_equal(alarms, 300 + round + 1);
	}
}

/* A blocking read ended by a signal, in the old way: EINTR comes though kicks restart the read. */
static void test_blocked_read(void **state)
{
	unsigned before = kicks, lost = 0;
	char byte;

	alarm_setup(0);
	for (unsigned round = 0; round < 1000; round++) {
		long got;

		armed = true;
		got = read(blocked_pipe[0], &byte, 1);
		assert_true(got == 1 || (got == -1 && errno == EINTR));
		lost += got == 1;
		assert_int_equal(alarms, round + 1);
	}
	assert_true(kicks - before > 20);
	if (lost > 0)
		fail_msg("%u of 1000 signals did not interrupt", lost);
	/* and with SA_RESTART neither is seen */
	alarm_setup(SA_RESTART);
	if (fork() == 0) {
		usleep(50000);
		_exit(write(blocked_pipe[1], "y", 1) != 1);
	}
	armed = true;
	assert_int_equal(read(blocked_pipe[0], &byte, 1), 1);
	assert_int_equal(byte, 'y');
	assert_true(wait(NULL) > 0);
}

static int together_begin(void **state)
{
	assert_int_equal(pipe(blocked_pipe), 0);
	return storm_begin(state);
}

static int together_end(void **state)
{
	storm_end(state);
	together_kicks = 101; /* for good */
	close(blocked_pipe[0]);
	close(blocked_pipe[1]);
	return 0;
}

/* The frames of several handlers lie on each other before the first one runs, that of a kick on top. */
static void test_signals_together(void **state)
{
	static const int sets[][3] = {
		{ SIGALRM }, { SIGUSR1, SIGALRM }, { SIGALRM, SIGUSR2 }, { SIGUSR1, SIGALRM, SIGUSR2 }
	};
	struct sigaction act = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	char byte;

	alarm_setup(0);
	sigaction(SIGUSR1, &act, NULL);
	sigaction(SIGUSR2, &act, NULL);
	for (unsigned i = 0; i < 40; i++) {
		for (int k = 2; k >= 0; k--)
			together[k] = sets[i % 4][k];
		if (read(blocked_pipe[0], &byte, 1) != -1 || errno != EINTR)
			fail_msg("set %u: the read was not interrupted", i % 4);
	}
	assert_int_equal(alarms, 10 * (1 + 2 + 2 + 3));
	signal(SIGUSR1, SIG_DFL);
	signal(SIGUSR2, SIG_DFL);
}

/*
 * The few instructions before the system call, one after the other: single
 * steps stop there, and the signal comes as the next step is to be done.
 */
static volatile uint8_t step_code;
static volatile bool stepped;

static void on_step(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *regs = uc->uc_mcontext.gregs;

	if (regs[REG_RAX] != SYS_ppoll || *(const uint8_t *)regs[REG_RIP] != step_code)
		return;
	regs[REG_EFL] &= ~0x100;
	stepped = true;
	syscall(SYS_tgkill, getpid(), gettid(), SIGALRM); /* waits until this handler has returned */
}

static void test_window(void **state)
{
	static const uint8_t codes[] = { 0x75, 0x0f }; /* jne, syscall */
	struct kernel_sigaction act = { on_step, SA_SIGINFO | 0x04000000, kick_restorer, ~(uint64_t)0 };

	assert_int_equal(syscall(SYS_rt_sigaction, SIGTRAP, &act, NULL, sizeof(act.mask)), 0);
	alarm_setup(SA_RESTART);
	for (unsigned i = 0; i < sizeof(codes); i++) {
		step_code = codes[i];
		stepped = false;
		__asm__ volatile("sub $128, %%rsp\npushf\norl $0x100, (%%rsp)\npopf\nadd $128, %%rsp" ::
					 : "memory", "cc");
		assert_int_equal(poll(NULL, 0, 2000), -1);
		assert_int_equal(errno, EINTR);
		assert_true(stepped);
		assert_int_equal(alarms, i + 1);
	}
}

/*
 * Kicks of the process that wake the thread under test while another one takes
 * them: that one is in and out of the kernel all the time.  No handler runs here.
 */
static void on_nothing(int signal, siginfo_t *info, void *context)
{
}

static void *taker_run(void *arg)
{
	struct kernel_sigaction act = { on_nothing, SA_SIGINFO | 0x04000000, kick_restorer, 0 };

	syscall(SYS_rt_sigaction, SIGURG, &act, NULL, sizeof(act.mask));
	while (kicking)
		syscall(SYS_tgkill, getpid(), gettid(), SIGURG);
	return NULL;
}

static void *sharer_run(void *arg)
{
	struct timespec pause = { .tv_nsec = 50000 };

	while (kicking) {
		kill(getpid(), KICK);
		clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	}
	return NULL;
}

static void test_taken_by_another(void **state)
{
	unsigned before = kicks_in_all, mine = kicks;
	pthread_t taker, sharer;
	sigset_t all, was;

	kicking = true;
	pthread_create(&taker, NULL, taker_run, NULL);
	sigfillset(&all);
	sigdelset(&all, KICK);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	pthread_create(&sharer, NULL, sharer_run, NULL);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(wait_poll(0.05), 0);
		assert_int_equal(wait_epoll(0.05), 0);
	}
	kicking = false;
	pthread_join(taker, NULL);
	pthread_join(sharer, NULL);
	assert_true(kicks_in_all - before > kicks - mine); /* some were */
}

static int queue_id;

static void *queue_writer(void *arg)
{
	struct {
		long type;
		char text[4];
	} msg = { 1, "abc" };

	usleep(50000);
	msgsnd(queue_id, &msg, sizeof(msg.text), 0);
	return NULL;
}

static void test_msgrcv(void **state)
{
	struct {
		long type;
		char text[4];
	} msg;
	pthread_t thread;

	queue_id = msgget(IPC_PRIVATE, 0600);
	pthread_create(&thread, NULL, queue_writer, NULL);
	assert_int_equal(msgrcv(queue_id, &msg, sizeof(msg.text), 0, 0), sizeof(msg.text));
	assert_string_equal(msg.text, "abc");
	pthread_join(thread, NULL);
	msgctl(queue_id, IPC_RMID, NULL);
}

/* Masks and dispositions */

static uint64_t kernel_mask(void)
{
	uint64_t mask;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &mask, sizeof(mask));
	return mask;
}

static bool kernel_blocks_kick(void)
{
	return kernel_mask() >> (KICK - 1) & 1;
}

static volatile bool seen_blocked;

static void on_signal_masks(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	seen_blocked = kernel_blocks_kick();
	sigaddset(&uc->uc_sigmask, KICK);
	sigaddset(&uc->uc_sigmask, SIGUSR2);
}

static void *thread_masks(void *arg)
{
	sigset_t set;

	pthread_sigmask(SIG_BLOCK, NULL, &set);
	return (void *)(long)(sigismember(&set, KICK) == 1 && !kernel_blocks_kick());
}

static void test_masks(void **state)
{
	struct sigaction act = { .sa_sigaction = on_signal_masks, .sa_flags = SA_SIGINFO }, old;
	sigset_t full, empty, set, first;
	pthread_t thread;
	void *right;

	sigfillset(&full);
	sigemptyset(&empty);
	sigprocmask(SIG_SETMASK, &empty, &first);
	sigprocmask(SIG_BLOCK, &full, &set);
	assert_int_equal(sigismember(&set, KICK), 0);
	assert_false(kernel_blocks_kick());
	sigprocmask(SIG_BLOCK, NULL, &set);
	assert_int_equal(sigismember(&set, KICK), 1);
	assert_int_equal(sigismember(&set, SIGUSR1), 1);
	assert_int_equal(pthread_create(&thread, NULL, thread_masks, NULL), 0);
	pthread_join(thread, &right);
	assert_non_null(right);
	sigprocmask(SIG_UNBLOCK, &full, NULL);
	sigprocmask(SIG_BLOCK, NULL, &set);
	assert_int_equal(sigismember(&set, KICK), 0);

	/* a handler with a full mask, which fills the mask to return with */
	sigfillset(&act.sa_mask);
	assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
	assert_int_equal(sigaction(SIGUSR1, NULL, &old), 0);
	assert_true(old.sa_sigaction == on_signal_masks);
	assert_int_equal(sigismember(&old.sa_mask, KICK), 1);
	seen_blocked = true;
	raise(SIGUSR1);
	assert_false(seen_blocked);
	assert_false(kernel_blocks_kick());
	assert_true(kernel_mask() >> (SIGUSR2 - 1) & 1);
	sigprocmask(SIG_SETMASK, &first, NULL);
	assert_true(signal(SIGUSR1, SIG_IGN) != SIG_ERR);
	assert_true(signal(SIGUSR1, SIG_DFL) == SIG_IGN);

	/* the kick's own disposition */
	act.sa_flags = 0;
	act.sa_handler = SIG_IGN;
	assert_int_equal(sigaction(KICK, &act, &old), 0);
	assert_true(old.sa_handler == SIG_DFL);
	assert_true(signal(KICK, on_alarm) == SIG_IGN);
	assert_int_equal(sigaction(KICK, NULL, &old), 0);
	assert_true(old.sa_handler == on_alarm);
	alarms = 0;
	usleep(5000);
	assert_int_equal(alarms, 0);
}

static void test_sigwait(void **state)
{
	struct signalfd_siginfo info;
	sigset_t set, was;
	int signal = 0, fd;

	sigemptyset(&set);
	sigaddset(&set, KICK);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &was);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	usleep(5000);
	assert_true(read(fd, &info, sizeof(info)) < 0 && errno == EAGAIN);
	kill(getpid(), SIGUSR1);
	assert_int_equal(sigwait(&set, &signal), 0);
	assert_int_equal(signal, SIGUSR1);
	kill(getpid(), SIGUSR1);
	assert_int_equal(sigwaitinfo(&set, NULL), SIGUSR1);
	close(fd);
	sigprocmask(SIG_SETMASK, &was, NULL);
}

static ucontext_t context_main, context_other;

static void context_run(void)
{
	seen_blocked = kernel_blocks_kick();
}

static void test_contexts(void **state)
{
	static char stack[65536];

	getcontext(&context_other);
	context_other.uc_stack.ss_sp = stack;
	context_other.uc_stack.ss_size = sizeof(stack);
	context_other.uc_link = &context_main;
	sigaddset(&context_other.uc_sigmask, KICK);
	makecontext(&context_other, context_run, 0);
	seen_blocked = true;
	swapcontext(&context_main, &context_other);
	assert_false(seen_blocked);
	assert_false(kernel_blocks_kick());
}

/* Descriptors and children */

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void test_descriptors(void **state)
{
	int control = atoi(getenv("MSOCK_FD")), spare = dup(1), low = dup(1), null;

	own_fd = dup(1);
	assert_int_equal(close(own_fd), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(close(control), -1);
	null = dup(2);
	fflush(stderr);
	dup2(open("/dev/null", O_WRONLY), 2);
	assert_int_equal(dup2(1, own_fd), -1);
	assert_int_equal(errno, EBUSY);
	assert_int_equal(dup3(1, control, 0), -1);
	assert_int_equal(errno, EBUSY);
	dup2(null, 2);
	assert_int_equal(close_range(low, 500, 0), 0);
	assert_false(is_open(low));
	assert_true(is_open(own_fd) && is_open(control));
	closefrom(spare);
	assert_false(is_open(spare));
	assert_true(is_open(own_fd) && is_open(control));
	epoll = epoll_create1(0);
}

static int child_main(void *arg)
{
	int control = atoi(getenv("MSOCK_FD"));

	return forked == 1 && own_fd == -1 && close(control) == 0 ? 0 : 1;
}

static void expect_exit(pid_t pid, int status)
{
	int got;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &got, 0), pid);
	assert_true(WIFEXITED(got));
	assert_int_equal(WEXITSTATUS(got), status);
}

static int vfork_child(int fd)
{
	struct sigaction act = { .sa_handler = on_alarm };

	/* in the member's memory: the table of handlers is not ours */
	sigaction(SIGUSR2, &act, NULL);
	return close(fd) == 0 && !is_open(fd) ? 7 : 1;
}

static void test_children(void **state)
{
	static char stack[65536] __attribute__((aligned(16)));
	struct sigaction act;
	volatile int copy = dup(1);
	pid_t pid;

	own_fd = dup(1);
	pid = fork();
	if (pid == 0)
		_exit(child_main(NULL));
	expect_exit(pid, 0);
	pid = _Fork();
	if (pid == 0)
		_exit(child_main(NULL));
	expect_exit(pid, 0);
	expect_exit(clone(child_main, stack + sizeof(stack), SIGCHLD, NULL), 0);
	pid = vfork();
	if (pid == 0)
		_exit(vfork_child(own_fd));
	expect_exit(pid, 7);
	assert_true(is_open(own_fd));
	assert_int_equal(forked, 0);
	assert_int_equal(sigaction(SIGUSR2, NULL, &act), 0);
	assert_true(act.sa_handler == SIG_DFL);
	assert_int_equal(system("exit 5"), 5 << 8);
	close(copy);
}

static void *cancelled(void *arg)
{
	poll(NULL, 0, -1);
	return NULL;
}

static void test_cancel(void **state)
{
	pthread_t thread;
	void *result;

	pthread_create(&thread, NULL, cancelled, NULL);
	usleep(10000);
	pthread_cancel(thread);
	pthread_join(thread, &result);
	assert_true(result == PTHREAD_CANCELED);
}

/* Start again as a member. */
static void become_member(char **argv)
{
	const char *dir = getenv("MSOCK_LIBDIR");
	char preload[4096], number[16];
	int pair[2];

	snprintf(preload, sizeof(preload), "%s/libmsock-preload.so", dir ? dir : "./.libs");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0)
		exit(99);
	fcntl(pair[0], F_SETFD, FD_CLOEXEC);
	snprintf(number, sizeof(number), "%d", pair[1]);
	setenv("MSOCK_FD", number, 1);
	setenv("LD_PRELOAD", preload, 1);
	execv("/proc/self/exe", argv);
	exit(99);
}

int main(int argc, char **argv)
{
	const char *seed = getenv("MSOCK_TEST_SEED");
	struct sigevent end = { .sigev_notify = SIGEV_SIGNAL };
	timer_t deadline;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kicks_are_hidden, storm_begin, storm_end),
		cmocka_unit_test_setup_teardown(test_signals_are_not, interrupter_begin, interrupter_end),
		cmocka_unit_test_setup_teardown(test_suspend, interrupter_begin, interrupter_end),
		cmocka_unit_test_setup_teardown(test_blocked_read, interrupter_begin, interrupter_end),
		cmocka_unit_test_setup_teardown(test_signals_together, together_begin, together_end),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_taken_by_another),
		cmocka_unit_test_setup_teardown(test_msgrcv, storm_begin, storm_end),
		cmocka_unit_test_setup_teardown(test_masks, storm_begin, storm_end),
		cmocka_unit_test_setup_teardown(test_sigwait, storm_begin, storm_end),
		cmocka_unit_test_setup_teardown(test_contexts, storm_begin, storm_end),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test_setup_teardown(test_children, storm_begin, storm_end),
		cmocka_unit_test_setup_teardown(test_cancel, storm_begin, storm_end),
	};

	if (!getenv("MSOCK_FD"))
		become_member(argv);
	unsetenv("LD_PRELOAD");
	random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)(now() * 1e9) | 1;
	printf("# MSOCK_TEST_SEED=%llu\n", (unsigned long long)random_state);
	fflush(stdout);
	epoll = epoll_create1(0);
	kick_install();
	end.sigev_signo = SIGXCPU; /* SIGALRM is taken */
	timer_create(CLOCK_MONOTONIC, &end, &deadline);
	timer_settime(deadline, 0, &(struct itimerspec){ .it_value.tv_sec = DEADLINE_S }, NULL);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	cmocka_set_test_filter(getenv("MSOCK_TEST_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
