/* SPDX-License-Identifier: MIT */
/* What UDP sockets tell each other: encoded here, and what comes is acted on. */
#include "lib/udp_say.h"

#include "lib/control.h"
#include "lib/core.h"
#include "lib/log.h"
#include "lib/sys.h"
#include "lib/udp_move.h"
#include "lib/udp_names.h"
#include "lib/udp_pen.h"
#include "lib/udp_way.h"
#include "proto/codec.h"

#include <arpa/inet.h>

enum { SAY_MAX = 64 };

enum { AT_TELL = 1, AT_DEAF = 2 }; /* answer with NOTED; I am connected, and hear you only after that */

/* Where a socket is. */
struct say_place {
	uint32_t ip, real_ip;
	uint16_t port, real_port;
	uint64_t serial, over_m;
};

static void say_begin(struct ms_codec *c, uint8_t buf[SAY_MAX], uint8_t type)
{
	ms_codec_init(c, buf, SAY_MAX);
	ms_put_u8(c, MS_WIRE_VERSION);
	ms_put_u8(c, type);
}

static void say_end(const struct ms_codec *c, const uint8_t *buf, uint32_t to)
{
	control_relay(to, buf, (size_t)(c->at - buf));
}

static void say_put_place(struct ms_codec *c, uint16_t port, uint16_t real_port, uint64_t serial)
{
	ms_put_u32(c, core.virtual_ip);
	ms_put_u16(c, port);
	ms_put_u32(c, core.real_ip);
	ms_put_u16(c, real_port);
	ms_put_u64(c, serial);
	ms_put_u64(c, udp_move_over());
}

static void say_get_place(struct ms_codec *c, struct say_place *p)
{
	p->ip = ms_get_u32(c);
	p->port = ms_get_u16(c);
	p->real_ip = ms_get_u32(c);
	p->real_port = ms_get_u16(c);
	p->serial = ms_get_u64(c);
	p->over_m = ms_get_u64(c);
}

static bool say_connected(const struct udp_way *w)
{
	const struct udp *u = w->own;

	return u->connected && ntohl(u->peer.sin_addr.s_addr) == w->ip && ntohs(u->peer.sin_port) == w->port;
}

/* Connected to the other side, but not to where that is now, and nothing is caught. */
static bool say_deaf(const struct udp_way *w)
{
	const struct udp *u = w->own;

	return u->connected && u->catch_fd < 0 &&
	       (u->aim != UDP_AT_PEER || u->aim_ip != w->real_ip || u->aim_port != w->real_port);
}

void udp_say_where(const struct udp_way *w)
{
	uint8_t buf[SAY_MAX];
	struct ms_codec c;

	say_begin(&c, buf, MS_RL_UDP_WHERE);
	ms_put_u16(&c, w->port);
	ms_put_u8(&c, say_connected(w));
	/* The place at which it is heard; 0 if it is not heard at the one that is known. */
	ms_put_u64(&c, w->real_port && !say_deaf(w) ? w->serial : 0);
	say_put_place(&c, w->own->port, w->own->real_port, w->own->serial);
	say_end(&c, buf, w->member);
}

void udp_say_at(const struct udp_way *w)
{
	uint8_t buf[SAY_MAX];
	struct ms_codec c;

	say_begin(&c, buf, MS_RL_UDP_AT);
	ms_put_u16(&c, w->port);
	ms_put_u64(&c, w->serial);
	ms_put_u8(&c, (w->noted != w->own->serial ? AT_TELL : 0) | (say_deaf(w) ? AT_DEAF : 0));
	say_put_place(&c, w->own->port, w->own->real_port, w->own->serial);
	say_end(&c, buf, w->member);
}

void udp_say_nobody(uint32_t member, uint16_t port, uint16_t to_port, uint64_t asker, uint64_t gone)
{
	uint8_t buf[SAY_MAX];
	struct ms_codec c;

	say_begin(&c, buf, MS_RL_UDP_AT);
	ms_put_u16(&c, to_port);
	ms_put_u64(&c, asker);
	ms_put_u8(&c, 0);
	say_put_place(&c, port, 0, gone);
	say_end(&c, buf, member);
}

void udp_say_noted(const struct udp_way *w)
{
	uint8_t buf[SAY_MAX];
	struct ms_codec c;

	say_begin(&c, buf, MS_RL_UDP_NOTED);
	ms_put_u16(&c, w->port);
	ms_put_u64(&c, w->serial);
	ms_put_u32(&c, core.virtual_ip);
	ms_put_u16(&c, w->own->port);
	ms_put_u64(&c, w->own->serial);
	say_end(&c, buf, w->member);
}

void udp_say_number(uint32_t member, uint8_t type, uint64_t m)
{
	uint8_t buf[SAY_MAX];
	struct ms_codec c;

	say_begin(&c, buf, type);
	ms_put_u64(&c, m);
	say_end(&c, buf, member);
}

void udp_say_go(uint32_t member, uint64_t serial, uint64_t m)
{
	uint8_t buf[SAY_MAX];
	struct ms_codec c;

	say_begin(&c, buf, MS_RL_UDP_GO);
	ms_put_u64(&c, serial);
	ms_put_u64(&c, m);
	say_end(&c, buf, member);
}

