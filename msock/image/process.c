/* SPDX-License-Identifier: MIT */
/* Directory, limits and settings of the process as a whole. */
#include <errno.h>
#include <linux/prctl.h>

#include "image/baggage.h"
#include "image/mem.h"
#include "image/proc.h"
#include "image/say.h"

enum { MEMBARRIER_REGISTRATIONS = 1 << 9 }; /* of Linux 6.3 */

static int baggage_directory(struct baggage *c, char why[IMAGE_WHY])
{
	char path[IMAGE_PATH_MAX];
	struct stat st;
	long n = ms_readlinkat(AT_FDCWD, "/proc/self/cwd", path, sizeof(path) - 1);

	if (n < 0)
		return image_say(why, "cannot read the working directory: %e", (int)n);
	path[n] = 0;
	if (ms_fstatat(AT_FDCWD, "/proc/self/cwd", &st, 0) == 0 && st.st_nlink == 0)
		return image_say(why, "the working directory is removed: %s", path);
	c->cwd = baggage_string(c, path, (size_t)n);
	n = ms_readlinkat(AT_FDCWD, "/proc/self/root", path, sizeof(path) - 1);
	if (n != 1)
		return image_say(why, "the process has a root directory of its own (chroot)");
	return 0;
}

/* umask, and how many seccomp filters there are. */
static void note_status(struct baggage *c)
{
	char text[4096];
	const char *s;

	c->umask = 022;
	c->filters = 0;
	if (proc_read("/proc/self/status", text, sizeof(text)) <= 0)
		return;
	s = proc_field(text, "Umask");
	for (c->umask = s ? 0 : 022; s && *s >= '0' && *s <= '7'; s++)
		c->umask = c->umask * 8 + (*s - '0');
	s = proc_field(text, "Seccomp_filters");
	c->filters = s ? (int)proc_number(&s, 10) : 0;
}

/* "0-3,8": the source's processors. */
static void note_online(struct baggage *c)
{
	char text[1024];
	const char *s = text;

	if (proc_read("/sys/devices/system/cpu/online", text, sizeof(text)) <= 0)
		return;
	while (*s >= '0' && *s <= '9') {
		uint64_t first = proc_number(&s, 10), last = first;

		if (*s == '-') {
			s++;
			last = proc_number(&s, 10);
		}
		for (uint64_t i = first; i <= last && i < 64 * sizeof(c->online) / sizeof(c->online[0]); i++)
			c->online[i / 64] |= 1ull << (i % 64);
		s += *s == ',';
	}
}

static void note_file(const char *path, char *to, size_t size)
{
	if (proc_read(path, to, size) <= 0)
		to[0] = 0;
}

/* Only what differs is written: some of it may not be lowered without privilege. */
static void return_file(const char *path, const char *want, const char *prefix)
{
	char now[16], line[32];
	int fd;

	note_file(path, now, sizeof(now));
	if (!want[0] || ms_streq(want, now))
		return;
	fd = ms_open(path, O_WRONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return;
	ms_write(fd, line, image_print(line, sizeof(line), "%s%s", prefix, want));
	ms_close(fd);
}

int baggage_process(struct baggage *c, char why[IMAGE_WHY])
{
	if (baggage_directory(c, why))
		return -1;
	note_status(c);
	for (int i = 0; i < BAGGAGE_LIMITS; i++)
		ms_sys4(SYS_prlimit64, 0, i, 0, (long)&c->limit[i]);
	c->personality = (unsigned long)ms_sys1(SYS_personality, 0xffffffff);
	c->dumpable = (int)ms_prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
	c->no_new_privs = (int)ms_prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
	c->subreaper = 0;
	ms_prctl(PR_GET_CHILD_SUBREAPER, (long)&c->subreaper, 0, 0, 0);
	c->no_huge = (int)ms_prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	note_online(c);
	c->barriers = (int)ms_sys3(SYS_membarrier, MEMBARRIER_REGISTRATIONS, 0, 0);
	note_file("/proc/self/coredump_filter", c->core_filter, sizeof(c->core_filter));
	note_file("/proc/self/oom_score_adj", c->oom_score, sizeof(c->oom_score));
	return 0;
}

/* What the target's hard limit forbids is cut down to it. */
static void limit_restore(int which, const struct rlimit *want)
{
	struct rlimit have;

	if (ms_sys4(SYS_prlimit64, 0, which, (long)want, 0) == 0)
		return;
	if (ms_sys4(SYS_prlimit64, 0, which, 0, (long)&have))
		return;
	have.rlim_cur = want->rlim_cur < have.rlim_max ? want->rlim_cur : have.rlim_max;
	ms_sys4(SYS_prlimit64, 0, which, (long)&have, 0);
}

int baggage_process_return(struct baggage *c, struct image_arrival *a)
{
	int umask = c->umask, filters = c->filters, e = ms_chdir(c->cwd);

	note_status(c);
	if (filters > c->filters)
		return image_say(a->why, "the process has a seccomp filter, which cannot move");
	c->umask = umask;
	c->filters = filters;
	if (e)
		return image_say(a->why, "cannot enter the working directory %s: %e", c->cwd, e);
	ms_umask(c->umask);
	ms_sys1(SYS_personality, (long)c->personality);
	if (c->no_new_privs)
		ms_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (c->subreaper)
		ms_prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	if (c->no_huge > 0)
		ms_prctl(PR_SET_THP_DISABLE, c->no_huge, 0, 0, 0);
	for (int i = 0; i < BAGGAGE_LIMITS; i++)
		limit_restore(i, &c->limit[i]);
	for (int bit = 0; bit < 31; bit++)
		if (c->barriers > 0 && c->barriers & 1 << bit)
			ms_sys3(SYS_membarrier, 1 << bit, 0, 0);
	return_file("/proc/self/coredump_filter", c->core_filter, "0x");
	return_file("/proc/self/oom_score_adj", c->oom_score, "");
	return 0;
}
