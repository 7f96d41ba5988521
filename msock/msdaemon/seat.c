/* SPDX-License-Identifier: MIT */
#include "msdaemon/seat.h"

#include <hwloc/glibc-sched.h>
#include <stdlib.h>
#include <string.h>

#include "msdaemon/binding.h"
#include "msdaemon/member.h"
#include "proto/log.h"

/* What this host has, without what it may not use; read when the first member that is bound comes. NULL: it cannot be. */
static hwloc_topology_t topology(void)
{
	static hwloc_topology_t made;

	if (!made && (hwloc_topology_init(&made) || hwloc_topology_load(made))) {
		log_say(LOG_ERROR, "hwloc cannot tell what this host has: no rank is bound");
		made = NULL;
	}
	return made;
}

static bool is_free(const struct daemon *d, int number)
{
	const struct member *m;

	LIST_FOREACH(m, &d->members, entry)
	if (m->seat.number == number)
		return false;
	return true;
}

/* Members that have left are in another list; the one that looks for a seat has none yet. */
static int lowest_free(const struct daemon *d)
{
	int number = 0;

	while (!is_free(d, number))
		number++;
	return number;
}

static void find_place(struct member *m)
{
	struct binding b = { m->seat.bind, m->seat.map };
	hwloc_topology_t here = topology();
	hwloc_bitmap_t set = hwloc_bitmap_alloc();
	char why[BINDING_WHY], text[24];

	if (here && binding_place(here, &b, (unsigned)m->seat.number, set, why))
		log_say(LOG_WARN, "rank %s is not bound on %s: %s", daemon_member_text(m->id, text), m->d->host, why);
	else if (here && !hwloc_bitmap_iszero(set))
		hwloc_cpuset_to_glibc_sched_affinity(here, set, &m->seat.cpus, sizeof(m->seat.cpus));
	hwloc_bitmap_free(set);
}

void seat_take(struct member *m, const char *bind, const char *map, int which, const ProtobufCBinaryData *given)
{
	struct binding b = { bind, map };

	m->seat.bind = strdup(bind);
	m->seat.map = strdup(map);
	if (!m->seat.bind || !m->seat.map)
		log_die("out of memory");
	if (given->len == sizeof(m->seat.given))
		memcpy(&m->seat.given, given->data, given->len);
	if (binding_known(&b)) {
		m->seat.number = which == SEAT_LOWEST ? lowest_free(m->d) : which;
		find_place(m);
	} else {
		m->seat.cpus = m->seat.given;
	}
}

void seat_clear(struct seat *s)
{
	free(s->bind);
	free(s->map);
}

void seat_sit(const struct member *m)
{
	if (CPU_COUNT(&m->seat.cpus) > 0)
		sched_setaffinity(0, sizeof(m->seat.cpus), &m->seat.cpus);
}

void seat_lend(const struct member *m, cpu_set_t *own)
{
	CPU_ZERO(own);
	sched_getaffinity(0, sizeof(*own), own);
	seat_sit(m);
}

void seat_back(const cpu_set_t *own)
{
	if (CPU_COUNT(own) > 0)
		sched_setaffinity(0, sizeof(*own), own);
}
