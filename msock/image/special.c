/* SPDX-License-Identifier: MIT */
/* Descriptors whose content or relations travel too: the process's own pipes, unlinked files, epoll sets, file locks.
 */
#include "image/special.h"

#include <errno.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#include "image/mem.h"
#include "image/proc.h"
#include "image/say.h"

enum { FDINFO_TEXT = 1 << 20, CONTENT_MAX = 1 << 30, LOCK_TRIES = 5000 };

static const char *fd_link(char buf[64], int fd)
{
	image_print(buf, 64, "/proc/self/fd/%d", fd);
	return buf;
}

/* A mapping of its own for content that the arena has no room for. */
static void *blob_create(struct baggage *c, uint64_t size)
{
	void *p;

	if (!size || c->blob_count == BAGGAGE_BLOBS)
		return NULL;
	p = ms_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ms_is_error(p))
		return NULL;
	c->blob[c->blob_count].at = p;
	c->blob[c->blob_count++].size = size;
	return p;
}

/* The first entry of the list that is of the same object. */
static struct baggage_file *first_of(struct baggage *c, const struct baggage_file *f)
{
	for (uint32_t i = 0; i < c->file_count; i++)
		if (c->files[i].kind == f->kind && c->files[i].ino == f->ino && c->files[i].dev == f->dev)
			return &c->files[i];
	return NULL;
}

static struct baggage_file *pipe_end(struct baggage *c, const struct baggage_file *f, bool write)
{
	for (uint32_t i = 0; i < c->file_count; i++) {
		struct baggage_file *g = &c->files[i];
		int mode = g->flags & O_ACCMODE;

		if (g->kind == BAGGAGE_PIPE && g->ino == f->ino &&
		    (mode == O_RDWR || mode == (write ? O_WRONLY : O_RDONLY)))
			return g;
	}
	return NULL;
}

/* tee() copies what is in a pipe and leaves it there. */
static int pipe_content(struct baggage *c, struct baggage_file *f, int reader, char why[IMAGE_WHY])
{
	int copy[2], have = 0;
	long n;

	f->capacity = (uint32_t)ms_fcntl(reader, F_GETPIPE_SZ, 0);
	ms_ioctl(reader, FIONREAD, &have);
	if (have <= 0)
		return 0;
	f->content = blob_create(c, (uint64_t)have);
	if (!f->content || ms_pipe2(copy, O_CLOEXEC | O_NONBLOCK))
		return image_say(why, "descriptor %d: no memory for what is in the pipe", f->fd);
	ms_fcntl(copy[1], F_SETPIPE_SZ, f->capacity);
	n = ms_sys4(SYS_tee, reader, copy[1], have, 2 /* SPLICE_F_NONBLOCK */);
	if (n == have)
		n = ms_read(copy[0], f->content, (size_t)have);
	ms_close(copy[0]);
	ms_close(copy[1]);
	if (n != have)
		return image_say(why, "descriptor %d: cannot read what is in the pipe", f->fd);
	f->content_size = (uint64_t)have;
	return 0;
}

/* Nobody at all holds the other end: what is left in the pipe, or the end of all writing, is all there is to it. */
static bool pipe_is_left(const struct baggage_file *f, bool write)
{
	struct pollfd p = { .fd = f->fd };

	return ms_poll(&p, 1, 0) > 0 && (p.revents & (write ? POLLERR : POLLHUP));
}

static int pipe_collect(struct baggage *c, struct baggage_file *f, char why[IMAGE_WHY])
{
	struct baggage_file *reader = pipe_end(c, f, false);
	struct baggage_file *writer = pipe_end(c, f, true);

	if ((!reader && !pipe_is_left(f, true)) || (!writer && !pipe_is_left(f, false)))
		return image_say(why, "descriptor %d: a pipe that is not the job's: %s", f->fd, f->path);
	return f == first_of(c, f) && reader ? pipe_content(c, f, reader->fd, why) : 0;
}

