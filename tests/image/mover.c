/* SPDX-License-Identifier: MIT */
/*
 * mover - both daemons in one, for tests of the image.
 *
 *   mover [-n MOVES] [-a] [-x] [-f FAULT] [-e MS] [-m MODE] [-t S] [-s] [-c] [-z] [-d] [-q MS] [-l RATE] [-w WORD] [-k FILE] [-v]
 *         MSRESTORE MEMBER.so PROGRAM ARGS...
 *
 * Runs the program with the stand-in library and moves it each time it writes
 * a line "move", or every MS milliseconds, at most MOVES times.  -a: each move
 * is given up after the image is complete, then done again.  -f: the first try
 * has this fault and must fail; the program goes on and is moved again.  -x: at
 * a line "refused?" a move must fail, and the program is told by a line to stdin.
 * -m: use this mode of image_place, not the best.  -t: the program starts in a
 * time namespace this many seconds ahead (root only).  -w: every move has this
 * word where a fault point's name would be.  -k: between the source's end and the
 * target's go-ahead, the mover takes a lock on this file.  -v: steps and figures of each move;
 * twice: and how long the same bytes take over plain TCP.
 * -s: stop and copy. -c: before each move ask what it would take. -z: compress always. -d: memory is compared. -q: the longest freeze. -l:
 * bytes/s before the freeze.
 * What else the program writes goes to stdout.  Ends as the program ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "image/image.h"
#include "proto/codec.h"
#include "proto/steps.h"
#include "proto/wire.h"

enum { WAIT_MS = 40000 }; /* a busy machine runs what has the lowest priority seldom */

struct process {
	pid_t pid, init, inner;
	int control, alive;
};

static struct {
	int moves, every_ms, mode, ahead;
	bool give_up, refusal, ask;
	int verbose;
	uint8_t flags;
	uint32_t max_freeze_us;
	uint64_t limit;
	const char *fault, *word, *lock, *restore, *library;
} opt = { .moves = 3, .fault = "", .word = "", .mode = -1 };

static struct image_place place;
static struct process member;
static int input[2];      /* the program's stdin: read end, write end */
static int channel[2][2]; /* stdout and stderr: read end, write end */
static uint64_t move_number;
static char line[8192];
static size_t line_used;
static int done, wanted, refused;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fflush(stdout);
	fprintf(stderr, "mover: ");
	vfprintf(stderr, format, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	if (member.alive > 0)
		close(member.alive);
	if (member.pid > 0)
		kill(member.pid, SIGKILL);
	exit(125);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void pair(int type, int fd[2])
{
	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fd))
		die("socketpair: %s", strerror(errno));
}

static void tcp_pair(int fd[2])
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t size = sizeof(at);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (l < 0 || bind(l, (struct sockaddr *)&at, sizeof(at)) || listen(l, 1) ||
	    getsockname(l, (struct sockaddr *)&at, &size))
		die("loopback: %s", strerror(errno));
	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd[0], (struct sockaddr *)&at, sizeof(at)))
		die("connect: %s", strerror(errno));
	fd[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	close(l);
}

static void send_packet(int fd, const struct ms_codec *c, const uint8_t *start, const int *fds, int count)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(8 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)start, (size_t)(c->at - start) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, (size_t)count * sizeof(int));
	}
	if (sendmsg(fd, &m, MSG_NOSIGNAL) < 0 && opt.verbose)
		fprintf(stderr, "mover: send: %s\n", strerror(errno));
}

static void begin(struct ms_codec *c, uint8_t *buf, size_t size, uint8_t type)
{
	ms_codec_init(c, buf, size);
	ms_put_u8(c, MS_WIRE_VERSION);
	ms_put_u8(c, type);
}

/* The program's output: "move" lines are for us. */
static void pump_lines(void)
{
	char *end;

	while ((end = memchr(line, '\n', line_used))) {
		size_t n = (size_t)(end - line) + 1;

		if (n == 5 && memcmp(line, "move\n", 5) == 0)
			wanted++;
		else if (n == 9 && memcmp(line, "refused?\n", 9) == 0)
			refused++;
		else
			fwrite(line, 1, n, stdout);
		memmove(line, line + n, line_used - n);
		line_used -= n;
	}
	if (line_used == sizeof(line)) {
		fwrite(line, 1, line_used, stdout);
		line_used = 0;
	}
	fflush(stdout);
}

