/* SPDX-License-Identifier: MIT */
/* Locks of every kind, fought for by threads while all of them move. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

#include "feature.h"

enum { THREADS = 5 };

static atomic_int stop;

static void start_all(pthread_t *t, int n, void *(*fn)(void *))
{
	for (long i = 0; i < n; i++)
		CHECK(pthread_create(&t[i], NULL, fn, (void *)i) == 0);
}

/* Every thread returns NULL, or where it saw something wrong. */
static void end_all(const pthread_t *t, int n)
{
	void *r;

	stop = 1;
	for (int i = 0; i < n; i++)
		CHECK(pthread_join(t[i], &r) == 0 && r == NULL);
}

static void move_all(void)
{
	for (int k = 0; k < MOVES; k++)
		CHECK(member_move() == 0);
}

static pthread_mutex_t mutex;
static int mutex_type = -1;
static volatile long first, second;

static void *contend(void *arg)
{
	(void)arg;
	while (!stop) {
		if (pthread_mutex_lock(&mutex))
			return "lock";
		if (mutex_type == PTHREAD_MUTEX_RECURSIVE &&
		    (pthread_mutex_lock(&mutex) || pthread_mutex_unlock(&mutex)))
			return "lock again";
		if (mutex_type == PTHREAD_MUTEX_ERRORCHECK && pthread_mutex_lock(&mutex) != EDEADLK)
			return "no error";
		if (first++ != second)
			return "two at once";
		second++;
		if (pthread_mutex_unlock(&mutex))
			return "unlock";
	}
	return NULL;
}

static void mutex_of(int type, int robust, int protocol)
{
	pthread_mutexattr_t a;
	pthread_t t[THREADS];

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, type);
	pthread_mutexattr_setrobust(&a, robust);
	pthread_mutexattr_setprotocol(&a, protocol);
	CHECK(pthread_mutex_init(&mutex, &a) == 0);
	mutex_type = type;
	start_all(t, THREADS, contend);
	move_all();
	end_all(t, THREADS);
	CHECK(first == second && first > 0);
}

static void mutex_recursive(void)
{
	mutex_of(PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE);
}

static void mutex_errorcheck(void)
{
	mutex_of(PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE);
}

static void mutex_adaptive(void)
{
	mutex_of(PTHREAD_MUTEX_ADAPTIVE_NP, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE);
}

static void mutex_robust(void)
{
	mutex_of(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_NONE);
}

static void mutex_inherit(void)
{
	mutex_of(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_INHERIT);
}

static void mutex_inherit_robust(void)
{
	mutex_of(PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_INHERIT);
}

/* One that waits inside the kernel for a mutex that another thread holds over all moves. */
static void *waiter(void *arg)
{
	int e = pthread_mutex_lock(arg);

	first++;
	pthread_mutex_unlock(arg);
	return e ? "lock" : NULL;
}

static void inherit_waiter(void)
{
	pthread_mutexattr_t a;
	pthread_t t[2];

	pthread_mutexattr_init(&a);
	pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&mutex, &a);
	pthread_mutex_lock(&mutex);
	for (int i = 0; i < 2; i++)
		CHECK(pthread_create(&t[i], NULL, waiter, &mutex) == 0);
	move_all();
	CHECK(first == 0);
	CHECK(pthread_mutex_unlock(&mutex) == 0);
	end_all(t, 2);
	CHECK(first == 2);
}

static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;

static void *read_or_write(void *arg)
{
	bool write = (long)arg < 2;

	while (!stop) {
		if (write ? pthread_rwlock_wrlock(&rwlock) : pthread_rwlock_rdlock(&rwlock))
			return "lock";
		if (first != second)
			return "a writer is at it";
		first += write;
		second += write;
		if (pthread_rwlock_unlock(&rwlock))
			return "unlock";
	}
	return NULL;
}

static void rwlocks(void)
{
	pthread_t t[THREADS];

	start_all(t, THREADS, read_or_write);
	move_all();
	end_all(t, THREADS);
	CHECK(pthread_rwlock_wrlock(&rwlock) == 0 && pthread_rwlock_rdlock(&rwlock) == EDEADLK);
}

enum { QUEUE = 8 };

static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER, not_full = PTHREAD_COND_INITIALIZER;
static long queue[QUEUE], put, got;

static void *produce(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&queue_lock);
	while (!stop) {
		while (put - got == QUEUE && !stop)
			pthread_cond_wait(&not_full, &queue_lock);
		if (put - got < QUEUE) {
			queue[put % QUEUE] = put;
			put++;
		}
		pthread_cond_signal(&not_empty);
	}
	pthread_cond_broadcast(&not_empty);
	pthread_mutex_unlock(&queue_lock);
	return NULL;
}

