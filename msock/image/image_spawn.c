/* SPDX-License-Identifier: MIT */
/* Starting msrestore; ordinary libc code, linked into msdaemon. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/image.h"
#include "image/restore/spawn_report.h"

static const char *const mode_says[] = {
	[IMAGE_MODE_FULL] = "full: exact process and thread ids, continuous clocks",
	[IMAGE_MODE_NO_TIME] = "exact process and thread ids; clocks are the host's",
	[IMAGE_MODE_NO_PROC] = "exact process and thread ids; clocks and /proc are the host's",
	[IMAGE_MODE_PLAIN] = "no namespaces: process and thread ids change",
};

static int spawn_error(char why[IMAGE_WHY], const char *what, int e)
{
	snprintf(why, IMAGE_WHY, "%s: %s", what, strerror(e));
	return -1;
}

/* In the child, between fork and exec. */
static void child_exec(const char *path, int mode, pid_t tid, int control, int alive, int report)
{
	char mode_arg[16], tid_arg[16];
	char *argv[] = { "msrestore", mode_arg, tid_arg, NULL };
	char *envp[] = { NULL };
	/* Above the three numbers that they go to. */
	int high[3] = { fcntl(control, F_DUPFD, 64), fcntl(alive, F_DUPFD, 64), fcntl(report, F_DUPFD, 64) };
	sigset_t none;

	snprintf(mode_arg, sizeof(mode_arg), "%d", mode);
	snprintf(tid_arg, sizeof(tid_arg), "%d", (int)tid);
	if (dup2(high[0], SPAWN_CONTROL_FD) < 0 || dup2(high[1], SPAWN_ALIVE_FD) < 0 ||
	    dup2(high[2], SPAWN_REPORT_FD) < 0)
		_exit(127);
	close_range(SPAWN_REPORT_FD + 1, ~0U, 0);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(path, argv, envp);
	_exit(127);
}

/* The report, at the latest when all who could write it have closed the pipe. */
static void report_read(int fd, struct spawn_report *r)
{
	ssize_t n;

	memset(r, 0, sizeof(*r));
	do
		n = read(fd, r, sizeof(*r));
	while (n < 0 && errno == EINTR);
	if (n != sizeof(*r)) {
		memset(r, 0, sizeof(*r));
		snprintf(r->why, sizeof(r->why), "msrestore could not be run");
	}
	r->why[sizeof(r->why) - 1] = 0;
}

static void reap(pid_t pid)
{
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* Runs the helper to its end; *alive is the write end of the pipe. */
static int helper_run(const char *path, int mode, pid_t tid, int control, struct spawn_report *r, int *alive,
		      char why[IMAGE_WHY])
{
	int life[2] = { -1, -1 }, report[2] = { -1, -1 };
	pid_t helper;

	if (pipe2(life, O_CLOEXEC) || pipe2(report, O_CLOEXEC)) {
		int e = errno;

		if (life[0] >= 0) {
			close(life[0]);
			close(life[1]);
		}
		return spawn_error(why, "no pipe for the restorer", e);
	}
	helper = fork();
	if (helper == 0)
		child_exec(path, mode, tid, control, life[0], report[1]);
	close(life[0]);
	close(report[1]);
	if (helper < 0) {
		close(life[1]);
		close(report[0]);
		return spawn_error(why, "cannot start the restorer", errno);
	}
	report_read(report[0], r);
	close(report[0]);
	reap(helper);
	*alive = life[1];
	return 0;
}

/* A try with a process that only reports: 0, or -1 and why the mode is not to be had. */
static int mode_probe(const char *path, int mode, char why[IMAGE_WHY])
{
	struct spawn_report r;
	int alive, status;
	pid_t pid;

	if (helper_run(path, mode, 0, STDIN_FILENO, &r, &alive, why))
		return -1;
	close(alive);
	/* Both processes that the helper left are our children; their numbers were not reported. */
	while ((pid = waitpid(-1, &status, 0)) > 0 || (pid < 0 && errno == EINTR))
		;
	if (r.pid)
		return 0;
	snprintf(why, IMAGE_WHY, "%s", r.why);
	return -1;
}

/* In a child of its own, so that "wait for all children" means those of the probe. */
static int probe_modes(const char *path, int report)
{
	struct image_place place = { .mode = -1 };
	char why[IMAGE_WHY], first[IMAGE_WHY] = "";

	for (int mode = IMAGE_MODE_FULL; mode <= IMAGE_MODE_PLAIN; mode++) {
		if (mode_probe(path, mode, why) == 0) {
			place.mode = mode;
			snprintf(place.says, sizeof(place.says), "%s%s%.60s%s", mode_says[mode], first[0] ? " (" : "",
				 first, first[0] ? ")" : "");
			break;
		}
		if (!first[0])
			snprintf(first, sizeof(first), "%s", why);
	}
	if (place.mode < 0)
		snprintf(place.says, sizeof(place.says), "%.127s", first);
	return write(report, &place, sizeof(place)) == sizeof(place) ? 0 : 1;
}

int image_probe(const char *path, struct image_place *place)
{
	int report[2];
	pid_t child;
	ssize_t n;

	if (pipe2(report, O_CLOEXEC))
		return -1;
	child = fork();
	if (child == 0) {
		signal(SIGCHLD, SIG_DFL);
		_exit(probe_modes(path, report[1]));
	}
	close(report[1]);
	memset(place, 0, sizeof(*place));
	do
		n = child < 0 ? -1 : read(report[0], place, sizeof(*place));
	while (n < 0 && child >= 0 && errno == EINTR);
	close(report[0]);
	reap(child);
	return n == sizeof(*place) && place->mode >= 0 ? 0 : -1;
}

int image_spawn(const struct image_place *place, const char *path, int control_fd, pid_t tid, pid_t *pid,
		pid_t *init_pid, int *alive_fd, char why[IMAGE_WHY])
{
	struct spawn_report r;

	if (helper_run(path, place->mode, tid, control_fd, &r, alive_fd, why))
		return -1;
	*pid = r.pid;
	*init_pid = r.init;
	if (r.pid)
		return 0;
	close(*alive_fd);
	*alive_fd = -1;
	reap(r.init);
	snprintf(why, IMAGE_WHY, "%s", r.why);
	return -1;
}
