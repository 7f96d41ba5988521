/* SPDX-License-Identifier: MIT */
#include "msdaemon/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/channel.h"
#include "proto/log.h"

enum { PUMP_TAIL = 512 << 10 }; /* more than a pipe or socket pair holds */

struct pump_channel {
	struct pump *pump; /* borrowed */
	unsigned number;
	int own, end; /* our end, non-blocking; the member's end, flags untouched; -1: none */
	struct channel_in in;
	struct channel_out out;
	struct evbuffer *tail; /* what was last written to the member */
	struct event *readable, *writable;
	bool shut; /* end of file was passed on */
};

struct pump {
	struct event_base *base; /* borrowed */
	struct link *const
		*coordinator; /* borrowed; NULL there: it is gone, pump_again makes up for what was not sent */
	uint32_t member;
	unsigned have;
	bool running;
	struct pump_channel channel[MS_CHANNELS];
};

static bool carries_in(const struct pump_channel *c)
{
	return c->number == 0 || c->number == 3;
}
static bool carries_out(const struct pump_channel *c)
{
	return c->number != 0;
}

static size_t unread(const struct pump_channel *c)
{
	int n = 0;

	return ioctl(c->end, FIONREAD, &n) || n < 0 ? 0 : (size_t)n;
}

/* Write what there is for the member; true if something went. */
static bool write_in(struct pump_channel *c)
{
	bool any = false;

	while (evbuffer_get_length(c->in.bytes) > 0) {
		size_t n = evbuffer_get_contiguous_space(c->in.bytes);
		uint8_t *p = evbuffer_pullup(c->in.bytes, (ssize_t)n);
		ssize_t done = write(c->own, p, n);

		if (done < 0)
			break;
		evbuffer_add(c->tail, p, (size_t)done);
		if (evbuffer_get_length(c->tail) > PUMP_TAIL)
			evbuffer_drain(c->tail, evbuffer_get_length(c->tail) - PUMP_TAIL);
		evbuffer_drain(c->in.bytes, (size_t)done);
		any = true;
	}
	if (c->in.eof && !c->shut && evbuffer_get_length(c->in.bytes) == 0) {
		c->shut = true;
		if (c->number == 3)
			shutdown(c->own, SHUT_WR);
		else
			close(c->own), c->own = -1;
	}
	return any;
}

static void writable_cb(evutil_socket_t fd, short what, void *arg)
{
	struct pump_channel *c = arg;

	if (write_in(c))
		channel_in_ack(&c->in, *c->pump->coordinator, c->pump->member, c->number);
	if (evbuffer_get_length(c->in.bytes) > 0)
		event_add(c->writable, NULL);
}

static void feed(struct pump_channel *c)
{
	if (!c->pump->running || !c->writable)
		return;
	event_del(c->writable);
	writable_cb(-1, 0, c);
}

/* Read what the member wrote, at most `room`; false at the end or when nothing is there. */
static bool read_out(struct pump_channel *c, size_t room)
{
	uint8_t buf[CHANNEL_CHUNK];
	ssize_t n = room ? read(c->own, buf, room < sizeof(buf) ? room : sizeof(buf)) : -1;

	if (n <= 0)
		return false;
	evbuffer_add(c->out.bytes, buf, (size_t)n);
	return true;
}

static void readable_cb(evutil_socket_t fd, short what, void *arg)
{
	struct pump_channel *c = arg;

	read_out(c, channel_out_room(&c->out));
	channel_out_send(&c->out, *c->pump->coordinator, c->pump->member, c->number);
	if (c->readable && channel_out_room(&c->out) > 0)
		event_add(c->readable, NULL);
}

static void close_own(struct pump_channel *c)
{
	if (c->readable)
		event_free(c->readable);
	c->readable = NULL;
	if (c->own >= 0)
		close(c->own);
	c->own = -1;
}

