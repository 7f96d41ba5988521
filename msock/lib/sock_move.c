/* SPDX-License-Identifier: MIT */
/*
 * sock_move.c - the program's sockets at a move.
 *
 * With all threads parked, what lies in the pairs goes to s->in and s->out:
 * ahead of what is carried, behind what was kept.  That is as true after a
 * thaw as at the target, so nothing is to be undone.  At the target each
 * number gets a new file, and each epoll set of the program what it watched.
 */
#include "lib/sock.h"

#include "image/image.h"
#include "lib/conn.h"
#include "lib/core.h"
#include "lib/fds.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/sock_epoll.h"
#include "lib/sys.h"
#include "lib/udp.h"

#include <errno.h>
#include <sys/stat.h>

enum { SOCK_PIECE = 65536, SOCK_ASKED = 256, SOCK_MORE = 8 };

static uint8_t piece[SOCK_PIECE];

/* All descriptors, as the freeze has found them: the image need not look again. */
static int all_fds[IMAGE_FDS_MAX];
static size_t all_count;

int sock_own_fds(int *fds, int max)
{
	int n = 0;

	for (struct sock *s = sock_first(); s && n < max; s = s->next)
		if (s->fd >= 0)
			fds[n++] = s->fd;
	for (struct sock *s = sock_first(); s; s = s->next)
		for (const struct sock_number *k = s->numbers; k && n < max; k = k->next)
			fds[n++] = k->fd;
	return n;
}

const int *sock_all_fds(size_t *count)
{
	*count = all_count;
	return all_count && all_count <= IMAGE_FDS_MAX ? all_fds : NULL;
}

uint32_t sock_pairs(void)
{
	uint32_t n = 0;

	for (const struct sock *s = sock_first(); s; s = s->next)
		n += s->kind != SOCK_IS_IDLE;
	return n ? n + n / 8 + SOCK_MORE : 0;
}

static void sock_forget_numbers(struct sock *s)
{
	while (s->numbers) {
		struct sock_number *n = s->numbers;

		s->numbers = n->next;
		mem_free(n, sizeof(*n));
	}
}

static void sock_note_number(int fd, int flags, void *arg)
{
	struct sock *s = core_next_own_fd(fd) == fd ? NULL : sock_find(fd);
	struct sock_number *n;
	bool *failed = arg;

	if (all_count < IMAGE_FDS_MAX)
		all_fds[all_count] = fd;
	all_count++;
	if (!s)
		return;
	n = mem_alloc(sizeof(*n));
	if (!n) {
		*failed = true;
		return;
	}
	n->fd = fd;
	n->cloexec = flags & FD_CLOEXEC;
	n->next = s->numbers;
	s->numbers = n;
	s->number = fd;
	s->flags = (int)ms_fcntl(fd, F_GETFL, 0);
	if (s->owned)
		sock_owner_note(fd, &s->owner);
}

/* A unix socket is at a mark also behind an urgent byte that was read, and what comes then is not urgent. */
static bool at_urgent(int fd)
{
	return sock_at_mark(fd) && sock_urgent_waits(fd);
}

/* All that lies in a socket's queue, behind what the carry has; *urgent: the urgent byte's place in it, from 1; *error: what it says then. */
static int sock_empty(int fd, struct carry *to, size_t *urgent, long *error)
{
	for (;;) {
		bool mark = at_urgent(fd);
		long n = ms_recv(fd, piece, mark ? 1 : sizeof(piece), MSG_DONTWAIT);

		if (n == -EINTR)
			continue;
		*error = n;
		if (n <= 0)
			return 0;
		if (!carry_put(to, piece, (size_t)n))
			return -ENOMEM;
		if (mark)
			*urgent = to->length;
	}
}

