/* SPDX-License-Identifier: MIT */
/*
 * children.c - the library is told of forks.
 *
 * fork and what uses it inside of the C library run the pthread_atfork handler
 * that preload.c registers; here is what does not.  A vfork or posix_spawn
 * child needs nothing: it has another pid, so the kernel and the agent never
 * kick it, and shares the member's memory until it execs, so it must not
 * change anything either.
 */
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <unistd.h>

#include "lib/hooks.h"
#include "preload/preload.h"
#include "preload/real.h"

int __clone(int (*start)(void *arg), void *stack, int flags, void *arg, ...);

PRELOAD_API pid_t _Fork(void)
{
	pid_t pid;

	if (!preload_active())
		return REAL(_Fork)();
	msock__before_fork();
	pid = REAL(_Fork)();
	if (pid == 0)
		preload_after_fork_child();
	else
		msock__after_fork_parent();
	return pid;
}

struct child_start {
	int (*start)(void *arg);
	void *arg;
};

static int child_entry(void *given)
{
	struct child_start *start = given;

	preload_after_fork_child();
	return start->start(start->arg);
}

static int child_clone(int (*start)(void *arg), void *stack, int flags, void *arg, va_list more)
{
	struct child_start given = { start, arg }; /* the child has it in its copy of this stack */
	pid_t *parent_tid = va_arg(more, pid_t *);
	void *tls = va_arg(more, void *);
	pid_t *child_tid = va_arg(more, pid_t *);
	int pid;

	if (flags & CLONE_VM || !preload_active())
		return REAL(clone)(start, stack, flags, arg, parent_tid, tls, child_tid);
	msock__before_fork();
	pid = REAL(clone)(child_entry, stack, flags, &given, parent_tid, tls, child_tid);
	msock__after_fork_parent();
	return pid;
}

PRELOAD_API int clone(int (*start)(void *arg), void *stack, int flags, void *arg, ...)
{
	va_list more;
	int pid;

	va_start(more, arg);
	pid = child_clone(start, stack, flags, arg, more);
	va_end(more);
	return pid;
}

PRELOAD_API int __clone(int (*start)(void *arg), void *stack, int flags, void *arg, ...)
{
	va_list more;
	int pid;

	va_start(more, arg);
	pid = child_clone(start, stack, flags, arg, more);
	va_end(more);
	return pid;
}

static bool child_exec_refused(void)
{
	int err = msock__before_exec();

	errno = err ? -err : errno;
	return err != 0;
}

static int child_exec(int (*call)(const char *, char *const[], char *const[]), const char *path, char *const argv[],
		      char *const env[])
{
	bool own = preload_active() && preload_own_memory();
	int result, saved;

	if (own && child_exec_refused())
		return -1;
	result = call(path, argv, env);
	saved = errno;
	if (own)
		msock__exec_failed();
	errno = saved;
	return result;
}

PRELOAD_API int execve(const char *path, char *const argv[], char *const env[])
{
	return child_exec(REAL(execve), path, argv, env);
}

PRELOAD_API int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

PRELOAD_API int execvpe(const char *file, char *const argv[], char *const env[])
{
	return child_exec(REAL(execvpe), file, argv, env);
}

PRELOAD_API int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

PRELOAD_API int fexecve(int fd, char *const argv[], char *const env[])
{
	bool own = preload_active() && preload_own_memory();
	int result, saved;

	if (own && child_exec_refused())
		return -1;
	result = REAL(fexecve)(fd, argv, env);
	saved = errno;
	if (own)
		msock__exec_failed();
	errno = saved;
	return result;
}

enum { CHILD_WORDS = 4096 }; /* of a call that names them one by one */

/* The words behind the first, and the NULL; false: too many. */
static bool child_words(char *argv[CHILD_WORDS], const char *first, va_list *more)
{
	size_t n = 0;

	argv[n++] = (char *)first;
	while (argv[n - 1] && n < CHILD_WORDS)
		argv[n++] = va_arg(*more, char *);
	if (!argv[n - 1])
		return true;
	errno = E2BIG;
	return false;
}

PRELOAD_API int execl(const char *path, const char *first, ...)
{
	char *argv[CHILD_WORDS];
	va_list more;
	bool good;

	va_start(more, first);
	good = child_words(argv, first, &more);
	va_end(more);
	return good ? execve(path, argv, environ) : -1;
}

PRELOAD_API int execlp(const char *file, const char *first, ...)
{
	char *argv[CHILD_WORDS];
	va_list more;
	bool good;

	va_start(more, first);
	good = child_words(argv, first, &more);
	va_end(more);
	return good ? execvpe(file, argv, environ) : -1;
}

PRELOAD_API int execle(const char *path, const char *first, ...)
{
	char *argv[CHILD_WORDS], *const *env = NULL;
	va_list more;
	bool good;

	va_start(more, first);
	good = child_words(argv, first, &more);
	if (good)
		env = va_arg(more, char *const *);
	va_end(more);
	return good ? execve(path, argv, env) : -1;
}
