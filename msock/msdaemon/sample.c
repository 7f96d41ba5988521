/* SPDX-License-Identifier: MIT */
#include "msdaemon/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "msdaemon/figures.h"
#include "msdaemon/member.h"
#include "proto/log.h"

static struct {
	struct figures host;
	double before_s; /* monotonic, of the sample before */
	struct event *timer;
} sampling;

bool sample_process(const struct member *m, Ms__Rank *r)
{
	unsigned long long user = 0, sys = 0;
	char path[64], line[1024];
	long pages = 0;
	char *at;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)m->pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	at = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	fclose(f);
	if (!at ||
	    sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %*u %*u %ld",
		   &user, &sys, &pages) != 3)
		return false;
	r->cpu_s = m->before_s + (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
	r->rss_bytes = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
	return true;
}

Ms__Rank **sample_ranks(const struct daemon *d)
{
	const struct member *m;
	Ms__Rank **list, *each;
	size_t n = 0;

	LIST_FOREACH(m, &d->members, entry)
	n++;
	list = malloc((n + 1) * (sizeof(*list) + sizeof(*each)));
	if (!list)
		log_die("out of memory");
	each = (Ms__Rank *)(list + n + 1);
	for (size_t i = 0; i < n; i++) {
		ms__rank__init(&each[i]);
		list[i] = &each[i];
	}
	return list;
}

/* One member's figures; its load needs a sample before that was taken here. */
static void fill_rank(struct member *m, double passed_s, Ms__Rank *r)
{
	double before = m->cpu_s;

	r->member = m->id;
	r->pid = m->pid;
	r->load = -1;
	if (!sample_process(m, r))
		return;
	m->cpu_s = r->cpu_s;
	if (before >= 0 && passed_s > 0 && r->cpu_s >= before)
		r->load = (r->cpu_s - before) / passed_s;
}

static void take(struct daemon *d)
{
	Ms__Figures host = MS__FIGURES__INIT;
	Ms__Sample s = MS__SAMPLE__INIT;
	const struct figures *f = &sampling.host;
	Ms__Rank **list = sample_ranks(d);
	struct member *m;
	double passed;

	figures_update(&sampling.host, "");
	passed = f->at_s - sampling.before_s;
	sampling.before_s = f->at_s;
	LIST_FOREACH(m, &d->members, entry)
	{
		if (m->state == MEMBER_COMING || m->pid <= 0)
			continue;
		fill_rank(m, passed, list[s.n_ranks++]);
	}
	s.ranks = list;
	host.machine = (char *)f->machine;
	host.cores = f->cores;
	host.busy = f->busy;
	host.runnable = f->runnable;
	host.pressure = f->pressure;
	host.memory_bytes = f->memory_bytes;
	host.free_bytes = f->free_bytes;
	s.host = &host;
	link_send(d->coordinator, LINK_MSG(SAMPLE, sample, &s));
	free(list);
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
	take(arg);
}

void sample_start(struct daemon *d)
{
	struct timeval every = { SAMPLE_S, 0 };

	if (sampling.timer)
		return;
	figures_open(&sampling.host, "");
	sampling.timer = event_new(d->base, -1, EV_PERSIST, timer_cb, d);
	event_add(sampling.timer, &every);
	take(d);
}
