/* SPDX-License-Identifier: MIT */
/*
 * sock_direct.c - the stream's leg itself under the program's number, as long as nothing changes.
 *
 * A stream of the program is direct or paired.  Direct: the kernel's TCP
 * socket is the program's, the library has no descriptor of it and is not
 * asked about a single byte; what the two counted is read off TCP_INFO when
 * it is wanted.  Paired: see sock.h; so is a stream that connects, whose leg
 * is replaced, or with something left of an old leg.
 *
 * Invariants.
 * 1. The file under a number changes only while every thread of the program
 *    is parked in the kick's handler.  None is then in a system call: one that
 *    was has returned, or begins again, with the number, when the thread goes
 *    on.  So nothing is read or written past the change, and no call needs
 *    to look at anything before it is made.
 * 2. A direct stream is STEADY and carries nothing: its state is frozen, all
 *    that the peer says of a relink waits (sock_hold) until it is paired.
 * 3. It becomes direct only when everything that was on its way in the pair is
 *    in the leg or with the program; paired when the member wants to move or
 *    the peer speaks of a relink.  It stays direct, in both processes, over a
 *    fork, and is not paired as long as another process has it (kin.h).
 * 4. Closing a direct socket is the kernel's; the preload tells before
 *    (sock_closing), so that the peer can be told the counts later.
 *
 * The threads are parked by whoever runs the engine and is no thread of the
 * program: the agent or the mover.  The lock is not held meanwhile, since a
 * thread that holds it parks only when it has given it back.
 */
#include "lib/sock.h"

#include "image/image.h"
#include "lib/agent.h"
#include "lib/conn.h"
#include "lib/conn_ops.h"
#include "lib/control.h"
#include "lib/core.h"
#include "lib/holders.h"
#include "lib/kin.h"
#include "lib/leg_counts.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/sock_direct.h"
#include "lib/sock_epoll.h"
#include "lib/sys.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

enum {
	SWAP_TIMEOUT_MS = 200, /* for the threads to stop */
	SWAP_AGAIN_MS = 1,     /* after a try that came to nothing; doubled each time */
	SWAP_DOUBLINGS = 6,
	SWAP_TIRED_MS = 1000,  /* the threads did not stop: bytes pass through the pairs so long */
	SWAP_SHARED_MS = 1000, /* between two looks whether a child still has the program's end of a pair */
	HELD_MAX = 4096,
};

/* A relink message that waits until its stream is paired. */
struct held {
	struct held *next;
	uint32_t from;
	uint64_t stream;
	unsigned end;
	struct stream_msg msg;
};

static unsigned wanted;  /* sockets with want_swap */
static unsigned directs; /* sockets that are direct */
static bool swapping, due;
static uint64_t tired_until_ns;
static struct timer swap_timer;
static struct held *held_first, *held_last;
static unsigned held_count;

static void sock_counts_begin(struct sock *s, const struct leg_counts *n)
{
	s->written_before = s->conn->s.written - n->written;
	s->taken_before = s->conn->s.taken - n->taken;
}

void sock_counts_end(struct sock *s, const struct leg_counts *n)
{
	s->conn->s.written = s->written_before + n->written;
	s->conn->s.taken = s->taken_before + n->taken;
}

/* Nothing stands against it but what is still in the pair. */
static bool sock_may_be_direct(const struct sock *s)
{
	const struct conn *c = s->conn;

	if (s->kind != SOCK_IS_STREAM || s->direct || s->shared || s->gone || s->reap || s->deaf || s->failed ||
	    s->end_said || s->reset_said)
		return false;
	if (!c || c->phase != CONN_OPEN || c->s.state != STREAM_STEADY || c->s.self->moving || c->closed ||
	    c->confirm_left)
		return false;
	if (c->s.last_leg || c->s.eof || c->s.error || c->carry.length || s->in.length || s->out.length)
		return false;
	return s->out_end == s->fin_said && ms_clock_ns(CLOCK_MONOTONIC) >= tired_until_ns;
}

