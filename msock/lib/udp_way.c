/* SPDX-License-Identifier: MIT */
#include "lib/udp_way.h"

#include "lib/control.h"
#include "lib/core.h"
#include "lib/engine.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/place.h"
#include "lib/sys.h"
#include "lib/udp_move.h"
#include "lib/udp_names.h"
#include "lib/udp_pen.h"
#include "lib/udp_say.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>

enum {
	WAY_BUCKETS = 1024,
	WAY_MANY = 4096,
	WAY_BURST = 8,       /* datagrams that go in a millisecond: a receiver's queue has room for some hundred */
	WAY_BURST_PART = 32, /* ... and this part of what waits, or who writes fast would never get through */
};

#define WAY_TICK_NS 250000000ull   /* while something waits */
#define WAY_RETRY_NS 1000000ull    /* the kernel had no room */
#define WAY_LEAVE_NS 2000000000ull /* what waits longer does not keep a program from ending */

struct udp_datagram {
	struct udp_datagram *next;
	uint64_t since_ns;
	size_t size;
	uint8_t bytes[];
};

static struct udp_way *buckets[WAY_BUCKETS];
static unsigned count, sweep_at = WAY_MANY;
static struct timer tick;

uint32_t udp_way_changes;

static unsigned way_bucket(uint16_t own, uint32_t ip, uint16_t port)
{
	return (ip * 31 + port * 7 + own) % WAY_BUCKETS;
}

struct udp_way *udp_way_find(const struct udp *u, uint32_t ip, uint16_t port)
{
	struct udp_way *w = buckets[way_bucket(u->port, ip, port)];

	while (w && (w->own != u || w->ip != ip || w->port != port))
		w = w->next;
	return w;
}

struct udp_way *udp_way_next(const struct udp_way *w)
{
	unsigned i = w ? way_bucket(w->own->port, w->ip, w->port) + 1 : 0;

	if (w && w->next)
		return w->next;
	while (i < WAY_BUCKETS && !buckets[i])
		i++;
	return i < WAY_BUCKETS ? buckets[i] : NULL;
}

static void way_drop_first(struct udp_way *w)
{
	struct udp_datagram *d = w->first;

	w->first = d->next;
	if (!w->first)
		w->last = NULL;
	w->waiting--;
	w->waiting_bytes -= d->size;
	mem_free(d, sizeof(*d) + d->size);
}

static void way_free(struct udp_way *w)
{
	struct udp_way **at = &buckets[way_bucket(w->own->port, w->ip, w->port)];

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	count--;
	while (w->first)
		way_drop_first(w);
	mem_free(w, sizeof(*w));
}

static bool way_is_peer(const struct udp_way *w)
{
	const struct udp *u = w->own;

	return u->connected && ntohl(u->peer.sin_addr.s_addr) == w->ip && ntohs(u->peer.sin_port) == w->port;
}

bool udp_way_recent(const struct udp_way *w, uint64_t now)
{
	uint64_t limit = (UDP_RECENT_S + 1) * 1000000000ull;

	return w->watched || w->first || way_is_peer(w) || (w->used_ns && now - w->used_ns < limit) ||
	       (w->heard_ns && now - w->heard_ns < limit);
}

/* Those that nobody has used for long. */
static void way_sweep(void)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);

	for (unsigned i = 0; i < WAY_BUCKETS; i++) {
		for (struct udp_way *w = buckets[i], *next; w; w = next) {
			next = w->next;
			if (!udp_way_recent(w, now))
				way_free(w);
		}
	}
	sweep_at = count * 2 > WAY_MANY ? count * 2 : WAY_MANY;
}

/* Whom the address belongs to, another way may know. */
static void way_know_owner(struct udp_way *w)
{
	for (struct udp_way *o = udp_way_next(NULL); o && !w->owned; o = udp_way_next(o)) {
		if (o->ip != w->ip || !o->owned)
			continue;
		w->member = o->member;
		w->owned = true;
	}
}

struct udp_way *udp_way_get(struct udp *u, uint32_t ip, uint16_t port)
{
	struct udp_way *w = udp_way_find(u, ip, port), **bucket;

	if (w)
		return w;
	if (count >= sweep_at)
		way_sweep();
	w = mem_alloc(sizeof(*w));
	if (!w)
		return NULL;
	w->own = u;
	w->ip = ip;
	w->port = port;
	way_know_owner(w);
	bucket = &buckets[way_bucket(u->port, ip, port)];
	w->next = *bucket;
	*bucket = w;
	count++;
	return w;
}

static bool way_is_local(const struct udp_way *w)
{
	return w->ip == core.virtual_ip;
}

/* To a socket of this member: known without asking. */
static void way_look_here(struct udp_way *w)
{
	struct udp *other = udp_pick(w->port, core.virtual_ip, w->own->port);

	if (other && udp_number(other) < 0)
		other = NULL; /* closed; put away when no way is being looked at */
	w->nobody = !other;
	w->real_ip = core.real_ip;
	w->real_port = other ? other->real_port : 0;
	w->noted = w->own->serial;
}

