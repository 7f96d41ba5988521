/* SPDX-License-Identifier: MIT */
/*
 * msrank-trace - turns the records of a job's moves into a trace for Perfetto
 * or chrome://tracing.
 *
 *   msrank-trace [--output FILE] JOB|RECORDS
 *
 * Each step becomes a bar from the same actor's step before it; above them one
 * bar for each move and its phases.  Times are CLOCK_REALTIME's of each host.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/helpers.h"
#include "step.h"

enum { LINE_MAX_BYTES = 1 << 20, PID_MOVES = 1, PID_HOSTS = 2 };

static const char usage[] = "usage: msrank-trace [--output FILE] JOB|RECORDS\n"
			    "Writes the records of a job's moves as a trace (Chrome's JSON format, for Perfetto too).\n"
			    "JOB: a running one of yours. RECORDS: a file that was kept with MSOCK_RECORDS.\n";

/* Times of one move, in ns; 0: not seen. */
struct course {
	char key[160]; /* job, member, m */
	uint64_t at[MS_STEP_COUNT];
	uint64_t actor_at[8]; /* last step of each */
	char from[64], to[64];
};

struct trace {
	json_t *events;
	struct course *courses;
	size_t count;
	char hosts[64][64]; /* pid PID_HOSTS + index */
	size_t host_count;
	uint64_t lines;
};

static const char *const actors[] = { "coordinator", "source daemon", "target daemon", "member", "restorer" };

static int actor_index(const char *name)
{
	for (size_t i = 0; i < sizeof(actors) / sizeof(*actors); i++)
		if (!strcmp(name, actors[i]))
			return (int)i;
	return -1;
}

static struct course *course_of(struct trace *t, const char *key)
{
	struct course *more;

	for (size_t i = t->count; i-- > 0;)
		if (!strcmp(t->courses[i].key, key))
			return &t->courses[i];
	more = realloc(t->courses, (t->count + 1) * sizeof(*more));
	if (!more) {
		fputs("msrank-trace: out of memory\n", stderr);
		exit(1);
	}
	t->courses = more;
	memset(&more[t->count], 0, sizeof(*more));
	snprintf(more[t->count].key, sizeof(more->key), "%s", key);
	return &more[t->count++];
}

/* What: process_name, thread_name. */
static void label(struct trace *t, const char *what, int pid, int tid, const char *name)
{
	json_array_append_new(t->events, json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "name", what, "ph", "M", "pid", pid,
						   "tid", tid, "args", "name", name));
}

/* The rows of the moves come first, then hosts in their order. */
static void label_process(struct trace *t, int pid, const char *name)
{
	label(t, "process_name", pid, 0, name);
	json_array_append_new(t->events, json_pack("{s:s, s:s, s:i, s:i, s:{s:i}}", "name", "process_sort_index", "ph",
						   "M", "pid", pid, "tid", 0, "args", "sort_index", pid));
}

static int host_pid(struct trace *t, const char *name)
{
	size_t most = sizeof(t->hosts) / sizeof(t->hosts[0]);

	if (!*name)
		name = "launch host";
	for (size_t i = 0; i < t->host_count; i++)
		if (!strcmp(t->hosts[i], name))
			return PID_HOSTS + (int)i;
	if (t->host_count == most)
		return PID_HOSTS + (int)most - 1;
	snprintf(t->hosts[t->host_count], sizeof(t->hosts[0]), "%s", name);
	label_process(t, PID_HOSTS + (int)t->host_count, name);
	return PID_HOSTS + (int)t->host_count++;
}

/* Takes args. In whole microseconds a bar ends exactly where the next one begins; viewers draw those that overlap one in the other. */
static void bar(struct trace *t, const char *name, int pid, int tid, uint64_t from_ns, uint64_t to_ns, json_t *args)
{
	json_int_t from = (json_int_t)(from_ns / 1000), to = (json_int_t)(to_ns / 1000);
	json_t *e = json_pack("{s:s, s:s, s:i, s:i, s:I, s:I}", "name", name, "ph", "X", "pid", pid, "tid", tid, "ts",
			      from, "dur", to > from ? to - from : 0);

	if (args)
		json_object_set_new(e, "args", args);
	json_array_append_new(t->events, e);
}

static void take_step(struct trace *t, json_t *line, const char *name)
{
	const char *job = "", *actor = "", *host = "", *member = "";
	json_int_t m = 0, wall = 0;
	enum ms_step step = step_of(name);
	struct course *c;
	uint64_t since;
	char key[160];
	int who;

	if (json_unpack(line, "{s?s, s:s, s:s, s:s, s:I, s:I}", "job", &job, "actor", &actor, "host", &host, "member",
			&member, "m", &m, "wall_ns", &wall))
		return;
	who = actor_index(actor);
	if (who < 0 || step == MS_STEP_NONE)
		return;
	snprintf(key, sizeof(key), "%.80s rank %.24s move %lld", job, member, (long long)m);
	c = course_of(t, key);
	c->at[step] = (uint64_t)wall;
	since = c->actor_at[who] ? c->actor_at[who] : (uint64_t)wall;
	c->actor_at[who] = (uint64_t)wall;
	bar(t, name, host_pid(t, host), who + 1, since, (uint64_t)wall, json_incref(line));
}

