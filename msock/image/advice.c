/* SPDX-License-Identifier: MIT */
/* What the process has told the kernel of its memory: the VmFlags of /proc/self/smaps. */
#include <errno.h>

#include "image/mem.h"
#include "image/proc.h"
#include "image/say.h"
#include "image/workspace.h"

enum { TEXT = WORKSPACE_MAPS / 2 };

static const struct {
	char flag[2];
	uint16_t advice;
} flags[] = {
	{ "dc", IMAGE_ADVICE_DONTFORK },      { "wf", IMAGE_ADVICE_WIPEONFORK }, { "mg", IMAGE_ADVICE_MERGEABLE },
	{ "hg", IMAGE_ADVICE_HUGE },          { "nh", IMAGE_ADVICE_NOHUGE },     { "dd", IMAGE_ADVICE_DONTDUMP },
	{ "sr", IMAGE_ADVICE_SEQUENTIAL },    { "rr", IMAGE_ADVICE_RANDOM },     { "lo", IMAGE_ADVICE_LOCKED },
	{ "lf", IMAGE_ADVICE_LOCK_ON_FAULT }, { "sl", IMAGE_ADVICE_SEALED },
};

/* "rd wr mr mw me ac hg \n" */
static uint16_t flags_parse(const char *s, bool *shadow)
{
	uint16_t advice = 0;

	for (; *s >= 'a' && s[1] >= 'a'; s += 2 + (s[2] == ' ')) {
		for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
			if (s[0] == flags[i].flag[0] && s[1] == flags[i].flag[1])
				advice |= flags[i].advice;
		*shadow |= s[0] == 's' && s[1] == 's';
	}
	return advice;
}

static int run_add(struct workspace *ws, uint64_t start, uint64_t end, uint16_t advice)
{
	struct advice_run *last = ws->advice_count ? &ws->advice[ws->advice_count - 1] : NULL;

	if (!advice || start < (last ? last->end : 0)) /* a list that is read while it changes */
		return 0;
	if (last && last->end == start && last->advice == advice) {
		last->end = end;
		return 0;
	}
	if (ws->advice_count == IMAGE_AREAS_MAX)
		return image_say(ws->why, "more than %d mappings", IMAGE_AREAS_MAX);
	ws->advice[ws->advice_count++] = (struct advice_run){ start, end, advice };
	return 0;
}

/* One line: the head of a mapping, or a field of it. */
static int line_take(struct workspace *ws, const char *line, struct proc_map *map)
{
	bool shadow = false;
	uint16_t advice;

	if ((*line >= '0' && *line <= '9') || (*line >= 'a' && *line <= 'f')) {
		const char *at = line;

		proc_map_next(&at, map);
		return 0;
	}
	if (memcmp(line, "VmFlags: ", 9))
		return 0;
	advice = flags_parse(line + 9, &shadow);
	if (shadow)
		return image_say(ws->why, "mapping at %x: a shadow stack cannot move", map->start);
	return run_add(ws, map->start, map->end, advice);
}

/* Whole lines are taken as they come; what is left of the last one stays in front. */
static int lines_take(struct workspace *ws, char *text, size_t *have, struct proc_map *map)
{
	size_t from = 0;

	for (size_t i = 0; i < *have; i++) {
		if (text[i] != '\n')
			continue;
		text[i] = 0;
		if (line_take(ws, text + from, map))
			return -1;
		from = i + 1;
	}
	memmove(text, text + from, *have - from);
	*have -= from;
	return 0;
}

int advice_read(struct workspace *ws)
{
	int fd = ms_open("/proc/self/smaps", O_RDONLY | O_CLOEXEC, 0);
	char *text = ws->maps + WORKSPACE_MAPS - TEXT; /* what names the areas lies in front */
	struct proc_map map = { 0 };
	size_t have = 0;
	long n;

	ws->advice_count = 0;
	if (fd < 0)
		return fd == -ENOENT ? 0 : image_say(ws->why, "cannot read /proc/self/smaps: %e", fd);
	while ((n = ms_read(fd, text + have, TEXT - have - 1)) > 0) {
		have += (size_t)n;
		text[have] = 0;
		if (lines_take(ws, text, &have, &map))
			break;
	}
	ms_close(fd);
	return n < 0 ? image_say(ws->why, "cannot read /proc/self/smaps: %e", (int)n) : n ? -1 : 0;
}

uint16_t advice_of(const struct workspace *ws, uint64_t start, uint64_t end)
{
	uint32_t low = 0, high = ws->advice_count;

	while (low < high) {
		uint32_t mid = (low + high) / 2;

		if (ws->advice[mid].end <= start)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == ws->advice_count || ws->advice[low].start > start || ws->advice[low].end < end)
		return 0;
	return ws->advice[low].advice;
}
