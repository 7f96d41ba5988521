/* SPDX-License-Identifier: MIT */
/*
 * msock_coord.c - finding our helper programs; mpiexec's hold on the job's coordinator: one child and two pipes, and once
 * more if it is killed.
 */
#include "hydra.h"
#include "bsci.h"
#include "bscu.h"
#include "demux.h"
#include "msock.h"
#include <poll.h>
#include <sys/random.h>
#include <time.h>

#define HELPERS_FROM_BIN "/../libexec/msock/"
#define START_MS 120000 /* daemons on all hosts up; the coordinator has shorter limits of its own */
#define STOP_MS 15000   /* members, daemons, master gone and the job directory removed */
#define SECRET_SIZE 32

static struct {
	pid_t pid;   /* 0: none was started */
	pid_t owner; /* who started it; our atexit handler also runs in children that fail to exec */
	int in;      /* its standard input; the end of it is the end of the job */
	int out;     /* its standard output; closed when it has ended */
	char *job;   /* what it is told, secret included; a second one is told the same */
	size_t job_size;
	int again;   /* it is the second one */
	int ended;   /* it has said that it ends in order */
} coord;

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* A reader that has gone is not told here: it has said why on the other pipe, or is found silent there. */
static void write_all(int fd, const char *text, size_t size)
{
	void (*old)(int) = signal(SIGPIPE, SIG_IGN);

	while (size) {
		ssize_t n = write(fd, text, size);

		if (n < 0 && errno != EINTR)
			break;
		if (n > 0) {
			text += n;
			size -= n;
		}
	}
	signal(SIGPIPE, old);
}

/*
 * While the coordinator starts, which takes as long as its slowest host, Hydra's event loop does not run, and a signal
 * that it notes would come to proxies that are not there: then the signal is ours, and ends mpiexec.
 */
static const int ending_signals[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };
#define ENDING_SIGNALS (sizeof(ending_signals) / sizeof(ending_signals[0]))

static volatile sig_atomic_t ended_by;

static void end_by(int signum)
{
	ended_by = signum;
}

/* They come only in the poll of read_line, so none is missed between a look at ended_by and the poll. */
static void take_signals(struct sigaction *old, sigset_t *old_mask)
{
	struct sigaction ours = { .sa_handler = end_by };
	sigset_t mask;

	sigemptyset(&mask);
	for (size_t i = 0; i < ENDING_SIGNALS; i++)
		sigaddset(&mask, ending_signals[i]);
	sigprocmask(SIG_BLOCK, &mask, old_mask);
	for (size_t i = 0; i < ENDING_SIGNALS; i++)
		sigaction(ending_signals[i], &ours, &old[i]);
}

static void give_signals_back(const struct sigaction *old, const sigset_t *old_mask)
{
	for (size_t i = 0; i < ENDING_SIGNALS; i++)
		sigaction(ending_signals[i], &old[i], NULL);
	sigprocmask(SIG_SETMASK, old_mask, NULL);
}

/*
 * Read up to a newline, an end of file or the deadline; how many bytes there are, -1 at the deadline.
 * mask: NULL, or the signals that are blocked in the poll alone; then also -1 when one of them has ended mpiexec.
 */
static int read_line(int fd, char *line, int size, long long deadline, const sigset_t *mask)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int len = 0;

	while (len < size - 1) {
		long long left = deadline - now_ms();
		struct timespec limit = { left / 1000, left % 1000 * 1000000 };
		int n;

		if (left <= 0 || (mask && ended_by))
			return -1;
		if (ppoll(&pfd, 1, &limit, mask) <= 0)
			continue;
		n = read(fd, line + len, 1);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0 || line[len] == '\n')
			break;
		len++;
	}
	line[len] = '\0';
	return len;
}

/* Not of the coordinator's making: one that is killed cannot hand it on, and it is in no file. */
static void put_secret(FILE *to)
{
	unsigned char secret[SECRET_SIZE];

	if (getrandom(secret, sizeof(secret), 0) != sizeof(secret))
		return;
	fputs("secret ", to);
	for (size_t i = 0; i < sizeof(secret); i++)
		fprintf(to, "%02x", secret[i]);
	fputc('\n', to);
}

