// SPDX-License-Identifier: MIT
/*
 * calls - each call on descriptors and sockets once, on a stream to somebody
 * who sends everything back.
 *
 *   calls IP PORT SELF OWN
 *
 * Connects to IP:PORT; listens at SELF:OWN for what it connects to itself.
 * For each line of its input it makes all the calls and says "NAME OUTCOME"
 * for each, then "end".  The outcome is what the call is to do, so it is the
 * same with msock and without, before a move and after it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { CALLS_N = 10 };

static int s = -1; /* the stream */
static struct sockaddr_in peer, own;
static char out[CALLS_N + 1] = "0123456789", in[2 * CALLS_N + 1];

struct call {
	const char *name;
	long (*run)(void); /* its outcome; negative: -errno or that what came was wrong */
};

static long result(long n)
{
	return n < 0 ? -errno : n;
}

/* What has been written comes back. */
static long echoed(long n)
{
	long got = 0, more;

	if (n < 0)
		return -errno;
	memset(in, 0, sizeof(in));
	while (got < n && (more = recv(s, in + got, (size_t)(n - got), 0)) > 0)
		got += more;
	return got == n && !memcmp(in, out, (size_t)n) ? n : -1000;
}

/* Something is there to be read. */
static void fetch(void)
{
	struct pollfd p = { .fd = s, .events = POLLIN };
	int waiting = 0;

	memset(in, 0, sizeof(in));
	if (send(s, out, CALLS_N, 0) != CALLS_N)
		exit(3);
	while (waiting < CALLS_N && poll(&p, 1, -1) == 1 && !ioctl(s, FIONREAD, &waiting))
		;
}

static long fetched(long n)
{
	return n < 0 ? -errno : n == CALLS_N && !memcmp(in, out, CALLS_N) ? n : -1000;
}

static struct iovec *vec(char *bytes)
{
	static struct iovec iov[2];

	iov[0] = (struct iovec){ bytes, 4 };
	iov[1] = (struct iovec){ bytes + 4, CALLS_N - 4 };
	return iov;
}

static long c_write(void)
{
	return echoed(write(s, out, CALLS_N));
}
static long c_writev(void)
{
	return echoed(writev(s, vec(out), 2));
}
static long c_send(void)
{
	return echoed(send(s, out, CALLS_N, MSG_NOSIGNAL));
}
static long c_sendto(void)
{
	return echoed(sendto(s, out, CALLS_N, 0, (struct sockaddr *)&peer, sizeof(peer)));
}
static long c_read(void)
{
	return fetch(), fetched(read(s, in, sizeof(in)));
}
static long c_readv(void)
{
	return fetch(), fetched(readv(s, vec(in), 2));
}
static long c_recv(void)
{
	return fetch(), fetched(recv(s, in, CALLS_N, MSG_WAITALL));
}
static long c_dup(void)
{
	int fd = dup(s);
	long n = echoed(write(fd, out, CALLS_N));
	return close(fd), n;
}
static long c_dup2(void)
{
	int fd = dup2(s, 90);
	long n = echoed(write(fd, out, CALLS_N));
	return close(fd), n;
}
static long c_dup3(void)
{
	int fd = dup3(s, 91, O_CLOEXEC);
	long n = echoed(write(fd, out, CALLS_N));
	return close(fd), n;
}
static long c_ioctl(void)
{
	int n = 0;
	return fetch(), ioctl(s, FIONREAD, &n), fetched(recv(s, in, (size_t)n, 0));
}

static long c_sendmsg(void)
{
	struct msghdr m = { .msg_iov = vec(out), .msg_iovlen = 2, .msg_name = &peer, .msg_namelen = sizeof(peer) };

	return echoed(sendmsg(s, &m, 0));
}

static long c_sendmmsg(void)
{
	struct mmsghdr m[1] = { { .msg_hdr = { .msg_iov = vec(out), .msg_iovlen = 2 } } };

	return sendmmsg(s, m, 1, 0) == 1 ? echoed(m[0].msg_len) : result(-1);
}