static void pump(int ms)
{
	struct pollfd p[2] = { { .fd = channel[0][0], .events = POLLIN }, { .fd = channel[1][0], .events = POLLIN } };
	char text[4096];
	ssize_t n;

	if (poll(p, 2, ms) <= 0)
		return;
	if (p[0].revents) {
		n = read(channel[0][0], line + line_used, sizeof(line) - line_used);
		if (n > 0)
			line_used += (size_t)n;
		pump_lines();
	}
	if (p[1].revents) {
		n = read(channel[1][0], text, sizeof(text));
		if (n > 0)
			fwrite(text, 1, (size_t)n, stderr);
	}
}

static long receive(int fd, uint8_t *buf, size_t size, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t end = now_ns() + (uint64_t)ms * 1000000u;

	while (now_ns() < end) {
		if (poll(&p, 1, 5) > 0)
			return recv(fd, buf, size, 0);
		pump(0);
	}
	return -1;
}

static void process_end(struct process *p, bool killed)
{
	int status;

	if (killed)
		kill(p->pid, SIGKILL);
	if (p->pid > 0)
		waitpid(p->pid, &status, 0);
	if (p->alive >= 0)
		close(p->alive);
	if (p->init > 0)
		waitpid(p->init, &status, 0);
	close(p->control);
}

static void send_restore(int control, int image)
{
	uint8_t buf[1024];
	struct ms_codec c;
	int fds[4] = { image, input[0], channel[0][1], channel[1][1] };

	begin(&c, buf, sizeof(buf), MS_D_RESTORE);
	ms_put_u64(&c, move_number);
	ms_put_u32(&c, 0);
	ms_put_str(&c, "test");
	ms_put_u32(&c, INADDR_LOOPBACK);
	ms_put_u16(&c, 0);
	ms_put_u16(&c, 0);
	ms_put_u64(&c, 0x1234567812345678ull + move_number);
	ms_put_str(&c, opt.fault[0] ? opt.fault : opt.word);
	ms_put_u8(&c, 1);
	ms_put_u8(&c, 1);
	ms_put_u8(&c, 1);
	ms_put_u8(&c, 0);
	send_packet(control, &c, buf, fds, 4);
}

static void send_move(int image, uint8_t flags)
{
	uint8_t buf[1024];
	struct ms_codec c;

	begin(&c, buf, sizeof(buf), MS_D_MOVE);
	ms_put_u64(&c, move_number);
	ms_put_u8(&c, MS_VIA_AUTO);
	ms_put_u32(&c, 50);
	ms_put_u32(&c, WAIT_MS);
	ms_put_u64(&c, 0x1234567812345678ull + move_number);
	ms_put_str(&c, opt.fault[0] ? opt.fault : opt.word);
	ms_put_u8(&c, opt.flags | flags);
	ms_put_u32(&c, opt.max_freeze_us);
	ms_put_u64(&c, opt.limit);
	send_packet(member.control, &c, buf, &image, 1);
	kill(member.pid, MS_KICK_SIGNAL);
}

static void send_outcome(int fd, uint8_t type, bool committed)
{
	uint8_t buf[64];
	struct ms_codec c;

	begin(&c, buf, sizeof(buf), type);
	ms_put_u64(&c, move_number);
	ms_put_u8(&c, committed);
	send_packet(fd, &c, buf, NULL, 0);
}

/* What the test wants to see of the steps. */
static void step(struct ms_codec *c)
{
	enum ms_step which = ms_get_u8(c);
	uint64_t n[MS_STEP_FIGURES];

	ms_get_u64(c);
	ms_get_u64(c);
	for (int i = 0; i < MS_STEP_FIGURES; i++)
		n[i] = ms_get_u64(c);
	if (opt.verbose)
		fprintf(stderr, "mover: step %s %s %llu %llu %llu %llu\n", ms_step_actor(which), ms_step_name(which),
			(unsigned long long)n[0], (unsigned long long)n[1], (unsigned long long)n[2],
			(unsigned long long)n[3]);
}

