/* SPDX-License-Identifier: MIT */
/*
 * real.h - the C library's own functions behind the wrappers.
 *
 * REAL(close)(3) calls the next `close` after ours.  Looked up when first
 * used: constructors of other libraries may call a wrapper before ours ran.
 */
#ifndef PRELOAD_REAL_H
#define PRELOAD_REAL_H

#include <stddef.h>

enum real_name {
	REAL_sigaction,
	REAL_pthread_sigmask,
	REAL_sigpending,
	REAL_sigwait,
	REAL_signalfd,
	REAL_pthread_attr_setsigmask_np,
	REAL_setcontext,
	REAL_swapcontext,
	REAL_pthread_create,
	REAL_sem_timedwait,
	REAL_sem_clockwait,
	REAL_aio_suspend,
	REAL_close,
	REAL_close_range,
	REAL_dup2,
	REAL_dup3,
	REAL__Fork,
	REAL_execve,
	REAL_execvpe,
	REAL_fexecve,
	REAL_clone,
	REAL_sigsuspend,
	REAL_pause,
	REAL_sigtimedwait,
	REAL_clock_nanosleep,
	REAL_nanosleep,
	REAL_usleep,
	REAL_sleep,
	REAL_thrd_sleep,
	REAL_semtimedop,
	REAL_semop,
	REAL_msgrcv,
	REAL_msgsnd,
	REAL_ppoll,
	REAL_poll,
	REAL_pselect,
	REAL_select,
	REAL_epoll_pwait2,
	REAL_epoll_pwait,
	REAL_epoll_wait,
	REAL_epoll_ctl,
	REAL_socket,
	REAL_bind,
	REAL_listen,
	REAL_connect,
	REAL_accept4,
	REAL_getsockname,
	REAL_getpeername,
	REAL_setsockopt,
	REAL_getsockopt,
	REAL_send,
	REAL_sendto,
	REAL_sendmsg,
	REAL_dup,
	REAL_fcntl64,
	REAL_ioctl,
	REAL_fclose,
	REAL_epoll_create,
	REAL_epoll_create1,
	REAL_read,
	REAL_readv,
	REAL_recv,
	REAL_recvfrom,
	REAL_recvmsg,
	REAL_write,
	REAL_writev,
	REAL_sendmmsg,
	REAL_recvmmsg,
	REAL_shutdown,
	REAL_COUNT,
};

void *real_find(enum real_name name);

extern void *real_table[REAL_COUNT];

static inline void *real_get(enum real_name name)
{
	void *found = __atomic_load_n(&real_table[name], __ATOMIC_RELAXED);

	return found ? found : real_find(name);
}

#define REAL(name) ((__typeof__(&name))real_get(REAL_##name))

#endif
