/* SPDX-License-Identifier: MIT */
/*
 * sockets.c - the calls that make, name and connect TCP sockets.
 *
 * What passes the bytes is not here: under the number is a kernel socket
 * (lib/sock.h), so read, write, send, poll, stdio and the rest are the
 * kernel's own; transfers.c has what is to be added to that.
 *
 * A call of which the library says MSOCK__NOT_OURS is the C library's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/hooks.h"
#include "msock.h"
#include "preload/preload.h"
#include "preload/real.h"
#include "preload/sockets.h"
#include "preload/transfers.h"
#include "preload/udp.h"
#include "preload/window.h"

static bool sockets, datagrams; /* the program's TCP sockets, its UDP sockets are virtual */

int __connect(int fd, const struct sockaddr *addr, socklen_t size);
void preload_exit(int status) __asm__("_exit") __attribute__((noreturn));

void sockets_start(bool udp)
{
	struct in_addr self;

	sockets = msock__sockets(true);
	datagrams = sockets && udp;
	if (sockets && !msock_self(&self))
		setenv("MSOCK_ADDRESS", inet_ntoa(self), 1);
}

/* A vfork child runs on the member's memory: it makes sockets of the kernel. */
static bool sockets_here(void)
{
	return sockets && preload_own_memory();
}

bool sockets_on(void)
{
	return sockets_here();
}

PRELOAD_API int socket(int domain, int type, int protocol)
{
	int kind = type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC), fd = MSOCK__NOT_OURS;

	if (kind == SOCK_STREAM && (domain == AF_INET || domain == AF_INET6) &&
	    (protocol == 0 || protocol == IPPROTO_TCP) && sockets_here())
		fd = msock__sock_new(domain, type, protocol);
	if (fd != MSOCK__NOT_OURS)
		return (int)window_result(fd);
	fd = REAL(socket)(domain, type, protocol);
	if (fd >= 0 && kind == SOCK_DGRAM && (domain == AF_INET || domain == AF_INET6) &&
	    (protocol == 0 || protocol == IPPROTO_UDP) && datagrams && sockets_here())
		msock__udp_new(fd, domain);
	return fd;
}

PRELOAD_API int epoll_create1(int flags)
{
	int fd = REAL(epoll_create1)(flags);

	if (fd >= 0 && sockets_here())
		msock__epoll_made(fd);
	return fd;
}

PRELOAD_API int epoll_create(int size)
{
	int fd = REAL(epoll_create)(size);

	if (fd >= 0 && sockets_here())
		msock__epoll_made(fd);
	return fd;
}

PRELOAD_API int bind(int fd, const struct sockaddr *addr, socklen_t size)
{
	int result = sockets_here() ? msock__sock_bind(fd, addr, size) : MSOCK__NOT_OURS;

	if (result == MSOCK__NOT_OURS && sockets_here())
		result = msock__udp_bind(fd, addr, size);
	return result == MSOCK__NOT_OURS ? REAL(bind)(fd, addr, size) : (int)window_result(result);
}

PRELOAD_API int listen(int fd, int backlog)
{
	int result = sockets_here() ? msock__sock_listen(fd, backlog) : MSOCK__NOT_OURS;

	return result == MSOCK__NOT_OURS ? REAL(listen)(fd, backlog) : (int)window_result(result);
}

static bool socket_blocks(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && !(flags & O_NONBLOCK);
}

/* How long a connect may take: SO_SNDTIMEO. False: for ever. */
static bool socket_patience(int fd, struct timespec *patience)
{
	struct timeval limit = { 0 };
	socklen_t size = sizeof(limit);

	if (REAL(getsockopt)(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &size) < 0 || (!limit.tv_sec && !limit.tv_usec))
		return false;
	*patience = (struct timespec){ .tv_sec = limit.tv_sec, .tv_nsec = limit.tv_usec * 1000 };
	return true;
}

