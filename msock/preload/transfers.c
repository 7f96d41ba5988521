/* SPDX-License-Identifier: MIT */
/*
 * transfers.c - read, write and their kin.
 *
 * The calls are the kernel's; what stands under a number is changed while no
 * thread is in one (lib/sock_direct.c), and the kernel makes a call again that
 * a kick interrupted.  Three things it does not: a blocking write that had
 * progressed comes back short, MSG_WAITALL likewise, and with a time limit on
 * the socket any call ends with EINTR.  A program meets these only if one of
 * its own signals strikes, so here such a call goes on.
 *
 * Who has never set a time limit pays four instructions for a read and some
 * fifteen for a write or send: what the kernel did is compared with what was
 * asked for, and the arguments must still be there then.
 */
#include "preload/transfers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/hooks.h"
#include "preload/preload.h"
#include "preload/real.h"
#include "preload/udp.h"
#include "preload/window.h"

ssize_t __read_chk(int fd, void *bytes, size_t n, size_t room);
ssize_t __recv_chk(int fd, void *bytes, size_t n, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *bytes, size_t n, size_t room, int flags, struct sockaddr *addr, socklen_t *size);
void __chk_fail(void) __attribute__((noreturn));

static bool timed __attribute__((used)); /* some socket has a time limit */

void transfers_note_option(int level, int name)
{
	if (level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO))
		__atomic_store_n(&timed, true, __ATOMIC_RELEASE);
}

static inline bool transfer_timed(void)
{
	return __builtin_expect(__atomic_load_n(&timed, __ATOMIC_RELAXED), 0);
}

bool transfers_timed(void)
{
	return transfer_timed();
}

/* A kick would end a call on it: it has a time limit, perhaps. */
static bool transfer_is_timed_udp(int fd)
{
	return transfer_timed() && udp_is_ours(fd);
}

static bool transfer_blocks(int fd, int flags)
{
	int state = flags & MSG_DONTWAIT ? O_NONBLOCK : REAL(fcntl64)(fd, F_GETFL);

	return state >= 0 && !(state & O_NONBLOCK);
}

/* One of the program's virtual streams, with a time limit on this way. */
static bool transfer_limit(int fd, int flags, int option, struct timespec *limit)
{
	struct timeval t = { 0 };
	socklen_t size = sizeof(t);

	if (!msock__sock_is_stream(fd) || !transfer_blocks(fd, flags) ||
	    REAL(getsockopt)(fd, SOL_SOCKET, option, &t, &size) < 0)
		return false;
	*limit = (struct timespec){ .tv_sec = t.tv_sec, .tv_nsec = t.tv_usec * 1000 };
	return t.tv_sec || t.tv_usec;
}

/* What is left of a list behind `done` bytes; the copy is the caller's. */
static void parts_skip(struct msghdr *msg, size_t done)
{
	while (msg->msg_iovlen && done >= msg->msg_iov->iov_len) {
		done -= msg->msg_iov->iov_len;
		msg->msg_iov++;
		msg->msg_iovlen--;
	}
	if (msg->msg_iovlen) {
		msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + done;
		msg->msg_iov->iov_len -= done;
	}
}

static size_t parts_bytes(const struct msghdr *msg)
{
	size_t n = 0;

	for (size_t i = 0; i < msg->msg_iovlen; i++)
		n += msg->msg_iov[i].iov_len;
	return n;
}

typedef ssize_t transfer_call(int fd, struct msghdr *msg, int flags);

static ssize_t call_send(int fd, struct msghdr *msg, int flags)
{
	return REAL(sendmsg)(fd, msg, flags);
}

static ssize_t call_receive(int fd, struct msghdr *msg, int flags)
{
	return REAL(recvmsg)(fd, msg, flags);
}

/* `done` bytes went before a kick: the rest, until a handler of the program that ends calls has run. What went in all. */
static ssize_t transfer_rest(transfer_call *call, int fd, const struct msghdr *msg, int flags, size_t done,
			     unsigned breaks)
{
	size_t all = parts_bytes(msg), went = done;
	struct iovec parts[msg->msg_iovlen];
	struct msghdr rest = { .msg_iov = parts, .msg_iovlen = msg->msg_iovlen };
	int saved = errno;

	if (!msock__sock_is_stream(fd) || !transfer_blocks(fd, flags))
		return (ssize_t)done;
	memcpy(parts, msg->msg_iov, sizeof(parts));
	while (went < all && *preload_breaks() == breaks) {
		ssize_t n;

		parts_skip(&rest, done);
		n = call(fd, &rest, flags);
		if (n <= 0)
			break;
		done = (size_t)n;
		went += done;
	}
	errno = saved;
	return (ssize_t)went;
}

