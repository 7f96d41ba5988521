/* SPDX-License-Identifier: MIT */
#include "allocation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "proto/log.h"
#include "proto/net.h"

struct allocation {
	char job_word[64]; /* --jobid=N */
	char text[512];
	char **nodes;
	size_t count;
	bool inside; /* we run on one of its nodes, not where salloc was called */
};

static void take_node(struct allocation *a, const char *name)
{
	a->nodes = realloc(a->nodes, (a->count + 1) * sizeof(*a->nodes));
	if (!a->nodes || !(a->nodes[a->count++] = strdup(name)))
		log_die("out of memory");
}

/* Slurm's own program knows what node1[0-3,7] means; it reads SLURM_JOB_NODELIST itself and asks nobody. */
static bool read_nodes(struct allocation *a)
{
	FILE *list = popen("scontrol show hostnames </dev/null", "re");
	char line[256];
	int status;

	while (list && fgets(line, sizeof(line), list)) {
		line[strcspn(line, "\n")] = 0;
		if (*line)
			take_node(a, line);
	}
	status = list ? pclose(list) : -1;
	return status == 0 && a->count > 0;
}

void allocation_find(struct coord *c)
{
	const char *id = getenv("SLURM_JOB_ID"), *nodes = getenv("SLURM_JOB_NODELIST");
	struct allocation *a;

	if (!id || !*id || !nodes || !*nodes)
		return;
	a = calloc(1, sizeof(*a));
	if (!a)
		log_die("out of memory");
	snprintf(a->job_word, sizeof(a->job_word), "--jobid=%.40s", id);
	snprintf(a->text, sizeof(a->text), "the Slurm allocation %.40s (%.400s)", id, nodes);
	a->inside = getenv("SLURMD_NODENAME") != NULL;
	if (!read_nodes(a))
		coord_fail(c, "cannot tell the nodes of %s: scontrol does not work", a->text);
	c->allocation = a;
}

bool allocation_has(const struct coord *c, const char *host, uint32_t ip)
{
	const struct allocation *a = c->allocation;

	if (!a || (a->inside && net_is_own(ip)))
		return true;
	for (size_t i = 0; i < a->count; i++)
		if (!strcmp(a->nodes[i], host))
			return true;
	return false;
}

const char *allocation_text(const struct coord *c)
{
	return c->allocation->text;
}

/*
 * One step for each daemon, beside what else runs there: --overlap takes nothing from the job's other steps, and without
 * --exact the step has all that the job has of the node.  The step must not bind: the ranks in it are many.
 */
size_t allocation_shell(const struct coord *c, char **argv, char *node)
{
	static const char *const words[] = { "srun",       "--nodes=1", "--ntasks=1",     "--overlap",
					     "--mpi=none", "--quiet",   "--cpu-bind=none" };
	size_t n = 0;

	for (; n < sizeof(words) / sizeof(*words); n++)
		argv[n] = (char *)words[n];
	argv[n++] = c->allocation->job_word;
	for (size_t i = 0; i < c->launch_count; i++)
		argv[n++] = c->launch_args[i];
	argv[n++] = (char *)"--nodelist";
	argv[n++] = node;
	return n;
}
