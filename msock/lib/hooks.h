/* SPDX-License-Identifier: MIT */
/*
 * hooks.h - what libmsock-preload.so asks of libmsock.so.
 *
 * All are async-signal-safe, keep errno, take no lock that an application
 * thread could hold, and may be called before msock_init and in processes
 * that are no members.
 */
#ifndef MSOCK_LIB_HOOKS_H
#define MSOCK_LIB_HOOKS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* The kick signal, a kernel number; the same for the life of the process. */
int msock__kick_signal(void);

/*
 * A counter of the calling thread, in initial-exec TLS: the preload adds one to
 * it when a handler of the application is entered.  An EINTR with it unchanged is
 * the kick's, whichever thread took that.
 */
volatile unsigned *msock__app_signals(void);

/*
 * The other way round: libmsock-preload.so brings it, and the kick handler
 * calls it as its last deed, all signals being blocked, with the context that
 * it returns to.  An application's signal that is delivered right behind the kick
 * finds the thread there, at a system call that the kick had restarted.
 */
void msock__kick_returns(const void *ucontext);

/*
 * Descriptors of the library itself (control socket, listener, epoll sets,
 * wake-ups, mirror links; not the virtual sockets): an application may
 * neither close nor replace them.  The smallest that is >= from, or -1.
 */
int msock__next_own_fd(int from);
bool msock__owns_fd(int fd);

/*
 * Called in the only thread of a forked child, before the application goes
 * on: the child is no member, has no agent, answers no kick, owns no
 * descriptor by msock__owns_fd.  Not called after vfork or posix_spawn, whose
 * child shares the member's memory until it execs.  A raw fork system call is
 * not seen by anyone: keep the word "I am the member" in a page with
 * MADV_WIPEONFORK, or compare the pid where it matters.
 */
void msock__after_fork_child(void);

/*
 * Around an exec: the streams that the new program will have are made the kernel's own, which may take a moment.  0, or
 * -errno: there is one that cannot be.  The process is not kicked any more, since a kick that waits then would find no
 * handler in the new program and end it.  The exec has failed: all is as before.
 */
int msock__before_exec(void);
void msock__exec_failed(void);

/* Before a fork, and in the parent after it, whatever came of it: what the child gets of the program's sockets goes on here. */
void msock__before_fork(void);
void msock__after_fork_parent(void);

/*
 * The program's own TCP sockets as virtual ones (sock.h).  A call that is none
 * of the library's business gives MSOCK__NOT_OURS: the C library's is to be
 * made.  Else 0 or more, or -errno.  None of them waits; a connect that is on
 * its way is -EINPROGRESS, and the number becomes writable; an accept with
 * nobody there -EAGAIN, and the number becomes readable.
 */
#define MSOCK__NOT_OURS INT_MIN

/* From now on; false: this process is no member. */
bool msock__sockets(bool on);

/*
 * socket() for TCP; close().  Done here, so that no freeze comes between the
 * kernel's part and ours: it would find a socket that nobody knows.
 */
int msock__sock_new(int domain, int type, int protocol);
int msock__sock_close(int fd);

/* An epoll set was made; a number was duplicated. */
void msock__epoll_made(int fd);

/* Somebody is to be told by a signal what happens on this number. */
void msock__sock_owned(int fd);
void msock__sock_duplicated(int fd);
/* A number is about to be added to an epoll set. */
void msock__sock_watched(int fd);

int msock__sock_bind(int fd, const struct sockaddr *addr, socklen_t size);
int msock__sock_listen(int fd, int backlog);
int msock__sock_connect(int fd, const struct sockaddr *addr, socklen_t size);
int msock__sock_connected(int fd);
int msock__sock_accept(int fd, int flags, struct sockaddr *addr, socklen_t *size);
int msock__sock_name(int fd, bool peer, struct sockaddr *addr, socklen_t *size);
int msock__sock_setopt(int fd, int level, int name, const void *value, socklen_t size);
int msock__sock_getopt(int fd, int level, int name, void *value, socklen_t *size);

bool msock__sock_is_stream(int fd);

/* What passes the bytes is a pair of unix sockets at present. */
bool msock__sock_is_paired(int fd);

/* The number is about to be closed or replaced: before the C library's call. */
void msock__sock_closing(int fd);
void msock__sock_closing_range(unsigned first, unsigned last);

/* Bytes for the program that are not in the file under its number. */
size_t msock__sock_carried(int fd);

/*
 * The process ends.  Sockets that the program has written to and no kernel has sent, which would be lost, and those
 * whose state is in doubt; 0: none, peers have been told what they have to know, and nothing is relinked any more.
 */
int msock__sock_leaving(void);

/*
 * The program's own UDP sockets (udp.h), by the same rules.  What has no name
 * in it is the kernel's call.  msock__udp_send takes the datagram or gives
 * -EAGAIN when the kernel has no room; msock__udp_received gives the sender's
 * virtual name in place of the real one, or false: a stranger's, who is not to
 * be shown to the program.  moves: what msock__udp_moves said before it was
 * received; what came before a move says nothing of where its sender is heard now.
 */
bool msock__udp_any(void); /* are there any? */
void msock__udp_new(int fd, int domain);
void msock__udp_duplicated(int fd);
bool msock__udp_is(int fd);
int msock__udp_bind(int fd, const struct sockaddr *addr, socklen_t size);
int msock__udp_connect(int fd, const struct sockaddr *addr, socklen_t size);
int msock__udp_name(int fd, bool peer, struct sockaddr *addr, socklen_t *size);
long msock__udp_send(int fd, const struct msghdr *msg, int flags);
unsigned long msock__udp_moves(void);
bool msock__udp_received(int fd, struct msghdr *msg, unsigned long moves);
void msock__udp_option(int fd, int level, int name);
void msock__udp_shut(int fd, int how);

/* What comes of a connect is known; each change adds one to the word, and wakes who sleeps on it (futex). */
bool msock__udp_settled(int fd);
const uint32_t *msock__udp_changes(void);

/* The socket's inode, 0: none of ours; how many datagrams of it (0: of all) wait for their way; its number will be closed. */
unsigned long msock__udp_inode(int fd);
unsigned msock__udp_unsent(unsigned long ino);
void msock__udp_closing(int fd);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
