/* SPDX-License-Identifier: MIT */
/*
 * Stand-in for libmsock in tests of the image: the kick handler, and an agent
 * that does nothing but move.  Preloaded; MEMBER_FD is its control socket.
 */
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "image/image.h"
#include "lib/sys.h"
#include "proto/codec.h"
#include "proto/wire.h"

__attribute__((visibility("default"))) volatile unsigned member_moves;

static int control_fd = -1;
static int agent_lives;
static int agent_tid;
static struct image_source source;
static char fault[64];
static uint8_t packet[4096];
static uint8_t stack[128 << 10] __attribute__((aligned(64)));

static void control_send(struct ms_codec *c)
{
	ms_send(control_fd, packet, (size_t)(c->at - packet), MSG_NOSIGNAL);
}

static void control_begin(struct ms_codec *c, uint8_t type, uint64_t m)
{
	ms_codec_init(c, packet, sizeof(packet));
	ms_put_u8(c, MS_WIRE_VERSION);
	ms_put_u8(c, type);
	ms_put_u64(c, m);
}

static void resume(const void *msg, size_t bytes)
{
	struct ms_codec c;

	(void)msg;
	(void)bytes;
	agent_lives = 0;
	member_moves++;
	control_begin(&c, MS_M_RESUMED, source.m);
	ms_put_u64(&c, image_frozen_ns());
	control_send(&c);
}

static void agent_failed(const char *why)
{
	struct ms_codec c;

	control_begin(&c, MS_M_MOVE_FAILED, source.m);
	ms_put_str(&c, why);
	control_send(&c);
}

static long agent_receive(int *fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { packet, sizeof(packet) };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	long n = ms_recvmsg(control_fd, &m, MSG_CMSG_CLOEXEC);

	if (n > 0 && m.msg_controllen >= sizeof(struct cmsghdr) && fd)
		*fd = *(int *)CMSG_DATA(&control.head);
	return n;
}

static void agent_outcome(void)
{
	struct ms_codec c;
	long n = agent_receive(NULL);

	ms_codec_init(&c, packet, n > 0 ? (size_t)n : 0);
	ms_get_u8(&c);
	if (ms_get_u8(&c) != MS_D_OUTCOME)
		ms_exit_group(99);
	ms_get_u64(&c);
	if (ms_get_u8(&c))
		ms_exit_group(0);
}

static void agent_step(enum ms_step step, const uint64_t figures[MS_STEP_FIGURES])
{
	struct ms_codec c;

	control_begin(&c, MS_M_STEP, source.m);
	ms_put_u8(&c, (uint8_t)step);
	ms_put_u64(&c, ms_clock_ns(CLOCK_MONOTONIC));
	ms_put_u64(&c, ms_clock_ns(CLOCK_REALTIME));
	for (int i = 0; i < MS_STEP_FIGURES; i++)
		ms_put_u64(&c, figures[i]);
	control_send(&c);
}

static void agent_forecast(void)
{
	struct image_forecast f = { 0 };
	char why[IMAGE_WHY] = "";
	struct ms_codec out;

	if (image_forecast(&source, &f, why)) {
		agent_failed(why);
		return;
	}
	control_begin(&out, MS_M_CHECKED, source.m);
	ms_put_u64(&out, f.bytes);
	ms_put_u64(&out, f.rate);
	ms_put_u64(&out, f.dirty_rate);
	ms_put_u64(&out, f.freeze_ns);
	ms_put_u64(&out, f.total_ns);
	control_send(&out);
}

