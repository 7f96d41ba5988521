/* SPDX-License-Identifier: MIT */
/* How the kernel runs a thread: on which processors, by which policy, with what when its parent ends. */
#include <linux/prctl.h>

#include "image/baggage.h"
#include "image/mem.h"

enum { IOPRIO_WHO_PROCESS = 1, CPUS = 64 * IMAGE_CPU_WORDS };

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

	for (int i = 0; i < IMAGE_CPU_WORDS; i++) {
		known |= c->online[i];
		missing |= c->online[i] & ~s->affinity[i];
	}
	return !known || missing;
}

static bool has(const uint64_t *set, int cpu)
{
	return set[cpu / 64] >> (cpu % 64) & 1;
}

/* The first of a set that is not below `cpu`; the end if there is none. */
static int next_of(const uint64_t *set, int cpu)
{
	while (cpu < CPUS && !has(set, cpu))
		cpu++;
	return cpu;
}

/*
 * What the program has chosen for a thread among the processors of its old home, for a new one of the same size: the nth
 * of those is the nth of these.  False: the whole new home, where the restorer is.
 */
static bool translate(const uint64_t *set, const uint64_t *home, const uint64_t *new_home, uint64_t *to)
{
	int from = next_of(home, 0), at = next_of(new_home, 0);

	if (!memcmp(set, home, IMAGE_CPU_WORDS * sizeof(*set)))
		return false;
	memset(to, 0, IMAGE_CPU_WORDS * sizeof(*to));
	while (from < CPUS && at < CPUS) {
		if (has(set, from))
			to[at / 64] |= 1ull << (at % 64);
		from = next_of(home, from + 1);
		at = next_of(new_home, at + 1);
	}
	return from == at; /* both at the end */
}

/* Of a process that the job's binding placed here and there. */
static bool is_at_home(const struct image_settings *s, const struct baggage *c)
{
	uint64_t any = 0, outside = 0;

	for (int i = 0; i < IMAGE_CPU_WORDS; i++) {
		any |= c->home[i];
		outside |= s->affinity[i] & ~c->home[i];
	}
	return any && !outside;
}

static void affinity_return(const struct image_settings *s, const struct image_settings *now, const struct baggage *c)
{
	uint64_t set[IMAGE_CPU_WORDS];

	if (is_at_home(s, c)) {
		if (translate(s->affinity, c->home, now->affinity, set))
			ms_sys3(SYS_sched_setaffinity, 0, sizeof(set), (long)set);
	} else if (is_bound(s, c)) {
		ms_sys3(SYS_sched_setaffinity, 0, sizeof(s->affinity), (long)s->affinity);
	}
}

void settings_return(const struct image_settings *s, const struct baggage *c)
{
	struct image_settings now;

	settings_note(&now);
	affinity_return(s, &now, c);
	if (s->sched.size && memcmp(&s->sched, &now.sched, sizeof(s->sched)))
		ms_sys3(SYS_sched_setattr, 0, (long)&s->sched, 0);
	if (s->io_priority >= 0 && s->io_priority != now.io_priority)
		ms_sys3(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, s->io_priority);
	ms_prctl(PR_SET_PDEATHSIG, s->death_signal, 0, 0, 0);
}