static int unlinked_collect(struct baggage *c, struct baggage_file *f, char why[IMAGE_WHY])
{
	char link[64];
	struct stat st;
	uint64_t at = 0;
	int fd;

	if (f != first_of(c, f))
		return 0;
	fd = ms_open(fd_link(link, f->fd), O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0 || ms_fstat(fd, &st))
		return image_say(why, "descriptor %d: the deleted file cannot be read: %s", f->fd, f->path);
	f->mode = st.st_mode & 07777;
	f->seals = (int)ms_fcntl(f->fd, F_GET_SEALS, 0);
	f->content_size = (uint64_t)st.st_size;
	if (c != image__state.baggage && st.st_size <= CONTENT_MAX) {
		ms_close(fd);
		return 0; /* only asked whether it can move */
	}
	if (st.st_size > CONTENT_MAX || (st.st_size && !(f->content = blob_create(c, f->content_size)))) {
		ms_close(fd);
		return image_say(why, "descriptor %d: the deleted file is too large: %s", f->fd, f->path);
	}
	while (at < f->content_size) {
		long n = ms_pread(fd, (char *)f->content + at, f->content_size - at, (off_t)at);

		if (n <= 0)
			break;
		at += (uint64_t)n;
	}
	ms_close(fd);
	return at == f->content_size ? 0 : image_say(why, "descriptor %d: cannot read %s", f->fd, f->path);
}

/* One "tfd: N events: HEX data: HEX" line; false if there is none behind *at. */
static bool epoll_parse(const char **at, struct baggage_watch *w)
{
	const char *s = proc_field(*at, "tfd");

	if (!s)
		return false;
	w->fd = (int)proc_number(&s, 10);
	while (*s && *s != ':')
		s++;
	for (s += *s == ':'; *s == ' ';)
		s++;
	w->event.events = (uint32_t)proc_number(&s, 16);
	while (*s && *s != ':')
		s++;
	for (s += *s == ':'; *s == ' ';)
		s++;
	w->event.data.u64 = proc_number(&s, 16);
	while (*s && *s != '\n')
		s++;
	*at = s;
	return true;
}

static int epoll_collect(struct baggage *c, struct baggage_file *f, const struct image_source *src,
			 const uint64_t *left_out, char *text, char why[IMAGE_WHY])
{
	bool tell = src->watched && c == image__state.baggage;
	struct baggage_watch w;
	char path[64];
	const char *at = text;

	image_print(path, sizeof(path), "/proc/self/fdinfo/%d", f->fd);
	if (proc_read(path, text, FDINFO_TEXT) < 0)
		return image_say(why, "descriptor %d: its epoll set is too large", f->fd);
	while (epoll_parse(&at, &w)) {
		struct baggage_watch *to;

		if (tell && baggage_leaves_out(left_out, src, w.fd)) {
			if (src->watched(f->fd, w.fd, &w.event))
				return image_say(why, "no memory for what the epoll sets watch");
			continue;
		}
		to = baggage_alloc(c, sizeof(w));
		if (!to)
			return image_say(why, "descriptor %d: its epoll set is too large", f->fd);
		*to = w;
		if (!f->watch)
			f->watch = to;
		f->watches++;
	}
	return 0;
}

static bool word_is(const char *s, const char *word)
{
	while (*word)
		if (*s++ != *word++)
			return false;
	return true;
}

/* Steps over a word and the blanks behind it. */
static const char *word_next(const char *s)
{
	while (*s && *s != ' ' && *s != '\n')
		s++;
	while (*s == ' ')
		s++;
	return s;
}

/* "N: POSIX  ADVISORY  WRITE pid dev:ino start end" */
static int lock_collect(struct baggage *c, struct baggage_file *f, const char *s, char why[IMAGE_WHY])
{
	struct baggage_lock *l = baggage_alloc(c, sizeof(*l));
	uint64_t start, end;

	if (!l)
		return image_say(why, "too many file locks");
	s = word_next(s);
	l->kind = word_is(s, "POSIX")    ? LOCK_POSIX
		  : word_is(s, "FLOCK")  ? LOCK_FLOCK
		  : word_is(s, "OFDLCK") ? LOCK_OFD
					 : 0;
	if (!l->kind)
		return image_say(why, "descriptor %d: a lease or unknown lock on %s", f->fd, f->path);
	s = word_next(word_next(s));
	l->write = word_is(s, "WRITE");
	s = word_next(word_next(word_next(s)));
	start = proc_number(&s, 10);
	s = word_next(s);
	end = word_is(s, "EOF") ? 0 : proc_number(&s, 10) + 1;
	l->fd = f->fd;
	l->start = start;
	l->length = end ? end - start : 0;
	l->next = c->locks;
	c->locks = l;
	return 0;
}

