/* SPDX-License-Identifier: MIT */
/* The balancer on made-up jobs: a simulated job tells the loads that its ranks would have, moves are carried out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "balance.h"
#include "made_cluster.h"
#include "means.h"

/* A job in steps: rank r needs work[r] seconds of a processor in each. */
struct job {
	struct made made;
	double cores[MADE_HOSTS], hogs[MADE_HOSTS], work[MADE_RANKS];
	size_t home[MADE_RANKS], hosts, ranks;
	double moved_s[MADE_RANKS];
	uint64_t talk[MADE_RANKS][MADE_RANKS], rank_bytes, free_bytes;
	double noise, cost_s;
	unsigned moves; /* made in all */
	unsigned found; /* the balancer's */
};

static void job_begin(struct job *j, size_t hosts, const double *cores, size_t ranks)
{
	memset(j, 0, sizeof(*j));
	j->hosts = hosts;
	j->ranks = ranks;
	j->free_bytes = 8ull << 30;
	j->rank_bytes = 10 << 20;
	j->cost_s = 0.3;
	for (size_t i = 0; i < hosts; i++)
		j->cores[i] = cores ? cores[i] : 1;
	for (size_t i = 0; i < ranks; i++) {
		j->work[i] = 1;
		j->home[i] = i % hosts;
		j->moved_s[i] = -1;
	}
}

/* Processors that the ranks of a host get beside its hogs, each thread its fair share. */
static double share(const struct job *j, size_t host)
{
	unsigned n = 0;

	for (size_t i = 0; i < j->ranks; i++)
		n += j->home[i] == host;
	if (n + j->hogs[host] <= j->cores[host])
		return j->cores[host] - j->hogs[host];
	return j->cores[host] * n / (n + j->hogs[host]);
}

static double step_s(const struct job *j)
{
	double slowest = 0;

	for (size_t h = 0; h < j->hosts; h++) {
		double sum = 0, t;

		for (size_t i = 0; i < j->ranks; i++)
			sum += j->home[i] == h ? j->work[i] : 0;
		t = sum > 0 ? sum / share(j, h) : 0;
		for (size_t i = 0; i < j->ranks; i++)
			if (j->home[i] == h && j->work[i] / fmin(1, share(j, h)) > t)
				t = j->work[i] / fmin(1, share(j, h));
		slowest = t > slowest ? t : slowest;
	}
	return slowest;
}

static double jitter(const struct job *j)
{
	return 1 + j->noise * (2.0 * rand() / RAND_MAX - 1);
}

/* What the coordinator would answer now. */
static void job_look(struct job *j)
{
	double step = step_s(j), busy[MADE_HOSTS];

	made_begin(&j->made);
	for (size_t h = 0; h < j->hosts; h++)
		busy[h] = 0;
	for (size_t i = 0; i < j->ranks; i++)
		busy[j->home[i]] += j->work[i] / step;
	for (size_t h = 0; h < j->hosts; h++) {
		double left = j->cores[h] - busy[h];

		busy[h] += j->hogs[h] < left ? j->hogs[h] : left;
		made_host(&j->made, "m", j->cores[h], busy[h] * jitter(j), j->free_bytes);
	}
	for (size_t i = 0; i < j->ranks; i++)
		made_rank(&j->made, j->home[i], j->work[i] / step * jitter(j), j->rank_bytes);
	for (size_t i = 0; i < j->ranks; i++)
		for (size_t k = i + 1; k < j->ranks; k++)
			if (j->talk[i][k])
				made_talk(&j->made, i, k, j->talk[i][k]);
}

/* One round, ten seconds later. Returns how many moves were made. */
static unsigned job_round(struct job *j, const char *policy)
{
	struct balance_step steps[8], rejected;
	struct cluster c;
	struct balance b = {
		.c = &c, .moved_s = j->moved_s, .cost_s = j->cost_s, .limits = BALANCE_LIMITS, .found = &j->found
	};
	bool has_rejected;
	unsigned n;

	job_look(j);
	cluster_read(made_reply(&j->made), &c);
	n = balance_plan(&b, balance_policy(policy), steps, &rejected, &has_rejected);
	for (size_t i = 0; i < j->ranks; i++)
		j->moved_s[i] += j->moved_s[i] >= 0 ? 10 : 0;
	for (unsigned i = 0; i < n; i++) {
		j->home[steps[i].rank] = steps[i].to;
		j->moved_s[steps[i].rank] = 0;
	}
	j->moves += n;
	cluster_clear(&c);
	return n;
}

