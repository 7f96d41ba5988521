/* SPDX-License-Identifier: MIT */
/*
 * refuse WHAT: does something that cannot move, asks for a move, undoes it,
 * asks again.  The mover is told to expect exactly the first refusal (-x).
 */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>
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

/* Somebody may open it by its name. */
static void do_named(void)
{
	fd[0] = shm_open("/msock-refuse", O_RDWR | O_CREAT, 0600);
	if (ftruncate(fd[0], 4096) == 0)
		map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd[0], 0);
	close(fd[0]);
}

static void undo_named(void)
{
	munmap(map, 4096);
	shm_unlink("/msock-refuse");
}

static int segment;

static void do_segment(void)
{
	segment = shmget(IPC_PRIVATE, 4096, 0600);
	map = shmat(segment, NULL, 0);
}

static void undo_segment(void)
{
	shmdt(map);
	shmctl(segment, IPC_RMID, NULL);
}

static void do_flying(void)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte = 'x';
	struct iovec iov = { &byte, 1 };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};

	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(sizeof(int));
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
		exit(1);
	memcpy(CMSG_DATA(&control.head), &fd[0], sizeof(int));
	if (sendmsg(fd[1], &m, 0) != 1)
		exit(1);
}

static void do_listener(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	fd[0] = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(fd[0], (struct sockaddr *)&at, sizeof(sa_family_t)) || listen(fd[0], 1))
		exit(1);
}

static void do_lease(void)
{
	char path[] = "/tmp/msock-refuse-XXXXXX";

	close(mkstemp(path));
	fd[0] = open(path, O_RDONLY);
	unlink(path);
	if (fcntl(fd[0], F_SETLEASE, F_RDLCK))
		exit(1);
}

static char cwd[] = "/tmp/msock-refuse-XXXXXX";

static void do_directory(void)
{
	if (!mkdtemp(cwd) || chdir(cwd) || rmdir(cwd))
		exit(1);
}

static void undo_directory(void)
{
	if (chdir("/"))
		exit(1);
}

/* One that allows everything, but it could be any. */
static void do_filter(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { 1, &allow };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		exit(1);
}

static void do_inotify(void)
{
	fd[0] = (int)syscall(SYS_inotify_init1, 0);
}

static const struct {
	const char *name;
	void (*begin)(void), (*end)(void);
} all[] = {
	{ "child", do_child, undo_child },
	{ "socket", do_socket, close_both },
	{ "fifo", do_fifo, close_both },
	{ "pipe", do_pipe, undo_pipe },
	{ "device", do_device, close_both },
	{ "named", do_named, undo_named },
	{ "segment", do_segment, undo_segment },
	{ "flying", do_flying, close_both },
	{ "listener", do_listener, close_both },
	{ "lease", do_lease, close_both },
	{ "directory", do_directory, undo_directory },
	{ "inotify", do_inotify, close_both },
	{ "filter", do_filter, NULL },
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
		if (!all[i].end)
			return 0; /* there is no way back */
		all[i].end();
		return member_move() ? 4 : 0;
	}
	return 2;
}
