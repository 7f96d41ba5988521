/* SPDX-License-Identifier: MIT */
/* Descriptors: what they are at the source, the same again at the target. */
#include <errno.h>
#include <sys/sysmacros.h>

#include "image/baggage.h"
#include "image/mem.h"
#include "image/proc.h"
#include "image/say.h"
#include "image/special.h"
#include "lib/fds.h"

enum { KCMP_FILE = 0 };

/* Flags that mean something after the open. */
static const int kept_flags =
	O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_DSYNC | O_SYNC | O_PATH | O_DIRECTORY | O_NOFOLLOW;

static const char *fd_path(char buf[64], int fd)
{
	image_print(buf, 64, "/proc/self/fd/%d", fd);
	return buf;
}

static bool device_is_harmless(dev_t dev)
{
	if (major(dev) != 1)
		return false;
	switch (minor(dev)) {
	case 3: /* null */
	case 5: /* zero */
	case 7: /* full */
	case 8: /* random */
	case 9: /* urandom */
		return true;
	}
	return false;
}

static int file_by_path(struct baggage_file *f, const struct stat *st, const char *path, char why[IMAGE_WHY])
{
	struct stat there;
	int follow = (f->flags & O_PATH) && S_ISLNK(st->st_mode) ? AT_SYMLINK_NOFOLLOW : 0;

	if (S_ISREG(st->st_mode))
		f->flags &= ~O_DIRECTORY; /* O_TMPFILE has left it there */
	if (st->st_nlink == 0 && S_ISREG(st->st_mode) && !(f->flags & O_PATH)) {
		f->kind = BAGGAGE_UNLINKED;
		f->offset = ms_lseek(f->fd, 0, SEEK_CUR);
		return 0;
	}
	if (st->st_nlink == 0)
		return image_say(why, "descriptor %d: it is deleted: %s", f->fd, path);
	if (ms_fstatat(AT_FDCWD, path, &there, follow) || there.st_ino != st->st_ino || there.st_dev != st->st_dev)
		return image_say(why, "descriptor %d: its path leads to another file now: %s", f->fd, path);
	f->kind = BAGGAGE_PATH;
	if (!(f->flags & O_PATH) && (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)))
		f->offset = ms_lseek(f->fd, 0, SEEK_CUR);
	return 0;
}

static int64_t channel_of(const struct image_source *src, const struct stat *st)
{
	for (int i = 0; i < 4; i++)
		if (src->channel[i].ino && src->channel[i].ino == st->st_ino && src->channel[i].dev == st->st_dev)
			return i;
	return -1;
}

/* The value after "name:" in fdinfo, past blanks. */
static const char *fdinfo_field(const char *text, const char *name)
{
	return proc_field(text, name);
}

/* fdinfo's "(s, ns)" */
static struct timespec fdinfo_pair(const char *s)
{
	struct timespec t = { 0 };

	if (!s || *s != '(')
		return t;
	s++;
	t.tv_sec = (time_t)proc_number(&s, 10);
	while (*s == ',' || *s == ' ')
		s++;
	t.tv_nsec = (long)proc_number(&s, 10);
	return t;
}

/* Kinds whose whole state fdinfo tells. */
static int file_by_fdinfo(struct baggage_file *f, const char *what, char why[IMAGE_WHY])
{
	char path[64], text[4096];
	const char *s;

	image_print(path, sizeof(path), "/proc/self/fdinfo/%d", f->fd);
	if (proc_read(path, text, sizeof(text)) <= 0)
		text[0] = 0;
	if (ms_streq(what, "anon_inode:[eventfd]") && (s = fdinfo_field(text, "eventfd-count"))) {
		f->kind = BAGGAGE_EVENTFD;
		f->extra = proc_number(&s, 16);
		s = fdinfo_field(text, "eventfd-semaphore");
		if (s && *s == '1')
			f->flags |= 1; /* EFD_SEMAPHORE, below every O_ flag but O_WRONLY, which eventfds never have */
		return 0;
	}
	if (ms_streq(what, "anon_inode:[signalfd]") && (s = fdinfo_field(text, "sigmask"))) {
		f->kind = BAGGAGE_SIGNALFD;
		f->extra = proc_number(&s, 16);
		return 0;
	}
	if (ms_streq(what, "anon_inode:[timerfd]") && (s = fdinfo_field(text, "clockid"))) {
		f->kind = BAGGAGE_TIMERFD;
		f->extra = proc_number(&s, 10);
		f->timer.it_value = fdinfo_pair(fdinfo_field(text, "it_value"));
		f->timer.it_interval = fdinfo_pair(fdinfo_field(text, "it_interval"));
		s = fdinfo_field(text, "ticks");
		f->offset = s ? (int64_t)proc_number(&s, 10) : 0;
		return 0;
	}
	if (ms_streq(what, "anon_inode:[eventpoll]")) {
		f->kind = BAGGAGE_EPOLL;
		return 0;
	}
	return image_say(why, "descriptor %d: %s cannot move", f->fd, what);
}

