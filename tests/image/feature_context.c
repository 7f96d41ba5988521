/* SPDX-License-Identifier: MIT */
/* What a thread has besides its memory: stacks that it switches, its end, the floating point environment. */
#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <xmmintrin.h>

#include "feature.h"

static atomic_int stop;

static void move_all(void)
{
	for (int k = 0; k < MOVES; k++)
		CHECK(member_move() == 0);
}

static pthread_key_t key;
static atomic_int destroyed;
static __thread char own[40000];

static void destroy(void *value)
{
	if (strcmp(value, own) == 0)
		destroyed++;
}

static void *with_locals(void *arg)
{
	snprintf(own, sizeof(own), "thread %ld", (long)arg);
	pthread_setspecific(key, strdup(own));
	while (!stop)
		usleep(1000);
	return NULL;
}

static void tls_destructors(void)
{
	pthread_t t[4];

	pthread_key_create(&key, destroy);
	for (long i = 0; i < 4; i++)
		CHECK(pthread_create(&t[i], NULL, with_locals, (void *)i) == 0);
	move_all();
	CHECK(destroyed == 0);
	stop = 1;
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
	CHECK(destroyed == 4);
}

static atomic_int ended;

static void *detached(void *arg)
{
	if (arg)
		pthread_detach(pthread_self());
	while (!stop)
		usleep(1000);
	ended++;
	return NULL;
}

/* Nobody waits for them: their stacks are given back by themselves, and others get those. */
static void detached_threads(void)
{
	pthread_attr_t a;
	pthread_t t;

	pthread_attr_init(&a);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	for (int k = 0; k < MOVES; k++) {
		stop = ended = 0;
		for (int i = 0; i < 4; i++)
			CHECK(pthread_create(&t, i % 2 ? &a : NULL, detached, i % 2 ? NULL : &a) == 0);
		CHECK(member_move() == 0);
		stop = 1;
		while (ended < 4)
			usleep(1000);
	}
}

static atomic_int cleaned;

static void clean(void *arg)
{
	(void)arg;
	cleaned++;
}

static void *cancelled(void *arg)
{
	pthread_setcancelstate((long)arg ? PTHREAD_CANCEL_ENABLE : PTHREAD_CANCEL_DISABLE, NULL);
	pthread_cleanup_push(clean, NULL);
	ended++;
	while (!stop)
		usleep(500);
	if (!(long)arg)
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	for (;;)
		pause();
	pthread_cleanup_pop(0);
	return NULL;
}

/* Threads that were moved can be cancelled, and what was asked before the move holds after it. */
static void cancellation(void)
{
	pthread_t t[2];
	void *r;

	for (long i = 0; i < 2; i++)
		CHECK(pthread_create(&t[i], NULL, cancelled, (void *)i) == 0);
	while (ended < 2)
		usleep(500);
	CHECK(pthread_cancel(t[0]) == 0); /* it has forbidden that, so far */
	move_all();
	CHECK(cleaned == 0);
	stop = 1;
	CHECK(pthread_cancel(t[1]) == 0);
	for (int i = 0; i < 2; i++)
		CHECK(pthread_join(t[i], &r) == 0 && r == PTHREAD_CANCELED);
	CHECK(cleaned == 2);
}

static ucontext_t main_context, side_context;
static int turns;

static void side(void)
{
	for (;;) {
		CHECK(member_move() == 0); /* on the other stack */
		turns++;
		swapcontext(&side_context, &main_context);
	}
}

static void coroutines(void)
{
	size_t size = 128 << 10;

	getcontext(&side_context);
	side_context.uc_stack.ss_sp =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	side_context.uc_stack.ss_size = size;
	makecontext(&side_context, side, 0);
	for (int k = 0; k < MOVES; k++) {
		swapcontext(&main_context, &side_context);
		CHECK(turns == k + 1);
	}
}

/* The pointer guard in the thread's control block has to be what it was. */
static void long_jumps(void)
{
	volatile int moved = 0;
	jmp_buf at;

	if (setjmp(at) < MOVES) {
		CHECK(member_move() == 0);
		longjmp(at, ++moved);
	}
	CHECK(moved == MOVES);
}

static unsigned short x87_word(void)
{
	unsigned short w;

	__asm__ volatile("fnstcw %0" : "=m"(w));
	return w;
}

static void x87_control(void)
{
	unsigned short single = (unsigned short)((x87_word() & ~0x300) | 0x800); /* 24 bits, round upwards */

	__asm__ volatile("fldcw %0" : : "m"(single));
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(x87_word() == single);
	}
}

static void float_environment(void)
{
	unsigned want;

	_mm_setcsr(_mm_getcsr() | 0x8040); /* flush to zero, denormals are zero */
	feclearexcept(FE_ALL_EXCEPT);
	feraiseexcept(FE_OVERFLOW);
	fesetround(FE_DOWNWARD);
	want = _mm_getcsr();
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK((_mm_getcsr() & 0xffc0) == (want & 0xffc0));
		CHECK(fetestexcept(FE_OVERFLOW) && !fetestexcept(FE_DIVBYZERO));
		CHECK(fegetround() == FE_DOWNWARD);
	}
}

