/* SPDX-License-Identifier: MIT */
/*
 * udp.c - calls on UDP sockets that give or take an address, and those that wait for the library.
 *
 * The kernel socket is the program's own (lib/udp.h), so calls without an
 * address are not here.
 */
#include "preload/udp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/hooks.h"
#include "preload/preload.h"
#include "preload/real.h"
#include "preload/sockets.h"
#include "preload/transfers.h"
#include "preload/window.h"

enum {
	UDP_CONNECT_MS = 100, /* a connect waits so long for what comes of it; then datagrams wait instead */
	UDP_CLOSE_MS = 1000,  /* a close for datagrams that wait */
};

/* Sleep until something changes for a UDP socket, or the time is over: false. */
static bool udp_sleep(uint32_t seen, const struct timespec *deadline)
{
	struct timespec left = window_left(CLOCK_MONOTONIC, deadline);

	if (!left.tv_sec && !left.tv_nsec)
		return false;
	syscall(SYS_futex, msock__udp_changes(), FUTEX_WAIT, seen, &left, NULL, 0);
	return true;
}

static uint32_t udp_seen(void)
{
	return __atomic_load_n(msock__udp_changes(), __ATOMIC_ACQUIRE);
}

static struct timespec udp_deadline(unsigned ms)
{
	const struct timespec in = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	return window_deadline(CLOCK_MONOTONIC, &in);
}

int udp_connect(int fd, const struct sockaddr *addr, socklen_t size)
{
	int result = msock__udp_connect(fd, addr, size), saved = errno;
	struct timespec deadline;
	uint32_t seen;

	if (result)
		return result == MSOCK__NOT_OURS ? result : (int)window_result(result);
	deadline = udp_deadline(UDP_CONNECT_MS);
	do
		seen = udp_seen();
	while (!msock__udp_settled(fd) && udp_sleep(seen, &deadline));
	errno = saved;
	return 0;
}

static bool udp_may_wait(int fd, int flags)
{
	int status = fcntl(fd, F_GETFL);

	return !(flags & MSG_DONTWAIT) && status >= 0 && !(status & O_NONBLOCK);
}

ssize_t udp_send(int fd, const struct msghdr *msg, int flags)
{
	if (!msock__udp_any() || !sockets_on())
		return MSOCK__NOT_OURS;
	for (;;) {
		long result = msock__udp_send(fd, msg, flags);
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		if (result == MSOCK__NOT_OURS)
			return result;
		if (result != -EAGAIN || !udp_may_wait(fd, flags))
			return window_result(result);
		if (poll(&p, 1, -1) < 0)
			return -1;
	}
}

/* The number of messages sent; MSOCK__NOT_OURS: none of them is ours. */
static int udp_send_many(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
	unsigned sent = 0;

	if (!msock__udp_any())
		return MSOCK__NOT_OURS;
	for (; sent < n; sent++) {
		ssize_t result = sendmsg(fd, &msgs[sent].msg_hdr, flags);

		if (result < 0)
			break;
		msgs[sent].msg_len = (unsigned)result;
	}
	return sent || !n ? (int)sent : -1;
}

PRELOAD_API int sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
	bool named = false;
	int result;

	for (unsigned i = 0; msgs && i < n; i++)
		named = named || msgs[i].msg_hdr.msg_name;
	result = named && sockets_on() ? udp_send_many(fd, msgs, n, flags) : MSOCK__NOT_OURS;
	return result == MSOCK__NOT_OURS ? REAL(sendmmsg)(fd, msgs, n, flags) : result;
}

/* A call with a time limit that a kick has ended: wait for the rest of it. 1: there is something; 0: the time is over; -1. */
static int udp_wait_on(int fd, struct window *w, const struct timespec *start)
{
	struct timeval limit = { 0 };
	socklen_t size = sizeof(limit);
	struct timespec deadline = *start, left;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	long result;

	if (REAL(getsockopt)(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &size) < 0 || (!limit.tv_sec && !limit.tv_usec))
		return 1;
	deadline.tv_sec += limit.tv_sec;
	deadline.tv_nsec += limit.tv_usec * 1000;
	if (deadline.tv_nsec >= 1000000000) {
		deadline.tv_sec++;
		deadline.tv_nsec -= 1000000000;
	}
	do {
		left = window_left(CLOCK_MONOTONIC, &deadline);
		result = window_wait(w, SYS_ppoll, (long)&p, 1, (long)&left, 0, 0, 0);
	} while (window_again(w, result));
	if (result == 0)
		result = -EAGAIN;
	return result < 0 ? (int)window_result(result) : 1;
}