static int file_classify(struct baggage *c, struct baggage_file *f, const struct image_source *src, char why[IMAGE_WHY])
{
	char link[64], path[IMAGE_PATH_MAX];
	struct stat st;
	int64_t channel;
	long n;
	int e = ms_fstat(f->fd, &st);

	if (e)
		return image_say(why, "descriptor %d: %e", f->fd, e);
	f->flags = (int)ms_fcntl(f->fd, F_GETFL, 0);
	f->cloexec = ms_fcntl(f->fd, F_GETFD, 0) & FD_CLOEXEC;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	n = ms_readlinkat(AT_FDCWD, fd_path(link, f->fd), path, sizeof(path) - 1);
	if (n < 0)
		return image_say(why, "descriptor %d: cannot tell what it is: %e", f->fd, (int)n);
	path[n] = 0;
	f->path = baggage_string(c, path, (size_t)n);
	if (!f->path)
		return image_say(why, "no memory for the descriptors");
	channel = channel_of(src, &st);
	if (channel >= 0) {
		f->kind = BAGGAGE_CHANNEL;
		f->extra = (uint64_t)channel;
		return 0;
	}
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
		return file_by_path(f, &st, f->path, why);
	case S_IFCHR:
		if (device_is_harmless(st.st_rdev))
			return file_by_path(f, &st, f->path, why);
		return image_say(why, "descriptor %d: device %s", f->fd, path);
	case S_IFBLK:
		return image_say(why, "descriptor %d: device %s", f->fd, path);
	case S_IFIFO:
		/* A pipe without a name may be the process's own: special_collect knows when all are listed. */
		f->kind = BAGGAGE_PIPE;
		return path[0] != '/' ? 0
				      : image_say(why, "descriptor %d: a pipe that is not the job's: %s", f->fd, path);
	case S_IFSOCK:
		f->kind = BAGGAGE_SOCKET; /* sockets_collect looks for its other end */
		return 0;
	}
	return file_by_fdinfo(f, f->path, why);
}

/* The first descriptor that shares position and flags with this one. */
static int file_same(const struct baggage *c, uint32_t i)
{
	int pid = ms_getpid();

	for (uint32_t k = 0; k < i; k++)
		if (c->files[k].ino == c->files[i].ino && c->files[k].dev == c->files[i].dev &&
		    ms_sys5(SYS_kcmp, pid, pid, KCMP_FILE, c->files[k].fd, c->files[i].fd) == 0)
			return (int)k;
	return (int)i;
}

static void fd_leave_out(uint64_t *set, int fd)
{
	if (fd >= 0 && fd < IMAGE_FDS_MAX)
		set[fd / 64] |= 1ull << fd % 64;
}

/* One bit for each number that is not listed: there may be thousands. */
static uint64_t *fds_left_out(struct baggage *c, const struct image_source *src, const int *skip, int skips)
{
	uint64_t *set = baggage_alloc(c, IMAGE_FDS_MAX / 8);

	if (!set)
		return NULL;
	__builtin_memset(set, 0, IMAGE_FDS_MAX / 8);
	fd_leave_out(set, src->sock);
	fd_leave_out(set, src->control_fd);
	fd_leave_out(set, src->listener_fd);
	for (size_t i = 0; i < src->own_count; i++)
		fd_leave_out(set, src->own_fds[i]);
	for (int i = 0; i < skips; i++)
		fd_leave_out(set, skip[i]);
	return set;
}

