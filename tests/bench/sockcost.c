/* SPDX-License-Identifier: MIT */
/*
 * sockcost - what a stream costs a program that knows nothing of msock.
 *
 *   sockcost serve PORT CPU        one connection, then it ends
 *   sockcost call IP PORT CPU      prints "pingpong SIZE NS" and "write SIZE NS"
 *
 * pingpong: half of a round trip.  write: one of many writes in a row, until the
 * peer has read them all.  The least of several rounds each: what the machine
 * does besides only adds to it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 7, TRIPS = 300, WRITES = 1500, MOST = 65536, SIZES = 6 };

static const size_t sizes[SIZES] = { 1, 64, 512, 4096, 16384, 65536 };
static char buf[MOST];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void write_all(int fd, size_t n)
{
	while (n) {
		ssize_t done = write(fd, buf, n);

		if (done <= 0)
			die("write");
		n -= (size_t)done;
	}
}

static void read_all(int fd, size_t n)
{
	while (n) {
		ssize_t done = read(fd, buf, n < MOST ? n : MOST);

		if (done <= 0)
			die("read");
		n -= (size_t)done;
	}
}

static void pin(const char *cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(atoi(cpu), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void serve(int fd)
{
	for (int s = 0; s < SIZES; s++) {
		for (int i = 0; i < ROUNDS * TRIPS; i++) {
			read_all(fd, sizes[s]);
			write_all(fd, sizes[s]);
		}
		for (int i = 0; i < ROUNDS; i++) {
			read_all(fd, WRITES * sizes[s]);
			write_all(fd, 1);
		}
	}
}

static void call(int fd)
{
	for (int s = 0; s < SIZES; s++) {
		uint64_t least = UINT64_MAX, start, took;

		for (int r = 0; r < ROUNDS; r++) {
			start = now_ns();
			for (int i = 0; i < TRIPS; i++) {
				write_all(fd, sizes[s]);
				read_all(fd, sizes[s]);
			}
			took = now_ns() - start;
			least = took < least ? took : least;
		}
		printf("pingpong %zu %.1f\n", sizes[s], (double)least / TRIPS / 2);
		least = UINT64_MAX;
		for (int r = 0; r < ROUNDS; r++) {
			start = now_ns();
			for (int i = 0; i < WRITES; i++)
				write_all(fd, sizes[s]);
			read_all(fd, 1);
			took = now_ns() - start;
			least = took < least ? took : least;
		}
		printf("write %zu %.1f\n", sizes[s], (double)least / WRITES);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (fd < 0 || argc < 4)
		return 2;
	pin(argv[argc - 1]);
	at.sin_port = htons((uint16_t)atoi(argv[argc - 2]));
	if (!strcmp(argv[1], "serve")) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 1))
			die("listen");
		puts("ready");
		fflush(stdout);
		fd = accept(fd, NULL, NULL);
		if (fd < 0)
			die("accept");
	} else if (inet_aton(argv[2], &at.sin_addr) == 0 || connect(fd, (struct sockaddr *)&at, sizeof(at))) {
		die("connect");
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!strcmp(argv[1], "serve"))
		serve(fd);
	else
		call(fd);
	close(fd);
	return 0;
}
