/* SPDX-License-Identifier: MIT */
/*
 * mini_daemon.h - msdaemon, master and coordinator of a test in one loop: it
 * relays, looks up, and moves its members about at random, mirrors included.
 */
#ifndef TESTS_MSOCK_MINI_DAEMON_H
#define TESTS_MSOCK_MINI_DAEMON_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { MINI_MEMBERS = 8, MINI_MIRRORS = 16384 };

struct mini_settings {
	unsigned members;
	unsigned pause_ms;     /* mean time between two moves of a member */
	unsigned drop_percent; /* of the relink messages */
	unsigned commits;      /* percent of moves */
	unsigned cuts;         /* how often the link to every second mirror is broken */
	int via;               /* enum ms_via, or -1: by turns */
	const char *msmirror;  /* path; NULL: no mirrors */
	uint64_t seed;
};

struct mini_counts {
	unsigned committed, aborted, failed, mirrors, mirrored_legs, drained_legs, relinked, relays, raced;
};

/* Before the members are forked: control sockets. */
void mini_create(const struct mini_settings *settings);
int mini_member_fd(unsigned member); /* the member's end */
void mini_in_child(unsigned member); /* close all the others */
void mini_in_parent(void);

/* Serve until all control sockets are closed by the members. `moving` is asked whether to begin moves. */
void mini_serve(bool (*moving)(void));

const struct mini_counts *mini_counts(void);

/* Mirrors that have not ended. */
unsigned mini_mirrors_left(void);

/* All mirrors have ended by themselves? Waits a bounded time. */
bool mini_mirrors_gone(void);

#endif