/* Every way to the socket leads there from now on. */
static void say_learn(uint32_t from, const struct say_place *p)
{
	udp_names_put(p->real_ip, p->real_port, p->ip, p->port, ms_clock_ns(CLOCK_MONOTONIC));
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		if (w->ip != p->ip || w->port != p->port || p->serial < w->serial)
			continue;
		w->member = from;
		w->owned = true;
		w->nobody = false;
		w->over_m = p->over_m > w->over_m ? p->over_m : w->over_m;
		w->real_ip = p->real_ip;
		w->real_port = p->real_port;
		w->serial = p->serial;
	}
}

static void say_on_where(uint32_t from, struct ms_codec *c)
{
	uint16_t port = ms_get_u16(c);
	bool watched = ms_get_u8(c);
	uint64_t heard = ms_get_u64(c);
	struct say_place p;
	struct udp_way *w;
	struct udp *u;

	say_get_place(c, &p);
	if (c->bad || !p.real_port)
		return;
	say_learn(from, &p);
	u = udp_of_port(port, p.ip, p.port);
	w = u ? udp_way_get(u, p.ip, p.port) : NULL;
	if (!w) {
		udp_say_nobody(from, port, p.port, p.serial, 0);
		return;
	}
	say_learn(from, &p); /* the way may be a new one */
	w->watched = watched;
	w->heard_ns = ms_clock_ns(CLOCK_MONOTONIC);
	if (heard == u->serial) {
		w->noted = heard;
		w->deaf = false;
	} else if (watched) {
		w->noted = 0;
	}
	if (udp_move_holding())
		return; /* it hears of the new place soon, or asks again */
	udp_way_changed(w);
	udp_say_at(w);
}

/* What is said of another question, or of a place that is not the one we know, comes late. */
static void say_on_nobody(const struct say_place *p, uint16_t to_port, uint64_t asker)
{
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		if (w->own->port != to_port || w->ip != p->ip || w->port != p->port)
			continue;
		if (asker ? asker != w->own->serial : p->serial != w->serial)
			continue;
		w->nobody = true;
		w->real_port = 0;
		w->noted = 0;
		udp_way_changed(w);
	}
}

static void say_on_at(uint32_t from, struct ms_codec *c)
{
	uint16_t to_port = ms_get_u16(c);
	uint64_t noted = ms_get_u64(c);
	uint8_t flags = ms_get_u8(c);
	struct say_place p;

	say_get_place(c, &p);
	if (c->bad)
		return;
	if (!p.real_port) {
		say_on_nobody(&p, to_port, noted);
		return;
	}
	say_learn(from, &p);
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		if (w->own->port != to_port || w->ip != p.ip || w->port != p.port || w->serial != p.serial)
			continue;
		if (noted == w->own->serial) { /* else it answers an earlier socket of ours */
			w->noted = noted;
			w->deaf = flags & AT_DEAF;
		}
		udp_way_changed(w);
		if (flags & AT_TELL)
			udp_say_noted(w);
	}
}

static void say_on_noted(struct ms_codec *c)
{
	uint16_t port = ms_get_u16(c);
	uint64_t noted = ms_get_u64(c);
	uint32_t ip = ms_get_u32(c);
	uint16_t from_port = ms_get_u16(c);
	uint64_t from_serial = ms_get_u64(c);

	if (c->bad)
		return;
	for (struct udp_way *w = udp_way_next(NULL); w; w = udp_way_next(w)) {
		bool was_deaf;

		if (w->own->port != port || w->ip != ip || w->port != from_port || w->own->serial != noted)
			continue;
		if (w->serial != from_serial)
			continue; /* of another socket than the one that we believe to be there */
		was_deaf = say_deaf(w);
		w->noted = noted;
		w->deaf = false;
		udp_way_changed(w);
		if (was_deaf && !say_deaf(w))
			udp_say_at(w); /* it hears now */
	}
}

static void say_on_go(uint32_t from, struct ms_codec *c)
{
	uint64_t serial = ms_get_u64(c), m = ms_get_u64(c);

	if (!c->bad)
		udp_move_go(from, serial, m);
}

bool udp_way_message(uint32_t from, const void *bytes, size_t size)
{
	struct ms_codec c;
	uint8_t version, type;
	uint64_t m;

	ms_codec_init(&c, (void *)bytes, size);
	version = ms_get_u8(&c);
	type = ms_get_u8(&c);
	if (c.bad || version != MS_WIRE_VERSION || type < MS_RL_UDP_WHERE || type > MS_RL_UDP_GO)
		return false;
	switch (type) {
	case MS_RL_UDP_WHERE:
		say_on_where(from, &c);
		break;
	case MS_RL_UDP_AT:
		say_on_at(from, &c);
		break;
	case MS_RL_UDP_NOTED:
		say_on_noted(&c);
		break;
	case MS_RL_UDP_GO:
		say_on_go(from, &c);
		break;
	default:
		m = ms_get_u64(&c);
		if (!c.bad && type == MS_RL_UDP_HOLD)
			udp_move_hold(from, m);
		else if (!c.bad)
			udp_move_held(from, m);
	}
	return true;
}
