/* SPDX-License-Identifier: MIT */
/*
 * msrank-stub - stands in for a rank at Hydra's proxy: has it started by the
 * msdaemon of its host, carries its stdin, stdout, stderr and PMI, passes
 * signals on, and ends as the rank ended.
 *
 *   msrank-stub [--host NAME] [--world N] [--rank N] [--stdin FD] [--bind POLICY [--map POLICY]] -- program args...
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jobfiles.h"
#include "proto/channel.h"
#include "proto/end.h"
#include "proto/link.h"
#include "proto/log.h"
#include "proto/wire.h"
#include "start.h"

enum {
	STUB_PMI = 3,
	STUB_LOST = 255,
	STUB_SIGNALS = 16,
	STUB_AGAIN_MS = 20,   /* how often it looks for the next coordinator ... */
	STUB_PATIENCE_S = 20, /* and how long */
	STUB_LOST_S = 10,     /* for a reader, when the job is to end */
};

static const int forwarded[] = { SIGHUP,  SIGINT,  SIGQUIT, SIGUSR1,  SIGUSR2, SIGTERM,
				 SIGCONT, SIGTSTP, SIGALRM, SIGWINCH, SIGURG,  SIGXCPU };

struct stub_channel {
	struct stub *stub; /* borrowed */
	unsigned number;
	int from, to; /* descriptors that are read from and written to, or -1 */
	struct channel_out out;
	struct channel_in in;
	struct event *readable, *writable;
};

struct stub {
	struct event_base *base;
	const char *dir, *host; /* the job's directory; the rank's host, or NULL */
	char **argv;
	struct link *link; /* NULL: the coordinator is gone, another is awaited */
	struct event *again;
	struct timespec gone; /* when it was seen that it is */
	bool attached;        /* it knows of us: signals may be sent */
	bool last;            /* no coordinator comes after this one */
	uint64_t held;        /* signals that wait for the next one; bit n-1 */
	struct stub_channel channel[MS_CHANNELS];
	struct event *signals[STUB_SIGNALS];
	uint32_t member;
	const char *bind, *map; /* what mpiexec was told; "": nothing */
	uint64_t ignored;       /* signals that were ignored when we started */
	bool ended;             /* the rank, or its job: only what it wrote is still to be passed on */
	bool lost;              /* the rank, or the coordinator: the job must end */
	bool coordinator_lost;
	bool unwritten; /* what it wrote could not all be passed on, and that is said */
	int status;
};

/* The reader may take its time, as it may when it makes the rank itself wait in write(2). */
static void end_if_written(struct stub *s)
{
	if (!s->ended)
		return;
	for (unsigned i = 1; i < MS_CHANNELS; i++)
		if (evbuffer_get_length(s->channel[i].in.bytes) > 0)
			return;
	event_base_loopbreak(s->base);
}

/* What comes on the standard input from now on is for others. */
static void stub_end(struct stub *s)
{
	struct timeval limit = { STUB_LOST_S, 0 };
	struct stub_channel *in = &s->channel[0];

	s->ended = true;
	if (in->readable)
		event_free(in->readable);
	in->readable = NULL;
	if (s->lost) /* the others are to hear of it, whether somebody reads or not */
		event_base_loopexit(s->base, &limit);
	end_if_written(s);
}

/* Wait for room in the window without spinning: the event is there only while it can be served. */
static void channel_listen(struct stub_channel *c)
{
	if (c->readable && channel_out_room(&c->out) > 0)
		event_add(c->readable, NULL);
}

static void channel_read(evutil_socket_t fd, short what, void *arg)
{
	struct stub_channel *c = arg;
	uint8_t buf[CHANNEL_CHUNK];
	size_t room = channel_out_room(&c->out);
	ssize_t n = read(fd, buf, room < sizeof(buf) ? room : sizeof(buf));

	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		channel_listen(c);
		return;
	}
	if (n > 0)
		evbuffer_add(c->out.bytes, buf, (size_t)n);
	else
		c->out.eof = true;
	channel_out_send(&c->out, c->stub->link, c->stub->member, c->number);
	channel_listen(c);
}

/* A reader that has gone is the rank's own to see. Hydra's end of the PMI goes before the rank's. */
static void output_failed(struct stub_channel *c, int err)
{
	channel_in_close(&c->in);
	if (err == EPIPE || c->number == STUB_PMI)
		return;
	log_say(LOG_ERROR, "cannot write the standard %s: %s", c->number == STDERR_FILENO ? "error" : "output",
		strerror(err));
	c->stub->unwritten = true;
}

