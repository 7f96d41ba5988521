/* SPDX-License-Identifier: MIT */
/*
 * kin.h - the forked children of members here.
 *
 * A member tells of each child before it forks, with the child's control socket
 * (lib/kin.h).  The child is nobody until it says HELLO there: then the
 * coordinator gives it a name, and it is a member like others, but without a
 * stub, a pump or an address of its own.  The socket's end is the child's: it
 * has ended, or is another program.
 */
#ifndef MSOCK_MSDAEMON_KIN_H
#define MSOCK_MSDAEMON_KIN_H

#include "msdaemon/daemon.h"
#include "proto/codec.h"

struct kin;
struct member;

/* MS_M_CHILD, LET_GO, ASK and ANSWER, of a member. */
void kin_packet(struct member *m, unsigned type, struct ms_codec *in, int *fds, unsigned count);

/* The coordinator's name for a child. */
void kin_named(struct daemon *d, const Ms__Named *n);

/* Another coordinator: ask again. */
void kin_again(struct daemon *d);

/* The member is gone: its children are told, and count as its parent's. */
void kin_member_gone(struct member *m);

/* A forked child has come here from where it was forked. */
void kin_arrived(struct member *m, uint32_t parent);

/* The member that msdaemon has started, of m's family; NULL: it has ended, or lives elsewhere. */
struct member *kin_root_of(struct member *m);

/* Whether it was forked, and by whom. */
bool kin_child_of(const struct member *m, uint32_t *parent);

/* The address that a member's family has. */
uint32_t kin_address(const struct member *m);

#endif