static long c_recvfrom(void)
{
	struct sockaddr_in from;
	socklen_t size = sizeof(from);

	fetch();
	return fetched(recvfrom(s, in, sizeof(in), 0, (struct sockaddr *)&from, &size));
}

static long c_recvmsg(void)
{
	struct msghdr m = { .msg_iov = vec(in), .msg_iovlen = 2 };

	fetch();
	return fetched(recvmsg(s, &m, MSG_PEEK)) + fetched(recvmsg(s, &m, 0));
}

static long c_recvmmsg(void)
{
	struct mmsghdr m[1] = { { .msg_hdr = { .msg_iov = vec(in), .msg_iovlen = 2 } } };

	fetch();
	return recvmmsg(s, m, 1, 0, NULL) == 1 ? fetched(m[0].msg_len) : result(-1);
}

static long c_sendfile(void)
{
	FILE *f = tmpfile();
	long n;

	fwrite(out, 1, CALLS_N, f);
	fflush(f);
	n = echoed(sendfile(s, fileno(f), &(off_t){ 0 }, CALLS_N));
	fclose(f);
	return n;
}

static long c_splice(void)
{
	int p[2];
	long n;

	if (pipe(p) || write(p[1], out, CALLS_N) != CALLS_N)
		return -1001;
	n = result(splice(p[0], NULL, s, NULL, CALLS_N, 0));
	if (n == CALLS_N)
		n = result(splice(s, NULL, p[1], NULL, CALLS_N, 0));
	n = n > 0 ? fetched(read(p[0], in, sizeof(in))) : n;
	close(p[0]);
	close(p[1]);
	return n;
}

static long c_stdio(void)
{
	FILE *f = fdopen(dup(s), "r+");
	long n;

	setvbuf(f, NULL, _IOFBF, 4096);
	fwrite(out, 1, CALLS_N, f);
	fflush(f);
	n = echoed(CALLS_N);
	fclose(f);
	return n;
}

static long c_fcntl(void)
{
	int flags = fcntl(s, F_GETFL), fd, empty;
	long n;

	fcntl(s, F_SETFL, flags | O_NONBLOCK);
	empty = recv(s, in, 1, 0) < 0 && errno == EAGAIN && fcntl(s, F_GETFL) & O_NONBLOCK;
	fcntl(s, F_SETFL, flags);
	fd = fcntl(s, F_DUPFD_CLOEXEC, 80);
	n = echoed(write(fd, out, CALLS_N));
	n += 100 * empty + 1000 * (fcntl(fd, F_GETFD) == FD_CLOEXEC && fd >= 80);
	close(fd);
	return n;
}

static long c_close_range(void)
{
	int fd = fcntl(s, F_DUPFD, 95);

	return close_range((unsigned)fd, (unsigned)fd, 0) ? result(-1) : fcntl(fd, F_GETFD) == -1 && errno == EBADF;
}

static long c_getsockopt(void)
{
	int on = 1, type = 0, delay = 0;
	socklen_t size = sizeof(int);

	if (setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) ||
	    getsockopt(s, SOL_SOCKET, SO_TYPE, &type, &size) || getsockopt(s, IPPROTO_TCP, TCP_NODELAY, &delay, &size))
		return result(-1);
	return type * 10 + (delay != 0);
}

static long c_setsockopt(void)
{
	struct timeval none = { 0 }, some = { .tv_usec = 20000 };
	long n;

	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &some, sizeof(some));
	n = result(recv(s, in, 1, 0));
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
	return n;
}

static long c_getpeername(void)
{
	struct sockaddr_in a;
	socklen_t size = sizeof(a);

	return getpeername(s, (struct sockaddr *)&a, &size) ? result(-1) : !memcmp(&a, &peer, size);
}

static long c_getsockname(void)
{
	struct sockaddr_in a;
	socklen_t size = sizeof(a);

	return getsockname(s, (struct sockaddr *)&a, &size) ? result(-1) : a.sin_port != 0 && a.sin_family == AF_INET;
}