/*
 * The leg is not read then, or the pair would never be empty.  But an urgent
 * byte passes what the program leaves unread, and it may read nothing else: so
 * the leg is watched for one meanwhile (EPOLLPRI), and read until that is in
 * the pair.  It ends: what lies ahead of the byte is there already.
 */
bool sock_is_settling(const struct sock *s)
{
	return !swapping && !s->filler && s->fd >= 0 && !s->urgent_comes && sock_may_be_direct(s);
}

/* SIOCOUTQ counts an urgent byte that was read until what lies behind it is; FIONREAD does not. */
static bool sock_pair_is_read(struct sock *s)
{
	int unread = 0, number;

	if (ms_ioctl(s->fd, SIOCOUTQ, &unread))
		return false;
	if (!unread || !s->urgent_said)
		return !unread;
	number = sock_number(s);
	return number >= 0 && !ms_ioctl(number, FIONREAD, &unread) && !unread;
}

static void sock_keep_wanting(struct sock *s)
{
	if (!s->want_swap)
		wanted++;
	s->want_swap = true;
}

static void sock_want_swap(struct sock *s)
{
	sock_keep_wanting(s);
	due = true;
	engine_poke(); /* who runs the engine may sleep */
}

void sock_forget_swap(struct sock *s)
{
	if (s->want_swap)
		wanted--;
	s->want_swap = false;
}

static void sock_swap_again(struct timer *t)
{
	due = true;
	for (struct sock *s = sock_first(), *next; s; s = next) {
		next = s->next;
		if (s->pull_more && sock_is_settling(s)) {
			sock_ready(&s->watch, EPOLLIN);
		} else if (s->kind == SOCK_IS_STREAM && !s->want_swap) {
			sock_consider(s);
		}
	}
}

static void sock_try_later(uint64_t ns)
{
	swap_timer.fire = sock_swap_again;
	if (!swap_timer.set || swap_timer.at_ns > ms_clock_ns(CLOCK_MONOTONIC) + ns)
		engine_timer_set(&swap_timer, ns);
}

void sock_pull_later(void)
{
	sock_try_later(0);
}

/* Paired, and something has changed: is it time? What the program has not read yet is waited for. */
void sock_consider(struct sock *s)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);

	if (s->shared && s->swap_after_ns <= now) {
		s->shared = holders_anywhere(s->ino) != 0;
		s->swap_after_ns = now + (s->shared ? SWAP_SHARED_MS * 1000000ull : 0);
	}
	if (swapping || s->want_swap || !sock_may_be_direct(s))
		return;
	if (s->swap_after_ns > now) {
		sock_try_later(s->swap_after_ns - now);
		return;
	}
	if (s->fd < 0 || (!s->filler && !sock_pair_is_read(s)))
		return;
	sock_want_swap(s);
}

bool sock_swap_due(void)
{
	return due && wanted && !swapping && !engine_paused();
}

/* The leg as the program believes it to be. */
static void leg_give(struct sock *s, int leg)
{
	int off = 0;

	ms_setsockopt(leg, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off));
	sock_inline(leg, 0);
	sock_options_apply(s, leg, false);
}

/* ... and as the library needs it. */
void leg_take(int leg)
{
	ms_fcntl(leg, F_SETFL, O_NONBLOCK);
	leg_prepare(leg);
}

static void sock_became_direct(struct sock *s, int number, const struct leg_counts *n)
{
	struct stat st;

	ms_fstat(number, &st);
	sock_rename(s, st.st_ino);
	sock_forget_swap(s);
	s->number = number;
	s->conn->fd = number;
	s->direct = true;
	s->read_shut = s->conn->leg_shut = false; /* the kernel knows */
	s->swap_tries = 0;
	s->filler = 0;
	s->urgent = SOCK_URGENT_NONE; /* the kernel knows */
	s->urgent_comes = false;
	sock_counts_begin(s, n);
	directs++;
}

