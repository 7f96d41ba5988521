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
	struct child_start given = {start, arg}; /* the child has it in its copy of this stack */
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
