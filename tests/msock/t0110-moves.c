/* SPDX-License-Identifier: MIT */
/*
 * t0110-moves.c - members that talk at full speed while they are moved about at
 * random: real sockets, real mirrors, real agents; only the image is faked
 * (fake_image.h).  Every byte, every end of file is checked.
 *
 * Ten thousand commits under MSOCK_TEST_LONG (make check-long), or as many as MSOCK_TEST_MOVES says; else for some seconds:
 * MSOCK_TEST_SEED, MSOCK_TEST_SECONDS, MSOCK_TEST_VIA (auto, drain, mirror), MSOCK_TEST_DROP (percent of the
 * relink messages), MSOCK_TEST_COMMITS (percent of the moves), MSOCK_TEST_MEMBERS, MSOCK_TEST_CUTS (of a mirror's link).
 */
#include "msock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/conn.h"
#include "mini_daemon.h"

enum { FLOWS = 6, INCOMING = 128, PIECE = 65536, SMALL = 200000, LARGE = 30000000, PATIENCE_S = 60 };

/* Sent by the opener first; tells what both ends send. */
struct promise {
	uint32_t seed;
	uint32_t bytes[2]; /* by end */
};

/* One end of a stream. */
struct flow {
	int sd; /* -1: not in use */
	unsigned end;
	struct promise promise;
	uint32_t sent, got; /* with the promise's own bytes, at end 0 out and end 1 in */
	bool shut, ended;
};

/* Shared by all processes. */
struct shared {
	volatile bool stop; /* no new flows; no new moves */
	volatile bool bad;
	volatile unsigned mirrors;   /* that have not ended: before the members end, each must have been released */
	uint32_t port[MINI_MEMBERS]; /* virtual */
	uint64_t bytes[MINI_MEMBERS], flows[MINI_MEMBERS], waits[MINI_MEMBERS];
};

static struct shared *shared;
static unsigned me;
static __thread uint64_t random_state; /* not of both threads: a seed tells what each does */
static struct flow outgoing[FLOWS], incoming[INCOMING];
static int listener_tag;

static unsigned roll(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)(random_state % n);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

__attribute__((noreturn)) static void bad(const struct flow *f, const char *what)
{
	fprintf(stderr, "# member %u, flow with seed %u, end %u: %s (sent %u, got %u, errno %d)\n", me,
		f ? f->promise.seed : 0, f ? f->end : 0, what, f ? f->sent : 0, f ? f->got : 0, errno);
	shared->bad = true;
	_exit(1);
}

static uint8_t byte_at(const struct flow *f, unsigned end, uint32_t at)
{
	if (end == 0 && at < sizeof(f->promise))
		return ((const uint8_t *)&f->promise)[at];
	return (uint8_t)((at * 2654435761u >> 11) ^ f->promise.seed ^ end * 77);
}

static uint32_t total(const struct flow *f, unsigned end)
{
	return f->promise.bytes[end] + (end == 0 ? sizeof(f->promise) : 0);
}

static bool knows_promise(const struct flow *f)
{
	return f->end == 0 || f->got >= sizeof(f->promise);
}

static void flow_write(struct flow *f)
{
	static uint8_t buf[PIECE];

	while (knows_promise(f) && f->sent < total(f, f->end)) {
		uint32_t n = 1 + roll(PIECE), left = total(f, f->end) - f->sent;
		struct iovec iov[2];
		ssize_t done;

		n = n < left ? n : left;
		for (uint32_t i = 0; i < n; i++)
			buf[i] = byte_at(f, f->end, f->sent + i);
		iov[0] = (struct iovec){ buf, n / 2 };
		iov[1] = (struct iovec){ buf + n / 2, n - n / 2 };
		done = msock_writev(f->sd, iov, 2);
		if (done < 0 && errno == EAGAIN)
			return;
		if (done <= 0)
			bad(f, "write failed");
		f->sent += (uint32_t)done;
	}
	if (!f->shut && knows_promise(f)) {
		if (msock_shutdown(f->sd))
			bad(f, "shutdown failed");
		f->shut = true;
		msock_want(f->sd, MSOCK_READ, f);
	}
}