/* A connect that is on its way. What a handler with SA_RESTART interrupted goes on, unless there is a time limit. */
static int socket_await(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	struct timespec left, deadline;
	bool limited = socket_patience(fd, &left);
	unsigned breaks = *preload_breaks();
	struct window w;
	long result;

	if (limited)
		deadline = window_deadline(CLOCK_MONOTONIC, &left);
	window_open(&w);
	for (;;) {
		int state = msock__sock_connected(fd);

		if (state != -EINPROGRESS)
			return state;
		if (limited)
			left = window_left(CLOCK_MONOTONIC, &deadline);
		result = window_wait(&w, SYS_ppoll, (long)&p, 1, limited ? (long)&left : 0, 0, 0, 0);
		if (result == 0)
			return -EINPROGRESS;
		if (result == -EINTR && !window_again(&w, result)) {
			if (limited || *preload_breaks() != breaks)
				return -EINTR;
			window_open(&w);
		}
	}
}

PRELOAD_API int connect(int fd, const struct sockaddr *addr, socklen_t size)
{
	int result = sockets_here() ? msock__sock_connect(fd, addr, size) : MSOCK__NOT_OURS;

	if (result == MSOCK__NOT_OURS && sockets_here()) {
		result = udp_connect(fd, addr, size);
		if (result != MSOCK__NOT_OURS)
			return result;
	}
	if (result == MSOCK__NOT_OURS)
		return REAL(connect)(fd, addr, size);
	if (result == -EINPROGRESS && socket_blocks(fd))
		result = socket_await(fd);
	return (int)window_result(result);
}

PRELOAD_API int __connect(int fd, const struct sockaddr *addr, socklen_t size)
{
	return connect(fd, addr, size);
}

/* Waiting is the kernel's, with its signals and time limits: a listener's number is readable when somebody is there. */
static int socket_accept(int fd, struct sockaddr *addr, socklen_t *size, int flags)
{
	for (;;) {
		int result = sockets_here() ? msock__sock_accept(fd, flags, addr, size) : MSOCK__NOT_OURS;
		ssize_t n;
		char byte;

		if (result == MSOCK__NOT_OURS)
			return REAL(accept4)(fd, addr, size, flags);
		if (result != -EAGAIN || !socket_blocks(fd))
			return (int)window_result(result);
		n = recv(fd, &byte, 1, MSG_PEEK);
		if (n < 0)
			return -1;
		if (n == 0) {
			errno = EINVAL; /* shut */
			return -1;
		}
	}
}

PRELOAD_API int accept4(int fd, struct sockaddr *addr, socklen_t *size, int flags)
{
	if (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) {
		errno = EINVAL;
		return -1;
	}
	return socket_accept(fd, addr, size, flags);
}

PRELOAD_API int accept(int fd, struct sockaddr *addr, socklen_t *size)
{
	return socket_accept(fd, addr, size, 0);
}

PRELOAD_API int getsockname(int fd, struct sockaddr *addr, socklen_t *size)
{
	int result = sockets ? msock__sock_name(fd, false, addr, size) : MSOCK__NOT_OURS;

	if (result == MSOCK__NOT_OURS && sockets)
		result = msock__udp_name(fd, false, addr, size);
	return result == MSOCK__NOT_OURS ? REAL(getsockname)(fd, addr, size) : (int)window_result(result);
}

PRELOAD_API int getpeername(int fd, struct sockaddr *addr, socklen_t *size)
{
	int result = sockets ? msock__sock_name(fd, true, addr, size) : MSOCK__NOT_OURS;

	if (result == MSOCK__NOT_OURS && sockets)
		result = msock__udp_name(fd, true, addr, size);
	return result == MSOCK__NOT_OURS ? REAL(getpeername)(fd, addr, size) : (int)window_result(result);
}

PRELOAD_API int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	int result = sockets_here() ? msock__sock_setopt(fd, level, name, value, size) : MSOCK__NOT_OURS;

	if (sockets)
		transfers_note_option(level, name);
	if (result == MSOCK__NOT_OURS && sockets_here())
		msock__udp_option(fd, level, name);
	return result == MSOCK__NOT_OURS ? REAL(setsockopt)(fd, level, name, value, size) : (int)window_result(result);
}

