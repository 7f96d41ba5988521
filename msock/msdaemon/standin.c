/* SPDX-License-Identifier: MIT */
#include "msdaemon/standin.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "msdaemon/kin.h"
#include "msdaemon/member.h"
#include "proto/channel.h"
#include "proto/log.h"

enum { STANDIN_FIRST = 1, STANDIN_OUTPUTS = 2 }; /* channels 1 and 2 */

struct output { /* one of the family's standard streams that the child writes to */
	struct standin *owner;
	unsigned channel;
	int to; /* the pipe, opened once more; -1: nobody reads it */
	struct channel_in in;
	struct event *writable; /* NULL: there never was a pipe */
};

struct standin {
	LIST_ENTRY(standin) entry;
	struct daemon *d; /* borrowed */
	uint32_t member;
	uint32_t root;           /* of its family; MS_NOBODY: that had ended */
	struct packets *control; /* owned */
	uint64_t signals;        /* that came without a coordinator; bit n-1 */
	bool input_ended;
	bool over; /* the child has ended, with: */
	int status;
	struct output output[STANDIN_OUTPUTS];
};

static struct standin *find(const struct daemon *d, uint32_t member)
{
	struct standin *s;

	LIST_FOREACH(s, &d->standins, entry)
	if (s->member == member)
		return s;
	return NULL;
}

static void say_signal(struct daemon *d, uint32_t member, int signo)
{
	Ms__Signal g = MS__SIGNAL__INIT;

	g.member = member;
	g.signo = signo;
	link_send(d->coordinator, LINK_MSG(SIGNAL, signal, &g));
}

static void say_gone(struct daemon *d, uint32_t member)
{
	Ms__Forget f = MS__FORGET__INIT;

	f.member = member;
	link_send(d->coordinator, LINK_MSG(FORGET, forget, &f));
}

static void say_input_ended(const struct standin *s)
{
	Ms__Data data = MS__DATA__INIT;

	data.member = s->member;
	data.eof = true;
	if (s->input_ended)
		link_send(s->d->coordinator, LINK_MSG(DATA, data, &data));
}

static void output_close(struct output *o)
{
	if (o->writable)
		event_free(o->writable);
	if (o->to >= 0)
		close(o->to);
	o->writable = NULL;
	o->to = -1;
}

static void standin_destroy(struct standin *s)
{
	LIST_REMOVE(s, entry);
	packets_destroy(s->control);
	for (unsigned i = 0; i < STANDIN_OUTPUTS; i++) {
		output_close(&s->output[i]);
		channel_in_clear(&s->output[i].in);
	}
	free(s);
}

/* Its parent may write to the same pipe as soon as it has waited for it: what the child wrote comes first. */
static void check_over(struct standin *s)
{
	uint8_t buf[16];
	struct ms_codec c;

	for (unsigned i = 0; i < STANDIN_OUTPUTS; i++)
		if (evbuffer_get_length(s->output[i].in.bytes) > 0)
			return;
	if (!s->over)
		return;
	packets_begin(&c, buf, sizeof(buf), MS_D_END);
	ms_put_u32(&c, (uint32_t)s->status);
	packets_put(s->control, &c, buf, NULL, 0);
}

static void output_write(struct output *o)
{
	struct evbuffer *bytes = o->in.bytes;

	while (o->to >= 0 && evbuffer_get_length(bytes) > 0) {
		size_t n = evbuffer_get_contiguous_space(bytes);
		ssize_t done = write(o->to, evbuffer_pullup(bytes, (ssize_t)n), n);

		if (done < 0 && errno == EAGAIN) {
			event_add(o->writable, NULL);
			return;
		}
		if (done < 0 && errno != EINTR) {
			output_close(o);
			if (member_find(o->owner->d, o->owner->root)) /* else its family has ended, not its reader */
				channel_in_close(&o->in);
		}
		evbuffer_drain(bytes, done > 0 ? (size_t)done : 0);
	}
	evbuffer_drain(bytes, evbuffer_get_length(bytes)); /* of what nobody reads */
}

static void output_feed(struct output *o)
{
	output_write(o);
	channel_in_ack(&o->in, o->owner->d->coordinator, o->owner->member, o->channel);
	check_over(o->owner);
}

static void writable_cb(evutil_socket_t fd, short what, void *arg)
{
	output_feed(arg);
}

