/* SPDX-License-Identifier: MIT */
#include "msdaemon/binding.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	hwloc_obj_type_t type;
} kinds[] = {
	{ "machine", HWLOC_OBJ_MACHINE },   { "socket", HWLOC_OBJ_PACKAGE },    { "package", HWLOC_OBJ_PACKAGE },
	{ "numa", HWLOC_OBJ_NUMANODE },     { "numanode", HWLOC_OBJ_NUMANODE }, { "core", HWLOC_OBJ_CORE },
	{ "hwthread", HWLOC_OBJ_PU },       { "l1dcache", HWLOC_OBJ_L1CACHE },  { "l1ucache", HWLOC_OBJ_L1CACHE },
	{ "l1icache", HWLOC_OBJ_L1ICACHE }, { "l1cache", HWLOC_OBJ_L1CACHE },   { "l2dcache", HWLOC_OBJ_L2CACHE },
	{ "l2ucache", HWLOC_OBJ_L2CACHE },  { "l2icache", HWLOC_OBJ_L2ICACHE }, { "l2cache", HWLOC_OBJ_L2CACHE },
	{ "l3dcache", HWLOC_OBJ_L3CACHE },  { "l3ucache", HWLOC_OBJ_L3CACHE },  { "l3icache", HWLOC_OBJ_L3ICACHE },
	{ "l3cache", HWLOC_OBJ_L3CACHE },   { "l4dcache", HWLOC_OBJ_L4CACHE },  { "l4ucache", HWLOC_OBJ_L4CACHE },
	{ "l4cache", HWLOC_OBJ_L4CACHE },   { "l5dcache", HWLOC_OBJ_L5CACHE },  { "l5ucache", HWLOC_OBJ_L5CACHE },
	{ "l5cache", HWLOC_OBJ_L5CACHE },
};

struct objects { /* of one kind, in logical order */
	hwloc_obj_t *list;
	unsigned count;
	unsigned take; /* the number behind the kind's name */
	unsigned pus;  /* that so many of them have */
};

static bool is_none(const char *text)
{
	return !*text || !strcmp(text, "none");
}

/* The type of "core:2", and 2; HWLOC_OBJ_TYPE_MAX if there is no such name. */
static hwloc_obj_type_t kind_of(const char *text, unsigned *take)
{
	size_t size = strcspn(text, ":");

	*take = text[size] && atoi(text + size + 1) > 0 ? (unsigned)atoi(text + size + 1) : 1;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (strlen(kinds[i].name) == size && !strncmp(text, kinds[i].name, size))
			return kinds[i].type;
	return HWLOC_OBJ_TYPE_MAX;
}

bool binding_known(const struct binding *b)
{
	unsigned take;

	if (!strncmp(b->bind, "user:", 5) || !strcmp(b->bind, "rr"))
		return true;
	return kind_of(b->bind, &take) != HWLOC_OBJ_TYPE_MAX &&
	       (!*b->map || kind_of(b->map, &take) != HWLOC_OBJ_TYPE_MAX);
}

/* Two NUMA nodes with the same processors, as fast and large memory are, count once. */
static bool is_double(const struct objects *o, hwloc_obj_t obj)
{
	for (unsigned i = 0; i < o->count; i++)
		if (hwloc_bitmap_isequal(o->list[i]->cpuset, obj->cpuset))
			return true;
	return false;
}

static int find_objects(hwloc_topology_t topology, const char *text, struct objects *o, char why[BINDING_WHY])
{
	hwloc_obj_type_t type = kind_of(text, &o->take);
	unsigned pus = (unsigned)hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU);
	hwloc_obj_t obj = NULL;
	int most = hwloc_get_nbobjs_by_type(topology, type);

	o->list = most > 0 ? calloc((size_t)most, sizeof(*o->list)) : NULL;
	while (o->list && (obj = hwloc_get_next_obj_by_type(topology, type, obj)))
		if (!is_double(o, obj))
			o->list[o->count++] = obj;
	if (!o->count) {
		snprintf(why, BINDING_WHY, "there is no %.60s", text);
		return -1;
	}
	o->pus = pus / o->count * o->take;
	return 0;
}

static unsigned least_multiple(unsigned of, unsigned by)
{
	unsigned i = 1;

	while (i * of % by)
		i++;
	return i * of;
}

/* The processors of a domain, and the first one of its first object. */
static hwloc_obj_t domain(hwloc_topology_t topology, const struct objects *map, unsigned number, hwloc_bitmap_t set)
{
	hwloc_obj_t first = map->list[number * map->take % map->count];

	for (unsigned i = 0; i < map->take; i++)
		hwloc_bitmap_or(set, set, map->list[(number * map->take + i) % map->count]->cpuset);
	return hwloc_get_obj_inside_cpuset_by_type(topology, first->cpuset, HWLOC_OBJ_PU, 0);
}

