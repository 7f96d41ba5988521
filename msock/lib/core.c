/* SPDX-License-Identifier: MIT */
#include "lib/core.h"

#include "lib/sys.h"

enum { CORE_FD_BASE = 200, CORE_FDS = 65536 };

static uint64_t own_fds[CORE_FDS / 64];

struct core core = { .kick_signal = MS_KICK_SIGNAL };

uint64_t core_stream_id(void)
{
	if (!core.next_stream && !core.member) {
		ms_getrandom(&core.next_stream, sizeof(core.next_stream), 0);
		core.next_stream &= ~0xffffffffull;
	}
	if (core.member)
		return (uint64_t)core.id << 32 | (uint32_t)++core.next_stream;
	return ++core.next_stream;
}

uint64_t core_stream_id_abroad(void)
{
	uint64_t id = 0;

	ms_getrandom(&id, sizeof(id), 0);
	return (uint64_t)MS_MEMBER(MS_WORLD_ABROAD, 0) << 32 | id >> 10;
}

int core_raise_fd(int fd)
{
	struct rlimit limit = { 0 };
	int base = CORE_FD_BASE, up;

	if (fd >= CORE_FD_BASE)
		return fd;
	if (!ms_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit) && limit.rlim_cur < 2 * CORE_FD_BASE)
		base = (int)limit.rlim_cur / 2;
	up = (int)ms_fcntl(fd, F_DUPFD_CLOEXEC, base);
	if (up < 0)
		return fd;
	ms_close(fd);
	return up;
}

void core_own_fd(int fd, bool own)
{
	if (fd < 0 || fd >= CORE_FDS)
		return;
	if (own)
		own_fds[fd / 64] |= 1ull << fd % 64;
	else
		own_fds[fd / 64] &= ~(1ull << fd % 64);
}

int core_next_own_fd(int from)
{
	for (int fd = from < 0 ? 0 : from; fd < CORE_FDS; fd++) {
		if (!own_fds[fd / 64])
			fd |= 63;
		else if (own_fds[fd / 64] >> fd % 64 & 1)
			return fd;
	}
	return -1;
}
