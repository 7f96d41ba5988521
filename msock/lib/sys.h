/* SPDX-License-Identifier: MIT */
/*
 * sys.h - raw system calls: no errno, no TLS, no cancellation; errors come back as -errno.
 *
 * For freestanding code (the library's engine, the agent, the capture, the
 * restorer).  Types come from the C library's headers where those agree with
 * the kernel; where they do not, an ms_k structure is here.
 */
#ifndef MSOCK_LIB_SYS_H
#define MSOCK_LIB_SYS_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#ifdef MSOCK_HOLD_UP
/* Builds for tests: of 1024 system calls so many are preceded by up to a millisecond of sleep, as on a busy machine. */
static inline void ms_hold_up(void)
{
	uint32_t dice = (uint32_t)(__builtin_ia32_rdtsc() * 0x9e3779b97f4a7c15ull >> 32);
	struct timespec t = { 0, (long)(dice >> 10 & 1023) * 1000 };
	long ret;

	if ((dice & 1023) < MSOCK_HOLD_UP)
		__asm__ volatile("syscall"
				 : "=a"(ret)
				 : "0"((long)SYS_nanosleep), "D"(&t), "S"(0L)
				 : "rcx", "r11", "memory");
}
#else
static inline void ms_hold_up(void)
{
}
#endif