static int locks_collect(struct baggage *c, struct baggage_file *f, char *text, char why[IMAGE_WHY])
{
	const char *at = text;
	char path[64];

	image_print(path, sizeof(path), "/proc/self/fdinfo/%d", f->fd);
	if (proc_read(path, text, FDINFO_TEXT) < 0)
		return 0;
	while ((at = proc_field(at, "lock")))
		if (lock_collect(c, f, at, why))
			return -1;
	return 0;
}

int special_collect(struct baggage *c, const struct image_source *src, const uint64_t *left_out, char why[IMAGE_WHY])
{
	char *text = baggage_alloc(c, FDINFO_TEXT);

	if (!text)
		return image_say(why, "no memory for the descriptors");
	for (uint32_t i = 0; i < c->file_count; i++) {
		struct baggage_file *f = &c->files[i];
		int e = 0;

		if (f->kind == BAGGAGE_PIPE)
			e = pipe_collect(c, f, why);
		else if (f->kind == BAGGAGE_SOCKET && f->same_as == (int)i)
			e = sockets_collect(c, f, why);
		else if (f->kind == BAGGAGE_UNLINKED)
			e = unlinked_collect(c, f, why);
		else if (f->kind == BAGGAGE_EPOLL && f->same_as == (int)i)
			e = epoll_collect(c, f, src, left_out, text, why);
		if (!e && (f->kind == BAGGAGE_PATH || f->kind == BAGGAGE_UNLINKED) && !(f->flags & O_PATH))
			e = locks_collect(c, f, text, why);
		if (e)
			return -1;
	}
	return 0;
}

/* The two new ends, above all numbers of the member, full of what was in the old. */
static int pipe_make(struct baggage *c, struct baggage_file *first)
{
	int made[2];
	int e = ms_pipe2(made, O_CLOEXEC);

	if (e)
		return e;
	for (int i = 0; i < 2; i++) {
		first->made[i] = (int)ms_fcntl(made[i], F_DUPFD_CLOEXEC, c->file_max + 1);
		ms_close(made[i]);
	}
	if (first->capacity)
		ms_fcntl(first->made[1], F_SETPIPE_SZ, first->capacity);
	if (first->content_size &&
	    ms_write(first->made[1], first->content, first->content_size) != (long)first->content_size)
		return -EIO;
	return 0;
}

int special_pipe_open(struct baggage *c, struct baggage_file *f)
{
	struct baggage_file *first = first_of(c, f);
	int mode = f->flags & O_ACCMODE;
	char link[64];
	int e = 0, fd;

	if (first->made[0] <= 0)
		e = pipe_make(c, first);
	if (e)
		return e;
	/* A description of its own each: offsets do not matter here, flags do. */
	if (mode == O_RDWR || f->reopened)
		return ms_open(fd_link(link, first->made[0]), (f->flags & (O_ACCMODE | O_NONBLOCK)) | O_CLOEXEC, 0);
	fd = ms_dup(first->made[mode == O_WRONLY]);
	if (fd >= 0)
		ms_fcntl(fd, F_SETFL, f->flags & ~O_ACCMODE);
	return fd;
}

/* A memfd, or a file without a name in the same directory. */
static int unlinked_create(const struct baggage_file *f)
{
	char dir[IMAGE_PATH_MAX];
	size_t slash = 0;
	int low;

	if (f->seals >= 0) {
		proc_memfd_name(f->path, dir, sizeof(dir));
		return (int)ms_sys2(SYS_memfd_create, (long)dir, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	}
	for (size_t i = 0; f->path[i] && i < sizeof(dir) - 1; i++) {
		dir[i] = f->path[i];
		if (dir[i] == '/')
			slash = i;
	}
	dir[slash ? slash : 1] = 0;
	low = ms_open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, f->mode);
	if (low < 0)
		low = ms_open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, f->mode);
	return low;
}