static int channel_open(struct pump_channel *c)
{
	int pair[2];

	if (c->number == 3 ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) : pipe2(pair, O_CLOEXEC))
		return -1;
	c->own = c->number == 0 ? pair[1] : pair[0];
	c->end = c->number == 0 ? pair[0] : pair[1];
	fcntl(c->own, F_SETFL, fcntl(c->own, F_GETFL) | O_NONBLOCK);
	c->tail = evbuffer_new();
	if (carries_in(c))
		c->writable = event_new(c->pump->base, c->own, EV_WRITE, writable_cb, c);
	if (carries_out(c))
		c->readable = event_new(c->pump->base, c->own, EV_READ, readable_cb, c);
	return 0;
}

struct pump *pump_create(struct event_base *base, struct link *const *coordinator, uint32_t member, unsigned have)
{
	struct pump *p = calloc(1, sizeof(*p));

	if (!p)
		log_die("out of memory");
	p->base = base;
	p->coordinator = coordinator;
	p->member = member;
	p->have = have;
	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		struct pump_channel *c = &p->channel[i];

		c->pump = p;
		c->number = i;
		c->own = c->end = -1;
		channel_in_init(&c->in);
		channel_out_init(&c->out);
	}
	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		if (have >> i & 1 && channel_open(&p->channel[i])) {
			int keep = errno;

			pump_destroy(p);
			errno = keep;
			return NULL;
		}
	}
	return p;
}

void pump_destroy(struct pump *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		struct pump_channel *c = &p->channel[i];

		close_own(c);
		if (c->writable)
			event_free(c->writable);
		if (c->end >= 0)
			close(c->end);
		if (c->tail)
			evbuffer_free(c->tail);
		channel_in_clear(&c->in);
		channel_out_clear(&c->out);
	}
	free(p);
}

unsigned pump_have(const struct pump *p)
{
	return p->have;
}

bool pump_input_ended(const struct pump *p)
{
	return p->channel[0].end < 0 || p->channel[0].in.eof;
}

int pump_end(const struct pump *p, unsigned channel)
{
	return p->channel[channel].end;
}

void pump_start(struct pump *p)
{
	p->running = true;
	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		struct pump_channel *c = &p->channel[i];

		if (c->end < 0)
			continue;
		if (carries_in(c)) {
			feed(c);
			channel_in_ack(&c->in, *p->coordinator, p->member, i);
		}
		if (carries_out(c)) {
			channel_out_rewind(&c->out);
			readable_cb(-1, 0, c);
		}
	}
}

void pump_data(struct pump *p, const Ms__Data *data)
{
	struct pump_channel *c;

	if (data->channel >= MS_CHANNELS || p->channel[data->channel].end < 0)
		return;
	c = &p->channel[data->channel];
	if (!carries_in(c))
		return;
	/* While the member is frozen bytes are taken and not acknowledged: after an abort they are passed on, after
	 * a commit the stub sends them to the new daemon. */
	if (channel_in_take(&c->in, data))
		feed(c);
	else if (p->running)
		channel_in_ack(&c->in, *p->coordinator, p->member, c->number);
}

void pump_ack(struct pump *p, const Ms__Ack *ack)
{
	struct pump_channel *c;

	if (ack->channel >= MS_CHANNELS || p->channel[ack->channel].end < 0)
		return;
	c = &p->channel[ack->channel];
	channel_out_ack(&c->out, ack->offset);
	if (ack->closed && !carries_in(c))
		close_own(c); /* nobody reads what the member writes: it is to get EPIPE, as it would without us */
	if (p->running && c->readable && channel_out_room(&c->out) > 0)
		event_add(c->readable, NULL);
}

void pump_stop(struct pump *p)
{
	p->running = false;
	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		struct pump_channel *c = &p->channel[i];

		if (c->readable)
			event_del(c->readable);
		if (c->writable)
			event_del(c->writable);
		while (c->own >= 0 && carries_out(c) && read_out(c, CHANNEL_CHUNK))
			;
	}
}

