/* SPDX-License-Identifier: MIT */
/*
 * balance.h - which ranks should be elsewhere: a model of a job's speed, policies that propose moves, and the test
 * whether a move is worth its cost.
 *
 * The model: a job goes on in steps, each rank has its share of a step's work, and a step takes as long as the slowest
 * machine needs.  What a rank waits it sleeps, so the processor time that it used lately is its share of the work.
 * Other people's load on a machine competes with the ranks for the processors.
 */
#ifndef LAUNCHER_BALANCE_H
#define LAUNCHER_BALANCE_H

#include "cluster.h"

struct balance_limits {
	double horizon_s; /* a move must pay within this */
	double gain_min;  /* share of a step that a round must save: less is noise */
	double again_min; /* ... unless so much is found again and again */
	unsigned again;   /* so often in a row, and then once more */
	double worth;     /* its gain must be so many times the cost of its moves */
	/*
	 * A rank that moved stays for so many times what its move costs, so that going to and fro could take two
	 * hundredths of its time at the very worst; for settle_s at least, in which enough looks are taken for a mean, and
	 * for horizon_s at most, within which its move has paid.
	 */
	double settle_costs, settle_s;
	double rest_s;  /* as balance_rest_s has it */
	unsigned moves; /* at most, a round */
};

#define BALANCE_LIMITS                                                                                                 \
	{                                                                                                              \
		.horizon_s = 60, .gain_min = 0.10, .again_min = 0.05, .again = 3, .worth = 2, .settle_costs = 50,      \
		.settle_s = 12, .rest_s = 30, .moves = 4                                                               \
	}

#define BALANCE_EVERY_MIN_S 4.0 /* between two rounds */

struct balance {
	struct cluster *c;     /* borrowed; a plan changes it */
	const double *moved_s; /* borrowed; by rank: how long ago it moved; negative: it did not */
	double cost_s;         /* of a move as measured; negative: none was, it is guessed by the memory */
	struct balance_limits limits;
	unsigned *found; /* borrowed; looks in a row that found a round which saves again_min. NULL: not asked for */
};

struct balance_step {
	size_t rank, from, to; /* indices */
	double before, after;  /* time of a step, the present one being 1 */
	double gain_s, cost_s;
	unsigned together; /* 0, or so many moves bring this gain only together: figures are of all, but for the cost */
};

/* How a policy looks: the next move that it would make, or false. It must fit the memory and the settling time. */
struct policy {
	const char *name, *help;
	bool (*next)(const struct balance *b, struct balance_step *out);
	double (*time)(const struct balance *b); /* what it makes small; balance_time but for those that weigh more */
	bool exchanges;                          /* looks for moves that bring something only together, too */
};

/* NULL at the end. */
extern const struct policy *const balance_policies[];
const struct policy *balance_policy(const char *name);

/* Time of a step on the slowest machine; a little more if others are nearly as slow. */
double balance_time(const struct balance *b);
/* Time of a step on one machine as it is now. */
double balance_machine_time(const struct cluster *c, size_t machine);
size_t balance_slowest(const struct cluster *c);
/* May it go there at all? */
bool balance_may(const struct balance *b, size_t rank, size_t host);
/* What `time` would be. */
double balance_after(const struct balance *b, const struct policy *p, size_t rank, size_t host);
/*
 * The move away from a machine that makes p->time smallest, to one whose step takes `busiest` at most.  False: none makes
 * it smaller than `most`.
 */
bool balance_best_from(const struct balance *b, const struct policy *p, size_t machine, double busiest, double most,
		       struct balance_step *out);
/* How long a rank is left alone that was refused so often in a row, in s: 0 for never, then twice rest_s, and twice as long each time. */
double balance_rest_s(const struct balance_limits *l, unsigned refusals);
/* Fills in gain and cost from before and after. */
void balance_weigh(const struct balance *b, struct balance_step *s);
bool balance_worth(const struct balance *b, const struct balance_step *s);

/*
 * The moves to make now, at most limits.moves, for which steps has room; the cluster is changed as if they had been
 * made.  Returns how many; if none is worth it *rejected is the first of them, if *has_rejected.
 */
unsigned balance_plan(struct balance *b, const struct policy *p, struct balance_step *steps,
		      struct balance_step *rejected, bool *has_rejected);

#endif
