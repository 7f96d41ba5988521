/* SPDX-License-Identifier: MIT */
#include "lib/udp_way.h"

#include "lib/control.h"
#include "lib/core.h"
#include "lib/engine.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/place.h"
#include "lib/sys.h"
#include "proto/codec.h"

#include <arpa/inet.h>
#include <errno.h>

enum { WAY_BUCKETS = 64, WAY_MESSAGE = 64 };

struct way_datagram { /* waits for the way */
	struct way_datagram *next;
	struct udp *from; /* borrowed */
	size_t size;
	uint8_t bytes[];
};

struct way {
	struct way *next;
	uint32_t ip; /* virtual */
	uint16_t port;
	uint32_t member;
	uint8_t cookie[MS_TOKEN];
	bool owned;            /* member and cookie are known */
	uint32_t real_ip;      /* 0: not known */
	uint16_t real_port;
	uint64_t m;            /* of the owner, when it said so */
	uint64_t asked_ns;     /* last time */
	uint64_t told_ns;
	uint32_t request;      /* to the address server; 0: none is open */
	struct way_datagram *first, *last; /* owned */
	unsigned waiting;
};

static struct way *buckets[WAY_BUCKETS];

static struct way *way_find(uint32_t ip, uint16_t port)
{
	struct way *w = buckets[(ip ^ port) % WAY_BUCKETS];

	while (w && (w->ip != ip || w->port != port))
		w = w->next;
	return w;
}

static struct way *way_get(uint32_t ip, uint16_t port)
{
	struct way **head = &buckets[(ip ^ port) % WAY_BUCKETS], *w = way_find(ip, port);

	if (w)
		return w;
	w = mem_alloc(sizeof(*w));
	if (!w)
		return NULL;
	w->ip = ip;
	w->port = port;
	w->next = *head;
	*head = w;
	return w;
}

static void way_drop_first(struct way *w)
{
	struct way_datagram *d = w->first;

	w->first = d->next;
	if (!w->first)
		w->last = NULL;
	w->waiting--;
	mem_free(d, sizeof(*d) + d->size);
}

static void way_drop_all(struct way *w)
{
	while (w->first)
		way_drop_first(w);
}

static void way_head(const struct way *w, const struct udp *u, uint8_t head[UDP_HEAD])
{
	struct ms_codec c;

	ms_codec_init(&c, head, UDP_HEAD);
	ms_put_u32(&c, MS_UDP_MAGIC);
	ms_put_u8(&c, MS_WIRE_VERSION);
	ms_put_u8(&c, 0);
	ms_put_u32(&c, core.id);
	ms_put_u32(&c, core.virtual_ip);
	ms_put_u16(&c, u->port);
	ms_put_u32(&c, w->ip);
	ms_put_u16(&c, w->port);
	ms_put_bytes(&c, w->cookie, MS_TOKEN);
}

static long way_put(const struct way *w, struct udp *u, const struct iovec *iov, int count)
{
	uint8_t head[UDP_HEAD];

	way_head(w, u, head);
	return udp_put(u, w->real_ip, w->real_port, head, iov, count);
}

static void way_flush(struct way *w)
{
	while (w->first) {
		struct iovec v = { w->first->bytes, w->first->size };

		way_put(w, w->first->from, &v, 1);
		way_drop_first(w);
	}
}

/* The owner itself, if it is known, else who that is. */
static void way_ask(struct way *w)
{
	uint8_t buf[WAY_MESSAGE];
	struct ms_codec c;

	w->asked_ns = ms_clock_ns(CLOCK_MONOTONIC);
	if (!w->owned) {
		if (!w->request)
			w->request = control_request();
		control_lookup(w->request, w->ip, 0);
		return;
	}
	ms_codec_init(&c, buf, sizeof(buf));
	ms_put_u8(&c, MS_WIRE_VERSION);
	ms_put_u8(&c, MS_RL_UDP_WHERE);
	ms_put_u16(&c, w->port);
	control_relay(w->member, buf, (size_t)(c.at - buf));
}

