/* SPDX-License-Identifier: MIT */
/*
 * refuse WHAT: does something that cannot move, asks for a move, undoes it,
 * asks again.  The mover is told to expect exactly the first refusal (-x).
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "member.h"

static pid_t child;
static int fd[2] = { -1, -1 };
static void *map;

static void do_child(void)
{
	child = fork();
	if (child == 0) {
		close(1); /* the mover reads to the end of it */
		pause();
		_exit(0);
	}
}

static void undo_child(void)
{
	kill(child, 9);
	waitpid(child, NULL, 0);
}

static void close_both(void)
{
	close(fd[0]);
	close(fd[1]);
}

static void do_socket(void)
{
	fd[0] = socket(AF_INET, SOCK_DGRAM, 0);
}

static void do_fifo(void)
{
	char path[] = "/tmp/msock-refuse-XXXXXX";

	close(mkstemp(path));
	unlink(path);
	mkfifo(path, 0600);
	fd[0] = open(path, O_RDWR);
	unlink(path);
}

/* The other end is with a process that is no child any more. */
static void do_pipe(void)
{
	int told[2];

	if (pipe(fd) || pipe(told))
		exit(1);
	child = fork();
	if (child == 0) {
		child = fork();
		if (child == 0) {
			close(1);
			close(told[0]);
			close(told[1]);
			close(fd[0]);
			pause();
			_exit(0);
		}
		_exit(write(told[1], &child, sizeof(child)) != sizeof(child));
	}
	waitpid(child, NULL, 0);
	if (read(told[0], &child, sizeof(child)) != sizeof(child))
		exit(1);
	close(told[0]);
	close(told[1]);
	close(fd[1]);
	fd[1] = -1;
}

static void undo_pipe(void)
{
	kill(child, 9);
	close_both();
}

static void do_device(void)
{
	fd[0] = open("/dev/ptmx", O_RDWR | O_NOCTTY);
}

static void do_memfd(void)
{
	fd[0] = memfd_create("mine", 0);
	if (ftruncate(fd[0], 4096) == 0)
		map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd[0], 0);
	close(fd[0]);
}

static void undo_map(void)
{
	munmap(map, 4096);
}

static void do_inotify(void)
{
	fd[0] = (int)syscall(SYS_inotify_init1, 0);
}

static const struct {
	const char *name;
	void (*begin)(void), (*end)(void);
} all[] = {
	{ "child", do_child, undo_child },     { "socket", do_socket, close_both }, { "fifo", do_fifo, close_both },
	{ "pipe", do_pipe, undo_pipe },       { "device", do_device, close_both }, { "memfd", do_memfd, undo_map },
	{ "inotify", do_inotify, close_both },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(all) / sizeof(all[0]); i++) {
		char line[8];
		unsigned before = member_moves;

		if (strcmp(argv[1], all[i].name))
			continue;
		all[i].begin();
		if (write(1, "refused?\n", 9) != 9 || read(0, line, 1) != 1)
			return 1;
		if (member_moves != before)
			return 3;
		all[i].end();
		return member_move() ? 4 : 0;
	}
	return 2;
}
