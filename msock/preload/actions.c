/* SPDX-License-Identifier: MIT */
/*
 * actions.c - sigaction, signal and their kin.
 *
 * Why a trampoline: whether an EINTR is the application's or the kick's cannot
 * be told from the kick's own frame.  An application's signal that comes while
 * the kick's handler runs (it blocks all) is delivered right behind it, below
 * no kick and above no handler; only something that runs at its delivery sees
 * it.  That is also where the two races of a restart are repaired:
 *
 *  - the program counter is in the window (window.h): back to the comparison;
 *  - a kick, having SA_RESTART, left the counter *at* the system call of a
 *    blocked read, and the application's handler has no SA_RESTART: without
 *    the kick the call would have ended with EINTR, so it does now.  The
 *    kick's handler notes what it returns to (msock__kick_returns), so a thread
 *    that is at such an instruction for another reason is let alone.
 *
 * The note must last until a trampoline has read it.  Between the kernel's
 * making of a handler's frame and the handler's first instruction other signals
 * may come, which then run first: another kick, and other handlers of the
 * application.  So the kernel enters at action_entry, which reads the note; a
 * kick that finds the thread between there and action_entered leaves the note
 * as it is, since what the first kick returned to has not gone on; and a
 * trampoline that finds that it has interrupted such an entry looks through it
 * at what that one has interrupted, and decides for both.  When the other comes
 * to it there is nothing left to do.
 */
#include "preload/actions.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/hooks.h"
#include "preload/preload.h"
#include "preload/real.h"
#include "preload/window.h"

enum { ACTIONS = 65 };

typedef void (*action_handler)(int signal, siginfo_t *info, void *uc);

struct action {
	action_handler handler; /* of the application; valid while the kernel has the trampoline */
	int flags;
	bool mask_has_kick;
};

__thread volatile unsigned preload_break_count __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* [0] the program counter, [1] the stack pointer that the thread's last kick returned to. */
__thread volatile uintptr_t action_kick_at[2] __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* Where the kernel enters: the trampoline, with the note as two more arguments. */
void action_entry(int signal, siginfo_t *info, void *uc) __attribute__((visibility("hidden")));
extern const char action_entered[] __attribute__((visibility("hidden")));
void action_trampoline(int signal, siginfo_t *info, void *context, uintptr_t kick_pc, uintptr_t kick_sp)
	__attribute__((visibility("hidden")));

static struct action actions[ACTIONS];
static struct sigaction kick_action; /* what the application gave for the kick signal */
static sigset_t interrupting;        /* siginterrupt */
static unsigned actions_lock;

int __sigaction(int signal, const struct sigaction *act, struct sigaction *old);
sighandler_t __sysv_signal(int signal, sighandler_t handler);
sighandler_t sysv_signal(int signal, sighandler_t handler);
sighandler_t bsd_signal(int signal, sighandler_t handler);
sighandler_t ssignal(int signal, sighandler_t handler);

