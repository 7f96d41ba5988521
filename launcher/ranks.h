/* SPDX-License-Identifier: MIT */
/* ranks.h - lists of ranks as people write them: `2`, `0.2`, `1.0-3`, `0,2-3`. */
#ifndef LAUNCHER_RANKS_H
#define LAUNCHER_RANKS_H

#include <stddef.h>
#include <stdint.h>

struct ranks {
	uint32_t *members; /* MS_MEMBER(world, rank), in the order given */
	size_t count;
};

/* 0, or -1 if the text is no list. */
int ranks_parse(const char *text, struct ranks *out);
void ranks_clear(struct ranks *r);

#endif
