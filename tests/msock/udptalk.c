/* SPDX-License-Identifier: MIT */
/*
 * udptalk - a program that knows nothing of msock and does with UDP sockets what it is told, line by line.
 *
 *   udptalk ME OTHER ANY
 *
 * ME and OTHER are the addresses of this program and of the one it talks with, ANY what it binds to for no address in
 * particular.  A line is a call and its arguments; N is a socket's place, 0 to 9; HOST is me, other, any or an address:
 *
 *   new N 4|6             socket            bind N HOST PORT      connect N HOST PORT     disconnect N
 *   put N HOW TEXT [HOST PORT]              HOW: write writev send sendto sendmsg sendmmsg pktinfo
 *   get N HOW             HOW: read readv recv recvfrom recvmsg recvmmsg peek trunc pktinfo
 *   wait N HOW MS         HOW: poll select epoll edge oneshot; prints whether it can be read
 *   name N, peer N        get N's names     dup N M               close N                 shut N rd|wr|both
 *   set N LEVEL NAME VALUE, opt N LEVEL NAME                      nonblock N 0|1          timeo N MS
 *   fionread N            error N (SO_ERROR)                      fork N TEXT HOST PORT   pour N COUNT HOST PORT
 *   count N MOST          reads so many, or what has come when nothing has for 5 s: how many, and whether their numbers only grow
 *
 * The answer is one line: the result, or the name of the error.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLOTS = 10, WORDS = 8, TEXT = 65536 };

static const char *me, *other, *any;
static int fds[SLOTS], families[SLOTS], epolls[SLOTS];
static char *word[WORDS];
static int words;
static unsigned poured;

static int number(int i)
{
	return i < words ? atoi(word[i]) : 0;
}

static int slot(int i)
{
	return number(i) % SLOTS;
}

static socklen_t address(int s, const char *host, const char *port, struct sockaddr_storage *to)
{
	const char *text = !strcmp(host, "me")      ? me
			   : !strcmp(host, "other") ? other
			   : !strcmp(host, "any")   ? any
						    : host;
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = four.sin_port };

	inet_aton(text, &four.sin_addr);
	if (families[s] == 4) {
		memcpy(to, &four, sizeof(four));
		return sizeof(four);
	}
	if (four.sin_addr.s_addr) {
		memset(six.sin6_addr.s6_addr + 10, 0xff, 2);
		memcpy(six.sin6_addr.s6_addr + 12, &four.sin_addr, 4);
	}
	memcpy(to, &six, sizeof(six));
	return sizeof(six);
}

/* Ports that the kernel chose are not compared. */
static void say_address(const struct sockaddr_storage *a, socklen_t size)
{
	const struct sockaddr_in *four = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)a;
	struct in_addr ip = four->sin_addr;
	const char *text;
	unsigned port = ntohs(four->sin_port);

	if (!size) {
		printf("nobody");
		return;
	}
	if (a->ss_family == AF_INET6)
		memcpy(&ip, six->sin6_addr.s6_addr + 12, 4);
	text = inet_ntoa(ip);
	text = !strcmp(text, me) ? "me" : !strcmp(text, other) ? "other" : text;
	printf("%s%s %s", a->ss_family == AF_INET6 ? "[6]" : "", text, port >= 32768 ? "chosen" : "");
	if (port < 32768)
		printf("%u", port);
}

static void result(long n)
{
	if (n < 0)
		printf("%s\n", strerrorname_np(errno));
	else
		printf("%ld\n", n);
}

static long put(int s, const char *how, const char *text)
{
	struct sockaddr_storage to;
	socklen_t size = words > 5 ? address(s, word[4], word[5], &to) : 0;
	size_t n = strlen(text);
	struct iovec iov[2] = { { (void *)text, n / 2 }, { (void *)(text + n / 2), n - n / 2 } };
	struct msghdr msg = { .msg_name = size ? &to : NULL, .msg_namelen = size, .msg_iov = iov, .msg_iovlen = 2 };
	struct mmsghdr many[2] = { { .msg_hdr = msg }, { .msg_hdr = msg } };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control = { .head = { .cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo)),
				.cmsg_level = IPPROTO_IP,
				.cmsg_type = IP_PKTINFO } };
	struct in_pktinfo info = { 0 };

	if (!strcmp(how, "write"))
		return write(fds[s], text, n);
	if (!strcmp(how, "writev"))
		return writev(fds[s], iov, 2);
	if (!strcmp(how, "send"))
		return send(fds[s], text, n, 0);
	if (!strcmp(how, "sendto"))
		return sendto(fds[s], text, n, 0, size ? (struct sockaddr *)&to : NULL, size);
	if (!strcmp(how, "sendmmsg"))
		return sendmmsg(fds[s], many, 2, 0);
	if (!strcmp(how, "pktinfo")) {
		inet_aton(me, &info.ipi_spec_dst);
		memcpy(CMSG_DATA(&control.head), &info, sizeof(info));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	return sendmsg(fds[s], &msg, 0);
}

