/* SPDX-License-Identifier: MIT */
#include "ranks.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "proto/wire.h"

enum { RANKS_RANK_MAX = 0x3fffff, RANKS_WORLD_MAX = 0x3ff, RANKS_LIST_MAX = 1 << 20 };

static bool number(const char **at, unsigned long max, unsigned long *value)
{
	char *end;

	if (!isdigit((unsigned char)**at))
		return false;
	*value = strtoul(*at, &end, 10);
	*at = end;
	return *value <= max;
}

/* [WORLD.]RANK[-RANK] */
static bool item(const char **at, struct ranks *out)
{
	unsigned long world = 0, low, high;
	uint32_t *list;

	if (!number(at, RANKS_RANK_MAX, &low))
		return false;
	if (**at == '.') {
		world = low;
		(*at)++;
		if (world > RANKS_WORLD_MAX || !number(at, RANKS_RANK_MAX, &low))
			return false;
	}
	high = low;
	if (**at == '-') {
		(*at)++;
		if (!number(at, RANKS_RANK_MAX, &high) || high < low)
			return false;
	}
	if (out->count + (high - low) >= RANKS_LIST_MAX)
		return false;
	list = realloc(out->members, (out->count + (high - low) + 1) * sizeof(*list));
	if (!list)
		return false;
	out->members = list;
	for (unsigned long r = low; r <= high; r++)
		list[out->count++] = MS_MEMBER(world, r);
	return true;
}

int ranks_parse(const char *text, struct ranks *out)
{
	*out = (struct ranks){ NULL, 0 };
	for (;;) {
		if (!item(&text, out) || (*text && *text != ',')) {
			ranks_clear(out);
			return -1;
		}
		if (!*text)
			return 0;
		text++;
	}
}

void ranks_clear(struct ranks *r)
{
	free(r->members);
	*r = (struct ranks){ NULL, 0 };
}
