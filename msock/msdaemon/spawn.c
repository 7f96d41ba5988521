/* SPDX-License-Identifier: MIT */
#include "msdaemon/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "msdaemon/farewell.h"
#include "msdaemon/member.h"
#include "proto/log.h"

/*
 * The member's descriptors beside 0 to 2. PMI's has a number of its own too, not the one it had in the stub: that one grows with the ranks
 * of the proxy, and would meet the control socket's.
 */
enum { SPAWN_PMI_FD = 118, SPAWN_CONTROL_FD = 119, SPAWN_FD_ABOVE = 128 };

enum { SPAWN_CANNOT_RUN = 126, SPAWN_NOT_FOUND = 127, SPAWN_ENV_OWN = 3 };

static bool is_ours(const char *variable)
{
	static const char *const names[] = { "LD_PRELOAD=", "MSOCK_FD=", "PMI_FD=" };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strncmp(variable, names[i], strlen(names[i])))
			return true;
	return false;
}

/* The member's environment: as the stub's, with ours put in. The caller frees the list and own[]. */
static char **make_env(const struct daemon *d, const Ms__Spawn *s, char *own[SPAWN_ENV_OWN])
{
	char **env = calloc(s->n_env + SPAWN_ENV_OWN + 1, sizeof(*env));
	const char *preload = "";
	size_t n = 0;

	for (size_t i = 0; i < s->n_env; i++)
		if (!strncmp(s->env[i], "LD_PRELOAD=", 11))
			preload = s->env[i] + 11;
	if (!env || asprintf(&own[0], "MSOCK_FD=%d", SPAWN_CONTROL_FD) < 0 ||
	    asprintf(&own[1], "PMI_FD=%d", SPAWN_PMI_FD) < 0 ||
	    asprintf(&own[2], "LD_PRELOAD=%s%s%s", d->preload_path, *d->preload_path && *preload ? ":" : "", preload) <
		    0)
		log_die("out of memory");
	env[n++] = own[0];
	if (s->pmi_fd >= 0)
		env[n++] = own[1];
	if (own[2][11])
		env[n++] = own[2];
	for (size_t i = 0; i < s->n_env; i++)
		if (!is_ours(s->env[i]))
			env[n++] = s->env[i];
	return env;
}

static void child_signals(uint64_t ignored)
{
	sigset_t none;

	for (int i = 1; i < _NSIG; i++)
		signal(i, i <= 31 && ignored >> (i - 1) & 1 ? SIG_IGN : SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_fail(int error_fd, const char *what)
{
	char text[512];
	int code = errno == ENOENT && !*what ? SPAWN_NOT_FOUND : SPAWN_CANNOT_RUN;
	int n = snprintf(text + 1, sizeof(text) - 1, "%s%s%s", what, *what ? ": " : "", strerror(errno));

	text[0] = (char)code;
	if (n > (int)sizeof(text) - 2)
		n = (int)sizeof(text) - 2;
	if (write(error_fd, text, (size_t)n + 1) < 0)
		_exit(SPAWN_CANNOT_RUN);
	_exit(code);
}

static bool out_of_the_way(int *fd)
{
	int away = fcntl(*fd, F_DUPFD_CLOEXEC, SPAWN_FD_ABOVE);

	*fd = away < 0 ? *fd : away;
	return away >= 0;
}

/* Place the descriptors: all sources are first moved out of the way of all targets; *error_fd stays there. */
static bool child_fds(struct member *m, int control, int *error_fd)
{
	static const int place[MS_CHANNELS] = { 0, 1, 2, SPAWN_PMI_FD };
	int from[MS_CHANNELS];

	if (!out_of_the_way(error_fd) || !out_of_the_way(&control))
		return false;
	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		from[i] = pump_end(m->pump, i);
		if (from[i] >= 0 && !out_of_the_way(&from[i]))
			return false;
	}
	for (unsigned i = 0; i < MS_CHANNELS; i++)
		if (from[i] >= 0 && dup2(from[i], place[i]) < 0)
			return false;
	return dup2(control, SPAWN_CONTROL_FD) >= 0;
}

static void child(struct member *m, const Ms__Spawn *s, char **env, int control, int error_fd, pid_t daemon)
{
	char **argv = calloc(s->n_argv + 1, sizeof(*argv));
	int keep[2] = { SPAWN_CONTROL_FD, m->pmi_fd };

	if (!child_fds(m, control, &error_fd))
		child_fail(error_fd, "descriptors");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != daemon)
		_exit(SPAWN_CANNOT_RUN);
	setsid();
	child_signals(s->ignored);
	umask((mode_t)s->umask);
	for (size_t i = 0; i + 1 < s->n_limits && i / 2 < RLIM_NLIMITS; i += 2) {
		struct rlimit r = { s->limits[i], s->limits[i + 1] };

		setrlimit((int)(i / 2), &r);
	}
	seat_sit(m);
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	for (int i = 0; i < 2; i++)
		if (keep[i] >= 0)
			fcntl(keep[i], F_SETFD, 0);
	if (chdir(s->cwd))
		child_fail(error_fd, s->cwd);
	for (size_t i = 0; i < s->n_argv; i++)
		argv[i] = s->argv[i];
	environ = env;
	execvp(argv[0], argv);
	child_fail(error_fd, "");
}

