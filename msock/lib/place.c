/* SPDX-License-Identifier: MIT */
#include "lib/place.h"

#include "lib/mem.h"

#include <stddef.h>

enum { PLACE_BUCKETS = 256 };

struct place_entry {
	struct place place;
	struct place_entry *next;
};

static struct place_entry *buckets[PLACE_BUCKETS];

static struct place_entry *place_find(uint32_t ip)
{
	struct place_entry *e = buckets[ip % PLACE_BUCKETS];

	while (e && e->place.virtual_ip != ip)
		e = e->next;
	return e;
}

const struct place *place_get(uint32_t virtual_ip, uint64_t newer)
{
	struct place_entry *e = place_find(virtual_ip);

	return e && e->place.status == MS_PLACE_OK && e->place.m >= newer ? &e->place : NULL;
}

void place_put(const struct place *p)
{
	struct place_entry *e = place_find(p->virtual_ip);

	if (!e) {
		e = mem_alloc(sizeof(*e));
		if (!e)
			return;
		e->next = buckets[p->virtual_ip % PLACE_BUCKETS];
		buckets[p->virtual_ip % PLACE_BUCKETS] = e;
	}
	e->place = *p;
}

void place_drop(uint32_t virtual_ip)
{
	struct place_entry *e = place_find(virtual_ip);

	if (e)
		e->place.status = MS_PLACE_NOBODY;
}