/* Type of the answer, its fields behind the move's number in *c; 0 when nothing came. */
static uint8_t answer(int fd, uint8_t *buf, size_t size, struct ms_codec *c)
{
	uint8_t type;

	do {
		long n = receive(fd, buf, size, WAIT_MS);

		if (n <= 0)
			return 0;
		ms_codec_init(c, buf, (size_t)n);
		ms_get_u8(c);
		type = ms_get_u8(c);
		ms_get_u64(c);
		if (type == MS_M_STEP)
			step(c);
	} while (type == MS_M_STEP);
	return type;
}

static bool member_sent(uint64_t *sum, uint64_t *bytes, char *why)
{
	uint8_t buf[4096];
	struct ms_codec c;
	uint8_t type = answer(member.control, buf, sizeof(buf), &c);

	if (type == MS_M_IMAGE_SENT) {
		*sum = ms_get_u64(&c);
		*bytes = ms_get_u64(&c);
		return true;
	}
	snprintf(why, IMAGE_WHY, "the member does not answer");
	if (type == MS_M_MOVE_FAILED)
		ms_get_str(&c, why, IMAGE_WHY);
	return false;
}

static bool restorer_has(const struct process *p, uint8_t want, uint64_t *sum, char *why)
{
	uint8_t buf[4096];
	struct ms_codec c;
	uint8_t type = answer(p->control, buf, sizeof(buf), &c);

	if (type == want) {
		*sum = ms_get_u64(&c);
		return true;
	}
	snprintf(why, IMAGE_WHY, "the restorer has ended");
	if (type == MS_R_FAILED)
		ms_get_str(&c, why, IMAGE_WHY);
	return false;
}

/* Quicker than the member at its new place. */
static void lock_between(void)
{
	struct flock all = { .l_type = F_WRLCK };
	int fd = open(opt.lock, O_RDWR | O_CLOEXEC), status;

	waitpid(member.pid, &status, 0);
	member.pid = 0;
	if (fd < 0 || fcntl(fd, F_SETLK, &all))
		die("%s: no lock: %s", opt.lock, strerror(errno));
}

/* A restorer that is ready, in *to; the other end of its image connection, or -1. */
static int target_make(struct process *to, char *why)
{
	int ctl[2], image[2];
	uint64_t had = 0;

	move_number++;
	pair(SOCK_SEQPACKET, ctl);
	tcp_pair(image);
	to->control = ctl[0];
	to->inner = member.inner;
	if (image_spawn(&place, opt.restore, ctl[1], member.inner, &to->pid, &to->init, &to->alive, why))
		die("spawn: %s", why);
	close(ctl[1]);
	send_restore(to->control, image[1]);
	close(image[1]);
	if (restorer_has(to, MS_R_READY, &had, why))
		return image[0];
	close(image[0]);
	return -1;
}

/* What a move would take: the program goes on as if nothing had been. */
static void ask(void)
{
	struct process to = { .alive = -1 };
	char why[IMAGE_WHY] = "";
	uint8_t buf[4096];
	struct ms_codec c;
	int image = target_make(&to, why);
	uint64_t bytes, rate, dirty, freeze;

	if (image < 0)
		die("the check failed: %s", why);
	send_move(image, MS_MOVE_CHECK);
	close(image);
	if (answer(member.control, buf, sizeof(buf), &c) != MS_M_CHECKED)
		die("the check failed: no answer");
	bytes = ms_get_u64(&c);
	rate = ms_get_u64(&c);
	dirty = ms_get_u64(&c);
	freeze = ms_get_u64(&c);
	fprintf(stderr, "mover: predicted %llu bytes, rate %llu, dirty %lld, freeze %.2f ms, total %.2f ms\n",
		(unsigned long long)bytes, (unsigned long long)rate, (long long)dirty, (double)freeze / 1e6,
		(double)ms_get_u64(&c) / 1e6);
	send_outcome(member.control, MS_D_OUTCOME, false);
	process_end(&to, true);
}

