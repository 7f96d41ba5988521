/* SPDX-License-Identifier: MIT */
#include "cluster.h"

#include <stdlib.h>
#include <string.h>

enum { CLUSTER_BUSY_SAMPLES = 3, CLUSTER_SPARE_BYTES = 32 << 20 };

/* The mean of the last samples that tell something; negative: none does. */
static double lately(const double *list, size_t count)
{
	double sum = 0;
	unsigned n = 0;

	for (size_t i = count > CLUSTER_BUSY_SAMPLES ? count - CLUSTER_BUSY_SAMPLES : 0; i < count; i++) {
		if (list[i] < 0)
			continue;
		sum += list[i];
		n++;
	}
	return n ? sum / n : -1;
}

/* The machine of a host; one that has told nothing is a machine of its own. */
static size_t machine_of(struct cluster *c, const Ms__HostState *h)
{
	const char *name = h->now && *h->now->machine ? h->now->machine : h->name;
	struct machine *m;
	double busy = lately(h->busy, h->n_busy);
	size_t i = 0;

	while (i < c->machine_count && strcmp(c->machines[i].name, name))
		i++;
	m = &c->machines[i];
	if (i == c->machine_count) {
		m->name = name;
		c->machine_count++;
	}
	if (h->now) {
		m->cores = h->now->cores;
		m->free_bytes = h->now->free_bytes;
	}
	if (busy >= 0) {
		m->busy_sum += busy;
		m->told++;
	}
	return i;
}

static bool has_child(const Ms__PsReply *p, uint32_t member)
{
	for (size_t i = 0; i < p->n_ranks; i++)
		if (p->ranks[i]->child && p->ranks[i]->parent == member && strcmp(p->ranks[i]->state, "ended"))
			return true;
	return false;
}

static void read_ranks(const Ms__PsReply *p, struct cluster *c)
{
	for (size_t i = 0; i < p->n_ranks; i++) {
		const Ms__Rank *r = p->ranks[i];
		long host = cluster_host(c, r->host);

		if (host < 0 || !strcmp(r->state, "ended"))
			continue;
		c->ranks[c->rank_count++] = (struct cluster_rank){
			.member = r->member,
			.host = (size_t)host,
			.load = r->child && r->load < 0 ? 0 : r->load,
			.bytes = r->rss_bytes,
			.moves = r->moves,
			.movable = r->movable && !r->child && !has_child(p, r->member),
			.told = r,
		};
		c->hosts[host].ranks++;
		c->machines[c->hosts[host].machine].ranks++;
	}
}

/* What is busy and not ours; of ranks without a figure nothing is known. */
static void find_foreign(struct cluster *c)
{
	for (size_t i = 0; i < c->machine_count; i++) {
		struct machine *m = &c->machines[i];

		m->foreign = m->told ? m->busy_sum / m->told : 0;
		for (size_t k = 0; k < c->rank_count; k++)
			if (c->hosts[c->ranks[k].host].machine == i && c->ranks[k].load > 0)
				m->foreign -= c->ranks[k].load;
		if (m->foreign < 0)
			m->foreign = 0;
	}
}

void cluster_read(const Ms__PsReply *p, struct cluster *c)
{
	*c = (struct cluster){
		.machines = calloc(p->n_hosts + 1, sizeof(*c->machines)),
		.hosts = calloc(p->n_hosts + 1, sizeof(*c->hosts)),
		.ranks = calloc(p->n_ranks + 1, sizeof(*c->ranks)),
	};
	if (!c->machines || !c->hosts || !c->ranks)
		abort();
	for (size_t i = 0; i < p->n_hosts; i++) {
		struct place *h = &c->hosts[c->host_count];

		h->name = p->hosts[i]->name;
		h->up = p->hosts[i]->up;
		h->machine = machine_of(c, p->hosts[i]);
		c->host_count++;
	}
	read_ranks(p, c);
	find_foreign(c);
}

void cluster_clear(struct cluster *c)
{
	free(c->machines);
	free(c->hosts);
	free(c->ranks);
	*c = (struct cluster){ 0 };
}

long cluster_host(const struct cluster *c, const char *name)
{
	for (size_t i = 0; i < c->host_count; i++)
		if (!strcmp(c->hosts[i].name, name))
			return (long)i;
	return CLUSTER_NOWHERE;
}

bool cluster_fits(const struct cluster *c, const struct cluster_rank *r, size_t host)
{
	const struct machine *to = &c->machines[c->hosts[host].machine];

	/* While it moves within a machine it is there twice. */
	return to->cores <= 0 || to->free_bytes >= r->bytes + CLUSTER_SPARE_BYTES;
}

/* Load for each core with one rank more, a rank being a whole processor's work. */
static double crowd(const struct cluster *c, const struct cluster_rank *r, size_t host)
{
	const struct machine *to = &c->machines[c->hosts[host].machine];
	unsigned more = c->hosts[r->host].machine != c->hosts[host].machine;

	return (to->foreign + to->ranks + more) / (to->cores > 0 ? to->cores : 1);
}

long cluster_choose(const struct cluster *c, const struct cluster_rank *r, size_t leave, bool *short_of_memory)
{
	const double same = 0.1; /* of a core: less is noise */
	long best = CLUSTER_NOWHERE;
	double best_crowd = 0;

	*short_of_memory = false;
	for (size_t i = 0; i < c->host_count; i++) {
		double full;

		if (i == leave || !c->hosts[i].up)
			continue;
		if (!cluster_fits(c, r, i)) {
			*short_of_memory = true;
			continue;
		}
		full = crowd(c, r, i);
		if (best >= 0 && full > best_crowd + same)
			continue;
		if (best >= 0 && full > best_crowd - same && c->hosts[i].ranks >= c->hosts[best].ranks)
			continue;
		best = (long)i;
		best_crowd = full;
	}
	return best;
}

void cluster_moved(struct cluster *c, struct cluster_rank *r, size_t host)
{
	struct machine *from = &c->machines[c->hosts[r->host].machine], *to = &c->machines[c->hosts[host].machine];

	c->hosts[r->host].ranks--;
	c->hosts[host].ranks++;
	from->ranks--;
	to->ranks++;
	if (from != to) {
		from->free_bytes += r->bytes;
		to->free_bytes -= r->bytes < to->free_bytes ? r->bytes : to->free_bytes;
	}
	r->host = host;
	r->moves++;
}
