/* SPDX-License-Identifier: MIT */
/* sock_direct.h - what sock_leave.c has of sock_direct.c. */
#ifndef MSOCK_LIB_SOCK_DIRECT_H
#define MSOCK_LIB_SOCK_DIRECT_H

#include "lib/leg_counts.h"
#include "lib/sock.h"

/* A descriptor of the library for the program's file, or -errno. */
int leg_dup(int number);
/* The leg as the library needs it. */
void leg_take(int leg);
/* Not direct any more: the stream's counts are by those of the leg. */
void sock_ends_direct(struct sock *s);
void sock_counts_end(struct sock *s, const struct leg_counts *n);
/* The kernel closes the leg; what the peer asks about the stream is answered by what is known of it now. */
void sock_bury(struct sock *s);
/* Another process has it too: would it end in order now? Then the counts of it are the stream's. */
bool sock_ends_in_order(struct sock *s, int fd);
/* Ours no more; another process has it. */
void sock_abandon(struct sock *s);

#endif
