/* SPDX-License-Identifier: MIT */
#include "lib/kin.h"

#include "image/image.h"
#include "lib/agent.h"
#include "lib/conn.h"
#include "lib/conn_ops.h"
#include "lib/control.h"
#include "lib/core.h"
#include "lib/engine.h"
#include "lib/holders.h"
#include "lib/kick.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/mirror.h"
#include "lib/move.h"
#include "lib/sock.h"
#include "lib/sock_direct.h"
#include "lib/sys.h"
#include "lib/udp.h"
#include "lib/udp_pen.h"

#include <errno.h>
#include <netinet/tcp.h>

enum { KIN_PACKET = 64 };

#define KIN_NOTICE_NS 100000000ull /* most servers close what they have forked for before that */

static unsigned forks;    /* that this process has begun */
static int forker;        /* its number, or its parent's */
static int child_fd = -1; /* the child's control socket; from kin_fork_begin to the fork's end */
static struct timer let_go_timer, notice_timer;

unsigned kin_forks(void)
{
	return forks;
}

/* The daemon is told before the child is there, so it knows of it whatever becomes of us. */
static void child_announce(void)
{
	uint8_t buf[KIN_PACKET];
	struct ms_codec c;
	int pair[2], on = 1;

	child_fd = -1;
	if (control_fd() < 0 || ms_socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return;
	ms_setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on,
		      sizeof(on)); /* the child's number, in whatever namespace */
	control_begin(&c, buf, sizeof(buf), MS_M_CHILD);
	ms_put_u32(&c, forks);
	if (!control_send_fd(&c, buf, pair[1]))
		child_fd = core_raise_fd(pair[0]);
	else
		ms_close(pair[0]); /* a child without it cannot become a member */
	ms_close(pair[1]);
}

int kin_parent(void)
{
	return forker;
}

void kin_fork_begin(void)
{
	forks++;
	forker = holders_self();
	for (struct sock *s = sock_first(); s; s = s->next) {
		s->shared = s->shared || (s->kind == SOCK_IS_STREAM && !s->direct && s->conn);
		s->forked = s->forked || (s->direct && !s->inherited);
	}
	child_announce();
}

/* A peer must not freeze, and go by a mirror, when we could not follow it. */
static void kin_notice(struct timer *t)
{
	for (struct sock *s = sock_first(); s; s = s->next) {
		int pid = s->direct && s->forked && !s->inherited && !s->noticed ? kin_holder(s) : 0;

		if (!pid)
			continue;
		s->noticed = true;
		kin_say_shared(s->conn->peer_member,
			       &(struct stream_msg){ .stream = s->conn->s.id, .leg = s->conn->s.leg }, pid);
	}
}

void kin_fork_parent(void)
{
	bool any = false;

	if (child_fd >= 0)
		ms_close(child_fd);
	child_fd = -1;
	for (struct sock *s = sock_first(); s && !any; s = s->next)
		any = s->direct && s->forked && !s->noticed;
	if (!any || !core.member)
		return;
	notice_timer.fire = kin_notice;
	engine_timer_set(&notice_timer, KIN_NOTICE_NS);
}

/* What the engine had is the parent's; the epoll set is the same file as the parent's and must not be touched. */
static void child_forget_engine(void)
{
	image_forked();
	agent_reset();
	engine_forked();
	for (struct sock *s = sock_first(); s; s = s->next)
		engine_forget(&s->watch);
	for (struct conn *c = conn_first(); c; c = c->next) {
		engine_forget(&c->leg);
		engine_forget(&c->old_leg);
		engine_forget(&c->dial.watch);
		vsock_forget(&c->v);
	}
	inbound_forked();
	relink_forked();
	mirror_forked();
	vsock_forked();
}

/* All but what is direct: its bytes pass through the parent, as long as that lives. Those of msock.h keep their
 * records. */
static void child_forget_conns(void)
{
	for (struct conn *c = conn_first(), *next; c; c = next) {
		next = c->next;
		if (c->sock && c->sock->direct)
			continue;
		c->mirror = NULL;
		if (c->v.sd < 0)
			conn_destroy(c);
		else
			conn_forked(c);
	}
}