static void flow_check(struct flow *f, const uint8_t *buf, ssize_t n)
{
	for (ssize_t i = 0; i < n; i++) {
		uint32_t at = f->got + (uint32_t)i;

		if (f->end == 1 && at < sizeof(f->promise))
			((uint8_t *)&f->promise)[at] = buf[i];
		else if (buf[i] != byte_at(f, 1 - f->end, at))
			bad(f, "a wrong byte");
	}
	f->got += (uint32_t)n;
	if (knows_promise(f) && f->got > total(f, 1 - f->end))
		bad(f, "more bytes than promised");
}

static void flow_read(struct flow *f)
{
	static uint8_t buf[PIECE];
	int rounds = 1 + (int)roll(40);

	while (rounds--) {
		struct iovec iov = { buf, 1 + roll(PIECE) };
		ssize_t n = msock_readv(f->sd, &iov, 1);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			bad(f, "read failed");
		if (n == 0) {
			if (!knows_promise(f) || f->got != total(f, 1 - f->end))
				bad(f, "end of file too early");
			f->ended = true;
			return;
		}
		flow_check(f, buf, n);
	}
}

static void flow_end_if_done(struct flow *f)
{
	if (!f->shut || !f->ended)
		return;
	if (msock_close(f->sd))
		bad(f, "close failed");
	shared->bytes[me] += f->got;
	shared->flows[me]++;
	f->sd = -1;
}

static void flow_open(struct flow *f, unsigned members)
{
	unsigned to = roll(members);
	struct sockaddr_in at = { .sin_family = AF_INET };

	at.sin_addr.s_addr = htonl(0x64400001 + to);
	at.sin_port = htons((uint16_t)shared->port[to]);
	*f = (struct flow){ .end = 0 };
	f->promise.seed = roll(1 << 30);
	for (int i = 0; i < 2; i++)
		f->promise.bytes[i] = roll(3) ? roll(SMALL) : roll(LARGE);
	f->sd = msock_connect(&at);
	if (f->sd < 0)
		bad(f, "connect failed");
	msock_want(f->sd, MSOCK_READ | MSOCK_WRITE, f);
}

static void take_connections(int listener)
{
	for (int i = 0; i < INCOMING; i++) {
		struct flow *f = &incoming[i];

		if (f->sd >= 0)
			continue;
		*f = (struct flow){ .end = 1, .sd = msock_accept(listener, NULL) };
		if (f->sd < 0) {
			if (errno != EAGAIN)
				bad(f, "accept failed");
			return;
		}
		msock_want(f->sd, MSOCK_READ, f);
	}
}

static void compute(double s)
{
	double end = seconds() + s;
	volatile unsigned x = 0;

	while (seconds() < end)
		x++;
}

static void handle(struct msock_event *e, int listener)
{
	struct flow *f = e->user;

	if (e->user == &listener_tag) {
		take_connections(listener);
		return;
	}
	if (f->sd != e->sd)
		return; /* the flow ended earlier in this batch */
	if (msock_error(f->sd))
		bad(f, strerror(msock_error(f->sd)));
	if (e->events & MSOCK_READ) {
		bool knew = knows_promise(f);

		flow_read(f);
		if (!knew && knows_promise(f))
			msock_want(f->sd, MSOCK_READ | MSOCK_WRITE, f);
	}
	if (e->events & MSOCK_WRITE)
		flow_write(f);
	flow_end_if_done(f);
}

static unsigned count_open(void)
{
	unsigned n = 0;

	for (int i = 0; i < FLOWS; i++)
		n += outgoing[i].sd >= 0;
	for (int i = 0; i < INCOMING; i++)
		n += incoming[i].sd >= 0;
	return n;
}

/* A second thread: freezes must stop it too, kicks may hit it. */
static void *idle_thread(void *arg)
{
	random_state = me + 1;
	for (;;)
		compute(roll(2) ? 0.0002 : 0.001), usleep(2000);
	return NULL;
}