/* One try; true if the image was complete and right. The new process is in *to. */
static bool move_try(struct process *to, uint64_t *bytes, char *why)
{
	uint64_t sent = 0, had = 0;
	char other[IMAGE_WHY] = "";
	int image = target_make(to, why);
	bool ok;

	if (image < 0)
		return false;
	send_move(image, 0);
	close(image);
	ok = member_sent(&sent, bytes, why);
	if (!ok) {
		/* The other's end of the connection closes only with the agent's; its reason is ours. */
		kill(to->pid, SIGKILL);
		restorer_has(to, MS_R_IMAGE_OK, &had, other);
		if (other[0] && strcmp(other, "the restorer has ended"))
			snprintf(why, IMAGE_WHY, "%s", other);
		send_outcome(member.control, MS_D_OUTCOME, false);
		return false;
	}
	if (!restorer_has(to, MS_R_IMAGE_OK, &had, why) || had != sent) {
		if (!why[0])
			snprintf(why, IMAGE_WHY, "the sums differ");
		send_outcome(member.control, MS_D_OUTCOME, false);
		return false;
	}
	if (opt.give_up) {
		snprintf(why, IMAGE_WHY, "given up");
		send_outcome(member.control, MS_D_OUTCOME, false);
		return false;
	}
	send_outcome(member.control, MS_D_OUTCOME, true);
	if (opt.lock)
		lock_between();
	send_outcome(to->control, MS_D_RESUME, true);
	return true;
}

/* ns for so many bytes over loopback into memory that is there. */
static uint64_t plain_tcp(uint64_t bytes)
{
	char *mem = malloc(bytes);
	uint64_t start, done_bytes = 0;
	int fd[2];
	pid_t pid;

	tcp_pair(fd);
	memset(mem, 1, bytes);
	pid = fork();
	if (pid == 0) {
		memset(mem, 2, bytes);
		if (read(fd[0], mem, 1) == 1)
			for (ssize_t n = 1; done_bytes < bytes && n > 0; done_bytes += (uint64_t)n)
				n = write(fd[0], mem + done_bytes, bytes - done_bytes);
		_exit(0);
	}
	close(fd[0]);
	usleep(100000 + bytes / 2000); /* the child's copy of the memory */
	start = now_ns();
	if (write(fd[1], "x", 1) == 1)
		for (ssize_t n = 1; done_bytes < bytes && n > 0; done_bytes += (uint64_t)n)
			n = read(fd[1], mem + done_bytes, bytes - done_bytes);
	start = now_ns() - start;
	close(fd[1]);
	waitpid(pid, NULL, 0);
	free(mem);
	return start;
}

static void move(void)
{
	struct process to = { .alive = -1 };
	char why[IMAGE_WHY] = "";
	uint64_t start = now_ns(), bytes = 0, frozen = 0;
	bool must_fail = opt.fault[0] || opt.give_up;

	if (!move_try(&to, &bytes, why)) {
		process_end(&to, true);
		if (!must_fail)
			die("the move failed: %s", why);
		fprintf(stderr, "mover: %s, as it should\n", why);
		opt.fault = "";
		opt.give_up = false;
		move();
		opt.give_up = must_fail && strcmp(why, "given up") == 0;
		return;
	}
	if (must_fail)
		die("the fault did nothing");
	process_end(&member, false);
	member = to;
	if (!restorer_has(&member, MS_M_RESUMED, &frozen, why)) {
		for (int i = 0; i < 16; i++)
			pump(0); /* it may have said more */
		die("the member did not go on: %s", why);
	}
	done++;
	if (opt.verbose) {
		uint64_t total = now_ns() - start;

		fprintf(stderr, "mover: move %d: frozen %.2f ms, total %.2f ms, %.2f MB\n", done, (double)frozen / 1e6,
			(double)total / 1e6, (double)bytes / 1e6);
		if (opt.verbose > 1)
			fprintf(stderr, "mover: plain TCP %.2f ms\n", (double)plain_tcp(bytes) / 1e6);
	}
}

/* The new clocks hold from the exec on. */
static void go_ahead(void)
{
	FILE *f = unshare(CLONE_NEWTIME) ? NULL : fopen("/proc/self/timens_offsets", "w");

	if (!f || fprintf(f, "monotonic %d 0\nboottime %d 0\n", opt.ahead, opt.ahead) < 0 || fclose(f))
		_exit(126);
}

