// SPDX-License-Identifier: MIT
/*
 * talk - a program that knows nothing of msock, at one end of a TCP stream.
 *
 *   talk listen PORT WAY SEED     waits for one connection
 *   talk connect IP PORT WAY SEED
 *
 * Both ends write bytes whose values follow from their place, in calls of many
 * kinds and sizes, and check those that they read.  WAY says how an end waits:
 * threads (one that reads, one that writes, both blocking), poll, select,
 * epoll, edge (EPOLLET), oneshot, echo (alternating messages, blocking), whole
 * (threads whose calls must each come back with all that was asked for, or with
 * a signal), or timed (whole, on a socket with time limits).
 * SIGUSR2: say how much went by.  SIGUSR1: write no more, read to the end of
 * file, say how much it was and end with 0.  Anything unexpected ends with 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { TALK_MOST = 40000, TALK_ECHO = 64, TALK_WHOLE = 3000000, TALK_LIMIT_S = 300 };

static volatile sig_atomic_t ending, asked;
static volatile uint64_t sent, received;
static unsigned seed, state;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "talk %u: ", seed);
	vfprintf(stderr, format, args);
	fprintf(stderr, " (errno %d, sent %lu, received %lu)\n", errno, sent, received);
	va_end(args);
	exit(1);
}

static unsigned any(unsigned limit)
{
	state = state * 1103515245u + 12345u;
	return (state >> 8) % limit;
}

static unsigned char at(uint64_t place)
{
	return (unsigned char)((place * 2654435761u >> 15) ^ place >> 11);
}

static void fill(unsigned char *buf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = at(sent + i);
}

static void check(const unsigned char *buf, size_t n, uint64_t from)
{
	for (size_t i = 0; i < n; i++)
		if (buf[i] != at(from + i))
			die("byte %lu is wrong: %u", from + i, buf[i]);
}

static volatile sig_atomic_t signals;

static void on_signal(int signal)
{
	signals++;
	if (signal == SIGUSR1)
		ending = 1;
	else
		asked = 1;
}

static void say_if_asked(void)
{
	if (!asked)
		return;
	asked = 0;
	printf("at %lu %lu\n", sent, received);
	fflush(stdout);
}

static ssize_t write_some(int fd)
{
	unsigned char buf[TALK_MOST];
	size_t n = 1 + any(any(4) ? TALK_MOST : 100);
	struct iovec iov[3] = { { buf, n / 3 }, { buf + n / 3, n / 3 }, { buf + 2 * (n / 3), n - 2 * (n / 3) } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 3 };
	ssize_t done;

	fill(buf, n);
	switch (any(4)) {
	case 0:
		done = write(fd, buf, n);
		break;
	case 1:
		done = send(fd, buf, n, MSG_NOSIGNAL);
		break;
	case 2:
		done = writev(fd, iov, 3);
		break;
	default:
		done = sendmsg(fd, &msg, MSG_NOSIGNAL);
		break;
	}
	if (done > 0)
		sent += (uint64_t)done;
	return done;
}

static ssize_t read_some(int fd)
{
	unsigned char buf[TALK_MOST];
	size_t n = 1 + any(TALK_MOST);
	struct iovec iov[3] = { { buf, n / 3 }, { buf + n / 3, n / 3 }, { buf + 2 * (n / 3), n - 2 * (n / 3) } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 3 };
	ssize_t done, seen;
	int waiting = 0;

	switch (any(5)) {
	case 0:
		done = read(fd, buf, n);
		break;
	case 1:
		done = recv(fd, buf, n, 0);
		break;
	case 2:
		done = readv(fd, iov, 3);
		break;
	case 3:
		done = recvmsg(fd, &msg, 0);
		break;
	default:
		seen = recv(fd, buf, n, MSG_PEEK);
		if (seen <= 0)
			return seen;
		check(buf, (size_t)seen, received);
		if (ioctl(fd, FIONREAD, &waiting) || waiting < seen)
			die("FIONREAD says %d, %zd were peeked at", waiting, seen);
		done = recv(fd, buf, (size_t)seen, MSG_WAITALL);
		if (done != seen)
			die("%zd were peeked at, %zd read", seen, done);
	}
	if (done > 0) {
		check(buf, (size_t)done, received);
		received += (uint64_t)done;
	}
	return done;
}

static bool again(ssize_t n)
{
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static void *reader(void *arg)
{
	int fd = *(int *)arg;
	ssize_t n;

	while ((n = read_some(fd)) != 0)
		if (n < 0 && errno != EINTR)
			die("read");
	return NULL;
}

static void by_threads(int fd)
{
	pthread_t thread;
	ssize_t n;

	pthread_create(&thread, NULL, reader, &fd);
	while (!ending) {
		n = write_some(fd);
		if (n < 0 && errno != EINTR)
			die("write");
		say_if_asked();
	}
	shutdown(fd, SHUT_WR);
	pthread_join(thread, NULL);
}

static void *whole_reader(void *arg)
{
	static unsigned char buf[TALK_WHOLE];
	unsigned mine = seed * 77;
	int fd = *(int *)arg;
	ssize_t got;

	do {
		sig_atomic_t before = signals;
		size_t n = 1 + (mine = mine * 1103515245u + 12345u) % TALK_WHOLE;
		struct iovec iov[2] = { { buf, n / 2 }, { buf + n / 2, n - n / 2 } };
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

		got = mine >> 20 & 1 ? recv(fd, buf, n, MSG_WAITALL) : recvmsg(fd, &msg, MSG_WAITALL);
		if (got < 0 && (errno != EINTR || signals == before))
			die("recv");
		if (got > 0) {
			check(buf, (size_t)got, received);
			received += (uint64_t)got;
		}
		if (got > 0 && (size_t)got < n && signals == before && recv(fd, buf, 1, MSG_WAITALL) != 0)
			die("%zd bytes read of %zu, and it was not the end", got, n);
	} while (got != 0);
	return NULL;
}

static void by_whole(int fd, bool timed)
{
	static unsigned char buf[TALK_WHOLE];
	struct timeval limit = { .tv_sec = TALK_LIMIT_S };
	pthread_t thread;

	if (timed && (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) ||
		      setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit))))
		die("setsockopt");
	pthread_create(&thread, NULL, whole_reader, &fd);
	while (!ending) {
		sig_atomic_t before = signals;
		size_t n = 1 + any(TALK_WHOLE);
		struct iovec iov[2] = { { buf, n / 2 }, { buf + n / 2, n - n / 2 } };
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
		ssize_t done;

		fill(buf, n);
		switch (any(4)) {
		case 0:
			done = write(fd, buf, n);
			break;
		case 1:
			done = send(fd, buf, n, 0);
			break;
		case 2:
			done = writev(fd, iov, 2);
			break;
		default:
			done = sendmsg(fd, &msg, 0);
			break;
		}
		if (done != (ssize_t)n && signals == before)
			die("%zd bytes written of %zu", done, n);
		sent += done > 0 ? (uint64_t)done : 0;
		say_if_asked();
	}
	shutdown(fd, SHUT_WR);
	pthread_join(thread, NULL);
}

/* False: end of file, or a signal says that it is enough. */
static bool read_message(int fd, size_t n)
{
	unsigned char buf[TALK_ECHO];

	while (n) {
		ssize_t got = recv(fd, buf, n, MSG_WAITALL);

		if (got < 0 && errno != EINTR)
			die("recv");
		if (got == 0 || (got < 0 && ending))
			return false;
		if (got > 0) {
			check(buf, (size_t)got, received);
			received += (uint64_t)got;
			n -= (size_t)got;
		}
	}
	return true;
}

