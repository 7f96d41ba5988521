/* SPDX-License-Identifier: MIT */
#include "lib/sock_epoll.h"

#include "lib/core.h"
#include "lib/fds.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/sock.h"
#include "lib/sys.h"
#include "lib/udp.h"

#include <errno.h>

enum {
	EPOLL_TEXT = 4096, /* bytes of an fdinfo file read at once; a line is shorter */
	EPOLL_SETS = 256,
};

/* What one of the program's epoll sets watches. */
struct sock_epoll {
	struct sock_epoll *next;
	int ep, fd;
	struct epoll_event event;
};

struct epoll_search {
	bool (*wanted)(const struct sock *s);
	int err;
};

/*
 * The numbers of the sets: to look at every descriptor for them takes
 * milliseconds where there are thousands.  One that was closed is found out by
 * looking; who duplicates a set, or has very many, has them all looked at.
 */
static int sets[EPOLL_SETS];
static unsigned set_count;
static bool sets_unknown;

static struct sock_epoll *epolls; /* owned */

static uint64_t text_number(const char **at, unsigned base)
{
	uint64_t v = 0;

	while (**at == ' ')
		++*at;
	for (;; ++*at) {
		unsigned d = (unsigned)**at - '0';

		if (d > 9)
			d = base == 16 && **at >= 'a' && **at <= 'f' ? (unsigned)(**at - 'a') + 10 : 99;
		if (d >= base)
			return v;
		v = v * base + d;
	}
}

static const char *text_after(const char *at, const char *word)
{
	size_t n = ms_strlen(word);

	for (; *at && *at != '\n'; at++)
		if (!__builtin_strncmp(at, word, n))
			return at + n;
	return NULL;
}

static int epoll_add(int ep, int fd, const struct epoll_event *event)
{
	struct sock_epoll *e = mem_alloc(sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->ep = ep;
	e->fd = fd;
	e->event = *event;
	e->next = epolls;
	epolls = e;
	return 0;
}

int sock_epoll_watched(int ep, int fd, const struct epoll_event *event)
{
	return core_next_own_fd(fd) == fd ? 0 : epoll_add(ep, fd, event);
}

/* A line "tfd: N events: HEX data: HEX ..." of a set, if the number is one of ours. */
static int epoll_note_line(int ep, const char *line, const struct epoll_search *search)
{
	const char *tfd = text_after(line, "tfd:"), *events = text_after(line, "events:"),
		   *data = text_after(line, "data:");
	struct epoll_event event;
	struct sock *s;
	int fd;

	if (!tfd || !events || !data)
		return 0;
	fd = (int)text_number(&tfd, 10);
	s = sock_find(fd);
	if ((!s && !udp_find(fd)) || !search->wanted(s))
		return 0;
	event.events = (uint32_t)text_number(&events, 16);
	event.data.u64 = text_number(&data, 16);
	return epoll_add(ep, fd, &event);
}

/* Each whole line of the text; returns the bytes of the one that is not whole. */
static size_t epoll_note_lines(int ep, char *text, size_t have, struct epoll_search *search)
{
	char *line = text;

	for (char *at = text; at < text + have && !search->err; at++) {
		if (*at != '\n')
			continue;
		*at = 0;
		search->err = epoll_note_line(ep, line, search);
		line = at + 1;
	}
	have -= (size_t)(line - text);
	__builtin_memmove(text, line, have);
	return have;
}

static void epoll_note(int ep, struct epoll_search *search)
{
	char path[64], text[EPOLL_TEXT];
	size_t have = 0;
	long n = 0;
	int info;

	log_format(path, sizeof(path), "/proc/self/fdinfo/%d", ep);
	info = ms_open(path, O_RDONLY | O_CLOEXEC, 0);
	if (info < 0) {
		search->err = info;
		return;
	}
	while (!search->err && (n = ms_read(info, text + have, sizeof(text) - have)) > 0) {
		have = epoll_note_lines(ep, text, have + (size_t)n, search);
		if (have == sizeof(text))
			search->err = -E2BIG;
	}
	if (n < 0)
		search->err = (int)n;
	ms_close(info);
}

static bool fd_is_epoll(int fd)
{
	static const char name[] = "anon_inode:[eventpoll]";
	char link[64], path[64];
	long n;

	log_format(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = ms_readlinkat(AT_FDCWD, path, link, sizeof(link));
	return n == sizeof(name) - 1 && !__builtin_memcmp(link, name, sizeof(name) - 1) && core_next_own_fd(fd) != fd;
}

static void epoll_try(int fd, int flags, void *arg)
{
	struct epoll_search *search = arg;

	if (!search->err && fd_is_epoll(fd))
		epoll_note(fd, search);
}

void sock_epolls_forget(void)
{
	while (epolls) {
		struct sock_epoll *e = epolls;

		epolls = e->next;
		mem_free(e, sizeof(*e));
	}
}

static bool epoll_is_known(int fd)
{
	for (unsigned i = 0; i < set_count; i++)
		if (sets[i] == fd)
			return true;
	return false;
}

void sock_epoll_made(int fd)
{
	if (epoll_is_known(fd))
		return;
	if (set_count < EPOLL_SETS)
		sets[set_count++] = fd;
	else
		sets_unknown = true;
}

void sock_epoll_duplicated(int fd)
{
	sets_unknown = sets_unknown || (epoll_is_known(fd) && fd_is_epoll(fd));
}

static void epoll_found(int fd, int flags, void *arg)
{
	if (fd_is_epoll(fd))
		sock_epoll_made(fd);
}

void sock_epolls_find(void)
{
	fds_each(false, epoll_found, NULL);
}

static void epoll_note_known(struct epoll_search *search)
{
	for (unsigned i = 0; i < set_count && !search->err;) {
		if (fd_is_epoll(sets[i]))
			epoll_note(sets[i++], search);
		else
			sets[i] = sets[--set_count];
	}
}

int sock_epolls_note(bool (*wanted)(const struct sock *s))
{
	struct epoll_search search = { .wanted = wanted };

	sock_epolls_forget();
	if (sets_unknown)
		fds_each(false, epoll_try, &search);
	else
		epoll_note_known(&search);
	return search.err;
}

void sock_epolls_remove(void)
{
	for (struct sock_epoll *e = epolls; e; e = e->next)
		ms_epoll_ctl(e->ep, EPOLL_CTL_DEL, e->fd, NULL);
}

void sock_epolls_add(void)
{
	for (struct sock_epoll *e = epolls; e; e = e->next) {
		int err = ms_epoll_ctl(e->ep, EPOLL_CTL_ADD, e->fd, &e->event);

		if (err && err != -EEXIST)
			ms_log(LOG_ERROR, "descriptor %d: cannot watch descriptor %d again: error %d", e->ep, e->fd,
			       -err);
	}
}
