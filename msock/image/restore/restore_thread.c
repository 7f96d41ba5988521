/* SPDX-License-Identifier: MIT */
/* The member's threads, made under their old numbers before the pages are complete. */
#include <errno.h>
#include <linux/futex.h>
#include <linux/prctl.h>

#include "image/mem.h"
#include "image/restore/restore.h"

enum { THREAD_STACK = 16384 };

/* The system call keeps rdx and r8, so the child finds both there. */
__asm__(".globl thread_clone\n"
	"thread_clone:\n"
	"	movq %rcx, %r8\n"
	"	movl $435, %eax\n"
	"	syscall\n"
	"	testq %rax, %rax\n"
	"	jz 1f\n"
	"	ret\n"
	"1:	xorl %ebp, %ebp\n"
	"	movq %r8, %rdi\n"
	"	call *%rdx\n"
	"	hlt\n");

static void thread_run(void *arg)
{
	struct restore_thread *t = arg;

	while (!__atomic_load_n(&restore.gate, __ATOMIC_SEQ_CST))
		ms_futex(&restore.gate, FUTEX_WAIT, 0, NULL);
	place_drop_rights();
	restore.thread(t->slot, &restore.arrival);
}

int threads_create(void)
{
	uint32_t more = restore.thread_count - 1;
	uint8_t *stacks = more ? zone_alloc((size_t)more * THREAD_STACK) : NULL;

	restore.ids_kept = ms_getpid() == restore.threads[0].tid;
	for (uint32_t i = 1; i < restore.thread_count; i++) {
		struct restore_thread *t = &restore.threads[i];
		struct clone_args args = {
			.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
			.stack = (uint64_t)(stacks + (size_t)(i - 1) * THREAD_STACK),
			.stack_size = THREAD_STACK,
		};
		uint64_t tid = (uint32_t)t->tid;
		long e;

		if (restore.mode != IMAGE_MODE_PLAIN) {
			args.set_tid = (uint64_t)&t->tid;
			args.set_tid_size = 1;
		}
		e = thread_clone(&args, sizeof(args), thread_run, t);
		if (e < 0)
			return image_say(restore.why, "cannot make thread %u again: %e", tid, (int)e);
	}
	return 0;
}

void threads_dress(void)
{
	__atomic_store_n(&restore.gate, 1, __ATOMIC_SEQ_CST);
	ms_futex(&restore.gate, FUTEX_WAKE, 1 << 30, NULL);
}

void threads_go(void)
{
	for (int i = 0; i < 2; i++) {
		int clock = i ? CLOCK_BOOTTIME : CLOCK_MONOTONIC;
		struct timespec t = { 0, 20000 };

		/* No clock of the member ever goes back. */
		while (ms_clock_ns(clock) < restore.stamp[i])
			ms_nanosleep(&t);
	}
	place_drop_rights();
	ms_prctl(PR_SET_DUMPABLE, restore.dumpable == 1, 0, 0, 0);
	restore.thread(restore.threads[0].slot, &restore.arrival);
	ms_exit_group(1); /* it does not return */
}
