/* SPDX-License-Identifier: MIT */
/*
 * conn_ops.h - what the parts of a connection (conn.c, connect.c, relink.c) share.
 */
#ifndef MSOCK_LIB_CONN_OPS_H
#define MSOCK_LIB_CONN_OPS_H

#include "lib/conn.h"

/* conn.c */
struct conn *conn_create(enum conn_phase phase);
void conn_rename(struct conn *c, uint64_t stream, unsigned end);
void conn_leg_ready(struct watch *w, uint32_t events);
void conn_old_leg_ready(struct watch *w, uint32_t events);
void conn_linger_on(struct conn *c);
void conn_drain(struct conn *c);

/* connect.c */
void conn_half_ready(struct conn *c);
void conn_connect_again(struct conn *c);
void conn_connected(struct conn *c, int fd, int error, const struct leg_frame *answer);

/* relink.c */
extern const struct stream_ops conn_stream_ops;
void conn_ops_init(struct conn *c);
void conn_ops_carry_taken(struct conn *c);
void conn_ops_bury(struct conn *c);
enum { RELINK_MESSAGE = 96 }; /* bytes of the longest relink message */
size_t relink_encode(uint8_t buf[RELINK_MESSAGE], const struct stream_msg *msg);
void relink_say(uint32_t to, const struct stream_msg *msg);
void relink_forked(void); /* a forked child: what the ends said to each other is the parent's affair */

#endif
