/* SPDX-License-Identifier: MIT */
/*
 * crowd - many streams between two programs that know nothing of msock.
 *
 *   crowd serve PORT COUNT       takes COUNT connections, then echoes
 *   crowd call IP PORT COUNT     makes them; each line of standard input has something said on all of them
 *
 * The caller prints "all MS": how long it took until each stream had its answer, which is checked.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64 };

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int serve(int listener, int count)
{
	struct epoll_event got[BATCH], ev = { .events = EPOLLIN };
	int ep = epoll_create1(0), left = count;

	for (int i = 0; i < count; i++) {
		ev.data.fd = accept(listener, NULL, NULL);
		if (ev.data.fd < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, ev.data.fd, &ev))
			die("accept");
	}
	puts("all");
	fflush(stdout);
	while (left) {
		int n = epoll_wait(ep, got, BATCH, -1);

		for (int i = 0; i < n; i++) {
			uint32_t word;
			ssize_t bytes = read(got[i].data.fd, &word, sizeof(word));

			if (bytes == sizeof(word) && write(got[i].data.fd, &word, sizeof(word)) != sizeof(word))
				die("write");
			if (bytes == 0)
				close(got[i].data.fd), left--;
			else if (bytes != sizeof(word))
				die("read");
		}
	}
	return 0;
}

static int call(const struct sockaddr_in *to, int count)
{
	int *fds = calloc((size_t)count, sizeof(*fds));
	char line[64];
	uint32_t turn = 0;

	for (int i = 0; i < count; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		if (fds[i] < 0 || connect(fds[i], (const struct sockaddr *)to, sizeof(*to)))
			die("connect");
	}
	puts("all");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		double start = now_ms();

		turn++;
		for (int i = 0; i < count; i++) {
			uint32_t word = turn << 16 | (uint32_t)i;

			if (write(fds[i], &word, sizeof(word)) != sizeof(word))
				die("write");
		}
		for (int i = 0; i < count; i++) {
			uint32_t word = 0;

			if (recv(fds[i], &word, sizeof(word), MSG_WAITALL) != sizeof(word) ||
			    word != (turn << 16 | (uint32_t)i))
				die("a wrong answer");
		}
		printf("all %.1f\n", now_ms() - start);
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct rlimit limit;
	struct sockaddr_in at = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (argc < 4)
		return 2;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	at.sin_port = htons((uint16_t)atoi(argv[argc - 2]));
	if (!strcmp(argv[1], "serve")) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 4096))
			die("listen");
		puts("ready");
		fflush(stdout);
		return serve(fd, atoi(argv[argc - 1]));
	}
	close(fd);
	inet_aton(argv[2], &at.sin_addr);
	return call(&at, atoi(argv[argc - 1]));
}
