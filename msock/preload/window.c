/* SPDX-License-Identifier: MIT */
#include "preload/window.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>

#include "lib/hooks.h"

long window_call(long number, long a, long b, long c, long d, long e, long f, volatile unsigned *count,
		 unsigned expected) __attribute__((visibility("hidden")));
extern const char window_begin[] __attribute__((visibility("hidden")));
extern const char window_end[] __attribute__((visibility("hidden")));

#if defined(__x86_64__)
/*
 * count and expected are loaded inside: a kick that restarts the system call
 * leaves r11 and rcx as the call left them.
 */
__asm__(".pushsection .text\n"
	".hidden window_call, window_begin, window_end\n"
	".globl window_call, window_begin, window_end\n"
	".type window_call, @function\n"
	"window_call:\n"
	"	.cfi_startproc\n"
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n"
	"	mov %rdx, %rsi\n"
	"	mov %rcx, %rdx\n"
	"	mov %r8, %r10\n"
	"	mov %r9, %r8\n"
	"	mov 8(%rsp), %r9\n"
	"window_begin:\n"
	"	mov 16(%rsp), %r11\n"
	"	mov 24(%rsp), %ecx\n"
	"	cmp %ecx, (%r11)\n"
	"	jne 1f\n"
	"window_end:\n"
	"	syscall\n"
	"	ret\n"
	"1:	mov $-4, %rax\n" /* EINTR */
	"	ret\n"
	"	.cfi_endproc\n"
	".size window_call, .-window_call\n"
	".popsection\n");

/* At window_end the system call was not made, or will be made again. */
void window_rewind(ucontext_t *uc)
{
	uintptr_t pc = uc->uc_mcontext.gregs[REG_RIP];

	if (pc >= (uintptr_t)window_begin && pc <= (uintptr_t)window_end)
		uc->uc_mcontext.gregs[REG_RIP] = (greg_t)window_begin;
}
#else
#error "the window is not written for this processor"
#endif

void window_open(struct window *w)
{
	w->app_signals = msock__app_signals();
	w->app_signals_at = *w->app_signals;
}

long window_wait(struct window *w, long number, long a, long b, long c, long d, long e, long f)
{
	int type, saved = errno;
	long result;

	/* as the C library makes its cancellation points */
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	result = window_call(number, a, b, c, d, e, f, w->app_signals, w->app_signals_at);
	pthread_setcanceltype(type, NULL);
	errno = saved;
	return result;
}

bool window_again(struct window *w, long result)
{
	return result == -EINTR && *w->app_signals == w->app_signals_at;
}

long window_result(long result)
{
	if (result < 0 && result > -4096) {
		errno = -result;
		return -1;
	}
	return result;
}

struct timespec window_deadline(clockid_t clock, const struct timespec *in)
{
	struct timespec at = { 0 };

	clock_gettime(clock, &at);
	if (__builtin_add_overflow(at.tv_sec, in->tv_sec, &at.tv_sec) || at.tv_sec == LONG_MAX)
		return (struct timespec){ .tv_sec = LONG_MAX };
	at.tv_nsec += in->tv_nsec;
	if (at.tv_nsec >= 1000000000) {
		at.tv_nsec -= 1000000000;
		at.tv_sec++;
	}
	return at;
}

struct timespec window_left(clockid_t clock, const struct timespec *deadline)
{
	struct timespec now, left = { 0 };

	clock_gettime(clock, &now);
	if (now.tv_sec > deadline->tv_sec || (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec))
		return left;
	left.tv_sec = deadline->tv_sec - now.tv_sec;
	left.tv_nsec = deadline->tv_nsec - now.tv_nsec;
	if (left.tv_nsec < 0) {
		left.tv_nsec += 1000000000;
		left.tv_sec--;
	}
	return left;
}