static void put_ports(FILE *to)
{
	const char *range = NULL;
	unsigned low, high;

	if (!MPL_env2str("MPIR_CVAR_CH3_PORT_RANGE", &range) && !MPL_env2str("MPIEXEC_PORT_RANGE", &range))
		return;
	if (sscanf(range, "%u:%u", &low, &high) == 2)
		fprintf(to, "port-range %u %u\n", low, high);
}

static void put_extra_args(FILE *to)
{
	const char *extra = NULL;
	char *list, *arg, *rest;

	if (!MPL_env2str("HYDRA_LAUNCHER_EXTRA_ARGS", &extra))
		return;
	list = rest = MPL_strdup(extra);
	while ((arg = strsep(&rest, " ")))
		if (*arg)
			fprintf(to, "launch-arg %s\n", arg);
	MPL_free(list);
}

static void put_job(FILE *to, struct HYD_node *nodes, char **proxy_args)
{
	unsigned nonce = 0;
	struct HYD_node *node;

	if (getrandom(&nonce, sizeof(nonce), 0) != sizeof(nonce))
		nonce = now_ms();
	fprintf(to, "job %d-%08x\n", (int)getpid(), nonce);
	put_secret(to);
	if (HYDT_bsci_info.launcher_exec)
		fprintf(to, "launcher-exec %s\n", HYDT_bsci_info.launcher_exec);
	put_extra_args(to);
	put_ports(to);
	for (; *proxy_args; proxy_args++)
		if (!strcmp(*proxy_args, "--iface") && proxy_args[1])
			fprintf(to, "iface %s\n", proxy_args[1]);
	for (node = nodes; node; node = node->next)
		fprintf(to, "host %s\n", node->hostname);
}

/* In the child.  A session of its own: Ctrl-C is for mpiexec, which passes on what the ranks shall have. */
static void exec_coord(const char *path, int in, int out)
{
	char line[HYD_TMP_STRLEN];
	sigset_t none;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
		_exit(127);
	close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC); /* a second one must not keep the proxies' pipes open */
	execl(path, path, (char *)NULL);
	MPL_snprintf(line, sizeof(line), "error cannot run %s: %s\n", path, strerror(errno));
	_exit(write(STDOUT_FILENO, line, strlen(line)) < 0 ? 126 : 127);
}

HYD_status HYDT_bscd_msock_helper(const char *name, char **path)
{
	const char *dir = getenv("MSOCK_HELPERDIR");
	char exe[HYD_TMP_STRLEN], full[HYD_TMP_STRLEN * 2];
	ssize_t len;
	HYD_status status = HYD_SUCCESS;

	*path = NULL;
	if (dir && *dir) {
		MPL_snprintf(full, sizeof(full), "%s/%s", dir, name);
	} else {
		len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
		if (len < 0)
			HYDU_ERR_SETANDJUMP(status, HYD_INTERNAL_ERROR, "cannot tell where mpiexec is (%s)\n",
					    MPL_strerror(errno));
		exe[len] = '\0';
		*strrchr(exe, '/') = '\0';
		MPL_snprintf(full, sizeof(full), "%s" HELPERS_FROM_BIN "%s", exe, name);
	}
	*path = MPL_strdup(full);

fn_exit:
	return status;

fn_fail:
	goto fn_exit;
}

static HYD_status spawn(void)
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 };
	char *path = NULL;
	HYD_status status;

	status = HYDT_bscd_msock_helper("msrank-coord", &path);
	HYDU_ERR_POP(status, "cannot find the coordinator\n");
	/* Above 2 whatever mpiexec was started with closed, or dup2 in the child would lose one. */
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		HYDU_ERR_SETANDJUMP(status, HYD_SOCK_ERROR, "pipe error (%s)\n", MPL_strerror(errno));
	coord.pid = fork();
	if (coord.pid == 0)
		exec_coord(path, in[0], out[1]);
	if (coord.pid < 0) {
		coord.pid = 0;
		HYDU_ERR_SETANDJUMP(status, HYD_INTERNAL_ERROR, "fork error (%s)\n", MPL_strerror(errno));
	}
	coord.owner = getpid();
	coord.in = in[1];
	coord.out = out[0];
	in[1] = out[0] = -1;

fn_exit:
	for (int i = 0; i < 2; i++) {
		if (in[i] >= 0)
			close(in[i]);
		if (out[i] >= 0)
			close(out[i]);
	}
	MPL_free(path);
	return status;

