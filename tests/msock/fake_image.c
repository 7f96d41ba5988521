/* SPDX-License-Identifier: MIT */
/*
 * fake_image.c - the image interface without an image: threads are stopped and
 * let go for real, but the "target" is this very process.  The test's daemon
 * says over the image connection what shall come of the move; for a commit the
 * descriptors that the library calls its own are closed, a new listener is put
 * under the old number, and the main thread runs resume(), as msrestore has it.
 */
#include "image/image.h"
#include "lib/core.h"
#include "lib/sys.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>

#include "fake_image.h"

enum fake_state { FAKE_RUN, FAKE_FREEZE, FAKE_RESUME };

static volatile uint32_t fake_state, fake_parked, fake_left;
static uint64_t fake_start_ns, fake_frozen_ns;
static void (*fake_resume)(const void *, size_t);
static uint8_t fake_message[1024];
static size_t fake_bytes;
static int fake_mover;

bool image_pair(int pair[2], uint64_t *ino)
{
	return false;
}

bool image_pairs_lent(int *first, int *end)
{
	return false;
}

bool image_freezing(void)
{
	return fake_state != FAKE_RUN;
}

static void fake_set(uint32_t state)
{
	__atomic_store_n(&fake_state, state, __ATOMIC_SEQ_CST);
	ms_futex((void *)&fake_state, FUTEX_WAKE, 1 << 30, NULL);
}

void image_park(void *ucontext)
{
	uint32_t state;

	__atomic_add_fetch(&fake_parked, 1, __ATOMIC_SEQ_CST);
	while ((state = fake_state) != FAKE_RUN) {
		if (state == FAKE_RESUME && ms_gettid() == ms_getpid()) {
			struct timespec slice = { 0, 50000 };

			while (ms_tgkill(ms_getpid(), fake_mover, 0) == 0)
				ms_nanosleep(&slice); /* it stays at the source: its stack is nobody's here */
			fake_frozen_ns = ms_clock_ns(CLOCK_MONOTONIC) - fake_start_ns;
			fake_resume(fake_message, fake_bytes);
			fake_set(FAKE_RUN);
			break;
		}
		ms_futex((void *)&fake_state, FUTEX_WAIT, state,
			 NULL); /* of what was looked at, or a change is slept through */
	}
	__atomic_add_fetch(&fake_left, 1, __ATOMIC_SEQ_CST);
}

struct fake_entry {
	uint64_t ino, off;
	uint16_t length;
	uint8_t type;
	char name[];
};

/* Kick all but the agent; how many there are. */
static int fake_kick_all(int signal, int agent)
{
	uint64_t text[512];
	int dir = ms_open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), threads = 0;
	long n;

	while ((n = ms_getdents(dir, text, sizeof(text))) > 0) {
		for (char *at = (char *)text; at < (char *)text + n; at += ((struct fake_entry *)at)->length) {
			int tid = 0;

			for (char *c = ((struct fake_entry *)at)->name; *c >= '0' && *c <= '9'; c++)
				tid = tid * 10 + *c - '0';
			if (!tid || tid == agent)
				continue;
			threads++;
			if (signal)
				ms_tgkill(ms_getpid(), tid, signal);
		}
	}
	ms_close(dir);
	return threads;
}

int image_freeze(int signal, int agent, uint64_t timeout_ns, char why[IMAGE_WHY])
{
	struct timespec slice = { 0, 200000 };

	while (fake_left != fake_parked)
		ms_nanosleep(&slice);
	fake_parked = fake_left = 0;
	fake_start_ns = ms_clock_ns(CLOCK_MONOTONIC);
	fake_set(FAKE_FREEZE);
	fake_kick_all(signal, agent);
	while ((int)fake_parked < fake_kick_all(0, agent)) {
		if (ms_clock_ns(CLOCK_MONOTONIC) - fake_start_ns > timeout_ns) {
			memcpy(why, "threads do not stop", 20);
			return -1;
		}
		ms_nanosleep(&slice);
	}
	return 0;
}

void image_thaw(void)
{
	fake_set(FAKE_RUN);
}

int image_pause(int signal, bool (*ours)(int tid), uint64_t timeout_ns, char why[IMAGE_WHY])
{
	return -1; /* only the program's own sockets want it, which these tests have not */
}

void image_unpause(void)
{
}

void image_forked(void)
{
}

/* As where sockets come and go all the time: only under the lock the list of the library's own stays true. */
int image_check(const struct image_source *src, char why[IMAGE_WHY])
{
	if (core.lock.word)
		return 0;
	strcpy(why, FAKE_RACED);
	return -1;
}

int image_send_more(char why[IMAGE_WHY])
{
	return 0;
}

int image_forecast(const struct image_source *src, struct image_forecast *f, char why[IMAGE_WHY])
{
	f->bytes = 1;
	return 0;
}

int image_send_early(const struct image_source *src, char why[IMAGE_WHY])
{
	return 0;
}

/* A listener on the new "host" under the old number; its port goes to the daemon. */
static void fake_new_listener(int number, uint32_t ip, int sock)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(ip) };
	socklen_t size = sizeof(at);
	int fd = ms_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	uint16_t port;

	if (ms_bind(fd, &at, sizeof(at)) || ms_listen(fd, 128) || ms_getsockname(fd, &at, &size))
		__builtin_trap();
	ms_dup3(fd, number, O_CLOEXEC);
	ms_close(fd);
	port = ntohs(at.sin_port);
	ms_send(sock, &port, sizeof(port), MSG_NOSIGNAL);
}

int image_send(const struct image_source *src, struct image_stats *stats, char why[IMAGE_WHY])
{
	long n = ms_send(src->sock, "", 1, MSG_NOSIGNAL);
	uint32_t ip;

	n = ms_recv(src->sock, fake_message, sizeof(fake_message), 0);
	if (n == 1 && fake_message[0] == FAKE_FAILS) {
		memcpy(why, "as the test wants it", 21);
		return -1;
	}
	if (n <= (long)sizeof(ip))
		return 0; /* the outcome comes over the control socket */
	memcpy(&ip, fake_message, sizeof(ip));
	fake_bytes = (size_t)n - sizeof(ip);
	memmove(fake_message, fake_message + sizeof(ip), fake_bytes);
	fake_resume = src->resume;
	fake_mover = ms_gettid();
	for (size_t i = 0; i < src->own_count; i++)
		if (src->own_fds[i] != src->sock)
			ms_close(src->own_fds[i]);
	fake_new_listener(src->listener_fd, ip, src->sock);
	ms_close(src->sock);
	fake_set(FAKE_RESUME);
	ms_exit(0); /* the mover stays at the source */
}

void image_cancel(void)
{
}

uint64_t image_frozen_ns(void)
{
	return fake_frozen_ns;
}
