/* SPDX-License-Identifier: MIT */
#include "start.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

uint64_t start_ignored_signals(void)
{
	uint64_t set = 0;

	for (int i = 1; i <= 31; i++) {
		struct sigaction old;

		if (!sigaction(i, NULL, &old) && old.sa_handler == SIG_IGN)
			set |= 1ull << (i - 1);
	}
	return set;
}

int start_pmi_fd(void)
{
	const char *text = getenv("PMI_FD");
	int fd = text && *text ? atoi(text) : -1;

	return fd > 2 && fcntl(fd, F_GETFD) >= 0 ? fd : -1;
}

bool start_memory_bound(void)
{
	int mode = MPOL_DEFAULT;

	return !syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0) && mode != MPOL_DEFAULT && mode != MPOL_LOCAL;
}

static size_t count(char *const *list)
{
	size_t n = 0;

	while (list[n])
		n++;
	return n;
}

/* Do we run on less than our cgroup would let us?  It may have other processors than the rank's host: only a choice counts. */
static bool is_narrowed(cpu_set_t *own)
{
	cpu_set_t all;

	memset(&all, 0xff, sizeof(all));
	if (sched_getaffinity(0, sizeof(*own), own) || sched_setaffinity(0, sizeof(all), &all))
		return false;
	sched_getaffinity(0, sizeof(all), &all);
	sched_setaffinity(0, sizeof(*own), own);
	return !CPU_EQUAL(&all, own);
}

void start_fill(struct start *s, char **argv, Ms__Spawn *spawn)
{
	const char *seat = getenv("MPI_LOCALRANKID");

	spawn->n_argv = count(argv);
	spawn->argv = argv;
	spawn->n_env = count(environ);
	spawn->env = environ;
	spawn->cwd = getcwd(s->cwd, sizeof(s->cwd)) ? s->cwd : (char *)"/";
	spawn->umask = umask(0);
	umask(spawn->umask);
	spawn->seat = seat && atoi(seat) > 0 ? (uint32_t)atoi(seat) : 0;
	if (is_narrowed(&s->cpus))
		spawn->cpus = (ProtobufCBinaryData){ sizeof(s->cpus), (uint8_t *)&s->cpus };
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit r = { RLIM_INFINITY, RLIM_INFINITY };

		getrlimit((__rlimit_resource_t)i, &r);
		s->limits[2 * i] = r.rlim_cur;
		s->limits[2 * i + 1] = r.rlim_max;
	}
	spawn->n_limits = 2 * RLIM_NLIMITS;
	spawn->limits = s->limits;
}