static void child_forget_listeners(void)
{
	for (struct listener *l = listener_first(), *next; l; l = next) {
		next = l->next;
		l->first = l->last = NULL; /* they were destroyed with the other conns */
		engine_forget(&l->watch);
		vsock_forget(&l->v);
		if (!l->sock)
			continue;
		l->sock->listener = NULL;
		listener_close(l);
	}
}

/* The library's own, but the control socket. */
static void child_close_fds(void)
{
	for (int fd = core_next_own_fd(0); fd >= 0; fd = core_next_own_fd(fd + 1)) {
		ms_close(fd);
		core_own_fd(fd, false);
	}
}

bool kin_fork_child(void)
{
	core.kin = true;
	core.on = core.member = false; /* what uses UDP stays the parent's */
	core.check = false;            /* what the streams are to be like is the owner's affair */
	core.self.moving = core.self.draining = core.local.moving = core.local.draining = false;
	move.phase = MOVE_NONE;
	move.relinking = false;
	forks = 0;
	kin_heirs_forked();
	child_forget_engine();
	child_forget_conns();
	child_forget_listeners();
	sock_forked();
	child_close_fds();
	engine_forked();
	control_forked(child_fd);
	child_fd = -1;
	return control_has_come();
}

int kin_join(void)
{
	int err;

	if (core.member)
		return 0;
	err = control_fd() < 0 ? -ENETUNREACH : engine_open(false);
	if (err)
		return err;
	core.member = true; /* for what comes with the answer */
	err = control_attach(control_fd());
	if (err) {
		ms_log(LOG_ERROR, "process %d: msdaemon does not make it a member: error %d", ms_getpid(), -err);
		core.member = false;
		control_close();
		return err;
	}
	core.local.m = core.self.m;
	log_format(core.id_text, sizeof(core.id_text), "%u.%u", MS_MEMBER_WORLD(core.id), MS_MEMBER_RANK(core.id));
	for (struct conn *c = conn_first(); c; c = c->next)
		c->s.self = c->peer_member == core.id ? &core.local : &core.self;
	control_watch();
	ms_log(LOG_INFO, "process %d is a member of its own, in the family of %a", ms_getpid(), core.virtual_ip);
	return 0;
}

int kin_holder(struct sock *s)
{
	int pid = 0;

	if (s->inherited || s->wide)
		pid = holders_anywhere(s->ino);
	else if (s->forked)
		pid = holders_below(s->ino, s->number);
	if (!pid)
		s->forked = s->wide = s->noticed = false;
	return pid;
}

/* To children that were forked after that number. */
static void kin_tell_children(uint64_t stream, unsigned number, uint32_t owner)
{
	uint8_t buf[KIN_PACKET];
	struct ms_codec c;

	control_begin(&c, buf, sizeof(buf), MS_M_LET_GO);
	ms_put_u64(&c, stream);
	ms_put_u32(&c, number);
	ms_put_u32(&c, owner);
	control_send(&c, buf);
}

bool kin_lets_go(struct sock *s, int number)
{
	s->number = number;
	if (!kin_holder(s))
		return false;
	kin_note_heir(s->conn, s->ino, 0, sock_ends_in_order(s, number));
	kin_tell_children(s->conn->s.id, s->born, core.id);
	return true;
}

/* The stream is ours from now on; rivals: other processes have it too. */
static void kin_take(struct sock *s, bool rivals)
{
	struct conn *c = s->conn, *other = conn_find(c->s.id, 1 - c->s.end);

	s->inherited = false;
	s->born = 0;
	s->wide = rivals;
	s->forked = rivals || forks;
	ms_log(LOG_DEBUG, "stream %lx is ours, was member %u's", c->s.id, s->belongs_to);
	if (other && other->sock && !other->sock->inherited) {
		kin_set_peer(c, core.id); /* both ends are */
		kin_set_peer(other, core.id);
		other->heir = false;
		return;
	}
	c->heir = true;
	c->heir_of = s->belongs_to;
	c->heir_tries = 0;
	kin_say_heir(c);
}