static void by_echo(int fd)
{
	unsigned char buf[TALK_ECHO];
	bool first = seed % 2;

	while (!ending) {
		say_if_asked();
		if (first) {
			fill(buf, sizeof(buf));
			if (send(fd, buf, sizeof(buf), 0) != sizeof(buf))
				die("send");
			sent += sizeof(buf);
		}
		first = true;
		if (!read_message(fd, sizeof(buf)))
			break;
	}
	shutdown(fd, SHUT_WR);
	while (read_some(fd) > 0)
		;
}

struct ready {
	bool in, out;
};

static struct ready by_poll(int fd, bool write_too)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | (write_too ? POLLOUT : 0) };
	int n = poll(&p, 1, 1000000);

	if (n < 0 && errno != EINTR)
		die("poll");
	return (struct ready){ n > 0 && p.revents & (POLLIN | POLLHUP), n > 0 && p.revents & POLLOUT };
}

static struct ready by_select(int fd, bool write_too)
{
	fd_set in, out;
	int n;

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_SET(fd, &in);
	if (write_too)
		FD_SET(fd, &out);
	n = select(fd + 1, &in, &out, NULL, NULL);
	if (n < 0 && errno != EINTR)
		die("select");
	return (struct ready){ n > 0 && FD_ISSET(fd, &in), n > 0 && FD_ISSET(fd, &out) };
}

static int ep = -1;
static uint32_t ep_mode;