/* After the fork: did exec succeed?  An empty pipe says yes. */
static bool started(struct daemon *d, struct member *m, const Ms__Spawn *s, int error_fd)
{
	Ms__Spawned spawned = MS__SPAWNED__INIT;
	char why[512], text[1024];
	ssize_t n;

	do
		n = read(error_fd, why, sizeof(why) - 1);
	while (n < 0 && errno == EINTR);
	if (n > 1) {
		why[n] = 0;
		snprintf(text, sizeof(text), "cannot run %s on %s: %s", s->argv[0], d->host, why + 1);
		waitpid(m->pid, NULL, 0);
		farewell_error(d, m->id, text, why[0]);
		return false;
	}
	spawned.member = m->id;
	spawned.pid = m->pid;
	link_send(d->coordinator, LINK_MSG(SPAWNED, spawned, &spawned));
	return true;
}

static unsigned channels_of(const Ms__Spawn *s)
{
	return s->pmi_fd >= 0 ? 0xf : 0x7;
}

void spawn_member(struct daemon *d, const Ms__Spawn *s)
{
	struct member *m = member_create(d, s->member, MEMBER_RUNNING);
	pid_t own = getpid();
	int control = -1, error_pipe[2] = { -1, -1 };
	char **env = NULL, *env_own[SPAWN_ENV_OWN] = { NULL };

	farewell_forget(d, s->member); /* of another process with that number */
	m->virtual_ip = s->virtual_ip;
	m->ours = true;
	m->pmi_fd = s->pmi_fd < 0 ? -1 : SPAWN_PMI_FD;
	seat_take(m, s->bind, s->map, (int)s->seat, &s->cpus);
	m->pump = pump_create(d->base, &d->coordinator, m->id, channels_of(s));
	control = member_control_open(m);
	if (!m->pump || control < 0 || pipe2(error_pipe, O_CLOEXEC) || s->n_argv == 0) {
		farewell_error(d, m->id, strerror(errno), SPAWN_CANNOT_RUN);
		goto failed;
	}
	env = make_env(d, s, env_own);
	m->pid = m->own_pid = fork();
	if (m->pid == 0)
		child(m, s, env, control, error_pipe[1], own);
	close(error_pipe[1]);
	error_pipe[1] = -1;
	if (m->pid < 0) {
		farewell_error(d, m->id, strerror(errno), SPAWN_CANNOT_RUN);
		goto failed;
	}
	if (!started(d, m, s, error_pipe[0]))
		goto failed;
	pump_start(m->pump);
	m = NULL;
failed:
	if (m)
		member_destroy(m);
	if (control >= 0)
		close(control);
	for (int i = 0; i < 2; i++)
		if (error_pipe[i] >= 0)
			close(error_pipe[i]);
	free(env);
	for (int i = 0; i < SPAWN_ENV_OWN; i++)
		free(env_own[i]);
}
