/* SPDX-License-Identifier: MIT */
#include "msdaemon/control.h"

#include <stdlib.h>
#include <string.h>

#include "msdaemon/arrival.h"
#include "msdaemon/departure.h"
#include "msdaemon/kin.h"
#include "msdaemon/names.h"
#include "msdaemon/relay.h"
#include "proto/log.h"

void control_welcome(struct member *m)
{
	uint8_t buf[1024];
	struct ms_codec c;

	packets_begin(&c, buf, sizeof(buf), MS_D_WELCOME);
	ms_put_u32(&c, m->id);
	ms_put_str(&c, m->d->job);
	ms_put_str(&c, m->d->host);
	ms_put_u32(&c, m->d->ip);
	ms_put_u32(&c, kin_address(m));
	ms_put_u64(&c, m->m);
	ms_put_u16(&c, m->d->port_low);
	ms_put_u16(&c, m->d->port_high);
	names_put_subnets(m->d, &c);
	ms_put_str(&c, m->d->card);
	packets_put(m->control, &c, buf, NULL, 0);
}

static void hello(struct member *m, struct ms_codec *in)
{
	Ms__Joined joined = MS__JOINED__INIT;

	m->own_pid = (pid_t)ms_get_u32(in);
	control_welcome(m);
	if (m->state != MEMBER_RUNNING)
		return;
	member_set_state(m, MEMBER_JOINED, "msock_init");
	joined.member = m->id;
	link_send(m->d->coordinator, LINK_MSG(JOINED, joined, &joined));
}

static void serving(struct member *m, struct ms_codec *in)
{
	m->data_port = ms_get_u16(in);
	ms_get_bytes(in, m->cookie, sizeof(m->cookie));
	if (!in->bad)
		names_serving(m);
}

void control_serving_ok(struct member *m)
{
	uint8_t buf[16];
	struct ms_codec c;

	packets_begin(&c, buf, sizeof(buf), MS_D_SERVING_OK);
	packets_put(m->control, &c, buf, NULL, 0);
}

static void lookup(struct member *m, struct ms_codec *in)
{
	uint32_t request = ms_get_u32(in), virtual_ip = ms_get_u32(in);
	uint64_t newer = ms_get_u64(in);

	if (!in->bad)
		names_lookup(m, request, virtual_ip, newer);
}

static void lookup_abroad(struct member *m, struct ms_codec *in)
{
	Ms__LookupAbroad l = MS__LOOKUP_ABROAD__INIT;
	char card[MS_CARD_MAX];

	l.request = (uint64_t)m->id << 32 | ms_get_u32(in);
	l.member = m->id;
	l.virtual_ip = ms_get_u32(in);
	ms_get_str(in, card, sizeof(card));
	l.card = card;
	if (!in->bad)
		link_send(m->d->coordinator, LINK_MSG(LOOKUP_ABROAD, lookup_abroad, &l));
}

void control_place(struct member *m, const Ms__Found *f)
{
	uint8_t buf[80], cookie[MS_TOKEN] = { 0 };
	struct ms_codec c;

	if (f->entry && f->entry->cookie.len == sizeof(cookie))
		memcpy(cookie, f->entry->cookie.data, sizeof(cookie));
	packets_begin(&c, buf, sizeof(buf), MS_D_PLACE);
	ms_put_u32(&c, (uint32_t)f->request);
	ms_put_u8(&c, (uint8_t)f->status);
	ms_put_u32(&c, f->entry ? f->entry->member : 0);
	ms_put_u32(&c, f->entry ? f->entry->ip : 0);
	ms_put_u16(&c, f->entry ? (uint16_t)f->entry->port : 0);
	ms_put_u64(&c, f->entry ? f->entry->m : 0);
	ms_put_bytes(&c, cookie, sizeof(cookie));
	ms_put_u32(&c, f->called);
	packets_put(m->control, &c, buf, NULL, 0);
}

/* Streams with the same member are added up. */
static void add_peer(struct member *m, uint32_t id, uint64_t sent, uint64_t taken)
{
	struct member_peer *list;
	size_t i = 0;

	while (i < m->peer_count && m->peers[i].id != id)
		i++;
	if (i == m->peer_count) {
		list = realloc(m->peers, (m->peer_count + 1) * sizeof(*list));
		if (!list)
			return;
		m->peers = list;
		m->peers[m->peer_count++] = (struct member_peer){ .id = id };
	}
	m->peers[i].sent += sent;
	m->peers[i].taken += taken;
}

static void stats(struct member *m, struct ms_codec *in)
{
	m->streams = ms_get_u32(in);
	m->mirrors = ms_get_u32(in);
	ms_get_u64(in);
	ms_get_u64(in);
	free(m->peers);
	m->peers = NULL;
	m->peer_count = 0;
	for (uint32_t left = ms_get_u32(in); left > 0 && !in->bad; left--) {
		uint32_t id = ms_get_u32(in);
		uint64_t sent = ms_get_u64(in), taken = ms_get_u64(in);

		if (!in->bad)
			add_peer(m, id, sent, taken);
	}
}

