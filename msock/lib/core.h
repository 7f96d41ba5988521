/* SPDX-License-Identifier: MIT */
/*
 * core.h - what the process is: its names and places, and the one lock.
 */
#ifndef MSOCK_LIB_CORE_H
#define MSOCK_LIB_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/lock.h"
#include "lib/stream.h"
#include "proto/wire.h"

enum { CORE_NAME = 256 };

struct core {
	struct ms_lock lock;
	bool on;     /* between msock_init and msock_finalize */
	bool member; /* has an msdaemon: may move */
	bool kin;    /* a member's forked child (kin.h): `on` is false then, `member` true when it is one of its own */
	bool check;  /* MSOCK_CHECK: look at the invariants whenever the lock is given back */
	uint32_t id; /* MS_MEMBER(world, rank) */
	char id_text[24]; /* "WORLD.RANK" */
	char job[CORE_NAME], host[CORE_NAME];
	char card[MS_CARD_MAX];       /* of the job, for others; "": none */
	uint32_t real_ip, virtual_ip; /* host order */
	uint16_t port_low, port_high; /* for the data listener; 0 0: any */
	uint16_t data_port;
	uint8_t cookie[MS_TOKEN]; /* of the data listener: who shows it was told our place */
	int kick_signal;
	uint64_t next_stream;
	struct stream_self self;   /* of all streams but: */
	struct stream_self local;  /* of those of the member with itself: they are drained, whatever the way */
	uint64_t relinks, carried; /* counted for M_STATS */
	uint64_t moves, frozen_ns; /* committed moves, and the time that all threads were parked in them */
};

extern struct core core;

/* The program's TCP sockets are known to the library. */
static inline bool core_here(void)
{
	return core.on || core.kin;
}

/* An id for a new stream, unique in the job. */
uint64_t core_stream_id(void);

/* One for a stream to another job's member, whose ids we do not know: 54 random bits, beside those of any stream within a job. */
uint64_t core_stream_id_abroad(void);

/* Put a descriptor of the library out of the way of small numbers; returns the new number, or the old. */
int core_raise_fd(int fd);

/* Note that a descriptor is the library's own: hooks.h tells. */
void core_own_fd(int fd, bool own);
int core_next_own_fd(int from);

/* Threads of the application come and go through these; see doc/internals.md, "Who runs the library". */
void core_enter(void);
void core_leave(void);

#endif