static void say_pktinfo(struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		struct in_pktinfo info;

		if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_PKTINFO)
			continue;
		memcpy(&info, CMSG_DATA(c), sizeof(info));
		printf(" for %s", strcmp(inet_ntoa(info.ipi_addr), me) ? inet_ntoa(info.ipi_addr) : "me");
	}
}

static void get(int s, const char *how)
{
	static char text[TEXT], more[TEXT], control[512];
	struct sockaddr_storage from = { 0 };
	socklen_t size = sizeof(from);
	struct iovec iov[2] = { { text, 3 }, { text + 3, sizeof(text) - 4 } }, second = { more, sizeof(more) };
	struct msghdr msg = { .msg_name = &from, .msg_namelen = size, .msg_iov = iov, .msg_iovlen = 2 };
	struct mmsghdr many[2] = { { .msg_hdr = msg }, { .msg_hdr = { .msg_iov = &second, .msg_iovlen = 1 } } };
	bool named = true;
	long n;

	memset(text, 0, sizeof(text));
	memset(more, 0, sizeof(more));
	if (!strcmp(how, "pktinfo")) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
	}
	if (!strcmp(how, "read")) {
		n = read(fds[s], text, sizeof(text) - 1);
		named = false;
	} else if (!strcmp(how, "readv")) {
		n = readv(fds[s], iov, 2);
		named = false;
	} else if (!strcmp(how, "recv")) {
		n = recv(fds[s], text, sizeof(text) - 1, 0);
		named = false;
	} else if (!strcmp(how, "recvfrom")) {
		n = recvfrom(fds[s], text, sizeof(text) - 1, 0, (struct sockaddr *)&from, &size);
	} else if (!strcmp(how, "peek")) {
		n = recvfrom(fds[s], text, sizeof(text) - 1, MSG_PEEK, (struct sockaddr *)&from, &size);
	} else if (!strcmp(how, "trunc")) {
		n = recvfrom(fds[s], text, 2, MSG_TRUNC, (struct sockaddr *)&from, &size);
	} else if (!strcmp(how, "recvmmsg")) {
		n = recvmmsg(fds[s], many, 2, MSG_WAITFORONE, NULL);
		size = many[0].msg_hdr.msg_namelen;
		if (n == 2)
			strcat(strcat(text, "+"), more);
	} else {
		n = recvmsg(fds[s], &msg, 0);
		size = msg.msg_namelen;
	}
	if (n < 0) {
		result(n);
		return;
	}
	printf("%ld %s", n, text);
	if (named) {
		printf(" from ");
		say_address(&from, size);
	}
	if (!strcmp(how, "pktinfo"))
		say_pktinfo(&msg);
	printf("\n");
}

static int wait_epoll(int s, uint32_t mode, int ms)
{
	struct epoll_event ev = { .events = EPOLLIN | mode, .data.u64 = 0x123456789abcull };

	if (!epolls[s]) {
		epolls[s] = epoll_create1(0);
		epoll_ctl(epolls[s], EPOLL_CTL_ADD, fds[s], &ev);
	} else if (mode & EPOLLONESHOT) {
		epoll_ctl(epolls[s], EPOLL_CTL_MOD, fds[s], &ev);
	}
	if (epoll_wait(epolls[s], &ev, 1, ms) != 1)
		return 0;
	return ev.data.u64 == 0x123456789abcull && ev.events & EPOLLIN;
}

static int wait_in(int s, const char *how, int ms)
{
	struct pollfd p = { .fd = fds[s], .events = POLLIN };
	struct timeval limit = { ms / 1000, ms % 1000 * 1000 };
	fd_set in;

	if (!strcmp(how, "poll"))
		return poll(&p, 1, ms) == 1 && p.revents & POLLIN;
	if (strcmp(how, "select"))
		return wait_epoll(s, !strcmp(how, "edge") ? EPOLLET : !strcmp(how, "oneshot") ? EPOLLONESHOT : 0, ms);
	FD_ZERO(&in);
	FD_SET(fds[s], &in);
	return select(fds[s] + 1, &in, NULL, NULL, &limit) == 1;
}

static void names(int s, bool peer)
{
	struct sockaddr_storage a = { 0 };
	socklen_t size = sizeof(a);
	int n = peer ? getpeername(fds[s], (struct sockaddr *)&a, &size)
		     : getsockname(fds[s], (struct sockaddr *)&a, &size);

	if (n < 0) {
		result(n);
		return;
	}
	say_address(&a, size);
	printf("\n");
}

static void fork_and_put(int s)
{
	pid_t pid = fork();
	struct sockaddr_storage to;
	socklen_t size = address(s, word[3], word[4], &to);
	int status = -1;

	if (pid == 0)
		_exit(sendto(fds[s], word[2], strlen(word[2]), 0, (struct sockaddr *)&to, size) < 0 ? errno : 0);
	waitpid(pid, &status, 0);
	printf("%d\n", WEXITSTATUS(status));
}

