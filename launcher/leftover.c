/* SPDX-License-Identifier: MIT */
#include "leftover.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "jobfiles.h"

static bool answers(const char *dir)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool good;

	good = (size_t)snprintf(to.sun_path, sizeof(to.sun_path), "%s/coord.sock", dir) < sizeof(to.sun_path) &&
	       fd >= 0 && !connect(fd, (struct sockaddr *)&to, sizeof(to));
	if (fd >= 0)
		close(fd);
	return good;
}

static bool lives(int pid)
{
	return pid > 0 && (!kill(pid, 0) || errno == EPERM);
}

/* Who might start another coordinator, and one that does not answer because it is ending. */
static bool read_pids(const char *dir, int *starter, int *coordinator)
{
	char path[PATH_MAX];
	json_t *job;
	bool good;

	snprintf(path, sizeof(path), "%s/job.json", dir);
	job = json_load_file(path, 0, NULL);
	good = job && !json_unpack(job, "{s:i, s:i}", "mpiexec", starter, "coordinator", coordinator);
	json_decref(job);
	return good;
}

static int take(const char *dir, const char *job, char *why, size_t size)
{
	int starter, coordinator;

	if (answers(dir)) {
		snprintf(why, size, "job %s of yours is running already", job);
	} else if (!read_pids(dir, &starter, &coordinator)) {
		snprintf(why, size, "job %s of yours is just starting, or was killed while it did: remove %s then", job,
			 dir);
	} else if (lives(starter) || lives(coordinator)) {
		snprintf(why, size, "job %s of yours is running already (process %d), or just ending", job,
			 lives(starter) ? starter : coordinator);
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