bool udp_way_open(const struct udp_way *w)
{
	return w->real_port && w->noted == w->own->serial && !w->deaf && !udp_way_held(w) && !udp_move_holding();
}

/* Something waits for it to open. */
static bool way_wants(const struct udp_way *w)
{
	return w->first || (way_is_peer(w) && !udp_way_open(w) && !way_is_local(w));
}

static void way_tick(struct timer *t)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);
	bool wants = false, retry = false;

	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		if (!way_wants(w))
			continue;
		wants = true;
		if (udp_way_open(w))
			udp_way_changed(w);
		else if (now - w->asked_ns >= UDP_AGAIN_MS * 1000000ull)
			udp_way_ask(w);
		retry = retry || (w->first && udp_way_open(w));
	}
	if (wants)
		engine_timer_set(t, retry ? WAY_RETRY_NS : WAY_TICK_NS);
}

static void way_start_tick(uint64_t ns)
{
	tick.fire = way_tick;
	if (!tick.set || tick.at_ns > ms_clock_ns(CLOCK_MONOTONIC) + ns)
		engine_timer_set(&tick, ns);
}

void udp_way_ask(struct udp_way *w)
{
	if (!core.on)
		return;
	w->asked_ns = ms_clock_ns(CLOCK_MONOTONIC);
	if (way_wants(w))
		way_start_tick(WAY_TICK_NS);
	if (way_is_local(w)) {
		way_look_here(w);
		return;
	}
	if (udp_move_holding())
		return;
	if (w->owned) {
		udp_say_where(w);
		return;
	}
	if (!w->request)
		w->request = control_request();
	control_lookup(w->request, w->ip, 0);
}

bool udp_way_placed(uint32_t request, const struct place *p)
{
	struct udp_way *w = request ? udp_way_next(NULL) : NULL;

	while (w && w->request != request)
		w = udp_way_next(w);
	if (!w)
		return false;
	w->request = 0;
	w->owned = p->status == MS_PLACE_OK;
	w->member = p->member;
	w->nobody = !w->owned;
	if (w->owned)
		udp_way_ask(w);
	else
		udp_way_changed(w);
	return true;
}

void udp_way_check(struct udp_way *w, uint64_t now)
{
	uint64_t limit = udp_way_open(w) ? UDP_CHECK_MS : UDP_AGAIN_MS;

	w->used_ns = now;
	if (way_is_local(w) || now - w->asked_ns >= limit * 1000000ull)
		udp_way_ask(w);
}

long udp_way_wait(struct udp_way *w, const struct iovec *iov, size_t n)
{
	struct udp_datagram *d;
	size_t size = 0, at = 0;

	for (size_t i = 0; i < n; i++)
		size += iov[i].iov_len;
	if (size > UDP_DATAGRAM)
		return -EMSGSIZE;
	while (w->first && (w->waiting == UDP_WAITING || w->waiting_bytes + size > UDP_WAITING_BYTES))
		way_drop_first(w);
	d = mem_alloc(sizeof(*d) + size);
	if (!d)
		return -ENOBUFS;
	for (size_t i = 0; i < n; i++) {
		__builtin_memcpy(d->bytes + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	d->size = size;
	d->since_ns = ms_clock_ns(CLOCK_MONOTONIC);
	if (w->last)
		w->last->next = d;
	else
		w->first = d;
	w->last = d;
	w->waiting++;
	w->waiting_bytes += size;
	way_start_tick(WAY_TICK_NS);
	return (long)size;
}

/* To the place; msg has no name. An error that an earlier datagram left behind is not this one's. */
static long way_put(const struct udp_way *w, int fd, const struct msghdr *msg, uint16_t real_port, int flags)
{
	struct sockaddr_in6 at;
	struct msghdr named = *msg;
	long n;

	named.msg_name = &at;
	named.msg_namelen =
		udp_address(w->own->domain, real_port == w->real_port ? w->real_ip : core.real_ip, real_port, &at);
	n = ms_sendmsg(fd, &named, flags | MSG_DONTWAIT);
	return n;
}

long udp_way_send(struct udp_way *w, int fd, const struct msghdr *msg, int flags)
{
	long size = 0;

	udp_way_check(w, ms_clock_ns(CLOCK_MONOTONIC));
	if (udp_way_open(w) && !w->first)
		return way_put(w, fd, msg, w->real_port, flags);
	if (!w->nobody)
		return udp_way_wait(w, msg->msg_iov, msg->msg_iovlen);
	for (size_t i = 0; i < msg->msg_iovlen; i++)
		size += (long)msg->msg_iov[i].iov_len;
	return size > UDP_DATAGRAM ? -EMSGSIZE : size; /* nobody is there to take it, and nobody to say so */
}

/* One more may go in this millisecond, however often it is asked; else the next one is waited for. */
static bool way_may_go(struct udp_way *w)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);

	if (now - w->burst_ns >= WAY_RETRY_NS) {
		w->burst_ns = now;
		w->burst_left = WAY_BURST + w->waiting / WAY_BURST_PART;
	}
	if (w->burst_left) {
		w->burst_left--;
		return true;
	}
	way_start_tick(WAY_RETRY_NS);
	return false;
}