fn_fail:
	goto fn_exit;
}

/* What went wrong is for the user, in one line; there is nothing yet that an orderly end would have to undo. */
static void give_up(const char *why)
{
	fprintf(stderr, "mpiexec: %s\n", why);
	exit(1);
}

static void tell_job(void)
{
	write_all(coord.in, coord.job, coord.job_size);
	if (coord.again)
		write_all(coord.in, "again\n", 6);
	write_all(coord.in, "end\n", 4);
}

static HYD_status coord_heard(int fd, HYD_event_t events, void *userp);

/* Takes its status; 1 if it was killed. Hydra's wait for any child may have had it before, and stubs take the directory away then. */
static int take_status(void)
{
	const char *dir = getenv("MSOCK_JOBDIR");
	int how = 0;
	pid_t pid;

	while ((pid = waitpid(coord.pid, &how, 0)) < 0 && errno == EINTR)
		;
	coord.pid = 0;
	if (!dir || coord.ended)
		return 0;
	return pid < 0 || WIFSIGNALED(how) || !access(dir, F_OK);
}

static void say_twice(void)
{
	fprintf(stderr, "mpiexec: the job's coordinator was killed a second time: the job ends\n");
}

/* It has ended: by itself, and has said why and taken its directory away, or it was killed. */
static HYD_status coord_gone(void)
{
	HYD_status status = HYD_SUCCESS;

	HYDT_dmx_deregister_fd(coord.out);
	close(coord.out);
	close(coord.in);
	if (!take_status())
		return HYD_SUCCESS; /* the ranks' stubs end the job */
	if (coord.again) {
		say_twice();
		return HYD_SUCCESS;
	}
	coord.again = 1;
	status = spawn();
	HYDU_ERR_POP(status, "cannot start the coordinator again\n");
	tell_job();
	status = HYDT_dmx_register_fd(1, &coord.out, HYD_POLLIN, NULL, coord_heard);
	HYDU_ERR_POP(status, "cannot listen to the coordinator\n");

fn_exit:
	return status;

fn_fail:
	goto fn_exit;
}

/* Of a second one: `ready`, or what went wrong. Then the end of file that its end makes. */
static HYD_status coord_heard(int fd, HYD_event_t events, void *userp)
{
	char text[HYD_TMP_STRLEN];
	ssize_t n = read(fd, text, sizeof(text) - 1);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return HYD_SUCCESS;
	if (n <= 0)
		return coord_gone();
	text[n] = '\0';
	coord.ended |= strstr(text, "ended\n") != NULL;
	if (!strncmp(text, "error ", 6))
		fprintf(stderr, "mpiexec: the job's coordinator was killed; another one says: %.*s\n",
			(int)strcspn(text + 6, "\n"), text + 6);
	return HYD_SUCCESS;
}

/* The coordinator's first line; -1 if there is none in time. Does not return if mpiexec is to end meanwhile. */
static int hear_first(char *line, int size)
{
	struct sigaction old[ENDING_SIGNALS];
	sigset_t old_mask;
	int len;

	take_signals(old, &old_mask);
	len = read_line(coord.out, line, size, now_ms() + START_MS, &old_mask);
	if (ended_by) {
		HYDT_bscd_msock_coord_stop();
		signal(ended_by, SIG_DFL);
		raise(ended_by);
		sigprocmask(SIG_SETMASK, &old_mask, NULL);
	}
	give_signals_back(old, &old_mask);
	return len;
}

HYD_status HYDT_bscd_msock_coord_start(struct HYD_node *nodes, char **proxy_args)
{
	char line[HYD_TMP_STRLEN];
	FILE *to;
	HYD_status status = HYD_SUCCESS;

	if (coord.job) /* also when it has gone: it is the job's only one */
		return HYD_SUCCESS;

	to = open_memstream(&coord.job, &coord.job_size);
	HYDU_ERR_CHKANDJUMP(status, !to, HYD_INTERNAL_ERROR, "no memory\n");
	put_job(to, nodes, proxy_args);
	fclose(to);
	status = spawn();
	HYDU_ERR_POP(status, "cannot start the coordinator\n");
	atexit(HYDT_bscd_msock_coord_stop);
	tell_job();

	if (hear_first(line, sizeof(line)) < 0)
		give_up("the job's coordinator does not answer");
	if (!strncmp(line, "ready ", 6))
		setenv("MSOCK_JOBDIR", line + 6, 1);
	else
		give_up(!strncmp(line, "error ", 6) ? line + 6 : "the job's coordinator ended at once");
	status = HYDT_dmx_register_fd(1, &coord.out, HYD_POLLIN, NULL, coord_heard);
	HYDU_ERR_POP(status, "cannot listen to the coordinator\n");

fn_exit:
	return status;

fn_fail:
	goto fn_exit;
}

