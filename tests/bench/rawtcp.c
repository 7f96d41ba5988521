/* SPDX-License-Identifier: MIT */
/*
 * rawtcp - how long that many bytes take over one TCP connection of the loopback, into populated memory, or into
 * memory that the receiver has not had before, which the system has to find meanwhile.
 *
 * usage: rawtcp BYTES [REPEAT [new]]
 *
 * Prints milliseconds, from the first write until the receiver's answer, one line for each time.
 */
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static char *new_memory(size_t bytes)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		exit(1);
	return p;
}

static char *memory(size_t bytes)
{
	return memset(new_memory(bytes), 1, bytes);
}

static void pass(ssize_t (*call)(int, char *, size_t), int fd, char *buffer, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = call(fd, buffer + done, bytes - done);

		if (n <= 0)
			exit(1);
		done += (size_t)n;
	}
}

static ssize_t take(int fd, char *buffer, size_t bytes)
{
	return read(fd, buffer, bytes);
}

static ssize_t give(int fd, char *buffer, size_t bytes)
{
	return write(fd, buffer, bytes);
}

int main(int argc, char **argv)
{
	size_t bytes = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
	int repeat = argc > 2 ? atoi(argv[2]) : 1, i, fd, listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	bool renew = argc > 3 && !strcmp(argv[3], "new");
	char *buffer, answer = 0;

	if (bytes == 0 || bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &len) < 0) {
		fprintf(stderr, "usage: rawtcp BYTES [REPEAT [new]]\n");
		return 2;
	}
	if (fork() == 0) {
		fd = accept(listener, NULL, NULL);
		buffer = renew ? new_memory(bytes) : memory(bytes);
		pass(give, fd, &answer, 1);
		for (i = 0; i < repeat; i++) {
			pass(take, fd, buffer, bytes);
			pass(give, fd, &answer, 1);
		}
		_exit(0);
	}
	fd = socket(AF_INET, SOCK_STREAM, 0);
	buffer = memory(bytes);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return 1;
	pass(take, fd, &answer, 1); /* it is ready */
	for (i = 0; i < repeat; i++) {
		double start = now_ms();

		pass(give, fd, buffer, bytes);
		pass(take, fd, &answer, 1);
		printf("%.2f\n", now_ms() - start);
	}
	return wait(NULL) < 0;
}
