/* SPDX-License-Identifier: MIT */
/* How the kernel runs a thread: on which processors, by which policy, with what when its parent ends. */
#include <linux/prctl.h>

#include "image/baggage.h"
#include "image/mem.h"

enum { IOPRIO_WHO_PROCESS = 1 };

void settings_note(struct image_settings *s)
{
	memset(s, 0, sizeof(*s));
	ms_sys3(SYS_sched_getaffinity, 0, sizeof(s->affinity), (long)s->affinity);
	if (ms_sys4(SYS_sched_getattr, 0, (long)&s->sched, sizeof(s->sched), 0))
		s->sched.size = 0;
	s->io_priority = (int)ms_sys2(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
	ms_prctl(PR_GET_PDEATHSIG, (long)&s->death_signal, 0, 0, 0);
}

/* A thread that may run on all of the source's processors is not bound to them. */
static bool is_bound(const struct image_settings *s, const struct baggage *c)
{
	uint64_t known = 0, missing = 0;

	for (int i = 0; i < 16; i++) {
		known |= c->online[i];
		missing |= c->online[i] & ~s->affinity[i];
	}
	return !known || missing;
}

void settings_return(const struct image_settings *s, const struct baggage *c)
{
	struct image_settings now;

	settings_note(&now);
	if (is_bound(s, c))
		ms_sys3(SYS_sched_setaffinity, 0, sizeof(s->affinity), (long)s->affinity);
	if (s->sched.size && memcmp(&s->sched, &now.sched, sizeof(s->sched)))
		ms_sys3(SYS_sched_setattr, 0, (long)&s->sched, 0);
	if (s->io_priority >= 0 && s->io_priority != now.io_priority)
		ms_sys3(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, s->io_priority);
	ms_prctl(PR_SET_PDEATHSIG, s->death_signal, 0, 0, 0);
}
