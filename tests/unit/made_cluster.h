/* SPDX-License-Identifier: MIT */
/* made_cluster.h - builds the coordinator's answer about a job that does not exist. */
#ifndef TESTS_MADE_CLUSTER_H
#define TESTS_MADE_CLUSTER_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "proto/control.pb-c.h"
#include "proto/wire.h"

enum { MADE_HOSTS = 16, MADE_RANKS = 64 };

struct made {
	Ms__PsReply reply;
	Ms__HostState hosts[MADE_HOSTS], *host_list[MADE_HOSTS];
	Ms__Figures figures[MADE_HOSTS];
	double busy[MADE_HOSTS][3];
	char names[MADE_HOSTS][16], machines[MADE_HOSTS][16];
	Ms__Rank ranks[MADE_RANKS], *rank_list[MADE_RANKS];
	Ms__Peer peers[MADE_RANKS][MADE_RANKS], *peer_list[MADE_RANKS][MADE_RANKS];
	size_t host_count, rank_count;
};

static inline void made_begin(struct made *m)
{
	memset(m, 0, sizeof(*m));
	ms__ps_reply__init(&m->reply);
}

static inline void made_busy(struct made *m, size_t host, double busy)
{
	for (int i = 0; i < 3; i++)
		m->busy[host][i] = busy;
	m->figures[host].busy = busy;
}

/* machine "m": one of its own. */
static inline void made_host(struct made *m, const char *machine, double cores, double busy, uint64_t free_bytes)
{
	size_t i = m->host_count++;

	ms__host_state__init(&m->hosts[i]);
	ms__figures__init(&m->figures[i]);
	snprintf(m->names[i], sizeof(m->names[i]), "h%zu", i);
	snprintf(m->machines[i], sizeof(m->machines[i]), "%.8s", machine);
	if (!strcmp(machine, "m"))
		snprintf(m->machines[i], sizeof(m->machines[i]), "m%zu", i);
	m->hosts[i].name = m->names[i];
	m->hosts[i].up = 1;
	m->hosts[i].now = &m->figures[i];
	m->hosts[i].busy = m->busy[i];
	m->hosts[i].n_busy = 3;
	m->figures[i].machine = m->machines[i];
	m->figures[i].cores = cores;
	m->figures[i].free_bytes = m->figures[i].memory_bytes = free_bytes;
	made_busy(m, i, busy);
	m->host_list[i] = &m->hosts[i];
}

static inline void made_rank(struct made *m, size_t host, double load, uint64_t bytes)
{
	size_t i = m->rank_count++;

	ms__rank__init(&m->ranks[i]);
	m->ranks[i].member = MS_MEMBER(0, i);
	m->ranks[i].host = m->names[host];
	m->ranks[i].state = (char *)"running";
	m->ranks[i].load = load;
	m->ranks[i].rss_bytes = bytes;
	m->ranks[i].movable = 1;
	m->rank_list[i] = &m->ranks[i];
}

/* Both ways. */
static inline void made_talk(struct made *m, size_t a, size_t b, uint64_t bytes)
{
	for (int way = 0; way < 2; way++) {
		size_t from = way ? b : a, to = way ? a : b, n = m->ranks[from].n_peers++;

		ms__peer__init(&m->peers[from][n]);
		m->peers[from][n].member = MS_MEMBER(0, to);
		m->peers[from][n].sent = m->peers[from][n].taken = bytes;
		m->peer_list[from][n] = &m->peers[from][n];
		m->ranks[from].peers = m->peer_list[from];
	}
}

static inline const Ms__PsReply *made_reply(struct made *m)
{
	m->reply.n_hosts = m->host_count;
	m->reply.hosts = m->host_list;
	m->reply.n_ranks = m->rank_count;
	m->reply.ranks = m->rank_list;
	return &m->reply;
}

#endif