static int sock_empty_pair(struct sock *s, short app, short own_events)
{
	struct carry front = { 0 };
	size_t urgent = 0;
	long error = 0, own;
	int err = 0;

	if (s->kind != SOCK_IS_STREAM || s->filler)
		return 0;
	if (s->numbers && !s->deaf && app) {
		sock_inline(s->numbers->fd, 1);
		err = sock_empty(s->numbers->fd, &front, &urgent, &error);
		sock_inline(s->numbers->fd, 0);
		sock_options_apply(s, s->numbers->fd, true);
	}
	s->given -= front.length;
	if (urgent) {
		s->urgent = SOCK_URGENT_WAITS;
		s->urgent_at = s->given + urgent - 1;
	}
	s->error_waits = s->fd < 0 && error == -ECONNRESET; /* else the program has read it */
	carry_join(&s->in, &front);
	if (!err && s->fd >= 0 && own_events)
		err = sock_empty(s->fd, &s->out, &s->out_urgent, &own);
	return err;
}

/* How the program has shut it: at the target it is shut so again. */
static void sock_note_ends(struct sock *s, short app, short own)
{
	if (s->fd < 0)
		return;
	if (!s->numbers) {
		s->gone = s->out_end = s->deaf = true;
		return;
	}
	if (s->kind != SOCK_IS_STREAM)
		return;
	if (!s->out_end && own & POLLRDHUP)
		s->out_end = true;
	if (!s->end_said && app & POLLRDHUP)
		s->read_shut = true;
}

/* So many sockets are asked about at once; most have nothing to say. */
static int sock_empty_some(struct sock **at)
{
	struct pollfd ends[2 * SOCK_ASKED];
	struct sock *s = *at;
	unsigned n = 0;
	int err = 0;

	for (; s && n < SOCK_ASKED; s = s->next, n++) {
		ends[2 * n] = (struct pollfd){ .fd = s->numbers ? s->numbers->fd : -1, .events = POLLIN | POLLRDHUP };
		ends[2 * n + 1] = (struct pollfd){ .fd = s->fd, .events = POLLIN | POLLRDHUP };
	}
	ms_poll(ends, 2 * n, 0);
	s = *at;
	for (unsigned i = 0; i < n && !err; i++, s = s->next) {
		sock_note_ends(s, ends[2 * i].revents, ends[2 * i + 1].revents);
		err = sock_empty_pair(s, ends[2 * i].revents, ends[2 * i + 1].revents);
	}
	*at = s;
	return err;
}

int sock_freeze(void)
{
	bool failed = false;
	int err;

	all_count = 0;
	if (!sock_first() && !udp_first())
		return 0;
	for (struct sock *s = sock_first(); s; s = s->next)
		sock_forget_numbers(s);
	err = fds_each(true, sock_note_number, &failed);
	for (struct sock *s = sock_first(); s && !err;)
		err = sock_empty_some(&s);
	sock_epolls_forget(); /* the image finds what the sets watch, and tells (sock_epoll_watched) */
	return failed ? -ENOMEM : err;
}

static void sock_sync_all(void)
{
	for (struct sock *s = sock_first(); s; s = s->next) {
		if (s->conn)
			conn_sync(s->conn);
		else
			sock_sync(s);
	}
}

static void sock_pairs_return(void)
{
	int first, end;

	if (!image_pairs_lent(&first, &end))
		return;
	ms_close_range((unsigned)first, (unsigned)end - 1, 0);
	for (int fd = first; fd < end; fd++)
		core_own_fd(fd, false);
}

void sock_settle(void)
{
	sock_pairs_return();
	for (struct sock *s = sock_first(); s; s = s->next)
		sock_forget_numbers(s);
	sock_epolls_forget();
	sock_sync_all();
}

/* A TCP socket that was neither connected nor listening. */
static int sock_remake_idle(struct sock *s)
{
	int fd = ms_socket(s->domain, SOCK_STREAM | SOCK_CLOEXEC, s->protocol);
	struct stat st;

	if (fd < 0)
		return fd;
	sock_options_apply(s, fd, false);
	ms_fstat(fd, &st);
	sock_rename(s, st.st_ino);
	return fd;
}

