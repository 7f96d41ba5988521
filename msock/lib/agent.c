/* SPDX-License-Identifier: MIT */
#include "lib/agent.h"

#include "lib/check.h"
#include "lib/core.h"
#include "lib/engine.h"
#include "lib/kin.h"
#include "lib/log.h"
#include "lib/sock.h"
#include "lib/sys.h"

#include <errno.h>
#include <sched.h>

enum { AGENT_STACK = 256 * 1024 };

struct agent_thread {
	char *stack;      /* owned, made once */
	volatile int tid; /* the kernel clears it at the thread's end */
	void (*run)(void *arg);
	void *arg;
};

static struct agent_thread agent, mover;
static bool agent_alive; /* it will look at the engine once more before it ends */

static void agent_entry(struct agent_thread *t)
{
	t->run(t->arg);
	ms_exit(0);
}

/* clone returns in the child on an empty stack: only assembly can go on there. */
#if defined(__x86_64__)
static long agent_clone(unsigned long flags, void *top, volatile int *tid, struct agent_thread *t)
{
	register long r10 __asm__("r10") = (long)tid;
	register long r8 __asm__("r8") = 0;
	register struct agent_thread *r12 __asm__("r12") = t;
	register void *r13 __asm__("r13") = (void *)agent_entry;
	long ret;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r12, %%rdi\n\t"
			 "call *%%r13\n\t"
			 "hlt\n"
			 "1:"
			 : "=a"(ret)
			 : "0"((long)SYS_clone), "D"(flags), "S"(top), "d"(tid), "r"(r10), "r"(r8), "r"(r12), "r"(r13)
			 : "rcx", "r11", "memory");
	return ret;
}
#else
#error "no raw clone for this processor"
#endif

static void agent_wait_tid(struct agent_thread *t)
{
	int tid;

	while ((tid = t->tid) != 0)
		ms_futex((const void *)&t->tid, FUTEX_WAIT, (uint32_t)tid, NULL);
}

static int agent_start(struct agent_thread *t, void (*run)(void *), void *arg)
{
	unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
			      CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
	uint64_t all = ~0ull, old;
	long tid;

	if (!t->stack) {
		char *stack = ms_mmap(NULL, AGENT_STACK, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

		if (ms_is_error(stack))
			return (int)(long)stack;
		ms_mprotect(stack, 4096, PROT_NONE);
		t->stack = stack;
	}
	agent_wait_tid(t); /* it has said that it ends, and still stands on the stack */
	t->run = run;
	t->arg = arg;
	ms_sigprocmask(SIG_SETMASK, &all, &old);
	tid = agent_clone(flags, t->stack + AGENT_STACK, &t->tid, t);
	ms_sigprocmask(SIG_SETMASK, &old, NULL);
	return tid < 0 ? (int)tid : 0;
}

static void agent_run(void *arg)
{
	bool slept = false;

	for (;;) {
		int timeout;

		ms_lock_take(&core.lock);
		if (slept)
			engine_slept();
		slept = false;
		if (core.check)
			check_all();
		if (core.kin && !core.member)
			kin_look();
		if (core.kin && !core.member) {
			agent_alive = false;
			ms_lock_give(&core.lock);
			return;
		}
		if (sock_swap_due()) {
			ms_lock_give(&core.lock);
			sock_swap();
			continue;
		}
		if (engine_run() || sock_swap_due()) {
			ms_lock_give(&core.lock);
			continue;
		}
		if (!engine_has_work()) {
			agent_alive = false;
			ms_lock_give(&core.lock);
			return;
		}
		timeout = engine_sleep(-1);
		slept = true;
		ms_lock_give(&core.lock);
		engine_await(timeout);
	}
}

void agent_ensure(void)
{
	int err;

	if (agent_alive || engine_paused())
		return;
	agent_alive = true;
	err = agent_start(&agent, agent_run, NULL);
	if (err < 0) {
		agent_alive = false;
		ms_log(LOG_ERROR, "cannot make the agent: error %d", -err);
	}
}

void agent_wait_gone(void)
{
	agent_wait_tid(&agent);
}

int agent_start_mover(void (*run)(void *), void *arg)
{
	return agent_start(&mover, run, arg);
}

int agent_mover_tid(void)
{
	return mover.tid;
}

bool agent_is_ours(int tid)
{
	return tid == agent.tid || tid == mover.tid;
}

void agent_reset(void)
{
	agent_alive = false;
	agent.tid = 0;
	mover.tid = 0;
}
