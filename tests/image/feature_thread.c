/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "feature.h"

enum { THREADS = 8, MANY = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long shared_count;
static atomic_int stop;
static __thread long mine;

static void *counting(void *arg)
{
	pid_t tid = gettid();
	long me = (long)arg;

	mine = me * 1000;
	while (!stop) {
		pthread_mutex_lock(&lock);
		shared_count++;
		pthread_mutex_unlock(&lock);
		mine++;
		if (gettid() != tid)
			return (void *)-1L;
	}
	return (void *)(mine - me * 1000);
}

static void threads_of(int n)
{
	pthread_t t[MANY];
	long sum = 0;

	for (long i = 0; i < n; i++)
		CHECK(pthread_create(&t[i], NULL, counting, (void *)i) == 0);
	for (int k = 0; k < MOVES; k++)
		CHECK(member_move() == 0);
	stop = 1;
	for (int i = 0; i < n; i++) {
		void *r;

		CHECK(pthread_join(t[i], &r) == 0);
		CHECK((long)r >= 0);
		sum += (long)r;
	}
	CHECK(sum == shared_count);
}

static void threads(void)
{
	threads_of(THREADS);
}

static void threads_64(void)
{
	threads_of(MANY);
}

static void *blocked(void *arg)
{
	sem_t *s = arg;

	prctl(PR_SET_NAME, "blocked-one");
	while (sem_wait(s) && errno == EINTR)
		;
	return (void *)(long)gettid();
}

static void blocked_thread(void)
{
	sem_t s;
	pthread_t t;
	void *r;
	char name[32] = "";

	sem_init(&s, 0, 0);
	pthread_create(&t, NULL, blocked, &s);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(pthread_getname_np(t, name, sizeof(name)) == 0 && strcmp(name, "blocked-one") == 0);
	}
	sem_post(&s);
	CHECK(pthread_join(t, &r) == 0 && (long)r > 0);
}

static pthread_mutex_t robust;

static void *holder(void *arg)
{
	pthread_mutex_lock(&robust);
	sem_post(arg);
	while (!stop)
		usleep(1000);
	return NULL; /* without unlocking: the kernel marks it by the robust list */
}

static void robust_mutex(void)
{
	pthread_mutexattr_t a;
	pthread_t t;
	sem_t s;

	sem_init(&s, 0, 0);
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&robust, &a);
	pthread_create(&t, NULL, holder, &s);
	while (sem_wait(&s) && errno == EINTR)
		;
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(pthread_mutex_trylock(&robust) == EBUSY);
	}
	stop = 1;
	pthread_join(t, NULL);
	CHECK(pthread_mutex_lock(&robust) == EOWNERDEAD);
	pthread_mutex_consistent(&robust);
	pthread_mutex_unlock(&robust);
}

static void owned_mutexes(void)
{
	static const int type[] = { PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK };
	pthread_mutexattr_t a;
	pthread_mutex_t m[2], pi;

	pthread_mutexattr_init(&a);
	for (int i = 0; i < 2; i++) {
		pthread_mutexattr_settype(&a, type[i]);
		pthread_mutex_init(&m[i], &a);
		pthread_mutex_lock(&m[i]);
	}
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&pi, &a);
	pthread_mutex_lock(&pi);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(pthread_mutex_lock(&m[0]) == 0 && pthread_mutex_unlock(&m[0]) == 0);
		CHECK(pthread_mutex_lock(&m[1]) == EDEADLK);
		CHECK(pthread_mutex_unlock(&pi) == 0 && pthread_mutex_lock(&pi) == 0);
	}
	CHECK(pthread_mutex_unlock(&m[0]) == 0 && pthread_mutex_unlock(&m[1]) == 0);
}

static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

static void *timed(void *arg)
{
	struct timespec t;
	int e;

	(void)arg;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += 1;
	pthread_mutex_lock(&lock);
	e = pthread_cond_timedwait(&cond, &lock, &t);
	pthread_mutex_unlock(&lock);
	return (void *)(long)e;
}

static void timed_condition(void)
{
	double start = feature_clock(CLOCK_MONOTONIC);
	pthread_t t;
	void *r;

	pthread_create(&t, NULL, timed, NULL);
	for (int k = 0; k < MOVES; k++)
		CHECK(member_move() == 0);
	pthread_join(t, &r);
	CHECK((long)r == ETIMEDOUT);
	CHECK(feature_clock(CLOCK_MONOTONIC) - start < 15); /* on a busy machine the moves alone take long */
}

static void *short_lived(void *arg)
{
	return arg;
}

/* Threads come and go while the freeze looks for them. */
static void churn(void)
{
	unsigned from = member_moves;
	pthread_t t;
	void *r;

	for (int k = 0; k < MOVES; k++) {
		CHECK(write(1, "move\n", 5) == 5);
		while (member_moves == from + (unsigned)k) {
			CHECK(pthread_create(&t, NULL, short_lived, &lock) == 0);
			CHECK(pthread_join(t, &r) == 0 && r == &lock);
		}
	}
}

static void afterwards(void)
{
	pthread_t t;
	void *r;
	FILE *f;
	char line[32] = "";

	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(pthread_create(&t, NULL, short_lived, line) == 0 && pthread_join(t, &r) == 0);
		f = popen("echo hello", "r");
		CHECK(f && fgets(line, sizeof(line), f) && strcmp(line, "hello\n") == 0);
		CHECK(pclose(f) == 0);
	}
}

struct rseq_head {
	unsigned cpu_start, cpu;
};

extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned __rseq_size __attribute__((weak));

static void rseq(void)
{
	volatile struct rseq_head *r;

	if (!&__rseq_size || !__rseq_size)
		feature_skip("the C library registers no rseq");
	r = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK((int)r->cpu >= 0);
	}
}

const struct feature thread_features[] = {
	{ "threads", threads },
	{ "threads-64", threads_64 },
	{ "blocked-thread", blocked_thread },
	{ "robust-mutex", robust_mutex },
	{ "owned-mutexes", owned_mutexes },
	{ "timed-condition", timed_condition },
	{ "churn", churn },
	{ "afterwards", afterwards },
	{ "rseq", rseq },
	{ NULL, NULL },
};