static long c_poll(void)
{
	struct pollfd p = { .fd = s, .events = POLLIN | POLLOUT };
	long n = poll(&p, 1, 0) == 1 ? p.revents : -1;

	fetch();
	n = n * 100 + (poll(&p, 1, -1) == 1 ? p.revents : -1);
	return n * 100 + fetched(read(s, in, sizeof(in)));
}

static long c_ppoll(void)
{
	struct pollfd p = { .fd = s, .events = POLLIN };
	struct timespec t = { .tv_nsec = 1000000 };
	sigset_t set;
	long n = ppoll(&p, 1, &t, NULL);

	sigemptyset(&set);
	fetch();
	n = n * 100 + ppoll(&p, 1, NULL, &set);
	return n * 100 + fetched(read(s, in, sizeof(in)));
}

static long select_by(bool p)
{
	struct timespec none = { 0 };
	struct timeval no = { 0 };
	fd_set r;
	long n;

	FD_ZERO(&r);
	FD_SET(s, &r);
	n = p ? pselect(s + 1, &r, NULL, NULL, &none, NULL) : select(s + 1, &r, NULL, NULL, &no);
	FD_SET(s, &r);
	fetch();
	n = n * 100 + (p ? pselect(s + 1, &r, NULL, NULL, NULL, NULL) : select(s + 1, &r, NULL, NULL, NULL));
	return n * 100 + fetched(read(s, in, sizeof(in)));
}

static long c_select(void)
{
	return select_by(false);
}
static long c_pselect(void)
{
	return select_by(true);
}

enum epoll_kind { BY_WAIT, BY_PWAIT, BY_PWAIT2 };

static long epoll_by(enum epoll_kind kind, int set, uint32_t mode)
{
	struct epoll_event e = { .events = EPOLLIN | mode, .data.u64 = 77 };
	long n;

	epoll_ctl(set, EPOLL_CTL_ADD, s, &e);
	n = epoll_wait(set, &e, 1, 0);
	fetch();
	switch (kind) {
	case BY_WAIT:
		n = n * 10 + epoll_wait(set, &e, 1, -1);
		break;
	case BY_PWAIT:
		n = n * 10 + epoll_pwait(set, &e, 1, -1, NULL);
		break;
	default:
		n = n * 10 + epoll_pwait2(set, &e, 1, NULL, NULL);
	}
	n = n * 100 + fetched(read(s, in, sizeof(in))) + (long)e.data.u64 * 10000 + e.events * 10000000;
	close(set);
	return n;
}

static long c_epoll_create(void)
{
	return epoll_by(BY_WAIT, epoll_create(1), 0);
}
static long c_epoll_create1(void)
{
	return epoll_by(BY_WAIT, epoll_create1(EPOLL_CLOEXEC), 0);
}
static long c_epoll_ctl(void)
{
	return epoll_by(BY_WAIT, epoll_create1(0), EPOLLONESHOT);
}
static long c_epoll_wait(void)
{
	return epoll_by(BY_WAIT, epoll_create1(0), EPOLLET);
}
static long c_epoll_pwait(void)
{
	return epoll_by(BY_PWAIT, epoll_create1(0), EPOLLET);
}
static long c_epoll_pwait2(void)
{
	return epoll_by(BY_PWAIT2, epoll_create1(0), 0);
}

/* A child writes on the stream. */
static long child_wrote(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? echoed(CALLS_N)
												: -1002;
}

static long c_fork(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(write(s, out, CALLS_N) != CALLS_N);
	return child_wrote(pid);
}

static const char *shell_words[] = { "sh", "-c", NULL, NULL };

static void say_in_shell(void)
{
	static char text[64];

	snprintf(text, sizeof(text), "printf %s >&%d", out, s);
	shell_words[2] = text;
}

static long c_vfork(void)
{
	pid_t pid;

	say_in_shell();
	pid = vfork();
	if (pid == 0) {
		execv("/bin/sh", (char **)shell_words);
		_exit(127);
	}
	return child_wrote(pid);
}

