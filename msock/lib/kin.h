/* SPDX-License-Identifier: MIT */
/*
 * kin.h - a member that forks, and its forked children.
 *
 * After a fork both processes have the streams that were direct (sock.h): the
 * kernel's socket is theirs together, and no byte passes through anybody.  The
 * *owner* of a stream is the member that its peer speaks to.  It stays the
 * parent until the parent closes its last number while a child has the stream
 * open; the parent then lets go, and that child becomes a member and owner,
 * which it tells the peer (HEIR).  Who has a stream open is asked of the kernel
 * (holders.h).  As long as two processes have it, it is not relinked: its state
 * is what it was at the fork, in both memories.
 *
 * A child starts without an engine, an agent and a name.  What it has is a
 * control socket, made by its parent before the fork: by HELLO on it it becomes
 * a member (kin_join), when it listens, connects, accepts or owns a stream.
 * Its addresses are its ancestor's that msdaemon started, the *root*: all
 * listeners of a family are there, whoever made them, and a child asks the root
 * for what it accepts.
 *
 * Lock held in all of these.
 */
#ifndef MSOCK_LIB_KIN_H
#define MSOCK_LIB_KIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/codec.h"

struct conn;
struct image_source;
struct listener;
struct sock;
struct stream_msg;

/* Around a fork, from which the child comes without other threads.  True: something was said to it before it could be
 * kicked. */
void kin_fork_begin(void);
void kin_fork_parent(void);
bool kin_fork_child(void);

/* A stream of the program was made or became ours: who is forked from now on may have it. */
unsigned kin_forks(void);

/* Become a member, unless this is one. Waits for msdaemon. 0 or -errno. */
int kin_join(void);

/* In a child that is no member: what its control socket says. */
void kin_look(void);

/* Another process that has this stream, 0: none. */
int kin_holder(struct sock *s);

/* Our last number of this stream is being closed; true: a child has it, which becomes its owner. */
bool kin_lets_go(struct sock *s, int number);

/* The process that forked us, as /proc has it. */
int kin_parent(void);

/* D_LET_GO; stream 0: all that were that member's, which has ended. */
void kin_let_go(uint64_t stream, uint32_t owner, unsigned others);

/* A child's listeners are the root's. 0 or -errno; a connection or NULL with *err. */
int kin_listen(struct sock *s, int fd, unsigned backlog);
struct conn *kin_accept(int fd, int *err);

/* D_ASKED; takes `with`. */
void kin_asked(struct ms_codec *in, int with);

/*
 * kin_heir.c. A stream was let go: how its peer is answered; ino 0: member is its owner.
 * in_order: its counts are known, and it would end in order now.
 */
void kin_note_heir(const struct conn *c, uint64_t ino, uint32_t member, bool in_order);
void kin_heirs_forked(void);

/* An end was closed here in order: tell those who may be asked for it later; own: also the peer, when we have ended. */
void kin_last_word(const struct conn *c, bool own);

/* D_LAST */
void kin_on_last(struct ms_codec *in);

/* The other end is this member's. */
void kin_set_peer(struct conn *c, uint32_t member);

/* Say to the peer that this end is ours now, and again until it has answered. */
void kin_say_heir(struct conn *c);

/* MS_RL_HEIR: the peer's end has another owner, or an end of ours that we have let go. */
void kin_heir(uint32_t from, const struct stream_msg *msg);

/* Answer that it cannot be done: this process and another one have the stream. */
void kin_say_shared(uint32_t to, const struct stream_msg *msg, int pid);

/* A relink message that is about whose an end is, or how many hold it: true. */
bool kin_message(struct conn *c, uint32_t from, const struct stream_msg *msg);

/* ... for a stream that a child has: true, the child answers, or it was answered here. */
bool kin_answers(uint32_t from, const struct stream_msg *msg);

/* MS_RL_BOUND for a stream that is not here: true, it was one, and is answered. */
bool kin_bound_dead(uint32_t from, const struct stream_msg *msg);

/*
 * kin_exec.c. Before an exec: each stream that the new program will have is direct, and its peer knows that it will
 * not be relinked.  The first that is not, or NULL: try again, the engine works at it.
 */
struct conn *kin_exec_waits(void);

/* It has failed. */
void kin_exec_failed(void);

/* D_ENDED. A conn has become steady: who waits for a connection may have it now. */
void kin_member_ended(uint32_t member);
void kin_steady(struct conn *c);

/* Why the member must not move: 0, or -1 and the reason; 1: that is not known yet, unless it is late. */
int kin_refuses(bool late, char *why, size_t size);

/* A child's first move: from now on it offers legs. */
void kin_serve_legs(void);

/* kin_shares.c. What a forked child has together with another process, which would part them: 0, or -1 and the reason. */
int kin_shares(const struct image_source *src, char *why, size_t size);

#endif
