/* SPDX-License-Identifier: MIT */
/*
 * move.h - the member's part in its own move: drain, freeze, image, outcome; and going on at the target.
 */
#ifndef MSOCK_LIB_MOVE_H
#define MSOCK_LIB_MOVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "proto/codec.h"

struct conn;

enum { MOVE_FDS = 32768 };

enum move_phase {
	MOVE_NONE,
	MOVE_EARLY,  /* what may be sent while the member runs is being sent */
	MOVE_DRAIN,  /* streams ask, are flushed, are parked */
	MOVE_FROZEN, /* no thread runs but the mover; only the record ends this */
};

/* One at a time. */
struct move {
	enum move_phase phase;
	uint64_t m;
	uint8_t via; /* enum ms_via */
	uint32_t drain_ms, timeout_ms;
	char fault[64];
	bool check; /* only asked what it would take */
	char why[IMAGE_WHY];
	int image_fd; /* owned; at its other end is the restorer */
	bool aborted; /* D_OUTCOME came before the freeze */
	uint32_t drained, mirrored;
	uint64_t full;               /* a stream whose carry is full; 0: none */
	uint64_t full_read, full_ns; /* what the program had read of it, and since when */
	struct image_source source;
	struct image_stats stats;
	/* at the target */
	bool relinking;    /* not all streams are STEADY again */
	uint64_t stall_ns; /* the longest any stream could not be written */
};

extern struct move move;

/* D_MOVE, behind version and type, and the image connection, which becomes the mover's. Lock held. */
void move_begin(struct ms_codec *in, int image_fd);

/* D_OUTCOME while the mover is not frozen. Lock held. */
void move_outcome(uint64_t m, bool committed);

/* A stream became STEADY or is over, or a mirror's leg was released: are all? Lock held. */
void move_stream_steady(void);

/* move_say.c: to msdaemon. Lock held, or frozen; steps at any time. */
void move_say_failed(void); /* asks for ABORTED */
int move_say_frozen(void);
int move_say_sent(void);
void move_say_checked(const struct image_forecast *f);
void move_step(enum ms_step step, const uint64_t figures[MS_STEP_FIGURES]);
void move_step_done(enum ms_step step, uint64_t a, uint64_t b, uint64_t c); /* and the fault that was asked for here */

/* This conn's leg goes to a mirror, or is with one already. */
bool move_by_mirror(const struct conn *c);

/* image_source.resume: the member is at its target; MS_D_RESUME as it came. */
void move_resume(const void *message, size_t bytes);

#endif