static void *consume(void *arg)
{
	void *r = NULL;

	(void)arg;
	pthread_mutex_lock(&queue_lock);
	while (!r && (!stop || put > got)) {
		while (put == got && !stop)
			pthread_cond_wait(&not_empty, &queue_lock);
		if (put > got) {
			if (queue[got % QUEUE] != got)
				r = "out of order";
			got++;
		}
		pthread_cond_signal(&not_full);
	}
	pthread_cond_broadcast(&not_full);
	pthread_mutex_unlock(&queue_lock);
	return r;
}

static void *produce_or_consume(void *arg)
{
	return (long)arg % 2 ? produce(NULL) : consume(NULL);
}

static void conditions(void)
{
	pthread_t t[4];

	start_all(t, 4, produce_or_consume);
	move_all();
	end_all(t, 4);
	CHECK(got > 0 && put - got >= 0 && put - got <= QUEUE); /* a producer may be the last */
}

static double deadline;

/* A deadline by the monotonic clock, waited for over all moves. */
static void *wait_until(void *arg)
{
	struct timespec t = { (time_t)deadline, (long)((deadline - (double)(time_t)deadline) * 1e9) };
	double now;
	int e;

	pthread_mutex_lock(&queue_lock);
	do
		e = pthread_cond_timedwait(arg, &queue_lock, &t);
	while (!e);
	pthread_mutex_unlock(&queue_lock);
	now = feature_clock(CLOCK_MONOTONIC);
	return e != ETIMEDOUT ? "no time-out" : now < deadline ? "too early" : now > deadline + 2 ? "too late" : NULL;
}

static void monotonic_deadline(void)
{
	pthread_condattr_t a;
	pthread_cond_t c;
	pthread_t t;

	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(&c, &a);
	deadline = feature_clock(CLOCK_MONOTONIC) + 0.7;
	CHECK(pthread_create(&t, NULL, wait_until, &c) == 0);
	move_all();
	end_all(&t, 1);
}

static pthread_barrier_t barrier;
static long round_of[THREADS];
static bool last_round; /* written between the two barriers, read after the second */

static void *pass_barrier(void *arg)
{
	long me = (long)arg;

	for (;;) {
		round_of[me]++;
		pthread_barrier_wait(&barrier);
		for (int i = 0; i < THREADS; i++)
			if (round_of[i] != round_of[me])
				return "somebody is not here";
		if (me == 0)
			last_round = stop;
		pthread_barrier_wait(&barrier);
		if (last_round)
			return NULL;
	}
}

static void barriers(void)
{
	pthread_t t[THREADS];

	pthread_barrier_init(&barrier, NULL, THREADS);
	start_all(t, THREADS, pass_barrier);
	move_all();
	end_all(t, THREADS);
}

static pthread_spinlock_t spin;

static void *spinning(void *arg)
{
	(void)arg;
	while (!stop) {
		pthread_spin_lock(&spin);
		if (first++ != second)
			return "two at once";
		second++;
		pthread_spin_unlock(&spin);
		sched_yield();
	}
	return NULL;
}

static void spinlocks(void)
{
	pthread_t t[2];

	pthread_spin_init(&spin, 0);
	start_all(t, 2, spinning);
	move_all();
	end_all(t, 2);
}

static sem_t ping, pong;

static void *answering(void *arg)
{
	(void)arg;
	while (!stop) {
		struct timespec t;

		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_sec += 30;
		while (sem_timedwait(&ping, &t))
			if (errno != EINTR)
				return "too late";
		first++;
		sem_post(&pong);
	}
	return NULL;
}

/* Semaphores whose waits have time limits, which a move must not shorten. */
static void semaphores(void)
{
	pthread_t t;
	long sent = 0;

	sem_init(&ping, 0, 0);
	sem_init(&pong, 0, 0);
	CHECK(pthread_create(&t, NULL, answering, NULL) == 0);
	for (int k = 0; k < MOVES; k++) {
		unsigned before = member_moves;

		CHECK(write(1, "move\n", 5) == 5);
		while (member_moves == before) {
			sem_post(&ping);
			sent++;
			while (sem_wait(&pong))
				CHECK(errno == EINTR);
			CHECK(first == sent);
		}
	}
	stop = 1;
	sem_post(&ping);
	end_all(&t, 1);
}

const struct feature lock_features[] = {
	{ "mutex-recursive", mutex_recursive },
	{ "mutex-errorcheck", mutex_errorcheck },
	{ "mutex-adaptive", mutex_adaptive },
	{ "mutex-robust", mutex_robust },
	{ "mutex-inherit", mutex_inherit },
	{ "mutex-inherit-robust", mutex_inherit_robust },
	{ "inherit-waiter", inherit_waiter },
	{ "rwlocks", rwlocks },
	{ "conditions", conditions },
	{ "monotonic-deadline", monotonic_deadline },
	{ "barriers", barriers },
	{ "spinlocks", spinlocks },
	{ "semaphores", semaphores },
	{ NULL, NULL },
};