static struct ready by_epoll(int fd, bool write_too)
{
	static uint32_t now;
	struct epoll_event ev = { .events = EPOLLIN | (write_too || ep_mode & EPOLLET ? EPOLLOUT : 0) | ep_mode,
				  .data.u64 = 0x123456789abcull };
	int n;

	if (ep < 0) {
		ep = epoll_create1(0);
		if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev))
			die("epoll_ctl");
	} else if ((ev.events != now || ep_mode & EPOLLONESHOT) && !(ep_mode & EPOLLET)) {
		if (epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev))
			die("epoll_ctl");
	}
	now = ev.events;
	n = epoll_wait(ep, &ev, 1, -1);
	if (n < 0 && errno != EINTR)
		die("epoll_wait");
	if (n > 0 && ev.data.u64 != 0x123456789abcull)
		die("epoll data is %lx", ev.data.u64);
	return (struct ready){ n > 0 && ev.events & (EPOLLIN | EPOLLHUP), n > 0 && ev.events & EPOLLOUT };
}

static void by_events(int fd, struct ready (*wait)(int, bool))
{
	bool shut = false, end = false, edge = ep_mode & EPOLLET, may_write = true;
	ssize_t n;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (!shut || !end) {
		struct ready r = { 0 };

		say_if_asked();
		if (ending && !shut) {
			shutdown(fd, SHUT_WR);
			shut = true;
			if (end)
				break;
		}
		if (!edge || !may_write || shut)
			r = wait(fd, !shut);
		may_write = may_write || r.out;
		while (r.in && !end) {
			n = read_some(fd);
			if (n < 0 && !again(n))
				die("read");
			end = n == 0;
			if (!edge || (n < 0 && errno == EAGAIN))
				break;
		}
		if ((r.out || (edge && may_write)) && !shut) {
			n = write_some(fd);
			if (n < 0 && !again(n))
				die("write");
			may_write = n >= 0 || errno == EINTR;
		}
		/* an edge that came while it wrote is not lost: look without waiting */
		if (edge && may_write && !end) {
			n = read_some(fd);
			if (n < 0 && !again(n))
				die("read");
			end = n == 0;
		}
		if (end && edge && !ending && !shut)
			ending = 1;
	}
}

static void name(char *text, const struct sockaddr_in *a)
{
	sprintf(text, "%s:%u", inet_ntoa(a->sin_addr), ntohs(a->sin_port));
}

static void say_names(const char *what, int fd)
{
	struct sockaddr_in here, there;
	socklen_t size = sizeof(here);
	char a[64], b[64];

	if (getsockname(fd, (struct sockaddr *)&here, &size) || getpeername(fd, (struct sockaddr *)&there, &size))
		die("names");
	name(a, &here);
	name(b, &there);
	printf("%s %s %s\n", what, a, b);
	fflush(stdout);
}

static int open_listener(const char *port)
{
	struct sockaddr_in any_address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s, (struct sockaddr *)&any_address, sizeof(any_address)) || listen(s, 5))
		die("listen");
	printf("listening\n");
	fflush(stdout);
	return s;
}

static int open_stream(char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	int s, fd;

	if (!strcmp(argv[1], "listen")) {
		s = open_listener(argv[2]);
		fd = accept(s, NULL, NULL);
		if (fd < 0)
			die("accept");
		close(s);
		say_names("accepted", fd);
		return fd;
	}
	fd = socket(AF_INET, SOCK_STREAM, 0);
	to.sin_port = htons((uint16_t)atoi(argv[3]));
	inet_aton(argv[2], &to.sin_addr);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
		die("connect");
	say_names("connected", fd);
	return fd;
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = on_signal };
	const char *way;
	int fd;

	if (argc < 5)
		return 2;
	sigaction(SIGUSR1, &act, NULL);
	act.sa_flags = SA_RESTART;
	sigaction(SIGUSR2, &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	way = argv[argc - 2];
	seed = state = (unsigned)atoi(argv[argc - 1]);
	fd = open_stream(argv);
	ep_mode = !strcmp(way, "edge") ? EPOLLET : !strcmp(way, "oneshot") ? EPOLLONESHOT : 0;
	if (!strcmp(way, "threads"))
		by_threads(fd);
	else if (!strcmp(way, "echo"))
		by_echo(fd);
	else if (!strcmp(way, "whole") || !strcmp(way, "timed"))
		by_whole(fd, !strcmp(way, "timed"));
	else
		by_events(fd, !strcmp(way, "poll") ? by_poll : !strcmp(way, "select") ? by_select : by_epoll);
	close(fd);
	printf("done %lu %lu\n", sent, received);
	return 0;
}
