/* SPDX-License-Identifier: MIT */
/* Things of the kernel's that have content: sockets within the process, memory that is shared by descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "feature.h"

static ssize_t receive(int fd, char *to, size_t size)
{
	return recv(fd, to, size, MSG_DONTWAIT);
}

/* As an event loop has it to wake itself: watched, with something in it. */
static void socketpair_stream(void)
{
	int s[2], copy, poll_fd = epoll_create1(0), buffer, had;
	struct epoll_event ev = { EPOLLIN, { .u64 = 11 } }, got;
	static char big[50000], back[sizeof(big) + 10];
	socklen_t size = sizeof(buffer);

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s) == 0);
	copy = dup(s[1]);
	fcntl(s[1], F_SETFL, 0);
	CHECK(epoll_ctl(poll_fd, EPOLL_CTL_ADD, s[0], &ev) == 0);
	buffer = 70000;
	CHECK(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer)) == 0);
	CHECK(getsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &had, &size) == 0);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 7 + i / 1000);
	for (int k = 0; k < MOVES; k++) {
		CHECK(write(s[1], "wake", 4) == 4 && write(copy, " up", 3) == 3);
		CHECK(write(s[0], big, sizeof(big)) == sizeof(big));
		CHECK(member_move() == 0);
		CHECK(epoll_wait(poll_fd, &got, 1, 0) == 1 && got.data.u64 == 11);
		CHECK(receive(s[0], back, sizeof(back)) == 7 && memcmp(back, "wake up", 7) == 0);
		CHECK(receive(s[0], back, sizeof(back)) == -1 && errno == EAGAIN);
		CHECK(receive(s[1], back, sizeof(back)) == sizeof(big) && memcmp(back, big, sizeof(big)) == 0);
		CHECK(epoll_wait(poll_fd, &got, 1, 0) == 0);
		CHECK((fcntl(s[0], F_GETFL) & O_NONBLOCK) && !(fcntl(copy, F_GETFL) & O_NONBLOCK));
		CHECK(fcntl(s[0], F_GETFD) == FD_CLOEXEC && fcntl(copy, F_GETFD) == 0);
		CHECK(getsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &buffer, &size) == 0 && buffer == had);
	}
	close(s[1]);
	CHECK(receive(s[0], back, 1) == -1);
	close(copy);
	CHECK(receive(s[0], back, 1) == 0); /* no other end is left over */
}

static void messages(int type)
{
	char text[300];
	int s[2];

	CHECK(socketpair(AF_UNIX, type, 0, s) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(send(s[0], "one", 3, 0) == 3 && send(s[0], "fourfour", 8, 0) == 8);
		CHECK(send(s[1], "back", 4, 0) == 4);
		CHECK(member_move() == 0);
		CHECK(send(s[0], "later", 5, 0) == 5);
		CHECK(receive(s[1], text, sizeof(text)) == 3 && memcmp(text, "one", 3) == 0);
		CHECK(receive(s[1], text, sizeof(text)) == 8 && memcmp(text, "fourfour", 8) == 0);
		CHECK(receive(s[1], text, sizeof(text)) == 5);
		CHECK(receive(s[0], text, sizeof(text)) == 4);
		CHECK(receive(s[0], text, sizeof(text)) == -1 && errno == EAGAIN);
	}
}

static void socketpair_datagram(void)
{
	messages(SOCK_DGRAM);
}

static void socketpair_packets(void)
{
	messages(SOCK_SEQPACKET);
}

/* One direction is ended, or the other end is closed with something still to be read. */
static void socketpair_ends(void)
{
	int half[2], left[2];
	char text[100];

	signal(SIGPIPE, SIG_IGN);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, half) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, left) == 0);
	CHECK(write(half[0], "last", 4) == 4 && shutdown(half[0], SHUT_WR) == 0);
	CHECK(write(left[1], "words", 5) == 5 && close(left[1]) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(write(half[1], "x", 1) == 1 && read(half[0], text, sizeof(text)) == 1);
		CHECK(write(half[0], "x", 1) == -1 && errno == EPIPE);
	}
	CHECK(read(half[1], text, sizeof(text)) == 4 && read(half[1], text, sizeof(text)) == 0);
	CHECK(read(left[0], text, sizeof(text)) == 5 && read(left[0], text, sizeof(text)) == 0);
	CHECK(write(left[0], "x", 1) == -1 && errno == EPIPE);
}

/* Has the mapping at this address this flag in smaps? */
static int has_flag(const void *at, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	char line[4600];
	int inside = 0, found = 0;

	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = (unsigned long)at >= start && (unsigned long)at < end;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			found = strstr(line, flag) != NULL;
	}
	fclose(f);
	return found;
}