/* Wait for the socket, at most to the deadline. 0, or -errno: -EAGAIN when it is over. */
static long transfer_await(struct window *w, int fd, short events, const struct timespec *deadline)
{
	struct pollfd p = { .fd = fd, .events = events };
	struct timespec left;
	long result;

	do {
		left = window_left(CLOCK_MONOTONIC, deadline);
		result = window_wait(w, SYS_ppoll, (long)&p, 1, (long)&left, 0, 0, 0);
	} while (window_again(w, result));
	return result > 0 ? 0 : result == 0 ? -EAGAIN : result;
}

/* A call with a time limit: as the kernel makes it, but for EINTR by a kick. All: until everything has gone. */
static ssize_t transfer_limited(transfer_call *call, int fd, const struct msghdr *msg, int flags,
				const struct timespec *limit, bool all)
{
	struct timespec deadline = window_deadline(CLOCK_MONOTONIC, limit);
	short events = call == call_send ? POLLOUT : POLLIN;
	struct iovec parts[msg->msg_iovlen];
	struct msghdr rest = *msg;
	size_t want = parts_bytes(msg), went = 0;
	struct window w;

	memcpy(parts, msg->msg_iov, sizeof(parts));
	rest.msg_iov = parts;
	window_open(&w);
	for (;;) {
		ssize_t n = call(fd, &rest, (flags & ~MSG_WAITALL) | MSG_DONTWAIT);
		long err = n < 0 ? -errno : 0;

		if (n > 0)
			went += (size_t)n;
		if (n == 0 || (n > 0 && (!all || went == want)) || (err && err != -EAGAIN))
			return went || !err ? (ssize_t)went : window_result(err);
		parts_skip(&rest, n > 0 ? (size_t)n : 0);
		err = transfer_await(&w, fd, events, &deadline);
		if (err)
			return went ? (ssize_t)went : window_result(err);
	}
}

static ssize_t timed_receive(int fd, struct msghdr *msg, int flags)
{
	struct timespec limit;

	if (flags & MSG_PEEK || !transfer_limit(fd, flags, SO_RCVTIMEO, &limit))
		return call_receive(fd, msg, flags);
	return transfer_limited(call_receive, fd, msg, flags, &limit, flags & MSG_WAITALL);
}

static ssize_t timed_send(int fd, struct msghdr *msg, int flags)
{
	struct timespec limit;

	if (!transfer_limit(fd, flags, SO_SNDTIMEO, &limit))
		return call_send(fd, msg, flags);
	return transfer_limited(call_send, fd, msg, flags, &limit, true);
}

static bool transfer_is_limited(int fd, int option)
{
	struct timespec limit;

	return transfer_limit(fd, 0, option, &limit);
}

/* Looked up at the first call, which a constructor of another library may make. */
#define FIRST(name, parameters, arguments)                                                                             \
	static ssize_t name##_first parameters;                                                                        \
	static ssize_t(*real_##name) parameters USED = name##_first;                                                   \
	static ssize_t name##_first parameters                                                                         \
	{                                                                                                              \
		real_##name = REAL(name);                                                                              \
		return real_##name arguments;                                                                          \
	}
#define USED __attribute__((used))

FIRST(read, (int fd, void *bytes, size_t n), (fd, bytes, n))
FIRST(recv, (int fd, void *bytes, size_t n, int flags), (fd, bytes, n, flags))
FIRST(write, (int fd, const void *bytes, size_t n), (fd, bytes, n))
FIRST(send, (int fd, const void *bytes, size_t n, int flags), (fd, bytes, n, flags))

static __attribute__((noinline)) ssize_t read_slowly(int fd, void *bytes, size_t n)
{
	struct iovec part = { bytes, n };
	struct msghdr msg = { .msg_iov = &part, .msg_iovlen = 1 };

	if (n && udp_is_ours(fd))
		return udp_receive(fd, &msg, 0);
	return transfer_is_limited(fd, SO_RCVTIMEO) ? timed_receive(fd, &msg, 0) : real_read(fd, bytes, n);
}

PRELOAD_API ssize_t read(int fd, void *bytes, size_t n)
{
	if (transfer_timed())
		return read_slowly(fd, bytes, n);
	return real_read(fd, bytes, n);
}

PRELOAD_API ssize_t readv(int fd, const struct iovec *parts, int count)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count };

	if (transfer_timed() && count > 0 && count <= IOV_MAX) {
		if (transfer_is_limited(fd, SO_RCVTIMEO))
			return timed_receive(fd, &msg, 0);
		if (udp_is_ours(fd) && parts_bytes(&msg))
			return udp_receive(fd, &msg, 0);
	}
	return REAL(readv)(fd, parts, count);
}