ssize_t udp_receive(int fd, struct msghdr *msg, int flags)
{
	struct sockaddr_storage name;
	void *to = msg->msg_name;
	socklen_t room = msg->msg_namelen;
	size_t control = msg->msg_controllen;
	struct timespec start;
	struct window w;
	ssize_t n;

	clock_gettime(CLOCK_MONOTONIC, &start);
	window_open(&w);
	msg->msg_name = &name;
	for (;;) {
		unsigned long moves = msock__udp_moves();

		msg->msg_namelen = sizeof(name);
		msg->msg_controllen = control;
		n = REAL(recvmsg)(fd, msg, flags);
		if (n < 0 && errno == EINTR && window_again(&w, -EINTR) && udp_wait_on(fd, &w, &start) > 0)
			continue;
		if (n < 0 || msock__udp_received(fd, msg, moves))
			break;
		if (flags & MSG_PEEK) /* a stranger's: it must not stay in front */
			REAL(recvfrom)(fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
	}
	msg->msg_name = to;
	if (to && n >= 0)
		__builtin_memcpy(to, &name, room < msg->msg_namelen ? room : msg->msg_namelen);
	if (!to || n < 0)
		msg->msg_namelen = n < 0 ? room : 0;
	return n;
}

bool udp_is_ours(int fd)
{
	return msock__udp_any() && sockets_on() && msock__udp_is(fd);
}

ssize_t udp_receive_from(int fd, void *bytes, size_t n, int flags, struct sockaddr *addr, socklen_t *size)
{
	struct iovec iov = { bytes, n };
	struct msghdr msg = { .msg_name = addr, .msg_namelen = *size, .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t result = udp_receive(fd, &msg, flags);

	if (result >= 0)
		*size = msg.msg_namelen;
	return result;
}

/* One after the other; the time is looked at behind each, as the kernel does. */
static int udp_receive_many(int fd, struct mmsghdr *msgs, unsigned n, int flags, const struct timespec *timeout)
{
	struct timespec deadline = { 0 }, left;
	unsigned got = 0;

	if (timeout)
		deadline = window_deadline(CLOCK_MONOTONIC, timeout);
	for (; got < n; got++) {
		int now = (flags & ~MSG_WAITFORONE) | (got && flags & MSG_WAITFORONE ? MSG_DONTWAIT : 0);
		ssize_t result = udp_receive(fd, &msgs[got].msg_hdr, now);

		if (result < 0)
			break;
		msgs[got].msg_len = (unsigned)result;
		left = window_left(CLOCK_MONOTONIC, &deadline);
		if (timeout && !left.tv_sec && !left.tv_nsec) {
			got++;
			break;
		}
	}
	return got || !n ? (int)got : -1;
}

PRELOAD_API int recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout)
{
	bool needed = transfers_timed();

	for (unsigned i = 0; msgs && i < n; i++)
		needed = needed || msgs[i].msg_hdr.msg_name || msgs[i].msg_hdr.msg_control;
	return needed && udp_is_ours(fd) ? udp_receive_many(fd, msgs, n, flags, timeout)
					 : REAL(recvmmsg)(fd, msgs, n, flags, timeout);
}

PRELOAD_API int shutdown(int fd, int how)
{
	int result = REAL(shutdown)(fd, how);

	if (result == 0 && sockets_on())
		msock__udp_shut(fd, how);
	return result;
}

static void udp_await_sent(unsigned long socket, unsigned ms)
{
	struct timespec deadline = udp_deadline(ms);
	uint32_t seen;

	do
		seen = udp_seen();
	while (msock__udp_unsent(socket) && udp_sleep(seen, &deadline));
}

void udp_closing(int fd)
{
	unsigned long socket = msock__udp_inode(fd);
	int saved = errno;

	if (socket) {
		udp_await_sent(socket, UDP_CLOSE_MS);
		msock__udp_closing(fd);
	}
	errno = saved;
}

void udp_finish(void)
{
	if (sockets_on())
		udp_await_sent(0, 2 * UDP_CLOSE_MS);
}
