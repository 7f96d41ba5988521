/* SPDX-License-Identifier: MIT */
#include "msdaemon/kin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "msdaemon/control.h"
#include "msdaemon/member.h"
#include "msdaemon/packets.h"
#include "proto/log.h"

enum { KIN_LAST = 1024 };

LIST_HEAD(kin_list, kin);

struct kin {
	LIST_ENTRY(kin) entry; /* in its parent's list, or in `orphans` */
	LIST_ENTRY(kin) all;
	struct kin_list kids;
	struct daemon *d;        /* borrowed */
	struct kin *parent;      /* NULL: it has none, or that has ended */
	struct member *member;   /* borrowed; NULL: not yet one */
	struct packets *control; /* owned until it is a member's */
	uint32_t number;         /* its parent's for it */
	uint32_t address;        /* the family's */
	uint32_t ancestor;       /* the nearest that was a member when it was forked */
	uint64_t m;              /* and its last move: what streams that it has from it may know */
	pid_t pid, own_pid;      /* own_pid: as it sees itself; 0: it has not said HELLO */
	uint64_t request;        /* for its name; 0: none */
};

static struct kin_list orphans = LIST_HEAD_INITIALIZER(orphans), everybody = LIST_HEAD_INITIALIZER(everybody);
static uint64_t requests;

static struct kin *kin_create(struct daemon *d, struct kin *parent, uint32_t number)
{
	struct kin *k = calloc(1, sizeof(*k));

	if (!k)
		log_die("out of memory");
	k->d = d;
	k->parent = parent;
	k->number = number;
	LIST_INIT(&k->kids);
	LIST_INSERT_HEAD(parent ? &parent->kids : &orphans, k, entry);
	LIST_INSERT_HEAD(&everybody, k, all);
	return k;
}

static struct kin *kin_of(struct member *m)
{
	if (!m->kin) {
		m->kin = kin_create(m->d, NULL, 0);
		m->kin->member = m;
		m->kin->address = m->virtual_ip;
	}
	return m->kin;
}

static struct packets *kin_packets(const struct kin *k)
{
	return k->member ? k->member->control : k->control;
}

/* The member that we have started, of a family; NULL: it has ended. */
static struct member *kin_root(struct kin *k)
{
	while (k->parent)
		k = k->parent;
	return k->member && !MS_MEMBER_IS_CHILD(k->member->id) ? k->member : NULL;
}

struct member *kin_root_of(struct member *m)
{
	return m->kin ? kin_root(m->kin) : NULL;
}

void kin_arrived(struct member *m, uint32_t parent)
{
	kin_of(m)->ancestor = parent;
}

static unsigned kin_count(const struct kin *k)
{
	const struct kin *kid;
	unsigned n = 1;

	LIST_FOREACH(kid, &k->kids, entry)
	n += kin_count(kid);
	return n;
}

static void say_let_go(const struct kin *k, uint64_t stream, uint32_t owner, unsigned others)
{
	uint8_t buf[64];
	const struct kin *kid;
	struct ms_codec c;

	packets_begin(&c, buf, sizeof(buf), MS_D_LET_GO);
	ms_put_u64(&c, stream);
	ms_put_u32(&c, owner);
	ms_put_u32(&c, others);
	packets_put(kin_packets(k), &c, buf, NULL, 0);
	LIST_FOREACH(kid, &k->kids, entry)
	say_let_go(kid, stream, owner, others);
}

/* Children that were forked earlier do not have the stream. */
static void let_go(struct kin *k, struct ms_codec *in)
{
	uint64_t stream = ms_get_u64(in);
	uint32_t number = ms_get_u32(in), owner = ms_get_u32(in);
	unsigned told = 0;
	struct kin *kid;

	if (in->bad)
		return;
	LIST_FOREACH(kid, &k->kids, entry)
	told += kid->number > number ? kin_count(kid) : 0;
	LIST_FOREACH(kid, &k->kids, entry)
	if (kid->number > number)
		say_let_go(kid, stream, owner, told - 1);
}

