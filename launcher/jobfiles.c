/* SPDX-License-Identifier: MIT */
#include "jobfiles.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

static const char *const names[] = { "coord.sock", "coord.next",    "metrics.sock", "job.json",
				     "job.next",   "journal.jsonl", "records.jsonl" };

static void unlink_from(const char *dir, size_t first)
{
	char path[PATH_MAX];

	for (size_t i = first; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
}

int jobfiles_remove(const char *dir)
{
	unlink_from(dir, 0);
	return rmdir(dir);
}

void jobfiles_clear(const char *dir)
{
	unlink_from(dir, 1);
}
