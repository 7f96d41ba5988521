/* SPDX-License-Identifier: MIT */
/*
 * msrank-coord - the coordinator of a job: a child of mpiexec on the launch
 * host.  Starts the address server and a daemon on each host, carries the
 * ranks' standard streams between stubs and daemons, and commits moves.
 *
 * stdin, one item a line, `end` last (then it stays open: its end of file ends
 * the job everywhere):
 *   job ID | secret HEX | again | launcher-exec CMD | launch-arg ARG | iface X | port-range LO HI | host NAME | end
 * secret: whoever starts us keeps it, and starts us again with the same lines and `again` if we are killed.
 * stdout: `ready DIR` or `error TEXT`; at an end in order `ended`.
 */
#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "abroad.h"
#include "allocation.h"
#include "balancer.h"
#include "coord.h"
#include "host.h"
#include "jobdir.h"
#include "master.h"
#include "metrics.h"
#include "recover.h"
#include "proto/conf.h"
#include "proto/log.h"
#include "tool.h"

enum { COORD_START_S = 30, COORD_END_MS = 3000, COORD_END_TURNS = 4 };

static void note_end(struct coord *c, pid_t pid)
{
	struct host *h;

	if (master_reaped(c, pid, 0) || balancer_reaped(pid, 0))
		return;
	TAILQ_FOREACH(h, &c->hosts, entry)
	if (h->shell.pid == pid)
		h->shell.pid = 0;
}

/* Daemons that another coordinator has started are no children of ours: their links end when they have. */
static void end_adopted(struct coord *c)
{
	struct host *h;

	TAILQ_FOREACH(h, &c->hosts, entry)
	if (h->present)
		link_await_end(h->link, COORD_END_MS);
}

/* Wait until daemons, remote shells and master have ended; kill what is left. */
static void end_children(struct coord *c)
{
	struct timespec pause = { 0, 2000000 };
	struct host *h;

	for (int left = COORD_END_MS / 2; left > 0; left--) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid < 0)
			return;
		if (pid > 0)
			note_end(c, pid);
		else
			nanosleep(&pause, NULL);
	}
	TAILQ_FOREACH(h, &c->hosts, entry)
	{
		if (h->shell.pid <= 0)
			continue;
		log_say(LOG_INFO, "the daemon of %s does not end: killed", h->name);
		kill(h->shell.pid, SIGKILL);
	}
	master_kill_all(c);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

void coord_end(struct coord *c, int code)
{
	Ms__Shutdown bye = MS__SHUTDOWN__INIT;
	struct host *h;

	c->ending = true;
	balancer_end();
	host_send_all(c, LINK_MSG(SHUTDOWN, shutdown, &bye));
	TAILQ_FOREACH(h, &c->hosts, entry)
	{
		link_flush(h->link, 100);
		shell_close(&h->shell);
	}
	master_end_all(c);
	end_adopted(c);
	end_children(c);
	jobdir_remove(c);
	dprintf(STDOUT_FILENO, "ended\n"); /* who hears nothing of it knows that we were killed */
	_exit(code);
}

void coord_fail(struct coord *c, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (c->ready)
		log_say(LOG_ERROR, "%s", text);
	else
		dprintf(STDOUT_FILENO, "error %s\n", text);
	coord_end(c, 1);
}

void coord_check_ready(struct coord *c)
{
	if (c->ready || !master_all_up(c) || !(c->again ? recover_all_known(c) : host_all_up(c)))
		return;
	c->ready = true;
	if (c->again)
		recover_decide(c);
	host_welcome_all(c);
	if (c->over)
		coord_end(c, 0);
	if (c->again)
		tool_listen(c); /* whoever calls from now on is answered by one who knows everything */
	dprintf(STDOUT_FILENO, "ready %s\n", c->dir);
	balancer_start(c);
}

static void start_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct coord *c = arg;
	struct host *h;

	if (c->ready)
		return;
	TAILQ_FOREACH(h, &c->hosts, entry)
	if (!h->link && !c->again)
		coord_fail(c, "host %s: no msdaemon came up in %d s", h->name, COORD_START_S);
	coord_fail(c, "the address server did not come up in %d s", COORD_START_S);
}

/* In a few turns of the loop, in which the links that are at their end are noticed: what was lost before is said before. */
static void end_cb(evutil_socket_t fd, short what, void *arg)
{
	static int turns = COORD_END_TURNS;
	struct timeval now = { 0, 0 };
	struct coord *c = arg;

	if (turns-- == 0)
		coord_end(c, 0);
	event_base_once(c->base, -1, EV_TIMEOUT, end_cb, c, &now);
}

static void stdin_cb(evutil_socket_t fd, short what, void *arg)
{
	struct coord *c = arg;
	char buf[256];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN)))
		return;
	event_del(c->stdin_ended);
	if (!c->again || c->ready)
		end_cb(-1, 0, c);
	else
		c->over = true; /* daemons that were not told would wait for another coordinator */
}

static void sigterm_cb(evutil_socket_t signo, short what, void *arg)
{
	coord_end(arg, 1);
}

static void sigchld_cb(evutil_socket_t signo, short what, void *arg)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		host_reaped(arg, pid, status);
}

