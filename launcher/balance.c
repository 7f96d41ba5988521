/* SPDX-License-Identifier: MIT */
#include "balance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	BALANCE_NORM = 12,        /* the power of the mean that stands for the maximum */
	BALANCE_REFUSALS = 7,     /* in a row; more make no difference */
	BALANCE_EXCHANGES = 4096, /* ranks times hosts; more take too long to try */
};

static const double guess_base_s = 0.3, guess_bytes_s = 100e6, load_least = 0.02, step_least = 0.02;

extern const struct policy policy_greedy, policy_refine, policy_comm;
const struct policy *const balance_policies[] = { &policy_greedy, &policy_refine, &policy_comm, NULL };

const struct policy *balance_policy(const char *name)
{
	for (const struct policy *const *p = balance_policies; *p; p++)
		if (!strcmp((*p)->name, name))
			return *p;
	return NULL;
}

/* A rank's share of a step's work; one that nothing is known of is as heavy as they come. */
static double work(const struct cluster_rank *r)
{
	return r->load < 0 ? 1 : r->load > load_least ? r->load : load_least;
}

/* Processors that the ranks of a machine get: what others leave, or their fair share. */
static double capacity(const struct machine *m)
{
	double cores = m->cores > 0 ? m->cores : 1, left = cores - m->foreign;
	double fair = m->ranks ? cores * m->ranks / (m->ranks + ceil(m->foreign)) : left;

	return left > fair ? left : fair;
}

double balance_machine_time(const struct cluster *c, size_t machine)
{
	double sum = 0, most = 0, has = capacity(&c->machines[machine]);

	for (size_t i = 0; i < c->rank_count; i++) {
		double w = work(&c->ranks[i]);

		if (c->hosts[c->ranks[i].host].machine != machine)
			continue;
		sum += w;
		most = w > most ? w : most;
	}
	if (sum <= 0)
		return 0;
	most /= has < 1 ? has : 1; /* one rank's work is not divided; threads of a rank are not known of */
	return sum / has > most ? sum / has : most;
}

size_t balance_slowest(const struct cluster *c)
{
	size_t machine = 0;
	double most = -1;

	for (size_t i = 0; i < c->machine_count; i++) {
		double t = balance_machine_time(c, i);

		if (t <= most)
			continue;
		most = t;
		machine = i;
	}
	return machine;
}

double balance_time(const struct balance *b)
{
	double sum = 0, most = 0;

	for (size_t i = 0; i < b->c->machine_count; i++) {
		double t = balance_machine_time(b->c, i);

		most = t > most ? t : most;
	}
	for (size_t i = 0; most > 0 && i < b->c->machine_count; i++)
		sum += pow(balance_machine_time(b->c, i) / most, BALANCE_NORM);
	return most * pow(sum, 1.0 / BALANCE_NORM);
}

static double move_cost(const struct balance *b, size_t rank)
{
	return b->cost_s >= 0 ? b->cost_s : guess_base_s + (double)b->c->ranks[rank].bytes / guess_bytes_s;
}

static bool settles(const struct balance *b, size_t rank)
{
	const struct balance_limits *l = &b->limits;
	double s = l->settle_costs * move_cost(b, rank);

	s = s < l->settle_s ? l->settle_s : s > l->horizon_s ? l->horizon_s : s;
	return b->moved_s[rank] >= 0 && b->moved_s[rank] < s;
}

bool balance_may(const struct balance *b, size_t rank, size_t host)
{
	const struct cluster_rank *r = &b->c->ranks[rank];

	return r->movable && b->c->hosts[host].up && b->c->hosts[r->host].machine != b->c->hosts[host].machine &&
	       cluster_fits(b->c, r, host) && !settles(b, rank);
}

double balance_after(const struct balance *b, const struct policy *p, size_t rank, size_t host)
{
	struct cluster_rank before = b->c->ranks[rank];
	struct machine machines[2];
	size_t from = b->c->hosts[before.host].machine, to = b->c->hosts[host].machine;
	double t;

	machines[0] = b->c->machines[from];
	machines[1] = b->c->machines[to];
	cluster_moved(b->c, &b->c->ranks[rank], host);
	t = p->time(b);
	b->c->hosts[before.host].ranks++;
	b->c->hosts[host].ranks--;
	b->c->machines[from] = machines[0];
	b->c->machines[to] = machines[1];
	b->c->ranks[rank] = before;
	return t;
}

