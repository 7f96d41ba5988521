/* SPDX-License-Identifier: MIT */
/* Where a rank would do well, on made-up clusters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cluster.h"
#include "made_cluster.h"

/* Three machines of four cores; all ranks on the first. */
static void fewest_load(void **state)
{
	struct made made;
	struct cluster c;
	bool memory;

	made_begin(&made);
	for (int i = 0; i < 3; i++)
		made_host(&made, "m", 4, i == 1 ? 3.0 : 0.0, 1 << 30);
	for (int i = 0; i < 3; i++)
		made_rank(&made, 0, 1.0, 1 << 20);
	made_busy(&made, 0, 3.0);
	cluster_read(made_reply(&made), &c);
	assert_true(c.machines[0].foreign < 0.01);
	assert_true(c.machines[1].foreign > 2.9);
	assert_int_equal(cluster_choose(&c, &c.ranks[0], 0, &memory), 2);
	/* One there, and one more: still less than the three others on the second. */
	cluster_moved(&c, &c.ranks[0], 2);
	assert_int_equal(cluster_choose(&c, &c.ranks[1], 0, &memory), 2);
	cluster_moved(&c, &c.ranks[1], 2);
	assert_int_equal(c.machines[2].ranks, 2);
	assert_int_equal(c.hosts[0].ranks, 1);
	cluster_clear(&c);
}

/* More cores count for more. */
static void unequal_cores(void **state)
{
	struct made made;
	struct cluster c;
	bool memory;

	made_begin(&made);
	made_host(&made, "m", 1, 1.0, 1 << 30);
	made_host(&made, "m", 2, 1.0, 1 << 30);
	made_host(&made, "m", 8, 3.0, 1 << 30);
	made_rank(&made, 0, 1.0, 0);
	cluster_read(made_reply(&made), &c);
	assert_int_equal(cluster_choose(&c, &c.ranks[0], 0, &memory), 2);
	cluster_clear(&c);
}

/* Names of one machine are all the same: the one with the fewest ranks. */
static void one_machine(void **state)
{
	struct made made;
	struct cluster c;
	bool memory;

	made_begin(&made);
	for (int i = 0; i < 3; i++)
		made_host(&made, "same", 2, 3.0, 1 << 30);
	made_rank(&made, 0, 0.7, 0);
	made_rank(&made, 1, 0.7, 0);
	made_rank(&made, 1, 0.7, 0);
	made_rank(&made, 2, 0.7, 0);
	cluster_read(made_reply(&made), &c);
	assert_int_equal(c.machine_count, 1);
	assert_true(c.machines[0].foreign > 0.15 && c.machines[0].foreign < 0.25);
	assert_int_equal(cluster_choose(&c, &c.ranks[0], 0, &memory), 2);
	assert_int_equal(cluster_choose(&c, &c.ranks[1], 1, &memory), 0);
	cluster_clear(&c);
}

static void memory_decides(void **state)
{
	struct made made;
	struct cluster c;
	bool memory;

	made_begin(&made);
	made_host(&made, "m", 4, 1.0, 1ull << 30);
	made_host(&made, "m", 4, 0.0, 100 << 20);
	made_host(&made, "m", 4, 4.0, 1ull << 30);
	made_rank(&made, 0, 1.0, 200 << 20);
	made_rank(&made, 0, 1.0, 2ull << 30);
	cluster_read(made_reply(&made), &c);
	assert_int_equal(cluster_choose(&c, &c.ranks[0], 0, &memory), 2);
	assert_true(memory);
	assert_int_equal(cluster_choose(&c, &c.ranks[1], 0, &memory), CLUSTER_NOWHERE);
	assert_true(memory);
	cluster_clear(&c);
}

static void hosts_that_are_lost(void **state)
{
	struct made made;
	struct cluster c;
	bool memory;

	made_begin(&made);
	made_host(&made, "m", 4, 1.0, 1ull << 30);
	made_host(&made, "m", 4, 0.0, 1ull << 30);
	made_rank(&made, 0, 1.0, 0);
	made.hosts[1].up = 0;
	cluster_read(made_reply(&made), &c);
	assert_int_equal(cluster_choose(&c, &c.ranks[0], 0, &memory), CLUSTER_NOWHERE);
	assert_false(memory);
	cluster_clear(&c);
}

/* Before the first sample: by the number of ranks. */
static void without_figures(void **state)
{
	struct made made;
	struct cluster c;
	bool memory;

	made_begin(&made);
	for (int i = 0; i < 3; i++)
		made_host(&made, "m", 4, -1, 1ull << 30);
	for (int i = 0; i < 3; i++)
		made.hosts[i].now = NULL;
	made_rank(&made, 0, -1, 0);
	made_rank(&made, 1, -1, 0);
	cluster_read(made_reply(&made), &c);
	assert_int_equal(cluster_choose(&c, &c.ranks[0], 0, &memory), 2);
	cluster_clear(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fewest_load),         cmocka_unit_test(unequal_cores),
		cmocka_unit_test(one_machine),         cmocka_unit_test(memory_decides),
		cmocka_unit_test(hosts_that_are_lost), cmocka_unit_test(without_figures),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
