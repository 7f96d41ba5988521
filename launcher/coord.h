/* SPDX-License-Identifier: MIT */
/* coord.h - what the parts of the coordinator share: one job, its hosts, ranks and moves. */
#ifndef LAUNCHER_COORD_H
#define LAUNCHER_COORD_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proto/link.h"
#include "proto/seal.h"
#include "proto/wire.h"

TAILQ_HEAD(host_list, host);
TAILQ_HEAD(rank_list, rank);
LIST_HEAD(move_list, move);
LIST_HEAD(census_list, census);
TAILQ_HEAD(master_list, master);
LIST_HEAD(abroad_list, abroad);

struct coord {
	struct event_base *base;
	struct event *stdin_ended;
	char job[80];
	char *launcher_exec; /* NULL: srun, in an allocation */
	char **launch_args;
	size_t launch_count;
	char *iface;
	uint16_t port_low, port_high;
	struct allocation *allocation; /* owned; NULL: we are in none of Slurm's */
	uint8_t secret[SEAL_SECRET];
	char dir[4096];
	int dir_records;     /* records.jsonl */
	int dir_journal;     /* journal.jsonl; -1: it could not be written, so no coordinator comes after us */
	bool records_failed; /* the last line could not be written */
	int kept_records;    /* MSOCK_RECORDS: the same lines, for good; -1: not asked for */
	const char *fault;   /* MSOCK_FAULT or "" */
	uint32_t ip;         /* as hosts are told; 127.0.0.1 if all are local */
	uint32_t listen_ip;
	uint16_t port;
	struct host_list hosts;
	struct master_list masters; /* address servers */
	struct rank_list ranks;     /* by order of arrival */
	struct move_list moves;
	struct census_list censuses;
	char card[MS_CARD_MAX];          /* of this job, for others */
	uint8_t abroad_key[SEAL_SECRET]; /* the card's */
	struct abroad_list abroads;      /* jobs that it is joined with */
	struct guest *guests;            /* their members; owned, grows only: a name is never given twice */
	size_t guest_count;
	uint32_t children, children_kept; /* forked children have had numbers below; in the journal */
	uint64_t requests;                /* numbers of pings and censuses */
	bool secret_given;                /* by mpiexec: it starts us again if we are killed */
	bool again; /* the coordinator before us was killed: what there is of the job is found, not made */
	bool last;  /* none comes after us */
	bool over;  /* mpiexec ended before we knew everything: the end waits for that */
	bool ready, ending;
};

/* Kill and clean everything, and end. Does not return. */
void coord_end(struct coord *c, int code) __attribute__((noreturn));
/* Before `ready`: one line to mpiexec, then coord_end. */
void coord_fail(struct coord *c, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
/* Called whenever something that start-up waits for has come. */
void coord_check_ready(struct coord *c);

#endif