static bool sock_pair_is_empty(struct sock *s, int number)
{
	int unread = 0, unsent = 0;

	if (s->filler)
		return true; /* nobody could write, and nobody has written to it */
	sock_ready(&s->watch, EPOLLIN);
	if (s->conn == NULL || !sock_may_be_direct(s))
		return false;
	return !ms_ioctl(number, FIONREAD, &unread) && !unread && !ms_ioctl(s->fd, FIONREAD, &unsent) && !unsent;
}

/* Shut for reading, by this end or the other. */
static bool sock_has_end(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return ms_poll(&p, 1, 0) == 1 && p.revents & POLLRDHUP;
}

static void sock_failed_swap(struct sock *s)
{
	uint64_t ns = SWAP_AGAIN_MS * 1000000ull << (s->swap_tries < SWAP_DOUBLINGS ? s->swap_tries : SWAP_DOUBLINGS);

	s->swap_tries++;
	s->swap_after_ns = ms_clock_ns(CLOCK_MONOTONIC) + ns;
	sock_try_later(ns);
}

static void sock_to_direct(struct sock *s)
{
	struct conn *c = s->conn;
	int number = sock_number(s), leg;
	struct leg_counts n;

	if (number < 0 || !sock_may_be_direct(s) || !sock_pair_is_empty(s, number)) {
		sock_failed_swap(s);
		return;
	}
	leg = c->fd;
	if (!leg_count(leg, &n)) {
		sock_failed_swap(s);
		return;
	}
	engine_watch(&c->leg, leg, 0);
	leg_give(s, leg);
	if (s->read_shut || sock_has_end(number))
		ms_shutdown(leg, SHUT_RD);
	sock_owner_copy(number, leg);
	ms_fcntl(leg, F_SETFL, ms_fcntl(number, F_GETFL, 0) & (O_NONBLOCK | O_ASYNC));
	if (s->filler)
		s->local = c->local;
	sock_replace_file(s, s->ino, number, leg);
	core_own_fd(leg, false);
	ms_close(leg);
	sock_close_own(s);
	sock_became_direct(s, number, &n);
	sock_owner_tell(number);
}

void sock_ends_direct(struct sock *s)
{
	sock_forget_swap(s);
	s->direct = false;
	directs--;
}

/* The stream, which the caller destroys; its connection is not touched. */
static struct conn *sock_part(struct sock *s)
{
	struct conn *c = s->conn;

	sock_ends_direct(s);
	s->conn = NULL;
	c->sock = NULL;
	c->fd = -1;
	return c;
}

/* The kernel closes the leg; what the peer asks about the stream is answered by what is known of it now. */
void sock_bury(struct sock *s)
{
	struct conn *c = sock_part(s);

	conn_ops_bury(c);
	conn_destroy(c);
}

/* Ours no more; another process has it. */
void sock_abandon(struct sock *s)
{
	conn_destroy(sock_part(s));
}

/* No number has it any more, and nobody has told, or the peer is reset. */
void sock_direct_lost(struct sock *s)
{
	if (s->inherited) {
		sock_abandon(s);
		return;
	}
	s->conn->s.error = ECONNRESET;
	sock_bury(s);
}

/* A descriptor of the library for the program's file, or -errno. */
int leg_dup(int number)
{
	int fd = (int)ms_fcntl(number, F_DUPFD_CLOEXEC, 3);

	return fd < 0 ? fd : core_raise_fd(fd);
}