/* Numbered datagrams; without HOST to the peer, by write. */
static void pour(int s)
{
	struct sockaddr_storage to;
	socklen_t size = words > 4 ? address(s, word[3], word[4], &to) : 0;
	long failed = 0;

	for (int i = 0; i < number(2); i++) {
		unsigned n = ++poured;

		if (size)
			failed += sendto(fds[s], &n, sizeof(n), 0, (struct sockaddr *)&to, size) < 0;
		else
			failed += write(fds[s], &n, sizeof(n)) < 0;
	}
	printf("%ld\n", failed);
}

static void tally(int s)
{
	struct pollfd p = { .fd = fds[s], .events = POLLIN };
	unsigned last = 0, n, count = 0, wanted = (unsigned)number(2);
	bool grows = true;

	while (count < wanted && poll(&p, 1, 5000) > 0 && recv(fds[s], &n, sizeof(n), MSG_DONTWAIT) == sizeof(n)) {
		grows = grows && n > last;
		last = n;
		count++;
	}
	printf("%u %s\n", count, grows ? "in order" : "out of order");
}

static void set_timeout(int s)
{
	struct timeval limit = { number(2) / 1000, number(2) % 1000 * 1000 };

	result(setsockopt(fds[s], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
}

static void option(int s, bool set)
{
	int value = set ? number(4) : -1;
	socklen_t size = sizeof(value);
	int n = set ? setsockopt(fds[s], number(2), number(3), &value, size)
		    : getsockopt(fds[s], number(2), number(3), &value, &size);

	result(n < 0 ? n : set ? n : value);
}

static void forget(int s)
{
	if (epolls[s])
		close(epolls[s]);
	epolls[s] = 0;
	result(close(fds[s]));
}

static void run(int s)
{
	const struct sockaddr none = { .sa_family = AF_UNSPEC };
	struct sockaddr_storage to;
	const char *call = word[0];
	int value = 0;

	if (!strcmp(call, "new")) {
		families[s] = number(2);
		fds[s] = socket(families[s] == 6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
		printf("%s\n", fds[s] < 0 ? strerrorname_np(errno) : "ok");
	} else if (!strcmp(call, "bind")) {
		result(bind(fds[s], (struct sockaddr *)&to, address(s, word[2], word[3], &to)));
	} else if (!strcmp(call, "connect")) {
		result(connect(fds[s], (struct sockaddr *)&to, address(s, word[2], word[3], &to)));
	} else if (!strcmp(call, "disconnect")) {
		result(connect(fds[s], &none, sizeof(none)));
	} else if (!strcmp(call, "put")) {
		result(put(s, word[2], word[3]));
	} else if (!strcmp(call, "get")) {
		get(s, word[2]);
	} else if (!strcmp(call, "wait")) {
		result(wait_in(s, word[2], number(3)));
	} else if (!strcmp(call, "name") || !strcmp(call, "peer")) {
		names(s, *call == 'p');
	} else if (!strcmp(call, "dup")) {
		families[slot(2)] = families[s];
		fds[slot(2)] = dup(fds[s]);
		printf("%s\n", fds[slot(2)] < 0 ? strerrorname_np(errno) : "ok");
	} else if (!strcmp(call, "close")) {
		forget(s);
	} else if (!strcmp(call, "shut")) {
		result(shutdown(fds[s], !strcmp(word[2], "rd")   ? SHUT_RD
					: !strcmp(word[2], "wr") ? SHUT_WR
								 : SHUT_RDWR));
	} else if (!strcmp(call, "set") || !strcmp(call, "opt")) {
		option(s, *call == 's');
	} else if (!strcmp(call, "nonblock")) {
		result(fcntl(fds[s], F_SETFL, number(2) ? O_NONBLOCK : 0));
	} else if (!strcmp(call, "timeo")) {
		set_timeout(s);
	} else if (!strcmp(call, "fionread")) {
		result(ioctl(fds[s], FIONREAD, &value) < 0 ? -1 : value);
	} else if (!strcmp(call, "error")) {
		socklen_t size = sizeof(value);

		getsockopt(fds[s], SOL_SOCKET, SO_ERROR, &value, &size);
		printf("%s\n", value ? strerrorname_np(value) : "0");
	} else if (!strcmp(call, "fork")) {
		fork_and_put(s);
	} else if (!strcmp(call, "pour")) {
		pour(s);
	} else if (!strcmp(call, "count")) {
		tally(s);
	} else {
		printf("what?\n");
	}
}

int main(int argc, char **argv)
{
	static char line[256];

	if (argc != 4)
		return 2;
	me = argv[1];
	other = argv[2];
	any = argv[3];
	while (fgets(line, sizeof(line), stdin)) {
		words = 0;
		for (char *w = strtok(line, " \n"); w && words < WORDS; w = strtok(NULL, " \n"))
			word[words++] = w;
		if (words > 1)
			run(slot(1));
		fflush(stdout);
	}
	return 0;
}
