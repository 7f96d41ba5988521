/* SPDX-License-Identifier: MIT */
/*
 * baggage.h - what a member takes along in its own memory.
 *
 * Threads note their own state in slots when they park; the agent notes that
 * of the process in the baggage, once all are parked.  Both are part of the
 * image, so the same code reads them at the target, or at the source if the
 * move is given up.
 */
#ifndef MSOCK_IMAGE_BAGGAGE_H
#define MSOCK_IMAGE_BAGGAGE_H

#include "image/image.h"
#include "image/image_entry.h"
#include "image/image_format.h"
#include "lib/sys.h"

struct image_context {
	uint64_t rbx, rbp, r12, r13, r14, r15, rsp, rip;
};

/* How the kernel is to run a thread; settings.c. */
struct image_settings {
	uint64_t affinity[IMAGE_CPU_WORDS];
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} sched; /* the kernel's sched_attr, its first version */
	int io_priority, death_signal;
};

enum image_slot_state {
	SLOT_TAKEN,  /* by a thread that is still filling it in */
	SLOT_PARKED, /* waits on the word */
	SLOT_DRAIN,  /* asked to take its pending signals; then it is parked again */
	SLOT_LEAVE,  /* may go on */
};

struct image_slot {
	uint32_t state; /* enum image_slot_state; futex word */
	int tid;
	bool main;
	void *frame; /* struct ucontext at the bottom of the kernel's signal frame */
	struct image_context context;
	uint64_t fs, gs;
	void *clear_tid;
	void *robust;
	uint64_t robust_size;
	uint64_t slack_ns;
	uint32_t *rseq; /* NULL: not registered */
	uint32_t rseq_size;
	char name[16];
	struct image_settings settings;
};

struct baggage_signal {
	int tid; /* 0: of the process */
	siginfo_t info;
};

struct baggage_timer {
	int id, signal, notify, tid, clock;
	bool fired;
	uint64_t value;
	struct itimerspec left;
};

enum baggage_file_kind {
	BAGGAGE_PATH,     /* regular file, directory, harmless device: opened again */
	BAGGAGE_CHANNEL,  /* one of the daemon's: extra is which */
	BAGGAGE_EVENTFD,  /* extra: count */
	BAGGAGE_TIMERFD,  /* extra: clock; timer, ticks */
	BAGGAGE_SIGNALFD, /* extra: mask */
	BAGGAGE_PIPE,     /* both ends are the process's own; content */
	BAGGAGE_UNLINKED, /* a regular file without a name; content */
	BAGGAGE_EPOLL,    /* watch */
	BAGGAGE_SOCKET,   /* one of a pair of unix sockets; extra: inode of the other, 0 if that is closed; content */
};

struct baggage_watch {
	int fd;
	struct epoll_event event;
};

enum baggage_lock_kind { LOCK_POSIX = 1, LOCK_FLOCK, LOCK_OFD };

struct baggage_lock {
	struct baggage_lock *next;
	uint8_t kind;
	bool write;
	int fd;
	uint64_t start, length; /* 0: to the end */
};

struct baggage_socket {
	int type, send_buffer, receive_buffer, credentials; /* credentials: SO_PASSCRED */
	uint8_t shut;                                       /* 1: for receiving, 2: for sending */
	struct timeval receive_limit, send_limit;
};

struct baggage_file {
	int fd, same_as; /* index of the first entry with the same description; its own if none */
	uint8_t kind;
	bool cloexec;
	bool reopened; /* another description of an end of a pipe than the first */
	int flags;     /* F_GETFL */
	int64_t offset;
	uint64_t dev, ino, extra;
	struct itimerspec timer;
	const char *path;
	void *content; /* of the first entry of an object */
	uint64_t content_size;
	uint32_t capacity, mode;
	int seals; /* of a memfd; -1: of none */
	struct baggage_socket *socket;
	struct baggage_watch *watch;
	uint32_t watches;
	int made[2]; /* at the target, while descriptors are put in place */
};

