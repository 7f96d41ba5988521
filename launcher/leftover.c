/* SPDX-License-Identifier: MIT */
#include "leftover.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "jobfiles.h"

/* Who might start another coordinator, and one that does not answer because it is ending, are looked for too. */
static int take(const char *dir, const char *job, char *why, size_t size)
{
	int starter = jobfiles_pid(dir, "mpiexec"), coordinator = jobfiles_pid(dir, "coordinator");
	int fd = jobfiles_dial(dir);

	if (fd >= 0) {
		close(fd);
		snprintf(why, size, "job %s of yours is running already", job);
	} else if (!starter || !coordinator) {
		snprintf(why, size, "job %s of yours is just starting, or was killed while it did: remove %s then", job,
			 dir);
	} else if (jobfiles_lives(starter) || jobfiles_lives(coordinator)) {
		snprintf(why, size, "job %s of yours is running already (process %d), or just ending", job,
			 jobfiles_lives(starter) ? starter : coordinator);
	} else {
		jobfiles_clear(dir);
		return 0;
	}
	return -1;
}

/* Of two that find it at once one shall not take away what the other has made; the second one finds no job.json. */
int leftover_take(const char *dir, const char *job, char *why, size_t size)
{
	const char *slash = strrchr(dir, '/');
	char parent[PATH_MAX];
	int lock, rc;

	snprintf(parent, sizeof(parent), "%.*s", (int)(slash - dir), dir);
	lock = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX)) {
		snprintf(why, size, "cannot lock %s: %s", parent, strerror(errno));
		rc = -1;
	} else {
		rc = take(dir, job, why, size);
	}
	if (lock >= 0)
		close(lock);
	return rc;
}
