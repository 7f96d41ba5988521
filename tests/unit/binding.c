/* SPDX-License-Identifier: MIT */
/*
 * Places of ranks on topologies that are only described.
 *
 * usage: binding.t                            the test
 *        binding.t TOPOLOGY BIND MAP COUNT    print the places of COUNT ranks, a line of 0 and 1 each; t1110 compares with Hydra
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "msdaemon/binding.h"

static hwloc_topology_t load(const char *description)
{
	hwloc_topology_t t;

	assert_int_equal(hwloc_topology_init(&t), 0);
	assert_int_equal(hwloc_topology_set_synthetic(t, description), 0);
	assert_int_equal(hwloc_topology_load(t), 0);
	return t;
}

struct expected {
	const char *topology, *bind, *map;
	unsigned index;
	const char *places; /* of the ranks from index on, with spaces between; "-": not bound */
};

static const char two_sockets[] = "package:2 numa:1 core:4 pu:2";

static const struct expected table[] = {
	{ two_sockets, "core", "", 0, "0-1 2-3 4-5" },
	{ two_sockets, "core", "", 7, "14-15 0-1" },
	{ two_sockets, "core", "socket", 0, "0-1 8-9 2-3 10-11 4-5 12-13 6-7 14-15 0-1" },
	{ two_sockets, "hwthread", "core", 0, "0 2 4 6 8 10 12 14 1 3" },
	{ two_sockets, "core:2", "", 0, "0-3 4-7 8-11 12-15 0-3" },
	{ two_sockets, "socket", "", 0, "0-7 8-15 0-7" },
	{ two_sockets, "numa", "core", 0, "0-7 0-7 0-7 0-7 8-15" },
	{ two_sockets, "machine", "", 0, "0-15 0-15" },
	{ two_sockets, "rr", "", 0, "0 1 2" },
	{ two_sockets, "rr", "", 15, "15 0" },
	{ two_sockets, "none", "", 0, "-" },
	{ two_sockets, "", "", 3, "-" },
	{ two_sockets, "user:0+1,4-6,3x2", "", 0, "0-1 4-6 3 3 - -" },
	{ "package:1 core:1 pu:1", "core", "", 0, "0 0 0" },
	{ "numa:4 core:2 pu:1", "numa:2", "", 0, "0-3 4-7 0-3" },
	{ "package:1 core:2 pu:1", "core:3", "core", 0, "0-1 0-1" }, /* as much as there is */
};

static void places_are_those_of_the_policy(void **state)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		const struct expected *e = &table[i];
		hwloc_topology_t t = load(e->topology);
		hwloc_bitmap_t set = hwloc_bitmap_alloc();
		char text[256], why[BINDING_WHY], *want = strdup(e->places), *rest = want, *one;
		unsigned index = e->index;

		while ((one = strsep(&rest, " "))) {
			assert_int_equal(binding_place(t, &(struct binding){ e->bind, e->map }, index++, set, why), 0);
			hwloc_bitmap_list_snprintf(text, sizeof(text), set);
			assert_string_equal(*text ? text : "-", one);
		}
		free(want);
		hwloc_bitmap_free(set);
		hwloc_topology_destroy(t);
	}
}

static void memory_is_on_the_node_of_the_place(void **state)
{
	hwloc_topology_t t = load("package:2 numa:2 core:4 pu:1");
	hwloc_bitmap_t set = hwloc_bitmap_alloc(), nodes = hwloc_bitmap_alloc();
	char why[BINDING_WHY];

	/* Map by NUMA node: the nth rank, modulo 4, has a core of node n and no other node. */
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(binding_place(t, &(struct binding){ "core", "numa" }, i, set, why), 0);
		hwloc_cpuset_to_nodeset(t, set, nodes);
		assert_int_equal(hwloc_bitmap_weight(nodes), 1);
		assert_int_equal(hwloc_bitmap_first(nodes), (int)(i % 4));
	}
	hwloc_bitmap_free(set);
	hwloc_bitmap_free(nodes);
	hwloc_topology_destroy(t);
}

static void what_is_not_there_is_named(void **state)
{
	hwloc_topology_t t = load("package:2 core:4 pu:1");
	hwloc_bitmap_t set = hwloc_bitmap_alloc();
	char why[BINDING_WHY];

	assert_int_equal(binding_place(t, &(struct binding){ "l5cache", "" }, 0, set, why), -1);
	assert_string_equal(why, "there is no l5cache");
	assert_int_equal(binding_place(t, &(struct binding){ "core", "socket:3" }, 0, set, why), -1);
	assert_string_equal(why, "there is not as much as socket:3");
	assert_int_equal(binding_place(t, &(struct binding){ "gpu0", "" }, 0, set, why), -1);
	assert_true(binding_known(&(struct binding){ "core:2", "numa" }));
	assert_false(binding_known(&(struct binding){ "core", "ib0" }));
	assert_true(hwloc_bitmap_iszero(set));
	hwloc_bitmap_free(set);
	hwloc_topology_destroy(t);
}

static int show(char **argv)
{
	hwloc_topology_t t = load(argv[1]);
	hwloc_bitmap_t set = hwloc_bitmap_alloc();
	char why[BINDING_WHY];

	for (unsigned i = 0; i < (unsigned)atoi(argv[4]); i++) {
		if (binding_place(t, &(struct binding){ argv[2], argv[3] }, i, set, why)) {
			fprintf(stderr, "%s\n", why);
			return 1;
		}
		for (int pu = 0; pu < hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PU); pu++)
			putchar(hwloc_bitmap_isset(set, (unsigned)pu) ? '1' : '0');
		putchar('\n');
	}
	hwloc_bitmap_free(set);
	hwloc_topology_destroy(t);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places_are_those_of_the_policy),
		cmocka_unit_test(memory_is_on_the_node_of_the_place),
		cmocka_unit_test(what_is_not_there_is_named),
	};

	if (argc == 5)
		return show(argv);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
