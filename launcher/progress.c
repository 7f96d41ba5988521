/* SPDX-License-Identifier: MIT */
#include "progress.h"

#include <stdbool.h>
#include <stdio.h>

#include "output.h"
#include "proto/wire.h"
#include "step.h"

enum { BAR_WIDTH = 30 };

static bool drawn;

static double megabytes(uint64_t bytes)
{
	return (double)bytes / 1e6;
}

static uint64_t figure(const Ms__Step *s, size_t i)
{
	return i < s->n_figures ? s->figures[i] : 0;
}

static void draw(const Ms__Step *s, uint64_t done, uint64_t of, const char *what)
{
	int filled = of ? (int)(done >= of ? BAR_WIDTH : done * BAR_WIDTH / of) : 0;
	char bar[BAR_WIDTH + 1];

	for (int i = 0; i < BAR_WIDTH; i++)
		bar[i] = i < filled ? '#' : ' ';
	bar[BAR_WIDTH] = 0;
	fprintf(stderr, "\r\033[Krank %u.%u [%s] %s", MS_MEMBER_WORLD(s->member), MS_MEMBER_RANK(s->member), bar, what);
	fflush(stderr);
	drawn = true;
}

/* What takes time: memory on its way. The rest is over before it can be read. */
static void draw_step(const Ms__Step *s)
{
	char text[80];

	switch (s->step) {
	case MS_STEP_SENDING:
		if (figure(s, 2) == 0)
			snprintf(text, sizeof(text), "%.0f of %.0f MB", megabytes(figure(s, 0)),
				 megabytes(figure(s, 1)));
		else
			snprintf(text, sizeof(text), "%.0f MB, round %u", megabytes(figure(s, 0)),
				 (unsigned)figure(s, 2) + 1);
		draw(s, figure(s, 0), figure(s, 1), text);
		break;
	case MS_STEP_ROUND:
		snprintf(text, sizeof(text), "written meanwhile: %.1f MB", megabytes(figure(s, 3)));
		draw(s, 1, 1, text);
		break;
	case MS_STEP_PARKED:
		draw(s, 1, 1, "frozen");
		break;
	case MS_STEP_RESUMED:
		draw(s, 1, 1, "goes on; its streams follow");
		break;
	default:
		break;
	}
}

void progress_step(enum progress_way way, const Ms__Step *s)
{
	json_t *o;

	if (way == PROGRESS_BAR)
		draw_step(s);
	if (way != PROGRESS_JSON)
		return;
	o = step_json(s);
	if (!o)
		return;
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
	output_flush();
	json_decref(o);
}

void progress_clear(enum progress_way way)
{
	if (way == PROGRESS_BAR && drawn) {
		fputs("\r\033[K", stderr);
		fflush(stderr);
	}
	drawn = false;
}
