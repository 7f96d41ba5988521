/* SPDX-License-Identifier: MIT */
#include "balancer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "balance.h"
#include "proto/helpers.h"
#include "proto/log.h"

static pid_t balancer;

/* The wish in two words; false: there is none. */
static bool wish(char *every, char *policy, size_t size)
{
	const char *text = getenv("MSOCK_BALANCE");
	size_t n = text ? strcspn(text, ":") : 0;

	if (!text || !*text)
		return false;
	snprintf(every, size, "%.*s", (int)n, text);
	snprintf(policy, size, "%s", text[n] ? text + n + 1 : balance_policies[0]->name);
	return true;
}

static bool find_tool(char *path, size_t size)
{
	return helpers_find("msrank-balance", path, size) || helpers_find("../../bin/msrank-balance", path, size);
}

void balancer_check(struct coord *c)
{
	char every[64], policy[64], path[4096], *end;
	double s;

	if (!wish(every, policy, sizeof(every)))
		return;
	s = strtod(every, &end);
	if (end == every || (*end && strcmp(end, "s")) || !(s >= BALANCE_EVERY_MIN_S && s <= 1e6))
		coord_fail(c, "-balance %s: the time between rounds is a number of seconds, %g at least",
			   getenv("MSOCK_BALANCE"), BALANCE_EVERY_MIN_S);
	if (!balance_policy(policy))
		coord_fail(c, "-balance %s: there is no policy %s (greedy, refine, comm)", getenv("MSOCK_BALANCE"),
			   policy);
	if (!find_tool(path, sizeof(path)))
		coord_fail(c, "-balance: msrank-balance is missing");
}

static void child(const struct coord *c, pid_t parent, const char *every, const char *policy)
{
	char path[4096];
	sigset_t none;

	if (!find_tool(path, sizeof(path)))
		_exit(127);
	prctl(PR_SET_PDEATHSIG, SIGTERM); /* the next coordinator starts its own */
	if (getppid() != parent)
		_exit(0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	dup2(STDERR_FILENO, STDOUT_FILENO); /* stdout is our answer to mpiexec */
	close_range(3, ~0u, 0);
	execl(path, "msrank-balance", "--every", every, "--policy", policy, "--quiet", c->job, (char *)NULL);
	log_die("cannot run %s: %s", path, strerror(errno));
}

void balancer_start(struct coord *c)
{
	pid_t parent = getpid();
	char every[64], policy[64];

	if (!wish(every, policy, sizeof(every)))
		return;
	balancer = fork();
	if (balancer < 0)
		log_say(LOG_ERROR, "the balancer cannot be started: %s", strerror(errno));
	if (!balancer)
		child(c, parent, every, policy);
}

bool balancer_reaped(pid_t pid, int status)
{
	if (pid <= 0 || pid != balancer)
		return false;
	balancer = 0;
	if (WIFSIGNALED(status))
		log_say(LOG_ERROR, "the balancer was killed by signal %d: the job goes on without it",
			WTERMSIG(status));
	return true;
}

void balancer_end(void)
{
	if (balancer > 0)
		kill(balancer, SIGTERM);
}