static bool fd_is_left_out(const uint64_t *set, int fd)
{
	return fd < IMAGE_FDS_MAX && set[fd / 64] >> fd % 64 & 1;
}

bool baggage_leaves_out(const uint64_t *left_out, const struct image_source *src, int fd)
{
	return fd_is_left_out(left_out, fd) || (src->owns && src->owns(fd));
}

struct fds_found {
	int *fd;
	int count;
};

static void fd_found(int fd, int flags, void *arg)
{
	struct fds_found *found = arg;

	if (found->count < IMAGE_FDS_MAX)
		found->fd[found->count] = fd;
	found->count++;
}

/* How many there are; those above IMAGE_FDS_MAX are not stored. -errno. */
static int fds_find(struct baggage *c, const struct image_source *src, int *fds)
{
	bool frozen = c == image__state.baggage;
	struct fds_found found = { fds, 0 };
	int e = 0;

	for (size_t i = 0; frozen && src->fds && i < src->fd_count; i++)
		fd_found(src->fds[i], 0, &found);
	if (!frozen || !src->fds)
		e = fds_each(frozen, fd_found, &found);
	return e ? e : found.count;
}

int baggage_files(struct baggage *c, const struct image_source *src, const int *skip, int skips, char why[IMAGE_WHY])
{
	int *fds = baggage_alloc(c, IMAGE_FDS_MAX * sizeof(int));
	uint64_t *left_out = fds_left_out(c, src, skip, skips);
	int n = fds && left_out ? fds_find(c, src, fds) : -ENOMEM;

	if (n < 0)
		return image_say(why, "cannot list the descriptors in /proc/self/fd: %e", n);
	if (n > IMAGE_FDS_MAX)
		return image_say(why, "more than %d descriptors", IMAGE_FDS_MAX);
	c->control_fd = src->control_fd;
	c->listener_fd = src->listener_fd;
	c->file_max = src->control_fd > src->listener_fd ? src->control_fd : src->listener_fd;
	c->files = baggage_alloc(c, (size_t)n * sizeof(*c->files));
	if (!c->files && n)
		return image_say(why, "no memory for the descriptors");
	for (int i = 0; i < n; i++) {
		struct baggage_file *f = &c->files[c->file_count];

		if (fds[i] > c->file_max)
			c->file_max = fds[i];
		if (baggage_leaves_out(left_out, src, fds[i]))
			continue;
		f->fd = fds[i];
		if (file_classify(c, f, src, why))
			return -1;
		f->same_as = file_same(c, c->file_count);
		for (uint32_t k = 0; k < c->file_count && f->kind == BAGGAGE_PIPE; k++)
			if (c->files[k].ino == f->ino && c->files[k].kind == BAGGAGE_PIPE &&
			    ((c->files[k].flags ^ f->flags) & O_ACCMODE) == 0)
				f->reopened = true;
		c->file_count++;
	}
	return special_collect(c, src, left_out, why);
}

static int eventfd_open(const struct baggage_file *f)
{
	int semaphore = f->flags & 1;

	return ms_eventfd((unsigned)0, semaphore | (f->flags & O_NONBLOCK));
}

static int timerfd_open(const struct baggage_file *f)
{
	int fd = (int)ms_sys2(SYS_timerfd_create, (long)f->extra, f->flags & O_NONBLOCK);
	struct itimerspec v = f->timer;

	if (fd < 0)
		return fd;
	/* Ticks that nobody has read: the shortest time brings one of them back. */
	if (f->offset && !v.it_value.tv_sec && !v.it_value.tv_nsec)
		v.it_value.tv_nsec = 1;
	ms_sys4(SYS_timerfd_settime, fd, 0, (long)&v, 0);
	return fd;
}

