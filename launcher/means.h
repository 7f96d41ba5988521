/* SPDX-License-Identifier: MIT */
/*
 * means.h - ranks' shares of the work, over the last looks at a job.
 *
 * What a rank used lately depends on how quickly the job goes on, which a move or a foreign program changes from one look
 * to the next; its share of what all ranks used does not.  So shares are averaged, and the loads are told as they are by
 * now: those of a rank that has just moved and of one that has long been watched are of the same time.
 */
#ifndef LAUNCHER_MEANS_H
#define LAUNCHER_MEANS_H

#include <stddef.h>
#include <stdint.h>

#include "proto/control.pb-c.h"

struct mean { /* of a rank, over what was seen since its last move */
	uint32_t member;
	char host[256];
	double sum; /* of shares, all ranks' being 1 */
	unsigned count;
	double before;        /* its share on the host where it was before; 0: not known */
	unsigned refusals;    /* in a row; the owner's, as the next one */
	double rests_until_s; /* by the owner's clock: not tried before */
};

struct means {
	struct mean *list; /* means_clear */
	size_t count;
};

/* Made if there is none yet. Good until the next one is made. */
struct mean *means_of(struct means *all, uint32_t member);
/* Takes the loads in, and puts the averaged ones in their place; -1: of a rank that nothing is known of. */
void means_note(struct means *all, const Ms__PsReply *p);
void means_clear(struct means *all);

#endif