PRELOAD_API int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
	int result = sockets ? msock__sock_getopt(fd, level, name, value, size) : MSOCK__NOT_OURS;

	return result == MSOCK__NOT_OURS ? REAL(getsockopt)(fd, level, name, value, size) : (int)window_result(result);
}

PRELOAD_API int dup(int fd)
{
	sockets_duplicate(fd);
	return REAL(dup)(fd);
}

int sockets_close(int fd)
{
	return sockets_here() ? msock__sock_close(fd) : MSOCK__NOT_OURS;
}

void sockets_closing(int fd)
{
	if (!sockets_here())
		return;
	msock__sock_closing(fd);
	udp_closing(fd);
}

/* The C library closes by itself: all that it will write must be counted. */
PRELOAD_API int fclose(FILE *file)
{
	int fd = sockets && file ? fileno(file) : -1;

	if (fd >= 0) {
		fflush(file);
		sockets_closing(fd);
	}
	return REAL(fclose)(file);
}

void sockets_replace(int from, int to)
{
	if (!sockets_here() || REAL(fcntl64)(from, F_GETFD) < 0)
		return;
	sockets_duplicate(from);
	if (from != to)
		sockets_closing(to);
}

void sockets_closing_range(unsigned first, unsigned last, int flags)
{
	if (!(flags & CLOSE_RANGE_CLOEXEC) && sockets_here())
		msock__sock_closing_range(first, last);
}

void sockets_duplicate(int fd)
{
	if (!sockets_here())
		return;
	msock__sock_duplicated(fd);
	msock__udp_duplicated(fd);
}

/* A socket that will listen or connect gets another file under its number. */
PRELOAD_API int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	if (op == EPOLL_CTL_ADD && sockets_here())
		msock__sock_watched(fd);
	return REAL(epoll_ctl)(epoll, op, fd, event);
}

PRELOAD_API int fcntl(int fd, int command, ...)
{
	va_list more;
	void *arg;

	va_start(more, command);
	arg = va_arg(more, void *);
	va_end(more);
	if (sockets && (command == F_DUPFD || command == F_DUPFD_CLOEXEC))
		sockets_duplicate(fd);
	if (sockets && (command == F_SETOWN || command == F_SETOWN_EX || command == F_SETSIG))
		msock__sock_owned(fd);
	return REAL(fcntl64)(fd, command, arg);
}

/* The same call, where off_t has 64 bits; the headers do not say its name. */
PRELOAD_API int fcntl64(int fd, int command, ...) __attribute__((alias("fcntl")));

PRELOAD_API int ioctl(int fd, unsigned long request, ...)
{
	va_list more;
	void *arg;
	int result;

	va_start(more, request);
	arg = va_arg(more, void *);
	va_end(more);
	if (sockets && (request == FIOSETOWN || request == SIOCSPGRP))
		msock__sock_owned(fd);
	result = REAL(ioctl)(fd, request, arg);
	if (result == 0 && request == FIONREAD && sockets)
		*(int *)arg += (int)msock__sock_carried(fd);
	return result;
}

/*
 * What the program wrote goes to a kernel before the process ends, as it would
 * without the library.  A signal may still end it.
 */
static void sockets_finish(void)
{
	struct timespec pause = { .tv_nsec = 1000000 };

	udp_finish();
	while (sockets_here() && msock__sock_leaving() > 0)
		nanosleep(&pause, NULL);
}

static __attribute__((destructor)) void sockets_end(void)
{
	if (!sockets_here())
		return;
	fflush(NULL);
	sockets_finish();
}

PRELOAD_API void preload_exit(int status)
{
	sockets_finish();
	for (;;)
		syscall(SYS_exit_group, status);
}

PRELOAD_API void _Exit(int status)
{
	preload_exit(status);
}
