/* SPDX-License-Identifier: MIT */
/*
 * mirror.h - the member's links to mirrors, which hold its older legs on hosts that it has left.
 */
#ifndef MSOCK_LIB_MIRROR_H
#define MSOCK_LIB_MIRROR_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"

struct conn;
struct mirror;

/* A mirror that took legs over in this move, at ip:port; its legs are added next, then it is attached to. */
struct mirror *mirror_create(uint32_t ip, uint16_t port, const uint8_t key[MS_TOKEN]);
bool mirror_add(struct mirror *m, struct conn *c);

/* After a move the links of the former place are gone; attach, also again. */
void mirror_detach_all(void);
/* In a forked child: they are the parent's. */
void mirror_forked(void);
void mirror_attach_all(void);

/* For the conn's older leg: the peer is told; the leg is settled; it took in more. */
void mirror_halfclose(struct conn *c);
void mirror_release(struct conn *c);
void mirror_ack(struct conn *c);

unsigned mirror_count(void); /* that hold legs of ours */
int mirror_own_fds(int *fds, int max);

#endif
