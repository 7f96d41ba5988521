/* SPDX-License-Identifier: MIT */
/* Settings of the process and of its threads. */
#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "feature.h"

static atomic_int go, done;

static cpu_set_t bound;

static void *bound_thread(void *arg)
{
	cpu_set_t now;

	sched_setaffinity(0, sizeof(bound), &bound);
	done = 1;
	while (!go)
		usleep(500);
	CHECK(sched_getaffinity(0, sizeof(now), &now) == 0 && CPU_EQUAL(&now, &bound));
	return arg;
}

/* Each thread stays on the processors that it was bound to, and who was not bound is not. */
static void affinity(void)
{
	cpu_set_t all, now;
	pthread_t t;
	int cpu = 0;

	CHECK(sched_getaffinity(0, sizeof(all), &all) == 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&bound);
	CPU_SET(cpu, &bound);
	CHECK(pthread_create(&t, NULL, bound_thread, NULL) == 0);
	while (!done)
		usleep(500);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(sched_getaffinity(0, sizeof(now), &now) == 0 && CPU_EQUAL(&now, &all));
	}
	go = 1;
	CHECK(pthread_join(t, NULL) == 0);
}

static void *batch_thread(void *arg)
{
	struct sched_param p = { 0 };

	CHECK(sched_setscheduler(0, SCHED_IDLE, &p) == 0);
	done = 1;
	while (!go)
		usleep(500);
	CHECK(sched_getscheduler(0) == SCHED_IDLE);
	CHECK(getpriority(PRIO_PROCESS, 0) == 0);
	return arg;
}

static void scheduling(void)
{
	struct sched_param p = { 0 };
	pthread_t t;

	CHECK(pthread_create(&t, NULL, batch_thread, NULL) == 0);
	while (!done)
		usleep(500);
	CHECK(sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &p) == 0);
	CHECK(setpriority(PRIO_PROCESS, 0, 7) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(sched_getscheduler(0) == (SCHED_BATCH | SCHED_RESET_ON_FORK));
		errno = 0;
		CHECK(getpriority(PRIO_PROCESS, 0) == 7 && errno == 0);
	}
	go = 1;
	CHECK(pthread_join(t, NULL) == 0);
}

static void io_priority(void)
{
	int want = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 6);

	CHECK(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, want) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) == want);
	}
}

static void death_signal(void)
{
	int now = 0;

	CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(prctl(PR_GET_PDEATHSIG, &now) == 0 && now == SIGUSR2);
	}
}

/* A process that keeps others of its user from looking into it. */
static void not_dumpable(void)
{
	CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(prctl(PR_GET_DUMPABLE) == 0);
	}
	CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
	CHECK(member_move() == 0);
	CHECK(prctl(PR_GET_DUMPABLE) == 1);
}

static void subreaper(void)
{
	int now = 0;

	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(prctl(PR_GET_CHILD_SUBREAPER, &now) == 0 && now == 1);
	}
}

static int file_holds(const char *path, const char *want)
{
	char text[512] = "";
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	return n > 0 && strncmp(text, want, strlen(want)) == 0;
}

static void file_set(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void oom_and_core(void)
{
	file_set("/proc/self/oom_score_adj", "123");
	file_set("/proc/self/coredump_filter", "0x7");
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(file_holds("/proc/self/oom_score_adj", "123\n"));
		CHECK(file_holds("/proc/self/coredump_filter", "00000007\n"));
	}
}

