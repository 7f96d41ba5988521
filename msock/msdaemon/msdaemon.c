/* SPDX-License-Identifier: MIT */
/*
 * msdaemon - one per host and job: starts members, carries their standard
 * streams, and has a part in each move of a member from or to this host.
 *
 *   msdaemon --host NAME
 *
 * On stdin, one item a line: `secret HEX`, `coordinator IP PORT`, `ip IP`,
 * `env NAME=VALUE`, `end`.  Later `bye`: the coordinator gives us up; an end of file without it: it was killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
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

#include "msdaemon/arrival.h"
#include "msdaemon/coordinator.h"
#include "msdaemon/member.h"
#include "msdaemon/mesh.h"
#include "msdaemon/mirror.h"
#include "msdaemon/orphan.h"
#include "proto/helpers.h"
#include "proto/log.h"
#include "proto/net.h"

enum { FAULT_FLUSH_MS = 1000 };

struct start { /* what stdin said */
	uint32_t coordinator_ip;
	uint16_t coordinator_port;
	bool secret;
};

const char *daemon_member_text(uint32_t member, char text[24])
{
	snprintf(text, 24, "%u.%u", MS_MEMBER_WORLD(member), MS_MEMBER_RANK(member));
	return text;
}

void daemon_want_abort(struct daemon *d, uint32_t member, uint64_t m, const char *format, ...)
{
	Ms__WantAbort w = MS__WANT_ABORT__INIT;
	char reason[700], text[24];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	log_say(LOG_INFO, "move %llu of rank %s fails: %s", (unsigned long long)m, daemon_member_text(member, text),
		reason);
	w.member = member;
	w.m = m;
	w.reason = reason;
	link_send(d->coordinator, LINK_MSG(WANT_ABORT, want_abort, &w));
}

uint64_t daemon_clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void daemon_step(struct daemon *d, uint32_t member, uint64_t m, enum ms_step step, const char *fault, struct link *also,
		 uint64_t figure)
{
	enum ms_fault act = ms_fault_at(fault, step);
	Ms__Step s = MS__STEP__INIT;

	s.member = member;
	s.m = m;
	s.step = step;
	s.host = d->host;
	s.mono_ns = daemon_clock_ns(CLOCK_MONOTONIC);
	s.wall_ns = daemon_clock_ns(CLOCK_REALTIME);
	s.n_figures = 1;
	s.figures = &figure;
	link_send(d->coordinator, LINK_MSG(STEP, step, &s));
	if (act != MS_FAULT_DIE && act != MS_FAULT_CUT)
		return;
	link_flush(also, FAULT_FLUSH_MS);
	link_flush(d->coordinator, FAULT_FLUSH_MS);
	log_say(LOG_WARN, "%s: fault %s", d->host, fault);
	if (act == MS_FAULT_DIE)
		kill(getpid(), SIGKILL);
	link_break(d->coordinator);
}

void daemon_progress(struct daemon *d, const Ms__Progress *p)
{
	link_send(d->coordinator, LINK_MSG(PROGRESS, progress, (Ms__Progress *)p));
}

static void reap(struct daemon *d)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
		if (!member_reaped(d, pid, status) && !mirror_reaped(d, pid, status))
			log_say(LOG_DATA, "reaped %d, status %#x", (int)pid, status);
}

static void sigchld_cb(evutil_socket_t signo, short what, void *arg)
{
	reap(arg);
}

void daemon_end(struct daemon *d, int code)
{
	struct member *m;

	d->ending = true;
	LIST_FOREACH(m, &d->members, entry)
	member_kill(m);
	LIST_FOREACH(m, &d->gone, entry)
	member_kill(m);
	mirror_kill_all(d);
	link_flush(d->coordinator, 200);
	/* All children were killed; each is gone in a moment, unless it hangs in the kernel. */
	for (int i = 0; i < 200; i++) {
		struct timespec pause = { 0, 10000000 };
		pid_t pid = waitpid(-1, NULL, WNOHANG | __WALL);

		if (pid < 0)
			break;
		if (pid == 0)
			nanosleep(&pause, NULL);
	}
	_exit(code);
}