static bool good_name(const char *s)
{
	size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.");

	return n > 0 && n < 64 && !s[n] && s[0] != '.';
}

static bool take_secret(struct coord *c, char *hex)
{
	size_t bytes = 0;
	bool good = !sodium_hex2bin(c->secret, sizeof(c->secret), hex, strlen(hex), NULL, &bytes, NULL) &&
		    bytes == sizeof(c->secret);

	sodium_memzero(hex, strlen(hex));
	return good;
}

static bool take_item(struct coord *c, char *line)
{
	char *value = strchr(line, ' ');
	unsigned low, high;

	if (!strcmp(line, "again"))
		return c->again = true;
	if (!value)
		return false;
	*value++ = 0;
	if (!strcmp(line, "job") && good_name(value))
		snprintf(c->job, sizeof(c->job), "%s", value);
	else if (!strcmp(line, "secret"))
		return c->secret_given = take_secret(c, value);
	else if (!strcmp(line, "launcher-exec"))
		c->launcher_exec = strdup(value);
	else if (!strcmp(line, "launch-arg")) {
		c->launch_args = realloc(c->launch_args, (c->launch_count + 1) * sizeof(*c->launch_args));
		c->launch_args[c->launch_count++] = strdup(value);
	} else if (!strcmp(line, "iface"))
		c->iface = strdup(value);
	else if (!strcmp(line, "port-range") && sscanf(value, "%u %u", &low, &high) == 2 && low <= high && high < 65536)
		c->port_low = (uint16_t)low, c->port_high = (uint16_t)high;
	else if (!strcmp(line, "host"))
		host_add(c, value);
	else
		return false;
	return true;
}

static void read_config(struct coord *c)
{
	char line[4096];

	setvbuf(stdin, NULL, _IONBF, 0); /* nothing beyond `end` is taken from stdin_cb */
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strcmp(line, "end")) {
			if (!*c->job || TAILQ_EMPTY(&c->hosts))
				coord_fail(c, "no job id or no host was given");
			return;
		}
		if (!take_item(c, line))
			coord_fail(c, "cannot read the line: %s", line);
	}
	coord_fail(c, "the list of hosts ends too early");
}

static void read_subnets(struct coord *c)
{
	struct conf conf;
	char why[1024];

	if (conf_load(c->job, &conf, why, sizeof(why)))
		coord_fail(c, "%s", why);
	for (size_t i = 0; i < conf.count; i++)
		master_add(c, &conf.subnets[i]);
}

static void on_event(struct coord *c, int fd_or_signal, short what, event_callback_fn cb)
{
	event_add(event_new(c->base, fd_or_signal, what | EV_PERSIST, cb, c), NULL);
}

int main(void)
{
	static const int ignored[] = { SIGPIPE, SIGINT, SIGQUIT, SIGTSTP, SIGHUP };
	static struct coord c = { .dir_records = -1, .dir_journal = -1, .kept_records = -1 };
	struct timeval limit = { COORD_START_S, 0 };
	struct rlimit files;
	char why[512];

	log_open("msrank-coord");
	TAILQ_INIT(&c.hosts);
	TAILQ_INIT(&c.ranks);
	TAILQ_INIT(&c.masters);
	LIST_INIT(&c.moves);
	LIST_INIT(&c.censuses);
	c.fault = getenv("MSOCK_FAULT") ? getenv("MSOCK_FAULT") : "";
	setsid();
	for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		signal(ignored[i], SIG_IGN);
	if (!getrlimit(RLIMIT_NOFILE, &files)) { /* one descriptor for each rank, and some */
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (sodium_init() < 0)
		return 1;
	read_config(&c);
	allocation_find(&c);
	if (!c.launcher_exec && !c.allocation)
		c.launcher_exec = (char *)"ssh";
	read_subnets(&c);
	if (!c.secret_given)
		randombytes_buf(c.secret, sizeof(c.secret));
	c.last = c.again || !c.secret_given;
	if (c.again) /* what was asked for has happened */
		c.fault = "";
	c.base = event_base_new();
	if (!c.base)
		coord_fail(&c, "no event loop to be had");
	host_resolve_all(&c);
	if (c.again)
		recover_read(&c);
	else if (jobdir_create(&c, why, sizeof(why)))
		coord_fail(&c, "%s", why);
	host_listen(&c);
	abroad_listen(&c);
	if (!c.again)
		tool_listen(&c);
	metrics_listen(&c);
	if (!c.again)
		balancer_check(&c);
	on_event(&c, SIGCHLD, EV_SIGNAL, sigchld_cb);
	on_event(&c, SIGTERM, EV_SIGNAL, sigterm_cb);
	c.stdin_ended = event_new(c.base, STDIN_FILENO, EV_READ | EV_PERSIST, stdin_cb, &c);
	event_add(c.stdin_ended, NULL);
	event_base_once(c.base, -1, EV_TIMEOUT, start_timeout, &c, &limit);
	master_start_all(&c);
	if (c.again)
		recover_attach(&c);
	else
		host_start_all(&c);
	jobdir_write_job(&c);
	event_base_dispatch(c.base);
	coord_end(&c, 1);
}