static void sock_to_pair(struct sock *s)
{
	struct conn *c = s->conn;
	int number = sock_number(s), leg, err, flags;
	struct sock_urgent urgent;
	struct leg_counts n;

	if (number < 0) {
		sock_direct_lost(s);
		return;
	}
	leg = leg_dup(number);
	if (leg >= 0)
		sock_urgent_look(leg, &urgent);
	if (leg < 0 || !leg_count(leg, &n)) {
		ms_log(LOG_WARN, "stream %lx: no descriptor for its leg: error %d", c->s.id, -leg);
		if (leg >= 0)
			ms_close(leg);
		leg_give(s, number);
		sock_keep_wanting(s);
		sock_failed_swap(s);
		return;
	}
	core_own_fd(leg, true); /* not one of the numbers that get the pair */
	err = sock_make_pair(s, number);
	if (err) {
		ms_log(LOG_WARN, "stream %lx: no pair of sockets: error %d", c->s.id, -err);
		core_own_fd(leg, false);
		ms_close(leg);
		leg_give(s, number);
		sock_keep_wanting(s);
		sock_failed_swap(s);
		return;
	}
	sock_ends_direct(s);
	c->fd = leg;
	sock_counts_end(s, &n);
	s->given = c->s.taken;
	sock_urgent_keep(s, &urgent);
	flags = (int)ms_fcntl(leg, F_GETFL, 0);
	ms_fcntl(leg, F_SETFL, O_NONBLOCK);
	if (n.fin_sent)
		ms_shutdown(number, SHUT_WR);
	s->read_shut = sock_has_end(leg) && leg_is_shut(leg);
	sock_leg_ready(s, EPOLLIN); /* what the program may have looked at lies in its socket again */
	if (sock_number(s) == number) {
		sock_owner_copy(leg,
				number); /* not earlier: it has had the signal for what it has just been given again */
		ms_fcntl(number, F_SETFL, flags & (O_NONBLOCK | O_ASYNC));
		sock_owner_clear(leg);
	}
	leg_take(leg);
}

/* Not while another process has it: it would go on with the leg itself. */
static void sock_try_pair(struct sock *s)
{
	if (!s->inherited && !kin_holder(s))
		sock_to_pair(s);
}

static bool sock_wants_swap(const struct sock *s)
{
	return s && s->want_swap;
}

/* All threads are parked, the lock is held. */
static void sock_swap_all(void)
{
	int err = sock_epolls_note(sock_wants_swap);

	due = false;
	if (err) {
		ms_log(LOG_WARN, "cannot read what the program's epoll sets watch: error %d", -err);
		tired_until_ns = ms_clock_ns(CLOCK_MONOTONIC) + SWAP_TIRED_MS * 1000000ull;
	}
	sock_epolls_remove();
	for (struct sock *s = sock_first(), *next; s && !err; s = next) {
		next = s->next;
		if (!s->want_swap)
			continue;
		sock_forget_swap(s);
		if (s->direct)
			sock_try_pair(s);
		else
			sock_to_direct(s);
	}
	sock_epolls_add();
	sock_epolls_forget();
	for (struct sock *s = sock_first(); s; s = s->next)
		if (!s->direct && s->conn)
			conn_sync(s->conn);
}

static void sock_held_deliver(void)
{
	struct held *h = held_first;

	held_first = held_last = NULL;
	held_count = 0;
	while (h) {
		struct held *next = h->next;

		conn_message_to(h->end, h->from, &h->msg);
		mem_free(h, sizeof(*h));
		h = next;
	}
}

/* The threads did not stop. Who connects is shown that it is connected; the rest goes on as it is. */
static void sock_swap_failed(const char *why)
{
	ms_log(LOG_INFO, "sockets stay as they are: %s", why);
	due = false;
	tired_until_ns = ms_clock_ns(CLOCK_MONOTONIC) + SWAP_TIRED_MS * 1000000ull;
	for (struct sock *s = sock_first(); s; s = s->next) {
		if (!s->want_swap || s->direct)
			continue;
		sock_forget_swap(s);
		conn_sync(s->conn);
	}
	sock_try_later(SWAP_TIRED_MS * 1000000ull);
}

/* Stop the program's threads. Lock held, but given meanwhile; `swapping` keeps the agent and the mover apart. */
static int sock_pause(char why[IMAGE_WHY])
{
	int err;

	swapping = true;
	ms_lock_give(&core.lock);
	err = image_pause(core.kick_signal, agent_is_ours, SWAP_TIMEOUT_MS * 1000000ull, why);
	ms_lock_take(&core.lock);
	return err;
}

