/* SPDX-License-Identifier: MIT */
#include "preload/real.h"

#include <dlfcn.h>
#include <errno.h>

#define REAL_NAME(name) [REAL_##name] = #name

static const char *const real_names[REAL_COUNT] = {
	REAL_NAME(sigaction),
	REAL_NAME(pthread_sigmask),
	REAL_NAME(sigpending),
	REAL_NAME(sigwait),
	REAL_NAME(signalfd),
	REAL_NAME(pthread_attr_setsigmask_np),
	REAL_NAME(setcontext),
	REAL_NAME(swapcontext),
	REAL_NAME(pthread_create),
	REAL_NAME(sem_timedwait),
	REAL_NAME(sem_clockwait),
	REAL_NAME(aio_suspend),
	REAL_NAME(close),
	REAL_NAME(close_range),
	REAL_NAME(dup2),
	REAL_NAME(dup3),
	REAL_NAME(_Fork),
	REAL_NAME(execve),
	REAL_NAME(execvpe),
	REAL_NAME(fexecve),
	REAL_NAME(clone),
	REAL_NAME(sigsuspend),
	REAL_NAME(pause),
	REAL_NAME(sigtimedwait),
	REAL_NAME(clock_nanosleep),
	REAL_NAME(nanosleep),
	REAL_NAME(usleep),
	REAL_NAME(sleep),
	REAL_NAME(thrd_sleep),
	REAL_NAME(semtimedop),
	REAL_NAME(semop),
	REAL_NAME(msgrcv),
	REAL_NAME(msgsnd),
	REAL_NAME(ppoll),
	REAL_NAME(poll),
	REAL_NAME(pselect),
	REAL_NAME(select),
	REAL_NAME(epoll_pwait2),
	REAL_NAME(epoll_pwait),
	REAL_NAME(epoll_wait),
	REAL_NAME(epoll_ctl),
	REAL_NAME(socket),
	REAL_NAME(bind),
	REAL_NAME(listen),
	REAL_NAME(connect),
	REAL_NAME(accept4),
	REAL_NAME(getsockname),
	REAL_NAME(getpeername),
	REAL_NAME(setsockopt),
	REAL_NAME(getsockopt),
	REAL_NAME(send),
	REAL_NAME(sendto),
	REAL_NAME(sendmsg),
	REAL_NAME(dup),
	REAL_NAME(fcntl64),
	REAL_NAME(ioctl),
	REAL_NAME(fclose),
	REAL_NAME(epoll_create),
	REAL_NAME(epoll_create1),
	REAL_NAME(read),
	REAL_NAME(readv),
	REAL_NAME(recv),
	REAL_NAME(recvfrom),
	REAL_NAME(recvmsg),
	REAL_NAME(write),
	REAL_NAME(writev),
	REAL_NAME(sendmmsg),
	REAL_NAME(recvmmsg),
	REAL_NAME(shutdown),
};

void *real_table[REAL_COUNT];

/* Stands for what this C library lacks. */
static long real_none(void)
{
	errno = ENOSYS;
	return -1;
}

void *real_find(enum real_name name)
{
	int saved = errno;
	void *found = dlsym(RTLD_NEXT, real_names[name]);

	if (!found)
		found = (void *)real_none;
	__atomic_store_n(&real_table[name], found, __ATOMIC_RELAXED);
	errno = saved;
	return found;
}