struct on_alt {
	stack_t stack;
	int hits;
	sem_t ready;
	void *sp;
};

static __thread struct on_alt *mine;

static void on_alt(int sig)
{
	char here;

	(void)sig;
	mine->sp = &here;
	mine->hits++;
}

static void *with_altstack(void *arg)
{
	mine = arg;
	mine->stack.ss_size = 65536;
	mine->stack.ss_sp = malloc(65536);
	sigaltstack(&mine->stack, NULL);
	sem_post(&mine->ready);
	while (!stop)
		usleep(500);
	return NULL;
}

/* Each thread has an alternate stack of its own, and its handlers run there after a move. */
static void altstacks(void)
{
	struct sigaction sa = { .sa_handler = on_alt, .sa_flags = SA_ONSTACK | SA_RESTART };
	static struct on_alt alt[3];
	pthread_t t[3];

	sigaction(SIGUSR1, &sa, NULL);
	for (int i = 0; i < 3; i++) {
		sem_init(&alt[i].ready, 0, 0);
		CHECK(pthread_create(&t[i], NULL, with_altstack, &alt[i]) == 0);
		while (sem_wait(&alt[i].ready))
			;
	}
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		for (int i = 0; i < 3; i++) {
			CHECK(pthread_kill(t[i], SIGUSR1) == 0);
			while (((volatile struct on_alt *)&alt[i])->hits <= k)
				usleep(200);
			CHECK(alt[i].sp > alt[i].stack.ss_sp && (char *)alt[i].sp < (char *)alt[i].stack.ss_sp + 65536);
		}
	}
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

static atomic_int taken;

static void *waits_for_signal(void *arg)
{
	siginfo_t info;

	while (!stop)
		if (sigwaitinfo(arg, &info) == SIGRTMIN + 5)
			taken += info.si_value.sival_int;
	return NULL;
}

/* A thread that sits in sigwaitinfo gets what is sent after the move. */
static void signal_waits(void)
{
	sigset_t set;
	pthread_t t;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 5);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	CHECK(pthread_create(&t, NULL, waits_for_signal, &set) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(sigqueue(getpid(), SIGRTMIN + 5, (union sigval){ .sival_int = 1 }) == 0);
		CHECK(member_move() == 0);
		CHECK(sigqueue(getpid(), SIGRTMIN + 5, (union sigval){ .sival_int = 1 }) == 0);
		while (taken < 2 * (k + 1))
			usleep(200);
		CHECK(taken == 2 * (k + 1));
	}
	stop = 1;
	sigqueue(getpid(), SIGRTMIN + 5, (union sigval){ .sival_int = 0 });
	pthread_join(t, NULL);
}

static void *masked(void *arg)
{
	sigset_t set, now;
	long me = (long)arg;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 1 + (int)me);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_kill(pthread_self(), SIGRTMIN + 1 + (int)me);
	ended++;
	while (!stop)
		usleep(500);
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	for (int s = SIGRTMIN + 1; s < SIGRTMIN + 5; s++)
		if (sigismember(&now, s) != (s == SIGRTMIN + 1 + me))
			return "another mask";
	sigpending(&now);
	for (int s = SIGRTMIN + 1; s < SIGRTMIN + 5; s++)
		if (sigismember(&now, s) != (s == SIGRTMIN + 1 + me))
			return "another signal is pending";
	return NULL;
}

/* Masks and pending signals are each thread's own. */
static void thread_signals(void)
{
	pthread_t t[4];
	void *r;

	for (int i = 0; i < 4; i++) {
		signal(SIGRTMIN + 1 + i, SIG_IGN);
		signal(SIGRTMIN + 1 + i, SIG_DFL);
		CHECK(pthread_create(&t[i], NULL, masked, (void *)(long)i) == 0);
	}
	while (ended < 4)
		usleep(500);
	move_all();
	stop = 1;
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(t[i], &r) == 0 && r == NULL);
}

static char *guarded;
static volatile int faults;

static void fault(int sig, siginfo_t *info, void *uc)
{
	(void)sig;
	(void)uc;
	faults++;
	mprotect((char *)((uintptr_t)info->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE);
}

/* As collectors do it: memory is closed, and a handler opens what is touched. */
static void write_barrier(void)
{
	struct sigaction sa = { .sa_sigaction = fault, .sa_flags = SA_SIGINFO | SA_NODEFER };

	sigaction(SIGSEGV, &sa, NULL);
	guarded = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int k = 0; k < MOVES; k++) {
		mprotect(guarded, 64 * 4096, PROT_READ);
		faults = 0;
		for (int i = 0; i < 32; i++)
			guarded[i * 4096] = (char)i;
		CHECK(member_move() == 0);
		CHECK(faults == 32);
		for (int i = 0; i < 64; i++)
			guarded[i * 4096] = (char)(i + k);
		CHECK(faults == 64);
	}
}

