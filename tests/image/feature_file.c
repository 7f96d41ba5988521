/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <dlfcn.h>

#include "feature.h"

static const char *path_of(const char *name)
{
	static char path[4][512];
	static int next;
	char *p = path[next++ % 4];

	snprintf(p, 512, "%s/%s", feature_dir(), name);
	return p;
}

static void stdio(void)
{
	const char *path = path_of("stdio");
	FILE *f = fopen(path, "w+");
	char line[64];

	CHECK(f);
	for (int k = 0; k < MOVES; k++) {
		for (int i = 0; i < 3000; i++)
			fprintf(f, "line %d of %d\n", i, k);
		CHECK(member_move() == 0);
	}
	rewind(f);
	for (int k = 0; k < MOVES; k++)
		for (int i = 0; i < 3000; i++) {
			char want[64];

			snprintf(want, sizeof(want), "line %d of %d\n", i, k);
			CHECK(fgets(line, sizeof(line), f) && strcmp(line, want) == 0);
		}
	fclose(f);
	unlink(path);
}

static void offsets(void)
{
	const char *path = path_of("offsets");
	int a = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), b = dup(a), c, append;

	CHECK(a >= 0 && write(a, "0123456789", 10) == 10);
	c = open(path, O_RDONLY | O_CLOEXEC);
	append = open(path, O_WRONLY | O_APPEND);
	CHECK(dup2(a, 77) == 77);
	for (int k = 0; k < MOVES; k++) {
		char x;

		CHECK(lseek(a, 3, SEEK_SET) == 3 && lseek(c, 5, SEEK_SET) == 5);
		CHECK(member_move() == 0);
		CHECK(read(b, &x, 1) == 1 && x == '3' && lseek(a, 0, SEEK_CUR) == 4 && lseek(77, 0, SEEK_CUR) == 4);
		CHECK(read(c, &x, 1) == 1 && x == '5');
		CHECK(write(append, "+", 1) == 1 && lseek(append, 0, SEEK_CUR) == 11 + k);
		CHECK(fcntl(c, F_GETFD) == FD_CLOEXEC && fcntl(a, F_GETFD) == 0);
		CHECK((fcntl(append, F_GETFL) & (O_APPEND | O_ACCMODE)) == (O_APPEND | O_WRONLY));
	}
	unlink(path);
}

static void surroundings(void)
{
	struct rlimit limit = { 300, 400 }, now;
	char cwd[512], link[512] = "", again[512] = "", name[17];
	int fds = 0;
	DIR *d;

	CHECK(chdir(feature_dir()) == 0 && getcwd(cwd, sizeof(cwd)));
	umask(027);
	setrlimit(RLIMIT_NOFILE, &limit);
	prctl(PR_SET_NAME, "my-own-name");
	CHECK(readlink("/proc/self/exe", link, sizeof(link) - 1) > 0);
	setenv("COLOUR", "blue", 1);
	for (int k = 0; k < MOVES; k++) {
		int n = 0;

		CHECK(member_move() == 0);
		CHECK(getcwd(again, sizeof(again)) && strcmp(again, cwd) == 0);
		CHECK(umask(027) == 027);
		CHECK(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == 300 && now.rlim_max == 400);
		CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "my-own-name") == 0);
		memset(again, 0, sizeof(again));
		CHECK(readlink("/proc/self/exe", again, sizeof(again) - 1) > 0 && strcmp(again, link) == 0);
		CHECK(strcmp(getenv("COLOUR"), "blue") == 0);
		d = opendir("/proc/self/fd");
		while (readdir(d))
			n++;
		closedir(d);
		CHECK(fds == 0 || n == fds); /* nothing is left behind */
		fds = n;
	}
}

static void paths(void)
{
	int dir = open(feature_dir(), O_RDONLY | O_DIRECTORY), at = open("/usr/bin", O_PATH),
	    null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY), link;
	struct stat st;
	char x = 1;

	CHECK(symlink("nowhere", path_of("link")) == 0 || errno == EEXIST);
	link = open(path_of("link"), O_PATH | O_NOFOLLOW);
	CHECK(dir >= 0 && at >= 0 && link >= 0);
	for (int k = 0; k < MOVES; k++) {
		int fd;

		CHECK(member_move() == 0);
		fd = openat(dir, "made", O_CREAT | O_WRONLY, 0600);
		CHECK(fd >= 0);
		close(fd);
		CHECK(unlinkat(dir, "made", 0) == 0);
		CHECK(fstatat(at, "env", &st, 0) == 0 && (fcntl(at, F_GETFL) & O_PATH));
		CHECK(fstat(link, &st) == 0 && S_ISLNK(st.st_mode));
		CHECK(write(null, &x, 1) == 1 && read(zero, &x, 1) == 1 && x == 0);
	}
	unlink(path_of("link"));
}

