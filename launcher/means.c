/* SPDX-License-Identifier: MIT */
#include "means.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MEANS_LOOKS = 5 }; /* older ones count less and less */

struct mean *means_of(struct means *all, uint32_t member)
{
	struct mean *list;

	for (size_t i = 0; i < all->count; i++)
		if (all->list[i].member == member)
			return &all->list[i];
	list = realloc(all->list, (all->count + 1) * sizeof(*list));
	if (!list)
		abort();
	all->list = list;
	list[all->count] = (struct mean){ .member = member };
	return &list[all->count++];
}

void means_clear(struct means *all)
{
	free(all->list);
	*all = (struct means){ 0 };
}

/* Forked children, of which there may be very many, are left as they are; so are ranks that have ended. */
static bool counts(const Ms__Rank *r)
{
	return !r->child && strcmp(r->state, "ended");
}

/* 0: not known. */
static double share(const struct mean *m)
{
	return m->count ? m->sum / m->count : 0;
}

/* What was seen on another host does not count. */
static struct mean *mean_here(struct means *all, const Ms__Rank *r)
{
	struct mean *m = means_of(all, r->member);

	if (strcmp(m->host, r->host)) {
		snprintf(m->host, sizeof(m->host), "%.255s", r->host);
		m->before = share(m);
		m->sum = m->count = 0;
	}
	return m;
}

static void add(struct mean *m, double seen)
{
	if (m->count == MEANS_LOOKS) {
		m->sum *= (MEANS_LOOKS - 1.0) / m->count;
		m->count--;
	}
	m->sum += seen;
	m->count++;
}

void means_note(struct means *all, const Ms__PsReply *p)
{
	double known = 0, rest = 1, total;
	size_t ranks = 0;

	for (size_t i = 0; i < p->n_ranks; i++)
		ranks += counts(p->ranks[i]);
	/* Of ranks without a figure the share is as it was, or taken to be as everyone's. */
	for (size_t i = 0; i < p->n_ranks; i++) {
		const struct mean *m = counts(p->ranks[i]) ? mean_here(all, p->ranks[i]) : NULL;

		if (m && p->ranks[i]->load >= 0)
			known += p->ranks[i]->load;
		else if (m)
			rest -= m->count ? share(m) : m->before > 0 ? m->before : 1.0 / (double)ranks;
	}
	if (known <= 0 || rest <= 0)
		return;
	total = known / rest;
	for (size_t i = 0; i < p->n_ranks; i++) {
		struct mean *m = counts(p->ranks[i]) ? means_of(all, p->ranks[i]->member) : NULL;

		if (m && p->ranks[i]->load >= 0)
			add(m, p->ranks[i]->load / total);
		if (m)
			p->ranks[i]->load = m->count ? share(m) * total : -1;
	}
}