/* Never blocks: a pipe that polls writable takes PIPE_BUF bytes. Its flags are shared with others and stay as they are.
 */
static void channel_write(evutil_socket_t fd, short what, void *arg)
{
	struct stub_channel *c = arg;
	uint8_t buf[PIPE_BUF];
	ssize_t n = evbuffer_copyout(c->in.bytes, buf, sizeof(buf));
	ssize_t done = n > 0 ? write(fd, buf, (size_t)n) : 0;

	if (done < 0 && errno != EAGAIN && errno != EINTR)
		output_failed(c, errno);
	else if (done > 0)
		evbuffer_drain(c->in.bytes, (size_t)done);
	if (done > 0 || c->in.closed)
		channel_in_ack(&c->in, c->stub->link, c->stub->member, c->number);
	if (evbuffer_get_length(c->in.bytes) > 0)
		event_add(c->writable, NULL);
	else
		end_if_written(c->stub);
}

static void stub_data(struct stub *s, const Ms__Data *data)
{
	struct stub_channel *c = &s->channel[data->channel < MS_CHANNELS ? data->channel : 0];

	if (c->to < 0 || !c->writable)
		return;
	if (channel_in_take(&c->in, data) && !c->in.closed)
		event_add(c->writable, NULL);
	else
		channel_in_ack(&c->in, s->link, s->member, c->number);
}

static void stub_exit(struct stub *s, const Ms__Exit *e)
{
	if (e->error && *e->error) {
		if (!e->said)
			log_say(LOG_ERROR, "%s", e->error);
		s->status = W_EXITCODE(e->code, 0);
		s->lost = e->code == STUB_LOST;
	} else {
		s->status = e->status;
	}
	stub_end(s);
}

static void send_signal(struct stub *s, int signo)
{
	Ms__Signal sig = MS__SIGNAL__INIT;

	sig.member = s->member;
	sig.signo = signo == SIGTSTP ? SIGSTOP : signo; /* a session leader's TSTP does nothing */
	link_send(s->link, LINK_MSG(SIGNAL, signal, &sig));
}

/* Another daemon or another coordinator carries the channels: what may have been lost on the way goes again. */
static void send_again(struct stub *s)
{
	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		struct stub_channel *c = &s->channel[i];

		channel_out_rewind(&c->out);
		channel_out_send(&c->out, s->link, s->member, i);
		if (c->to >= 0)
			channel_in_ack(&c->in, s->link, s->member, i);
	}
}

static void stub_attached(struct stub *s, const Ms__Attached *a)
{
	s->attached = true;
	s->last = a->last;
	send_again(s);
	for (int i = 1; i <= 64; i++)
		if (s->held >> (i - 1) & 1)
			send_signal(s, i);
	s->held = 0;
}

static void on_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct stub *s = user;

	switch (msg->body_case) {
	case MS__MSG__BODY_DATA:
		stub_data(s, msg->data);
		break;
	case MS__MSG__BODY_ACK:
		if (msg->ack->channel < MS_CHANNELS) {
			struct stub_channel *c = &s->channel[msg->ack->channel];

			channel_out_ack(&c->out, msg->ack->offset);
			channel_listen(c);
		}
		break;
	case MS__MSG__BODY_MOVED:
		send_again(s);
		break;
	case MS__MSG__BODY_ATTACHED:
		stub_attached(s, msg->attached);
		break;
	case MS__MSG__BODY_EXIT:
		stub_exit(s, msg->exit);
		break;
	default:
		log_say(LOG_DEBUG, "unexpected message %d", msg->body_case);
	}
}

static void stub_lost(struct stub *s, const char *why)
{
	log_say(LOG_ERROR, "the job's coordinator is gone (%s)", why);
	s->status = W_EXITCODE(STUB_LOST, 0);
	s->lost = s->coordinator_lost = true;
	stub_end(s);
}

static void look_again(struct stub *s)
{
	struct timeval pause = { 0, STUB_AGAIN_MS * 1000 };

	event_add(s->again, &pause);
}

static void wait_for_next(struct stub *s)
{
	s->attached = false;
	clock_gettime(CLOCK_MONOTONIC, &s->gone);
	look_again(s);
}

/* mpiexec starts it again if it was killed, once. Its directory is there as long as there is hope. */
static void on_down(struct link *l, const char *why, void *user)
{
	struct stub *s = user;

	if (s->ended)
		return;
	if (s->last) {
		stub_lost(s, why);
		return;
	}
	link_destroy(l);
	s->link = NULL;
	wait_for_next(s);
}