#if defined(__x86_64__)
static inline long ms_sys6(long n, long a, long b, long c, long d, long e, long f)
{
	ms_hold_up();
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "0"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

static inline long ms_sys4(long n, long a, long b, long c, long d)
{
	ms_hold_up();
	register long r10 __asm__("r10") = d;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "0"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return ret;
}

static inline long ms_sys3(long n, long a, long b, long c)
{
	ms_hold_up();
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "0"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static inline long ms_sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}

static inline long ms_sys4(long n, long a, long b, long c, long d)
{
	return ms_sys6(n, a, b, c, d, 0, 0);
}

static inline long ms_sys3(long n, long a, long b, long c)
{
	return ms_sys6(n, a, b, c, 0, 0, 0);
}
#else
#error "no raw system call for this processor"
#endif

static inline long ms_sys0(long n)
{
	return ms_sys3(n, 0, 0, 0);
}

static inline long ms_sys1(long n, long a)
{
	return ms_sys3(n, a, 0, 0);
}

static inline long ms_sys2(long n, long a, long b)
{
	return ms_sys3(n, a, b, 0);
}

static inline long ms_sys5(long n, long a, long b, long c, long d, long e)
{
	return ms_sys6(n, a, b, c, d, e, 0);
}

/* What the kernel calls struct sigaction; handler, flags and restorer are those of the system call. */
struct ms_ksigaction {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

enum { MS_SIGSET = 8 }; /* bytes of the kernel's signal set */

#define MS_SIGBIT(sig) (1ULL << ((sig)-1))
#define MS_SA_RESTORER 0x04000000UL

/* Descriptors and data */
static inline long ms_read(int fd, void *buf, size_t n)
{
	return ms_sys3(SYS_read, fd, (long)buf, (long)n);
}

static inline long ms_write(int fd, const void *buf, size_t n)
{
	return ms_sys3(SYS_write, fd, (long)buf, (long)n);
}

static inline long ms_readv(int fd, const struct iovec *iov, int n)
{
	return ms_sys3(SYS_readv, fd, (long)iov, n);
}

static inline long ms_writev(int fd, const struct iovec *iov, int n)
{
	return ms_sys3(SYS_writev, fd, (long)iov, n);
}

static inline long ms_pread(int fd, void *buf, size_t n, off_t at)
{
	return ms_sys4(SYS_pread64, fd, (long)buf, (long)n, at);
}

static inline long ms_pwrite(int fd, const void *buf, size_t n, off_t at)
{
	return ms_sys4(SYS_pwrite64, fd, (long)buf, (long)n, at);
}

static inline long ms_lseek(int fd, off_t at, int whence)
{
	return ms_sys3(SYS_lseek, fd, at, whence);
}

static inline int ms_openat(int dir, const char *path, int flags, int mode)
{
	return (int)ms_sys4(SYS_openat, dir, (long)path, flags, mode);
}

static inline int ms_open(const char *path, int flags, int mode)
{
	return ms_openat(AT_FDCWD, path, flags, mode);
}

static inline int ms_close(int fd)
{
	return (int)ms_sys1(SYS_close, fd);
}

static inline int ms_close_range(unsigned first, unsigned last, unsigned flags)
{
	return (int)ms_sys3(SYS_close_range, first, last, flags);
}

static inline int ms_dup(int fd)
{
	return (int)ms_sys1(SYS_dup, fd);
}

static inline int ms_dup3(int from, int to, int flags)
{
	return (int)ms_sys3(SYS_dup3, from, to, flags);
}

static inline long ms_fcntl(int fd, int cmd, long arg)
{
	return ms_sys3(SYS_fcntl, fd, cmd, arg);
}

static inline int ms_ioctl(int fd, unsigned long cmd, void *arg)
{
	return (int)ms_sys3(SYS_ioctl, fd, (long)cmd, (long)arg);
}

static inline int ms_fstat(int fd, struct stat *st)
{
	return (int)ms_sys2(SYS_fstat, fd, (long)st);
}

static inline int ms_fstatat(int dir, const char *path, struct stat *st, int flags)
{
	return (int)ms_sys4(SYS_newfstatat, dir, (long)path, (long)st, flags);
}

static inline long ms_readlinkat(int dir, const char *path, char *buf, size_t n)
{
	return ms_sys4(SYS_readlinkat, dir, (long)path, (long)buf, (long)n);
}

static inline long ms_getdents(int fd, void *buf, size_t n)
{
	return ms_sys3(SYS_getdents64, fd, (long)buf, (long)n);
}

static inline int ms_chdir(const char *path)
{
	return (int)ms_sys1(SYS_chdir, (long)path);
}

static inline int ms_umask(int mask)
{
	return (int)ms_sys1(SYS_umask, mask);
}

static inline int ms_pipe2(int fd[2], int flags)
{
	return (int)ms_sys2(SYS_pipe2, (long)fd, flags);
}

static inline int ms_eventfd(unsigned value, int flags)
{
	return (int)ms_sys2(SYS_eventfd2, value, flags);
}

static inline int ms_ppoll(struct pollfd *p, unsigned n, const struct timespec *timeout, const uint64_t *mask)
{
	return (int)ms_sys5(SYS_ppoll, (long)p, n, (long)timeout, (long)mask, MS_SIGSET);
}

/* Waits at most ms milliseconds; -1: for ever. */
static inline int ms_poll(struct pollfd *p, unsigned n, int ms)
{
	struct timespec t = { ms / 1000, (ms % 1000) * 1000000L };

	return ms_ppoll(p, n, ms < 0 ? NULL : &t, NULL);
}

static inline int ms_epoll_create(int flags)
{
	return (int)ms_sys1(SYS_epoll_create1, flags);
}

static inline int ms_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
	return (int)ms_sys4(SYS_epoll_ctl, ep, op, fd, (long)ev);
}

static inline int ms_epoll_pwait(int ep, struct epoll_event *ev, int max, int ms, const uint64_t *mask)
{
	return (int)ms_sys6(SYS_epoll_pwait, ep, (long)ev, max, ms, (long)mask, MS_SIGSET);
}

static inline int ms_epoll_wait(int ep, struct epoll_event *ev, int max, int ms)
{
	return ms_epoll_pwait(ep, ev, max, ms, NULL);
}

/* Sockets */
static inline int ms_socket(int domain, int type, int protocol)
{
	return (int)ms_sys3(SYS_socket, domain, type, protocol);
}

static inline int ms_socketpair(int domain, int type, int protocol, int fd[2])
{
	return (int)ms_sys4(SYS_socketpair, domain, type, protocol, (long)fd);
}

static inline int ms_bind(int fd, const void *addr, socklen_t n)
{
	return (int)ms_sys3(SYS_bind, fd, (long)addr, n);
}

static inline int ms_listen(int fd, int backlog)
{
	return (int)ms_sys2(SYS_listen, fd, backlog);
}

static inline int ms_accept4(int fd, void *addr, socklen_t *n, int flags)
{
	return (int)ms_sys4(SYS_accept4, fd, (long)addr, (long)n, flags);
}

static inline int ms_connect(int fd, const void *addr, socklen_t n)
{
	return (int)ms_sys3(SYS_connect, fd, (long)addr, n);
}

static inline int ms_shutdown(int fd, int how)
{
	return (int)ms_sys2(SYS_shutdown, fd, how);
}

static inline int ms_getsockname(int fd, void *addr, socklen_t *n)
{
	return (int)ms_sys3(SYS_getsockname, fd, (long)addr, (long)n);
}

static inline int ms_getpeername(int fd, void *addr, socklen_t *n)
{
	return (int)ms_sys3(SYS_getpeername, fd, (long)addr, (long)n);
}

static inline int ms_setsockopt(int fd, int level, int name, const void *v, socklen_t n)
{
	return (int)ms_sys5(SYS_setsockopt, fd, level, name, (long)v, n);
}

static inline int ms_getsockopt(int fd, int level, int name, void *v, socklen_t *n)
{
	return (int)ms_sys5(SYS_getsockopt, fd, level, name, (long)v, (long)n);
}

static inline long ms_sendmsg(int fd, const struct msghdr *m, int flags)
{
	return ms_sys3(SYS_sendmsg, fd, (long)m, flags);
}

static inline long ms_recvmsg(int fd, struct msghdr *m, int flags)
{
	return ms_sys3(SYS_recvmsg, fd, (long)m, flags);
}

static inline long ms_sendto(int fd, const void *buf, size_t n, int flags, const void *addr, socklen_t size)
{
	return ms_sys6(SYS_sendto, fd, (long)buf, (long)n, flags, (long)addr, size);
}

static inline long ms_recvfrom(int fd, void *buf, size_t n, int flags, void *addr, socklen_t *size)
{
	return ms_sys6(SYS_recvfrom, fd, (long)buf, (long)n, flags, (long)addr, (long)size);
}

static inline long ms_send(int fd, const void *buf, size_t n, int flags)
{
	return ms_sendto(fd, buf, n, flags, NULL, 0);
}

static inline long ms_recv(int fd, void *buf, size_t n, int flags)
{
	return ms_recvfrom(fd, buf, n, flags, NULL, NULL);
}

/* Memory; a result of ms_mmap or ms_mremap is an error if ms_is_error says so */
static inline bool ms_is_error(const void *p)
{
	return (unsigned long)p > -4096UL;
}

static inline void *ms_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
	return (void *)ms_sys6(SYS_mmap, (long)at, (long)n, prot, flags, fd, off);
}

