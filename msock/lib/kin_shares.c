/* SPDX-License-Identifier: MIT */
/*
 * What a forked child has together with other processes: pipes, sockets, the
 * position in a file, memory.  A move would part them without anybody seeing
 * it, so it is refused.  Files that are appended to, devices and directories
 * may be parted.
 */
#include "lib/kin.h"

#include "image/image.h"
#include "lib/core.h"
#include "lib/fds.h"
#include "lib/holders.h"
#include "lib/log.h"
#include "lib/sock.h"

#include <sys/stat.h>

enum { SHARES_MAX = 4096, SHARES_TEXT = 4096, KCMP_FILE = 0 };

/* A descriptor that may be shared. */
struct share {
	uint64_t dev, ino;
	int fd;
	bool by_file; /* the file is everybody's, the open file is meant */
};

static struct share shares[SHARES_MAX];
static unsigned share_count;

struct shares_look {
	const struct image_source *src; /* channels are not looked at */
	uint64_t memory;                /* inode */
	unsigned found;                 /* of shares */
	int pid;                        /* who has it too; 0: nothing is shared */
};

static bool share_is_channel(const struct image_source *src, const struct stat *st)
{
	for (int i = 0; i < MS_CHANNELS; i++)
		if (src->channel[i].ino == st->st_ino && src->channel[i].dev == st->st_dev)
			return true;
	return false;
}

static void share_add(int fd, int flags, void *arg)
{
	const struct shares_look *look = arg;
	struct stat st;
	long how;

	if (share_count == SHARES_MAX || core_next_own_fd(fd) == fd || sock_find(fd) || ms_fstat(fd, &st) ||
	    share_is_channel(look->src, &st))
		return;
	how = ms_fcntl(fd, F_GETFL, 0);
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) || S_ISDIR(st.st_mode) ||
	    (S_ISREG(st.st_mode) && how & (O_APPEND | O_PATH)))
		return;
	shares[share_count++] = (struct share){
		.dev = st.st_dev, .ino = st.st_ino, .fd = fd, .by_file = !S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode)
	};
}

/* 0: no. What cannot be told counts as shared. */
static bool share_same_file(const struct share *s, int pid, int fd)
{
	return ms_getpid() != holders_self() || ms_sys5(SYS_kcmp, ms_getpid(), pid, KCMP_FILE, s->fd, fd) <= 0;
}

static void share_compare(int pid, int fd, const struct stat *st, void *arg)
{
	struct shares_look *look = arg;

	for (unsigned i = 0; i < share_count && !look->pid; i++) {
		if (shares[i].ino != st->st_ino || shares[i].dev != st->st_dev)
			continue;
		if (shares[i].by_file && !share_same_file(&shares[i], pid, fd))
			continue;
		look->pid = pid;
		look->found = i;
	}
}

/* Memory without a name, or with one of its own; all of it is in one file system of the kernel's. */
static const char shares_device[] = "00:01";

/* A line of maps: "addresses permissions offset device inode path". The inode, if it is such memory and shared; 0: no. */
static uint64_t map_shared_inode(const char *line, const char *end)
{
	const char *field[5] = { line };
	unsigned fields = 1;

	for (const char *at = line; at < end && fields < 5; at++)
		if (*at == ' ')
			field[fields++] = at + 1;
	if (fields < 5 || field[1][3] != 's' ||
	    __builtin_memcmp(field[3], shares_device, sizeof(shares_device) - 1) != 0)
		return 0;
	return (uint64_t)fds_number(field[4]);
}

/* Call for each such inode until it says true. */
static bool each_shared_map(int pid, bool (*call)(uint64_t ino, void *arg), void *arg)
{
	char text[SHARES_TEXT], path[64];
	size_t have = 0, from = 0;
	bool found = false;
	long n;
	int fd;

	log_format(path, sizeof(path), "/proc/%d/maps", pid);
	fd = ms_open(path, O_RDONLY | O_CLOEXEC, 0);
	while (fd >= 0 && !found && (n = ms_read(fd, text + have, sizeof(text) - have)) > 0) {
		size_t end = have;

		for (have += (size_t)n; end < have && !found; end++) {
			uint64_t ino = text[end] == '\n' ? map_shared_inode(text + from, text + end) : 0;

			found = ino && call(ino, arg);
			from = text[end] == '\n' ? end + 1 : from;
		}
		have -= from; /* the rest of a line; none is as long as the buffer */
		__builtin_memmove(text, text + from, have);
		from = 0;
	}
	if (fd >= 0)
		ms_close(fd);
	return found;
}

static bool map_is(uint64_t ino, void *arg)
{
	return ino == *(uint64_t *)arg;
}

static void share_compare_memory(int pid, void *arg)
{
	struct shares_look *look = arg;

	if (look->pid || pid == holders_self() || !each_shared_map(pid, map_is, &look->memory))
		return;
	look->pid = pid;
}

static bool share_look_for_memory(uint64_t ino, void *arg)
{
	struct shares_look *look = arg;

	look->memory = ino;
	holders_each(share_compare_memory, look);
	return look->pid != 0;
}

int kin_shares(const struct image_source *src, char *why, size_t size)
{
	struct shares_look look = { .src = src };

	if (!core.kin)
		return 0;
	if (each_shared_map(holders_self(), share_look_for_memory, &look)) {
		log_format(why, size, "processes %d and %d share memory", holders_self(), look.pid);
		return -1;
	}
	share_count = 0;
	fds_each(false, share_add, &look);
	if (share_count)
		holders_each_file(share_compare, &look);
	if (!look.pid)
		return 0;
	log_format(why, size, "descriptor %d: processes %d and %d share it", shares[look.found].fd, holders_self(),
		   look.pid);
	return -1;
}
