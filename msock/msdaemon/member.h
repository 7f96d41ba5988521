/* SPDX-License-Identifier: MIT */
/* member.h - a process of the job at this daemon: its life, its control socket, its pump. */
#ifndef MSOCK_MSDAEMON_MEMBER_H
#define MSOCK_MSDAEMON_MEMBER_H

#include <sys/queue.h>

#include "msdaemon/daemon.h"
#include "msdaemon/packets.h"
#include "msdaemon/pump.h"
#include "msdaemon/seat.h"

/*
 *  RUNNING --msock_init--> JOINED --MoveBegin--> LEAVING --record--> LEFT
 *                            ^  ^--- aborted -------'
 *                            '------ record ---- COMING (at the target)
 */
enum member_state {
	MEMBER_RUNNING, /* started; has not called msock_init, cannot be moved */
	MEMBER_JOINED,
	MEMBER_LEAVING, /* source of a move that is not decided */
	MEMBER_COMING,  /* target of one */
	MEMBER_LEFT,    /* committed elsewhere; in daemon.gone until its process is reaped */
};

STAILQ_HEAD(held_list, held);
struct held { /* a relink message that waits until the move is decided, or the word of a member's end */
	STAILQ_ENTRY(held) next;
	bool ended; /* `from` has ended, with `status` */
	int status;
	uint32_t from;
	size_t size;
	uint8_t bytes[];
};

struct member_arrival { /* what the coordinator was told of the last move to here */
	uint64_t m;
	bool resumed, relinked;
	uint64_t resumed_ns, relinked_ns;
	uint32_t drained, mirrored;
};

struct member_peer { /* bytes exchanged with another member over open streams */
	uint32_t id;
	uint64_t sent, taken;
};

struct member {
	LIST_ENTRY(member) entry;
	struct daemon *d; /* borrowed */
	uint32_t id;
	enum member_state state;
	pid_t pid;      /* outer, our child; 0: none */
	pid_t own_pid;  /* as it sees itself */
	pid_t init_pid; /* of its namespace after a move; 0: none */
	int alive_fd;   /* closing it ends that namespace; -1: none */
	uint32_t virtual_ip;
	uint16_t data_port; /* 0: not serving */
	bool serving_asked; /* it waits for SERVING_OK */
	uint8_t cookie[MS_TOKEN];
	uint64_t m;              /* last move number known */
	int pmi_fd;              /* -1: none */
	struct packets *control; /* NULL: closed */
	struct pump *pump;
	struct departure *departure; /* LEAVING */
	struct arrival *arrival;     /* COMING */
	struct member_arrival arrived;
	bool holding; /* relink messages wait */
	struct held_list held;
	unsigned held_count;
	bool exited; /* reaped; the report waits for a move's record */
	int status;
	bool ours; /* we have made its process, and reap it; not so a forked child where it was forked */
	struct event *leave_timer; /* LEFT: the process must end by then */
	uint32_t streams, mirrors; /* as last told */
	struct member_peer *peers; /* as last told, one for each other member; owned */
	size_t peer_count;
	struct seat seat;
	Ms__Relay **last; /* what it has left to be said when it has ended; owned */
	size_t last_count;
	struct kin *kin; /* owned; its children, and whose child it is; NULL: it has forked none */
	double cpu_s;    /* at the last sample; negative: none was taken here */
	double before_s; /* processor time that it had used when it came here */
};

struct member *member_create(struct daemon *d, uint32_t id, enum member_state state);
/* Closes everything; the process must be reaped or not exist. */
void member_destroy(struct member *m);
/* The one that lives here, comes, or leaves; NULL if there is none. */
struct member *member_find(struct daemon *d, uint32_t id);
/* The only place where the state changes. */
void member_set_state(struct member *m, enum member_state state, const char *why);

/* Control socket; returns the member's end. -1 with errno. */
int member_control_open(struct member *m);
/* A child was reaped; false if it is no member's. */
bool member_reaped(struct daemon *d, pid_t pid, int status);
/* Kill process and namespace. */
void member_kill(struct member *m);
/* A process that is not ours is gone, or another program. */
void member_lost(struct member *m);
/* A child that got this name has ended before it knew. */
void member_unborn(struct daemon *d, uint32_t id);
/* It lives elsewhere now: its process must end soon. */
void member_leave(struct member *m);
/* Tell the coordinator how it ended, and forget it. Waits while a move is undecided. */
void member_report_exit(struct member *m);

/* A relink message for it: given to it or held. */
void member_relay(struct member *m, uint32_t from, const void *bytes, size_t size);
/* Stop holding. deliver false: they are routed anew. */
void member_release_held(struct member *m, bool deliver);

void member_signal(struct member *m, int signo);
/* What a member that has ended has left to be said: also to one that is coming, when it is here. */
void member_last_word(struct daemon *d, const Ms__Relay *r);
/* Somebody else has ended: tell all here, those that are coming when they are here. */
void member_ended_elsewhere(struct daemon *d, uint32_t id, int status);

#endif