static hwloc_obj_t step_on(hwloc_topology_t topology, hwloc_const_cpuset_t set, hwloc_obj_t pu, unsigned steps)
{
	while (steps--) {
		pu = hwloc_get_next_obj_inside_cpuset_by_type(topology, set, HWLOC_OBJ_PU, pu);
		if (!pu)
			pu = hwloc_get_next_obj_inside_cpuset_by_type(topology, set, HWLOC_OBJ_PU, NULL);
	}
	return pu;
}

/* The object after this one, going round; if `within` is given, the next that lies in it. */
static unsigned next_object(const struct objects *bind, unsigned at, hwloc_obj_t within)
{
	for (unsigned i = 1; i < bind->count; i++) {
		unsigned k = (at + i) % bind->count;

		if (!within || hwloc_bitmap_isincluded(bind->list[k]->cpuset, within->cpuset))
			return k;
	}
	return at;
}

static void take_objects(hwloc_topology_t topology, const struct objects *bind, const struct objects *map,
			 unsigned index, hwloc_bitmap_t set)
{
	unsigned domains = least_multiple(map->count, map->take) / map->take, at = 0;
	unsigned places = bind->pus < map->pus ? least_multiple(map->pus, bind->pus) * domains / bind->pus : domains;
	hwloc_bitmap_t whole = hwloc_bitmap_alloc();
	hwloc_obj_t pu, within = NULL;

	index %= places;
	pu = domain(topology, map, index % domains, whole);
	if (bind->pus < map->pus) {
		within = hwloc_get_obj_covering_cpuset(topology, whole);
		pu = step_on(topology, whole, pu, index / domains * bind->pus);
	}
	while (at + 1 < bind->count && !hwloc_bitmap_isincluded(pu->cpuset, bind->list[at]->cpuset))
		at++;
	for (unsigned i = 0; i < bind->take; i++) {
		hwloc_bitmap_or(set, set, bind->list[at]->cpuset);
		at = next_object(bind, at, within);
	}
	hwloc_bitmap_free(whole);
}

static int bind_objects(hwloc_topology_t topology, const struct binding *b, unsigned index, hwloc_bitmap_t set,
			char why[BINDING_WHY])
{
	struct objects bind = { 0 }, map = { 0 };
	int rc = find_objects(topology, b->bind, &bind, why);

	if (!rc)
		rc = find_objects(topology, *b->map ? b->map : b->bind, &map, why);
	if (!rc && (!map.pus || !bind.pus || map.pus > (unsigned)hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU))) {
		snprintf(why, BINDING_WHY, "there is not as much as %.60s", *b->map ? b->map : b->bind);
		rc = -1;
	}
	if (!rc)
		take_objects(topology, &bind, &map, index, set);
	free(bind.list);
	free(map.list);
	return rc;
}

static unsigned read_number(const char **at)
{
	char *end;
	unsigned long n = strtoul(*at, &end, 10);

	*at = end;
	return (unsigned)n;
}

/* One entry, as 0+2-3; the text behind it. */
static const char *read_entry(const char *at, hwloc_bitmap_t set)
{
	while (isdigit((unsigned char)*at)) {
		unsigned low = read_number(&at), high = low;

		if (*at == '-') {
			at++;
			high = read_number(&at);
		}
		hwloc_bitmap_set_range(set, low, (int)(high > low ? high : low));
		at += *at == '+';
	}
	return at;
}

/* The list of -bind-to user:LIST; ",": the next entry, "x3" behind one: three times. Who is beyond its end is not bound. */
static void bind_listed(const char *list, unsigned index, hwloc_bitmap_t set)
{
	unsigned times;

	for (; *list; index -= times) {
		times = 1;
		list = read_entry(list, set);
		if (*list == 'x') {
			list++;
			times = read_number(&list);
		}
		if (index < times)
			return;
		hwloc_bitmap_zero(set);
		list += strcspn(list, ",");
		list += *list == ',';
	}
}

int binding_place(hwloc_topology_t topology, const struct binding *b, unsigned index, hwloc_bitmap_t set,
		  char why[BINDING_WHY])
{
	hwloc_bitmap_zero(set);
	if (is_none(b->bind))
		return 0;
	if (!binding_known(b)) {
		snprintf(why, BINDING_WHY, "-bind-to %.60s -map-by %.60s cannot be told from a topology", b->bind,
			 b->map);
		return -1;
	}
	if (!strncmp(b->bind, "user:", 5))
		bind_listed(b->bind + 5, index, set);
	else if (!strcmp(b->bind, "rr"))
		hwloc_bitmap_only(set, index % (unsigned)hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU));
	else
		return bind_objects(topology, b, index, set, why);
	return 0;
}