static const struct {
	const char flag[4];
	int advice;
} advised[] = {
	{ " dc", MADV_DONTFORK },   { " wf", MADV_WIPEONFORK }, { " mg", MADV_MERGEABLE },  { " hg", MADV_HUGEPAGE },
	{ " nh", MADV_NOHUGEPAGE }, { " dd", MADV_DONTDUMP },   { " sr", MADV_SEQUENTIAL }, { " rr", MADV_RANDOM },
};

enum { ADVISED = sizeof(advised) / sizeof(advised[0]), PIECE = 4 << 20 };

static void advice(void)
{
	char *p = mmap(NULL, (2 * ADVISED + 1) * (size_t)PIECE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int given[ADVISED];

	CHECK(p != MAP_FAILED);
	for (size_t i = 0; i < ADVISED; i++) {
		given[i] = madvise(p + 2 * i * PIECE, PIECE, advised[i].advice) == 0; /* the kernel may lack some */
		memset(p + 2 * i * PIECE, (int)i + 1, 3 * 4096);
	}
	CHECK(given[0] && given[1] && given[5]);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		for (size_t i = 0; i < ADVISED; i++) {
			CHECK(has_flag(p + 2 * i * PIECE, advised[i].flag) == given[i]);
			CHECK(!has_flag(p + (2 * i + 1) * PIECE, advised[i].flag));
			CHECK(p[2 * i * PIECE + 8192] == (char)i + 1);
		}
	}
}

static void locked(void)
{
	char *p = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *guard = p + (32 << 10);

	CHECK(mlock(p, 16 << 10) == 0);
	mprotect(guard, 4096, PROT_NONE);
	CHECK(mlock2(guard + 4096, 8192, MLOCK_ONFAULT) == 0);
	for (int k = 0; k < MOVES; k++) {
		unsigned char in[4];

		CHECK(member_move() == 0);
		CHECK(has_flag(p, " lo") && !has_flag(p, " lf") && !has_flag(p + (16 << 10), " lo"));
		CHECK(has_flag(guard + 4096, " lo") && has_flag(guard + 4096, " lf"));
		CHECK(mincore(p, 16 << 10, in) == 0 && (in[0] & in[1] & in[2] & in[3] & 1));
	}
}

/* Guards within a mapping, as newer C libraries put them below the stacks of threads. */
static void light_guards(void)
{
	char *p = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), byte = 1;
	int end[2];

	memset(p, 7, 64 * 4096);
	if (madvise(p + 10 * 4096, 3 * 4096, 102 /* MADV_GUARD_INSTALL */) || madvise(p + 40 * 4096, 4096, 102))
		return; /* an older kernel */
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(pipe(end) == 0);
		for (int i = 0; i < 64; i++) {
			bool guard = (i >= 10 && i < 13) || i == 40;

			CHECK(write(end[1], p + i * 4096, 1) == (guard ? -1 : 1));
			CHECK(guard || (read(end[0], &byte, 1) == 1 && byte == 7));
		}
		close(end[0]);
		close(end[1]);
	}
	CHECK(madvise(p + 10 * 4096, 3 * 4096, 103 /* MADV_GUARD_REMOVE */) == 0 && p[10 * 4096] == 0);
}

/* Memory that nobody may change the layout of any more. */
static void sealed(void)
{
	char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	strcpy(p, "sealed");
	if (syscall(462 /* mseal */, p, 8192, 0))
		return; /* an older kernel */
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(strcmp(p, "sealed") == 0 && munmap(p, 4096) == -1);
	}
}

/* Mapped and closed; mapped in part, with the rest to be had by the descriptor only. */
static void memfds(void)
{
	int a = memfd_create("closed", MFD_CLOEXEC), b = memfd_create("kept", MFD_CLOEXEC), again;
	char *whole, *part, path[64], text[16] = "";
	struct stat st;

	CHECK(a >= 0 && b >= 0 && ftruncate(a, 5 * 4096) == 0 && ftruncate(b, 100 * 4096 + 77) == 0);
	whole = mmap(NULL, 5 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0);
	part = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, b, 50 * 4096);
	close(a);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", b);
	again = open(path, O_RDONLY);
	CHECK(whole != MAP_FAILED && part != MAP_FAILED && again >= 0);
	CHECK(pwrite(b, "tail", 4, 100 * 4096 + 70) == 4 && lseek(b, 123, SEEK_SET) == 123);
	for (int k = 0; k < MOVES; k++) {
		whole[4096] = (char)k;
		part[9] = (char)(k + 1);
		CHECK(member_move() == 0);
		CHECK(whole[4096] == k && whole[0] == 0 && part[9] == k + 1);
		CHECK(fstat(b, &st) == 0 && st.st_size == 100 * 4096 + 77 && lseek(b, 0, SEEK_CUR) == 123);
		CHECK(pread(again, text, 4, 100 * 4096 + 70) == 4 && strcmp(text, "tail") == 0);
		CHECK(pwrite(b, "x", 1, 50 * 4096 + 11) == 1 && part[11] == 'x');
		part[12] = (char)('a' + k);
		CHECK(pread(again, text + 8, 1, 50 * 4096 + 12) == 1 && text[8] == 'a' + k);
		part[11] = 0;
	}
}

