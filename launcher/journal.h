/* SPDX-License-Identifier: MIT */
/*
 * journal.h - what a coordinator that is started again has to find in the job's directory, besides the records of
 * moves: hosts, members, ends, and the moves that were asked for.
 *
 * A line is in journal.jsonl before anybody else hears of what it tells.  Nothing is taken back; the last line counts.
 *   {"host", "ip", "port", "local", "says"}   its daemon is up      {"host", "gone"}    lost or dropped
 *   {"member", "host", "virtual_ip"}          it is to be started   {"member", "ended", "lost"}
 *   {"move", "member", "from", "to", "id", "timeout_ms"}            it has that number
 */
#ifndef LAUNCHER_JOURNAL_H
#define LAUNCHER_JOURNAL_H

#include "coord.h"
#include "host.h"
#include "rank.h"

struct journal_move { /* a move that was asked for in the life of the coordinator before us */
	LIST_ENTRY(journal_move) entry;
	struct rank *rank;      /* borrowed */
	struct host *from, *to; /* borrowed */
	uint64_t m, id;         /* id: the tool's; 0: none */
	uint32_t timeout_ms;
	bool committed, mirror; /* by its record */
	char *reason;           /* owned; of the record; NULL: there is none, or it says COMMITTED */
	uint64_t image_bytes;
	uint32_t rounds;
};

LIST_HEAD(journal_moves, journal_move);

void journal_host(const struct host *h);
void journal_host_gone(const struct host *h);
void journal_member(const struct rank *r);
void journal_children(struct coord *c);
/* Others come and go without a line. */
void journal_child(struct rank *r);
void journal_ended(const struct rank *r);
/* id: the tool's. */
void journal_move(const struct rank *r, const struct host *to, uint64_t m, uint64_t id, uint32_t timeout_ms);

/* Fills in the job's hosts, ranks and outcomes from journal and records, and the list, the last move first. 0, or -1 with the reason. */
int journal_read(struct coord *c, struct journal_moves *moves, char *why, size_t size);

#endif