/* What the library thinks, for the log of a run that stands still. */
static void dump(void)
{
	for (struct conn *c = conn_first(); c; c = c->next)
		fprintf(stderr,
			"# member %u: sd %d fd %d stream %llx end %u %s leg %u phase %u peer %x want %u registered %x "
			"ready %x carry %zu "
			"written %llu taken %llu engine %x old %x at_end %d eof %d closed %d held %x confirm %u "
			"mirrored %d cutter %d offering %d dialling %d\n",
			me, c->v.sd, c->fd, (unsigned long long)c->s.id, c->s.end, stream_state_name(c->s.state),
			c->s.leg, c->phase, c->peer_member, c->v.want, c->v.registered, c->v.ready_events,
			c->carry.length, (unsigned long long)c->s.written, (unsigned long long)c->s.taken,
			c->leg.events, c->old_leg.events, c->s.at_end, c->s.eof, c->closed, c->s.held, c->confirm_left,
			c->s.mirrored, c->s.cutter, c->s.offering, c->s.dialling);
}

/* Time that this process had to see something in: one that was stopped for long has not waited for long. */
static double idle_step(double *last)
{
	double now = seconds(), step = now - *last;

	*last = now;
	return step < 0.1 ? step : 0.1;
}

static void member_run(unsigned members, volatile unsigned *quiet)
{
	struct msock_event events[16];
	struct sockaddr_in at;
	double idle = 0, last = seconds();
	bool said = false;
	int listener;

	if (msock_init())
		bad(NULL, "init failed");
	for (int i = 0; i < FLOWS; i++)
		outgoing[i].sd = -1;
	for (int i = 0; i < INCOMING; i++)
		incoming[i].sd = -1;
	listener = msock_listen(64, &at);
	if (listener < 0)
		bad(NULL, "listen failed");
	msock_want(listener, MSOCK_READ, &listener_tag);
	shared->port[me] = ntohs(at.sin_port);
	for (unsigned i = 0; i < members; i++)
		while (!*(volatile uint32_t *)&shared->port[i])
			usleep(1000);
	while ((*quiet < members || shared->mirrors) && !shared->bad) {
		int n;

		for (int i = 0; i < FLOWS && !shared->stop; i++)
			if (outgoing[i].sd < 0)
				flow_open(&outgoing[i], members);
		if (roll(100) == 0)
			compute(roll(20) / 1000.0);
		n = msock_wait(events, 1 + (int)roll(16), roll(4) ? 20 : 0);
		shared->waits[me]++;
		if (n < 0 && errno != EINTR)
			bad(NULL, "wait failed");
		for (int i = 0; i < n; i++)
			handle(&events[i], listener);
		idle = n > 0 ? 0 : idle + idle_step(&last);
		if (shared->stop && !said && !count_open()) {
			said = true;
			__atomic_add_fetch(quiet, 1, __ATOMIC_SEQ_CST);
		} else if (said && count_open()) {
			said = false;
			__atomic_sub_fetch(quiet, 1, __ATOMIC_SEQ_CST);
		}
		if ((count_open() || shared->mirrors) && idle > PATIENCE_S) {
			for (int i = 0; i < FLOWS + INCOMING; i++) {
				struct flow *f = i < FLOWS ? &outgoing[i] : &incoming[i - FLOWS];

				if (f->sd >= 0)
					fprintf(stderr,
						"# member %u: sd %d seed %u end %u sent %u of %u got %u of %u\n", me,
						f->sd, f->promise.seed, f->end, f->sent, total(f, f->end), f->got,
						total(f, 1 - f->end));
			}
			dump();
			bad(NULL, "nothing moves any more");
		}
	}
}

static bool moves_go_on(void)
{
	return !shared->stop && !shared->bad;
}

static double stop_at;
static unsigned stop_after; /* commits; 0: stop_at counts */

static bool moving(void)
{
	shared->mirrors = mini_mirrors_left();
	if (stop_after ? mini_counts()->committed >= stop_after : seconds() > stop_at)
		shared->stop = true;
	return moves_go_on();
}