/* The newest of them; who asks long after that has been told otherwise. */
static void keep_word(struct member *m, uint32_t peer, const void *bytes, size_t size)
{
	Ms__Relay *r = calloc(1, sizeof(*r));

	if (!m->last)
		m->last = calloc(KIN_LAST, sizeof(*m->last));
	if (!r || !m->last)
		log_die("out of memory");
	ms__relay__init(r);
	r->to = peer;
	r->from = m->id;
	r->bytes.data = malloc(size + 1);
	if (!r->bytes.data)
		log_die("out of memory");
	memcpy(r->bytes.data, bytes, size);
	r->bytes.len = size;
	if (m->last_count == KIN_LAST) {
		ms__relay__free_unpacked(m->last[0], NULL);
		memmove(m->last, m->last + 1, --m->last_count * sizeof(*m->last));
	}
	m->last[m->last_count++] = r;
}

/* Whoever has let go of the stream may be asked for it. */
static void last_word(struct kin *k, struct ms_codec *in)
{
	uint64_t stream = ms_get_u64(in);
	uint8_t end = ms_get_u8(in), own = ms_get_u8(in);
	uint32_t peer = ms_get_u32(in);
	uint8_t buf[128];
	struct ms_codec c;

	if (in->bad)
		return;
	packets_begin(&c, buf, sizeof(buf), MS_D_LAST);
	ms_put_u64(&c, stream);
	ms_put_u8(&c, end);
	ms_put_bytes(&c, in->at, (size_t)(in->end - in->at));
	for (const struct kin *up = k->parent; up; up = up->parent)
		packets_put(kin_packets(up), &c, buf, NULL, 0);
	if (own && k->member)
		keep_word(k->member, peer, in->at, (size_t)(in->end - in->at));
}

/* Its children inherit its place: what they have of the grandparent's they have by it. */
static void kin_destroy(struct kin *k)
{
	struct kin *kid;

	while ((kid = LIST_FIRST(&k->kids))) {
		LIST_REMOVE(kid, entry);
		kid->parent = k->parent;
		kid->number = k->number;
		LIST_INSERT_HEAD(k->parent ? &k->parent->kids : &orphans, kid, entry);
	}
	LIST_REMOVE(k, entry);
	LIST_REMOVE(k, all);
	if (!k->member)
		packets_destroy(k->control);
	free(k);
}

void kin_member_gone(struct member *m)
{
	struct kin *k = m->kin, *kid;

	if (!k)
		return;
	LIST_FOREACH(kid, &k->kids, entry)
	say_let_go(kid, 0, m->id, 0);
	m->kin = NULL;
	kin_destroy(k);
}

uint32_t kin_address(const struct member *m)
{
	return m->kin ? m->kin->address : m->virtual_ip;
}

/* Of whom it is called a child. */
static uint32_t kin_ancestor(const struct kin *k)
{
	return k->parent && k->parent->member ? k->parent->member->id : k->ancestor;
}

bool kin_child_of(const struct member *m, uint32_t *parent)
{
	if (!MS_MEMBER_IS_CHILD(m->id))
		return false;
	*parent = kin_ancestor(m->kin);
	return true;
}

static void ask_name(const struct kin *k)
{
	Ms__Born b = MS__BORN__INIT;

	b.request = k->request;
	b.parent = kin_ancestor(k);
	b.pid = k->pid;
	b.m = k->m;
	link_send(k->d->coordinator, LINK_MSG(BORN, born, &b));
}

static void hello(struct kin *k, struct ms_codec *in)
{
	k->own_pid = (pid_t)ms_get_u32(in);
	k->pid = packets_pid(k->control);
	k->request = ++requests;
	ask_name(k);
}

void kin_again(struct daemon *d)
{
	struct kin *k;

	LIST_FOREACH(k, &everybody, all)
	if (k->request)
		ask_name(k);
}

void kin_named(struct daemon *d, const Ms__Named *n)
{
	struct member *m;
	struct kin *k;

	LIST_FOREACH(k, &everybody, all)
	if (k->request == n->request && k->request)
		break;
	if (!k) { /* it has ended meanwhile */
		member_unborn(d, n->member);
		return;
	}
	k->request = 0;
	m = member_create(d, n->member, MEMBER_JOINED);
	m->kin = k;
	m->pid = k->pid;
	m->own_pid = k->own_pid;
	m->m = k->m;
	m->control = k->control;
	k->control = NULL;
	k->member = m;
	packets_set_user(m->control, &control_ops, m);
	control_welcome(m);
}