/* What was refused will be refused again as a rule. */
double balance_rest_s(const struct balance_limits *l, unsigned refusals)
{
	return refusals ? ldexp(l->rest_s, refusals < BALANCE_REFUSALS ? (int)refusals : BALANCE_REFUSALS) : 0;
}

void balance_weigh(const struct balance *b, struct balance_step *s)
{
	s->gain_s = s->before > 0 ? b->limits.horizon_s * (1 - s->after / s->before) : 0;
	s->cost_s = move_cost(b, s->rank);
}

bool balance_worth(const struct balance *b, const struct balance_step *s)
{
	return s->gain_s >= b->limits.gain_min * b->limits.horizon_s && s->gain_s >= b->limits.worth * s->cost_s;
}

struct snapshot { /* of what moves change */
	struct machine *machines;
	struct place *hosts;
	struct cluster_rank *ranks;
};

static void *allocate(size_t size)
{
	void *p = malloc(size + 1);

	if (!p)
		abort();
	return p;
}

static void *copy(const void *list, size_t size)
{
	return memcpy(allocate(size), list, size);
}

static void snapshot_take(const struct cluster *c, struct snapshot *s)
{
	s->machines = copy(c->machines, c->machine_count * sizeof(*c->machines));
	s->hosts = copy(c->hosts, c->host_count * sizeof(*c->hosts));
	s->ranks = copy(c->ranks, c->rank_count * sizeof(*c->ranks));
}

static void snapshot_restore(struct cluster *c, const struct snapshot *s)
{
	memcpy(c->machines, s->machines, c->machine_count * sizeof(*c->machines));
	memcpy(c->hosts, s->hosts, c->host_count * sizeof(*c->hosts));
	memcpy(c->ranks, s->ranks, c->rank_count * sizeof(*c->ranks));
}

static void snapshot_free(struct snapshot *s)
{
	free(s->machines);
	free(s->hosts);
	free(s->ranks);
}

static void make_step(struct balance *b, const struct balance_step *s)
{
	cluster_moved(b->c, &b->c->ranks[s->rank], s->to);
	b->c->ranks[s->rank].movable = false; /* once a round */
}

static void figure(const struct balance *b, const struct policy *p, struct balance_step *s)
{
	s->from = b->c->ranks[s->rank].host;
	s->before = p->time(b);
	s->after = balance_after(b, p, s->rank, s->to);
	balance_weigh(b, s);
}

/* As far as each move still brings something: several equally slow machines get faster only together. */
static unsigned look_ahead(struct balance *b, const struct policy *p, struct balance_step *steps)
{
	unsigned n = 0;

	while (n < b->limits.moves) {
		struct balance_step *s = &steps[n];

		*s = (struct balance_step){ 0 };
		if (!p->next(b, s))
			break;
		figure(b, p, s);
		n++;
		if (s->after > (1 - step_least) * s->before)
			break;
		make_step(b, s);
	}
	return n;
}

/* So many of them, from the first on, as one; the cost is the last one's. */
static struct balance_step as_one(const struct balance *b, const struct balance_step *steps, unsigned n)
{
	struct balance_step all = steps[n - 1];

	all.before = steps[0].before;
	balance_weigh(b, &all);
	return all;
}

/* How many of them, from the first on, are best as one; 0: none is worth it. *most: what a plan has to bring, net of its cost. */
static unsigned best_part(const struct balance *b, const struct balance_step *steps, unsigned n, double *most)
{
	unsigned best = 0;
	double cost = 0;

	for (unsigned i = 0; i < n; i++) {
		struct balance_step all = as_one(b, steps, i + 1);

		all.cost_s = cost += steps[i].cost_s;
		if (!balance_worth(b, &all) || all.gain_s - cost <= *most)
			continue;
		*most = all.gain_s - cost;
		best = i + 1;
	}
	return best;
}

bool balance_best_from(const struct balance *b, const struct policy *p, size_t machine, double busiest, double most,
		       struct balance_step *out)
{
	bool found = false;

	for (size_t r = 0; r < b->c->rank_count; r++) {
		if (b->c->hosts[b->c->ranks[r].host].machine != machine)
			continue;
		for (size_t h = 0; h < b->c->host_count; h++) {
			double t;

			if (!balance_may(b, r, h) || balance_machine_time(b->c, b->c->hosts[h].machine) > busiest)
				continue;
			t = balance_after(b, p, r, h);
			if (t >= most)
				continue;
			most = t;
			*out = (struct balance_step){ .rank = r, .to = h };
			found = true;
		}
	}
	return found;
}