/* In any case. The lock is given. */
static void sock_unpause(void)
{
	swapping = false;
	image_unpause();
	sock_held_deliver();
	ms_lock_give(&core.lock);
}

void sock_swap(void)
{
	char why[IMAGE_WHY] = "";
	int err;

	ms_lock_take(&core.lock);
	if (!sock_swap_due()) {
		ms_lock_give(&core.lock);
		return;
	}
	err = sock_pause(why);
	if (err)
		sock_swap_failed(why);
	else
		sock_swap_all();
	sock_unpause();
}

void sock_stand_still(void)
{
	struct timespec t = { 0, 100000 };
	char why[IMAGE_WHY] = "";

	ms_lock_take(&core.lock);
	while (swapping) { /* by the agent, for SWAP_TIMEOUT_MS at most */
		ms_lock_give(&core.lock);
		ms_nanosleep(&t);
		ms_lock_take(&core.lock);
	}
	if (sock_pause(why))
		ms_log(LOG_INFO, "looks while threads go on: %s", why);
}

void sock_go_on(void)
{
	if (sock_first())
		sock_try_later(0); /* what would have been considered meanwhile */
	sock_unpause();
}

bool sock_hold(struct conn *c, uint32_t from, const struct stream_msg *msg)
{
	struct held *h;
	int pid;

	if (!c->sock || !c->sock->direct || msg->leg < c->s.leg)
		return false;
	if (c->sock->inherited)
		return true; /* it is not for us */
	pid = kin_holder(c->sock);
	if (pid) {
		kin_say_shared(from, msg, pid);
		return true;
	}
	sock_want_swap(c->sock);
	h = held_count < HELD_MAX ? mem_alloc(sizeof(*h)) : NULL;
	if (!h)
		return true; /* it will be repeated */
	*h = (struct held){ .from = from, .stream = c->s.id, .end = c->s.end, .msg = *msg };
	if (held_last)
		held_last->next = h;
	else
		held_first = h;
	held_last = h;
	held_count++;
	return true;
}

bool sock_pair_all(void)
{
	for (struct sock *s = sock_first(); s; s = s->next)
		if (s->direct)
			sock_want_swap(s);
	return directs == 0;
}

/* What is direct is the owner's to relink; of the rest the child has the numbers, and the bytes pass through the parent. */
void sock_forked(void)
{
	wanted = directs = 0;
	swapping = due = false;
	tired_until_ns = 0;
	while (held_first) {
		struct held *h = held_first;

		held_first = h->next;
		mem_free(h, sizeof(*h));
	}
	held_last = NULL;
	held_count = 0;
	for (struct sock *s = sock_first(), *next; s; s = next) {
		next = s->next;
		s->want_swap = s->forked = s->wide = s->noticed = s->let_go = s->reap = false;
		s->fd = -1;
		directs += s->direct;
		s->foreign = s->foreign || s->kind == SOCK_IS_LISTENER || (s->kind == SOCK_IS_STREAM && !s->direct);
		if (s->direct && !s->inherited) {
			s->inherited = true;
			s->belongs_to = core.id;
			s->owner_pid = kin_parent();
		}
	}
	sock_recount();
	for (struct sock *s = sock_first(), *next; s; s = next) {
		next = s->next;
		if (s->gone)
			sock_destroy(s);
	}
}

bool sock_accept_direct(struct sock *s, int number)
{
	struct conn *c = s->conn;
	struct leg_counts n;

	if (!sock_may_be_direct(s) || !leg_count(c->fd, &n))
		return false;
	engine_watch(&c->leg, c->fd, 0);
	leg_give(s, c->fd);
	ms_fcntl(c->fd, F_SETFL, ms_fcntl(number, F_GETFL, 0) & O_NONBLOCK);
	ms_dup3(c->fd, number, ms_fcntl(number, F_GETFD, 0) & FD_CLOEXEC ? O_CLOEXEC : 0);
	core_own_fd(c->fd, false);
	ms_close(c->fd);
	sock_became_direct(s, number, &n);
	return true;
}
