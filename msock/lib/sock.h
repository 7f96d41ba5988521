/* SPDX-License-Identifier: MIT */
/*
 * sock.h - a TCP socket that the program made itself, and what stands under its number.
 *
 * The program keeps a real kernel socket under its number, so that every call
 * on descriptors works that the kernel knows, whoever makes it: a TCP socket
 * as long as it is neither connected nor listening; one end of a pair of unix
 * sockets from then on.  The other end of the pair is the library's, which
 * passes the bytes on between it and the stream (sock_pump.c).  So a change
 * of the stream's connection changes nothing under the number, and a move
 * makes the pair again with what was in it (sock_move.c).  While nothing
 * changes the connection itself stands there (sock_direct.c).
 *
 * A socket is found by the inode of the file under a number, not by the
 * number: duplicates, closes and numbers used again need no book-keeping.
 * The end of the last of them is seen at the library's end of the pair.
 * What has no library's end any more is put away when somebody looks for
 * room (sock_sweep).
 *
 * Lock held in all of these but those of hooks.h (sock_calls.c).
 */
#ifndef MSOCK_LIB_SOCK_H
#define MSOCK_LIB_SOCK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/carry.h"
#include "lib/engine.h"

enum sock_kind {
	SOCK_IS_IDLE,     /* the program's TCP socket; perhaps bound to a virtual address */
	SOCK_IS_LISTENER, /* readable as long as a connection waits */
	SOCK_IS_STREAM,
};

enum sock_urgency {
	SOCK_URGENT_NONE,
	SOCK_URGENT_WAITS, /* the byte at urgent_at is to be given as urgent */
	SOCK_URGENT_READ,  /* ... has been read by the program, and is to be left out */
};

/* Who is told by a signal what comes on a file. */
struct sock_owner {
	int type, id; /* F_GETOWN_EX; id 0: nobody */
	int signal;   /* F_GETSIG */
};

/* What a look at a leg's urgent byte found. */
struct sock_urgent {
	int ahead;   /* bytes ahead of it */
	bool marked; /* there is one */
	bool waits;  /* the program has not read it */
};

enum { SOCK_BUFFER = 65536 }; /* bytes passed on at once */

struct conn;
struct listener;
struct stat;
struct stream_msg;

/* An option that the program has set; read back and made again from here. */
struct sock_option {
	struct sock_option *next;
	int level, name;
	socklen_t size;
	uint8_t value[];
};

/* A number under which the program has it; known while the process is frozen only. */
struct sock_number {
	struct sock_number *next;
	int fd;
	bool cloexec;
};

struct sock {
	uint64_t ino; /* of the file under the program's numbers */
	enum sock_kind kind;
	int domain, protocol;           /* as given to socket() */
	int number;                     /* one that it had; checked before it is used */
	int closing;                    /* one in the range that is about to be closed */
	bool bound, wildcard;           /* wildcard: bound to no address in particular */
	bool duplicated;                /* there may be several numbers */
	bool watched;                   /* an epoll set of the program may have it */
	uint16_t port;                  /* virtual, host order; 0: none yet */
	struct sockaddr_in local, peer; /* of a stream */
	int error;                      /* for SO_ERROR */
	struct sock_option *options;    /* owned */

	struct listener *listener; /* owned */
	struct conn *conn;         /* owned; NULL: the stream is over and put away */
	int fd;                    /* the library's end, owned; -1: there is none (any more) */
	struct watch watch;
	struct carry in;  /* for the program, ahead of what the conn carries */
	struct carry out; /* of the program, that no leg has taken yet */
	uint64_t given;   /* place in the stream of the next byte for the program; while paired */
	enum sock_urgency urgent;
	uint64_t urgent_at; /* its place in the stream */
	size_t out_urgent;  /* the urgent byte's place in out, from 1; 0: there is none */
	bool urgent_comes;  /* on the leg, and is not held back (sock_is_settling) */
	bool urgent_said;   /* this pair has had one: when it has been read, SIOCOUTQ still counts it */
	size_t filler;      /* bytes in the pair that keep a connecting socket from being writable */
	bool out_end;       /* the program writes no more: this is all */
	bool fin_said;      /* ... and the stream knows */
	bool read_shut;     /* the program has shut it for reading: it has its end, what comes is kept */
	bool deaf;          /* the program reads no more */
	bool failed;        /* a write to the leg had an error, of which the leg says nothing more to the program */
	bool end_said;      /* the program has been shown the end of file */
	bool reset_said;    /* ... or an error */
	bool error_waits;   /* ... which it has not read; known while the process is frozen */
	bool gone;          /* no number is left, or it is shut both ways */
	bool reap;          /* sock_reap has something to do */

	bool direct;         /* the leg is under the program's numbers; fd is -1 then, conn->fd a number, borrowed */
	bool shared;         /* a forked child may have the program's end of the pair: not direct any more */
	bool forked, wide;   /* a child of ours, or any process, may have the leg too: kin_holder tells */
	bool inherited;      /* a forked child has it from its parent: it is the member `owner`'s */
	bool noticed;        /* the peer has been told, since that lasts */
	bool let_go, rivals; /* ... who does not hold it any more; others may think that they are its heirs */
	bool foreign;        /* a forked child's: what is behind the number is in another process */
	uint32_t belongs_to;
	int owner_pid;  /* as /proc has it; what we know of both may be from before the owner let go */
	unsigned born;  /* kin_forks() when it came: earlier children do not have it */
	bool want_swap; /* to be made direct, or paired, when the threads are parked */
	bool pull_more; /* the pair was not read to its end */
	unsigned swap_tries;
	uint64_t swap_after_ns;                /* no try before */
	uint64_t written_before, taken_before; /* direct: the stream's counts less the leg's own */