static long way_wait(struct way *w, struct udp *u, const struct iovec *iov, int count)
{
	struct way_datagram *d;
	size_t size = 0, at = 0;

	for (int i = 0; i < count; i++)
		size += iov[i].iov_len;
	if (size > UDP_DATAGRAM - UDP_HEAD)
		return -EMSGSIZE;
	if (w->waiting == UDP_WAITING)
		way_drop_first(w);
	d = mem_alloc(sizeof(*d) + size);
	if (!d)
		return -ENOBUFS;
	for (int i = 0; i < count; i++) {
		__builtin_memcpy(d->bytes + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	d->from = u;
	d->size = size;
	if (w->last)
		w->last->next = d;
	else
		w->first = d;
	w->last = d;
	w->waiting++;
	return (long)size;
}

/* To a socket of this process, or of one that is alone: the way is known. */
static bool way_at_hand(struct way *w)
{
	struct udp *own;

	if (core.member && w->ip != core.virtual_ip)
		return false;
	own = core.member ? udp_of_port(w->port) : NULL;
	w->real_ip = core.member ? core.real_ip : w->ip;
	w->real_port = !core.member ? w->port : own ? own->real_port : 0;
	__builtin_memcpy(w->cookie, core.cookie, MS_TOKEN);
	return true;
}

long udp_way_send(struct udp *u, const struct sockaddr_in *to, const struct iovec *iov, int count)
{
	struct way *w = way_get(ntohl(to->sin_addr.s_addr), ntohs(to->sin_port));
	uint64_t now;
	long n = 0;

	if (!w)
		return -ENOBUFS;
	if (way_at_hand(w)) {
		if (w->real_port)
			return way_put(w, u, iov, count);
		udp_refused(w->ip, w->port);
		for (int i = 0; i < count; i++)
			n += (long)iov[i].iov_len;
		return n;
	}
	now = ms_clock_ns(CLOCK_MONOTONIC);
	if (now - w->asked_ns > UDP_CHECK_MS * 1000000ull && now - w->told_ns > UDP_CHECK_MS * 1000000ull)
		way_ask(w);
	if (w->real_ip)
		return way_put(w, u, iov, count);
	return way_wait(w, u, iov, count);
}

bool udp_way_placed(uint32_t request, const struct place *p)
{
	struct way *w = NULL;

	for (unsigned i = 0; i < WAY_BUCKETS && !w; i++)
		for (w = buckets[i]; w && (w->request != request || !request); w = w->next)
			;
	if (!w)
		return false;
	w->request = 0;
	if (p->status != MS_PLACE_OK) {
		way_drop_all(w);
		udp_refused(w->ip, w->port);
		return true;
	}
	w->member = p->member;
	w->owned = true;
	__builtin_memcpy(w->cookie, p->cookie, MS_TOKEN);
	way_ask(w);
	return true;
}

void udp_way_tell(uint32_t member, const struct udp *u)
{
	uint8_t buf[WAY_MESSAGE];
	struct ms_codec c;

	ms_codec_init(&c, buf, sizeof(buf));
	ms_put_u8(&c, MS_WIRE_VERSION);
	ms_put_u8(&c, MS_RL_UDP_AT);
	ms_put_u32(&c, core.virtual_ip);
	ms_put_u16(&c, u->port);
	ms_put_u32(&c, core.real_ip);
	ms_put_u16(&c, u->real_port);
	ms_put_u64(&c, core.self.m);
	control_relay(member, buf, (size_t)(c.at - buf));
}

static void way_told(uint32_t from, struct ms_codec *c)
{
	uint32_t ip = ms_get_u32(c);
	uint16_t port = ms_get_u16(c);
	uint32_t real_ip = ms_get_u32(c);
	uint16_t real_port = ms_get_u16(c);
	uint64_t m = ms_get_u64(c);
	struct way *w = c->bad ? NULL : way_find(ip, port);

	/* Who does not use the way does not need it; only the owner speaks for it; what it said before it moved may come late. */
	if (!w || !w->owned || w->member != from || m < w->m)
		return;
	w->m = m;
	w->told_ns = ms_clock_ns(CLOCK_MONOTONIC);
	w->real_ip = real_port ? real_ip : 0;
	w->real_port = real_port;
	if (real_port) {
		way_flush(w);
	} else {
		way_drop_all(w);
		udp_refused(ip, port);
	}
}

bool udp_way_message(uint32_t from, const void *bytes, size_t size)
{
	struct ms_codec c;
	uint8_t version, type;

	ms_codec_init(&c, (void *)bytes, size);
	version = ms_get_u8(&c);
	type = ms_get_u8(&c);
	if (c.bad || version != MS_WIRE_VERSION || (type != MS_RL_UDP_WHERE && type != MS_RL_UDP_AT))
		return false;
	if (type == MS_RL_UDP_AT) {
		way_told(from, &c);
	} else {
		uint16_t port = ms_get_u16(&c);
		const struct udp *u = udp_of_port(port), none = { .port = port };

		if (!c.bad)
			udp_way_tell(from, u ? u : &none);
	}
	return true;
}

void udp_way_forget(const struct udp *u)
{
	for (unsigned i = 0; i < WAY_BUCKETS; i++) {
		for (struct way *w = buckets[i]; w; w = w->next) {
			struct way_datagram **at = &w->first;

			w->last = NULL;
			while (*at) {
				struct way_datagram *d = *at;

				if (d->from != u) {
					w->last = d;
					at = &d->next;
					continue;
				}
				*at = d->next;
				w->waiting--;
				mem_free(d, sizeof(*d) + d->size);
			}
		}
	}
}