static inline int ms_munmap(void *at, size_t n)
{
	return (int)ms_sys2(SYS_munmap, (long)at, (long)n);
}

static inline int ms_mprotect(void *at, size_t n, int prot)
{
	return (int)ms_sys3(SYS_mprotect, (long)at, (long)n, prot);
}

static inline void *ms_mremap(void *from, size_t old, size_t size, int flags, void *to)
{
	return (void *)ms_sys5(SYS_mremap, (long)from, (long)old, (long)size, flags, (long)to);
}

static inline int ms_madvise(void *at, size_t n, int advice)
{
	return (int)ms_sys3(SYS_madvise, (long)at, (long)n, advice);
}

/* Threads, processes, signals */
static inline int ms_getpid(void)
{
	return (int)ms_sys0(SYS_getpid);
}

static inline int ms_gettid(void)
{
	return (int)ms_sys0(SYS_gettid);
}

static inline int ms_kill(int pid, int sig)
{
	return (int)ms_sys2(SYS_kill, pid, sig);
}

static inline int ms_tgkill(int pid, int tid, int sig)
{
	return (int)ms_sys3(SYS_tgkill, pid, tid, sig);
}

static inline int ms_sigprocmask(int how, const uint64_t *set, uint64_t *old)
{
	return (int)ms_sys4(SYS_rt_sigprocmask, how, (long)set, (long)old, MS_SIGSET);
}

