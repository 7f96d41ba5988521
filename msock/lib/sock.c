/* SPDX-License-Identifier: MIT */
#include "lib/sock.h"

#include "image/image.h"
#include "lib/conn.h"
#include "lib/core.h"
#include "lib/fds.h"
#include "lib/kin.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/sys.h"

#include <errno.h>
#include <sys/stat.h>

enum {
	SOCK_BUCKETS = 1024,
	SOCK_SWEEP = 64, /* records without a library's end before somebody looks whether they are used */
};

static struct sock *all;
static struct sock *buckets[SOCK_BUCKETS];
static unsigned loose, sweep_at = SOCK_SWEEP; /* records that nothing tells when their last number is closed */

struct sock *sock_first(void)
{
	return all;
}

struct sock *sock_find_inode(uint64_t ino)
{
	struct sock *s = buckets[ino % SOCK_BUCKETS];

	while (s && s->ino != ino)
		s = s->hash_next;
	return s;
}

struct sock *sock_find(int fd)
{
	struct stat st;

	if (!all || ms_fstat(fd, &st) || !S_ISSOCK(st.st_mode))
		return NULL;
	return sock_find_inode(st.st_ino);
}

static void sock_unhash(struct sock *s)
{
	struct sock **at = &buckets[s->ino % SOCK_BUCKETS];

	while (*at && *at != s)
		at = &(*at)->hash_next;
	if (*at)
		*at = s->hash_next;
}

void sock_rename(struct sock *s, uint64_t ino)
{
	struct sock **bucket = &buckets[ino % SOCK_BUCKETS];

	sock_unhash(s);
	s->ino = ino;
	s->hash_next = *bucket;
	*bucket = s;
}

struct sock *sock_create(int fd, int domain, int protocol)
{
	struct stat st;
	struct sock *s;

	if (ms_fstat(fd, &st) || !S_ISSOCK(st.st_mode))
		return NULL;
	sock_sweep();
	s = mem_alloc(sizeof(*s));
	if (!s)
		return NULL;
	s->domain = domain;
	s->protocol = protocol;
	s->number = fd;
	s->fd = -1;
	s->born = kin_forks();
	s->watch.ready = sock_ready;
	loose++;
	s->next = all;
	if (all)
		all->prev = s;
	all = s;
	sock_rename(s, st.st_ino);
	return s;
}

void sock_close_own(struct sock *s)
{
	if (s->fd < 0)
		return;
	engine_watch(&s->watch, s->fd, 0);
	core_own_fd(s->fd, false);
	ms_close(s->fd);
	s->fd = -1;
	loose++;
}

/* At the target: the library's end does not exist there. */
void sock_lose_own(struct sock *s)
{
	core_own_fd(s->fd, false);
	s->fd = -1;
	loose++;
}

/* The far end of a child's pair. */
void sock_adopt_own(struct sock *s, int fd)
{
	s->fd = core_raise_fd(fd);
	core_own_fd(s->fd, true);
	loose--;
}

void sock_recount(void)
{
	loose = 0;
	for (const struct sock *s = all; s; s = s->next)
		loose += s->fd < 0;
}

void sock_destroy(struct sock *s)
{
	if (s->direct)
		sock_direct_lost(s);
	sock_forget_swap(s);
	if (s->conn) {
		struct conn *c = s->conn;

		s->conn = NULL;
		c->sock = NULL;
		conn_close(c);
	}
	if (s->listener) {
		s->listener->sock = NULL;
		listener_close(s->listener);
	}
	sock_close_own(s);
	loose--;
	carry_clear(&s->in);
	carry_clear(&s->out);
	sock_options_free(s);
	sock_unhash(s);
	if (s->prev)
		s->prev->next = s->next;
	else
		all = s->next;
	if (s->next)
		s->next->prev = s->prev;
	mem_free(s, sizeof(*s));
}

struct sock_caller {
	void (*call)(int fd, const struct stat *st, void *arg);
	void *arg;
};

static void sock_if_socket(int fd, int flags, void *arg)
{
	struct sock_caller *c = arg;
	struct stat st;

	if (core_next_own_fd(fd) != fd && !ms_fstat(fd, &st) && S_ISSOCK(st.st_mode))
		c->call(fd, &st, c->arg);
}

