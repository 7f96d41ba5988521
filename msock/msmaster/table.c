/* SPDX-License-Identifier: MIT */
#include "msmaster/table.h"

#include <stdlib.h>
#include <string.h>

#include "proto/log.h"

/* Open addressing with linear probing; a power of two, at most half full. */
struct table {
	struct entry *slots;
	size_t size, used;
};

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

struct table *table_create(void)
{
	struct table *t = calloc(1, sizeof(*t));

	if (!t)
		log_die("out of memory");
	t->size = 64;
	t->slots = calloc(t->size, sizeof(*t->slots));
	if (!t->slots)
		log_die("out of memory");
	return t;
}

void table_destroy(struct table *t)
{
	free(t->slots);
	free(t);
}

static struct entry *slot_of(struct table *t, uint32_t virtual_ip)
{
	size_t i = (virtual_ip * 2654435761u) & (t->size - 1);

	while (t->slots[i].virtual_ip && t->slots[i].virtual_ip != virtual_ip)
		i = (i + 1) & (t->size - 1);
	return &t->slots[i];
}

/* Lay all live entries into a fresh array. */
static void rebuild(struct table *t, size_t size, bool (*keep)(const struct entry *, time_t), time_t limit)
{
	struct entry *old = t->slots;
	size_t old_size = t->size;

	t->slots = calloc(size, sizeof(*t->slots));
	if (!t->slots)
		log_die("out of memory");
	t->size = size;
	t->used = 0;
	for (size_t i = 0; i < old_size; i++) {
		if (!old[i].virtual_ip || (keep && !keep(&old[i], limit)))
			continue;
		*slot_of(t, old[i].virtual_ip) = old[i];
		t->used++;
	}
	free(old);
}

bool table_put(struct table *t, const Ms__Serving *s)
{
	struct entry *e;

	if (!s->virtual_ip)
		return false;
	if (2 * (t->used + 1) > t->size)
		rebuild(t, 2 * t->size, NULL, 0);
	e = slot_of(t, s->virtual_ip);
	if (e->virtual_ip && e->m > s->m)
		return false;
	if (!e->virtual_ip)
		t->used++;
	e->virtual_ip = s->virtual_ip;
	e->member = s->member;
	e->ip = s->ip;
	e->port = (uint16_t)s->port;
	e->m = s->m;
	if (s->cookie.len == sizeof(e->cookie))
		memcpy(e->cookie, s->cookie.data, sizeof(e->cookie));
	e->verified = now_s();
	return true;
}

void table_member_ended(struct table *t, uint32_t member)
{
	for (size_t i = 0; i < t->size; i++) {
		if (!t->slots[i].virtual_ip || t->slots[i].member != member)
			continue;
		t->slots[i].ended = true;
		t->slots[i].verified = now_s();
	}
}

struct entry *table_find(struct table *t, uint32_t virtual_ip)
{
	struct entry *e = slot_of(t, virtual_ip);

	return e->virtual_ip ? e : NULL;
}

static bool is_wanted(const struct entry *e, time_t limit)
{
	return !e->ended || e->verified > limit;
}

void table_clean(struct table *t, time_t age)
{
	rebuild(t, t->size, is_wanted, now_s() - age);
}
