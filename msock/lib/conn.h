/* SPDX-License-Identifier: MIT */
/*
 * conn.h - a virtual TCP connection: a stream, its legs' descriptors, its carry, and its number.
 */
#ifndef MSOCK_LIB_CONN_H
#define MSOCK_LIB_CONN_H

#include <netinet/in.h>

#include "lib/carry.h"
#include "lib/leg.h"
#include "lib/stream.h"
#include "lib/vsock.h"

enum conn_phase {
	CONN_PLACE,  /* the other member's place is being asked for, or another try is due */
	CONN_DIAL,   /* CONNECT is on its way */
	CONN_HALF,   /* accepted here, ACCEPT sent, CONFIRM not seen; nobody is shown it */
	CONN_OPEN,   /* the stream's states count from here on */
	CONN_FAILED, /* the connect has failed: error says why */
};

struct listener;
struct mirror;
struct sock;

struct conn {
	struct vsock v;
	struct stream s;
	enum conn_phase phase;
	int error;                      /* of the connect, or of the end; errno value */
	struct sockaddr_in local, peer; /* virtual */
	uint32_t peer_member;
	char abroad[MS_CARD_MAX];  /* of a connect: the other job's card; "": within the job */
	int fd;                    /* the newest leg; the number v.sd as long as there is one; owned */
	int old_fd;                /* the older leg in BOTH, or -1; owned */
	struct watch leg, old_leg; /* while the engine reads them */
	struct dial dial;          /* of the connect, or of the next leg */
	struct carry carry;
	struct timer timer; /* repeats what is unanswered; the next try of a connect */
	uint32_t repeat_ms;
	uint64_t ended_ns; /* its peer has ended while we dial; 0: not seen yet */
	uint64_t told_ns;  /* when writers had to wait; 0: they need not */
	bool closed;       /* by the application: what comes in is dropped */
	bool dropped;      /* ... and something was */
	bool brief;        /* closed, and a sock's: the kernel's alone as soon as all is sent (rule 6) */
	bool leg_shut;     /* the program has shut the leg for reading, which looks readable all the time: by edges */
	bool leg_more;     /* ... and the last read did not empty it */
	bool late_shut;    /* our FIN did not go out on the newest leg: it had been reset */
	bool abort;        /* closing it resets the peer at once: the program had not read all, or wants it so */
	unsigned confirm_left; /* bytes of CONFIRM still to be read ahead of the stream's first */
	struct leg_reader confirm;
	struct listener *listener; /* borrowed; while HALF or in its queue */
	struct conn *queue_next;
	struct sock *sock;     /* borrowed; the program's socket, when it is not msock.h that made it */
	struct mirror *mirror; /* borrowed; of the leg that s.mirrored is about */
	uint32_t heir_of;      /* the member that had this end before, if the peer has not said that it knows */
	bool heir;             /* ... which is to be said until it has */
	unsigned heir_tries;
	uint32_t shared_by
		[2];        /* processes that hold the other end, as the peer said; 0: not said since the move began */
	bool shared_before; /* ... it had said so before: not frozen without its answer */
	uint32_t bound_by;  /* the process that has the other end, which is no member any more: there is no other leg */
	bool bound;         /* ours is about to be one, and the peer knows it; */
	uint64_t bound_ns;  /* ... or is to be told again then */
	uint64_t connect_until_ns; /* no more tries after this */
	uint64_t newer;            /* m that a place must have at least, after a refusal */
	uint32_t tries, request;
	struct conn *next, *prev; /* all of them */
	struct conn *hash_next;   /* by stream id */
};

struct conn *conn_first(void);

/* One end of a stream; a member that talks to itself has both, so `end` tells which. */
struct conn *conn_find(uint64_t stream, unsigned end);

/* For msock.h; -errno. */
struct conn *conn_connect(const struct sockaddr_in *to, int *error);

/* The same to an address of another job, whose card it is. */
struct conn *conn_connect_abroad(const char *card, const struct sockaddr_in *to, int *error);

/* From this port (0: any), without a number of the application's. */
struct conn *conn_connect_from(uint16_t port, const struct sockaddr_in *to, int *error);
ssize_t conn_readv(struct conn *c, const struct iovec *iov, int count);
ssize_t conn_writev(struct conn *c, const struct iovec *iov, int count);
ssize_t conn_send(struct conn *c, const void *bytes, size_t n, int flags);
int conn_shutdown(struct conn *c);
void conn_close(struct conn *c);

/* A connection came in with this CONNECT; fd becomes the conn's. ACCEPT has been sent. */
struct conn *conn_incoming(int fd, const struct leg_frame *frame, struct listener *listener);

/* A HELLO came in; conn_hello takes fd, whatever comes of it. */
bool conn_offers(const struct conn *c, const struct leg_frame *frame);
void conn_hello(struct conn *c, int fd, const struct leg_frame *frame);

/* A relink message of the peer. */
void conn_message(uint32_t from, const struct stream_msg *msg);

/* ... which waited, for this end. */
void conn_message_to(unsigned end, uint32_t from, const struct stream_msg *msg);

bool relink_decode(const void *bytes, size_t n, struct stream_msg *msg);

/* The address server's answer to a lookup. */
struct place;
void conn_placed(uint32_t request, const struct place *p);

/* At a freeze: an attempt without its answer is given up and made again after it (rule 31). */
void conn_connect_pause(struct conn *c);

/* A member of the job has ended (rule 29). */
void conn_member_ended(uint32_t member);

/* Register what is now to be watched, tell msock_wait what is there. After everything that changes something. */
void conn_sync(struct conn *c);

/* Bytes and end of the older leg from a mirror; offset is that of the first byte. False: not what was expected. */
bool conn_mirror_bytes(struct conn *c, uint64_t offset, const void *bytes, size_t n);
void conn_mirror_end(struct conn *c, uint64_t total, enum ms_mirror_end how);

/* A forked child has the number, and nothing behind it. */
void conn_forked(struct conn *c);

/* End everything about it but what the kernel still sends. */
void conn_destroy(struct conn *c);

#endif
