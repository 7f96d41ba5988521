/* SPDX-License-Identifier: MIT */
/* What the restorer and its daemon say to each other; proto/wire.h. */
#include <errno.h>
#include <netinet/in.h>

#include "image/mem.h"
#include "image/restore/restore.h"
#include "proto/wire.h"

static uint8_t packet[MS_CTL_MAX];

static int control_send(struct ms_codec *c)
{
	size_t n = (size_t)(c->at - packet);

	return ms_send(restore.control_fd, packet, n, MSG_NOSIGNAL) == (long)n ? 0 : -1;
}

static void control_begin(struct ms_codec *c, uint8_t type)
{
	ms_codec_init(c, packet, sizeof(packet));
	ms_put_u8(c, MS_WIRE_VERSION);
	ms_put_u8(c, type);
	ms_put_u64(c, restore.m);
}

/* Receives one packet into buf; descriptors into fds, their number in *count. Bytes, or -1. */
static long control_receive(void *buf, size_t size, int *fds, int *count)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(16 * sizeof(int))];
	} control;
	struct iovec iov = { buf, size };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	struct cmsghdr *h;
	long n;

	memset(&control, 0, sizeof(control));
	do
		n = ms_recvmsg(restore.control_fd, &m, MSG_CMSG_CLOEXEC);
	while (n == -EINTR);
	*count = 0;
	h = m.msg_controllen >= sizeof(*h) ? &control.head : NULL;
	if (n > 0 && h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
		*count = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(h), (size_t)*count * sizeof(int));
	}
	return n > 0 ? n : -1;
}

int control_restore(void)
{
	char host[256];
	int fds[16], count, used = 1;
	struct ms_codec c;
	long n = control_receive(packet, sizeof(packet), fds, &count);

	if (n < 0)
		ms_exit_group(1); /* the daemon is gone */
	ms_codec_init(&c, packet, (size_t)n);
	if (ms_get_u8(&c) != MS_WIRE_VERSION || ms_get_u8(&c) != MS_D_RESTORE)
		return image_say(restore.why, "the daemon speaks another version");
	restore.m = ms_get_u64(&c);
	ms_get_u32(&c);
	ms_get_str(&c, host, sizeof(host));
	restore.real_ip = ms_get_u32(&c);
	restore.port_low = ms_get_u16(&c);
	restore.port_high = ms_get_u16(&c);
	restore.hash_key = ms_get_u64(&c);
	ms_get_str(&c, restore.fault, sizeof(restore.fault));
	restore.image_fd = count ? fds[0] : -1;
	restore.listener_fd = -1;
	for (int i = 0; i < MS_CHANNELS; i++) {
		bool have = ms_get_u8(&c);

		if (have && used >= count)
			c.bad = true;
		restore.channel_fd[i] = have && used < count ? fds[used++] : -1;
	}
	if (c.bad || restore.image_fd < 0)
		return image_say(restore.why, "the daemon's order to restore cannot be read");
	image_sum_init(&restore.sum, restore.hash_key);
	return 0;
}

int control_ready(void)
{
	struct ms_codec c;

	control_begin(&c, MS_R_READY);
	return control_send(&c) ? image_say(restore.why, "the daemon is gone") : 0;
}

void control_failed(void)
{
	struct ms_codec c;

	control_begin(&c, MS_R_FAILED);
	ms_put_str(&c, restore.why);
	control_send(&c);
	ms_exit_group(1);
}

/* Of its own wish no more memory: only the soft limit, the member's own limits come back with the rest of it. */
static void control_starve(void)
{
	struct rlimit limit = { 0, 0 };

	ms_sys4(SYS_prlimit64, 0, RLIMIT_AS, 0, (long)&limit);
	limit.rlim_cur = 0;
	ms_sys4(SYS_prlimit64, 0, RLIMIT_AS, (long)&limit, 0);
}

void control_step(enum ms_step step, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	enum ms_fault act = ms_fault_at(restore.fault, step);
	struct ms_codec out;

	control_begin(&out, MS_M_STEP);
	ms_put_u8(&out, (uint8_t)step);
	ms_put_u64(&out, ms_clock_ns(CLOCK_MONOTONIC));
	ms_put_u64(&out, ms_clock_ns(CLOCK_REALTIME));
	ms_put_u64(&out, a);
	ms_put_u64(&out, b);
	ms_put_u64(&out, c);
	ms_put_u64(&out, d);
	control_send(&out);
	if (act == MS_FAULT_DIE)
		ms_kill(ms_getpid(), SIGKILL);
	else if (act == MS_FAULT_CUT)
		ms_shutdown(restore.image_fd, SHUT_RDWR);
	else if (act == MS_FAULT_NOMEM)
		control_starve();
}

/* The member's data listener, at the place where it is now. */
int control_listen(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	uint32_t ip = restore.real_ip;
	uint32_t low = restore.port_low, high = restore.port_high;
	int fd = ms_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1, e = fd;

	if (fd < 0)
		return image_say(restore.why, "no socket for the data listener: %e", fd);
	if (low)
		ms_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	at.sin_addr.s_addr = __builtin_bswap32(ip);
	for (uint32_t port = low; port <= high; port++) {
		at.sin_port = __builtin_bswap16((uint16_t)port);
		e = ms_bind(fd, &at, sizeof(at));
		if (!e)
			e = ms_listen(fd, 4096);
		if (e != -EADDRINUSE)
			break;
	}
	if (e)
		return image_say(restore.why, "the data listener finds no port: %e", e);
	restore.listener_fd = fd;
	return 0;
}

int control_image_ok(void)
{
	struct sockaddr_in at = { 0 };
	socklen_t size = sizeof(at);
	struct ms_codec c;

	if (restore.arrival.listener_fd >= 0)
		ms_getsockname(restore.arrival.listener_fd, &at, &size);
	control_begin(&c, MS_R_IMAGE_OK);
	ms_put_u64(&c, restore.sum.value);
	ms_put_u64(&c, restore.all_bytes);
	ms_put_u16(&c, __builtin_bswap16(at.sin_port));
	ms_put_u8(&c, restore.tracked);
	return control_send(&c) ? image_say(restore.why, "the daemon is gone") : 0;
}

int control_wait_resume(void)
{
	int fds[16], count;
	struct ms_codec c;

	for (;;) {
		long n = control_receive(restore.message, sizeof(restore.message), fds, &count);

		if (n < 0)
			ms_exit_group(1);
		ms_codec_init(&c, restore.message, (size_t)n);
		if (ms_get_u8(&c) != MS_WIRE_VERSION)
			return image_say(restore.why, "the daemon speaks another version");
		if (ms_get_u8(&c) != MS_D_RESUME || ms_get_u64(&c) != restore.m)
			continue;
		if (!ms_get_u8(&c) || c.bad)
			ms_exit_group(0); /* given up */
		control_step(MS_STEP_GOING, 0, 0, 0, 0);
		restore.arrival.msg = restore.message;
		restore.arrival.msg_bytes = (size_t)n;
		return 0;
	}
}