void sock_each_number(bool still, void (*call)(int fd, const struct stat *st, void *arg), void *arg)
{
	struct sock_caller c = { call, arg };

	fds_each(still, sock_if_socket, &c);
}

static void sock_mark(int fd, const struct stat *st, void *arg)
{
	struct sock *s = sock_find_inode(st->st_ino);

	if (s)
		s->number = fd;
}

static bool sock_is_loose(const struct sock *s)
{
	return s->fd < 0;
}

void sock_sweep(void)
{
	unsigned left = 0;

	if (loose < sweep_at || !core_here())
		return;
	for (struct sock *s = all; s; s = s->next)
		s->number = -1;
	sock_each_number(false, sock_mark, NULL);
	for (struct sock *s = all, *next; s; s = next) {
		next = s->next;
		if (sock_is_loose(s) && s->number < 0)
			sock_destroy(s);
		else
			left += sock_is_loose(s);
	}
	sweep_at = left * 2 > SOCK_SWEEP ? left * 2 : SOCK_SWEEP;
}

int sock_number(struct sock *s)
{
	struct stat st;

	if (s->number >= 0 && !ms_fstat(s->number, &st) && S_ISSOCK(st.st_mode) && st.st_ino == s->ino)
		return s->number;
	s->number = -1;
	sock_each_number(false, sock_mark, NULL);
	return s->number;
}

bool sock_port_taken(uint16_t port, const struct sock *but)
{
	for (const struct sock *s = all; s; s = s->next)
		if (s != but && s->port == port && !s->gone &&
		    (s->kind == SOCK_IS_LISTENER || (s->kind == SOCK_IS_IDLE && s->bound)))
			return true;
	return false;
}

/* For a socket whose own end has a number already. */
bool sock_pair_take(struct sock *s, int *app)
{
	uint64_t ino;
	int pair[2];

	if (s->fd < 0 || !image_pair(pair, &ino))
		return false;
	ms_dup3(pair[1], s->fd, O_CLOEXEC);
	core_own_fd(pair[0], true); /* lent: see sock_pairs_return */
	core_own_fd(pair[1], true);
	*app = pair[0];
	sock_rename(s, ino);
	s->urgent_said = false;
	return true;
}

/* Only the program's end's inode counts from here on. *app is the caller's to place. */
int sock_pair_open(struct sock *s, int *app)
{
	struct stat st;
	int pair[2], err = ms_socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);

	if (err)
		return err;
	*app = pair[0];
	ms_fstat(*app, &st);
	sock_rename(s, st.st_ino);
	if (s->fd < 0) {
		s->fd = core_raise_fd(pair[1]);
		core_own_fd(s->fd, true);
		loose--;
	} else {
		ms_dup3(pair[1], s->fd, O_CLOEXEC); /* which is open: sock_hold_numbers */
		ms_close(pair[1]);
	}
	sock_inline(s->fd, 1);
	s->urgent_said = false;
	return 0;
}

/* Under a number that has what is to be replaced. */
struct sock_put {
	uint64_t ino; /* of what is replaced */
	int file;
};

static void sock_put(int fd, const struct stat *st, void *arg)
{
	struct sock_put *put = arg;

	if (st->st_ino == put->ino)
		ms_dup3(put->file, fd, ms_fcntl(fd, F_GETFD, 0) & FD_CLOEXEC ? O_CLOEXEC : 0);
}

void sock_replace_file(const struct sock *s, uint64_t ino, int fd, int file)
{
	struct sock_put put = { ino, file };
	struct stat st;

	if (s->duplicated)
		sock_each_number(false, sock_put, &put);
	else if (!ms_fstat(fd, &st))
		sock_put(fd, &st, &put);
}

int sock_make_pair(struct sock *s, int fd)
{
	int flags = (int)ms_fcntl(fd, F_GETFL, 0), app, err;
	uint64_t ino = s->ino;

	engine_watch(&s->watch, s->fd, 0);
	err = sock_pair_open(s, &app);
	if (err)
		return err;
	ms_fcntl(app, F_SETFL, flags & (O_NONBLOCK | O_ASYNC));
	sock_options_apply(s, app, true);
	sock_replace_file(s, ino, fd, app);
	ms_close(app);
	s->number = fd;
	return 0;
}