/* What waits goes; at the wall, so that the kernel says what becomes of it. */
static void way_flush(struct udp_way *w, uint16_t real_port)
{
	int fd = w->first ? udp_borrow(w->own) : -1;
	bool again = false;

	while (w->first && fd >= 0 && (real_port != w->real_port || way_may_go(w))) {
		struct iovec iov = { w->first->bytes, w->first->size };
		const struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
		long n = way_put(w, fd, &msg, real_port, MSG_NOSIGNAL);

		if (n == -EAGAIN) {
			way_start_tick(WAY_RETRY_NS);
			break;
		}
		if (n == -ECONNREFUSED && !again && real_port == w->real_port) {
			again = true; /* of an earlier datagram: this one was not sent */
			continue;
		}
		again = false;
		way_drop_first(w);
	}
	if (fd >= 0)
		ms_close(fd);
	while (w->first && fd < 0) /* it is closed */
		way_drop_first(w);
}

static void way_flush_nobody(struct udp_way *w)
{
	uint16_t wall = way_is_peer(w) ? udp_pen_wall() : 0;

	if (wall)
		way_flush(w, wall);
	while (w->first)
		way_drop_first(w);
}

void udp_way_flush(struct udp_way *w)
{
	if (udp_way_open(w))
		way_flush(w, w->real_port);
	else if (w->nobody && !udp_move_holding())
		way_flush_nobody(w);
}

void udp_way_changed(struct udp_way *w)
{
	if (!core.on)
		return; /* a forked child: the sockets are the member's */
	ms_log(LOG_DEBUG, "UDP %u to %a:%u: %s%s%s%s, at %a:%u, %u wait", w->own->port, w->ip, w->port,
	       udp_way_open(w) ? "open"
	       : w->nobody     ? "nobody"
			       : "shut",
	       udp_way_held(w) ? ", held" : "", w->deaf ? ", deaf" : "", w->noted == w->own->serial ? ", noted" : "",
	       w->real_ip, w->real_port, w->waiting);
	if (way_is_peer(w)) {
		udp_pen_aim(w->own); /* before the other side can answer */
		udp_pen_empty();
	}
	udp_way_flush(w);
	if (way_wants(w))
		way_start_tick(WAY_TICK_NS);
	__atomic_add_fetch(&udp_way_changes, 1, __ATOMIC_RELEASE);
	ms_futex(&udp_way_changes, FUTEX_WAKE, INT_MAX, NULL);
}

void udp_way_heard(struct udp *u, uint32_t ip, uint16_t port, uint32_t real_ip, uint16_t real_port)
{
	struct udp_way *w = udp_way_find(u, ip, port);

	/* What was sent to an earlier place of ours comes from a stand-in, or from a place that its sender has left. */
	if (!w || w->noted == u->serial || w->real_port != real_port || w->real_ip != real_ip || way_is_local(w))
		return;
	w->noted = u->serial;
	w->deaf = false;
	udp_way_changed(w);
}

/* Sockets of this process that are connected to the port. */
void udp_way_bound(struct udp *u)
{
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		if (!way_is_local(w) || w->port != u->port || !way_is_peer(w))
			continue;
		way_look_here(w);
		udp_way_changed(w);
	}
}

static void way_end(struct udp_way *w, uint64_t now)
{
	bool tell = w->owned && !way_is_local(w) && udp_way_recent(w, now);
	uint32_t member = w->member, ip = w->ip;
	uint16_t port = w->own->port, to_port = w->port;
	uint64_t gone = w->own->serial;

	way_free(w);
	if (tell && core.on && !udp_pick(port, ip, to_port))
		udp_say_nobody(member, port, to_port, 0, gone);
}

void udp_way_end(struct udp *u)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);

	for (unsigned i = 0; i < WAY_BUCKETS; i++) {
		for (struct udp_way *w = buckets[i], *next; w; w = next) {
			next = w->next;
			if (w->own == u)
				way_end(w, now);
		}
	}
}

void udp_way_member_ended(uint32_t member)
{
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		if (!w->owned || w->member != member || way_is_local(w))
			continue;
		w->owned = w->watched = false;
		w->hold_m = w->over_m = 0;
		w->nobody = true;
		w->real_port = 0;
		udp_way_changed(w);
	}
}

unsigned udp_way_unsent(const struct udp *u)
{
	uint64_t now = ms_clock_ns(CLOCK_MONOTONIC);
	unsigned unsent = 0;

	udp_pen_empty();
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w))
		if ((!u || w->own == u) && w->first && now - w->first->since_ns < WAY_LEAVE_NS)
			unsent += w->waiting;
	return unsent;
}
