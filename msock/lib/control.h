/* SPDX-License-Identifier: MIT */
/*
 * control.h - the control socket to the msdaemon: packets of wire.h out and in.
 */
#ifndef MSOCK_LIB_CONTROL_H
#define MSOCK_LIB_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/codec.h"
#include "proto/wire.h"

struct place;

/* M_HELLO, D_WELCOME: fills in core. Blocks. 0 or -errno. */
int control_attach(int fd);
/* M_SERVING, D_SERVING_OK. Blocks. 0 or -errno. */
int control_serve(void);
int control_fd(void);

/* From now on the engine reads it; at the target: again. */
void control_watch(void);
void control_close(void);

/* Start a packet in buf; the codec is left behind version and type. */
void control_begin(struct ms_codec *c, void *buf, size_t size, uint8_t type);

/* Send what was encoded; queued while the socket is full. */
void control_send(struct ms_codec *c, const void *buf);

/* One try, whatever else waits, without the lock: for what may be lost. 0 or -errno. */
int control_send_quick(struct ms_codec *c, const void *buf);

/* One try with a descriptor: 0 or -errno. */
int control_send_fd(struct ms_codec *c, const void *buf, int with);

/* Send, perhaps with a descriptor (passed, else -1), and wait for the packet of this type: what is behind version and type, and
   the descriptor that came with it or -1. Others wait until the engine runs. 0 or -errno. */
int control_call(struct ms_codec *out, const void *buf, int passed, uint8_t answer, struct ms_codec *in, int *with);

/* In a forked child: this is its control socket, or -1; nothing is known of what was on the parent's. */
void control_forked(int child_fd);

/* What comes does not kick the process, or does again. */
void control_quiet(bool quiet);

/* Is there something to read? */
bool control_has_come(void);

/* Read what there is, without the engine. */
void control_look(void);

/* The same at once and blocking, with descriptors: for the frozen mover. 0 or -errno. */
int control_send_now(struct ms_codec *c, const void *buf, const int *fds, unsigned count);

/* Wait until what waits to be sent is. For a process that ends. */
void control_flush_now(void);

/* Next packet, waiting at most so long: its length, 0 in time out, -errno. For the frozen mover. */
long control_receive(void *buf, size_t size, int timeout_ms);

/* Handle what came before control_watch: no kick tells of it. */
void control_catch_up(void);

/* Keep a packet that came while frozen; control_replay handles them after a thaw. */
void control_keep(const void *packet, size_t n);
void control_replay(void);

uint32_t control_request(void);
void control_lookup(uint32_t request, uint32_t virtual_ip, uint64_t newer);
/* card: the job in which that address is. */
void control_lookup_abroad(uint32_t request, uint32_t virtual_ip, const char *card);
void control_relay(uint32_t to, const void *bytes, size_t n);

#endif
