/* SPDX-License-Identifier: MIT */
/* rank.h - a member of the job as the coordinator knows it: its stub, its place, its end. */
#ifndef LAUNCHER_RANK_H
#define LAUNCHER_RANK_H

#include "coord.h"
#include "host.h"

struct rank {
	TAILQ_ENTRY(rank) entry;
	struct coord *c; /* borrowed */
	uint32_t id;
	struct host *host; /* borrowed: the place by the last record */
	struct link *stub; /* NULL: gone */
	uint32_t virtual_ip;
	int32_t pid;
	bool child;      /* forked by another: it has no stub and no address of its own */
	uint32_t parent; /* by that member */
	struct host
		*standin; /* borrowed: where its number is kept since it has moved; NULL: it has not, or that is gone */
	bool journaled;   /* a child that has been asked to move */
	Ms__Relay **last; /* borrowed, while its end is told: what it has left to be said */
	size_t last_count;
	bool joined; /* it called msock_init */
	bool ended;
	bool here;   /* a daemon has it, or was told to start it */
	char *lost;  /* owned; it went with its host: what its stub is told */
	bool doomed; /* its stub is gone: it is to be killed wherever it is */
	int32_t status;
	uint64_t m;        /* last number given out */
	uint64_t decided;  /* last number with a record */
	bool *outcomes;    /* by number: COMMITTED? */
	uint32_t moves;    /* committed ones */
	struct move *move; /* not yet resumed; NULL: none */
	uint64_t signals;  /* that came while it moved; bit n-1 */
	uint16_t port;     /* data port; 0: it has no listener */
	uint8_t cookie[MS_TOKEN];
	uint32_t ip;                /* real address of the listener */
	double load;                /* processors in use, by the last sample; negative: not known */
	uint64_t rss_bytes;         /* by the last sample */
	struct question *questions; /* that wait for the move's record */
};

struct rank *rank_find(struct coord *c, uint32_t id);
struct rank *rank_create(struct coord *c, uint32_t id, uint32_t virtual_ip, struct host *host, struct link *stub);
/* One that is a member already. */
struct rank *rank_create_child(struct host *h, uint32_t id, uint32_t parent, int32_t pid);
/* A daemon wants a name for a forked child. */
void rank_born(struct host *h, const Ms__Born *b);
/* It has ended; lost: with its host, in words. */
void rank_end(struct rank *r, int32_t status, const char *lost);
void rank_kill(struct rank *r);
/* By the records: move m was decided, and the rank lives there since. */
void rank_note_outcome(struct rank *r, uint64_t m, struct host *committed_to);
/* A process called on coord.sock as a stub. */
void rank_stub_hello(struct coord *c, struct link *l);
void rank_from_daemon(struct host *h, const Ms__Msg *msg);
/* The stand-in of this child is there, by what the coordinator before us had decided. */
void rank_standin_found(struct host *h, uint32_t member);
/* Nobody is to hear how a forked child has ended. */
void rank_child_over(struct rank *r);
/* One of its children lives elsewhere; NULL: none does. */
struct rank *rank_child_elsewhere(const struct rank *r);
void rank_serving(struct coord *c, const Ms__Serving *s);
/* Questions of daemons and of the master: answered when no move is undecided. */
void rank_where(struct host *h, const Ms__Where *w);
void rank_lookup(struct coord *c, const Ms__Lookup *l);
/* A question of another job for one of its members, which is called `asker` here (0: no name was left). */
void rank_lookup_abroad(struct coord *c, const Ms__LookupAbroad *l, struct link *from, uint32_t asker);
/* That job's link is gone. */
void rank_asker_gone(struct coord *c, const struct link *asker);
/* The address server of a subnet is gone with its questions: the next one counts anew. */
void rank_master_gone(struct coord *c, uint32_t net, unsigned bits);
/* A move of it has its record; committed_to NULL: it stays. */
void rank_decided(struct rank *r, uint64_t m, struct host *committed_to, const Ms__WantCommit *w);
void rank_host_lost(struct host *h, const char *why);

#endif
