/* SPDX-License-Identifier: MIT */
/*
 * msrun - a job without MPI: starts a coordinator and the rank stub for one
 * program, passes signals on, and ends as the program ended.  With --join the
 * program becomes a further member of a job that runs.
 *
 *   msrun [--sockets] [--udp] [--job NAME] [--host HOST[,HOST...]]... program args...
 *   msrun [--sockets] --join NAME --rank N [--host HOST] program args...
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/end.h"
#include "proto/helpers.h"
#include "proto/log.h"

enum {
	RUN_START_MS = 120000, /* daemons on all hosts up; the coordinator has shorter limits of its own */
	RUN_STOP_MS = 15000,   /* member, daemons, master gone and the job directory removed */
	RUN_FAILED = 255,      /* as the stub's, when the job is lost */
	RUN_NAME_MAX = 63,     /* the coordinator's limit */
	RUN_RANK_MAX = 100000,
	RUN_SECRET = 32,  /* bytes */
	RUN_LATE = -1000, /* less than any signal's number */
};

static const int forwarded[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2 };

struct run {
	const char *job;
	const char *rank;  /* of this program; NULL: 0 */
	bool join;         /* the job runs already; no coordinator is ours */
	bool sockets, udp; /* the program's own TCP sockets, its UDP sockets are virtual */
	char **hosts;      /* owned list of owned names */
	size_t host_count;
	char **argv;       /* borrowed */
	sigset_t before;   /* the signal mask we were started with */
	int signals;       /* signalfd; what it takes is blocked while we run */
	pid_t coord;       /* 0: it was killed, or is not ours */
	int in, out;       /* the coordinator's standard input and output; the end of `in` is the end of the job */
	char *description; /* of the job, with its secret; a second coordinator is told the same */
	size_t description_size;
	bool again; /* it is the second one */
	pid_t stub;
};

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_say(LOG_ERROR, "%s", text);
	exit(RUN_FAILED);
}

static void add_hosts(struct run *r, const char *text)
{
	char *list = strdup(text), *rest = list, *name;

	while (list && (name = strsep(&rest, ","))) {
		if (!*name)
			continue;
		if (name[strcspn(name, " \t\r\n")])
			fail("%s is no name of a host", name);
		r->hosts = realloc(r->hosts, (r->host_count + 1) * sizeof(*r->hosts));
		if (!r->hosts)
			fail("out of memory");
		r->hosts[r->host_count++] = strdup(name);
	}
	free(list);
}

static bool good_job(const char *s)
{
	size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.");

	return n > 0 && n <= RUN_NAME_MAX && !s[n] && s[0] != '.';
}

static const char usage[] =
	"usage: msrun [--sockets] [--udp] [--job NAME | --join NAME --rank N] [--host HOST[,HOST...]]... "
	"PROGRAM [ARGUMENT...]\n";

static void read_options(struct run *r, int argc, char **argv)
{
	static const struct option options[] = {
		{ "job", required_argument, NULL, 'j' },  { "join", required_argument, NULL, 'J' },
		{ "rank", required_argument, NULL, 'r' }, { "host", required_argument, NULL, 'h' },
		{ "sockets", no_argument, NULL, 's' },    { "udp", no_argument, NULL, 'u' },
		{ "help", no_argument, NULL, '!' },       { NULL, 0, NULL, 0 }
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (opt == 'j' || opt == 'J')
			r->job = optarg, r->join = opt == 'J';
		else if (opt == 'r')
			r->rank = optarg;
		else if (opt == 's')
			r->sockets = true;
		else if (opt == 'u')
			r->sockets = r->udp = true;
		else if (opt == 'h')
			add_hosts(r, optarg);
		else if (opt == '!')
			exit(fputs(usage, stdout) < 0 || fflush(stdout) ? RUN_FAILED : 0);
		else
			exit(RUN_FAILED);
	}
	if (r->job && !good_job(r->job))
		fail("a job's name is 1 to %d of letters, digits and ._-, with no dot in front", RUN_NAME_MAX);
	if (!r->join != !r->rank ||
	    (r->rank && (!*r->rank || r->rank[strspn(r->rank, "0123456789")] || atoi(r->rank) > RUN_RANK_MAX)))
		fail("--join and --rank, a number up to %d, go together", RUN_RANK_MAX);
	if (optind >= argc) {
		fputs(usage, stderr);
		exit(RUN_FAILED);
	}
	if (!r->host_count && !r->join)
		add_hosts(r, "127.0.0.1");
	r->argv = argv + optind;
}

/* Signals are taken one by one where we wait. Those that are ignored stay so, also in the program. */
static void take_signals(struct run *r)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	signal(SIGCHLD, SIG_DFL);
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(*forwarded); i++)
		sigaddset(&set, forwarded[i]);
	sigprocmask(SIG_BLOCK, &set, &r->before);
	r->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (r->signals < 0)
		fail("signalfd: %s", strerror(errno));
}

/* Descriptors 0 to 2 are there, here and in the stub, so that nothing of ours takes their place. */
static void fill_low_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