/* MSG_WAITALL, or a time limit. */
static ssize_t receive_slowly(int fd, struct msghdr *msg, int flags)
{
	unsigned breaks = *preload_breaks();
	ssize_t n;

	if (transfer_timed())
		return timed_receive(fd, msg, flags);
	n = call_receive(fd, msg, flags);
	if (n <= 0 || flags & MSG_PEEK || (size_t)n == parts_bytes(msg))
		return n;
	return transfer_rest(call_receive, fd, msg, flags, (size_t)n, breaks);
}

static __attribute__((noinline)) ssize_t recv_slowly(int fd, void *bytes, size_t n, int flags)
{
	struct iovec part = { bytes, n };
	struct msghdr msg = { .msg_iov = &part, .msg_iovlen = 1 };

	if (msock__sock_is_stream(fd))
		return receive_slowly(fd, &msg, flags);
	return transfer_is_timed_udp(fd) ? udp_receive(fd, &msg, flags) : real_recv(fd, bytes, n, flags);
}

PRELOAD_API ssize_t recv(int fd, void *bytes, size_t n, int flags)
{
	if (flags & MSG_WAITALL || transfer_timed())
		return recv_slowly(fd, bytes, n, flags);
	return real_recv(fd, bytes, n, flags);
}

PRELOAD_API ssize_t recvfrom(int fd, void *bytes, size_t n, int flags, struct sockaddr *addr, socklen_t *size)
{
	struct iovec part = { bytes, n };
	struct msghdr msg = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t result;

	if (addr && size && udp_is_ours(fd))
		return udp_receive_from(fd, bytes, n, flags, addr, size);
	if (!addr && transfer_is_timed_udp(fd))
		return udp_receive(fd, &msg, flags);
	if (!(flags & MSG_WAITALL || transfer_timed()) || !msock__sock_is_stream(fd))
		return REAL(recvfrom)(fd, bytes, n, flags, addr, size);
	result = receive_slowly(fd, &msg, flags);
	if (result >= 0 && addr && size)
		*size = 0; /* a stream says no address */
	return result;
}

PRELOAD_API ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	if ((flags & MSG_WAITALL || transfer_timed()) && msg && msg->msg_iovlen <= IOV_MAX && msock__sock_is_stream(fd))
		return receive_slowly(fd, msg, flags);
	if (msg && (msg->msg_name || msg->msg_control || transfer_timed()) && udp_is_ours(fd))
		return udp_receive(fd, msg, flags);
	return REAL(recvmsg)(fd, msg, flags);
}

PRELOAD_API ssize_t __read_chk(int fd, void *bytes, size_t n, size_t room)
{
	if (n > room)
		__chk_fail();
	return read(fd, bytes, n);
}

PRELOAD_API ssize_t __recv_chk(int fd, void *bytes, size_t n, size_t room, int flags)
{
	if (n > room)
		__chk_fail();
	return recv(fd, bytes, n, flags);
}

PRELOAD_API ssize_t __recvfrom_chk(int fd, void *bytes, size_t n, size_t room, int flags, struct sockaddr *addr,
				   socklen_t *size)
{
	if (n > room)
		__chk_fail();
	return recvfrom(fd, bytes, n, flags, addr, size);
}

/* What a write or send that came back short left; `done` is more than 0. */
USED static ssize_t write_rest(int fd, const void *bytes, size_t n, int flags, ssize_t done, unsigned breaks)
{
	struct iovec part = { (void *)bytes, n };
	struct msghdr msg = { .msg_iov = &part, .msg_iovlen = 1 };

	return transfer_timed() ? done : transfer_rest(call_send, fd, &msg, flags, (size_t)done, breaks);
}

USED static ssize_t send_slowly(int fd, const void *bytes, size_t n, int flags)
{
	struct iovec part = { (void *)bytes, n };
	struct msghdr msg = { .msg_iov = &part, .msg_iovlen = 1 };

	return transfer_is_limited(fd, SO_SNDTIMEO) ? timed_send(fd, &msg, flags) : real_send(fd, bytes, n, flags);
}