static long c_posix_spawn(void)
{
	pid_t pid;

	say_in_shell();
	return posix_spawn(&pid, "/bin/sh", NULL, NULL, (char **)shell_words, environ) ? -1003 : child_wrote(pid);
}

static long c_popen(void)
{
	FILE *f;

	say_in_shell();
	f = popen(shell_words[2], "r");
	return f && pclose(f) == 0 ? echoed(CALLS_N) : -1003;
}

/* A listener, and somebody who connects to it. */
static long accepted(bool four)
{
	struct sockaddr_in a = own, from;
	socklen_t size = sizeof(from);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), c = socket(AF_INET, SOCK_STREAM, 0), k, one = 1;
	long n = 0;

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (l < 0 || c < 0 || bind(l, (struct sockaddr *)&a, sizeof(a)) || listen(l, 3) ||
	    connect(c, (struct sockaddr *)&a, sizeof(a)))
		return result(-1);
	k = four ? accept4(l, (struct sockaddr *)&from, &size, SOCK_CLOEXEC)
		 : accept(l, (struct sockaddr *)&from, &size);
	if (k < 0)
		return result(-1);
	memset(in, 0, sizeof(in));
	if (write(c, out, CALLS_N) == CALLS_N && !shutdown(c, SHUT_WR))
		n = fetched(recv(k, in, CALLS_N, MSG_WAITALL)) + 100 * (recv(k, in, 1, 0) == 0);
	n += 1000 * (fcntl(k, F_GETFD) == (four ? FD_CLOEXEC : 0));
	close(k);
	close(c);
	close(l);
	return n;
}

static long c_accept(void)
{
	return accepted(false);
}
static long c_accept4(void)
{
	return accepted(true);
}

static long c_socketpair(void)
{
	int p[2];
	long n;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, p))
		return result(-1);
	memset(in, 0, sizeof(in));
	n = write(p[0], out, CALLS_N) == CALLS_N ? fetched(read(p[1], in, CALLS_N)) : result(-1);
	close(p[0]);
	close(p[1]);
	return n;
}

#define CALL(name)                                                                                                     \
	{                                                                                                              \
#name, c_##name                                                                                        \
	}
static const struct call calls[] = {
	CALL(read),
	CALL(readv),
	CALL(recv),
	CALL(recvfrom),
	CALL(recvmsg),
	CALL(recvmmsg),
	CALL(write),
	CALL(writev),
	CALL(send),
	CALL(sendto),
	CALL(sendmsg),
	CALL(sendmmsg),
	CALL(sendfile),
	CALL(splice),
	CALL(stdio),
	CALL(dup),
	CALL(dup2),
	CALL(dup3),
	CALL(fcntl),
	CALL(ioctl),
	CALL(close_range),
	CALL(getsockopt),
	CALL(setsockopt),
	CALL(getpeername),
	CALL(getsockname),
	CALL(poll),
	CALL(ppoll),
	CALL(select),
	CALL(pselect),
	CALL(epoll_create),
	CALL(epoll_create1),
	CALL(epoll_ctl),
	CALL(epoll_wait),
	CALL(epoll_pwait),
	CALL(epoll_pwait2),
	CALL(fork),
	CALL(vfork),
	CALL(posix_spawn),
	CALL(popen),
	CALL(accept),
	CALL(accept4),
	{ "socket", c_accept },
	{ "bind", c_accept },
	{ "listen", c_accept },
	{ "connect", c_accept },
	{ "shutdown", c_accept },
	{ "close", c_accept },
	CALL(socketpair),
};

static struct sockaddr_in name(const char *ip, const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

	inet_aton(ip, &a.sin_addr);
	return a;
}

int main(int argc, char **argv)
{
	char line[64];

	if (argc < 5)
		return 2;
	peer = name(argv[1], argv[2]);
	own = name(argv[3], argv[4]);
	s = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(s, (struct sockaddr *)&peer, sizeof(peer)))
		return 1;
	while (fgets(line, sizeof(line), stdin)) {
		for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
			printf("%s %ld\n", calls[i].name, calls[i].run());
		printf("end\n");
		fflush(stdout);
	}
	return 0;
}