static void events(void)
{
	int e = eventfd(7, EFD_NONBLOCK | EFD_CLOEXEC), t = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), s;
	struct itimerspec every = { { 0, 10000000 }, { 0, 10000000 } };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s = signalfd(-1, &set, SFD_NONBLOCK);
	timerfd_settime(t, 0, &every, NULL);
	for (int k = 0; k < MOVES; k++) {
		struct signalfd_siginfo info;
		struct pollfd p = { .fd = t, .events = POLLIN };
		uint64_t v;

		kill(getpid(), SIGUSR1);
		CHECK(member_move() == 0);
		CHECK(read(e, &v, 8) == 8 && v == 7 && read(e, &v, 8) == -1 && errno == EAGAIN);
		CHECK(write(e, &v, 8) == 8);
		CHECK(read(e, &v, 8) == 8 && v == 7);
		CHECK(write(e, &v, 8) == 8);
		CHECK(read(s, &info, sizeof(info)) == sizeof(info) && info.ssi_signo == SIGUSR1);
		CHECK(poll(&p, 1, 1000) == 1 && read(t, &v, 8) == 8 && v >= 1);
		CHECK(poll(&p, 1, 1000) == 1);
	}
}

static void pipes(void)
{
	int p[2], q[2], dup_end;
	char buf[70000], big[60000];

	CHECK(pipe2(p, O_CLOEXEC) == 0 && pipe2(q, O_NONBLOCK) == 0);
	dup_end = dup(p[1]);
	memset(big, 'b', sizeof(big));
	for (int k = 0; k < MOVES; k++) {
		CHECK(write(p[1], "hello", 5) == 5 && write(q[1], big, sizeof(big)) == sizeof(big));
		CHECK(member_move() == 0);
		CHECK(write(dup_end, " you", 4) == 4);
		CHECK(read(p[0], buf, sizeof(buf)) == 9 && memcmp(buf, "hello you", 9) == 0);
		CHECK(read(q[0], buf, sizeof(buf)) == sizeof(big) && memcmp(buf, big, sizeof(big)) == 0);
		CHECK(read(q[0], buf, 1) == -1 && errno == EAGAIN);
		CHECK(fcntl(p[0], F_GETFD) == FD_CLOEXEC && fcntl(q[0], F_GETFD) == 0);
	}
	close(p[1]);
	close(dup_end);
	CHECK(read(p[0], buf, 1) == 0); /* no writer is left over */
}

/* As shells keep a here-document: content, and nobody who could write more. The other way round too. */
static void pipes_left(void)
{
	int left[2], deaf[2];
	char buf[100];

	signal(SIGPIPE, SIG_IGN);
	CHECK(pipe(left) == 0 && pipe(deaf) == 0);
	CHECK(write(left[1], "0123456789", 10) == 10 && close(left[1]) == 0 && close(deaf[0]) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(read(left[0], buf, 1) == 1 && buf[0] == '0' + k);
		CHECK(write(deaf[1], "x", 1) == -1 && errno == EPIPE);
	}
	CHECK(read(left[0], buf, sizeof(buf)) == 10 - MOVES && read(left[0], buf, 1) == 0);
}

static void epolls(void)
{
	int outer = epoll_create1(EPOLL_CLOEXEC), inner = epoll_create1(0), e = eventfd(0, EFD_NONBLOCK), p[2];
	struct epoll_event ev = { EPOLLIN, { .u64 = 0x123456789abcdefull } }, got[4];
	uint64_t one = 1;

	CHECK(pipe(p) == 0);
	CHECK(epoll_ctl(inner, EPOLL_CTL_ADD, e, &ev) == 0);
	ev.data.u64 = 7;
	CHECK(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &ev) == 0);
	ev.events = EPOLLIN | EPOLLONESHOT;
	ev.data.u64 = 9;
	CHECK(epoll_ctl(outer, EPOLL_CTL_ADD, p[0], &ev) == 0);
	CHECK(write(p[1], "x", 1) == 1);
	CHECK(epoll_wait(outer, got, 4, 1000) == 1 && got[0].data.u64 == 9);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(epoll_wait(outer, got, 4, 0) == 0); /* the one shot is fired already */
		CHECK(write(e, &one, 8) == 8);
		CHECK(epoll_wait(outer, got, 4, 1000) == 1 && got[0].data.u64 == 7);
		CHECK(epoll_wait(inner, got, 4, 0) == 1 && got[0].data.u64 == 0x123456789abcdefull);
		CHECK(read(e, &one, 8) == 8);
	}
	CHECK(epoll_ctl(outer, EPOLL_CTL_MOD, p[0], &ev) == 0);
	CHECK(epoll_wait(outer, got, 4, 1000) == 1 && got[0].data.u64 == 9);
}

