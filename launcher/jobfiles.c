/* SPDX-License-Identifier: MIT */
#include "jobfiles.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
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

int jobfiles_dial(const char *dir)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd, keep;

	if ((size_t)snprintf(to.sun_path, sizeof(to.sun_path), "%s/coord.sock", dir) >= sizeof(to.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || !connect(fd, (struct sockaddr *)&to, sizeof(to)))
		return fd;
	keep = errno;
	close(fd);
	errno = keep;
	return -1;
}

int jobfiles_pid(const char *dir, const char *who)
{
	char path[PATH_MAX], key[32], text[512] = "";
	const char *at = NULL;
	int pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/job.json", dir);
	snprintf(key, sizeof(key), "\"%s\":", who);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fgets(text, sizeof(text), f))
		at = strstr(text, key);
	fclose(f);
	if (at)
		sscanf(at + strlen(key), "%d", &pid);
	return pid;
}

bool jobfiles_lives(int pid)
{
	return pid > 0 && (!kill(pid, 0) || errno == EPERM);
}