/* A move that must not come about. */
static void move_refused(void)
{
	struct process to = { .alive = -1 };
	char why[IMAGE_WHY] = "";
	uint64_t bytes = 0;

	if (move_try(&to, &bytes, why))
		die("the move was not refused");
	process_end(&to, true);
	fprintf(stderr, "mover: refused: %s\n", why);
	if (write(input[1], "\n", 1) != 1)
		die("stdin: %s", strerror(errno));
}

static void start(char **argv)
{
	int ctl[2];
	char number[16];

	pair(SOCK_SEQPACKET, ctl);
	member.control = ctl[0];
	member.alive = -1;
	member.pid = fork();
	if (member.pid == 0) {
		if (opt.ahead)
			go_ahead();
		setsid();
		dup2(input[0], 0);
		dup2(channel[0][1], 1);
		dup2(channel[1][1], 2);
		dup2(ctl[1], 200);
		close_range(3, 199, 0);
		close_range(201, ~0U, 0);
		snprintf(number, sizeof(number), "%d", 200);
		setenv("MEMBER_FD", number, 1);
		setenv("LD_PRELOAD", opt.library, 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	member.inner = member.pid;
	close(ctl[1]);
}

static int run(void)
{
	uint64_t last = now_ns();
	int status;

	for (;;) {
		if (waitpid(member.pid, &status, WNOHANG) == member.pid)
			break;
		pump(5);
		if (opt.every_ms && done < opt.moves && now_ns() - last > (uint64_t)opt.every_ms * 1000000u)
			wanted++;
		if (refused && opt.refusal) {
			refused = 0;
			move_refused();
		}
		if (wanted) {
			wanted = 0;
			if (opt.ask)
				ask();
			move();
			last = now_ns();
		}
	}
	for (int i = 0; i < 16; i++)
		pump(0);
	if (member.alive >= 0)
		close(member.alive);
	if (member.init > 0)
		waitpid(member.init, NULL, 0);
	fprintf(stderr, "mover: %d moves\n", done);
	if (WIFSIGNALED(status)) {
		fprintf(stderr, "mover: the program ended by signal %d\n", WTERMSIG(status));
		return 128 + WTERMSIG(status);
	}
	return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "+n:e:f:m:t:q:l:w:k:axvsczd")) != -1) {
		if (c == 'n')
			opt.moves = atoi(optarg);
		else if (c == 'e')
			opt.every_ms = atoi(optarg);
		else if (c == 'f')
			opt.fault = optarg;
		else if (c == 'm')
			opt.mode = atoi(optarg);
		else if (c == 't')
			opt.ahead = atoi(optarg);
		else if (c == 'q')
			opt.max_freeze_us = (uint32_t)(atof(optarg) * 1000);
		else if (c == 'l')
			opt.limit = strtoull(optarg, NULL, 10);
		else if (c == 's')
			opt.flags |= MS_MOVE_STOP_AND_COPY;
		else if (c == 'z')
			opt.flags |= MS_MOVE_PACK_ALWAYS;
		else if (c == 'd')
			opt.flags |= MS_MOVE_COMPARE;
		else if (c == 'c')
			opt.ask = true;
		else if (c == 'w')
			opt.word = optarg;
		else if (c == 'k')
			opt.lock = optarg;
		else if (c == 'a')
			opt.give_up = true;
		else if (c == 'x')
			opt.refusal = true;
		else if (c == 'v')
			opt.verbose++;
		else
			return 125;
	}
	if (argc - optind < 3)
		die("usage: mover [-n MOVES] [-a] [-x] [-f FAULT] [-e MS] [-v] MSRESTORE MEMBER.so PROGRAM ARGS...");
	opt.restore = argv[optind];
	opt.library = argv[optind + 1];
	signal(SIGPIPE, SIG_IGN);
	if (image_probe(opt.restore, &place))
		die("probe: %s", place.says);
	if (opt.mode >= 0)
		place.mode = opt.mode;
	if (opt.verbose)
		fprintf(stderr, "mover: %s\n", place.says);
	if (pipe2(input, O_CLOEXEC) || pipe2(channel[0], O_CLOEXEC) || pipe2(channel[1], O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	start(argv + optind + 2);
	return run();
}