USED static ssize_t write_slowly(int fd, const void *bytes, size_t n)
{
	struct iovec part = { (void *)bytes, n };
	struct msghdr msg = { .msg_iov = &part, .msg_iovlen = 1 };

	return transfer_is_limited(fd, SO_SNDTIMEO) ? timed_send(fd, &msg, 0) : real_write(fd, bytes, n);
}

#if defined(__x86_64__)
/*
 * ssize_t write(int fd, const void *bytes, size_t n)
 * ssize_t send(int fd, const void *bytes, size_t n, int flags)
 *
 * The compiler would save what it needs later in registers that it must save
 * first: twice the instructions.
 */
__asm__(".pushsection .text\n"
	".macro transfer name, flags\n"
	".globl \\name\n"
	".type \\name, @function\n"
	"\\name:\n"
	"	.cfi_startproc\n"
	"	cmpb $0, timed(%rip)\n"
	"	jne \\name\\()_slowly\n"
	".if \\flags\n"
	"	push %rcx\n"
	".else\n"
	"	push $0\n"
	".endif\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	push %rdx\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	push %rsi\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	push %rdi\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	mov preload_break_count@gottpoff(%rip), %rax\n"
	"	mov %fs:(%rax), %eax\n"
	"	push %rax\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	call *real_\\name(%rip)\n"
	"	cmp 24(%rsp), %rax\n"
	"	jl 1f\n"
	"2:	add $40, %rsp\n"
	"	.cfi_adjust_cfa_offset -40\n"
	"	ret\n"
	"	.cfi_adjust_cfa_offset 40\n"
	"1:	test %rax, %rax\n"
	"	jle 2b\n"
	"	mov (%rsp), %r9d\n"
	"	mov %rax, %r8\n"
	"	mov 32(%rsp), %rcx\n"
	"	mov 24(%rsp), %rdx\n"
	"	mov 16(%rsp), %rsi\n"
	"	mov 8(%rsp), %rdi\n"
	"	call write_rest\n"
	"	jmp 2b\n"
	"	.cfi_endproc\n"
	".size \\name, .-\\name\n"
	".endm\n"
	"transfer write, 0\n"
	"transfer send, 1\n"
	".purgem transfer\n"
	".popsection\n");
#else
#error "write and send are not written for this processor"
#endif

PRELOAD_API ssize_t sendto(int fd, const void *bytes, size_t n, int flags, const struct sockaddr *addr, socklen_t size)
{
	struct iovec part = { (void *)bytes, n };
	const struct msghdr msg = { .msg_name = (void *)addr, .msg_namelen = size, .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t sent;

	/* TCP does not heed the address, a unix socket would */
	if (!addr || msock__sock_is_stream(fd))
		return send(fd, bytes, n, flags);
	sent = udp_send(fd, &msg, flags);
	return sent == MSOCK__NOT_OURS ? REAL(sendto)(fd, bytes, n, flags, addr, size) : sent;
}

PRELOAD_API ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	unsigned breaks = *preload_breaks();
	struct msghdr plain;
	ssize_t went;

	if (!msg || msg->msg_iovlen > IOV_MAX)
		return REAL(sendmsg)(fd, msg, flags);
	if (msg->msg_name && !msock__sock_is_stream(fd)) {
		went = udp_send(fd, msg, flags);
		return went == MSOCK__NOT_OURS ? REAL(sendmsg)(fd, msg, flags) : went;
	}
	plain = *msg;
	plain.msg_name = NULL; /* as in sendto */
	plain.msg_namelen = 0;
	if (transfer_timed() && transfer_is_limited(fd, SO_SNDTIMEO))
		return timed_send(fd, &plain, flags);
	went = REAL(sendmsg)(fd, &plain, flags);
	if (went <= 0 || transfer_timed() || (size_t)went == parts_bytes(&plain))
		return went;
	return transfer_rest(call_send, fd, &plain, flags, (size_t)went, breaks);
}

PRELOAD_API ssize_t writev(int fd, const struct iovec *parts, int count)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count };
	unsigned breaks = *preload_breaks();
	ssize_t went;

	if (transfer_timed() && count > 0 && count <= IOV_MAX && transfer_is_limited(fd, SO_SNDTIMEO))
		return timed_send(fd, &msg, 0);
	went = REAL(writev)(fd, parts, count);
	if (went <= 0 || transfer_timed() || (size_t)went == parts_bytes(&msg))
		return went;
	return transfer_rest(call_send, fd, &msg, 0, (size_t)went, breaks);
}