static void start_members(unsigned members, pid_t *pids, volatile unsigned *quiet, uint64_t seed)
{
	for (unsigned i = 0; i < members; i++) {
		pthread_t thread;
		char fd[16];

		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i])
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		me = i;
		random_state = (seed + i + 1) * 0x9e3779b97f4a7c15ull;
		mini_in_child(i);
		snprintf(fd, sizeof(fd), "%d", mini_member_fd(i));
		setenv("MSOCK_FD", fd, 1);
		setenv("MSOCK_CHECK", "1", 1);
		if (i % 2)
			pthread_create(&thread, NULL, idle_thread, NULL);
		member_run(members, quiet);
		_exit(shared->bad);
	}
	mini_in_parent();
}

static void run_moves(struct mini_settings *s, double length_s)
{
	volatile unsigned *quiet;
	pid_t pids[MINI_MEMBERS];
	uint64_t bytes = 0, flows = 0;
	bool mirrors_gone;

	shared = mmap(NULL, sizeof(*shared) + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	quiet = (volatile unsigned *)(shared + 1);
	print_message("# seed %llu\n", (unsigned long long)s->seed);
	mini_create(s);
	start_members(s->members, pids, quiet, s->seed);
	stop_at = seconds() + length_s;
	mini_serve(moving);
	for (unsigned i = 0; i < s->members; i++) {
		int status = -1;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		if (status)
			print_message("# member %u ended with status %x\n", i, (unsigned)status);
		shared->bad = shared->bad || status;
		bytes += shared->bytes[i];
		flows += shared->flows[i];
	}
	mirrors_gone = mini_mirrors_gone();
	print_message(
		"# %u commits, %u aborted (%u by the member), %u mirrors, legs: %u by mirror, %u drained; relinked %u; "
		"%u messages; %llu flows, %llu MB\n",
		mini_counts()->committed, mini_counts()->aborted, mini_counts()->failed, mini_counts()->mirrors,
		mini_counts()->mirrored_legs, mini_counts()->drained_legs, mini_counts()->relinked,
		mini_counts()->relays, (unsigned long long)flows, (unsigned long long)bytes >> 20);
	assert_false(shared->bad);
	assert_true(mirrors_gone);
	assert_int_equal(mini_counts()->raced, 0);
	assert_true(mini_counts()->committed + mini_counts()->aborted > 0);
}

static const char *msmirror_path(void)
{
	static char path[4096];
	const char *build = getenv("MSOCK_TEST_BUILD"), *given = getenv("MSOCK_TEST_MSMIRROR");

	snprintf(path, sizeof(path), "%s%s", given ? given : build ? build : ".", given ? "" : "/msmirror");
	if (access(path, X_OK))
		fail_msg("no msmirror at %s", path);
	return path;
}

static void test_moves(void **state)
{
	const char *seed = getenv("MSOCK_TEST_SEED"), *length = getenv("MSOCK_TEST_SECONDS"),
		   *via = getenv("MSOCK_TEST_VIA");
	const char *drop = getenv("MSOCK_TEST_DROP"), *cuts = getenv("MSOCK_TEST_CUTS"),
		   *commits = getenv("MSOCK_TEST_COMMITS"), *members = getenv("MSOCK_TEST_MEMBERS"),
		   *moves = getenv("MSOCK_TEST_MOVES");
	struct mini_settings s = {
		.members = members ? (unsigned)atoi(members) : 4,
		.pause_ms = 30,
		.drop_percent = drop ? (unsigned)atoi(drop) : 1,
		.cuts = cuts ? (unsigned)atoi(cuts) : 3,
		.commits = commits ? (unsigned)atoi(commits) : 60,
		.via = -1,
		.msmirror = msmirror_path(),
		.seed = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL),
	};

	if (via)
		s.via = !strcmp(via, "drain") ? 1 : !strcmp(via, "mirror") ? 2 : 0;
	stop_after = moves ? (unsigned)atoi(moves) : getenv("MSOCK_TEST_LONG") && !length ? 10000 : 0;
	run_moves(&s, length ? atof(length) : 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),
	};

	signal(SIGPIPE, SIG_IGN);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