static void unlinked(void)
{
	FILE *f = tmpfile();
	const char *path = path_of("unlinked");
	int a = open(path, O_RDWR | O_CREAT | O_TRUNC, 0640), b = open(path, O_WRONLY | O_APPEND);
	char line[64];
	struct stat st;

	CHECK(f && a >= 0 && b >= 0);
	unlink(path);
	/* As interpreters make them. */
	CHECK(open(feature_dir(), O_TMPFILE | O_RDWR | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600) >= 0);
	CHECK(ftruncate(a, 100000) == 0);
	for (int k = 0; k < MOVES; k++) {
		fprintf(f, "%d\n", k);
		CHECK(lseek(a, 500, SEEK_SET) == 500);
		CHECK(member_move() == 0);
		CHECK(lseek(a, 0, SEEK_CUR) == 500 && write(b, "+", 1) == 1);
		CHECK(fstat(a, &st) == 0 && st.st_size == 100001 + k && st.st_nlink == 0);
		CHECK(pread(a, line, 1, 100000 + k) == 1 && line[0] == '+');
	}
	rewind(f);
	for (int k = 0; k < MOVES; k++)
		CHECK(fgets(line, sizeof(line), f) && atoi(line) == k);
}

/* Is there a lock of somebody else? Asked by a child. */
static int locked_for_others(int fd, off_t at)
{
	struct flock l = { .l_type = F_WRLCK, .l_start = at, .l_len = 1 };
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(fcntl(fd, F_GETLK, &l) ? 2 : l.l_type != F_UNLCK);
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 3;
}

static void locks(void)
{
	const char *path = path_of("locks");
	int a = open(path, O_RDWR | O_CREAT, 0600), b = open(path_of("locks2"), O_RDWR | O_CREAT, 0600), other;
	struct flock l = { .l_type = F_WRLCK, .l_start = 10, .l_len = 5 };

	CHECK(fcntl(a, F_SETLK, &l) == 0);
	CHECK(flock(b, LOCK_EX) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(locked_for_others(a, 12) == 1 && locked_for_others(a, 20) == 0);
		other = open(path_of("locks2"), O_RDWR);
		CHECK(flock(other, LOCK_EX | LOCK_NB) == -1);
		close(other);
	}
	unlink(path_of("locks"));
	unlink(path_of("locks2"));
}

/* Only run by the test that takes the lock away. */
static void lost_lock(void)
{
	struct flock l = { .l_type = F_WRLCK };
	int fd = open(path_of("locked"), O_RDWR);

	if (fd < 0)
		return;
	CHECK(fcntl(fd, F_SETLK, &l) == 0);
	CHECK(member_move() == 0);
	fprintf(stderr, "went on without its lock\n");
}

/* A file that is mapped, changed and deleted, as a library that is upgraded. */
static void deleted_maps(void)
{
	const char *path = path_of("deleted");
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	char *p;

	CHECK(ftruncate(fd, 20 * 4096 + 5) == 0 && pwrite(fd, "five", 4, 5 * 4096) == 4);
	p = mmap(NULL, 30 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	unlink(path);
	p[0] = 'x';
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(p[0] == 'x' && memcmp(p + 5 * 4096, "five", 4) == 0 && p[20 * 4096] == 0);
	}
}

static void libraries(void)
{
	for (int k = 0; k < MOVES; k++) {
		double (*fn)(double);
		void *h;

		CHECK(member_move() == 0);
		h = dlopen("libm.so.6", RTLD_NOW);
		CHECK(h);
		*(void **)&fn = dlsym(h, "cbrt");
		CHECK(fn && fn(27) > 2.999 && fn(27) < 3.001);
		dlclose(h);
	}
}

const struct feature file_features[] = {
	{ "stdio", stdio },
	{ "offsets", offsets },
	{ "surroundings", surroundings },
	{ "paths", paths },
	{ "events", events },
	{ "pipes", pipes },
	{ "pipes-left", pipes_left },
	{ "epolls", epolls },
	{ "unlinked", unlinked },
	{ "locks", locks },
	{ "lost-lock", lost_lock },
	{ "deleted-maps", deleted_maps },
	{ "libraries", libraries },
	{ NULL, NULL },
};
