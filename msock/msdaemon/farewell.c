/* SPDX-License-Identifier: MIT */
#include "msdaemon/farewell.h"

#include <stdlib.h>
#include <string.h>

#include "proto/log.h"

struct farewell {
	LIST_ENTRY(farewell) entry;
	uint32_t member;
	int status, code;
	char *error;       /* owned; NULL: it ended by itself */
	struct pump *pump; /* owned; NULL: it never ran */
};

static struct farewell *find(const struct daemon *d, uint32_t member)
{
	struct farewell *f;

	LIST_FOREACH(f, &d->farewells, entry)
	if (f->member == member)
		return f;
	return NULL;
}

static void say(struct daemon *d, const struct farewell *f, Ms__Relay **last, size_t last_count)
{
	Ms__Exit e = MS__EXIT__INIT;

	e.last = last;
	e.n_last = last_count;
	e.member = f->member;
	e.status = f->status;
	e.code = f->code;
	if (f->error)
		e.error = f->error;
	link_send(d->coordinator, LINK_MSG(EXIT, exit, &e));
}

static struct farewell *farewell_create(struct daemon *d, uint32_t member)
{
	struct farewell *f = calloc(1, sizeof(*f));

	if (!f)
		log_die("out of memory");
	f->member = member;
	LIST_INSERT_HEAD(&d->farewells, f, entry);
	return f;
}

void farewell_say(struct daemon *d, uint32_t member, int status, struct pump *pump, Ms__Relay **last, size_t last_count)
{
	struct farewell *f = farewell_create(d, member);

	f->status = status;
	f->pump = pump;
	pump_finish(pump);
	say(d, f, last, last_count);
}

void farewell_error(struct daemon *d, uint32_t member, const char *error, int code)
{
	struct farewell *f = farewell_create(d, member);

	f->error = strdup(error);
	f->code = code;
	say(d, f, NULL, 0);
}

bool farewell_again(struct daemon *d, uint32_t member)
{
	struct farewell *f = find(d, member);

	if (!f)
		return false;
	if (f->pump)
		pump_again(f->pump);
	say(d, f, NULL, 0);
	return true;
}

void farewell_ack(struct daemon *d, const Ms__Ack *ack)
{
	struct farewell *f = find(d, ack->member);

	if (f && f->pump)
		pump_ack(f->pump, ack);
}

void farewell_forget(struct daemon *d, uint32_t member)
{
	struct farewell *f = find(d, member);

	if (!f)
		return;
	LIST_REMOVE(f, entry);
	pump_destroy(f->pump);
	free(f->error);
	free(f);
}

size_t farewell_count(const struct daemon *d)
{
	struct farewell *f;
	size_t n = 0;

	LIST_FOREACH(f, &d->farewells, entry)
	n++;
	return n;
}

void farewell_present(const struct daemon *d, Ms__Here *list)
{
	struct farewell *f;

	LIST_FOREACH(f, &d->farewells, entry)
	{
		ms__here__init(list);
		list->member = f->member;
		list->state = MS__HERE__STATE__ENDED;
		list->status = f->status;
		list++;
	}
}