/* The last n bytes of the tail and all that waits, as one block that the caller frees. */
static uint8_t *collect_in(struct pump_channel *c, size_t *size, size_t *held)
{
	size_t tail = c->tail ? evbuffer_get_length(c->tail) : 0, wait = evbuffer_get_length(c->in.bytes);
	size_t n = unread(c);
	struct evbuffer_ptr at;
	uint8_t *block;

	if (n > tail)
		n = tail;
	block = malloc(n + wait + 1);
	if (!block)
		log_die("out of memory");
	if (n > 0) {
		evbuffer_ptr_set(c->tail, &at, tail - n, EVBUFFER_PTR_SET);
		evbuffer_copyout_from(c->tail, &at, block, n);
	}
	evbuffer_copyout(c->in.bytes, block + n, wait);
	*size = n + wait;
	*held = n;
	return block;
}

void pump_state_send(struct pump *p, uint64_t m, struct link *target)
{
	Ms__PumpState state = MS__PUMP_STATE__INIT;
	Ms__PumpChannel each[MS_CHANNELS], *list[MS_CHANNELS];
	uint8_t *blocks[2 * MS_CHANNELS];
	size_t used = 0;

	state.member = p->member;
	state.m = m;
	state.channels = list;
	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		struct pump_channel *c = &p->channel[i];
		Ms__PumpChannel *s = &each[state.n_channels];
		size_t size = 0, held = 0;

		if (c->end < 0)
			continue;
		ms__pump_channel__init(s);
		s->channel = i;
		if (carries_in(c)) {
			blocks[used] = collect_in(c, &size, &held);
			s->in_bytes = (ProtobufCBinaryData){ size, blocks[used++] };
			s->in_offset = c->in.next - size;
			s->in_eof = c->in.eof;
		}
		if (carries_out(c)) {
			size = evbuffer_get_length(c->out.bytes);
			blocks[used] = malloc(size + 1);
			if (!blocks[used])
				log_die("out of memory");
			evbuffer_copyout(c->out.bytes, blocks[used], size);
			s->out_bytes = (ProtobufCBinaryData){ size, blocks[used++] };
			s->out_offset = c->out.base;
		}
		list[state.n_channels++] = s;
	}
	link_send(target, LINK_MSG(PUMP_STATE, pump_state, &state));
	while (used > 0)
		free(blocks[--used]);
}

bool pump_state_put(struct pump *p, const Ms__PumpState *state)
{
	unsigned seen = 0;

	for (size_t i = 0; i < state->n_channels; i++) {
		const Ms__PumpChannel *s = state->channels[i];
		struct pump_channel *c = &p->channel[s->channel < MS_CHANNELS ? s->channel : 0];

		if (s->channel >= MS_CHANNELS || c->end < 0 || seen >> s->channel & 1)
			return false;
		seen |= 1u << s->channel;
		c->in.next = s->in_offset + s->in_bytes.len;
		c->in.eof = s->in_eof;
		evbuffer_add(c->in.bytes, s->in_bytes.data, s->in_bytes.len);
		c->out.base = c->out.sent = s->out_offset;
		evbuffer_add(c->out.bytes, s->out_bytes.data, s->out_bytes.len);
		if (carries_in(c))
			write_in(c);
	}
	return true;
}

void pump_finish(struct pump *p)
{
	if (!p)
		return;
	pump_stop(p);
	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		struct pump_channel *c = &p->channel[i];

		if (c->end >= 0 && carries_out(c))
			channel_out_send(&c->out, *p->coordinator, p->member, i);
	}
}

void pump_again(struct pump *p)
{
	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		struct pump_channel *c = &p->channel[i];

		if (c->end < 0)
			continue;
		if (carries_in(c) && p->running)
			channel_in_ack(&c->in, *p->coordinator, p->member, i);
		if (carries_out(c)) {
			channel_out_rewind(&c->out);
			channel_out_send(&c->out, *p->coordinator, p->member, i);
		}
	}
}
