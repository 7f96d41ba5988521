/* SPDX-License-Identifier: MIT */
#include "jobfiles.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

static const char *const names[] = { "coord.sock", "coord.next",    "metrics.sock", "job.json",
				     "job.next",   "journal.jsonl", "records.jsonl" };

int jobfiles_remove(const char *dir)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	return rmdir(dir);
}