static const struct link_ops stub_ops = { .on_message = on_message, .on_down = on_down };

/* Those that would end a process that waits for its reader. */
static void signal_after_end(struct stub *s, int signo)
{
	if (signo != SIGHUP && signo != SIGINT && signo != SIGQUIT && signo != SIGTERM)
		return;
	if (s->ignored >> (signo - 1) & 1)
		return;
	s->status = W_EXITCODE(0, signo);
	event_base_loopbreak(s->base);
}

static void on_signal(evutil_socket_t signo, short what, void *arg)
{
	struct stub *s = arg;

	if (s->ended)
		signal_after_end(s, signo);
	else if (s->attached)
		send_signal(s, signo);
	else
		s->held |= 1ull << (signo - 1);
}

/* -1 with errno. */
static int dial(const char *dir)
{
	int fd = jobfiles_dial(dir);

	if (fd < 0 && errno == ENAMETOOLONG)
		log_die("the job directory's name is too long: %s", dir);
	return fd;
}

/* again: another coordinator than the one that was told first. */
static void stub_spawn(struct stub *s, bool again)
{
	Ms__Hello hello = MS__HELLO__INIT;
	Ms__Spawn spawn = MS__SPAWN__INIT;
	static struct start start;

	hello.role = "stub";
	hello.version = MS_WIRE_VERSION;
	link_send(s->link, LINK_MSG(HELLO, hello, &hello));
	start_fill(&start, s->argv, &spawn);
	spawn.member = s->member;
	spawn.host = (char *)(s->host ? s->host : "");
	spawn.pmi_fd = s->channel[STUB_PMI].from;
	spawn.ignored = s->ignored;
	spawn.bind = (char *)s->bind;
	spawn.map = (char *)s->map;
	spawn.again = again;
	link_send(s->link, LINK_MSG(SPAWN, spawn, &spawn));
}

static void again_cb(evutil_socket_t none, short what, void *arg)
{
	struct stub *s = arg;
	struct timespec now;
	int fd = dial(s->dir);

	if (fd >= 0) {
		s->link = link_create(s->base, fd, NULL, true, &stub_ops, s);
		stub_spawn(s, true);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (errno == ENOENT)
		stub_lost(s, "it has ended the job");
	else if (now.tv_sec - s->gone.tv_sec >= STUB_PATIENCE_S)
		stub_lost(s, "no other was started");
	else
		look_again(s);
}

static void channel_open(struct stub *s, unsigned number, int from, int to)
{
	struct stub_channel *c = &s->channel[number];

	c->stub = s;
	c->number = number;
	c->from = from;
	c->to = to;
	channel_out_init(&c->out);
	channel_in_init(&c->in);
	if (from >= 0)
		c->readable = event_new(s->base, from, EV_READ, channel_read, c);
	if (to >= 0)
		c->writable = event_new(s->base, to, EV_WRITE, channel_write, c);
	channel_listen(c);
}

/*
 * Hydra lets the other ranks of a job go on when one has just ended with a status, which is what it sees of us: so what
 * MPI_Abort says is said in the rank's place.
 */
static void abort_job(struct stub *s)
{
	static const char text[] = "cmd=abort exitcode=255\n";

	if (s->channel[STUB_PMI].to >= 0 && write(s->channel[STUB_PMI].to, text, sizeof(text) - 1) < 0)
		log_say(LOG_INFO, "cannot tell the proxy: %s", strerror(errno));
}

/* Nobody listens there. A process that is killed closes its descriptors one after the other: the end of our link may come first. */
static bool nobody_at(const char *socket_path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct timespec pause = { .tv_nsec = 5000000 };
	bool nobody = false;

	if (strlen(socket_path) >= sizeof(to.sun_path))
		return false;
	strcpy(to.sun_path, socket_path);
	for (int i = 0; i < 100 && !nobody; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		nobody = fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) &&
			 (errno == ECONNREFUSED || errno == ENOENT);
		if (fd >= 0)
			close(fd);
		if (!nobody)
			nanosleep(&pause, NULL);
	}
	return nobody;
}

/* A coordinator that was killed leaves the job's directory behind; the first stub that sees nobody there takes it away. */
static void remove_jobdir(const char *dir)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/coord.sock", dir);
	if (nobody_at(path))
		jobfiles_remove(dir);
}