/* Passed on as it came: the coordinator writes the record. */
static void step(struct member *m, struct ms_codec *in)
{
	uint64_t figures[MS_STEP_FIGURES];
	Ms__Step s = MS__STEP__INIT;

	s.member = m->id;
	s.m = ms_get_u64(in);
	s.step = ms_get_u8(in);
	s.host = m->d->host;
	s.mono_ns = ms_get_u64(in);
	s.wall_ns = ms_get_u64(in);
	for (int i = 0; i < MS_STEP_FIGURES; i++)
		figures[i] = ms_get_u64(in);
	s.n_figures = MS_STEP_FIGURES;
	s.figures = figures;
	if (!in->bad)
		link_send(m->d->coordinator, LINK_MSG(STEP, step, &s));
}

static void relay(struct member *m, struct ms_codec *in)
{
	uint32_t to = ms_get_u32(in);

	if (!in->bad)
		relay_send(m->d, to, m->id, in->at, (size_t)(in->end - in->at));
}

static void on_packet(void *user, struct ms_codec *in, unsigned type, int *fds, unsigned count)
{
	struct member *m = user;
	char text[24];

	log_say(LOG_DATA, "rank %s says %u", daemon_member_text(m->id, text), type);
	switch (type) {
	case MS_M_HELLO:
		hello(m, in);
		break;
	case MS_M_SERVING:
		serving(m, in);
		break;
	case MS_M_LOOKUP:
		lookup(m, in);
		break;
	case MS_M_LOOKUP_ABROAD:
		lookup_abroad(m, in);
		break;
	case MS_M_RELAY:
		relay(m, in);
		break;
	case MS_M_STATS:
		stats(m, in);
		break;
	case MS_M_FROZEN:
	case MS_M_MIRROR:
	case MS_M_IMAGE_SENT:
	case MS_M_MOVE_FAILED:
	case MS_M_CHECKED:
		departure_packet(m, type, in, fds, count);
		break;
	case MS_R_READY:
	case MS_R_IMAGE_OK:
	case MS_R_FAILED:
	case MS_M_RESUMED:
	case MS_M_RELINKED:
		arrival_packet(m, type, in);
		break;
	case MS_M_CHILD:
	case MS_M_LET_GO:
	case MS_M_LAST:
	case MS_M_ASK:
	case MS_M_ANSWER:
		kin_packet(m, type, in, fds, count);
		break;
	case MS_M_STEP:
		step(m, in);
		break;
	default:
		log_say(LOG_WARN, "rank %s says something unknown: %u", daemon_member_text(m->id, text), type);
	}
	if (in->bad)
		log_say(LOG_WARN, "rank %s: message %u is too short", daemon_member_text(m->id, text), type);
}

/* It closed its socket: it has ended or will do without us; SIGCHLD tells how it ended, unless it is another's child. */
static void on_end(void *user)
{
	struct member *m = user;

	packets_destroy(m->control);
	m->control = NULL;
	if (!m->ours)
		member_lost(m);
}

const struct packets_ops control_ops = { .on_packet = on_packet, .on_end = on_end };

void control_relay(struct member *m, uint32_t from, const void *bytes, size_t size)
{
	uint8_t buf[MS_CTL_MAX];
	struct ms_codec c;

	packets_begin(&c, buf, sizeof(buf), MS_D_RELAY);
	ms_put_u32(&c, from);
	ms_put_bytes(&c, bytes, size);
	packets_put(m->control, &c, buf, NULL, 0);
}

void control_ended(struct member *m, uint32_t id, int status)
{
	uint8_t buf[16];
	struct ms_codec c;

	if (m->state == MEMBER_RUNNING)
		return;
	packets_begin(&c, buf, sizeof(buf), MS_D_ENDED);
	ms_put_u32(&c, id);
	ms_put_u32(&c, (uint32_t)status);
	packets_put(m->control, &c, buf, NULL, 0);
}

void control_outcome(struct member *m, uint64_t move, bool committed, const char *becomes)
{
	uint8_t buf[64 + sizeof(m->d->standin_path)];
	struct ms_codec c;

	packets_begin(&c, buf, sizeof(buf), MS_D_OUTCOME);
	ms_put_u64(&c, move);
	ms_put_u8(&c, committed);
	ms_put_str(&c, becomes);
	packets_put(m->control, &c, buf, NULL, 0);
}

void control_stats(struct member *m)
{
	uint8_t buf[8];
	struct ms_codec c;

	if (m->state != MEMBER_JOINED)
		return;
	packets_begin(&c, buf, sizeof(buf), MS_D_STATS);
	packets_put(m->control, &c, buf, NULL, 0);
}
