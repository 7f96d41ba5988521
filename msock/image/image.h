/* SPDX-License-Identifier: MIT */
/*
 * image.h - capture a process and bring it up elsewhere.
 *
 * Source side: freestanding code that runs on the agent, a raw-cloned thread
 * of the member that shares its memory but owns no TLS: raw system calls only,
 * no libc call that locks, allocates, or sets errno.  Target side: msrestore,
 * a freestanding program at an odd fixed address; image_spawn starts it.
 *
 * Order and reasons: doc/restore.md.  Format of the image: image_format.h.
 */
#ifndef MSOCK_IMAGE_IMAGE_H
#define MSOCK_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

#include "proto/steps.h"

enum { IMAGE_WHY = 256 };       /* bytes of a reason, with its NUL */
enum { IMAGE_FDS_MAX = 65536 }; /* descriptors of a process */
enum { IMAGE_CPU_WORDS = 16 };  /* 64 processors each, as in a cpu_set_t */

/* What the library tells the capture about itself.  All pointers are borrowed for the call. */
struct image_source {
	int sock;          /* connection to the restorer, blocking */
	uint64_t hash_key; /* for the sum of page hashes */
	uint64_t m;
	const int *own_fds; /* descriptors that the library makes again by itself: left out */
	size_t own_count;
	int control_fd;  /* the restorer puts its own control socket under this number */
	int listener_fd; /* ... and a new listener of the member's data port under this; -1 if none */
	struct {
		uint64_t dev, ino;
	} channel[4];                                  /* pipes and socket of stdin, stdout, stderr, PMI; 0 0: none */
	void (*resume)(const void *msg, size_t bytes); /* called once at the target, MS_D_RESUME's bytes, in the main
					 thread, its FS set, all signals blocked, before any thread goes on */
	bool (*owns)(int fd); /* or NULL: a socket that the library makes again too; from any thread */
	/* Or NULL.  In the freeze: one of the process's epoll sets watches a descriptor that is left out, which the library
	   will have watched again.  0 or -errno. */
	int (*watched)(int epoll, int fd, const struct epoll_event *event);
	const int *fds; /* in the freeze: all descriptors that there are; NULL: not known */
	size_t fd_count;
	uint32_t pairs;                 /* of unix sockets that resume() may ask for (image_pair) */
	bool checked;                   /* image_check has just said yes; descriptors may come and go since */
	uint64_t home[IMAGE_CPU_WORDS]; /* processors that the job's binding gave the process; none: not bound */
	const char *fault;              /* name of a fault point or "" */
	bool stop_and_copy;             /* send nothing before the freeze */
	bool pack_never, pack_always;   /* neither: compress when it pays */
	bool compare;                   /* all memory in the freeze, page by page */
	uint32_t max_freeze_us;         /* give up rather than freeze for longer, as predicted; 0: not said */
	uint64_t limit;                 /* bytes/s before the freeze; 0: none */
	/* Told of each step, on the capture's stack; NULL: nobody is. */
	void (*step)(enum ms_step step, const uint64_t figures[MS_STEP_FIGURES]);
};

struct image_stats {
	uint64_t bytes;           /* sent */
	uint64_t sum;             /* of the page hashes */
	uint64_t freeze_start_ns; /* CLOCK_MONOTONIC of the member */
	uint32_t rounds;
	uint64_t pages;        /* whose content was sent, as often as it was */
	uint64_t zero_pages;   /* told to be zeros, or left out since they are */
	uint64_t backed_pages; /* left to the target's own copy of a file */
	uint64_t packed_bytes; /* of the bytes sent: compressed */
	uint64_t saved_bytes;  /* by compression */
};

/* What a move would take, from a trial. */
struct image_forecast {
	uint64_t bytes;      /* of pages */
	uint64_t rate;       /* bytes/s to the target */
	uint64_t dirty_rate; /* bytes/s that the process writes to; UINT64_MAX: cannot be told, stop and copy */
	uint64_t freeze_ns, total_ns;
};