/* The area of the arguments, overwritten by the program as servers do it, is what ps shows. */
static void title(void)
{
	extern char **environ;
	char path[64], *area = NULL, line[512];
	unsigned long start = 0, end = 0;
	FILE *f = fopen("/proc/self/stat", "r");
	char *s;

	CHECK(f && fgets(line, sizeof(line), f));
	fclose(f);
	s = strrchr(line, ')') + 2;
	for (int i = 3; i < 48; i++)
		s = strchr(s, ' ') + 1;
	CHECK(sscanf(s, "%lu %lu", &start, &end) == 2 && end > start + 8);
	area = (char *)start;
	memset(area, 0, end - start);
	strcpy(area, "title!");
	snprintf(path, sizeof(path), "/proc/%d/cmdline", getpid());
	for (int k = 0; k < MOVES; k++) {
		CHECK(file_holds(path, "title!"));
		CHECK(member_move() == 0);
		CHECK(file_holds(path, "title!"));
		area[5]++;
		CHECK(!file_holds(path, "title!"));
		area[5]--;
	}
}

/* More than fits where the kernel put the environment. */
static void environment(void)
{
	char name[32], value[600];

	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = 0;
	for (int k = 0; k < MOVES; k++) {
		for (int i = 0; i < 50; i++) {
			snprintf(name, sizeof(name), "WORD_%d_%d", k, i);
			CHECK(setenv(name, value, 1) == 0);
		}
		unsetenv("HOME");
		CHECK(member_move() == 0);
		for (int i = 0; i < 50; i++) {
			snprintf(name, sizeof(name), "WORD_%d_%d", k, i);
			CHECK(getenv(name) && strcmp(getenv(name), value) == 0);
		}
		CHECK(!getenv("HOME"));
		CHECK(system("test ${#WORD_0_0} = 599") == 0);
	}
}

static void limits(void)
{
	static const int which[] = { RLIMIT_AS,    RLIMIT_CORE,       RLIMIT_DATA,     RLIMIT_FSIZE,  RLIMIT_STACK,
				     RLIMIT_NPROC, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_MEMLOCK };
	struct rlimit want[9], now;

	for (int i = 0; i < 9; i++) {
		CHECK(getrlimit(which[i], &want[i]) == 0);
		if (want[i].rlim_cur > 100ul << 30)
			want[i].rlim_cur = (100ul << 30) + 4096ul * (unsigned)i;
		CHECK(setrlimit(which[i], &want[i]) == 0);
	}
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		for (int i = 0; i < 9; i++)
			CHECK(getrlimit(which[i], &now) == 0 && now.rlim_cur == want[i].rlim_cur &&
			      now.rlim_max == want[i].rlim_max);
	}
}

/* What is registered once per process, and by libraries without a word. */
static void memory_barriers(void)
{
	if (syscall(SYS_membarrier, 1 << 9 /* GET_REGISTRATIONS */, 0, 0) < 0)
		feature_skip("the kernel does not tell registrations of membarrier");
	CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0);
	}
}

/* The heap of the kernel's own kind goes on where it ended, up and down. */
static void break_heap(void)
{
	char *start = sbrk(0), *p = sbrk(300000);

	CHECK(p != (void *)-1);
	memset(p, 3, 300000);
	for (int k = 0; k < MOVES; k++) {
		char *more;

		CHECK(member_move() == 0);
		CHECK(p[0] == 3 && p[299999] == 3);
		more = sbrk(100000);
		CHECK(more == p + 300000);
		memset(more, 4, 100000);
		CHECK(sbrk(-100000) != (void *)-1 && sbrk(0) == p + 300000);
	}
	CHECK(start <= p);
}

static void no_new_rights(void)
{
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_TIMERSLACK, 123456) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
		CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1);
		CHECK(prctl(PR_GET_TIMERSLACK) == 123456);
	}
}

const struct feature process_features[] = {
	{ "affinity", affinity },
	{ "scheduling", scheduling },
	{ "io-priority", io_priority },
	{ "death-signal", death_signal },
	{ "not-dumpable", not_dumpable },
	{ "subreaper", subreaper },
	{ "oom-and-core", oom_and_core },
	{ "title", title },
	{ "environment", environment },
	{ "limits", limits },
	{ "memory-barriers", memory_barriers },
	{ "break-heap", break_heap },
	{ "no-new-rights", no_new_rights },
	{ NULL, NULL },
};
