/* SPDX-License-Identifier: MIT */
/*
 * knock - virtual connections on demand, for tests of naming.
 *
 * usage: knock serve | knock call
 *
 * serve: prints "ADDRESS PORT" and echoes what connections bring, until it is killed.
 * call: for each line "ADDRESS PORT" of stdin, one connection that is used for one byte
 * there and back; prints "ok", or "errno N".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "msock.h"

static void echo(int sd)
{
	char byte;
	struct iovec v = { &byte, 1 };
	ssize_t n = msock_readv(sd, &v, 1);

	if (n > 0)
		msock_writev(sd, &v, 1);
	else if (n == 0 || errno != EAGAIN)
		msock_close(sd);
}

static int serve(void)
{
	struct sockaddr_in at;
	int listener = msock_listen(16, &at), sd;
	struct msock_event ev;

	if (listener < 0)
		return 1;
	printf("%s %u\n", inet_ntoa(at.sin_addr), ntohs(at.sin_port));
	fflush(stdout);
	msock_want(listener, MSOCK_READ, NULL);
	while (msock_wait(&ev, 1, -1) == 1) {
		if (ev.sd != listener) {
			echo(ev.sd);
			continue;
		}
		while ((sd = msock_accept(listener, NULL)) >= 0)
			msock_want(sd, MSOCK_READ, NULL);
	}
	return 1;
}

static int await(int sd, unsigned events)
{
	struct msock_event ev;

	msock_want(sd, events, NULL);
	if (msock_wait(&ev, 1, -1) != 1 || ev.sd != sd)
		return EPROTO;
	return msock_error(sd);
}

static int call(const struct sockaddr_in *to)
{
	char byte = 'x', back = 0;
	struct iovec out = { &byte, 1 }, in = { &back, 1 };
	int sd = msock_connect(to), error;

	if (sd < 0)
		return errno;
	error = await(sd, MSOCK_WRITE);
	if (!error && msock_writev(sd, &out, 1) != 1)
		error = errno;
	if (!error)
		error = await(sd, MSOCK_READ);
	if (!error && (msock_readv(sd, &in, 1) != 1 || back != byte))
		error = EPROTO;
	msock_close(sd);
	return error;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	char line[64], ip[32];
	unsigned port;

	if (argc != 2 || msock_init())
		return 2;
	if (!strcmp(argv[1], "serve"))
		return serve();
	printf("up\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) && sscanf(line, "%31s %u", ip, &port) == 2) {
		int error;

		to.sin_addr.s_addr = inet_addr(ip);
		to.sin_port = htons((uint16_t)port);
		error = call(&to);
		if (error)
			printf("errno %d\n", error);
		else
			printf("ok\n");
		fflush(stdout);
	}
	return 0;
}
