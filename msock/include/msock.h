/* SPDX-License-Identifier: MIT */
/*
 * msock.h - sockets whose process may move to another host while they talk.
 *
 * A virtual socket is named by a small integer that is also a kernel
 * descriptor of the process; the number stays the same for the socket's life,
 * whatever host the process is on.  Addresses are IPv4 and virtual: they
 * belong to the process and move with it.  A process that was not started by
 * an msdaemon (MSOCK_FD is not set) works alone: its addresses are real ones
 * and it cannot move.
 *
 * Errors: every function returns -1 and sets errno, unless it says otherwise.
 * All calls are non-blocking, except msock_init, msock_finalize and
 * msock_wait.  All may be called from any thread; none from a signal handler.
 * The caller keeps ownership of every buffer; none is used after the return.
 */
#ifndef MSOCK_H
#define MSOCK_H

#include <netinet/in.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
	MSOCK_READ = 1,  /* bytes, an end of file or a connection can be taken */
	MSOCK_WRITE = 2, /* bytes can be written; a connect has come to its end */
};

struct msock_event {
	int sd;          /* the virtual socket; -1 for a msock_wakeup */
	unsigned events; /* of MSOCK_READ and MSOCK_WRITE */
	void *user;      /* what msock_want was given */
};

/* Join the job.  Counted: each call wants its msock_finalize. */
int msock_init(void);
int msock_finalize(void);

/* The virtual address of this process, host byte order in no field. */
int msock_self(struct in_addr *addr);

/* Name of the host that the process is on now, NUL-terminated; changes with a move. */
int msock_hostname(char *name, size_t size);

/* What moving has cost this process so far. */
struct msock_stats {
	unsigned long long moves;     /* that were committed */
	unsigned long long frozen_ns; /* in all of them: no thread ran */
	unsigned long long relinks;   /* connections of its streams that were replaced, by own moves and the peers' */
	unsigned long long carried_bytes; /* that the library took from an old connection ahead of the application */
};
int msock_stats(struct msock_stats *stats);

/* Listen on a free port of the process's virtual address, given in *addr. */
int msock_listen(int backlog, struct sockaddr_in *addr);

/*
 * Start connecting; the socket becomes writable when that has come to its
 * end, and msock_error tells how.  One connect is seen by the caller however
 * often the library had to try while the other side was moving.
 */
int msock_connect(const struct sockaddr_in *to);

/*
 * Members of two jobs of a user may talk, too.  The addresses are each job's
 * own, so one of another job counts only with that job's card, a word of text
 * that also lets its holder in: give it to nobody else.  "" where the process
 * is no member of a job.  ERANGE: size is too small.
 *
 * msock_connect_job is msock_connect to an address of the job with that card;
 * with "" or the card of the own job just that.  The connect fails with
 * ECONNREFUSED when that job has ended or cannot be reached from here;
 * EHOSTUNREACH: this process is no member of a job.
 */
enum { MSOCK_JOB_MAX = 192 }; /* bytes of a card, NUL included */
int msock_job(char *card, size_t size);
int msock_connect_job(const char *card, const struct sockaddr_in *to);

/* Take a connection; EAGAIN if there is none. *from may be NULL. */
int msock_accept(int listener, struct sockaddr_in *from);

/* 0, or the errno value of the connect or of the stream's end. Does not set errno. */
int msock_error(int sd);

/* Bytes moved, 0 at end of file; EAGAIN if it would wait. */
ssize_t msock_readv(int sd, const struct iovec *iov, int count);
ssize_t msock_writev(int sd, const struct iovec *iov, int count);

/* End of file for the peer, after all that was written. */
int msock_shutdown(int sd);

/* What was written still reaches the peer. The number may be reused at once. */
int msock_close(int sd);

/*
 * Datagrams, unreliable as UDP is: one that is under way while a member moves
 * may be lost, what had arrived at a mover is not.
 * msock_want, msock_wait and msock_close are for these sockets as well.
 *
 * msock_udp_bind: to the port, or any with 0, of the process's own address or
 * of 0.0.0.0; *at becomes the whole virtual address.  EADDRINUSE, EADDRNOTAVAIL;
 * EINVAL if it is bound already.  A socket that sends or connects is bound by that.
 *
 * msock_udp_connect: the address that msock_udp_sendto sends to with `to` NULL;
 * only what comes from there is received.  In a member, ECONNREFUSED from the
 * next call after it has turned out that nobody is bound to it.
 */
int msock_udp_open(void);
int msock_udp_bind(int sd, struct sockaddr_in *at);
int msock_udp_connect(int sd, const struct sockaddr_in *to);
/* Bytes of the datagram; EAGAIN if it would wait. What is longer than the pieces is cut off. from may be NULL. */
ssize_t msock_udp_sendto(int sd, const struct iovec *iov, int count, const struct sockaddr_in *to);
ssize_t msock_udp_recvfrom(int sd, const struct iovec *iov, int count, struct sockaddr_in *from);

/* Say which events msock_wait shall report for sd; replaces what was said before. Level triggered. */
int msock_want(int sd, unsigned events, void *user);

/*
 * Wait until an event is there, at most timeout_ms (-1: for ever, 0: look
 * only).  Returns the number of events stored, 0 at the end of the time.
 * EINTR for signals that are the application's; now and then also when a signal
 * woke this thread and another one took it, as with poll(2): call again.
 */
int msock_wait(struct msock_event *events, int max, int timeout_ms);

/* Make a msock_wait that sleeps in another thread, or the next one, return an event with sd -1. */
void msock_wakeup(void);

#ifdef __cplusplus
}
#endif
#endif