static void take_record(struct trace *t, json_t *line)
{
	const char *job = "", *member = "", *from = "", *to = "";
	struct course *c;
	json_int_t m = 0;
	char key[160];

	if (json_unpack(line, "{s:s, s:s, s:I, s:s, s:s}", "job", &job, "member", &member, "m", &m, "from", &from, "to",
			&to))
		return;
	snprintf(key, sizeof(key), "%.80s rank %.24s move %lld", job, member, (long long)m);
	c = course_of(t, key);
	snprintf(c->from, sizeof(c->from), "%s", from);
	snprintf(c->to, sizeof(c->to), "%s", to);
}

/* The bars above all: what a person asks for first. */
static void phases(struct trace *t, const struct course *c, int tid)
{
	static const struct {
		const char *name;
		enum ms_step from, to;
	} phase[] = {
		{ "set-up", MS_STEP_ACCEPTED, MS_STEP_ORDERED },    { "pre-copy", MS_STEP_ORDERED, MS_STEP_DRAINED },
		{ "freeze", MS_STEP_PARKED, MS_STEP_RESUMED },      { "relink", MS_STEP_RESUMED, MS_STEP_RELINKED },
		{ "mirror", MS_STEP_RELINKED, MS_STEP_UNMIRRORED },
	};
	char name[400];

	if (!c->at[MS_STEP_ACCEPTED])
		return;
	snprintf(name, sizeof(name), "%s: %s to %s", c->key, *c->from ? c->from : "?", *c->to ? c->to : "?");
	label(t, "thread_name", PID_MOVES, tid, name);
	if (c->at[MS_STEP_REPORTED])
		bar(t, "move", PID_MOVES, tid, c->at[MS_STEP_ACCEPTED], c->at[MS_STEP_REPORTED], NULL);
	for (size_t i = 0; i < sizeof(phase) / sizeof(*phase); i++)
		if (c->at[phase[i].from] && c->at[phase[i].to] > c->at[phase[i].from])
			bar(t, phase[i].name, PID_MOVES, tid, c->at[phase[i].from], c->at[phase[i].to], NULL);
}

static void name_rows(struct trace *t)
{
	label_process(t, PID_MOVES, "moves");
	for (size_t h = 0; h < t->host_count; h++)
		for (size_t a = 0; a < sizeof(actors) / sizeof(*actors); a++)
			label(t, "thread_name", PID_HOSTS + (int)h, (int)a + 1, actors[a]);
	for (size_t i = 0; i < t->count; i++)
		phases(t, &t->courses[i], (int)i + 1);
}

/* A line that cannot be read may be the last of a coordinator that was killed. */
static void read_lines(struct trace *t, FILE *f)
{
	static char line[LINE_MAX_BYTES];

	while (fgets(line, sizeof(line), f)) {
		json_t *o = json_loads(line, 0, NULL);
		const char *step = NULL;

		if (!o)
			continue;
		t->lines++;
		if (!json_unpack(o, "{s:s}", "step", &step))
			take_step(t, o, step);
		else
			take_record(t, o);
		json_decref(o);
	}
}

/* A file's name, or a job's of ours: its records. */
static FILE *open_records(const char *what, char *name, size_t size)
{
	char dir[2048];
	FILE *f;

	helpers_rundir(dir, sizeof(dir));
	snprintf(name, size, "%s/%s/records.jsonl", dir, what);
	f = strchr(what, '/') ? NULL : fopen(name, "re");
	if (f)
		return f;
	snprintf(name, size, "%s", what);
	return fopen(name, "re");
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "output", required_argument, NULL, 'o' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	struct trace t = { .events = json_array() };
	const char *output = NULL;
	char name[4400];
	json_t *all;
	FILE *f;
	int opt;

	while ((opt = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
		if (opt == 'o') {
			output = optarg;
			continue;
		}
		fputs(usage, opt == 'h' ? stdout : stderr);
		return opt != 'h';
	}
	if (argc - optind != 1) {
		fputs(usage, stderr);
		return 1;
	}
	f = open_records(argv[optind], name, sizeof(name));
	if (!f) {
		fprintf(stderr, "msrank-trace: %s is neither a running job of yours nor a file of records: %s\n",
			argv[optind], strerror(errno));
		return 1;
	}
	read_lines(&t, f);
	fclose(f);
	name_rows(&t);
	if (!t.count) {
		fprintf(stderr, "msrank-trace: %s tells of no move\n", name);
		return 1;
	}
	all = json_pack("{s:o, s:s}", "traceEvents", t.events, "displayTimeUnit", "ms");
	if (!all || (output ? json_dump_file(all, output, JSON_COMPACT) : json_dumpf(all, stdout, JSON_COMPACT)) ||
	    fflush(stdout)) {
		fprintf(stderr, "msrank-trace: cannot write %s: %s\n", output ? output : "the trace", strerror(errno));
		return 1;
	}
	json_decref(all);
	free(t.courses);
	return 0;
}