static void stdin_cb(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;
	char buf[256];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n > 0) {
		log_say(LOG_INFO, "the coordinator says that it is over");
		daemon_end(d, 1);
	}
	event_del(d->stdin_ended);
	orphan_stdin_ended(d);
}

static void probe_cb(evutil_socket_t fd, short what, void *arg)
{
	arrival_probe(arg);
}

/* Unbuffered: what comes after `end` is left to stdin_cb. */
static bool read_line(char *line, size_t size)
{
	size_t n = 0;
	char c;

	while (read(STDIN_FILENO, &c, 1) == 1) {
		if (c == '\n') {
			line[n] = 0;
			return true;
		}
		if (n + 1 >= size)
			return false;
		line[n++] = c;
	}
	return false;
}

static void read_start(struct daemon *d, struct start *s)
{
	char line[4096], ip[64];
	unsigned port;

	while (read_line(line, sizeof(line)) && strcmp(line, "end")) {
		size_t bytes;

		if (!strncmp(line, "secret ", 7)) {
			s->secret = !sodium_hex2bin(d->secret, sizeof(d->secret), line + 7, strlen(line + 7), NULL,
						    &bytes, NULL) &&
				    bytes == sizeof(d->secret);
			sodium_memzero(line, sizeof(line));
		} else if (sscanf(line, "coordinator %63s %u", ip, &port) == 2) {
			s->coordinator_ip = ntohl(inet_addr(ip));
			s->coordinator_port = (uint16_t)port;
		} else if (sscanf(line, "ip %63s", ip) == 1) {
			d->ip = ntohl(inet_addr(ip));
		} else if (!strncmp(line, "env ", 4) && strchr(line, '=')) {
			*strchr(line, '=') = 0;
			setenv(line + 4, line + strlen(line) + 1, 1);
		}
	}
	if (!s->secret || !s->coordinator_port || !d->ip)
		log_die("%s: what was to come on stdin did not come", d->host);
}

static void set_up_process(void)
{
	struct rlimit r;

	setsid();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGTSTP, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (!getrlimit(RLIMIT_NOFILE, &r)) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static void find_helpers(struct daemon *d)
{
	if (!helpers_find("msrestore", d->restore_path, sizeof(d->restore_path)))
		*d->restore_path = 0;
	if (!helpers_find("msmirror", d->mirror_path, sizeof(d->mirror_path)))
		*d->mirror_path = 0;
	if (!helpers_find("msstandin", d->standin_path, sizeof(d->standin_path)))
		*d->standin_path = 0;
	if (!helpers_library("libmsock-preload.so", d->preload_path, sizeof(d->preload_path)))
		*d->preload_path = 0;
	d->fault = getenv("MSOCK_FAULT") ? getenv("MSOCK_FAULT") : "";
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "host", required_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	static struct daemon d;
	struct timeval quiet = { 0, 300000 }; /* when the members have been started */
	struct start s = { 0 };
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt != 'h')
			return 2;
		snprintf(d.host, sizeof(d.host), "%s", optarg);
	}
	if (sodium_init() < 0)
		return 1;
	log_open("msdaemon");
	read_start(&d, &s);
	log_open("msdaemon");
	set_up_process();
	find_helpers(&d);
	LIST_INIT(&d.members);
	LIST_INIT(&d.gone);
	LIST_INIT(&d.farewells);
	LIST_INIT(&d.standins);
	LIST_INIT(&d.mirrors);
	LIST_INIT(&d.peers);
	LIST_INIT(&d.routes);
	LIST_INIT(&d.masters);
	TAILQ_INIT(&d.questions);
	d.base = event_base_new();
	if (!d.base || mesh_listen(&d))
		log_die("%s: cannot listen: %s", d.host, strerror(errno));
	d.stdin_ended = event_new(d.base, STDIN_FILENO, EV_READ | EV_PERSIST, stdin_cb, &d);
	event_add(d.stdin_ended, NULL);
	event_add(evsignal_new(d.base, SIGCHLD, sigchld_cb, &d), NULL);
	event_base_once(d.base, -1, EV_TIMEOUT, probe_cb, &d, &quiet);
	coordinator_dial(&d, s.coordinator_ip, s.coordinator_port);
	event_base_dispatch(d.base);
	daemon_end(&d, 1);
}
