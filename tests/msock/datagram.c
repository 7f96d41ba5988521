/* SPDX-License-Identifier: MIT */
/*
 * datagram - virtual UDP sockets, for tests of what becomes of datagrams at moves.
 *
 * usage: datagram echo | datagram call | datagram sink | datagram pour | datagram rules
 *
 * echo: prints "ADDRESS PORT" and sends back what comes, until it is killed.
 * call: prints its "ADDRESS PORT"; for each line "ADDRESS PORT N" of stdin, N datagrams one after the other, each sent
 *       again every 50 ms until it has come back; prints "ok", or what was wrong.
 * sink: prints "ADDRESS PORT"; at a line of stdin, takes what is there and prints the numbers in it, in their order.
 * pour: prints "up"; for each line "ADDRESS PORT FROM TO", one datagram for each number; prints "ok".
 * rules: prints how bind, connect and the like answer, a line each.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "msock.h"

static int open_bound(unsigned port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int sd = msock_udp_open();

	if (sd < 0 || msock_udp_bind(sd, &at))
		exit(1);
	printf("%s %u\n", inet_ntoa(at.sin_addr), ntohs(at.sin_port));
	fflush(stdout);
	msock_want(sd, MSOCK_READ, NULL);
	return sd;
}

static int readable(int sd, int timeout_ms)
{
	struct msock_event ev;

	return msock_wait(&ev, 1, timeout_ms) == 1 && ev.sd == sd;
}

static int echo(void)
{
	static char data[65536];
	int sd = open_bound(5000);

	for (;;) {
		struct iovec v = { data, sizeof(data) };
		struct sockaddr_in from;
		ssize_t n;

		if (!readable(sd, -1))
			return 1;
		n = msock_udp_recvfrom(sd, &v, 1, &from);
		v.iov_len = (size_t)n;
		if (n >= 0)
			msock_udp_sendto(sd, &v, 1, &from);
	}
}

static const char *ping(int sd, const struct sockaddr_in *to, unsigned number)
{
	static char out[30000], in[65536];
	size_t size = sizeof(number) + number * 37 % (sizeof(out) - sizeof(number));

	memset(out, (int)number, sizeof(out));
	memcpy(out, &number, sizeof(number));
	for (int tries = 0; tries < 600; tries++) {
		struct iovec o = { out, size }, i = { in, sizeof(in) };
		struct sockaddr_in from;
		ssize_t n;

		if (msock_udp_sendto(sd, &o, 1, to) != (ssize_t)size)
			return strerror(errno);
		while (readable(sd, 50)) {
			n = msock_udp_recvfrom(sd, &i, 1, &from);
			if (n < 0 && errno != EAGAIN)
				return strerror(errno);
			if (n < 0 || (n >= (ssize_t)sizeof(number) && memcmp(in, &number, sizeof(number))))
				continue; /* one that was sent twice */
			if (n != (ssize_t)size || memcmp(in, out, size))
				return "other bytes";
			if (from.sin_addr.s_addr != to->sin_addr.s_addr || from.sin_port != to->sin_port)
				return "from elsewhere";
			return NULL;
		}
	}
	return "no answer";
}

static int call(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	unsigned port, count, number = 0;
	int sd = open_bound(0);
	char line[100], ip[32];

	while (fgets(line, sizeof(line), stdin) && sscanf(line, "%31s %u %u", ip, &port, &count) == 3) {
		const char *wrong = NULL;

		to.sin_addr.s_addr = inet_addr(ip);
		to.sin_port = htons((uint16_t)port);
		while (count-- && !wrong)
			wrong = ping(sd, &to, ++number);
		printf("%s\n", wrong ? wrong : "ok");
		fflush(stdout);
	}
	return 0;
}

static int sink(void)
{
	int sd = open_bound(6000);
	char line[16];

	while (fgets(line, sizeof(line), stdin)) {
		unsigned number;
		struct iovec v = { &number, sizeof(number) };

		while (readable(sd, 200))
			if (msock_udp_recvfrom(sd, &v, 1, NULL) == sizeof(number))
				printf("%u ", number);
		printf("\n");
		fflush(stdout);
	}
	return 0;
}

static int pour(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	unsigned port, from, upto;
	int sd = msock_udp_open();
	char line[100], ip[32];

	printf("up\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) && sscanf(line, "%31s %u %u %u", ip, &port, &from, &upto) == 4) {
		to.sin_addr.s_addr = inet_addr(ip);
		to.sin_port = htons((uint16_t)port);
		for (unsigned n = from; n <= upto; n++) {
			struct iovec v = { &n, sizeof(n) };

			msock_udp_sendto(sd, &v, 1, &to);
		}
		printf("ok\n");
		fflush(stdout);
	}
	return 0;
}

static void say(const char *what, long result)
{
	printf("%s: %s\n", what, result < 0 ? strerror(errno) : "ok");
}

static int rules(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(7000) }, own, other = at, free_port;
	int a = msock_udp_open(), b = msock_udp_open(), c = msock_udp_open();
	char byte = 0;
	struct iovec v = { &byte, 1 };
	ssize_t n;

	own = at;
	say("bind", msock_udp_bind(a, &own));
	say("bind again", msock_udp_bind(a, &own));
	say("the same port", msock_udp_bind(b, &own));
	at.sin_addr.s_addr = 0;
	say("the same port of any address", msock_udp_bind(b, &at));
	other.sin_addr.s_addr = inet_addr("100.64.77.77");
	say("another's address", msock_udp_bind(b, &other));
	say("send without address", msock_udp_sendto(b, &v, 1, NULL));
	free_port = own;
	free_port.sin_port = htons(7001);
	say("connect", msock_udp_connect(b, &free_port));
	say("send", msock_udp_sendto(b, &v, 1, NULL));
	n = msock_udp_recvfrom(b, &v, 1, NULL);
	say("where nobody is bound", n);
	say("connect to ours", msock_udp_connect(c, &own));
	say("send to ours", msock_udp_sendto(c, &v, 1, NULL));
	msock_want(a, MSOCK_READ, NULL);
	readable(a, -1);
	say("receive", msock_udp_recvfrom(a, &v, 1, &other));
	say("receive again", msock_udp_recvfrom(a, &v, 1, &other));
	say("close", msock_close(a));
	b = msock_udp_open();
	say("bind after close", msock_udp_bind(b, &own));
	say("a bad number", msock_udp_bind(0, &own));
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(void);
	} parts[] = { { "echo", echo }, { "call", call }, { "sink", sink }, { "pour", pour }, { "rules", rules } };

	if (argc != 2 || msock_init())
		return 2;
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
		if (!strcmp(argv[1], parts[i].name))
			return parts[i].run();
	return 2;
}