/* The content is written even where it is mapped and has come: what nobody maps has not. */
static int unlinked_make(struct baggage *c, struct baggage_file *f, const struct image_arrival *a)
{
	uint64_t at = 0;
	int low = -1, fd;

	for (uint32_t i = 0; i < a->objects; i++)
		if (a->object[i].number == image_object(f->dev, f->ino))
			low = ms_dup(a->object[i].fd);
	if (low < 0)
		low = unlinked_create(f);
	if (low < 0)
		return low;
	fd = (int)ms_fcntl(low, F_DUPFD_CLOEXEC, c->file_max + 1);
	ms_close(low);
	if (fd >= 0)
		ms_sys2(SYS_ftruncate, fd, (long)f->content_size);
	while (fd >= 0 && at < f->content_size) {
		long n = ms_pwrite(fd, (char *)f->content + at, f->content_size - at, (off_t)at);

		if (n <= 0)
			return n ? (int)n : -EIO;
		at += (uint64_t)n;
	}
	f->made[0] = fd;
	if (fd >= 0 && f->seals > 0)
		return (int)ms_fcntl(fd, F_ADD_SEALS, f->seals);
	return fd < 0 ? fd : 0;
}

int special_unlinked_open(struct baggage *c, struct baggage_file *f, const struct image_arrival *a, int flags)
{
	struct baggage_file *first = first_of(c, f);
	char link[64];
	int e = first->made[0] > 0 ? 0 : unlinked_make(c, first, a);

	/* Its only way is a link, and the flags of its making mean nothing for that. */
	flags &= ~(O_NOFOLLOW | O_DIRECTORY);
	return e ? e : ms_open(fd_link(link, first->made[0]), flags | O_CLOEXEC, 0);
}

int special_finish(struct baggage *c, char why[IMAGE_WHY])
{
	for (uint32_t i = 0; i < c->file_count; i++) {
		struct baggage_file *f = &c->files[i];

		for (int k = 0; k < 2; k++)
			if (f->made[k] > 0)
				ms_close(f->made[k]);
		for (uint32_t k = 0; k < f->watches; k++) {
			int e = ms_epoll_ctl(f->fd, EPOLL_CTL_ADD, f->watch[k].fd, &f->watch[k].event);

			/* Virtual sockets are not there yet; the library puts them in again. */
			if (e && e != -EBADF)
				return image_say(why, "descriptor %d: cannot watch descriptor %d again: %e", f->fd,
						 f->watch[k].fd, e);
		}
	}
	return 0;
}

static int lock_take(const struct baggage_lock *l)
{
	struct flock range = {
		.l_type = l->write ? F_WRLCK : F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)l->start,
		.l_len = (off_t)l->length,
	};

	if (l->kind == LOCK_FLOCK)
		return (int)ms_sys2(SYS_flock, l->fd, (l->write ? LOCK_EX : LOCK_SH) | LOCK_NB);
	return (int)ms_fcntl(l->fd, l->kind == LOCK_OFD ? F_OFD_SETLK : F_SETLK, (long)&range);
}

/* After the commit: until the source has ended, it holds them. */
void special_locks_return(struct baggage *c)
{
	const struct timespec t = { 0, 1000000 };

	for (const struct baggage_lock *l = c->locks; l; l = l->next) {
		char line[128];
		int e = lock_take(l);

		for (int i = 0; e && i < LOCK_TRIES; i++) {
			ms_nanosleep(&t);
			e = lock_take(l);
		}
		if (!e)
			continue;
		e = (int)image_print(line, sizeof(line),
				     "msock: the lock on descriptor %d was lost to another process in a move\n", l->fd);
		ms_write(2, line, (size_t)e);
		ms_exit_group(1);
	}
}
