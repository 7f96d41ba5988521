/* SPDX-License-Identifier: MIT */
#include "lib/holders.h"

#include "lib/fds.h"
#include "lib/log.h"

enum { HOLDERS_PATH = 64, HOLDERS_MAX = 4096, HOLDERS_TEXT = 4096 };

/* Processes to be looked at; who looks has the lock. */
static int family[HOLDERS_MAX];
static unsigned family_size;

struct holder {
	uint64_t ino;
	int pid;
	bool found;
};

int holders_self(void)
{
	char text[16] = "";
	int n = 0;

	if (ms_readlinkat(AT_FDCWD, "/proc/self", text, sizeof(text) - 1) <= 0)
		return ms_getpid();
	for (const char *at = text; *at >= '0' && *at <= '9'; at++)
		n = n * 10 + (*at - '0');
	return n;
}

/* Call for every number in a directory of /proc. */
static void each_entry(const char *path, void (*call)(int number, void *arg), void *arg)
{
	char buf[HOLDERS_TEXT] __attribute__((aligned(8)));
	int dir = ms_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	long n;

	while (dir >= 0 && (n = ms_getdents(dir, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n; at += ((struct fds_dirent *)(buf + at))->size) {
			int number = fds_number(((struct fds_dirent *)(buf + at))->name);

			if (number >= 0)
				call(number, arg);
		}
	}
	if (dir >= 0)
		ms_close(dir);
}

static bool holder_has(const struct holder *h, int fd)
{
	char path[HOLDERS_PATH];
	struct stat st;

	log_format(path, sizeof(path), "/proc/%d/fd/%d", h->pid, fd);
	return !ms_fstatat(AT_FDCWD, path, &st, 0) && S_ISSOCK(st.st_mode) && st.st_ino == h->ino;
}

static void holder_look_at(int fd, void *arg)
{
	struct holder *h = arg;

	h->found = h->found || holder_has(h, fd);
}

static bool holder_is(uint64_t ino, int pid, int number)
{
	struct holder h = { .ino = ino, .pid = pid };
	char path[HOLDERS_PATH];

	if (number >= 0 && holder_has(&h, number))
		return true;
	log_format(path, sizeof(path), "/proc/%d/fd", pid);
	each_entry(path, holder_look_at, &h);
	return h.found;
}

bool holders_is(uint64_t ino, int pid)
{
	return holder_is(ino, pid, -1);
}

static void family_add(int pid)
{
	if (pid > 0 && family_size < HOLDERS_MAX)
		family[family_size++] = pid;
}

static void family_add_list(const char *path)
{
	char text[HOLDERS_TEXT];
	int fd = ms_open(path, O_RDONLY | O_CLOEXEC, 0), pid = 0;
	long n;

	while (fd >= 0 && (n = ms_read(fd, text, sizeof(text))) > 0) {
		for (long i = 0; i < n; i++) {
			if (text[i] >= '0' && text[i] <= '9') {
				pid = pid * 10 + (text[i] - '0');
				continue;
			}
			family_add(pid);
			pid = 0;
		}
	}
	family_add(pid);
	if (fd >= 0)
		ms_close(fd);
}

static void family_add_thread(int tid, void *arg)
{
	char path[HOLDERS_PATH];

	log_format(path, sizeof(path), "/proc/%d/task/%d/children", *(int *)arg, tid);
	family_add_list(path);
}

static void family_add_children(int pid)
{
	char path[HOLDERS_PATH];

	log_format(path, sizeof(path), "/proc/%d/task", pid);
	each_entry(path, family_add_thread, &pid);
}

/* Generation by generation, the youngest first: it is mostly the child that was just made. */
int holders_below(uint64_t ino, int number)
{
	unsigned done = 0, end;

	family_size = 0;
	family_add_children(holders_self());
	while (done < family_size) {
		end = family_size;
		for (unsigned i = end; i > done; i--)
			if (holder_is(ino, family[i - 1], number))
				return family[i - 1];
		for (; done < end; done++)
			family_add_children(family[done]);
	}
	return 0;
}

static void family_add_process(int pid, void *arg)
{
	if (pid != *(int *)arg)
		family_add(pid);
}

int holders_anywhere(uint64_t ino)
{
	int self = holders_self(), lowest = 0;

	family_size = 0;
	each_entry("/proc", family_add_process, &self);
	for (unsigned i = 0; i < family_size; i++)
		if ((!lowest || family[i] < lowest) && holder_is(ino, family[i], -1))
			lowest = family[i];
	return lowest;
}

void holders_each(void (*call)(int pid, void *arg), void *arg)
{
	each_entry("/proc", call, arg);
}

struct holders_walk {
	void (*call)(int pid, int fd, const struct stat *st, void *arg);
	void *arg;
	int self, pid;
};

static void walk_file(int fd, void *arg)
{
	const struct holders_walk *w = arg;
	char path[HOLDERS_PATH];
	struct stat st;

	log_format(path, sizeof(path), "/proc/%d/fd/%d", w->pid, fd);
	if (!ms_fstatat(AT_FDCWD, path, &st, 0))
		w->call(w->pid, fd, &st, w->arg);
}

static void walk_process(int pid, void *arg)
{
	struct holders_walk *w = arg;
	char path[HOLDERS_PATH];

	if (pid == w->self)
		return;
	w->pid = pid;
	log_format(path, sizeof(path), "/proc/%d/fd", pid);
	each_entry(path, walk_file, w);
}

void holders_each_file(void (*call)(int pid, int fd, const struct stat *st, void *arg), void *arg)
{
	struct holders_walk w = { .call = call, .arg = arg, .self = holders_self() };

	each_entry("/proc", walk_process, &w);
}
