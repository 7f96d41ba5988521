/* SPDX-License-Identifier: MIT */
#include "step.h"

#include <stdio.h>
#include <string.h>

#include "proto/wire.h"

static const char *const figure_names[MS_STEP_COUNT][MS_STEP_FIGURES] = {
	[MS_STEP_RECORDED] = { "committed" },
	[MS_STEP_RESUMED] = { "freeze_ns" },
	[MS_STEP_RELINKED] = { "stall_ns", "drained", "mirrored" },
	[MS_STEP_UNMIRRORED] = { "mirror_ns" },
	[MS_STEP_REPORTED] = { "committed" },
	[MS_STEP_COLLECTED] = { "needs_bytes" },
	[MS_STEP_PASSED] = { "image_bytes" },
	[MS_STEP_LEFT] = { "committed" },
	[MS_STEP_SPAWNED] = { "pid" },
	[MS_STEP_CHECKED] = { "image_bytes" },
	[MS_STEP_WOKEN] = { "committed" },
	[MS_STEP_LOOKED] = { "areas" },
	[MS_STEP_SENDING] = { "bytes", "of_bytes", "round" },
	[MS_STEP_ROUND] = { "bytes", "pages", "ns", "left_bytes" },
	[MS_STEP_PARKED] = { NULL, "drained", "mirrored" },
	[MS_STEP_SENT] = { "pages", "zero_pages", "backed_pages", "faults" },
	[MS_STEP_ENTERED] = { "threads" },
	[MS_STEP_SUMMED] = { "pages", "zero_pages", "faults" },
};

json_t *step_json(const Ms__Step *s)
{
	const char *name = ms_step_name(s->step);
	char member[32];
	json_t *o;

	if (!*name)
		return NULL;
	snprintf(member, sizeof(member), "%u.%u", MS_MEMBER_WORLD(s->member), MS_MEMBER_RANK(s->member));
	o = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "step", name, "actor", ms_step_actor(s->step), "host",
		      s->host, "member", member, "m", (json_int_t)s->m, "mono_ns", (json_int_t)s->mono_ns, "wall_ns",
		      (json_int_t)s->wall_ns);
	for (size_t i = 0; o && i < s->n_figures && i < MS_STEP_FIGURES; i++)
		if (figure_names[s->step][i])
			json_object_set_new(o, figure_names[s->step][i], json_integer((json_int_t)s->figures[i]));
	return o;
}

enum ms_step step_of(const char *name)
{
	for (int i = MS_STEP_NONE + 1; i < MS_STEP_COUNT; i++)
		if (!strcmp(name, ms_step_name((enum ms_step)i)))
			return (enum ms_step)i;
	return MS_STEP_NONE;
}