static void job_run(struct job *j, const char *policy, unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++)
		job_round(j, policy);
}

static const char *const all[] = { "greedy", "refine", "comm" };

/* A balanced job is left alone, also when its figures tremble. */
static void balanced(void **state)
{
	for (int p = 0; p < 3; p++) {
		struct job j;

		job_begin(&j, 4, NULL, 8);
		j.noise = 0.05;
		job_run(&j, all[p], 60);
		assert_int_equal(j.moves, 0);
	}
}

/* Everything on one host: spread. */
static void crowded(void **state)
{
	for (int p = 0; p < 3; p++) {
		struct job j;

		job_begin(&j, 4, NULL, 8);
		memset(j.home, 0, sizeof(j.home));
		job_run(&j, all[p], 20);
		assert_true(step_s(&j) <= 2.01);
		assert_true(j.moves <= 8);
		j.moves = 0;
		job_run(&j, all[p], 60);
		assert_int_equal(j.moves, 0);
	}
}

/* A hog comes to the first host: its ranks leave, and come back when it has gone, with few moves. */
static void hog(void **state)
{
	for (int p = 0; p < 3; p++) {
		struct job j;
		double with;

		job_begin(&j, 4, (double[]){ 2, 2, 2, 2 }, 6);
		j.noise = 0.02;
		j.hogs[0] = 2;
		with = step_s(&j);
		job_run(&j, all[p], 12);
		assert_true(step_s(&j) < 0.8 * with);
		assert_true(j.moves > 0 && j.moves <= 4);
	}
}

/* 100, 50, 25 and 25 per cent of a core. */
static void unequal(void **state)
{
	for (int p = 0; p < 3; p++) {
		struct job j;
		double before;

		job_begin(&j, 4, (double[]){ 1, 0.5, 0.25, 0.25 }, 8);
		before = step_s(&j);
		job_run(&j, all[p], 20);
		assert_true(before > 7.9);           /* two ranks on a quarter of a core */
		assert_true(step_s(&j) <= 1.15 * 4); /* the best: 4, 2, 1, 1 */
		assert_true(j.moves <= 8);
	}
}

/* Some ranks have more to do. */
static void imbalanced(void **state)
{
	for (int p = 0; p < 3; p++) {
		struct job j;

		job_begin(&j, 4, NULL, 8);
		j.work[0] = j.work[4] = 3; /* both on the first host */
		job_run(&j, all[p], 20);
		assert_true(step_s(&j) <= 3.01);
	}
}

/*
 * Two heavy ranks are on the first host, where a hog has come: one of them should be alone on the second, but there is
 * room only when others have left it.  No single move brings anything.
 */
static void exchanged(void **state)
{
	static const size_t home[] = { 0, 1, 1, 1, 0, 2, 3, 3 };
	static const char *const names[] = { "greedy", "comm" };

	for (int p = 0; p < 2; p++) {
		struct job j;
		double before;

		job_begin(&j, 4, (double[]){ 1, 0.5, 0.25, 0.25 }, 8);
		memcpy(j.home, home, sizeof(home));
		j.work[0] = j.work[4] = 4.5;
		j.hogs[0] = 1;
		j.noise = 0.02;
		before = step_s(&j);
		job_run(&j, names[p], 6);
		assert_true(before > 13.4);
		assert_true(step_s(&j) <= 1.15 * 9); /* the best: a heavy one alone on the second */
		assert_int_equal(j.home[4] == 1 || j.home[0] == 1, 1);
		assert_true(j.moves <= 6);
	}
}

static void memory_kept(void **state)
{
	for (int p = 0; p < 3; p++) {
		struct job j;

		job_begin(&j, 2, NULL, 4);
		memset(j.home, 0, sizeof(j.home));
		j.rank_bytes = 4ull << 30;
		j.free_bytes = 2ull << 30;
		job_run(&j, all[p], 5);
		assert_int_equal(j.moves, 0);
	}
}

/* A move that costs more than it brings within the horizon. */
static void too_dear(void **state)
{
	for (int p = 0; p < 3; p++) {
		struct job j;

		job_begin(&j, 2, NULL, 4);
		memset(j.home, 0, sizeof(j.home));
		j.cost_s = 40;
		job_run(&j, all[p], 5);
		assert_int_equal(j.moves, 0);
	}
}

