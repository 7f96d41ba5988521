/* SPDX-License-Identifier: MIT */
#include "lib/kick.h"

#include "image/image.h"
#include "lib/agent.h"
#include "lib/check.h"
#include "lib/core.h"
#include "lib/engine.h"
#include "lib/hooks.h"
#include "lib/log.h"
#include "lib/sock.h"
#include "lib/sys.h"
#include "lib/vsock.h"

#include <errno.h>

#pragma weak msock__kick_returns /* there is no preload */

#define KICK_TLS __thread __attribute__((tls_model("initial-exec")))

static KICK_TLS volatile unsigned kick_inside; /* API calls this thread is in, outside of a wait */
static KICK_TLS volatile unsigned kick_noted;  /* kicks that came meanwhile */
static KICK_TLS volatile unsigned kick_app_count;

/*
 * One for all threads: a kick that one thread takes may have been meant to wake
 * another one, whose epoll_wait then says EINTR without any handler.
 */
static volatile unsigned kick_count;

static bool kick_pending;

volatile unsigned *msock__app_signals(void)
{
	return &kick_app_count;
}

int msock__kick_signal(void)
{
	return core.kick_signal;
}

void kick_look(struct kick_seen *seen)
{
	seen->kicks = kick_count;
	seen->app = kick_app_count;
}

/* Without a preload nobody counts the program's handlers; and a kick that another thread took may not have been counted yet. */
bool kick_only(const struct kick_seen *seen)
{
	return kick_app_count == seen->app && (msock__kick_returns || kick_count != seen->kicks);
}

bool kick_take_pending(void)
{
	bool pending = kick_pending;

	kick_pending = false;
	return pending;
}

/* Somebody must look at the engine's descriptors: a thread in msock_wait, or an agent. */
static void kick_find_somebody(void)
{
	ms_lock_take(&core.lock);
	if (vsock_has_waiter())
		kick_pending = true;
	else if (core_here())
		agent_ensure();
	ms_lock_give(&core.lock);
}

static void kick_handler(int signal, siginfo_t *info, void *context)
{
	__atomic_add_fetch(&kick_count, 1, __ATOMIC_SEQ_CST);
	if (kick_inside)
		kick_noted = 1;
	else if (image_freezing())
		image_park(context);
	else
		kick_find_somebody();
	if (msock__kick_returns)
		msock__kick_returns(context);
}

void core_enter(void)
{
	kick_inside++;
	ms_lock_take(&core.lock);
}

void core_leave(void)
{
	if (core.check)
		check_all();
	if (core.member && (engine_has_work() || sock_swap_due()) && !vsock_has_waiter())
		agent_ensure();
	ms_lock_give(&core.lock);
	if (--kick_inside == 0 && kick_noted) {
		kick_noted = 0;
		ms_tgkill(ms_getpid(), ms_gettid(), core.kick_signal);
	}
}

#if defined(__x86_64__)
void kick_return(void);
__asm__(".pushsection .text\n"
	".hidden kick_return\n"
	".globl kick_return\n"
	"kick_return: mov $15, %eax\n" /* rt_sigreturn */
	"	syscall\n"
	".popsection\n");
#endif

/* Past sigaction(), which the preload keeps away from this signal. */
int kick_install(void)
{
	struct ms_ksigaction act = { .handler = kick_handler,
				     .flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK,
				     .mask = ~0ull };

#if defined(__x86_64__)
	act.flags |= MS_SA_RESTORER;
	act.restorer = kick_return;
#endif
	return ms_sigaction(core.kick_signal, &act, NULL);
}

int kick_attach(int fd)
{
	long err = ms_fcntl(fd, F_SETOWN, ms_getpid());

	if (!err)
		err = ms_fcntl(fd, F_SETSIG, core.kick_signal);
	if (!err)
		err = ms_fcntl(fd, F_SETFL, ms_fcntl(fd, F_GETFL, 0) | O_ASYNC | O_NONBLOCK);
	return (int)err;
}