/* A generator that was seeded by the kernel once goes on with its own series. */
static void random_state(void)
{
	static char state[256];
	struct random_data data = { 0 }, twin = { 0 };
	static char twin_state[256];
	unsigned seed;
	int32_t a, b;

	CHECK(getrandom(&seed, sizeof(seed), 0) == sizeof(seed));
	initstate_r(seed, state, sizeof(state), &data);
	initstate_r(seed, twin_state, sizeof(twin_state), &twin);
	srand48((long)seed);
	for (int k = 0; k < MOVES; k++) {
		unsigned short x[3];
		double want;

		memcpy(x, seed48((unsigned short[3]){ (unsigned short)k, 2, 3 }), sizeof(x));
		seed48(x);
		want = erand48(x);
		for (int i = 0; i < 100 + k; i++)
			random_r(&data, &a);
		CHECK(member_move() == 0);
		CHECK(drand48() == want);
		for (int i = 0; i < 100 + k; i++)
			random_r(&twin, &b);
		CHECK(a == b);
		CHECK(getrandom(&seed, sizeof(seed), 0) == sizeof(seed));
	}
}

static atomic_int noted;

static void note(union sigval v)
{
	noted += v.sival_int;
}

/* A timer whose end calls a function in a thread: the C library has a helper thread for it. */
static void timer_threads(void)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD,
			       .sigev_notify_function = note,
			       .sigev_value.sival_int = 1 };
	struct itimerspec every = { { 0, 5000000 }, { 0, 5000000 } };
	timer_t t;

	CHECK(timer_create(CLOCK_MONOTONIC, &ev, &t) == 0 && timer_settime(t, 0, &every, NULL) == 0);
	for (int k = 0; k < MOVES; k++) {
		int before;

		CHECK(member_move() == 0);
		before = noted;
		while (noted < before + 3)
			usleep(1000);
	}
	timer_delete(t);
}

/* The pages that the kernel gave for its clock, and the address of it that the program knows. */
static void vdso(void)
{
	unsigned long known = getauxval(AT_SYSINFO_EHDR), start;
	bool other = getenv("OTHER_VDSO") != NULL;
	char line[512];

	for (int k = 0; k < MOVES; k++) {
		double before = feature_clock(CLOCK_MONOTONIC), wall = feature_clock(CLOCK_REALTIME), now;
		FILE *f;
		unsigned cpu, node;

		CHECK(member_move() == 0);
		now = feature_clock(CLOCK_MONOTONIC);
		CHECK(now > before && now - before < feature_clock(CLOCK_REALTIME) - wall + 1);
		CHECK(time(NULL) >= (time_t)wall && getcpu(&cpu, &node) == 0 && cpu < 65536);
		f = fopen("/proc/self/maps", "r");
		start = 0;
		while (f && fgets(line, sizeof(line), f))
			if (strstr(line, "[vdso]"))
				start = strtoul(line, NULL, 16);
		fclose(f);
		CHECK(start && (start != known) == other);
	}
}

/* Nine at once are asked for; the C library has helper threads for them, which block all signals. */
static void asynchronous_io(void)
{
	char path[512], text[9][8] = { "" };
	struct aiocb job[9];
	int fd;

	snprintf(path, sizeof(path), "%s/aio", feature_dir());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && write(fd, "0123456789", 10) == 10);
	for (int k = 0; k < MOVES; k++) {
		for (int i = 0; i < 9; i++) {
			job[i] = (struct aiocb){
				.aio_fildes = fd, .aio_buf = text[i], .aio_nbytes = 1, .aio_offset = i
			};
			CHECK(aio_read(&job[i]) == 0);
		}
		CHECK(member_move() == 0);
		for (int i = 0; i < 9; i++) {
			while (aio_error(&job[i]) == EINPROGRESS)
				usleep(500);
			CHECK(aio_return(&job[i]) == 1 && text[i][0] == '0' + i);
		}
	}
	unlink(path);
}

const struct feature context_features[] = {
	{ "tls-destructors", tls_destructors },
	{ "detached-threads", detached_threads },
	{ "cancellation", cancellation },
	{ "coroutines", coroutines },
	{ "long-jumps", long_jumps },
	{ "x87-control", x87_control },
	{ "float-environment", float_environment },
	{ "altstacks", altstacks },
	{ "signal-waits", signal_waits },
	{ "thread-signals", thread_signals },
	{ "write-barrier", write_barrier },
	{ "random-state", random_state },
	{ "timer-threads", timer_threads },
	{ "asynchronous-io", asynchronous_io },
	{ "vdso", vdso },
	{ NULL, NULL },
};