/* A file of its own, so that it does not block us, whatever the family does with its own. */
static void output_open(struct output *o, int pipe)
{
	char path[64];

	channel_in_init(&o->in);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", pipe);
	o->to = pipe < 0 ? -1 : open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (pipe >= 0 && o->to < 0) /* its reader has gone */
		channel_in_close(&o->in);
	if (o->to >= 0)
		o->writable = event_new(o->owner->d->base, o->to, EV_WRITE, writable_cb, o);
}

static void on_packet(void *user, struct ms_codec *in, unsigned type, int *fds, unsigned count)
{
	struct standin *s = user;
	int signo = (int)ms_get_u32(in);

	if (type != MS_M_SIGNALLED || in->bad || signo < 1 || signo > 64)
		return; /* the child's own, from before */
	if (s->d->coordinator)
		say_signal(s->d, s->member, signo);
	else
		s->signals |= 1ull << (signo - 1);
}

static void on_end(void *user)
{
	struct standin *s = user;
	char text[24];

	log_say(LOG_DEBUG, "the stand-in of %s is gone", daemon_member_text(s->member, text));
	say_gone(s->d, s->member);
	standin_destroy(s);
}

static const struct packets_ops standin_ops = { .on_packet = on_packet, .on_end = on_end };

void standin_create(struct member *m)
{
	struct member *root = kin_root_of(m);
	struct standin *s;

	if (!m->control) { /* it was killed while its image was on the way */
		say_gone(m->d, m->id);
		return;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		log_die("out of memory");
	s->d = m->d;
	s->member = m->id;
	s->root = root ? root->id : MS_NOBODY;
	s->control = m->control;
	m->control = NULL;
	for (unsigned i = 0; i < STANDIN_OUTPUTS; i++) {
		s->output[i].owner = s;
		s->output[i].channel = STANDIN_FIRST + i;
		output_open(&s->output[i], root ? pump_end(root->pump, STANDIN_FIRST + i) : -1);
	}
	LIST_INSERT_HEAD(&s->d->standins, s, entry);
	packets_set_user(s->control, &standin_ops, s);
	s->input_ended = !root || pump_input_ended(root->pump);
	say_input_ended(s);
}

bool standin_data(struct daemon *d, const Ms__Data *data)
{
	struct standin *s = find(d, data->member);
	unsigned i = data->channel - STANDIN_FIRST;

	if (i >= STANDIN_OUTPUTS)
		return false;
	if (s && channel_in_take(&s->output[i].in, data))
		output_feed(&s->output[i]);
	return true;
}

void standin_exit(struct daemon *d, const Ms__Exit *e)
{
	struct standin *s = find(d, e->member);

	if (!s) { /* it went at the same time */
		say_gone(d, e->member);
		return;
	}
	s->over = true;
	s->status = *e->error ? e->code << 8 : e->status;
	check_over(s);
}

void standin_moved(struct daemon *d, const Ms__Moved *moved)
{
	struct standin *s = find(d, moved->member);

	if (!s)
		return;
	for (unsigned i = 0; i < STANDIN_OUTPUTS; i++)
		channel_in_ack(&s->output[i].in, d->coordinator, s->member, STANDIN_FIRST + i);
	say_input_ended(s);
}

void standin_input_ended(struct daemon *d, uint32_t root)
{
	struct standin *s;

	LIST_FOREACH(s, &d->standins, entry)
	{
		if (s->root != root || s->input_ended)
			continue;
		s->input_ended = true;
		say_input_ended(s);
	}
}

void standin_again(struct daemon *d)
{
	struct standin *s;

	LIST_FOREACH(s, &d->standins, entry)
	{
		for (int i = 1; i <= 64; i++)
			if (s->signals >> (i - 1) & 1)
				say_signal(d, s->member, i);
		s->signals = 0;
	}
}

size_t standin_count(const struct daemon *d)
{
	struct standin *s;
	size_t n = 0;

	LIST_FOREACH(s, &d->standins, entry)
	n++;
	return n;
}

void standin_present(const struct daemon *d, Ms__Here *list)
{
	struct standin *s;

	LIST_FOREACH(s, &d->standins, entry)
	{
		ms__here__init(list);
		list->member = s->member;
		list->state = MS__HERE__STATE__STAND_IN;
		list++;
	}
}
