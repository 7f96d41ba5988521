/* SPDX-License-Identifier: MIT */
#include "msdaemon/figures.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Opens ROOT/DIR/NAME. */
static FILE *open_at(const char *root, const char *dir, const char *name)
{
	char path[2 * FIGURES_PATH];

	if ((size_t)snprintf(path, sizeof(path), "%s%s/%s", root, dir, name) >= sizeof(path))
		return NULL;
	return fopen(path, "re");
}

/* A file that holds one number; fallback if there is none. */
static double read_number(const char *root, const char *dir, const char *name, double fallback)
{
	FILE *f = open_at(root, dir, name);
	double value;

	if (!f)
		return fallback;
	if (fscanf(f, "%lf", &value) != 1)
		value = fallback;
	fclose(f);
	return value;
}

/* The number behind a word at the begin of a line. */
static double read_item(const char *root, const char *dir, const char *name, const char *word, double fallback)
{
	FILE *f = open_at(root, dir, name);
	char line[512];
	size_t n = strlen(word);

	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, word, n))
			continue;
		fallback = strtod(line + n, NULL);
		break;
	}
	if (f)
		fclose(f);
	return fallback;
}

static bool is_controller(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (;;) {
		size_t word = strcspn(list, ",");

		if (word == n && !strncmp(list, name, n))
			return true;
		if (!list[word])
			return false;
		list += word + 1;
	}
}

/* The directory of our group under a controller, as far as it is to be seen here. */
static void find_group(const char *root, const char *controller, char *dir, bool *v2)
{
	FILE *f = open_at(root, "/proc/self", "cgroup");
	char line[FIGURES_PATH];

	*dir = 0;
	while (f && fgets(line, sizeof(line), f)) {
		char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

		if (!path)
			continue;
		line[strcspn(line, "\n")] = 0;
		*path++ = 0;
		if (!strcmp(path, "/"))
			continue;
		if (is_controller(list + 1, controller)) {
			snprintf(dir, FIGURES_PATH, "/sys/fs/cgroup/%s%.400s", list + 1, path);
			*v2 = false;
			break;
		}
		if (!list[1]) { /* the one hierarchy of version 2; a version 1 controller goes before it */
			snprintf(dir, FIGURES_PATH, "/sys/fs/cgroup%.400s", path);
			*v2 = true;
		}
	}
	if (f)
		fclose(f);
}

/* Processors that the group may use; 0: as many as there are. */
static double cpu_quota(const struct figures *f, const char *root)
{
	double quota, period;
	FILE *max;

	if (!*f->cpu_group)
		return 0;
	if (!f->v2) {
		quota = read_number(root, f->cpu_group, "cpu.cfs_quota_us", -1);
		period = read_number(root, f->cpu_group, "cpu.cfs_period_us", 100000);
		return quota > 0 && period > 0 ? quota / period : 0;
	}
	max = open_at(root, f->cpu_group, "cpu.max");
	if (!max)
		return 0;
	if (fscanf(max, "%lf %lf", &quota, &period) != 2) /* "max 100000" */
		quota = 0;
	fclose(max);
	return quota > 0 && period > 0 ? quota / period : 0;
}

static double machine_cores(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? (double)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
}

/* The name of a group, behind the hierarchy that is mounted for version 1's controllers. */
static const char *group_name(const char *dir)
{
	return strchr(dir + strlen("/sys/fs/cgroup/"), '/');
}

/* Version 1 has a controller of its own for what was used, mounted with the other or apart; its group is to be the same one. */
static void find_used(struct figures *f, const char *root)
{
	bool v2 = true;

	*f->used_group = 0;
	if (!*f->cpu_group || f->v2)
		return;
	find_group(root, "cpuacct", f->used_group, &v2);
	if (v2 || strcmp(group_name(f->used_group), group_name(f->cpu_group)) != 0)
		*f->used_group = 0;
}

void figures_open(struct figures *f, const char *root)
{
	char boot[64] = "";
	FILE *id = open_at(root, "/proc/sys/kernel/random", "boot_id");

	*f = (struct figures){ .busy = -1, .pressure = -1, .at_s = -1 };
	if (id) {
		if (!fgets(boot, sizeof(boot), id))
			*boot = 0;
		boot[strcspn(boot, "\n")] = 0;
		fclose(id);
	}
	find_group(root, "memory", f->memory_group, &f->memory_v2);
	find_group(root, "cpu", f->cpu_group, &f->v2);
	f->cores = machine_cores();
	if (cpu_quota(f, root) <= 0) /* nothing is gained by looking at the group alone: others load its processors */
		*f->cpu_group = 0;
	find_used(f, root);
	snprintf(f->machine, sizeof(f->machine), "%.40s%.100s", boot, f->cpu_group);
}

/* Seconds of processor time used so far. */
static double used_s(const struct figures *f, const char *root)
{
	unsigned long long user = 0, nice = 0, sys = 0, idle = 0, wait = 0, irq = 0, soft = 0, steal = 0;
	FILE *stat;

	if (*f->cpu_group && f->v2)
		return read_item(root, f->cpu_group, "cpu.stat", "usage_usec ", 0) / 1e6;
	if (*f->cpu_group && *f->used_group)
		return read_number(root, f->used_group, "cpuacct.usage", 0) / 1e9;
	stat = open_at(root, "/proc", "stat");
	if (!stat)
		return 0;
	if (fscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &sys, &idle, &wait, &irq, &soft,
		   &steal) < 3)
		user = nice = sys = 0;
	fclose(stat);
	return (double)(user + nice + sys + irq + soft) / (double)sysconf(_SC_CLK_TCK);
}

/* "some avg10=1.23 ..." */
static double pressure(const struct figures *f, const char *root)
{
	if (*f->cpu_group && f->v2)
		return read_item(root, f->cpu_group, "cpu.pressure", "some avg10=", -1);
	return read_item(root, "/proc/pressure", "cpu", "some avg10=", -1);
}

static void memory(struct figures *f, const char *root)
{
	double total = read_item(root, "/proc", "meminfo", "MemTotal:", 0) * 1024;
	double left = read_item(root, "/proc", "meminfo", "MemAvailable:", 0) * 1024;
	double limit = 0, used = 0;

	if (*f->memory_group) {
		limit = read_number(root, f->memory_group, f->memory_v2 ? "memory.max" : "memory.limit_in_bytes", 0);
		used = read_number(root, f->memory_group, f->memory_v2 ? "memory.current" : "memory.usage_in_bytes", 0);
	}
	if (limit > 0 && limit < total) {
		total = limit;
		left = limit - used < left ? limit - used : left;
	}
	f->memory_bytes = (uint64_t)total;
	f->free_bytes = left > 0 ? (uint64_t)left : 0;
}

void figures_update(struct figures *f, const char *root)
{
	double quota = cpu_quota(f, root), cores = machine_cores(), used = used_s(f, root), now;
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
	if (f->at_s >= 0 && now > f->at_s)
		f->busy = used > f->used_s ? (used - f->used_s) / (now - f->at_s) : 0;
	f->used_s = used;
	f->at_s = now;
	f->cores = quota > 0 && quota < cores ? quota : cores;
	f->runnable = (uint32_t)read_item(root, "/proc", "stat", "procs_running ", 0);
	f->pressure = pressure(f, root);
	memory(f, root);
}