void HYDT_bscd_msock_coord_stop(void)
{
	char line[HYD_TMP_STRLEN];
	long long deadline;
	int len;

	if (!coord.pid || coord.owner != getpid())
		return;
	/* One that was killed just now gets its successor yet, which ends the daemons. */
	if (HYDT_dmx_query_fd_registration(coord.out) && poll(&(struct pollfd){ .fd = coord.out, .events = POLLIN }, 1, 0) > 0)
		coord_heard(coord.out, HYD_POLLIN, NULL);
	if (!coord.pid)
		return;
	if (HYDT_dmx_query_fd_registration(coord.out))
		HYDT_dmx_deregister_fd(coord.out);
	close(coord.in);
	deadline = now_ms() + STOP_MS;
	while ((len = read_line(coord.out, line, sizeof(line), deadline, NULL)) > 0)
		coord.ended |= !strcmp(line, "ended");
	if (len < 0) {
		fprintf(stderr, "mpiexec: the job's coordinator does not end; killing it\n");
		kill(coord.pid, SIGKILL);
	}
	if (take_status() && len == 0 && coord.again)
		say_twice();
	close(coord.out);
	unsetenv("MSOCK_JOBDIR");
}

/* Take the status of the proxies that have ended; 1 if one of them did not end well. */
static int reap_proxies(int options)
{
	int bad = 0, status;

	for (int i = 0; i < HYD_bscu_pid_count; i++) {
		pid_t pid;

		if (HYD_bscu_pid_list[i] == -1)
			continue;
		do
			pid = waitpid(HYD_bscu_pid_list[i], &status, options);
		while (pid < 0 && errno == EINTR);
		if (pid == 0)
			continue;
		bad |= pid > 0 && status;
		HYD_bscu_pid_list[i] = -1;
	}
	return bad;
}

static int proxy_talks(void)
{
	for (int i = 0; i < HYD_bscu_fd_count; i++)
		if (HYD_bscu_fd_list[i] != HYD_FD_CLOSED && HYDT_dmx_query_fd_registration(HYD_bscu_fd_list[i]))
			return 1;
	return 0;
}

static void kill_proxies(void)
{
	for (int i = 0; i < HYD_bscu_pid_count; i++)
		if (HYD_bscu_pid_list[i] != -1)
			killpg(getpgid(HYD_bscu_pid_list[i]), SIGKILL);
}

/*
 * In place of Hydra's own, which takes the end of any child of mpiexec for that of a proxy, and would give up the job
 * when the coordinator is killed.  timeout: seconds, -1 for none.
 */
HYD_status HYDT_bscd_msock_wait(int timeout)
{
	long long deadline = now_ms() + timeout * 1000LL;
	HYD_status status = HYD_SUCCESS;

	while (proxy_talks()) {
		long long left = timeout < 0 ? -1 : deadline - now_ms();

		if (timeout >= 0 && left <= 0) {
			kill_proxies();
			left = -1;
		}
		status = HYDT_dmx_wait_for_event(left < 0 ? -1 : (int)((left + 999) / 1000));
		if (status == HYD_TIMED_OUT)
			status = HYD_SUCCESS;
		HYDU_ERR_POP(status, "error waiting for event\n");
		if (reap_proxies(WNOHANG))
			HYDU_ERR_SETANDJUMP(status, HYD_INTERNAL_ERROR, "one of the proxies terminated badly; aborting\n");
	}
	reap_proxies(0);
	MPL_free(HYD_bscu_pid_list);
	MPL_free(HYD_bscu_fd_list);
	HYD_bscu_pid_list = HYD_bscu_fd_list = NULL;
	HYD_bscu_pid_count = HYD_bscu_fd_count = 0;

fn_exit:
	return status;

fn_fail:
	goto fn_exit;
}