/* Of those who have it the lowest number becomes the owner. */
static void kin_settle(struct timer *t)
{
	for (struct sock *s = sock_first(), *next; s; s = next) {
		int pid = 0;

		next = s->next;
		if (!s->let_go || !s->inherited)
			continue;
		s->let_go = false;
		if (s->rivals)
			pid = holders_anywhere(s->ino);
		if ((pid && pid < holders_self()) || sock_number(s) < 0)
			continue;
		if (kin_join())
			return;
		kin_take(s, pid != 0);
	}
}

void kin_let_go(uint64_t stream, uint32_t owner, unsigned others)
{
	bool have = false;

	for (struct sock *s = sock_first(); s; s = s->next) {
		have = have || (s->conn && s->conn->s.id == stream);
		if (!s->inherited || (stream && s->conn->s.id != stream))
			continue;
		if (!stream && s->belongs_to != owner && holders_is(s->ino, s->owner_pid))
			continue; /* another member's, who has it */
		s->belongs_to = owner == MS_NOBODY ? s->belongs_to : owner;
		s->let_go = true;
		s->rivals = others > 0 || !stream;
	}
	if (stream && !have && forks)
		kin_tell_children(stream, 0, owner); /* we had closed it before we knew */
	if (!core.member)
		return; /* kin_look goes on */
	let_go_timer.fire = kin_settle;
	engine_timer_set(&let_go_timer, 0);
}

void kin_look(void)
{
	control_look();
	kin_settle(NULL);
}

void kin_serve_legs(void)
{
	if (core.kin && data_listener_fd() < 0)
		data_listen();
}

/* A child's: the listener or the stream behind the number is its ancestor's. */
static int kin_refuses_foreign(struct sock *s, char *why, size_t size)
{
	const char *what = s->kind == SOCK_IS_LISTENER ? "its family's listener" : "a stream that its parent passes on";
	int number = s->foreign ? sock_number(s) : -1;

	if (number < 0)
		return 0;
	log_format(why, size, "descriptor %d: %s, which a forked child cannot take along", number, what);
	return -1;
}

/* Until it has ended, of which the kernel tells. */
static int kin_refuses_bound(struct sock *s, char *why, size_t size)
{
	const struct conn *c = s->conn;
	struct tcp_info info = { 0 };
	socklen_t n = sizeof(info);

	if (!c || !c->bound_by || c->phase != CONN_OPEN || c->s.state == STREAM_OVER || c->s.at_end ||
	    (s->direct && !ms_getsockopt(sock_number(s), IPPROTO_TCP, TCP_INFO, &info, &n) &&
	     info.tcpi_state != TCP_ESTABLISHED))
		return 0;
	log_format(why, size, "stream %lx with rank %u.%u: there process %d has it, which is no member", c->s.id,
		   MS_MEMBER_WORLD(c->peer_member), MS_MEMBER_RANK(c->peer_member), (int)c->bound_by);
	return -1;
}

/* The word that a stream is this child's is on its way, to us or to the peer. */
static bool kin_is_unsettled(struct sock *s)
{
	return (s->inherited && sock_number(s) >= 0) || (s->conn && s->conn->heir);
}

int kin_refuses(bool late, char *why, size_t size)
{
	int waits = 0, pen;

	if (core.kin && (data_listener_fd() < 0 || udp_pen_own_fds(&pen, 1) || udp_first())) {
		log_format(why, size,
			   data_listener_fd() < 0 ? "no port is to be had for its streams' connections"
						  : "its family has UDP sockets");
		return -1;
	}
	for (struct sock *s = sock_first(); s; s = s->next) {
		int pid = s->direct && (s->forked || s->inherited) ? kin_holder(s) : 0;

		if (pid) {
			log_format(why, size, "descriptor %d: processes %d and %d share this stream", sock_number(s),
				   holders_self(), pid);
			return -1;
		}
		if (kin_refuses_foreign(s, why, size) || kin_refuses_bound(s, why, size))
			return -1;
		if (!kin_is_unsettled(s))
			continue;
		log_format(why, size, "descriptor %d: its peer does not know yet that the stream is this child's",
			   sock_number(s));
		waits = late ? -1 : 1;
	}
	return waits;
}