/*
 * The freeze.  The library's kick handler calls image_park(uc) with the third
 * argument of the handler, all signals blocked, holding no lock; it returns when
 * the thread may go on, be it here (image_thaw) or at the target, and the handler
 * then returns too.  At the target resume() has run before.  image_freeze kicks every thread of
 * the process but the caller with `signal` until all are parked, or time is over.
 */
void image_park(void *ucontext);
bool image_freezing(void); /* true from image_freeze until image_thaw: the handler must park */
int image_freeze(int signal, int agent_tid, uint64_t timeout_ns, char why[IMAGE_WHY]);
void image_thaw(void);

/*
 * The same for a moment, to change something below the threads: nothing is
 * captured, what image_send_early keeps is untouched.  ours() says which threads
 * are the library's own and run on.  image_unpause in any case.  Never while
 * the other is under way.
 */
int image_pause(int signal, bool (*ours)(int tid), uint64_t timeout_ns, char why[IMAGE_WHY]);
void image_unpause(void);

/* In a forked child: whatever the parent had under way, nothing of it is here. */
void image_forked(void);

/* Ask whether the process could be captured now: 0, or -1 and the culprit in `why`. Runs unfrozen. */
int image_check(const struct image_source *src, char why[IMAGE_WHY]);

/* Before the freeze: send the memory layout and what may be sent early. 0 or -1. */
int image_send_early(const struct image_source *src, char why[IMAGE_WHY]);

/* After it, while something else still keeps the freeze up: send what was written meanwhile, if it is much. 0 or -1. */
int image_send_more(char why[IMAGE_WHY]);

/* Instead of all that: try what can be tried without a freeze. The restorer is of no use afterwards. 0 or -1. */
int image_forecast(const struct image_source *src, struct image_forecast *f, char why[IMAGE_WHY]);

/* The move is given up and there was no image_send: let go of what image_send_early keeps. Harmless otherwise.
 * image_thaw does it too. */
void image_cancel(void);

/* After image_freeze: send the rest and the sum. 0 or -1; nothing of the process is changed by either. */
int image_send(const struct image_source *src, struct image_stats *stats, char why[IMAGE_WHY]);

/* At the target: ns that no thread ran, by the member's own clock; in resume() it grows. */
uint64_t image_frozen_ns(void);

/*
 * In resume(): a pair of unix stream sockets that was made before the freeze, close-on-exec, and the inode of pair[0];
 * pair[1] has SO_OOBINLINE.  The numbers are lent: the caller puts duplicates where it wants them.  False: there is
 * none left.  image_pairs_lent tells all the numbers, first to end - 1, to be closed when the threads run.
 */
bool image_pair(int pair[2], uint64_t *ino);
bool image_pairs_lent(int *first, int *end);

/*
 * Target's msdaemon (ordinary libc code, image_spawn.c).  Starts msrestore in
 * its namespaces with the given control socket (the member's end of a
 * SEQPACKET pair, first packet MS_D_RESTORE already queued or to come), as pid
 * `tid` of a new pid namespace. *pid is the outer pid, a child of the caller;
 * *alive_fd: the member's init lives until this is closed; *init_pid is to be
 * reaped after that.  Returns 0, or -1 with the reason.
 */
struct image_place {
	int mode;
	char says[128];
}; /* what image_probe found; says: for msrank-ps */
enum image_mode { IMAGE_MODE_FULL, IMAGE_MODE_NO_TIME, IMAGE_MODE_NO_PROC, IMAGE_MODE_PLAIN };
int image_probe(const char *msrestore_path, struct image_place *place);
int image_spawn(const struct image_place *place, const char *msrestore_path, int control_fd, pid_t tid, pid_t *pid,
		pid_t *init_pid, int *alive_fd, char why[IMAGE_WHY]);

#endif