	struct sock_number *numbers; /* owned; while frozen */
	int flags;                   /* F_GETFL */
	bool owned;                  /* somebody may be told by a signal */
	struct sock_owner owner;     /* while frozen */
	struct sock *next, *prev, *hash_next;
};

/* sock.c */
struct sock *sock_first(void);
struct sock *sock_find(int fd);
struct sock *sock_find_inode(uint64_t ino);
struct sock *sock_create(int fd, int domain, int protocol);
void sock_rename(struct sock *s, uint64_t ino);
void sock_destroy(struct sock *s);

/* Free what no number is left of, if there is reason to believe that there is much. */
void sock_sweep(void);

/* Put a file under every number of s that has the file with this inode; fd is one of them. */
void sock_replace_file(const struct sock *s, uint64_t ino, int fd, int file);

/* Put a pair under every number of s; the library's end is s->fd. 0 or -errno. */
int sock_make_pair(struct sock *s, int fd);
int sock_pair_open(struct sock *s, int *app);
bool sock_pair_take(struct sock *s, int *app); /* at the target: one that was made before the freeze */
void sock_close_own(struct sock *s);
void sock_lose_own(struct sock *s);
void sock_adopt_own(struct sock *s, int fd);
void sock_recount(void);

/* Call for every descriptor of the process that is a socket and not the library's; still: as in fds.h. */
void sock_each_number(bool still, void (*call)(int fd, const struct stat *st, void *arg), void *arg);

/* A number that it has now, or -1. */
int sock_number(struct sock *s);

bool sock_port_taken(uint16_t port, const struct sock *but);

/* sock_pump.c */
void sock_ready(struct watch *w, uint32_t events);
void sock_leg_ready(struct sock *s, uint32_t events);
void sock_sync(struct sock *s);
void sock_refill(struct sock *s);           /* no thread runs: what was taken out of the pair lies in it again */
bool sock_wants_leg(const struct sock *s);  /* may the engine read the leg for it? */
bool sock_wants_room(const struct sock *s); /* has it bytes for the leg that did not fit? */
void sock_fill(struct sock *s, int app);    /* not writable until sock_unfill */
void sock_listener_tell(struct sock *s);
void sock_free_port(uint16_t port); /* of sockets that the program has closed */
bool sock_unsent(struct sock *s);   /* bytes of the program that no kernel has, and that TCP would send */

/* sock_direct.c; no lock held in sock_swap */
void sock_consider(struct sock *s);          /* could it be direct now? then sock_swap will make it so */
bool sock_is_settling(const struct sock *s); /* it is to be direct as soon as its pair is empty */
void sock_pull_later(void);
bool sock_swap_due(void);
void sock_swap(void); /* by the agent or the mover */
/* By the mover, no lock held: the program's threads stand still, as far as they can be stopped, and the lock is held. */
void sock_stand_still(void);
void sock_go_on(void);                               /* the lock is given */
bool sock_pair_all(void);                            /* have all paired; true: all are */
bool sock_accept_direct(struct sock *s, int number); /* a fresh number that no thread knows; false: make a pair */
void sock_direct_lost(struct sock *s);
void sock_forget_swap(struct sock *s);
bool sock_hold(struct conn *c, uint32_t from, const struct stream_msg *msg); /* true: it waits, or is lost */
void sock_forked(void); /* in a forked child; no conn is left but those of direct streams */

/* sock_leave.c */
void sock_closing(struct sock *s, int fd); /* the program is about to close this number */
void sock_closing_range(unsigned first, unsigned last);
bool sock_is_unread(const struct conn *c); /* the program has not read all: for its peer its end is a reset */
void sock_leave_all(void);                 /* the process is about to end */

/* sock_urgent.c */
bool sock_at_mark(int fd);
void sock_inline(int fd, int on);
bool sock_is_inline(int fd);
void sock_note_mark(struct sock *s, int leg);
void sock_urgent_look(int leg, struct sock_urgent *u);
void sock_urgent_keep(struct sock *s, const struct sock_urgent *u);
size_t sock_until_urgent(const struct sock *s, size_t n);
bool sock_urgent_waits(int fd);
bool sock_urgent_comes(int fd);

/* sock_owner.c */
void sock_owner_note(int fd, struct sock_owner *o);
void sock_owner_set(int fd, const struct sock_owner *o);
void sock_owner_copy(int from, int to);
void sock_owner_clear(int fd);
void sock_owner_tell(int fd); /* of what has come before fd had its owner; all threads are parked */

/* sock_opt.c */
int sock_option_set(struct sock *s, int fd, int level, int name, const void *value, socklen_t size);
int sock_option_get(struct sock *s, int fd, int level, int name, void *value, socklen_t *size);
bool sock_options_copy(struct sock *to, const struct sock *from);
void sock_options_apply(const struct sock *s, int fd, bool pair);
bool sock_option_resets(const struct sock *s);  /* SO_LINGER says that a close is a reset */
bool sock_option_lingers(const struct sock *s); /* ... or that it waits */
void sock_options_free(struct sock *s);

/* sock_calls.c: in a forked child; false: the program's sockets are the kernel's */
bool sock_calls_forked(void);

/* sock_move.c: the mover, all threads parked; sock_settle behind it, when the streams know where they are */
int sock_freeze(void);
void sock_thaw(void);
void sock_hold_numbers(void); /* ahead of sock_resume: the library's ends keep theirs */
void sock_resume(void);
void sock_settle(void);
int sock_own_fds(int *fds, int max);
const int *sock_all_fds(size_t *count); /* behind sock_freeze: all that the process has; NULL: not known */
uint32_t sock_pairs(void); /* that a target will want, and some for those that come while it is made ready */

#endif
