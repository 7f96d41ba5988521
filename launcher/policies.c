/* SPDX-License-Identifier: MIT */
/*
 * policies.c - how moves are chosen: greedy, refine, comm; one function each.  Another one is a `struct policy` and an
 * entry in balance_policies.
 */
#include "balance.h"

#include <math.h>

extern const struct policy policy_greedy, policy_refine, policy_comm;

/* Which rank to which host makes p->time smallest? */
static bool best_of_all(const struct balance *b, const struct policy *p, struct balance_step *out)
{
	double best = 0;
	bool found = false;

	for (size_t r = 0; r < b->c->rank_count; r++) {
		for (size_t h = 0; h < b->c->host_count; h++) {
			double t;

			if (!balance_may(b, r, h))
				continue;
			t = balance_after(b, p, r, h);
			/* Hosts of one machine are equal but for their ranks. */
			if (found && (t > best || (t == best && b->c->hosts[h].ranks >= b->c->hosts[out->to].ranks)))
				continue;
			best = t;
			*out = (struct balance_step){ .rank = r, .to = h };
			found = true;
		}
	}
	return found;
}

static bool greedy_next(const struct balance *b, struct balance_step *out)
{
	return best_of_all(b, &policy_greedy, out);
}

const struct policy policy_greedy = { "greedy", "the move that makes the slowest machine fastest", greedy_next,
				      balance_time, true };

/*
 * Only from the slowest machine, and there the rank that leaves the two machines most alike: it takes away what is too
 * much with few moves and leaves all others where they are.
 */
static bool refine_next(const struct balance *b, struct balance_step *out)
{
	size_t from = balance_slowest(b->c);
	double busiest = 0.9 * balance_machine_time(b->c, from);

	return balance_best_from(b, &policy_refine, from, busiest, INFINITY, out);
}

const struct policy policy_refine = { "refine", "only from the slowest machine, as few moves as will do", refine_next,
				      balance_time, false };

static size_t machine_of_member(const struct cluster *c, uint32_t member)
{
	for (size_t i = 0; i < c->rank_count; i++)
		if (c->ranks[i].member == member)
			return c->hosts[c->ranks[i].host].machine;
	return c->machine_count;
}

/* The share of all bytes that goes from machine to machine. */
static double crossing(const struct cluster *c)
{
	double all = 0, cross = 0;

	for (size_t i = 0; i < c->rank_count; i++) {
		const struct cluster_rank *r = &c->ranks[i];

		for (size_t k = 0; k < r->told->n_peers; k++) {
			size_t to = machine_of_member(c, r->told->peers[k]->member);

			all += (double)r->told->peers[k]->sent;
			if (to != c->hosts[r->host].machine && to < c->machine_count)
				cross += (double)r->told->peers[k]->sent;
		}
	}
	return all > 0 ? cross / all : 0;
}

/* If all that is sent crossed machines a step would take so much longer, as a share. */
static const double comm_weight = 0.25;

static double comm_time(const struct balance *b)
{
	return balance_time(b) * (1 + comm_weight * crossing(b->c));
}

static bool comm_next(const struct balance *b, struct balance_step *out)
{
	return best_of_all(b, &policy_comm, out);
}

const struct policy policy_comm = { "comm", "as greedy, and ranks that talk much are kept together", comm_next,
				    comm_time, true };
