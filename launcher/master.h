/* SPDX-License-Identifier: MIT */
/*
 * master.h - the job's address servers, one for each virtual subnet: their
 * start, link and end.  One that ends is started again; it gets its table
 * from the daemons, which are told where it is now.
 */
#ifndef LAUNCHER_MASTER_H
#define LAUNCHER_MASTER_H

#include "coord.h"
#include "host.h"
#include "proto/conf.h"
#include "shell.h"

struct master {
	TAILQ_ENTRY(master) entry;
	struct coord *c;       /* borrowed */
	uint32_t net;          /* of the virtual subnet */
	unsigned bits;         /* of its mask */
	uint32_t given;        /* addresses given out */
	char name[32];         /* NET/BITS: how it names itself in its Hello */
	char where[CONF_HOST]; /* host that the configuration names, "": the launch host */
	struct shell shell;
	struct link *link; /* NULL: not up */
	uint32_t ip;
	uint16_t port;
	uint64_t started_ns;
	unsigned quick;      /* ends in a row that came soon after the start */
	struct event *again; /* the pause before the next start; NULL: never paused */
};

/* The address server of one more subnet. */
void master_add(struct coord *c, const struct conf_subnet *s);
void master_start_all(struct coord *c);
/* A caller that says it is one; false: it is none of ours. */
bool master_hello(struct coord *c, struct link *l, const Ms__Hello *hello);
/* Does a server run, or is one to run, on the host? */
bool master_is_on(const struct host *h);
bool master_all_up(const struct coord *c);
/* To the one that serves the address; lost when it is not up: it asks again for what it needs. */
void master_send(struct coord *c, uint32_t virtual_ip, const Ms__Msg *msg);
/* A virtual address that nobody has, of each subnet in turn. 0: there is none left. */
uint32_t master_address(struct coord *c);
/* Somebody has the address already: of a coordinator before us. */
void master_taken(struct coord *c, uint32_t virtual_ip);
/* A child has ended; false if it is no master's. */
bool master_reaped(struct coord *c, pid_t pid, int status);
/* The coordinator ends: tell all, and close their standard input. */
void master_end_all(struct coord *c);
/* Kill what still lives. */
void master_kill_all(struct coord *c);
/* List for Welcome; the caller frees it and nothing in it. */
Ms__Master *master_list(struct coord *c, size_t *count);

#endif