/* The same pages twice, once to write and once to run, as compilers at run time have them. */
static void double_mapping(void)
{
	static const unsigned char code[] = { 0x8d, 0x47, 0x2a, 0xc3 }; /* lea 42(%rdi), %eax; ret */
	int fd = memfd_create("code", 0);
	unsigned char *write_here;
	void *run_here;
	int (*fn)(int);

	CHECK(ftruncate(fd, 8192) == 0);
	write_here = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	run_here = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 4096);
	CHECK(write_here != MAP_FAILED && run_here != MAP_FAILED);
	close(fd);
	memcpy(write_here + 4096, code, sizeof(code));
	memcpy(&fn, &run_here, sizeof(fn));
	for (int k = 0; k < MOVES; k++) {
		CHECK(fn(1) == 43 + k);
		CHECK(member_move() == 0);
		CHECK(fn(1) == 43 + k);
		write_here[4096 + 2]++;
	}
}

/* Shared memory without a name, seen at two places. */
static void shared_twice(void)
{
	char *p = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *q = mremap(p, 0, 3 * 4096, MREMAP_MAYMOVE);

	CHECK(p != MAP_FAILED && q != MAP_FAILED && p != q);
	for (int k = 0; k < MOVES; k++) {
		p[5000] = (char)(k + 1);
		CHECK(member_move() == 0);
		CHECK(q[5000] == k + 1);
		q[9000] = (char)(k + 2);
		CHECK(p[9000] == k + 2);
	}
}

/* A named semaphore and a file whose names are gone, as languages' lock objects are. */
static void unnamed_shared(void)
{
	char name[64], path[512], text[8] = "";
	sem_t *s;
	char *p;
	int fd, value;

	snprintf(name, sizeof(name), "/msock-test-%d", getpid());
	s = sem_open(name, O_CREAT | O_EXCL, 0600, 3);
	CHECK(s != SEM_FAILED && sem_unlink(name) == 0);
	snprintf(path, sizeof(path), "%s/unnamed", feature_dir());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, 2 * 4096 + 5) == 0 && unlink(path) == 0);
	p = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	for (int k = 0; k < MOVES; k++) {
		strcpy(p + 4096, "both");
		CHECK(member_move() == 0);
		CHECK(sem_getvalue(s, &value) == 0 && value == 3);
		CHECK(sem_wait(s) == 0 && sem_post(s) == 0);
		CHECK(pread(fd, text, 4, 4096) == 4 && strcmp(text, "both") == 0);
		CHECK(lseek(fd, 0, SEEK_END) == 2 * 4096 + 5);
		CHECK(pwrite(fd, "seen", 4, 8192) == 4 && memcmp(p + 8192, "seen", 4) == 0);
	}
}

static void seals(void)
{
	int fd = memfd_create("sealed", MFD_ALLOW_SEALING), want = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	char text[8] = "";

	CHECK(write(fd, "sealed", 6) == 6 && fcntl(fd, F_ADD_SEALS, want) == 0);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(fcntl(fd, F_GET_SEALS) == want);
		CHECK(pread(fd, text, 6, 0) == 6 && strcmp(text, "sealed") == 0);
		CHECK(pwrite(fd, "x", 1, 0) == -1 && errno == EPERM);
	}
}

const struct feature object_features[] = {
	{ "socketpair-stream", socketpair_stream },
	{ "socketpair-datagram", socketpair_datagram },
	{ "socketpair-packets", socketpair_packets },
	{ "socketpair-ends", socketpair_ends },
	{ "memfds", memfds },
	{ "double-mapping", double_mapping },
	{ "shared-twice", shared_twice },
	{ "unnamed-shared", unnamed_shared },
	{ "seals", seals },
	{ "advice", advice },
	{ "locked", locked },
	{ "sealed", sealed },
	{ "light-guards", light_guards },
	{ NULL, NULL },
};