/* With all signals blocked, since handlers may call sigaction. */
static uint64_t actions_enter(void)
{
	uint64_t all = ~(uint64_t)0, mask;
	unsigned free = 0;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, sizeof(mask));
	while (!__atomic_compare_exchange_n(&actions_lock, &free, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
		syscall(SYS_futex, &actions_lock, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
		free = 0;
	}
	return mask;
}

static void actions_leave(uint64_t mask)
{
	__atomic_store_n(&actions_lock, 0, __ATOMIC_RELEASE);
	syscall(SYS_futex, &actions_lock, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

volatile unsigned *preload_breaks(void)
{
	return &preload_break_count;
}

void actions_after_fork_child(void)
{
	actions_lock = 0;
}

#if defined(__x86_64__)
/* Calls that the kernel restarts under SA_RESTART and ends with EINTR without it. */
static const short restarting_calls[] = {
	SYS_read,     SYS_readv,    SYS_pread64,  SYS_preadv,          SYS_preadv2,      SYS_write,    SYS_writev,
	SYS_pwrite64, SYS_pwritev,  SYS_pwritev2, SYS_recvfrom,        SYS_recvmsg,      SYS_recvmmsg, SYS_sendto,
	SYS_sendmsg,  SYS_sendmmsg, SYS_sendfile, SYS_splice,          SYS_tee,          SYS_vmsplice, SYS_accept,
	SYS_accept4,  SYS_connect,  SYS_wait4,    SYS_waitid,          SYS_futex,        SYS_flock,    SYS_fcntl,
	SYS_ioctl,    SYS_open,     SYS_openat,   SYS_mq_timedreceive, SYS_mq_timedsend, SYS_getrandom
};

static bool action_call_restarts(long number)
{
	for (unsigned i = 0; i < sizeof(restarting_calls) / sizeof(restarting_calls[0]); i++)
		if (restarting_calls[i] == number)
			return true;
	return false;
}

__asm__(".pushsection .text\n"
	".hidden action_entry, action_entered\n"
	".globl action_entry, action_entered\n"
	".type action_entry, @function\n"
	"action_entry:\n"
	"	.cfi_startproc\n"
	"	mov action_kick_at@gottpoff(%rip), %rax\n"
	"	mov %fs:(%rax), %rcx\n"
	"	mov %fs:8(%rax), %r8\n"
	"action_entered:\n"
	"	jmp action_trampoline\n"
	"	.cfi_endproc\n"
	".size action_entry, .-action_entry\n"
	".popsection\n");

static bool action_at_entry(const ucontext_t *uc)
{
	uintptr_t pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];

	return pc >= (uintptr_t)action_entry && pc < (uintptr_t)action_entered;
}

void msock__kick_returns(const void *context)
{
	const ucontext_t *uc = context;

	if (action_at_entry(uc))
		return;
	action_kick_at[0] = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
	action_kick_at[1] = (uintptr_t)uc->uc_mcontext.gregs[REG_RSP];
}

static bool action_breaks(int signal)
{
	return !(actions[signal].flags & SA_RESTART);
}

/* What was interrupted before any of the entries; *breaks: one of their handlers has no SA_RESTART. */
static ucontext_t *action_bottom(ucontext_t *uc, bool *breaks)
{
	while (action_at_entry(uc)) {
		*breaks = *breaks || action_breaks((int)uc->uc_mcontext.gregs[REG_RDI]);
		uc = (ucontext_t *)uc->uc_mcontext.gregs[REG_RDX];
	}
	return uc;
}

static void action_end_restarted(ucontext_t *uc, uintptr_t kick_pc, uintptr_t kick_sp)
{
	greg_t *regs = uc->uc_mcontext.gregs;
	const uint8_t *code = (const uint8_t *)regs[REG_RIP];
	long futex = regs[REG_RSI] & FUTEX_CMD_MASK;

	if (kick_pc != (uintptr_t)regs[REG_RIP] || kick_sp != (uintptr_t)regs[REG_RSP])
		return;
	/* the interrupted instruction can be read: it was to be run */
	if (!action_call_restarts(regs[REG_RAX]) || code[0] != 0x0f || code[1] != 0x05)
		return;
	if (regs[REG_RAX] == SYS_futex && futex != FUTEX_WAIT && futex != FUTEX_WAIT_BITSET)
		return;
	regs[REG_RAX] = -EINTR;
	regs[REG_RIP] += 2;
}
#endif

/* errno is left alone: it is the handler's business. */
void action_trampoline(int signal, siginfo_t *info, void *context, uintptr_t kick_pc, uintptr_t kick_sp)
{
	ucontext_t *uc = context, *bottom;
	struct action *action = &actions[signal];
	action_handler handler = __atomic_load_n(&action->handler, __ATOMIC_ACQUIRE);
	bool blocked = preload_set_has_kick(&uc->uc_sigmask), breaks = action_breaks(signal);

	++*msock__app_signals();
	window_rewind(uc);
	if (breaks)
		preload_break_count++;
	bottom = action_bottom(uc, &breaks);
	if (breaks)
		action_end_restarted(bottom, kick_pc, kick_sp);
	handler(signal, info, context);
	/* it may have filled the mask to return with */
	if (!blocked)
		uc->uc_sigmask = preload_set_without_kick(&uc->uc_sigmask);
}

static void action_kick_change(const struct sigaction *act, struct sigaction *old)
{
	uint64_t mask = actions_enter();
	struct sigaction before = kick_action;

	if (act)
		kick_action = *act;
	if (old)
		*old = before;
	actions_leave(mask);
}

/* The kernel's answer as the application is to see it, `before` being what it last gave. */
static void action_show(const struct action *before, struct sigaction *old)
{
	if (old->sa_sigaction != action_entry)
		return;
	old->sa_sigaction = before->handler;
	if (before->mask_has_kick)
		preload_set_put_kick(&old->sa_mask, true);
}

static int action_change(int signal, const struct sigaction *act, struct sigaction *old)
{
	struct action *action = &actions[signal], before;
	struct sigaction changed, was;
	uint64_t mask = actions_enter();
	int status;

	before = *action;
	if (act) {
		changed = *act;
		changed.sa_mask = preload_set_without_kick(&act->sa_mask);
		if (act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN) {
			/* first, for a signal that comes as soon as the kernel knows */
			action->flags = act->sa_flags;
			action->mask_has_kick = preload_set_has_kick(&act->sa_mask);
			__atomic_store_n(&action->handler, act->sa_sigaction, __ATOMIC_RELEASE);
			changed.sa_sigaction = action_entry;
		}
	}
	status = REAL(sigaction)(signal, act ? &changed : NULL, &was);
	if (status < 0)
		*action = before;
	else if (old) {
		action_show(&before, &was);
		*old = was;
	}
	actions_leave(mask);
	return status;
}

/*
 * In a vfork child the table is the parent's: a handler goes to the kernel as
 * it is (it will not live long, and the child is never kicked).
 */
static int action_change_foreign(int signal, const struct sigaction *act, struct sigaction *old)
{
	int status = REAL(sigaction)(signal, act, old);

	if (status == 0 && old)
		action_show(&actions[signal], old);
	return status;
}

PRELOAD_API int sigaction(int signal, const struct sigaction *act, struct sigaction *old)
{
	if (!preload_active() || signal <= 0 || signal >= ACTIONS)
		return REAL(sigaction)(signal, act, old);
	if (!preload_own_memory())
		return action_change_foreign(signal, act, old);
	if (signal == preload.kick) {
		action_kick_change(act, old);
		return 0;
	}
	return action_change(signal, act, old);
}

PRELOAD_API int __sigaction(int signal, const struct sigaction *act, struct sigaction *old)
{
	return sigaction(signal, act, old);
}

static sighandler_t action_signal(int signal, sighandler_t handler, int flags)
{
	struct sigaction act = { .sa_handler = handler, .sa_flags = flags }, old;

	if (handler == SIG_ERR || signal < 1 || signal >= ACTIONS) {
		errno = EINVAL;
		return SIG_ERR;
	}
	if (!(flags & SA_NODEFER))
		sigaddset(&act.sa_mask, signal);
	return sigaction(signal, &act, &old) < 0 ? SIG_ERR : old.sa_handler;
}

PRELOAD_API sighandler_t signal(int signal, sighandler_t handler)
{
	return action_signal(signal, handler, sigismember(&interrupting, signal) == 1 ? 0 : SA_RESTART);
}

PRELOAD_API sighandler_t bsd_signal(int number, sighandler_t handler)
{
	return signal(number, handler);
}

PRELOAD_API sighandler_t ssignal(int number, sighandler_t handler)
{
	return signal(number, handler);
}

PRELOAD_API sighandler_t __sysv_signal(int signal, sighandler_t handler)
{
	return action_signal(signal, handler, SA_RESETHAND | SA_NODEFER);
}

PRELOAD_API sighandler_t sysv_signal(int signal, sighandler_t handler)
{
	return __sysv_signal(signal, handler);
}

PRELOAD_API int siginterrupt(int signal, int interrupt)
{
	struct sigaction act;

	if (sigaction(signal, NULL, &act) < 0)
		return -1;
	if (interrupt) {
		sigaddset(&interrupting, signal);
		act.sa_flags &= ~SA_RESTART;
	} else {
		sigdelset(&interrupting, signal);
		act.sa_flags |= SA_RESTART;
	}
	return sigaction(signal, &act, NULL);
}

PRELOAD_API int sigignore(int signal)
{
	struct sigaction act = { .sa_handler = SIG_IGN };

	return sigaction(signal, &act, NULL);
}

PRELOAD_API sighandler_t sigset(int signal, sighandler_t handler)
{
	struct sigaction act = { .sa_handler = handler }, old;
	sigset_t set, was;

	sigemptyset(&set);
	if (handler == SIG_ERR || sigaddset(&set, signal) < 0) {
		errno = EINVAL;
		return SIG_ERR;
	}
	if (sigaction(signal, handler == SIG_HOLD ? NULL : &act, &old) < 0 ||
	    sigprocmask(handler == SIG_HOLD ? SIG_BLOCK : SIG_UNBLOCK, &set, &was) < 0)
		return SIG_ERR;
	return sigismember(&was, signal) ? SIG_HOLD : old.sa_handler;
}