enum { BAGGAGE_LIMITS = 16, BAGGAGE_BLOBS = 64 };

struct baggage {
	uint64_t arena_size;
	uint64_t arena_used;

	int control_fd, listener_fd;
	int kick;
	void (*resume)(const void *msg, size_t bytes);

	struct ms_ksigaction action[64];
	struct itimerval itimer[3];
	struct baggage_timer *timers;
	uint32_t timer_count;
	uint64_t timers_stopped_ns;
	bool timers_stopped;
	struct baggage_signal *signals;
	uint32_t signal_count, signal_max;

	struct baggage_lock *locks;
	struct {
		void *at;
		uint64_t size;
	} blob[BAGGAGE_BLOBS]; /* mappings that go with the baggage */
	uint32_t blob_count;

	struct rlimit limit[BAGGAGE_LIMITS];
	struct baggage_file *files;
	uint32_t file_count;
	int file_max; /* highest number */
	const char *cwd;
	int umask;
	int filters; /* of seccomp; those of a container are here and there */
	unsigned long personality;
	int dumpable, no_new_privs, subreaper, no_huge;
	uint64_t online[IMAGE_CPU_WORDS];    /* the source's processors; none: not known */
	uint64_t home[IMAGE_CPU_WORDS];      /* those that the process was bound to there; none: it was not */
	int barriers;                        /* membarrier registrations */
	char core_filter[16], oom_score[16]; /* as /proc has them; "" if it does not say */
};

/* All there is in the member; in the library's own data. */
struct image_state {
	uint32_t freezing;
	uint32_t claimed; /* slots taken in this freeze */
	uint32_t parked;  /* slots that have been parked; futex word */
	uint32_t bounced; /* threads that were in the vdso and are to be kicked again */
	uint32_t left;    /* slots whose thread has gone on */
	uint64_t freeze_start_ns;
	uint64_t frozen_ns;
	bool arriving; /* in resume(): it goes on */
	uint64_t vdso, vdso_end;
	int kick;
	bool second_on;                /* the second signal is ours for this freeze */
	struct ms_ksigaction second;   /* its action otherwise */
	struct image_arrival *arrival; /* set at the target */
	int pairs, pairs_end;          /* numbers that are lent */
	struct baggage *baggage;
	struct image_slot slot[IMAGE_THREADS_MAX];
};

extern struct image_state image__state __attribute__((visibility("hidden")));

/* Bytes from the arena, zeroed; NULL if it is full. */
void *baggage_alloc(struct baggage *c, size_t n);
const char *baggage_string(struct baggage *c, const char *s, size_t n);
struct baggage *baggage_create(void);
void baggage_destroy(struct baggage *c);

/* signals.c: of the process; undone by baggage_rearm, at whichever place. */
int baggage_signals(struct baggage *c, char why[IMAGE_WHY]);
void baggage_signal_drain(struct baggage *c, int tid); /* the caller's own pending signals */
void baggage_signals_return(struct baggage *c, int tid);
void baggage_timers_return(struct baggage *c);
int baggage_signals_restore(struct baggage *c, struct image_arrival *a); /* actions; timers, not yet running */

/* files.c */
int baggage_files(struct baggage *c, const struct image_source *src, const int *skip, int skips, char why[IMAGE_WHY]);
int baggage_files_return(struct baggage *c, struct image_arrival *a);

/* settings.c: of the calling thread. What the target does not permit stays as it is there. */
void settings_note(struct image_settings *s);
void settings_return(const struct image_settings *s, const struct baggage *c);

/* process.c */
int baggage_process(struct baggage *c, char why[IMAGE_WHY]);
int baggage_process_return(struct baggage *c, struct image_arrival *a);

/* freeze.c: every parked thread takes its own pending signals. */
void image_drain_threads(struct baggage *c);

/* Wait until every parked thread sleeps: only then may pages be read. 0, or -1 with why. */
int image_await_asleep(char why[IMAGE_WHY]);

#endif