static inline int ms_sigaction(int sig, const struct ms_ksigaction *set, struct ms_ksigaction *old)
{
	return (int)ms_sys4(SYS_rt_sigaction, sig, (long)set, (long)old, MS_SIGSET);
}

static inline int ms_sigtimedwait(const uint64_t *set, siginfo_t *info, const struct timespec *timeout)
{
	return (int)ms_sys4(SYS_rt_sigtimedwait, (long)set, (long)info, (long)timeout, MS_SIGSET);
}

/* The kernel takes a siginfo with a negative si_code from anyone for itself. */
static inline int ms_tgsigqueueinfo(int pid, int tid, int sig, const siginfo_t *info)
{
	return (int)ms_sys4(SYS_rt_tgsigqueueinfo, pid, tid, sig, (long)info);
}

static inline int ms_sigqueueinfo(int pid, int sig, const siginfo_t *info)
{
	return (int)ms_sys3(SYS_rt_sigqueueinfo, pid, sig, (long)info);
}

static inline int ms_sigaltstack(const stack_t *set, stack_t *old)
{
	return (int)ms_sys2(SYS_sigaltstack, (long)set, (long)old);
}

static inline int ms_futex(const void *word, int op, uint32_t value, const struct timespec *timeout)
{
	return (int)ms_sys6(SYS_futex, (long)word, op, value, (long)timeout, 0, 0);
}

static inline long ms_clone(unsigned long flags, void *stack, int *parent_tid, int *child_tid, unsigned long tls)
{
#if defined(__x86_64__)
	return ms_sys5(SYS_clone, (long)flags, (long)stack, (long)parent_tid, (long)child_tid, (long)tls);
#else
	return ms_sys5(SYS_clone, (long)flags, (long)stack, (long)parent_tid, (long)tls, (long)child_tid);
#endif
}

static inline int ms_unshare(int flags)
{
	return (int)ms_sys1(SYS_unshare, flags);
}

static inline int ms_setns(int fd, int type)
{
	return (int)ms_sys2(SYS_setns, fd, type);
}

static inline long ms_prctl(int op, long a, long b, long c, long d)
{
	return ms_sys5(SYS_prctl, op, a, b, c, d);
}

#if defined(__x86_64__)
static inline int ms_arch_prctl(int op, unsigned long addr)
{
	return (int)ms_sys2(SYS_arch_prctl, op, (long)addr);
}
#endif

static inline long ms_wait4(int pid, int *status, int flags, struct rusage *usage)
{
	return ms_sys4(SYS_wait4, pid, (long)status, flags, (long)usage);
}

static inline int ms_sched_yield(void)
{
	return (int)ms_sys0(SYS_sched_yield);
}

__attribute__((noreturn)) static inline void ms_exit(int status)
{
	for (;;)
		ms_sys1(SYS_exit, status);
}

__attribute__((noreturn)) static inline void ms_exit_group(int status)
{
	for (;;)
		ms_sys1(SYS_exit_group, status);
}

/* Clocks, chance */
static inline int ms_clock_gettime(int clock, struct timespec *t)
{
	return (int)ms_sys2(SYS_clock_gettime, clock, (long)t);
}

static inline uint64_t ms_clock_ns(int clock)
{
	struct timespec t = { 0 };

	ms_clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline int ms_nanosleep(const struct timespec *t)
{
	return (int)ms_sys2(SYS_nanosleep, (long)t, 0);
}

static inline long ms_getrandom(void *buf, size_t n, unsigned flags)
{
	return ms_sys3(SYS_getrandom, (long)buf, (long)n, flags);
}

/* Bytes and strings, so that no libc symbol is called.  (gcc may still call memcpy, memset: see image/mem.h.) */
static inline size_t ms_strlen(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

static inline bool ms_streq(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

#endif