static void child(struct kin *parent, struct ms_codec *in, int *fds, unsigned count);
static void ask(struct kin *k, struct ms_codec *in, int *fds, unsigned count);

static void on_packet(void *user, struct ms_codec *in, unsigned type, int *fds, unsigned count)
{
	struct kin *k = user;

	switch (type) {
	case MS_M_HELLO:
		hello(k, in);
		break;
	case MS_M_CHILD:
		child(k, in, fds, count);
		break;
	case MS_M_LET_GO:
		let_go(k, in);
		break;
	case MS_M_LAST:
		last_word(k, in);
		break;
	default:
		log_say(LOG_WARN, "a child that is no member says something unknown: %u", type);
	}
}

/* It may have been told of a stream that it had passed on to children of its own. */
static void on_end(void *user)
{
	struct kin *k = user, *kid;

	LIST_FOREACH(kid, &k->kids, entry)
	say_let_go(kid, 0, MS_NOBODY, 0);
	kin_destroy(k);
}

static const struct packets_ops kin_ops = { .on_packet = on_packet, .on_end = on_end };

static void child(struct kin *parent, struct ms_codec *in, int *fds, unsigned count)
{
	uint32_t number = ms_get_u32(in);
	struct kin *k;

	if (in->bad || count != 1)
		return;
	k = kin_create(parent->d, parent, number);
	k->address = parent->address;
	k->ancestor = parent->member ? parent->member->id : parent->ancestor;
	k->m = parent->member ? parent->member->m : parent->m;
	k->control = packets_take(parent->d->base, &kin_ops, k, fds[0]);
	fds[0] = -1;
}

static void answer_error(struct kin *k, uint32_t request, uint32_t error)
{
	uint8_t buf[32];
	struct ms_codec c;

	packets_begin(&c, buf, sizeof(buf), MS_D_ANSWER);
	ms_put_u32(&c, request);
	ms_put_u32(&c, error);
	packets_put(kin_packets(k), &c, buf, NULL, 0);
}

/* What listens is the root's; where that has ended nobody does. */
static void ask(struct kin *k, struct ms_codec *in, int *fds, unsigned count)
{
	struct member *root = kin_root(k);
	uint32_t request = ms_get_u32(in);
	uint8_t buf[128];
	struct ms_codec c;

	if (in->bad)
		return;
	if (!root || !root->control || root->state != MEMBER_JOINED) {
		answer_error(k, request, EINVAL);
		return;
	}
	packets_begin(&c, buf, sizeof(buf), MS_D_ASKED);
	ms_put_u32(&c, k->member->id);
	ms_put_u32(&c, request);
	ms_put_bytes(&c, in->at, (size_t)(in->end - in->at));
	packets_put(root->control, &c, buf, fds, count);
}

static void answer(struct daemon *d, struct ms_codec *in, int *fds, unsigned count)
{
	static uint8_t buf[MS_CTL_MAX];
	struct member *m = member_find(d, ms_get_u32(in));
	struct ms_codec c;

	if (!m || in->bad || !MS_MEMBER_IS_CHILD(m->id))
		return;
	packets_begin(&c, buf, sizeof(buf), MS_D_ANSWER);
	ms_put_bytes(&c, in->at, (size_t)(in->end - in->at));
	packets_put(m->control, &c, buf, fds, count);
}

void kin_packet(struct member *m, unsigned type, struct ms_codec *in, int *fds, unsigned count)
{
	if (type == MS_M_CHILD)
		child(kin_of(m), in, fds, count);
	else if (type == MS_M_LET_GO)
		let_go(kin_of(m), in);
	else if (type == MS_M_LAST)
		last_word(kin_of(m), in);
	else if (type == MS_M_ASK)
		ask(kin_of(m), in, fds, count);
	else
		answer(m->d, in, fds, count);
}