/* No rank goes to and fro, with figures that tremble as means of some samples do. */
static void no_swing(void **state)
{
	for (int p = 0; p < 3; p++) {
		struct job j;
		unsigned early;

		srand(4711);
		job_begin(&j, 3, NULL, 7);
		j.noise = 0.05;
		job_run(&j, all[p], 10);
		early = j.moves;
		job_run(&j, all[p], 60);
		assert_true(early <= 2);
		assert_true(j.moves - early <= 1);
	}
}

/* Pairs that talk come together when that costs no speed; greedy has no reason to move anyone. */
static void together(void **state)
{
	struct job j;

	job_begin(&j, 2, (double[]){ 4, 4 }, 4); /* 0 and 2 on the first, 1 and 3 on the second */
	j.talk[0][1] = j.talk[2][3] = 1 << 30;
	job_run(&j, "greedy", 5);
	assert_int_equal(j.moves, 0);
	job_run(&j, "comm", 10);
	assert_true(j.moves >= 1 && j.moves <= 3);
	assert_int_equal(j.home[0], j.home[1]);
	assert_int_equal(j.home[2], j.home[3]);
}

/* Names of one machine: nothing is to be gained. */
static void one_machine(void **state)
{
	struct made made;
	struct cluster c;
	double moved_s[4] = { -1, -1, -1, -1 };
	struct balance b = { .c = &c, .moved_s = moved_s, .cost_s = 0.1, .limits = BALANCE_LIMITS };
	struct balance_step steps[4], rejected;
	bool has_rejected;

	made_begin(&made);
	for (int i = 0; i < 3; i++)
		made_host(&made, "same", 2, 2, 1 << 30);
	for (int i = 0; i < 4; i++)
		made_rank(&made, 0, 0.5, 0);
	cluster_read(made_reply(&made), &c);
	assert_int_equal(balance_plan(&b, balance_policy("greedy"), steps, &rejected, &has_rejected), 0);
	assert_false(has_rejected);
	cluster_clear(&c);
}

/* All on one of two machines; rank 0 has a child, which may not be known of yet: both stay, and rank 1 may go. */
static void family(void **state)
{
	struct made made;
	struct cluster c;
	double moved_s[3] = { -1, -1, -1 };
	struct balance b = { .c = &c, .moved_s = moved_s, .cost_s = 0.1, .limits = BALANCE_LIMITS };

	for (int known = 0; known < 2; known++) {
		made_begin(&made);
		for (int i = 0; i < 2; i++)
			made_host(&made, "m", 1, i ? 0 : 1, 1 << 30);
		for (int i = 0; i < 3; i++)
			made_rank(&made, 0, i < 2 ? 0.4 : known ? 0.2 : -1, 1 << 20);
		made.ranks[2].member = MS_MEMBER(MS_WORLD_CHILDREN, 0);
		made.ranks[2].child = 1;
		made.ranks[2].parent = made.ranks[0].member;
		cluster_read(made_reply(&made), &c);
		assert_false(balance_may(&b, 0, 1));
		assert_true(balance_may(&b, 1, 1));
		assert_false(balance_may(&b, 2, 1));
		assert_true(fabs(c.ranks[2].load - (known ? 0.2 : 0)) < 1e-9);
		cluster_clear(&c);
		made.ranks[2].state = (char *)"ended";
		cluster_read(made_reply(&made), &c);
		assert_true(balance_may(&b, 0, 1));
		cluster_clear(&c);
	}
}

/* The job gets twice as quick, and one rank has moved: loads are those of now, also of the rank that was watched longer. */
static void shares(void **state)
{
	struct means means = { 0 };
	struct made made;

	for (int look = 0; look < 5; look++) {
		double pace = look < 3 ? 1 : 2;

		made_begin(&made);
		for (int i = 0; i < 2; i++)
			made_host(&made, "m", 1, 1, 1 << 30);
		made_rank(&made, 0, 0.4 * pace, 0);
		made_rank(&made, look < 3 ? 0 : 1, look == 3 ? -1 : 0.2 * pace,
			  0); /* no figure of it yet, just moved */
		means_note(&means, made_reply(&made));
		assert_true(fabs(made.ranks[0].load - 0.4 * pace) < 1e-9);
		assert_true(look == 3 ? made.ranks[1].load < 0 : fabs(made.ranks[1].load - 0.2 * pace) < 1e-9);
	}
	means_clear(&means);
}