/* The first of the steps is given; the machine where it leads gives up what it can in return. Returns how many they are. */
static unsigned make_room(struct balance *b, const struct policy *p, struct balance_step *steps)
{
	size_t machine = b->c->hosts[steps->to].machine;
	unsigned n = 0;

	do {
		struct balance_step *s = &steps[n++];

		figure(b, p, s);
		make_step(b, s);
	} while (n < b->limits.moves && balance_best_from(b, p, machine, INFINITY, p->time(b), &steps[n]));
	return n;
}

/*
 * A heavy rank that should leave the slowest machine may find no room until others have left: what the next single move
 * brings does not tell.  So each rank there is tried on each machine, which gives ranks of its own away then.  *most as
 * for best_part.  Returns how many moves, in steps; 0: none is worth it.
 */
static unsigned exchange(struct balance *b, const struct policy *p, struct balance_step *steps, double *most)
{
	struct balance_step *tried = allocate(b->limits.moves * sizeof(*steps));
	size_t from = balance_slowest(b->c);
	struct snapshot before;
	unsigned best = 0;

	snapshot_take(b->c, &before);
	for (size_t r = 0; r < b->c->rank_count; r++) {
		if (b->c->hosts[b->c->ranks[r].host].machine != from)
			continue;
		for (size_t h = 0; h < b->c->host_count; h++) {
			unsigned n;

			if (!balance_may(b, r, h))
				continue;
			tried[0] = (struct balance_step){ .rank = r, .to = h };
			n = best_part(b, tried, make_room(b, p, tried), most);
			snapshot_restore(b->c, &before);
			if (n < 2) /* one alone the policy has seen itself */
				continue;
			best = n;
			memcpy(steps, tried, n * sizeof(*steps));
		}
	}
	snapshot_free(&before);
	free(tried);
	return best;
}

/* Each bears what all of them bring. */
static void tie(const struct balance *b, struct balance_step *steps, unsigned n)
{
	struct balance_step all = as_one(b, steps, n);

	for (unsigned i = 0; i < n; i++) {
		steps[i].before = all.before;
		steps[i].after = all.after;
		steps[i].gain_s = all.gain_s;
		steps[i].together = n;
	}
}

/* What is best of what both ways of looking find. 0: nothing is worth it; then *n steps, which the first way found. */
static unsigned best_plan(struct balance *b, const struct policy *p, struct balance_step *steps, unsigned *n)
{
	struct balance_step *other = allocate(b->limits.moves * sizeof(*steps));
	struct snapshot before;
	unsigned best, more = 0;
	double most = 0;

	snapshot_take(b->c, &before);
	*n = look_ahead(b, p, steps);
	snapshot_restore(b->c, &before);
	snapshot_free(&before);
	best = best_part(b, steps, *n, &most);
	if (p->exchanges && b->c->rank_count * b->c->host_count <= BALANCE_EXCHANGES)
		more = exchange(b, p, other, &most);
	if (more) {
		tie(b, other, more);
		memcpy(steps, other, more * sizeof(*steps));
		*n = best = more;
	}
	free(other);
	return best;
}

/* A round that saves little: one look may be wrong, several that find it in a row are not. So many moves are asked. */
static bool sure_enough(const struct balance *b, const struct balance_step *steps, unsigned n)
{
	bool sure = n && as_one(b, steps, n).gain_s >= b->limits.gain_min * b->limits.horizon_s;

	*b->found = n ? *b->found + 1 : 0;
	sure |= *b->found > b->limits.again;
	if (sure)
		*b->found = 0;
	return sure;
}

unsigned balance_plan(struct balance *b, const struct policy *p, struct balance_step *steps,
		      struct balance_step *rejected, bool *has_rejected)
{
	struct balance wide = *b;
	unsigned n, best;

	if (b->found)
		wide.limits.gain_min = b->limits.again_min;
	best = best_plan(&wide, p, steps, &n);
	if (b->found && !sure_enough(b, steps, best))
		best = 0;
	for (unsigned i = 0; i < best; i++)
		make_step(b, &steps[i]);
	*has_rejected = !best && n;
	if (*has_rejected)
		*rejected = steps[0];
	return best;
}