static int file_open(struct baggage *c, struct baggage_file *f, const struct image_arrival *a, char why[IMAGE_WHY])
{
	char link[64];
	uint64_t mask;
	int fd = -1;

	switch (f->kind) {
	case BAGGAGE_PATH:
		fd = ms_open(f->path, (f->flags & kept_flags) | O_CLOEXEC | O_NOCTTY, 0);
		if (fd >= 0 && f->offset > 0)
			ms_lseek(fd, f->offset, SEEK_SET);
		break;
	case BAGGAGE_CHANNEL:
		if (a->channel_fd[f->extra] < 0)
			return image_say(why, "descriptor %d: the target's daemon gave no new end of it", f->fd);
		fd = ms_dup(a->channel_fd[f->extra]);
		if (fd >= 0)
			ms_fcntl(fd, F_SETFL, f->flags & ~O_ACCMODE);
		break;
	case BAGGAGE_EVENTFD:
		fd = eventfd_open(f);
		if (fd >= 0 && f->extra)
			ms_write(fd, &f->extra, 8);
		break;
	case BAGGAGE_TIMERFD:
		fd = timerfd_open(f);
		break;
	case BAGGAGE_SIGNALFD:
		mask = f->extra;
		fd = (int)ms_sys4(SYS_signalfd4, -1, (long)&mask, MS_SIGSET, f->flags & O_NONBLOCK);
		break;
	case BAGGAGE_PIPE:
		fd = special_pipe_open(c, f);
		break;
	case BAGGAGE_UNLINKED:
		fd = special_unlinked_open(c, f, a, f->flags & kept_flags);
		if (fd >= 0 && f->offset > 0)
			ms_lseek(fd, f->offset, SEEK_SET);
		break;
	case BAGGAGE_SOCKET:
		fd = sockets_open(c, f);
		break;
	case BAGGAGE_EPOLL:
		fd = ms_epoll_create(0);
		break;
	}
	if (fd < 0)
		return image_say(why, "descriptor %d: cannot open %s: %e", f->fd,
				 f->kind == BAGGAGE_CHANNEL ? fd_path(link, f->fd) : f->path, fd);
	return fd;
}

/* The restorer's descriptors go above all numbers that the member uses. */
static int fd_lift(int *fd, int above, char why[IMAGE_WHY])
{
	long to;

	if (*fd < 0)
		return 0;
	to = ms_fcntl(*fd, F_DUPFD_CLOEXEC, above);
	if (to < 0)
		return image_say(why, "descriptor numbers up to %d and some more are not to be had: %e", above,
				 (int)to);
	*fd = (int)to;
	return 0;
}

static void fd_place(int *fd, int number)
{
	if (*fd < 0)
		return;
	ms_dup3(*fd, number, O_CLOEXEC);
	ms_close(*fd);
	*fd = number;
}

/* The member has got higher numbers than was thought: those below are closed, and the half of a pair. */
static void pairs_drop(struct image_arrival *a, int above)
{
	while (a->pairs < above && a->pairs < a->pairs_end) {
		if (a->pairs + 1 == above)
			ms_close(above);
		a->pairs += 2;
		a->pair_ino++;
	}
}

int baggage_files_return(struct baggage *c, struct image_arrival *a)
{
	int above = c->file_max + 1;

	fds_raise_limit();
	if (fd_lift(&a->control_fd, above, a->why) || fd_lift(&a->listener_fd, above, a->why))
		return -1;
	for (int i = 0; i < 4; i++)
		if (fd_lift(&a->channel_fd[i], above, a->why))
			return -1;
	for (uint32_t i = 0; i < a->objects; i++)
		if (fd_lift(&a->object[i].fd, above, a->why))
			return -1;
	ms_close_range(0, (unsigned)c->file_max, 0);
	pairs_drop(a, above);
	for (uint32_t i = 0; i < c->file_count; i++) {
		struct baggage_file *f = &c->files[i];
		int own = f->same_as == (int)i;
		int fd = own ? file_open(c, f, a, a->why) : c->files[f->same_as].fd;

		if (fd < 0)
			return -1;
		if (fd != f->fd) {
			ms_dup3(fd, f->fd, O_CLOEXEC);
			if (own)
				ms_close(fd);
		}
		ms_fcntl(f->fd, F_SETFD, f->cloexec ? FD_CLOEXEC : 0);
	}
	for (int i = 0; i < 4; i++)
		if (a->channel_fd[i] >= 0)
			ms_close(a->channel_fd[i]);
	for (uint32_t i = 0; i < a->objects; i++)
		ms_close(a->object[i].fd);
	fd_place(&a->control_fd, c->control_fd);
	fd_place(&a->listener_fd, c->listener_fd);
	return special_finish(c, a->why);
}