/* What saves little is done when several looks in a row have found it. */
static void patient(void **state)
{
	struct job j;

	job_begin(&j, 3, NULL, 4);
	j.home[3] = 0;
	j.work[1] = j.work[2] = 0.5;
	j.work[3] = 0.08;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(job_round(&j, "greedy"), 0);
	assert_int_equal(job_round(&j, "greedy"), 1);
	assert_true(step_s(&j) <= 1.0 + 1e-9);
	job_run(&j, "greedy", 20);
	assert_int_equal(j.moves, 1);

	/* One look that does not find it, and it begins anew. */
	j.home[3] = 0;
	j.moved_s[3] = -1;
	job_run(&j, "greedy", 3);
	j.work[3] = 0.001;
	job_round(&j, "greedy");
	j.work[3] = 0.08;
	job_run(&j, "greedy", 3);
	assert_int_equal(j.moves, 1);
	job_round(&j, "greedy");
	assert_int_equal(j.moves, 2);
}

/* A rank that moved may move again when 50 times its move's cost has passed, 12 s at least and 60 at most. */
static void settled(void **state)
{
	static const struct {
		double cost_s, stays_s;
	} table[] = { { 0.01, 12 }, { 0.3, 15 }, { 1, 50 }, { 5, 60 } };

	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		struct made made;
		struct cluster c;
		double moved_s[2] = { table[i].stays_s - 0.1, -1 };
		struct balance b = { .c = &c, .moved_s = moved_s, .cost_s = table[i].cost_s, .limits = BALANCE_LIMITS };

		made_begin(&made);
		for (int k = 0; k < 2; k++)
			made_host(&made, "m", 1, 0.4, 1 << 30);
		for (int k = 0; k < 2; k++)
			made_rank(&made, 0, 0.4, 1 << 20);
		cluster_read(made_reply(&made), &c);
		assert_false(balance_may(&b, 0, 1));
		assert_true(balance_may(&b, 1, 1));
		moved_s[0] += 0.2;
		assert_true(balance_may(&b, 0, 1));
		cluster_clear(&c);
	}
}

/* A hog comes where a rank has just moved: the rank goes on to the host that is free as soon as 15 s have passed. */
static void soon_again(void **state)
{
	struct job j;

	job_begin(&j, 4, NULL, 3);
	j.home[1] = 0;
	assert_int_equal(job_round(&j, "greedy"), 1);
	assert_true(step_s(&j) <= 1);
	j.hogs[j.home[0] ? j.home[0] : j.home[1]] = 1;
	assert_true(step_s(&j) > 1.9);
	job_run(&j, "greedy", 2);
	assert_int_equal(j.moves, 1);
	job_run(&j, "greedy", 1);
	assert_int_equal(j.moves, 2);
	assert_true(step_s(&j) <= 1);
}

static void refused(void **state)
{
	struct balance_limits limits = BALANCE_LIMITS;

	assert_true(balance_rest_s(&limits, 0) == 0);
	assert_true(balance_rest_s(&limits, 1) == 60);
	assert_true(balance_rest_s(&limits, 2) == 120);
	assert_true(balance_rest_s(&limits, 7) == 64 * 60);
	assert_true(balance_rest_s(&limits, 4000000000u) == 64 * 60);
}

static void names(void **state)
{
	for (int p = 0; p < 3; p++)
		assert_string_equal(balance_policy(all[p])->name, all[p]);
	assert_null(balance_policy("none"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(balanced), cmocka_unit_test(crowded),     cmocka_unit_test(hog),
		cmocka_unit_test(unequal),  cmocka_unit_test(imbalanced),  cmocka_unit_test(exchanged),
		cmocka_unit_test(shares),   cmocka_unit_test(memory_kept), cmocka_unit_test(too_dear),
		cmocka_unit_test(no_swing), cmocka_unit_test(together),    cmocka_unit_test(one_machine),
		cmocka_unit_test(family),   cmocka_unit_test(refused),     cmocka_unit_test(names),
		cmocka_unit_test(patient),  cmocka_unit_test(settled),     cmocka_unit_test(soon_again),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
