/* SPDX-License-Identifier: MIT */
/*
 * preload.c - start of libmsock-preload.so in a process.
 */
#include "preload/preload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/hooks.h"
#include "msock.h"
#include "preload/actions.h"
#include "preload/sockets.h"

struct preload preload = { .control_fd = -1 };

static __thread bool kick_masked __attribute__((tls_model("initial-exec")));

bool preload_kick_masked(void)
{
	return kick_masked;
}

void preload_kick_mask(bool masked)
{
	kick_masked = masked;
}

bool preload_own_memory(void)
{
	return syscall(SYS_getpid) == preload.owner;
}

void preload_after_fork_child(void)
{
	preload.owner = syscall(SYS_getpid);
	preload.control_fd = -1;
	actions_after_fork_child();
	msock__after_fork_child();
}

/* Without getenv: some programs (bash) bring their own, which may not work yet. */
static const char *preload_env(const char *name)
{
	size_t n = strlen(name);

	for (char **e = environ; e && *e; e++)
		if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
			return *e + n + 1;
	return NULL;
}

/* The control socket that msdaemon gave, or -1: MSOCK_FD may also be left over from a parent. */
static int preload_control_fd(void)
{
	const char *text = preload_env("MSOCK_FD");
	char *end;
	long fd = text ? strtol(text, &end, 10) : -1;
	int type = 0;
	socklen_t size = sizeof(type);
	struct stat st;

	if (!text || end == text || *end || fd < 0 || fd > INT32_MAX)
		return -1;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_SEQPACKET || fstat(fd, &st) < 0)
		return -1;
	preload.control_dev = st.st_dev;
	preload.control_ino = st.st_ino;
	return fd;
}

/*
 * A kick that the program before an exec left blocked is unblocked, so that
 * threads which are made before msock_init can be reached later.  One that
 * waits is taken first: nothing handles it yet.
 */
static void preload_unblock_kick(void)
{
	struct timespec now = { 0 };
	uint64_t set = preload.kick_bit;

	while (syscall(SYS_rt_sigtimedwait, &set, NULL, &now, sizeof(set)) > 0)
		;
	syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &set, NULL, sizeof(set));
}

void preload_init(void)
{
	int saved = errno;

	if (preload.ready)
		return;
	preload.kick = msock__kick_signal();
	preload.kick_bit = (uint64_t)1 << (preload.kick - 1);
	preload.owner = syscall(SYS_getpid);
	preload.control_fd = preload_control_fd();
	preload.active = preload.control_fd >= 0;
	__atomic_store_n(&preload.ready, true, __ATOMIC_RELEASE);
	if (preload.active) {
		preload_unblock_kick();
		pthread_atfork(msock__before_fork, msock__after_fork_parent, preload_after_fork_child);
	}
	errno = saved;
}

/* The word's value, or NULL. It is taken out of the environment: after an exec there is no socket to join by. */
static const char *preload_take_join(void)
{
	static const char word[] = "MSOCK_JOIN=";
	char **to = environ;
	const char *found = NULL;

	for (char **from = environ; from && *from; from++) {
		if (strncmp(*from, word, sizeof(word) - 1) == 0)
			found = *from + sizeof(word) - 1;
		else
			*to++ = *from;
	}
	if (found)
		*to = NULL;
	return found;
}

/* Under msrun a program becomes a member here, under mpiexec in MPI_Init. A failure is in the library's log. */
static __attribute__((constructor)) void preload_start(void)
{
	const char *join;
	int saved = errno;

	preload_init();
	join = preload_take_join();
	if (join && preload.active && msock_init() == 0 && strncmp(join, "sockets", 7) == 0)
		sockets_start(strcmp(join, "sockets,udp") == 0);
	errno = saved;
}