static void find(const char *name, char *path, size_t size)
{
	if (!helpers_find(name, path, size))
		fail("cannot find %s; MSOCK_HELPERDIR tells where it is", name);
}

static void exec_coord(const char *path, int in, int out)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0) {
		setsid(); /* Ctrl-C is not for it */
		execl(path, path, (char *)NULL);
	}
	dprintf(out, "error cannot run %s: %s\n", path, strerror(errno));
	_exit(127);
}

static void start_coord(struct run *r)
{
	int in[2], out[2];
	char path[PATH_MAX];

	find("msrank-coord", path, sizeof(path));
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		fail("pipe: %s", strerror(errno));
	r->coord = fork();
	if (r->coord == 0)
		exec_coord(path, in[0], out[1]);
	if (r->coord < 0)
		fail("fork: %s", strerror(errno));
	close(in[0]);
	close(out[1]);
	r->in = in[1];
	r->out = out[0];
}

/* The secret is ours, since a coordinator that is killed cannot hand it on; it is in no file. */
static void describe_job(struct run *r)
{
	FILE *to = open_memstream(&r->description, &r->description_size);
	unsigned char secret[RUN_SECRET];
	unsigned nonce = 0;

	if (!to)
		fail("out of memory");
	if (getrandom(&nonce, sizeof(nonce), 0) != sizeof(nonce) ||
	    getrandom(secret, sizeof(secret), 0) != sizeof(secret))
		fail("no random numbers are to be had: %s", strerror(errno));
	if (r->job)
		fprintf(to, "job %s\n", r->job);
	else
		fprintf(to, "job %d-%08x\n", (int)getpid(), nonce);
	fputs("secret ", to);
	for (size_t i = 0; i < sizeof(secret); i++)
		fprintf(to, "%02x", secret[i]);
	fputc('\n', to);
	for (size_t i = 0; i < r->host_count; i++)
		fprintf(to, "host %s\n", r->hosts[i]);
	fclose(to);
}

/* A coordinator that has gone is not told here: it has said why on its output, or is found silent there. */
static void tell_job(const struct run *r)
{
	void (*old)(int) = signal(SIGPIPE, SIG_IGN);

	dprintf(r->in, "%s%send\n", r->description, r->again ? "again\n" : "");
	signal(SIGPIPE, old);
}

/* A signal that ends the wait for the coordinator, or 0. */
static int cancelled(struct run *r)
{
	struct signalfd_siginfo s;

	while (read(r->signals, &s, sizeof(s)) == sizeof(s))
		if (s.ssi_signo != SIGCHLD)
			return (int)s.ssi_signo;
	return 0;
}

/* One line from the coordinator: its length, RUN_LATE, or minus the signal that came, if one may end the wait. */
static int read_line(struct run *r, char *line, size_t size, long long deadline, bool may_cancel)
{
	struct pollfd p[2] = { { .fd = r->out, .events = POLLIN },
			       { .fd = may_cancel ? r->signals : -1, .events = POLLIN } };
	size_t len = 0;

	while (len < size - 1) {
		long long left = deadline - now_ms();
		int signo;
		ssize_t n;

		if (left <= 0)
			return RUN_LATE;
		if (poll(p, 2, (int)left) <= 0)
			continue;
		if (p[1].revents && (signo = cancelled(r)))
			return -signo;
		if (!p[0].revents)
			continue;
		n = read(r->out, line + len, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || line[len] == '\n')
			break;
		len++;
	}
	line[len] = 0;
	return (int)len;
}

/* It was killed, or has ended by itself and taken its directory away; then the stub tells. */
static void coord_gone(struct run *r)
{
	const char *dir = getenv("MSOCK_JOBDIR");
	int how = 0;

	close(r->in);
	close(r->out);
	while (waitpid(r->coord, &how, 0) < 0 && errno == EINTR)
		;
	r->coord = 0;
	if (!dir || (!WIFSIGNALED(how) && access(dir, F_OK)))
		return;
	if (r->again) {
		log_say(LOG_ERROR, "the job's coordinator was killed a second time: the job ends");
		return;
	}
	r->again = true;
	start_coord(r);
	tell_job(r);
}