/* When its proxy is killed nobody reads what the rank says, and mpiexec hears of it only when the proxy's children end. */
static void die_with_parent(void)
{
	pid_t parent = getppid();

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		exit(STUB_LOST);
}

/* Hydra's proxy starts us with its ends of the ranks before us: here they would outlive the proxy. */
static void close_others(int pmi)
{
	if (pmi > STDERR_FILENO + 1)
		close_range(STDERR_FILENO + 1, (unsigned)pmi - 1, 0);
	close_range((unsigned)(pmi > STDERR_FILENO ? pmi : STDERR_FILENO) + 1, ~0u, 0);
}

/* mpiexec's own standard input, which rank 0's stub reads at the rank's pace: what Hydra carries is an empty one. */
static void take_stdin(int fd)
{
	if (dup2(fd, STDIN_FILENO) < 0)
		log_die("cannot read descriptor %d: %s", fd, strerror(errno));
	close(fd);
	unsetenv("MSOCK_STDIN_FD");
}

static struct event_base *base_create(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base;

	event_config_require_features(config, EV_FEATURE_FDS); /* stdin may be a regular file: no epoll */
	base = event_base_new_with_config(config);
	event_config_free(config);
	if (!base)
		log_die("no event loop to be had");
	return base;
}

/* With mpiexec's -pmi-port it has another name. */
static const char *own_rank(void)
{
	const char *rank = getenv("PMI_RANK");

	return rank ? rank : getenv("PMI_ID");
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "host", required_argument, NULL, 'h' },
						 { "world", required_argument, NULL, 'w' },
						 { "rank", required_argument, NULL, 'r' },
						 { "stdin", required_argument, NULL, 'i' },
						 { "bind", required_argument, NULL, 'b' },
						 { "map", required_argument, NULL, 'm' },
						 { NULL, 0, NULL, 0 } };
	struct stub s = {
		.dir = getenv("MSOCK_JOBDIR"), .host = getenv("MSOCK_HOST"), .attached = true, .bind = "", .map = ""
	};
	const char *rank = own_rank();
	unsigned world = 0;
	int opt, pmi, fd;

	log_open("msrank-stub");
	die_with_parent();
	while ((opt = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (opt == 'h')
			s.host = optarg;
		else if (opt == 'w')
			world = (unsigned)atoi(optarg);
		else if (opt == 'r')
			rank = optarg;
		else if (opt == 'i')
			take_stdin(atoi(optarg));
		else if (opt == 'b')
			s.bind = optarg;
		else if (opt == 'm')
			s.map = optarg;
		else
			return STUB_LOST;
	}
	if (optind >= argc || !s.dir)
		log_die("%s",
			s.dir ? "no program given" : "MSOCK_JOBDIR is not set: only mpiexec -launcher msock starts me");
	if (start_memory_bound())
		log_die("mpiexec's -membind does not work with the launcher msock");
	if (world >= MS_WORLD_ABROAD)
		log_die("a job has at most %u calls of MPI_Comm_spawn", MS_WORLD_ABROAD - 1);
	s.ignored = start_ignored_signals();
	signal(SIGPIPE, SIG_IGN);
	pmi = start_pmi_fd();
	close_others(pmi);
	s.member = MS_MEMBER(world, rank ? atoi(rank) : 0);
	s.base = base_create();
	s.argv = argv + optind;
	s.again = evtimer_new(s.base, again_cb, &s);
	fd = dial(s.dir);
	if (fd >= 0)
		s.link = link_create(s.base, fd, NULL, true, &stub_ops, &s);
	else if (errno != ECONNREFUSED)
		log_die("cannot reach the job's coordinator in %s: %s", s.dir, strerror(errno));
	else
		wait_for_next(&s);
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(*forwarded); i++) {
		s.signals[i] = evsignal_new(s.base, forwarded[i], on_signal, &s);
		event_add(s.signals[i], NULL);
	}
	channel_open(&s, 0, STDIN_FILENO, -1);
	channel_open(&s, 1, -1, STDOUT_FILENO);
	channel_open(&s, 2, -1, STDERR_FILENO);
	channel_open(&s, STUB_PMI, pmi, pmi);
	if (s.link)
		stub_spawn(&s, false);
	event_base_dispatch(s.base);
	if (s.lost) {
		if (s.coordinator_lost)
			remove_jobdir(s.dir); /* first: the abort has mpiexec kill the stubs */
		abort_job(&s);
	}
	if (s.unwritten && !s.status)
		return STUB_LOST;
	return end_as(s.status);
}