/* The stream was over, and the pair held what the program had not read yet: it fits into this one. */
static void sock_last_words(struct sock *s, int app)
{
	while (s->in.length) {
		struct iovec iov = { piece, sizeof(piece) };
		size_t n = carry_peek(&s->in, &iov);

		if (ms_send(s->fd, piece, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (long)n) {
			ms_log(LOG_ERROR, "the end of a stream does not fit into its socket");
			break;
		}
		carry_drop(&s->in, n);
	}
	carry_clear(&s->in);
	if (s->error_waits && !s->filler)
		ms_send(app, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static unsigned taken, made; /* pairs, in this freeze */

/* The program's end, as it was. */
static int sock_remake_pair(struct sock *s)
{
	bool over = s->fd < 0;
	int app, err;

	if (sock_pair_take(s, &app)) {
		taken++;
	} else {
		err = sock_pair_open(s, &app);
		if (err)
			return err;
		made++;
	}
	sock_options_apply(s, app, true);
	if (s->filler) {
		s->filler = 0;
		sock_fill(s, app);
	}
	if (over)
		sock_last_words(s, app);
	if (s->out_end)
		ms_shutdown(app, SHUT_WR);
	if (s->deaf)
		ms_shutdown(app, SHUT_RD);
	s->end_said = false; /* said again behind what is in s->in */
	if (over)
		sock_close_own(s);
	else
		sock_refill(s);
	return app;
}

/* Under all the numbers; the one that it happens to have may be one of them. */
static void sock_place(struct sock *s, int fd)
{
	bool stays = false;

	for (struct sock_number *n = s->numbers; n; n = n->next) {
		if (n->fd == fd) {
			ms_fcntl(fd, F_SETFD, n->cloexec ? FD_CLOEXEC : 0);
			stays = true;
		} else {
			ms_dup3(fd, n->fd, n->cloexec ? O_CLOEXEC : 0);
		}
		s->number = n->fd;
	}
	if (!stays && core_next_own_fd(fd) != fd)
		ms_close(fd);
}

static void sock_remake(struct sock *s)
{
	bool listener = s->kind == SOCK_IS_LISTENER;
	int fd = s->kind == SOCK_IS_IDLE ? sock_remake_idle(s) : sock_remake_pair(s);

	if (fd < 0) {
		ms_log(LOG_ERROR, "descriptor %d: its socket cannot be made again: error %d", s->numbers->fd, -fd);
		return;
	}
	if (s->owned)
		sock_owner_set(fd, &s->owner); /* behind what is given again, for which there was a signal */
	if (s->flags & (O_NONBLOCK | O_ASYNC))
		ms_fcntl(fd, F_SETFL, s->flags & (O_NONBLOCK | O_ASYNC));
	sock_place(s, fd);
	if (listener && s->listener && s->listener->first)
		sock_listener_tell(s);
}

void sock_hold_numbers(void)
{
	for (struct sock *s = sock_first(); s; s = s->next)
		if (s->numbers && s->fd >= 0)
			ms_dup3(engine_poke_fd(), s->fd, O_CLOEXEC);
}

void sock_resume(void)
{
	struct sock *next;

	taken = made = 0;
	for (struct sock *s = sock_first(); s; s = s->next)
		engine_forget(&s->watch);
	for (struct sock *s = sock_first(); s; s = next) {
		next = s->next;
		if (s->numbers)
			sock_remake(s);
		else if (s->fd >= 0)
			sock_lose_own(s);
	}
	sock_epolls_add();
	if (taken || made)
		ms_log(LOG_INFO, "%u pairs of sockets were made before the freeze, %u in it", taken, made);
}

static bool sock_is_torn(const struct sock *s)
{
	return s && s->numbers && s->kind == SOCK_IS_STREAM && s->fd < 0;
}

/* What was taken out of a pair without a library's end cannot be given to it: it is made again here too. */
void sock_thaw(void)
{
	int err = sock_epolls_note(sock_is_torn);

	if (err)
		ms_log(LOG_ERROR, "cannot read what the program's epoll sets watch: error %d", -err);
	for (struct sock *s = sock_first(); s; s = s->next) {
		if (sock_is_torn(s))
			sock_remake(s);
		else
			sock_refill(s);
	}
	sock_epolls_add();
}