static void agent_move(struct ms_codec *c)
{
	struct image_stats stats = { 0 };
	char why[IMAGE_WHY] = "";
	struct ms_codec out;
	uint8_t flags;

	source.m = ms_get_u64(c);
	ms_get_u8(c);
	ms_get_u32(c);
	ms_get_u32(c);
	source.hash_key = ms_get_u64(c);
	ms_get_str(c, fault, sizeof(fault));
	source.fault = fault;
	flags = ms_get_u8(c);
	source.stop_and_copy = flags & MS_MOVE_STOP_AND_COPY;
	source.pack_never = flags & MS_MOVE_PACK_NEVER;
	source.pack_always = flags & MS_MOVE_PACK_ALWAYS;
	source.compare = flags & MS_MOVE_COMPARE;
	source.max_freeze_us = ms_get_u32(c);
	source.limit = ms_get_u64(c);
	source.step = agent_step;
	source.control_fd = control_fd;
	source.listener_fd = -1;
	source.resume = resume;
	for (int i = 0; i < 3; i++) {
		struct stat st;

		source.channel[i].dev = source.channel[i].ino = 0;
		if (ms_fstat(i, &st) == 0 && S_ISFIFO(st.st_mode)) {
			source.channel[i].dev = st.st_dev;
			source.channel[i].ino = st.st_ino;
		}
	}
	if (flags & MS_MOVE_CHECK) {
		agent_forecast();
	} else if (image_send_early(&source, why)) {
		agent_failed(why);
	} else if (image_freeze(MS_KICK_SIGNAL, agent_tid, 20000000000ull, why) || image_send(&source, &stats, why)) {
		agent_failed(why);
	} else {
		control_begin(&out, MS_M_IMAGE_SENT, source.m);
		ms_put_u64(&out, stats.sum);
		ms_put_u64(&out, stats.bytes);
		ms_put_u32(&out, stats.rounds);
		control_send(&out);
	}
	agent_outcome();
	image_thaw();
	ms_close(source.sock);
}

static bool agent_has_work(void)
{
	struct pollfd p = { .fd = control_fd, .events = POLLIN };

	return ms_poll(&p, 1, 0) > 0;
}

static void agent_one(void)
{
	struct ms_codec c;
	long n = agent_receive(&source.sock);

	if (n <= 0)
		ms_exit_group(98); /* the mover is gone */
	ms_codec_init(&c, packet, (size_t)n);
	if (ms_get_u8(&c) == MS_WIRE_VERSION && ms_get_u8(&c) == MS_D_MOVE)
		agent_move(&c);
}

static void agent_run(void)
{
	agent_tid = ms_gettid();
	do {
		while (agent_has_work())
			agent_one();
		__atomic_store_n(&agent_lives, 0, __ATOMIC_SEQ_CST);
		/* A kick that came just before found an agent: look once more. */
	} while (agent_has_work() && __atomic_exchange_n(&agent_lives, 1, __ATOMIC_SEQ_CST) == 0);
}

long agent_clone(unsigned long flags, void *top, void (*fn)(void)) __attribute__((visibility("hidden")));

__asm__(".pushsection .text\n"
	".globl agent_clone\n"
	".hidden agent_clone\n"
	"agent_clone:\n"
	"	movq %rdx, %r9\n"
	"	xorl %edx, %edx\n"
	"	xorl %r10d, %r10d\n"
	"	xorl %r8d, %r8d\n"
	"	movl $56, %eax\n"
	"	syscall\n"
	"	testq %rax, %rax\n"
	"	jz 1f\n"
	"	ret\n"
	"1:	xorl %ebp, %ebp\n"
	"	call *%r9\n"
	"	xorl %edi, %edi\n"
	"	movl $60, %eax\n"
	"	syscall\n"
	"	hlt\n"
	".popsection\n");

static void kicked(int sig, siginfo_t *info, void *uc)
{
	(void)sig;
	(void)info;
	if (image_freezing()) {
		image_park(uc);
		return;
	}
	if (__atomic_exchange_n(&agent_lives, 1, __ATOMIC_SEQ_CST) == 0)
		agent_clone(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
			    stack + sizeof(stack), agent_run);
}

__attribute__((constructor)) static void member_start(void)
{
	const char *fd = getenv("MEMBER_FD");
	struct sigaction sa = { .sa_sigaction = kicked, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK };

	if (!fd)
		return;
	control_fd = atoi(fd);
	unsetenv("MEMBER_FD");
	unsetenv("LD_PRELOAD");
	memset(&sa.sa_mask, 0xff,
	       sizeof(sa.sa_mask)); /* sigfillset leaves out the C library's own, and the freeze sends one of them */
	sigaction(MS_KICK_SIGNAL, &sa, NULL);
}