/* Of a second one: `ready`, or what went wrong. Then the end of file that its end makes. */
static void hear_coord(struct run *r)
{
	char text[1024];
	ssize_t n = read(r->out, text, sizeof(text) - 1);

	if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
		coord_gone(r);
	text[n > 0 ? n : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	if (!strncmp(text, "error ", 6))
		log_say(LOG_ERROR, "the job's coordinator was killed; another one says: %s", text + 6);
}

/* The job ends everywhere; bounded. One that is killed meanwhile gets its successor yet, which ends the daemons. */
static void stop_coord(struct run *r)
{
	long long deadline = now_ms() + RUN_STOP_MS;
	char line[256];
	int len;

	if (r->coord && poll(&(struct pollfd){ .fd = r->out, .events = POLLIN }, 1, 0) > 0)
		hear_coord(r);
	while (r->coord) {
		close(r->in);
		r->in = -1;
		do
			len = read_line(r, line, sizeof(line), deadline, false);
		while (len > 0);
		if (len < 0) {
			log_say(LOG_ERROR, "the job's coordinator does not end; killing it");
			kill(r->coord, SIGKILL);
			unsetenv("MSOCK_JOBDIR"); /* and no other */
		}
		coord_gone(r);
	}
}

/* 0, or what to end with; the coordinator is gone then. */
static int await_coord(struct run *r)
{
	char line[PATH_MAX + 64];
	int len = read_line(r, line, sizeof(line), now_ms() + RUN_START_MS, true);

	if (len > 0 && !strncmp(line, "ready ", 6)) {
		setenv("MSOCK_JOBDIR", line + 6, 1);
		return 0;
	}
	if (len == RUN_LATE)
		log_say(LOG_ERROR, "the job's coordinator does not answer");
	else if (len >= 0)
		log_say(LOG_ERROR, "%s",
			!strncmp(line, "error ", 6) ? line + 6 : "the job's coordinator ended at once");
	stop_coord(r);
	return len < 0 && len != RUN_LATE ? end_by(-len) : RUN_FAILED;
}

/* The job that another msrun has started. */
static void find_job(struct run *r)
{
	char dir[PATH_MAX], path[PATH_MAX + 80];

	helpers_rundir(dir, sizeof(dir));
	snprintf(path, sizeof(path), "%s/%s/coord.sock", dir, r->job);
	if (access(path, F_OK))
		fail("no job %s of yours is running (looked in %s)", r->job, dir);
	path[strlen(path) - strlen("/coord.sock")] = 0;
	setenv("MSOCK_JOBDIR", path, 1);
}

static void exec_stub(struct run *r, const char *path, char **args)
{
	static const char *const foreign[] = { "PMI_RANK", "PMI_FD", "PMI_SIZE", "PMI_PORT", "MSOCK_STDIN_FD" };

	for (size_t i = 0; i < sizeof(foreign) / sizeof(*foreign); i++)
		unsetenv(foreign[i]);
	setenv("MSOCK_JOIN", r->udp ? "sockets,udp" : r->sockets ? "sockets" : "1", 1);
	sigprocmask(SIG_SETMASK, &r->before, NULL);
	execv(path, args);
	log_say(LOG_ERROR, "cannot run %s: %s", path, strerror(errno));
	_exit(RUN_FAILED);
}

static void start_stub(struct run *r)
{
	char path[PATH_MAX], **args;
	size_t n = 0, count = 0;

	find("msrank-stub", path, sizeof(path));
	while (r->argv[count])
		count++;
	args = calloc(count + 7, sizeof(*args));
	if (!args)
		fail("out of memory");
	args[n++] = path;
	if (r->host_count) {
		args[n++] = (char *)"--host";
		args[n++] = r->hosts[0];
	}
	if (r->rank) {
		args[n++] = (char *)"--rank";
		args[n++] = (char *)r->rank;
	}
	args[n++] = (char *)"--";
	memcpy(args + n, r->argv, count * sizeof(*args));
	r->stub = fork();
	if (r->stub == 0)
		exec_stub(r, path, args);
	if (r->stub < 0)
		fail("fork: %s", strerror(errno));
	free(args);
}

/* What the kernel sends (Ctrl-C, a terminal's end) goes to the whole group: the stub has it already. */
static void pass_on(struct run *r, const struct signalfd_siginfo *s)
{
	if (s->ssi_signo != SIGCHLD && s->ssi_code != SI_KERNEL)
		kill(r->stub, (int)s->ssi_signo);
}

/* The stub's status. A coordinator that ends for good is the stub's to tell. */
static int await_stub(struct run *r)
{
	struct signalfd_siginfo s;
	int status;

	for (;;) {
		struct pollfd p[2] = { { .fd = r->signals, .events = POLLIN },
				       { .fd = r->coord ? r->out : -1, .events = POLLIN } };
		pid_t pid = waitpid(r->stub, &status, WNOHANG);

		if (pid == r->stub)
			return status;
		if (pid < 0 && errno != EINTR)
			return W_EXITCODE(RUN_FAILED, 0);
		if (poll(p, 2, -1) <= 0)
			continue;
		while (read(r->signals, &s, sizeof(s)) == sizeof(s))
			pass_on(r, &s);
		if (p[1].revents)
			hear_coord(r);
	}
}

int main(int argc, char **argv)
{
	struct run r = { 0 };
	int status;

	log_open("msrun");
	fill_low_descriptors();
	read_options(&r, argc, argv);
	take_signals(&r);
	if (r.join) {
		find_job(&r);
	} else {
		describe_job(&r);
		start_coord(&r);
		tell_job(&r);
		status = await_coord(&r);
		if (status)
			return status;
	}
	start_stub(&r);
	status = await_stub(&r);
	if (!r.join)
		stop_coord(&r);
	return end_as(status);
}
